"""A gateway whose outbox is new, or is an older copy, does not have its messages taken for what the server has already."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from edge_agent.carried import _Waiting
from edge_agent.dead_letters import listed
from edge_agent.outbox import Outbox
from edge_agent.uplink import Uplink
from protocol.clocks import ClockConfidence
from protocol.names import MessageClass
from protocol.observations import WorkOrder
from protocol.sync import Ack, Batch, ClassAck, Envelope, Numbering, Refusal, decode, encode, envelope
from protocol.topics import Channel, Topic
from server import intake, ledger
from server.database import Database, Table, WorkOrderRow

EVENT = MessageClass.EVENT
STATE = Topic("s", "g", Channel.STATE)
NOW = 1_790_000_000_000


class Line:
    """A link to a server that keeps its database; what it answers waits until `listen`."""

    connected = True

    def __init__(self) -> None:
        self.database = Database("sqlite://")
        Table.metadata.create_all(self.database.engine)
        self.answers: list[Ack] = []
        self.late: list[tuple[MessageClass, bytes]] = []
        self.holds_back = False

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        lane = Topic.parse(topic).channel.message_class
        assert lane is not None
        if self.holds_back:
            self.late.append((lane, payload))
        else:
            self.take(lane, payload)

    def take(self, lane: MessageClass, payload: bytes) -> None:
        with self.database.begin() as session:
            told = intake.store_batch(session, "s", "g", lane, payload, NOW)
        self.answers.append(Ack(classes={lane: told}))

    def orders(self) -> list[str]:
        with self.database.begin() as session:
            return sorted(session.scalars(select(WorkOrderRow.order_id)))


class Gateway:
    """An outbox and its uplink."""

    def __init__(self, path: Path, line: Line) -> None:
        self.outbox = Outbox(path, 10_000_000)
        self.line = line
        self.now_s = 1000.0
        self.uplink = Uplink(line, self.outbox, STATE, lambda: self.now_s)  # type: ignore[arg-type]

    def says(self, *names: str) -> None:
        for name in names:
            self.outbox.add(EVENT, encode(order(name, self.outbox.next_seq(EVENT))))
        self.outbox.commit()

    def listen(self) -> None:
        heard, self.line.answers = self.line.answers, []
        for ack in heard:
            self.uplink.acknowledged(ack)

    def empties(self) -> None:
        for _ in range(20):
            self.uplink.pump()
            self.listen()
            self.now_s += 10
            if not any(lane.waiting for lane in self.outbox.lanes.values()) and not self.outbox.untold:
                return
        raise AssertionError(f"it still waits: {self.outbox.lanes[EVENT]}")


def order(name: str, seq: int) -> Envelope:
    said = WorkOrder(id=name, machine="m", time_ms=NOW)
    return envelope(said, site="s", gateway="g", seq=seq, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.database.close()


def test_what_a_new_outbox_holds_reaches_a_server_that_knows_its_numbers(line: Line, tmp_path: Path) -> None:
    first = Gateway(tmp_path / "first.db", line)
    first.says(*"abcdefgh")
    first.empties()
    second = Gateway(tmp_path / "second.db", line)
    second.says("i", "j", "k")
    second.empties()
    assert line.orders() == [*"abcdefghijk"]
    assert second.uplink.counters()["outbox.begun_anew"] == 1
    second.says("l")
    second.empties()
    assert line.orders() == [*"abcdefghijkl"]
    assert second.outbox.begun_anew == 1
    with line.database.begin() as session:
        (lane,) = (x for x in ledger.state(session, NOW).gateways[0].lanes if x.message_class is EVENT)
    assert (lane.complete, lane.stored, lane.dead) == (True, 12, [(9, 9, "outbox_replaced")])


def test_a_new_outbox_that_is_ahead_of_the_server_loses_nothing_either(line: Line, tmp_path: Path) -> None:
    first = Gateway(tmp_path / "first.db", line)
    first.says("a", "b")
    first.empties()
    second = Gateway(tmp_path / "second.db", line)
    second.says(*(f"n{n:03d}" for n in range(700)))
    second.empties()
    assert line.orders() == ["a", "b", *(f"n{n:03d}" for n in range(700))]


def test_an_older_copy_that_is_put_back_gives_no_number_twice(line: Line, tmp_path: Path) -> None:
    first = Gateway(tmp_path / "outbox.db", line)
    first.says("a", "b")
    first.empties()
    first.outbox.close()
    older = (tmp_path / "outbox.db").read_bytes()
    again = Gateway(tmp_path / "outbox.db", line)
    again.says("c", "d", "e", "f")
    again.empties()
    again.outbox.close()
    (tmp_path / "outbox.db").write_bytes(older)
    back = Gateway(tmp_path / "outbox.db", line)
    back.says("g", "h")
    back.empties()
    assert line.orders() == [*"abcdefgh"]


def test_two_gateways_of_one_name_take_turns_and_lose_nothing(line: Line, tmp_path: Path) -> None:
    pair = [Gateway(tmp_path / f"{n}.db", line) for n in range(2)]
    for turn in range(6):
        pair[turn % 2].says(f"{turn}a", f"{turn}b")
        pair[turn % 2].empties()
    assert line.orders() == sorted(f"{turn}{x}" for turn in range(6) for x in "ab")


def test_answers_and_batches_of_before_come_late_and_change_nothing(line: Line, tmp_path: Path) -> None:
    first = Gateway(tmp_path / "first.db", line)
    first.says(*"abcd")
    first.uplink.pump()
    stale = [ack for ack in line.answers if EVENT in ack.classes]
    line.answers.clear()
    second = Gateway(tmp_path / "second.db", line)
    second.says(*(f"n{n:03d}" for n in range(150)))
    for ack in stale:
        second.uplink.acknowledged(ack)
    assert second.outbox.lanes[EVENT].waiting == 150, "an answer to the first outbox frees nothing of the second"
    line.holds_back = True
    second.uplink.pump()
    line.holds_back, held = False, list(line.late)
    second.empties()
    for lane, payload in held:  # the very batches that were refused, once more
        line.take(lane, payload)
    second.listen()
    second.says("z")
    second.empties()
    assert line.orders() == sorted([*"abcd", *(f"n{n:03d}" for n in range(150)), "z"])


def test_what_was_shed_and_what_is_dead_is_told_under_its_new_number(line: Line, tmp_path: Path) -> None:
    first = Gateway(tmp_path / "first.db", line)
    first.says(*"abcdefgh")
    first.empties()
    second = Gateway(tmp_path / "second.db", line)
    second.says(*"ijkl")
    second.outbox.bury(EVENT, Refusal(2, "never_acknowledged"))
    second.outbox._max_bytes = 2 * len(encode(order("m", 5)))
    second.says("m")
    lane = second.outbox.lanes[EVENT]
    assert (lane.shed, lane.dead, lane.waiting) == (3, 1, 1)
    second.empties()
    assert line.orders() == [*"abcdefghm"]
    assert [letter.seq for letter in listed(tmp_path / "second.db")] == [13]
    lane = second.outbox.lanes[EVENT]
    assert lane.next - 1 == lane.waiting + lane.acked + lane.shed + lane.dead + lane.skipped
    with line.database.begin() as session:
        (told,) = (x for x in ledger.state(session, NOW).gateways[0].lanes if x.message_class is EVENT)
    assert (told.shed, told.complete) == ([(10, 12)], True)
    assert told.dead == [(9, 9, "outbox_replaced"), (13, 13, "never_acknowledged")]


def test_a_carried_file_says_whose_its_numbers_are(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 10_000_000)
    outbox.add(EVENT, encode(order("a", 1)))
    outbox.commit()
    waiting = _Waiting(tmp_path / "outbox.db")
    batches = [decode(batch, Batch) for _, batch in waiting.batches(EVENT)]
    waiting.close()
    assert [batch.numbering for batch in batches] == [Numbering(outbox.lanes[EVENT].numbering)]


def test_an_outbox_of_the_version_before_goes_on_without(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE waiting (key INTEGER PRIMARY KEY, envelope BLOB NOT NULL);"
            "CREATE TABLE lane (class TEXT PRIMARY KEY, next INTEGER, waiting INTEGER, bytes INTEGER, acked INTEGER,"
            " shed INTEGER, dead INTEGER NOT NULL DEFAULT 0);"
            "INSERT INTO lane VALUES ('event', 8, 0, 0, 7, 0, 0); PRAGMA user_version=1;"
        )
    outbox = Outbox(path, 10_000_000)
    assert outbox.lanes[EVENT].told is None
    assert outbox.lanes[MessageClass.BULK].told is not None, "a lane that never gave a number begins with one"
    outbox.add(EVENT, encode(order("a", 8)))
    outbox.commit()
    assert outbox.settle(EVENT, ClassAck(upto=8, numbering="another")) == 1
    name = outbox.lanes[MessageClass.BULK].numbering
    outbox.close()
    assert Outbox(path, 10_000_000).lanes[MessageClass.BULK].numbering == name


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.booleans()), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_whatever_is_exchanged_and_resent_every_message_is_there_once(
    turns: list[tuple[int, int, bool]],
) -> None:
    with TemporaryDirectory() as folder:
        exchanged_and_resent(Path(folder), turns)


def exchanged_and_resent(folder: Path, turns: list[tuple[int, int, bool]]) -> None:
    line = Line()
    gateways: dict[int, Gateway] = {}
    said: list[str] = []
    kept: list[tuple[MessageClass, bytes]] = []
    take = line.take

    def remember(lane: MessageClass, payload: bytes) -> None:
        kept.append((lane, payload))
        take(lane, payload)

    line.take = remember  # type: ignore[method-assign]
    for number, (which, count, repeats) in enumerate(turns):
        gateway = gateways.get(which) or gateways.setdefault(which, Gateway(folder / f"{which}.db", line))
        names = [f"{number:02d}-{n:03d}" for n in range(count)]
        gateway.says(*names)
        said += names
        gateway.empties()
        if repeats:
            for lane, payload in list(kept)[-40:]:
                take(lane, payload)
            gateway.listen()
    assert line.orders() == sorted(said)
    line.database.close()
    for gateway in gateways.values():
        gateway.outbox.close()
