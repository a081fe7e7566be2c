"""The gateway's forecaster: intervals that hold, the honest choice of who answers, and what survives restarts and swaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_agent.runtimes import LoadedModel
from edge_agent.skills.forecast import COMBINED, MIN_SCORED, NAIVE, ForecastSkill
from edge_agent.skills.forecast.answers import Answer
from edge_agent.skills.forecast.choose import combine, lowest, promised_shares, shares
from edge_agent.skills.forecast.track import INHERITED
from protocol.bundles import Golden, Lineage, Parity, Passport, Quality, Runtime
from protocol.errors import BadMessage
from protocol.reports import Forecast
from protocol.twin import LiveError, Role
from protocol.windows import Floats, WindowSpec

STEP, HORIZON, KEEP = 1000, 6, 200
PUMP, FAN = ("P-1", "flow"), ("F-1", "speed")
Skill = ForecastSkill


class Graph:
    """An engine that answers with what `says` makes of the scaled window, and a band of +-width."""

    name, inputs, outputs, lengths = "a test", ("x",), ("q",), ()

    def __init__(self, says: Callable[[Floats], Floats], width: float = 0.5) -> None:
        self._says, self._width = says, width

    def run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        middle = self._says(given["x"][0, :, 0])
        q = np.stack([middle - self._width, middle, middle + self._width], axis=1)
        return {"q": q[None].astype(np.float32)}


def model(
    says: Callable[[Floats], Floats],
    slot: str = "forecast.lstm",
    version: int = 1,
    promised: float = 0.5,
    series: tuple[tuple[str, str], ...] = (),
    series_error: tuple[float, ...] = (),
) -> LoadedModel:
    quality = Quality(
        metric="mae_relative_to_naive",
        lower_is_better=True,
        model=promised,
        reference=1.0,
        reference_name="seasonal_naive",
        split="a test",
        n=100,
    )
    passport = Passport(
        slot=slot,
        family="forecast",
        algorithm=slot.removeprefix("forecast."),
        version=version,
        runtime=Runtime.ONNX,
        window=WindowSpec(step_ms=STEP, length=24, horizon=HORIZON),
        levels=[0.1, 0.5, 0.9],
        series=list(series),
        series_error=list(series_error),
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="1", seed=1, trained_ms=1),
        quality=[quality],
        eligible=True,
        verdict="",
        parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound=""),
        golden=Golden(atol=0, rtol=0),
        float_bytes=1,
        packed_bytes=1,
        latency_us=1,
        intended_use="",
        limits="",
    )
    return LoadedModel(passport, f"{version:064d}", session=Graph(says))


def middling(_: Floats) -> Floats:
    """The window's own mean: right for noise around a level."""
    return np.zeros(HORIZON)


def absurd(_: Floats) -> Floats:
    """Nine spreads off."""
    return np.full(HORIZON, 9.0)


def no_history(_key: tuple[str, str], _start: int, buckets: int) -> Floats:
    return np.full(buckets, np.nan)


class Line:
    """Feeds a skill bucket by bucket, and asks it every second one."""

    def __init__(self, skill: Skill, every: int = 2) -> None:
        self.skill, self.every, self.t = skill, every, 0
        self.series: dict[tuple[str, str], Floats] = {}

    def tell(self, values: dict[tuple[str, str], float]) -> list[Forecast]:
        for key in {*self.series, *values}:
            ring = self.series.setdefault(key, np.full(KEEP, np.nan))
            self.series[key] = np.append(ring[1:], values.get(key, np.nan))
        self.skill.observe(self.t * STEP, values)
        self.t += 1
        return self.skill.issue(self.t * STEP, self.series) if self.t % self.every == 0 else []

    def run(self, n: int, seed: int, sizes: dict[tuple[str, str], float]) -> list[Forecast]:
        rng, last = np.random.default_rng(seed), []
        for _ in range(n):
            made = self.tell({key: 50 + size * rng.standard_normal() for key, size in sizes.items()})
            last = made or last
        return last


def skill(season: int = 0) -> Skill:
    return ForecastSkill(step_ms=STEP, horizon=HORIZON, season=season)


def installed(version: int = 1, says: Callable[[Floats], Floats] = middling, role: Role = Role.SERVING) -> Skill:
    made = skill()
    made.install("forecast.lstm", role, model(says, version=version), no_history, 0)
    return made


def error_of(made: Skill, slot: str) -> LiveError:
    return next(e for e in made.live_errors() if e.slot == slot)


def test_every_forecast_carries_both_intervals_and_tells_how_often_they_held() -> None:
    line = Line(skill())
    (forecast,) = line.run(800, 1, {PUMP: 2.0})
    assert forecast.low95 is not None
    assert forecast.high95 is not None
    for low95, low, mean, high, high95 in zip(
        forecast.low95, forecast.low, forecast.mean, forecast.high, forecast.high95, strict=True
    ):
        assert low95 <= low < mean < high <= high95
    assert forecast.coverage is not None
    assert abs(forecast.coverage - 0.8) < 0.06
    assert forecast.coverage_n == 500
    assert forecast.fallback == ""
    assert forecast.model == NAIVE
    error = error_of(line.skill, NAIVE.slot)
    assert abs(error.coverage - 0.8) < 0.03
    assert len(error.by_horizon) == 3


def test_a_model_that_is_better_here_answers_and_one_that_is_not_gives_way_to_the_reference() -> None:
    good = Line(installed(says=middling))
    (forecast,) = good.run(300, 2, {PUMP: 2.0})
    assert forecast.model.algorithm in ("lstm", "combined")
    assert error_of(good.skill, "forecast.lstm").scaled_error < 0.9
    bad = Line(installed(says=absurd))
    (first,) = bad.run(60, 2, {PUMP: 2.0})[-1:]
    assert first.model.slot in ("forecast.lstm", NAIVE.slot)
    (later,) = bad.run(200, 3, {PUMP: 2.0})
    assert later.model == NAIVE


def test_the_passport_decides_until_enough_was_scored_here() -> None:
    made = skill()
    boast = model(absurd, promised=0.9, series=(PUMP, FAN), series_error=(0.4, 1.3))
    made.install("forecast.lstm", Role.SERVING, boast, no_history, 0)
    line = Line(made, every=30)
    by_key = {(f.machine, f.signal): f for f in line.run(30, 4, {PUMP: 1.0, FAN: 1.0})}
    assert by_key[PUMP].model.slot == "forecast.lstm"
    assert by_key[FAN].model == NAIVE
    line.every = 2
    by_key = {(f.machine, f.signal): f for f in line.run(MIN_SCORED, 5, {PUMP: 1.0, FAN: 1.0})}
    assert by_key[PUMP].model == NAIVE


def test_a_combination_names_its_members_and_answers_where_it_is_best() -> None:
    made = skill()
    # two models that are off to opposite sides: their mean is right
    made.install("forecast.lstm", Role.SERVING, model(lambda _: np.full(HORIZON, 1.0)), no_history, 0)
    made.install(
        "forecast.ridge", Role.SERVING, model(lambda _: np.full(HORIZON, -1.0), slot="forecast.ridge"), no_history, 0
    )
    (forecast,) = Line(made).run(400, 6, {PUMP: 2.0})
    assert forecast.model == COMBINED
    assert {m.model.slot for m in forecast.members} == {NAIVE.slot, "forecast.lstm", "forecast.ridge"}
    assert sum(m.weight for m in forecast.members) == pytest.approx(1.0, abs=1e-3)
    assert error_of(made, COMBINED.slot).scaled_error < error_of(made, "forecast.lstm").scaled_error


def test_shares_follow_the_inverse_square_of_errors_and_leave_out_who_is_far_behind() -> None:
    made = shares(np.array([[1.0, 1.0, np.nan], [0.5, 1.0, np.nan], [np.nan, 4.0, np.nan]]))
    np.testing.assert_allclose(made[:, 0], [0.0, 1.0, 0.0])
    np.testing.assert_allclose(made[:, 1], [0.5, 0.5, 0.0])
    np.testing.assert_array_equal(made[:, 2], 0.0)
    assert lowest({"a": np.array([0.9, np.nan, 1.0])}, "r") == ["a", "r", "r"]


def test_shares_of_a_validated_combination_are_taken_from_the_passports_until_they_were_scored_here() -> None:
    def stating(pair: list[float], error: float | None) -> Any:
        return SimpleNamespace(
            model=SimpleNamespace(passport=SimpleNamespace(weights={"P-1/flow": pair}, combined=error))
        )

    whole = [stating([0.5, 0.2], 0.7), stating([0.3, 0.2], 0.7)]
    stated, error = promised_shares(whole, [PUMP, FAN])
    np.testing.assert_allclose(stated[:, 0], [0.2, 0.5, 0.3])
    assert error[0] == 0.7
    assert np.isnan(stated[:, 1]).all()
    part, _ = promised_shares(
        whole[:1], [PUMP]
    )  # a member is a shadow, or has gone: the shares are not what was validated
    assert np.isnan(part).all()
    ones = np.ones((1, 2))
    answers = [Answer(0 * ones, ones), Answer(10 * ones, 2 * ones), Answer(20 * ones, 3 * ones)]
    given, made, as_stated = combine(answers, np.full((3, 1), 1.0), stated[:, :1])
    np.testing.assert_allclose(made.mean, 11.0)
    np.testing.assert_allclose(made.prior, 2.1)
    assert as_stated.all()
    silent = [answers[0], Answer(np.nan * ones, ones), answers[2]]
    given, made, as_stated = combine(silent, np.full((3, 1), 1.0), stated[:, :1])
    np.testing.assert_allclose(given[:, 0], [0.5, 0.0, 0.5])
    assert not as_stated.any()


def test_where_the_reference_is_never_off_no_boast_of_a_passport_counts() -> None:
    line = Line(installed(says=absurd))
    last: list[Forecast] = []
    for _ in range(80):
        last = line.tell({PUMP: 7.0}) or last
    assert [f.model for f in last] == [NAIVE]


def test_a_shadow_is_measured_and_never_shown() -> None:
    line = Line(installed(says=middling, role=Role.SHADOW))
    made = line.run(300, 7, {PUMP: 2.0})
    assert [f.model for f in made] == [NAIVE]
    assert error_of(line.skill, "forecast.lstm").n > 100
    assert all(e.slot != COMBINED.slot for e in line.skill.live_errors())


def test_the_reference_is_the_better_of_last_season_and_last_value() -> None:
    made = ForecastSkill(step_ms=STEP, horizon=HORIZON, season=12)
    line, last = Line(made), []
    for t in range(120):
        last = line.tell({PUMP: 10.0 * np.sin(2 * np.pi * t / 12), FAN: 0.5 * t}) or last
    by_key = {(f.machine, f.signal): f for f in last}
    np.testing.assert_allclose(by_key[PUMP].mean, 10 * np.sin(2 * np.pi * np.arange(120, 126) / 12), atol=1e-6)
    np.testing.assert_allclose(by_key[FAN].mean, 0.5 * 119)  # a season ago was further off


def test_stale_inputs_are_said_and_widen_the_interval() -> None:
    line = Line(skill())
    (fresh,) = line.run(200, 8, {PUMP: 2.0})
    for _ in range(6):
        made = line.tell({FAN: 1.0})
    stale = next(f for f in made if f.machine == "P-1")
    assert stale.stale
    assert stale.fallback == "stale_inputs"
    assert stale.inputs_until_ms == 200 * STEP
    assert stale.high[0] - stale.low[0] > fresh.high[0] - fresh.low[0]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([5.0], "one_value"),
        ([5.0, 5.0, 5.0, 5.0], "constant"),
        ([5.0, 6.0, 5.5], "short_history"),
        ([0.0], "one_value"),
        ([float("nan"), 4.0], "one_value"),
        ([float("inf"), 4.0], "one_value"),
    ],
)
def test_too_little_history_has_a_stated_stopgap_with_a_finite_interval(values: list[float], why: str) -> None:
    made = skill()
    (forecast,) = made.issue(10_000, {PUMP: np.array(values)})
    assert forecast.fallback == why
    numbers = [*forecast.mean, *forecast.low, *forecast.high, *(forecast.low95 or []), *(forecast.high95 or [])]
    assert np.isfinite(numbers).all()
    assert all(low < high for low, high in zip(forecast.low, forecast.high, strict=True))


def test_nothing_observed_is_no_forecast_and_counts_as_a_missing_answer() -> None:
    made = skill()
    assert made.issue(10_000, {PUMP: np.full(50, np.nan), FAN: np.zeros(0)}) == []
    assert made.issue(20_000, {}) == []
    assert (made.health().expected, made.health().results) == (2, 0)


def test_a_horizon_longer_than_the_history_is_answered_with_growing_intervals() -> None:
    made = ForecastSkill(step_ms=STEP, horizon=48, season=24)
    (forecast,) = made.issue(10_000, {PUMP: np.array([1.0, 2.0, 1.5, 2.5, 2.0])})
    assert len(forecast.mean) == 48
    assert forecast.fallback == "short_history"
    assert forecast.high[-1] - forecast.low[-1] > 4 * (forecast.high[0] - forecast.low[0])


def test_a_signal_that_no_model_knows_is_answered_by_the_reference_and_says_so() -> None:
    made = skill()
    made.install("forecast.lstm", Role.SERVING, model(middling), no_history, 0)
    context = np.full(KEEP, np.nan)
    context[-1:-90:-6] = np.arange(15.0)  # four values in its window of 24: too few for it
    (forecast,) = made.issue(10_000, {PUMP: context})
    assert forecast.model == NAIVE
    assert forecast.fallback == "no_model_answer"


def test_a_jump_of_the_clock_loses_what_was_under_way_and_nothing_else() -> None:
    line = Line(skill())
    line.run(200, 9, {PUMP: 2.0})
    before = error_of(line.skill, NAIVE.slot).n
    line.t += 10_000
    (forecast,) = line.run(2, 10, {PUMP: 2.0})
    assert np.isfinite(forecast.high).all()
    assert error_of(line.skill, NAIVE.slot).n == before
    line.run(20, 11, {PUMP: 2.0})
    assert error_of(line.skill, NAIVE.slot).n > before


def test_what_was_learned_survives_a_restart_exactly() -> None:
    first = Line(installed())
    first.run(300, 12, {PUMP: 2.0, FAN: 0.3})
    second = Line(installed())
    second.skill.restore(first.skill.state())
    second.t, second.series = first.t, {key: ring.copy() for key, ring in first.series.items()}
    first.skill._pending.clear()  # forecasts under way are not kept
    expected, got = first.run(40, 13, {PUMP: 2.0, FAN: 0.3}), second.run(40, 13, {PUMP: 2.0, FAN: 0.3})
    assert got == expected
    assert second.skill.live_errors() == first.skill.live_errors()
    assert len(first.skill.state()) < 20_000


def test_a_state_may_come_before_its_models_and_signals_may_come_in_another_order() -> None:
    first = Line(installed())
    first.run(200, 14, {PUMP: 2.0, FAN: 0.3})
    second = skill()
    second.issue(1000, {FAN: np.arange(5.0)})
    second.restore(first.skill.state())
    second.install("forecast.lstm", Role.SERVING, model(middling), no_history, 0)
    assert error_of(second, "forecast.lstm") == error_of(first.skill, "forecast.lstm")


@pytest.mark.parametrize("damage", [b"", b"not a state", b"\x80"])
def test_a_damaged_or_foreign_state_is_refused_and_the_skill_goes_on(damage: bytes) -> None:
    made = skill()
    with pytest.raises(BadMessage):
        made.restore(damage)
    other = ForecastSkill(step_ms=STEP, horizon=HORIZON + 1, season=0)
    other.issue(1000, {PUMP: np.arange(5.0)})
    with pytest.raises(BadMessage):
        made.restore(other.state())
    assert len(made.issue(1000, {PUMP: np.arange(5.0)})) == 1


def test_a_new_version_is_charged_nothing_for_the_one_before_and_starts_from_its_widths() -> None:
    line = Line(installed(version=1, says=absurd))
    line.run(300, 15, {PUMP: 2.0})
    widths = line.skill._tracks["forecast.lstm"].intervals.log_width.copy()
    line.skill.install("forecast.lstm", Role.SERVING, model(middling, version=2), no_history, 0)
    track = line.skill._tracks["forecast.lstm"]
    np.testing.assert_array_equal(track.intervals.log_width, widths)
    assert track.intervals.seen.max() == INHERITED
    line.every = 1000  # nothing new is issued: only version 1's forecasts are under way
    line.run(HORIZON, 16, {PUMP: 2.0})
    assert all(e.slot != "forecast.lstm" for e in line.skill.live_errors())
    line.every = 2
    line.run(100, 17, {PUMP: 2.0})
    assert error_of(line.skill, "forecast.lstm").scaled_error < 1.0


def test_another_algorithm_in_the_slot_starts_anew_and_a_removed_model_leaves_the_rest_alone() -> None:
    line = Line(installed())
    line.run(100, 18, {PUMP: 2.0})
    other = model(middling, slot="forecast.other", version=3)
    line.skill.install("forecast.lstm", Role.SERVING, other, no_history, 0)
    assert line.skill._tracks["forecast.lstm"].intervals.seen.sum() == 0
    line.skill.remove("forecast.lstm")
    line.skill.remove("forecast.lstm")
    (forecast,) = line.run(2, 19, {PUMP: 2.0})
    assert forecast.model == NAIVE
    assert line.skill.results("forecast.lstm") == 0


class OneOff:
    """A correction that learns a constant."""

    def __init__(self, _horizon: int) -> None:
        self.offset, self.n = np.zeros(1), np.zeros(1)

    def apply(self, mean: Floats) -> Floats:
        return mean + self.offset[0]

    def learn(self, mean: Floats, actual: Floats) -> None:
        self.n += 1
        self.offset += 0.2 * (np.nanmean(actual - mean) - self.offset)

    def state(self) -> dict[str, Any]:
        return {"offset": self.offset, "n": self.n}

    def restore(self, state: dict[str, Any]) -> None:
        self.offset, self.n = state["offset"].copy(), state["n"].copy()


def test_a_signals_own_correction_is_learned_applied_and_kept() -> None:
    made = ForecastSkill(step_ms=STEP, horizon=HORIZON, season=0, correction=OneOff)
    made.install("forecast.lstm", Role.SERVING, model(absurd), no_history, 0)
    line = Line(made)
    (forecast,) = line.run(300, 20, {PUMP: 2.0})
    assert forecast.model.slot in ("forecast.lstm", COMBINED.slot)
    assert abs(forecast.mean[0] - 50) < 2
    again = ForecastSkill(step_ms=STEP, horizon=HORIZON, season=0, correction=OneOff)
    again.install("forecast.lstm", Role.SERVING, model(absurd), no_history, 0)
    again.restore(made.state())
    (continued,) = again.issue(line.t * STEP, line.series)
    assert continued.mean == forecast.mean
