"""What signals tell the server: bucket means on the declared grid, and finer windows around events.

Signals whose values got their time here wait while the clock knows nothing; once it is back, what waited is read from the
disk, where its times are right by then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_agent.clock import Shift
from edge_agent.config import ShareSettings
from edge_agent.history import History, Key
from edge_agent.privacy import Gate
from edge_agent.sharing import Sharing, name_of
from protocol.observations import SignalBlock
from protocol.reports import FaultEvent
from protocol.windows import Floats

log = logging.getLogger(__name__)
MOST_WINDOWS = 100
MOST_IN_A_BLOCK = 1000


class Outgoing:
    """`send(block, known_as)` puts a block into the outbox. Not thread-safe: the agent's thread only."""

    def __init__(
        self,
        folder: Path,
        step_ms: int,
        share: ShareSettings,
        history: History,
        gate: Gate,
        send: Callable[[SignalBlock, str], object],
    ) -> None:
        self._events, self._step_ms, self._bucket_ms = share.events, step_ms, share.bucket_ms or step_ms
        self._history, self._gate, self._send = history, gate, send
        self._sharing = Sharing(folder / "sharing.json", self._bucket_ms, share.block_steps, gate.shares)
        self._windows: list[FaultEvent] = []
        self.clock_known = True

    def closed(self, start_ms: int, means: dict[Key, float]) -> None:
        """Takes a closed bucket of the gateway's own grid."""
        end_ms = start_ms + self._step_ms
        if end_ms % self._bucket_ms:
            return
        if self._bucket_ms != self._step_ms:
            start_ms = end_ms - self._bucket_ms
            read = {key: float(self._read(key, start_ms, 1)[0]) for key in self._free() if self._gate.shares(key[1])}
            means = {key: mean for key, mean in read.items() if np.isfinite(mean)}
        told = {key: mean for key, mean in means.items() if self._may_go(key)}
        for block in self._sharing.closed(start_ms, told, self._history.units):
            self._send(block, name_of(block))

    def resume(self, until_ms: int) -> None:
        """What had closed by then and was in no block yet."""
        until_ms -= until_ms % self._bucket_ms
        history = self._history
        for block in self._sharing.resume(self._free(), history.oldest_ms, self._read, until_ms, history.units):
            self._send(block, name_of(block))

    def corrected(self, shifts: list[Shift], until_ms: int) -> None:
        """The clock was put right: what was moved goes up with its right times."""
        self._sharing.rewind(min([until_ms, *(s.first_ms + s.shift_ms for s in shifts)]))
        self.resume(until_ms)

    def around(self, event: FaultEvent) -> None:
        """An event closed: its window goes up when its last value is there."""
        if self._events is not None and len(self._windows) < MOST_WINDOWS:
            self._windows.append(event)

    def pump(self, now_ms: int) -> None:
        """Sends the windows that are complete."""
        if self._events is None or not self.clock_known:
            return
        before_ms, after_ms, step_ms = self._events.before_s * 1000, self._events.after_s * 1000, self._events.step_ms
        for event in list(self._windows):
            until_ms = (event.end_ms or event.detected_ms) + after_ms
            if until_ms <= now_ms:
                self._windows.remove(event)
                start_ms = (event.start_ms - before_ms) // step_ms * step_ms
                for key in sorted(k for k in self._free() if k[0] == event.machine and self._gate.shares_window(k[1])):
                    self._tell_window(event.id, key, start_ms, max(-(-(until_ms - start_ms) // step_ms), 1), step_ms)

    def keep(self) -> None:
        """Notes how far everything was told. Call after the outbox's commit. Raises OSError."""
        self._sharing.keep()

    def _tell_window(self, event: str, key: Key, start_ms: int, count: int, step_ms: int) -> None:
        for at in range(0, count, MOST_IN_A_BLOCK):
            block_ms = start_ms + at * step_ms
            means = self._history.buckets(key, block_ms, step_ms, min(MOST_IN_A_BLOCK, count - at))
            if not np.isfinite(means).any():
                continue
            block = SignalBlock(
                machine=key[0],
                signal=key[1],
                unit=self._history.units.get(key, ""),
                start_ms=block_ms,
                step_ms=step_ms,
                values=[float(v) if np.isfinite(v) else None for v in means],
            )
            self._send(block, f"{event}/{name_of(block)}")

    def _read(self, key: Key, start_ms: int, buckets: int) -> Floats:
        return self._history.buckets(key, start_ms, self._bucket_ms, buckets)

    def _free(self) -> list[Key]:
        return [key for key in self._history.keys() if self._may_go(key)]  # noqa: SIM118 # no mapping

    def _may_go(self, key: Key) -> bool:
        return self.clock_known or key not in self._history.stamped_here
