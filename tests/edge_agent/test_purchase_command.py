"""`millwright purchase`: tables and a catalogue in, proposals out; wrong input is named and mended by the message."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import millwright

DOCS = Path(__file__).resolve().parents[2] / "docs" / "purchasing.md"
TODAY = "2026-05-05"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of docs/purchasing.md."""
    blocks = re.findall(r"```(toml|csv)\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = ("plant.toml", "stock.csv", "demand.csv", "risks.csv")
    assert len(blocks) == len(names)
    for name, (_, text) in zip(names, blocks, strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def bought(folder: Path, *more: str, without: tuple[str, ...] = ()) -> int:
    options = {
        "--stock": "stock.csv",
        "--catalogue": "plant.toml",
        "--demand": "demand.csv",
        "--risks": "risks.csv",
    }
    argv = [word for name, file in options.items() if name not in without for word in (name, str(folder / file))]
    return millwright.main(["purchase", *argv, "--today", TODAY, *more])


def test_example_of_the_documentation_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = re.search(r"millwright (purchase .*)", DOCS.read_text(encoding="utf-8"))
    assert command is not None
    words = [str(folder / word) if (folder / word).is_file() else word for word in command[1].split()]
    assert millwright.main(words) == 0
    told = capsys.readouterr().out
    assert "bearing 6204" in told
    assert "risk:P-101 bearing" in told
    assert "total" in told


def test_json_has_everything_that_the_words_say(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bought(folder, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    bearing, seal = told["proposals"]
    assert bearing["part"] == "bearing 6204"
    assert bearing["quantity"] > 0
    assert {option["supplier"] for option in bearing["options"]} == {"Nord", "Local"}
    assert sum(source["expected"] for source in bearing["sources"]) == pytest.approx(bearing["expected"])
    assert seal["on_order"] == 50
    assert told["total_price"] == sum(one["total_price"] for one in told["proposals"])


def test_threatened_machines_make_the_near_supplier_worth_its_price(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bought(folder, "--json")
    threatened = json.loads(capsys.readouterr().out)["proposals"][0]
    bought(folder, "--json", without=("--risks",))
    calm = json.loads(capsys.readouterr().out)["proposals"][0]
    assert (threatened["supplier"], calm["supplier"]) == ("Local", "Nord")
    bounded = [{option["supplier"]: option["quantity"] for option in one["options"]} for one in (threatened, calm)]
    assert bounded[0]["Local"] > bounded[1]["Local"]


def test_budget_and_language(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bought(folder, "--budget", "0", "--lang", "zh") == 0
    assert "预算" in capsys.readouterr().out
    assert bought(folder, "--budget", "nan") == 2
    assert "--budget" in capsys.readouterr().err


def test_withdrawals_with_times_count_like_their_months(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bought(folder, "--json")
    by_month = json.loads(capsys.readouterr().out)
    rows = [line.split(",") for line in (folder / "demand.csv").read_text(encoding="utf-8").splitlines()[1:]]
    taken = [f"{part};{month}-{day:02d}T08:00:00Z;1" for part, month, units in rows for day in range(1, int(units) + 1)]
    running = "bearing 6204;2026-05-03T08:00:00Z;99"
    (folder / "demand.csv").write_text("\n".join(["part;time;quantity", *taken, running]), encoding="utf-8")
    bought(folder, "--json")
    assert json.loads(capsys.readouterr().out) == by_month


def test_part_without_a_stock_level_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "stock.csv").write_text("part,on_hand\nbearing 6204,4\n", encoding="utf-8")
    assert bought(folder) == 1
    assert "seal 40x52: no stock level" in capsys.readouterr().out


def test_without_any_history_there_is_an_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bought(folder, "--json", without=("--demand", "--risks")) == 0
    for one in json.loads(capsys.readouterr().out)["proposals"]:
        assert 0 <= one["expected"] < 5


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("stock.csv", "part,on_hand\nbelt,4\n", "'belt' is not in the catalogue"),
        ("stock.csv", "part,on_hand\nbearing 6204,-4\n", "on_hand of bearing 6204 is -4"),
        ("stock.csv", "part,on_hand\nbearing 6204,\n", "empty or no number"),
        ("stock.csv", "part,on_hand\nbearing 6204,1.5\n", "whole units"),
        ("stock.csv", "part,on_hand\nbearing 6204,1\nbearing 6204,1\n", "stands twice"),
        ("stock.csv", "part,on_hand,time\nbearing 6204,1,someday\n", "cannot be read"),
        ("stock.csv", "part,shelf\nbearing 6204,1\n", "no column 'on_hand'"),
        ("stock.csv", "", "empty"),
        ("demand.csv", "part,month,quantity\nbearing 6204,2026-01,-3\n", "book a return"),
        ("demand.csv", "part,month,quantity\nbearing 6204,May,3\n", "2026-04"),
        ("demand.csv", "part,quantity\nbearing 6204,3\n", "no column 'time'"),
        ("risks.csv", "machine,probability,within_days\nP-1,1.5,3\n", "between 0 and 1"),
        ("risks.csv", "machine,probability,within_days\nP-1,0.5,0\n", "within_days"),
        ("plant.toml", "[[part]]\npart = 'seal'\nsuppliers = [{supplier = 'N', price = 1.0}]\n", "lead_days"),
    ],
)
def test_wrong_input_is_refused_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, words: str
) -> None:
    (folder / file).write_text(text, encoding="utf-8")
    assert bought(folder) == 2
    told = capsys.readouterr().err
    assert words in told
    assert file in told


def test_missing_file_and_wrong_day_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "risks.csv").unlink()
    assert bought(folder) == 2
    assert "risks.csv" in capsys.readouterr().err
    assert bought(folder, "--today", "tomorrow") == 2
    assert "--today" in capsys.readouterr().err


def test_bundle_of_another_kind_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wrong.bundle").write_bytes(b"no bundle")
    assert bought(folder, "--model", str(folder / "wrong.bundle")) == 2
    assert capsys.readouterr().err
