"""The server's own certificate authority: who may call himself by the name of a gateway.

What it keeps to:
- it signs a name and a key, and nothing else that a request asks for: a request with any extension, any second name, or any
  key but P-256 is refused, not mended
- a gateway's certificate names one gateway (`strict_name`), is good for being a client and nothing else, and lives a month
- a broker's and the server's own certificates are made here, never from a request
- names that begin with `millwright-` are the server's; no gateway can have one
- certificates of hosts, and the authority's own, hold since 1970, so that a gateway whose clock has fallen back to 1970 still
  checks who it talks to; that a certificate was not yet made at some time protects nobody
Profile after RFC 5280; keys are P-256 with SHA-256, which every TLS library of the last ten years has."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.errors import BadIdentity, BadName, BadSettings, Reason
from protocol.names import strict_name
from server.registry import write_artifact

CA_KEY, CA_FILE, CRL_FILE = "ca.key", "ca.pem", "crl.pem"
MOST_REQUEST_BYTES = 8_000
AUTHORITY_LIVES, HOST_LIVES, SERVER_LIVES = timedelta(days=20 * 365), timedelta(days=5 * 365), timedelta(days=5 * 365)
BACKDATED = timedelta(hours=1)
"""A gateway whose clock is a little behind must not find its new certificate not yet valid."""
EVER_SINCE = datetime(1970, 1, 1, tzinfo=UTC)
OURS = "millwright-"
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_SHA256 = hashes.SHA256()


UNREADABLE_CERTIFICATE = (
    ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, x509.ExtensionNotFound,
    x509.DuplicateExtension,
)  # fmt: skip
"""What the cryptography library raises for certificates and requests that are damaged, strange or not of their issuer."""


@dataclass(frozen=True)
class Issued:
    """A certificate as its issuer books it. key_digest: SHA-256 of the public key (SubjectPublicKeyInfo), hex."""

    name: str
    serial: str
    pem: bytes
    key_digest: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True)
class Terms:
    """How long a gateway's certificate lives, and for how long after its end its owner may still ask for the next one."""

    lives: timedelta = timedelta(days=30)
    grace: timedelta = timedelta(days=365)


@dataclass(frozen=True)
class CA:
    """The authority: its key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    terms: Terms = Terms()

    @classmethod
    def make(cls, folder: Path, now: datetime, terms: Terms = Terms()) -> CA:
        """A new authority in a folder that has none. Raises BadSettings where one lies there: its gateways would be lost."""
        if (folder / CA_KEY).exists() or (folder / CA_FILE).exists():
            raise BadSettings(f"{folder} holds an authority already; a new one would shut out every enrolled gateway")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _named(f"{OURS}ca")
        usage = _usage(certificates=True)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(EVER_SINCE)
            .not_valid_after(now + AUTHORITY_LIVES)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, _SHA256)
        )
        write_key(folder / CA_KEY, key)
        write_artifact(folder, CA_FILE, certificate.public_bytes(Encoding.PEM))
        return cls(key, certificate, terms)

    @classmethod
    def load(cls, folder: Path, terms: Terms = Terms()) -> CA:
        """The authority in `folder`. Raises BadSettings where there is none or its files do not belong together."""
        try:
            key = load_pem_private_key((folder / CA_KEY).read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
        except OSError as error:
            raise BadSettings(
                f"cannot read {error.filename}: {error.strerror}; `millwright server ca init` makes an authority"
            ) from error
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise BadSettings(f"{folder} holds no usable authority: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise BadSettings(f"{folder / CA_KEY} is not the key of {folder / CA_FILE}")
        return cls(key, certificate, terms)

    @property
    def pem(self) -> bytes:
        """What everybody else is given."""
        return self.certificate.public_bytes(Encoding.PEM)

    def sign_request(self, request_pem: bytes, gateway: str, now: datetime) -> Issued:
        """The certificate for a gateway's own key. Raises BadIdentity unless the request asks for `gateway` and nothing
        else."""
        return self.client(requested(request_pem, gateway), gateway, now, self.terms.lives)

    def client(self, key: ec.EllipticCurvePublicKey, name: str, now: datetime, lives: timedelta) -> Issued:
        """A certificate to be a client with. The caller has made sure that `name` may be used."""
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(key, name, now - BACKDATED, now + lives, purposes, hosts=None)

    def host(self, key: ec.EllipticCurvePublicKey, hosts: Sequence[str], now: datetime) -> Issued:
        """A certificate for a broker's or the API's TLS, for these host names and addresses. Raises BadSettings for one that
        is neither."""
        names = x509.SubjectAlternativeName([_host(one) for one in hosts])
        return self._issue(key, f"{OURS}host", EVER_SINCE, now + HOST_LIVES, [ExtendedKeyUsageOID.SERVER_AUTH], names)

    def revocations(self, revoked: Iterable[tuple[str, datetime]], now: datetime) -> bytes:
        """The list of revoked serials (hex), as PEM. It lives as long as the authority: a broker refuses everybody when its
        list has run out, and a list that nobody renewed must not stop a fleet."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATED)
            .next_update(self.certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
            .add_extension(_issuer_id(self.key), critical=False)
        )
        for serial, when in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(when).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, _SHA256).public_bytes(Encoding.PEM)

    def verify(self, certificate_pem: bytes, signature: bytes, payload: bytes, now: datetime) -> str:
        """The gateway that signed `payload` (`Identity.sign`). A certificate counts for its grace beyond its end, because
        what was signed on a line without a network arrives late. Whether it was revoked is in the database
        (`server.enrolment.signed_by`). Raises BadIdentity."""
        certificate = self.read(certificate_pem, now)
        key = certificate.public_key()
        try:
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise InvalidSignature
            key.verify(signature, payload, ec.ECDSA(_SHA256))
        except InvalidSignature as error:
            raise BadIdentity(Reason.UNSIGNED, "the signature is not that of the certificate's key") from error
        return name_of(certificate)

    def read(self, certificate_pem: bytes, now: datetime) -> x509.Certificate:
        """A gateway's certificate of this authority, within its life and grace. Raises BadIdentity."""
        if len(certificate_pem) > MOST_REQUEST_BYTES:
            raise BadIdentity(Reason.TOO_LARGE, f"a certificate has at most {MOST_REQUEST_BYTES} bytes")
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            certificate.verify_directly_issued_by(self.certificate)
            purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except UNREADABLE_CERTIFICATE as error:
            raise BadIdentity(Reason.BAD_CERTIFICATE, "no certificate of this server's authority") from error
        if list(purposes) != [ExtendedKeyUsageOID.CLIENT_AUTH]:
            raise BadIdentity(Reason.BAD_CERTIFICATE, "the certificate is not a client's")
        name = name_of(certificate)
        if now < certificate.not_valid_before_utc - BACKDATED:
            raise BadIdentity(
                Reason.BAD_CERTIFICATE, f"{name}'s certificate is not yet valid; check the server's clock"
            )
        if now > certificate.not_valid_after_utc + self.terms.grace:
            raise BadIdentity(
                Reason.EXPIRED,
                f"{name}'s certificate ended on {certificate.not_valid_after_utc:%Y-%m-%d}, longer ago than the grace of "
                f"{self.terms.grace.days} days; enrol the gateway again",
            )
        return certificate

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        begin: datetime,
        end: datetime,
        purposes: list[x509.ObjectIdentifier],
        hosts: x509.SubjectAlternativeName | None,
    ) -> Issued:
        serial = x509.random_serial_number()
        end = min(end, self.certificate.not_valid_after_utc).replace(microsecond=0)
        begin = begin.replace(microsecond=0)
        builder = (
            x509.CertificateBuilder(self.certificate.subject, _named(name), key, serial)
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(_issuer_id(self.key), critical=False)
        )
        if hosts is not None:
            builder = builder.add_extension(hosts, critical=False)
        pem = builder.sign(self.key, _SHA256).public_bytes(Encoding.PEM)
        return Issued(name, f"{serial:x}", pem, key_digest(key), begin, end)


def requested(request_pem: bytes, gateway: str) -> ec.EllipticCurvePublicKey:
    """The key of a request (PKCS #10) that asks for `gateway` and nothing else. Raises BadIdentity with the fact."""
    gateway_name(gateway)
    if len(request_pem) > MOST_REQUEST_BYTES:
        raise BadIdentity(Reason.TOO_LARGE, f"a request has at most {MOST_REQUEST_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key, subject = request.public_key(), request.subject
        signed, extensions = request.is_signature_valid, list(request.extensions)
    except UNREADABLE_CERTIFICATE as error:
        raise BadIdentity(Reason.BAD_REQUEST, f"not a request that can be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadIdentity(Reason.BAD_REQUEST, "the key must be on the curve P-256")
    if not signed:
        raise BadIdentity(Reason.BAD_REQUEST, "the request is not signed by its own key")
    if extensions:
        raise BadIdentity(
            Reason.BAD_REQUEST, f"the request asks for {extensions[0].oid.dotted_string}; ask for a name only"
        )
    if len(list(subject)) != 1 or next(iter(subject)).oid != NameOID.COMMON_NAME:
        raise BadIdentity(Reason.BAD_REQUEST, "the request must name one CN and nothing else")
    if next(iter(subject)).value != gateway:
        raise BadIdentity(Reason.BAD_REQUEST, f"the request is for another name than {gateway!r}")
    return key


def gateway_name(name: str) -> str:
    """Returns `name` if a certificate may make somebody a gateway by it. Raises BadIdentity."""
    try:
        strict_name(name, "gateway")
    except BadName as error:
        raise BadIdentity(Reason.BAD_NAME, error.detail) from error
    if name.lower().startswith(OURS):
        raise BadIdentity(Reason.BAD_NAME, f"names that begin with {OURS!r} are the server's own")
    return name


def server_name(name: str) -> str:
    """Returns `name` if a process of the server can be known by it: no gateway's name is like it. Raises BadSettings."""
    try:
        strict_name(name, "client id")
    except BadName as error:
        raise BadSettings(error.detail) from error
    if not name.startswith(OURS):
        raise BadSettings(f"the server's client id {name!r} must begin with {OURS!r}, which no gateway's name can")
    return name


def name_of(certificate: x509.Certificate) -> str:
    """The gateway that a certificate names. Raises BadIdentity if it names none."""
    names = list(certificate.subject)
    if len(names) != 1 or names[0].oid != NameOID.COMMON_NAME:
        raise BadIdentity(Reason.BAD_CERTIFICATE, "the certificate names no gateway")
    return gateway_name(str(names[0].value))


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key (SubjectPublicKeyInfo), hex."""
    digest = hashes.Hash(_SHA256)
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """A private key for its owner alone (PKCS #8, PEM), in place of one that lies there."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _issuer_id(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        if not _HOST.fullmatch(text) or len(text) > 253:
            raise BadSettings(f"{text!r} is neither a host name nor an address") from None
        return x509.DNSName(text)
