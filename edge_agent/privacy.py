"""The only way out. What leaves the gateway is declared: bucket means of the shared signals, and the product's own
results. Raw observations never pass."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase

from edge_agent.config import ShareSettings
from protocol.observations import SignalBlock
from protocol.reports import Forecast
from protocol.sync import Message


class Gate:
    """Lets a message pass or keeps it here; counts both."""

    def __init__(self, share: ShareSettings) -> None:
        self._share = share
        self.passed: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()

    def shares(self, signal: str) -> bool:
        """Whether a signal may leave at all, as bucket means or as a forecast."""
        return any(fnmatchcase(signal, pattern) for pattern in self._share.signals)

    def shares_window(self, signal: str) -> bool:
        """Whether a signal's finer means around events may leave."""
        events = self._share.events
        return events is not None and any(fnmatchcase(signal, pattern) for pattern in events.signals)

    def lets_out(self, message: Message) -> bool:
        """Whether this message may leave."""
        free = not isinstance(message, SignalBlock | Forecast) or self.shares(message.signal)
        (self.passed if free else self.kept)[message.type_name] += 1
        return free
