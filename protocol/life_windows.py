"""What a remaining-life model sees and answers: computed once, here, for training and for the gateway alike.

A life is a row of readings per step since a machine was new or renewed. Each signal is scaled by the mean and deviation of
the operating condition it was read in (the nearest cluster of the setting signals), smoothed exponentially, and compared
with the machine's own first rows. Gaps are carried over and never become a silent NaN: a signal without any reading counts
as average, and a window with too little seen says that it is not usable.

The answer is a survival curve: `survival[k]` is the probability of outliving `(k + 1) * cap / bins` units of life."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadMessage, Reason

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
AGE_SHARE = 0.8
"""An age of this share of the cap counts as one in the input."""
MOST_AGE = 4.0
"""Ages beyond are alike."""
FAR = 10.0
"""Scaled readings are clipped here: a sensor that broke must not decide alone."""


class LifeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a remaining-life model needs to know; travels inside its bundle.

    unit, per_row: one row is `per_row` units of life ("cycles", "h"). step_ms: length of a row where rows are buckets of
    time (0: rows are cycles). looks, stride: the window holds `looks` rows, `stride` rows apart. smoothing: weight of a new
    reading. first_rows: how many rows make a machine's own beginning. cap: longest life that is told apart; bins: steps of
    the survival curve up to it. conditions [C][settings] are the clusters' centres, scaled by setting_scale; mean and
    scale [C][signals]. horizons: lives within which the chance of failing is told.
    renewed_by: patterns of work-order actions after which a machine is new."""

    machine_type: Annotated[str, msgspec.Meta(max_length=128)] = ""
    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=16)] = "cycles"
    per_row: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    step_ms: Annotated[int, msgspec.Meta(ge=0)] = 0
    signals: Annotated[list[str], msgspec.Meta(min_length=1, max_length=500)]
    settings: Annotated[list[str], msgspec.Meta(max_length=50)] = []
    looks: Annotated[int, msgspec.Meta(ge=1, le=200)] = 12
    stride: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    smoothing: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.15
    first_rows: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20
    least_rows: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    max_missing: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    cap: Annotated[float, msgspec.Meta(gt=0)] = 125.0
    bins: Annotated[int, msgspec.Meta(ge=2, le=500)] = 25
    setting_center: list[float] = []
    setting_scale: list[float] = []
    conditions: list[list[float]] = msgspec.field(default_factory=lambda: [[]])
    mean: list[list[float]]
    scale: list[list[float]]
    horizons: Annotated[list[float], msgspec.Meta(max_length=20)] = []
    renewed_by: Annotated[list[str], msgspec.Meta(max_length=50)] = []

    @property
    def channels(self) -> int:
        """Columns of a window: each signal smoothed, each signal against its own beginning, age, and whether it was."""
        return 2 * len(self.signals) + 2

    @property
    def edges(self) -> Floats:
        """Ends of the bins [bins], in units of life."""
        return np.arange(1, self.bins + 1, dtype=np.float64) * (self.cap / self.bins)

    def check(self) -> None:
        """Raises BadMessage (wrong_type) where the tables do not fit the names."""
        conditions = len(self.conditions)
        wrong = [
            name
            for name, table, width in (
                ("conditions", self.conditions, len(self.settings)),
                ("mean", self.mean, len(self.signals)),
                ("scale", self.scale, len(self.signals)),
            )
            if len(table) != conditions or any(len(row) != width for row in table)
        ]
        if len(self.setting_center) != len(self.settings) or len(self.setting_scale) != len(self.settings):
            wrong.append("setting_scale")
        if not conditions or wrong:
            raise BadMessage(
                Reason.WRONG_TYPE, f"life specification: {', '.join(wrong) or 'conditions'} of wrong shape"
            )
        tables = np.concatenate([np.ravel(self.mean), np.ravel(self.scale), np.ravel(self.setting_scale)])
        if not np.isfinite(tables).all() or (np.asarray(self.scale) <= 0).any():
            raise BadMessage(Reason.NOT_FINITE, "life specification: a scale is not positive or a mean not finite")


@dataclass(frozen=True)
class Life:
    """One recorded unit: readings [T, signals] and settings [T, settings], a row per step since it was new; NaN where
    nothing was read. `failed`: it failed right after the last row; False: the record ends while it still worked."""

    unit: str
    signals: Floats
    settings: Floats
    failed: bool = True

    def __len__(self) -> int:
        return len(self.signals)


class LifeTrack:
    """One machine's life so far, in constant memory: feed it rows, ask for the window at any time."""

    def __init__(self, spec: LifeSpec) -> None:
        spec.check()
        self.spec = spec
        self.rows = 0
        self._mean = np.asarray(spec.mean, dtype=np.float64)
        self._scale = np.asarray(spec.scale, dtype=np.float64)
        self._conditions = np.asarray(spec.conditions, dtype=np.float64).reshape(len(spec.conditions), -1)
        self._setting_center = np.asarray(spec.setting_center, dtype=np.float64)
        self._setting_scale = np.maximum(np.asarray(spec.setting_scale, dtype=np.float64), 1e-12)
        width = len(spec.signals)
        self._level = np.zeros(width)
        self._weight = np.zeros(width)
        self._first = np.zeros(width)
        self._first_seen = np.zeros(width)
        self._condition = 0
        self._past: deque[Floats] = deque(maxlen=(spec.looks - 1) * spec.stride + 1)
        self._seen: deque[float] = deque(maxlen=max(spec.stride * 4, spec.least_rows))

    def step(self, signals: Floats, settings: Floats) -> None:
        """Takes one row: readings [signals] and settings [settings], NaN where nothing was read."""
        spec = self.spec
        if self._conditions.shape[1] and np.isfinite(settings).all():
            off = (np.asarray(settings, dtype=np.float64) - self._setting_center) / self._setting_scale
            self._condition = int(np.argmin(((self._conditions - off) ** 2).sum(axis=1)))
        z = (signals - self._mean[self._condition]) / self._scale[self._condition]
        read = np.isfinite(z)
        z = np.clip(np.where(read, z, 0.0), -FAR, FAR)
        a = spec.smoothing * read
        self._level += a * (z - self._level)
        self._weight += a * (1.0 - self._weight)
        if self.rows < spec.first_rows:
            self._first += z
            self._first_seen += read
        self.rows += 1
        self._past.append(self._level / np.maximum(self._weight, 1e-9))
        self._seen.append(float(read.mean()))

    @property
    def usable(self) -> bool:
        """Whether enough was seen, long enough and lately, to answer."""
        if self.rows < self.spec.least_rows or not self._seen:
            return False
        return float(np.mean(self._seen)) >= 1.0 - self.spec.max_missing

    def window(self) -> Float32s:
        """x float32 [looks, channels], oldest first; rows before the life began repeat its first one."""
        spec = self.spec
        if not self.rows:
            raise BadMessage(Reason.WRONG_TYPE, "a life without a row has no window")
        width = len(spec.signals)
        back = np.arange(spec.looks - 1, -1, -1) * spec.stride
        newest = len(self._past) - 1
        x = np.zeros((spec.looks, spec.channels), dtype=np.float32)
        x[:, :width] = [self._past[max(newest - int(b), 0)] for b in back]
        own = self._first / np.maximum(self._first_seen, 1.0)
        x[:, width : 2 * width] = np.where(self._first_seen > 0, self._past[newest] - own, 0.0)
        x[:, -2] = np.clip((self.rows - back) * spec.per_row / (AGE_SHARE * spec.cap), 0.0, MOST_AGE)
        x[:, -1] = back < self.rows
        return x


def blank(x: Float32s, spec: LifeSpec, signal: int) -> Float32s:
    """The window(s) [..., looks, channels] as if a signal had stood at its average and at its own beginning."""
    made = np.array(x, copy=True)
    made[..., signal] = 0.0
    made[..., len(spec.signals) + signal] = 0.0
    return made


def windows_of(life: Life, spec: LifeSpec, at: NDArray[np.int64]) -> tuple[Float32s, NDArray[np.bool_]]:
    """Windows of one recorded life after the rows `at` (0-based, ascending): x float32 [n, looks, channels], and whether
    each is usable."""
    track = LifeTrack(spec)
    wanted = {int(t) for t in at}
    found: list[Float32s] = []
    usable: list[bool] = []
    for t in range(len(life)):
        track.step(life.signals[t], life.settings[t])
        if t in wanted:
            found.append(track.window())
            usable.append(track.usable)
    if not found:
        return np.zeros((0, spec.looks, spec.channels), dtype=np.float32), np.zeros(0, dtype=bool)
    return np.stack(found), np.array(usable)


class LifeAnswer(msgspec.Struct, frozen=True):
    """A distribution of remaining life, capped: survival float64 [N, bins] after each edge, never rising."""

    survival: Floats
    edges: Floats

    @property
    def expected(self) -> Floats:
        """Expected life up to the cap [N]: the area under the curve (restricted mean; Royston & Parmar 2013)."""
        whole = np.concatenate([np.ones((len(self.survival), 1)), self.survival], axis=1)
        width = float(self.edges[0])
        return np.asarray(((whole[:, 1:] + whole[:, :-1]) / 2 * width).sum(axis=1))

    def quantile(self, level: float) -> Floats:
        """The life [N] that is not reached with probability `level`; the cap where the curve never falls that far."""
        if not 0 < level < 1:
            raise BadMessage(Reason.WRONG_TYPE, f"level {level} is not between 0 and 1")
        whole = np.concatenate([np.ones((len(self.survival), 1)), self.survival], axis=1)
        ends = np.concatenate([[0.0], self.edges])
        made = np.full(len(whole), ends[-1])
        below = whole <= 1.0 - level
        for i in np.flatnonzero(below.any(axis=1)):
            k = int(np.argmax(below[i]))
            fall = whole[i, k - 1] - whole[i, k]
            part = (whole[i, k - 1] - (1.0 - level)) / fall if fall > 0 else 1.0
            made[i] = ends[k - 1] + part * (ends[k] - ends[k - 1])
        return made

    def fails_within(self, life: float) -> Floats:
        """Probability [N] of failing within `life` units (at most the cap)."""
        whole = np.concatenate([np.ones((len(self.survival), 1)), self.survival], axis=1)
        ends = np.concatenate([[0.0], self.edges])
        return np.array([1.0 - np.interp(life, ends, row) for row in whole])


def read_answer(q: NDArray[np.floating], spec: LifeSpec) -> LifeAnswer:
    """A model's output [N, bins] as a curve: kept within 0..1 and from rising (an int8 graph may round). Raises BadMessage
    for another shape or a number that is not finite."""
    if q.ndim != 2 or q.shape[1] != spec.bins:
        raise BadMessage(Reason.WRONG_TYPE, f"answer of shape {q.shape}; this model gives [N, {spec.bins}]")
    if not np.isfinite(q).all():
        raise BadMessage(Reason.NOT_FINITE, "the model's survival curve is not finite: it is not used")
    curve = np.minimum.accumulate(np.clip(np.asarray(q, dtype=np.float64), 0.0, 1.0), axis=1)
    return LifeAnswer(survival=curve, edges=spec.edges)
