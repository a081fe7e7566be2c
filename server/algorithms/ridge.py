"""Closed-form forecasting of a whole fleet: one ridge regression shared by all series, a correction per series, and
quantiles from errors that were held out. Seconds for hundreds of series, and often hard to beat.

Hoerl & Kennard 1970; Montero-Manso & Hyndman 2021, "Principles and Algorithms for Forecasting Groups of Time Series"
(one linear model for many series); Zeng et al. 2023 (last-value normalisation). Everything that is chosen (logarithms,
penalties, shares, which series keep their correction) is chosen on the newest stretch of the given values; then all of
it is fitted again on everything. What the tables mean is in protocol/tables/ridge.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from protocol.tables import Ridge, Tables
from protocol.tables.ridge import LAST, LEVEL, MOST_CLIP, anchored, reading
from protocol.windows import Floats, fill_forward
from server.algorithms.combination import shares

Ints = NDArray[np.int64]
LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
LEAST_WINDOWS = 16
MOST_OWN = 4_000_000


@dataclass(frozen=True)
class Member:
    """One way to look at a window: measured from its level or its last value, over the newest `lags` steps."""

    kind: int
    lags: int


@dataclass(frozen=True)
class RidgeSettings:
    """members: combined by shares per step of the horizon. span: steps that give a window its level and scale (a season,
    or a week of hours). check: newest steps of each series on which everything is chosen. penalties: candidates for the
    shared weights, own: for the corrections per series (empty: none), both in units of a mean window.
    evenly: every window counts alike; else in proportion to its own spread, as plain least squares would.
    most_windows: more are thinned out evenly. squared: choose by squared errors in the signals' own unit instead of
    absolute ones in the windows'. again: after everything is chosen, fit once more
    with the check stretch included (else the weights stay those learned before it)."""

    horizon: int
    season: int
    members: tuple[Member, ...]
    span: int
    check: int
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    own: tuple[float, ...] = (0.1, 0.3, 1.0)
    logarithms: bool = True
    evenly: bool = True
    most_windows: int = 120_000
    squared: bool = False
    again: bool = True

    @property
    def context(self) -> int:
        """Steps of history in a window."""
        return max(self.span, *(member.lags for member in self.members))


def settings_for(horizon: int, season: int, length: int, buckets: int) -> RidgeSettings:
    """What suits series of `buckets` steps when a window may reach back `length`."""
    lags = max(min(length, buckets // 3), 2)
    span = season if 1 < season <= lags else lags
    check = max(2 * horizon, round(0.15 * buckets))
    return RidgeSettings(horizon, season, (Member(LEVEL, lags), Member(LAST, lags)), span, check)


@dataclass(frozen=True)
class FittedRidge:
    """tables: for protocol.tables.Ridge, all series of the values given, in their order. before: the same, learned before
    the check stretch only, so that its answers there are honest. check_error [S]: each series'
    mean absolute error on the check stretch over its seasonal-naive error before it (NaN: nothing to measure).
    chosen: what was chosen, for the passport."""

    tables: Tables
    before: Tables
    check_error: Floats
    chosen: dict[str, object] = field(default_factory=dict)

    def model(self) -> Ridge:
        """The same answers that a gateway computes."""
        return Ridge(self.tables)


@dataclass(frozen=True)
class _Part:
    """Windows of one series. x [n, T] without gaps, as read; y [n, H] in the same units (NaN: not observed)."""

    x: Floats
    y: Floats


@dataclass(frozen=True)
class _Weights:
    shared: list[Floats]  # per member [lags + 1, H], the intercept last
    mix: Floats  # [M, H]
    own: list[Floats]  # per series [lags + 1, H]


def fit(
    values: list[Floats], settings: RidgeSettings, progress: Callable[[float, str], None] = lambda _f, _s: None
) -> FittedRidge | None:
    """Fits on series of any lengths (a list of [T_s], NaN where nothing was observed). None if fewer than LEAST_WINDOWS
    windows remain before the check stretch."""
    filled = [fill_forward(row[None])[0] if np.isfinite(row).any() else np.zeros(0) for row in values]
    rows = [
        np.where(np.isfinite(row), full, np.nan) if len(full) else full
        for row, full in zip(values, filled, strict=True)
    ]
    yard = np.array([_yard(row[: max(len(row) - settings.check, 0)], settings.season) for row in rows])
    nonnegative = np.array([len(full) > 0 and float(full.min()) >= 0 for full in filled])
    tries: list[_Start] = []
    for logged in (np.zeros(len(values), dtype=bool), nonnegative):
        if not tries or (settings.logarithms and nonnegative.any()):
            made = _start(rows, logged, yard, settings)
            if made is not None:
                tries.append(made)
        progress(0.2 * len(tries), "ridge: choosing penalties")
    if not tries:
        return None
    best = _corrected(min(tries, key=lambda one: _mean(one.error)), rows, yard, settings)
    progress(0.7, "ridge: corrections per series chosen")
    before = _tables(best.weights, best, nonnegative, settings)
    tables = before
    if settings.again:
        weights = _learn(_all_parts(rows, best.logged, settings, 0), best, settings)
        tables = _tables(weights, best, nonnegative, settings)
    progress(0.9, "ridge: fitted on everything")
    chosen = {"logarithms": bool(best.logged.any()), "penalties": best.penalties, "own": best.own}
    return FittedRidge(tables, before, best.error, chosen)


@dataclass(frozen=True)
class _Start:
    """Shared weights learned before the check stretch, with what they are worth there."""

    logged: NDArray[np.bool_]
    learn: list[_Part]
    check: list[_Part]
    shared: list[Floats]
    penalties: list[float]
    mix: Floats
    answers: list[Floats]
    error: Floats


@dataclass(frozen=True)
class _Try:
    """One set of choices with what it was worth, and the weights learned before the check stretch.
    keep [S]: share of its correction that each series keeps."""

    logged: NDArray[np.bool_]
    penalties: list[float]
    own: float
    keep: Floats
    error: Floats
    offset: Floats
    width: Floats
    mix: Floats
    weights: _Weights


def _start(rows: list[Floats], logged: NDArray[np.bool_], yard: Floats, settings: RidgeSettings) -> _Start | None:
    learn = _all_parts(rows, logged, settings, settings.check)
    check = _check_parts(rows, logged, settings)
    if sum(len(part.x) for part in learn) < LEAST_WINDOWS or not any(len(part.x) for part in check):
        return None
    shared: list[Floats] = []
    penalties: list[float] = []
    for m in range(len(settings.members)):
        g, c, n = _grams(learn, m, settings)
        tried = [_solve(g, c, penalty * n) for penalty in settings.penalties]
        worth = [_judge_shared(check, m, weights, settings) for weights in tried]
        best = int(np.argmin(worth))
        shared.append(tried[best])
        penalties.append(settings.penalties[best])
    mix = _mix(check, shared, settings)
    answers = [_shared_answer(part.x, shared, mix, settings) for part in check]
    error = _series_error(answers, check, logged, rows, yard, settings)
    return _Start(logged, learn, check, shared, penalties, mix, answers, error)


def _corrected(start: _Start, rows: list[Floats], yard: Floats, settings: RidgeSettings) -> _Try:
    """The penalty of the corrections and the share that each series keeps: none where it made that series worse."""
    error, own, keep, answers = start.error, 0.0, np.zeros(len(rows)), start.answers
    corrections: list[Floats] = []
    size = len(rows) * settings.members[0].lags * settings.horizon
    grams = _own_grams(start.learn, start.shared, start.mix, settings) if settings.own and size <= MOST_OWN else []
    for penalty in settings.own if grams else ():
        learned = _own(grams, penalty)
        extra = [_own_answer(part.x, w, settings) for part, w in zip(start.check, learned, strict=True)]
        for share in (0.5, 1.0):
            tried = [a + share * e for a, e in zip(start.answers, extra, strict=True)]
            worth = _series_error(tried, start.check, start.logged, rows, yard, settings)
            if _mean(worth) < _mean(error):
                error, own, keep, answers = worth, penalty, np.full(len(rows), share), tried
                corrections = learned
    if own:
        worse = ~(error <= 1.02 * start.error)
        keep, error = np.where(worse, 0.0, keep), np.where(worse, start.error, error)
        answers = [alone if w else a for alone, a, w in zip(start.answers, answers, worse, strict=True)]
    offset, width = _spread(answers, start.check, settings)
    weights = _Weights(start.shared, start.mix, [k * w for k, w in zip(keep, corrections, strict=True)] if own else [])
    return _Try(start.logged, start.penalties, own, keep, error, offset, width, start.mix, weights)


def _learn(parts: list[_Part], chosen: _Try, settings: RidgeSettings) -> _Weights:
    shared = []
    for m, penalty in enumerate(chosen.penalties):
        g, c, n = _grams(parts, m, settings)
        shared.append(_solve(g, c, penalty * n))
    own: list[Floats] = []
    if chosen.own:
        extra = _own(_own_grams(parts, shared, chosen.mix, settings), chosen.own)
        own = [keep * weights for keep, weights in zip(chosen.keep, extra, strict=True)]
    return _Weights(shared, chosen.mix, own)


def _all_parts(rows: list[Floats], logged: NDArray[np.bool_], settings: RidgeSettings, spare: int) -> list[_Part]:
    """Windows of every series that end (targets included) `spare` steps before its end."""
    wide = settings.context + settings.horizon
    total = sum(max(len(row) - spare - wide + 1, 0) for row in rows)
    every = max(-(-total // settings.most_windows), 1)
    parts = []
    for s, row in enumerate(rows):
        last = len(row) - spare - settings.horizon
        parts.append(
            _part(row, np.arange(last, settings.context - 1, -every, dtype=np.int64)[::-1], logged[s], settings)
        )
    return parts


def _check_parts(rows: list[Floats], logged: NDArray[np.bool_], settings: RidgeSettings) -> list[_Part]:
    parts = []
    for s, row in enumerate(rows):
        first, last = len(row) - settings.check, len(row) - settings.horizon
        every = max((last - first) // max(24, 3000 // len(rows)), 1)
        origins = np.arange(last, max(first, settings.context) - 1, -every, dtype=np.int64)[::-1]
        parts.append(_part(row, origins, logged[s], settings))
    return parts


def _part(row: Floats, origins: Ints, logged: bool, settings: RidgeSettings) -> _Part:
    """Windows before each origin, of which at least half of the values and of the targets were observed."""
    t, h = settings.context, settings.horizon
    if not len(origins):
        return _Part(np.zeros((0, t)), np.zeros((0, h)))
    x = np.lib.stride_tricks.sliding_window_view(row, t)[origins - t]
    y = np.lib.stride_tricks.sliding_window_view(row, h)[origins]
    use = (np.isfinite(x).mean(axis=1) >= 0.5) & (np.isfinite(y).mean(axis=1) >= 0.5)
    x, y = x[use], y[use]
    seen = reading(x, np.full(len(x), logged), settings.span)
    if logged:
        y = np.log1p(np.maximum(y, 0.0) / seen.unit[:, None])
    return _Part(seen.values, np.asarray(y, dtype=np.float64))


def _lags(count: int) -> Ints:
    return np.arange(count, 0, -1, dtype=np.int64)


def _seen(x: Floats, m: int, settings: RidgeSettings) -> tuple[Floats, Floats, Floats]:
    """(z with a constant column [n, lags + 1], anchor [n], scale [n]) of a member."""
    member = settings.members[m]
    made = anchored(x, _lags(member.lags), settings.span, member.kind)
    return np.concatenate([made.z, np.ones((len(x), 1))], axis=1), made.anchor, made.scale


def _weight(scale: Floats, settings: RidgeSettings) -> Floats:
    return np.ones(len(scale)) if settings.evenly else scale / max(float(np.sqrt(np.mean(scale**2))), 1e-300)


def _targets(y: Floats, guess: Floats, anchor: Floats, scale: Floats) -> Floats:
    """Scaled and clipped; what was not observed is what was guessed, so that it teaches nothing."""
    scaled = (y - anchor[:, None]) / scale[:, None]
    return np.where(np.isfinite(scaled), np.clip(scaled, -MOST_CLIP, MOST_CLIP), guess)


def _grams(parts: list[_Part], m: int, settings: RidgeSettings) -> tuple[Floats, Floats, float]:
    size = settings.members[m].lags + 1
    g, c, n = np.zeros((size, size)), np.zeros((size, settings.horizon)), 0.0
    for part in parts:
        if len(part.x):
            z, anchor, scale = _seen(part.x, m, settings)
            weight = _weight(scale, settings)[:, None]
            y = _targets(part.y, z[:, -2:-1], anchor, scale)
            small = (z * weight).astype(np.float32)
            g += small.T @ small
            c += small.T @ (y * weight).astype(np.float32)
            n += len(z)
    return g, c, n


def _solve(g: Floats, c: Floats, penalty: float) -> Floats:
    return np.asarray(np.linalg.solve(g + max(penalty, 1e-9) * np.eye(len(g)), c))


def _shared_answer(x: Floats, shared: list[Floats], mix: Floats, settings: RidgeSettings) -> Floats:
    """[n, H] in the units that the windows were read in."""
    answer = np.zeros((len(x), settings.horizon))
    for m, weights in enumerate(shared):
        z, anchor, scale = _seen(x, m, settings)
        answer += mix[m] * (anchor[:, None] + scale[:, None] * (z @ weights))
    return answer


def _own_answer(x: Floats, extra: Floats, settings: RidgeSettings) -> Floats:
    z, _, scale = _seen(x, 0, settings)
    return np.asarray(scale[:, None] * (z[:, :-1] @ extra))


def _own_grams(
    parts: list[_Part], shared: list[Floats], mix: Floats, settings: RidgeSettings
) -> list[tuple[Floats, Floats, int]]:
    """Per series: normal equations of what the shared answer leaves, in the first member's units."""
    lags = settings.members[0].lags
    found: list[tuple[Floats, Floats, int]] = []
    for part in parts:
        if len(part.x) < LEAST_WINDOWS:
            found.append((np.eye(lags), np.zeros((lags, settings.horizon)), 1))
            continue
        z, anchor, scale = _seen(part.x, 0, settings)
        weight = _weight(scale, settings)[:, None]
        guess = (_shared_answer(part.x, shared, mix, settings) - anchor[:, None]) / scale[:, None]
        left = ((_targets(part.y, guess, anchor, scale) - guess) * weight).astype(np.float32)
        small = (z[:, :-1] * weight).astype(np.float32)
        gram, cross = (np.asarray(small.T @ other, dtype=np.float64) for other in (small, left))
        found.append((gram, cross, len(small)))
    return found


def _own(grams: list[tuple[Floats, Floats, int]], penalty: float) -> list[Floats]:
    """Corrections [lags, H] per series."""
    return [_solve(g, c, penalty * n) for g, c, n in grams]


def _judge_shared(check: list[_Part], m: int, weights: Floats, settings: RidgeSettings) -> float:
    """Mean over series of the absolute error in units of the windows' scale, or of the squared error."""
    errors = []
    for part in check:
        if len(part.x):
            z, anchor, scale = _seen(part.x, m, settings)
            gap = (part.y - anchor[:, None]) / scale[:, None] - z @ weights
            errors.append(np.nanmean((gap * scale[:, None]) ** 2 if settings.squared else np.abs(gap)))
    return float(np.mean(errors))


def _mix(check: list[_Part], shared: list[Floats], settings: RidgeSettings) -> Floats:
    """Shares [M, H] of the members at each step of the horizon; every series counts alike."""
    members = len(shared)
    if members == 1:
        return np.ones((1, settings.horizon))
    misses: list[Floats] = []
    for part in check:
        if len(part.x):
            answers = []
            for m, weights in enumerate(shared):
                z, anchor, scale = _seen(part.x, m, settings)
                gap = anchor[:, None] + scale[:, None] * (z @ weights) - part.y
                answers.append(gap if settings.squared else gap / scale[:, None])
            misses.append(np.stack(answers) / np.sqrt(len(part.x)))  # [M, n, H]
    pooled = np.concatenate(misses, axis=1)
    return np.stack([shares(pooled[:, :, h]) for h in range(settings.horizon)], axis=1)


def _series_error(
    answers: list[Floats],
    check: list[_Part],
    logged: NDArray[np.bool_],
    rows: list[Floats],
    yard: Floats,
    settings: RidgeSettings,
) -> Floats:
    """Each series' mean absolute error in its own unit over its yard; a window in logarithms counts by its own level."""
    error = np.full(len(rows), np.nan)
    for s, (answer, part) in enumerate(zip(answers, check, strict=True)):
        if not len(part.x) or not yard[s] > 0:
            continue
        gap = answer - part.y
        if logged[s]:
            recent = part.x[:, -settings.span :]
            gap = np.expm1(np.clip(answer, -50, recent.max(axis=1, keepdims=True) + 3)) - np.expm1(part.y)
            level = np.nanmean(np.abs(rows[s][-settings.check - settings.context :]))
            gap = gap * level / np.maximum(np.expm1(recent).mean(axis=1, keepdims=True), 1e-12)
        error[s] = float(np.nanmean(np.abs(gap))) / yard[s]
    return error


def _spread(answers: list[Floats], check: list[_Part], settings: RidgeSettings) -> tuple[Floats, Floats]:
    """(offset [H, Q], width [S + 1]) of held-out errors in units of the windows' scale."""
    misses = []
    for answer, part in zip(answers, check, strict=True):
        scale = _seen(part.x, 0, settings)[2] if len(part.x) else np.ones(0)
        misses.append((part.y - answer) / scale[:, None])
    typical = np.array([np.nanmean(np.abs(miss)) if np.isfinite(miss).any() else np.nan for miss in misses])
    fleet = float(np.nanmean(typical))
    width = np.where(np.isfinite(typical), typical / max(fleet, 1e-12), np.nan)
    width = np.clip(np.where(np.isfinite(width), width, np.nanquantile(width, 0.9)), 0.02, 50.0)
    pool = np.concatenate([miss / w for miss, w in zip(misses, width, strict=True)])
    offset = np.zeros((settings.horizon, len(LEVELS)))
    for h in range(settings.horizon):
        near = pool[:, max(h - 1, 0) : h + 2]
        offset[h] = np.quantile(near[np.isfinite(near)], LEVELS) if np.isfinite(near).any() else 0.0
    return np.maximum.accumulate(offset, axis=1), np.append(width, max(1.0, float(np.quantile(width, 0.9))))


def _tables(weights: _Weights, chosen: _Try, nonnegative: NDArray[np.bool_], settings: RidgeSettings) -> Tables:
    most = max(member.lags for member in settings.members)
    if weights.own and settings.members[0].lags < most:
        weights = replace(weights, own=[np.pad(one, ((most - len(one), 0), (0, 0))) for one in weights.own])
    padded = [np.pad(w[:-1], ((most - len(w) + 1, 0), (0, 0))) for w in weights.shared]
    own = np.stack(weights.own) if weights.own else np.zeros((0, most, settings.horizon))
    usual = bool(nonnegative.mean() > 0.5) if len(nonnegative) else False
    return {
        "lags": _lags(most),
        "span": np.array([settings.span], dtype=np.int64),
        "kinds": np.array([member.kind for member in settings.members], dtype=np.int64),
        "weights": np.stack(padded),
        "bias": np.stack([w[-1] for w in weights.shared]),
        "mix": weights.mix,
        "own": own,
        "logged": np.append(chosen.logged, usual and bool(chosen.logged.any())).astype(np.int8),
        "nonnegative": np.append(nonnegative, usual).astype(np.int8),
        "width": chosen.width,
        "offset": chosen.offset,
    }


def _yard(row: Floats, season: int) -> float:
    """In-sample error of repeating last season (else the last value): what a series' error is divided by."""
    lag = season if 0 < season < len(row) else 1
    gaps = np.abs(row[lag:] - row[:-lag])
    gaps = gaps[np.isfinite(gaps)]
    return float(gaps.mean()) if len(gaps) else 0.0


def _mean(error: Floats) -> float:
    seen = error[np.isfinite(error)]
    return float(seen.mean()) if len(seen) else float("inf")
