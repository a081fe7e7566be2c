"""ARIMA: the likelihood and the filter are the library's, the search is its own, and no series breaks it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from export.parity import golden_series
from export.to_tables import stack_series
from protocol.tables import StateSpace
from server import evaluation
from server.algorithms import arima, arima_likelihood, arima_pool
from server.algorithms.arima_search import Found, Limits, Orders, fit_orders, search

STEP_MS = 900_000
AWKWARD = {
    "constant": np.full(200, 5.0),
    "nothing seen": np.full(200, np.nan),
    "empty": np.zeros(0),
    "one point": np.array([3.0]),
    "two points": np.array([3.0, 4.0]),
    "short": np.array([3.0, 4.0, 2.0, 5.0, 3.0, 6.0, 4.0, 5.0, 6.0]),
    "mostly gap": np.concatenate([np.full(190, np.nan), np.ones(10)]),
    "every second missing": np.where(np.arange(120) % 2, np.nan, np.sin(np.arange(120.0))),
    "negative counts": np.round(np.random.default_rng(3).standard_normal(90)) - 4,
    "a jump": np.concatenate([np.zeros(60), np.full(60, 1e9)]),
    "a straight line": np.arange(100.0),
}


def daily_signal(buckets: int, seed: int) -> np.ndarray:
    """A day's wave with slow noise, as a bearing temperature has."""
    rng = np.random.default_rng(seed)
    noise = np.zeros(buckets)
    for t in range(1, buckets):
        noise[t] = 0.85 * noise[t - 1] + 0.4 * rng.normal()
    return 20 + 3 * np.sin(2 * np.pi * np.arange(buckets) / 96) + noise


def wandering(n: int, seed: int = 1) -> np.ndarray:
    """An ARIMA(1,1,1)."""
    e = np.random.default_rng(seed).standard_normal(n)
    w = np.zeros(n)
    for t in range(1, n):
        w[t] = 0.6 * w[t - 1] + e[t] + 0.3 * e[t - 1]
    return 100 + np.cumsum(w)


def library(y: np.ndarray, order: tuple[int, int, int], seasonal: tuple[int, int, int, int] = (0, 0, 0, 0)):
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SARIMAX(y, order=order, seasonal_order=seasonal, trend="n")


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(
    ("order", "seasonal"),
    [((2, 0, 1), (0, 0)), ((0, 0, 3), (0, 0)), ((3, 0, 0), (0, 0)), ((1, 0, 2), (1, 1)), ((0, 0, 0), (0, 1))],
)
def test_likelihood_is_statsmodels(order: tuple[int, int, int], seasonal: tuple[int, int], gaps: bool) -> None:
    season = 12 if any(seasonal) else 1
    shape = (order[0], order[2], *seasonal)
    raw = 0.5 * np.random.default_rng(2).standard_normal(sum(shape))
    found = Found(Orders(order[0], 0, order[2], seasonal[0], 0, seasonal[1]), season, raw, np.zeros(0), 1.0, 0.0, raw)
    y = np.random.default_rng(3).standard_normal(160)
    if gaps:
        y[[30, 31, 32, 90]] = np.nan
    seen = np.isfinite(y)
    phi, theta = found.polynomials
    _, variance, value, state = arima_likelihood.settled(np.nan_to_num(y)[:, None], seen, gaps, phi, theta)
    model = library(y, order, (seasonal[0], 0, seasonal[1], season if season > 1 else 0))
    exact = model.filter(np.concatenate([found.parameters()[:-1], [variance]]))
    assert value == pytest.approx(exact.llf, abs=1e-5)
    np.testing.assert_allclose(state, exact.predicted_state[: len(state), -1], atol=1e-7)


def test_the_maximum_is_as_high_as_statsmodels_finds() -> None:
    y = np.diff(wandering(250))
    found = fit_orders(y, Orders(1, 0, 1))
    assert found is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = library(y, (1, 0, 1)).fit(disp=0)
    assert found.aicc <= theirs.aicc + 1e-3 + 2 * 3 * 4 / (250 - 5) - 2 * 3 * 4 / (250 - 4)


@pytest.mark.parametrize("orders", [Orders(1, 1, 1), Orders(0, 2, 2), Orders(2, 0, 1), Orders(1, 0, 0, 0, 1, 1)])
def test_forecast_is_statsmodels(orders: Orders) -> None:
    season = 6 if orders.sd else 1
    y = wandering(150) + 5 * np.sin(2 * np.pi * np.arange(150) / 6)
    y = np.cumsum(y) if orders.d == 2 else y
    found = fit_orders(y, orders, season)
    assert found is not None
    seasonal = (orders.sp, orders.sd, orders.sq, season) if orders.sd else (0, 0, 0, 0)
    exact = library(y, (orders.p, orders.d, orders.q), seasonal).filter(found.parameters())
    np.testing.assert_allclose(found.forecast(y, 9), exact.forecast(9), rtol=1e-4)


def test_regressors_and_drift_are_found_by_generalized_least_squares() -> None:
    rng = np.random.default_rng(4)
    known = (rng.random((210, 1)) < 0.2) * 1.0
    y = wandering(210) + 0.5 * np.arange(210) + 7 * known[:, 0]
    y[50:55] = np.nan
    found = search(y[:200], Limits(degree=1), known[:200])[0]
    assert found.beta[-1] == pytest.approx(7, abs=1)
    quiet, bump = np.zeros((210, 1)), np.zeros((210, 1))
    bump[203] = 1.0
    shift = found.forecast(y[:200], 10, bump) - found.forecast(y[:200], 10, quiet)
    np.testing.assert_allclose(shift, np.eye(10)[3] * found.beta[-1], atol=1e-9)


def test_search_takes_one_of_the_best_supported_and_the_simplest_of_them() -> None:
    found = search(wandering(400))
    lowest = min(f.aicc for f in found)
    assert found[0].aicc <= lowest + 2
    size = sum(found[0].orders.shape) + found[0].orders.constant
    assert all(sum(f.orders.shape) + f.orders.constant >= size for f in found if f.aicc <= lowest + 2)
    assert found[0].orders.d == 1
    assert "ARIMA(" in found[0].name()


def test_search_sees_a_season() -> None:
    rng = np.random.default_rng(6)
    y = np.tile(10 * rng.standard_normal(12), 15) + rng.standard_normal(180)
    found = search(y, Limits(season=12))[0]
    assert found.orders.sd == 1
    seasonal_error = np.abs(found.forecast(y[:180], 12) - y[:12]).mean()
    assert seasonal_error < 2


@pytest.mark.parametrize("name", AWKWARD)
def test_no_series_breaks_search_or_pool(name: str) -> None:
    values = AWKWARD[name]
    for answer in (search(values)[0].forecast(values, 5), arima_pool.fit(values, period=20.0).forecast(5)):
        assert answer.shape == (5,)
        assert np.isfinite(answer).all()
    if name == "constant":
        np.testing.assert_allclose(arima_pool.fit(values).forecast(5), 5.0)


def test_of_a_million_values_the_newest_are_looked_at() -> None:
    long = np.cumsum(np.random.default_rng(5).standard_normal(1_000_000))
    whole, newest = fit_orders(long, Orders(0, 1, 1)), fit_orders(long[-20_000:], Orders(0, 1, 1))
    assert whole is not None
    assert newest is not None
    np.testing.assert_array_equal(whole.raw, newest.raw)


def test_pool_is_deterministic_and_in_the_units_of_the_series() -> None:
    y = np.exp(wandering(150) / 100)
    np.testing.assert_array_equal(arima_pool.fit(y).forecast(8), arima_pool.fit(y).forecast(8))
    np.testing.assert_allclose(arima_pool.fit(1000 * y).forecast(8), 1000 * arima_pool.fit(y).forecast(8), rtol=0.05)


def test_a_year_of_weeks_is_seen_where_the_series_holds_three() -> None:
    week = np.arange(260.0)
    y = 100 + 10 * np.sin(2 * np.pi * week / 52.18) + np.random.default_rng(12).standard_normal(260)
    yearly, plain = arima_pool.fit(y[:240], period=52.18), arima_pool.fit(y[:240])
    assert plain.seasonal is None
    assert arima_pool.fit(y[:120], period=52.18).seasonal is None
    missed = [np.abs(pool.forecast(20) - y[240:]).mean() for pool in (yearly, plain)]
    assert missed[0] < missed[1]


@pytest.mark.parametrize("order", [(1, 0, 0), (2, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_gateway_recursion_equals_statsmodels_filter_across_gaps(order: tuple[int, int, int]) -> None:
    values = daily_signal(300, 1)
    values[40:52] = np.nan
    values[240:243] = np.nan
    params = [0.6, 0.1, 0.3][: order[0]] + [0.4][: order[2]] + [0.2]
    y = (values - 20.0) / 2.0
    fitted = arima._state_space(y[:200], order, np.array(params), np.zeros(5), False, 20.0, 2.0)
    exact = library(y, order).filter(params)
    ahead = exact.get_forecast(12)
    ours = StateSpace(fitted.tables())
    expected_z = exact.forecasts_error[0] / np.sqrt(exact.forecasts_error_cov[0, 0])
    for t in range(200, 300):
        z, _ = ours.step(values[t : t + 1], t * STEP_MS)
        assert np.isnan(z[0]) if np.isnan(values[t]) else abs(z[0] - expected_z[t]) < 1e-8
    mean, deviation = ours.forecast(300 * STEP_MS, STEP_MS, 12)
    np.testing.assert_allclose((mean[0] - 20.0) / 2.0, ahead.predicted_mean, atol=1e-8)
    np.testing.assert_allclose(deviation[0] / 2.0, ahead.se_mean, atol=1e-8)


def test_arima_finds_the_day_and_is_deterministic() -> None:
    values = daily_signal(1000, 2)
    fitted = arima.fit(values, 0, STEP_MS, 12)
    assert fitted is not None
    assert fitted.seasonal
    again = arima.fit(values, 0, STEP_MS, 12)
    assert again is not None
    for name in arima.TABLES:
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted, name))


def test_a_known_event_is_learned_packed_and_foreseen() -> None:
    rng = np.random.default_rng(7)
    known = np.stack([(rng.random(700) < 0.15) * 1.0, rng.standard_normal(700)], axis=1)
    values = daily_signal(700, 8) + 6 * known[:, 0]
    fitted = arima.fit(values[:688], 0, STEP_MS, 12, known[:688])
    other = arima.fit(daily_signal(688, 9), 0, STEP_MS, 12, np.zeros((688, 2)))
    assert fitted is not None
    assert other is not None
    assert fitted.gamma[0] * fitted.scale == pytest.approx(6, abs=0.6)
    np.testing.assert_array_equal(other.gamma, 0)
    tables = stack_series([fitted.tables(), other.tables()])
    model = StateSpace(tables)
    ahead = np.stack([known[688:].T, known[688:].T])
    shift = (model.forecast(688 * STEP_MS, STEP_MS, 12, ahead)[0] - model.forecast(688 * STEP_MS, STEP_MS, 12)[0])[0]
    np.testing.assert_allclose(shift, known[688:] @ fitted.gamma * fitted.scale, atol=1e-9)
    inputs, outputs = golden_series(tables, 688 * STEP_MS, STEP_MS, 12)
    np.testing.assert_array_equal(model.golden(inputs, outputs)["mean"], outputs["mean"])
    assert np.abs(inputs["known"]).max() > 0


@pytest.mark.parametrize("name", AWKWARD)
def test_arima_survives_awkward_signals(name: str) -> None:
    fitted = arima.fit(AWKWARD[name], 0, STEP_MS, 12)
    if fitted is None:
        assert np.isfinite(AWKWARD[name]).sum() < arima.SHORTEST
        return
    mean, deviation = StateSpace(fitted.tables()).forecast(200 * STEP_MS, STEP_MS, 12)
    assert np.isfinite(mean).all()
    assert np.isfinite(deviation).all()
    if name == "constant":
        np.testing.assert_allclose(mean, 5.0, atol=0.01)


def test_known_inputs_are_walked_along_with_the_held_out_values() -> None:
    rng = np.random.default_rng(10)
    load = (rng.random(700) < 0.15) * 1.0
    values = (daily_signal(700, 11) + 6 * load)[None]
    tail = evaluation.hold_out(values, 0, STEP_MS, 96, 12)
    fitted = arima.fit(values[0, : tail.split], 0, STEP_MS, 12, load[: tail.split, None])
    assert fitted is not None
    ahead = np.stack([load[at : at + 12] for at in tail.origins])[None, :, None]
    known = evaluation.KnownSteps(load[None, :, None], ahead)
    informed, _ = evaluation.filter_answers(tail, StateSpace(fitted.tables()), tail.split, known)
    uninformed, _ = evaluation.filter_answers(tail, StateSpace(fitted.tables()), tail.split)
    assert tail.relative_error(informed)[0] < 0.8 * tail.relative_error(uninformed)[0]
