"""Will an order line come late, and by how many days? A two-part model: the chance of being late, and the days if it is.

The chance is a penalised logistic regression on as-of shares of lateness (protocol/order_lines.py; target encoding as in
Micci-Barreca 2001, strictly from lines that were due before). On data that drifts it beat boosted trees in every backtest that
was tried: a tree remembers last year's level, the shares move with this year's. The penalty is chosen on rolling half-years of
the training part, and so is the factor of Platt's map (1999); then a shift follows the drift while the
model serves. Days if late: ridge regression of log days on the same columns (Duan 1983 for the way back)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.errors import Reason, Refused
from protocol.order_lines import LateSpec, OrderLines, drift_offset, late_features
from protocol.windows import Floats

Mask = NDArray[np.bool_]
HALF_YEAR_DAYS = 182
LEAST_LINES = 200
LEAST_LATE = 10


@dataclass(frozen=True)
class LateSettings:
    """`penalties` are tried on `folds` half-years. The shift looks back one of `drift_days`, chosen with
    the penalty, with prior precision `firmness`."""

    penalties: tuple[float, ...] = (300.0, 1000.0, 3000.0)
    folds: int = 4
    days_penalty: float = 100.0
    drift_days: tuple[int, ...] = (30, 60, 120)
    firmness: float = 1.0


@dataclass(frozen=True)
class FittedLate:
    """Linear scores over the spec's columns: `slope` [F] and `center` [F] with `bias` give log odds of being late, with
    the factor of Platt's map already in them; `days_slope`, `days_bias` give the log of days if late; `days_factor` brings the mean back.
    """

    spec: LateSpec
    slope: Floats
    center: Floats
    bias: float
    days_slope: Floats
    days_bias: float
    days_factor: float
    penalty: float
    drift_days: int
    firmness: float

    def raw(self, x: Floats) -> Floats:
        """Log odds [N]; a missing number adds nothing."""
        return self.bias + np.where(np.isnan(x), 0.0, x - self.center) @ self.slope

    def days_if_late(self, x: Floats) -> Floats:
        """Expected days [N] of a line that is late, at least one."""
        logs = self.days_bias + np.where(np.isnan(x), 0.0, x - self.center) @ self.days_slope
        return np.maximum(np.exp(np.clip(logs, 0.0, 7.0)) * self.days_factor, 1.0)


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
    penalty, drift_days, factor = _chosen(x, late, lines.scheduled_day, spec, settings)
    center, spread = _scaling(x)
    slope, bias = logistic((_filled(x, center) - center) / spread, late, penalty)
    days = (lines.delivered_day - lines.scheduled_day)[late]
    logs = np.log(np.maximum(days, 1.0))
    away = ((_filled(x, center) - center) / spread)[late]
    days_slope, days_bias = _ridge(away, logs, settings.days_penalty)
    smeared = float(np.mean(np.exp(logs - days_bias - away @ days_slope)))
    return FittedLate(
        spec,
        slope * factor / spread,
        center,
        bias * factor,
        days_slope / spread,
        days_bias,
        smeared,
        penalty,
        drift_days,
        settings.firmness,
    )


def shifted(raw: Floats, scheduled_day: NDArray[np.int64], late: Mask, fitted: FittedLate) -> Floats:
    """Log odds [N] of lines in the order of their scheduled days, each shifted by what the lines due in the `drift_days`
    before its judged day came out as; `late` is read for those alone."""
    return _shifted(raw, scheduled_day, late, fitted.spec.notice_days, fitted.drift_days, fitted.firmness)


def _shifted(
    raw: Floats, scheduled: NDArray[np.int64], late: Mask, notice_days: int, drift_days: int, firmness: float
) -> Floats:
    out = raw.copy()
    judged = scheduled - notice_days
    for day in np.unique(judged):
        recent = (scheduled < day) & (scheduled >= day - drift_days)
        out[judged == day] += drift_offset(raw[recent], late[recent], firmness)
    return out


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
) -> tuple[float, int, float]:
    """(penalty, days the shift looks back, factor of Platt's map): what gives the least log loss over the newest
    half-years, each judged by a model of the lines before it."""
    edges = int(scheduled.max()) + 1 - HALF_YEAR_DAYS * np.arange(settings.folds, -1, -1)
    tried: list[tuple[float, float, int, float]] = []
    for penalty in settings.penalties:
        blocks = []
        for start, end in zip(edges[:-1], edges[1:], strict=True):
            before, block = scheduled < start - spec.notice_days, (scheduled >= start) & (scheduled < end)
            if before.sum() < LEAST_LINES // 2 or late[before].sum() < LEAST_LATE // 2 or not block.any():
                continue
            center, spread = _scaling(x[before])
            slope, bias = logistic((_filled(x[before], center) - center) / spread, late[before], penalty)
            blocks.append((bias + (_filled(x[block], center) - center) / spread @ slope, block))
        for days in settings.drift_days if blocks else ():
            raw = np.concatenate(
                [_shifted(r, scheduled[b], late[b], spec.notice_days, days, settings.firmness) for r, b in blocks]
            )
            truth = np.concatenate([late[b] for _, b in blocks])
            factor, _ = logistic(raw[:, None], truth, 1.0)
            calm = float(np.clip(factor[0], 0.3, 1.5))
            tried.append((float(np.mean(np.logaddexp(0.0, raw) - truth * raw)), penalty, days, calm))
    if not tried:
        return settings.penalties[-1], settings.drift_days[0], 1.0
    return min(tried)[1:]


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
