"""A monitor's statistics are sums of its signals' contributions; a bundle that does not fit is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.errors import BadBundle, Refused
from protocol.tables import Monitor, Tables
from server.algorithms import monitor
from server.algorithms.monitor import MonitorSettings


def normal(rows: int, seed: int = 1) -> np.ndarray:
    """Four signals; the first two move together."""
    rng = np.random.default_rng(seed)
    load = rng.normal(size=rows)
    return np.c_[
        load + 0.1 * rng.normal(size=rows), 50 + 5 * load, rng.normal(size=rows), 3 + 0.2 * rng.normal(size=rows)
    ]


@pytest.fixture(params=[0, 2])
def fitted(request: pytest.FixtureRequest) -> monitor.FittedMonitor:
    return monitor.fit(normal(600), MonitorSettings(60_000, components=request.param))


def test_contributions_sum_exactly_to_each_statistic(fitted: monitor.FittedMonitor) -> None:
    live = Monitor(fitted.tables)
    for row in normal(50, 7) * 1.3:
        live.step(row)
        for name, value in zip(("t2", "q", "farthest"), live.statistics(), strict=True):
            np.testing.assert_allclose(live.contributions(name).sum(), value, rtol=1e-9, atol=1e-12)


def test_shares_sum_to_the_watched_statistics_over_their_limits() -> None:
    live = Monitor(monitor.fit(normal(600), MonitorSettings(60_000, components=2)).tables)
    live.step(normal(1, 2)[0] + 5)
    t2, q, _ = live.statistics()
    np.testing.assert_allclose(live.shares().sum(), t2 / live.limits[0] + q / live.limits[1], rtol=1e-12)
    with pytest.raises(ValueError, match="no statistic"):
        live.contributions("z")


def test_t2_and_q_share_the_whole_distance() -> None:
    everything = monitor.fit(normal(600), MonitorSettings(60_000, components=4))
    live = Monitor(everything.tables)
    for row in normal(30, 5):
        live.step(row)
    t2, q, _ = live.statistics()
    assert q == pytest.approx(0.0, abs=1e-12)
    assert t2 > 0


def test_a_shift_alarms_ends_and_names_its_signal(fitted: monitor.FittedMonitor) -> None:
    live = Monitor(fitted.tables)
    rows = normal(400, 3)
    assert not any(_alarm(live, row) for row in rows)
    rows[:, 2] += 8
    assert any([_alarm(live, row) for row in rows][:40])
    assert int(np.argmax(live.shares())) == 2
    assert not [_alarm(live, row) for row in normal(200, 4)][-1]


def test_signals_that_part_company_are_found_though_each_is_in_its_range() -> None:
    live = Monitor(monitor.fit(normal(2000), MonitorSettings(60_000, components=2)).tables)
    rows = normal(300, 6)
    rows[:, 0] += 1.5
    rows[:, 1] -= 7.5
    assert any(_alarm(live, row) for row in rows)


def test_a_missing_value_leaves_its_level_where_it_was(fitted: monitor.FittedMonitor) -> None:
    live = Monitor(fitted.tables)
    live.step(normal(1, 2)[0])
    before = live.level
    assert np.isfinite(live.step(np.array([np.nan, 60.0, np.nan, np.inf])))
    after = live.level
    np.testing.assert_array_equal(after[[0, 2, 3]], before[[0, 2, 3]])
    assert after[1] != before[1]


def test_golden_answers_move_no_state(fitted: monitor.FittedMonitor) -> None:
    live = Monitor(fitted.tables)
    live.step(normal(1, 2)[0])
    before = live.z.copy()
    answers = live.golden({"values": normal(5, 9)}, {})
    assert {name: a.shape for name, a in answers.items()} == {"t2": (5,), "q": (5,), "farthest": (5,)}
    np.testing.assert_array_equal(live.z, before)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("scale", np.array([1.0, 0.0, 1.0, 1.0]), "positive"),
        ("centre", np.array([1.0, np.nan, 1.0, 1.0]), "NaN"),
        ("limits", np.array([0.0, 0.0, 0.0]), "limits"),
        ("limits", np.array([1.0, 0.0, 1.0]), "limits"),
        ("smoothing", np.array([0.0]), "smoothing"),
        ("loadings", np.ones((1, 4)), "variance"),
        ("variance", np.ones(1), "variance"),
        ("release", np.array([1.5]), "release"),
    ],
)
def test_a_monitor_that_does_not_fit_is_refused(name: str, value: np.ndarray, words: str) -> None:
    tables: Tables = dict(monitor.fit(normal(600), MonitorSettings(60_000)).tables)
    tables[name] = value
    with pytest.raises(BadBundle, match=words):
        Monitor(tables)


def test_loadings_must_be_orthonormal() -> None:
    tables: Tables = dict(monitor.fit(normal(600), MonitorSettings(60_000, components=1)).tables)
    tables["loadings"] = np.asarray(tables["loadings"], dtype=np.float64) * 2
    with pytest.raises(BadBundle, match="orthonormal"):
        Monitor(tables)


def test_signals_that_drift_stand_still_or_are_absent_are_left_out() -> None:
    rows = np.c_[normal(600), np.linspace(0, 9, 600), np.full(600, 5.0), np.full(600, np.nan)]
    rows[100:150] = np.nan
    assert monitor.fit(rows, MonitorSettings(60_000)).kept == [0, 1, 2, 3]


def test_too_little_or_nothing_that_varies_is_refused() -> None:
    for rows in (normal(20), np.full((300, 3), 1.0), np.full((300, 3), np.nan), np.zeros((0, 3))):
        with pytest.raises(Refused):
            monitor.fit(rows, MonitorSettings(60_000))


def test_more_wanted_false_alarms_lower_the_limit() -> None:
    few, many = (
        monitor.fit(normal(600), MonitorSettings(60_000, false_alarms_per_machine_month=rate)).tables["limits"]
        for rate in (0.5, 500.0)
    )
    assert float(np.asarray(few)[2]) > float(np.asarray(many)[2])


def test_independent_signals_keep_about_the_wanted_rate() -> None:
    rng = np.random.default_rng(0)
    fitted = monitor.fit(rng.normal(size=(4000, 4)), MonitorSettings(60_000, false_alarms_per_machine_month=43.2))
    live, alarms, on = Monitor(fitted.tables), 0, False
    for row in rng.normal(size=(40_000, 4))[:, fitted.kept]:
        live.step(row)
        alarms, on = alarms + (live.alarm and not on), live.alarm
    assert alarms <= 120  # 40 wanted: one in 1,000 buckets


def _alarm(live: Monitor, row: np.ndarray) -> bool:
    live.step(row)
    return live.alarm
