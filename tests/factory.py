"""An in-memory factory: a broker, links, a clock that stands still until told. No network, no sleep."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from edge_agent.broker import Arrival
from protocol.errors import TryLater


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT's wildcards."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i >= len(levels) or level not in ("+", levels[i]):
            return False
    return len(wanted) == len(levels)


@dataclass
class MemoryBroker:
    """Delivers to every link whose filter matches; keeps retained messages."""

    links: list[MemoryLink] = field(default_factory=list)
    retained: dict[str, bytes] = field(default_factory=dict)
    published: list[tuple[str, bytes]] = field(default_factory=list)

    def deliver(self, topic: str, payload: bytes, retain: bool) -> None:
        """One message to everybody who asked for it."""
        self.published.append((topic, payload))
        if retain:
            self.retained[topic] = payload
        for link in self.links:
            if link.connected and any(matches(f, topic) for f in link.filters):
                link.queue.append(Arrival(topic, payload, False, token=object()))


@dataclass
class MemoryLink:
    """A `Link` without a network. `connected = False` pulls the cable."""

    broker: MemoryBroker
    connected: bool = True
    filters: list[str] = field(default_factory=list)
    queue: deque[Arrival] = field(default_factory=deque)
    acknowledged: list[Arrival] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker.links.append(self)

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Takes the filter and hands over what is retained below it."""
        self.filters.append(topic_filter)
        for topic, payload in self.broker.retained.items():
            if matches(topic_filter, topic):
                self.queue.append(Arrival(topic, payload, True, token=object()))

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """To the broker, or TryLater with the cable pulled."""
        if not self.connected:
            raise TryLater("the cable is pulled")
        self.broker.deliver(topic, payload, retain)

    def receive(self, timeout_s: float) -> Arrival | None:
        """The next message; never waits."""
        return self.queue.popleft() if self.queue and self.connected else None

    def acknowledge(self, arrival: Arrival) -> None:
        """Remembers it."""
        self.acknowledged.append(arrival)

    def time_is_known(self) -> None:
        """There are no certificates here."""

    def counters(self) -> dict[str, int]:
        """It counts nothing."""
        return {}

    def close(self) -> None:
        """Leaves the broker."""
        self.connected = False


@dataclass
class FakeClock:
    """Stands still until told. `disciplined`: the kernel would say that NTP holds it."""

    ms: int = 1_790_000_000_000
    disciplined: bool = False
    jumped_ms: int = 0

    def now_ms(self) -> int:
        """Wall time."""
        return self.ms

    def monotonic_s(self) -> float:
        """The same, in seconds, without the jumps."""
        return (self.ms - self.jumped_ms) / 1000

    def synced(self) -> bool:
        """Whether something holds the wall time."""
        return self.disciplined

    def jump_s(self, seconds: float) -> None:
        """The wall time alone becomes another one."""
        self.ms += round(seconds * 1000)
        self.jumped_ms += round(seconds * 1000)

    def pass_s(self, seconds: float) -> None:
        """Lets time pass."""
        self.ms += round(seconds * 1000)
