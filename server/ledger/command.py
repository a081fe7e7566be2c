"""`millwright ledger`: what arrived from every gateway, to the message; `millwright ledger verify FILE` checks what a server
signed, without it.

Exit status: 0 complete (verify: the signature is right), 1 ranges are missing (verify: it is not), 2 wrong usage."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from protocol.errors import BadMessage, BadSettings
from protocol.ledger import MAX_LEDGER_BYTES, GatewayLedger, LaneLedger, Ledger, read_signed
from server.calling import admin_token, ask
from server.seal import is_signed_by, key_name, read_public

SHOWN_RANGES = 12


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="millwright ledger",
        description="What arrived from every gateway, to the message. Exit status 1: ranges are missing.",
    )
    parser.add_argument("--gateway", default="", help="this one alone")
    parser.add_argument("--json", action="store_true", help="the signed document, as `verify` takes it")
    parser.add_argument("--url", default="http://127.0.0.1:8420", help="the server")
    parser.add_argument("--token-file", type=Path, help="file with the admin token (else MILLWRIGHT_ADMIN_TOKEN)")
    verbs = parser.add_subparsers(dest="verb", metavar="verify")
    check = verbs.add_parser("verify", help="whether a saved document is what the server signed; needs no server")
    check.add_argument("file", type=Path, help="what --json printed")
    check.add_argument("--key", type=Path, required=True, help="the server's public key, from /api/v1/seal.pub")
    options = parser.parse_args(argv)
    if options.verb == "verify":
        return verify(options.file, options.key)
    path = "/api/v1/ledger" + (f"/{quote(options.gateway, safe='')}" if options.gateway else "")
    body = ask(options.url, path, admin_token(options.token_file), MAX_LEDGER_BYTES)
    try:
        document, _ = read_signed(body)
    except BadMessage as error:
        raise BadSettings(f"{options.url} is no Millwright server of this version: {error}") from error
    sys.stdout.write(body.decode() + "\n" if options.json else in_words(document.ledger))
    return 0 if document.ledger.complete else 1


def verify(file: Path, key: Path) -> int:
    """Checks a signed document with the public key alone, and says what it says."""
    public = read_public(key)
    try:
        document, payload = read_signed(file.read_bytes())
    except OSError as error:
        raise BadSettings(f"cannot read {file}: {error.strerror}") from error
    except BadMessage as error:
        sys.stdout.write(f"{file}: {error}\n")
        return 1
    if document.key != key_name(public):
        sys.stdout.write(
            f"{file}: signed with another key ({document.key[:16]}…) than {key} ({key_name(public)[:16]}…)\n"
        )
        return 1
    if not is_signed_by(public, document.signature, payload):
        sys.stdout.write(f"{file}: altered: the signature is not of what it says\n")
        return 1
    sys.stdout.write(f"{file}: signed by {document.key[:16]}…\n{in_words(document.ledger)}")
    return 0


def in_words(ledger: Ledger) -> str:
    """The ledger for people."""
    issued = datetime.fromtimestamp(ledger.issued_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [f"At {issued}:"]
    for one in ledger.gateways:
        lines += ["", f"{one.gateway} ({one.site}): {_verdict(one)}", *(_line(lane) for lane in one.lanes)]
    return "\n".join(lines if ledger.gateways else [*lines, "nothing was heard of any gateway yet"]) + "\n"


def _verdict(one: GatewayLedger) -> str:
    if not one.lanes:
        return "sent no message yet"
    return "complete" if one.complete else "ranges are missing"


def _line(lane: LaneLedger) -> str:
    if lane.complete:
        said = f"complete from 1 to {lane.complete_to}"
    else:
        said = f"complete from 1 to {lane.complete_to}" if lane.complete_to else "not complete from 1"
        said += f", heard of {lane.through}; missing {_listed(lane.missing)}"
    for name, ranges in (("shed", lane.shed), ("dead", lane.dead), ("quarantined", lane.quarantined)):
        if ranges:
            said += f"; {name} {_listed(ranges)}"
    return f"  {lane.message_class:9} {said} ({lane.stored} stored, {lane.duplicates} arrived again)"


def _listed(ranges: list[tuple[int, int]] | list[tuple[int, int, str]]) -> str:
    """ "3-5, 9 (wrong_type)", the first so many."""
    words = []
    for first, last, *reason in ranges[:SHOWN_RANGES]:
        words.append((str(first) if first == last else f"{first}-{last}") + (f" ({reason[0]})" if reason else ""))
    more = len(ranges) - SHOWN_RANGES
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")
