"""Why a forecast is what it is: the shares add up, the linear ones are exact, the errors are honest, and a case that was
planted in the past is found."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.explain import (
    Labels,
    combined,
    evidence,
    explain_forecast,
    explain_shown,
    linear_shares,
    nearest_cases,
    shapley_shares,
    time_parts,
)
from edge_agent.runtimes import LoadedModel
from edge_agent.skills.forecast import ForecastSkill
from protocol.bundles import Golden, Lineage, Parity, Passport, Runtime
from protocol.reports import Forecast, ForecastExplanation
from protocol.tables import Ridge, StateSpace
from protocol.tables.ridge import LEVEL
from protocol.twin import Role
from protocol.windows import CHANNELS, Floats, WindowSpec, naive_forecast

STEP_MS = 3_600_000
SPEC = WindowSpec(step_ms=STEP_MS, length=32, horizon=6, season=24)
KEY = ("P-101", "temperature")
END_MS = 1_760_000_400_000


class Curved(LoadedModel):
    """A network's stand-in that is not linear: parts act together."""

    def asked(self, x: NDArray[np.float32], who: NDArray[np.int64] | None, rows_a_call: int) -> NDArray[np.float32]:
        last, early = x[:, -4:, 0].mean(axis=1), x[:, :16, 0].mean(axis=1)
        season = x[:, -6:, CHANNELS.index("season_ago")]
        middle = (last * (1 + 0.5 * early))[:, None] + 0.3 * season + 0.1 * x[:, -1:, CHANNELS.index("sin_day")]
        return np.stack([middle - 1, middle, middle + 1], axis=2).astype(np.float32)


def passport(runtime: Runtime, series: list[tuple[str, str]]) -> Passport:
    return Passport(
        slot="forecast.test",
        family="forecast",
        algorithm="test",
        version=1,
        runtime=runtime,
        window=SPEC,
        levels=[0.1, 0.5, 0.9],
        series=series,
        series_until_ms=[END_MS] * len(series),
        series_error=[0.5] * len(series),
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="0", seed=1, trained_ms=1),
        quality=[],
        eligible=True,
        verdict="",
        parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound=""),
        golden=Golden(atol=1, rtol=1),
        float_bytes=1,
        packed_bytes=1,
        latency_us=1,
        intended_use="",
        limits="",
    )


def history(buckets: int = 200) -> Floats:
    t = np.arange(buckets)
    return 70 + 5 * np.sin(2 * np.pi * t / 24) + np.random.default_rng(1).normal(size=buckets)


def issued(model: LoadedModel | None, values: Floats) -> Forecast:
    skill = ForecastSkill(step_ms=STEP_MS, horizon=6, season=24)
    if model is not None:
        skill.install("forecast.test", Role.SERVING, model, lambda _k, _s, n: np.full(n, np.nan), 0)
    return skill.issue(END_MS, {KEY: values})[0]


def adds_up(why: ForecastExplanation) -> None:
    assert why.base + sum(share.amount for share in why.shares) == pytest.approx(why.total, rel=1e-9)


def filter_of_two() -> LoadedModel:
    tables = {
        "transition": np.array([[[1.0, 1.0], [0.0, 0.9]]] * 2),
        "design": np.array([[1.0, 0.0]] * 2),
        "state_cov": np.array([np.diag([0.3, 0.05])] * 2),
        "obs_var": np.array([0.5, 0.7]),
        "state": np.zeros((2, 2)),
        "cov": np.array([10 * np.eye(2)] * 2),
        "beta": np.array([[0.2, 0.5, -0.3]] * 2),
        "center": np.array([70.0, 1.0]),
        "scale": np.array([2.0, 3.0]),
    }
    return LoadedModel(passport(Runtime.STATE_SPACE, [KEY, ("P-102", "flow")]), "a" * 64, table=StateSpace(tables))


def test_the_shares_of_a_filter_are_exact_and_answer_for_every_value() -> None:
    model, values = filter_of_two(), history()
    values[-20:-17] = np.nan
    assert model.state_space is not None
    for t, value in enumerate(values):
        model.state_space.step(np.array([value, np.nan]), END_MS + (t - len(values)) * STEP_MS)
    forecast = issued(model, values)
    why = explain_forecast(forecast, model, values)
    assert why is not None
    adds_up(why)
    assert why.method == "exact"
    assert why.total == pytest.approx(np.mean(forecast.mean))
    assert {share.kind for share in why.shares} == {"recent", "earlier", "calendar"}
    raised = values.copy()
    raised[-4:] += 3.0
    again = filter_of_two()
    assert again.state_space is not None
    for t, value in enumerate(raised):
        again.state_space.step(np.array([value, np.nan]), END_MS + (t - len(values)) * STEP_MS)
    other = explain_forecast(issued(again, raised), again, raised)
    assert other is not None
    assert other.shares[0].amount - why.shares[0].amount == pytest.approx(other.total - why.total)
    for mine, theirs in zip(why.shares[1:], other.shares[1:], strict=True):
        assert mine.amount == pytest.approx(theirs.amount)


def test_the_shares_of_a_network_add_up_exactly_whether_all_subsets_were_asked_or_orders_drawn() -> None:
    model, values = Curved(passport(Runtime.ONNX, [KEY]), "a" * 64, session=object()), history()
    forecast = issued(model, values)
    exact = explain_forecast(forecast, model, values, evaluations=64)
    drawn = explain_forecast(forecast, model, values, evaluations=42)
    assert exact is not None
    assert drawn is not None
    for why in (exact, drawn):
        adds_up(why)
        assert why.total == pytest.approx(np.mean(forecast.mean), rel=1e-6)
        assert {share.kind for share in why.shares} == {"recent", "season", "calendar"}
    assert exact.method == "exact"
    assert drawn.method == "sampled"
    assert drawn.orders == 8
    for mine, true in zip(drawn.shares, exact.shares, strict=True):
        assert abs(mine.amount - true.amount) <= 4 * mine.error + 1e-6


def test_a_ridge_is_explained_by_stretches_of_its_lags() -> None:
    table = Ridge(
        {
            "lags": np.array([1, 2, 3, 12, 24]),
            "span": np.array([24]),
            "kinds": np.array([LEVEL]),
            "weights": np.random.default_rng(2).normal(size=(1, 5, 6)),
            "bias": np.zeros((1, 6)),
            "mix": np.ones((1, 6)),
            "own": np.zeros((0, 5, 6)),
            "logged": np.zeros(2, dtype=np.int8),
            "nonnegative": np.zeros(2, dtype=np.int8),
            "width": np.ones(2),
            "offset": np.zeros((6, 3)),
        }
    )
    model = LoadedModel(passport(Runtime.RIDGE, [KEY]), "a" * 64, table=table)
    values = history()
    why = explain_forecast(issued(None, values), model, values)
    assert why is not None
    adds_up(why)
    made = table.contributions(values[None], np.array([0]))
    assert why.total == pytest.approx((made.anchor[0] + made.parts[0].sum(axis=0)).mean())
    assert why.shares[0].amount == pytest.approx(made.parts[0, :3].sum(axis=0).mean())


def test_a_combination_is_explained_by_its_members() -> None:
    model, values = filter_of_two(), history()
    forecast = issued(model, values)
    one, two = explain_forecast(forecast, model, values), explain_forecast(forecast, None, values, season=24)
    assert one is not None
    assert two is not None
    both = combined([(0.75, one), (0.25, two)], forecast)
    assert both is not None
    adds_up(both)
    assert both.total == pytest.approx(0.75 * one.total + 0.25 * two.total)
    assert combined([], forecast) is None


def test_the_simple_reference_is_explained_by_the_values_it_repeats() -> None:
    values = history()
    why = explain_forecast(issued(None, values), None, values, season=24)
    assert why is not None
    adds_up(why)
    assert explain_forecast(issued(None, values), None, np.full(50, np.nan)) is None


def test_stated_errors_hold_for_a_game_whose_values_are_known() -> None:
    rng = np.random.default_rng(3)
    weights, pairs = rng.normal(size=7), rng.normal(size=(7, 7))

    def without(present: tuple[bool, ...]) -> float:
        here = np.array(present, dtype=float)
        return float(weights @ here + here @ pairs @ here + (5.0 if all(present[:3]) else 0.0))

    true = shapley_shares(without, 7, 128)
    assert true.orders == 0
    found = shapley_shares(without, 7, 100)
    assert found.orders > 0
    assert found.base + found.amounts.sum() == pytest.approx(found.total)
    assert (np.abs(found.amounts - true.amounts) <= 4 * found.errors + 1e-9).all()
    assert linear_shares(lambda p: 2.0 + 3.0 * p[0] - p[1], 2).amounts.tolist() == [3.0, -1.0]
    with pytest.raises(ValueError, match="at most 8"):
        shapley_shares(without, 9)


def test_parts_cover_the_window_once_and_read_in_both_languages() -> None:
    parts = time_parts(32, STEP_MS)
    spans = sorted(part.span for part in parts if part.span is not None)
    assert spans[0][0] == -32
    assert spans[-1][1] == 0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert parts[0].label == ("the last 4 h", "最近 4 小时")
    assert len(time_parts(2, STEP_MS)) <= 2


def test_a_planted_repeat_is_found_with_what_followed() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=400).cumsum() * 0.2
    shape = np.concatenate([np.linspace(0, 9, 12), np.linspace(9, -6, 12)])
    values[100:124] = 50 + 2 * shape
    values[124:130] = 77.0
    values[-24:] = -3 + 0.5 * shape
    values[126] = np.nan
    best = nearest_cases(values, END_MS, STEP_MS, 24, 6)[0]
    assert best.start_ms == END_MS - 300 * STEP_MS
    assert best.similarity == pytest.approx(1.0, abs=1e-6)
    assert best.followed == [77.0, 77.0, None, 77.0, 77.0, 77.0]


def test_cases_overlap_neither_each_other_nor_now() -> None:
    values = np.sin(2 * np.pi * np.arange(600) / 24)
    found = nearest_cases(values, END_MS, STEP_MS, 48, 12, count=5)
    starts = sorted(case.start_ms for case in found)
    assert len(found) == 5
    assert all(b - a >= 48 * STEP_MS for a, b in itertools.pairwise(starts))
    assert all(case.end_ms <= END_MS - 48 * STEP_MS for case in found)


@pytest.mark.parametrize(
    "values",
    [np.full(300, 4.0), np.full(300, np.nan), np.array([1.0]), np.zeros(0), np.r_[np.full(299, np.nan), 1.0]],
    ids=["constant", "all missing", "one point", "empty", "one of many"],
)
def test_a_history_that_says_nothing_has_no_cases_and_no_nan(values: Floats) -> None:
    assert nearest_cases(values, END_MS, STEP_MS, 24, 6) == []


def test_the_old_names_are_still_there() -> None:
    assert Labels().signal("x") == ("x", "x")
    assert evidence("m", "s", "", (0, 1), np.array([1.0, 3.0]), "max", None, None).value == 3.0


def test_what_is_planned_and_delivered_is_a_share_of_its_own() -> None:
    made = filter_of_two()
    tables = {
        **{
            name: np.asarray(getattr(made.state_space, name))
            for name in ("transition", "design", "state_cov", "obs_var")
        },
        **{name: np.asarray(getattr(made.state_space, name)) for name in ("beta", "center", "scale")},
        "state": np.zeros((2, 2)),
        "cov": np.array([10 * np.eye(2)] * 2),
        "gamma": np.array([[3.0, 0.5], [0.0, 0.0]]),
        "accumulates": np.array([[0.0, 1.0]] * 2),
        "total": np.zeros((2, 2)),
    }
    told = np.zeros((2, 206))
    told[0, 150:203] = 1.0  # a load until three buckets into the horizon
    told[1, [100, 190, 204]] = 10.0  # two deliveries have come, one is on its way
    values = history() + 2.0 * 3.0 * told[0, :200] + 2.0 * 0.5 * np.cumsum(told[1])[:200]
    passport_ = msgspec.structs.replace(
        passport(Runtime.STATE_SPACE, [KEY, ("P-102", "flow")]), covariates=["load", "in"]
    )
    model = LoadedModel(passport_, "a" * 64, table=StateSpace(tables))
    assert model.state_space is not None
    for t, value in enumerate(values):
        now = np.array([told[:, t], [0.0, 0.0]])
        model.state_space.step(np.array([value, np.nan]), END_MS + (t - len(values)) * STEP_MS, now)

    def known(
        machine: str, names: Sequence[str], origins: NDArray[np.int64], _s: int, before: int, ahead: int
    ) -> Floats:
        seen = told[:, 200 - before : 200 + ahead] * (machine == KEY[0])
        return np.tile(seen[: len(names)], (len(origins), 1, 1))

    skill = ForecastSkill(step_ms=STEP_MS, horizon=6, season=24, known=known)
    skill.install("forecast.test", Role.SERVING, model, lambda _k, _s, n: np.full(n, np.nan), 0)
    forecast = skill.issue(END_MS, {KEY: values})[0]
    why = explain_forecast(forecast, model, values, known=known)
    assert why is not None
    adds_up(why)
    share = next(s for s in why.shares if s.kind == "known")
    # half of the horizon under load (6), a third of it after the next delivery (10)
    assert share.amount == pytest.approx(6 * 3 / 6 + 10 * 2 / 6)
    blind = explain_forecast(forecast, model, values)
    assert blind is not None
    assert blind.total < why.total


def test_the_reference_is_explained_as_it_answered_by_last_season_or_by_the_last_value() -> None:
    values = history()
    forecast = issued(None, values)
    seasonal = naive_forecast(values[None], 24, 6)[0]
    flat = np.full(6, values[-1])
    for mean, off in ((seasonal, 0.0), (flat, 0.0), (seasonal + 0.5, 0.5)):
        shown = msgspec.structs.replace(forecast, mean=mean.tolist())
        why = explain_shown(shown, [(1.0, None)], values, season=24)
        assert why is not None
        adds_up(why)
        assert why.total == pytest.approx(mean.mean())
        corrected = sum(share.amount for share in why.shares if share.kind == "correction")
        assert corrected == pytest.approx(off)
    assert explain_shown(forecast, [], values) is None
