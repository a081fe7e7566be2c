"""Demand until the next order could arrive: a distribution whose parts add up, and in which no failure counts twice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.catalogue import BillLine, Supplier
from protocol.errors import BadMessage
from protocol.fleet_demand import fleet_demand
from protocol.parts_demand import (
    DAY_MS,
    MONTH_DAYS,
    LeadTime,
    MonthsDemand,
    Pmf,
    cover_demand,
    failure_outlooks,
    lead_from_deliveries,
    lead_time,
    log_gamma,
    mixed,
    newsvendor,
    risk_demand,
)
from protocol.reports import FaultRisk, ModelRef, RemainingLife

NOW = 1_800_000_000_000
MODEL = ModelRef("supply.demand", "made_up")
QUIET = MonthsDemand(np.ones(1), np.array([[1e-9]]), np.array([[1.0]]))
A_MONTH = LeadTime(np.array([MONTH_DAYS]), np.ones(1))


def steady(rate: float, size: float = 2.0, months: int = 12) -> MonthsDemand:
    """Independent months of this rate."""
    count = np.arange(1, months + 1)
    return MonthsDemand(np.ones(1), rate * count[None, :], size * count[None, :])


def risk(
    machine: str, probability: float, days: float = 30.0, *, component: str = "bearing", usual: float | None = None
) -> FaultRisk:
    base = -700.0 if usual is None else math.log(usual / (1 - usual))
    return FaultRisk(
        id=f"risk {machine} {component}",
        machine=machine,
        component=component,
        issued_ms=NOW,
        horizon_ms=round(days * DAY_MS),
        probability=probability,
        score=0.0,
        expected_score=base,
        model=MODEL,
    )


def life(machine: str, hours: list[float], levels: list[float], usual: float = 1e6, unit: str = "h") -> RemainingLife:
    return RemainingLife(
        id=f"life {machine}",
        machine=machine,
        machine_type="pump",
        unit=unit,
        issued_ms=NOW,
        inputs_until_ms=NOW,
        age=1.0,
        cap=1e5,
        median=hours[0],
        low=0.0,
        high=1e5,
        levels=levels,
        quantiles=hours,
        expected=hours[0],
        usual=usual,
        model=MODEL,
    )


def test_newsvendor_level_of_a_normal_demand_agrees_with_stockpyls() -> None:
    # stockpyl: newsvendor_normal(holding_cost=2, stockout_cost=18, demand_mean=120, demand_sd=10) -> 132.8155
    units = np.arange(200_000)
    chances = np.exp(-0.5 * ((units - 120_000) / 10_000) ** 2)
    assert newsvendor(Pmf(chances / chances.sum()), 2, 18) / 1000 == pytest.approx(132.8155, abs=2e-3)


def test_log_gamma_is_that_of_the_library() -> None:
    x = np.array([0.01, 0.5, 1.0, 2.5, 30.0, 4e5])
    assert log_gamma(x) == pytest.approx([math.lgamma(value) for value in x], rel=1e-9, abs=1e-9)


@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=12),
    st.lists(st.floats(0.01, 1), min_size=1, max_size=12),
    st.integers(0, 30),
)
def test_sums_and_shortages_keep_their_laws(left: list[float], right: list[float], stock: int) -> None:
    a, b = Pmf(np.array(left) / sum(left)), Pmf(np.array(right) / sum(right))
    total = a.plus(b)
    assert total.mean == pytest.approx(a.mean + b.mean)
    assert total.variance == pytest.approx(a.variance + b.variance)
    assert total.left(stock) - total.shortage(stock) == pytest.approx(stock - total.mean)
    assert total.exceeds(total.quantile(0.9)) <= 0.1 + 1e-9


@pytest.mark.parametrize(("mean", "size"), [(0.3, 0.2), (40.0, 3.0), (5e4, 2.0), (3e7, 50.0), (2e6, 0.2)])
def test_mixture_of_any_magnitude_keeps_its_mean_and_spread(mean: float, size: float) -> None:
    found = mixed(np.ones(1), np.array([mean]), np.array([size]))
    assert found.mean == pytest.approx(mean, rel=5e-3)
    assert found.variance == pytest.approx(mean + mean**2 / size, rel=0.01)


def test_days_grow_evenly_between_months_and_go_on_beyond_the_last() -> None:
    demand = steady(3.0, 2.0, months=3)
    assert demand.expected(np.array([MONTH_DAYS / 2, MONTH_DAYS, 5 * MONTH_DAYS])) == pytest.approx([1.5, 3.0, 15.0])
    mean, size = demand.within(np.array([7 * MONTH_DAYS]))
    assert mean + mean**2 / size == pytest.approx(7 * (3.0 + 9.0 / 2))


def test_uncertain_lead_time_widens_demand_and_keeps_its_mean() -> None:
    supplier = Supplier(supplier="s", price=1.0, lead_days=60, lead_days_spread=25)
    sure = cover_demand(steady(4.0), LeadTime(np.array([60.0]), np.ones(1)), 7)
    wide = cover_demand(steady(4.0), lead_time(supplier), 7)
    assert wide.expected == pytest.approx(sure.expected)
    assert wide.pmf.variance == pytest.approx(sure.pmf.variance + (25 * 4.0 / MONTH_DAYS) ** 2, rel=0.02)


def test_a_promise_that_is_broken_at_times_makes_the_lead_time_longer() -> None:
    late = Supplier(supplier="s", price=1.0, lead_days=10, late_probability=0.25, late_days=8)
    assert lead_time(late).mean == pytest.approx(12)


def test_lead_time_must_be_above_zero_and_deliveries_must_be_days() -> None:
    with pytest.raises(BadMessage, match="lead time"):
        lead_time(Supplier(supplier="s", price=1.0, lead_days=0))
    with pytest.raises(BadMessage, match="past deliveries"):
        lead_from_deliveries([])
    assert lead_from_deliveries([10.0])[1] > 0
    assert lead_from_deliveries([10.0] * 50) == (10.0, 0.0)


def test_two_risks_make_an_exact_poisson_binomial() -> None:
    outlooks = failure_outlooks([], [risk("P-1", 0.6, MONTH_DAYS), risk("P-2", 0.1, MONTH_DAYS)], NOW)
    bill = [BillLine(part="seal", failure="Bearing", share=0.5), BillLine(part="other", failure="bearing")]
    cover = cover_demand(QUIET, A_MONTH, 0.0, "seal", outlooks, bill)
    p, q = 0.3, 0.05
    assert cover.pmf.chances[:3] == pytest.approx([(1 - p) * (1 - q), p * (1 - q) + q * (1 - p), p * q], abs=1e-6)
    assert [because for because, _ in cover.sources] == ["history", "risk:P-1 bearing", "risk:P-2 bearing"]
    assert [amount for _, amount in cover.sources] == pytest.approx([0, p, q], abs=1e-6)


def test_a_repair_takes_all_its_units_at_once() -> None:
    outlooks = failure_outlooks([], [risk("P-1", 0.4, MONTH_DAYS)], NOW)
    cover = cover_demand(QUIET, A_MONTH, 0.0, "bolt", outlooks, [BillLine(part="bolt", quantity=8)])
    assert cover.pmf.chances[[0, 8]] == pytest.approx([0.6, 0.4], abs=1e-6)
    assert cover.pmf.quantile(0.9) == 8


def test_machine_that_is_as_threatened_as_usual_changes_nothing_in_the_mean() -> None:
    history = steady(2.0)
    usual = failure_outlooks([], [risk("P-1", 0.3, usual=0.3)], NOW)
    worse = failure_outlooks([], [risk("P-1", 0.9, usual=0.3)], NOW)
    better = failure_outlooks([], [risk("P-1", 0.01, usual=0.3)], NOW)
    bill = [BillLine(part="seal", quantity=2, failure="bearing")]
    without = cover_demand(history, A_MONTH, 0.0, "seal")
    assert cover_demand(history, A_MONTH, 0.0, "seal", usual, bill).expected == pytest.approx(without.expected)
    assert cover_demand(history, A_MONTH, 0.0, "seal", worse, bill).expected == pytest.approx(
        without.expected + 2 * 0.6, rel=0.02
    )
    assert cover_demand(history, A_MONTH, 0.0, "seal", better, bill).expected < without.expected


def test_history_is_never_reduced_below_nothing() -> None:
    outlooks = failure_outlooks([], [risk("P-1", 0.5, usual=0.9)], NOW)
    cover = cover_demand(steady(0.01), A_MONTH, 0.0, "seal", outlooks, [BillLine(part="seal", quantity=5)])
    assert cover.sources[0] == ("history", 0.0)
    assert cover.expected == pytest.approx(cover.pmf.mean, rel=1e-6)


def test_life_answers_for_any_failure_of_machines_of_the_type() -> None:
    outlooks = failure_outlooks([life("P-1", [360.0, 720.0], [0.2, 0.5])], [], NOW)
    bill = [BillLine(part="seal", machine_type="pump"), BillLine(part="belt", machine_type="mixer")]
    (found,) = risk_demand("seal", outlooks, bill, np.array([15.0, 30.0]))
    assert found.because == "risk:P-1"
    assert found.chance == pytest.approx([0.2, 0.5])
    assert risk_demand("belt", outlooks, bill, np.array([15.0])) == []


def test_life_in_cycles_and_risk_that_is_over_say_nothing() -> None:
    lives, risks = [life("P-1", [10.0], [0.5], unit="cycles")], [risk("P-2", 0.9, days=3.0)]
    assert failure_outlooks(lives, risks, NOW + 4 * DAY_MS) == []


def test_risk_and_life_of_one_machine_are_not_added_up() -> None:
    lives, risks = [life("P-1", [720.0], [0.5])], [risk("P-1", 0.4)]
    outlooks = failure_outlooks(lives, risks, NOW)
    (found,) = risk_demand("seal", outlooks, [BillLine(part="seal")], np.array([30.0]))
    assert found.chance == pytest.approx([0.5])
    named = [BillLine(part="seal"), BillLine(part="seal", failure="bearing")]
    chances = [one.chance[0] for one in risk_demand("seal", outlooks, named, np.array([30.0]))]
    assert 1 - np.prod([1 - chance for chance in chances]) == pytest.approx(0.5)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 200), st.floats(1, 400), st.floats(0, 1), st.integers(1, 40), st.floats(0.05, 1))
def test_sources_add_up_to_the_mean(rate: float, days: float, chance: float, quantity: int, share: float) -> None:
    outlooks = failure_outlooks([], [risk("P-1", chance, usual=0.02), risk("P-1", 0.2, component="motor")], NOW)
    bill = [
        BillLine(part="seal", quantity=quantity, share=share),
        BillLine(part="seal", failure="motor", quantity=2),
    ]
    lead = lead_time(Supplier(supplier="s", price=1.0, lead_days=days, lead_days_spread=days / 3))
    cover = cover_demand(steady(rate), lead, 7.0, "seal", outlooks, bill)
    assert cover.pmf.mean == pytest.approx(cover.expected, rel=3e-3)
    assert np.all(cover.pmf.chances >= 0)
    assert cover.pmf.chances.sum() == pytest.approx(1)


def test_fleet_tells_what_a_short_history_leaves_open() -> None:
    rng = np.random.default_rng(4)
    fleet = rng.poisson(np.exp(rng.normal(1.0, 0.5, 80))[:, None], (80, 36)).astype(np.float64)
    fleet[0] = np.nan
    fleet[1, :-2] = np.nan
    fleet[1, -2:] = 40.0
    made = fleet_demand(fleet)
    new, young, old = made[0], made[1], made[5]
    assert 1.5 < new.expected(np.array([MONTH_DAYS]))[0] < 6
    assert 4 < young.expected(np.array([MONTH_DAYS]))[0] < 41
    assert old.expected(np.array([MONTH_DAYS]))[0] == pytest.approx(fleet[5].mean(), rel=0.25)
    spread = [one.of(MONTH_DAYS).variance / one.of(MONTH_DAYS).mean for one in (new, old)]
    assert spread[0] > spread[1]


def test_fleet_of_one_of_none_and_of_silence_have_an_answer() -> None:
    assert fleet_demand(np.empty((0, 5))) == []
    (alone,) = fleet_demand(np.array([[0.0, 2.0, 1.0]]))
    assert 0.2 < alone.expected(np.array([MONTH_DAYS]))[0] < 3
    (silent,) = fleet_demand(np.zeros((1, 60)))
    assert silent.expected(np.array([MONTH_DAYS]))[0] < 0.1
    (unknown,) = fleet_demand(np.empty((1, 0)))
    assert np.isfinite(unknown.expected(np.array([MONTH_DAYS]))[0])
    with pytest.raises(BadMessage, match="0 or more"):
        fleet_demand(np.array([[-1.0]]))
