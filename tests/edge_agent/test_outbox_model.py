"""The outbox against a model of it: whatever is added, settled, shed and buried, with kills and a full disk at any statement
in between, every number that was given is waiting, acknowledged, told as shed or told as dead, and never given twice."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent.outbox import Outbox
from protocol.errors import TryLater
from protocol.names import NEVER_SHED, MessageClass
from protocol.sync import ClassAck, Refusal

CAP_BYTES = 300_000
EVERYTHING = 1 << 40
LANES = [MessageClass.ALARM, MessageClass.EVENT, MessageClass.REPORT, MessageClass.METRIC, MessageClass.BULK]
classes = st.sampled_from(LANES)


class FullDisk:
    """A connection that finds the disk full from its nth statement on, for some statements; rolling back never does."""

    def __init__(self, db: sqlite3.Connection, after: int, times: int) -> None:
        self.db, self._after, self._until, self._seen = db, after, after + times, 0

    def _maybe(self, sql: str) -> None:
        if sql.startswith(("ROLLBACK", "PRAGMA", "SELECT")):
            return
        self._seen += 1
        if self._after < self._seen <= self._until:
            raise sqlite3.OperationalError("database or disk is full")

    def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        self._maybe(sql)
        return self.db.execute(sql, *rest)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        self._maybe(sql)
        return self.db.executemany(sql, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)


class OutboxModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.outbox = Outbox(self.folder / "outbox.db", CAP_BYTES)
        self.said: dict[MessageClass, dict[int, bytes]] = {c: {} for c in LANES}
        self.safe = dict.fromkeys(LANES, 1)
        """Below this, numbers are durable: a commit returned."""
        self.acked: dict[MessageClass, set[int]] = {c: set() for c in LANES}
        self.shed: dict[MessageClass, set[int]] = {c: set() for c in LANES}
        self.dead: dict[MessageClass, set[int]] = {c: set() for c in LANES}

    def teardown(self) -> None:
        self.outbox._db.close()
        shutil.rmtree(self.folder)

    def waiting(self, message_class: MessageClass) -> dict[int, bytes]:
        return dict(self.outbox.read(message_class, 0, 1_000_000, EVERYTHING))

    @rule(message_class=classes, size=st.integers(1, 9000), named=st.booleans())
    def add(self, message_class: MessageClass, size: int, named: bool) -> None:
        seq = self.outbox.next_seq(message_class)
        body = b"%d " % seq + b"x" * size
        try:
            fresh = self.outbox.add(message_class, body, known_as=f"n-{seq}" if named else "")
        except TryLater:
            assert self.outbox.next_seq(message_class) == seq, "what was not accepted has no number"
            return
        if fresh:
            self.said[message_class][seq] = body

    @rule(message_class=classes, count=st.integers(10, 60))
    def add_many(self, message_class: MessageClass, count: int) -> None:
        for _ in range(count):
            self.add(message_class, 2000, False)
        self.commit()

    @rule()
    def commit(self) -> None:
        try:
            self.outbox.commit()
        except TryLater:
            return
        for c in LANES:
            assert self.outbox.lanes[c].next == self.outbox.next_seq(c)
            self.safe[c] = self.outbox.next_seq(c)

    @rule(message_class=classes, share=st.floats(0, 1), beyond=st.booleans(), nack=st.booleans())
    def settle(self, message_class: MessageClass, share: float, beyond: bool, nack: bool) -> None:
        newest = self.outbox.lanes[message_class].next - 1
        upto = int(newest * share)
        there = self.waiting(message_class)
        far = [(newest, newest)] if beyond and newest > upto + 1 else []
        refused = [Refusal(seq, "wrong_type") for seq in list(there)[:1] if nack and seq <= upto]
        try:
            self.outbox.settle(message_class, ClassAck(upto=upto, beyond=far, nack=refused))
        except TryLater:
            self.acked[message_class] |= there.keys() - self.waiting(message_class).keys()
            return
        self.acked[message_class] |= {*range(1, upto + 1), *(a for a, _ in far)}

    @rule(message_class=classes)
    def bury(self, message_class: MessageClass) -> None:
        oldest = next(iter(self.waiting(message_class)), None)
        if oldest is None:
            return
        try:
            buried = self.outbox.bury(message_class, Refusal(oldest, "never_acknowledged"))
        except TryLater:
            return
        if buried:
            self.dead[message_class].add(oldest)
        else:  # making room for the letter shed the message itself; `look` wants its range
            assert oldest not in self.waiting(message_class)

    @precondition(lambda self: isinstance(self.outbox._db, sqlite3.Connection))
    @rule(after=st.integers(0, 12), times=st.integers(1, 60))
    def disk_is_full(self, after: int, times: int) -> None:
        db: Any = FullDisk(self.outbox._db, after, times)
        self.outbox._db = self.outbox._letters._db = self.outbox._room._db = db

    @rule()
    def kill(self) -> None:
        self.look()
        db: Any = self.outbox._db
        (db.db if isinstance(db, FullDisk) else db).close()
        self.outbox = Outbox(self.folder / "outbox.db", CAP_BYTES)
        for c in LANES:
            assert self.outbox.lanes[c].next >= self.safe[c], "what commit returned for is there"
            self.said[c] = {seq: body for seq, body in self.said[c].items() if seq < self.outbox.lanes[c].next}

    @invariant()
    def look(self) -> None:
        for c in LANES:
            lane, there = self.outbox.lanes[c], self.waiting(c)
            self.shed[c] |= {n for a, b in self.outbox.shed_ranges(c) for n in range(a, b + 1)}
            assert there.items() <= self.said[c].items(), "each as it was said"
            assert (lane.waiting, lane.bytes) == (len(there), sum(map(len, there.values())))
            assert lane.next - 1 == lane.waiting + lane.acked + lane.shed + lane.dead
            gone = set(range(1, lane.next)) - there.keys()
            assert gone == (self.acked[c] | self.shed[c] | self.dead[c]) & gone, "nothing went without a word"
            assert not self.shed[c] & there.keys()
            assert c not in NEVER_SHED or not self.shed[c]
            assert {x.seq for x in self.outbox.untold_dead(c)} <= self.dead[c]
        assert sum(lane.bytes for lane in self.outbox.lanes.values()) <= CAP_BYTES


OutboxModel.TestCase.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestOutbox = OutboxModel.TestCase
