"""Makes the broker refuse a revoked gateway, and ends the session that it has open.

A broker asks its list of revoked certificates when somebody connects, never again (measured on Mosquitto 2.0.11: an open
session outlives its revocation for as long as it stays open). So, in this order:
1. the list is written anew, with a certificate on it that was made for this moment: the canary
2. the broker is told to read it (`[identity] reload`), and has done so when it refuses the canary
3. somebody connects in the revoked gateway's name, with a certificate that was made for this moment too. A client id can have
   one session, so the broker ends the old one and forgets what waited for it; coming back is what step 2 has prevented
This needs no more of a broker than MQTT 3.1.1 and a client id that is bound to the certificate."""

from __future__ import annotations

import socket
import ssl
import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from protocol.errors import BadSettings, TryLater
from server import enrolment
from server.broker_tls import context
from server.config import Settings
from server.database import CertificateRow, Database
from server.identity import CA, CA_FILE, CRL_FILE, OURS, Terms, write_key
from server.registry import write_artifact

CANARY = f"{OURS}canary"
MOMENT = timedelta(minutes=10)
RELOAD_TIMEOUT_S, BROKER_TIMEOUT_S = 30.0, 10.0


def terms(settings: Settings) -> Terms:
    """How long certificates live here."""
    told = settings.identity
    return Terms(timedelta(days=told.valid_days), timedelta(days=told.grace_days))


def enforce(settings: Settings, database: Database, ca: CA, gateway: str) -> str:
    """Answers in words what was done. Raises BadSettings where the broker cannot be told, TryLater where it is not there or
    does not do it: the gateway is revoked all the same, and the command may be given again."""
    if not settings.identity.broker:
        return "not told: [identity] broker names no folder of `millwright server broker-config`"
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="millwright-") as folder:
        canary = _moment(settings, database, ca, CANARY, now, Path(folder))
        write_list(settings, database, ca, now)
        reload(settings)
        _wait_until_refused(settings, canary)
        double = _moment(settings, database, ca, gateway, now, Path(folder))
        if not connects(settings, double, gateway):
            raise TryLater(
                "the broker does not let the server end the session: it has to trust the authority's ca.pem and bind client "
                "ids to certificates, as `millwright server broker-config` writes it"
            )
    return "refuses it, and its session has ended"


def write_list(settings: Settings, database: Database, ca: CA, now: datetime) -> Path:
    """The list of revoked certificates, where the broker reads it."""
    with database.begin() as session:
        body = ca.revocations(enrolment.revoked(session, now), now)
    return write_artifact(Path(settings.identity.broker), CRL_FILE, body)


def reload(settings: Settings) -> None:
    """Runs the command that makes the broker read its files again. Raises BadSettings if it fails or there is none."""
    command = settings.identity.reload
    if not command:
        raise BadSettings('[identity] reload is empty; give a command, such as ["systemctl", "reload", "mosquitto"]')
    try:
        done = subprocess.run(command, capture_output=True, timeout=RELOAD_TIMEOUT_S, check=False, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadSettings(f"[identity] reload: {error}") from error
    if done.returncode:
        raise BadSettings(f"[identity] reload ended with {done.returncode}: {done.stderr.strip()[:300]}")


def connects(settings: Settings, tls: ssl.SSLContext, client_id: str) -> bool:
    """Whether the broker takes somebody in, who then leaves. Raises TryLater if no broker answers at all."""
    broker = settings.broker
    try:
        plain = socket.create_connection((broker.host, broker.port), timeout=BROKER_TIMEOUT_S)
    except OSError as error:
        raise TryLater(f"no broker at {broker.host}:{broker.port}: {error}") from error
    name = client_id.encode()
    # CONNECT of MQTT 3.1.1 (section 3.1): clean session, keep alive 10 s
    rest = b"\x00\x04MQTT\x04\x02\x00\x0a" + len(name).to_bytes(2, "big") + name
    with plain:
        try:
            with tls.wrap_socket(plain, server_hostname=broker.host) as line:
                line.sendall(b"\x10" + bytes([len(rest)]) + rest)
                accepted = line.recv(4) == b"\x20\x02\x00\x00"
                if accepted:
                    line.sendall(b"\xe0\x00")
                return accepted
        except ssl.SSLCertVerificationError as error:
            raise BadSettings(
                f"the broker at {broker.host}:{broker.port} is not the one that we know: {error}"
            ) from error
        except OSError:
            return False  # with TLS 1.3 a certificate is refused after the handshake: the line just ends


def _wait_until_refused(settings: Settings, canary: ssl.SSLContext) -> None:
    deadline = time.monotonic() + BROKER_TIMEOUT_S
    while connects(settings, canary, CANARY):
        if time.monotonic() > deadline:
            raise TryLater(
                f"the broker still takes in who is on {Path(settings.identity.broker) / CRL_FILE}: does its `crlfile` name "
                "this file, and does [identity] reload make it read it?"
            )
        time.sleep(0.2)


def _moment(settings: Settings, database: Database, ca: CA, name: str, now: datetime, folder: Path) -> ssl.SSLContext:
    """A key and a certificate for the next minutes; both are gone with the folder. It is booked as revoked at once, so nobody
    can renew it, and every later list names it."""
    key = ec.generate_private_key(ec.SECP256R1())
    issued = ca.client(key.public_key(), name, now, MOMENT)
    with database.begin() as session:
        enrolment.book(session, issued, "revocation", now)
        row = session.get_one(CertificateRow, issued.serial)
        row.revoked_ms, row.revoked_because = row.issued_ms, "made to end a session"
    write_key(folder / f"{name}.key", key)
    write_artifact(folder, f"{name}.pem", issued.pem)
    write_artifact(folder, CA_FILE, ca.pem)
    return context(
        settings.broker.tls_ca or str(folder / CA_FILE), str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    )
