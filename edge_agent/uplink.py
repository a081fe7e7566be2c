"""From the outbox to the server and back: batches up, most urgent class first; acknowledgements free the outbox.

PUBACK is not delivery. What the server has not acknowledged after `resend_after_s`, or when the link came back, goes out
again; the server stores it once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.broker import Link
from edge_agent.outbox import Outbox
from protocol.errors import TryLater
from protocol.names import MessageClass
from protocol.sync import Ack, Resend, encode
from protocol.topics import Channel, Topic

log = logging.getLogger(__name__)
MAX_MESSAGES_A_BATCH = 200
MAX_BYTES_A_BATCH = 400_000
MAX_BATCHES_AHEAD = 4


@dataclass
class _Flight:
    """How far a class was sent, and when that was last heard of."""

    sent: int = 0
    batches: int = 0
    since_s: float = 0.0


class Uplink:
    """Sends what waits. `monotonic_s` is the clock of retries."""

    def __init__(
        self, link: Link, outbox: Outbox, state: Topic, monotonic_s: Callable[[], float], resend_after_s: float = 5.0
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._topic = state
        self._monotonic_s = monotonic_s
        self._resend_after_s = resend_after_s
        self._flights = {c: _Flight() for c in MessageClass}
        self._acked = dict.fromkeys(MessageClass, 0)
        self.batches_sent = 0
        self.bytes_sent = 0
        self.resent = 0
        self.last_ack_s: float | None = None

    def pump(self) -> None:
        """Sends the next batches of every class that has something to say."""
        if not self._link.connected:
            self.start_over()
            return
        for message_class in MessageClass:
            try:
                self._pump_class(message_class)
            except TryLater as error:
                log.debug("uplink waits: %s", error)
                return

    def start_over(self) -> None:
        """Forgets what was sent and not acknowledged: the link is new."""
        for message_class, flight in self._flights.items():
            flight.sent, flight.batches = self._acked[message_class], 0

    def acknowledged(self, ack: Ack) -> int:
        """Takes the server's answer; returns how many messages it freed."""
        freed = 0
        self.last_ack_s = self._monotonic_s()
        for message_class, told in ack.classes.items():
            freed += self._outbox.settle(message_class, told)
            flight = self._flights[message_class]
            flight.batches = max(flight.batches - 1, 0)
            flight.since_s = self._monotonic_s()
            self._acked[message_class] = max(self._acked[message_class], told.upto)
            flight.sent = max(flight.sent, told.upto)
            if told.gaps:
                self.send_again(Resend(classes={message_class: told.gaps[:50]}))
        self._outbox.commit()
        return freed

    def send_again(self, wanted: Resend) -> None:
        """Sends the ranges that the server misses, as far as they are still here."""
        for message_class, ranges in wanted.classes.items():
            for first, last in ranges:
                after = first - 1
                rows = self._outbox.read(message_class, after, MAX_MESSAGES_A_BATCH, MAX_BYTES_A_BATCH)
                inside = [(seq, e) for seq, e in rows if seq <= last]
                if inside or self._outbox.shed_ranges(message_class):
                    self._send(message_class, inside)
                    self.resent += len(inside)

    def _pump_class(self, message_class: MessageClass) -> None:
        flight, lane = self._flights[message_class], self._outbox.lanes[message_class]
        now_s = self._monotonic_s()
        if flight.batches and now_s - flight.since_s > self._resend_after_s:
            self.resent += max(flight.sent - self._acked[message_class], 0)
            flight.sent, flight.batches = self._acked[message_class], 0
        while flight.batches < MAX_BATCHES_AHEAD and lane.waiting and flight.sent < lane.next - 1:
            rows = self._outbox.read(message_class, flight.sent, MAX_MESSAGES_A_BATCH, MAX_BYTES_A_BATCH)
            if not rows:
                flight.sent = lane.next - 1
                return
            self._send(message_class, rows)
            if flight.batches == 0:
                flight.since_s = now_s
            flight.sent = rows[-1][0]
            flight.batches += 1

    def _send(self, message_class: MessageClass, rows: list[tuple[int, bytes]]) -> None:
        shed = self._outbox.shed_ranges(message_class)
        # the envelopes are JSON already; a Batch is put around them without decoding them
        payload = b'{"envelopes":[' + b",".join(e for _, e in rows) + b'],"shed":' + encode_ranges(shed) + b"}"
        self._link.publish(self._topic.sibling(Channel.up(message_class)).text, payload)
        self.batches_sent += 1
        self.bytes_sent += len(payload)


def encode_ranges(ranges: list[tuple[int, int]]) -> bytes:
    """Ranges as JSON."""
    return encode(ranges) if ranges else b"[]"
