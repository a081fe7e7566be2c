"""What a remaining-life model sees is the same wherever it is computed, and nothing that was not read becomes a number."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadMessage, Reason
from protocol.life_windows import Life, LifeAnswer, LifeSpec, LifeTrack, blank, read_answer, windows_of

SPEC = LifeSpec(
    signals=["vibration", "temperature"],
    settings=["load"],
    looks=4,
    stride=2,
    smoothing=0.5,
    first_rows=3,
    least_rows=2,
    cap=40.0,
    bins=8,
    setting_center=[0.5],
    setting_scale=[0.5],
    conditions=[[-1.0], [1.0]],
    mean=[[1.0, 20.0], [5.0, 60.0]],
    scale=[[0.5, 2.0], [1.0, 4.0]],
)


def life(rows: int, seed: int = 1) -> Life:
    rng = np.random.default_rng(seed)
    load = rng.integers(0, 2, rows).astype(float)
    base = np.where(load[:, None] > 0, [5.0, 60.0], [1.0, 20.0])
    return Life(
        "u", base + rng.normal(size=(rows, 2)) * np.where(load[:, None] > 0, [1.0, 4.0], [0.5, 2.0]), load[:, None]
    )


def test_a_window_knows_nothing_of_what_comes_after_it() -> None:
    whole, cut = life(30), life(30)
    at = np.array([11], dtype=np.int64)
    early = Life("u", cut.signals[:12], cut.settings[:12])
    assert np.array_equal(windows_of(whole, SPEC, at)[0], windows_of(early, SPEC, at)[0])


def test_each_operating_condition_is_scaled_by_its_own_figures() -> None:
    x, usable = windows_of(life(400), SPEC, np.array([399], dtype=np.int64))
    assert usable.all()
    assert x.shape == (1, 4, 6)
    assert np.abs(x[0, :, :2]).max() < 3.0  # without conditions a change of load would be a change of tens


def test_a_life_of_one_row_is_padded_and_says_that_it_is_too_short() -> None:
    x, usable = windows_of(life(1), SPEC, np.array([0], dtype=np.int64))
    assert np.isfinite(x).all()
    assert not usable[0]
    assert x[0, :, -1].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_gaps_are_carried_over_and_a_silent_machine_is_not_usable() -> None:
    rows = life(40)
    gappy = rows.signals.copy()
    gappy[::3] = np.nan
    gappy[:, 1] = np.nan
    x, usable = windows_of(Life("u", gappy, rows.settings), SPEC, np.array([39], dtype=np.int64))
    assert np.isfinite(x).all()
    assert not usable[0]  # a third of one signal and all of the other are missing
    assert np.abs(x[0, :, 1]).max() == 0.0
    silent = Life("u", np.full((9, 2), np.nan), rows.settings[:9])
    assert not windows_of(silent, SPEC, np.array([8], dtype=np.int64))[1][0]


def test_a_broken_sensor_is_clipped() -> None:
    rows = life(10)
    rows.signals[5] = 1e12
    assert np.abs(windows_of(rows, SPEC, np.array([9], dtype=np.int64))[0]).max() <= 20.0


def test_an_unread_setting_keeps_the_condition_before_it() -> None:
    track = LifeTrack(SPEC)
    track.step(np.array([5.0, 60.0]), np.array([1.0]))
    track.step(np.array([5.0, 60.0]), np.array([np.nan]))
    assert np.abs(track.window()[:, :2]).max() < 1e-6


def test_a_blanked_signal_is_average_and_as_at_its_beginning() -> None:
    x, _ = windows_of(life(20), SPEC, np.array([19], dtype=np.int64))
    made = blank(x, SPEC, 1)
    assert not made[..., [1, 3]].any()
    assert np.array_equal(made[..., [0, 2, 4, 5]], x[..., [0, 2, 4, 5]])


def test_a_life_without_a_row_has_no_window() -> None:
    with pytest.raises(BadMessage):
        LifeTrack(SPEC).window()
    x, usable = windows_of(Life("u", np.zeros((0, 2)), np.zeros((0, 1))), SPEC, np.zeros(0, dtype=np.int64))
    assert x.shape == (0, 4, 6)
    assert usable.shape == (0,)


@pytest.mark.parametrize(
    "wrong",
    [{"mean": [[1.0, 2.0]]}, {"scale": [[0.0, 1.0], [1.0, 1.0]]}, {"setting_scale": []}, {"mean": [[np.nan] * 2] * 2}],
)
def test_tables_that_do_not_fit_their_names_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadMessage):
        LifeTrack(msgspec.structs.replace(SPEC, **wrong))


@given(st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_a_survival_curve_never_rises_and_its_quantiles_are_ordered(values: list[float]) -> None:
    told = read_answer(np.array([values]), SPEC)
    assert (np.diff(told.survival) <= 0).all()
    found = [float(told.quantile(level)[0]) for level in (0.1, 0.5, 0.9)]
    assert found == sorted(found)
    assert 0.0 <= told.expected[0] <= SPEC.cap
    assert 0.0 <= told.fails_within(10.0)[0] <= told.fails_within(20.0)[0] <= 1.0


def test_a_certain_failure_is_read_off_the_curve() -> None:
    told = LifeAnswer(np.array([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]), SPEC.edges)
    assert told.quantile(0.5)[0] == pytest.approx(12.5)
    assert told.expected[0] == pytest.approx(12.5)
    never = LifeAnswer(np.ones((1, 8)), SPEC.edges)
    assert never.quantile(0.9)[0] == SPEC.cap
    with pytest.raises(BadMessage):
        never.quantile(1.0)


def test_an_answer_that_is_not_a_curve_is_refused() -> None:
    with pytest.raises(BadMessage) as refused:
        read_answer(np.full((1, 8), np.nan), SPEC)
    assert refused.value.reason is Reason.NOT_FINITE
    with pytest.raises(BadMessage):
        read_answer(np.zeros((1, 7)), SPEC)
