"""What the server's database does not have yet. A message is on disk before anybody hears of it, has the next number of
its class for ever, and leaves only when the server says that it has committed it.

Rules kept here:
- `add` gathers a group in memory, `commit` writes it in one transaction: all of it is durable, or none of it, and then it
  waits here for the next `commit`. Counts follow the file, never the other way.
- At the cap, or on a full disk, bulk, metric and event give way, oldest first, and the exact ranges are kept and told.
  Nothing gives way to a message less urgent than itself. Alarm, feedback and report are never given up: TryLater.
- On a full disk the ballast goes first, then the WAL is checkpointed, then the file is held at the size it has, and only
  then something is shed. All of it is undone by itself when there is room again.
- Opening costs the same with a million messages as with none."""

from __future__ import annotations

import copy
import hashlib
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from edge_agent import dead_letters
from edge_agent.dead_letters import DeadLetters
from edge_agent.lanes import LANES, LAST, Lane, Lanes, begin_anew, read_lanes, renumbered, write_lanes
from edge_agent.storage import close_store, disk_full, open_bounded, roll_back
from protocol.errors import BadMessage, TryLater
from protocol.names import MessageClass
from protocol.sync import MAX_RANGES, ClassAck, Refusal, SequenceRange

_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS waiting (key INTEGER PRIMARY KEY, envelope BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS lane (
    class TEXT PRIMARY KEY, next INTEGER, waiting INTEGER, bytes INTEGER, acked INTEGER, shed INTEGER,
    dead INTEGER NOT NULL DEFAULT 0, skipped INTEGER NOT NULL DEFAULT 0, since INTEGER NOT NULL DEFAULT 1,
    numbering TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS shed (class TEXT, first INTEGER, last INTEGER, PRIMARY KEY (class, first)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told_once (number INTEGER PRIMARY KEY, name BLOB UNIQUE);
"""
    + dead_letters.SCHEMA
)
_SHED_ORDER = (MessageClass.BULK, MessageClass.METRIC, MessageClass.EVENT)
_MOST_AT_ONCE = 500
_VERSION = 2
_ADDED = {
    "dead": "INTEGER NOT NULL DEFAULT 0",
    "skipped": "INTEGER NOT NULL DEFAULT 0",
    "since": "INTEGER NOT NULL DEFAULT 1",
    "numbering": "TEXT NOT NULL DEFAULT ''",
}
"""Columns of `lane` that came after the first version."""
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Added:
    """One message of the group. envelope None: given up before it was stored. letter: the dead letter that it was."""

    message_class: MessageClass
    seq: int
    envelope: bytes | None
    name: bytes | None
    letter: int | None = None


class Outbox:
    """Owner of outbox.db. Every change is one transaction, and `lanes` moves when it has committed."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._chunk = max_bytes // 256
        self._group_most = min(max(max_bytes // 32, 64_000), 1_100_000)
        self._names_most = min(max(max_bytes // 1024, 1000), 250_000)
        self._db, self._room = open_bounded(path, _SCHEMA, max_bytes, self._group_most)
        self._letters = DeadLetters(self._db, max_bytes // 16)
        self.lanes: Lanes = {c: Lane() for c in MessageClass}
        self._bring_up_to_date()
        self.lanes |= read_lanes(self._db)
        self.untold = {c for c in MessageClass if self._owes(c)}
        self.begun_anew = 0
        """Since the start: lanes that were numbered anew."""
        self._group: list[_Added] = []
        self._group_bytes = 0
        self._names: set[bytes] = set()
        self._ahead = dict.fromkeys(MessageClass, 0)

    # in ---------------------------------------------------------------------------------------------------------------

    def next_seq(self, message_class: MessageClass) -> int:
        """The number the next message of this class will have."""
        return self.lanes[message_class].next + self._ahead[message_class]

    def add(self, message_class: MessageClass, envelope: bytes, known_as: str = "") -> bool:
        """Adds one encoded envelope that carries `next_seq`; durable after `commit`. With `known_as`, a message of that
        name is added once (a report redone after a crash; the newest 250,000 names are known): False if it was there
        before. Raises TryLater, and has not accepted it, when the group is full and cannot be written."""
        name = None
        if known_as:
            name = hashlib.blake2s(f"{message_class.value}/{known_as}".encode(), digest_size=16).digest()
            if name in self._names or self._db.execute("SELECT 1 FROM told_once WHERE name = ?", (name,)).fetchone():
                return False
        self._gather(_Added(message_class, self.next_seq(message_class), envelope, name), len(envelope))
        return True

    @property
    def tight(self) -> bool:
        """Whether the disk is so full that the file is held at the size it has."""
        return self._room.tight

    def commit(self) -> None:
        """Everything added so far is on disk when this returns. Raises TryLater when there is no room and nothing more
        that may be given up: then nothing of the group is on disk, and it waits for the next call."""
        if self._group:
            while (over := self._over()) > 0:
                if not self._shed(max(over, self._chunk)):
                    raise TryLater("the outbox is full of messages that may not be given up")
            self._in_room(self._insert, 2 * self._group_bytes)
            self._group.clear()
            self._names.clear()
            self._ahead = dict.fromkeys(MessageClass, 0)
            self._group_bytes = 0
        self._room.hold()

    def take_back(self) -> int:
        """Puts the dead letters that a person asked for back into their lanes, under new numbers; how many. Durable
        after `commit`. One that is no envelope stays where it is."""
        waiting = {one.letter for one in self._group}
        back = 0
        for number, message_class, envelope in self._letters.wanted():
            if number in waiting:
                continue
            try:
                again = renumbered(envelope, message_class, self.next_seq(message_class))
            except BadMessage:
                self._letters.leave(number)
                continue
            self._gather(_Added(message_class, self.next_seq(message_class), again, None, number), len(again))
            back += 1
        return back

    # out --------------------------------------------------------------------------------------------------------------

    def read(
        self, message_class: MessageClass, after: int, limit: int, limit_bytes: int, upto: int = LAST
    ) -> list[tuple[int, bytes]]:
        """(seq, envelope) above `after` and not above `upto`, in order, within both limits (at least one if there is
        any). Only what is committed."""
        found: list[tuple[int, bytes]] = []
        size, base = 0, LANES[message_class]
        rows = self._db.execute(
            "SELECT key, envelope FROM waiting WHERE key > ? AND key <= ? ORDER BY key LIMIT ?",
            (base + after, base + min(upto, LAST), limit),
        )
        for key, envelope in rows:
            size += len(envelope)
            if found and size > limit_bytes:
                break
            found.append((key - base, envelope))
        return found

    def shed_ranges(self, message_class: MessageClass) -> list[SequenceRange]:
        """Ranges given up and not yet confirmed by the server, as many as one batch may tell."""
        rows = self._db.execute(
            "SELECT first, last FROM shed WHERE class = ? ORDER BY first LIMIT ?", (message_class.value, MAX_RANGES)
        )
        return [(first, last) for first, last in rows]

    def untold_dead(self, message_class: MessageClass) -> list[Refusal]:
        """Dead letters that the server has not confirmed, as many as one batch may tell."""
        return self._letters.untold(message_class)

    def settle(self, message_class: MessageClass, ack: ClassAck) -> int:
        """Frees what the server has committed; nacked messages become dead letters. Returns how many were freed. Where the
        server knows these numbers from another outbox (or a newer copy of this one), nothing is: they are given anew."""
        lane = self.lanes[message_class]
        if lane.disowned_by(ack):
            self._begin_anew(message_class, ack.highest)
            return 0
        if not lane.concerned_by(ack):
            return 0
        newest = lane.next - 1
        done = [(a, min(b, newest)) for a, b in ((1, ack.upto), *ack.beyond) if a <= min(b, newest)]
        freed = 0
        if ack.nack:
            freed += self._in_room(lambda lanes: self._refused(lanes, message_class, ack.nack), 0)
        for span in done:
            while some := self._in_room(partial(self._free, message_class, span), 0, durable=False):
                freed += some
        if message_class in self.untold:
            self._in_room(lambda _: self._confirm(message_class, done), 0, durable=False)
        if message_class in self.untold and not self._owes(message_class):
            self.untold.discard(message_class)
        return freed

    def bury(self, message_class: MessageClass, refusal: Refusal) -> bool:
        """Gives one message up for its reason; the server is told. False if it is not here any more."""
        found = self._in_room(lambda lanes: self._bury(lanes[message_class], message_class, refusal, told=False), 0)
        if found:
            self.untold.add(message_class)
        return found

    def dead_letters(self) -> int:
        """How many lie here."""
        return len(self._letters)

    def close(self) -> None:
        """Commits, checkpoints and closes. A last group that finds no room was never accepted, and goes."""
        try:
            self.commit()
        except TryLater as error:
            log.error("%d messages were not accepted: %s", len(self._group), error)
        close_store(self._db)

    # transactions -----------------------------------------------------------------------------------------------------

    def _transact(self, change: Callable[[Lanes], T], durable: bool = True) -> T:
        """All of `change` and the counts that it makes, or nothing of either."""
        lanes = {c: copy.copy(lane) for c, lane in self.lanes.items()}
        if not durable:
            self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            done = change(lanes)
            changed = {c: x for c, x in lanes.items() if x != self.lanes[c]}
            write_lanes(self._db, changed)
            self._db.execute("COMMIT")
            self.lanes = lanes
        except BaseException:
            roll_back(self._db)
            raise
        finally:
            if not durable:
                self._db.execute("PRAGMA synchronous=FULL")
        return done

    def _in_room(self, change: Callable[[Lanes], T], size: int, *, durable: bool = True) -> T:
        """`change`, which takes about `size` bytes, again after each thing that made room; TryLater when nothing is left
        that does."""
        while True:
            try:
                return self._transact(change, durable)
            except sqlite3.OperationalError as error:
                if not disk_full(error):
                    raise
                if not self._give_way(size):
                    raise TryLater(f"no room in {self._path}: {error}") from error

    def _insert(self, lanes: Lanes) -> None:
        stored = [one for one in self._group if one.envelope is not None]
        self._db.executemany(
            "INSERT INTO waiting VALUES (?,?)", [(LANES[one.message_class] + one.seq, one.envelope) for one in stored]
        )
        for one in self._group:
            lane = lanes[one.message_class]
            lane.next = one.seq + 1
            if one.envelope is None:
                self._note_shed(lane, one.message_class, one.seq, one.seq)
            else:
                lane.waiting += 1
                lane.bytes += len(one.envelope)
            if one.letter is not None:
                self._letters.empty(one.letter)
        names = [(one.name,) for one in self._group if one.name is not None]
        if names:
            self._db.executemany("INSERT OR IGNORE INTO told_once (name) VALUES (?)", names)
            self._db.execute(
                "DELETE FROM told_once WHERE number <= (SELECT max(number) FROM told_once) - ?", (self._names_most,)
            )

    def _free(self, message_class: MessageClass, span: SequenceRange, lanes: Lanes) -> int:
        """Deletes the oldest of a range, so few that the WAL keeps its bounds; how many. Losing this in a power cut costs
        a resend, which the server stores once."""
        base, lane = LANES[message_class], lanes[message_class]
        rows = self._db.execute(
            "SELECT key, length(envelope) FROM waiting WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?",
            (base + span[0], base + span[1], _MOST_AT_ONCE),
        ).fetchall()
        if rows:
            self._db.execute("DELETE FROM waiting WHERE key BETWEEN ? AND ?", (rows[0][0], rows[-1][0]))
        lane.waiting -= len(rows)
        lane.acked += len(rows)
        lane.bytes -= sum(size for _, size in rows)
        return len(rows)

    def _refused(self, lanes: Lanes, message_class: MessageClass, nack: list[Refusal]) -> int:
        """The server has these in its quarantine; the messages become dead letters that it knows of."""
        lane = lanes[message_class]
        found = sum(self._bury(lane, message_class, refusal, told=True) for refusal in nack)
        lane.acked += found
        return found

    def _confirm(self, message_class: MessageClass, done: list[SequenceRange]) -> None:
        self._db.executemany(
            "DELETE FROM shed WHERE class = ? AND first >= ? AND last <= ?", [(message_class.value, *x) for x in done]
        )
        self._letters.confirm(message_class, done)

    def _gather(self, one: _Added, size: int) -> None:
        if self._group and self._group_bytes + size > self._group_most:
            self.commit()
        self._group.append(one)
        self._group_bytes += size
        self._ahead[one.message_class] += 1
        if one.name is not None:
            self._names.add(one.name)

    def _bury(self, lane: Lane, message_class: MessageClass, refusal: Refusal, *, told: bool) -> bool:
        key = (LANES[message_class] + refusal.seq,)
        found = self._db.execute("SELECT envelope FROM waiting WHERE key = ?", key).fetchone()
        if found is None:
            return False
        self._db.execute("DELETE FROM waiting WHERE key = ?", key)
        self._letters.put(message_class, refusal.seq, refusal.reason, found[0], told=told)
        lane.waiting -= 1
        lane.bytes -= len(found[0])
        lane.dead += not told
        return True

    def _begin_anew(self, message_class: MessageClass, highest: int) -> None:
        self.commit()
        lane = self.lanes[message_class]
        log.warning(
            "the server has %s up to %d from another outbox of this gateway; %d waiting messages are numbered anew",
            message_class.value, highest, lane.waiting,
        )  # fmt: skip
        self._in_room(lambda lanes: begin_anew(self._db, message_class, lanes[message_class], highest), 0)
        self.begun_anew += 1

    # room -------------------------------------------------------------------------------------------------------------

    def _over(self) -> int:
        """Bytes of messages above the cap, the group's included."""
        return sum(lane.bytes for lane in self.lanes.values()) + self._group_bytes - self._max_bytes

    def _give_way(self, size: int) -> bool:
        """Makes room for `size` bytes by the next means that is left. Where the file has pages to spare and still a write
        finds no room, giving up what is stored would not help; giving up what is new does."""
        tightened = self._room.tighten()
        if self._room.spare_bytes() < size + 32_768 and self._shed(max(size, self._chunk)):
            return True
        return tightened or any(size and self._give_up_newcomers(c) for c in _SHED_ORDER)

    def _give_up_newcomers(self, message_class: MessageClass) -> bool:
        """Those of the group: they keep their numbers, and are told as shed."""
        given_up = [one for one in self._group if one.message_class is message_class and one.envelope is not None]
        for one in given_up:
            self._group_bytes -= len(one.envelope or b"")
            one.envelope = None
        return bool(given_up)

    def _shed(self, wanted_bytes: int) -> bool:
        """Gives up the oldest of the least urgent class that has any, about `wanted_bytes` of what is stored or else what
        is new, so that nothing gives way to a less urgent message. False if there is none, or no room for even that."""
        for victim in _SHED_ORDER:
            if self.lanes[victim].waiting:
                return self._shed_stored(victim, wanted_bytes)
            if self._give_up_newcomers(victim):
                return True
        return False

    def _shed_stored(self, victim: MessageClass, wanted_bytes: int) -> bool:
        base = LANES[victim]

        def shed(lanes: Lanes) -> None:
            lane = lanes[victim]
            rows = self._db.execute(
                "SELECT key - ?, length(envelope) FROM waiting WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?",
                (base, base, base + LAST, _MOST_AT_ONCE),
            ).fetchall()
            freed = 0
            runs: list[list[int]] = []
            for seq, size in rows:
                if freed >= wanted_bytes and runs:
                    break
                if runs and runs[-1][1] == seq - 1:
                    runs[-1][1] = seq
                else:
                    runs.append([seq, seq])
                freed += size
                lane.waiting -= 1
                lane.bytes -= size
            self._db.execute("DELETE FROM waiting WHERE key BETWEEN ? AND ?", (base, base + runs[-1][1]))
            for first, last in runs:
                self._note_shed(lane, victim, first, last)

        try:
            self._transact(shed)
        except sqlite3.OperationalError as error:
            if not disk_full(error):
                raise
            return self._room.tighten()
        return True

    def _note_shed(self, lane: Lane, message_class: MessageClass, first: int, last: int) -> None:
        name = message_class.value
        before = self._db.execute(
            "SELECT first, last FROM shed WHERE class = ? AND first < ? ORDER BY first DESC LIMIT 1", (name, first)
        ).fetchone()
        joined = before[0] if before and before[1] == first - 1 else first
        self._db.execute("INSERT OR REPLACE INTO shed VALUES (?,?,?)", (name, joined, last))
        lane.shed += last - first + 1
        self.untold.add(message_class)

    # the file ---------------------------------------------------------------------------------------------------------

    def _owes(self, message_class: MessageClass) -> bool:
        """Whether the server has to be told of numbers that will never come."""
        shed = self._db.execute("SELECT 1 FROM shed WHERE class = ? LIMIT 1", (message_class.value,)).fetchone()
        return shed is not None or bool(self._letters.untold(message_class))

    def _bring_up_to_date(self) -> None:
        """Takes over the tables of earlier versions of this file. The names that the first one knew are forgotten: what is
        redone is told again, and the server knows it by its id. A lane that has numbers and no numbering goes on without."""
        db = self._db
        if db.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
            return
        db.execute("BEGIN IMMEDIATE")
        there = {row[1] for row in db.execute("PRAGMA table_info(lane)")}
        for column, how in _ADDED.items():
            if column not in there:
                db.execute(f"ALTER TABLE lane ADD COLUMN {column} {how}")
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'message'").fetchone():
            for message_class, base in LANES.items():
                db.execute(
                    "INSERT INTO waiting SELECT ? + seq, envelope FROM message WHERE class = ?",
                    (base, message_class.value),
                )
            db.execute(
                "INSERT INTO letter (class, seq, reason, envelope, told)"
                " SELECT class, seq, reason, envelope, 1 FROM dead_letter"
            )
            for table in ("message", "dead_letter", "known"):
                db.execute(f"DROP TABLE {table}")
        write_lanes(db, self.lanes | read_lanes(db))
        db.execute(f"PRAGMA user_version={_VERSION}")
        db.execute("COMMIT")
