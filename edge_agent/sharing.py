"""What a signal tells the server: bucket means in blocks, on the declared grid, and finer windows around events.

Signals whose values got their time here wait while the clock knows nothing; when it is back, `late` reads them from the disk,
where their times are right by then."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.clock import Shift
from edge_agent.config import ShareSettings
from edge_agent.history import History, Key
from edge_agent.privacy import Gate
from protocol.observations import SignalBlock
from protocol.reports import FaultEvent

MOST_WINDOWS = 100


@dataclass
class _Block:
    """Values so far; what waits for the rest of its bucket is in `inside`."""

    start_ms: int
    values: list[float | None]
    inside: list[float]


class Sharing:
    """`send` puts a block into the outbox. Not thread-safe: the agent's thread only."""

    def __init__(
        self, share: ShareSettings, step_ms: int, history: History, gate: Gate, send: Callable[[SignalBlock], object]
    ) -> None:
        self._share, self._step_ms, self._bucket_ms = share, step_ms, share.bucket_ms or step_ms
        self._history, self._gate, self._send = history, gate, send
        self._blocks: dict[Key, _Block] = {}
        self._windows: list[FaultEvent] = []

    def closed(self, start_ms: int, means: dict[Key, float], waits: bool) -> None:
        """Takes a closed bucket of the gateway's own grid. waits: the clock knows nothing."""
        for key, mean in means.items():
            if self._gate.shares(key[1]) and not (waits and key in self._history.stamped_here):
                self._take(key, start_ms, mean)

    def around(self, event: FaultEvent) -> None:
        """An event that closed: its window goes up when its last value is there."""
        if self._share.events is not None and len(self._windows) < MOST_WINDOWS:
            self._windows.append(event)

    def pump(self, now_ms: int) -> None:
        """Sends the windows that are complete."""
        events = self._share.events
        if events is None:
            return
        due = [e for e in self._windows if (e.end_ms or e.detected_ms) + events.after_s * 1000 <= now_ms]
        for event in due:
            self._windows.remove(event)
            first_ms = event.start_ms - events.before_s * 1000
            until_ms = (event.end_ms or event.detected_ms) + events.after_s * 1000
            for key in sorted(self._history.keys()):
                if key[0] == event.machine and self._gate.shares_window(key[1]):
                    self._from_disk(key, first_ms, until_ms, events.step_ms)

    def late(self, shifts: list[Shift]) -> None:
        """What was moved goes up with its right times; what waits in a block had the wrong ones."""
        for key in sorted(self._history.stamped_here):
            self._blocks.pop(key, None)
            if self._gate.shares(key[1]):
                for s in shifts:
                    self._from_disk(key, s.first_ms + s.shift_ms, s.until_ms + s.shift_ms, self._bucket_ms)

    def _take(self, key: Key, start_ms: int, mean: float) -> None:
        bucket_ms = start_ms - start_ms % self._bucket_ms
        block = self._blocks.get(key)
        if block is not None and bucket_ms < block.start_ms:
            self._blocks.pop(key)  # the time went back
            block = None
        if block is None:
            block = self._blocks[key] = _Block(bucket_ms, [], [])
        place = (bucket_ms - block.start_ms) // self._bucket_ms
        if place > len(block.values) + self._share.block_steps:  # a long silence is no row of empty values
            self._fill(key, block, len(block.values) + bool(block.inside))
            self._tell(key, block.start_ms, self._bucket_ms, block.values)
            block, place = _Block(bucket_ms, [], []), 0
            self._blocks[key] = block
        elif place > len(block.values):
            self._fill(key, block, place)
        block.inside.append(mean)
        if start_ms + self._step_ms >= bucket_ms + self._bucket_ms:
            self._fill(key, block, place + 1)
        if len(block.values) >= self._share.block_steps:
            self._blocks.pop(key)
            self._tell(key, block.start_ms, self._bucket_ms, block.values)

    def _fill(self, key: Key, block: _Block, length: int) -> None:
        """The bucket that is open gets its mean, those after it up to `length` nothing."""
        if block.inside:
            start_ms = block.start_ms + len(block.values) * self._bucket_ms
            block.values.append(self._gate.aggregate(key, self._raw(key, start_ms), block.inside))
            block.inside = []
        block.values.extend([None] * (length - len(block.values)))

    def _raw(self, key: Key, start_ms: int) -> Callable[[], list[float]]:
        return lambda: self._history.values(key, start_ms, start_ms + self._bucket_ms)[1].tolist()

    def _from_disk(self, key: Key, first_ms: int, until_ms: int, step_ms: int) -> None:
        start_ms = first_ms - first_ms % step_ms
        count = max(-(-(until_ms - start_ms) // step_ms), 1)
        for at in range(0, count, self._share.block_steps):
            size = min(self._share.block_steps, count - at)
            block_ms = start_ms + at * step_ms
            means = self._history.buckets(key, block_ms, step_ms, size).tolist()
            values: list[float | None] = []
            for i, mean in enumerate(means):
                bucket_ms = block_ms + i * step_ms
                raw = self._history.values(key, bucket_ms, bucket_ms + step_ms)[1].tolist
                values.append(None if math.isnan(mean) else self._gate.aggregate(key, raw, [mean]))
            if any(v is not None for v in values):
                self._tell(key, block_ms, step_ms, values)

    def _tell(self, key: Key, start_ms: int, step_ms: int, values: list[float | None]) -> None:
        unit = self._history.units.get(key, "")
        self._send(
            SignalBlock(
                machine=key[0],
                signal=key[1],
                unit=unit,
                start_ms=start_ms,
                step_ms=step_ms,
                values=values,
            )
        )
