"""What a gateway has of a recommender is measured, with and without the peer."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("recommend_edge", FOLDER / "recommend_edge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "recommend_edge", module)
    spec.loader.exec_module(module)
    return module


def test_a_small_world_is_measured_where_the_peer_is_absent(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "QUICK", script.Scale(items=2000, users=3000, profiles=6, rounds=1))
    monkeypatch.setattr(script.contract, "peer", lambda _sheet, _module: None)
    monkeypatch.setattr(script, "PAST", 50)
    told = ["--quick", "--json"]
    assert script.contract.run("recommend_edge", "", script.measure, told, needs_data=False) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    by_metric = {row["metric"]: row for row in rows}
    assert by_metric["p50 by ids / implicit"]["ours"] is None
    assert by_metric["p50 by ids / implicit"]["ours_us"] > 0
    assert by_metric["bytes / float32 CSR"]["ours"] < 1 / 3
    assert by_metric["overlap@10"]["ours"] > 0.9
    assert by_metric["RSS MiB, loaded and asked"]["ours"] > by_metric["RSS MiB, loaded and asked"]["reference"]
    assert all(row["holds"] is None for row in rows)


def test_profiles_are_of_users_that_the_matrix_does_not_know(script: ModuleType) -> None:
    made = script.world(script.Scale(items=2000, users=3000, profiles=8, rounds=1), None)
    assert [len(profile) for profile in made.profiles] == [50, 100] * 4
    assert made.chosen.shape[0] == 3000 - 8
    assert made.similarity.has_sorted_indices
