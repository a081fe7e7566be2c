"""What `millwright agent copy` says of the copy that it made: enough to play the machines of the copy, and to tell afterwards
whether anything of it was lost."""

from __future__ import annotations

import msgspec

from protocol.twin import Desired

FILE = "copied.json"
VALUE, TIME = '"@value"', '"@time"'
"""Where a payload has its value and its time."""


class PlayedSignal(msgspec.Struct, frozen=True, kw_only=True):
    """A signal that a plant of the drill's own can say. payload: JSON with VALUE and TIME in it; seconds: whether
    the time is in seconds, else in milliseconds. level, spread: where its values were lately. told_as: what the server
    knows its machine as; empty where its means do not leave the gateway as they are."""

    machine: str
    signal: str
    topic: str
    payload: str
    seconds: bool
    level: float
    spread: float
    told_as: str = ""

    def message(self, value: float, time_ms: int) -> bytes:
        """One reading, as the plant would say it."""
        time = repr(time_ms / 1000) if self.seconds else str(time_ms)
        return self.payload.replace(VALUE, repr(value)).replace(TIME, time).encode()


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """root: of the gateway's topics. step_ms: of its buckets; bucket_ms, block_steps: of what it shares; windows: whether
    finer means around events may be of the same width. newest_ms: time of its newest reading. stored: readings that it had
    counted. desired: the models that serve there. not_played: signals left out, by reason. running: whether the original
    was at work meanwhile. bytes: of the copy."""

    site: str
    gateway: str
    root: str
    step_ms: int
    bucket_ms: int
    block_steps: int
    windows: bool
    history_days: float
    newest_ms: int
    stored: int
    desired: Desired
    signals: list[PlayedSignal]
    not_played: dict[str, int]
    running: bool
    bytes: int
