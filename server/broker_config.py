"""A Mosquitto that knows every gateway by its certificate: configuration, access rules, its own certificate.

Gateways need no line of their own in these files: the rules are patterns of the name in the certificate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from protocol.errors import BadSettings
from protocol.names import MessageClass
from protocol.sync import MAX_BATCH_BYTES
from protocol.topics import MAX_TOPIC_BYTES, Channel
from server import enrolment
from server.config import Settings
from server.database import Database
from server.identity import CA, CA_FILE, CRL_FILE, server_name, write_key
from server.registry import write_artifact

TLS_PORT = 8883
HOST_FILE, HOST_KEY = "host.pem", "host.key"
CONFIGURATION, RULES = "mosquitto.conf", "acl"
WRITTEN = (Channel.STATE, *(Channel.up(c) for c in MessageClass), Channel.UP_REPLY, Channel.TWIN_REPORTED)
READ = (Channel.DOWN_ACK, Channel.DOWN_RESEND, Channel.DOWN_COMMAND, Channel.TWIN_DESIRED)


def write(
    settings: Settings,
    database: Database,
    folder: Path,
    hosts: Sequence[str],
    port: int = TLS_PORT,
    users: Sequence[str] = (),
) -> list[Path]:
    """Everything that the broker reads, in `folder`; answers the files. hosts: names and addresses that gateways call the
    broker by. users: the server's client ids, one for each of its processes (empty: that of `[broker]`). Raises
    BadSettings."""
    now = datetime.now(UTC)
    if not hosts:
        raise BadSettings("say by which names and addresses gateways reach the broker: --host broker.example")
    names = [server_name(name) for name in users or [settings.broker.client_id]]
    ca, folder = CA.load(settings.authority_folder), folder.resolve()
    with database.begin() as session:
        revoked = ca.revocations(enrolment.revoked(session, now), now)
    return [
        write_artifact(folder, CA_FILE, ca.pem),
        write_artifact(folder, CRL_FILE, revoked),
        *write_host(ca, folder, hosts, now),
        write_artifact(folder, RULES, rules(settings.root, names).encode()),
        write_artifact(folder, CONFIGURATION, configuration(folder, port).encode()),
    ]


def write_host(ca: CA, folder: Path, hosts: Sequence[str], now: datetime) -> list[Path]:
    """Key and certificate for a host's TLS: a broker's, or the HTTP API's."""
    key = ec.generate_private_key(ec.SECP256R1())
    issued = ca.host(key.public_key(), hosts, now)
    folder.mkdir(parents=True, exist_ok=True)
    write_key(folder / HOST_KEY, key)
    return [folder / HOST_KEY, write_artifact(folder, HOST_FILE, issued.pem)]


def configuration(folder: Path, port: int) -> str:
    """mosquitto.conf, for Mosquitto 2.0 and later."""
    return f"""# Written by `millwright server broker-config`; written anew by the same command.
# Mosquitto runs as its own user: chown mosquitto {folder / HOST_KEY}

listener {port}
# TLS 1.2 at least. Who has no certificate of this authority does not get as far as MQTT.
cafile {folder / CA_FILE}
certfile {folder / HOST_FILE}
keyfile {folder / HOST_KEY}
tls_version tlsv1.2
require_certificate true
# Read again on SIGHUP, for new connections only: `millwright server revoke` ends the open ones.
crlfile {folder / CRL_FILE}

# Who somebody is stands in his certificate. Whatever username he sends is passed over ...
use_identity_as_username true
# ... and whatever client id: without this line a gateway could end another one's session by taking its client id.
use_username_as_clientid true
allow_anonymous false

# A refused subscription is granted all the same and stays silent; a refused publication is acknowledged all the same on
# MQTT 3.1.1. Neither tells a gateway that the rules are wrong: its uplink sees that the server does not answer.
acl_file {folder / RULES}

# The largest batch, and Mosquitto's own limit is 256 MB. message_size_limit alone would acknowledge a larger one and drop it;
# max_packet_size (topic and header are in it) ends the session before it is read.
max_packet_size {MAX_BATCH_BYTES + MAX_TOPIC_BYTES + 100}
message_size_limit {MAX_BATCH_BYTES}
max_inflight_messages 200
# The default of 1000 drops silently what was acknowledged already. A gateway keeps what the server has not, so what a broker
# queues for a server that is away need not be more than this.
max_queued_messages 100000
max_queued_bytes 200000000
# A session that nobody came back to keeps its queue for so long; the gateway subscribes and sends again by itself.
persistent_client_expiration 2m

persistence true
persistence_location /var/lib/mosquitto/
# Sockets of machines that lost their power stay open otherwise.
max_keepalive 120
"""


def rules(root: str, users: Sequence[str]) -> str:
    """The access rules. A gateway's Will goes to its `state`, which it may write; what a plant's screens read (`shop/`) is on
    the plant's broker, not on this one."""
    lines = [
        "# Written by `millwright server broker-config`. %u is the name in the certificate; no name can hold +, # or /.",
        "# Nothing else is allowed to anybody, $SYS and what others retained included.",
        "",
    ]
    for name in users:
        lines += [f"user {name}"]
        lines += [f"topic read {root}/+/+/{channel.value}" for channel in WRITTEN]
        lines += [f"topic write {root}/+/+/{channel.value}" for channel in READ]
        lines += [""]
    lines += [f"pattern write {root}/+/%u/{channel.value}" for channel in WRITTEN]
    lines += [f"pattern read {root}/+/%u/{channel.value}" for channel in READ]
    return "\n".join(lines) + "\n"
