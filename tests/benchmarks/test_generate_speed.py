"""The speed of language models is measured with sizes that take a moment, with and without peers."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("generate_speed", FOLDER / "generate_speed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "generate_speed", module)
    spec.loader.exec_module(module)
    little = module.Size("1L-128", 1, 2, 128, 700, 6)
    monkeypatch.setattr(module, "SMALL", little)
    monkeypatch.setattr(module, "SIZES", (little,))
    monkeypatch.setattr(module, "WRITES", replace(little, name="writer"))
    monkeypatch.setattr(module, "REPEATS", 1)
    monkeypatch.setattr(module, "bandwidth", lambda: 1e10)
    return module


def test_a_small_world_is_measured_where_the_peers_are_absent(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script.contract, "peer", lambda _sheet, _module: None)
    assert script.contract.run("generate_speed", "", script.measure, ["--quick", "--json"], needs_data=False) == 0
    rows = {(row["what"], row["metric"]): row for row in json.loads(capsys.readouterr().out)["rows"]}
    speed = rows["1L-128 int8", "tokens/s / torch eager"]
    assert speed["tokens_s"] > speed["eager_tokens_s"] * 0.1
    assert speed["roofline"] > 0
    assert speed["agreement"] >= 0.5
    assert rows["1L-128 int4", "tokens/s / torch eager"]["megabytes"] < speed["megabytes"]
    beside = rows["1L-128 int8", "tokens/s / best peer"]
    assert beside["ours"] is beside["holds"] is None
    written = rows["writer int8, strict report of 55 tokens", "ms, median"]
    assert abs(written["tokens"] - script.REPORT_TOKENS) <= script.TOLERANCE
    assert written["calls"] > 0
    assert rows["writer int8, cold start to first report", "s, median of 1"]["ours"] > 0


@pytest.mark.parametrize("peer", ["transformers", "ctranslate2"])
def test_peers_with_the_same_weights_write_the_same_tokens_or_are_told_to_be_absent(
    script: ModuleType, peer: str
) -> None:
    sheet = script.contract.Sheet("generate_speed", script.contract.Options(Path(), Path(), True, "", 1))
    net = script.SMALL.net()
    run = script.in_transformers(sheet, net) if peer == "transformers" else script.in_ctranslate2(sheet, net, "float32")
    if importlib.util.find_spec(peer) is None:
        assert run is None
        assert any(peer in note for note in sheet.notes)
        return
    assert run([5, 6, 7, 8], 6) == script.by_feeding(script.TorchDecoder(net))([5, 6, 7, 8], 6)


def test_of_an_embedding_only_a_row_is_read(script: ModuleType) -> None:
    size = script.SMALL
    packed = script.in_blocks(script.gateway_graph(size.net(), size.spec))
    matrices = 12 * size.width**2 + size.vocabulary * size.width  # one layer and the head, a byte a weight
    assert matrices <= script.touched_bytes(packed) <= 1.1 * matrices


def test_what_an_agent_holds_is_told(script: ModuleType, tmp_path: Path) -> None:
    sheet = script.contract.Sheet("generate_speed", script.contract.Options(Path(), Path(), True, "", 1))
    small = replace(script.ENCODER, vocabulary=700, width=32, layers=1, heads=2, inner=64)
    script.resident(sheet, tmp_path, script.SMALL, small)
    assert sheet.rows[0]["holds"]
    assert np.isfinite(sheet.rows[0]["peak_mib"])
