"""Messages that will not be sent any more, each with its reason: refused by the server, or given up after many attempts over
a link that took everything else. They stay on disk, bounded, until a person puts them back or newer ones need the room.

A letter that the server has not been told of keeps its line until it has, so that no number is ever unaccounted for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from protocol.errors import BadMessage, BadSettings
from protocol.names import MessageClass
from protocol.sync import MAX_BATCH_MESSAGES, Envelope, Refusal, SequenceRange, decode

SCHEMA = """
CREATE TABLE IF NOT EXISTS letter (
    class TEXT, seq INTEGER, reason TEXT, envelope BLOB, told INTEGER NOT NULL, again INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (class, seq));
"""
MAX_LETTERS = 1000
_DONE = "DELETE FROM letter WHERE told AND envelope IS NULL"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One of them. told: the server knows; again: it goes back to its lane as soon as the agent sees this."""

    message_class: MessageClass
    seq: int
    reason: str
    type: str
    time_ms: int
    bytes: int
    told: bool
    again: bool


class DeadLetters:
    """The table `letter` of outbox.db, inside the transactions of its owner."""

    def __init__(self, db: sqlite3.Connection, most_bytes: int, most: int = MAX_LETTERS) -> None:
        self._db = db
        self._most = most
        self._most_bytes = most_bytes

    def put(self, message_class: MessageClass, seq: int, reason: str, envelope: bytes, *, told: bool) -> None:
        """One more; the oldest lose their contents where there are too many, or too many bytes."""
        row = (message_class.value, seq, reason[:128], envelope, told)
        self._db.execute("INSERT OR IGNORE INTO letter (class, seq, reason, envelope, told) VALUES (?,?,?,?,?)", row)
        whole = "SELECT count(*), coalesce(sum(length(envelope)), 0) FROM letter WHERE envelope IS NOT NULL"
        count, size = self._db.execute(whole).fetchone()
        oldest = self._db.execute(
            "SELECT rowid, length(envelope) FROM letter WHERE envelope IS NOT NULL ORDER BY rowid LIMIT ?",
            (count if count > self._most or size > self._most_bytes else 0,),
        ).fetchall()
        for number, of in oldest:
            if count <= self._most and size <= self._most_bytes:
                break
            self.empty(number)
            count, size = count - 1, size - of

    def untold(self, message_class: MessageClass) -> list[Refusal]:
        """What the server has yet to hear of this lane, by number."""
        rows = self._db.execute(
            "SELECT seq, reason FROM letter WHERE class = ? AND NOT told ORDER BY seq LIMIT ?",
            (message_class.value, MAX_BATCH_MESSAGES),
        )
        return [Refusal(seq, reason) for seq, reason in rows]

    def confirm(self, message_class: MessageClass, told: Iterable[SequenceRange]) -> None:
        """The server knows these numbers."""
        self._db.executemany(
            "UPDATE letter SET told = 1 WHERE class = ? AND NOT told AND seq BETWEEN ? AND ?",
            [(message_class.value, first, last) for first, last in told],
        )
        self._db.execute(_DONE)

    def wanted(self) -> list[tuple[int, MessageClass, bytes]]:
        """(letter's number, class, envelope) of those that a person asked to send again."""
        rows = self._db.execute(
            "SELECT rowid, class, envelope FROM letter WHERE again AND envelope IS NOT NULL ORDER BY rowid"
        )
        return [(number, MessageClass(name), envelope) for number, name, envelope in rows]

    def leave(self, number: int) -> None:
        """It does not go back after all."""
        self._db.execute("UPDATE letter SET again = 0 WHERE rowid = ?", (number,))

    def empty(self, number: int) -> None:
        """Lets go of one letter's contents; the line goes with them if the server knows of it."""
        self._db.execute("UPDATE letter SET envelope = NULL, again = 0 WHERE rowid = ?", (number,))
        self._db.execute(_DONE)

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM letter WHERE envelope IS NOT NULL").fetchone()[0])


def listed(outbox: Path) -> list[DeadLetter]:
    """All dead letters of an outbox.db, the oldest first. The agent may be running."""
    query = (
        "SELECT class, seq, reason, envelope, told, again FROM letter WHERE envelope IS NOT NULL ORDER BY rowid LIMIT ?"
    )
    with _reading(outbox) as db:
        return [_letter(*row) for row in db.execute(query, (MAX_LETTERS,)).fetchall()]


def want_again(outbox: Path, message_class: MessageClass | None = None, seq: int | None = None) -> int:
    """Marks letters (all, those of a class, or one) to be sent again, under new numbers, by the agent; how many."""
    with _reading(outbox) as db:
        return db.execute(
            "UPDATE letter SET again = 1 WHERE envelope IS NOT NULL"
            " AND class = coalesce(?, class) AND seq = coalesce(?, seq)",
            (message_class and message_class.value, seq),
        ).rowcount


@contextmanager
def _reading(outbox: Path) -> Iterator[sqlite3.Connection]:
    """Raises BadSettings for a file that is no outbox, or a damaged one."""
    if not outbox.is_file():
        raise BadSettings(f"there is no {outbox}; give the data_dir of a gateway that has run")
    with closing(sqlite3.connect(outbox, isolation_level=None, timeout=10)) as db:
        try:
            db.executescript(SCHEMA)
            yield db
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise BadSettings(f"{outbox} cannot be read as a gateway's outbox: {error}") from error


def _letter(name: str, seq: int, reason: str, envelope: bytes, told: int, again: int) -> DeadLetter:
    try:
        read = decode(envelope, Envelope, limit_bytes=len(envelope))
        kind, time_ms = read.type, read.time
    except BadMessage:
        kind, time_ms = "", 0
    return DeadLetter(
        message_class=MessageClass(name),
        seq=seq,
        reason=reason,
        type=kind,
        time_ms=time_ms,
        bytes=len(envelope),
        told=bool(told),
        again=bool(again),
    )
