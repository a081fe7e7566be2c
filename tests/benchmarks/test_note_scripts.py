"""The scripts of shorthand and entities, on a folder made up here: rows come, and figures mean what they say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def rows(module: ModuleType, name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    import contract  # beside the scripts

    assert contract.run(name, module.__doc__, module.measure, ["--data", str(folder), "--quick", "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["rows"]
    return found


def shorthand(folder: Path) -> None:
    lines = ["PH1\t<id>\nREPL\treplace\npump\tpump", "PH2\t<id>\nCHK\tcheck\nHYD\thydraulic\npump\tpump"]
    (folder / "company_a").mkdir()
    for part in ("train", "val", "test"):
        (folder / "company_a" / f"{part}.norm").write_text("\n\n".join(lines * 6) + "\n", encoding="utf-8")


def test_shorthand_script_shows_ours_beside_most_frequent_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorthand(tmp_path)
    made = rows(load("notes_normalise", monkeypatch), "notes_normalise", tmp_path, capsys)
    assert [row["metric"] for row in made] == ["error reduction", "precision", "recall"]
    assert made[0]["ours"] == made[0]["reference"] == 1.0


def test_error_reduction_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("notes_normalise", monkeypatch)
    texts = [[("a", "b"), ("c", "c"), ("d", "e"), ("f", "f")]]
    assert script.scores(texts, lambda tokens: tokens)["error reduction"] == 0.0
    half = script.scores(texts, lambda tokens: ["b", "c", "d", "f"])
    assert half == {"error reduction": 0.5, "precision": 1.0, "recall": 0.5}
    spoilt = script.scores(texts, lambda tokens: ["b", "x", "e", "f"])
    assert spoilt["error reduction"] == pytest.approx(0.5)
    assert spoilt["precision"] == pytest.approx(2 / 3)


def entities(folder: Path) -> None:
    made = []
    for part in ("oil pump", "fuel pump", "door hinge", "drive belt") * 32:
        tokens = ["replace", *part.split(), "broken"]
        named = [(0, 1, "Activity/Replace"), (1, 3, "Thing/Part"), (2, 3, "Thing"), (3, 4, "State/Bad")]
        made.append({"tokens": tokens, "entities": [{"start": a, "end": b, "type": k} for a, b, k in named]})
    (folder / "gold_release.json").write_text(json.dumps(made), encoding="utf-8")


def test_entities_script_counts_nested_spans_that_a_label_a_word_cannot_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "maintie"
    folder.mkdir()
    entities(folder)
    (row,) = rows(load("notes_entities", monkeypatch), "notes_entities", folder, capsys)
    assert row["ours"] == 1.0
    assert row["reference"] == pytest.approx(6 / 7)
    assert row["peers"] == {"BIO softmax": pytest.approx(6 / 7)}
    assert row["n"] == 4 * 108


def test_annotators_must_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = [(0, 1, "Item"), (0, 1, "Item"), (1, 2, "Activity"), (0, 2, "Item")]
    line = {"tokens": ["a", "b"], "mentions": [{"start": a, "end": b, "labels": [k]} for a, b, k in marks]}
    path = tmp_path / "train_1.json"
    path.write_text(json.dumps(line), encoding="utf-8")
    (text,) = load("notes_entities", monkeypatch).other_scheme(path)
    assert text.entities == {(0, 1): "Item"}


def test_two_languages_are_measured_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"en": ("pump leaking {}", "motor too hot {}"), "zh": ("泵漏油 {}", "电机烫手 {}")}
    for language, (leak, heat) in said.items():
        lines = [{"text": leak.format(i), "failure": "leak"} for i in range(10)]
        lines += [{"text": heat.format(i), "failure": "heat"} for i in range(10)]
        text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
        (tmp_path / f"{language}.jsonl").write_text(text, encoding="utf-8")
    english, chinese = rows(load("notes_chinese", monkeypatch), "notes_chinese", tmp_path, capsys)
    assert english["target"] is None
    assert chinese["target"] == pytest.approx(float(str(english["ours"])) - 0.05)
    assert english["n"] == chinese["n"] == 20
    assert min(float(str(row["ours"])) for row in (english, chinese)) > 0.9


def test_our_own_sets_tell_the_same_modes_equally_often() -> None:
    counts = []
    for language in ("en", "zh"):
        lines = (FOLDER / "hand_written_notes" / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()
        read = [json.loads(line) for line in lines]
        assert len({row["text"] for row in read}) == len(read) >= 400
        counts.append(sorted(row["failure"] for row in read))
    assert counts[0] == counts[1]
