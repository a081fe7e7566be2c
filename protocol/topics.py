"""Every topic of ours is a `Topic`: `Topic.parse(t.text) == t`. No topic string is put together anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from protocol.errors import BadName, BadTopic, Reason
from protocol.names import MessageClass, strict_name

DEFAULT_ROOT = "mw/v1"
MAX_TOPIC_BYTES = 512
_CLASSES = frozenset(c.value for c in MessageClass)


class Channel(StrEnum):
    """What is said below `{root}/{site}/{gateway}/`."""

    STATE = "state"
    UP_ALARM = "up/alarm"
    UP_EVENT = "up/event"
    UP_FEEDBACK = "up/feedback"
    UP_REPORT = "up/report"
    UP_METRIC = "up/metric"
    UP_BULK = "up/bulk"
    UP_REPLY = "up/reply"
    DOWN_ACK = "dn/ack"
    DOWN_RESEND = "dn/resend"
    DOWN_COMMAND = "dn/cmd"
    TWIN_DESIRED = "twin/desired"
    TWIN_REPORTED = "twin/reported"
    SHOP_EVENT = "shop/event"
    SHOP_FORECAST = "shop/forecast"
    SHOP_RECOMMENDATION = "shop/recommendation"
    SHOP_REPORT = "shop/report"
    SHOP_PURCHASE = "shop/purchase"
    SHOP_SCHEDULE = "shop/schedule"
    SHOP_READING = "shop/reading"
    SHOP_PLAN = "shop/plan"
    SHOP_FEEDBACK = "shop/feedback"

    @property
    def message_class(self) -> MessageClass | None:
        """The lane of an `up/{class}` channel; None for every other channel."""
        head, _, leaf = self.value.partition("/")
        return MessageClass(leaf) if head == "up" and leaf in _CLASSES else None

    @classmethod
    def up(cls, message_class: MessageClass) -> Channel:
        """The channel that carries batches of `message_class`."""
        return cls(f"up/{message_class.value}")


def _root_levels(root: str) -> list[str]:
    levels = root.split("/")
    if not all(levels) or any(c in root for c in "+#\x00"):
        raise BadTopic(
            Reason.UNKNOWN_TOPIC, f"topic root {root!r} must be levels without + or #, such as {DEFAULT_ROOT!r}"
        )
    return levels


@dataclass(frozen=True, slots=True)
class Topic:
    """One channel of one gateway."""

    site: str
    gateway: str
    channel: Channel
    root: str = DEFAULT_ROOT

    @property
    def text(self) -> str:
        """The topic as MQTT carries it."""
        return f"{self.root}/{self.site}/{self.gateway}/{self.channel.value}"

    @classmethod
    def parse(cls, text: str, root: str = DEFAULT_ROOT) -> Topic:
        """Reads a topic below `root`; raises BadTopic if it is not one of ours."""
        if len(text.encode(errors="replace")) > MAX_TOPIC_BYTES:
            raise BadTopic(Reason.UNKNOWN_TOPIC, f"a topic of ours has at most {MAX_TOPIC_BYTES} bytes")
        head = len(_root_levels(root))
        levels = text.split("/")
        if "/".join(levels[:head]) != root or len(levels) < head + 3:
            raise BadTopic(Reason.UNKNOWN_TOPIC, f"{text!r} is not below {root}/<site>/<gateway>/")
        site, gateway, leaf = levels[head], levels[head + 1], "/".join(levels[head + 2 :])
        try:
            return cls(strict_name(site, "site"), strict_name(gateway, "gateway"), Channel(leaf), root)
        except (ValueError, BadName) as error:
            raise BadTopic(Reason.UNKNOWN_TOPIC, f"{text!r}: {error}") from error

    @staticmethod
    def every(channel: Channel, root: str = DEFAULT_ROOT) -> str:
        """The filter that matches `channel` of every gateway of every site."""
        return f"{root}/+/+/{channel.value}"

    def sibling(self, channel: Channel) -> Topic:
        """Another channel of the same gateway."""
        return Topic(self.site, self.gateway, channel, self.root)
