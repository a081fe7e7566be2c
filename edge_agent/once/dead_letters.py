"""`millwright agent dead-letters list | retry --data-dir DIR [--class CLASS] [--seq N] [--json]`: messages that the gateway
or its server gave up, with the reason; and putting them back. The agent may be running: it takes back what is marked
within seconds, otherwise at its next start. Exit status: 0 done, 2 wrong usage."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from edge_agent import dead_letters
from protocol.errors import MillwrightError
from protocol.names import MessageClass


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="millwright agent dead-letters", description="Messages that will not be sent any more, and why."
    )
    parser.add_argument("command", choices=["list", "retry"])
    parser.add_argument("--data-dir", type=Path, required=True, help="data_dir of agent.toml")
    parser.add_argument(
        "--class", dest="message_class", choices=[c.value for c in MessageClass], help="only this class"
    )
    parser.add_argument("--seq", type=int, help="retry: only this number (with --class)")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(argv)
    if options.seq is not None and options.message_class is None:
        parser.error("--seq needs --class: every class counts on its own")
    outbox = options.data_dir / "outbox.db"
    only = MessageClass(options.message_class) if options.message_class else None
    try:
        if options.command == "retry":
            marked = dead_letters.want_again(outbox, only, options.seq)
            said = msgspec.json.encode({"marked": marked}).decode() if options.json else f"{marked} will be sent again"
        else:
            letters = [letter for letter in dead_letters.listed(outbox) if only in (None, letter.message_class)]
            said = msgspec.json.encode(letters).decode() if options.json else _in_words(letters)
    except MillwrightError as error:
        sys.stderr.write(f"millwright agent dead-letters: {error}\n")
        return 2
    sys.stdout.write(said + "\n")
    return 0


def _in_words(letters: list[dead_letters.DeadLetter]) -> str:
    rows = [
        f"{x.message_class:8} {x.seq:>9}  {x.reason:24} {x.type:32} {x.bytes:>7} B"
        f"{'' if x.told else '  server not told yet'}{'  to be sent again' if x.again else ''}"
        for x in letters
    ]
    return "\n".join([*rows, f"{len(letters)} dead letter(s)"])
