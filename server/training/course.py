"""What every forecaster's training shares: one course over a grid, a tail that nothing is chosen on, the figures against the
simple reference, and what a sealed forecaster answers on a tail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np

from export import parity
from export.bundle import Draft
from protocol.bundles import Bundle, Passport, Quality, Runtime, unpack
from protocol.covariates import worth_learning
from protocol.tables import Ridge, StateSpace, Tables
from protocol.windows import Floats, WindowSpec
from server import evaluation
from server.datasets import SignalGrid
from server.evaluation import Tail
from server.training import certainty
from server.training.circumstances import DIGITS, Circumstances

ARIMA, LSTM, RIDGE = "forecast.arima", "forecast.lstm", "forecast.ridge"
FORECAST_SLOTS = (ARIMA, LSTM, RIDGE)
RELATIVE_ERROR = "mae_relative_to_naive"
WORTH_PRUNING = 0.01
"""Share of its error that a network may lose by pruning, where nobody asked for one size."""
SIZES = "sizes"
"""Where in a passport's lineage the curve of a pruning is kept (JSON, a list of `Size`)."""
Z80 = 1.2815515655446004
ONNX_ALONE = ("onnx",)
"""The usual targets of a training."""


@dataclass(frozen=True)
class LstmPlan:
    """The network's size and regularization. teacher: hidden units of a larger network that is trained first, teaches this
    one and is thrown away (0: none). prune: shares of the hidden units to take out, one after the other: of several the
    largest is kept whose error before the tail is at most WORTH_PRUNING worse than that of the whole network
    (`server.training.forecast_smaller`). prune_of: "units" makes matrices smaller, "weights" sets single ones to zero."""

    hidden: int = 64
    dropout: float = 0.1
    weight_decay: float = 1e-3
    teacher: int = 0
    prune: tuple[float, ...] = ()
    prune_of: Literal["units", "weights"] = "units"


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """One network of a curve. share: taken out; parameters: that are not zero; error: relative to the simple reference's,
    before the tail."""

    share: float
    hidden: int
    parameters: int
    error: float


@dataclass(frozen=True)
class ForecastPlan:
    """What the forecasters of a site look at and answer. slots: which of them to train. quantize: the form of a network's
    weights (`export.forms`). targets: with "tflite" or "tflite-dyn8" among them a TFLite file lies beside the graph
    (`export.to_tflite`)."""

    window: WindowSpec
    epochs: int = 12
    seed: int = 7
    slots: tuple[str, ...] = FORECAST_SLOTS
    quantize: str = "auto"
    lstm: LstmPlan = LstmPlan()
    targets: tuple[str, ...] = ONNX_ALONE


@dataclass(frozen=True)
class Course:
    """One training: the data, the tail that nothing may be chosen on, and the inner stretch before it, on which the
    shares of a combination are chosen. `inner.split` is also where the learners' own checking begins."""

    grid: SignalGrid
    tail: Tail
    inner: Tail
    plan: ForecastPlan
    world: Circumstances


@dataclass(frozen=True)
class Trained:
    """A draft with its means on the tail and on the inner stretch, [S, O, H] of all series (NaN: no answer)."""

    draft: Draft
    on_tail: Floats
    on_inner: Floats


def first_and_check(tail: Tail, spec: WindowSpec) -> tuple[int, int]:
    """First origins before the tail to learn from and to check on."""
    last = tail.split - spec.horizon
    first = spec.context if last - spec.context >= spec.season else spec.length
    first = min(first, last)
    return first, last - min(max((last - first) // 6, 4), last)


def with_covariates(spec: WindowSpec, grid: SignalGrid) -> WindowSpec:
    """The plan's window with the known inputs that this grid tells of often enough, each in units of its largest."""
    if spec.covariates or not grid.inputs:
        return spec
    names = worth_learning(grid.inputs)
    largest = [max(abs(float(known.value)) for known in grid.inputs if known.covariate == name) for name in names]
    return msgspec.structs.replace(spec, covariates=names, covariate_scale=[top or 1.0 for top in largest])


def champion_error(tail: Tail, grid: SignalGrid, kept: list[int], archive: bytes | None) -> float | None:
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
    mine = replace(grid, series=[grid.series[s] for s in kept])
    return walked(tail, mine, bundle.tables, bundle.passport.covariates, [i for i, _ in rows], [row for _, row in rows])


def walked(
    tail: Tail, grid: SignalGrid, tables: Tables, covariates: list[str], mine: list[int], theirs: list[int]
) -> tuple[Floats, Floats]:
    """Means and deviations [S, O, H] of rows `theirs` of a filter for rows `mine` of a tail (and of the grid's series), from
    an unknown state."""
    mean, deviation = np.full(tail.targets.shape, np.nan), np.full(tail.targets.shape, np.nan)
    if mine:
        part = tail.only(mine)
        known = evaluation.known_steps(grid.inputs, covariates, [grid.series[s] for s in mine], part)
        filter_ = StateSpace({name: table[theirs] for name, table in tables.items()})
        filter_.a = np.zeros_like(filter_.a)
        filter_.p = np.tile(1e4 * np.eye(filter_.a.shape[1]), (len(mine), 1, 1))
        filter_.total = np.zeros_like(filter_.total)
        mean[mine], deviation[mine] = evaluation.filter_answers(part, filter_, 0, known)
    return mean, deviation


def forecast_quality(tail: Tail, answers: Floats, champion: float | None) -> Quality:
    """The figure that the gate looks at: error of answers [S, O, H] over the naive forecast\'s, beside the better simple
    reference\'s."""
    name, reference = tail.reference()
    error, _, n = tail.relative_error(answers)
    low, high = certainty.of_forecasts(tail, answers)
    return Quality(
        metric=RELATIVE_ERROR,
        lower_is_better=True,
        model=round(error, DIGITS),
        reference=round(reference, DIGITS),
        reference_name=name,
        champion=None if champion is None else round(champion, DIGITS),
        low=low,
        high=high,
        split=tail.words(),
        n=n,
    )


def finite(errors: Floats) -> list[float]:
    """A series that could not be measured counts as no better than the reference."""
    return [float(error) if np.isfinite(error) else 1.0 for error in errors]
