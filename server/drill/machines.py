"""Machines and an operator that the drill plays itself, so that it knows every value and every answer that there was."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from protocol.errors import TryLater
from protocol.feedback import Feedback, Verdict
from protocol.sync import encode
from protocol.topics import Channel, Topic

A_STEP = 4
"""Readings of each signal in a bucket."""
DAY_MS = 86_400_000
AT_ONCE = 80
"""Ticks on their way to the broker; beyond max_inflight_messages paho lets newer ones overtake."""
SIGNALS = {"press": ("pressure", "temperature"), "pump": ("flow", "vibration")}
MAPPING = """[[source]]
topic = "drill/{machine}/{signal}"
value = "$.value"
time = "$.timestamp"
time_unit = "ms"
unit = "$.unit"
"""
EXCURSION = range(240, 264)
"""Buckets in which one signal leaves what is usual, once in 400: something to tell events and reports of."""


@dataclass(frozen=True)
class Beat:
    """When a site's ticks are. t0_ms: the first one, a multiple of step_ms; step_ms: width of a bucket of A_STEP ticks."""

    t0_ms: int = 1_772_000_000_000 // DAY_MS * DAY_MS
    step_ms: int = 1000

    def time_of(self, tick: int) -> int:
        """In milliseconds."""
        return self.t0_ms + tick * self.step_ms // A_STEP

    def bucket_of(self, time_ms: int) -> int:
        """Which bucket a time lies in."""
        return (time_ms - self.t0_ms) // self.step_ms


def reading(machine: str, signal: str, tick: int) -> float:
    """The value of a signal at a tick; the same whenever it is asked."""
    phase = sum(map(ord, machine + signal))
    wave = math.sin(tick / 57 + phase) + 0.2 * math.sin(tick * 1.7 + phase) + 0.1 * math.sin(tick * tick % 97)
    strange = signal == "vibration" and tick // A_STEP % 400 in EXCURSION
    return round(20 + phase % 30 + wave + (14 if strange else 0), 4)


class Machines:
    """Publishes ticks to the plant's broker and counts what the broker took. `ticks`: how many there were so far."""

    def __init__(self, port: int, topic: Topic, beat: Beat) -> None:
        self.beat = beat
        self.ticks = 0
        self.answers: list[str] = []
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
        for machine, signals in SIGNALS.items():
            for signal in signals:
                body = {"value": reading(machine, signal, tick), "timestamp": self.beat.time_of(tick), "unit": "u"}
                sent.append(self._client.publish(f"drill/{machine}/{signal}", msgspec.json.encode(body), qos=1))
        if tick % 20 == 0:
            answer = Feedback(
                id=f"drill-answer-{tick}",
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


def bucket_mean(machine: str, signal: str, bucket: int) -> float:
    """Mean of the readings in a bucket."""
    return sum(reading(machine, signal, bucket * A_STEP + i) for i in range(A_STEP)) / A_STEP
