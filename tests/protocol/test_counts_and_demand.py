"""Counts have the probabilities that scipy gives them; a demand history means the same wherever it is read."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from protocol import counts
from protocol.demand_windows import (
    ANSWERS,
    INTERMITTENT,
    LUMPY,
    RARE,
    SMOOTH,
    DemandSpec,
    anchor,
    checked_history,
    demand_ahead,
    demand_windows,
    intermittency,
    month_name,
    month_number,
    month_start_ms,
)
from protocol.errors import BadMessage, Reason

SPEC = DemandSpec(
    length=6,
    horizon=3,
    discount=0.9,
    prior_months=2.0,
    prior_rate=1.5,
    calendar=True,
    month_size=[1.0, 1.0, 1.0],
    total_size=[1.0, 1.5, 2.0],
)
NAN = float("nan")


@pytest.mark.parametrize(("mean", "size"), [(0.05, 0.1), (0.7, 0.5), (4.0, 3.0), (300.0, 2.0), (900.0, 1e6)])
def test_negative_binomial_agrees_with_scipy(mean: float, size: float) -> None:
    theirs = stats.nbinom(size, size / (size + mean))
    n = np.arange(2000)
    np.testing.assert_allclose(counts.pmf(1999, np.array(mean), np.array(size)), theirs.pmf(n), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(counts.cdf(1999, np.array(mean), np.array(size)), theirs.cdf(n), atol=1e-8)
    for level in (0.01, 0.5, 0.9, 0.95, 0.999):
        assert counts.quantile(level, np.array(mean), np.array(size)) == theirs.ppf(level)
    assert counts.chance_of_none(np.array(mean), np.array(size)) == pytest.approx(theirs.pmf(0), rel=1e-6, abs=1e-300)


def test_extra_zeros_move_the_quantile() -> None:
    mean, size, zero = np.array(2.0), np.array(1.0), np.array(0.6)
    below = counts.cdf(60, mean, size, zero)
    assert below[-1] == pytest.approx(1.0)
    for level in (0.3, 0.6, 0.7, 0.95):
        assert counts.quantile(level, mean, size, zero) == int(np.argmax(below >= level))
    assert counts.chance_of_none(mean, size, zero) == pytest.approx(below[0])


@pytest.mark.parametrize("size", [0.2, 2.5, 400.0, 1e6])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.95])
def test_a_very_large_count_is_near_enough(size: float, level: float) -> None:
    exact = stats.nbinom(size, size / (size + 50_000)).ppf(level)
    assert counts.quantile(level, np.array(50_000.0), np.array(size)) == pytest.approx(exact, abs=50)


def test_quantiles_of_nothing_and_of_what_is_not_known() -> None:
    found = counts.quantile(0.95, np.array([0.0, NAN, 1.0]), np.array([1.0, 1.0, 1e9]))
    assert found[0] == 0
    assert np.isnan(found[1])
    assert found[2] == stats.poisson(1.0).ppf(0.95)
    with pytest.raises(BadMessage):
        counts.quantile(1.0, np.array(1.0), np.array(1.0))


def test_a_size_is_read_off_mean_and_variance() -> None:
    assert counts.size_of(np.array(2.0), np.array(6.0)) == pytest.approx(1.0)
    assert counts.size_of(np.array(2.0), np.array(1.0)) == counts.LARGEST_SIZE


def test_a_negative_count_is_refused_by_name() -> None:
    with pytest.raises(BadMessage) as refused:
        checked_history(np.array([[0.0, 1.0], [2.0, -3.0]]))
    assert refused.value.reason is Reason.WRONG_TYPE
    assert "part 1 in month 1 is -3" in refused.value.detail
    for bad in (np.array([1.0, 2.0]), np.array([[np.inf]])):
        with pytest.raises(BadMessage):
            checked_history(bad)


def test_the_anchor_leans_on_the_fleet_while_little_is_known() -> None:
    history = np.array([[NAN, NAN, NAN], [0.0, 0.0, 0.0], [NAN, 2.0, 4.0]])
    expected = [1.5, 2 * 1.5 / (2 + 0.81 + 0.9 + 1), (0.9 * 2 + 4 + 3) / (0.9 + 1 + 2)]
    np.testing.assert_allclose(anchor(history, 0.9, 2.0, 1.5), expected)
    np.testing.assert_allclose(anchor(np.zeros((1, 0)), 0.9, 2.0, 1.5), [1.5])


def test_intermittency_follows_syntetos_and_boylan() -> None:
    smooth = [3.0, 4, 3, 4, 3, 4]
    intermittent = [0.0, 0, 2, 0, 0, 2]
    lumpy = [0.0, 1, 0, 0, 0, 20]
    rare = [0.0, 0, 0, 0, 0, 9]
    assert intermittency(np.array([smooth, intermittent, lumpy, rare])).tolist() == [SMOOTH, INTERMITTENT, LUMPY, RARE]


def test_a_missing_month_is_not_a_zero() -> None:
    missing = demand_windows(np.array([[2.0, NAN, NAN, 2.0]]), 0, SPEC)
    zero = demand_windows(np.array([[2.0, 0.0, 0.0, 2.0]]), 0, SPEC)
    assert missing.rate[0] > zero.rate[0]
    assert missing.known[0] == 2
    assert missing.x[0, -2, 2] == 0
    assert zero.x[0, -2, 2] == 1


def test_windows_of_a_new_part_and_of_a_long_history_have_one_shape() -> None:
    for history in (np.zeros((2, 0)), np.full((2, 3), NAN), np.zeros((2, 1)), np.ones((2, 40))):
        made = demand_windows(history, np.array([0, 5]), SPEC)
        assert made.x.shape == (2, 6, 10)
        assert np.isfinite(made.x).all()
        assert (made.rate > 0).all()


def test_a_silent_model_is_a_smoothing_forecast() -> None:
    windows = demand_windows(np.array([[1.0, 0.0, 3.0]]), 0, SPEC)
    ahead = demand_ahead(windows, np.zeros((1, 3, len(ANSWERS))), SPEC)
    np.testing.assert_allclose(ahead.month_mean, np.tile(windows.rate[:, None], 3))
    np.testing.assert_allclose(ahead.total_mean[0], windows.rate[0] * np.arange(1, 4))
    stock = ahead.total_quantile(0.95)[0]
    assert (np.diff(stock) >= 0).all()
    assert (np.diff(ahead.chance_of_none()[0]) <= 0).all()
    theirs = stats.nbinom(2.0, 2.0 / (2.0 + ahead.total_mean[0, 2]))
    assert stock[2] == theirs.ppf(0.95)


def test_months_are_read_and_written() -> None:
    assert month_name(month_number("2026-04") + 9) == "2027-01"
    assert month_start_ms(month_number("1970-02")) == 31 * 86_400_000
    for bad in ("2026", "2026-13", "26-01", "2026-xx"):
        with pytest.raises(BadMessage):
            month_number(bad)
