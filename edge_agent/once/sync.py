"""`millwright sync export | import --config agent.toml`: a gateway's messages by hand, where no line joins it to its server.

Exit status: 0 done, 1 the file is refused (the reason is said, nothing was taken), 2 wrong usage or settings."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from edge_agent import carried, config
from edge_agent.config import AgentSettings
from edge_agent.identity import Identity
from protocol.errors import BadSettings, Refused


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="millwright sync",
        description="Carries a gateway's messages by hand where no line joins it to its server. On the server:"
        " millwright sync import FILE --server server.toml --answer FILE.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    out = verbs.add_parser("export", help="write what waits for the server into a signed file")
    out.add_argument("--out", type=Path, required=True, help="the file")
    out.add_argument("--most-mb", type=int, default=1024, help="largest file (default: %(default)s)")
    back = verbs.add_parser("import", help="take what the server answered")
    back.add_argument("file", type=Path, help="what the server wrote")
    for verb in (out, back):
        verb.add_argument("--config", type=Path, required=True, help="agent.toml")
    options = parser.parse_args(argv)
    if options.verb == "export" and options.most_mb < 1:
        parser.error("--most-mb is at least 1")
    settings = config.load(options.config)
    identity = Identity.load(settings.identity_folder)
    if identity is None:
        raise BadSettings("a file is signed by an enrolled gateway; `millwright agent enrol` does it")
    try:
        if options.verb == "export":
            return export(settings, identity, options.out, options.most_mb * 2**20)
        return take(settings, identity, options.file)
    except OSError as error:
        raise BadSettings(f"{error.filename}: {error.strerror}") from error


def export(settings: AgentSettings, identity: Identity, out: Path, most_bytes: int) -> int:
    """Writes the file and says what is in it."""
    outbox = Path(settings.data_dir) / "outbox.db"
    done = carried.export(outbox, identity, settings.site, out, time.time_ns() // 1_000_000, most_bytes)
    sys.stdout.write(f"{out}: {sum(done.messages.values())} messages, {done.bytes} bytes\n")
    sys.stdout.writelines(f"  {lane:9} {count}\n" for lane, count in done.messages.items())
    if done.left:
        sys.stdout.write(f"{done.left} more did not fit; export again when the answer to this file was taken\n")
    if done.renewal:
        sys.stdout.write("The gateway's certificate is due: the file asks for the next one.\n")
    sys.stdout.write("The gateway keeps everything until the server's answer is here.\n")
    return 0


def take(settings: AgentSettings, identity: Identity, file: Path) -> int:
    """Checks the server's answer and leaves it for the agent."""
    try:
        carried.hand_over(file, Path(settings.data_dir), identity)
    except Refused as why:
        sys.stdout.write(f"{file}: {why}\nNothing of it was taken.\n")
        return 1
    sys.stdout.write(f"{file}: from the server, for {identity.gateway}. The agent takes it now, or when it starts.\n")
    return 0
