"""Every algorithm: arrays in, the same fitted model out each time, and the gateway's recursion equal to the
library's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from protocol.tables import StateSpace
from server.algorithms import arima, collaborative
from server.algorithms.collaborative import Case, CollaborativeSettings

STEP_MS = 900_000


def daily_signal(buckets: int, seed: int) -> np.ndarray:
    """A day's wave with slow noise, as a bearing temperature has."""
    rng = np.random.default_rng(seed)
    noise = np.zeros(buckets)
    for t in range(1, buckets):
        noise[t] = 0.85 * noise[t - 1] + 0.4 * rng.normal()
    return 20 + 3 * np.sin(2 * np.pi * np.arange(buckets) / 96) + noise


@pytest.mark.parametrize("order", [(1, 0, 0), (2, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_gateway_recursion_equals_statsmodels_filter_across_gaps(order: tuple[int, int, int]) -> None:
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    values = daily_signal(300, 1)
    values[40:52] = np.nan
    values[240:243] = np.nan
    params = [0.6, 0.1, 0.3][: order[0]] + [0.4][: order[2]] + [0.2]
    y = (values - 20.0) / 2.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = arima._state_space(y[:200], order, np.array(params), np.zeros(5), False, 20.0, 2.0)
        model = SARIMAX(y, order=order, trend="n")
        exact = model.filter(params)
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


@pytest.mark.parametrize(
    "values", [np.full(200, 5.0), np.full(200, np.nan), np.zeros(3), np.r_[np.full(190, np.nan), np.ones(10)]]
)
def test_arima_survives_constant_empty_and_short_series(values: np.ndarray) -> None:
    fitted = arima.fit(values, 0, STEP_MS, 12)
    if fitted is not None:
        mean, deviation = StateSpace(fitted.tables()).forecast(200 * STEP_MS, STEP_MS, 12)
        assert np.isfinite(mean).all()
        assert np.isfinite(deviation).all()
        np.testing.assert_allclose(mean, 5.0, atol=0.01)


def _cases() -> list[Case]:
    cases = []
    for i in range(30):
        hot = i % 2 == 0
        seen = "symptom:temperature:high" if hot else "symptom:vibration:high"
        done = "action:clean-filter" if hot else "action:replace-bearing"
        cases.append(Case(time_ms=i * 3_600_000, profile=(seen, "type:pump", f"machine:P-{i % 3}"), items={done: 1.0}))
    return cases


def test_neighbours_offer_what_was_done_before_and_only_actions_and_parts() -> None:
    fitted = collaborative.fit(_cases(), CollaborativeSettings())
    score = fitted.scores({"symptom:vibration:high": 1.0, "type:pump": 1.0, "machine:P-new": 1.0})
    best = fitted.items[int(np.argmax(score))]
    assert best == "action:replace-bearing"
    assert all(score[i] == 0 for i, name in enumerate(fitted.items) if not name.startswith(("action:", "part:")))


def test_a_rejected_item_sinks_and_its_correction_rises() -> None:
    profile = {"symptom:vibration:high": 1.0, "type:pump": 1.0, "machine:P-1": 1.0}
    before = collaborative.fit(_cases(), CollaborativeSettings())
    answers = [
        Case(
            31 * 3_600_000,
            tuple(profile),
            {"action:replace-bearing": -1.0, "action:align-shaft": 1.0},
            source="answer",
        )
    ] * 8
    after = collaborative.fit([*_cases(), *answers], CollaborativeSettings())
    old, new = before.scores(profile), after.scores(profile)
    bearing = "action:replace-bearing"
    assert new[after.items.index(bearing)] < old[before.items.index(bearing)]
    assert after.items[int(np.argmax(new))] == "action:align-shaft"


def test_popularity_counts_only_what_was_right() -> None:
    cases = [
        Case(1, ("type:pump",), {"part:a": 1.0, "part:b": -1.0}),
        Case(2, ("type:pump",), {"part:c": 1.0, "part:a": 1.0}),
    ]
    assert collaborative.popularity(cases) == ["part:a", "part:c"]
