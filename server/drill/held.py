"""What a gateway's outbox held when it was copied, and what became of each message: in the database once, in quarantine with
its reason, or given up and named in the ledger."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol.errors import NeedsPerson, Refused
from protocol.feedback import Feedback
from protocol.names import MessageClass
from protocol.observations import SignalBlock, WorkOrder
from protocol.reports import FaultEvent, Forecast, Recommendation, Report
from protocol.sync import Envelope, Message, decode, decode_message
from protocol.twin import Desired, Heartbeat
from server import intake, ranges
from server.database import (
    Database,
    EventRow,
    FeedbackRow,
    ForecastRow,
    LedgerRow,
    QuarantineRow,
    RecommendationRow,
    ReportRow,
    SignalBlockRow,
    StatementRow,
    WorkOrderRow,
)
from server.drill.books import Books
from server.ranges import Range

Name = tuple[Any, ...]
"""What a row of the database is known by: its type, then what tells it from others of its gateway."""
_ROWS: dict[str, tuple[Any, ...]] = {
    "block": (SignalBlockRow.machine, SignalBlockRow.signal, SignalBlockRow.start_ms, SignalBlockRow.step_ms),
    "forecast": (ForecastRow.machine, ForecastRow.signal, ForecastRow.issued_ms),
    "event": (EventRow.event_id,),
    "work order": (WorkOrderRow.order_id,),
    "recommendation": (RecommendationRow.recommendation_id,),
    "report": (ReportRow.report_id,),
    "answer": (FeedbackRow.feedback_id,),
    "statement": (StatementRow.type, StatementRow.statement_id),
}
_A_ROW_EACH = ("block", "forecast")
"""Of these the same may have been told twice by the gateway, under two numbers."""


@dataclass
class Held:
    """messages: (class, number) -> what it is known by, None where there is no row for it. owed: numbers of each class that
    the gateway has to tell of. following: the next number of each, and who gives it. shed_before: messages that were shed, of
    which another server was told."""

    messages: dict[tuple[MessageClass, int], Name | None]
    owed: dict[MessageClass, list[Range]]
    following: dict[MessageClass, tuple[int, str]]
    shed_before: dict[str, int]

    @classmethod
    def of(cls, outbox: Path) -> Held:
        """Reads the file of an outbox that stands still."""
        with closing(sqlite3.connect(f"{outbox.resolve().as_uri()}?mode=ro", uri=True)) as db:
            lanes = db.execute("SELECT class, next, numbering, shed FROM lane").fetchall()
            messages = dict(_named(envelope for (envelope,) in db.execute("SELECT envelope FROM waiting ORDER BY key")))
            shed = db.execute("SELECT class, first, last FROM shed").fetchall()
            dead = db.execute("SELECT class, seq, seq FROM letter WHERE NOT told").fetchall()
        owed: dict[MessageClass, list[Range]] = {MessageClass(name): [] for name, *_ in lanes}
        for lane, seq in messages:
            owed[lane].append((seq, seq))
        for name, first, last in [*shed, *dead]:
            owed[MessageClass(name)].append((first, last))
        shed_before = {name: n for name, *_, n in lanes}
        for name, first, last in shed:
            shed_before[name] -= last - first + 1
        return cls(
            messages,
            {lane: ranges.union(numbers) for lane, numbers in owed.items()},
            {MessageClass(name): (next_, numbering) for name, next_, numbering, _ in lanes},
            shed_before,
        )


def teach(session: Session, site: str, gateway: str, held: Held, desired: Desired) -> None:
    """A new server comes to know what the real one knew when the copy was made: every number that the gateway does not owe,
    and the models that it serves. Raises NeedsPerson where it knows the gateway already."""
    if session.scalar(select(LedgerRow.gateway).where(LedgerRow.gateway == gateway).limit(1)) is not None:
        raise NeedsPerson(f"the database knows {gateway} already; a drill on a copy needs an empty one")
    intake.heard_of(session, site, gateway).desired = msgspec.to_builtins(desired)
    for lane, (following, numbering) in held.following.items():
        told = ranges.minus([(1, following - 1)] if following > 1 else [], held.owed[lane])
        upto, beyond = ranges.settle(0, told)
        session.add(
            LedgerRow(
                gateway=gateway,
                message_class=lane.value,
                upto=upto,
                beyond=[list(one) for one in beyond],
                numbering=numbering or None,
            )
        )


def all_arrived(books: Books, held: Held, database: Database, gateway: str) -> None:
    """Every message that the copied outbox held is in the database once, or in quarantine, or given up and named."""
    with database.begin() as session:
        ledger = {
            MessageClass(row.message_class): row
            for row in session.scalars(select(LedgerRow).where(LedgerRow.gateway == gateway))
        }
        q = QuarantineRow
        refused = {
            (lane, seq) for lane, seq in session.execute(select(q.message_class, q.seq).where(q.gateway == gateway))
        }
        rows = Counter(_rows(session, gateway, {name[0] for name in held.messages.values() if name is not None}))
    given_up = {
        lane: ranges.union([(first, last) for first, last, *_ in [*row.shed, *row.dead]])
        for lane, row in ledger.items()
    }
    told_as = Counter(name for name in held.messages.values() if name is not None)
    counts = {"held_arrived": 0, "held_in_quarantine": 0, "held_given_up": 0, "held_without_a_row": 0}
    for (lane, seq), name in held.messages.items():
        row = ledger.get(lane)
        there = rows[name] if name is not None else 0
        if row is None or not ranges.holds(seq, row.upto, [(a, b) for a, b in row.beyond]):
            books.blame(f"{lane} {seq} waited in the copied outbox, and the server has not heard of it")
        elif (lane.value, seq) in refused:
            counts["held_in_quarantine"] += 1
        elif ranges.within(seq, given_up[lane]):
            counts["held_given_up"] += 1
        elif name is None:
            counts["held_without_a_row"] += 1
        elif not there:
            books.blame(f"{lane} {seq} waited in the copied outbox, and is not in the database: {name}")
        elif there > (told_as[name] if name[0] in _A_ROW_EACH else max(1, told_as[name])):
            books.blame(f"{lane} {seq} waited in the copied outbox, and is {there} times in the database: {name}")
        else:
            counts["held_arrived"] += 1
    books.counts |= {"held": len(held.messages), **counts}


def _rows(session: Session, gateway: str, kinds: Iterable[str]) -> Iterator[Name]:
    for kind in kinds:
        columns = _ROWS[kind]
        for row in session.execute(select(*columns).where(columns[0].class_.gateway == gateway)):
            yield (kind, *row)


def _named(envelopes: Iterable[bytes]) -> Iterator[tuple[tuple[MessageClass, int], Name | None]]:
    for payload in envelopes:
        told = decode(payload, Envelope, limit_bytes=len(payload))
        lane = MessageClass(told.id.rsplit("/", 2)[1])
        try:
            yield (lane, told.mwseq), _name(decode_message(told.type, told.data))
        except Refused:  # the server will say so, too
            yield (lane, told.mwseq), None


def _name(message: Message) -> Name | None:
    """What the row of a message is known by; None for what the server keeps only the newest of."""
    match message:
        case SignalBlock():
            return "block", message.machine, message.signal, message.start_ms, message.step_ms
        case Forecast():
            return "forecast", message.machine, message.signal, message.issued_ms
        case FaultEvent():
            return "event", message.id
        case WorkOrder():
            return "work order", message.id
        case Recommendation():
            return "recommendation", message.id
        case Report():
            return "report", message.id
        case Feedback():
            return "answer", message.id
        case Heartbeat():
            return None
        case _:
            return "statement", message.type_name, message.id
