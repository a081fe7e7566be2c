"""A held-out figure's interval holds the truth as often as it says, and is not given where too little was held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from server import evaluation
from server.training import certainty


def test_a_means_interval_is_that_of_the_normal_distribution_where_that_holds() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = certainty.of_mean(values)
    assert low is not None
    assert high is not None
    exact = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(exact, abs=0.05)


def test_it_holds_the_truth_about_as_often_as_it_says() -> None:
    drawn, held = np.random.default_rng(2), 0
    for _ in range(100):
        low, high = certainty.of_mean(drawn.exponential(1.0, 60))
        assert low is not None
        assert high is not None
        held += low <= 1.0 <= high
    assert 85 <= held <= 100


def test_neighbours_that_say_the_same_make_it_wider() -> None:
    values = np.repeat(np.random.default_rng(3).normal(size=40), 10)
    alone, together = certainty.of_mean(values), certainty.of_mean(values, block=10)
    assert None not in (*alone, *together)
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])  # type: ignore[operator]


@given(st.integers(0, 200), st.integers(1, 200))
def test_a_share_stays_within_its_exact_bounds(hits: int, trials: int) -> None:
    hits = min(hits, trials)
    low, high = certainty.of_share(hits, trials)
    exact = stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-4)


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0.0, 3.6889), (5, 1.6235, 11.6683), (10, 4.7954, 18.3904)])
def test_a_count_of_rare_events_has_garwoods_interval(count: int, low: float, high: float) -> None:
    assert certainty.of_count(count, 1.0) == (low, high)


def test_rows_of_one_machine_are_drawn_together() -> None:
    assert certainty.by_group(np.arange(6.0), ["a", "b", "a", "c", "c", "b"]).tolist() == [2.0, 6.0, 7.0]


def test_too_little_gives_no_interval() -> None:
    assert certainty.of_mean(np.ones(certainty.LEAST_UNITS - 1)) == (None, None)
    assert certainty.of_mean(np.ones(100)) == (None, None)
    assert certainty.of_share(0, 0) == (None, None)
    assert certainty.of_sums([np.full(20, np.nan)], lambda total: total) == (None, None)


def test_a_forecasters_interval_lies_around_its_figure() -> None:
    values = np.cumsum(np.random.default_rng(4).normal(size=(3, 600)), axis=1)
    values[1, 480:520] = np.nan
    tail = evaluation.hold_out(values, 0, 60_000, 24, 6)
    answers = np.nan_to_num(tail.targets) + 0.3
    low, high = certainty.of_forecasts(tail, answers)
    assert low is not None
    assert high is not None
    assert low <= round(tail.relative_error(answers)[0], 4) <= high
    assert certainty.of_forecasts(tail, answers) == (low, high)
