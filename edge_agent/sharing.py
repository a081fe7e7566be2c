"""Bucket means on their way to the server: blocks of so many buckets per signal, each bucket in exactly one block.

How far each signal was told is kept in a file beside the outbox, written after the outbox's commit. A process that dies in
between tells the same block under the same name again, and the outbox takes a name once. After a restart the buckets that
had closed, but were in no block yet, are read from the history."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.updates import write_durably
from protocol.observations import SignalBlock
from protocol.unreadable import UNREADABLE
from protocol.windows import Floats

log = logging.getLogger(__name__)
Key = tuple[str, str]
MOST_AT_ONCE = 50_000
"""Buckets read from the history at a time."""


class Told(msgspec.Struct, frozen=True):
    """Up to where a signal's buckets were put into blocks."""

    machine: str
    signal: str
    until_ms: int


@dataclass(slots=True)
class _Block:
    start_ms: int
    values: list[float | None] = field(default_factory=list)


class Sharing:
    """Makes blocks of what `shares(signal)` lets out. step_ms: width of a bucket; steps: buckets in a block."""

    def __init__(self, path: Path, step_ms: int, steps: int, shares: Callable[[str], bool]) -> None:
        self._path = path
        self._step_ms = step_ms
        self._steps = steps
        self._shares = shares
        self._open: dict[Key, _Block] = {}
        self._until = _read(path)
        self._changed = False

    def closed(self, start_ms: int, means: Mapping[Key, float], units: Mapping[Key, str]) -> Iterator[SignalBlock]:
        """A bucket closed; the blocks that are full with it, or that it comes too late for."""
        for key, mean in means.items():
            if not self._shares(key[1]) or start_ms < self._until.get(key, 0):
                continue
            block = self._open.get(key)
            if block is not None and start_ms >= block.start_ms + self._steps * self._step_ms:
                yield self._finish(key, units)
                block = None
            if block is None:
                block = self._open[key] = _Block(start_ms)
            missing = (start_ms - block.start_ms) // self._step_ms - len(block.values)
            block.values += [*[None] * missing, mean]
            if len(block.values) >= self._steps:
                yield self._finish(key, units)

    def resume(
        self,
        keys: Iterable[Key],
        oldest_ms: Callable[[Key], int],
        read: Callable[[Key, int, int], Floats],
        until_ms: int,
        units: Mapping[Key, str],
    ) -> Iterator[SignalBlock]:
        """After a restart: everything of the history that closed before `until_ms` and is in no block yet. oldest_ms: time
        of a signal's first observation; read: its bucket means from a time on, so many, NaN for none."""
        for key in keys:
            if not self._shares(key[1]):
                continue
            start = self._until.get(key) or oldest_ms(key)
            start -= start % self._step_ms
            for at in range(start, until_ms, MOST_AT_ONCE * self._step_ms):
                means = read(key, at, min(MOST_AT_ONCE, (until_ms - at) // self._step_ms))
                for i in np.flatnonzero(np.isfinite(means)):
                    yield from self.closed(at + int(i) * self._step_ms, {key: float(means[i])}, units)

    def rewind(self, until_ms: int) -> None:
        """The time was put right: what was told from there on is told again, and nothing waits in a block."""
        self._open.clear()
        self._until = {key: min(until, until_ms) for key, until in self._until.items()}
        self._changed = True

    def keep(self) -> None:
        """Notes how far everything was told. Call after the outbox's commit. Raises OSError."""
        if self._changed:
            told = [Told(machine, signal, until) for (machine, signal), until in self._until.items()]
            write_durably(self._path, msgspec.json.encode(told))
            self._changed = False

    def _finish(self, key: Key, units: Mapping[Key, str]) -> SignalBlock:
        block = self._open.pop(key)
        self._until[key] = block.start_ms + len(block.values) * self._step_ms
        self._changed = True
        return SignalBlock(
            machine=key[0],
            signal=key[1],
            unit=units.get(key, ""),
            start_ms=block.start_ms,
            step_ms=self._step_ms,
            values=block.values,
        )


def name_of(block: SignalBlock) -> str:
    """What the outbox knows a block as."""
    return f"{block.machine}/{block.signal}@{block.start_ms}"


def _read(path: Path) -> dict[Key, int]:
    """How far everything was told; without a readable file everything that the history has is told again, and the outbox
    takes what it does not know."""
    try:
        told = msgspec.json.decode(path.read_bytes(), type=list[Told])
    except FileNotFoundError:
        return {}
    except (*UNREADABLE, OSError) as error:
        log.warning("%s is not readable, what is shared is looked up in the history: %s", path, error)
        return {}
    return {(t.machine, t.signal): t.until_ms for t in told}
