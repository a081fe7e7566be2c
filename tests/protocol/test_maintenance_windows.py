"""A window of maintenance follows from the risk of a failure, and its cost is told."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from protocol.errors import Refused
from protocol.maintenance_windows import (
    HOUR_MS,
    Costs,
    Hazard,
    by_fault,
    by_life,
    conflicts,
    fault_hazard,
    life_hazard,
    window_costs,
    worth_until,
)
from protocol.reports import FaultRisk, ModelRef, RemainingLife
from protocol.schedules import Choice, Maintenance, Operation, Placed, PlacedMaintenance, Schedule, Shop, ShopJob

LIFE = RemainingLife(
    id="l",
    machine="M7",
    unit="h",
    issued_ms=1_000_000,
    inputs_until_ms=1_000_000,
    age=0.0,
    cap=500.0,
    median=50.0,
    low=10.0,
    high=90.0,
    levels=[0.1, 0.5, 0.9],
    quantiles=[10.0, 50.0, 90.0],
    expected=50.0,
    usual=50.0,
    model=ModelRef("remaining_life", "test"),
)
RISK = FaultRisk(
    id="f",
    machine="M7",
    component="bearing",
    issued_ms=0,
    horizon_ms=48 * HOUR_MS,
    probability=0.4,
    score=0.0,
    expected_score=0.0,
    model=ModelRef("fault_risk", "test"),
)


def life(**changes: Any) -> Maintenance | None:
    more: dict[str, Any] = {"duration_ms": HOUR_MS, "from_ms": 1_000_000, "until_ms": 1_000_000 + 100 * HOUR_MS}
    return by_life(LIFE, **(more | changes))


def test_maintenance_begins_before_the_allowed_chance_is_reached() -> None:
    made = life(p_allowed=0.1)
    assert made is not None
    assert made.latest_ms == 1_000_000 + 10 * HOUR_MS
    later = life(p_allowed=0.3)
    assert later is not None
    assert later.latest_ms == 1_000_000 + 30 * HOUR_MS
    assert life_hazard(LIFE).by(later.latest_ms) == pytest.approx(0.3)
    assert made.risk == sorted(made.risk)
    assert "median" in made.because


def test_a_machine_that_lasts_needs_no_window_in_this_plan() -> None:
    assert life(p_allowed=0.1, until_ms=1_000_000 + 9 * HOUR_MS) is None
    assert by_fault(RISK, duration_ms=1, from_ms=0, until_ms=90 * HOUR_MS, p_allowed=0.5) is None


def test_a_risk_that_is_too_high_already_is_done_first() -> None:
    made = life(p_allowed=0.1, from_ms=1_000_000 + 40 * HOUR_MS)
    assert made is not None
    assert made.latest_ms == made.earliest_ms + made.duration_ms
    assert "overdue" in made.because


def test_a_life_in_cycles_is_refused_with_the_remedy() -> None:
    with pytest.raises(Refused, match="hours"):
        life_hazard(msgspec.structs.replace(LIFE, unit="cycles"))


def test_quantiles_beyond_the_cap_say_nothing() -> None:
    capped = msgspec.structs.replace(LIFE, cap=60.0)
    assert life_hazard(capped).chances[-1] == 0.5


def test_a_fault_risk_reaches_its_probability_at_its_horizon() -> None:
    hazard = fault_hazard(RISK)
    assert hazard.by(48 * HOUR_MS) == pytest.approx(0.4)
    assert hazard.by(hazard.reaches(0.1)) == pytest.approx(0.1)
    late = fault_hazard(msgspec.structs.replace(RISK, expected_ms=40 * HOUR_MS))
    assert late.by(20 * HOUR_MS) < hazard.by(20 * HOUR_MS)
    assert fault_hazard(msgspec.structs.replace(RISK, probability=0.0)).reaches(0.1) == math.inf


def test_age_replacement_finds_the_cheapest_age() -> None:
    scale, shape = 100 * HOUR_MS, 3.0
    times = [scale * 3 * i // 300 for i in range(301)]
    hazard = Hazard(times, [1 - math.exp(-((t / scale) ** shape)) for t in times])
    # Weibull, shape 3, cost ratio 10: the best age is 0.383 of the scale (solved from h(t) * used(t) - F(t) = 1 / 9)
    found = worth_until(hazard, Costs(failure=10.0, planned=1.0), 0, times[-1])
    assert found / scale == pytest.approx(0.383, abs=0.02)
    assert worth_until(hazard, Costs(failure=1.0, planned=1.0), 0, scale) == math.inf
    with pytest.raises(Refused, match="failure"):
        worth_until(hazard, Costs(failure=1.0, planned=2.0), 0, times[-1])


def test_the_earlier_of_both_rules_counts() -> None:
    cheap = life(p_allowed=0.6, costs=Costs(failure=50.0, planned=1.0))
    assert cheap is not None
    assert cheap.latest_ms < 1_000_000 + 60 * HOUR_MS
    assert "cheaper" in cheap.because


@pytest.mark.parametrize("chance", [0.0, 1.0, float("nan"), -1.0])
def test_a_chance_that_is_none_is_refused(chance: float) -> None:
    with pytest.raises(Refused, match="p_allowed"):
        life(p_allowed=chance)


def test_windows_of_one_machine_give_way_to_the_more_urgent() -> None:
    first = Maintenance(id="a", machine="M", duration_ms=5, earliest_ms=0, latest_ms=1)
    second = Maintenance(id="b", machine="M", duration_ms=5, earliest_ms=0, latest_ms=2)
    assert [m.latest_ms for m in conflicts([second, first])] == [1, 5]


def test_a_window_costs_what_the_plan_would_gain_without_it() -> None:
    job = ShopJob(job="a", operations=[Operation(choices=[Choice("M", 6)])])
    window = Maintenance(
        id="u", machine="M", duration_ms=4, earliest_ms=0, latest_ms=0, risk_at_ms=[0, 10], risk=[0.2, 0.4]
    )
    shop = Shop(jobs=[job], maintenance=[window])
    plan = Schedule(
        id="s",
        issued_ms=0,
        start_ms=0,
        end_ms=10,
        placed=[Placed(job="a", operation=0, machine="M", start_ms=4, end_ms=10)],
        maintenance=[PlacedMaintenance(id="u", machine="M", start_ms=0, end_ms=4)],
        solver=ModelRef("schedule", "test"),
    )
    (kept,) = window_costs(shop, plan)
    assert (kept.cost_ms, kept.risk_before) == (4, pytest.approx(0.2))
    asked: list[Shop] = []

    def solver(without: Shop) -> Schedule:
        asked.append(without)
        return msgspec.structs.replace(plan, end_ms=7, maintenance=[])

    (anew,) = window_costs(shop, plan, solver)
    assert anew.cost_ms == 3
    assert asked[0].maintenance == []
