"""Closed-form forecasts on the gateway: exact contributions, tables that are checked, a correction that never harms."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.correction import Correction
from protocol.errors import BadBundle, BadMessage
from protocol.tables import Ridge, Tables
from protocol.tables.ridge import LAST, LEVEL
from protocol.windows import CHANNELS, WindowSpec, windows

LAGS, HORIZON = 8, 3


def tables(*, logged: int = 0, own: bool = True) -> Tables:
    rng = np.random.default_rng(1)
    return {
        "lags": np.arange(LAGS, 0, -1),
        "span": np.array([4]),
        "kinds": np.array([LEVEL, LAST]),
        "weights": 0.2 * rng.normal(size=(2, LAGS, HORIZON)),
        "bias": 0.1 * rng.normal(size=(2, HORIZON)),
        "mix": np.array([[0.4] * HORIZON, [0.6] * HORIZON]),
        "own": 0.1 * rng.normal(size=(2 if own else 0, LAGS, HORIZON)),
        "logged": np.array([logged, logged, logged], dtype=np.int8),
        "nonnegative": np.array([1, 0, 0], dtype=np.int8),
        "width": np.array([1.0, 1.0, 2.0]),
        "offset": np.tile([-2.0, -1.0, 0.0, 1.0, 2.0], (HORIZON, 1)),
    }


@pytest.mark.parametrize("logged", [0, 1])
def test_what_each_value_added_sums_to_the_forecast_exactly(logged: int) -> None:
    model = Ridge(tables(logged=logged))
    context = np.random.default_rng(2).gamma(2.0, 3.0, (40, 12))
    context[3, 2:5] = np.nan
    rows = np.arange(40) % 3 - 1
    found = model.contributions(context, rows)
    np.testing.assert_allclose(found.anchor + found.parts.sum(axis=1), model.forecast(context, rows), rtol=1e-12)
    assert found.parts.shape == (40, LAGS, HORIZON)
    # far away from every clamp the anchor is what the weights do not explain
    assert np.abs(found.parts).max() > 0


def test_contributions_of_a_plain_ridge_are_weight_times_distance_from_the_anchor() -> None:
    held = tables(own=False)
    held["kinds"] = np.array([LAST, LAST])
    model = Ridge(held)
    context = np.random.default_rng(3).normal(50.0, 2.0, (5, 12))
    weights = (held["weights"] * held["mix"][:, None, :]).sum(axis=0)
    expected = (context[:, -LAGS:] - context[:, -1:])[:, :, None] * weights
    np.testing.assert_allclose(model.contributions(context, np.full(5, -1)).parts, expected, atol=1e-9)


def test_the_unit_of_a_signal_does_not_matter_not_even_in_logarithms() -> None:
    context = np.random.default_rng(4).gamma(2.0, 3.0, (4, 12))
    for logged in (0, 1):
        model = Ridge(tables(logged=logged))
        rows = np.array([0, 1, -1, 0])
        np.testing.assert_allclose(
            model.forecast(1000.0 * context, rows), 1000.0 * model.forecast(context, rows), rtol=1e-9
        )


def test_a_window_without_a_value_has_no_answer_and_one_value_has_one() -> None:
    model = Ridge(tables())
    context = np.full((2, 12), np.nan)
    context[1, 5] = 7.0
    answer = model.forecast(context, np.array([0, 1]))
    assert np.isnan(answer[0]).all()
    np.testing.assert_allclose(answer[1], 7.0, atol=1e-4)
    with pytest.raises(ValueError, match="or more"):
        model.forecast(np.ones((1, 5)), np.array([0]))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("weights", np.full((2, LAGS, HORIZON), np.nan)),
        ("mix", np.ones((3, HORIZON))),
        ("kinds", np.array([0, 9])),
        ("lags", np.zeros(LAGS, dtype=np.int64)),
        ("own", np.zeros((5, LAGS, HORIZON))),
        ("offset", np.tile([1.0, 0.0], (HORIZON, 1))),
        ("width", np.ones(2)),
    ],
)
def test_tables_that_do_not_fit_are_refused(name: str, array: np.ndarray) -> None:
    with pytest.raises(BadBundle):
        Ridge(tables() | {name: array})


def test_covariates_show_now_and_the_horizon() -> None:
    spec = WindowSpec(step_ms=1000, length=6, horizon=2, covariates=["load", "shift"], covariate_scale=[10.0])
    assert spec.channels == len(CHANNELS) + 5
    known = np.zeros((1, 2, 8))
    known[0, 0, -1] = 10.0
    known[0, 1, 5] = 1.0
    made = windows(np.arange(6.0)[None], np.zeros(1, dtype=np.int64), spec, known)
    np.testing.assert_array_equal(made.x[0, :, 5], np.zeros(6))
    np.testing.assert_array_equal(made.x[0, :, 6], [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(made.x[0, :, 7], [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(made.x[0, :, 8], [0, 0, 0, 1, 0, 0])
    np.testing.assert_allclose(made.x[0, :, 9], np.log(made.scale[0]), atol=1e-6)
    assert not windows(np.arange(6.0)[None], np.zeros(1, dtype=np.int64), spec).x[:, :, 5:9].any()
    with pytest.raises(BadMessage, match="covariates of shape"):
        windows(np.arange(6.0)[None], np.zeros(1, dtype=np.int64), spec, known[:, :1])


# --- correction ---


def run(bias: float, noise: float, seed: int, lessons: int = 150) -> tuple[float, float, Correction]:
    rng = np.random.default_rng(seed)
    correction = Correction(6, every=6)
    plain, corrected = 0.0, 0.0
    for t in range(lessons):
        mean = 10 + np.sin((t + np.arange(6)) / 4)
        actual = mean + bias + noise * rng.normal(size=6)
        plain += float(np.abs(mean - actual).mean())
        corrected += float(np.abs(correction.apply(mean) - actual).mean())
        correction.learn(mean, actual)
    return plain, corrected, correction


def test_a_lasting_error_of_the_global_model_is_corrected() -> None:
    plain, corrected, _ = run(2.0, 1.0, 1)
    assert corrected < 0.6 * plain


@pytest.mark.parametrize("seed", range(6))
def test_where_there_is_nothing_to_correct_nothing_is_lost(seed: int) -> None:
    plain, corrected, _ = run(0.0, 1.0, seed)
    assert corrected < 1.01 * plain


def test_a_correction_carries_on_after_a_power_cut() -> None:
    _, _, before = run(2.0, 1.0, 1)
    after = Correction(6, every=6)
    after.restore({name: np.asarray(array.tolist()) for name, array in before.state().items()})
    mean = np.linspace(9, 11, 6)
    np.testing.assert_array_equal(after.apply(mean), before.apply(mean))
    assert sum(array.nbytes for array in before.state().values()) < 1200


def test_a_damaged_or_foreign_state_is_refused_and_changes_nothing() -> None:
    _, _, held = run(2.0, 1.0, 1)
    mean = np.linspace(9, 11, 6)
    expected = held.apply(mean)
    for wrong in ({}, Correction(12).state(), held.state() | {"gram": np.full((4, 4, 4), np.nan)}):
        with pytest.raises(BadMessage, match="start anew"):
            held.restore(wrong)
    np.testing.assert_array_equal(held.apply(mean), expected)


def test_gaps_constants_and_spikes_leave_a_correction_finite() -> None:
    correction = Correction(6)
    nothing = np.full(6, np.nan)
    np.testing.assert_array_equal(correction.apply(np.ones(6)), np.ones(6))
    correction.learn(np.ones(6), nothing)
    correction.learn(nothing, np.ones(6))
    for _ in range(60):
        correction.learn(np.ones(6), np.ones(6))
    correction.learn(np.ones(6), np.full(6, 1e9))
    half = np.array([1.0, np.nan, 1.0, 1.0, 1.0, 1.0])
    answer = correction.apply(half)
    assert np.isnan(answer[1])
    assert np.isfinite(np.delete(answer, 1)).all()
    with pytest.raises(ValueError, match="for 6 steps"):
        correction.apply(np.ones(5))
    with pytest.raises(ValueError, match="forget"):
        Correction(0)
