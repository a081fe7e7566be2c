"""`millwright server ca | enrol-token | revoke | broker-config`: who the gateways are, from the command line."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from protocol.enrolment import TokenFile
from protocol.errors import BadSettings, MillwrightError
from server import broker_config, config, enrolment, revocation
from server.config import Settings
from server.database import AuditRow, Database
from server.identity import CA, CA_FILE, HOST_LIVES

_SPAN = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
Migrate = Callable[[Settings], None]


def main(argv: list[str], migrate: Migrate) -> int:
    """Exit status: 0 done, 1 revoked here but the broker does not know, 2 wrong settings or names."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = config.load(options.config)
        if options.command == "ca":
            return ca(settings, options)
        migrate(settings)
        database = Database(settings.database)
        try:
            commands = {"enrol-token": enrol_token, "revoke": revoke, "broker-config": write_broker}
            return commands[options.command](settings, database, options)
        finally:
            database.close()
    except MillwrightError as error:
        sys.stderr.write(f"millwright server {options.command}: {error}\n")
        return 2


COMMANDS = ("ca", "enrol-token", "revoke", "broker-config")


def ca(settings: Settings, options: argparse.Namespace) -> int:
    """Makes the authority, or a certificate for a host."""
    folder, now = settings.authority_folder, datetime.now(UTC)
    if options.action == "init":
        CA.make(folder, now, revocation.terms(settings))
        sys.stdout.write(
            f"authority {folder / CA_FILE}\n"
            f"Keep a copy of {folder} where no network reaches: without its key every gateway must be enrolled again, and "
            "whoever has it can be any of them.\n"
        )
        return 0
    if not options.host or options.out is None:
        raise BadSettings("say which hosts and where to: millwright server ca host --host server.example --out DIR")
    for path in broker_config.write_host(CA.load(folder), options.out, options.host, now):
        sys.stdout.write(f"{path}\n")
    return 0


def enrol_token(settings: Settings, database: Database, options: argparse.Namespace) -> int:
    """A token file, on standard output or in a file for its owner alone."""
    now, valid = datetime.now(UTC), span(options.valid)
    authority = CA.load(settings.authority_folder)
    with database.begin() as session:
        token = enrolment.make_token(session, options.gateway, valid, now)
        _audit(session, "enrol-token", options.gateway, now)
    comment = f"for gateway {options.gateway}, once, until {now + valid:%Y-%m-%dT%H:%MZ}"
    text = TokenFile(token=token, authority=authority.pem.decode()).text(comment)
    if options.out is None:
        sys.stdout.write(text)
        return 0
    options.out.touch(mode=0o600)
    options.out.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{options.out} {comment}\n")
    return 0


def revoke(settings: Settings, database: Database, options: argparse.Namespace) -> int:
    """Takes a gateway's certificates back, then tells the broker."""
    now, authority = datetime.now(UTC), CA.load(settings.authority_folder, revocation.terms(settings))
    with database.begin() as session:
        count = enrolment.revoke(session, options.gateway, options.because, now)
        _audit(session, "revoke", options.gateway, now)
    sys.stdout.write(f"{options.gateway}: {count} certificate(s) revoked; the HTTP API refuses it\n")
    try:
        sys.stdout.write(f"broker: {revocation.enforce(settings, database, authority, options.gateway)}\n")
    except MillwrightError as error:
        sys.stderr.write(f"broker: {error}\nGive the command again when that is mended.\n")
        return 1
    return 0


def write_broker(settings: Settings, database: Database, options: argparse.Namespace) -> int:
    """The files of a Mosquitto."""
    files = broker_config.write(settings, database, options.out, options.host, options.port, options.user)
    sys.stdout.writelines(f"{path}\n" for path in files)
    until = datetime.now(UTC) + HOST_LIVES
    sys.stdout.write(f"The broker's certificate holds until {until:%Y-%m-%d}; the same command makes the next one.\n")
    return 0


def span(text: str) -> timedelta:
    """ "90m", "1h", "2d". Raises BadSettings."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise BadSettings(f"{text!r} is no span of time; write 30m, 1h or 2d")
    return int(found[1]) * _UNITS[found[2]]


def _audit(session: Session, what: str, gateway: str, now: datetime) -> None:
    row = AuditRow(time_ms=int(now.timestamp() * 1000), who="command line", what=what, detail={"gateway": gateway})
    session.add(row)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="millwright server", description="Who the gateways are.")
    commands = parser.add_subparsers(dest="command", required=True)
    authority = commands.add_parser("ca", help="the authority that signs gateways' certificates")
    authority.add_argument(
        "action", choices=["init", "host"], help="init: make it; host: a certificate for the HTTP API"
    )
    authority.add_argument("--host", action="append", default=[], help="a name or address of the host; may be repeated")
    authority.add_argument("--out", type=Path, help="host: folder of host.pem and host.key")
    token = commands.add_parser("enrol-token", help="a token with which one gateway may enrol, once")
    token.add_argument("gateway")
    token.add_argument("--valid", default="1h", help="30m, 1h, 2d (at most 7d)")
    token.add_argument("--out", type=Path, help="the token file (default: standard output)")
    back = commands.add_parser("revoke", help="takes a gateway's certificates back and ends its sessions")
    back.add_argument("gateway")
    back.add_argument("--because", default="", help="for the books")
    broker = commands.add_parser("broker-config", help="the configuration of a Mosquitto that knows gateways by name")
    broker.add_argument("--out", type=Path, required=True, help="folder of the files")
    broker.add_argument("--host", action="append", default=[], help="a name or address of the broker; may be repeated")
    broker.add_argument("--port", type=int, default=broker_config.TLS_PORT)
    broker.add_argument("--user", action="append", default=[], help="a client id of the server; may be repeated")
    for one in (authority, token, back, broker):
        one.add_argument("--config", type=Path, help="server.toml; MILLWRIGHT_* variables win over it")
    return parser
