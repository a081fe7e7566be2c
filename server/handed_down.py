"""What a gateway is told: its desired twin, and what people answered or wrote on the console."""

from __future__ import annotations

import msgspec
from sqlalchemy.orm import Session

from protocol.feedback import Feedback
from protocol.handed_down import HandedDown
from protocol.reading.notes import Note
from protocol.sync import ANSWER, NOTE, Command, encode
from protocol.twin import Desired
from server import feedback as given
from server import notes as written
from server.database import Gateway

LASTS_MS = 7 * 86_400_000


def command(what: Feedback | Note, now_ms: int) -> Command:
    """An answer or a note as a command to its gateway. It expires after a week."""
    name = ANSWER if isinstance(what, Feedback) else NOTE
    return Command(id=what.id, name=name, expires_ms=now_ms + LASTS_MS, arguments=msgspec.Raw(encode(what)))


def handed_down(session: Session, gateway: str, now_ms: int, answers: int = 0, notes: int = 0) -> HandedDown:
    """Everything for one gateway above these rows, of the last week, 500 of each at a time."""
    row = session.get(Gateway, gateway)
    told = given.from_console(session, now_ms - LASTS_MS, answers)
    noted = written.from_console(session, now_ms - LASTS_MS, notes)
    commands = [command(given.as_told(one), now_ms) for one in told if one.gateway == gateway]
    commands += [command(msgspec.convert(one.body, Note), now_ms) for one in noted if one.gateway == gateway]
    return HandedDown(
        desired=msgspec.convert(row.desired, Desired) if row is not None and row.desired else None,
        commands=commands,
        answers=told[-1].id if told else answers,
        notes=noted[-1].id if noted else notes,
    )
