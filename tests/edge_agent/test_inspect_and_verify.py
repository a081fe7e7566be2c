"""`millwright inspect` reads bundles without running them, `millwright verify` proves them on this machine; both say what is
wrong with a damaged one, and need neither server nor torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

import millwright
from edge_agent.once import inspect_bundle, verify_bundle
from protocol.bundles import digest, pack
from tests.bundles import small
from tests.edge_agent.test_bad_graphs import bundle, model, written

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A right bundle, one that is wrong here, and one that is cut."""
    (tmp_path / "a.bundle").write_bytes(pack(small()))
    (tmp_path / "b.bundle").write_bytes(pack(small(2, golden=0.9)))
    (tmp_path / "c.bundle").write_bytes(pack(small(3))[:-30])
    return tmp_path


def test_inspect_reads_a_bundle_that_is_wrong_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect_bundle.main([str(folder / "a.bundle"), str(folder / "b.bundle")]) == 0
    said = capsys.readouterr().out
    assert "recommend.items v1" in said
    assert "recommend.items v2" in said
    assert digest((folder / "a.bundle").read_bytes()) in said


def test_inspect_says_why_a_bundle_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect_bundle.main([str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["bundles"]
    assert [bool(one["refused"]) for one in told] == [False, False, True]
    assert told[2]["refused"].startswith("bad_archive: ")
    assert told[0]["card"]["eligible"] is True
    assert told[0]["passport"]["slot"] == "recommend.items"


@pytest.mark.parametrize(("language", "said"), [("en", "## What it is for"), ("zh", "## 预期用途")])
def test_a_card_is_written_as_markdown_in_both_languages(
    folder: Path, capsys: pytest.CaptureFixture[str], language: str, said: str
) -> None:
    assert inspect_bundle.main([str(folder / "a.bundle"), "--markdown", "--lang", language]) == 0
    told = capsys.readouterr().out
    assert told.startswith("# recommend.items v1\n")
    assert said in told


def test_verify_proves_each_bundle_of_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_bundle.main([str(folder), "--json"]) == 1
    right, wrong, cut = json.loads(capsys.readouterr().out)["bundles"]
    assert (right["right"], wrong["right"], cut["right"]) == (True, False, False)
    (form,) = right["forms"]
    assert form["engine"] == "numpy"
    assert form["call_us"] > 0
    scores = next(one for one in form["outputs"] if one["output"] == "scores")
    assert 0 <= scores["error"] <= 1e-6
    assert 0 <= scores["share"] <= 1
    assert (wrong["reason"], cut["reason"]) == ("golden_mismatch", "bad_archive")
    assert "off by 0.4 on this CPU" in wrong["refused"]
    assert right["measured_on"].endswith("1 thread")


def test_verify_says_it_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_bundle.main([str(folder / "a.bundle")]) == 0
    said = capsys.readouterr().out
    assert "right on this machine, recommend.items v1" in said
    assert "scores: off by" in said
    assert verify_bundle.main([str(folder)]) == 1
    said = capsys.readouterr().out
    assert "WRONG on this machine, recommend.items v2" in said
    assert "c.bundle: refused, bad_archive:" in said


def test_a_graph_that_does_not_load_leaves_the_answer_for_programs_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["q"], name="~~")
    short = numpy_helper.from_array(np.ones((1, 3, 4), dtype=np.float32), "w")
    graph = written([node], [short]).replace(b"~~", b"\xff\xff")  # onnxruntime's own message is then no text
    for number, body in enumerate((graph, model(opset=999), model()[:-9])):
        (tmp_path / f"{number}.bundle").write_bytes(bundle(body))
    assert verify_bundle.main([str(tmp_path), "--json"]) == 1
    told = json.loads(capfd.readouterr().out)["bundles"]
    assert [one["reason"] for one in told] == ["unsupported_runtime", "unsupported_runtime", "bad_archive"]


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_what_is_no_bundle_is_a_wrong_use(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, why in ((tmp_path, "no *.bundle in"), (tmp_path / "none", "cannot read")):
        assert millwright.main([command, str(place)]) == 2
        assert why in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_neither_command_loads_anything_heavy_or_asks_a_network(command: str, folder: Path) -> None:
    code = (
        "import sys, socket, millwright\n"
        "def never(*_, **__): raise OSError('no network')\n"
        "socket.socket.connect = never\n"
        f"assert millwright.main([{command!r}, {str(folder / 'a.bundle')!r}]) == 0\n"
        "heavy = ('torch', 'onnx', 'pandas', 'fastapi', 'sqlalchemy', 'scipy', 'statsmodels', 'onnxruntime')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
