"""The lanes of an outbox: what one class of message has, who gives it its numbers, and how an outbox begins them anew."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field

import msgspec

from protocol.names import MessageClass
from protocol.sync import ClassAck, Envelope, Numbering, decode, encode

LANES = {
    c: n << 58
    for n, c in enumerate(
        (
            MessageClass.ALARM,
            MessageClass.EVENT,
            MessageClass.FEEDBACK,
            MessageClass.REPORT,
            MessageClass.METRIC,
            MessageClass.BULK,
        )
    )
}
"""Where a lane begins in `waiting`; key = this + seq. On disk: never to be changed."""
LAST = (1 << 58) - 1
_AT_ONCE = 500


def new_numbering() -> str:
    """A name for an outbox that begins to count."""
    return secrets.token_hex(8)


@dataclass
class Lane:
    """Counts of one class, as the file has them: next - 1 = waiting + acked + shed + dead + skipped. acked: the server has
    it, in its tables or in its quarantine; dead: given up here; skipped: numbers that this outbox leaves to an earlier one.
    numbering, since: see `protocol.sync.Numbering`; "" in an outbox that is older than they are."""

    next: int = 1
    waiting: int = 0
    bytes: int = 0
    acked: int = 0
    shed: int = 0
    dead: int = 0
    skipped: int = 0
    since: int = 1
    numbering: str = field(default_factory=new_numbering)

    @property
    def told(self) -> Numbering | None:
        """As its batches say it."""
        return Numbering(self.numbering, self.since) if self.numbering else None

    def concerned_by(self, ack: ClassAck) -> bool:
        """Whether an acknowledgement is of the numbers of this outbox. An older server does not say whose they are."""
        return not self.numbering or ack.numbering in (None, self.numbering)

    def disowned_by(self, ack: ClassAck) -> bool:
        """Whether it says that these numbers are taken: by another outbox, or by a newer copy of this file."""
        if self.numbering and ack.foreign == self.numbering:
            return True
        return self.concerned_by(ack) and ack.highest >= self.next


Lanes = dict[MessageClass, Lane]


_READ = "SELECT class, next, waiting, bytes, acked, shed, dead, skipped, since, numbering FROM lane"
_WRITE = (
    "INSERT OR REPLACE INTO lane (class, next, waiting, bytes, acked, shed, dead, skipped, since, numbering)"
    " VALUES (?,?,?,?,?,?,?,?,?,?)"
)


def read_lanes(db: sqlite3.Connection) -> Lanes:
    """The lanes that the file knows."""
    return {MessageClass(name): Lane(*counts) for name, *counts in db.execute(_READ)}


def write_lanes(db: sqlite3.Connection, lanes: Lanes) -> None:
    """In the caller's transaction."""
    db.executemany(_WRITE, [(c.value, *astuple(lane)) for c, lane in lanes.items()])


def framed(envelopes: Iterable[bytes], lane: Lane) -> bytes:
    """A batch of envelopes that are JSON already, without decoding them."""
    told = b',"numbering":' + encode(lane.told) if lane.told is not None else b""
    return b'{"envelopes":[' + b",".join(envelopes) + b"]" + told + b"}"


def renumbered(envelope: bytes, message_class: MessageClass, seq: int) -> bytes:
    """The same message under another number of its lane. Raises BadMessage."""
    told = decode(envelope, Envelope, limit_bytes=len(envelope))
    source = told.source.rpartition("/")[2]
    return encode(msgspec.structs.replace(told, id=f"{source}/{message_class.value}/{seq}", mwseq=seq))


def begin_anew(db: sqlite3.Connection, message_class: MessageClass, lane: Lane, highest: int) -> None:
    """In the caller's transaction: everything that the server has to hear of gets a new number, in order, beyond all that
    was given here and beyond `highest`, under another numbering. One number is left out, so that the ledger shows where an
    outbox began, even where nothing is missing."""
    lane.since = seq = max(highest, lane.next - 1) + 2
    for first, last in db.execute(
        "SELECT first, last FROM shed WHERE class = ? ORDER BY first", (message_class.value,)
    ).fetchall():
        db.execute(
            "UPDATE shed SET first = ?, last = ? WHERE class = ? AND first = ?",
            (seq, seq + last - first, message_class.value, first),
        )
        seq += last - first + 1
    for (number,) in db.execute(
        "SELECT rowid FROM letter WHERE class = ? AND NOT told ORDER BY seq", (message_class.value,)
    ).fetchall():
        db.execute("UPDATE letter SET seq = ? WHERE rowid = ?", (seq, number))
        seq += 1
    base, until = LANES[message_class], LANES[message_class] + lane.since
    while rows := db.execute(
        "SELECT key, envelope FROM waiting WHERE key > ? AND key < ? ORDER BY key LIMIT ?", (base, until, _AT_ONCE)
    ).fetchall():
        moved = [renumbered(envelope, message_class, n) for n, (_, envelope) in enumerate(rows, seq)]
        db.execute("DELETE FROM waiting WHERE key BETWEEN ? AND ?", (rows[0][0], rows[-1][0]))
        db.executemany("INSERT INTO waiting VALUES (?,?)", [(base + n, one) for n, one in enumerate(moved, seq)])
        lane.bytes += sum(map(len, moved)) - sum(len(envelope) for _, envelope in rows)
        seq += len(rows)
    lane.next, lane.numbering = seq, new_numbering()
    lane.skipped = lane.next - 1 - (lane.waiting + lane.acked + lane.shed + lane.dead)
