"""`millwright schedule` on files: what it prints, writes and returns."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

import millwright
from edge_agent.once.schedule import as_text, main, make
from protocol.errors import MillwrightError, NeedsPerson
from protocol.schedules import Schedule, Shop
from protocol.shop_check import violations
from protocol.shop_files import shop_from_json

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "scheduling.md"
FT06_LIKE = "# two jobs\n2 2\n0 3 1 2\n1 2 0 4\n"
CP_SAT = pytest.mark.skipif(importlib.util.find_spec("ortools") is None, reason="needs millwright[schedule]")


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The shop of the documentation."""
    text = DOCS.read_text(encoding="utf-8")
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found is not None
    path = tmp_path / "shop.json"
    path.write_text(found.group(1), encoding="utf-8")
    return path


def without_after(path: Path) -> Path:
    shop = json.loads(path.read_text())
    for job in shop["jobs"]:
        job.pop("after", None)
    path.write_text(json.dumps(shop))
    return path


@CP_SAT
def test_the_documented_example_runs(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = example.with_name("plan.json"), example.with_name("plan.svg")
    assert (
        millwright.main(["schedule", str(example), "--seconds", "5", "--gantt", str(picture), "--out", str(out)]) == 0
    )
    said = capsys.readouterr()
    assert "5 operations on 3 machines: ends at 2026-01-01 11:00Z" in said.out
    assert "assembly@bench (closed)" in said.out
    assert "best cost" in said.err
    plan = msgspec.json.decode(out.read_bytes(), type=Schedule)
    assert violations(shop_from_json(example.read_bytes()), plan) == []
    drawn = ElementTree.fromstring(picture.read_text())  # noqa: S314 - our own document
    classes = {e.get("class") for e in drawn.iter() if e.get("class")}
    assert {"work critical", "upkeep", "shut", "setup"} <= classes


@CP_SAT
def test_a_plan_in_json_and_in_chinese(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert millwright.main(["schedule", str(example), "--seconds", "3", "--json"]) == 0
    msgspec.json.decode(capsys.readouterr().out, type=Schedule)
    assert millwright.main(["schedule", str(example), "--seconds", "3", "--lang", "zh"]) == 0
    assert "道工序" in capsys.readouterr().out


def test_the_gateways_search_answers_without_ortools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.txt"
    path.write_text(FT06_LIKE)
    assert main([str(path), "--seconds", "0.3"]) == 0
    said = capsys.readouterr().out
    assert "ends at 7" in said
    assert "no plan can end earlier" in said


def test_a_machine_drops_out_and_the_plan_is_mended(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop, plan = str(without_after(example)), example.with_name("plan.json")
    assert main([shop, "--solver", "gateway", "--seconds", "0.3", "--out", str(plan)]) == 0
    down = "lathe:1767232800000:1767240000000"
    code = main([shop, "--repair", str(plan), "--down", down, "--seconds", "0.2", "--json"])
    said = capsys.readouterr().out
    mended = msgspec.json.decode(said[said.index("{") :], type=Schedule)
    assert code == (1 if mended.late_jobs else 0)
    assert mended.repairs
    assert any(c.machine == "lathe" and c.because == "breakdown" for c in mended.closed)


def test_an_impossible_shop_names_its_constraint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop.json"
    step = {"choices": [{"machine": "M", "duration_ms": 1}]}
    path.write_text(
        json.dumps(
            {
                "jobs": [
                    {"job": "a", "after": ["b"], "operations": [step]},
                    {"job": "b", "after": ["a"], "operations": [step]},
                ]
            }
        )
    )
    assert main([str(path), "--json"]) == 1
    said = capsys.readouterr()
    assert "cyclic routing" in said.err
    assert "cyclic routing" in json.loads(said.out)["infeasible"]


def test_late_jobs_are_named_and_counted_in_the_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop.json"
    step = {"choices": [{"machine": "M", "duration_ms": 5}]}
    path.write_text(json.dumps({"jobs": [{"job": "a", "due_ms": 2, "operations": [step]}]}))
    assert main([str(path), "--solver", "gateway", "--seconds", "0.1"]) == 1
    assert "1 jobs late: a" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("3 2\n0 1 1 2\n", [], "3 jobs are announced, 1 lines follow"),
        ("1 2\n0 x 1 2\n", [], "only whole numbers"),
        ("1 1\n1 2 0 5\n", [], "the line ends too early"),
        ("1 1\n1 1 0 5 9\n", ["--format", "flexible"], "left over"),
        ("{", [], "not JSON"),
        ('{"jobs": [{"job": "a"}]}', [], "missing required field"),
        (FT06_LIKE, ["--seconds", "nan"], "--seconds"),
        (FT06_LIKE, ["--repair", "x.json"], "belong together"),
        (FT06_LIKE, ["--gantt", "x.png"], "SVG"),
        (FT06_LIKE, ["--repair", "nowhere.json", "--down", "M0:1:2"], "cannot read"),
    ],
)
def test_wrong_input_names_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, options: list[str], says: str
) -> None:
    path = tmp_path / "x.txt"
    path.write_text(text)
    assert millwright.main(["schedule", str(path), *options]) == 2
    assert says in capsys.readouterr().err


def test_ctrl_c_gives_the_best_plan_so_far(tmp_path: Path) -> None:
    path, root = tmp_path / "big.txt", DOCS.parent.parent
    draw = random.Random(3)
    rows = [" ".join(f"{m} {draw.randint(1, 99)}" for m in draw.sample(range(12), 12)) for _ in range(20)]
    path.write_text("20 12\n" + "\n".join(rows) + "\n")
    command = [sys.executable, "millwright.py", "schedule", str(path), "--seconds", "100"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert "best cost" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=50)
    assert "240 operations on 12 machines" in out
    assert "stopped" in err
    assert running.returncode == 0


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(MillwrightError, match="cannot read"):
        main([str(tmp_path / "none")])


def test_without_the_servers_part_the_remedy_is_named() -> None:
    with pytest.raises(NeedsPerson, match="--solver gateway"):
        make(Shop(jobs=[]), solver="cp-sat")


def test_a_shop_without_jobs_is_an_empty_plan() -> None:
    plan = make(Shop(jobs=[]), solver="gateway", seconds=0.1)
    assert plan.placed == []
    assert "0 operations" in as_text(plan, Shop(jobs=[]), "en")
