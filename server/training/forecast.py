"""From a frozen grid of signals to sealed forecasters: fit, pack, measure what packing cost, measure against the simple
reference and the champion on a tail that nothing was chosen on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bundle import Draft, seal
from export.to_tables import stack_series
from protocol.bundles import Bundle, Golden, Quality, Runtime, unpack
from protocol.errors import Reason, Refused
from protocol.tables import StateSpace
from protocol.windows import Floats, WindowSpec
from server import evaluation
from server.algorithms import arima
from server.datasets import SignalGrid
from server.evaluation import Tail
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress

ARIMA, LSTM = "forecast.arima", "forecast.lstm"
FORECAST_SLOTS = (ARIMA, LSTM)
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


def train_forecast(grid: SignalGrid, plan: ForecastPlan, world: Circumstances, progress: Progress) -> list[Candidate]:
    """One candidate per forecaster that the data suffice for. Raises Refused if they suffice for none."""
    spec = plan.window
    needed = spec.length + 4 * spec.horizon
    if not grid.series or grid.values.shape[1] < needed:
        have = grid.values.shape[1] if grid.series else 0
        raise Refused(Reason.NOT_ELIGIBLE, f"{have} buckets of history; {needed} are needed: wait until more is shared")
    tail = evaluation.hold_out(grid.values, grid.start_ms, grid.step_ms, spec.season, spec.horizon)
    progress(0.02, f"{len(grid.series)} signals, {grid.values.shape[1]} buckets")
    candidates: list[Candidate | None] = []
    if ARIMA in plan.slots:
        candidates.append(_train_arima(grid, tail, plan, world, lambda f, step: progress(0.02 + 0.38 * f, step)))
    if LSTM in plan.slots:
        candidates.append(_train_lstm(grid, tail, plan, world, lambda f, step: progress(0.4 + 0.6 * f, step)))
    found = [candidate for candidate in candidates if candidate is not None]
    if not found:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            "every signal has too many gaps to learn from: check the gateways' plant links",
        )
    return found


def _train_arima(
    grid: SignalGrid, tail: Tail, plan: ForecastPlan, world: Circumstances, progress: Progress
) -> Candidate | None:
    spec = plan.window
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
    part = replace(
        tail,
        values=tail.values[kept],
        targets=tail.targets[kept],
        naive=tail.naive[kept],
        yard=tail.yard[kept],
    )
    tables = stack_series([one.tables() for one in fitted])
    filter_ = StateSpace(tables)
    mean, deviation = evaluation.filter_answers(part, filter_, part.split)
    alone = np.concatenate(
        [
            evaluation.filter_answers(_single(part, s), StateSpace(one.tables()), part.split)[0]
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
        version=world.versions.get(ARIMA, 1),
        runtime=Runtime.STATE_SPACE,
        window=spec,
        series=[grid.series[s] for s in kept],
        series_until_ms=[grid.until_ms] * len(kept),
        series_error=_finite(by_series),
        tables=tables,
        lineage=world.lineage(
            plan.seed, {"orders": json.dumps(orders, ensure_ascii=False), "harmonics": arima.HARMONICS}
        ),
        quality=[_forecast_quality(part, error, n, _champion_error(part, grid, kept, world.champions.get(ARIMA)))],
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
        because=world.because,
    )
    progress(1.0, "ARIMA sealed")
    return Candidate(*seal(draft))


def _train_lstm(
    grid: SignalGrid, tail: Tail, plan: ForecastPlan, world: Circumstances, progress: Progress
) -> Candidate | None:
    import torch

    from export.quantize import quantize
    from export.to_onnx import to_onnx
    from server.algorithms import lstm

    spec = plan.window
    learned, checked = _training_windows(grid, tail, spec)
    if len(learned[0]) < 32 or len(checked[0]) < 8:
        return None
    batch = int(np.clip(len(learned[0]) // 16, 16, 128))
    settings = lstm.LstmSettings(epochs=plan.epochs, seed=plan.seed, batch=batch)
    net = lstm.fit(learned, checked, settings, lambda f, step: progress(0.7 * f, step))
    progress(0.72, "exporting to ONNX")
    graph = to_onnx(net, torch.from_numpy(learned[0][:2].copy()))
    progress(0.9, "quantizing to int8")
    small = quantize(graph)
    run = parity.Graph(small)
    rows = evaluation.input_windows(tail.values, tail.start_ms, tail.origins, spec)
    usable = rows.x[rows.usable]
    if not len(usable):
        return None
    float_answers = evaluation.window_answers(tail, spec, lambda x: lstm.answer(net, x))
    answers = evaluation.window_answers(tail, spec, run)
    error, by_series, n = tail.relative_error(answers[..., 1])
    float_error = tail.relative_error(float_answers[..., 1])[0]
    cost = parity.compare(lstm.answer(net, usable), run(usable), float_error, error, lower_is_better=True)
    inputs, outputs = parity.golden_graph(run, usable)
    champion = _champion_error(tail, grid, list(range(len(grid.series))), world.champions.get(LSTM))
    covered = tail.coverage(answers[..., 0], answers[..., 2])
    draft = Draft(
        slot=LSTM,
        family="forecast",
        algorithm="lstm",
        version=world.versions.get(LSTM, 1),
        runtime=Runtime.ONNX,
        window=spec,
        levels=list(lstm.LEVELS),
        series=list(grid.series),
        series_error=_finite(by_series),
        graph=small,
        lineage=world.lineage(
            plan.seed, {**asdict(settings), "windows": len(learned[0]), "exporter": "torch.onnx dynamo"}
        ),
        quality=[_forecast_quality(tail, error, n, champion)],
        parity=cost,
        golden=Golden(atol=INT8_ATOL, rtol=0.0),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=len(graph),
        latency_us=parity.latency_us(lambda: run(usable[:1])),
        intended_use="Forecasts with intervals of any signal of this site, also of new machines.",
        limits="Needs a window with few gaps; answers are clipped at 20 times the window's own spread.",
        words=f"float {float_error:.4g}, int8 {error:.4g}; {len(small) / len(graph):.0%} of the float size; "
        f"the 80 % interval held {covered:.0%} of held-out values.",
        because=world.because,
    )
    progress(1.0, "LSTM sealed")
    return Candidate(*seal(draft))


def _training_windows(
    grid: SignalGrid, tail: Tail, spec: WindowSpec
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Windows and scaled targets before the tail: to learn from, and a later part to stop early on, in time
    order. No target of the first part reaches into the second, none of the second into the tail."""
    last = tail.split - spec.horizon
    first = spec.context if last - spec.context >= spec.season else spec.length
    if last <= first:
        empty = (np.zeros((0, spec.length, 5), np.float32), np.zeros((0, spec.horizon), np.float32))
        return empty, empty
    check_from = last - max((last - first) // 6, 4)
    most = max(6000 // len(grid.series), 16)
    every = max((last - first) // most, 1)
    learn = np.arange(first, max(check_from - spec.horizon, first) + 1, every, dtype=np.int64)
    check = np.arange(check_from, last + 1, every, dtype=np.int64)
    return _pairs(grid, learn, spec), _pairs(grid, check, spec)


def _pairs(
    grid: SignalGrid, origins: NDArray[np.int64], spec: WindowSpec
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows = evaluation.input_windows(grid.values, grid.start_ms, origins, spec)
    targets = np.stack([grid.values[:, at : at + spec.horizon] for at in origins], axis=1).reshape(-1, spec.horizon)
    y = np.clip((targets - rows.center[:, None]) / rows.scale[:, None], -20.0, 20.0).astype(np.float32)
    kept = rows.usable & np.isfinite(y).any(axis=1)
    in_time = np.argsort(np.tile(origins, len(grid.series))[kept], kind="stable")
    return rows.x[kept][in_time], y[kept][in_time]


def _champion_error(tail: Tail, grid: SignalGrid, kept: list[int], archive: bytes | None) -> float | None:
    """The serving model's figure on the same tail; None if there is none, or it answers another grid or
    horizon."""
    if archive is None:
        return None
    bundle = unpack(archive)
    spec = bundle.passport.window
    if spec is None or spec.step_ms != grid.step_ms or spec.horizon != tail.targets.shape[2]:
        return None
    if bundle.passport.runtime is Runtime.ONNX:
        middle = bundle.passport.levels.index(0.5)
        return tail.relative_error(evaluation.window_answers(tail, spec, parity.Graph(bundle.graph))[..., middle])[0]
    return tail.relative_error(restarted_filter(tail, grid, kept, bundle)[0])[0]


def restarted_filter(tail: Tail, grid: SignalGrid, kept: list[int], bundle: Bundle) -> tuple[Floats, Floats]:
    """Means and deviations [S, O, H] of a sealed filter's parameters, walked over all the data from an unknown
    state: its own state has seen the future. NaN for series it does not hold."""
    place = {key: row for row, key in enumerate(bundle.passport.series)}
    rows = [(i, place[grid.series[s]]) for i, s in enumerate(kept) if grid.series[s] in place]
    answers, deviations = np.full(tail.targets.shape, np.nan), np.full(tail.targets.shape, np.nan)
    if rows:
        mine, theirs = [i for i, _ in rows], [row for _, row in rows]
        filter_ = StateSpace({name: table[theirs] for name, table in bundle.tables.items()})
        filter_.a = np.zeros_like(filter_.a)
        filter_.p = np.tile(1e4 * np.eye(filter_.a.shape[1]), (len(rows), 1, 1))
        part = replace(
            tail,
            values=tail.values[mine],
            targets=tail.targets[mine],
            naive=tail.naive[mine],
            yard=tail.yard[mine],
        )
        answers[mine], deviations[mine] = evaluation.filter_answers(part, filter_, 0)
    return answers, deviations


def _forecast_quality(tail: Tail, error: float, n: int, champion: float | None) -> Quality:
    return Quality(
        metric=RELATIVE_ERROR,
        lower_is_better=True,
        model=round(error, DIGITS),
        reference=round(tail.relative_error(tail.naive)[0], DIGITS),
        reference_name="seasonal_naive",
        champion=None if champion is None else round(champion, DIGITS),
        split=tail.words(),
        n=n,
    )


def _single(tail: Tail, s: int) -> Tail:
    row = slice(s, s + 1)
    return replace(tail, values=tail.values[row], targets=tail.targets[row], naive=tail.naive[row], yard=tail.yard[row])


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
    net = lstm.QuantileLstm(horizon, settings.hidden, settings.layers, settings.dropout)
    x = np.random.default_rng(settings.seed).standard_normal((4, length, 5)).astype(np.float32)
    graph = to_onnx(net, torch.from_numpy(x[:2].copy()))
    small = quantize(graph)
    inputs, outputs = parity.golden_graph(parity.Graph(small), x)
    world = Circumstances(dataset_digest="0" * 64, dataset_rows=0, now_ms=0)
    draft = Draft(
        slot=LSTM,
        family="forecast",
        algorithm="lstm",
        version=1,
        runtime=Runtime.ONNX,
        window=WindowSpec(step_ms=60_000, length=length, horizon=horizon),
        levels=list(lstm.LEVELS),
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
