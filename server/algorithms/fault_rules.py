"""Will this machine, in this state, fail? Learned rules on measured and physics-derived features, boosted trees for the rest.

Failures that physics makes have sharp edges (power above a limit, too little cooling at low speed). Binned boosted trees
smooth such an edge, because only a percent of the rows lies beyond it; a rule with an exact threshold does not. So rules are
learned first (server/algorithms/rule_list.py), trees learn what the rules leave open, and both add up in one score:
rule ensembles in the sense of Friedman & Popescu (2008)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.errors import Reason, Refused
from protocol.windows import Floats
from server.algorithms import rule_list
from server.algorithms.rule_list import Rule, RuleSettings

Mask = NDArray[np.bool_]
LEAST_POSITIVE = 10
INNER_FOLDS = 3


@dataclass(frozen=True)
class FaultSettings:
    """`weights`: what a false alarm may cost in hits, tried on inner folds. The trees are small: what is left is mostly
    chance."""

    weights: tuple[float, ...] = (1.0, 3.0, 6.0)
    rules: RuleSettings = field(default_factory=RuleSettings)
    trees: int = 60
    leaves: int = 8
    learning_rate: float = 0.05


@dataclass(frozen=True)
class FittedFaults:
    """rules with what each adds to the log odds; `rest`: a fitted HistGradientBoostingClassifier for rows that no rule
    covers (None: too few failures are left); `bias`: log odds without it; `threshold`: the chance from which on a row
    counts as a failure, chosen on inner folds."""

    rules: list[Rule]
    gains: list[float]
    shares: list[float]
    rest: Any
    bias: float
    threshold: float = 0.5
    false_alarm_weight: float = 3.0

    def raw(self, x: Floats) -> Floats:
        """Log odds [N] of rows x [N, F]."""
        odds = np.full(len(x), self.bias) if self.rest is None else self.rest.decision_function(x)
        for rule, gain in zip(self.rules, self.gains, strict=True):
            odds = odds + gain * rule.holds(x)
        return np.asarray(odds, dtype=np.float64)

    def probability(self, x: Floats) -> Floats:
        """Chance of a failure [N]."""
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * self.raw(x))))


def fit(x: Floats, positive: Mask, settings: FaultSettings, seed: int) -> FittedFaults:
    """Rows x [N, F], NaN missing. What a false alarm costs and the threshold are chosen on inner stratified folds. Raises
    Refused for fewer than 10 failures or rows without any."""
    positive = np.asarray(positive, dtype=bool)
    if x.ndim != 2 or len(x) != len(positive):
        raise Refused(Reason.WRONG_TYPE, f"rows {x.shape} and {len(positive)} labels do not make a table")
    if positive.sum() < LEAST_POSITIVE or (~positive).sum() < LEAST_POSITIVE:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"{int(positive.sum())} failures in {len(x)} rows; at least {LEAST_POSITIVE} of both kinds are needed",
        )
    best: tuple[float, float, float] | None = None
    for weight in settings.weights:
        chance = _out_of_fold(x, positive, settings, weight, seed)
        threshold, quality = best_threshold(chance, positive)
        if best is None or quality > best[0] + 1e-9:
            best = (quality, weight, threshold)
    if best is None:
        raise Refused(Reason.NOT_ELIGIBLE, "no weight of a false alarm to try")
    return replace(_fit_once(x, positive, settings, best[1], seed), threshold=best[2])


def best_threshold(chance: Floats, positive: Mask) -> tuple[float, float]:
    """(threshold, F1) of the best cut of chances [N]; the cut lies in the middle of the widest gap that is as good."""
    order = np.argsort(-chance, kind="stable")
    ranked = chance[order]
    hits = np.cumsum(positive[order])
    f1 = 2.0 * hits / (np.arange(1, len(order) + 1) + positive.sum())
    last = np.r_[ranked[1:] < ranked[:-1], True]  # equal chances fall together
    f1 = np.where(last, f1, -1.0)
    below = np.r_[ranked[1:], 0.0]
    good = np.flatnonzero(f1 >= f1.max() - 1e-12)
    at = good[int(np.argmax(ranked[good] - below[good]))]
    return float(0.5 * (ranked[at] + below[at])), float(f1[at])


def stratified(positive: Mask, folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each row [N]; each fold has its share of both classes."""
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(positive), dtype=np.int64)
    for chosen in (positive, ~positive):
        rows = rng.permutation(np.flatnonzero(chosen))
        fold[rows] = np.arange(len(rows)) % folds
    return fold


def _out_of_fold(x: Floats, positive: Mask, settings: FaultSettings, weight: float, seed: int) -> Floats:
    fold = stratified(positive, INNER_FOLDS, seed)
    chance = np.zeros(len(x))
    for k in range(INNER_FOLDS):
        inside = fold != k
        chance[~inside] = _fit_once(x[inside], positive[inside], settings, weight, seed).probability(x[~inside])
    return chance


def _fit_once(x: Floats, positive: Mask, settings: FaultSettings, weight: float, seed: int) -> FittedFaults:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rules = rule_list.fit(x, positive, replace(settings.rules, false_alarm_weight=weight))
    covered = np.zeros(len(x), dtype=bool)
    for rule in rules:
        covered |= rule.holds(x)
    open_rows = ~covered
    bias = _log_odds(float(positive[open_rows].sum()), float(open_rows.sum()))
    rest = None
    if positive[open_rows].sum() >= LEAST_POSITIVE:
        rest = HistGradientBoostingClassifier(
            max_iter=settings.trees,
            max_leaf_nodes=settings.leaves,
            learning_rate=settings.learning_rate,
            min_samples_leaf=20,
            l2_regularization=5.0,
            early_stopping=False,
            random_state=seed,
        ).fit(np.where(np.isnan(x).all(axis=0), 0.0, x)[open_rows], positive[open_rows])
    gains = [_log_odds(float(rule.hits), float(rule.covered)) - bias for rule in rules]
    shares = [float(rule.holds(x).mean()) for rule in rules]
    return FittedFaults(rules, gains, shares, rest, bias, false_alarm_weight=weight)


def _log_odds(hits: float, rows: float) -> float:
    share = (hits + 0.5) / (rows + 1.0)
    return float(np.log(share / (1.0 - share)))
