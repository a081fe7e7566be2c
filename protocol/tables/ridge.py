"""A closed-form linear forecaster: the values of a window, each with one weight per step of the horizon.

What normalising a window means is here, once, for the learner and for the gateway. Because the map is linear, what every
value added to the forecast is exact, not an approximation."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.tables.checked import Tables, table
from protocol.windows import Floats, fill_forward

LEVEL, LAST = 0, 1
"""What a window is measured from: the mean of its newest stretch, or its last value."""
MOST_CLIP = 20.0
LOG_UNIT = 0.01
"""A logarithm is taken of 1 + value / unit; the unit is this share of the window's own mean, so the unit in which a
signal is measured does not matter."""
MOST_GROWTH = 3.0
"""A forecast of logarithms goes at most this far above the window's largest: a factor of 20."""


class Anchored(msgspec.Struct, frozen=True):
    """Normalised windows. z [N, L]: (value - anchor) / scale at each lag; anchor, scale [N]."""

    z: Floats
    anchor: Floats
    scale: Floats


class Contributions(msgspec.Struct, frozen=True):
    """anchor [N, H] + parts.sum(axis=1) is the forecast exactly. parts [N, L, H]: what the value `lags[j]` steps before
    the window's end added (1: the newest). The anchor holds the level, the intercept and what a clamp added. Where a
    series is forecast in logarithms, a part is its logarithm times the logarithmic mean of forecast and anchor, which
    is exact too (LMDI; Ang 2004)."""

    anchor: Floats
    parts: Floats
    lags: NDArray[np.int64]


class Reading(msgspec.Struct, frozen=True):
    """Windows as the weights see them: values [N, T] without gaps, in logarithms where `logged` [N]; unit [N] of the
    logarithm; below_zero, empty [N]: something below zero, nothing at all was observed."""

    values: Floats
    logged: NDArray[np.bool_]
    unit: Floats
    below_zero: NDArray[np.bool_]
    empty: NDArray[np.bool_]

    def back(self, answer: Floats) -> Floats:
        """An answer [N, ...] about `values` in the signal's own unit."""
        shape = (-1, *(1,) * (answer.ndim - 1))
        most = self.values.max(axis=1).reshape(shape) + MOST_GROWTH
        grown = self.unit.reshape(shape) * np.expm1(np.where(self.logged.reshape(shape), np.minimum(answer, most), 0.0))
        return np.where(self.logged.reshape(shape), grown, answer)


def reading(context: Floats, logged: NDArray[np.bool_], span: int) -> Reading:
    """Fills gaps (a row without any value becomes zeros) and takes logarithms where asked and where no value is below
    zero. context [N, T]; logged [N]."""
    filled = fill_forward(context)
    empty = np.asarray(np.isnan(filled).all(axis=1), dtype=np.bool_)
    filled = np.where(np.isnan(filled), 0.0, filled)
    below = np.asarray((filled < 0).any(axis=1), dtype=np.bool_)
    logged = np.asarray(logged & ~below, dtype=np.bool_)
    level = np.abs(filled[:, -span:]).mean(axis=1)
    level = np.where(level > 0, level, np.abs(filled).max(axis=1, initial=0.0))
    unit = np.where(level > 0, LOG_UNIT * level, 1.0)
    values = np.where(logged[:, None], np.log1p(np.where(logged[:, None], filled, 0.0) / unit[:, None]), filled)
    return Reading(values, logged, unit, below, empty)


def anchored(values: Floats, lags: NDArray[np.int64], span: int, kind: int) -> Anchored:
    """Windows [N, T] without gaps, measured from their level (mean of the newest `span` values) or from their last value,
    in units of the mean absolute deviation of the newest `span` values. `lags` counts back from the window's end."""
    recent = values[:, -span:]
    level = recent.mean(axis=1)
    spread = np.abs(recent - level[:, None]).mean(axis=1)
    scale = np.maximum(spread, 1e-6 * np.maximum(np.abs(level), 1.0))
    anchor = level if kind == LEVEL else values[:, -1]
    z = (values[:, values.shape[1] - lags] - anchor[:, None]) / scale[:, None]
    return Anchored(np.clip(z, -MOST_CLIP, MOST_CLIP), anchor, scale)


def _slope(anchor: Floats, final: Floats, seen: Reading) -> Floats:
    """What a unit of each part is worth in the signal's own unit [N, H]: 1, or the logarithmic mean of forecast and anchor,
    both [N, H], the anchor still in logarithms."""
    unit, logged = seen.unit[:, None], seen.logged[:, None]
    low = unit * np.exp(np.clip(np.where(logged, anchor, 0.0), -50.0, 50.0))
    high = np.where(logged & np.isfinite(final), final + unit, unit)
    ratio = np.log(np.maximum(high, 1e-300) / low)
    near = np.abs(ratio) < 1e-9
    return np.asarray(np.where(logged, np.where(near, low, (high - low) / np.where(near, 1.0, ratio)), 1.0))


class Ridge:
    """Ridge regression from lags to all steps of a horizon, shared by every series of a fleet, with a correction per
    series (Hoerl & Kennard 1970; the last-value anchor as in Zeng et al. 2023, "Are Transformers Effective for Time
    Series Forecasting?").

    Tables, for M members, L lags, H steps, S series, Q levels: lags int [L]; span int [1]; kinds int [M] (LEVEL, LAST);
    weights float [M, L, H]; bias float [M, H]; mix float [M, H], each step's shares; own float [S or 0, L, H], added to a
    series' weights in the first member's units; logged int [S + 1], 1 where a series that never was below zero is forecast in
    logarithms, nonnegative int [S + 1], 1 where its forecast is kept at zero or above (both last: an unknown series,
    if its window has no value below zero);
    width float [S + 1], how wide a series' interval is against the fleet's (the last: an unknown series); offset float
    [H, Q], quantiles of held-out errors in units of the scale, ascending."""

    def __init__(self, tables: Tables) -> None:
        self.lags = np.asarray(table(tables, "lags", "iu", (None,)), dtype=np.int64)
        self.kinds = np.asarray(table(tables, "kinds", "iu", (None,)), dtype=np.int64)
        self.span = int(np.asarray(table(tables, "span", "iu", (1,)))[0])
        self.weights = np.asarray(table(tables, "weights", "f", (len(self.kinds), len(self.lags), None)), np.float64)
        members, count, horizon = self.weights.shape
        self.bias = np.asarray(table(tables, "bias", "f", (members, horizon)), dtype=np.float64)
        self.mix = np.asarray(table(tables, "mix", "f", (members, horizon)), dtype=np.float64)
        self.own = np.asarray(table(tables, "own", "f", (None, count, horizon)), dtype=np.float64)
        self.nonnegative = np.asarray(table(tables, "nonnegative", "iu", (None,)), dtype=np.bool_)
        self.logged = np.asarray(table(tables, "logged", "iu", self.nonnegative.shape), dtype=np.bool_)
        series = len(self.nonnegative) - 1
        self.width = np.asarray(table(tables, "width", "f", (series + 1,)), dtype=np.float64)
        self.offset = np.asarray(table(tables, "offset", "f", (horizon, None)), dtype=np.float64)
        sound = min(members, count, horizon) > 0 <= series and bool((self.lags >= 1).all()) and self.span >= 1
        if not sound or len(self.own) not in (0, series) or not set(self.kinds.tolist()) <= {LEVEL, LAST}:
            raise BadBundle(Reason.BAD_ARCHIVE, "the ridge's tables contradict one another")
        if bool((np.diff(self.offset, axis=1) < 0).any()) or bool((self.width < 0).any()):
            raise BadBundle(Reason.BAD_ARCHIVE, "the ridge's quantiles are not ascending")

    @property
    def context(self) -> int:
        """Steps of history that an answer needs."""
        return max(int(self.lags.max()), self.span)

    @property
    def horizon(self) -> int:
        """Steps of an answer."""
        return int(self.weights.shape[2])

    def forecast(self, context: Floats, rows: NDArray[np.int64]) -> Floats:
        """Means [N, H] for windows [N, T >= context]; rows [N] is each window's series (-1: one not learned from).
        A window without any value has no answer: NaN. Raises ValueError if the window is too short."""
        seen = self._read(context, rows)
        return self._back(self._answer(seen, rows)[0][:, :, None], seen, rows)[:, :, 0]

    def quantiles(self, context: Floats, rows: NDArray[np.int64]) -> Floats:
        """[N, H, Q] at the passport's levels, ascending; wider for a series that was not learned from."""
        seen = self._read(context, rows)
        mean, scale = self._answer(seen, rows)
        unit = scale * self.width[rows]  # row -1 is the last: unknown
        return self._back(mean[:, :, None] + unit[:, None, None] * self.offset[None], seen, rows)

    def contributions(self, context: Floats, rows: NDArray[np.int64]) -> Contributions:
        """What each value of the window added to each step of the forecast, exactly."""
        seen = self._read(context, rows)
        parts = np.zeros((len(rows), len(self.lags), self.horizon))
        anchor = np.zeros((len(rows), self.horizon))
        for m, kind in enumerate(self.kinds):
            made = anchored(seen.values, self.lags, self.span, int(kind))
            weights = np.repeat((self.weights[m] * self.mix[m])[None], len(rows), axis=0)
            if m == 0 and len(self.own):
                weights = weights + np.where(rows[:, None, None] >= 0, self.own[rows], 0.0)
            parts += (made.scale[:, None] * made.z)[:, :, None] * weights
            anchor += self.mix[m] * (made.anchor[:, None] + made.scale[:, None] * self.bias[m])
        final = self._back((anchor + parts.sum(axis=1))[:, :, None], seen, rows)[:, :, 0]
        parts *= _slope(anchor, final, seen)[:, None, :]
        return Contributions(final - parts.sum(axis=1), parts, self.lags)

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """Answers to golden inputs: `context` [n, T], `rows` [n]. Out: `mean` [n, H], `quantiles` [n, H, Q]."""
        context = np.asarray(inputs["context"], dtype=np.float64)
        rows = np.asarray(inputs["rows"], dtype=np.int64)
        return {"mean": self.forecast(context, rows), "quantiles": self.quantiles(context, rows)}

    def _read(self, context: Floats, rows: NDArray[np.int64]) -> Reading:
        if context.ndim != 2 or context.shape[1] < self.context:
            raise ValueError(f"window of shape {context.shape}; this ridge needs [N, {self.context}] or more")
        return reading(context[:, -self.context :], self.logged[rows], self.span)

    def _answer(self, seen: Reading, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        mean = np.zeros((len(rows), self.horizon))
        scale = np.ones(len(rows))
        for m, kind in enumerate(self.kinds):
            made = anchored(seen.values, self.lags, self.span, int(kind))
            mean += self.mix[m] * (
                made.anchor[:, None] + made.scale[:, None] * (made.z @ self.weights[m] + self.bias[m])
            )
            scale = made.scale
            if m == 0 and len(self.own):
                for i in np.flatnonzero(rows >= 0):
                    mean[i] += made.scale[i] * (made.z[i] @ self.own[rows[i]])
        return mean, scale

    def _back(self, answer: Floats, seen: Reading, rows: NDArray[np.int64]) -> Floats:
        """[N, H, ...] in the signal's unit; kept at zero or above where the series never was below."""
        made = seen.back(answer)
        keep = self.nonnegative[rows] & ~seen.below_zero
        made = np.where(keep[:, None, None], np.maximum(made, 0.0), made)
        made[seen.empty] = np.nan
        return np.asarray(made, dtype=np.float64)
