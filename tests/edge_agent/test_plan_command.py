"""`millwright plan`: a process plan, a maintenance plan and a design from a catalogue file, with the base install alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

import millwright
from edge_agent.devices.store import catalogue_toml
from edge_agent.once import plan as once
from protocol.catalogue import Catalogue
from protocol.plan_check import DESIGN_RULES, PLAN_RULES

ROOT = Path(__file__).parents[2]
AT = ["--at", "2026-09-01T08:00Z"]
PANEL = ["process", "--for", "cover-panel"]
WEAR = ["maintenance", "--for", "P-101", "--failure", "bearing wear"]
CYLINDER = ["design", "--for", "hydraulic-cylinder", "--need", "push >= 60", "--need", "stroke = 250"]


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    path = tmp_path / "plant.toml"
    path.write_text(catalogue_toml(), encoding="utf-8")
    return path


def ask(plant: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 0) -> str:
    kind, *rest = arguments
    assert millwright.main(["plan", kind, "--catalogue", str(plant), *rest, *AT]) == status
    told = capsys.readouterr()
    assert told.err == ""
    return told.out


SAID = [
    (PANEL, ["Process plan for cover panel", "9 steps", "oven temperature 180 °C"], ["盖板工艺计划", "炉温 180 °C"]),
    (WEAR, ["Feed pump P-101: replace the bearing", "bearing 6204 (1 pcs)"], ["进料泵 P-101 维护计划：更换轴承"]),
    (CYLINDER, ["Design proposal: hydraulic cylinder", "Pushing force at least 60 kN"], ["液压缸", "行程等于 250 mm"]),
]


@pytest.mark.parametrize(("arguments", "en", "zh"), SAID, ids=["process", "maintenance", "design"])
def test_a_plan_is_told_in_both_languages(
    plant: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], en: list[str], zh: list[str]
) -> None:
    english, chinese = ask(plant, arguments, capsys), ask(plant, [*arguments, "--lang", "zh"], capsys)
    assert [words for words in en if words not in english] == []
    assert [words for words in zh if words not in chinese] == []
    assert "Alternatives:" in english
    assert "备选方案" in chinese
    assert english == ask(plant, arguments, capsys)


def test_one_json_object_holds_every_alternative_with_its_score(
    plant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, Any] = json.loads(ask(plant, [*WEAR, "--json", "--candidates", "3"], capsys))
    assert told["asked"] == 3
    assert [one["candidate"] for one in told["documents"]] == [1, 2, 3]
    assert [one["item"] for one in told["ranking"]["items"]] == [one["item"] for one in told["documents"]]
    assert all(one["passages"] and one["checks"] for one in told["documents"])


def test_markdown_holds_both_languages_and_escapes_names(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = plant.read_text(encoding="utf-8").replace('en = "bearing puller"', 'en = "puller *two-arm* [small]"')
    plant.write_text(text, encoding="utf-8")
    ask(plant, [*WEAR, "--out", str(tmp_path / "plan.md")], capsys)
    made = (tmp_path / "plan.md").read_text(encoding="utf-8")
    assert made.count("\n## ") + made.startswith("## ") == 2
    assert "puller \\*two-arm\\* \\[small\\]" in made
    assert "1. Stop the machine" in made
    assert "1. 停机" in made
    assert made.count("\n|---|") == 2


def test_a_wish_and_a_machine_that_is_away_are_heard(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick: dict[str, Any] = json.loads(ask(plant, [*PANEL, "--prefer", "quick, least time", "--json"], capsys))
    assert quick["documents"][0]["aim"] == "short"
    other: dict[str, Any] = json.loads(ask(plant, [*PANEL, "--unavailable", "D-511", "--json"], capsys))
    machines = {step["machine"] for plan in other["documents"] for step in plan["steps"]}
    assert "D-511" not in machines
    assert "D-521" in machines


def test_only_the_asked_remedy_is_planned(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["maintenance", "--for", "P-101", "--action", "replace-impeller", "--json"]
    told: dict[str, Any] = json.loads(ask(plant, arguments, capsys))
    assert {one["action"] for one in told["documents"]} == {"action:replace-impeller"}


def test_fewer_alternatives_than_asked_for_are_status_1(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["maintenance", "--for", "V-401", "--action", "recalibrate-controller", "--candidates", "5", "--json"]
    assert len(json.loads(ask(plant, arguments, capsys, status=1))["documents"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["process", "--for", "gear"], "known are cover-panel"),
        (["process", "--for", "cover-panel", "--unavailable", "V-401"], "V-401 is not available"),
        (["maintenance", "--for", "Z-9"], "is no [[machine]]: known are P-101"),
        (["maintenance", "--for", "P-101", "--failure", "rust"], "known failures of it are bearing wear"),
        (["design", "--for", "hydraulic-cylinder", "--need", "push >= 1000000"], "ask for less"),
        (["design", "--for", "hydraulic-cylinder", "--need", "mass <= 3"], "known are area"),
        (["process", "--for", "cover-panel", "--candidates", "11"], "ask for 1 to 10"),
        (["process", "--for", "cover-panel", "--bundle", "nowhere.bundle"], "cannot read nowhere.bundle"),
        (["process", "--for", "cover-panel", "--out", "/nowhere/at/all.md"], "cannot write"),
    ],
)
def test_wrong_questions_are_refused_with_status_2_and_the_remedy(
    plant: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    kind, *rest = arguments
    assert millwright.main(["plan", kind, "--catalogue", str(plant), *rest]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.out == ""


def test_a_bad_time_is_refused(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert millwright.main(["plan", "process", "--catalogue", str(plant), "--for", "cover-panel", "--at", "noon"]) == 2
    assert "write it as 2026-04-30 or 2026-04-30T08:00Z" in capsys.readouterr().err


def test_a_catalogue_that_contradicts_itself_is_refused(plant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = plant.read_text(encoding="utf-8")
    plant.write_text(text.replace('must_follow = ["load-mat"]', 'must_follow = ["press-form"]'), encoding="utf-8")
    assert millwright.main(["plan", "process", "--catalogue", str(plant), "--for", "cover-panel"]) == 2
    assert "nothing can begin: take one of these orders out" in capsys.readouterr().err


def test_planning_needs_only_the_base_install(plant: Path) -> None:
    heavy = [
        "torch",
        "pandas",
        "statsmodels",
        "scipy",
        "numba",
        "matplotlib",
        "onnxruntime",
        "tokenizers",
        "server",
        "export",
    ]
    arguments = ["process", "--catalogue", str(plant), "--for", "cover-panel"]
    code = (
        f"import sys, edge_agent.once.plan as p\np.main({arguments!r})\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_the_documentation_names_every_option_and_its_catalogue_can_be_read() -> None:
    page = (ROOT / "docs" / "plans.md").read_text(encoding="utf-8")
    options = {
        option for action in once._parser()._actions for option in action.option_strings if option.startswith("--")
    }
    told = {"--help", "--catalogue", "--for", "--failure"}
    assert sorted(option for option in options - told if f"`{option}" not in page) == []
    example = page.split("```toml")[1].split("```")[0]
    read = msgspec.convert(tomllib.loads(example), Catalogue)
    assert [len(part) > 0 for part in (read.operation, read.capability, read.remedy, read.family, read.product)] == [
        True
    ] * 5
    assert sorted(rule for rule in (*PLAN_RULES, *DESIGN_RULES) if f"`{rule}`" not in page) == []


def test_the_examples_in_the_docs_are_what_the_command_says(
    plant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = (ROOT / "docs" / "examples" / "plans.md").read_text(encoding="utf-8")
    for arguments in (PANEL, WEAR, [*CYLINDER, "--prefer", "compact"]):
        ask(plant, [*arguments, "--out", str(tmp_path / "plan.md")], capsys)
        assert (tmp_path / "plan.md").read_text(encoding="utf-8") in shown, (
            "run the commands at its top, with the docs' time"
        )
