"""One MQTT connection that a single thread reads. The only file that imports paho.

What arrives waits in a queue; it is acknowledged to the broker when the caller says so (after its own commit), so a
process that dies in between gets it again. A lost connection comes back by itself, after a delay with full jitter, and
subscribes again."""

from __future__ import annotations

import logging
import queue
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.flow import full_jitter
from edge_agent.tls_dates import DatedContext
from protocol.errors import TryLater

log = logging.getLogger(__name__)
FIRST_RECONNECT_S, MOST_RECONNECT_S = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message. `token` is what `acknowledge` needs."""

    topic: str
    payload: bytes
    retained: bool
    token: Any = None


def next_of(arrivals: queue.SimpleQueue[Arrival], timeout_s: float) -> Arrival | None:
    """The next of what arrived, or None after the wait."""
    try:
        return arrivals.get(timeout=timeout_s) if timeout_s > 0 else arrivals.get_nowait()
    except queue.Empty:
        return None


class Link(Protocol):
    """What the agent needs of a connection; `tests/factory.py` has one without a network."""

    @property
    def connected(self) -> bool: ...
    def subscribe(self, topic_filter: str, qos: int = 1) -> None: ...
    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None: ...
    def receive(self, timeout_s: float) -> Arrival | None: ...
    def acknowledge(self, arrival: Arrival) -> None: ...
    def time_is_known(self) -> None: ...
    def counters(self) -> dict[str, int]: ...
    def close(self) -> None: ...


class PahoLink:
    """A `Link` over paho-mqtt 2, MQTT 3.1.1, persistent session, manual acknowledgement."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        client_id: str,
        username: str = "",
        password: str = "",
        tls: ssl.SSLContext | None = None,
        will: tuple[str, bytes] | None = None,
        on_connect: Callable[[], None] | None = None,
        clean: bool = False,
    ) -> None:
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._filters: dict[str, int] = {}
        self._announce = on_connect
        self._place, self._client_id, self._clean = (host, port), client_id, clean
        self._username, self._password = username, password
        self._tls, self._will = tls, will
        self._sent = self._confirmed = 0
        self._client = self._opened()

    def _opened(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=self._client_id, clean_session=self._clean, manual_ack=True
        )
        client.max_inflight_messages_set(200)
        client.max_queued_messages_set(10_000)
        if self._username:
            client.username_pw_set(self._username, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if self._will is not None:
            client.will_set(self._will[0], self._will[1], qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = lambda mine, *_: self._wait_before_reconnecting(mine)
        client.on_connect_fail = lambda mine, *_: self._wait_before_reconnecting(mine)
        self._attempts = 0
        client.connect_async(*self._place, keepalive=20)
        client.loop_start()
        return client

    @property
    def connected(self) -> bool:
        """Whether the broker answered and the connection stands."""
        return bool(self._client.is_connected())

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Asks for a filter now and after every reconnect."""
        self._filters[topic_filter] = qos
        if self.connected:
            self._client.subscribe(topic_filter, qos)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Hands a message to the connection; raises TryLater when its queue is full or the link is down."""
        if not self.connected:
            raise TryLater("the broker is not connected")
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc not in (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN):
            raise TryLater(f"not sent: {mqtt.error_string(info.rc)}")
        self._sent += 1

    @property
    def unconfirmed(self) -> int:
        """Messages handed over that the broker has not taken yet."""
        return self._sent - self._confirmed

    def receive(self, timeout_s: float) -> Arrival | None:
        """The next message, or None after the wait."""
        return next_of(self._arrivals, timeout_s)

    def acknowledge(self, arrival: Arrival) -> None:
        """Tells the broker that a QoS 1 message is safe with us."""
        if arrival.token is not None:
            self._client.ack(*arrival.token)

    def time_is_known(self) -> None:
        """A connection whose certificate could not be judged is judged now."""
        if isinstance(self._tls, DatedContext):
            self._tls.judge_again()

    def counters(self) -> dict[str, int]:
        """A broker's connection counts nothing of its own."""
        return {}

    def close(self) -> None:
        """Disconnects cleanly, so the broker keeps the Will to itself."""
        _end(self._client)

    def reconnect(self) -> None:
        """Leaves cleanly and comes back, with whatever the TLS context holds by now. The broker keeps the session; what it
        has not taken yet is in the outbox."""
        if self.connected:
            self.close()
        else:  # paho may sleep for half a minute before it sees that it shall not try again
            threading.Thread(target=_end, args=(self._client,), name="old link", daemon=True).start()
        self._sent = self._confirmed = 0
        self._client = self._opened()

    def _on_connect(self, client: mqtt.Client, _user: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("broker refused the connection: %s", reason)
            return
        self._attempts = 0
        if self._filters:
            client.subscribe(list(self._filters.items()))
        if self._announce is not None:
            self._announce()

    def _wait_before_reconnecting(self, client: mqtt.Client) -> None:
        """paho doubles its delay without jitter; this gives it the next one each time, as minimum and maximum."""
        delay_s = full_jitter(self._attempts, FIRST_RECONNECT_S, MOST_RECONNECT_S)
        self._attempts += 1
        client.reconnect_delay_set(delay_s, delay_s)  # type: ignore[arg-type]  # it takes any number

    def _on_publish(self, _client: mqtt.Client, _user: Any, _mid: int, _reason: Any, _properties: Any) -> None:
        self._confirmed += 1

    def _on_message(self, _client: mqtt.Client, _user: Any, message: mqtt.MQTTMessage) -> None:
        token = (message.mid, message.qos) if message.qos else None
        self._arrivals.put(Arrival(message.topic, bytes(message.payload), bool(message.retain), token))


def _end(client: mqtt.Client) -> None:
    client.disconnect()
    client.loop_stop()
