"""`millwright status --url`: how a running server is. Exit status: 0 every gateway's ledger is complete and the broker is
there, 1 not so, 2 wrong usage or no answer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from protocol.errors import BadSettings
from protocol.unreadable import UNREADABLE
from server.calling import admin_token, ask
from server.status import in_words

MAX_STATUS_BYTES = 64 * 2**20


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="millwright status",
        description="How a server is; with --config agent.toml, how the gateway of this machine is.",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8420", help="the server")
    parser.add_argument("--token-file", type=Path, help="file with the admin token (else MILLWRIGHT_ADMIN_TOKEN)")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(argv)
    body = ask(options.url, "/api/v1/status", admin_token(options.token_file), MAX_STATUS_BYTES)
    words, fine = judged(body, options.url)
    sys.stdout.write(body.decode() + "\n" if options.json else words)
    return 0 if fine else 1


def judged(body: bytes, url: str) -> tuple[str, bool]:
    """A server's status in words, and whether all is well. Raises BadSettings for what is none."""
    try:
        told = msgspec.json.decode(body)
        fine = all(g["complete"] for g in told["gateways"]) and (told["mqtt"]["connected"] or not told["mqtt"]["on"])
        return in_words(told), bool(fine)
    except (
        *UNREADABLE,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
    ) as error:  # whatever a strange document lacks
        raise BadSettings(f"{url} is no Millwright server of this version: {error}") from error
