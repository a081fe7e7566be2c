"""From a frozen grid of signals to sealed forecasters: fit, pack, measure what packing cost, measure against the simple
reference and the champion on a tail that nothing was chosen on.

Every forecaster of a training is also measured beside the others: its passport says which of them is best for each signal
class on the tail, and what share each has in a combination whose shares come from a stretch before the tail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from export.bundle import Draft, seal
from protocol.errors import Reason, Refused
from protocol.windows import WindowSpec
from server import evaluation
from server.datasets import SignalGrid
from server.evaluation import Tail
from server.training.beside import Beside
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress
from server.training.course import ARIMA, LSTM, ONNX_ALONE, RIDGE, Course, ForecastPlan, Trained, first_and_check
from server.training.forecast_arima import train_arima
from server.training.forecast_lstm import train_lstm
from server.training.forecast_ridge import train_ridge


def train_forecast(grid: SignalGrid, plan: ForecastPlan, world: Circumstances, progress: Progress) -> list[Candidate]:
    """One candidate per forecaster that the data suffice for. Raises Refused if they suffice for none, and BadSettings where
    a target is asked for that cannot be made here: such a training is not begun."""
    if LSTM in plan.slots and plan.targets != ONNX_ALONE:
        from export.to_tflite import recipe_of  # torch, only here

        recipe_of(plan.targets)
    spec = plan.window
    needed = spec.length + 4 * spec.horizon
    if not grid.series or grid.values.shape[1] < needed:
        have = grid.values.shape[1] if grid.series else 0
        raise Refused(Reason.NOT_ELIGIBLE, f"{have} buckets of history; {needed} are needed: wait until more is shared")
    tail = evaluation.hold_out(grid.values, grid.start_ms, grid.step_ms, spec.season, spec.horizon)
    course = Course(grid, tail, _inner(grid, tail, spec), plan, world)
    progress(0.02, f"{len(grid.series)} signals, {grid.values.shape[1]} buckets")
    learners = {ARIMA: (train_arima, 0.02, 0.35), RIDGE: (train_ridge, 0.37, 0.08), LSTM: (train_lstm, 0.45, 0.5)}
    trained: list[Trained] = []
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


def _beside_one_another(course: Course, trained: list[Trained]) -> list[Draft]:
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
        first_and_check(tail, spec)[1],
    )
