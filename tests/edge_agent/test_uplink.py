"""What waits reaches the server once and in good order, whatever becomes of single batches, of the server, or of the link."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.dead_letters import listed
from edge_agent.flow import TokenBucket, full_jitter
from edge_agent.outbox import Outbox
from edge_agent.uplink import CANARY_S, MAX_BACKLOG_AHEAD, MAX_BATCHES_AHEAD, MAX_DEAD_IN_A_ROW, Uplink
from protocol.clocks import ClockConfidence
from protocol.names import MessageClass
from protocol.observations import WorkOrder
from protocol.sync import Ack, Batch, ClassAck, Refusal, Resend, decode, encode, envelope
from protocol.topics import Channel, Topic

ALARM, EVENT, REPORT, METRIC, BULK = (
    MessageClass.ALARM,
    MessageClass.EVENT,
    MessageClass.REPORT,
    MessageClass.METRIC,
    MessageClass.BULK,
)
STATE = Topic("s", "g", Channel.STATE)


class Link:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.connected = True
        self.sent: list[tuple[MessageClass, Batch]] = []

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        channel = Topic.parse(topic).channel
        assert channel.message_class is not None
        self.sent.append((channel.message_class, decode(payload, Batch)))

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the uplink has no business with {name}")


class Server:
    """Acknowledges what it takes, cumulatively, as the real one does."""

    def __init__(self) -> None:
        self.has: dict[MessageClass, set[int]] = {c: set() for c in MessageClass}
        self.times: list[int] = []
        self.rate: float | None = None

    def take(self, message_class: MessageClass, batch: Batch) -> Ack:
        has = self.has[message_class]
        self.times += [e.mwseq for e in batch.envelopes]
        has.update(e.mwseq for e in batch.envelopes)
        has.update(refusal.seq for refusal in batch.dead)
        for first, last in batch.shed:
            has.update(range(first, last + 1))
        upto = 0
        while upto + 1 in has:
            upto += 1
        beyond = [(n, n) for n in sorted(has) if n > upto]
        return Ack(classes={message_class: ClassAck(upto=upto, beyond=beyond)}, rate=self.rate)


class Plant:
    """An uplink between an outbox and a server, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 1000.0
        self.link = Link()
        self.server = Server()
        self.outbox = Outbox(folder / "outbox.db", 50_000_000)
        self.uplink = self.new_uplink()
        self.refuses: Callable[[MessageClass, Batch], bool] = lambda _class, _batch: False

    def new_uplink(self, replay: TokenBucket | None = None) -> Uplink:
        link: Any = self.link
        self.uplink = Uplink(link, self.outbox, STATE, lambda: self.now_s, replay=replay)
        return self.uplink

    def add(self, message_class: MessageClass, count: int) -> None:
        for _ in range(count):
            seq = self.outbox.next_seq(message_class)
            order = WorkOrder(id=f"w-{seq}", machine="P-1", time_ms=1_790_000_000_000)
            told = envelope(
                order, site="s", gateway="g", seq=seq, boot="b", clock=ClockConfidence.SYNCED, time_ms=order.time_ms
            )
            self.outbox.add(message_class, encode(told))
        self.outbox.commit()

    def sent(self, message_class: MessageClass) -> list[int]:
        """Numbers in the order in which they went out since the last look."""
        return [e.mwseq for c, batch in self.link.sent if c is message_class for e in batch.envelopes]

    def round(self, passes_s: float = 0.1) -> None:
        """The agent sends, the server answers what it does not refuse."""
        self.uplink.pump()
        batches, self.link.sent = self.link.sent, []
        for message_class, batch in batches:
            if not self.refuses(message_class, batch):
                self.uplink.acknowledged(self.server.take(message_class, batch))
        self.now_s += passes_s

    def waiting(self) -> int:
        return sum(lane.waiting for lane in self.outbox.lanes.values())


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.outbox.close()


def poison(number: int) -> Callable[[MessageClass, Batch], bool]:
    """A server that cannot take a batch with this number in it."""
    return lambda message_class, batch: message_class is EVENT and any(e.mwseq == number for e in batch.envelopes)


def test_a_poison_message_is_found_told_and_holds_nothing_up(plant: Plant) -> None:
    plant.add(EVENT, 150)
    plant.refuses = poison(77)
    plant.round()
    plant.add(EVENT, 5)
    plant.round()
    assert plant.server.has[EVENT] >= {151, 152, 153, 154, 155}, "what is behind it does not wait"
    for _ in range(40):
        plant.round()
    assert len(plant.server.has[EVENT]) >= 80, "the half without it is there as soon as it is halved"
    for _ in range(600):
        plant.round()
    assert plant.server.has[EVENT] == set(range(1, 156))
    assert 77 not in plant.server.times
    (letter,) = listed(plant.folder / "outbox.db")
    assert (letter.seq, letter.reason, letter.told) == (77, "never_acknowledged", True)
    assert plant.waiting() == 0
    assert plant.outbox.untold == set()


def test_a_poison_message_alone_in_the_outbox_is_told_by_the_canary(plant: Plant) -> None:
    plant.add(EVENT, 1)
    plant.refuses = poison(1)
    for _ in range(3000):
        plant.round()
    assert [x.seq for x in listed(plant.folder / "outbox.db")] == [1]


def test_a_server_that_is_away_makes_no_dead_letters_however_long(plant: Plant) -> None:
    plant.add(EVENT, 30)
    plant.refuses = lambda _class, _batch: True
    for _ in range(3000):
        plant.round(5.0)
    assert listed(plant.folder / "outbox.db") == []
    assert plant.uplink.server_answers is False
    assert plant.uplink.silences == 1
    plant.refuses = lambda _class, _batch: False
    for _ in range(100):
        plant.round(5.0)
    assert plant.server.has[EVENT] == set(range(1, 31))
    assert plant.uplink.server_answers is True


def test_a_lane_that_the_server_takes_nothing_of_is_not_emptied_into_the_dead_letters(plant: Plant) -> None:
    plant.add(EVENT, 300)
    plant.refuses = lambda message_class, _batch: message_class is EVENT
    for _ in range(4000):
        plant.add(METRIC, 1)
        plant.round(0.5)
    assert len(listed(plant.folder / "outbox.db")) == MAX_DEAD_IN_A_ROW
    plant.refuses = lambda _class, _batch: False
    for _ in range(400):
        plant.round(0.5)
    assert plant.server.has[EVENT] == set(range(1, 301))


def test_a_batch_that_got_lost_goes_out_again_as_soon_as_a_later_one_is_acknowledged(plant: Plant) -> None:
    plant.add(EVENT, 10)
    plant.add(REPORT, 10)
    lost = [True]
    plant.refuses = lambda message_class, _batch: message_class is EVENT and bool(lost) and lost.pop()
    plant.round()
    assert plant.server.has[EVENT] == set()
    plant.round()
    assert plant.server.has[EVENT] == set(range(1, 11))


def test_more_of_a_backlog_is_on_its_way_while_it_arrives_and_half_as_much_when_it_does_not(plant: Plant) -> None:
    plant.add(BULK, 30_000)
    plant.new_uplink()
    ahead: list[int] = []

    def one_round() -> None:
        plant.uplink.pump()
        ahead.append(sum(c is BULK and bool(batch.envelopes) for c, batch in plant.link.sent))
        plant.round(0.0)

    plant.round()  # the canary
    for _ in range(5):
        one_round()
    assert ahead == sorted(ahead)
    assert (ahead[0], ahead[-1]) == (MAX_BATCHES_AHEAD, MAX_BACKLOG_AHEAD)
    plant.refuses = lambda _class, _batch: True
    one_round()
    plant.now_s += 60.0
    plant.uplink.pump()
    assert plant.uplink._flights[BULK].window == MAX_BACKLOG_AHEAD // 2
    plant.link.sent.clear()
    plant.refuses = lambda _class, _batch: False
    for _ in range(100):
        plant.round(1.0)
    assert plant.server.has[BULK] == set(range(1, 30_001))


def test_what_is_new_goes_before_a_backlog_that_drips_through_a_token_bucket(plant: Plant) -> None:
    plant.link.connected = False
    plant.add(BULK, 3000)
    plant.new_uplink(TokenBucket(100, 200))
    plant.uplink.pump()
    plant.link.connected = True
    plant.uplink.pump()
    plant.add(BULK, 5)
    plant.round()
    assert plant.server.times == list(range(3001, 3006))
    for _ in range(100):
        plant.round()
    assert 1000 <= len(plant.server.has[BULK]) <= 1500, "100 a second for ten seconds, and the burst"
    for _ in range(300):
        plant.round()
    assert plant.server.has[BULK] == set(range(1, 3006))
    assert len(plant.server.times) == 3005, "nothing went twice"


def test_the_backlog_waits_until_the_server_has_answered(plant: Plant) -> None:
    plant.add(BULK, 3000)
    plant.refuses = lambda _class, _batch: True
    for _ in range(20):
        plant.round()
    assert plant.server.times == []
    assert plant.uplink.batches_sent == 1, "the canary"
    plant.now_s += CANARY_S
    plant.uplink.pump()
    assert plant.uplink.server_answers is False


def test_the_servers_offer_holds_for_what_can_wait_and_not_for_an_alarm(plant: Plant) -> None:
    plant.server.rate = 10.0
    plant.round()
    plant.add(BULK, 1000)
    plant.add(ALARM, 1000)
    for _ in range(100):
        plant.round()
    assert len(plant.server.has[ALARM]) == 1000
    assert len(plant.server.has[BULK]) <= 400
    plant.server.rate = None
    for _ in range(400):
        plant.round()
    assert len(plant.server.has[BULK]) == 1000


def test_no_more_is_on_its_way_than_was_agreed(plant: Plant) -> None:
    plant.uplink.pump()
    plant.add(EVENT, 2000)
    for _ in range(10):
        plant.uplink.pump()
    assert len(plant.sent(EVENT)) == 800


def test_shed_ranges_are_told_although_nothing_waits(plant: Plant) -> None:
    plant.outbox.close()
    plant.outbox = Outbox(plant.folder / "small.db", 200_000)
    plant.new_uplink()
    for _ in range(300):
        plant.outbox.add(BULK, b"b" * 1000)
        plant.outbox.commit()
    plant.outbox._shed(10_000_000)
    while plant.outbox.lanes[BULK].waiting:
        plant.outbox._shed(10_000_000)
    for _ in range(3):
        plant.round()
    assert plant.server.has[BULK] == set(range(1, 301))
    assert plant.outbox.shed_ranges(BULK) == []
    plant.round(100)
    assert plant.link.sent == []


def test_more_ranges_than_one_batch_can_tell_are_told_in_several(plant: Plant) -> None:
    rows = [("bulk", 2 * n, 2 * n) for n in range(1, 2501)]
    plant.outbox._db.executemany("INSERT INTO shed VALUES (?,?,?)", rows)
    plant.outbox.lanes[BULK].next = 5002
    plant.outbox.untold.add(BULK)
    for _ in range(60):
        plant.round()
    assert plant.server.has[BULK] == set(range(2, 5001, 2))
    assert plant.outbox.shed_ranges(BULK) == []


def test_what_the_server_asks_for_again_is_sent_again(plant: Plant) -> None:
    plant.add(EVENT, 10)
    plant.uplink.pump()
    plant.link.sent.clear()
    plant.uplink.send_again(Resend(classes={EVENT: [(3, 5), (8, 8), (400, 500)]}))
    plant.uplink.pump()
    assert plant.sent(EVENT) == [3, 4, 5, 8]


def test_a_message_that_no_batch_can_carry_is_a_dead_letter_at_once(plant: Plant) -> None:
    plant.outbox.add(EVENT, b"x" * 1_000_001)
    plant.outbox.commit()
    plant.add(EVENT, 3)
    for _ in range(3):
        plant.round()
    assert [(x.seq, x.reason) for x in listed(plant.folder / "outbox.db")] == [(1, "too_large")]
    assert plant.server.has[EVENT] == {1, 2, 3, 4}


def test_a_refusal_of_the_server_is_not_told_back_to_it(plant: Plant) -> None:
    plant.add(EVENT, 2)
    plant.uplink.pump()
    plant.uplink.acknowledged(Ack(classes={EVENT: ClassAck(upto=2, nack=[Refusal(1, "wrong_type")])}))
    plant.link.sent.clear()
    plant.now_s += 100
    plant.uplink.pump()
    assert [batch.dead for _, batch in plant.link.sent if batch.dead] == []
    assert [x.reason for x in listed(plant.folder / "outbox.db")] == ["wrong_type"]


def test_waits_are_spread_over_the_whole_of_a_bound_that_grows() -> None:
    for attempt in (0, 3, 50, 5000):
        bound = min(2.0**attempt, 30.0) if attempt < 50 else 30.0
        waits = [full_jitter(attempt, 1.0, 30.0) for _ in range(500)]
        assert min(waits) < 0.1 * bound
        assert 0.9 * bound < max(waits) <= bound


def test_a_bucket_pays_its_debts() -> None:
    bucket = TokenBucket(10, 20)
    assert bucket.ready(0.0)
    bucket.take(30)
    assert not bucket.ready(1.0)
    assert bucket.ready(1.1)
    bucket.take(1_000_000)
    assert bucket.ready(3.2)
    assert TokenBucket(None, 0).ready(0.0)
