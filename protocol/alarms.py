"""When forecast errors become an alarm: error -> conformal p-value -> CUSUM of its surprise, in O(1) time and memory.

The p-value compares an error with a bounded memory of this signal's own past errors (conformal anomaly detection, Laxhammar
& Falkman 2014), so no distribution is assumed; beyond the memory's far end it follows a Pareto tail (Hill 1975). The
surprise -log p of an unremarkable error is exponential with mean 1, whatever the signal; the CUSUM (Page 1954) adds what
exceeds its slack. Its limit is not a magic number: `alarm_limit` solves for the wanted number of buckets between two false
alarms (Brook & Evans 1972). Errors that depend on one another alarm more often than that; the memory softens, and does not
undo it. How new a value is goes the same way: its distance to all that the signal ever was, in place of the error."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

MONTH_MS = 30 * 86_400_000
SLACK = 5.0
"""Surprise that is forgiven in each bucket. Rare and large counts; the small and lasting is left to the second view."""
MEMORY_BUCKETS = 2000
MOST_SURPRISE = 30.0
SETTLES = 24
"""Buckets before which the spread is a guess."""
HELD_BACK = 6
"""Errors that wait, while evidence gathers, before they teach the memory."""
_CHARTS = 4
"""Errors above and below, clusters, new values."""
_CELLS = 80
VALUES_KEPT, DISTANCES_BUCKETS = 64, 2 * MEMORY_BUCKETS
"""Values of a signal that are kept to tell whether a new one is like any before, and how long it is remembered how new
values were: longer than errors, as new values are rarer."""
_PER_OCTAVE = 4
_SCORES, _DISTANCES = (-6, 14), (-30, 60)
"""Sizes that a memory tells apart, in octaves: errors in standard deviations, distances in the signal's unit."""
_LOG_BIN = math.log(2.0) / _PER_OCTAVE
_TAIL_SHARE, _TAIL_LEAST, _TAIL_NEEDS, _SHORTEST_TAIL = 0.02, 5.0, 30.0, 0.1


def average_run_length(limit: float, slack: float = SLACK, cells: int = _CELLS) -> float:
    """Mean number of buckets until S = max(0, S + x - slack) exceeds `limit` when x is exponential with mean 1 (uniform
    p-values): Brook & Evans' Markov chain over `cells` cells and the atom at 0."""
    if limit <= 0:
        return math.exp(slack)
    edges = np.linspace(0.0, limit, cells + 1)
    at = np.r_[0.0, (edges[1:] + edges[:-1]) / 2]
    below = -np.expm1(-np.maximum(edges[None, :] - at[:, None] + slack, 0.0))
    moves = np.c_[below[:, 0], np.diff(below, axis=1)]
    return float(np.linalg.solve(np.eye(cells + 1) - moves, np.ones(cells + 1))[0])


@lru_cache(maxsize=256)
def alarm_limit(run_length: float, slack: float = SLACK) -> float:
    """The CUSUM limit whose average run length without a fault is `run_length` buckets (0 where one bucket beyond the
    slack is rarer than that is common)."""
    if not run_length > math.exp(slack):
        return 0.0
    wanted, low, high = math.log(run_length), 0.0, math.log(run_length) + slack
    for _ in range(40):  # the logarithm of the run length is nearly straight in the limit
        at_low, at_high = (math.log(average_run_length(x, slack)) for x in (low, high))
        low, high = high, max(0.0, high + (wanted - at_high) * (high - low) / (at_high - at_low))
        if abs(high - low) < 1e-9:
            break
    return high


def run_length(false_alarms_per_machine_month: float, signals: int, step_ms: int) -> float:
    """Buckets between two false alarms of one of a machine's `signals`, so that all of them together keep to the wanted
    number a month."""
    return max(signals, 1) * MONTH_MS / step_ms / false_alarms_per_machine_month


class MemoryState(msgspec.Struct, frozen=True):
    """A `SurpriseMemory` on its way through a restart."""

    above: list[float]
    below: list[float]
    weight: float
    total: float
    seen: int


class SurpriseMemory:
    """How large this signal's errors usually are: counts in logarithmic bins (4 an octave, above and below apart), the
    oldest fading with `buckets`. 2 x 80 numbers, whatever has been seen.

    `octaves`: the least and the largest size that are told apart, as powers of 2; `sides`: 1 where no score is negative."""

    def __init__(
        self, buckets: int = MEMORY_BUCKETS, octaves: tuple[int, int] = _SCORES, sides: Literal[1, 2] = 2
    ) -> None:
        self._buckets = buckets
        self._lowest, self._bins = octaves[0], (octaves[1] - octaves[0]) * _PER_OCTAVE
        self._counts: NDArray[np.float64] = np.zeros((sides, self._bins))
        self._weight = 1.0
        self._total = 0.0
        self._seen = 0

    def learn(self, score: float) -> None:
        """Takes in one score."""
        self._seen += 1
        if self._seen > self._buckets:  # newer ones weigh more: the same as fading all the others, at O(1)
            self._weight *= 1 + 1 / self._buckets
        self._counts[int(score < 0), self._bin(abs(score))] += self._weight
        self._total += self._weight
        if self._weight > 1e6:
            self._counts /= self._weight
            self._total /= self._weight
            self._weight = 1.0

    def surprise(self, score: float) -> float:
        """-log of the share of remembered scores on this score's side that are at least as far out."""
        counts, place = self._counts[int(score < 0)], self._bin(abs(score))
        beyond = float(counts[place + 1 :].sum()) + 0.5 * float(counts[place])
        known = self._total / self._weight
        p = (beyond / self._weight + 0.5) / (known + 1)
        if p < _TAIL_SHARE and known > _TAIL_NEEDS:
            p = min(p, self._tail(counts, place, known))
        return min(-math.log(max(p, 1e-300)), MOST_SURPRISE)

    def _tail(self, counts: NDArray[np.float64], place: int, known: float) -> float:
        """Pareto beyond the outermost 2 %, with Hill's estimate of its index."""
        outside = np.cumsum(counts[::-1])[::-1] / self._weight
        start = int(np.searchsorted(-outside, -max(_TAIL_SHARE * known, _TAIL_LEAST), side="right"))
        if start >= place:
            return 1.0
        mass = float(outside[start])
        if mass < 3:
            return 1.0
        distance = np.arange(self._bins - start) + 0.5
        index = max(float(counts[start:] @ distance) * _LOG_BIN / self._weight / mass, _SHORTEST_TAIL)
        return mass / known * math.exp(-(place - start) * _LOG_BIN / index)

    def state(self) -> MemoryState:
        """For a restart."""
        above, below = self._counts[0].tolist(), self._counts[1:].ravel().tolist()
        return MemoryState(above, below, self._weight, self._total, self._seen)

    def restore(self, state: MemoryState) -> None:
        """Takes up where `state` stopped; a state of another layout is left aside."""
        counts = np.array(state.above + state.below)
        fits = len(state.above) == self._bins and counts.size == self._counts.size
        if not (fits and np.isfinite(counts).all() and state.weight > 0):
            return
        counts = counts.reshape(self._counts.shape)
        self._counts, self._weight, self._total, self._seen = counts, state.weight, state.total, state.seen

    def _bin(self, size: float) -> int:
        if size <= 2.0**self._lowest:
            return 0
        return int(min(self._bins - 2, (math.log2(size) - self._lowest) * _PER_OCTAVE)) + 1


class KnownValues:
    """Where a signal has been: at most `most` of its values, in order, that lie as far apart as can be. A new value takes
    the place of one of the two that are closest, so that rare values and both ends stay and a crowd is thinned."""

    def __init__(self, most: int = VALUES_KEPT) -> None:
        self._most = max(most, 3)
        self._values: list[float] = []
        self._closest = 0.0

    def distance(self, value: float) -> float:
        """To the nearest known value, in the signal's unit; 0 where none is known."""
        values = self._values
        place = bisect_left(values, value)
        above = values[place] - value if place < len(values) else math.inf
        below = value - values[place - 1] if place else math.inf
        return min(above, below) if values else 0.0

    def learn(self, value: float) -> None:
        """Takes in a value that is farther from all others than the two closest are from each other."""
        values = self._values
        if values and self.distance(value) <= self._closest:
            return
        values.insert(bisect_left(values, value), value)
        if len(values) > self._most:
            gaps = self._gaps()
            left = gaps.index(min(gaps))
            del values[left or 1]
        self._measure()

    def state(self) -> list[float]:
        """For a restart."""
        return list(self._values)

    def restore(self, values: list[float]) -> None:
        """Takes up where `state` stopped; what is not finite is left aside."""
        self._values = sorted({v for v in values if math.isfinite(v)})[: self._most]
        self._measure()

    def _gaps(self) -> list[float]:
        return [after - before for before, after in zip(self._values, self._values[1:], strict=False)]

    def _measure(self) -> None:
        self._closest = min(self._gaps()) if len(self._values) == self._most else 0.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """`side`: +1 above, -1 below what was expected; `buckets`: how long ago it began (1: this bucket); `surprise`: how
    far the CUSUM stands over its limit, in nats."""

    side: int
    buckets: int
    surprise: float


class DetectorState(msgspec.Struct, frozen=True):
    """A `SignalDetector` on its way through a restart."""

    seen: int
    spread: float
    average: float
    sums: list[float]
    ages: list[int]
    held: list[float]
    errors: MemoryState
    clusters: MemoryState
    known: list[float] = []
    distances: MemoryState | None = None


class SignalDetector:
    """One signal. Three views share the allowed false alarms equally: each error by itself (above and below apart); errors
    that cluster: the surprise averaged over `cluster_buckets`, itself compared with a memory of such averages, which finds
    bursts of middling errors and sets signals with restless hours apart from restless signals; and values that are new:
    the distance to the nearest value that the signal ever took, compared with a memory of such distances (the nearest
    neighbour's conformal p-value, Laxhammar & Falkman 2014), which finds a level between two that are usual, and one
    beyond all others where restless errors hide it. What was once known stays known, until closer values crowd it out.

    `buckets_per_false_alarm` is the user's knob for false alarms; `cluster_buckets` is the lead time: a longer one finds
    weaker disturbances and says so later. Nothing is said in the first `warm_up` buckets."""

    def __init__(self, buckets_per_false_alarm: float, cluster_buckets: int = 50, warm_up: int = 120) -> None:
        self._rate = 1.0 / max(cluster_buckets, 1)
        self._warm_up = warm_up
        self._errors, self._clusters = SurpriseMemory(), SurpriseMemory()
        self._known = KnownValues()
        self._distances = SurpriseMemory(DISTANCES_BUCKETS, _DISTANCES, sides=1)
        self._seen = 0
        self._spread = 0.0
        self._average = 1.0
        self._sums = [0.0] * _CHARTS
        self._ages = [0] * _CHARTS
        self._held: list[float] = []
        self.aim(buckets_per_false_alarm)

    def aim(self, buckets_per_false_alarm: float) -> None:
        """Sets the limits anew: the wanted rate, or the number of signals that share it, has changed."""
        side, view = alarm_limit(6 * buckets_per_false_alarm), alarm_limit(3 * buckets_per_false_alarm)
        self._limits = (side, side, view, view)

    @property
    def spread(self) -> float:
        """About one standard deviation of the errors, in the signal's unit."""
        return self._spread * 1.2533

    def update(self, error: float, level: float = 0.0, *, teaches: bool = True) -> Alarm | None:
        """Takes the error (value - expected) of one bucket; `level` is the size of the value, below 1/10,000 of which no
        error counts. NaN is skipped. What does not teach (a fault that is known) moves no memory and no spread."""
        value = level + error
        if not math.isfinite(value):
            return None
        self._seen += 1
        deviation = max(self.spread, _least(level))
        score = error / deviation
        settled = self._seen > SETTLES  # before that, the spread is a guess and so is every score
        surprise = self._errors.surprise(score) if settled else 0.0
        self._average += self._rate * (min(max(surprise - math.log(2.0), 0.0), 8.0) - self._average)
        cluster = math.exp(self._average)  # so that the Pareto tail of the memory is an exponential one of the average
        side = -1 if score < 0 else 1
        distance = self._known.distance(value)
        distance = distance if distance > _least(value) else 0.0
        if self._seen > self._warm_up:
            self._add(0, surprise if side > 0 else 0.0)
            self._add(1, surprise if side < 0 else 0.0)
            self._add(2, self._clusters.surprise(cluster))
            self._add(3, self._distances.surprise(distance))
        alarm = self._judge(side)
        if not teaches:
            return alarm
        if settled:
            self._clusters.learn(cluster)
            self._distances.learn(distance)
        self._known.learn(value)
        self._held.append(error)
        if alarm or len(self._held) > HELD_BACK or not max(self._ages[:2]):
            self._learn_held(deviation, settled)
        return alarm

    def _learn_held(self, deviation: float, settled: bool) -> None:
        """Evidence waits a moment before it teaches that it is normal: else a small memory talks itself out of a fault."""
        for error in self._held:
            if settled:
                self._errors.learn(error / deviation)
            far = min(abs(error), 6 * deviation) if settled else abs(error)
            self._spread += (far - self._spread) / min(self._seen, 300)
        self._held.clear()

    def _judge(self, side: int) -> Alarm | None:
        over = [s - limit for s, limit in zip(self._sums, self._limits, strict=True)]
        view = over.index(max(over))
        if over[view] <= 0:
            return None
        alarm = Alarm(side if view >= 2 else 1 - 2 * view, max(self._ages[view], 1), over[view])
        self.rest()
        return alarm

    def rest(self) -> None:
        """Forgets evidence that was gathered, and keeps what was learned."""
        self._sums, self._ages = [0.0] * _CHARTS, [0] * _CHARTS

    def _add(self, view: int, surprise: float) -> None:
        self._sums[view] = max(0.0, self._sums[view] + surprise - SLACK)
        self._ages[view] = self._ages[view] + 1 if self._sums[view] > 0 else 0

    def state(self) -> DetectorState:
        """For a restart."""
        return DetectorState(
            self._seen,
            self._spread,
            self._average,
            list(self._sums),
            list(self._ages),
            list(self._held),
            self._errors.state(),
            self._clusters.state(),
            self._known.state(),
            self._distances.state(),
        )

    def restore(self, state: DetectorState) -> None:
        """Takes up where `state` stopped: no second warm-up."""
        self._seen, self._spread, self._average = state.seen, state.spread, state.average
        if len(state.sums) == len(self._sums) == len(state.ages):
            self._sums, self._ages = list(state.sums), list(state.ages)
        self._held = list(state.held[: HELD_BACK + 1])
        self._errors.restore(state.errors)
        self._clusters.restore(state.clusters)
        self._known.restore(state.known)
        if state.distances is not None:
            self._distances.restore(state.distances)


def _least(value: float) -> float:
    """The smallest difference from `value` that counts."""
    return 1e-9 + 1e-4 * abs(value)
