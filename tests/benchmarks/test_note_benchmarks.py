"""The benchmarks of reading notes run on any small folder of their format."""

from __future__ import annotations

import csv
import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from server.algorithms.note_reader import ReaderSettings
from tests import scribbled

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(name="script")
def _script(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location(f"script_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, f"script_{name}", module)
        spec.loader.exec_module(module)
        return module

    return load


def measured(module: ModuleType, folder: Path) -> dict[tuple[str, str], dict[str, object]]:
    sheet = module.contract.Sheet("notes", module.contract.Options(folder, folder, True, "", 1))
    module.measure(sheet)
    return {(row["what"], row["metric"]): row for row in sheet.rows}


def test_failure_modes_of_another_plant_can_be_measured(tmp_path: Path, script, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    notes = [f"{note.text.replace(',', ' ')},{note.said['failure']}" for note in scribbled.notes(100)]
    (tmp_path / "train.txt").write_text("\n".join(notes[:70]) + "\nno label here\n", encoding="utf-8")
    (tmp_path / "dev.txt").write_text("\n".join(notes[70:]) + "\n", encoding="utf-8")
    module = script("notes_failure_mode")
    monkeypatch.setattr(module, "SETTINGS", ReaderSettings(folds=3, repeats=1))
    rows = measured(module, tmp_path)
    given = rows["failure mode, train -> dev as given", "accuracy"]
    assert given["n"] == 30
    assert given["ours"] > given["peers"]["commonest mode"]
    repeated = rows["failure mode, 2 x 5-fold", "accuracy"]
    assert repeated["n"] == 200
    assert 0 <= repeated["p_one_sided"] <= 1
    assert repeated["holds"] is None
    assert rows["numbers in the shipped tables", "parameters"]["ours"] < 1e6
    assert 0 <= rows["chance of the first mode, unseen notes", "calibration error"]["ours"] < 0.5


def test_events_are_split_by_their_own_number(tmp_path: Path, script, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    module = script("notes_events")
    header = ["summary_nr", "Abstract Text", "Event Description", "Event type", "Degree of Injury", "Nature of Injury"]
    with (tmp_path / "part.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(header)
        for i, note in enumerate(scribbled.notes(450)):
            mode = note.said["failure"]
            table.writerow(
                [i, f"{note.text}. It was seen. It was seen.", "Somebody wrote", mode, note.said["urgency"], ""]
            )
    monkeypatch.setattr(module, "SETTINGS", ReaderSettings(folds=3, repeats=1))
    rows = measured(module, tmp_path)
    event = rows["event type, 6 classes", "accuracy"]
    assert event["ours"] > event["peers"]["commonest class"]
    assert ("degree of injury, 2 classes", "accuracy") in rows
    assert not [what for what, _ in rows if what.startswith("nature")]
    assert module.text_of({"Event Description": "A", "Abstract Text": "One. Two. One. "}) == "A. One. Two"
    assert {module.is_test(str(i)) for i in range(50)} == {True, False}


def test_actions_of_another_logbook_can_be_found(tmp_path: Path, script, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    module = script("notes_retrieval")
    chance = random.Random(1)
    with (tmp_path / "log.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["IDENT", "PROBLEM", "ACTION"])
        for i in range(500):
            n, what = chance.randint(1, 60), chance.choice(["GASKET LEAKING", "BAFFLE CRACKED", "SCREW LOOSE"])
            done = {"G": "REPLACED GASKET", "B": "PATCHED BAFFLE", "S": "TIGHTENED SCREW"}[what[0]]
            table.writerow([i, f"#{n} ENG {what}", f"{done}." if chance.random() < 0.8 else "CK'D OK"])
        table.writerow([501, "", "NOTHING"])
    (tmp_path / "words.csv").write_text("Word,Example\nbaffle,cylinder baffle\n")
    monkeypatch.setattr(module, "GRID", module.GRID[:2])
    rows = measured(module, tmp_path)
    unseen = rows["unseen problem texts", "unigram F1"]
    assert unseen["ours"] >= unseen["reference"]
    assert rows["unseen problem texts", "recall@5"]["ours"] >= unseen["ours"] - 0.3
    lines = module.read(tmp_path / "log.csv")
    assert len(lines) == 500
    train = {module.group(line) for line in lines if module.part(module.group(line)) > 2}
    assert not train & {module.group(line) for line in lines if module.part(module.group(line)) <= 2}


def test_the_paired_test_knows_luck_from_skill(script, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(FOLDER))
    readers = importlib.import_module("readers")
    draw = np.random.default_rng(0)
    assert readers.corrected_t((draw.normal(0.03, 0.01, 50)).tolist(), 0.2)[1] < 0.01
    assert readers.corrected_t((draw.normal(0.0, 0.02, 50)).tolist(), 0.2)[1] > 0.05
    right = np.arange(50) < 40
    assert readers.exact_sign(right, right) == 1.0
    assert readers.exact_sign(right, np.zeros(50, dtype=bool)) < 1e-6
    assert readers.macro_f1(np.array([0, 0, 1]), np.array([0, 0, 1]), 3) == 1.0
