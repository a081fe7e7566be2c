"""Will an order line come late, and by how many days? A two-part model: the chance of being late, and the days if it is.

The chance is a penalised logistic regression on as-of shares of lateness (protocol/order_lines.py; target encoding as
in Micci-Barreca 2001, strictly from lines that were due before), with a share of boosted trees for what is not linear.
On data that drifts the linear part is the safer one: a tree remembers last year's level, the shares move with this
year's. Penalty, share of the trees, the factor of Platt's map (1999) and how far the drift shift looks back are chosen
on the newest half-years of the training part, each judged by a model of the lines before it; then the shift follows the
drift while the model serves. Days if late: ridge regression of log days on the same columns (Duan 1983 for the way
back)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from protocol.errors import Reason, Refused
from protocol.order_lines import MOST_LOG_DAYS, LateSpec, OrderLines, drift_offsets, late_features
from protocol.windows import Floats

Mask = NDArray[np.bool_]
HALF_YEAR_DAYS = 182
LEAST_LINES = 200
LEAST_LATE = 10


@dataclass(frozen=True)
class LateSettings:
    """`penalties` and `tree_shares` are tried on `folds` half-years. The shift looks back one of `drift_days`, chosen with
    the penalty, with prior precision `firmness`."""

    penalties: tuple[float, ...] = (100.0, 300.0, 1000.0)
    tree_shares: tuple[float, ...] = (0.0, 0.3, 0.5)
    folds: int = 2
    days_penalty: float = 100.0
    drift_days: tuple[int, ...] = (30, 60, 120)
    firmness: float = 1.0


@dataclass(frozen=True)
class FittedLate:
    """Scores over the spec's columns, linear and `tree_weight` times a fitted HistGradientBoostingClassifier's: `slope`
    [F] and `center` [F] with `bias` give log odds of being late, with the factor of Platt's map already in them;
    `days_slope`, `days_bias` give the log of the expected days if late."""

    spec: LateSpec
    slope: Floats
    center: Floats
    bias: float
    days_slope: Floats
    days_bias: float
    penalty: float
    trees: Any = None
    tree_weight: float = 0.0

    def raw(self, x: Floats) -> Floats:
        """Log odds [N]; a missing number adds nothing."""
        odds = self.bias + np.where(np.isnan(x), 0.0, x - self.center) @ self.slope
        return odds if self.trees is None else odds + self.tree_weight * self.trees.decision_function(x)

    def days_if_late(self, x: Floats) -> Floats:
        """Expected days [N] of a line that is late, at least one."""
        logs = self.days_bias + np.where(np.isnan(x), 0.0, x - self.center) @ self.days_slope
        return np.exp(np.clip(logs, 0.0, MOST_LOG_DAYS))


def fit(lines: OrderLines, spec: LateSpec, settings: LateSettings) -> FittedLate:
    """Learns from delivered lines alone. Raises Refused for fewer than 200 of them or 10 late ones."""
    delivered = np.isfinite(lines.delivered_day)
    lines = lines.rows(np.flatnonzero(delivered)[np.argsort(lines.scheduled_day[delivered], kind="stable")])
    late = lines.late
    if len(lines) < LEAST_LINES or late.sum() < LEAST_LATE:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"{len(lines)} delivered lines, {int(late.sum())} of them late; {LEAST_LINES} and {LEAST_LATE} are needed",
        )
    x = late_features(lines, lines, spec)
    penalty, share, drift_days, factor = _chosen(x, late, lines.scheduled_day, spec, settings)
    center, spread = _scaling(x)
    slope, bias = logistic((_filled(x, center) - center) / spread, late, penalty)
    days = (lines.delivered_day - lines.scheduled_day)[late]
    logs = np.log(np.maximum(days, 1.0))
    away = ((_filled(x, center) - center) / spread)[late]
    days_slope, days_bias = _ridge(away, logs, settings.days_penalty)
    smeared = np.log(np.mean(np.exp(logs - days_bias - away @ days_slope)))
    return FittedLate(
        replace(spec, drift_days=drift_days, firmness=settings.firmness),
        slope * (1.0 - share) * factor / spread,
        center,
        bias * (1.0 - share) * factor,
        days_slope / spread,
        days_bias + float(smeared),
        penalty,
        _trees(x, late) if share else None,
        share * factor,
    )


def shifted(raw: Floats, scheduled_day: NDArray[np.int64], late: Mask, fitted: FittedLate) -> Floats:
    """Log odds [N] of lines in the order of their scheduled days, each shifted by what the lines due in the `drift_days`
    before its judged day came out as; `late` is read for those alone."""
    spec = fitted.spec
    return shift_by_drift(raw, scheduled_day, late, spec.notice_days, spec.drift_days, spec.firmness)


def shift_by_drift(
    raw: Floats, scheduled: NDArray[np.int64], late: Mask, notice_days: int, drift_days: int, firmness: float
) -> Floats:
    """Log odds [N], each shifted by the lines due in the `drift_days` before its judged day."""
    days, place = np.unique(scheduled - notice_days, return_inverse=True)
    return raw + drift_offsets(raw, late, scheduled, days, drift_days, firmness)[place]


def logistic(x: Floats, positive: Mask, penalty: float) -> tuple[Floats, float]:
    """(slope [F], bias) of an L2-penalised logistic regression by Newton's method; the bias is free."""
    wide = np.column_stack([x, np.ones(len(x))])
    ridge = np.diag(np.r_[np.full(x.shape[1], penalty), 1e-6])
    weights = np.zeros(wide.shape[1])
    for _ in range(50):
        chance = 0.5 * (1.0 + np.tanh(0.5 * (wide @ weights)))
        gradient = wide.T @ (positive - chance) - ridge @ weights
        curvature = (wide * (chance * (1.0 - chance) + 1e-9)[:, None]).T @ wide + ridge
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step * min(1.0, 4.0 / max(float(np.abs(wide @ step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-8:
            break
    return weights[:-1], float(weights[-1])


def _chosen(
    x: Floats, late: Mask, scheduled: NDArray[np.int64], spec: LateSpec, settings: LateSettings
) -> tuple[float, float, int, float]:
    """(penalty, share of the trees, days the shift looks back, factor of Platt's map): what gives the least log loss over
    the newest half-years, each judged by a model of the lines before it."""
    linear: dict[float, list[Floats]] = {penalty: [] for penalty in settings.penalties}
    trees: list[Floats] = []
    blocks: list[Mask] = []
    edges = int(scheduled.max()) + 1 - HALF_YEAR_DAYS * np.arange(settings.folds, -1, -1)
    for start, end in pairwise(int(edge) for edge in edges):
        before, block = scheduled < start - spec.notice_days, (scheduled >= start) & (scheduled < end)
        if before.sum() < LEAST_LINES // 2 or late[before].sum() < LEAST_LATE // 2 or not block.any():
            continue
        blocks.append(block)
        bent = any(settings.tree_shares)
        trees.append(_trees(x[before], late[before]).decision_function(x[block]) if bent else np.zeros(block.sum()))
        center, spread = _scaling(x[before])
        for penalty in settings.penalties:
            slope, bias = logistic((_filled(x[before], center) - center) / spread, late[before], penalty)
            linear[penalty].append(bias + (_filled(x[block], center) - center) / spread @ slope)
    tried: list[tuple[float, float, float, int, float]] = []
    truth = np.concatenate([late[block] for block in blocks]) if blocks else late
    for penalty, share, days in product(settings.penalties, settings.tree_shares, settings.drift_days):
        answers = [
            shift_by_drift(
                (1.0 - share) * straight + share * curved,
                scheduled[block],
                late[block],
                spec.notice_days,
                days,
                settings.firmness,
            )
            for straight, curved, block in zip(linear[penalty], trees, blocks, strict=True)
        ]
        if answers:
            raw = np.concatenate(answers)
            factor, _ = logistic(raw[:, None], truth, 1.0)
            loss = float(np.mean(np.logaddexp(0.0, raw) - truth * raw))
            tried.append((loss, penalty, share, days, float(np.clip(factor[0], 0.3, 1.5))))
    return min(tried)[1:] if tried else (settings.penalties[-1], 0.0, settings.drift_days[0], 1.0)


def _trees(x: Floats, late: Mask) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=100,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=40,
        l2_regularization=10.0,
        max_features=0.3,
        early_stopping=False,
        random_state=0,
    )
    return model.fit(np.where(np.isnan(x).all(axis=0), 0.0, x), late)


def _scaling(x: Floats) -> tuple[Floats, Floats]:
    known = np.isfinite(x)
    count = np.maximum(known.sum(axis=0), 1)
    center = np.where(known, x, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (x - center) ** 2, 0.0).sum(axis=0) / count)
    return center, np.where(spread > 1e-9, spread, 1.0)


def _filled(x: Floats, center: Floats) -> Floats:
    return np.where(np.isnan(x), center, x)


def _ridge(x: Floats, y: Floats, penalty: float) -> tuple[Floats, float]:
    middle = float(y.mean())
    away = x - x.mean(axis=0)
    slope = np.linalg.solve(away.T @ away + penalty * np.eye(x.shape[1]), away.T @ (y - middle))
    return slope, middle - float(x.mean(axis=0) @ slope)
