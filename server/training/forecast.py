"""From a frozen grid of signals to sealed forecasters: fit, pack, measure what packing cost, measure against the simple
reference and the champion on a tail that nothing was chosen on.

Every forecaster of a training is also measured beside the others: its passport says which of them is best for each signal
class on the tail, and what share each has in a combination whose shares come from a stretch before the tail."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bundle import Draft, seal
from export.to_tables import ridge_tables, stack_series
from protocol.bundles import Bundle, Golden, Passport, Quality, Runtime, unpack
from protocol.covariates import worth_learning
from protocol.errors import Reason, Refused
from protocol.tables import Ridge, StateSpace, Tables
from protocol.windows import CHANNELS, Floats, WindowSpec
from server import evaluation
from server.algorithms import arima, ridge
from server.datasets import SignalGrid
from server.evaluation import Tail
from server.training.beside import Beside
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress

ARIMA, LSTM, RIDGE = "forecast.arima", "forecast.lstm", "forecast.ridge"
FORECAST_SLOTS = (ARIMA, LSTM, RIDGE)
RELATIVE_ERROR = "mae_relative_to_naive"
Z80 = 1.2815515655446004
INT8_ATOL = 0.05
"""In units of the window's own scale: the same int8 graph rounds differently on CPUs with and without
VNNI."""


@dataclass(frozen=True)
class ForecastPlan:
    """What the forecasters of a site look at and answer. slots: which of them to train."""

    window: WindowSpec
    epochs: int = 12
    seed: int = 7
    slots: tuple[str, ...] = FORECAST_SLOTS


@dataclass(frozen=True)
class _Course:
    """One training: the data, the tail that nothing may be chosen on, and the inner stretch before it, on which the
    shares of a combination are chosen. `inner.split` is also where the learners' own checking begins."""

    grid: SignalGrid
    tail: Tail
    inner: Tail
    plan: ForecastPlan
    world: Circumstances


@dataclass(frozen=True)
class _Trained:
    """A draft with its means on the tail and on the inner stretch, [S, O, H] of all series (NaN: no answer)."""

    draft: Draft
    on_tail: Floats
    on_inner: Floats


def train_forecast(grid: SignalGrid, plan: ForecastPlan, world: Circumstances, progress: Progress) -> list[Candidate]:
    """One candidate per forecaster that the data suffice for. Raises Refused if they suffice for none."""
    spec = plan.window
    needed = spec.length + 4 * spec.horizon
    if not grid.series or grid.values.shape[1] < needed:
        have = grid.values.shape[1] if grid.series else 0
        raise Refused(Reason.NOT_ELIGIBLE, f"{have} buckets of history; {needed} are needed: wait until more is shared")
    tail = evaluation.hold_out(grid.values, grid.start_ms, grid.step_ms, spec.season, spec.horizon)
    course = _Course(grid, tail, _inner(grid, tail, spec), plan, world)
    progress(0.02, f"{len(grid.series)} signals, {grid.values.shape[1]} buckets")
    learners = {ARIMA: (_train_arima, 0.02, 0.35), RIDGE: (_train_ridge, 0.37, 0.08), LSTM: (_train_lstm, 0.45, 0.5)}
    trained: list[_Trained] = []
    for slot, (learn, begin, share) in learners.items():
        if slot in plan.slots:
            made = learn(course, _within(progress, begin, share))
            trained += [made] if made is not None else []
    if not trained:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            "every signal has too many gaps to learn from: check the gateways' plant links",
        )
    candidates = [Candidate(*seal(draft)) for draft in _beside_one_another(course, trained)]
    progress(1.0, "sealed")
    return candidates


def _within(progress: Progress, begin: float, share: float) -> Progress:
    """A part of the whole, as the whole."""
    return lambda f, step: progress(begin + share * f, step)


def _beside_one_another(course: _Course, trained: list[_Trained]) -> list[Draft]:
    """The drafts with what each passport says of its siblings."""
    beside = Beside(course.grid.series, course.tail, course.inner)
    for made in trained:
        beside.add(made.draft.algorithm, made.on_tail, made.on_inner)
    best, combined = beside.best(), beside.combined()
    words = f"Best per signal class: {', '.join(f'{signal} {name}' for signal, name in best.items())}."
    return [
        replace(
            made.draft,
            best=best,
            combined=round(combined, DIGITS) if np.isfinite(combined) else None,
            weights=beside.weights(made.draft.algorithm),
            words=f"{made.draft.words} {words} Combined: {combined:.4g}.",
            because=course.world.because,
        )
        for made in trained
    ]


def _inner(grid: SignalGrid, tail: Tail, spec: WindowSpec) -> Tail:
    """The newest sixth of what lies before the tail."""
    return evaluation.hold_out(
        grid.values[:, : tail.split],
        grid.start_ms,
        grid.step_ms,
        spec.season,
        spec.horizon,
        _first_and_check(tail, spec)[1],
    )


def _first_and_check(tail: Tail, spec: WindowSpec) -> tuple[int, int]:
    """First origins before the tail to learn from and to check on."""
    last = tail.split - spec.horizon
    first = spec.context if last - spec.context >= spec.season else spec.length
    first = min(first, last)
    return first, last - min(max((last - first) // 6, 4), last)


def _train_arima(course: _Course, progress: Progress) -> _Trained | None:
    grid, tail, spec = course.grid, course.tail, course.plan.window
    kept: list[int] = []
    fitted: list[arima.FittedArima] = []
    for s, row in enumerate(grid.values):
        one = arima.fit(row[: tail.split], grid.start_ms, grid.step_ms, spec.horizon)
        if one is not None:
            kept.append(s)
            fitted.append(one)
        progress((s + 1) / len(grid.values) * 0.9, f"ARIMA {s + 1} of {len(grid.values)} signals")
    if not fitted:
        return None
    part = tail.only(kept)
    tables = stack_series([one.tables() for one in fitted])
    places = list(range(len(kept)))
    on_inner = _walked(course.inner, tables, kept, places)[0]
    filter_ = StateSpace(tables)
    mean, deviation = evaluation.filter_answers(part, filter_, part.split)
    alone = np.concatenate(
        [
            evaluation.filter_answers(part.only([s]), StateSpace(one.tables()), part.split)[0]
            for s, one in enumerate(fitted)
        ]
    )
    error, by_series, n = part.relative_error(mean)
    tables["state"], tables["cov"] = filter_.a, filter_.p
    inputs, outputs = parity.golden_series(tables, grid.until_ms, grid.step_ms, spec.horizon)
    size = sum(int(table.nbytes) for table in tables.values())
    orders = {
        "/".join(grid.series[s]): f"{one.order} daily={one.seasonal}" for s, one in zip(kept, fitted, strict=True)
    }
    covered = part.coverage(mean - Z80 * deviation, mean + Z80 * deviation)
    draft = Draft(
        slot=ARIMA,
        family="forecast",
        algorithm="arima",
        version=course.world.versions.get(ARIMA, 1),
        runtime=Runtime.STATE_SPACE,
        window=spec,
        series=[grid.series[s] for s in kept],
        series_until_ms=[grid.until_ms] * len(kept),
        series_error=_finite(by_series),
        tables=tables,
        lineage=course.world.lineage(
            course.plan.seed, {"orders": json.dumps(orders, ensure_ascii=False), "harmonics": arima.HARMONICS}
        ),
        quality=[
            _forecast_quality(part, error, n, _champion_error(part, grid, kept, course.world.champions.get(ARIMA)))
        ],
        parity=parity.compare(alone, mean, part.relative_error(alone)[0], error, lower_is_better=True),
        golden=Golden(atol=1e-6, rtol=1e-6),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=size,
        latency_us=parity.latency_us(lambda: StateSpace(tables).forecast(grid.until_ms, grid.step_ms, spec.horizon)),
        intended_use="Forecasts with intervals and residuals of single signals on a regular grid.",
        limits="Linear and Gaussian; a series outside of the list has no answer; a lasting change of level "
        "widens errors until the state has followed.",
        words=f"The 80 % interval held {covered:.0%} of held-out values.",
    )
    on_tail = np.full(tail.targets.shape, np.nan)
    on_tail[kept] = mean
    progress(1.0, "ARIMA packed")
    return _Trained(draft, on_tail, on_inner)


def _train_ridge(course: _Course, progress: Progress) -> _Trained | None:
    grid, tail, inner, spec = course.grid, course.tail, course.inner, course.plan.window
    settings = replace(
        ridge.settings_for(spec.horizon, spec.season, spec.context, inner.split), check=tail.split - inner.split
    )
    fitted = ridge.fit(list(grid.values[:, : tail.split]), settings, lambda f, step: progress(0.8 * f, step))
    if fitted is None:
        return None
    rows = list(range(len(grid.series)))
    on_inner = evaluation.table_answers(inner, Ridge(fitted.before), rows)[..., 0]
    tables = ridge_tables(fitted.tables)
    model = Ridge(tables)
    answers, exact = (evaluation.table_answers(tail, one, rows) for one in (model, fitted.model()))
    error, by_series, n = tail.relative_error(answers[..., 0])
    float_error = tail.relative_error(exact[..., 0])[0]
    seen = np.isfinite(answers).all(axis=(2, 3))
    if not seen.any():
        return None
    context = evaluation.contexts(tail.values, tail.origins, model.context)
    places = np.repeat(np.array(rows, dtype=np.int64)[:, None], len(tail.origins), axis=1)
    inputs, outputs = parity.golden_windows(model, context[seen], places[seen])
    widest = float(np.abs(outputs["quantiles"].astype(np.float64)).max())
    champion = _champion_error(tail, grid, rows, course.world.champions.get(RIDGE))
    covered = tail.coverage(answers[..., 1 + ridge.LEVELS.index(0.1)], answers[..., 1 + ridge.LEVELS.index(0.9)])
    draft = Draft(
        slot=RIDGE,
        family="forecast",
        algorithm="ridge",
        version=course.world.versions.get(RIDGE, 1),
        runtime=Runtime.RIDGE,
        window=spec,
        levels=list(ridge.LEVELS),
        series=list(grid.series),
        series_error=_finite(by_series),
        tables=tables,
        lineage=course.world.lineage(course.plan.seed, {**asdict(settings), **fitted.chosen}),
        quality=[_forecast_quality(tail, error, n, champion)],
        parity=parity.compare(exact[seen], answers[seen], float_error, error, lower_is_better=True),
        golden=Golden(atol=1e-6 * max(widest, 1e-6), rtol=1e-6),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=sum(int(table.nbytes) for table in fitted.tables.values()),
        latency_us=parity.latency_us(lambda: model.forecast(context[0, :1], places[0, :1])),
        intended_use="Forecasts with intervals of any signal of this site, each with what every past value added.",
        limits="Linear (in logarithms where that was better); known future inputs are not used; a series outside of the "
        "list gets the fleet's weights and a wider interval.",
        words=f"The 80 % interval held {covered:.0%} of held-out values.",
    )
    progress(1.0, "ridge packed")
    return _Trained(draft, answers[..., 0], on_inner)


def _train_lstm(course: _Course, progress: Progress) -> _Trained | None:
    import torch

    from export.quantize import quantize
    from export.to_onnx import to_onnx
    from server.algorithms import lstm

    grid, tail, plan = course.grid, course.tail, course.plan
    spec = _with_covariates(plan.window, grid)
    machines, signals = (sorted({key[side] for key in grid.series}) for side in (0, 1))
    who = _numbers(grid.series, machines, signals)
    learned, checked = _training_windows(grid, tail, spec, who)
    if len(learned.x) < 32 or len(checked.x) < 8 or spec.length < spec.horizon:
        return None
    batch = int(np.clip(len(learned.x) // 16, 16, 128))
    settings = lstm.LstmSettings(epochs=plan.epochs, seed=plan.seed, batch=batch)
    net = lstm.fit(
        learned,
        checked,
        settings,
        lambda f, step: progress(0.7 * f, step),
        machines=len(machines),
        signals=len(signals),
    )
    progress(0.72, "exporting to ONNX")
    graph = to_onnx(net, torch.from_numpy(learned.x[:2].copy()), torch.from_numpy(learned.names()[:2].copy()))
    progress(0.9, "quantizing to int8")
    small = quantize(graph)
    run = parity.Graph(small)
    known = evaluation.known_columns(grid.inputs, grid.series, grid.start_ms, tail.origins, spec)
    rows = evaluation.input_windows(tail.values, tail.start_ms, tail.origins, spec, known)
    usable, names = rows.x[rows.usable], np.repeat(who, len(tail.origins), axis=0)[rows.usable]
    if not len(usable):
        return None
    float_answers = evaluation.window_answers(tail, spec, lambda x, w: lstm.answer(net, x, w), known, who)
    answers = evaluation.window_answers(tail, spec, run, known, who)
    middle = lstm.MIDDLE
    error, by_series, n = tail.relative_error(answers[..., middle])
    float_error = tail.relative_error(float_answers[..., middle])[0]
    cost = parity.compare(lstm.answer(net, usable, names), run(usable, names), float_error, error, lower_is_better=True)
    inputs, outputs = parity.golden_graph(run, usable, names)
    champion = _champion_error(tail, grid, list(range(len(grid.series))), course.world.champions.get(LSTM))
    covered = tail.coverage(answers[..., lstm.LEVELS.index(0.1)], answers[..., lstm.LEVELS.index(0.9)])
    strange = tail.relative_error(evaluation.window_answers(tail, spec, run, known)[..., middle])[0]
    earlier = evaluation.known_columns(grid.inputs, grid.series, grid.start_ms, course.inner.origins, spec)
    on_inner = evaluation.window_answers(course.inner, spec, lambda x, w: lstm.answer(net, x, w), earlier, who)
    draft = Draft(
        slot=LSTM,
        family="forecast",
        algorithm="lstm",
        version=course.world.versions.get(LSTM, 1),
        runtime=Runtime.ONNX,
        window=spec,
        levels=list(lstm.LEVELS),
        series=list(grid.series),
        series_error=_finite(by_series),
        machines=machines,
        signals=signals,
        graph=small,
        lineage=course.world.lineage(
            plan.seed,
            {
                **asdict(settings),
                "windows": len(learned.x),
                "exporter": "torch.onnx dynamo",
                "error_without_identity": f"{strange:.4f}",
            },
        ),
        quality=[_forecast_quality(tail, error, n, champion)],
        parity=cost,
        golden=Golden(atol=INT8_ATOL, rtol=0.0),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=len(graph),
        latency_us=parity.latency_us(lambda: run(usable[:1], names[:1])),
        intended_use="Forecasts with intervals of any signal of this site, also of new machines.",
        limits="Needs a window with few gaps; answers are clipped at 20 times the window's own spread.",
        words=f"float {float_error:.4g}, int8 {error:.4g}; {len(small) / len(graph):.0%} of the float size; "
        f"the 80 % interval held {covered:.0%} of held-out values.",
    )
    progress(1.0, "LSTM packed")
    return _Trained(draft, answers[..., middle], on_inner[..., middle])


def _with_covariates(spec: WindowSpec, grid: SignalGrid) -> WindowSpec:
    """The plan's window with the known inputs that this grid tells of often enough, each in units of its largest."""
    if spec.covariates or not grid.inputs:
        return spec
    names = worth_learning(grid.inputs)
    largest = [max(abs(float(known.value)) for known in grid.inputs if known.covariate == name) for name in names]
    return msgspec.structs.replace(spec, covariates=names, covariate_scale=[top or 1.0 for top in largest])


def _numbers(series: list[tuple[str, str]], machines: list[str], signals: list[str]) -> NDArray[np.int64]:
    """[S, 2] as Passport.who gives them."""
    pairs = [(machines.index(machine) + 1, signals.index(signal) + 1) for machine, signal in series]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _training_windows(grid: SignalGrid, tail: Tail, spec: WindowSpec, who: NDArray[np.int64]) -> tuple[Any, Any]:
    """Windows and scaled targets before the tail (server.algorithms.lstm.Lessons): to learn from, and a later part to
    stop early on, in time order. No target of the first part reaches into the second, none of the second into the
    tail."""
    last = tail.split - spec.horizon
    first, check_from = _first_and_check(tail, spec)
    if last <= first:
        return _pairs(grid, np.zeros(0, np.int64), spec, who), _pairs(grid, np.zeros(0, np.int64), spec, who)
    most = max(6000 // len(grid.series), 16)
    every = max((last - first) // most, 1)
    learn = np.arange(first, max(check_from - spec.horizon, first) + 1, every, dtype=np.int64)
    check = np.arange(check_from, last + 1, every, dtype=np.int64)
    return _pairs(grid, learn, spec, who), _pairs(grid, check, spec, who)


def _pairs(grid: SignalGrid, origins: NDArray[np.int64], spec: WindowSpec, who: NDArray[np.int64]) -> Any:
    from server.algorithms.lstm import Lessons

    if not len(origins):
        empty = np.zeros((0, spec.length, spec.channels), np.float32)
        return Lessons(empty, np.zeros((0, spec.horizon), np.float32), np.zeros((0, 2), np.int64))
    known = evaluation.known_columns(grid.inputs, grid.series, grid.start_ms, origins, spec)
    rows = evaluation.input_windows(grid.values, grid.start_ms, origins, spec, known)
    targets = np.stack([grid.values[:, at : at + spec.horizon] for at in origins], axis=1).reshape(-1, spec.horizon)
    y = np.clip((targets - rows.center[:, None]) / rows.scale[:, None], -20.0, 20.0).astype(np.float32)
    kept = rows.usable & np.isfinite(y).any(axis=1)
    in_time = np.argsort(np.tile(origins, len(grid.series))[kept], kind="stable")
    names = np.repeat(who, len(origins), axis=0)
    return Lessons(rows.x[kept][in_time], y[kept][in_time], names[kept][in_time])


def _champion_error(tail: Tail, grid: SignalGrid, kept: list[int], archive: bytes | None) -> float | None:
    """The serving model's figure on the same tail; None if there is none, or it answers another grid or
    horizon."""
    if archive is None:
        return None
    bundle = unpack(archive)
    spec = bundle.passport.window
    if spec is None or spec.step_ms != grid.step_ms or spec.horizon != tail.targets.shape[2]:
        return None
    series = [grid.series[s] for s in kept]
    if bundle.passport.runtime is Runtime.ONNX:
        middle = bundle.passport.levels.index(0.5)
        return tail.relative_error(graph_answers(tail, grid, series, bundle)[..., middle])[0]
    if bundle.passport.runtime is Runtime.RIDGE:
        return tail.relative_error(ridge_answers(tail, series, bundle)[..., 0])[0]
    return tail.relative_error(restarted_filter(tail, grid, kept, bundle)[0])[0]


def graph_answers(tail: Tail, grid: SignalGrid, series: list[tuple[str, str]], bundle: Bundle) -> Floats:
    """Quantiles [S, O, H, Q] at the passport's levels of a sealed graph."""
    passport: Passport = bundle.passport
    assert passport.window is not None  # noqa: S101 - a forecaster's graph has a window
    run = parity.Graph(bundle.graph)
    known = evaluation.known_columns(grid.inputs, series, grid.start_ms, tail.origins, passport.window)
    who = passport.who(series) if run.asks_who else None
    return evaluation.window_answers(tail, passport.window, run, known, who)


def ridge_answers(tail: Tail, series: list[tuple[str, str]], bundle: Bundle) -> Floats:
    """[S, O, H, 1 + Q]: mean, then quantiles at the passport's levels, of a sealed ridge."""
    place = {key: row for row, key in enumerate(bundle.passport.series)}
    return evaluation.table_answers(tail, Ridge(bundle.tables), [place.get(key, -1) for key in series])


def restarted_filter(tail: Tail, grid: SignalGrid, kept: list[int], bundle: Bundle) -> tuple[Floats, Floats]:
    """Means and deviations [S, O, H] of a sealed filter's parameters, walked over all the data from an unknown state:
    its own state has seen the future. NaN for series it does not hold."""
    place = {key: row for row, key in enumerate(bundle.passport.series)}
    rows = [(i, place[grid.series[s]]) for i, s in enumerate(kept) if grid.series[s] in place]
    return _walked(tail, bundle.tables, [i for i, _ in rows], [row for _, row in rows])


def _walked(tail: Tail, tables: Tables, mine: list[int], theirs: list[int]) -> tuple[Floats, Floats]:
    """Means and deviations [S, O, H] of rows `theirs` of a filter for rows `mine` of a tail, from an unknown state."""
    mean, deviation = np.full(tail.targets.shape, np.nan), np.full(tail.targets.shape, np.nan)
    if mine:
        filter_ = StateSpace({name: table[theirs] for name, table in tables.items()})
        filter_.a = np.zeros_like(filter_.a)
        filter_.p = np.tile(1e4 * np.eye(filter_.a.shape[1]), (len(mine), 1, 1))
        mean[mine], deviation[mine] = evaluation.filter_answers(tail.only(mine), filter_, 0)
    return mean, deviation


def _forecast_quality(tail: Tail, error: float, n: int, champion: float | None) -> Quality:
    name, reference = tail.reference()
    return Quality(
        metric=RELATIVE_ERROR,
        lower_is_better=True,
        model=round(error, DIGITS),
        reference=round(reference, DIGITS),
        reference_name=name,
        champion=None if champion is None else round(champion, DIGITS),
        split=tail.words(),
        n=n,
    )


def _finite(errors: Floats) -> list[float]:
    """A series that could not be measured counts as no better than the reference."""
    return [float(error) if np.isfinite(error) else 1.0 for error in errors]


def random_lstm_bundle(length: int = 48, horizon: int = 12) -> bytes:
    """A bundle of the default LSTM with random weights, exported and quantized like a trained one: for measuring what a
    gateway pays to hold it, which does not depend on the weights."""
    import torch

    from export.quantize import quantize
    from export.to_onnx import to_onnx
    from server.algorithms import lstm

    settings = lstm.LstmSettings()
    machines, signals = [f"M-{i}" for i in range(20)], [f"signal-{i}" for i in range(5)]
    net = lstm.QuantileLstm(horizon, length, settings, machines=len(machines), signals=len(signals))
    x = np.random.default_rng(settings.seed).standard_normal((4, length, len(CHANNELS))).astype(np.float32)
    who = np.ones((4, 2), dtype=np.int64)
    graph = to_onnx(net, torch.from_numpy(x[:2].copy()), torch.from_numpy(who[:2].copy()))
    small = quantize(graph)
    inputs, outputs = parity.golden_graph(parity.Graph(small), x, who)
    world = Circumstances(dataset_digest="0" * 64, dataset_rows=0, now_ms=0)
    draft = Draft(
        slot=LSTM,
        family="forecast",
        algorithm="lstm",
        version=1,
        runtime=Runtime.ONNX,
        window=WindowSpec(step_ms=60_000, length=length, horizon=horizon),
        levels=list(lstm.LEVELS),
        machines=machines,
        signals=signals,
        graph=small,
        lineage=world.lineage(settings.seed, {"weights": "random"}),
        quality=[
            Quality(metric="none", lower_is_better=True, model=1, reference=1, reference_name="none", split="none", n=0)
        ],
        parity=parity.compare(np.zeros(1), np.zeros(1), 1.0, 1.0, lower_is_better=True),
        golden=Golden(atol=INT8_ATOL, rtol=0.0),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=len(graph),
        latency_us=0.0,
        intended_use="Measuring memory.",
        limits="Random weights: its answers mean nothing, and the gate refuses it.",
    )
    return seal(draft)[0]
