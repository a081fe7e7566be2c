"""ARIMA: one fitted filter a signal, stacked into tables that stand where the data end."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bundle import Draft
from export.to_tables import stack_series
from protocol.bundles import Golden, Runtime
from protocol.tables import StateSpace, Tables
from protocol.windows import Floats
from server import evaluation
from server.algorithms import arima
from server.datasets import SignalGrid
from server.evaluation import Tail
from server.training.circumstances import Progress
from server.training.course import (
    ARIMA,
    Z80,
    Course,
    Trained,
    champion_error,
    finite,
    forecast_quality,
    walked,
    with_covariates,
)


def train_arima(course: Course, progress: Progress) -> Trained | None:
    """None where the data do not suffice."""
    grid, tail, spec = course.grid, course.tail, course.plan.window
    told = with_covariates(spec, grid).covariates
    known = evaluation.known_steps(grid.inputs, told, grid.series, tail)
    sums = _accumulating(grid, told)
    kept: list[int] = []
    fitted: list[arima.FittedArima] = []
    for s, row in enumerate(grid.values):
        beside = None if known is None else np.where(sums, np.cumsum(known.now[s], axis=0), known.now[s])
        one = arima.fit(
            row[: tail.split],
            grid.start_ms,
            grid.step_ms,
            spec.horizon,
            None if beside is None else beside[: tail.split],
        )
        if one is not None:
            kept.append(s)
            fitted.append(one)
        progress((s + 1) / len(grid.values) * 0.9, f"ARIMA {s + 1} of {len(grid.values)} signals")
    if not fitted:
        return None
    part = tail.only(kept)
    mine = None if known is None else evaluation.KnownSteps(known.now[kept], known.ahead[kept])
    tables = _arima_tables(fitted, sums, mine, part.split)
    on_inner = walked(course.inner, grid, tables, told, kept, list(range(len(kept))))[0]
    filter_ = StateSpace(tables)
    mean, deviation = evaluation.filter_answers(part, filter_, part.split, mine)
    alone = np.concatenate([_answers_alone(part, one, s, sums, mine) for s, one in enumerate(fitted)])
    error, by_series, _ = part.relative_error(mean)
    tables["state"], tables["cov"] = filter_.a, filter_.p
    if told:
        tables["total"] = filter_.total
    inputs, outputs = parity.golden_series(tables, grid.until_ms, grid.step_ms, spec.horizon)
    size = sum(int(table.nbytes) for table in tables.values())
    orders = {
        "/".join(grid.series[s]): f"{one.order} daily={one.seasonal}" for s, one in zip(kept, fitted, strict=True)
    }
    covered = part.coverage(mean - Z80 * deviation, mean + Z80 * deviation)
    champion = champion_error(part, grid, kept, course.world.champions.get(ARIMA))
    draft = Draft(
        slot=ARIMA,
        family="forecast",
        algorithm="arima",
        version=course.world.versions.get(ARIMA, 1),
        runtime=Runtime.STATE_SPACE,
        window=spec,
        series=[grid.series[s] for s in kept],
        series_until_ms=[grid.until_ms] * len(kept),
        series_error=finite(by_series),
        covariates=list(told),
        tables=tables,
        lineage=course.world.lineage(
            course.plan.seed, {"orders": json.dumps(orders, ensure_ascii=False), "harmonics": arima.HARMONICS}
        ),
        quality=[forecast_quality(part, mean, champion)],
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
    return Trained(draft, on_tail, on_inner)


def _accumulating(grid: SignalGrid, covariates: list[str]) -> NDArray[np.bool_]:
    """Which covariates are amounts that arrive at an instant [C]: their effect on a level stays."""
    spans = {known.covariate for known in grid.inputs if known.end_ms > known.start_ms}
    return np.array([name not in spans for name in covariates], dtype=bool)


def _arima_tables(
    fitted: list[arima.FittedArima], sums: NDArray[np.bool_], known: evaluation.KnownSteps | None, split: int
) -> Tables:
    """Stacked tables that stand at bucket `split`."""
    tables = stack_series([one.tables() for one in fitted])
    if known is not None:
        tables["accumulates"] = np.tile(sums.astype(np.float64), (len(fitted), 1))
        tables["total"] = known.now[:, :split].sum(axis=1)
    return tables


def _answers_alone(
    part: Tail, one: arima.FittedArima, s: int, sums: NDArray[np.bool_], known: evaluation.KnownSteps | None
) -> Floats:
    """Means [1, O, H] of one series' own tables, which the stacked ones must equal."""
    mine = None if known is None else evaluation.KnownSteps(known.now[[s]], known.ahead[[s]])
    filter_ = StateSpace(_arima_tables([one], sums, mine, part.split))
    return evaluation.filter_answers(part.only([s]), filter_, part.split, mine)[0]
