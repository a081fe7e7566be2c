"""LSTM: one network for a fleet, packed and measured as the gateway will run it."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bundle import Draft, seal
from protocol.bundles import Golden, Parity, Quality, Runtime
from protocol.windows import CHANNELS, Floats, WindowSpec
from server import evaluation
from server.datasets import SignalGrid
from server.evaluation import Tail
from server.training.circumstances import Circumstances, Progress
from server.training.course import (
    LSTM,
    Course,
    Trained,
    champion_error,
    finite,
    first_and_check,
    forecast_quality,
    with_covariates,
)

if TYPE_CHECKING:
    from server.algorithms import lstm

MOST_COMPARED = 400
"""Windows whose single answers are compared with the float ones."""
INT8_ATOL = 0.05
"""In units of the window's own scale: the same int8 graph rounds differently on CPUs with and without
VNNI."""


def train_lstm(course: Course, progress: Progress) -> Trained | None:
    """None where the data do not suffice."""
    import torch

    from export.bounds import FORECASTER
    from export.forms import choose
    from export.to_onnx import INPUT, WHO, to_onnx
    from export.to_tflite import lite_of_rows, recipe_of
    from export.trained_int8 import rounded_weights
    from export.trials import trial_of_rows
    from server.algorithms import lstm
    from server.training import forecast_smaller as smaller

    grid, tail, plan = course.grid, course.tail, course.plan
    recipe = recipe_of(plan.targets)
    spec = with_covariates(plan.window, grid)
    machines, signals = (sorted({key[side] for key in grid.series}) for side in (0, 1))
    who = _numbers(grid.series, machines, signals)
    learned, checked = training_windows(grid, tail, spec, who)
    if len(learned.x) < 32 or len(checked.x) < 8 or spec.length < spec.horizon:
        return None
    batch = int(np.clip(len(learned.x) // 16, 16, 128))
    settings = lstm.LstmSettings(
        hidden=plan.lstm.hidden,
        dropout=plan.lstm.dropout,
        weight_decay=plan.lstm.weight_decay,
        epochs=plan.epochs,
        seed=plan.seed,
        batch=batch,
    )
    earlier = evaluation.known_columns(grid.inputs, grid.series, grid.start_ms, course.inner.origins, spec)

    def before_the_tail(net: lstm.QuantileLstm) -> Floats:
        return evaluation.window_answers(course.inner, spec, lambda x, w: lstm.answer(net, x, w), earlier, who)

    lessons = smaller.Schooling(learned, checked, settings, len(machines), len(signals))
    made = smaller.schooled(
        lessons,
        plan.lstm,
        lambda net: course.inner.relative_error(before_the_tail(net)[..., lstm.MIDDLE])[0],
        lambda f, step: progress(0.7 * f, step),
    )
    net = made.net
    progress(0.72, "exporting to ONNX")
    pair = torch.from_numpy(learned.x[:2].copy()), torch.from_numpy(learned.names()[:2].copy())
    graph = to_onnx(net, *pair)
    progress(0.9, "choosing the form of its weights")
    known = evaluation.known_columns(grid.inputs, grid.series, grid.start_ms, tail.origins, spec)
    rows = evaluation.input_windows(tail.values, tail.start_ms, tail.origins, spec, known)
    usable, names = rows.x[rows.usable], np.repeat(who, len(tail.origins), axis=0)[rows.usable]
    if not len(usable):
        return None
    float_answers = evaluation.window_answers(tail, spec, lambda x, w: lstm.answer(net, x, w), known, who)
    middle = lstm.MIDDLE
    float_error = tail.relative_error(float_answers[..., middle])[0]
    some = np.unique(np.linspace(0, len(usable) - 1, min(MOST_COMPARED, len(usable))).astype(np.int64))
    exact = lstm.answer(net, usable[some], names[some])

    def cost(run: parity.Graph) -> Parity:
        error = tail.relative_error(evaluation.window_answers(tail, spec, run, known, who)[..., middle])[0]
        return parity.compare(exact, run(usable[some], names[some]), float_error, error, lower_is_better=True)

    def finetune() -> bytes:
        with rounded_weights(copy.deepcopy(net)) as rounded:
            lstm.refine(rounded, learned, checked, settings)
        return to_onnx(rounded, *pair)

    trial = trial_of_rows(cost, usable, names)
    choice = choose(graph, FORECASTER, trial, wanted=plan.quantize, finetune=finetune)
    run = parity.Graph(choice.graph)
    answers = evaluation.window_answers(tail, spec, run, known, who)
    error, by_series, _ = tail.relative_error(answers[..., middle])
    inputs, outputs = parity.golden_graph(run, usable, names)
    golden = Golden(atol=INT8_ATOL, rtol=0.0)
    progress(0.95, "packing for TFLite" if recipe else "measuring")
    lite = lite_of_rows(
        net,
        dict(zip((INPUT, WHO), pair, strict=True)),
        recipe,
        lambda x, w: lstm.answer(net, x, w),
        trial,
        golden,
        (inputs, outputs),
    )
    champion = champion_error(tail, grid, list(range(len(grid.series))), course.world.champions.get(LSTM))
    covered = tail.coverage(answers[..., lstm.LEVELS.index(0.1)], answers[..., lstm.LEVELS.index(0.9)])
    strange = tail.relative_error(evaluation.window_answers(tail, spec, run, known)[..., middle])[0]
    draft = Draft(
        slot=LSTM,
        family="forecast",
        algorithm="lstm",
        version=course.world.versions.get(LSTM, 1),
        runtime=Runtime.ONNX,
        window=spec,
        levels=list(lstm.LEVELS),
        series=list(grid.series),
        series_error=finite(by_series),
        machines=machines,
        signals=signals,
        graph=choice.graph,
        forms=choice.forms,
        lineage=course.world.lineage(
            plan.seed,
            {
                **asdict(settings),
                **made.told(),
                "windows": len(learned.x),
                "exporter": "torch.onnx dynamo",
                "error_without_identity": f"{strange:.4f}",
            },
        ),
        quality=[forecast_quality(tail, answers[..., middle], champion)],
        parity=choice.parity,
        golden=golden,
        lite=lite.told,
        lite_graph=lite.content,
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=choice.float_bytes,
        latency_us=parity.latency_us(lambda: run(usable[:1], names[:1])),
        refused=choice.refused,
        intended_use="Forecasts with intervals of any signal of this site, also of new machines.",
        limits="Needs a window with few gaps; answers are clipped at 20 times the window's own spread.",
        words=f"{made.words}{choice.words} Float {float_error:.4g}, packed {error:.4g}; "
        f"the 80 % interval held {covered:.0%} of held-out values." + (f" {lite.words}" if lite.words else ""),
    )
    progress(1.0, "LSTM packed")
    return Trained(draft, answers[..., middle], before_the_tail(net)[..., middle])


def _numbers(series: list[tuple[str, str]], machines: list[str], signals: list[str]) -> NDArray[np.int64]:
    """[S, 2] as Passport.who gives them."""
    pairs = [(machines.index(machine) + 1, signals.index(signal) + 1) for machine, signal in series]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def training_windows(grid: SignalGrid, tail: Tail, spec: WindowSpec, who: NDArray[np.int64]) -> tuple[Any, Any]:
    """Windows and scaled targets before the tail (server.algorithms.lstm.Lessons): to learn from, and a later part to
    stop early on, in time order. No target of the first part reaches into the second, none of the second into the
    tail."""
    last = tail.split - spec.horizon
    first, check_from = first_and_check(tail, spec)
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


def random_lstm_bundle(length: int = 48, horizon: int = 12) -> bytes:
    """A bundle of the default LSTM with random weights, exported and quantized like a trained one: for measuring what a
    gateway pays to hold it, which does not depend on the weights."""
    import torch

    from export.compact import bare
    from export.quantize import quantize
    from export.to_onnx import to_onnx
    from server.algorithms import lstm

    settings = lstm.LstmSettings()
    machines, signals = [f"M-{i}" for i in range(20)], [f"signal-{i}" for i in range(5)]
    net = lstm.QuantileLstm(horizon, length, settings, machines=len(machines), signals=len(signals))
    x = np.random.default_rng(settings.seed).standard_normal((4, length, len(CHANNELS))).astype(np.float32)
    who = np.ones((4, 2), dtype=np.int64)
    graph = to_onnx(net, torch.from_numpy(x[:2].copy()), torch.from_numpy(who[:2].copy()))
    small = bare(quantize(graph))
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
