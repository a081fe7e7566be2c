"""A short list of rules learned from a table: conjunctions of a few thresholds that are almost always right.

Separate and conquer with a beam (Clark & Niblett 1989, CN2; Cohen 1995, RIPPER's demand of a sure rule): each rule is the
best conjunction on the rows that no earlier rule covers, each threshold lies midway between the nearest rows on both sides,
and a rule stays only if the lower bound of its precision (Wilson 1927) is high enough. Physics makes failures out of
thresholds: where that holds, a rule found exactly is worth more than a forest that smooths its edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.errors import Reason, Refused
from protocol.windows import Floats

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Condition:
    """`feature` at most `threshold`, or above it. A missing value fulfils no condition."""

    feature: int
    above: bool
    threshold: float

    def holds(self, x: Floats) -> Mask:
        """Which rows of x [N, F] fulfil it."""
        column = x[:, self.feature]
        return np.asarray(column > self.threshold if self.above else column <= self.threshold)


@dataclass(frozen=True)
class Rule:
    """All conditions hold: `hits` of `covered` rows of the training part were positive."""

    conditions: tuple[Condition, ...]
    hits: int
    covered: int

    def holds(self, x: Floats) -> Mask:
        """Which rows of x [N, F] the rule covers."""
        covered = np.ones(len(x), dtype=bool)
        for condition in self.conditions:
            covered &= condition.holds(x)
        return covered


@dataclass(frozen=True)
class RuleSettings:
    """`false_alarm_weight`: negatives a positive may cost while a rule grows; `least_precision`: lower bound a rule must
    keep; `most_conditions`, `most_rules`, `beam`, `ladder` (degrees of strictness): limits of the search."""

    false_alarm_weight: float = 3.0
    least_precision: float = 0.5
    least_hits: int = 3
    most_conditions: int = 4
    most_rules: int = 12
    beam: int = 8
    ladder: int = 4


def fit(x: Floats, positive: Mask, settings: RuleSettings) -> list[Rule]:
    """Rules for rows x [N, F] (NaN: missing), best first; an empty list where nothing sure is found. Raises Refused for
    an empty table or one without both classes."""
    if x.ndim != 2 or len(x) != len(positive) or not len(x):
        raise Refused(Reason.WRONG_TYPE, f"rows {x.shape} and {len(positive)} labels do not make a table")
    if positive.all() or not positive.any():
        raise Refused(Reason.NOT_ELIGIBLE, "all rows are of one class; both are needed to learn a rule")
    order = np.argsort(x, axis=0, kind="stable").T  # [F, N]; NaN last
    left = np.ones(len(x), dtype=bool)
    rules: list[Rule] = []
    while len(rules) < settings.most_rules and positive[left].any():
        rule = _best_rule(x, order, positive, left, settings)
        if rule is None:
            break
        rules.append(rule)
        left &= ~rule.holds(x)
    return rules


def precision_bound(hits: float, covered: float, z: float = 1.0) -> float:
    """Lower end of Wilson's interval for hits of covered."""
    if not covered:
        return 0.0
    share = hits / covered
    middle = share + z * z / (2 * covered)
    spread = z * np.sqrt(share * (1 - share) / covered + z * z / (4 * covered * covered))
    return float((middle - spread) / (1 + z * z / covered))


def _best_rule(x: Floats, order: NDArray[np.intp], positive: Mask, left: Mask, settings: RuleSettings) -> Rule | None:
    """Beams of several strictness: a lenient one sees that two weak conditions together are strong, the strict objective
    then sets their thresholds."""
    odds = positive[left].sum() / max((~positive[left]).sum(), 1)
    best: tuple[float, tuple[Condition, ...]] | None = None
    tried: set[tuple[Condition, ...]] = set()
    for weight in np.geomspace(odds, settings.false_alarm_weight, settings.ladder):
        for conditions in _beam(x, order, positive, left, settings, float(weight)):
            if conditions in tried:
                continue
            tried.add(conditions)
            score, sharpened = _sharpened(x, order, positive, left, settings, _merged(conditions))
            covered = left & Rule(sharpened, 0, 0).holds(x)
            hits, rows = int(positive[covered].sum()), int(covered.sum())
            sure = hits >= settings.least_hits and precision_bound(hits, rows) >= settings.least_precision
            if sure and (best is None or score > best[0] + 1e-9):
                best = (score, sharpened)
    if best is None:
        return None
    covered = left & Rule(best[1], 0, 0).holds(x)
    return Rule(best[1], int(positive[covered].sum()), int(covered.sum()))


def _beam(
    x: Floats, order: NDArray[np.intp], positive: Mask, left: Mask, settings: RuleSettings, weight: float
) -> list[tuple[Condition, ...]]:
    """The best conjunctions of each length when a false alarm costs `weight` hits."""
    beam: list[tuple[float, tuple[Condition, ...], Mask]] = [(-np.inf, (), left)]
    kept: list[tuple[Condition, ...]] = []
    for _ in range(settings.most_conditions):
        grown: dict[tuple[int, int], tuple[float, tuple[Condition, ...], Mask]] = {}
        for score, conditions, covered in beam:
            for better, condition in _refinements(x, order, positive, covered, weight):
                if better <= score + 1e-9:
                    continue
                narrowed = covered & condition.holds(x)
                counts = (int(positive[narrowed].sum()), int(narrowed.sum()))
                if counts not in grown:
                    grown[counts] = (better, (*conditions, condition), narrowed)
        if not grown:
            break
        beam = sorted(grown.values(), key=lambda entry: -entry[0])[: settings.beam]
        kept += [entry[1] for entry in beam]
    return kept


def _sharpened(
    x: Floats,
    order: NDArray[np.intp],
    positive: Mask,
    left: Mask,
    settings: RuleSettings,
    conditions: tuple[Condition, ...],
) -> tuple[float, tuple[Condition, ...]]:
    """Coordinate ascent: each threshold anew while the others stand, from lenient to strict; idle conditions go."""
    odds = positive[left].sum() / max((~positive[left]).sum(), 1)
    current = list(conditions)
    for weight in (*np.geomspace(odds, settings.false_alarm_weight, 4), settings.false_alarm_weight):
        for i, condition in enumerate(current):
            others = left.copy()
            for j, other in enumerate(current):
                if j != i:
                    others &= other.holds(x)
            found = _thresholds(x, order[condition.feature], positive, others, float(weight), condition.feature)
            same_side = [c for _, c in found if c.above == condition.above]
            if same_side:
                current[i] = same_side[0]
    needed = list(current)
    for condition in current:
        without = tuple(c for c in needed if c is not condition)
        if without and _worth(x, positive, left, without, settings) >= _worth(
            x, positive, left, tuple(needed), settings
        ):
            needed = list(without)
    return _worth(x, positive, left, tuple(needed), settings), tuple(needed)


def _worth(x: Floats, positive: Mask, left: Mask, conditions: tuple[Condition, ...], settings: RuleSettings) -> float:
    covered = left & Rule(conditions, 0, 0).holds(x)
    hits = int(positive[covered].sum())
    return hits - settings.false_alarm_weight * (int(covered.sum()) - hits)


def _refinements(
    x: Floats, order: NDArray[np.intp], positive: Mask, covered: Mask, weight: float
) -> list[tuple[float, Condition]]:
    return [
        entry
        for feature, rows in enumerate(order)
        for entry in _thresholds(x, rows, positive, covered, weight, feature)
    ]


def _thresholds(
    x: Floats, rows: NDArray[np.intp], positive: Mask, covered: Mask, weight: float, feature: int
) -> list[tuple[float, Condition]]:
    """The best threshold of a feature in each direction on the covered rows."""
    rows = rows[covered[rows]]
    values = x[rows, feature]
    known = int(np.isfinite(values).sum())
    rows, values = rows[:known], values[:known]
    cuts = np.flatnonzero(values[1:] > values[:-1])
    if not len(cuts):
        return []
    worth = np.cumsum(np.where(positive[rows], 1.0, -weight))
    found: list[tuple[float, Condition]] = []
    for above, score in ((False, worth[cuts]), (True, worth[-1] - worth[cuts])):
        at = int(np.argmax(score))
        threshold = 0.5 * (values[cuts[at]] + values[cuts[at] + 1])
        found.append((float(score[at]), Condition(feature, above, float(threshold))))
    return found


def _merged(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """The tightest condition of each feature and direction."""
    tightest: dict[tuple[int, bool], Condition] = {}
    for condition in conditions:
        key = (condition.feature, condition.above)
        kept = tightest.get(key)
        if kept is None or (condition.threshold > kept.threshold) == condition.above:
            tightest[key] = condition
    return tuple(tightest.values())
