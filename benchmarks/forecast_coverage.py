"""Do intervals hold what they promise, on real series and while the process drifts?

    python benchmarks/forecast_coverage.py --data DIR_OF_M4 [--subset scale|mean|season|m4] [--quick] [--json]

--quick: 3 synthetic series of 1,600 steps for each drift, and the first 24 series of the folder.

M4 Hourly: one forecast of 48 steps per series, as in the competition; the conformal state is warmed by rolling origins
inside the train part, then coverage is counted on the test values (80 +- 2 and 95 +- 1 on average over series and
horizons); besides, rolling over the last third of the train part. Two base forecasters: the seasonal naive, and the
product's own ridge over all series with shares of seasonal naive (as forecast_hourly), learned on the first half of the
train part and used unchanged after it.

Synthetic (t4 noise with autocorrelation .5 on a daily season): the noise's scale x3 half-way, the level shifts by 8 noise
scales, amplitude and phase of the season drift. Base: seasonal naive and an exponentially weighted level with profile, 12
steps ahead from every step; and the product's own ARIMA, fitted on the first 600 steps of three of the series (a quarter
with --quick), whose Gaussian intervals are then the reference. Coverage over everything after 300 steps, and the worst window
of 500 steps of any series.

A value h steps ahead is learned from h steps late, so every interval already issued when the level shifts may miss: h * 80 %
of 500 values, 1.9 of the 3 points at step 12. The targets are held against step 1 and against all steps together (what a
person sees), and step 12 alone is shown with the same targets.

One M4 forecast per series leaves few independent values (a series' 48 fail together): `standard_error` is that of the mean
over series.

Width is paid for: rows give the mean interval score (Gneiting & Raftery 2007; scaled by the seasonal naive's in-sample
error: MSIS) and the mean width over that of an oracle, who knows in hindsight the quantile of the absolute errors of each
eighth of the series; its target is 1.15. Scored seeds differ from those on which the rates were chosen (900, 901)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import contract
import forecast_hourly
import m4
import numpy as np
from numpy.typing import NDArray

from protocol.intervals import (
    LEVELS,
    MEAN_ABSOLUTE,
    Band,
    Intervals,
    IntervalSettings,
    prior_from_quantiles,
    typical_changes,
)
from protocol.tables import StateSpace
from protocol.tables.ridge import LAST, LEVEL
from server.algorithms import arima, ridge
from server.algorithms.ridge import Member

Floats = NDArray[np.float64]
LEVEL_NAMES = ("80", "95")
BURN, ROLL, WINDOW = 300, 500, 300
SEASON, WEEK, HORIZON = 24, 168, 48
FEWEST = 264
AHEAD = 12
HOUR_MS = 3_600_000
ORACLE_BOUND = 1.15
KINDS = {"scale": "scale jump x3", "mean": "mean shift", "season": "seasonal drift"}


@dataclass(frozen=True)
class Rolled:
    """Forecasts from every origin o (values before o are known): mean, prior [S, O, H], the values they meet [S, O, H]
    (NaN beyond the end)."""

    mean: Floats
    prior: Floats
    actual: Floats


@dataclass(frozen=True)
class Answer:
    """Intervals of every origin: [S, O, H, L] each."""

    low: Floats
    high: Floats


def ahead(values: Floats, first: int, horizon: int) -> Floats:
    """[S, T] -> what comes after each origin first..T: [S, T - first + 1, horizon], NaN beyond the end."""
    padded = np.pad(values, ((0, 0), (0, horizon)), constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, horizon, axis=1)[:, first : values.shape[1] + 1]


def priors(values: Floats, first: int, horizon: int, length: int = 96) -> Floats:
    """`typical_changes` of the last `length` values at each origin."""
    return np.stack(
        [typical_changes(values[:, max(o - length, 0) : o], horizon) for o in range(first, values.shape[1] + 1)], axis=1
    )


def seasonal_naive(values: Floats, season: int, first: int, horizon: int) -> Rolled:
    """The value one season ago, from every origin."""
    at = np.arange(first, values.shape[1] + 1)[:, None] - season + np.arange(horizon) % season
    return Rolled(values[:, at], priors(values, first, horizon), ahead(values, first, horizon))


def running_profile(values: Floats, season: int, first: int, horizon: int) -> Rolled:
    """An exponentially weighted level and seasonal profile, with the last residual fading by half a step."""
    s, t = values.shape
    profile, level, last = np.zeros((s, season)), np.zeros(s), np.zeros(s)
    steps = np.arange(horizon)
    means = []
    for o in range(t + 1):
        if o >= first:
            means.append(profile[:, (o + steps) % season] + level[:, None] + last[:, None] * 0.5 ** (steps + 1))
        if o < t:
            last = values[:, o] - profile[:, o % season] - level
            profile[:, o % season] += 0.1 * last
            level += 0.03 * last
    return Rolled(np.stack(means, axis=1), priors(values, first, horizon), ahead(values, first, horizon))


def adaptive(rolled: Rolled, settings: IntervalSettings | None = None) -> Answer:
    """The product's intervals, replayed in the order of time: an origin's interval sees no value at or after it."""
    s, origins, h = rolled.mean.shape
    made = Intervals(h, settings)
    rows = np.arange(s)
    low = np.empty((s, origins, h, len(LEVELS)))
    high = np.empty_like(low)
    flat = Band(
        np.empty((origins * s, h)),
        np.empty((origins * s, h)),
        np.empty((origins * s, h, len(LEVELS))),
        np.empty((origins * s, h, len(LEVELS))),
    )
    for o in range(origins):
        band = made.around(rows, rolled.mean[:, o], rolled.prior[:, o])
        low[:, o], high[:, o] = band.low, band.high
        here = slice(o * s, (o + 1) * s)
        flat.mean[here], flat.prior[here], flat.low[here], flat.high[here] = band.mean, band.prior, band.low, band.high
        arrived = rolled.actual[:, o, 0]
        steps = np.arange(min(o + 1, h))
        who, when = np.tile(rows, len(steps)), np.repeat(steps, s)
        made.learn(who, when, np.tile(arrived, len(steps)), flat, (o - when) * s + who)
    return Answer(low, high)


def fixed_split(rolled: Rolled, calibration: int) -> Answer:
    """Split conformal: quantiles of the first `calibration` origins' absolute errors, for ever."""
    error = np.abs(rolled.actual - rolled.mean)[:, :calibration]
    half = np.stack([np.nanquantile(error, level, axis=1) for level in LEVELS], axis=-1)[:, None]
    return Answer(rolled.mean[..., None] - half, rolled.mean[..., None] + half)


def sliding(error: Floats, delay: int, gammas: tuple[float, ...] = (0.0,)) -> Floats:
    """Half widths [S, O, L]: quantiles of the last WINDOW absolute errors [S, O] that are known, `delay` origins later.
    One gamma: ACI of Gibbs & Candès 2021 on their level (0: the plain window); several: DtACI (2022), weighted by loss."""
    s, origins = error.shape
    gamma = np.array(gammas)
    half = np.full((s, origins, len(LEVELS)), np.nan)
    for j, level in enumerate(LEVELS):
        miss = np.full((s, len(gamma)), 1 - level)
        weight = np.full((s, len(gamma)), 1.0 / len(gamma))
        asked = np.full((origins, s, len(gamma)), np.nan)
        for o in range(delay + 21, origins):
            known = o - delay - 1  # the newest origin whose value has arrived
            if gamma.any() and np.isfinite(half[0, known, j]):
                _take_back(error[:, known], half[:, known, j], asked[known], miss, weight, gamma, level)
            past = np.sort(error[:, max(known + 1 - WINDOW, 0) : known + 1], axis=1)
            rank = np.round(np.clip(1 - miss, 0, 1) * (past.shape[1] - 1)).astype(np.int64)
            radius = np.take_along_axis(past, rank, axis=1)
            asked[o] = np.where(miss <= 0, 3 * past[:, -1:], np.where(miss >= 1, 0.0, radius))
            half[:, o, j] = (weight * asked[o]).sum(axis=1)
    return half


def _take_back(
    error: Floats, half: Floats, asked: Floats, miss: Floats, weight: Floats, gammas: Floats, level: float
) -> None:
    """One step of each expert, and of their weights."""
    single = len(gammas) == 1
    missed = (error > half)[:, None] if single else error[:, None] > asked
    miss += gammas * ((1 - level) - missed)
    if single:
        return
    over = error[:, None] - asked
    loss = np.where(over > 0, level * over, (level - 1) * over) / np.maximum(asked.mean(axis=1, keepdims=True), 1e-12)
    weight *= np.exp(-0.3 * loss)
    weight /= weight.sum(axis=1, keepdims=True)
    weight *= 0.99
    weight += 0.01 / len(gammas)


def inside(rolled: Rolled, answer: Answer) -> Floats:
    """1 held, 0 missed, NaN nothing to say: [S, O, H, L]."""
    actual = rolled.actual[..., None]
    held = ((actual >= answer.low) & (actual <= answer.high)).astype(np.float64)
    return np.where(np.isfinite(actual) & np.isfinite(answer.low), held, np.nan)


def interval_score(rolled: Rolled, answer: Answer) -> Floats:
    """Width plus what a miss costs: [S, O, H, L]."""
    actual, rate = rolled.actual[..., None], 2 / (1 - np.array(LEVELS))
    outside = np.maximum(answer.low - actual, 0) + np.maximum(actual - answer.high, 0)
    return np.asarray(answer.high - answer.low + rate * outside)


def worst_window(held: Floats) -> float:
    """The lowest share over any ROLL successive origins of any series: held [S, O]."""
    total = np.cumsum(np.pad(held, ((0, 0), (1, 0))), axis=1)
    return float((total[:, ROLL:] - total[:, :-ROLL]).min() / ROLL)


def oracle_width(rolled: Rolled, level: float, parts: int = 8) -> float:
    """Mean width of who knows in hindsight the quantile of each part of each series."""
    error = np.abs(rolled.actual - rolled.mean)
    return float(np.mean([2 * np.nanquantile(part, level, axis=1) for part in np.array_split(error, parts, axis=1)]))


# synthetic ------------------------------------------------------------------------------------------------------------


def plant(kind: str, seed: int, series: int, length: int) -> Floats:
    """Drifting series [series, length] with t4 noise of scale 1."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)
    shock = rng.standard_t(4, size=(series, length)) * np.where((kind == "scale") & (t >= length // 2), 3.0, 1.0)
    noise = np.zeros_like(shock)
    for i in range(1, length):
        noise[:, i] = 0.5 * noise[:, i - 1] + shock[:, i]
    drift = t / length if kind == "season" else np.zeros(length)
    season = (3 + 6 * drift) * np.sin(2 * np.pi * (t / SEASON + 3 * drift))
    shift = np.where((kind == "mean") & (t >= length // 2), 8.0, 0.0)
    return np.asarray(20 + season + shift + noise)


def cut(rolled: Rolled, origins: slice, steps: slice = slice(None), series: slice = slice(None)) -> Rolled:
    """Some origins, steps, series."""
    at = (series, origins, steps)
    return Rolled(rolled.mean[at], rolled.prior[at], rolled.actual[at])


def synthetic(sheet: contract.Sheet) -> None:
    """Rows of the three drifts."""
    series, length = (3, 1600) if sheet.options.quick else (20, 6000)
    bases = {"seasonal naive": seasonal_naive, "running profile": running_profile}
    for i, (kind, words) in enumerate(KINDS.items()):
        if sheet.options.subset not in ("", kind):
            continue
        values = plant(kind, 1000 + i, series, length)
        own_arima(sheet, words, values[: 1 if sheet.options.quick else 3, :4000])
        for base, roll in bases.items():
            rolled = roll(values, SEASON, 4 * SEASON, AHEAD)
            started = time.monotonic()
            ours = adaptive(rolled)
            seconds = time.monotonic() - started
            for step in (0, AHEAD - 1):
                one = cut(rolled, slice(None), slice(step, step + 1))
                mine = Answer(ours.low[:, :, step : step + 1], ours.high[:, :, step : step + 1])
                _drift_rows(sheet, f"{words}, {base}, step {step + 1}", one, step, mine, seconds)
            _pooled_rows(sheet, f"{words}, {base}, steps 1-{AHEAD} together", rolled, ours, seconds)


def _drift_rows(sheet: contract.Sheet, what: str, one: Rolled, step: int, ours: Answer, seconds: float) -> None:
    """Coverage, worst window and price of one base forecaster at one step; `one` and `ours` hold that step alone."""
    few = cut(one, slice(None), series=slice(0, 4))
    error = np.abs(few.actual - few.mean)[:, :, 0]
    methods = {
        "ours": (one, ours),
        "fixed split": (one, fixed_split(one, 200)),
        "sliding window": (few, _around(few, sliding(error, step))),
        "ACI .02": (few, _around(few, sliding(error, step, (0.02,)))),
        "DtACI": (few, _around(few, sliding(error, step, (0.002, 0.008, 0.032, 0.064)))),
    }
    scored = slice(BURN, one.actual.shape[1] - AHEAD)
    n = one.actual[:, scored].size
    for j, level in enumerate(LEVELS):
        held = {m: inside(*given)[:, scored, 0, j] for m, given in methods.items()}
        coverage = {m: float(h.mean()) for m, h in held.items()}
        worst = {m: worst_window(h) for m, h in held.items()}
        score = {m: float(interval_score(*given)[:, scored, 0, j].mean()) for m, given in methods.items()}
        width = {
            m: float((a.high - a.low)[:, scored, 0, j].mean()) / oracle_width(cut(r, scored), level)
            for m, (r, a) in methods.items()
        }
        close = abs(coverage["ours"] - level) <= (0.02, 0.01)[j]
        low = level - 0.03
        for metric, figures, target, holds in (
            ("coverage", coverage, level, close),
            (f"worst rolling-{ROLL}", worst, low, worst["ours"] >= low - 1e-9),
            ("width over the oracle's", width, ORACLE_BOUND, width["ours"] <= ORACLE_BOUND),
            ("interval score", score, None, None),
        ):
            peers: dict[str, float | None] = {m: v for m, v in figures.items() if m not in ("ours", "fixed split")}
            sheet.row(
                what,
                f"{metric} {LEVEL_NAMES[j]}",
                figures["ours"],
                reference=figures["fixed split"],
                peers=peers,
                target=target,
                holds=holds,
                n=n,
                seconds=seconds,
                headline=what.endswith("step 1") and metric.startswith("worst"),
            )


def _pooled_rows(sheet: contract.Sheet, what: str, rolled: Rolled, ours: Answer, seconds: float) -> None:
    """What a person sees: every value against all the intervals that were issued for it."""
    held = inside(rolled, ours)[:, BURN:-AHEAD].mean(axis=2)
    for j, level in enumerate(LEVELS):
        mean, worst, n = float(held[..., j].mean()), worst_window(held[..., j]), held[..., j].size * AHEAD
        close = abs(mean - level) <= (0.02, 0.01)[j]
        sheet.row(what, f"coverage {LEVEL_NAMES[j]}", mean, target=level, holds=close, n=n, seconds=seconds)
        low = level - 0.03
        sheet.row(what, f"worst rolling-{ROLL} {LEVEL_NAMES[j]}", worst, target=low, holds=worst >= low, n=n)


def _around(rolled: Rolled, half: Floats) -> Answer:
    """Symmetric intervals of one step from half widths [S, O, L]."""
    return Answer(rolled.mean[..., None] - half[:, :, None], rolled.mean[..., None] + half[:, :, None])


def filtered(values: Floats, first: int, horizon: int) -> Rolled | None:
    """The product's own ARIMA, fitted on what is before `first` and then only updated; None where it cannot be fitted."""
    parts = []
    for row in values:
        fitted = arima.fit(row[:first], 0, HOUR_MS, horizon)
        if fitted is None:
            return None
        space = StateSpace(fitted.tables())
        made = []
        for o in range(first, len(row) + 1):  # its state is that after the last value it was fitted on
            made.append(space.forecast(o * HOUR_MS, HOUR_MS, horizon))
            if o < len(row):
                space.step(row[o : o + 1], o * HOUR_MS)
        mean, deviation = (np.concatenate(side)[None] for side in zip(*made, strict=True))
        parts.append(Rolled(mean, deviation * MEAN_ABSOLUTE, ahead(row[None], first, horizon)))
    return together(parts)


def own_arima(sheet: contract.Sheet, what: str, values: Floats) -> None:
    """Gaussian intervals of the fitted variance against ours around the same forecasts: the reference is the Gaussian."""
    started = time.monotonic()
    rolled = filtered(values, min(600, values.shape[1] // 4), AHEAD)
    if rolled is None:
        sheet.note(f"{what}: no ARIMA could be fitted")
        return
    half = (rolled.prior / MEAN_ABSOLUTE)[..., None] * np.array([1.2815515655446004, 1.959963984540054])
    gaussian = Answer(rolled.mean[..., None] - half, rolled.mean[..., None] + half)
    ours = adaptive(rolled)
    seconds = time.monotonic() - started
    scored = slice(BURN, rolled.actual.shape[1] - AHEAD)
    for steps, words in ((slice(0, 1), "step 1"), (slice(0, AHEAD), f"steps 1-{AHEAD} together")):
        held, theirs = (inside(rolled, a)[:, scored, steps].mean(axis=2) for a in (ours, gaussian))
        score, their_score = (interval_score(rolled, a)[:, scored, steps] for a in (ours, gaussian))
        for j, level in enumerate(LEVELS):
            low, mean, worst = level - 0.03, float(held[..., j].mean()), worst_window(held[..., j])
            n = held[..., j].size * (steps.stop - steps.start)
            for metric, mine, reference, target, holds in (
                ("coverage", mean, float(theirs[..., j].mean()), level, abs(mean - level) <= (0.02, 0.01)[j]),
                (f"worst rolling-{ROLL}", worst, worst_window(theirs[..., j]), low, worst >= low - 1e-9),
                ("interval score", float(score[..., j].mean()), float(their_score[..., j].mean()), None, None),
            ):
                sheet.row(
                    f"{what}, own ARIMA, {words}",
                    f"{metric} {LEVEL_NAMES[j]}",
                    mine,
                    reference=reference,
                    target=target,
                    holds=holds,
                    n=n,
                    seconds=seconds,
                )


# M4 Hourly ------------------------------------------------------------------------------------------------------------


def own_ridge(sheet: contract.Sheet, trains: list[Floats], horizon: int) -> list[Rolled]:
    """The product's ridge with shares of seasonal naive, learned on the first half of each series (FEWEST hours or more)
    and asked from every origin after it, as by a gateway that is not sent a newer one; its own quantiles are the prior.
    Empty where the series are too short."""
    halves = [train[: max(len(train) // 2, FEWEST)] for train in trains]
    check = 2 * horizon
    lags = min(WEEK, min(len(half) for half in halves) - check - horizon - ridge.LEAST_WINDOWS)
    chosen = ridge.RidgeSettings(horizon, SEASON, (Member(LEVEL, lags), Member(LAST, lags)), lags, check)
    fitted = ridge.fit(halves, chosen, lambda _share, step: sheet.say(step))
    if fitted is None:
        return []
    model = fitted.model()
    made = []
    shares = forecast_hourly.shares_beside(halves, fitted, chosen)
    for s, (train, half, share) in enumerate(zip(trains, halves, shares, strict=True)):
        origins = np.arange(len(half), len(train) + 1)
        windows = np.lib.stride_tricks.sliding_window_view(train, model.context)[origins - model.context]
        rows = np.full(len(origins), s, dtype=np.int64)
        day, week = (train[origins[:, None] - lag + np.arange(horizon) % lag] for lag in (SEASON, WEEK))
        mean = share[0] * model.forecast(windows, rows) + share[1] * day + share[2] * week
        q = model.quantiles(windows, rows)
        low, high = (ridge.LEVELS.index(at) for at in (0.1, 0.9))
        prior = prior_from_quantiles(q[:, :, low], q[:, :, high], 0.8)
        made.append(Rolled(mean[None], prior[None], ahead(train[None], len(half), horizon)))
    return made


def together(parts: list[Rolled]) -> Rolled:
    """Stacks series of one length."""
    return Rolled(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("mean", "prior", "actual")))


def m4_hourly(sheet: contract.Sheet) -> None:
    """Rows of the competition's series."""
    series = [s for s in m4.read(sheet, "Hourly") if len(s.test) == HORIZON and len(s.train) >= 400]
    series = series[: 24 if sheet.options.quick else None]
    if not series:
        sheet.note(f"no series with {HORIZON} test values and 400 or more to learn from: M4 rows are left out")
        return
    yard = np.array([np.abs(s.train[SEASON:] - s.train[:-SEASON]).mean() for s in series])
    test = Rolled(np.zeros((0, 0, 0)), np.zeros((0, 0, 0)), np.stack([s.test for s in series])[:, None])
    theirs = _statsforecast(sheet, series)
    for base in ("seasonal naive", "own ridge"):
        started = time.monotonic()
        forecasts = own_ridge(sheet, [s.train for s in series], HORIZON) if base == "own ridge" else []
        if base == "own ridge" and not forecasts:
            sheet.note("own ridge: the series are too short to learn from")
            continue
        lasts: dict[str, list[Answer]] = {}
        rolling: list[tuple[Floats, Floats]] = []
        order: list[int] = []
        for length in sorted({len(s.train) for s in series}):
            members = [i for i, s in enumerate(series) if len(s.train) == length]
            order += members
            if forecasts:
                rolled = together([forecasts[i] for i in members])
            else:
                rolled = seasonal_naive(np.stack([series[i].train for i in members]), SEASON, 2 * SEASON, HORIZON)
            for name, answer in _warmed(rolled).items():
                lasts.setdefault(name, []).append(Answer(answer.low[:, -1:], answer.high[:, -1:]))
                if name == "ours":
                    third = slice(-length // 3, -HORIZON)
                    rolling.append((inside(rolled, answer)[:, third], interval_score(rolled, answer)[:, third]))
        seconds = time.monotonic() - started
        back = np.argsort(order)
        whole = {
            name: Answer(*(np.concatenate([getattr(a, side) for a in parts])[back] for side in ("low", "high")))
            for name, parts in lasts.items()
        }
        if theirs is not None and base == "seasonal naive":
            whole["statsforecast SeasonalNaive"] = theirs
        _m4_rows(sheet, base, whole, test, yard, rolling, seconds)


def _warmed(rolled: Rolled) -> dict[str, Answer]:
    """Ours and the simple ways on one set of rolled forecasts; the last origin is the one that the test part scores."""
    error = np.abs(rolled.actual - rolled.mean)[:, :-1]
    known = [error[:, : error.shape[1] - h, h][:, -WINDOW:] for h in range(HORIZON)]
    half = np.stack([np.nanquantile(past, LEVELS, axis=1) for past in known], axis=1).transpose(2, 1, 0)
    last = Rolled(rolled.mean[:, -1:], rolled.prior[:, -1:], rolled.actual[:, -1:])
    width = half[:, None]
    split = fixed_split(rolled, rolled.mean.shape[1] // 2)
    return {
        "ours": adaptive(rolled),
        "fixed split": Answer(split.low[:, -1:], split.high[:, -1:]),
        "sliding window": Answer(last.mean[..., None] - width, last.mean[..., None] + width),
    }


def _m4_rows(
    sheet: contract.Sheet,
    base: str,
    answers: dict[str, Answer],
    test: Rolled,
    yard: Floats,
    rolling: list[tuple[Floats, Floats]],
    seconds: float,
) -> None:
    what = f"M4 Hourly, {base}"
    held = {m: inside(test, a) for m, a in answers.items()}
    score = {m: interval_score(test, a) / yard[:, None, None, None] for m, a in answers.items()}
    for j, level in enumerate(LEVELS):
        coverage = {m: float(h[..., j].mean()) for m, h in held.items()}
        msis = {m: float(s[..., j].mean()) for m, s in score.items()}
        each = held["ours"][..., j].mean(axis=(1, 2))  # a series' 48 values fail together: series are what is counted
        error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else None
        for metric, figures, target in (("coverage", coverage, level), ("MSIS", msis, None)):
            sheet.row(
                what,
                f"{metric} {LEVEL_NAMES[j]}",
                figures["ours"],
                reference=figures["fixed split"],
                peers={m: v for m, v in figures.items() if m not in ("ours", "fixed split")},
                target=target,
                holds=None if target is None else abs(figures["ours"] - level) <= (0.02, 0.01)[j],
                n=held["ours"][..., j].size,
                seconds=seconds,
                standard_error=error if metric == "coverage" else None,
                headline=metric == "coverage",
            )
        late = np.concatenate([h[..., j].mean(axis=(1, 2)) for h, _ in rolling])
        sheet.row(
            what + ", rolling, last third of train",
            f"coverage {LEVEL_NAMES[j]}",
            float(late.mean()),
            target=level,
            holds=abs(float(late.mean()) - level) <= (0.02, 0.01)[j],
            n=sum(h[..., j].size for h, _ in rolling),
            seconds=seconds,
        )


def _statsforecast(sheet: contract.Sheet, series: list[m4.Series]) -> Answer | None:
    """The library's own intervals of its seasonal naive."""
    models = contract.peer(sheet, "statsforecast.models")
    if models is None:
        return None
    low, high = [], []
    for s in series:
        made = models.SeasonalNaive(season_length=SEASON).forecast(
            y=s.train, h=HORIZON, level=[int(100 * level + 0.5) for level in LEVELS]
        )
        low.append(np.stack([made[f"lo-{name}"] for name in LEVEL_NAMES], axis=-1))
        high.append(np.stack([made[f"hi-{name}"] for name in LEVEL_NAMES], axis=-1))
    return Answer(np.stack(low)[:, None], np.stack(high)[:, None])


def measure(sheet: contract.Sheet) -> None:
    """All rows, or those of one part."""
    if sheet.options.subset not in ("", "m4", *KINDS):
        raise SystemExit(f"--subset is one of m4, {', '.join(KINDS)}")
    synthetic(sheet)
    if sheet.options.subset in ("", "m4"):
        m4_hourly(sheet)


if __name__ == "__main__":
    raise SystemExit(contract.run("forecast_coverage", __doc__, measure))
