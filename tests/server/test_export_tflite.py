"""`millwright export --target tflite`: an encoder becomes a TFLite file that was proven by the runtime that gateways have,
alone or beside its graph; what cannot be converted is refused with the remedy, and nothing is left of it. Real conversions
need litert-torch, here or by MILLWRIGHT_TFLITE_PYTHON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="pip install 'millwright[tflite]'")
import torch

import millwright
from edge_agent.runtimes.lite import LiteEngine
from export.to_onnx import to_onnx
from export.to_tflite import SCRIPT, VARIABLE, converter
from protocol.bundles import Lite
from protocol.errors import BadSettings
from protocol.reading.tokens import tokenizer
from server.algorithms import bert, byte_pairs, word_pieces
from server.algorithms.bert import BertSettings
from server.algorithms.gpt import Gpt, GptSettings
from server.checkpoints import save_gpt
from server.checkpoints_bert import load_bert, save_bert
from server.workbench.exporting import ExportReport
from tests import lite_files

TEXTS = ["The pump stands still.", "Bearing noisy, replaced bearing", "泵漏油，更换密封"] * 5
WIDTH, CONTEXT = 64, 32


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pieces = word_pieces.learn(TEXTS, 120)
    folder = tmp_path_factory.mktemp("bert") / "in"
    folder.mkdir()
    sizes = BertSettings(vocabulary=pieces.get_vocab_size(), width=WIDTH, layers=2, heads=4, inner=128, context=CONTEXT)
    save_bert(bert.fresh(sizes, 5), pieces, folder)
    return folder


def told(out: Path) -> ExportReport:
    return msgspec.json.decode((out / "report.json").read_bytes(), type=ExportReport)


def export(model: Path, out: Path, *more: str) -> int:
    return millwright.main(["export", "--model", str(model), "--out", str(out), *more])


def stand_in(place: Path, monkeypatch: pytest.MonkeyPatch, converts: str) -> None:
    """An interpreter that converts as `converts` says and does all else with the real script."""
    program = place / "python"
    program.write_text(
        f"""#!{sys.executable}
import json, subprocess, sys
text = sys.stdin.read()
asked = json.loads(text)
if asked["task"] == "convert":
    {converts}
    print(json.dumps({{"bytes": 1, "versions": {{"stand-in": "1"}}, "peak_mb": 1}}))
else:
    sys.exit(subprocess.run([{sys.executable!r}, {str(SCRIPT)!r}], input=text.encode()).returncode)
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(program))


@pytest.mark.parametrize(("target", "recipe"), [("tflite", "w8"), ("onnx,tflite-dyn8", "dyn8")])
def test_an_encoder_becomes_a_tflite_file_that_answers_as_it_does(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, recipe: str
) -> None:
    try:
        converter()
    except BadSettings as why:
        pytest.skip(str(why))
    out = tmp_path / "out"
    assert export(encoder, out, "--target", target, "--json") == 0
    report = told(out)
    assert json.loads(capsys.readouterr().out)["lite"]["sha256"] == report.lite.sha256  # type: ignore[union-attr]
    both = target.startswith("onnx")
    assert {one.name for one in out.iterdir()} == {
        "model.tflite", "tokenizer.json", "report.json", "report.md", *(["model.onnx"] if both else [])
    }  # fmt: skip
    assert (report.file, bool(report.forms), report.beside) == ("model.onnx" if both else "", both, ["tokenizer.json"])
    lite = report.lite
    assert lite is not None
    assert (lite.recipe, lite.lengths, lite.file, lite.refused) == (recipe, [16, 32], "model.tflite", "")
    assert lite.latency_us > 0
    assert "litert-torch" in lite.made_by
    assert f"| TFLite {recipe} |" in (out / "report.md").read_text()

    content = (out / "model.tflite").read_bytes()
    engine = LiteEngine(
        content,
        Lite(recipe=recipe, inputs=["ids", "mask"], outputs=["tokens", "whole"], size=len(content), parity=lite.parity),
        1,
    )
    ids = np.zeros((1, 16), dtype=np.int64)
    row = tokenizer((out / "tokenizer.json").read_bytes()).encode("bearing replaced")[0]
    ids[0, : len(row)] = row
    said = engine.run({"ids": ids, "mask": (np.arange(16) < len(row)).astype(np.int64)[None]})["whole"][0]
    wanted = bert.vectors(load_bert(encoder)[0].bert, [row])[0]
    assert float(said @ wanted) > 0.999


def test_a_file_that_answers_otherwise_leaves_a_report_and_no_model(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = load_bert(encoder)[0].settings.vocabulary
    other = np.random.default_rng(0).normal(size=(vocabulary, WIDTH)).astype(np.float32)
    (tmp_path / "other.tflite").write_bytes(lite_files.encoder([16, 32], other))
    stand_in(
        tmp_path,
        monkeypatch,
        f"open(asked['model'], 'wb').write(open({str(tmp_path / 'other.tflite')!r}, 'rb').read())",
    )
    for target, remedy in (("tflite", "another target"), ("onnx,tflite", "onnx alone")):
        out = tmp_path / target
        assert export(encoder, out, "--target", target) == 1
        assert {one.name for one in out.iterdir()} == {"report.json", "report.md"}
        report = told(out)
        assert (report.file, report.beside, report.eligible) == ("", [], False)
        assert "TFLite refused (w8): cosine to the float vectors" in report.verdict
        assert report.verdict.endswith(f"Ask for {remedy}.")
        assert report.lite is not None
        assert report.lite.file == ""
        assert report.lite.parity.rel_rms > 0.05
        assert "**taken**" not in (out / "report.md").read_text()


def test_a_converter_that_fails_leaves_what_was_there_before(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export(encoder, out, "--quantize", "float32") == 0
    before = {one.name: one.read_bytes() for one in out.iterdir()}
    stand_in(tmp_path, monkeypatch, "sys.exit('no kernel for this')")
    assert export(encoder, out, "--target", "onnx,tflite") == 2
    assert "the TFLite converter ended with status 1: no kernel for this" in capsys.readouterr().err
    assert {one.name: one.read_bytes() for one in out.iterdir()} == before
    assert {one.name for one in tmp_path.iterdir()} == {"out", "python"}


def test_a_converter_that_is_not_there_is_named_and_nothing_is_written(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))
    assert export(encoder, tmp_path / "out", "--target", "onnx,tflite") == 2
    assert f"{VARIABLE} names {tmp_path / 'python'}, which is no file" in capsys.readouterr().err
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert export(encoder, tmp_path / "out", "--target", "tflite") == 2
    assert "pip install 'millwright[tflite-export]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_no_converter_takes_is_refused_before_one_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))
    graph, gpt = tmp_path / "net.onnx", tmp_path / "gpt"
    graph.write_bytes(to_onnx(torch.nn.Linear(8, 8), torch.randn(2, 8)))
    gpt.mkdir()
    words = byte_pairs.written(byte_pairs.learn(TEXTS, 320))
    save_gpt(Gpt(GptSettings(vocabulary=320, context=32, layers=1, heads=2, width=32)), words, gpt)
    for model, words in (
        (
            graph,
            "net.onnx: TFLite files are made of torch modules, not of ONNX files: bring an encoder's Hugging Face folder",
        ),
        (gpt, "a language model stays on ONNX"),
    ):
        for target in ("tflite", "onnx,tflite"):
            assert export(model, tmp_path / "out", "--target", target) == 2
            said = capsys.readouterr().err
            assert words in said
            assert "ask for --target onnx" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "tfl"], "--target tfl: name onnx, one of tflite and tflite-dyn8, or onnx and one of them"),
        (["--target", "tflite,tflite-dyn8"], "--target tflite,tflite-dyn8: name onnx"),
        (["--target", "onnx,onnx"], "--target onnx,onnx: name onnx"),
        (["--target", ","], "--target nothing: name onnx"),
        (["--target", "tflite", "--quantize", "int8"], "--quantize int8 is a form of the ONNX graph"),
    ],
)
def test_targets_that_make_no_sense_are_one_line_and_status_2(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert export(encoder, tmp_path / "out", *arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
