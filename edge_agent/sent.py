"""What left this gateway, for the people whose plant it is: how many messages of each type, how large, the last ones as
they were sent, and what was kept back and why.

It is counted where a message enters the outbox, after the gate. Kept on disk: one small file a day with the counts,
written every five minutes and at the end (a power cut costs the counts of five minutes), for 31 days; and the last two
messages of each type, cut to 2000 characters, with the size and the sha256 of the whole, written every hour. That is
some 4 MB of flash a day at most."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.updates import write_durably
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
COUNTS_EVERY_S = 300.0
EXAMPLES_EVERY_S = 3600.0
FIRST_AFTER_S = 10.0
DAYS = 31
EXAMPLES = 2
EXAMPLE_CHARACTERS = 2000
NO_LANE = "state"
"""Where what does not go through the outbox is counted: births, twins and replies."""


class Count(msgspec.Struct):
    """Messages of one type on one day."""

    lane: str
    count: int = 0
    bytes: int = 0
    last_ms: int = 0


class Day(msgspec.Struct):
    """sent-YYYY-MM-DD.json; the day is UTC. kept: type -> reason -> how many stayed here."""

    day: str
    sent: dict[str, Count] = {}
    kept: dict[str, dict[str, int]] = {}


class Example(msgspec.Struct, frozen=True):
    """A message as it was sent: its first characters, and what the whole was."""

    time_ms: int
    bytes: int
    sha256: str
    text: str


Examples = dict[str, list[Example]]


class SentLog:
    """Owner of `folder`. One thread writes. monotonic_s: when to save; now_ms: which day it is."""

    def __init__(self, folder: Path, now_ms: Callable[[], int], monotonic_s: Callable[[], float]) -> None:
        self._folder, self._now_ms, self._monotonic_s = folder, now_ms, monotonic_s
        folder.mkdir(parents=True, exist_ok=True)
        self._day = _read(_path(folder, _day_of(now_ms())), Day) or Day(_day_of(now_ms()))
        self._examples = _read(folder / "examples.json", Examples) or {}
        self._counts_s = monotonic_s() - COUNTS_EVERY_S + FIRST_AFTER_S
        self._examples_s = monotonic_s() - EXAMPLES_EVERY_S + FIRST_AFTER_S
        self._full: list[Day] = []
        self._changed = False

    def sent(self, lane: str, type_name: str, payload: bytes) -> None:
        """One message left, or will as soon as the link is there."""
        now_ms = self._now_ms()
        count = self._today(now_ms).sent.setdefault(type_name, Count(lane))
        count.count += 1
        count.bytes += len(payload)
        count.last_ms = now_ms
        text = payload[: 4 * EXAMPLE_CHARACTERS].decode(errors="replace")[:EXAMPLE_CHARACTERS]
        example = Example(now_ms, len(payload), hashlib.sha256(payload).hexdigest(), text)
        self._examples[type_name] = [*self._examples.get(type_name, []), example][-EXAMPLES:]
        self._changed = True

    def kept(self, type_name: str, reason: str) -> None:
        """One message stayed here."""
        reasons = self._today(self._now_ms()).kept.setdefault(type_name, {})
        reasons[reason] = reasons.get(reason, 0) + 1
        self._changed = True

    def keep(self, *, at_once: bool = False) -> None:
        """To the disk, when it is time. Raises OSError."""
        now_s = self._monotonic_s()
        if self._full or (self._changed and (at_once or now_s - self._counts_s >= COUNTS_EVERY_S)):
            for day in [*self._full, self._day]:
                write_durably(_path(self._folder, day.day), msgspec.json.encode(day))
            self._counts_s, self._changed = now_s, False
            self._full = []
            for old in sorted(self._folder.glob("sent-*.json"))[:-DAYS]:
                old.unlink(missing_ok=True)
        if at_once or now_s - self._examples_s >= EXAMPLES_EVERY_S:
            self._examples_s = now_s
            write_durably(self._folder / "examples.json", msgspec.json.encode(self._examples))

    def _today(self, now_ms: int) -> Day:
        day = _day_of(now_ms)
        if day != self._day.day:
            self._full = [*(full for full in self._full if full.day != day), self._day][-DAYS:]
            self._day = _read(_path(self._folder, day), Day) or Day(day)
        return self._day


def summary(folder: Path, since_day: str = "") -> dict[str, Any]:
    """What is on disk from `since_day` (YYYY-MM-DD, UTC; empty: everything kept) on: `sent` and `kept` rows, `days`,
    `examples`."""
    paths = sorted(folder.glob("sent-*.json"))
    days = [day for day in (_read(path, Day) for path in paths) if day is not None and day.day >= since_day]
    totals: dict[str, Count] = {}
    kept: dict[tuple[str, str], int] = {}
    for day in days:
        for name, count in day.sent.items():
            total = totals.setdefault(name, Count(count.lane))
            total.count += count.count
            total.bytes += count.bytes
            total.last_ms = max(total.last_ms, count.last_ms)
        for name, reasons in day.kept.items():
            for reason, n in reasons.items():
                kept[name, reason] = kept.get((name, reason), 0) + n
    return {
        "days": [day.day for day in days],
        "sent": [
            {"type": name, **msgspec.to_builtins(c)} for name, c in sorted(totals.items(), key=lambda t: -t[1].bytes)
        ],
        "kept": [{"type": name, "reason": reason, "count": n} for (name, reason), n in sorted(kept.items())],
        "examples": msgspec.to_builtins(_read(folder / "examples.json", Examples) or {}),
    }


def _day_of(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()


def _path(folder: Path, day: str) -> Path:
    return folder / f"sent-{day}.json"


def _read(path: Path, into: Any) -> Any:
    """The file, None if it is not there; a damaged one is left aside and told."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=into)
    except FileNotFoundError:
        return None
    except (*UNREADABLE, OSError) as error:
        log.warning("%s is not readable, counting begins anew: %s", path, error)
        return None
