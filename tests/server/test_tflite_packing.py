"""A training that is asked for TFLite packs a file beside the graph; a gateway proves it and serves it as well as the graph.
The conversions need litert-torch, here or by MILLWRIGHT_TFLITE_PYTHON."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="pip install 'millwright[tflite]'")

from edge_agent.config import RuntimeSettings
from edge_agent.runtimes import load
from export.to_tflite import LitePart, converter, held_to_golden, recipe_of
from protocol.bundles import Golden, Lite, Parity, digest, unpack
from protocol.errors import BadSettings
from protocol.reading.notes import Note
from protocol.reports import ModelRef
from protocol.windows import WindowSpec
from server import training
from server.datasets import SignalGrid
from server.training import Circumstances, ForecastPlan
from server.training.starter import starter_reader

BOTH = ("onnx", "tflite")
STEP_MS = 60_000


def quiet(_share: float, _step: str) -> None:
    return None


def with_converter() -> None:
    try:
        converter()
    except BadSettings as why:
        pytest.skip(str(why))


def of(file: str) -> ModuleType:
    """Another test file's module, for its plans."""
    path = Path(__file__).parent / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def grid() -> SignalGrid:
    drawn, t = np.random.default_rng(1), np.arange(600)
    values = np.stack([20 + 3 * np.sin(t / 7 + s) + 0.2 * drawn.normal(size=600) for s in range(2)])
    return SignalGrid(0, STEP_MS, [("M-0", "current"), ("M-1", "current")], values, ())


def plan(**changes: object) -> ForecastPlan:
    usual = ForecastPlan(
        window=WindowSpec(step_ms=STEP_MS, length=12, horizon=4), epochs=1, slots=(training.LSTM,), targets=BOTH
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def world() -> Circumstances:
    return Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_700_000_000_000)


def test_a_forecasters_bundle_serves_by_either_form_with_nearly_the_same_answers() -> None:
    with_converter()
    (made,) = training.train_forecast(grid(), plan(), world(), quiet)
    passport = made.passport
    assert passport.lite is not None
    assert passport.lite.recipe == "w8"
    assert passport.lite.inputs == ["x", "who"]
    assert passport.lite.parity.rel_rms < 0.05
    assert passport.lite.golden is not None
    assert passport.golden.atol < passport.lite.golden.atol <= 4 * passport.golden.atol
    assert "Beside it a TFLite file (w8, " in passport.verdict
    answers = {}
    for engine in ("onnxruntime", "tflite"):
        model = load(made.archive, digest(made.archive), RuntimeSettings(engines=(engine,)))
        assert model.engine.startswith(engine)
        x = np.asarray(unpack(made.archive).golden_inputs["x"], dtype=np.float32)
        answers[engine] = model.quantiles(x)
    np.testing.assert_allclose(answers["tflite"], answers["onnxruntime"], atol=0.1)
    assert load(made.archive, digest(made.archive)).engine_why.startswith("the fastest here")


def test_a_readers_bundle_serves_by_either_form_with_nearly_the_same_answers() -> None:
    with_converter()
    little = of("test_starter.py").LITTLE
    archive = starter_reader(replace(little, targets=BOTH), 0, quiet).candidate.archive
    passport = unpack(archive).passport
    assert passport.reader is not None
    assert passport.reader.width, "this little training found its encoder of no use"
    assert passport.lite is not None, passport.verdict
    note = Note(id="n", machine="P-101", time_ms=0, text="seal of the pump leaks oil, 泵密封漏油")
    chances = {}
    for engine in ("onnxruntime", "tflite"):
        model = load(archive, digest(archive), RuntimeSettings(engines=(engine,)))
        assert model.engine.startswith(engine)
        assert model.reader is not None
        read = model.reader.read(note, 0, ModelRef("notes.reader", "reader"))
        chances[engine] = {one.name: one.probability for one in read.judged[0].classes}
    assert chances["tflite"] == pytest.approx(chances["onnxruntime"], abs=0.05)


def test_a_training_that_cannot_be_packed_as_asked_is_not_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MILLWRIGHT_TFLITE_PYTHON", str(tmp_path / "python"))
    done: list[str] = []
    with pytest.raises(BadSettings, match="which is no file"):
        training.train_forecast(grid(), plan(slots=training.FORECAST_SLOTS), world(), lambda _, step: done.append(step))
    assert done == []


def test_nor_is_one_of_remaining_lives_or_of_demand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILLWRIGHT_TFLITE_PYTHON", str(tmp_path / "python"))
    lives, parts = of("test_remaining_life.py"), of("test_supply_demand.py")
    done: list[str] = []
    with pytest.raises(BadSettings, match="which is no file"):
        training.train_life(
            lives.recorded(8), training.LifePlan(targets=BOTH), world(), lambda _, step: done.append(step)
        )
    table = parts.DemandTable(["a"], "2023-01", np.ones((1, 24)))
    with pytest.raises(BadSettings, match="which is no file"):
        parts.train_demand(table, parts.DemandPlan(targets=BOTH), world(), lambda _, step: done.append(step))
    assert done == []


def test_targets_name_the_recipe_of_the_file() -> None:
    assert recipe_of(("onnx",)) == ""
    with_converter()
    assert [recipe_of(("onnx", target)) for target in ("tflite", "tflite-dyn8")] == ["w8", "dyn8"]


def test_a_file_that_is_far_from_the_golden_vectors_is_left_out() -> None:
    none = Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound="")
    part = LitePart(b"file", Lite(recipe="w8", inputs=["x"], outputs=["q"], size=4, parity=none))
    wanted = {"q": np.zeros((2, 3))}
    near = held_to_golden(part, Golden(atol=0.05, rtol=0), wanted, {"q": np.full((2, 3), 0.01)})
    assert near.told is not None
    assert near.told.golden == Golden(atol=pytest.approx(0.06), rtol=0)
    for far in (1.0, np.nan):
        left = held_to_golden(part, Golden(atol=0.05, rtol=0), wanted, {"q": np.full((2, 3), far)})
        assert (left.content, left.told) == (b"", None)
        assert "No TFLite file: it is off by" in left.words
