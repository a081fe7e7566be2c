"""Machines and an operator that the drill plays itself, so that it knows every value and every answer that there was."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from protocol.copied import TIME, VALUE, PlayedSignal
from protocol.errors import TryLater
from protocol.feedback import Feedback, Verdict
from protocol.sync import encode
from protocol.topics import Channel, Topic

A_STEP = 4
"""Readings of each signal in a bucket."""
DAY_MS = 86_400_000
AT_ONCE = 80
"""Ticks on their way to the broker; beyond max_inflight_messages paho lets newer ones overtake."""
MAPPING = """[[source]]
topic = "drill/{machine}/{signal}"
value = "$.value"
time = "$.timestamp"
time_unit = "ms"
unit = "$.unit"
"""
EXCURSION = range(240, 264)
"""Buckets in which the last signal leaves what is usual, once in 400: something to tell events and reports of."""
EXCURSION_SPREADS = 14.0


@dataclass(frozen=True)
class Beat:
    """When a site's ticks are. t0_ms: the first one, a multiple of step_ms and of a shared bucket's width; step_ms: width of
    a bucket of A_STEP ticks; steps: such buckets in one that is shared."""

    t0_ms: int = 1_772_000_000_000 // DAY_MS * DAY_MS
    step_ms: int = 1000
    steps: int = 1

    @property
    def bucket_ms(self) -> int:
        """Width of a shared bucket."""
        return self.step_ms * self.steps

    @property
    def ticks_a_bucket(self) -> int:
        """Readings of each signal in a shared bucket."""
        return A_STEP * self.steps

    def time_of(self, tick: int) -> int:
        """In milliseconds."""
        return self.t0_ms + tick * self.step_ms // A_STEP

    def bucket_of(self, time_ms: int) -> int:
        """Which shared bucket a time lies in."""
        return (time_ms - self.t0_ms) // self.bucket_ms


def _phase(machine: str, signal: str) -> int:
    return sum(map(ord, machine + signal))


SIGNALS = tuple(
    PlayedSignal(
        machine=machine,
        signal=signal,
        topic=f"drill/{machine}/{signal}",
        payload=f'{{"value": {VALUE}, "timestamp": {TIME}, "unit": "u"}}',
        seconds=False,
        level=20.0 + _phase(machine, signal) % 30,
        spread=1.0,
        told_as=machine,
    )
    for machine, signal in (("press", "pressure"), ("press", "temperature"), ("pump", "flow"), ("pump", "vibration"))
)
"""Of the drill's own plant."""


def reading(signal: PlayedSignal, tick: int, *, strange: bool = False) -> float:
    """The value of a signal at a tick; the same whenever it is asked."""
    phase = _phase(signal.machine, signal.signal)
    wave = math.sin(tick / 57 + phase) + 0.2 * math.sin(tick * 1.7 + phase) + 0.1 * math.sin(tick * tick % 97)
    if strange and tick // A_STEP % 400 in EXCURSION:
        wave += EXCURSION_SPREADS
    return float(f"{signal.level + signal.spread * wave:.9g}")


class Machines:
    """Publishes ticks to the plant's broker and counts what the broker took. `ticks`: how many there were so far."""

    def __init__(self, port: int, topic: Topic, beat: Beat, signals: Sequence[PlayedSignal] = SIGNALS) -> None:
        self.beat = beat
        self.signals = signals
        self.ticks = 0
        self.answers: list[str] = []
        self._run = secrets.token_hex(4)
        self._feedback = topic.sibling(Channel.SHOP_FEEDBACK).text
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="drill-machines")
        self._client.max_inflight_messages_set(400)
        self._lock = threading.Lock()
        self._client.connect("127.0.0.1", port, keepalive=60)
        self._client.loop_start()

    def publish(self, ticks: int) -> None:
        """The next ticks of every signal, and an answer now and then; returns when the broker has them all. Raises TryLater
        if it does not take them."""
        with self._lock:
            for first in range(self.ticks, self.ticks + ticks, AT_ONCE):
                last = min(first + AT_ONCE, self.ticks + ticks)
                for info in [info for tick in range(first, last) for info in self._one(tick)]:
                    info.wait_for_publish(30)
                    if not info.is_published():
                        raise TryLater("the plant's broker did not take a reading within 30 s")
            self.ticks += ticks

    def publish_raw(self, topic: str, payload: bytes) -> None:
        """Any bytes, as a broken device sends them."""
        self._client.publish(topic, payload, qos=1).wait_for_publish(30)

    def _one(self, tick: int) -> list[mqtt.MQTTMessageInfo]:
        sent = []
        for signal in self.signals:
            body = signal.message(self.value(signal, tick), self.beat.time_of(tick))
            sent.append(self._client.publish(signal.topic, body, qos=1))
        if tick % 20 == 0:
            answer = Feedback(
                id=f"drill-{self._run}-{tick}",
                target="drill",
                verdict=Verdict.ACCEPTED,
                time_ms=self.beat.time_of(tick),
                author="drill",
            )
            self.answers.append(answer.id)
            sent.append(self._client.publish(self._feedback, encode(answer), qos=1))
        return sent

    def close(self) -> None:
        """Says goodbye to the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def value(self, signal: PlayedSignal, tick: int) -> float:
        """What a signal says at a tick."""
        return reading(signal, tick, strange=signal is self.signals[-1])

    def mean(self, signal: PlayedSignal, bucket: int) -> float:
        """Mean of the readings in a bucket of what is shared."""
        ticks = range(bucket * self.beat.ticks_a_bucket, (bucket + 1) * self.beat.ticks_a_bucket)
        return sum(self.value(signal, tick) for tick in ticks) / len(ticks)
