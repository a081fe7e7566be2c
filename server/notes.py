"""Notes as the server sees them: one written on the console waits here until its gateway has read it."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol.reading.notes import Note, NoteReading
from server.database import FeedbackRow, StatementRow

NOT_FROM_A_GATEWAY = 0
"""The sequence number of a note that was written here."""


def keep(session: Session, note: Note, gateway: str, now_ms: int) -> None:
    """Stores a note that was written on the console. When its gateway tells of it too, it is known by its id."""
    session.add(
        StatementRow(
            gateway=gateway,
            seq=NOT_FROM_A_GATEWAY,
            sent_ms=now_ms,
            stored_ms=now_ms,
            type=Note.type_name,
            statement_id=note.id,
            machine=note.machine,
            subject=note.about,
            time_ms=note.time_ms,
            body=msgspec.to_builtins(note),
        )
    )


def from_console(session: Session, since_ms: int, after: int) -> list[StatementRow]:
    """Notes written here since then, row number above `after`: their gateways do not know them yet."""
    s = StatementRow
    mine = (s.type == Note.type_name, s.seq == NOT_FROM_A_GATEWAY, s.stored_ms >= since_ms, s.id > after)
    return list(session.scalars(select(s).where(*mine).order_by(s.id).limit(500)))


def newest(session: Session, most: int) -> list[dict[str, Any]]:
    """The newest notes, newest first, each as {note, gateway, reading, answers}; `reading` is None while none has come."""
    s = StatementRow
    rows = list(session.scalars(select(s).where(s.type == Note.type_name).order_by(s.id.desc()).limit(most)))
    named = {row.statement_id for row in rows}
    read = select(s).where(s.type == NoteReading.type_name, s.subject.in_(named)).order_by(s.id)
    readings = {(row.gateway, row.subject): row.body for row in session.scalars(read)}
    answers: dict[str, list[dict[str, str]]] = {}
    targets = {str(body["id"]) for body in readings.values()}
    for a in session.scalars(select(FeedbackRow).where(FeedbackRow.target.in_(targets)).order_by(FeedbackRow.id)):
        told = {"verdict": a.verdict, "item": a.item, "correction": a.correction, "via": a.via}
        answers.setdefault(a.target, []).append(told)
    found = []
    for row in rows:
        reading = readings.get((row.gateway, row.statement_id))
        given = answers.get(str(reading["id"]), []) if reading else []
        found.append({"note": row.body, "gateway": row.gateway, "reading": reading, "answers": given})
    return found
