"""The gateway's filter: equal to the textbook, whatever is missing, and open about why it says what it says."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.errors import BadBundle
from protocol.tables import StateSpace, Tables

STEP_MS = 900_000


def textbook(tables: Tables, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The recursion as the books print it, one series: (innovations, deviations, last state, last covariance)."""
    t, z, q = (np.asarray(tables[name], dtype=np.float64)[0] for name in ("transition", "design", "state_cov"))
    a, p = np.array(tables["state"][0], dtype=np.float64), np.array(tables["cov"][0], dtype=np.float64)
    h = float(np.asarray(tables["obs_var"])[0])
    errors, spreads = [], []
    for value in values:
        f = z @ p @ z + h
        v = value - z @ a
        errors.append(v / np.sqrt(f))
        spreads.append(np.sqrt(f))
        if np.isfinite(value):
            gain = p @ z / f
            a, p = a + gain * v, p - np.outer(gain, gain) * f
        a, p = t @ a, t @ p @ t.T + q
    return np.array(errors), np.array(spreads), a, p


def arma(phi: list[float], theta: list[float], observed_noise: float = 0.0) -> Tables:
    """Harvey's form of an ARMA, from a wide start."""
    k = max(len(phi), len(theta) + 1)
    transition = np.zeros((k, k))
    transition[: len(phi), 0] = phi
    transition[np.arange(k - 1), np.arange(1, k)] = 1.0
    noise = np.zeros(k)
    noise[: len(theta) + 1] = [1.0, *theta]
    return one_series(transition, np.eye(k)[0], np.outer(noise, noise), observed_noise)


def one_series(transition: np.ndarray, design: np.ndarray, noise: np.ndarray, observed: float) -> Tables:
    k = len(design)
    return {
        "transition": transition[None],
        "design": design[None],
        "state_cov": noise[None],
        "obs_var": np.array([observed]),
        "state": np.zeros((1, k)),
        "cov": 10.0 * np.eye(k)[None],
        "beta": np.zeros((1, 1)),
        "center": np.zeros(1),
        "scale": np.ones(1),
    }


def seasonal_level() -> Tables:
    """A local level with a season of four: whole rows in the transition, noise in the observation."""
    transition = np.zeros((4, 4))
    transition[0, 0] = 1.0
    transition[1, 1:] = -1.0
    transition[2, 1] = transition[3, 2] = 1.0
    return one_series(transition, np.array([1.0, 1.0, 0.0, 0.0]), np.diag([0.3, 0.1, 0.0, 0.0]), 0.5)


def dense() -> Tables:
    rng = np.random.default_rng(5)
    return one_series(0.3 * rng.standard_normal((5, 5)), rng.standard_normal(5), np.eye(5), 1.0)


KINDS = {
    "autoregression": arma([0.6], []),
    "arma": arma([0.5, 0.2], [0.4, -0.2]),
    "seasonal arma": arma([0.4, *[0.0] * 22, 0.5, -0.2], [0.3, *[0.0] * 22, 0.4, 0.12]),
    "season": seasonal_level(),
    "dense": dense(),
}


def twice(tables: Tables) -> Tables:
    return {name: np.concatenate([array, array]) for name, array in tables.items()}


def with_gaps(seed: int = 1) -> np.ndarray:
    values = np.cumsum(np.random.default_rng(seed).standard_normal(1500)) * 0.2
    for start, length in ((900, 1), (1020, 12), (1240, 2), (1243, 1), (1300, 30)):
        values[start : start + length] = np.nan
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_is_the_textbooks_across_gaps(kind: str) -> None:
    values = with_gaps()
    errors, spreads, state, cov = textbook(KINDS[kind], values)
    alone, pair = StateSpace(KINDS[kind]), StateSpace(twice(KINDS[kind]))
    rested = 0
    for t, value in enumerate(values):
        z, spread = alone.step(np.array([value]), t * STEP_MS)
        # the second series of the pair never misses a value, and must not be disturbed by the first
        both, _ = pair.step(np.array([value, 0.1]), t * STEP_MS)
        assert abs(spread[0] - spreads[t]) < 1e-8
        if np.isnan(value):
            assert np.isnan([z[0], both[0]]).all()
        else:
            assert abs(z[0] - errors[t]) < 1e-8
            assert abs(both[0] - errors[t]) < 1e-8
        rested += bool(alone.resting[0])
    assert rested > 100
    np.testing.assert_allclose(alone.a[0], state, atol=1e-8)
    np.testing.assert_allclose(alone.p[0], cov, atol=1e-8)
    np.testing.assert_allclose(pair.a[0], state, atol=1e-8)
    undisturbed = textbook(KINDS[kind], np.full(len(values), 0.1))
    np.testing.assert_allclose(pair.a[1], undisturbed[2], atol=1e-8)


def test_a_forecast_is_the_same_before_and_after_it_was_remembered() -> None:
    model = StateSpace(KINDS["arma"])
    for t in range(200):
        model.step(np.array([0.3]), t)
    assert model.resting.all()
    first = model.forecast(0, 1, 12)
    shorter = model.forecast(0, 1, 5)
    np.testing.assert_array_equal(first[1][:, :5], shorter[1])
    model.step(np.array([np.nan]), 200)
    wider = model.forecast(0, 1, 5)[1]
    assert (wider > shorter[1]).all()


def test_an_infinite_value_is_a_missing_one() -> None:
    for tables in (KINDS["arma"], twice(KINDS["arma"])):
        model = StateSpace(tables)
        for t in range(100):
            model.step(np.full(len(model), 0.3), t)
        z, _ = model.step(np.full(len(model), np.inf), 100)
        assert np.isnan(z).all()
        assert np.isfinite(model.forecast(0, 1, 3)[0]).all()


def test_state_may_be_set_and_is_gone_on_from() -> None:
    model, other = StateSpace(KINDS["arma"]), StateSpace(KINDS["arma"])
    for t in range(150):
        model.step(np.array([np.sin(t)]), t)
    other.a, other.p = model.a, model.p
    np.testing.assert_allclose(other.forecast(0, 1, 6), model.forecast(0, 1, 6), atol=1e-12)


def test_at_rest_only_the_states_move() -> None:
    model = StateSpace(KINDS["seasonal arma"])
    assert model.moving_bytes()[0] > 1024
    for t in range(1500):
        model.step(np.array([0.1 * np.sin(t)]), t)
    assert model.resting.all()
    assert model.moving_bytes()[0] == 8 * model.design.shape[1] + 1 < 1024


def known_tables() -> Tables:
    rows = twice(KINDS["arma"])
    return rows | {
        "gamma": np.array([[2.0, 0.0], [0.0, -1.0]]),
        "beta": np.array([[0.1, 0.5, 0.2], [0.0, 0.0, 0.0]]),
        "center": np.array([10.0, -3.0]),
        "scale": np.array([2.0, 0.5]),
    }


def test_known_inputs_move_the_forecast_and_are_not_taken_for_surprises() -> None:
    model, plain = StateSpace(known_tables()), StateSpace(known_tables())
    bump = np.array([[1.0, 0.0], [0.0, 1.0]])
    for t in range(100):
        quiet = plain.forecast(t * STEP_MS, STEP_MS, 1)[0][:, 0]
        z, _ = model.step(quiet + np.array([4.0, -0.5]), t * STEP_MS, bump)
        plain.step(quiet, t * STEP_MS)
        np.testing.assert_allclose(z, 0.0, atol=1e-9)
    ahead = np.zeros((2, 2, 3))
    ahead[:, :, 1] = bump
    shift = model.forecast(0, STEP_MS, 3, ahead)[0] - model.forecast(0, STEP_MS, 3)[0]
    np.testing.assert_allclose(shift, [[0.0, 4.0, 0.0], [0.0, -0.5, 0.0]], atol=1e-9)


def test_known_inputs_of_one_series_take_the_short_path_too() -> None:
    tables = {name: array[:1] for name, array in known_tables().items()}
    model = StateSpace(tables)
    for t in range(300):
        expected = model.forecast(t * STEP_MS, STEP_MS, 1, np.full((1, 2, 1), 0.5))[0][0]
        z, _ = model.step(expected, t * STEP_MS, np.full((1, 2), 0.5))
        assert abs(z[0]) < 1e-9


@pytest.mark.parametrize("name", ["gamma", "design"])
def test_a_table_of_another_number_of_series_is_refused(name: str) -> None:
    with pytest.raises(BadBundle):
        StateSpace(known_tables() | {name: np.ones((3, 2))})


@pytest.mark.parametrize("gap", [False, True])
def test_contributions_sum_to_the_forecast_and_are_its_slopes(gap: bool) -> None:
    tables = known_tables()
    history = 10 + np.cumsum(np.random.default_rng(2).standard_normal((2, 12)), axis=1)
    if gap:
        history[0, 4:6] = np.nan

    def walked(last: np.ndarray) -> StateSpace:
        model = StateSpace(tables)
        for t in range(300):
            model.step(np.array([9.5, -2.5]), t * STEP_MS)
        for t in range(last.shape[1]):
            model.step(last[:, t], (300 + t) * STEP_MS)
        return model

    model = walked(history)
    taken = model.contributions(history, 312 * STEP_MS, STEP_MS, 6)
    assert taken.exact.all()
    mean = model.forecast(312 * STEP_MS, STEP_MS, 6)[0]
    total = np.einsum("shl,sl->sh", taken.weights, np.nan_to_num(history)) + taken.rest
    np.testing.assert_allclose(total, mean, atol=1e-9)
    for lag in (0, 7, 11):
        moved = history.copy()
        moved[:, lag] += 1.0
        slope = walked(moved).forecast(312 * STEP_MS, STEP_MS, 6)[0] - mean
        np.testing.assert_allclose(slope, taken.weights[:, :, lag], atol=1e-9)


def test_contributions_say_where_they_are_not_the_filters_own() -> None:
    model = StateSpace(KINDS["seasonal arma"])
    for t in range(5):
        model.step(np.array([0.5]), t)
    taken = model.contributions(np.full((1, 5), 0.5), 5, 1, 3)
    assert not taken.exact.any()
    np.testing.assert_allclose(taken.weights.sum(axis=2) * 0.5 + taken.rest, taken.mean, atol=1e-12)


def test_one_series_of_many_goes_on_alone() -> None:
    model = StateSpace(known_tables())
    for t in range(50):
        model.step(np.array([9.0 + t % 3, -3.0]), t * STEP_MS)
    alone = model.only([1])
    whole = model.forecast(50 * STEP_MS, STEP_MS, 4)
    model.step(np.array([9.0, 5.0]), 50 * STEP_MS)
    for one, both in zip(alone.forecast(50 * STEP_MS, STEP_MS, 4), whole, strict=True):
        np.testing.assert_allclose(one[0], both[1], atol=1e-12)
