"""Several lines store what one broker brings: each gateway in order, acknowledged in order, and nothing holds the rest up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from protocol.clocks import ClockConfidence
from protocol.names import MessageClass
from protocol.observations import WorkOrder
from protocol.sync import Ack, Batch, decode, encode, envelope
from protocol.topics import Channel, Topic
from server import lines
from server.catalogues import Catalogues
from server.database import Database, Table, WorkOrderRow
from server.lines import Arrival, InOrder, Line, Received, line_of
from server.refusals import Refusals

NOW = 1_790_000_000_000


def batch(gateway: str, seq: int) -> Arrival:
    order = WorkOrder(id=f"{gateway}-{seq}", machine="m", time_ms=NOW)
    one = envelope(order, site="s", gateway=gateway, seq=seq, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)
    topic = Topic("s", gateway, Channel.up(MessageClass.EVENT))
    return Arrival(mid=seq, qos=1, topic=topic, payload=encode(Batch(envelopes=[one])))


class Bench:
    """A line at work, what it told gateways and what it is done with."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.told: list[tuple[str, int]] = []
        self.done: list[int] = []
        self.line = Line(database, Catalogues(), Refusals(), self._publish, self._done)

    def _publish(self, topic: Topic, payload: bytes) -> None:
        self.told.append((topic.gateway, decode(payload, Ack).classes[MessageClass.EVENT].upto))

    def _done(self, some: list[Arrival]) -> None:
        self.done += [one.mid for one in some]

    def orders(self) -> list[str]:
        with self.database.begin() as session:
            return sorted(session.scalars(select(WorkOrderRow.order_id)))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(lines, "RETRY_S", 0.01)
    database = Database(f"sqlite:///{tmp_path}/server.db")
    Table.metadata.create_all(database.engine)
    yield Bench(database)
    database.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@given(st.permutations(range(12)), st.integers(1, 5))
def test_the_broker_hears_of_messages_in_the_order_in_which_they_came(order: list[int], several: int) -> None:
    heard: list[int] = []
    keeper = InOrder(lambda mid, _qos: heard.append(mid))
    came = [Received(mid=n, qos=1) for n in range(12)]
    for one in came:
        keeper.came(one)
    for first in range(0, 12, several):
        now = order[first : first + several]
        keeper.done([came[n] for n in now])
        finished = set(order[: first + several])
        assert heard == list(range(next((n for n in range(12) if n not in finished), 12)))


def test_what_an_ended_connection_brought_is_not_acknowledged_on_the_next() -> None:
    heard: list[int] = []
    keeper = InOrder(lambda mid, _qos: heard.append(mid))
    old, new = Received(mid=1, qos=1), Received(mid=1, qos=1)
    keeper.came(old)
    keeper.forget()
    keeper.came(new)
    keeper.done([old])
    assert heard == []
    keeper.done([new])
    assert heard == [1]


def test_a_database_that_is_away_is_waited_for_and_nothing_is_acknowledged_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = threading.Event()
    away.set()
    begin = bench.database.begin

    def begins() -> Any:
        if away.is_set():
            raise OperationalError("BEGIN", {}, ConnectionError("no route"))
        return begin()

    monkeypatch.setattr(bench.database, "begin", begins)
    bench.line.start()
    for seq in (1, 2, 3):
        bench.line.put(batch("g", seq))
    until(lambda: bench.line.failures > 2 * lines.MAX_ATTEMPTS)
    assert (bench.told, bench.done) == ([], [])
    away.clear()
    until(lambda: sorted(bench.done) == [1, 2, 3])
    bench.line.stop()
    assert bench.told[-1] == ("g", 3)
    assert bench.orders() == ["g-1", "g-2", "g-3"]


def test_a_batch_that_always_fails_is_left_and_what_came_with_it_is_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bench.line.store

    def stores(some: list[Arrival], acks: lines.Acks, *, one_by_one: bool = False) -> None:
        if any(one.topic.gateway == "poison" for one in some):
            raise OperationalError("INSERT", {}, MemoryError("out of shared memory"))
        store(some, acks, one_by_one=one_by_one)

    monkeypatch.setattr(bench.line, "store", stores)
    bench.line.put(batch("poison", 1))
    bench.line.put(batch("g", 2))
    bench.line.take_some()
    assert bench.told == [("g", 0)], "its first number is missing"
    assert bench.done == [1, 2], "the broker need not bring it again: its gateway does"
    assert bench.line.failures == lines.MAX_ATTEMPTS + 1
    assert bench.orders() == ["g-2"]


def test_what_is_refused_of_several_batches_is_named_although_they_are_stored_one_by_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bench.line.store
    acks: list[Ack] = []
    monkeypatch.setattr(bench.line, "_publish", lambda _topic, payload: acks.append(decode(payload, Ack)))

    def stores(some: list[Arrival], acks: lines.Acks, *, one_by_one: bool = False) -> None:
        if not one_by_one:
            raise IntegrityError("INSERT", {}, ValueError("unique"))
        store(some, acks, one_by_one=one_by_one)

    monkeypatch.setattr(bench.line, "store", stores)
    for seq in (1, 2, 3):
        one = batch("g", seq)
        if seq < 3:
            one.payload = one.payload.replace(b"millwright.work_order.v1", b"millwright.no_such_thing")
        bench.line.put(one)
    bench.line.take_some()
    (told,) = (ack.classes[MessageClass.EVENT] for ack in acks)
    assert (told.upto, [one.seq for one in told.nack]) == (3, [1, 2])
    assert bench.orders() == ["g-3"]


def test_a_line_that_is_stopped_amid_an_outage_acknowledges_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begins() -> Session:
        raise OperationalError("BEGIN", {}, ConnectionError("no route"))

    monkeypatch.setattr(bench.database, "begin", begins)
    bench.line.start()
    bench.line.put(batch("g", 1))
    until(lambda: bench.line.failures > 0)
    bench.line.stop()
    assert (bench.told, bench.done) == ([], [])


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1), st.integers(1, 8), st.integers(1, 8))
def test_a_gateway_has_one_line(names: list[str], count: int, parts: int) -> None:
    for name in names:
        assert line_of(name, count, parts) == line_of(name, count, parts)
        assert 0 <= line_of(name, count, parts) < count


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_gateways_of_one_part_are_spread_over_its_lines(parts: int) -> None:
    from server.config import BrokerSettings

    mine = [f"line-{n}" for n in range(400) if BrokerSettings(part=1, parts=parts).takes(f"line-{n}")]
    first = sum(line_of(name, 2, parts) == 0 for name in mine)
    assert 0.3 * len(mine) < first < 0.7 * len(mine)
