"""What a gateway says about a spare part: whole units, reasons that add up, and an answer where nothing is known."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.runtimes import LoadedModel
from edge_agent.skills.spare_parts import LEVELS, PartHistory, Wish, forecast_demand
from protocol.demand_windows import SPARE_PARTS, DemandSpec, month_number, month_start_ms
from protocol.errors import BadMessage, BadName
from protocol.reports import DemandForecast, ModelRef
from protocol.sync import decode, encode

NOW = month_start_ms(month_number("2026-04")) + 5_000
WISH = Wish(lead_months=3)
SPEC = DemandSpec(
    length=12,
    horizon=4,
    discount=0.9,
    prior_months=2.0,
    prior_rate=0.7,
    month_size=[1.0] * 4,
    total_size=[2.0] * 4,
)


def recent_months_count() -> LoadedModel:
    """Answers with a factor that grows with the counts of the window."""

    def quantiles(x: NDArray[np.float32]) -> NDArray[np.float32]:
        answer = np.zeros((len(x), 4, 3), dtype=np.float32)
        answer[:, :, 0] = 0.1 * x[:, -6:, 1].sum(axis=1)[:, None] - 0.05 * x[:, -6:, 2].sum(axis=1)[:, None]
        return answer

    ref = ModelRef(SPARE_PARTS, "demand_lstm", 2, "ab" * 32)
    return cast(LoadedModel, SimpleNamespace(passport=SimpleNamespace(demand=SPEC), quantiles=quantiles, ref=ref))


PARTS = [
    PartHistory("bearing 6204", "2024-04", [0, 0, 1, 0, None, 0, 2, 0, 0, 0, 0, 1] * 2),
    PartHistory("seal", "2025-10", [4, 5, 3, 4, 6, 5]),
    PartHistory("new part", "2026-04", []),
    PartHistory("never asked for", "2025-04", [0.0] * 12),
]


@pytest.mark.parametrize("model", [None, recent_months_count()])
def test_reasons_add_up_to_the_expectation(model: LoadedModel | None) -> None:
    for report in forecast_demand(PARTS, model, WISH, NOW):
        assert report.baseline + sum(c.amount for c in report.contributions) == pytest.approx(report.expected, abs=1e-9)
        assert report.expected == pytest.approx(sum(report.month_mean))
        assert len(report.contributions) == report.known_months
        assert report.first_month == "2026-04"
        assert report.quantiles == sorted(report.quantiles)
        assert decode(encode(report), DemandForecast) == report


def test_stock_for_the_service_level_is_the_quantile_of_the_total() -> None:
    seal = forecast_demand(PARTS, recent_months_count(), WISH, NOW)[1]
    assert seal.order_up_to == seal.quantiles[LEVELS.index(0.95)]
    assert seal.order_up_to > seal.expected > 0
    assert seal.pattern == "smooth"
    surer = forecast_demand(PARTS, recent_months_count(), Wish(lead_months=3, service_level=0.99), NOW)[1]
    assert surer.order_up_to > seal.order_up_to


def test_a_longer_lead_time_never_needs_less_stock() -> None:
    stocks = [
        [r.order_up_to for r in forecast_demand(PARTS, recent_months_count(), Wish(lead_months=m), NOW)]
        for m in (1, 2, 3, 4)
    ]
    assert all(a <= b for before, after in itertools.pairwise(stocks) for a, b in zip(before, after, strict=True))


def test_a_new_part_gets_the_fleets_rate_and_a_dead_part_less() -> None:
    _, _, new, dead = forecast_demand(PARTS, recent_months_count(), WISH, NOW)
    assert new.expected == pytest.approx(3 * SPEC.prior_rate)
    assert new.baseline == new.expected
    assert new.contributions == []
    assert new.known_months == 0
    assert dead.expected < new.expected
    assert dead.none_probability > new.none_probability
    assert dead.pattern == "rare"


def test_old_months_are_told_together_and_old_histories_are_stale() -> None:
    report = forecast_demand([PartHistory("gasket", "2021-01", [1.0, 0.0, 2.0] * 12)], None, WISH, NOW)[0]
    assert report.contributions[0].because == "month:earlier"
    assert len(report.contributions) == 25
    assert report.stale
    assert report.inputs_until_ms == month_start_ms(month_number("2024-01"))
    gap = forecast_demand([PartHistory("gasket", "2025-10", [1, 2, 0, 1, None, math.nan])], None, WISH, NOW)[0]
    assert gap.known_months == 4
    assert gap.inputs_until_ms == month_start_ms(month_number("2026-02"))
    assert not gap.stale


def test_reasons_can_be_left_out() -> None:
    quick = forecast_demand(PARTS, None, Wish(lead_months=3, explain=False), NOW)
    full = forecast_demand(PARTS, None, WISH, NOW)
    assert [r.contributions for r in quick] == [[]] * 4
    assert [r.expected for r in quick] == [r.expected for r in full]
    assert forecast_demand([], None, WISH, NOW) == []


@pytest.mark.parametrize(
    ("part", "wish", "refusal"),
    [
        (PartHistory("a", "2026-01", [1, -2]), WISH, BadMessage),
        (PartHistory("a", "January", [1]), WISH, BadMessage),
        (PartHistory("a/b", "2026-01", [1]), WISH, BadName),
        (PartHistory("a", "2026-01", [1]), Wish(lead_months=5), BadMessage),
        (PartHistory("a", "2026-01", [1]), Wish(lead_months=0), BadMessage),
        (PartHistory("a", "2026-01", [1]), Wish(lead_months=2, service_level=1.0), BadMessage),
    ],
)
def test_what_cannot_be_answered_is_refused(part: PartHistory, wish: Wish, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        forecast_demand([part], recent_months_count(), wish, NOW)


def test_without_a_model_the_report_says_so() -> None:
    report: Any = forecast_demand(PARTS, None, WISH, NOW)[0]
    assert report.model == ModelRef(SPARE_PARTS, "smoothed_rate")
