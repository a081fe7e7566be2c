"""How this server speaks TLS to its broker. A broker that knows everybody by certificate knows the server by one too."""

from __future__ import annotations

import ssl
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec

from protocol.errors import BadSettings
from server.config import Settings
from server.identity import CA, CA_FILE, SERVER_LIVES, server_name, write_key
from server.registry import write_artifact

KEY, CERTIFICATE = "server.key", "server.pem"


def server_context(settings: Settings, now: datetime) -> ssl.SSLContext | None:
    """How this server speaks TLS to its broker; None where it does not. With `[broker] identity` it makes itself a
    certificate in the name of its client id. Raises BadSettings for files that cannot be used, or another name."""
    broker = settings.broker
    if not broker.identity:
        return context(broker.tls_ca, broker.tls_cert, broker.tls_key) if broker.tls_ca else None
    name = server_name(broker.client_id)
    ca, folder = CA.load(settings.authority_folder), settings.authority_folder / name
    folder.mkdir(exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    write_key(folder / KEY, key)
    write_artifact(folder, CERTIFICATE, ca.client(key.public_key(), name, now, SERVER_LIVES).pem)
    authority = broker.tls_ca or str(settings.authority_folder / CA_FILE)
    return context(authority, str(folder / CERTIFICATE), str(folder / KEY))


def context(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    """Trusts `authority`, shows `certificate` (empty: nothing). Raises BadSettings for files that cannot be used."""
    try:
        made = ssl.create_default_context(cafile=authority)
        if certificate:
            made.load_cert_chain(certificate, key or None)
    except (OSError, ssl.SSLError) as error:
        raise BadSettings(f"cannot use {authority}, {certificate} for TLS: {error}") from error
    return made
