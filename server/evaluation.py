"""What a model is worth: measured on the newest stretch of every signal, which nothing was chosen on.

Forecast figure: a series' mean absolute error divided by the naive forecast's on the same values, averaged
over series (1 = no better than repeating last season). Recommendation figures: NDCG@5 and hit@3 over cases
later than those learned from. A model that has no answer for a row is given the naive one, as on the
gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from protocol.covariates import KnownInput, reader
from protocol.tables import Ridge, StateSpace
from protocol.windows import Floats, Windows, WindowSpec, naive_forecast, windows
from server.cases import Case

HELD_OUT_SHARE = 0.2
MOST_ORIGINS = 120
MOST_ROWS = 4000


@dataclass(frozen=True)
class Tail:
    """The held-out stretch. `split`: its first bucket. origins [O]: first bucket of each forecast. targets, naive (last
    season's value), last (the last value) [S, O, H], NaN where nothing was observed. yard [S]: what a series' error is
    divided by (NaN: nothing to measure)."""

    values: Floats
    start_ms: int
    step_ms: int
    split: int
    origins: NDArray[np.int64]
    targets: Floats
    naive: Floats
    yard: Floats
    last: Floats

    def only(self, rows: list[int]) -> Tail:
        """The same stretch of some of the series."""
        return replace(
            self,
            values=self.values[rows],
            targets=self.targets[rows],
            naive=self.naive[rows],
            yard=self.yard[rows],
            last=self.last[rows],
        )

    def reference(self) -> tuple[str, float]:
        """(name, relative error) of the simple reference that a model must beat: repeating last season or repeating the
        last value, whichever is better on this very stretch."""
        errors = {"seasonal_naive": self.relative_error(self.naive)[0], "last_value": self.relative_error(self.last)[0]}
        name = min(errors, key=lambda one: (not np.isfinite(errors[one]), errors[one]))
        return name, errors[name]

    def relative_error(self, answers: Floats) -> tuple[float, Floats, int]:
        """(mean over series, per series [S], values scored) of answers [S, O, H]; NaN answers are the naive
        one."""
        answers = np.where(np.isfinite(answers), answers, self.naive)
        gap = np.abs(answers - self.targets)
        scored = np.isfinite(gap)
        count = scored.sum(axis=(1, 2))
        error = np.where(scored, gap, 0.0).sum(axis=(1, 2)) / np.maximum(count, 1) / self.yard
        error = np.where(count > 0, error, np.nan)
        measured = np.isfinite(error)
        overall = float(error[measured].mean()) if measured.any() else float("nan")
        return overall, error, int(count[measured].sum())

    def coverage(self, low: Floats, high: Floats) -> float:
        """Share of observed targets within [low, high]."""
        seen = np.isfinite(self.targets) & np.isfinite(low)
        inside = (self.targets >= low) & (self.targets <= high)
        return float(inside[seen].mean()) if seen.any() else float("nan")

    def words(self) -> str:
        """How the split was made, for the passport."""
        return (
            f"newest {self.values.shape[1] - self.split} of {self.values.shape[1]} buckets of each signal, "
            f"{len(self.origins)} forecast origins, held out in time order"
        )


def hold_out(values: Floats, start_ms: int, step_ms: int, season: int, horizon: int, split: int | None = None) -> Tail:
    """Cuts the tail off values [S, T], from bucket `split` on (None: the newest fifth). The yard is the naive error
    on the tail, but at least a twentieth of the signal's own spread, so that a signal which hardly moves cannot
    dominate the mean."""
    series, buckets = values.shape
    if split is None:
        split = buckets - max(round(buckets * HELD_OUT_SHARE), 2 * horizon)
    last = buckets - horizon
    most = max(min(MOST_ORIGINS, MOST_ROWS // max(series, 1)), 8)
    origins = np.arange(split, last + 1, max(-(-(last + 1 - split) // most), 1), dtype=np.int64)
    targets = np.stack([values[:, at : at + horizon] for at in origins], axis=1)
    seen = contexts(values, origins, max(season, 1))
    flat = seen.reshape(-1, seen.shape[2])
    naive = naive_forecast(flat, season, horizon).reshape(targets.shape)
    last_value = naive_forecast(flat, 0, horizon).reshape(targets.shape)
    gap = np.abs(naive - targets)
    spread = np.array([_spread(row[:split]) for row in values])
    scored = np.isfinite(gap)
    error = np.where(scored, gap, 0.0).sum(axis=(1, 2)) / np.maximum(scored.sum(axis=(1, 2)), 1)
    yard = np.maximum(error, 0.05 * spread)
    return Tail(values, start_ms, step_ms, split, origins, targets, naive, np.where(yard > 0, yard, np.nan), last_value)


def contexts(values: Floats, origins: NDArray[np.int64], steps: int) -> Floats:
    """The `steps` buckets before each origin, NaN before the series begins: [S, O, steps]."""
    padded = np.concatenate([np.full((values.shape[0], steps), np.nan), values], axis=1)
    return np.asarray(padded[:, origins[:, None] + np.arange(steps)[None, :]], dtype=np.float64)


def known_columns(
    inputs: Sequence[KnownInput],
    series: list[tuple[str, str]],
    start_ms: int,
    origins: NDArray[np.int64],
    spec: WindowSpec,
) -> Floats | None:
    """What was known at each origin of the covariates that a model wants, series by series: [S*O, C, context + horizon];
    None for a model that wants none."""
    if not spec.covariates:
        return None
    at, read = start_ms + origins * spec.step_ms, reader(inputs)
    by_machine = {
        machine: read(machine, spec.covariates, at, spec.step_ms, spec.context, spec.horizon)
        for machine in {machine for machine, _ in series}
    }
    return np.concatenate([by_machine[machine] for machine, _ in series])


@dataclass(frozen=True)
class KnownSteps:
    """What a filter is told of its covariates: now [S, T, C] with each bucket, as known by its end; ahead [S, O, C, H] at
    each origin."""

    now: Floats
    ahead: Floats


def known_steps(
    inputs: Sequence[KnownInput], covariates: Sequence[str], series: list[tuple[str, str]], tail: Tail
) -> KnownSteps | None:
    """None for a filter without covariates."""
    if not covariates:
        return None
    ends = tail.start_ms + tail.step_ms * np.arange(1, tail.values.shape[1] + 1, dtype=np.int64)
    origins, read = tail.start_ms + tail.origins * tail.step_ms, reader(inputs)
    by_machine = {
        machine: (
            read(machine, covariates, ends, tail.step_ms, 1, 0)[:, :, 0],
            read(machine, covariates, origins, tail.step_ms, 0, tail.targets.shape[2]),
        )
        for machine in {machine for machine, _ in series}
    }
    now, ahead = (np.stack([by_machine[machine][side] for machine, _ in series]) for side in (0, 1))
    return KnownSteps(now, ahead)


def input_windows(
    values: Floats, start_ms: int, origins: NDArray[np.int64], spec: WindowSpec, known: Floats | None = None
) -> Windows:
    """A forecaster's windows before each origin, series by series: S*O rows."""
    stack = contexts(values, origins, spec.context)
    ends = np.tile(start_ms + origins * spec.step_ms, values.shape[0])
    return windows(stack.reshape(-1, spec.context), ends, spec, known)


def window_answers(
    tail: Tail,
    spec: WindowSpec,
    run: Callable[..., NDArray[np.floating]],
    known: Floats | None = None,
    who: NDArray[np.int64] | None = None,
) -> Floats:
    """Quantiles in the signals' units [S, O, H, Q] of a model that answers windows; NaN where a window is
    unusable. known: as of `known_columns`; who [S, 2]: each series' numbers, for models that ask for them."""
    rows = input_windows(tail.values, tail.start_ms, tail.origins, spec, known)
    made = run(rows.x) if who is None else run(rows.x, np.repeat(who, len(tail.origins), axis=0))
    answered = rows.unscale(made)
    answered[~rows.usable] = np.nan
    return np.asarray(answered.reshape(*tail.targets.shape[:2], *answered.shape[1:]), dtype=np.float64)


def filter_answers(
    tail: Tail, filter_: StateSpace, first: int, known: KnownSteps | None = None
) -> tuple[Floats, Floats]:
    """Means and deviations [S, O, H] of a state-space filter that stands at bucket `first` and is walked to
    the end of the data, forecasting at each origin. known: of the same series."""
    mean = np.full(tail.targets.shape, np.nan)
    deviation = np.full(tail.targets.shape, np.nan)
    place = {int(at): o for o, at in enumerate(tail.origins)}
    for bucket in range(first, tail.values.shape[1]):
        at = tail.start_ms + bucket * tail.step_ms
        if bucket in place:
            mean[:, place[bucket]], deviation[:, place[bucket]] = filter_.forecast(
                at, tail.step_ms, tail.targets.shape[2], None if known is None else known.ahead[:, place[bucket]]
            )
        filter_.step(tail.values[:, bucket], at, None if known is None else known.now[:, bucket])
    return mean, deviation


def table_answers(tail: Tail, model: Ridge, rows: list[int]) -> Floats:
    """Quantiles [S, O, H, Q] of a ridge, with the mean put first: [S, O, H, 1 + Q]. rows [S]: each series in its tables
    (-1: unknown)."""
    stack = contexts(tail.values, tail.origins, model.context).reshape(-1, model.context)
    names = np.repeat(np.array(rows, dtype=np.int64), len(tail.origins))
    answer = np.concatenate([model.forecast(stack, names)[:, :, None], model.quantiles(stack, names)], axis=2)
    return np.asarray(answer.reshape(*tail.targets.shape[:2], *answer.shape[1:]), dtype=np.float64)


@dataclass(frozen=True)
class Ranked:
    """ndcg: NDCG@5; hit: share of cases with a right item among the first 3; n: cases with a known right item. gains, hits:
    the same of each of these cases."""

    ndcg: float
    hit: float
    n: int
    gains: list[float]
    hits: list[float]


def ranked_quality(lists: list[list[str]], cases: list[Case]) -> Ranked:
    """Judges one ranked list per case. Cases of which only wrong items are known are not scored (Järvelin &
    Kekäläinen 2002 for NDCG)."""
    gains: list[float] = []
    hits: list[float] = []
    for ranked, case in zip(lists, cases, strict=True):
        right = {item for item, value in case.items.items() if value > 0}
        if right:
            got = sum(1 / np.log2(place + 2) for place, item in enumerate(ranked[:5]) if item in right)
            gains.append(got / sum(1 / np.log2(place + 2) for place in range(min(len(right), 5))))
            hits.append(float(any(item in right for item in ranked[:3])))
    n = len(gains)
    ndcg, hit = (float(np.mean(one)) if n else float("nan") for one in (gains, hits))
    return Ranked(ndcg, hit, n, gains, hits)


def _spread(row: Floats) -> float:
    seen = row[np.isfinite(row)]
    return float(np.mean(np.abs(seen - np.median(seen)))) if len(seen) else 0.0
