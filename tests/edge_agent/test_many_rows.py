"""Rows of many machines share a call of a graph where that leaves each answer within its golden tolerance, and only there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.config import RuntimeSettings
from edge_agent.runtimes import ROWS_A_CALL, LoadedModel, load
from edge_agent.runtimes.engine import Engine
from edge_agent.skills.forecast import ForecastSkill
from export.quantize import quantize
from protocol.bundles import digest
from protocol.twin import Role
from tests.forecasters import SLOT, STEP_MS, forecasting, windows
from tests.lite_files import HORIZON, forecast, forecaster, forecaster_graph

TOLERANCE = 0.1


class Counted:
    """An engine that notes how many rows each call has."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.inputs, self.outputs, self.lengths = engine.name, engine.inputs, engine.outputs, engine.lengths
        self.calls: list[int] = []

    def run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        self.calls.append(len(given["x"]))
        return self._engine.run(given)


def loaded(
    graph: bytes, tolerance: float = TOLERANCE, file: bytes = b"", **runtime: Any
) -> tuple[LoadedModel, Counted]:
    """A forecaster of lite_files, and the engine that it is asked through."""
    archive = forecasting(graph, tolerance, file)
    model = load(archive, digest(archive), RuntimeSettings(**runtime))
    assert model.session is not None
    model.session = counted = Counted(model.session)
    return model, counted


@given(rows=st.integers(0, 2 * ROWS_A_CALL + 3), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_a_float_graph_answers_many_rows_as_it_answers_each_of_them(rows: int, seed: int) -> None:
    model, counted = loaded(forecaster_graph())
    x, who = windows(rows, seed)
    together = model.quantiles_of_many(x, who)
    assert sum(counted.calls) == rows
    assert len(counted.calls) == -(-rows // ROWS_A_CALL)
    np.testing.assert_allclose(together, model.quantiles(x, who), atol=1e-5)


def test_a_row_whose_explanation_must_add_up_is_always_asked_alone() -> None:
    model, counted = loaded(forecaster_graph())
    model.quantiles(*windows(5))
    assert counted.calls == [1] * 5


def test_an_int8_graph_that_a_loud_machine_makes_coarse_is_asked_row_by_row() -> None:
    packed = quantize(forecaster_graph())
    model, counted = loaded(packed)
    x, who = windows(6)
    x[0] *= 20
    alone = model.quantiles_of_many(x, who)
    assert counted.calls == [1] * 6
    np.testing.assert_allclose(alone[1:], forecast(x, who)[1:], atol=TOLERANCE)
    spoiled = model.asked(x, who, 6)
    assert np.abs(spoiled - alone)[1:].max() > TOLERANCE


def test_an_int8_graph_whose_neighbours_stay_within_its_tolerance_is_asked_together() -> None:
    model, counted = loaded(quantize(forecaster_graph()), tolerance=2.0)
    model.quantiles_of_many(*windows(6))
    assert counted.calls == [6]


def test_an_engine_that_takes_one_row_is_asked_row_by_row() -> None:
    pytest.importorskip("ai_edge_litert", reason="pip install 'millwright[tflite]'")
    model, counted = loaded(forecaster_graph(), file=forecaster(), engines=("tflite",))
    x, who = windows(3)
    np.testing.assert_allclose(model.quantiles_of_many(x, who), forecast(x, who), atol=TOLERANCE)
    assert counted.calls == [1] * 3


def test_the_agent_asks_for_all_signals_that_are_due_in_one_call() -> None:
    model, counted = loaded(forecaster_graph())
    skill = ForecastSkill(step_ms=STEP_MS, horizon=HORIZON, season=0)
    skill.install(SLOT, Role.SERVING, model, lambda _key, _start, buckets: np.full(buckets, np.nan), 0)
    drawn = np.random.default_rng(0)
    contexts = {(f"M-{i}", "current"): 50 + drawn.standard_normal(96) for i in range(20)}
    assert len(skill.issue(96 * STEP_MS, contexts)) == 20
    assert counted.calls == [20]
