"""When forecast errors become an alarm: error -> conformal p-value -> CUSUM of its surprise, in O(1) time and memory.

The p-value compares an error with a bounded memory of this signal's own past errors (conformal anomaly detection, Laxhammar
& Falkman 2014), so no distribution is assumed; beyond the memory's far end it follows a Pareto tail (Hill 1975). The
surprise -log p of an unremarkable error is exponential with mean 1, whatever the signal; the CUSUM (Page 1954) adds what
exceeds its slack. Its limit is not a magic number: `alarm_limit` solves for the wanted number of buckets between two false
alarms (Brook & Evans 1972). Errors that depend on one another alarm more often than that; the memory softens, and does not
undo it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

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
_CELLS = 80
_OCTAVES, _PER_OCTAVE, _LOWEST = 20, 4, -6
_BINS = _OCTAVES * _PER_OCTAVE
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
    oldest fading with `buckets`. 2 x 80 numbers, whatever has been seen."""

    def __init__(self, buckets: int = MEMORY_BUCKETS) -> None:
        self._buckets = buckets
        self._counts: NDArray[np.float64] = np.zeros((2, _BINS))
        self._weight = 1.0
        self._total = 0.0
        self._seen = 0

    def learn(self, score: float) -> None:
        """Takes in one score."""
        self._seen += 1
        if self._seen > self._buckets:  # newer ones weigh more: the same as fading all the others, at O(1)
            self._weight *= 1 + 1 / self._buckets
        self._counts[int(score < 0), _bin(abs(score))] += self._weight
        self._total += self._weight
        if self._weight > 1e6:
            self._counts /= self._weight
            self._total /= self._weight
            self._weight = 1.0

    def surprise(self, score: float) -> float:
        """-log of the share of remembered scores on this score's side that are at least as far out."""
        counts, place = self._counts[int(score < 0)], _bin(abs(score))
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
        distance = np.arange(_BINS - start) + 0.5
        index = max(float(counts[start:] @ distance) * _LOG_BIN / self._weight / mass, _SHORTEST_TAIL)
        return mass / known * math.exp(-(place - start) * _LOG_BIN / index)

    def state(self) -> MemoryState:
        """For a restart."""
        above, below = self._counts
        return MemoryState(above.tolist(), below.tolist(), self._weight, self._total, self._seen)

    def restore(self, state: MemoryState) -> None:
        """Takes up where `state` stopped; a state of another layout is left aside."""
        counts = np.array([state.above, state.below]) if len(state.above) == len(state.below) else np.zeros(0)
        if counts.shape != self._counts.shape or not (np.isfinite(counts).all() and state.weight > 0):
            return
        self._counts, self._weight, self._total, self._seen = counts, state.weight, state.total, state.seen


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


class SignalDetector:
    """One signal. Two views share the allowed false alarms: each error by itself (above and below apart), and errors that
    cluster: the surprise averaged over `cluster_buckets`, itself compared with a memory of such averages, which finds
    bursts of middling errors and sets signals with restless hours apart from restless signals.

    `buckets_per_false_alarm` is the user's knob for false alarms; `cluster_buckets` is the lead time: a longer one finds
    weaker disturbances and says so later. Nothing is said in the first `warm_up` buckets."""

    def __init__(self, buckets_per_false_alarm: float, cluster_buckets: int = 50, warm_up: int = 120) -> None:
        self._rate = 1.0 / max(cluster_buckets, 1)
        self._warm_up = warm_up
        self._errors, self._clusters = SurpriseMemory(), SurpriseMemory()
        self._seen = 0
        self._spread = 0.0
        self._average = 1.0
        self._sums = [0.0, 0.0, 0.0]
        self._ages = [0, 0, 0]
        self._held: list[float] = []
        self.aim(buckets_per_false_alarm)

    def aim(self, buckets_per_false_alarm: float) -> None:
        """Sets the limits anew: the wanted rate, or the number of signals that share it, has changed."""
        one, cluster = alarm_limit(4 * buckets_per_false_alarm), alarm_limit(2 * buckets_per_false_alarm)
        self._limits = (one, one, cluster)

    @property
    def spread(self) -> float:
        """About one standard deviation of the errors, in the signal's unit."""
        return self._spread * 1.2533

    def update(self, error: float, level: float = 0.0, *, teaches: bool = True) -> Alarm | None:
        """Takes the error (value - expected) of one bucket; `level` is the size of the value, below 1/10,000 of which no
        error counts. NaN is skipped. What does not teach (a fault that is known) moves no memory and no spread."""
        if not math.isfinite(error):
            return None
        self._seen += 1
        deviation = max(self.spread, 1e-9 + 1e-4 * abs(level))
        score = error / deviation
        settled = self._seen > SETTLES  # before that, the spread is a guess and so is every score
        surprise = self._errors.surprise(score) if settled else 0.0
        self._average += self._rate * (min(max(surprise - math.log(2.0), 0.0), 8.0) - self._average)
        cluster = math.exp(self._average)  # so that the Pareto tail of the memory is an exponential one of the average
        side = -1 if score < 0 else 1
        if self._seen > self._warm_up:
            self._add(0, surprise if side > 0 else 0.0)
            self._add(1, surprise if side < 0 else 0.0)
            self._add(2, self._clusters.surprise(cluster))
        alarm = self._judge(side)
        if not teaches:
            return alarm
        if settled:
            self._clusters.learn(cluster)
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
        alarm = Alarm(side if view == 2 else 1 - 2 * view, max(self._ages[view], 1), over[view])
        self.rest()
        return alarm

    def rest(self) -> None:
        """Forgets evidence that was gathered, and keeps what was learned."""
        self._sums, self._ages = [0.0, 0.0, 0.0], [0, 0, 0]

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
        )

    def restore(self, state: DetectorState) -> None:
        """Takes up where `state` stopped: no second warm-up."""
        self._seen, self._spread, self._average = state.seen, state.spread, state.average
        if len(state.sums) == len(self._sums) == len(state.ages):
            self._sums, self._ages = list(state.sums), list(state.ages)
        self._held = list(state.held[: HELD_BACK + 1])
        self._errors.restore(state.errors)
        self._clusters.restore(state.clusters)


def _bin(size: float) -> int:
    if size <= 2.0**_LOWEST:
        return 0
    return min(_BINS - 1, int((math.log2(size) - _LOWEST) * _PER_OCTAVE) + 1)
