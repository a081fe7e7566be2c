"""From the outbox to the server and back: live data first, most urgent class first; acknowledgements free the outbox.

Rules kept here:
- PUBACK is not delivery. Everything sent has a lease; what the server has not acknowledged when it ends goes out again, and
  the server stores it once. Leases double while nothing at all is heard.
- What waited before the connection is a backlog: it follows what is new, under a token bucket, and only once the server has
  answered a canary (an empty batch).
- The server's word on how much it takes (`Ack.rate`) holds for everything but alarm, event, feedback and report.
- Batches reach the server in the order in which they were sent. One that is not acknowledged while a later one is (of any
  class, or a canary) has failed over a live link. Then it is sent again, then halved, and the message that is left alone
  and fails MAX_ATTEMPTS times becomes a dead letter. A server that is away fails nothing; a lane of which nothing comes
  through loses no more than MAX_DEAD_IN_A_ROW."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.broker import Link
from edge_agent.flow import TokenBucket
from edge_agent.lanes import framed
from edge_agent.outbox import Outbox
from protocol.errors import Reason, TryLater
from protocol.names import MessageClass
from protocol.sync import (
    MAX_BATCH_BYTES,
    MAX_BATCH_MESSAGES,
    MAX_RANGES,
    Ack,
    Batch,
    ClassAck,
    Refusal,
    Resend,
    encode,
)
from protocol.topics import Channel, Topic

log = logging.getLogger(__name__)
MAX_MESSAGES_A_BATCH = 200
MAX_BYTES_A_BATCH = 400_000
MAX_BATCHES_AHEAD = 4
"""Of one class on their way at once: live ones and, beside them, at first as many of the backlog."""
MAX_BACKLOG_AHEAD = 32
"""How many of the backlog it becomes while they arrive, one more for each; what is not acknowledged in time halves it."""
MAX_ATTEMPTS = 5
MAX_DEAD_IN_A_ROW = 10
MAX_AGAIN = 100
CANARY_S = 10.0
MOST_PATIENT_S = 60.0
_FRAME_BYTES = 200
_NEVER_HELD_BACK = frozenset({MessageClass.ALARM, MessageClass.EVENT, MessageClass.FEEDBACK, MessageClass.REPORT})


@dataclass(slots=True)
class _Lease:
    """Numbers on their way, until when, as the how-manieth batch."""

    seqs: list[int]
    order: int
    until_s: float
    backlog: bool
    failures: int


@dataclass(slots=True)
class _Again:
    """A range to send again, not before a moment."""

    first: int
    last: int
    failures: int = 0
    from_s: float = 0.0


@dataclass(slots=True)
class _Flight:
    """How far a class was sent: `live` counts up from the newest message at the connection, `replayed` up to it."""

    live: int = 0
    replayed: int = 0
    backlog: int = 0
    numbering: str = ""
    leases: list[_Lease] = field(default_factory=list)
    again: deque[_Again] = field(default_factory=deque)
    told_until_s: float = -1e9
    dead_in_a_row: int = 0
    window: int = MAX_BATCHES_AHEAD

    def ahead(self, backlog: bool) -> int:
        """Batches on their way."""
        return sum(lease.backlog == backlog for lease in self.leases)


class Uplink:
    """Sends what waits. `monotonic_s` is the clock of leases; `replay` bounds the backlog."""

    def __init__(
        self,
        link: Link,
        outbox: Outbox,
        state: Topic,
        monotonic_s: Callable[[], float],
        resend_after_s: float = 5.0,
        replay: TokenBucket | None = None,
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._topic = state
        self._monotonic_s = monotonic_s
        self._resend_after_s = resend_after_s
        self._patience_s = resend_after_s
        self._replay = replay or TokenBucket(None, 0)
        self._offered = TokenBucket(None, MAX_MESSAGES_A_BATCH)
        self._flights = {c: _Flight() for c in MessageClass}
        self._connected = False
        self._order = 0
        self._canary: _Lease | None = None
        self._canary_from_s = 0.0
        self.server_answers: bool | None = None
        """None: not known yet on this connection."""
        self.batches_sent = 0
        self.bytes_sent = 0
        self.resent = 0
        self.dead = 0
        self.silences = 0
        self.last_ack_s: float | None = None

    def pump(self) -> None:
        """Sends the next batches of every class that has something to say."""
        if not self._link.connected:
            self._connected, self.server_answers = False, None
            return
        if not self._connected:
            self.start_over()
        now_s = self._monotonic_s()
        for message_class in MessageClass:
            self._follow_numbering(message_class)
        self._end_leases(now_s)
        try:
            for message_class in MessageClass:
                self._tell(message_class, now_s)
                self._send_again(message_class, now_s)
                self._send_live(message_class, now_s)
            if now_s >= self._canary_from_s and self._canary is None:
                self._send_canary(now_s)
            if self.server_answers:
                for message_class in MessageClass:
                    self._send_backlog(message_class, now_s)
        except TryLater as error:
            log.debug("uplink waits: %s", error)

    def start_over(self) -> None:
        """Forgets what was sent and not acknowledged: the link is new. All that waits is backlog, if it is more than a
        batch."""
        self._connected, self.server_answers, self._canary = True, None, None
        self._canary_from_s = -1e9
        self._patience_s = self._resend_after_s
        for message_class in MessageClass:
            self._start_lane_over(message_class)

    def _start_lane_over(self, message_class: MessageClass) -> None:
        lane = self._outbox.lanes[message_class]
        newest = lane.next - 1 if lane.waiting > MAX_MESSAGES_A_BATCH else 0
        dead = self._flights[message_class].dead_in_a_row
        self._flights[message_class] = _Flight(newest, 0, newest, lane.numbering, dead_in_a_row=dead)

    def _follow_numbering(self, message_class: MessageClass) -> bool:
        """Whether the lane's numbers are others than those that were sent: then none of them is on its way."""
        if self._flights[message_class].numbering == self._outbox.lanes[message_class].numbering:
            return False
        self._start_lane_over(message_class)
        return True

    def acknowledged(self, ack: Ack) -> int:
        """Takes the server's answer; returns how many messages it freed."""
        now_s = self._monotonic_s()
        self.last_ack_s, self.server_answers, self._patience_s = now_s, True, self._resend_after_s
        self._offered.rate = ack.rate
        freed, newest = 0, -1
        for message_class, told in ack.classes.items():
            freed_here = self._outbox.settle(message_class, told)
            if self._follow_numbering(message_class) or not self._outbox.lanes[message_class].concerned_by(told):
                continue
            flight = self._flights[message_class]
            arrived = [lease for lease in flight.leases if _covers(told, lease.seqs)]
            if arrived:
                newest = max(newest, *(lease.order for lease in arrived))
                flight.leases = [lease for lease in flight.leases if lease not in arrived]
                flight.window = min(flight.window + len(arrived), MAX_BACKLOG_AHEAD)
            if freed_here:
                flight.dead_in_a_row = 0
            freed += freed_here
        if self._canary is not None and MessageClass.METRIC in ack.classes:
            newest = max(newest, self._canary.order)
            self._canary, self._canary_from_s = None, float("inf")
        for message_class, flight in self._flights.items():
            failed = [lease for lease in flight.leases if lease.order < newest]
            flight.leases = [lease for lease in flight.leases if lease.order >= newest]
            for lease in failed:
                self._failed(message_class, lease, now_s)
        return freed

    def counters(self) -> dict[str, int]:
        """Since boot. silent: how often the broker was there and the server did not answer."""
        told = {
            "uplink.resent": self.resent,
            "uplink.dead_letters": self.dead,
            "uplink.silent": self.silences,
            "outbox.begun_anew": self._outbox.begun_anew,
        }
        return {name: n for name, n in told.items() if n}

    def send_again(self, wanted: Resend) -> None:
        """Notes the ranges that the server misses; they go out with the next `pump` as far as they are still here."""
        for message_class, ranges in wanted.classes.items():
            flight = self._flights[message_class]
            flight.told_until_s = -1e9
            for first, last in ranges[: max(MAX_AGAIN - len(flight.again), 0)]:
                if all(first > again.last or last < again.first for again in flight.again):
                    flight.again.append(_Again(first, last))

    # attempts ---------------------------------------------------------------------------------------------------------

    def _end_leases(self, now_s: float) -> None:
        """What was not acknowledged in time goes out again. That is no failure of the message: nobody may be there. A
        canary goes after it, to find out."""
        ended = False
        for flight in self._flights.values():
            late = [lease for lease in flight.leases if lease.until_s <= now_s]
            for lease in late:
                flight.leases.remove(lease)
                flight.again.append(_Again(lease.seqs[0], lease.seqs[-1], lease.failures))
            if late:
                ended, flight.window = True, max(flight.window // 2, 1)
        if self._canary is not None and self._canary.until_s <= now_s:
            silent = self.last_ack_s is None or self.last_ack_s < self._canary.until_s - CANARY_S
            self._canary, self._canary_from_s = None, now_s + self._patience_s
            ended = True
            if silent and self.server_answers is not False:
                self.server_answers = False
                self.silences += 1
                log.warning("connected to the broker, but the server does not answer; everything waits in the outbox")
        elif ended and self._canary is None:
            self._canary_from_s = min(self._canary_from_s, now_s)
        if ended:
            self._patience_s = min(2 * self._patience_s, MOST_PATIENT_S)

    def _failed(self, message_class: MessageClass, lease: _Lease, now_s: float) -> None:
        """Not acknowledged, though something sent later was."""
        flight, failures, seqs = self._flights[message_class], lease.failures + 1, lease.seqs
        from_s = now_s + (0.0 if failures == 1 else min(0.25 * 2.0**failures, MOST_PATIENT_S))
        if len(seqs) > 1 and failures > 1:
            middle = len(seqs) // 2
            fewer = min(failures, MAX_ATTEMPTS - 2)
            flight.again.append(_Again(seqs[0], seqs[middle - 1], fewer, from_s))
            flight.again.append(_Again(seqs[middle], seqs[-1], fewer, from_s))
        elif len(seqs) == 1 and failures >= MAX_ATTEMPTS and flight.dead_in_a_row < MAX_DEAD_IN_A_ROW:
            self._give_up(message_class, seqs[0], Reason.NEVER_ACKNOWLEDGED)
        else:
            flight.again.append(_Again(seqs[0], seqs[-1], failures, from_s))

    def _give_up(self, message_class: MessageClass, seq: int, reason: Reason) -> None:
        if self._outbox.bury(message_class, Refusal(seq, reason.value)):
            log.warning("message %d of %s is a dead letter: %s", seq, message_class, reason)
            self.dead += 1
            flight = self._flights[message_class]
            flight.dead_in_a_row += 1
            flight.told_until_s = -1e9

    # sending ----------------------------------------------------------------------------------------------------------

    def _send_canary(self, now_s: float) -> None:
        """There and back, after all that was sent before. Where metrics are on their way already, their acknowledgement
        says the same."""
        if not self._flights[MessageClass.METRIC].leases:
            self._publish(MessageClass.METRIC, framed([], self._outbox.lanes[MessageClass.METRIC]))
            self._canary = _Lease([], self._order, now_s + CANARY_S, False, 0)

    def _tell(self, message_class: MessageClass, now_s: float) -> None:
        """Numbers that will never come, whether or not anything else waits in the lane."""
        flight = self._flights[message_class]
        if message_class not in self._outbox.untold or now_s < flight.told_until_s:
            return
        shed, dead = self._outbox.shed_ranges(message_class), self._outbox.untold_dead(message_class)
        if shed or dead:
            numbering = self._outbox.lanes[message_class].told
            self._publish(message_class, encode(Batch(envelopes=[], shed=shed, dead=dead, numbering=numbering)))
            more = len(shed) == MAX_RANGES or len(dead) == MAX_BATCH_MESSAGES
            flight.told_until_s = now_s + (1.0 if more else self._patience_s)

    def _send_again(self, message_class: MessageClass, now_s: float) -> None:
        flight = self._flights[message_class]
        for _ in range(len(flight.again)):
            if flight.ahead(backlog=False) >= MAX_BATCHES_AHEAD:
                return
            again = flight.again.popleft()
            if again.from_s > now_s:
                flight.again.append(again)
                continue
            flight.again.appendleft(again)  # until it is sent
            sent = self._send(message_class, again.first - 1, again.last, now_s, failures=again.failures)
            flight.again.popleft()
            if sent:
                self.resent += len(sent)
                if again.failures:  # find out soon whether it fails again
                    self._canary_from_s = min(self._canary_from_s, now_s)
                if sent[-1] < again.last:
                    flight.again.append(_Again(sent[-1] + 1, again.last, again.failures))

    def _send_live(self, message_class: MessageClass, now_s: float) -> None:
        flight, lane = self._flights[message_class], self._outbox.lanes[message_class]
        held_back = message_class not in _NEVER_HELD_BACK
        while lane.waiting and flight.live < lane.next - 1 and flight.ahead(backlog=False) < MAX_BATCHES_AHEAD:
            if held_back and not self._offered.ready(now_s):
                return
            sent = self._send(message_class, flight.live, lane.next - 1, now_s)
            flight.live = sent[-1] if sent else lane.next - 1

    def _send_backlog(self, message_class: MessageClass, now_s: float) -> None:
        flight = self._flights[message_class]
        while flight.replayed < flight.backlog and flight.ahead(backlog=True) < flight.window:
            if not self._replay.ready(now_s) or not self._offered.ready(now_s):
                return
            sent = self._send(message_class, flight.replayed, flight.backlog, now_s, backlog=True)
            flight.replayed = sent[-1] if sent else flight.backlog
            self._replay.take(len(sent))

    def _send(
        self,
        message_class: MessageClass,
        after: int,
        upto: int,
        now_s: float,
        *,
        backlog: bool = False,
        failures: int = 0,
    ) -> list[int]:
        """The next batch of (after, upto], under a lease; its numbers, none if nothing is there. Raises TryLater."""
        rows = self._outbox.read(message_class, after, MAX_MESSAGES_A_BATCH, MAX_BYTES_A_BATCH, upto)
        if not rows:
            return []
        seqs = [seq for seq, _ in rows]
        if len(rows[0][1]) > MAX_BATCH_BYTES - _FRAME_BYTES:
            self._give_up(message_class, seqs[0], Reason.TOO_LARGE)
            return seqs[:1]
        self._publish(message_class, framed((envelope for _, envelope in rows), self._outbox.lanes[message_class]))
        lease = _Lease(seqs, self._order, now_s + self._patience_s, backlog, failures)
        self._flights[message_class].leases.append(lease)
        self._offered.take(len(seqs))
        return seqs

    def _publish(self, message_class: MessageClass, payload: bytes) -> None:
        self._link.publish(self._topic.sibling(Channel.up(message_class)).text, payload)
        self._order += 1
        self.batches_sent += 1
        self.bytes_sent += len(payload)


def _covers(told: ClassAck, seqs: list[int]) -> bool:
    """Whether the server has every one of these."""
    return all(seq <= told.upto or any(first <= seq <= last for first, last in told.beyond) for seq in seqs)
