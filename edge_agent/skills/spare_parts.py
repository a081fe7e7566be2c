"""How many of each spare part will be asked for over a lead time, how many to hold, and which past months say so. No I/O.

Until a model comes, a smoothed rate that leans on the rate of the parts at hand answers, with a wide distribution. A part
without history gets the fleet's rate. Months that were not recorded are not zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.runtimes import LoadedModel
from protocol.demand_windows import (
    ANSWERS,
    CLASSES,
    SPARE_PARTS,
    DemandAhead,
    DemandSpec,
    Floats,
    checked_history,
    demand_ahead,
    demand_windows,
    month_name,
    month_number,
    month_start_ms,
)
from protocol.errors import BadMessage, Reason
from protocol.fleet_demand import fleet_demand
from protocol.names import plant_name, stable_id
from protocol.parts_demand import MonthsDemand
from protocol.reports import Contribution, DemandForecast, ModelRef

SMOOTHED = ModelRef(SPARE_PARTS, "smoothed_rate")
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
EXPLAINED_MONTHS = 24
STALE_AFTER_MS = 62 * 86_400_000
_LONGEST = 12


@dataclass(frozen=True)
class PartHistory:
    """Units asked for per month from `first_month` ("2024-01") on, oldest first; None or NaN: not recorded. An empty
    history is a new part, whose forecast begins in `first_month`."""

    part: str
    first_month: str
    units: Sequence[float | None]
    machine: str = "*"
    unit: str = ""


@dataclass(frozen=True)
class Wish:
    """What is asked: the lead time in months, the share of lead times in which stock must suffice, and the quantiles to
    show."""

    lead_months: int
    service_level: float = 0.95
    levels: tuple[float, ...] = LEVELS
    explain: bool = True


def forecast_demand(
    parts: Sequence[PartHistory], model: LoadedModel | None, wish: Wish, now_ms: int
) -> list[DemandForecast]:
    """One report a part, in the order given. Raises BadMessage for a negative count, a lead time beyond the model's
    horizon, or a level outside of (0, 1); BadName for a part that cannot be named."""
    for one in parts:
        plant_name(one.part, "part")
    if not parts:
        return []
    table = _stacked(parts)
    spec = model.passport.demand if model is not None else None
    if model is None or spec is None:
        model, spec = None, _without_model(table)
    if not 1 <= wish.lead_months <= spec.horizon:
        raise BadMessage(
            Reason.WRONG_TYPE,
            f"lead time of {wish.lead_months} months; this model looks 1 to {spec.horizon} months ahead: "
            "order in shorter steps or train with a longer horizon",
        )
    next_month = np.array([month_number(one.first_month) + len(one.units) for one in parts])
    ahead = _asked(table, next_month, model, spec)
    column = wish.lead_months - 1
    quantiles = np.stack([ahead.total_quantile(level)[:, column] for level in wish.levels], axis=1)
    enough = ahead.total_quantile(wish.service_level)[:, column]
    none = ahead.chance_of_none()[:, column]
    windows = demand_windows(table, next_month % 12, spec)
    reports: list[DemandForecast] = []
    for row, one in enumerate(parts):
        baseline, contributions = _because(table[row], int(next_month[row]), model, spec, wish)
        until_ms = _recorded_until_ms(table[row], int(next_month[row]))
        reports.append(
            DemandForecast(
                id=stable_id(
                    "demand", one.part, one.machine, month_name(int(next_month[row])), wish.lead_months, now_ms
                ),
                part=one.part,
                machine=one.machine,
                unit=one.unit,
                issued_ms=now_ms,
                inputs_until_ms=until_ms,
                stale=now_ms - until_ms > STALE_AFTER_MS,
                first_month=month_name(int(next_month[row])),
                known_months=int(windows.known[row]),
                pattern=CLASSES[windows.kind[row]],
                month_mean=[float(mean) for mean in ahead.month_mean[row, : wish.lead_months]],
                expected=float(ahead.total_mean[row, column]),
                levels=list(wish.levels),
                quantiles=[int(units) for units in quantiles[row]],
                none_probability=float(none[row]),
                service_level=wish.service_level,
                order_up_to=int(enough[row]),
                baseline=baseline,
                contributions=contributions,
                model=SMOOTHED if model is None else model.ref,
            )
        )
    return reports


def months_demand(parts: Sequence[PartHistory], model: LoadedModel | None) -> list[MonthsDemand]:
    """Demand of the first 1..horizon months together as a distribution, one a part, in the order given: the model's; without
    one, what the months of all the parts here say (`protocol.fleet_demand`). Raises as `forecast_demand`."""
    for one in parts:
        plant_name(one.part, "part")
    if not parts:
        return []
    table = _stacked(parts)
    spec = model.passport.demand if model is not None else None
    if model is None or spec is None:
        return fleet_demand(table, _LONGEST)
    next_month = np.array([month_number(one.first_month) + len(one.units) for one in parts])
    ahead = _asked(table, next_month, model, spec)
    return [
        MonthsDemand(np.ones(1), ahead.total_mean[i : i + 1], ahead.total_size[i : i + 1]) for i in range(len(parts))
    ]


def _stacked(parts: Sequence[PartHistory]) -> Floats:
    """Histories side by side, the newest month last: [N, T], NaN before a part's first month."""
    table = np.full((len(parts), max(len(one.units) for one in parts)), np.nan)
    for row, one in enumerate(parts):
        if len(one.units):
            table[row, -len(one.units) :] = [np.nan if units is None else units for units in one.units]
    return checked_history(table)


def _without_model(table: Floats) -> DemandSpec:
    seen = table[np.isfinite(table)]
    return DemandSpec(
        length=2,
        horizon=_LONGEST,
        discount=0.9,
        prior_months=1.0,
        prior_rate=max(float(seen.mean()), 0.01) if len(seen) else 0.01,
        month_size=[1.0] * _LONGEST,
        total_size=[1.0] * _LONGEST,
    )


def _asked(table: Floats, next_month: NDArray[np.int64], model: LoadedModel | None, spec: DemandSpec) -> DemandAhead:
    windows = demand_windows(table, next_month % 12, spec)
    if model is None:
        silent = np.zeros((len(table), spec.horizon, len(ANSWERS)))
        return demand_ahead(windows, silent, spec)
    return demand_ahead(windows, model.quantiles(windows.x), spec)


def _because(
    history: Floats, next_month: int, model: LoadedModel | None, spec: DemandSpec, wish: Wish
) -> tuple[float, list[Contribution]]:
    """(expectation without history, what each month changed). The history is taken away month by month, oldest first;
    what one month takes with it is its contribution, so that the sum is exact. Months before the newest
    EXPLAINED_MONTHS go together; months that were not recorded have none."""
    recorded = np.flatnonzero(np.isfinite(history))
    single = [int(at) for at in recorded if at >= len(history) - EXPLAINED_MONTHS]
    older = [int(at) for at in recorded if at < len(history) - EXPLAINED_MONTHS]
    cuts = [*older[:1], *single, len(history)] if wish.explain else [len(history)]
    suffixes = np.tile(history, (len(cuts), 1))
    suffixes[np.arange(len(history))[None, :] < np.asarray(cuts)[:, None]] = np.nan
    expected = _asked(suffixes, np.full(len(cuts), next_month), model, spec).total_mean[:, wish.lead_months - 1]
    baseline = float(expected[-1])
    if not wish.explain:
        return baseline, []
    first = next_month - len(history)
    names = ["month:earlier"] * bool(older) + [f"month:{month_name(first + at)}" for at in single]
    amounts = expected[:-1] - expected[1:]
    return baseline, [Contribution(name, float(amount)) for name, amount in zip(names, amounts, strict=True)]


def _recorded_until_ms(history: Floats, next_month: int) -> int:
    recorded = np.flatnonzero(np.isfinite(history))
    months_back = len(history) - 1 - int(recorded[-1]) if len(recorded) else len(history)
    return month_start_ms(next_month - months_back)
