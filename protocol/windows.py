"""Resample, window, scale: computed once, here, for training and for the gateway alike.

Arrays: a series is float64 of shape [T] on a regular grid, NaN where nothing was observed; a stack of series is [N, T].
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadMessage, Reason
from protocol.observations import Name

Floats = NDArray[np.float64]
DAY_MS = 86_400_000
MAX_BUCKETS = 1_000_000


class WindowSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a forecaster sees and answers; travels inside its bundle.

    length: steps it looks at; horizon: steps it answers; season: steps per season (0: none);
    max_missing: largest share of missing buckets in the window before it refuses to answer. covariates: names of inputs
    whose future is known (planned load, a shift, a scheduled order), in the order of `windows`' `known`.
    covariate_scale: what each is divided by (missing: 1)."""

    step_ms: Annotated[int, msgspec.Meta(ge=1)]
    length: Annotated[int, msgspec.Meta(ge=2, le=5000)]
    horizon: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    season: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    max_missing: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.25
    covariates: list[Name] = []
    covariate_scale: list[Annotated[float, msgspec.Meta(gt=0)]] = []

    @property
    def context(self) -> int:
        """Steps of history a window needs: the window itself and, one season before, the stretch it is compared with."""
        return self.length + max(self.season - self.horizon, 0)

    @property
    def channels(self) -> int:
        """Columns of a window: CHANNELS, then two of each covariate and the logarithm of the window's scale."""
        return len(CHANNELS) + (2 * len(self.covariates) + 1 if self.covariates else 0)


CHANNELS = ("value", "observed", "season_ago", "sin_day", "cos_day")
"""Columns of a forecaster's input. `season_ago[t]` is the value one season before t + horizon, so that the end of the
window already shows how the horizon went last season. After them come, for each covariate, its value at t and its value
at t + horizon, so that the window's end shows the whole horizon's future, and last of all the logarithm of the window's
scale, for what acts in the signal's own unit (a load of 300 adds the same to a calm window and to a wild one)."""


def resample(times_ms: NDArray[np.int64], values: Floats, start_ms: int, step_ms: int, buckets: int) -> Floats:
    """Means per bucket [start + i*step, start + (i+1)*step): shape [buckets], NaN for empty ones.

    Times need not be sorted. Raises BadMessage if `buckets` is not in 1..MAX_BUCKETS."""
    if not 1 <= buckets <= MAX_BUCKETS:
        raise BadMessage(
            Reason.TOO_LARGE, f"{buckets} buckets asked for; 1 to {MAX_BUCKETS} can be had: use a longer step"
        )
    index = (times_ms - start_ms) // step_ms
    inside = (index >= 0) & (index < buckets) & np.isfinite(values)
    total = np.bincount(index[inside], weights=values[inside], minlength=buckets)
    count = np.bincount(index[inside], minlength=buckets)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan), dtype=np.float64)


def fill_forward(stack: Floats) -> Floats:
    """Each gap takes the last observed value before it (a leading gap the first one after it); all-NaN rows stay NaN.
    Shape kept, [N, T]."""
    n, t = stack.shape
    seen = np.where(np.isnan(stack), -1, np.arange(t))
    last = np.maximum.accumulate(seen, axis=1)
    first = np.argmax(~np.isnan(stack), axis=1)
    take = np.where(last < 0, first[:, None], last)
    return np.asarray(stack[np.arange(n)[:, None], take], dtype=np.float64)


class Windows(msgspec.Struct, frozen=True):
    """Scaled windows: x float32 [N, length, spec.channels]; a value v was scaled to (v - center) / scale, [N] each.
    usable[i] is False where too much was missing to answer."""

    x: NDArray[np.float32]
    center: Floats
    scale: Floats
    usable: NDArray[np.bool_]

    def unscale(self, answer: NDArray[np.floating]) -> Floats:
        """Brings a model's answer [N, horizon, ...] back to the signal's unit."""
        extra = (1,) * (answer.ndim - 1)
        return np.asarray(answer * self.scale.reshape(-1, *extra) + self.center.reshape(-1, *extra), dtype=np.float64)


def windows(context: Floats, ends_ms: NDArray[np.int64], spec: WindowSpec, known: Floats | None = None) -> Windows:
    """Scaled windows from `context` [N, spec.context], whose last bucket ends at ends_ms [N].

    known [N, C, spec.context + spec.horizon]: each covariate over the same buckets and the horizon's (protocol.covariates
    makes them), in its own unit; what is not known is 0, as are all of them if None.
    Raises BadMessage on another shape.

    Center and scale are mean and mean absolute deviation of the window's own observed values, so the scaling is
    reversible and a new machine needs no statistics of its own (reversible instance normalisation, Kim et al. 2022)."""
    if context.ndim != 2 or context.shape[1] != spec.context:
        raise BadMessage(Reason.WRONG_TYPE, f"context of shape {context.shape}; this model needs [N, {spec.context}]")
    n, length = context.shape[0], spec.length
    recent = context[:, -length:]
    observed = ~np.isnan(recent)
    count = observed.sum(axis=1)
    usable = (count >= max(2, round(length * (1 - spec.max_missing)))) & observed[:, -max(1, length // 8) :].any(axis=1)
    filled = fill_forward(context)
    filled = np.where(np.isnan(filled), 0.0, filled)
    recent_filled = filled[:, -length:]
    weight = observed / np.maximum(count, 1)[:, None]
    center = (np.where(observed, recent, 0.0) * weight).sum(axis=1)
    spread = (np.abs(np.where(observed, recent - center[:, None], 0.0)) * weight).sum(axis=1)
    scale = np.maximum(spread, 1e-6 * np.maximum(np.abs(center), 1.0))
    x = np.zeros((n, length, spec.channels), dtype=np.float32)
    x[:, :, 0] = (recent_filled - center[:, None]) / scale[:, None]
    x[:, :, 1] = observed
    if spec.season:
        x[:, :, 2] = (season_ago(filled, spec) - center[:, None]) / scale[:, None]
    middle = ends_ms[:, None] - (length - np.arange(length) - 0.5) * spec.step_ms
    angle = (middle % DAY_MS) * (2 * np.pi / DAY_MS)
    x[:, :, 3] = np.sin(angle)
    x[:, :, 4] = np.cos(angle)
    if spec.covariates:
        x[:, :, -1] = np.log(scale)[:, None]
    if known is not None and spec.covariates:
        x[:, :, len(CHANNELS) : -1] = _covariates(known, n, spec)
    np.clip(x, -20.0, 20.0, out=x)
    return Windows(x=x, center=center, scale=scale, usable=usable)


def _covariates(known: Floats, n: int, spec: WindowSpec) -> Floats:
    """[N, length, 2C]: of each covariate the value at t and at t + horizon."""
    count, end = len(spec.covariates), spec.context
    if known.shape != (n, count, end + spec.horizon):
        raise BadMessage(
            Reason.WRONG_TYPE,
            f"covariates of shape {known.shape}; this model needs [{n}, {count}, {end + spec.horizon}]",
        )
    scale = np.ones(count)
    scale[: len(spec.covariate_scale)] = spec.covariate_scale[:count]
    known = np.nan_to_num(known / scale[:, None], nan=0.0, posinf=20.0, neginf=-20.0)
    now = known[:, :, end - spec.length : end]
    ahead = known[:, :, end - spec.length + spec.horizon : end + spec.horizon]
    return np.stack([now, ahead], axis=3).transpose(0, 2, 1, 3).reshape(n, spec.length, 2 * count)


def season_ago(context: Floats, spec: WindowSpec) -> Floats:
    """For each of the last `length` steps t the value at t + horizon - season (or at t where that lies beyond the
    window's end, for seasons shorter than the horizon): [N, length]."""
    t = spec.context
    at = np.arange(t - spec.length, t) + spec.horizon - spec.season
    while (late := at >= t).any():
        at = np.where(late, at - spec.season, at)
    return context[:, np.maximum(at, 0)]


def naive_forecast(context: Floats, season: int, horizon: int) -> Floats:
    """The simple reference: the value one season ago where the context reaches that far and it was observed, else the
    last observed value. [N, T] -> [N, horizon]; NaN only for a row without any observation."""
    filled = fill_forward(context)
    t = context.shape[1]
    last = np.repeat(filled[:, -1:], horizon, axis=1)
    if season <= 0 or t < season:
        return last
    seasonal = context[:, [t - season + (h % season) for h in range(horizon)]]
    return np.asarray(np.where(np.isnan(seasonal), last, seasonal), dtype=np.float64)


def day_harmonics(times_ms: NDArray[np.int64], harmonics: int) -> Floats:
    """Known future inputs: a constant and sin/cos pairs of the day, [T, 1 + 2*harmonics]."""
    angle = (times_ms % DAY_MS) * (2 * np.pi / DAY_MS)
    columns = [np.ones(len(times_ms))]
    for k in range(1, harmonics + 1):
        columns += [np.sin(k * angle), np.cos(k * angle)]
    return np.stack(columns, axis=1)
