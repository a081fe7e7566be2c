"""From what the broker brought to the database, on several threads: while one waits for the database, another reads. Each
has its own gateways, so that a gateway's messages are stored in the order in which they came."""

from __future__ import annotations

import logging
import queue
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from protocol.errors import Reason, Refused
from protocol.names import MessageClass
from protocol.sync import MAX_BATCH_MESSAGES, Ack, ClassAck, encode
from protocol.topics import Channel, Topic
from server import intake
from server.catalogues import Catalogues
from server.database import Database
from server.many_rows import refuses
from server.refusals import Refusals

log = logging.getLogger(__name__)
MAX_MESSAGES_A_TRANSACTION = 50
MAX_ATTEMPTS = 3
RETRY_S = 1.0
Acks = dict[Topic, dict[MessageClass, ClassAck]]


@dataclass(slots=True, eq=False, kw_only=True)
class Received:
    """What the broker's numbers for a message are. done: it may be acknowledged."""

    mid: int
    qos: int
    done: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Arrival(Received):
    """A message of ours."""

    topic: Topic
    payload: bytes


class InOrder:
    """Acknowledges to the broker in the order in which messages came [MQTT-4.6.0-2], each once it and all before it are done.
    What an ended connection brought is not acknowledged on the next one: the broker brings it again."""

    def __init__(self, acknowledge: Callable[[int, int], object]) -> None:
        self._acknowledge = acknowledge
        self._open: deque[Received] = deque()
        self._lock = threading.Lock()

    def came(self, arrival: Received) -> None:
        """One more."""
        with self._lock:
            self._open.append(arrival)

    def done(self, arrivals: Iterable[Received]) -> None:
        """These need not come again."""
        with self._lock:
            for arrival in arrivals:
                arrival.done = True
            while self._open and self._open[0].done:
                first = self._open.popleft()
                self._acknowledge(first.mid, first.qos)

    def forget(self) -> None:
        """The connection is new."""
        with self._lock:
            self._open.clear()


class Line:
    """One thread and its queue. `publish` sends acknowledgements to gateways; `stop` ends it after the transaction in
    progress."""

    def __init__(
        self,
        database: Database,
        catalogues: Catalogues,
        refusals: Refusals,
        publish: Callable[[Topic, bytes], object],
        done: Callable[[list[Arrival]], object],
    ) -> None:
        self._database, self._catalogues, self._refusals = database, catalogues, refusals
        self._publish, self._done = publish, done
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self.failures = 0

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; what is not acknowledged comes again."""
        self._stop.set()
        self._thread.join(10)

    def put(self, arrival: Arrival) -> None:
        """One more to be stored."""
        self._arrivals.put(arrival)

    def take_some(self) -> None:
        """Stores what has come, in one transaction, and says so; waits a moment where nothing has."""
        try:
            some = [self._arrivals.get(timeout=0.2)]
        except queue.Empty:
            return
        while len(some) < MAX_MESSAGES_A_TRANSACTION and not self._arrivals.empty():
            some.append(self._arrivals.get_nowait())
        acks = self._stored(some)
        if acks is None:
            return
        for topic, classes in acks.items():
            self._publish(topic, encode(Ack(classes=classes, time=time.time_ns() // 1_000_000)))
        self._done(some)

    def store(self, some: list[Arrival], acks: Acks, *, one_by_one: bool = False) -> None:
        """One transaction; `acks` hold once it has committed, which is when this returns."""
        now_ms = time.time_ns() // 1_000_000
        with self._database.begin() as session:
            taking = intake.Taking(session, now_ms, self._catalogues, one_by_one=one_by_one)
            lanes = {(one.topic.gateway, lane) for one in some if (lane := one.topic.channel.message_class) is not None}
            if len(lanes) > 1:
                taking.expect(lanes)
            for arrival in some:
                self._take(session, taking, arrival, now_ms, acks)
            taking.finish()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.take_some()

    def _stored(self, some: list[Arrival]) -> Acks | None:
        """The acknowledgements, None if it was stopped before. A database that is away is waited for. The messages of a
        transaction that fails MAX_ATTEMPTS times although the database answers are stored one by one, as if it refused."""
        attempts = 0
        while not self._stop.is_set():
            acks: Acks = {}
            try:
                self.store(some, acks)
                return acks
            except SQLAlchemyError as error:
                if isinstance(error, DBAPIError) and refuses(error):
                    return self._stored_alone(some, error)
                self.failures += 1
                log.exception("the database did not take a transaction; trying again")
                attempts += self._database_answers()
                if attempts >= MAX_ATTEMPTS:
                    return self._stored_alone(some, error)
                self._stop.wait(RETRY_S)
        return None

    def _stored_alone(self, some: list[Arrival], error: SQLAlchemyError) -> Acks:
        """What fails even so holds nothing else up: its gateway is told nothing, and sends it again in smaller batches."""
        log.warning("the database does not take a transaction; its messages are stored one by one: %s", error)
        acks: Acks = {}
        for arrival in some:
            alone: Acks = {}
            try:
                self.store([arrival], alone, one_by_one=True)
            except SQLAlchemyError:
                self.failures += 1
                log.exception("the database did not take %s; its gateway sends it again", arrival.topic.text)
                continue
            for topic, classes in alone.items():
                for lane, told in classes.items():
                    _add(acks, topic, lane, told)
        return acks

    def _database_answers(self) -> bool:
        try:
            with self._database.begin() as session:
                return session.scalar(select(1)) == 1
        except SQLAlchemyError:
            return False

    def _take(self, session: Session, taking: intake.Taking, arrival: Arrival, now_ms: int, acks: Acks) -> None:
        topic, payload = arrival.topic, arrival.payload
        try:
            lane = topic.channel.message_class
            if lane is not None:
                told = taking.batch(topic.site, topic.gateway, lane, payload)
                for refusal in told.nack:
                    self._refusals.note("mqtt", refusal.reason)
                if told.foreign is not None:
                    self._refusals.note("mqtt", Reason.OTHER_NUMBERING)
                _add(acks, topic.sibling(Channel.DOWN_ACK), lane, told)
            elif topic.channel is Channel.STATE:
                intake.take_state(session, topic.site, topic.gateway, payload)
            elif topic.channel is Channel.TWIN_REPORTED:
                intake.take_reported(session, topic.site, topic.gateway, payload)
            elif topic.channel is Channel.UP_REPLY:
                intake.take_reply(session, topic.site, topic.gateway, payload, now_ms)
        except Refused as why:
            self._refusals.note("mqtt", why.reason)
            intake.quarantine(session, topic.gateway, topic.channel.value, None, why, payload, now_ms)


def _add(acks: Acks, topic: Topic, lane: MessageClass, told: ClassAck) -> None:
    """The last word on a class, with the refusals of all."""
    before = acks.setdefault(topic, {}).get(lane)
    nack = [*(before.nack if before else []), *told.nack][:MAX_BATCH_MESSAGES]
    acks[topic][lane] = msgspec.structs.replace(told, nack=nack)


def line_of(gateway: str, lines: int, parts: int) -> int:
    """Which line a gateway has: another share of the name's checksum than `BrokerSettings.takes` looks at."""
    return zlib.crc32(gateway.encode()) // parts % lines
