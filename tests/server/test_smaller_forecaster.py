"""A forecaster that a larger one taught, or that was pruned: smaller, and its passport says how."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

import millwright
from protocol.errors import BadSettings
from protocol.windows import CHANNELS
from server.algorithms import lstm
from server.config import TrainingSettings
from server.kinds import lstm_plan
from server.training import LstmPlan, forecast_smaller
from server.training.course import Size


def quiet(_share: float, _step: str) -> None:
    return


def lessons(n: int, seed: int) -> lstm.Lessons:
    """A level that a hidden sign turns: more than a linear map can say."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12, len(CHANNELS))).astype(np.float32)
    y = np.abs(x[:, -1:, 0]) + 0.3 * rng.normal(size=(n, 3)).astype(np.float32)
    return lstm.Lessons(x, y)


@pytest.fixture(scope="module")
def schooling() -> forecast_smaller.Schooling:
    settings = lstm.LstmSettings(hidden=8, layers=1, epochs=8, batch=32, learning_rate=1e-2)
    return forecast_smaller.Schooling(lessons(400, 1), lessons(200, 2), settings, 0, 0)


def error(net: lstm.QuantileLstm) -> float:
    asked = lessons(200, 3)
    return float(np.abs(lstm.answer(net, asked.x)[:, :, lstm.MIDDLE] - asked.y).mean())


def test_a_pruned_network_is_smaller_and_its_curve_is_told(schooling: forecast_smaller.Schooling) -> None:
    made = forecast_smaller.schooled(schooling, LstmPlan(hidden=8, prune=(0.75, 0.5)), error, quiet)
    assert [(one.share, one.hidden) for one in made.sizes] == [(0.0, 8), (0.5, 4), (0.75, 2)]
    assert [one.parameters for one in made.sizes] == sorted((one.parameters for one in made.sizes), reverse=True)
    assert made.size == forecast_smaller.taken(made.sizes)
    told = made.told()
    assert msgspec.json.decode(str(told["sizes"]), type=list[Size]) == list(made.sizes)
    assert told["hidden_after_pruning"] == made.net.lstm.hidden_size
    assert "Pruned from" in made.words


def test_single_weights_are_zero_and_counted_so(schooling: forecast_smaller.Schooling) -> None:
    plan = LstmPlan(hidden=8, prune=(0.5,), prune_of="weights")
    made = forecast_smaller.schooled(schooling, plan, error, quiet)
    assert made.net.lstm.hidden_size == 8
    assert float((made.net.lstm.weight_hh_l0 == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert made.sizes[1].parameters < 0.8 * made.sizes[0].parameters


def test_a_teacher_is_followed(schooling: forecast_smaller.Schooling) -> None:
    teacher = schooling.fitted(16, quiet)
    alone = schooling.fitted(4, quiet)
    taught = schooling.fitted(4, quiet, forecast_smaller.taught_by(teacher))
    asked = lessons(200, 3).x
    wanted = lstm.answer(teacher, asked)
    assert np.abs(lstm.answer(taught, asked) - wanted).mean() < np.abs(lstm.answer(alone, asked) - wanted).mean()
    made = forecast_smaller.schooled(schooling, LstmPlan(hidden=4, teacher=16), error, quiet)
    assert made.told()["teacher_hidden"] == 16
    assert made.words.startswith("Taught by a network of 16")


def test_of_several_sizes_the_smallest_is_taken_that_costs_little() -> None:
    def size(share: float, error: float) -> Size:
        return Size(share=share, hidden=1, parameters=1, error=error)

    curve = (size(0.0, 0.5), size(0.25, 0.504), size(0.5, 0.503), size(0.75, 0.51))
    assert forecast_smaller.taken(curve).share == 0.5
    assert forecast_smaller.taken((curve[0], curve[3], size(0.9, 0.6))).share == 0.0
    assert forecast_smaller.taken((curve[0], curve[3])).share == 0.75  # the one that was asked for


def test_every_setting_of_the_network_reaches_its_training() -> None:
    told = {
        "lstm_hidden": 32,
        "lstm_dropout": 0.3,
        "lstm_weight_decay": 0.01,
        "lstm_teacher": 128,
        "lstm_prune": [0.25, 0.5],
        "lstm_prune_of": "weights",
    }
    plan = LstmPlan(**lstm_plan(msgspec.convert(told, TrainingSettings)))
    assert plan == LstmPlan(32, 0.3, 0.01, 128, (0.25, 0.5), "weights")
    assert LstmPlan(**lstm_plan(TrainingSettings())) == LstmPlan()
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"lstm_prune": [1.0]}, TrainingSettings)


def test_the_command_writes_error_against_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(4)
    hours = np.arange(24 * 21)
    values = 20 + 5 * np.sin(2 * np.pi * hours / 24) + 0.3 * rng.normal(size=len(hours))
    stamps = np.datetime64("2026-01-01T00:00") + hours.astype("timedelta64[h]")
    rows = [f"{stamp},{value:.3f}" for stamp, value in zip(stamps, values, strict=True)]
    (tmp_path / "pump.csv").write_text("time,flow\n" + "\n".join(rows) + "\n", encoding="utf-8")
    command = ["train", "forecast", "--data", str(tmp_path / "pump.csv"), "--time", "time", "--target", "flow"]
    command += ["--horizon", "6", "--models", "lstm", "--epochs", "2", "--quantize", "int8", "--json"]
    told = [
        "--hidden",
        "8",
        "--teacher",
        "12",
        "--prune",
        "0.5,0.75",
        "--dropout",
        "0.2",
        "--out",
        str(tmp_path / "out"),
    ]
    assert millwright.main([*command, *told]) in (0, 1)
    report = json.loads(capsys.readouterr().out)
    assert report["models"][0]["algorithm"] == "lstm"
    curve = json.loads((tmp_path / "out" / "sizes.json").read_text())
    assert [one["hidden"] for one in curve["sizes"]] == [8, 4, 2]
    assert curve["taken"] in (0.0, 0.5, 0.75)
    assert (tmp_path / "out" / "sizes.png").stat().st_size > 1000
    from protocol.bundles import unpack

    parameters = unpack((tmp_path / "out" / "forecast.lstm.bundle").read_bytes()).passport.lineage.parameters
    assert (parameters["dropout"], parameters["weight_decay"], parameters["teacher_hidden"]) == ("0.2", "0.001", "12")
    assert parameters["pruned"] == str(curve["taken"])
    wrong = ["--prune", "half", "--out", str(tmp_path / "other")]
    assert millwright.main([*command, *wrong]) == 2
    assert "give shares such as" in capsys.readouterr().err


def test_a_network_that_there_cannot_be_is_refused() -> None:
    from server.workbench.training import check_plan

    for plan in (LstmPlan(hidden=0), LstmPlan(teacher=-1), LstmPlan(dropout=1.0), LstmPlan(prune=(1.0,))):
        with pytest.raises(BadSettings):
            check_plan(plan)
