"""Intervals: the promised share is kept whatever the values do, late values are charged to what was issued for them, and
a saved state continues exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import BadMessage
from protocol.intervals import (
    LEVELS,
    MEAN_ABSOLUTE,
    RECENT,
    Band,
    Coverage,
    Intervals,
    IntervalSettings,
    prior_from_quantiles,
    typical_changes,
)

HORIZON = 6


def replay(values: np.ndarray, made: Intervals, prior: float = 1.0) -> tuple[np.ndarray, list[Band]]:
    """Forecasts 0 for every step from every origin; values [S, T]. Returns held [S, T, L] of step 1, and the bands."""
    s, t = values.shape
    rows = np.arange(s)
    bands: list[Band] = []
    held = []
    for o in range(t):
        mean = np.zeros((s, made.horizon))
        bands.append(made.around(rows, mean, np.full_like(mean, prior)))
        for step in range(min(o + 1, made.horizon)):
            made.learn(rows, np.full(s, step), values[:, o], bands[o - step])
        one = values[:, o, None]
        held.append((one >= bands[o].low[:, 0]) & (one <= bands[o].high[:, 0]))
    return np.stack(held, axis=1), bands


def test_the_promised_share_holds_while_the_scale_triples_half_way() -> None:
    rng = np.random.default_rng(5)
    noise = rng.standard_t(4, size=(8, 3000)) * np.where(np.arange(3000) < 1500, 1.0, 3.0)
    held, _ = replay(noise, Intervals(HORIZON))
    for j, level in enumerate(LEVELS):
        share = held[:, 200:, j]
        assert abs(share.mean() - level) < 0.01
        rolling = np.lib.stride_tricks.sliding_window_view(share, 500, axis=1).mean(axis=2)
        assert rolling.min() >= level - 0.03


def test_a_far_horizon_keeps_its_promise_although_its_errors_come_late() -> None:
    rng = np.random.default_rng(6)
    noise = rng.standard_normal((6, 2500)).cumsum(axis=1)
    walk = (
        noise - np.pad(noise, ((0, 0), (HORIZON, 0)))[:, :-HORIZON]
    )  # what a last-value forecast is off, HORIZON ahead
    made = Intervals(HORIZON)
    rows, kept, inside = np.arange(6), [], []
    for t in range(walk.shape[1]):
        kept.append(made.around(rows, np.zeros((6, HORIZON)), np.ones((6, HORIZON))))
        if t >= HORIZON:
            issued = kept[t - HORIZON + 1]
            made.learn(rows, np.full(6, HORIZON - 1), walk[:, t], issued)
            inside.append((walk[:, t] >= issued.low[:, -1, 0]) & (walk[:, t] <= issued.high[:, -1, 0]))
    assert abs(np.mean(inside[300:]) - 0.8) < 0.02


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([0.0, 0.01, 1.0, 30.0, -2.0, 1e4]), min_size=1, max_size=12), st.integers(0, 3))
def test_no_sequence_of_values_can_break_the_long_run_share(pattern: list[float], seed: int) -> None:
    """Gibbs & Candès 2021, proposition 4.1, for log_width: misses differ from the promise by (range + rate) / (rate T)."""
    order = np.random.default_rng(seed).integers(0, len(pattern), 600)
    values = np.array(pattern)[order][None]
    fixed = IntervalSettings(start_rate=0.0)
    made = Intervals(1, fixed)
    misses = np.zeros(2)
    for value in values[0]:
        band = made.around(np.array([0]), np.zeros((1, 1)), np.ones((1, 1)))
        misses += (value < band.low[0, 0]) | (value > band.high[0, 0])
        made.learn(np.array([0]), np.array([0]), np.array([value]), band)
    spread = np.log(60.0) - np.log(0.1)
    for j, level in enumerate(LEVELS):
        # an unending series of exact hits may be held more often than promised, never less
        assert misses[j] / 600 - (1 - level) <= (spread + fixed.rate) / (fixed.rate * 600)


def test_a_gaussian_deviation_two_quantiles_and_a_point_start_from_their_own_spread() -> None:
    deviation = np.full((1, 2), 3.0)
    prior = deviation * MEAN_ABSOLUTE
    quantiles = prior_from_quantiles(-1.2815515655446004 * deviation, 1.2815515655446004 * deviation, 0.8)
    np.testing.assert_allclose(quantiles, prior)
    band = Intervals(2).around(np.array([0]), np.zeros((1, 2)), prior)
    cautious = 1.5  # nothing was scored yet
    np.testing.assert_allclose(band.high[0, 0], cautious * 3.0 * np.array([1.2815516, 1.959964]), rtol=1e-5)
    np.testing.assert_allclose(typical_changes(np.array([[1.0, 3.0, np.nan, 3.0, 5.0]]), 4), [[2, 8**0.5, 12**0.5, 4]])
    assert (typical_changes(np.array([[7.0, 7.0], [np.nan, 1.0]]), 2) == 0).all()


def test_skewed_errors_get_a_longer_upper_side() -> None:
    rng = np.random.default_rng(7)
    skewed = rng.exponential(2.0, size=(4, 2000)) - 1.0
    _, bands = replay(skewed, Intervals(1))
    last = bands[-1]
    assert (last.high[:, 0, 0] > 1.5 * -last.low[:, 0, 0]).all()


def test_missing_values_teach_nothing() -> None:
    made, same = Intervals(HORIZON), Intervals(HORIZON)
    rng = np.random.default_rng(8)
    values = rng.standard_normal((2, 100))
    replay(values, made)
    replay(values, same)
    band = made.around(np.arange(2), np.zeros((2, HORIZON)), np.ones((2, HORIZON)))
    made.learn(np.arange(2), np.zeros(2, dtype=np.int64), np.array([np.nan, np.nan]), band)
    for name, table in made.state().items():
        np.testing.assert_array_equal(table, same.state()[name])


def test_an_answer_that_is_missing_has_no_interval_and_teaches_nothing() -> None:
    made = Intervals(2)
    band = made.around(np.array([0, 1]), np.array([[np.nan, np.nan], [1.0, 1.0]]), np.ones((2, 2)))
    assert np.isnan(band.low[0]).all()
    assert np.isfinite(band.low[1]).all()
    made.learn(np.array([0, 1]), np.array([0, 0]), np.array([5.0, 5.0]), band)
    assert made.seen[:, 0].tolist() == [0, 1]


def test_inputs_that_are_old_widen_the_interval_also_beyond_the_horizon() -> None:
    made = Intervals(3)
    mean, prior = np.zeros((3, 3)), np.ones((3, 3))
    band = made.around(np.arange(3), mean, prior, np.array([0, 2, 40]))
    width = (band.high - band.low)[:, 0, 0]
    assert width[0] <= width[1] < width[2]


def test_a_saved_state_continues_exactly() -> None:
    rng = np.random.default_rng(9)
    before, after = rng.standard_normal((3, 150)), rng.standard_normal((3, 80))
    whole, first, second = Intervals(HORIZON), Intervals(HORIZON), Intervals(HORIZON)
    replay(before, whole)
    replay(before, first)
    second.restore({name: table.copy() for name, table in first.state().items()})
    _, expected = replay(after, whole)
    _, got = replay(after, second)
    np.testing.assert_array_equal(got[-1].low, expected[-1].low)
    np.testing.assert_array_equal(got[-1].high, expected[-1].high)


def test_a_state_is_taken_over_row_by_row_and_refused_when_it_does_not_fit() -> None:
    made = Intervals(HORIZON)
    replay(np.random.default_rng(1).standard_normal((2, 60)), made)
    other = Intervals(HORIZON)
    other.restore(made.state(), np.array([3, -1]))
    np.testing.assert_array_equal(other.log_width[3], made.log_width[0])
    assert (other.seen[:3] == 0).all()
    with pytest.raises(BadMessage):
        Intervals(HORIZON + 1).restore(made.state())
    with pytest.raises(BadMessage):
        other.restore({name: table for name, table in made.state().items() if name != "tilt"})
    with pytest.raises(BadMessage):
        other.restore(made.state() | {"scale": np.full((2, HORIZON), np.nan)})


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadMessage):
        Intervals(2, IntervalSettings(levels=(0.95, 0.8)))
    with pytest.raises(BadMessage):
        Intervals(2, IntervalSettings(levels=(0.77,)))
    with pytest.raises(BadMessage):
        Intervals(2).around(np.array([0]), np.zeros((1, 3)), np.zeros((1, 3)))


def test_a_constant_signal_has_a_finite_interval_and_the_wider_level_holds_the_narrower() -> None:
    held, bands = replay(np.zeros((1, 400)), Intervals(2), prior=0.0)
    assert held.all()
    last = bands[-1]
    assert np.isfinite(last.high).all()
    assert (last.high[..., 1] >= last.high[..., 0]).all()
    assert (last.low[..., 1] <= last.low[..., 0]).all()


def test_coverage_counts_the_long_run_and_the_last_values() -> None:
    counted = Coverage()
    assert counted.lately(0) == (None, 0)
    assert counted.overall() == (None, 0)
    for i in range(RECENT + 100):
        counted.note(np.array([1]), np.array([[i >= 100, True]]))
    assert counted.lately(1) == (1.0, RECENT)
    assert counted.lately(1, 1) == (1.0, RECENT)
    assert counted.lately(0) == (None, 0)
    assert counted.overall() == (RECENT / (RECENT + 100), RECENT + 100)
    again = Coverage()
    again.restore(counted.state())
    again.note(np.array([1]), np.array([[False, True]]))
    assert again.lately(1) == ((RECENT - 1) / RECENT, RECENT)
    with pytest.raises(BadMessage):
        Coverage(levels=1).restore(counted.state())
