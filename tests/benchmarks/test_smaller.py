"""The verdicts on students and half networks, and what the script does where a file is absent."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """(contract, smaller_rows)."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("contract", "smaller_rows"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("contract"), importlib.import_module("smaller_rows")


def sheet(contract: Any, folder: Path) -> Any:
    return contract.Sheet("smaller", contract.Options(folder, folder, False, "", 3))


@pytest.mark.parametrize(
    ("lower", "teacher", "taught", "alone", "parameters", "holds"),
    [
        (True, 0.40, [0.401, 0.403], [0.405, 0.404], 20, True),
        (True, 0.40, [0.405, 0.404], [0.401, 0.403], 20, False),  # no better than without a teacher
        (True, 0.40, [0.42, 0.42], [0.43, 0.43], 20, False),  # too far behind
        (True, 0.40, [0.401, 0.403], [0.405, 0.404], 30, False),  # too large
        (False, 0.80, [0.79, 0.78], [0.75, 0.77], 20, True),
        (False, 0.80, [0.77, 0.77], [0.75, 0.75], 20, False),
    ],
)
def test_a_student_is_small_good_and_better_than_without_a_teacher(
    scripts: tuple[Any, Any],
    tmp_path: Path,
    lower: bool,
    teacher: float,
    taught: list[float],
    alone: list[float],
    parameters: int,
    holds: bool,
) -> None:
    contract, rows = scripts
    made, task = sheet(contract, tmp_path), rows.Task("a task", "a metric", lower, 9)
    rows.student_row(made, task, (teacher, 100), taught, alone, parameters, judged=True, seconds=1.0)
    row = made.rows[0]
    assert (row["holds"], row["n"], row["by_seed"]) == (holds, 9, taught)
    rows.student_row(made, task, (teacher, 100), taught, alone, parameters, judged=False, seconds=1.0)
    assert made.rows[1]["holds"] is None


def test_half_a_network_loses_little_and_is_faster(scripts: tuple[Any, Any], tmp_path: Path) -> None:
    contract, rows = scripts
    made, task = sheet(contract, tmp_path), rows.Task("a task", "a metric", True, 9)
    calls = {
        name: lambda work=work: sum(range(work))
        for name, work in (("whole float", 20_000), ("whole int8", 100), ("pruned float", 100), ("pruned int8", 20_000))
    }
    timed = rows.Timed("one row", calls, dict.fromkeys(calls, 1), 3)
    figures = {"whole": [1.0, 1.0], "pruned": [1.005, 1.005], "fresh": [1.1, 1.1]}
    rows.pruned_rows(made, task, figures, (10, 5), timed, judged=True, seconds=1.0)
    assert [row["holds"] for row in made.rows] == [True, True, False]
    assert made.rows[0]["peers"] == {"fresh": 1.1}
    assert made.rows[1]["times_faster"] > 1 > made.rows[2]["times_faster"]
    assert made.rows[1]["per_second"] == pytest.approx(3e6 / made.rows[1]["ours"], rel=1e-3)
    worse = figures | {"pruned": [1.02, 1.02]}
    rows.pruned_rows(made, task, worse, (10, 5), timed, judged=True, seconds=1.0)
    assert made.rows[3]["holds"] is False


def test_a_folder_without_its_files_is_refused_in_words(scripts: tuple[Any, Any], tmp_path: Path) -> None:
    contract, _ = scripts
    smaller = importlib.import_module("smaller")
    with pytest.raises(SystemExit, match="nothing to measure"):
        smaller.measure(sheet(contract, tmp_path))


@pytest.mark.slow
def test_a_language_model_is_followed_by_a_student_and_halved(tmp_path: Path) -> None:
    draw, words = random.Random(1), "the pump valve filter runs stops leaks and is cleaned by an operator".split()  # noqa: SIM905
    texts = [" ".join(draw.choices(words, k=400)) for _ in range(240)]
    rows = [json.dumps({"path": f"{number}.md", "text": text}) for number, text in enumerate(texts)]
    (tmp_path / "linuxcnc.jsonl").write_text("\n".join(rows))
    command = [sys.executable, str(FOLDER / "smaller.py"), "--data", str(tmp_path), "--quick", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    student, half, *timed = json.loads(run.stdout)["rows"]
    assert student["parameters"] <= 0.25 * student["teacher_parameters"]
    assert 0.4 < half["parameters"] / half["whole_parameters"] < 0.8
    assert all(row["bytes"] < row["whole_bytes"] and row["per_second"] > 0 for row in timed)
    assert len(timed) == 2
