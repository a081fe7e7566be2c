"""What running models costs is measured of what the agent does: what it may not ask together counts as asked alone, and an
agent that is driven has the bundles that it was given."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from edge_agent import config
from edge_agent.updates import Updates
from export.quantize import quantize
from protocol.errors import TryLater
from protocol.reading.notes import Note
from protocol.sync import decode
from tests.forecasters import SLOT, forecasting
from tests.lite_files import forecaster_graph

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = (
    "contract",
    "speed_peers",
    "fault_cases",
    "generate_speed",
    "agent_intake",
    "gateway_models",
    "whole_agent",
    "latency",
)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("latency")


def sheet(script: Any) -> Any:
    return script.contract.Sheet("latency", script.contract.Options(Path(), Path(), True, "", 1))


def measured(script: Any, graph: bytes) -> Any:
    made = sheet(script)
    script.machines(made, script.Models({SLOT: forecasting(graph, 0.1)}))
    return made


def test_windows_of_many_machines_are_counted_as_the_agent_asks_for_them(script: Any) -> None:
    made = measured(script, forecaster_graph())
    rows = {row["what"]: row for row in made.rows}
    assert rows["LSTM int8, 1 machine"]["holds"] is None
    assert rows["LSTM int8, 32 machines"]["windows_s"] > 0
    loud = rows["LSTM int8, 32 machines, one loud"]
    assert loud["together"]
    assert loud["holds"]
    assert rows["agent's forecasting step, 128 machines"]["n"] == 128
    assert not made.notes


def test_a_form_that_loud_neighbours_spoil_is_said_to_be_asked_one_by_one(script: Any) -> None:
    made = measured(script, quantize(forecaster_graph()))
    loud = next(row for row in made.rows if row["what"].endswith("one loud"))
    assert not loud["together"]
    assert loud["in_one_call"] > 1
    assert loud["ours"] == 0
    assert any("asked one by one" in note for note in made.notes)


def test_an_agent_is_driven_with_the_bundles_that_it_was_given(script: Any, tmp_path: Path) -> None:
    agent = sys.modules["whole_agent"]
    archive = forecasting(forecaster_graph(), 0.1)
    file = agent.configured(1883, tmp_path, {SLOT: archive}, 60_000)
    settings = config.load(file)

    def away(_assignment: Any) -> bytes:
        raise TryLater("nothing is fetched")

    (change,) = Updates(Path(settings.data_dir) / "bundles", away, lambda: 0).restore()
    assert change.slot == SLOT
    assert change.model is not None


def test_readings_come_first_then_a_note_then_readings_far_off(script: Any) -> None:
    agent = sys.modules["whole_agent"]
    sent = list(agent.told(60_000))
    at = [topic for topic, _ in sent].index("plant/l/notes")
    assert at == agent.QUIET * agent.MACHINES
    assert decode(sent[at][1], Note).machine == "M-0"
    before, after = (msgspec.json.decode(sent[i][1])["value"] for i in (at - agent.MACHINES, at + 1))
    assert after > before + 20
