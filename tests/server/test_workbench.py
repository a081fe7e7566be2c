"""A user's own file: trained into a folder, forecast from it on the base install, wrong input refused in words."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
import xml.dom.minidom
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millwright
from edge_agent.once import forecast as once
from protocol.errors import BadSettings
from protocol.recordings import Layout
from server import workbench
from server.workbench import __main__ as command
from server.workbench import training
from server.workbench.worth import class_rows, signal_class, winners

ROOT = Path(__file__).parents[2]
COLUMNS = ["--time", "time", "--series", "machine", "--target", "temperature"]
HOURS = 24 * 9


def line(hours: int = HOURS) -> list[tuple[str, str, str]]:
    """Two machines with a daily shape and one that stands still."""
    rng = np.random.default_rng(1)
    rows = []
    for machine in ("P-101", "P-102", "still"):
        noise = 0.0
        for i in range(hours):
            noise = 0.8 * noise + 0.3 * float(rng.normal())
            value = 4.0 if machine == "still" else 20 + 3 * np.sin(2 * np.pi * i / 24) + noise
            rows.append((f"2026-01-{1 + i // 24:02}T{i % 24:02}:00:00Z", machine, f"{value:.4f}"))
    return rows


def write(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("time", "machine", "temperature"), *rows])
    return path


@dataclass
class Place:
    folder: Path
    data: Path
    bundles: Path
    told: dict[str, Any]
    code: int


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One training by the command, in its own words."""
    folder = tmp_path_factory.mktemp("workbench")
    data = write(folder / "line.csv", line())
    out = folder / "models"
    arguments = ["train", "forecast", "--data", str(data), *COLUMNS, "--horizon", "4", "--out", str(out)]
    arguments += ["--epochs", "1", "--json", "--plot", str(folder / "held.png")]
    done = subprocess.run([sys.executable, "-m", "millwright", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    return Place(folder, data, out, json.loads(done.stdout), done.returncode)


def forecast(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    code = millwright.main(["forecast", "--json", *map(str, arguments)])
    told = capsys.readouterr().out
    return code, json.loads(told) if told else {}


def by_machine(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    for answer in told["forecasts"]:
        numbers = np.array([answer["mean"], answer["low"], answer["high"]])
        assert np.isfinite(numbers).all()
        assert (numbers[1] < numbers[0]).all()
        assert (numbers[0] < numbers[2]).all()
    return {answer["machine"]: answer for answer in told["forecasts"]}


def test_a_training_leaves_bundles_a_report_and_a_picture(place: Place) -> None:
    assert place.code == 0
    assert {p.name for p in place.bundles.iterdir()} == {
        "forecast.arima.bundle",
        "forecast.lstm.bundle",
        "forecast.ridge.bundle",
        "report.json",
        "report.md",
        "held_out.png",
    }
    report = json.loads((place.bundles / "report.json").read_text())
    assert report | {"folder": str(place.bundles)} == place.told
    assert (report["step"], report["season"], report["horizon"], report["series"]) == ("1h", 24, 4, 2)
    assert report["left_out"] == {"still/temperature": "never changes: the forecast is its value"}
    assert {row["algorithm"] for row in report["models"]} == {"arima", "lstm", "ridge"}
    assert all(0 <= row["coverage"] <= 1 for row in report["models"])
    assert report["classes"][0]["errors"]["naive"] == 1.0
    assert (place.folder / "held.png").read_bytes().startswith(b"\x89PNG")
    assert (place.folder / "held.png").stat().st_size > 5000
    assert "| arima |" in (place.bundles / "report.md").read_text()
    assert not [p.name for p in place.folder.iterdir() if p.name.startswith(".")]


def test_the_columns_travel_in_the_bundle(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = forecast(capsys, "--bundle", place.bundles, "--data", place.data)
    assert code == 0
    answers = by_machine(told)
    assert set(answers) == {"P-101", "P-102", "still"}
    assert answers["P-101"]["model"] in {"arima", "lstm"}
    assert answers["P-101"]["fallback"] == []
    assert answers["P-101"]["time"][0] == "2026-01-10T00:00:00Z"
    assert answers["still"]["fallback"] == ["constant_history"]
    assert answers["still"]["mean"] == [4.0] * 4


def test_a_forecast_says_why_and_is_drawn_and_written(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    picture, table = place.folder / "why.svg", place.folder / "out.csv"
    code, told = forecast(
        capsys, "--bundle", place.bundles, "--data", place.data, "--explain", "--plot", picture, "--out", table
    )
    assert code == 0
    why = by_machine(told)["P-101"]["explanation"]
    assert why["base"] + sum(share["amount"] for share in why["shares"]) == pytest.approx(why["total"])
    assert why["total"] == pytest.approx(np.mean(by_machine(told)["P-101"]["mean"]), rel=1e-4)
    drawn = xml.dom.minidom.parseString(picture.read_text(encoding="utf-8"))  # noqa: S318 - made by ourselves
    assert drawn.getElementsByTagName("rect")
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 3 * 4
    assert float(rows[0]["mean"]) == by_machine(told)["P-101"]["mean"][0]


def test_the_text_reads_without_json(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert millwright.main(["forecast", "--bundle", str(place.bundles), "--data", str(place.data), "--explain"]) == 0
    told = capsys.readouterr().out
    assert "P-101 / temperature  by" in told
    assert "the last" in told


def test_parquet_gives_the_same_forecast(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    times, machines, values = zip(*line(), strict=True)
    made = pa.table({"time": times, "machine": machines, "temperature": [float(v) for v in values]})
    parquet.write_table(made, place.folder / "line.parquet")
    _, one = forecast(capsys, "--bundle", place.bundles, "--data", place.data)
    _, two = forecast(capsys, "--bundle", place.bundles, "--data", place.folder / "line.parquet")
    assert one == two


def test_a_new_machine_a_stale_one_a_short_one_and_an_empty_one_are_answered_or_named(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = line()
    rows += [(t, "new", v) for t, m, v in rows if m == "P-101"]
    rows += [(t, "short", v) for t, m, v in rows[-6:]]
    rows += [("2026-01-09T23:00:00Z", "single", "7"), ("2026-01-09T23:00:00Z", "empty", "")]
    stale = [(t, m, v) for t, m, v in rows if not (m == "P-102" and t > "2026-01-09T12")]
    code, told = forecast(capsys, "--bundle", place.bundles, "--data", write(place.folder / "odd.csv", stale))
    assert code == 1
    assert told["silent"] == {"empty/temperature": "no value: nothing can be said"}
    answers = by_machine(told)
    assert answers["new"]["fallback"] == ["unknown_series"]
    assert answers["P-102"]["stale"] is True
    assert "stale_inputs" in answers["P-102"]["fallback"]
    assert "short_history" in answers["short"]["fallback"]
    assert answers["single"]["fallback"] == ["one_point"]
    assert answers["single"]["mean"] == [7.0] * 4
    fresh = by_machine(forecast(capsys, "--bundle", place.bundles, "--data", place.data)[1])["P-102"]
    width = [a["high"][0] - a["low"][0] for a in (answers["P-102"], fresh)]
    assert width[0] > width[1]


def test_a_horizon_beyond_the_models_is_bridged_and_wider(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for bundle in ("forecast.arima.bundle", "forecast.lstm.bundle"):
        code, told = forecast(
            capsys, "--bundle", place.bundles / bundle, "--data", place.data, "--horizon", "30", "--explain"
        )
        assert code == 0
        answer = by_machine(told)["P-101"]
        assert len(answer["mean"]) == len(answer["time"]) == 30
        width = np.array(answer["high"]) - np.array(answer["low"])
        assert width[-1] >= width[3]
        if answer["model"] == "lstm":
            assert "beyond_horizon" in answer["fallback"]


def test_a_file_that_ends_before_the_training_did_is_forecast_from_its_own_end(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    early = write(place.folder / "early.csv", [row for row in line() if row[0] < "2026-01-08"])
    code, told = forecast(capsys, "--bundle", place.bundles / "forecast.arima.bundle", "--data", early)
    assert code == 0
    answer = by_machine(told)["P-101"]
    assert answer["time"][0] == "2026-01-08T00:00:00Z"
    true = {t: float(v) for t, m, v in line() if m == "P-101"}
    miss = np.abs(np.array(answer["mean"]) - [true[t] for t in answer["time"]])
    assert miss.max() < 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["forecast", "--bundle", "{bundles}", "--data", "{folder}/nothing.csv"], "cannot read"),
        (["forecast", "--bundle", "{folder}/nowhere", "--data", "{data}"], "cannot read"),
        (["forecast", "--bundle", "{folder}/empty", "--data", "{data}"], "no *.bundle"),
        (["forecast", "--bundle", "{data}", "--data", "{data}"], "bad_archive"),
        (["forecast", "--bundle", "{bundles}", "--data", "{data}", "--horizon", "5000"], "1 to 1000"),
        (["forecast", "--bundle", "{bundles}", "--data", "{data}", "--target", "flow"], "no column 'flow'"),
        (["forecast", "--bundle", "{bundles}", "--data", "{data}", "--plot", "{folder}/x.png"], "name a .svg"),
        (["train", "--horizon", "90"], "ask for 43 or less"),
        (["train", "--horizon", "4", "--models", "oracle"], "there are"),
        (["train", "--horizon", "4", "--step", "soon"], "15min"),
        (["train", "--horizon", "4", "--out", "{folder}/kept"], "not the folder of an earlier training"),
        (["train", "--horizon", "4", "--out", "{folder}/no/where"], "no folder"),
        (["train", "--horizon", "4", "--time-zone", "Mars"], "Europe/Berlin"),
        (["train", "--horizon", "4", "--plot", "{folder}/x.gif"], "name a .png"),
    ],
)
def test_wrong_input_is_refused_with_status_2_and_the_remedy(
    place: Place, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (place.folder / "empty").mkdir(exist_ok=True)
    (place.folder / "kept").mkdir(exist_ok=True)
    (place.folder / "kept" / "letter.txt").write_text("mine")
    if arguments[0] == "train":
        out = [] if "--out" in arguments else ["--out", "{folder}/never"]
        arguments = ["train", "forecast", "--data", "{data}", *COLUMNS, *out, *arguments[1:]]
    filled = [a.format(bundles=place.bundles, folder=place.folder, data=place.data) for a in arguments]
    assert millwright.main(filled) == 2
    assert words in capsys.readouterr().err
    assert not (place.folder / "never").exists()
    assert (place.folder / "kept" / "letter.txt").read_text() == "mine"


def test_nothing_to_learn_is_written_with_its_reason_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "still.csv", [row for row in line() if row[1] == "still"])
    arguments = ["train", "forecast", "--data", str(data), *COLUMNS, "--horizon", "4", "--out", str(tmp_path / "out")]
    assert millwright.main([*arguments, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["best"] == "naive"
    assert told["why"] == "Nothing to learn: no series has two different values."
    assert (tmp_path / "out" / "report.json").exists()
    assert millwright.main([*arguments, "--json"]) == 1  # its own folder may be written again
    assert "Nothing to learn" in (tmp_path / "out" / "report.md").read_text()


def test_an_interrupted_training_leaves_what_was_there_before(place: Place, tmp_path: Path) -> None:
    before = tmp_path / "models"
    shutil.copytree(place.bundles, before)

    def interrupt(share: float, _step: str) -> None:
        if share >= 0.02:
            raise KeyboardInterrupt

    layout = Layout(time="time", series=("machine",), targets=("temperature",))
    with pytest.raises(KeyboardInterrupt):
        workbench.train_forecast_file(place.data, layout, before, horizon=4, models=("arima",), progress=interrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["models"]
    with contextlib.suppress(KeyboardInterrupt), training.written_whole(before) as part:
        (part / "half").write_text("x")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["models"]
    assert sorted(p.name for p in before.iterdir()) == sorted(p.name for p in place.bundles.iterdir())


def test_a_season_is_what_the_step_suggests() -> None:
    hour, day = 3_600_000, 86_400_000
    steps = (hour, 900_000, day, 7 * day, 2_629_746_000, 7_889_238_000, 7 * hour)
    assert [training.season_of(step) for step in steps] == [24, 96, 7, 52, 12, 4, 0]


def test_signals_are_told_apart_by_how_they_move() -> None:
    rng = np.random.default_rng(1)
    t = np.arange(200)
    assert signal_class(np.sin(2 * np.pi * t / 24) + 0.1 * rng.normal(size=200), 24) == "seasonal"
    assert signal_class(0.1 * t + rng.normal(size=200), 24) == "trending"
    assert signal_class(rng.poisson(0.3, 200).astype(float), 24) == "intermittent"
    assert signal_class(rng.normal(size=200), 24) == "steady"
    errors = {"arima": np.array([0.5, np.nan]), "lstm": np.array([0.7, 1.2])}
    assert winners(errors, 2) == ["arima", "naive"]
    (row,) = class_rows(["steady", "steady"], errors)
    assert (row.best, row.errors) == ("arima", {"naive": 1.0, "arima": 0.75, "lstm": 0.95})


def test_forecasting_needs_only_the_base_install() -> None:
    heavy = ["torch", "pandas", "statsmodels", "scipy", "matplotlib", "tqdm", "server"]
    code = f"import sys, edge_agent.once.forecast; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def fenced(language: str) -> str:
    text = (ROOT / "docs" / "forecasting.md").read_text(encoding="utf-8")
    return text.split(f"```{language}\n", 1)[1].split("```", 1)[0]


def test_the_documented_commands_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place.folder)
    train, answer = (shlex.split(text)[1:] for text in fenced("sh").strip().splitlines())
    asked = command.parser().parse_args(train[1:])
    assert (asked.data, asked.out, asked.horizon) == (Path("line.csv"), Path("models"), 24)
    assert millwright.main(answer) == 0
    assert "P-101 / temperature" in capsys.readouterr().out
    assert Path("forecast.svg").stat().st_size > 1000
    assert Path("forecast.csv").read_text().startswith("machine,signal,time,mean")


def test_the_documented_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "line.csv", [row for row in line(24 * 6) if row[1] == "P-101"])
    exec(compile(fenced("python"), "forecasting.md", "exec"), {})  # noqa: S102 - it is our own documentation
    told = capsys.readouterr().out
    assert told.startswith(("arima", "naive"))
    assert "P-101" in told


def test_every_fallback_and_finding_is_documented() -> None:
    text = (ROOT / "docs" / "forecasting.md").read_text(encoding="utf-8")
    assert once.__doc__ is not None
    fallbacks = re.findall(r"^- `(\w+)`", once.__doc__, flags=re.MULTILINE)
    assert len(fallbacks) == 7
    for fallback in fallbacks:
        assert f"`{fallback}`" in text


def test_bundles_not_trained_on_a_file_need_their_columns(place: Place) -> None:
    (model,) = once.load_bundles(place.bundles / "forecast.arima.bundle")
    model.passport.lineage.parameters.clear()
    arguments = once._parser().parse_args(["--bundle", "x", "--data", "y"])
    with pytest.raises(BadSettings, match="--time, --target"):
        once.layout_of([model], arguments)
