"""The fleet's learners: a network that knows who is asked about and what is planned, and its closed-form rival."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_agent.runtimes import load
from edge_agent.skills.forecast.answers import Slot, ask
from export import parity
from export.quantize import operators, quantize
from export.to_onnx import to_onnx
from protocol.bundles import Runtime, digest, unpack
from protocol.covariates import KnownInput, Source
from protocol.tables import Ridge
from protocol.twin import Role
from protocol.windows import CHANNELS, WindowSpec, windows
from server import evaluation, training
from server.algorithms import combination, lstm, ridge
from server.datasets import SignalGrid

STEP_MS = 900_000
SMALL = lstm.LstmSettings(hidden=16, layers=1, epochs=12, batch=32, learning_rate=5e-3)


def quiet(_share: float, _step: str) -> None:
    return


def lessons(n: int, seed: int, *, covariates: int = 0) -> lstm.Lessons:
    """Machine 1 rises by one above its window, machine 2 falls; a covariate adds twice itself."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12, len(CHANNELS) + (2 * covariates + 1 if covariates else 0))).astype(np.float32)
    who = np.stack([rng.integers(1, 3, n), np.ones(n, dtype=np.int64)], axis=1)
    y = np.where(who[:, :1] == 1, 1.0, -1.0) + 0.1 * rng.normal(size=(n, 4))
    if covariates:
        x[:, :, 5:] = 0.0
        x[:, -4:, 6] = rng.integers(0, 2, (n, 4))
        y = y + 2.0 * x[:, -4:, 6]
    return lstm.Lessons(x, y.astype(np.float32), who)


@pytest.fixture(scope="module")
def net() -> lstm.QuantileLstm:
    return lstm.fit(lessons(600, 1, covariates=1), lessons(200, 2, covariates=1), SMALL, quiet, machines=3, signals=1)


def test_a_machine_is_told_from_another_and_an_unknown_one_lies_between(net: lstm.QuantileLstm) -> None:
    x = lessons(200, 3, covariates=1).x
    x[:, :, 5:] = 0.0
    up, down, unknown = (
        float(lstm.answer(net, x, np.tile([[machine, 1]], (200, 1)))[:, :, lstm.MIDDLE].mean()) for machine in (1, 2, 0)
    )
    assert up > 0.7
    assert down < -0.7
    assert down < unknown < up


def test_what_is_planned_changes_the_forecast_at_its_own_step(net: lstm.QuantileLstm) -> None:
    x = lessons(100, 4, covariates=1).x
    who = np.tile([[1, 1]], (100, 1))
    x[:, :, 5:] = 0.0
    without = lstm.answer(net, x, who)[:, :, lstm.MIDDLE].mean(axis=0)
    x[:, -2, 6] = 1.0  # the third of four steps
    change = lstm.answer(net, x, who)[:, :, lstm.MIDDLE].mean(axis=0) - without
    assert change[2] > 1.0
    assert np.argmax(change) == 2


def test_quantiles_never_cross_and_the_interval_holds_its_share(net: lstm.QuantileLstm) -> None:
    part = lessons(300, 5, covariates=1)
    q = lstm.answer(net, part.x, part.names())
    assert q.shape == (300, 4, len(lstm.LEVELS))
    assert (np.diff(q, axis=2) >= 0).all()
    for low, high, share in ((1, 3, 0.8), (0, 4, 0.95)):
        held = ((part.y >= q[:, :, low]) & (part.y <= q[:, :, high])).mean()
        assert abs(held - share) < 0.06


def test_the_same_seed_gives_the_same_network_and_another_seed_another() -> None:
    few = lstm.LstmSettings(hidden=8, layers=1, epochs=1)
    first, again = (lstm.fit(lessons(80, 1), lessons(40, 2), few, quiet, machines=2, signals=1) for _ in range(2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    other = lstm.fit(
        lessons(80, 1),
        lessons(40, 2),
        lstm.LstmSettings(hidden=8, layers=1, epochs=1, seed=8),
        quiet,
        machines=2,
        signals=1,
    )
    assert not torch.equal(first.head.weight, other.head.weight)


def test_the_int8_graph_answers_as_the_network_does_with_and_without_names(net: lstm.QuantileLstm) -> None:
    part = lessons(40, 6, covariates=1)
    graph = to_onnx(net, torch.from_numpy(part.x[:2].copy()), torch.from_numpy(part.names()[:2].copy()))
    small = quantize(graph)
    assert "DynamicQuantizeLSTM" in operators(small)
    run = parity.Graph(small)
    assert run.asks_who
    np.testing.assert_allclose(run(part.x, part.names()), lstm.answer(net, part.x, part.names()), atol=0.05)
    np.testing.assert_allclose(run(part.x), lstm.answer(net, part.x), atol=0.05)
    inputs, outputs = parity.golden_graph(run, part.x, part.names())
    assert inputs["who"][0].tolist() == [0, 0]
    np.testing.assert_array_equal(run(np.asarray(inputs["x"]), np.asarray(inputs["who"])), outputs["q"])


def test_a_network_without_anything_to_learn_from_is_refused() -> None:
    none = lstm.Lessons(np.zeros((0, 12, 5), np.float32), np.zeros((0, 4), np.float32))
    with pytest.raises(ValueError, match="both are needed"):
        lstm.fit(none, lessons(10, 1), SMALL, quiet)
    short = lstm.Lessons(np.zeros((40, 2, 5), np.float32), np.zeros((40, 4), np.float32))
    with pytest.raises(ValueError, match="shorter than the horizon"):
        lstm.fit(short, short, SMALL, quiet)


# --- ridge ---


def daily(series: int, steps: int, seed: int, *, level: float = 20.0) -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    t = np.arange(steps)
    return [
        level + 3 * np.sin(2 * np.pi * t / 24 + s) + 0.3 * s * np.sin(2 * np.pi * t / 12) + 0.2 * rng.normal(size=steps)
        for s in range(series)
    ]


def made(values: list[NDArray[np.float64]], horizon: int = 6, lags: int = 48) -> ridge.FittedRidge:
    fitted = ridge.fit(values, ridge.settings_for(horizon, 24, lags, min(len(row) for row in values)))
    assert fitted is not None
    return fitted


def test_the_ridge_beats_last_season_and_its_intervals_hold_their_share() -> None:
    values = daily(4, 700, 1)
    model = made([row[:500] for row in values]).model()
    errors, naive, inside = [], [], []
    for s, row in enumerate(values):
        for at in range(500, 690, 7):
            context, rows = row[None, at - model.context : at], np.array([s])
            actual = row[at : at + 6]
            errors.append(np.abs(model.forecast(context, rows)[0] - actual))
            naive.append(np.abs(row[at - 24 : at - 18] - actual))
            q = model.quantiles(context, rows)[0]
            inside.append((actual >= q[:, 1]) & (actual <= q[:, 3]))
    assert np.mean(errors) < 0.9 * np.mean(naive)
    assert abs(np.mean(inside) - 0.8) < 0.1


def test_an_unknown_series_is_answered_with_a_wider_interval() -> None:
    values = daily(4, 500, 2)
    model = made(values).model()
    context = np.stack([row[-model.context :] for row in values])
    known, unknown = model.quantiles(context, np.arange(4)), model.quantiles(context, np.full(4, -1))
    assert np.isfinite(unknown).all()
    assert (unknown[:, :, -1] - unknown[:, :, 0]).mean() > (known[:, :, -1] - known[:, :, 0]).mean()


def test_a_series_that_never_was_below_zero_is_not_forecast_below_zero() -> None:
    rng = np.random.default_rng(3)
    counts = [np.asarray(rng.poisson(0.3, 400), dtype=np.float64) for _ in range(3)]
    model = made(counts, lags=24).model()
    context = np.stack([row[-model.context :] for row in counts])
    assert (model.quantiles(context, np.arange(3)) >= 0).all()
    below = context.copy()
    below[:, -1] = -5.0  # a negative count on the gateway: answered, on the plain scale
    assert np.isfinite(model.forecast(below, np.arange(3))).all()


@pytest.mark.parametrize(
    "row",
    [np.full(400, 5.0), np.zeros(400), np.r_[np.full(200, np.nan), np.ones(200)], np.full(400, np.nan), np.ones(1)],
    ids=["constant", "zero", "half missing", "all missing", "one point"],
)
def test_a_strange_series_among_others_spoils_nothing(row: NDArray[np.float64]) -> None:
    values = [*daily(3, 400, 4), row]
    model = made([*values[:3], row]) if len(row) > 1 else None
    if model is None:
        fitted = ridge.fit(values, ridge.settings_for(6, 24, 48, 400))
        assert fitted is not None
        model = fitted
    answer = model.model()
    context = np.stack([one[-answer.context :] for one in values[:3]])
    assert np.isfinite(answer.forecast(context, np.arange(3))).all()
    flat = np.full((1, answer.context), 5.0)
    np.testing.assert_allclose(answer.forecast(flat, np.array([3])), 5.0, atol=1e-3)


def test_too_little_history_gives_no_ridge_and_not_a_bad_one() -> None:
    assert ridge.fit([np.arange(20.0)], ridge.settings_for(6, 24, 48, 20)) is None
    assert ridge.fit([np.full(500, np.nan)], ridge.settings_for(6, 24, 48, 500)) is None


def test_a_series_keeps_its_correction_only_where_that_helped() -> None:
    fitted = made(daily(4, 500, 5))
    own = fitted.tables["own"]
    assert len(own) in (0, 4)
    assert np.isfinite(fitted.check_error).all()


# --- shares ---


def test_shares_go_to_who_errs_less_and_add_up_to_one() -> None:
    rng = np.random.default_rng(1)
    good, poor, useless = rng.normal(size=400), 2 * rng.normal(size=400), 50 + rng.normal(size=400)
    found = combination.shares(np.stack([good, poor, useless]))
    assert found.sum() == pytest.approx(1.0)
    assert found[0] > found[1] >= 0
    assert found[2] < 0.01
    np.testing.assert_array_equal(combination.shares(np.full((2, 5), np.nan)), [0.5, 0.5])
    np.testing.assert_array_equal(combination.shares(np.stack([np.zeros(5), np.ones(5)])), [1.0, 0.0])


# --- the whole training ---


def planned(buckets: int, seed: int) -> SignalGrid:
    """Two machines; a planned load adds 4 to the current while it lasts."""
    rng = np.random.default_rng(seed)
    values = 20 + np.cumsum(0.02 * rng.normal(size=(2, buckets)), axis=1) + 0.2 * rng.normal(size=(2, buckets))
    inputs = []
    for at in rng.choice(np.arange(10, buckets - 10), buckets // 15, replace=False):
        machine = int(rng.integers(2))
        values[machine, at : at + 5] += 4.0
        inputs.append(
            KnownInput(
                id=f"load-{at}-{machine}",
                machine=f"M-{machine}",
                covariate="load",
                start_ms=int(at) * STEP_MS,
                end_ms=int(at + 5) * STEP_MS,
                known_ms=max(int(at) - 20, 0) * STEP_MS,
                value=np.float64(300.0),
                source=Source.SCHEDULE,
            )
        )
    return SignalGrid(0, STEP_MS, [("M-0", "current"), ("M-1", "current")], values, tuple(inputs))


@pytest.fixture(scope="module")
def trained() -> dict[str, training.Candidate]:
    plan = training.ForecastPlan(
        window=WindowSpec(step_ms=STEP_MS, length=16, horizon=4),
        epochs=6,
        slots=(training.RIDGE, training.LSTM),
    )
    world = training.Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_700_000_000_000)
    return {made.passport.slot: made for made in training.train_forecast(planned(700, 1), plan, world, quiet)}


def test_a_passport_names_the_forms_that_packing_tried_and_a_setting_fixes_one(
    trained: dict[str, training.Candidate],
) -> None:
    passport = trained[training.LSTM].passport
    assert [form.name for form in passport.forms if not form.why] == ["int8"]
    assert "Packed as int8" in passport.verdict
    taken = next(form for form in passport.forms if form.name == "int8")
    assert taken.parity == passport.parity
    assert (taken.size, passport.float_bytes) == (passport.packed_bytes, passport.forms[0].size)
    assert max(taken.strained.values()) < 0.15
    assert trained[training.RIDGE].passport.forms == []
    plan = training.ForecastPlan(
        window=WindowSpec(step_ms=STEP_MS, length=16, horizon=4), epochs=1, slots=(training.LSTM,), quantize="float16"
    )
    world = training.Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_700_000_000_000)
    (made,) = training.train_forecast(planned(700, 1), plan, world, quiet)
    assert [form.name for form in made.passport.forms if not form.why] == ["float16"]
    assert made.passport.parity.rel_rms < 1e-3


def test_a_network_that_loses_too_much_is_trained_further_with_rounded_weights() -> None:
    plan = training.ForecastPlan(
        window=WindowSpec(step_ms=STEP_MS, length=16, horizon=4),
        epochs=2,
        slots=(training.LSTM,),
        quantize="int8_trained",
    )
    world = training.Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_700_000_000_000)
    (made,) = training.train_forecast(planned(700, 1), plan, world, quiet)
    (form,) = [form for form in made.passport.forms if not form.why]
    assert form.name == "int8_trained"
    assert form.parity is not None
    assert form.parity.rel_rms < 0.05
    assert "DynamicQuantizeLSTM" in operators(unpack(made.archive).graph)


def test_a_passport_says_who_is_best_where_and_what_a_combination_is_worth(
    trained: dict[str, training.Candidate],
) -> None:
    assert set(trained) == {training.RIDGE, training.LSTM}
    lone = min(made.passport.quality[0].model for made in trained.values())
    for made in trained.values():
        passport = made.passport
        assert passport.best.keys() == {"current"}
        assert passport.best["current"] in ("seasonal_naive", "last_value", "ridge", "lstm")
        assert passport.quality[0].reference_name in ("seasonal_naive", "last_value")
        assert passport.combined is not None
        assert passport.combined < 1.1 * lone
    for key in ("M-0/current", "M-1/current"):
        total = sum(made.passport.weights[key][0] for made in trained.values())
        assert total + trained[training.LSTM].passport.weights[key][1] == pytest.approx(1.0, abs=1e-3)


def test_the_gateway_proves_and_runs_both_and_a_planned_load_moves_the_network(
    trained: dict[str, training.Candidate],
) -> None:
    loaded = {slot: load(made.archive, digest(made.archive)) for slot, made in trained.items()}
    grid = planned(700, 1)
    table = loaded[training.RIDGE].ridge
    assert isinstance(table, Ridge)
    assert loaded[training.RIDGE].passport.runtime is Runtime.RIDGE
    assert np.isfinite(table.forecast(grid.values[:, -table.context :], np.array([0, -1]))).all()
    model = loaded[training.LSTM]
    spec = model.passport.window
    assert spec is not None
    assert spec.covariates == ["load"]
    assert spec.covariate_scale == [300.0]
    known = np.zeros((2, 1, spec.context + spec.horizon))
    context, ends = grid.values[:, -spec.context :], np.full(2, grid.until_ms)
    who = model.passport.who([("M-0", "current"), ("a new machine", "current")])
    assert who.tolist() == [[1, 1], [0, 1]]
    calm = windows(context, ends, spec, known)
    known[:, :, -spec.horizon :] = 300.0
    busy = windows(context, ends, spec, known)
    change = (model.quantiles(busy.x, who) - model.quantiles(calm.x, who))[:, :, lstm.MIDDLE] * calm.scale[:, None]
    assert (change > 1.0).all()


def test_the_gateway_answers_a_machine_that_neither_was_trained_on(trained: dict[str, training.Candidate]) -> None:
    grid = planned(700, 1)
    keys = [("M-0", "current"), ("a new machine", "current")]
    for made in trained.values():
        model = load(made.archive, digest(made.archive))
        slot = Slot(Role.SERVING, model, {key: i for i, key in enumerate(model.passport.series)})
        answer = ask(slot, keys, grid.values[:, -100:], grid.until_ms, STEP_MS, 4)
        assert answer is not None
        assert answer.usable().all()
        assert (answer.prior > 0).all()
        assert np.abs(answer.mean - grid.values[:, -20:].mean(axis=1, keepdims=True)).max() < 5


def test_what_the_gateway_knows_of_the_future_reaches_the_network(trained: dict[str, training.Candidate]) -> None:
    made, grid = trained[training.LSTM], planned(700, 1)
    slot = Slot(Role.SERVING, load(made.archive, digest(made.archive)))

    def known(
        _machine: str, covariates: Sequence[str], origins_ms: np.ndarray, _step: int, before: int, ahead: int
    ) -> np.ndarray:
        assert list(covariates) == ["load"]
        return np.tile(np.where(np.arange(before + ahead) < before, 0.0, 300.0), (len(origins_ms), 1, 1))

    asked = (slot, grid.series, grid.values[:, -100:], grid.until_ms, STEP_MS, 4)
    blind, told = ask(*asked), ask(*asked, known)
    assert blind is not None
    assert told is not None
    assert (told.mean - blind.mean > 1.0).all()


def test_packing_a_ridge_costs_next_to_nothing(trained: dict[str, training.Candidate]) -> None:
    passport = trained[training.RIDGE].passport
    assert passport.parity.rel_rms < 1e-3
    assert abs(passport.parity.task_change) < 1e-3
    bundle = unpack(trained[training.RIDGE].archive)
    assert bundle.golden_inputs["rows"][0] == -1


def test_the_reference_is_the_better_of_last_season_and_last_value() -> None:
    steps = np.cumsum(np.random.default_rng(1).normal(size=(2, 400)), axis=1)
    wandering = evaluation.hold_out(steps, 0, STEP_MS, 24, 4)
    assert wandering.reference()[0] == "last_value"
    daily_shape = np.stack(daily(2, 400, 1))
    seasonal = evaluation.hold_out(daily_shape, 0, STEP_MS, 24, 8)
    assert seasonal.reference()[0] == "seasonal_naive"
    assert wandering.reference()[1] < wandering.relative_error(wandering.naive)[0]
