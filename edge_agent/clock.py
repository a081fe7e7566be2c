"""What time it is, on a box whose own clock may say 1970, jump by hours, or be set right hours after the start.

Inside, only monotonic time drives things. `Timekeeper` adds to it how far it is from the wall's time, and says how sure
that is:

- synced: the kernel says that something disciplines its clock, or the server's time, seen live over the uplink, agrees;
- holdover: nothing does at the moment; time runs on from what was known; - unknown: the clock was before the last good
time (kept on disk) or before this release. Time then runs on from the last good time, so that nothing is stored in
front of what is there, and is provisional until the clock is back.

A jump that neither the kernel nor the server confirms is not followed. When the right time is known, what was stamped
here since the wrong one began is told as `Shift`s. Small differences forward are taken at once, backward ones by
running slower: time never stands still and never goes back, but for a confirmed correction of more than five
seconds."""

from __future__ import annotations

import ctypes
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from edge_agent.updates import write_durably
from protocol.clocks import ClockConfidence, ClockCorrection
from protocol.names import stable_id
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
RELEASED_MS = 1_767_225_600_000
"""2026-01-01: no gateway of this release ran before."""
SMALL_MS = 5_000
"""Differences up to this are smoothed away; beyond it, times are corrected."""
KEPT_EVERY_S = 60.0
ASKED_EVERY_S = 5.0
CONFIRMED_AFTER_S = 30.0
"""A synced clock that contradicts what it said before is believed when it has said so for this long."""
SERVER_COUNTS_S = 600.0
AGREES_MS = 3_600_000
"""So far apart the machine's clock can still judge the dates of certificates."""
LIVE_MS = 2_000
"""Two words of the server are live if they came as far apart as they were said, within this."""
MOST_UNSETTLED = 100
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex is 208 bytes on 64-bit Linux


class Clock(Protocol):
    """Wall time, a clock that never jumps, and whether something disciplines the first."""

    def now_ms(self) -> int: ...
    def monotonic_s(self) -> float: ...
    def synced(self) -> bool: ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._adjtimex = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
        # sleep counts, where the system can tell: a machine that was suspended has not stood still
        self._monotonic = getattr(time, "CLOCK_BOOTTIME", None)

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC, as the machine says."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds since some moment."""
        return time.monotonic() if self._monotonic is None else time.clock_gettime(self._monotonic)

    def synced(self) -> bool:
        """Whether the kernel says that NTP or PTP holds the clock; False where it cannot be asked."""
        if self._adjtimex is None:
            return False
        state: int = self._adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # modes = 0: only read
        return 0 <= state != _TIME_ERROR


@dataclass(frozen=True, slots=True)
class Shift:
    """What was stamped here from first_ms up to before until_ms is to be moved by shift_ms; all as stamped then."""

    first_ms: int
    until_ms: int
    shift_ms: int


class Stretch(msgspec.Struct, frozen=True):
    """A stretch of time that was given out and never confirmed."""

    first_ms: int
    until_ms: int


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """clock.json. good_ms: the last time that was not provisional; reached_ms: the last time given out, provisional
    ones too; unsettled: stretches of earlier starts that no right time was ever known for."""

    good_ms: int = 0
    reached_ms: int = 0
    unsettled: list[Stretch] = []


@dataclass(slots=True)
class _Segment:
    """Since first_ms, time is monotonic time plus offset_ms; `confirmed` once that was seen to be right."""

    first_ms: int
    offset_ms: int
    confirmed: bool = False


class Timekeeper:
    """A `Clock` that only goes wrong where it says so. Owner of clock.json at `path`. One thread changes it; `now_ms`,
    `monotonic_s`, `known` and `machine_agrees` change nothing."""

    def __init__(self, clock: Clock, path: Path) -> None:
        self._clock, self._path = clock, path
        kept = _restored(path)
        floor_ms = max(kept.good_ms, kept.reached_ms, RELEASED_MS)
        system_ms, since_ms = clock.now_ms(), self._monotonic_ms()
        known = system_ms >= floor_ms - SMALL_MS
        first_ms = system_ms if known else floor_ms + 1
        self.confidence = ClockConfidence.HOLDOVER if known else ClockConfidence.UNKNOWN
        self._segments = [_Segment(max(first_ms, floor_ms + 1), first_ms - since_ms)]
        self._ahead_ms, self._ahead_since_ms = max(floor_ms + 1 - first_ms, 0), since_ms
        self._good_ms, self._unsettled = kept.good_ms, kept.unsettled
        self._asked_s = self._kept_s = -1e9
        self._disciplined = False
        self._contradicted_s: float | None = None
        self._first_word: tuple[int, int] | None = None
        self._server: tuple[int, float] | None = None
        self._jump_ms = 0
        self.jumps_not_followed = self.corrections = self.not_kept = 0
        if not known:
            log.warning("the clock says %d, before the last good time %d: times are provisional", system_ms, floor_ms)

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC; provisional while the confidence is unknown."""
        monotonic_ms = self._monotonic_ms()
        caught_up_ms = (monotonic_ms - self._ahead_since_ms + 1) // 2  # runs at half speed while it is ahead
        return monotonic_ms + self._segments[-1].offset_ms + max(self._ahead_ms - caught_up_ms, 0)

    def monotonic_s(self) -> float:
        """Seconds since some moment; never jumps."""
        return self._clock.monotonic_s()

    def synced(self) -> bool:
        """Whether the time is confirmed now."""
        return self.confidence is ClockConfidence.SYNCED

    @property
    def known(self) -> bool:
        """Whether the time is more than provisional."""
        return self.confidence is not ClockConfidence.UNKNOWN

    @property
    def machine_agrees(self) -> bool:
        """Whether the machine's own clock says about the same."""
        return abs(self._clock.now_ms() - self.now_ms()) <= AGREES_MS

    def not_before(self, stamped_ms: int) -> None:
        """At the start: a value that is on disk has this time, so it is later now."""
        now_ms, monotonic_ms = self.now_ms(), self._monotonic_ms()
        if stamped_ms < now_ms:
            return
        if self.known and stamped_ms - now_ms <= SMALL_MS:
            self._ahead_ms = stamped_ms + 1 - monotonic_ms - self._segments[-1].offset_ms
            self._ahead_since_ms = monotonic_ms
            return
        if self._unsettled:  # the start before stamped more than it could note
            *before, last = self._unsettled
            self._unsettled = [*before, Stretch(last.first_ms, max(last.until_ms, stamped_ms + 1))]
        self.confidence = ClockConfidence.UNKNOWN
        self._segments = [_Segment(stamped_ms + 1, stamped_ms + 1 - monotonic_ms)]
        self._ahead_ms = 0

    def heard_server(self, time_ms: int) -> None:
        """The server's time, as it stood in an answer. It counts once two answers came as far apart as they were said:
        one that waited in a broker says what time it was."""
        here_ms = self._monotonic_ms()
        if self._first_word is not None:
            said_ms, came_ms = self._first_word
            if here_ms - came_ms < LIVE_MS:
                return
            if abs((time_ms - said_ms) - (here_ms - came_ms)) <= LIVE_MS:
                self._server = (time_ms - here_ms, self.monotonic_s())
        self._first_word = (time_ms, here_ms)

    def plant_says(self, time_ms: int) -> None:
        """The plant stamps its values with this time. While nothing is known here, time runs on from there if it is
        later."""
        if self.confidence is ClockConfidence.UNKNOWN and time_ms > self.now_ms() + SMALL_MS:
            self._segments.append(_Segment(time_ms, time_ms - self._monotonic_ms()))

    def check(self) -> list[Shift] | None:
        """Looks at the evidence, at every step. None: nothing to correct. Else the time is another one from now on, and
        what was stamped since the wrong one began is to be moved (nothing, where that had been confirmed)."""
        now_s = self.monotonic_s()
        if now_s - self._asked_s >= ASKED_EVERY_S:
            self._asked_s, self._disciplined = now_s, self._clock.synced()
        system_ms = self._clock.now_ms()
        truth_ms = self._confirmed_offset(system_ms, now_s)
        if truth_ms is None:
            return self._runs_free(system_ms)
        if abs(truth_ms - self._segments[-1].offset_ms) > SMALL_MS:
            if any(s.confirmed for s in self._segments) and not self._contradicted_long(now_s):
                self.confidence = ClockConfidence.HOLDOVER
                return None
            return self._correct(truth_ms, ClockConfidence.SYNCED)
        self._contradicted_s = None
        self._follow(truth_ms)
        if not self.synced():
            self._segments = [_Segment(self.now_ms(), truth_ms, confirmed=True)]
            self._unsettled = []
            self.confidence = ClockConfidence.SYNCED
        return None

    def keep(self, *, at_once: bool = False) -> None:
        """To the disk, once a minute; a full disk costs the minute."""
        now_s = self.monotonic_s()
        if now_s - self._kept_s < KEPT_EVERY_S and not at_once:
            return
        self._kept_s = now_s
        reached_ms = self.now_ms()
        if self.known:
            self._good_ms = reached_ms
        now_open = [] if self.known else [Stretch(self._segments[0].first_ms, reached_ms + 1)]
        kept = Kept(
            good_ms=self._good_ms, reached_ms=reached_ms, unsettled=[*self._unsettled, *now_open][-MOST_UNSETTLED:]
        )
        try:
            write_durably(self._path, msgspec.json.encode(kept))
        except OSError as error:
            self.not_kept += 1
            log.warning("%s was not saved: %s", self._path, error)

    def status(self) -> dict[str, object]:
        """For status.json."""
        return {
            "confidence": self.confidence.value,
            "now_ms": self.now_ms(),
            "last_good_ms": self._good_ms,
            "corrections": self.corrections,
            "jumps_not_followed": self.jumps_not_followed,
        }

    def _monotonic_ms(self) -> int:
        return round(self._clock.monotonic_s() * 1000)

    def _confirmed_offset(self, system_ms: int, now_s: float) -> int | None:
        if self._disciplined and system_ms >= RELEASED_MS:
            return system_ms - self._monotonic_ms()
        if self._server is not None and now_s - self._server[1] <= SERVER_COUNTS_S:
            return self._server[0]
        return None

    def _runs_free(self, system_ms: int) -> list[Shift] | None:
        """Nobody confirms anything: small movements are followed, a clock that comes back from nothing is taken."""
        self._contradicted_s = None
        offset_ms = system_ms - self._monotonic_ms()
        if self.confidence is ClockConfidence.UNKNOWN:
            return self._correct(offset_ms, ClockConfidence.HOLDOVER) if system_ms >= self.now_ms() else None
        self.confidence = ClockConfidence.HOLDOVER
        jump_ms = offset_ms - self._segments[-1].offset_ms
        if abs(jump_ms) <= SMALL_MS:
            self._follow(offset_ms)
        elif abs(jump_ms - self._jump_ms) > SMALL_MS:
            self._jump_ms = jump_ms
            self.jumps_not_followed += 1
            log.warning("the clock jumped by %.0f s and nobody confirms it: not followed", jump_ms / 1000)
        return None

    def _contradicted_long(self, now_s: float) -> bool:
        if self._contradicted_s is None:
            self._contradicted_s = now_s
        return now_s - self._contradicted_s >= CONFIRMED_AFTER_S

    def _follow(self, offset_ms: int) -> None:
        """A small difference: forward at once, backward by running slower."""
        segment = self._segments[-1]
        if offset_ms == segment.offset_ms:
            return
        now_ms, monotonic_ms = self.now_ms(), self._monotonic_ms()
        segment.offset_ms = offset_ms
        self._ahead_ms, self._ahead_since_ms = max(now_ms - monotonic_ms - offset_ms, 0), monotonic_ms

    def _correct(self, offset_ms: int, confidence: ClockConfidence) -> list[Shift]:
        now_ms = self.now_ms()
        ends = [*(s.first_ms for s in self._segments[1:]), now_ms + 1]
        shifts = [
            Shift(s.first_ms, until_ms, offset_ms - s.offset_ms)
            for s, until_ms in zip(self._segments, ends, strict=True)
            if not s.confirmed
        ]
        back_ms = min((s.shift_ms for s in shifts), default=0)
        if back_ms < 0:  # earlier starts without a clock came before this one, whenever that was
            shifts = [*(Shift(s.first_ms, s.until_ms, back_ms) for s in self._unsettled), *shifts]
        confirmed = confidence is ClockConfidence.SYNCED
        self._unsettled = [] if confirmed else self._unsettled
        self._segments = [_Segment(self._monotonic_ms() + offset_ms, offset_ms, confirmed)]
        self._ahead_ms, self._contradicted_s, self._jump_ms = 0, None, 0
        self.confidence = confidence
        self.corrections += 1
        self._kept_s = -1e9
        log.warning("the clock is corrected by %.0f s (%s)", (self.now_ms() - now_ms) / 1000, confidence)
        return shifts


def correction(shift: Shift, boot: str, now_ms: int) -> ClockCorrection:
    """What the server is told of a shift."""
    return ClockCorrection(
        id=stable_id("clock", boot, shift.first_ms),
        boot=boot,
        first_ms=shift.first_ms,
        until_ms=shift.until_ms,
        shift_ms=shift.shift_ms,
        issued_ms=now_ms,
    )


def _restored(path: Path) -> Kept:
    """What was kept; an unreadable file costs the last good time, and is told."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept()
    except (*UNREADABLE, OSError) as error:
        log.warning("%s is not readable, the last good time is not known: %s", path, error)
        return Kept()
