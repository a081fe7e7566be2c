"""Features of risk: the same on both sides, and blind to the future."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import Refused
from protocol.event_features import HOUR_MS, EventSpec, MachineLog, ahead, expected_hours, state, within_horizon
from protocol.order_lines import LateSpec, OrderLines, drift_offsets, late_features
from protocol.physics import Formula, Law, with_physics

SPEC = EventSpec(errors=["e1", "e2"], components=["pump", "seal"], models=["A", "B"])
LINES = LateSpec(keys=[["vendor"], ["route"], ["vendor", "route"]], numbers=["quantity"])


def log(error_h: list[int], replaced_h: list[int], model: str = "A") -> MachineLog:
    errors, parts = ["e1", "e2"] * len(error_h), ["pump", "seal"] * len(replaced_h)
    return MachineLog(
        error_ms=np.array(error_h, dtype=np.int64) * HOUR_MS,
        errors=errors[: len(error_h)],
        replaced_ms=np.array(replaced_h, dtype=np.int64) * HOUR_MS,
        replaced=parts[: len(replaced_h)],
        model=model,
        age_years=7.0,
    )


def column(rows: np.ndarray, name: str) -> np.ndarray:
    return rows[:, SPEC.features.index(name)]


hours = st.lists(st.integers(0, 400), max_size=12)


@settings(max_examples=50, deadline=None)
@given(hours, hours, hours, hours, st.integers(1, 400))
def test_what_comes_after_an_instant_changes_nothing_of_it(
    errors: list[int], parts: list[int], later_errors: list[int], later_parts: list[int], now: int
) -> None:
    asked = np.array([now * HOUR_MS], dtype=np.int64)
    before = state(log([h for h in errors if h <= now], [h for h in parts if h < now]), asked, SPEC)
    known = log([h for h in errors if h <= now], [h for h in parts if h < now])
    future_e, future_p = [h + now + 1 for h in later_errors], [h + now for h in later_parts]
    with_future = MachineLog(
        np.r_[known.error_ms, np.array(future_e, dtype=np.int64) * HOUR_MS],
        [*known.errors, *["e1"] * len(future_e)],
        np.r_[known.replaced_ms, np.array(future_p, dtype=np.int64) * HOUR_MS],
        [*known.replaced, *["seal"] * len(future_p)],
        known.model,
        known.age_years,
    )
    np.testing.assert_array_equal(state(with_future, asked, SPEC), before)


def test_the_repair_that_a_failure_caused_is_not_known_at_the_failure() -> None:
    rows = state(log([], [50, 60]), np.array([50, 51, 60, 61]) * HOUR_MS, SPEC)
    np.testing.assert_array_equal(column(rows, "hours since pump was replaced"), [np.nan, 1, 10, 11])
    np.testing.assert_array_equal(column(rows, "hours since any replacement"), [np.nan, 1, 10, 1])


def test_an_error_counts_from_its_stamp_until_its_window_has_passed() -> None:
    rows = state(log([10], []), np.array([9, 10, 33, 34]) * HOUR_MS, SPEC)
    np.testing.assert_array_equal(column(rows, "e1 in the last 24 h"), [0, 1, 1, 0])
    np.testing.assert_array_equal(column(rows, "hours since e1"), [np.nan, 0, 23, 24])


def test_an_unknown_model_or_error_is_missing_and_a_torn_log_is_refused() -> None:
    strange = MachineLog(np.array([HOUR_MS]), ["e9"], np.zeros(0, dtype=np.int64), [], model="Z")
    rows = state(strange, np.array([2 * HOUR_MS]), SPEC)
    assert np.isnan(column(rows, "model")).all()
    assert column(rows, "e1 in the last 24 h")[0] == 0
    with pytest.raises(Refused, match="one name for each stamp"):
        state(MachineLog(np.array([1]), [], np.zeros(0, dtype=np.int64), []), np.array([2]), SPEC)


def test_hazards_of_steps_become_a_chance_and_a_mean_time() -> None:
    hazard = np.array([[[0.0, 0.5], [1.0, 0.5], [0.3, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(within_horizon(hazard), [[1.0, 0.75]])
    np.testing.assert_allclose(expected_hours(hazard, 12), [[18.0, (0.5 * 6 + 0.25 * 18) / 0.75]])
    assert ahead(np.zeros((2, 3)), SPEC)[:, -1].tolist() == [12, 24, 36, 48] * 2


def test_physics_is_derived_and_a_gap_stays_a_gap() -> None:
    formulas = [
        Formula("dT", Law.DIFFERENCE, ["hot", "cold"]),
        Formula("power", Law.POWER, ["torque", "speed"]),
        Formula("wear", Law.PRODUCT, ["dT", "torque"]),
    ]
    x, names = with_physics(
        np.array([[310.0, 300.0, 10.0, 60.0], [310, np.nan, 10, 60]]), ["hot", "cold", "torque", "speed"], formulas
    )
    assert names[-3:] == ["dT", "power", "wear"]
    np.testing.assert_allclose(x[0, -3:], [10.0, 20.0 * np.pi, 100.0])
    assert np.isnan(x[1, [4, 6]]).all()
    for wrong in (Formula("x", Law.PRODUCT, ["hot", "nothing"]), Formula("hot", Law.PRODUCT, ["hot", "cold"])):
        with pytest.raises(Refused):
            with_physics(np.zeros((1, 2)), ["hot", "cold"], [wrong])
    with pytest.raises(Refused):
        with_physics(np.zeros((1, 3)), ["hot", "cold"], [])


def lines(scheduled: list[int], delay: list[float], vendor: list[str]) -> OrderLines:
    day = np.array(scheduled, dtype=np.int64)
    return OrderLines(
        ids=[f"L{i}" for i in range(len(day))],
        fields={"vendor": vendor, "route": ["sea"] * len(day)},
        numbers={"quantity": np.full(len(day), 10.0)},
        scheduled_day=day,
        delivered_day=day + np.array(delay),
    )


delays = st.sampled_from([-3.0, 0.0, 5.0, 40.0, float("nan")])
books = st.lists(st.tuples(st.integers(0, 60), delays, st.sampled_from("ab")), min_size=1, max_size=15)


@settings(max_examples=50, deadline=None)
@given(books, st.integers(0, 70), delays)
def test_an_order_line_is_judged_by_what_was_due_before_its_day(
    book: list[tuple[int, float, str]], day: int, other: float
) -> None:
    asked = lines([day], [0.0], ["a"])
    past = lines([d for d, _, _ in book], [w for _, w, _ in book], [v for _, _, v in book])
    changed_delay = [w if d < day else other for d, w, _ in book]
    changed = lines([d for d, _, _ in book], changed_delay, [v for _, _, v in book])
    np.testing.assert_array_equal(late_features(past, asked, LINES), late_features(changed, asked, LINES))
    unfinished = [w if d + (w if w == w else 1e9) < day else (np.nan if w != w or w > 0 else w) for d, w, _ in book]
    open_book = lines([d for d, _, _ in book], unfinished, [v for _, _, v in book])
    np.testing.assert_array_equal(late_features(past, asked, LINES), late_features(open_book, asked, LINES))


def test_an_unknown_vendor_is_judged_as_any_vendor_and_nothing_is_nan_but_unknown_numbers() -> None:
    past = lines([1, 2, 3, 4], [0, 9, 9, 0], ["a", "b", "b", "a"])
    x = late_features(past, lines([10, 10], [0, 0], ["new", "b"]), LINES)
    named = dict(zip(LINES.features, x.T, strict=True))
    assert named["late share, vendor, 90 days"][0] == pytest.approx(named["late share, all, 90 days"][0])
    assert named["late share, vendor, 90 days"][1] > named["late share, all, 90 days"][1]
    assert np.isfinite(x).all()
    strange = OrderLines(
        ["x"], {"vendor": ["a"], "route": ["air"]}, {"quantity": np.array([-5.0])}, np.array([9]), np.array([np.nan])
    )
    assert np.isnan(late_features(past, strange, LINES)[0, -1])
    assert np.isfinite(late_features(past.rows(np.zeros(0, dtype=np.int64)), strange, LINES)[0, :-1]).all()


def test_order_lines_of_unequal_columns_or_without_a_needed_one_are_refused() -> None:
    with pytest.raises(Refused):
        OrderLines(["x"], {"vendor": []}, {}, np.array([9]), np.array([9.0]))
    bare = OrderLines(["x"], {}, {}, np.array([9]), np.array([9.0]))
    with pytest.raises(Refused, match="quantity"):
        late_features(bare, bare, LINES)


def test_the_drift_shift_brings_recent_lines_to_what_they_were() -> None:
    raw = np.full(400, -2.0)
    late = np.arange(400) % 4 == 0
    scheduled = np.arange(400, dtype=np.int64)[::-1]
    days = np.array([0, 1, 400, 1000])
    shift = drift_offsets(raw, late, scheduled, days, 400, 1.0)
    assert float(0.5 * (1 + np.tanh(0.5 * (-2.0 + shift[2])))) == pytest.approx(0.25, abs=0.01)
    assert shift[0] == 0.0
    assert -0.2 < shift[1] < 0.0  # one line that was in time says little
    assert shift[3] == 0.0  # all is long past
    assert drift_offsets(raw[:0], late[:0], scheduled[:0], days, 9, 1.0).tolist() == [0.0] * 4
