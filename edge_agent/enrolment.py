"""How this gateway comes by its certificate, and keeps one: a key is made here, a request goes to the server over HTTPS, or
in a file that people carry.

Nothing on the gateway waits for this. A renewal that fails is counted, shown and tried again; what runs goes on running, with
the old certificate for as long as the broker takes it, and without the server when it does not."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import json
import logging
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from edge_agent import identity
from edge_agent.calls import NO_ANSWER, opened
from edge_agent.identity import NEEDS, Identity
from edge_agent.updates import write_durably
from protocol.enrolment import ENROL, RENEW, CarriedRenewal, Enrolment, Granted, Renewal, TokenFile, to_sign
from protocol.errors import BadIdentity, BadSettings, MillwrightError, Reason, Redirected, TryLater
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
PENDING, RENEWAL = "pending.pem", "renewal.pem"
MOST_ANSWER_BYTES = 1_000_000
FIRST_RETRY_S, LAST_RETRY_S = 30.0, 600.0
DAY_S = 86_400.0
CUT_OFF_S = 900.0
"""So long without the broker, and the certificate may be the reason, whatever the clock says: the server is asked."""


def enrol(
    url: str, token: TokenFile, gateway: str, folder: Path, root: Path | None, timeout_s: float = 30.0
) -> Identity:
    """Trades a one-time token for a certificate and puts the identity into `folder`; the models' root goes to `root` where
    none lies there. May be called again after it failed: the key is kept, so the token still counts. Raises BadIdentity with
    the server's reason, TryLater where the server is away."""
    key, request = _key_and_request(gateway, folder / PENDING)
    asked = Enrolment(token=token.token, request=request)
    granted = _ask(url + ENROL, asked, web_context(token.authority), timeout_s)
    _check(granted, gateway, key)
    identity.replace(
        folder,
        key=key,
        certificate=granted.certificate.encode(),
        authority=granted.authority.encode(),
        token=granted.token,
    )
    (folder / PENDING).unlink(missing_ok=True)
    if root is not None and granted.root and not root.exists():
        write_durably(root, granted.root.encode())
    return _loaded(folder)


def renew(present: Identity, url: str, timeout_s: float = 30.0) -> Identity:
    """The next certificate, for a new key, in the place of the present one. Raises BadIdentity (`not_due`: too early),
    TryLater where the server is away, OSError where the disk does not take it."""
    key, request = _key_and_request(present.gateway, None)
    certificate = present.certificate_pem.decode()
    asked = Renewal(certificate=certificate, request=request, signature=present.sign(to_sign(request)))
    granted = _ask(url + RENEW, asked, web_context(present.authority_pem.decode()), timeout_s)
    return _installed(present, granted, key, granted.token)


def renewal_to_carry(present: Identity) -> CarriedRenewal:
    """The request for the next certificate, for a file. Its key waits beside the identity until an answer comes, so that the
    answer to any file since then will do. Raises BadSettings, OSError."""
    kept = present.folder / RENEWAL
    key, request = _key_and_request(present.gateway, kept)
    if _same_key(key, present.certificate_pem):  # it is in use: the power was cut before it was taken away
        kept.unlink()
        key, request = _key_and_request(present.gateway, kept)
    token_digest = hashlib.sha256(_token_of(key).encode()).hexdigest()
    return CarriedRenewal(request=request, signature=present.sign(to_sign(request)), token_digest=token_digest)


def install_carried(present: Identity, granted: Granted) -> Identity | None:
    """Puts a certificate that was carried in the place of the present one; None for an answer that has been taken before, or
    that the present one is newer than. Raises BadIdentity for a certificate of another key or name, OSError where the disk
    does not take it."""
    kept = present.folder / RENEWAL
    if not kept.exists() or _ends(granted.certificate.encode()) <= present.not_after:
        return None
    key, _ = _key_and_request(present.gateway, kept)
    found = _installed(present, granted, key, _token_of(key))
    kept.unlink()
    return found


def _installed(present: Identity, granted: Granted, key: bytes, token: str) -> Identity:
    _check(granted, present.gateway, key)
    identity.replace(
        present.folder,
        key=key,
        certificate=granted.certificate.encode(),
        authority=granted.authority.encode(),
        token=token,
    )
    return _loaded(present.folder)


def _token_of(key: bytes) -> str:
    """What the HTTP API shall take from the owner of a key (PKCS #8): nobody else can tell it, and nothing more is kept."""
    return hmac.new(key, b"millwright token v1", hashlib.sha256).hexdigest()


class Keeper:
    """Renews when it is time; `look` is called often and never waits. renewed: is told of the new identity."""

    def __init__(
        self,
        present: Identity,
        url: str,
        *,
        now_ms: Callable[[], int],
        monotonic_s: Callable[[], float],
        renewed: Callable[[Identity], None],
        ask: Callable[[Identity, str], Identity] = renew,
    ) -> None:
        self.present = present
        self._url, self._now_ms, self._monotonic_s = url, now_ms, monotonic_s
        self._renewed, self._ask = renewed, ask
        # a fleet that was enrolled on one day does not come on one second
        self._share = 0.5 + zlib.crc32(present.gateway.encode()) / 2**32
        self._next_s, self._retry_s = monotonic_s(), FIRST_RETRY_S
        self._connected_s = monotonic_s()
        self._thread: threading.Thread | None = None
        self._result: Identity | MillwrightError | OSError | None = None
        self.renewals = self.failures = 0
        self.last_error = ""

    def look(self, connected: bool, note: Callable[[str], None]) -> None:
        """Takes the answer that came, or asks if it is time."""
        now_s = self._monotonic_s()
        if connected:
            self._connected_s = now_s
        if self._thread is not None:
            if not self._thread.is_alive():
                self._thread = None
                self._take(note)
            return
        if now_s < self._next_s:
            return
        if self.present.due(self._now()) or now_s - self._connected_s >= CUT_OFF_S:
            self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)
            self._thread.start()

    def hand(self, granted: Granted, note: Callable[[str], None]) -> None:
        """Takes a certificate that people carried here. Raises TryLater while one is asked for over the line."""
        if self._thread is not None:
            raise TryLater("a certificate is being asked for over the line")
        try:
            self._result = install_carried(self.present, granted)
        except (MillwrightError, OSError) as error:
            self._result = error
        if self._result is not None:
            self._take(note)

    def told(self) -> dict[str, Any]:
        """For status.json and for people."""
        return {
            "not_after_ms": int(self.present.not_after.timestamp() * 1000),
            "renewals": self.renewals,
            "failures": self.failures,
            "last_error": self.last_error,
        }

    def _run(self) -> None:
        try:
            self._result = self._ask(self.present, self._url)
        except (MillwrightError, OSError) as error:
            self._result = error

    def _take(self, note: Callable[[str], None]) -> None:
        result, self._result = self._result, None
        if isinstance(result, Identity):
            self.present, self.last_error, self._retry_s = result, "", FIRST_RETRY_S
            self.renewals += 1
            self._connected_s = self._monotonic_s()
            note("identity.renewed")
            # a clock that is behind the new certificate as well would have it renewed again and again
            self._wait(DAY_S if result.due(self._now()) else 0.0)
            log.info("new certificate, until %s", result.not_after)
            self._renewed(result)
        elif isinstance(result, BadIdentity) and result.reason is Reason.NOT_DUE:
            self._wait(CUT_OFF_S)
        else:
            self.failures += 1
            self.last_error = str(result or "the renewal ended without an answer")
            note("identity.not_renewed")
            if isinstance(result, Redirected):
                note("identity.redirected")
            log.warning("no new certificate yet, everything goes on: %s", self.last_error)
            self._wait(self._retry_s)
            self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC)

    def _wait(self, seconds: float) -> None:
        self._next_s = self._monotonic_s() + seconds * self._share


def web_context(authority: str) -> ssl.SSLContext:
    """For HTTPS: the system's authorities, and the server's own."""
    made = ssl.create_default_context()
    try:
        made.load_verify_locations(cadata=authority)
    except ssl.SSLError as error:
        raise BadSettings(f"the authority's certificate cannot be used: {error}") from error
    return made


def _key_and_request(gateway: str, kept: Path | None) -> tuple[bytes, str]:
    """A private key (PKCS #8) and a request for the gateway's name, both PEM. kept: where the key waits for the answer."""
    try:
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ModuleNotFoundError as error:
        raise BadSettings(NEEDS) from error
    key = ec.generate_private_key(ec.SECP256R1())
    if kept is not None and kept.exists():
        # half written or damaged: the answer to it was never asked for
        with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
            waiting = serialization.load_pem_private_key(kept.read_bytes(), password=None)
            key = waiting if isinstance(waiting, ec.EllipticCurvePrivateKey) else key
    body = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    if kept is not None:
        identity.write_secret(kept, body)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, gateway)])
    request = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    return body, request.public_bytes(serialization.Encoding.PEM).decode()


def _check(granted: Granted, gateway: str, key: bytes) -> None:
    """The certificate is for this gateway and this key, and from the authority that came with it."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate(granted.certificate.encode())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(granted.authority.encode()))
        ours = certificate.public_key() == load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise BadIdentity(Reason.BAD_CERTIFICATE, f"the server's answer holds no certificate: {error}") from error
    if not ours or certificate.subject.rfc4514_string() != f"CN={gateway}":
        raise BadIdentity(Reason.BAD_CERTIFICATE, "the server's certificate is for another key or name")


def _same_key(key: bytes, certificate: bytes) -> bool:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    ours = load_pem_private_key(key, password=None).public_key()
    return x509.load_pem_x509_certificate(certificate).public_key() == ours


def _ends(certificate: bytes) -> datetime:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    except (ValueError, x509.InvalidVersion) as error:
        raise BadIdentity(Reason.BAD_CERTIFICATE, f"the server's answer holds no certificate: {error}") from error


def _ask(url: str, body: msgspec.Struct, context: ssl.SSLContext, timeout_s: float) -> Granted:
    _only_https(url)
    request = urllib.request.Request(  # noqa: S310 - checked above
        url, msgspec.json.encode(body), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with opened(request, timeout_s, context) as answer:
            return granted_by(answer.read(MOST_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        raise refused_by(error.code, _told(error)) from error
    except NO_ANSWER as error:
        raise TryLater(f"no certificate from {url}: {error}") from error


def _told(error: urllib.error.HTTPError) -> bytes:
    """What came with a refusal; empty where it broke off."""
    try:
        return error.read(MOST_ANSWER_BYTES)
    except NO_ANSWER:
        return b""


def granted_by(body: bytes) -> Granted:
    """What the server gave. Raises TryLater for what is no answer of ours: a proxy's page, half of one."""
    try:
        return msgspec.json.decode(body, type=Granted)
    except UNREADABLE as error:
        raise TryLater(f"the server's answer holds no certificate: {error}") from error


def refused_by(status: int, body: bytes) -> MillwrightError:
    """What the server said, as an error of ours; whatever may pass by itself is to be tried later."""
    try:
        told = json.loads(body)
        fact, reason = str(told["error"]), Reason(told.get("reason", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return TryLater(f"the server answers {status}: {body[:200].decode(errors='replace')}")
    return TryLater(fact) if reason is Reason.TOO_OFTEN else BadIdentity(reason, fact)


def _only_https(url: str) -> None:
    """A token that was sent in clear is no secret any more; on the machine itself nobody listens."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(parts.hostname or "")):
        raise BadSettings(f"{url}: certificates are asked for over https:// only")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _loaded(folder: Path) -> Identity:
    found = Identity.load(folder)
    if found is None:
        raise BadSettings(f"{folder} holds no identity after all")
    return found
