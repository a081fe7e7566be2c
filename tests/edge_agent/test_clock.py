"""Time goes on, in order, whatever the machine's clock says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.clock import CONFIRMED_AFTER_S, RELEASED_MS, Kept, SystemClock, Timekeeper
from protocol.clocks import ClockConfidence

HOUR_S = 3600
NOW_MS = 1_790_000_000_000
_spec = importlib.util.spec_from_file_location("factory", Path(__file__).parent.parent / "factory.py")
assert _spec is not None
assert _spec.loader is not None
factory = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("factory", factory)
_spec.loader.exec_module(factory)


def keeper_at(
    path: Path, ms: int = NOW_MS, *, disciplined: bool = False, stamped_ms: int = 0
) -> tuple[Any, Timekeeper]:
    clock = factory.FakeClock(ms=ms, disciplined=disciplined)
    keeper = Timekeeper(clock, path / "clock.json")
    keeper.not_before(stamped_ms)
    return clock, keeper


def wait(clock: Any, keeper: Timekeeper, seconds: float) -> None:
    for _ in range(int(seconds)):
        clock.pass_s(1)
        assert keeper.check() is None
        keeper.keep()


def test_the_kernels_word_makes_it_synced_and_its_silence_holdover(tmp_path: Path) -> None:
    clock, keeper = keeper_at(tmp_path)
    assert keeper.check() is None
    assert keeper.confidence is ClockConfidence.HOLDOVER
    clock.disciplined = True
    wait(clock, keeper, 6)
    assert keeper.confidence is ClockConfidence.SYNCED
    clock.disciplined = False
    wait(clock, keeper, 6)
    assert keeper.confidence is ClockConfidence.HOLDOVER
    assert keeper.now_ms() == clock.now_ms()


def test_a_boot_at_1970_runs_on_from_the_last_good_time_and_is_moved_when_the_clock_is_back(tmp_path: Path) -> None:
    clock, keeper = keeper_at(tmp_path, disciplined=True)
    wait(clock, keeper, 120)
    good_ms = keeper.now_ms()
    keeper.keep(at_once=True)
    clock, keeper = keeper_at(tmp_path, ms=5_000)
    assert keeper.confidence is ClockConfidence.UNKNOWN
    first_ms = keeper.now_ms()
    assert first_ms == good_ms + 1
    wait(clock, keeper, 600)
    clock.jump_s((NOW_MS - 5_000) / 1000 + 9 * HOUR_S)
    clock.disciplined = True
    clock.pass_s(5)
    (shift,) = keeper.check() or []
    assert keeper.confidence is ClockConfidence.SYNCED
    assert keeper.now_ms() == clock.now_ms()
    assert (shift.first_ms, shift.until_ms) == (first_ms, first_ms + 605_001)
    assert first_ms + 605_000 + shift.shift_ms == clock.now_ms()


def test_a_clock_that_was_never_set_begins_at_this_release(tmp_path: Path) -> None:
    _, keeper = keeper_at(tmp_path, ms=0)
    assert keeper.confidence is ClockConfidence.UNKNOWN
    assert keeper.now_ms() == RELEASED_MS + 1


@pytest.mark.parametrize("hours", [5, -5])
def test_a_jump_that_nobody_confirms_is_not_followed(tmp_path: Path, hours: int) -> None:
    clock, keeper = keeper_at(tmp_path, disciplined=True)
    wait(clock, keeper, 10)
    clock.disciplined = False
    wait(clock, keeper, 6)
    before_ms = keeper.now_ms()
    clock.jump_s(hours * HOUR_S)
    wait(clock, keeper, 100)
    assert keeper.now_ms() == before_ms + 100_000
    assert keeper.jumps_not_followed == 1
    assert keeper.confidence is ClockConfidence.HOLDOVER


@pytest.mark.parametrize("hours", [5, -5])
def test_a_synced_clock_that_contradicts_itself_is_believed_after_half_a_minute(tmp_path: Path, hours: int) -> None:
    clock, keeper = keeper_at(tmp_path, disciplined=True)
    wait(clock, keeper, 60)
    clock.jump_s(hours * HOUR_S)
    wait(clock, keeper, CONFIRMED_AFTER_S)
    assert keeper.confidence is ClockConfidence.HOLDOVER
    clock.pass_s(1)
    assert keeper.check() == []  # what was stamped had been confirmed: it stays
    assert keeper.now_ms() == clock.now_ms()
    assert keeper.confidence is ClockConfidence.SYNCED


def test_a_clock_set_to_local_time_is_put_right_with_all_that_it_stamped(tmp_path: Path) -> None:
    clock, keeper = keeper_at(tmp_path, ms=NOW_MS + 8 * HOUR_S * 1000)
    wait(clock, keeper, 300)
    clock.jump_s(-8 * HOUR_S)
    clock.disciplined = True
    clock.pass_s(5)
    (shift,) = keeper.check() or []
    assert shift.shift_ms == -8 * HOUR_S * 1000
    assert keeper.now_ms() == clock.now_ms()


@pytest.mark.parametrize("seconds", [3, -3])
def test_a_correction_of_seconds_moves_nothing_and_time_never_goes_back(tmp_path: Path, seconds: int) -> None:
    clock, keeper = keeper_at(tmp_path)
    wait(clock, keeper, 60)
    clock.disciplined = True
    clock.jump_s(seconds)
    before_ms = keeper.now_ms()
    for _ in range(1000):
        clock.pass_s(0.01)
        assert keeper.check() is None
        assert keeper.now_ms() >= before_ms
        before_ms = keeper.now_ms()
    assert keeper.now_ms() == clock.now_ms()


def test_the_servers_time_counts_when_two_answers_are_live_and_not_when_they_waited(tmp_path: Path) -> None:
    clock, keeper = keeper_at(tmp_path, ms=0)
    for age in (5000, 4000, 3000):  # all come at once, out of a broker's queue
        keeper.heard_server(NOW_MS - age)
    wait(clock, keeper, 1)
    assert keeper.confidence is ClockConfidence.UNKNOWN
    clock.pass_s(10)
    keeper.heard_server(NOW_MS + 500_000)
    assert keeper.check() is None
    clock.pass_s(5)
    keeper.heard_server(NOW_MS + 505_200)
    (shift,) = keeper.check() or []
    assert keeper.confidence is ClockConfidence.SYNCED
    assert keeper.now_ms() == NOW_MS + 505_200
    assert RELEASED_MS + 1 + 16_000 + shift.shift_ms == NOW_MS + 505_200


def test_two_starts_without_a_clock_keep_their_order(tmp_path: Path) -> None:
    clock, keeper = keeper_at(tmp_path, disciplined=True)
    wait(clock, keeper, 10)
    stamps = [keeper.now_ms()]
    for _ in range(2):
        clock, keeper = keeper_at(tmp_path, ms=0, stamped_ms=stamps[-1])
        wait(clock, keeper, 90)
        stamps += [keeper.now_ms() - 90_000, keeper.now_ms()]
    assert stamps == sorted(set(stamps))
    clock.jump_s((NOW_MS + HOUR_S * 1000) / 1000)
    clock.disciplined = True
    clock.pass_s(5)
    (shift,) = keeper.check() or []
    assert shift.first_ms > stamps[2]  # the first start stays: when it was will never be known
    assert shift.shift_ms > 0


def test_earlier_starts_move_back_with_the_one_that_is_known_to_be_earlier(tmp_path: Path) -> None:
    ahead_ms = NOW_MS + 20 * HOUR_S * 1000
    (tmp_path / "clock.json").write_bytes(b'{"good_ms":%d,"reached_ms":%d,"unsettled":[]}' % (ahead_ms, ahead_ms))
    clock, first = keeper_at(tmp_path, ms=0)
    wait(clock, first, 70)
    clock, second = keeper_at(tmp_path, ms=0, stamped_ms=first.now_ms())
    wait(clock, second, 70)
    clock.jump_s(NOW_MS / 1000)
    clock.disciplined = True
    clock.pass_s(5)
    moved = second.check() or []
    assert [s.shift_ms for s in moved] == [moved[-1].shift_ms] * 2
    assert moved[0].first_ms + moved[0].shift_ms < moved[1].first_ms + moved[1].shift_ms
    assert moved[0].until_ms <= moved[1].first_ms


def test_what_the_plant_says_counts_only_while_nothing_is_known(tmp_path: Path) -> None:
    clock, keeper = keeper_at(tmp_path, ms=0)
    keeper.plant_says(NOW_MS)
    assert keeper.now_ms() == NOW_MS
    assert keeper.confidence is ClockConfidence.UNKNOWN
    clock.jump_s(NOW_MS / 1000 + 100)
    clock.disciplined = True
    clock.pass_s(5)
    first, second = keeper.check() or []
    assert first.first_ms == RELEASED_MS + 1
    assert first.until_ms == second.first_ms == NOW_MS
    assert first.first_ms + first.shift_ms == second.first_ms + second.shift_ms  # the same moment
    keeper.plant_says(NOW_MS + 10**10)
    assert keeper.now_ms() == clock.now_ms()


def test_a_damaged_file_costs_the_last_good_time_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "clock.json").write_bytes(b"\x00\x00")
    clock, keeper = keeper_at(tmp_path)
    assert keeper.now_ms() == clock.now_ms()
    keeper.keep()
    assert Kept().good_ms == 0
    assert b"good_ms" in (tmp_path / "clock.json").read_bytes()


def test_the_machines_own_clock_can_be_asked() -> None:
    clock = SystemClock()
    assert clock.synced() in (True, False)
    assert clock.monotonic_s() <= clock.monotonic_s()
    assert clock.now_ms() > RELEASED_MS


happening = st.one_of(
    st.tuples(st.just("pass"), st.floats(0.001, 400)),
    st.tuples(st.just("jump"), st.floats(-6 * HOUR_S, 6 * HOUR_S)),
    st.tuples(st.just("slip"), st.floats(-4, 4)),
    st.tuples(st.just("disciplined"), st.sampled_from([0.0, 1.0])),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(happening, max_size=60), st.sampled_from([0, NOW_MS]))
def test_time_goes_back_only_in_a_correction_and_the_moved_stamps_keep_their_order(
    tmp_path_factory: pytest.TempPathFactory, happenings: list[tuple[str, float]], start_ms: int
) -> None:
    clock, keeper = keeper_at(tmp_path_factory.mktemp("clock"), ms=start_ms)
    stamps: list[int] = []  # as a history would hold them
    last_ms = keeper.now_ms()
    for what, amount in happenings:
        if what == "pass":
            clock.pass_s(amount)
        elif what == "disciplined":
            clock.disciplined = bool(amount)
        else:
            clock.jump_s(amount)
        shifts = keeper.check()
        if shifts is None:
            assert keeper.now_ms() >= last_ms
        else:
            moved = [next((t + s.shift_ms for s in shifts if s.first_ms <= t < s.until_ms), t) for t in stamps]
            if shifts and len(moved) > 1 and all(any(s.first_ms <= t < s.until_ms for s in shifts) for t in stamps):
                assert moved == sorted(moved)
                assert moved[-1] <= keeper.now_ms() + 5_000
            stamps = moved
        last_ms = keeper.now_ms()
        stamps.append(last_ms)
