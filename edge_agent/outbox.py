"""What the server's database does not have yet. A message is on disk before anybody hears of it, has the next number of
its class for ever, and leaves only when the server says that it has committed it.

When the file reaches its cap, bulk, metric and event give way, oldest first, and the ranges given up are kept and told.
Alarm, feedback and report are never given up: when nothing else is left to shed, adding raises TryLater."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.storage import open_store
from protocol.errors import TryLater
from protocol.names import NEVER_SHED, MessageClass
from protocol.sync import MAX_RANGES, ClassAck, SequenceRange

_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    class TEXT, seq INTEGER, envelope BLOB, size INTEGER, PRIMARY KEY (class, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lane (
    class TEXT PRIMARY KEY, next INTEGER, waiting INTEGER, bytes INTEGER, acked INTEGER, shed INTEGER);
CREATE TABLE IF NOT EXISTS shed (class TEXT, first INTEGER, last INTEGER, PRIMARY KEY (class, first)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letter (class TEXT, seq INTEGER, reason TEXT, envelope BLOB, PRIMARY KEY (class, seq));
CREATE TABLE IF NOT EXISTS known (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_SHED_ORDER = [c for c in (MessageClass.BULK, MessageClass.METRIC, MessageClass.EVENT) if c not in NEVER_SHED]


@dataclass
class Lane:
    """Counts of one class."""

    next: int = 1
    waiting: int = 0
    bytes: int = 0
    acked: int = 0
    shed: int = 0


class Outbox:
    """Owner of outbox.db. `begin`/`commit` make one group commit of many `add`s; opening is O(classes)."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._db = open_store(path, _SCHEMA)
        self._max_bytes = max_bytes
        self.lanes = {c: Lane() for c in MessageClass}
        for name, *counts in self._db.execute("SELECT class, next, waiting, bytes, acked, shed FROM lane"):
            self.lanes[MessageClass(name)] = Lane(*counts)
        self._open = False

    def next_seq(self, message_class: MessageClass) -> int:
        """The number the next message of this class will have."""
        return self.lanes[message_class].next

    def add(self, message_class: MessageClass, envelope: bytes, known_as: str = "") -> bool:
        """Adds one encoded envelope that carries `next_seq`; durable after `commit`. With `known_as`, a message of that
        name is added once in the gateway's life (a report redone after a crash): False if it was there before."""
        self._begin()
        if known_as:
            fresh = self._db.execute("INSERT OR IGNORE INTO known VALUES (?)", (f"{message_class.value}/{known_as}",))
            if fresh.rowcount == 0:
                return False
        lane = self.lanes[message_class]
        self._make_room(len(envelope), message_class)
        self._db.execute(
            "INSERT INTO message VALUES (?,?,?,?)", (message_class.value, lane.next, envelope, len(envelope))
        )
        lane.next += 1
        lane.waiting += 1
        lane.bytes += len(envelope)
        return True

    def commit(self) -> None:
        """Everything added so far is on disk when this returns."""
        if not self._open:
            return
        self._db.executemany(
            "INSERT OR REPLACE INTO lane VALUES (?,?,?,?,?,?)",
            [(c.value, x.next, x.waiting, x.bytes, x.acked, x.shed) for c, x in self.lanes.items()],
        )
        self._db.execute("COMMIT")
        self._open = False

    def read(self, message_class: MessageClass, after: int, limit: int, limit_bytes: int) -> list[tuple[int, bytes]]:
        """(seq, envelope) above `after`, in order, within both limits (at least one if there is any)."""
        found: list[tuple[int, bytes]] = []
        size = 0
        rows = self._db.execute(
            "SELECT seq, envelope FROM message WHERE class = ? AND seq > ? ORDER BY seq LIMIT ?",
            (message_class.value, after, limit),
        )
        for seq, envelope in rows:
            size += len(envelope)
            if found and size > limit_bytes:
                break
            found.append((seq, envelope))
        return found

    def shed_ranges(self, message_class: MessageClass) -> list[SequenceRange]:
        """Ranges given up and not yet confirmed by the server."""
        rows = self._db.execute(
            "SELECT first, last FROM shed WHERE class = ? ORDER BY first LIMIT ?", (message_class.value, MAX_RANGES)
        )
        return [(first, last) for first, last in rows]

    def settle(self, message_class: MessageClass, ack: ClassAck) -> int:
        """Frees what the server has committed; nacked messages become dead letters. Returns how many were freed."""
        self._begin()
        name, lane = message_class.value, self.lanes[message_class]
        for refusal in ack.nack:
            self._db.execute(
                "INSERT OR IGNORE INTO dead_letter SELECT class, seq, ?, envelope FROM message WHERE class = ? AND seq = ?",
                (refusal.reason, name, refusal.seq),
            )
        freed = 0
        for first, last in [(1, min(ack.upto, lane.next - 1)), *ack.beyond]:
            span = (name, first, last)
            count, size = self._db.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM message WHERE class = ? AND seq BETWEEN ? AND ?", span
            ).fetchone()
            if count:
                self._db.execute("DELETE FROM message WHERE class = ? AND seq BETWEEN ? AND ?", span)
            self._db.execute("DELETE FROM shed WHERE class = ? AND first >= ? AND last <= ?", span)
            freed += count
            lane.waiting -= count
            lane.bytes -= size
        lane.acked += freed
        return freed

    def dead_letters(self) -> list[tuple[str, int, str]]:
        """(class, seq, reason) of everything the server refused."""
        return self._db.execute("SELECT class, seq, reason FROM dead_letter ORDER BY class, seq").fetchall()

    def close(self) -> None:
        """Commits, checkpoints and closes."""
        self.commit()
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    def _begin(self) -> None:
        if not self._open:
            self._db.execute("BEGIN IMMEDIATE")
            self._open = True

    def _make_room(self, size: int, message_class: MessageClass) -> None:
        while sum(lane.bytes for lane in self.lanes.values()) + size > self._max_bytes:
            victim = next((c for c in _SHED_ORDER if self.lanes[c].waiting), None)
            if victim is None:
                raise TryLater(
                    f"the outbox is full of messages that may not be given up; no room for a {message_class}"
                )
            self._shed(victim, 50)

    def _shed(self, victim: MessageClass, count: int) -> None:
        oldest = self._db.execute(
            "SELECT seq, size FROM message WHERE class = ? ORDER BY seq LIMIT ?", (victim.value, count)
        ).fetchall()
        lane = self.lanes[victim]
        for seq, size in oldest:
            self._db.execute("DELETE FROM message WHERE class = ? AND seq = ?", (victim.value, seq))
            grown = self._db.execute(
                "UPDATE shed SET last = ? WHERE class = ? AND last = ?", (seq, victim.value, seq - 1)
            )
            if grown.rowcount == 0:
                self._db.execute("INSERT OR IGNORE INTO shed VALUES (?,?,?)", (victim.value, seq, seq))
            lane.waiting -= 1
            lane.bytes -= size
            lane.shed += 1
