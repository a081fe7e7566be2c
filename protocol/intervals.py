"""Prediction intervals that hold what they promise while a plant drifts, whatever model stands behind the forecast.

Adaptive conformal inference (Gibbs & Candès 2021, arXiv 2106.00170) in the form of quantile tracking (Angelopoulos, Candès
& Tibshirani 2023, conformal PID), on the logarithm of a scale-normalised error and for each horizon on its own:

    unit  = prior * scale              prior: what the model itself expects of |error|; scale: how far it was off lately
    width = unit * exp(log_width)      log_width += rate * (missed - (1 - level)), when the value of that horizon arrives
    tilt                               a slow balance between the lower and the upper side, for skewed errors

While `log_width` is inside its bounds, the share of misses over T arrivals differs from 1 - level by at most
(its range + rate) / (rate * T), for every sequence of values: no distribution is assumed. Errors beyond the upper bound
(60 units) enlarge the scale by a third each, so nothing stays there; a signal that repeats itself exactly is held more
often than promised. An error of horizon h arrives h steps late and is charged to the interval that was issued for it;
long horizons learn in smaller steps, so that the delay cannot make the width swing. O(1) state per signal and horizon.
Deterministic; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadMessage, Reason
from protocol.tables.checked import Tables
from protocol.windows import Floats

Rows = NDArray[np.int64]
LEVELS = (0.8, 0.95)
RECENT = 500
"""Values that a signal's recent coverage looks back on."""
MEAN_ABSOLUTE = 0.7978845608028654
"""Mean |x| of a standard normal: turns a standard deviation into a prior."""
_NORMAL = {0.5: 0.6744897501960817, 0.8: 1.2815515655446004, 0.9: 1.6448536269514722, 0.95: 1.959963984540054}
_WIDEST, _NARROWEST = np.log(60.0), np.log(0.1)
_FAR = 8.0
"""An error counts at most so many times the usual one when the scale learns: one broken reading is not a new scale."""


class IntervalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """rate: step of log_width at horizon 1; scale_rate: of the running scale; tilt_rate: of the balance of sides;
    delay_steps: the horizon at which the first and the last are halved, the scale's at half of it (they fall with its
    square); start_rate: c in a step of c / (seen + 10) at first. Chosen on synthetic series of other seeds than the
    benchmark's and on the inner train part of M4 Hourly."""

    levels: tuple[float, ...] = LEVELS
    rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    delay_steps: Annotated[float, msgspec.Meta(gt=0)] = 16.0
    start_rate: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    scale_rate: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.045
    tilt_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.015


@dataclass(frozen=True, slots=True)
class Band:
    """An issued forecast with its intervals: mean, prior [N, H]; low, high [N, H, L]. Kept until its values arrive."""

    mean: Floats
    prior: Floats
    low: Floats
    high: Floats

    def only(self, rows: Rows) -> Band:
        """The same for some of the signals."""
        return Band(self.mean[rows], self.prior[rows], self.low[rows], self.high[rows])


class Intervals:
    """Intervals of one forecaster for a growing number of signals, `horizon` steps and all levels."""

    def __init__(self, horizon: int, settings: IntervalSettings | None = None) -> None:
        self.settings = settings or IntervalSettings()
        self.horizon = horizon
        levels = self.settings.levels
        if not levels or list(levels) != sorted(levels) or not all(level in _NORMAL for level in levels):
            raise BadMessage(Reason.WRONG_TYPE, f"levels {levels}: ascending ones of {sorted(_NORMAL)} can be had")
        self._miss = 1.0 - np.array(levels)
        self._start = np.log([_NORMAL[level] / MEAN_ABSOLUTE for level in levels])
        late = np.arange(horizon) / self.settings.delay_steps
        slower = 1.0 + late**2
        self._rate = self.settings.rate / slower
        self._scale_rate = self.settings.scale_rate / (1.0 + (2 * late) ** 2)
        self._tilt_rate = self.settings.tilt_rate / slower
        self.scale = np.zeros((0, horizon), dtype=np.float32)
        self.log_width = np.zeros((0, horizon, len(levels)), dtype=np.float32)
        self.tilt = np.zeros((0, horizon, len(levels)), dtype=np.float32)
        self.seen = np.zeros((0, horizon), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.scale)

    def grow(self, rows: int) -> None:
        """Makes room for `rows` signals; new ones start from the model's own prior, Gaussian."""
        more = rows - len(self)
        if more <= 0:
            return
        shape = (more, self.horizon, len(self._miss))
        self.scale = np.concatenate([self.scale, np.ones(shape[:2], dtype=np.float32)])
        self.log_width = np.concatenate([self.log_width, np.broadcast_to(self._start, shape).astype(np.float32)])
        self.tilt = np.concatenate([self.tilt, np.zeros(shape, dtype=np.float32)])
        self.seen = np.concatenate([self.seen, np.zeros(shape[:2], dtype=np.int32)])

    def around(self, rows: Rows, mean: Floats, prior: Floats, behind: Rows | None = None) -> Band:
        """Intervals around `mean` [N, H] of the signals `rows` [N].

        prior [N, H]: expected absolute error by the model's own lights: a Gaussian's deviation times MEAN_ABSOLUTE, half
        the distance of two quantiles, or typical changes of the signal. behind [N]: steps that the newest input is old;
        the interval is then that of a forecast which started so much earlier, times the square root of
        1 + behind / horizon: silence has its reasons. H may be below `horizon`, not above."""
        if mean.shape != prior.shape or mean.ndim != 2 or mean.shape[1] > self.horizon:
            raise BadMessage(Reason.WRONG_TYPE, f"mean {mean.shape}, prior {prior.shape}: [N, up to {self.horizon}]")
        self.grow(int(rows.max(initial=-1)) + 1)
        steps = np.broadcast_to(np.arange(mean.shape[1]), mean.shape)
        late = np.zeros((len(mean), 1), dtype=np.int64) if behind is None else behind[:, None]
        at = np.minimum(steps + late, self.horizon - 1)
        stretch = np.sqrt((steps + late + 1.0) / (at + 1.0) * (1.0 + late / self.horizon))
        row = rows[:, None]
        prior = np.maximum(prior, 1e-9 * np.maximum(np.abs(mean), 1e-3))
        # what was seen a few times only is known a few times less well
        caution = 1.0 + 1.0 / (2.0 + self.seen[row, at])
        later = np.maximum(prior, np.take_along_axis(prior, np.minimum(at, prior.shape[1] - 1), axis=1))
        unit = (later * self.scale[row, at] * stretch * caution)[:, :, None]
        half = unit * np.exp(np.maximum.accumulate(self.log_width[row, at], axis=2))
        tilt = np.exp(self.tilt[row, at])
        low = np.minimum.accumulate(mean[:, :, None] - half / tilt, axis=2)
        high = np.maximum.accumulate(mean[:, :, None] + half * tilt, axis=2)
        return Band(mean, prior, low, high)

    def learn(self, rows: Rows, steps: Rows, values: Floats, issued: Band, at: Rows | None = None) -> None:
        """Takes values [N] that arrived for steps [N] of the signals rows [N], each (row, step) at most once.

        issued: what `around` gave when these values were still ahead, row i of it belonging to values[i] (or row
        at[i]). NaN values teach nothing."""
        here = np.arange(len(rows)) if at is None else at
        mean, prior = issued.mean[here, steps], issued.prior[here, steps]
        use = np.isfinite(values) & np.isfinite(mean)
        if not use.all():
            rows, steps, values, here = rows[use], steps[use], values[use], here[use]
            mean, prior = mean[use], prior[use]
        seen = self.seen[rows, steps]
        ratio = np.abs(values - mean) / prior
        scale = self.scale[rows, steps]
        pace = np.maximum(self._scale_rate[steps], 1.0 / (seen + 2.0))
        self.scale[rows, steps] = np.maximum(scale + pace * (np.minimum(ratio, _FAR * scale) - scale), 1e-3)
        below = values[:, None] < issued.low[here, steps]
        above = values[:, None] > issued.high[here, steps]
        rate = np.maximum(self._rate[steps], self.settings.start_rate / (seen + 10.0))[:, None]
        moved = self.log_width[rows, steps] + rate * ((below | above) - self._miss)
        self.log_width[rows, steps] = np.clip(moved, _NARROWEST, _WIDEST)
        leaned = self.tilt[rows, steps] + self._tilt_rate[steps][:, None] * (above.astype(np.float64) - below)
        self.tilt[rows, steps] = np.clip(leaned, -1.5, 1.5)
        self.seen[rows, steps] = seen + 1

    def state(self) -> Tables:
        """Everything learned, as arrays; `restore` of it continues exactly here."""
        return {"scale": self.scale, "log_width": self.log_width, "tilt": self.tilt, "seen": self.seen}

    def forget_count(self, most: int) -> None:
        """As if each horizon had been seen at most so often: what is known stays, and is revised faster."""
        self.seen = np.minimum(self.seen, most)

    def restore(self, tables: Tables, rows: Rows | None = None) -> None:
        """Takes a state over; with `rows`, row i of it becomes row rows[i] here (rows below 0 are dropped). Raises
        BadMessage if it is of another horizon or of other levels, or not finite."""
        expected = {name: table.shape[1:] for name, table in self.state().items()}
        for name, shape in expected.items():
            table = tables.get(name)
            if table is None or table.shape[1:] != shape or not np.isfinite(table).all():
                raise BadMessage(Reason.WRONG_TYPE, f"interval state {name!r} is not [S, {shape}] and finite")
        n = len(tables["scale"])
        to = np.arange(n) if rows is None else rows
        self.grow(int(to.max(initial=-1)) + 1)
        keep = to >= 0
        for name, mine in self.state().items():
            mine[to[keep]] = tables[name][keep]
        np.clip(self.log_width, _NARROWEST, _WIDEST, out=self.log_width)


class Coverage:
    """How often intervals held: since the beginning, and over the last RECENT values, per signal and level."""

    def __init__(self, levels: int = len(LEVELS)) -> None:
        self._levels = levels
        self.count = np.zeros(0, dtype=np.int64)
        self.held = np.zeros((0, levels), dtype=np.int64)
        self.recent = np.zeros((0, RECENT, levels), dtype=np.bool_)

    def grow(self, rows: int) -> None:
        """Makes room for `rows` signals."""
        more = rows - len(self.count)
        if more > 0:
            self.count = np.concatenate([self.count, np.zeros(more, dtype=np.int64)])
            self.held = np.concatenate([self.held, np.zeros((more, self._levels), dtype=np.int64)])
            self.recent = np.concatenate([self.recent, np.zeros((more, RECENT, self._levels), dtype=np.bool_)])

    def note(self, rows: Rows, held: NDArray[np.bool_]) -> None:
        """One more value of each of rows [N] (each at most once): whether it lay inside, [N, L]."""
        self.grow(int(rows.max(initial=-1)) + 1)
        self.recent[rows, self.count[rows] % RECENT] = held
        self.held[rows] += held
        self.count[rows] += 1

    def lately(self, row: int, level: int = 0) -> tuple[float | None, int]:
        """(share, of how many) over the last RECENT values of a signal; (None, 0) before the first."""
        n = int(min(self.count[row], RECENT)) if row < len(self.count) else 0
        return (float(self.recent[row, :n, level].mean()), n) if n else (None, 0)

    def overall(self, level: int = 0) -> tuple[float | None, int]:
        """(share, of how many) of all signals since the beginning."""
        n = int(self.count.sum())
        return (float(self.held[:, level].sum() / n), n) if n else (None, 0)

    def state(self) -> Tables:
        """Everything counted, as arrays."""
        return {"count": self.count, "held": self.held, "recent": np.packbits(self.recent, axis=1)}

    def restore(self, tables: Tables, rows: Rows | None = None) -> None:
        """Takes counts over; `rows` as in Intervals.restore. Raises BadMessage if they do not fit."""
        for name, mine in self.state().items():
            table = tables.get(name)
            if table is None or table.shape[1:] != mine.shape[1:] or len(table) != len(tables["count"]):
                raise BadMessage(Reason.WRONG_TYPE, f"coverage state {name!r} does not fit {mine.shape[1:]}")
        to = np.arange(len(tables["count"])) if rows is None else rows
        self.grow(int(to.max(initial=-1)) + 1)
        keep = to >= 0
        self.count[to[keep]], self.held[to[keep]] = tables["count"][keep], tables["held"][keep]
        packed = np.asarray(tables["recent"][keep], dtype=np.uint8)
        self.recent[to[keep]] = np.unpackbits(packed, axis=1, count=RECENT).astype(np.bool_)


def prior_from_quantiles(low: Floats, high: Floats, mass: float) -> Floats:
    """The prior of a model that gives two quantiles with `mass` between them (the nearest tabulated one is taken)."""
    known = min(_NORMAL, key=lambda level: abs(level - mass))
    return np.asarray((high - low) / 2 * (MEAN_ABSOLUTE / _NORMAL[known]))


def typical_changes(context: Floats, horizon: int) -> Floats:
    """The prior of a point forecast: the mean absolute change from step to step of `context` [N, T], grown with the
    square root of the horizon: [N, horizon]. 0 where nothing changed or less than two values were observed."""
    changes = np.abs(np.diff(context, axis=1))
    known = np.isfinite(changes)
    typical = np.where(known, changes, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.asarray(typical[:, None] * np.sqrt(np.arange(1.0, horizon + 1.0)))
