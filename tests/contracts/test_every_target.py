"""Every learner's bundle is exported, verified and run on every target that it supports: the graph on onnxruntime, tables on
numpy, and the TFLite file where its passport has one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.config import ONNXRUNTIME, TFLITE, EngineName, RuntimeSettings
from edge_agent.once import inspect_bundle, verify_bundle
from edge_agent.runtimes import answer_golden, load
from edge_agent.runtimes.lite import tflite_runtime
from export.to_tflite import converter
from protocol.bundles import Bundle, Runtime, digest, pack, unpack
from protocol.card import card
from protocol.errors import BadBundle, BadSettings
from server import training
from tests import lite_files
from tests.contracts.test_every_learner import LEARNERS, Learner, demand, forecaster, learned, life, of

TARGETS = ("numpy", ONNXRUNTIME, TFLITE)
BOTH = ("onnx", "tflite")


def _beside(usual: Learner) -> Learner:
    """One that is asked for a TFLite file beside its graph; skipped where nothing here makes one."""

    def learn() -> training.Candidate:
        try:
            converter()
        except BadSettings as why:
            pytest.skip(str(why))
        made = usual.learn()
        assert made.passport.lite is not None, made.passport.verdict
        assert f"Beside it a TFLite file ({made.passport.lite.recipe}, " in made.passport.verdict
        return made

    return replace(usual, name=f"{usual.name} beside tflite", learn=learn)


ALL = [*LEARNERS, *map(_beside, (forecaster(training.LSTM, ("lstm",), BOTH), life(BOTH), demand(BOTH)))]
every = pytest.mark.parametrize("learner", ALL, ids=[learner.name for learner in ALL])


def targets(bundle: Bundle) -> list[str]:
    """What a bundle says that it runs on."""
    if bundle.lite and bundle.passport.runtime is not Runtime.DECODER:
        return [ONNXRUNTIME, TFLITE]
    return [ONNXRUNTIME] if bundle.graph else ["numpy"]


@every
@pytest.mark.parametrize("target", TARGETS)
def test_a_bundle_answers_its_golden_vectors_on_every_target_that_it_has(learner: Learner, target: str) -> None:
    archive = learned(learner).archive
    bundle = unpack(archive)
    if target not in targets(bundle):
        assert target == TFLITE or (target == "numpy") == bool(bundle.graph)
        assert (bundle.passport.lite is None) == (not bundle.lite)
        return
    if target == TFLITE:
        try:
            tflite_runtime()
        except BadBundle as why:
            pytest.skip(why.detail)
    allowed: tuple[EngineName, ...] = (TFLITE,) if target == TFLITE else (ONNXRUNTIME,)
    model = load(archive, digest(archive), RuntimeSettings(engines=allowed))
    assert model.engine.startswith("" if target == "numpy" else target)
    assert {one.output for one in model.proof} == set(bundle.golden_outputs)
    assert all(one.share <= 1 + 1e-9 for one in model.proof)
    once, again = (answer_golden(model, bundle.golden_inputs, bundle.golden_outputs) for _ in range(2))
    for name, values in once.items():
        np.testing.assert_array_equal(values, again[name])
    assert learner.ask(model)


@pytest.mark.parametrize("target", [ONNXRUNTIME, TFLITE])
def test_a_bundle_written_by_hand_runs_on_both_of_its_targets(target: EngineName) -> None:
    lite_tests = of("edge_agent/test_lite_runtime.py")
    archive = lite_tests.sealed(lite_files.forecaster_graph(), lite_files.forecaster())
    assert targets(unpack(archive)) == [ONNXRUNTIME, TFLITE]
    model = load(archive, digest(archive), RuntimeSettings(engines=(target,)))
    assert model.engine.startswith(target)
    assert [one.output for one in model.proof] == ["q"]


@every
def test_the_commands_read_and_prove_every_bundle(
    learner: Learner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = learned(learner).archive
    file = tmp_path / "one.bundle"
    file.write_bytes(archive)
    assert inspect_bundle.main([str(tmp_path), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["bundles"]
    assert told["digest"] == digest(archive)
    assert (told["graph"] is not None) == bool(unpack(archive).graph)
    assert verify_bundle.main([str(file), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["bundles"]
    assert told["right"]
    assert told["rss_bytes"] > 0
    right = [form for form in told["forms"] if not form["refused"]]
    assert right
    for form in right:
        assert form["call_us"] > 0
        assert {one["output"] for one in form["outputs"]} == set(unpack(archive).golden_outputs)


@every
def test_a_card_says_the_files_and_what_was_measured(learner: Learner) -> None:
    made = learned(learner)
    assert made.passport == unpack(made.archive).passport
    told = {section.name: section for section in card(made.passport, digest(made.archive)).sections}
    assert [row[0] for row in told["files"].tables[0].rows] == sorted(made.passport.files)
    figure = made.passport.quality[0]
    if figure.low is not None and figure.high is not None:
        assert figure.low <= figure.model <= figure.high
        assert math.isfinite(figure.low + figure.high)
    assert "parameters" in told


@every
def test_golden_vectors_that_do_not_come_out_are_refused_on_every_target(learner: Learner) -> None:
    bundle = unpack(learned(learner).archive)
    for name, expected in bundle.golden_outputs.items():
        tolerance = bundle.passport.golden
        wide = np.asarray(expected, dtype=np.float64)
        wrong = wide.copy()
        wrong.flat[0] += 1.0 + 3 * (tolerance.atol + tolerance.rtol * abs(wide.flat[0]))
        archive = pack(msgspec.structs.replace(bundle, golden_outputs={**bundle.golden_outputs, name: wrong}))
        with pytest.raises(BadBundle, match=f"golden output '{name}' is off by"):
            load(archive, digest(archive))
