"""Who this gateway is: a private key that never leaves it, and the certificate that the server's authority gave for it.

Everything lies in one folder, `{data_dir}/identity/`: `key.pem` (P-256, readable by its owner alone), `cert.pem`, `ca.pem`,
and `token`, which the server's HTTP API takes. A new set replaces the old one as a whole: a power cut halfway leaves the old
set, or the new one as soon as somebody looks (`load`)."""

from __future__ import annotations

import os
import shutil
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from edge_agent.tls_dates import OwnTime, dated_context
from edge_agent.updates import write_durably
from protocol.errors import BadIdentity, BadSettings, Reason

KEY, CERTIFICATE, AUTHORITY, TOKEN = "key.pem", "cert.pem", "ca.pem", "token"
FILES = (KEY, CERTIFICATE, AUTHORITY, TOKEN)
NEXT = "next"
NEEDS = "identities need the cryptography library: pip install 'millwright[identity]'"


@dataclass(frozen=True)
class Identity:
    """One set of files that belong together. not_before, not_after: when the certificate holds, in UTC."""

    folder: Path
    gateway: str
    certificate_pem: bytes
    authority_pem: bytes
    token: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def load(cls, folder: Path) -> Identity | None:
        """The identity in `folder`, None where the gateway was never enrolled. Raises BadSettings for files that cannot be
        used; they are then replaced by enrolling again."""
        _finish(folder)
        if not (folder / CERTIFICATE).exists():
            return None
        try:
            from cryptography import x509
            from cryptography.x509.oid import NameOID
        except ModuleNotFoundError as error:
            raise BadSettings(NEEDS) from error
        try:
            pem = (folder / CERTIFICATE).read_bytes()
            certificate = x509.load_pem_x509_certificate(pem)
            (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            return cls(
                folder=folder,
                gateway=str(name.value),
                certificate_pem=pem,
                authority_pem=(folder / AUTHORITY).read_bytes(),
                token=(folder / TOKEN).read_text(encoding="ascii").strip() if (folder / TOKEN).exists() else "",
                not_before=certificate.not_valid_before_utc,
                not_after=certificate.not_valid_after_utc,
            )
        except (OSError, ValueError, x509.InvalidVersion) as error:
            raise BadSettings(f"the identity in {folder} cannot be used: {error}; enrol this gateway again") from error

    @property
    def renew_after(self) -> datetime:
        """Two thirds of the certificate's life."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3

    def due(self, now: datetime) -> bool:
        """Whether to ask for a new certificate. A clock that is behind the certificate is wrong, so it cannot tell: ask."""
        return not self.not_before - timedelta(hours=1) <= now < self.renew_after

    def sign(self, payload: bytes) -> bytes:
        """ECDSA P-256 with SHA-256 over `payload`, as DER. Raises BadSettings if the key cannot be used."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key((self.folder / KEY).read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadSettings(f"cannot use {self.folder / KEY}: {error}; enrol this gateway again") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise BadSettings(f"{self.folder / KEY} is no P-256 key; enrol this gateway again")
        return key.sign(payload, ec.ECDSA(hashes.SHA256()))


def vouched(authority_pem: bytes, certificate_pem: bytes, signature: bytes, payload: bytes) -> str:
    """The name in a certificate that `authority_pem` issued, whose key signed `payload` (ECDSA P-256 with SHA-256, DER).
    Raises BadIdentity. Dates are not looked at: this gateway's clock may be the one that is wrong."""
    try:
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ModuleNotFoundError as error:
        raise BadSettings(NEEDS) from error
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_pem))
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise BadIdentity(Reason.BAD_CERTIFICATE, "no certificate of this gateway's authority") from error
    key = certificate.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise BadIdentity(Reason.UNSIGNED, "altered: the signature is not of what it says") from error
    return str(name.value)


def replace(folder: Path, *, key: bytes, certificate: bytes, authority: bytes, token: str) -> None:
    """Puts a new set in the place of the old one. Raises OSError where the disk does not take it: the old one stays."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = folder / f"{NEXT}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    for name, body in ((KEY, key), (CERTIFICATE, certificate), (AUTHORITY, authority), (TOKEN, token.encode())):
        (part / name).touch(mode=0o600)
        secret = os.open(part / name, os.O_WRONLY)
        with os.fdopen(secret, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
    part.rename(folder / NEXT)
    _flush(folder)
    _finish(folder)


def write_secret(path: Path, body: bytes) -> None:
    """A file for its owner alone, whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = os.umask(0o077)
    try:
        write_durably(path, body)
    finally:
        os.umask(before)


def context(
    authority: Path | None, certificate: Path | None, key: Path | None, time: OwnTime | None = None
) -> ssl.SSLContext:
    """How to speak TLS: only with hosts that `authority` vouches for (None: the system's authorities), showing `certificate`.
    `time` judges dates where the machine's clock cannot. Raises BadSettings for files that cannot be used."""
    try:
        made = dated_context(None if authority is None else str(authority), time)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            made.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(one) for one in (authority, certificate, key) if one is not None)
        raise BadSettings(f"cannot use {files} for TLS: {error}") from error
    return made


def _finish(folder: Path) -> None:
    """Moves what is whole and waiting into place; does nothing where nothing waits."""
    waiting = folder / NEXT
    if not waiting.is_dir():
        return
    for name in FILES:
        if (waiting / name).exists():
            (waiting / name).replace(folder / name)
    _flush(folder)
    waiting.rmdir()


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
