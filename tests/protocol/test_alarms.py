"""A limit keeps to the wanted false alarms; a detector finds jumps, shifts and bursts, and remembers through a restart."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from protocol.alarms import (
    DetectorState,
    KnownValues,
    SignalDetector,
    SurpriseMemory,
    alarm_limit,
    average_run_length,
    run_length,
)


@pytest.mark.parametrize("slack", [2.0, 5.0])
@pytest.mark.parametrize("wanted", [400.0, 2000.0])
def test_the_limit_keeps_the_wanted_run_length_under_uniform_p_values(slack: float, wanted: float) -> None:
    limit, rng = alarm_limit(wanted, slack), np.random.default_rng(1)
    sums, alarms, steps, charts = np.zeros(500), 0, 4000, 500
    for _ in range(steps):
        sums = np.maximum(0.0, sums + rng.exponential(size=charts) - slack)
        alarms += int((sums > limit).sum())
        sums[sums > limit] = 0.0
    assert steps * charts / alarms == pytest.approx(wanted, rel=0.1)
    assert average_run_length(limit, slack) == pytest.approx(wanted, rel=1e-3)


def test_a_rate_that_the_slack_alone_keeps_needs_no_limit() -> None:
    assert alarm_limit(100.0, 5.0) == 0.0
    assert average_run_length(0.0, 5.0) == pytest.approx(math.exp(5))


def test_a_machines_signals_share_its_false_alarms() -> None:
    assert run_length(0.5, 4, 60_000) == 4 * run_length(0.5, 1, 60_000)
    assert run_length(0.5, 1, 60_000) == 2 * 30 * 24 * 60


@pytest.mark.parametrize("law", ["normal", "laplace", "lognormal"])
def test_independent_errors_of_any_law_alarm_about_as_often_as_wanted(law: str) -> None:
    rng = np.random.default_rng(3)
    errors = {"normal": rng.normal, "laplace": rng.laplace, "lognormal": rng.lognormal}[law](size=40_000)
    detector = SignalDetector(500.0, cluster_buckets=50)
    alarms = sum(detector.update(float(e)) is not None for e in errors)
    wanted = 40_000 / 500
    assert wanted / 5 <= alarms <= 3 * wanted, f"{alarms} alarms; one-sided errors use half of what is allowed"


def calm(detector: SignalDetector, buckets: int, seed: int = 5) -> None:
    for error in np.random.default_rng(seed).normal(size=buckets):
        detector.update(float(error))


def test_a_jump_is_told_at_once_with_its_side() -> None:
    detector = SignalDetector(10_000.0)
    calm(detector, 600)
    told = [detector.update(-12.0) for _ in range(3)]
    alarm = next(a for a in told if a is not None)
    assert alarm.side == -1
    assert 1 <= alarm.buckets <= 3


def test_a_burst_of_middling_errors_is_told_though_none_stands_out() -> None:
    detector = SignalDetector(10_000.0, cluster_buckets=50)
    calm(detector, 1500)
    rng = np.random.default_rng(9)
    told = [detector.update(float(e)) for e in 2.2 * rng.choice([-1, 1], 60)]
    assert any(told)


def test_a_value_between_two_usual_levels_is_told_though_no_error_is_large() -> None:
    detector, rng = SignalDetector(10_000.0), np.random.default_rng(6)
    for low in rng.random(1500) < 0.5:
        assert detector.update(float((-4.0 if low else 4.0) + 0.05 * rng.normal()), 10.0) is None
    assert any(detector.update(0.0, 10.0) for _ in range(2))


def test_a_level_that_was_seen_before_is_not_new() -> None:
    known = KnownValues()
    for value in [1.0, 2.0, 9.0] * 50:
        known.learn(value)
    assert [known.distance(v) for v in (1.0, 2.5, 9.0, 12.0)] == [0.0, 0.5, 0.0, 3.0]


def test_known_values_are_bounded_and_keep_both_ends_and_the_rare() -> None:
    known, rng = KnownValues(most=16), np.random.default_rng(3)
    for value in [-100.0, 55.0, 200.0, *rng.normal(size=3000)]:
        known.learn(float(value))
    kept = known.state()
    assert len(kept) == 16
    assert kept == sorted(kept)
    assert {-100.0, 55.0, 200.0} <= set(kept)


def test_known_values_that_are_no_numbers_are_left_aside() -> None:
    known = KnownValues()
    known.restore([3.0, math.nan, 1.0, math.inf])
    assert known.state() == [1.0, 3.0]
    assert KnownValues().distance(5.0) == 0.0


def test_a_state_from_before_values_were_known_is_taken_up_without_alarm() -> None:
    one, other = SignalDetector(10_000.0), SignalDetector(10_000.0)
    calm(one, 1500)
    other.restore(msgspec.structs.replace(one.state(), known=[], distances=None))
    assert not any(other.update(float(e)) for e in np.random.default_rng(7).normal(size=300))


def test_what_was_learned_survives_a_restart_to_the_last_bit() -> None:
    one, other = SignalDetector(2000.0), SignalDetector(2000.0)
    calm(one, 400)
    one.update(4.0)
    other.restore(msgspec.json.decode(msgspec.json.encode(one.state()), type=DetectorState))
    errors = np.random.default_rng(8).normal(size=300) * 2
    assert [one.update(float(e)) for e in errors] == [other.update(float(e)) for e in errors]
    assert one.state() == other.state()


def test_a_state_of_another_layout_is_left_aside() -> None:
    memory = SurpriseMemory()
    memory.learn(1.0)
    before = memory.state()
    memory.restore(msgspec.structs.replace(before, above=[1.0], below=[2.0]))
    assert memory.state() == before


def test_memory_is_bounded_and_a_far_score_surprises_more() -> None:
    memory = SurpriseMemory(buckets=500)
    for score in np.random.default_rng(2).normal(size=5000):
        memory.learn(float(score))
    state = memory.state()
    assert len(state.above) + len(state.below) <= 256
    known = state.total / state.weight
    assert known == pytest.approx(500, rel=0.05)
    surprises = [memory.surprise(s) for s in (0.5, 1.5, 3.0, 6.0, 1e9)]
    assert surprises == sorted(surprises)
    assert all(math.isfinite(s) for s in surprises)


def test_a_known_fault_can_be_kept_from_teaching() -> None:
    taught, untaught = SignalDetector(1e9), SignalDetector(1e9)
    for detector in (taught, untaught):
        calm(detector, 400)
        for _ in range(100):
            detector.update(9.0, teaches=detector is taught)
    assert untaught.spread < taught.spread
    assert untaught.state().errors.seen < taught.state().errors.seen


@pytest.mark.parametrize("value", [0.0, 7.0, -1e12])
def test_a_constant_never_alarms(value: float) -> None:
    detector = SignalDetector(500.0)
    assert not any(detector.update(0.0, value) for _ in range(2000))


def test_missing_and_infinite_errors_are_skipped() -> None:
    detector = SignalDetector(500.0)
    calm(detector, 200)
    before = detector.state()
    assert detector.update(math.nan) is None
    assert detector.update(math.inf) is None
    assert detector.update(1e308, 1e308) is None
    assert detector.state() == before


def test_values_as_large_as_numbers_go_are_told_and_break_nothing() -> None:
    detector = SignalDetector(500.0)
    calm(detector, 400)
    told = [detector.update(error) for error in (1e308, -1e308, 1e308)]
    assert any(told)
    assert detector.update(0.5) is None
