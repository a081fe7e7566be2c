"""From a fleet's histories of spare-part demand to a sealed forecaster: fit, pack, measure what packing cost, measure
against the best simple reference and the champion on the newest months, which nothing was chosen on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bundle import Draft, seal
from protocol.bundles import Golden, Parity, Quality, Runtime, unpack
from protocol.demand_windows import (
    SPARE_PARTS,
    DemandAhead,
    DemandSpec,
    Floats,
    checked_history,
    demand_ahead,
    demand_windows,
    month_number,
    usual_horizon,
)
from protocol.errors import Reason, Refused
from server.algorithms import demand, intermittent
from server.training import certainty
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress
from server.training.course import ONNX_ALONE

SERVICE = 0.95
PINBALL, TOTAL_RMSE, TOTAL_BIAS = (
    "pinball_95_of_monthly_demand",
    "rmse_of_period_total",
    "absolute_bias_of_period_total",
)
INT8_ATOL = 0.1
"""In logarithms of factors: the same int8 graph rounds differently on CPUs with and without VNNI."""


@dataclass(frozen=True)
class DemandTable:
    """Histories side by side. counts [N, T]: units per month, newest last, NaN: not recorded. first_month: "2024-01", or
    "" where the calendar is unknown."""

    parts: list[str]
    first_month: str
    counts: Floats


@dataclass(frozen=True)
class DemandPlan:
    """`horizon` 0: `usual_horizon` of the months at hand; `quantize`: the form of the network's weights (`export.forms`);
    `targets`: as of a forecast's plan (`ForecastPlan`)."""

    horizon: int = 0
    settings: demand.DemandSettings = field(default_factory=demand.DemandSettings)
    quantize: str = "auto"
    targets: tuple[str, ...] = ONNX_ALONE


def train_demand(table: DemandTable, plan: DemandPlan, world: Circumstances, progress: Progress) -> Candidate:
    """One candidate for the slot `supply.demand`, fitted without the newest `horizon` months, which judge it. Raises
    Refused where the months do not suffice, BadMessage for a negative count, BadSettings where a target is asked for that
    cannot be made here."""
    import torch

    from export.bounds import FORECASTER
    from export.forms import choose
    from export.to_onnx import INPUT, to_onnx
    from export.to_tflite import lite_of_rows, recipe_of
    from export.trials import trial_of_rows

    recipe = recipe_of(plan.targets)
    history = checked_history(table.counts)
    months = history.shape[1]
    horizon = plan.horizon or usual_horizon(months)
    if months <= 2 * horizon + demand.FEWEST_ORIGIN_MONTHS:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"{months} months of demand; more than {2 * horizon + demand.FEWEST_ORIGIN_MONTHS} are needed to learn and "
            f"prove a look {horizon} months ahead: wait, or ask for a shorter horizon",
        )
    learned, held_out = history[:, :-horizon], history[:, -horizon:]
    next_month = (month_number(table.first_month) + months - horizon) % 12 if table.first_month else None
    fitted = demand.fit(learned, horizon, next_month, plan.settings, lambda f, step: progress(0.8 * f, step))
    spec = fitted.spec
    windows = demand_windows(learned, next_month or 0, spec)
    pair = torch.from_numpy(np.tile(windows.x[:1], (2, 1, 1)))
    graph = to_onnx(fitted.net, pair)
    progress(0.9, "choosing the form of its weights")
    float_answer = demand.answer(fitted.net, windows.x)
    float_loss = _loss(demand_ahead(windows, float_answer, spec), held_out)

    def cost(run: parity.Graph) -> Parity:
        answer = run(windows.x)
        loss = _loss(demand_ahead(windows, answer, spec), held_out)
        return parity.compare(float_answer, answer, float_loss, loss, lower_is_better=True)

    trial = trial_of_rows(cost, windows.x)
    choice = choose(graph, FORECASTER, trial, wanted=plan.quantize)
    run = parity.Graph(choice.graph)
    ahead = demand_ahead(windows, run(windows.x), spec)
    name, reference = _best_reference(learned, held_out)
    champion = _champion(learned, next_month, world.champions.get(SPARE_PARTS), horizon)
    inputs, outputs = parity.golden_graph(run, windows.x)
    golden = Golden(atol=INT8_ATOL, rtol=0.0)
    progress(0.95, "packing for TFLite" if recipe else "measuring")
    lite = lite_of_rows(
        fitted.net, {INPUT: pair}, recipe, lambda x: demand.answer(fitted.net, x), trial, golden, (inputs, outputs)
    )
    covered = np.mean((held_out <= ahead.month_quantile(SERVICE))[np.isfinite(held_out)])
    draft = Draft(
        slot=SPARE_PARTS,
        family="forecast",
        algorithm="demand_lstm",
        version=world.versions.get(SPARE_PARTS, 1),
        runtime=Runtime.ONNX,
        demand=spec,
        graph=choice.graph,
        forms=choice.forms,
        lineage=world.lineage(
            plan.settings.seed,
            {**asdict(plan.settings), "epochs_chosen": fitted.epochs, "parts": len(table.parts), "months": months},
        ),
        quality=_figures(ahead, reference, champion, held_out, name),
        parity=choice.parity,
        golden=golden,
        lite=lite.told,
        lite_graph=lite.content,
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=choice.float_bytes,
        latency_us=parity.latency_us(lambda: run(windows.x[:1])),
        refused=choice.refused,
        intended_use="Demand of spare parts over a lead time as a distribution of whole units, and the stock to hold.",
        limits=f"Months; at most {horizon} ahead; parts of the kind it was trained on. A part without history gets the "
        "fleet's rate.",
        words=f"{choice.words} The 95 % quantile held {covered:.0%} of held-out months."
        + (f" {lite.words}" if lite.words else ""),
        because=world.because,
    )
    progress(1.0, "demand sealed")
    return Candidate(*seal(draft))


def references(learned: Floats) -> dict[str, intermittent.Rates]:
    """The point references that a demand model stands against."""
    return {"sba": intermittent.sba(learned), "tsb": intermittent.tsb(learned)}


@dataclass(frozen=True)
class _Reference:
    """quantile [N] of one month; total [N] over the horizon."""

    quantile: Floats
    total: Floats


def _best_reference(learned: Floats, held_out: Floats) -> tuple[str, _Reference]:
    """The one with the least pinball loss among SBA, TSB and the part's own empirical quantile."""
    horizon = held_out.shape[1]
    found = {
        name: _Reference(rates.month_quantile(SERVICE), rates.rate * horizon)
        for name, rates in references(learned).items()
    }
    found["empirical_quantile"] = _Reference(
        intermittent.empirical_quantile(learned, SERVICE), intermittent.mean_rate(learned) * horizon
    )
    best = min(found, key=lambda name: demand.pinball(held_out, found[name].quantile[:, None], SERVICE))
    return best, found[best]


def _loss(ahead: DemandAhead, held_out: Floats) -> float:
    return demand.pinball(held_out, ahead.month_quantile(SERVICE), SERVICE)


def _figures(
    ahead: DemandAhead, reference: _Reference, champion: DemandAhead | None, held_out: Floats, name: str
) -> list[Quality]:
    total = ahead.total_mean[:, -1]
    intervals = _intervals(ahead, held_out)
    rows: list[tuple[str, float, float, float | None]] = [
        (
            PINBALL,
            _loss(ahead, held_out),
            demand.pinball(held_out, reference.quantile[:, None], SERVICE),
            None if champion is None else _loss(champion, held_out),
        )
    ]
    measures: list[tuple[str, Callable[[Floats, Floats], float]]] = [(TOTAL_RMSE, _rmse), (TOTAL_BIAS, _bias)]
    for metric, measure in measures:
        before = None if champion is None else measure(champion.total_mean[:, -1], held_out)
        rows.append((metric, measure(total, held_out), measure(reference.total, held_out), before))
    observed = int(np.isfinite(held_out).sum())
    return [
        Quality(
            metric=metric,
            lower_is_better=True,
            model=round(model, DIGITS),
            reference=round(simple, DIGITS),
            reference_name=name,
            champion=None if before is None else round(before, DIGITS),
            low=intervals[metric][0],
            high=intervals[metric][1],
            split=f"newest {held_out.shape[1]} months of {len(held_out)} parts, held out in time order",
            n=observed,
        )
        for metric, model, simple, before in rows
    ]


def _intervals(ahead: DemandAhead, held_out: Floats) -> dict[str, certainty.Interval]:
    """Of each figure, over parts."""
    seen = np.isfinite(held_out)
    quantile = np.broadcast_to(ahead.month_quantile(SERVICE), held_out.shape)
    under = np.where(seen, held_out, 0.0) - quantile
    loss = np.where(seen, np.maximum(SERVICE * under, (SERVICE - 1) * under), 0.0).sum(axis=1)
    actual = held_out.sum(axis=1)
    whole = np.isfinite(actual)
    told, asked = ahead.total_mean[whole, -1].astype(np.float64), actual[whole]
    return {
        PINBALL: certainty.of_sums([loss, seen.sum(axis=1)], lambda total, count: total / count),
        TOTAL_RMSE: certainty.of_sums(
            [(told - asked) ** 2, np.ones(len(asked))], lambda squares, count: np.sqrt(squares / count)
        ),
        TOTAL_BIAS: certainty.of_sums([told, asked], lambda said, came: np.abs(said / came - 1)),
    }


def _rmse(total: Floats, held_out: Floats) -> float:
    actual = held_out.sum(axis=1)
    seen = np.isfinite(actual)
    return float(np.sqrt(np.mean((total[seen] - actual[seen]) ** 2))) if seen.any() else float("nan")


def _bias(total: Floats, held_out: Floats) -> float:
    actual = held_out.sum(axis=1)
    seen = np.isfinite(actual)
    asked = float(actual[seen].sum())
    return abs(float(total[seen].sum()) / asked - 1) if asked > 0 else float("nan")


def _champion(learned: Floats, next_month: int | None, archive: bytes | None, horizon: int) -> DemandAhead | None:
    """The serving model's answers to the same histories; None if there is none, or it looks another distance ahead."""
    if archive is None:
        return None
    bundle = unpack(archive)
    spec: DemandSpec | None = bundle.passport.demand
    if spec is None or spec.horizon != horizon or (spec.calendar and next_month is None):
        return None
    windows = demand_windows(learned, next_month or 0, spec)
    answer: NDArray[np.float32] = parity.Graph(bundle.graph)(windows.x)
    return demand_ahead(windows, answer, spec)
