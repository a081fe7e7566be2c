"""What this process refused since it started, by where it came in and why. Threads may share it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Cause:
    """where: mqtt, https, file; why: the reason (`protocol.errors.Reason`)."""

    where: str
    why: str


class Refusals:
    """The counts."""

    def __init__(self) -> None:
        self._counts: Counter[Cause] = Counter()
        self._lock = threading.Lock()

    def note(self, where: str, why: str) -> None:
        """One more."""
        with self._lock:
            self._counts[Cause(where, why)] += 1

    def counts(self) -> list[tuple[Cause, int]]:
        """All of them, in order."""
        with self._lock:
            return sorted(self._counts.items())
