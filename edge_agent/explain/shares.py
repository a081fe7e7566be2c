"""Why a forecast's mean over its horizon is what it is: what each part of the input adds. base + sum of shares = total.

A linear forecast (the simple reference, a state-space filter, a closed-form ridge) is taken apart exactly, one part at a
time. Any other is shared out by Shapley values (Strumbelj & Kononenko 2010) over at most MOST_PARTS parts: exactly where all
subsets can be asked, else over antithetic pairs of orders (Mitchell et al. 2022), whose amounts telescope, so that the sum
stays exact, and whose spread is given as each amount's standard error. A part that is taken out is put to a stated
baseline: the window's mean for its values and for last season's, no time of day for the calendar."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.explain.cases import nearest_cases
from edge_agent.explain.labels import Words
from protocol.covariates import KnownReader, nothing_known
from protocol.names import stable_id
from protocol.reports import Forecast, ForecastExplanation, ForecastShare
from protocol.tables import Ridge, StateSpace
from protocol.windows import CHANNELS, Floats, naive_forecast, windows

if TYPE_CHECKING:
    from edge_agent.runtimes import LoadedModel

MOST_PARTS = 8
EVALUATIONS = 128
Without = Callable[[tuple[bool, ...]], float]
"""The forecast's mean over the horizon with only the parts present that are True; the others at their baseline."""


@dataclass(frozen=True)
class Part:
    """One part of the input. `span`: buckets of the window it covers, first and behind the last, counted from the window's
    end (-4, 0 is the last four); None where it is no stretch of time."""

    kind: str
    label: Words
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Shares:
    """amounts, errors [parts]; base + amounts.sum() = total. orders: 0 where the amounts are exact."""

    base: float
    total: float
    amounts: Floats
    errors: Floats
    orders: int = 0


def explain_shown(
    forecast: Forecast,
    members: Sequence[tuple[float, LoadedModel | None]],
    history: Floats,
    *,
    season: int = 0,
    event: str = "",
    known: KnownReader = nothing_known,
) -> ForecastExplanation | None:
    """The explanation of a forecast as it was shown: of its one model, or of the weighted members of a combination, with
    what the signal's own corrections added as a share of their own. None if a member cannot be explained."""
    shown = float(np.mean(forecast.mean))
    found: list[ForecastExplanation] = []
    # the simple reference answers with last season's value or with the last one, whichever has been better
    for reference in (season, 0) if season and any(model is None for _, model in members) else (season,):
        parts = [
            (w, explain_forecast(forecast, m, history, season=reference, event=event, known=known)) for w, m in members
        ]
        explained = [(weight, why) for weight, why in parts if why is not None]
        if explained and len(explained) == len(members):
            why = explained[0][1] if len(explained) == 1 else combined(explained, forecast)
            found += [why] if why is not None else []
    if not found:
        return None
    why = min(found, key=lambda one: abs(shown - one.total))
    corrected = shown - why.total
    if abs(corrected) <= 1e-9 * max(abs(shown), 1.0):
        return why
    share = ForecastShare(
        kind="correction",
        label_en="what the model missed here before",
        label_zh="模型此前在此处的偏差",
        amount=corrected,
    )
    return msgspec.structs.replace(why, total=shown, shares=[*why.shares, share])


def explain_forecast(
    forecast: Forecast,
    model: LoadedModel | None,
    history: Floats,
    *,
    season: int = 0,
    evaluations: int = EVALUATIONS,
    event: str = "",
    cases: int = 3,
    known: KnownReader = nothing_known,
) -> ForecastExplanation | None:
    """The explanation of one forecast of `model` (None: of the simple reference), issued at the end of `history` [T]. A
    state-space model must stand where it stood when the forecast was made. None where the model has no way to be asked
    or nothing was observed. `evaluations`: how often a model that is not linear may be asked. `known`: what the forecast
    was told of the machine's future."""
    horizon, step, end = len(forecast.mean), forecast.step_ms, forecast.start_ms
    if not np.isfinite(history).any():
        return None
    key = (forecast.machine, forecast.signal)
    if model is None:
        parts, shares = _naive(history, season, horizon, step)
        baseline = "every value at the window's mean", "各值取窗口均值"
    elif model.state_space is not None and key in model.passport.series:
        row = model.passport.series.index(key)
        length = model.passport.window.length if model.passport.window else 96
        window = history[-length:]
        told = known(key[0], model.passport.covariates, np.array([end], dtype=np.int64), step, len(window), horizon)[0]
        parts, shares = _filtered(model.state_space, row, window, end, step, horizon, told)
        baseline = "every value as the calendar alone expects it", "各值取仅由日历预期的值"
    elif model.ridge is not None:
        row = model.passport.series.index(key) if key in model.passport.series else -1
        parts, shares = _by_lags(model.ridge, row, history, step, horizon)
        baseline = "the window's level", "窗口水平"
    elif model.session is not None and model.passport.window is not None:
        found = _windowed(model, key, history, end, horizon, evaluations, known)
        if found is None:
            return None
        parts, shares = found
        baseline = "each part at the window's mean, no time of day", "各部分取窗口均值，不含时刻"
    else:
        return None
    length = model.passport.window.length if model is not None and model.passport.window else max(2 * season, 24)
    return ForecastExplanation(
        id=stable_id("why", forecast.id, event),
        forecast=forecast.id,
        event=event,
        machine=forecast.machine,
        signal=forecast.signal,
        unit=forecast.unit,
        issued_ms=forecast.issued_ms,
        method="sampled" if shares.orders else "exact",
        orders=shares.orders,
        baseline_en=baseline[0],
        baseline_zh=baseline[1],
        base=shares.base,
        total=shares.total,
        shares=[_share(part, shares, i, end, step) for i, part in enumerate(parts)],
        cases=nearest_cases(history, end, step, min(length, len(history) // 3), horizon, cases),
        model=forecast.model,
    )


def combined(members: list[tuple[float, ForecastExplanation]], forecast: Forecast) -> ForecastExplanation | None:
    """The explanation of a weighted combination: (weight, explanation) of its members, added up part by part, which keeps
    the sum exact. Standard errors add as if they went together, which overstates. None without members."""
    if not members:
        return None
    first = members[0][1]
    parts: dict[tuple[str, str], ForecastShare] = {}
    for weight, why in members:
        for share in why.shares:
            before = parts.get((share.kind, share.label_en))
            amount, error = weight * share.amount, abs(weight) * share.error
            if before is not None:
                amount, error = amount + before.amount, error + before.error
            parts[share.kind, share.label_en] = msgspec.structs.replace(share, amount=amount, error=error)
    return msgspec.structs.replace(
        first,
        id=stable_id("why", forecast.id, first.event),
        forecast=forecast.id,
        method="sampled" if any(why.method == "sampled" for _, why in members) else "exact",
        orders=max(why.orders for _, why in members),
        baseline_en="each member of the combination at its own baseline",
        baseline_zh="组合中各模型取各自基线",
        base=sum(weight * why.base for weight, why in members),
        total=sum(weight * why.total for weight, why in members),
        shares=list(parts.values()),
        model=forecast.model,
    )


def time_parts(length: int, step_ms: int) -> list[Part]:
    """A window of `length` buckets cut into the last eighth and three stretches before it, each as long as all after."""
    edges = [-length, *sorted({-(length // 2), -(length // 4), -max(length // 8, 1), 0})]
    spans = [(a, b) for a, b in itertools.pairwise(edges) if a < b]
    return [Part("recent", _span_words(a, b, step_ms), (a, b)) for a, b in reversed(spans)]


def linear_shares(without: Without, parts: int) -> Shares:
    """Amounts of a forecast that is linear in its parts: each one alone against none."""
    base = without((False,) * parts)
    alone = [without(tuple(i == j for j in range(parts))) - base for i in range(parts)]
    return Shares(base, without((True,) * parts), np.array(alone), np.zeros(parts))


def shapley_shares(without: Without, parts: int, evaluations: int = EVALUATIONS, seed: int = 7) -> Shares:
    """Shapley values of up to MOST_PARTS parts: exact where 2**parts <= evaluations, else sampled with as many antithetic
    pairs of orders as `evaluations` allow (two at least). Raises ValueError beyond MOST_PARTS."""
    if parts > MOST_PARTS:
        raise ValueError(f"{parts} parts; at most {MOST_PARTS} can be told apart")
    asked: dict[tuple[bool, ...], float] = {}

    def ask(present: tuple[bool, ...]) -> float:
        if present not in asked:
            asked[present] = without(present)
        return asked[present]

    base, total = ask((False,) * parts), ask((True,) * parts)
    if 2**parts <= evaluations:
        return Shares(base, total, _all_subsets(ask, parts), np.zeros(parts))
    pairs = max((evaluations - 2) // (2 * max(parts - 1, 1)), 2)
    rng = np.random.default_rng(seed)
    amounts = np.zeros((pairs, parts))
    for pair in range(pairs):
        order = rng.permutation(parts)
        amounts[pair] = (_along(ask, order) + _along(ask, order[::-1])) / 2
    error = amounts.std(axis=0, ddof=1) / math.sqrt(pairs)
    return Shares(base, total, amounts.mean(axis=0), error, 2 * pairs)


def _all_subsets(ask: Without, parts: int) -> Floats:
    weight = [math.factorial(k) * math.factorial(parts - k - 1) / math.factorial(parts) for k in range(parts)]
    amounts = np.zeros(parts)
    for present in itertools.product((False, True), repeat=parts):
        for i in range(parts):
            if not present[i]:
                joined = (*present[:i], True, *present[i + 1 :])
                amounts[i] += weight[sum(present)] * (ask(joined) - ask(present))
    return amounts


def _along(ask: Without, order: NDArray[np.int64]) -> Floats:
    """What each part adds when they join in this order."""
    present = [False] * len(order)
    amounts = np.zeros(len(order))
    before = ask(tuple(present))
    for i in order.tolist():
        present[i] = True
        now = ask(tuple(present))
        amounts[i], before = now - before, now
    return amounts


def _naive(history: Floats, season: int, horizon: int, step_ms: int) -> tuple[list[Part], Shares]:
    length = min(len(history), max(season + 1, 24))
    window = history[-length:]
    centre = float(np.nanmean(window)) if np.isfinite(window).any() else float(np.nanmean(history))
    if not np.isfinite(window).any():
        window, length = history, len(history)
    parts = time_parts(length, step_ms)

    def without(present: tuple[bool, ...]) -> float:
        seen = window.copy()
        for part, here in zip(parts, present, strict=True):
            if part.span is not None and not here:
                stretch = seen[length + part.span[0] : length + part.span[1]]
                stretch[np.isfinite(stretch)] = centre
        return float(naive_forecast(seen[None], season, horizon).mean())

    return parts, linear_shares(without, len(parts))


def _filtered(
    model: StateSpace, row: int, window: Floats, end_ms: int, step_ms: int, horizon: int, told: Floats
) -> tuple[list[Part], Shares]:
    """Exact by linearity: each value adds its weight times how far it was from what the calendar and the known inputs alone
    expect. What the window's values do not explain is what the state held before them. told [C, L + horizon]."""
    length = len(window)
    start = end_ms - length * step_ms
    model = model.only([row])
    still = model.only([0])
    still.a, still.total = np.zeros_like(model.a), np.zeros_like(model.total)
    calendar = still.forecast(start, step_ms, length + horizon)[0][0]
    effect, at_rest = _effect_of_known(model, told, length)
    made = model.contributions(window[None], end_ms, step_ms, horizon, told[None, :, length:])
    weights = made.weights[0].mean(axis=0)
    moved = np.nan_to_num(weights * (window - calendar[:length] - effect[:length]))
    parts = time_parts(length, step_ms)
    amounts = [float(moved[length + p.span[0] : length + p.span[1]].sum()) for p in parts if p.span is not None]
    total = float(made.mean[0].mean())
    base = float(model.center[0] + model.scale[0] * model.beta[0, 0]) + at_rest
    amounts.append(float(calendar[length:].mean() - (base - at_rest)))
    parts = [*parts, _CALENDAR]
    if model.gamma.any():
        amounts.append(float(effect[length:].mean() - at_rest))
        parts.append(_KNOWN)
    amounts.append(total - base - sum(amounts))
    parts.append(Part("earlier", ("everything before", "更早的全部历史")))
    return parts, Shares(base, total, np.array(amounts), np.zeros(len(parts)))


def _effect_of_known(model: StateSpace, told: Floats, length: int) -> tuple[Floats, float]:
    """What the known inputs add at each bucket [L + horizon] of a filter of one series, in its unit, and what they add for
    good by now: the amounts that have arrived."""
    gamma, sums, total = model.gamma[0] * model.scale[0], model.accumulates[0], model.total[0]
    arrived = np.cumsum(told, axis=1)
    arrived = total[:, None] + arrived - arrived[:, length - 1 : length]
    effect = gamma @ np.where(sums[:, None], arrived, told)
    return np.asarray(effect, dtype=np.float64), float(gamma @ np.where(sums, total, 0.0))


def _by_lags(table: Ridge, row: int, history: Floats, step_ms: int, horizon: int) -> tuple[list[Part], Shares]:
    """Exact: what the values of each stretch add, summed from what every lag adds."""
    context = np.full((1, max(table.context, len(history))), np.nan)
    context[0, context.shape[1] - len(history) :] = history
    made = table.contributions(context, np.array([row], dtype=np.int64))
    by_lag = np.asarray(made.parts[0, :, :horizon], dtype=np.float64).mean(axis=1)
    base = float(np.asarray(made.anchor)[0, :horizon].mean())
    parts = time_parts(int(table.lags.max()), step_ms)
    spans = [part.span for part in parts if part.span is not None]
    amounts = [float(by_lag[(table.lags <= -first) & (table.lags > -behind)].sum()) for first, behind in spans]
    return parts, Shares(base, base + sum(amounts), np.array(amounts), np.zeros(len(parts)))


_CALENDAR = Part("calendar", ("time of day", "一天中的时刻"))
_KNOWN = Part("known", ("what is planned, ordered or read", "已知的计划、采购与记录"))


def _windowed(
    model: LoadedModel,
    key: tuple[str, str],
    history: Floats,
    end_ms: int,
    horizon: int,
    evaluations: int,
    known: KnownReader,
) -> tuple[list[Part], Shares] | None:
    """A network that sees scaled windows: parts are stretches of the value channel, last season, the calendar, and what
    is known of the future."""
    spec = model.passport.window
    assert spec is not None  # noqa: S101 - the caller has looked
    context = np.full((1, spec.context), np.nan)
    tail = history[-spec.context :]
    context[0, spec.context - len(tail) :] = tail
    ends = np.array([end_ms], dtype=np.int64)
    told = known(key[0], spec.covariates, ends, spec.step_ms, spec.context, spec.horizon) if spec.covariates else None
    made = windows(context, ends, spec, told)
    if not made.usable[0]:
        return None
    who = model.passport.who([key])
    steps = min(horizon, spec.horizon)
    value = CHANNELS.index("value")
    timed = time_parts(spec.length, spec.step_ms)
    parts, where = (
        list(timed),
        [(slice(spec.length + p.span[0], spec.length + p.span[1]), [value]) for p in timed if p.span],
    )
    if spec.season:
        parts.append(Part("season", ("last season", "上一周期")))
        where.append((slice(None), [CHANNELS.index("season_ago")]))
    parts.append(_CALENDAR)
    where.append((slice(None), [i for i, name in enumerate(CHANNELS) if name.startswith(("sin_", "cos_"))]))
    if spec.covariates:
        parts.append(_KNOWN)
        where.append((slice(None), list(range(len(CHANNELS), len(CHANNELS) + 2 * len(spec.covariates)))))

    def without(present: tuple[bool, ...]) -> float:
        x = made.x.copy()
        for (rows, channels), here in zip(where, present, strict=True):
            if not here:
                for channel in channels:
                    x[0, rows, channel] = 0.0
        q = np.sort(model.quantiles(x, who), axis=2)[0, :steps].astype(np.float64)
        return float(made.center[0] + made.scale[0] * q[:, q.shape[1] // 2].mean())

    return parts, shapley_shares(without, len(parts), evaluations)


def _share(part: Part, shares: Shares, i: int, end_ms: int, step_ms: int) -> ForecastShare:
    span = part.span
    return ForecastShare(
        kind=part.kind,
        label_en=part.label[0],
        label_zh=part.label[1],
        start_ms=None if span is None else max(end_ms + span[0] * step_ms, 0),
        end_ms=None if span is None else max(end_ms + span[1] * step_ms, 0),
        amount=float(shares.amounts[i]),
        error=float(shares.errors[i]),
    )


def _span_words(first: int, behind: int, step_ms: int) -> Words:
    far, near = _duration(-first * step_ms), _duration(-behind * step_ms)
    if behind == 0:
        return f"the last {far[0]}", f"最近 {far[1]}"
    return f"{far[0]} to {near[0]} ago", f"{far[1]} 至 {near[1]}前"


def _duration(ms: int) -> Words:
    for size, en, zh in ((86_400_000, "d", "天"), (3_600_000, "h", "小时"), (60_000, "min", "分钟"), (1000, "s", "秒")):
        if ms >= size:
            return f"{round(ms / size, 1):g} {en}", f"{round(ms / size, 1):g} {zh}"
    return f"{ms} ms", f"{ms} 毫秒"
