"""Machines and an operator that the drill plays itself, so that it knows every value and every answer that there was."""

from __future__ import annotations

import math
import threading

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from protocol.errors import TryLater
from protocol.feedback import Feedback, Verdict
from protocol.sync import encode
from protocol.topics import Channel, Topic

STEP_MS = 1000
A_STEP = 4
"""Readings of each signal in a bucket."""
T0_MS = 1_772_000_000_000 - 1_772_000_000_000 % STEP_MS
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


def reading(machine: str, signal: str, tick: int) -> float:
    """The value of a signal at a tick; the same whenever it is asked."""
    phase = sum(map(ord, machine + signal))
    wave = math.sin(tick / 57 + phase) + 0.2 * math.sin(tick * 1.7 + phase) + 0.1 * math.sin(tick * tick % 97)
    strange = signal == "vibration" and tick // A_STEP % 400 in EXCURSION
    return round(20 + phase % 30 + wave + (14 if strange else 0), 4)


class Machines:
    """Publishes ticks to the plant's broker and counts what the broker took. `ticks`: how many there were so far."""

    def __init__(self, port: int, topic: Topic) -> None:
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
            sent = [self._one(tick) for tick in range(self.ticks, self.ticks + ticks)]
            self.ticks += ticks
        for waiting in sent:
            for info in waiting:
                info.wait_for_publish(30)
                if not info.is_published():
                    raise TryLater("the plant's broker did not take a reading within 30 s")

    def publish_raw(self, topic: str, payload: bytes) -> None:
        """Any bytes, as a broken device sends them."""
        self._client.publish(topic, payload, qos=1).wait_for_publish(30)

    def _one(self, tick: int) -> list[mqtt.MQTTMessageInfo]:
        sent = []
        for machine, signals in SIGNALS.items():
            for signal in signals:
                body = {"value": reading(machine, signal, tick), "timestamp": time_of(tick), "unit": "u"}
                sent.append(self._client.publish(f"drill/{machine}/{signal}", msgspec.json.encode(body), qos=1))
        if tick % 20 == 0:
            answer = Feedback(
                id=f"drill-answer-{tick}",
                target="drill",
                verdict=Verdict.ACCEPTED,
                time_ms=time_of(tick),
                author="drill",
            )
            self.answers.append(answer.id)
            sent.append(self._client.publish(self._feedback, encode(answer), qos=1))
        return sent

    def close(self) -> None:
        """Says goodbye to the broker."""
        self._client.disconnect()
        self._client.loop_stop()


def time_of(tick: int) -> int:
    """When a tick is, in milliseconds."""
    return T0_MS + tick * STEP_MS // A_STEP


def bucket_mean(machine: str, signal: str, bucket: int) -> float:
    """Mean of the readings in a bucket."""
    return sum(reading(machine, signal, bucket * A_STEP + i) for i in range(A_STEP)) / A_STEP
