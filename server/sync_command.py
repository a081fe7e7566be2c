"""`millwright sync import FILE --server server.toml --answer FILE`: takes a file that a gateway exported, and writes what is
carried back. Exit status: 0 taken, 1 refused (the reason is said, nothing was taken), 2 wrong usage or settings."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from protocol.errors import BadIdentity, BadSettings, Refused
from server import carried, config, enrolment, intake, revocation
from server.catalogues import Catalogues
from server.database import Database
from server.identity import CA
from server.registry import write_artifact

WHERE = "file"


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="millwright sync", description="Brings a gateway's messages by hand where no line joins it to its server."
    )
    parser.add_argument("verb", choices=["import"])
    parser.add_argument("file", type=Path, help="what `millwright sync export` wrote on a gateway")
    parser.add_argument("--server", type=Path, required=True, help="server.toml; MILLWRIGHT_* variables win over it")
    parser.add_argument("--answer", type=Path, required=True, help="file to carry back to the gateway")
    options = parser.parse_args(argv)
    settings = config.load(options.server)
    ca, now = CA.load(settings.authority_folder, revocation.terms(settings)), datetime.now(UTC)
    database = Database(settings.database)
    try:
        taken = carried.take(database, ca, options.file, now, Catalogues(settings.artifact_folder))
        write_artifact(options.answer.resolve().parent, options.answer.name, carried.answer(database, ca, taken, now))
    except Refused as why:
        with database.begin() as session:
            beginning = _beginning(options.file)
            if isinstance(why, BadIdentity):
                enrolment.count_refusal(session, why, now)
            intake.quarantine(session, "", WHERE, None, why, beginning, int(now.timestamp() * 1000))
        sys.stdout.write(f"{options.file}: {why}\nNothing of it was taken.\n")
        return 1
    except OSError as error:
        raise BadSettings(f"{error.filename}: {error.strerror}") from error
    finally:
        database.close()
    if taken.granted is not None:
        sys.stdout.write(f"{taken.gateway} has asked for its next certificate; it is in the answer\n")
    if taken.not_renewed:
        sys.stdout.write(f"{taken.gateway} gets no new certificate: {taken.not_renewed}\n")
    sys.stdout.write(
        f"{taken.gateway} ({taken.site}): {taken.batches} batches read, {taken.refused} messages in quarantine\n"
        + (
            f"Nothing was taken of {', '.join(taken.foreign)}: the gateway has another outbox than before, which gave "
            "numbers that are known here. Carry the answer back and export again; nothing is lost.\n"
            if taken.foreign
            else ""
        )
        + f"Carry {options.answer} back; the gateway keeps everything until it has seen it.\n"
    )
    return 0


def _beginning(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(intake.MAX_QUARANTINED_BYTES)
