"""generate -> forecast and recommend -> forecast: what was read, accepted or planned changes the forecast that a gateway
makes, in the direction that it had in the past, from the moment when it became known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.devices.planned import STEP_MS, PlannedPlant, planned_plant
from edge_agent.history import History
from edge_agent.known_inputs import KnownInputs
from edge_agent.runtimes import load
from edge_agent.skills.forecast import ForecastSkill
from protocol.bundles import digest
from protocol.covariates import KnownInput, Source, failure_read, from_answer
from protocol.feedback import Feedback, Verdict
from protocol.reports import ModelRef, Recommendation, RecommendedItem
from protocol.twin import Role
from protocol.windows import WindowSpec
from server import training
from server.datasets import SignalGrid

HORIZON = 12
WINDOW = WindowSpec(step_ms=STEP_MS, length=48, horizon=HORIZON, season=96)
WORLD = training.Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_790_000_000_000, because="a test")


@pytest.fixture(scope="module")
def plant() -> PlannedPlant:
    return planned_plant(days=24, seed=5, machines=1)


@pytest.fixture(scope="module")
def bundles(plant: PlannedPlant) -> dict[str, bytes]:
    grid = SignalGrid(plant.start_ms, plant.step_ms, plant.series, plant.values, plant.inputs)
    plan = training.ForecastPlan(window=WINDOW, epochs=6, slots=(training.ARIMA, training.LSTM))
    made = training.train_forecast(grid, plan, WORLD, lambda _share, _step: None)
    return {candidate.passport.slot: candidate.archive for candidate in made}


def forecast(
    plant: PlannedPlant, archive: bytes, folder: Path, signal: str, told: list[KnownInput], ago: int = 0
) -> np.ndarray:
    """A gateway's forecast [HORIZON] of one signal `ago` buckets before the plant's end, told all that the plant told by
    then and `told` beside it."""
    origin = plant.start_ms + (plant.values.shape[1] - ago) * STEP_MS
    folder.mkdir(parents=True)
    history = History(folder / "history.db")
    known = KnownInputs(history)
    for one in (*(i for i in plant.inputs if i.known_ms <= origin), *told):
        known.tell(one)
    skill = ForecastSkill(step_ms=STEP_MS, horizon=HORIZON, season=96, known=known.columns)
    model = load(archive, digest(archive))
    model.passport.series_error[:] = [1e-9] * len(model.passport.series)
    skill.install(model.passport.slot, Role.SERVING, model, lambda _k, _s, n: np.full(n, np.nan), 0)
    contexts = {key: row[: len(row) - ago] for key, row in zip(plant.series, plant.values, strict=True)}
    issued = {f.signal: f for f in skill.issue(origin, contexts)}
    history.close()
    return np.array(issued[signal].mean)


def now_ms(plant: PlannedPlant) -> int:
    return plant.start_ms + plant.values.shape[1] * STEP_MS


@pytest.mark.parametrize("slot", [training.ARIMA, training.LSTM])
def test_a_schedule_is_followed_before_it_begins(
    slot: str, plant: PlannedPlant, bundles: dict[str, bytes], tmp_path: Path
) -> None:
    now = now_ms(plant)
    heavy, light = (
        KnownInput(
            id="plan-new", machine="M-1", covariate="load", start_ms=now + 4 * STEP_MS, end_ms=now + 12 * STEP_MS,
            known_ms=now - 1, value=value, source=Source.SCHEDULE,
        )
        for value in (1.0, 0.1)
    )  # fmt: skip
    high, low = (
        forecast(plant, bundles[slot], tmp_path / name, "current", [one]) for name, one in (("h", heavy), ("l", light))
    )
    assert (high[6:] - low[6:]).min() > 2.0  # 9.9 A in truth
    assert np.abs(high[:3] - low[:3]).max() < 2.0


@pytest.mark.parametrize("slot", [training.ARIMA, training.LSTM])
def test_an_accepted_purchase_raises_the_stock_when_it_arrives(
    slot: str, plant: PlannedPlant, bundles: dict[str, bytes], tmp_path: Path
) -> None:
    now = now_ms(plant)
    items = [RecommendedItem(item="part:blanks", position=1, score=1.0)]
    shown = Recommendation(
        id="r-1", event="e-1", machine="S-1", issued_ms=now, profile=[], items=items, model=ModelRef("s", "a")
    )
    yes = Feedback(id="f-1", target="r-1", verdict=Verdict.ACCEPTED, time_ms=now - 1)
    (bought,) = from_answer(yes, shown, delivery_ms=6 * STEP_MS)
    assert bought.covariate == "delivery:blanks"
    many = KnownInput(**{name: getattr(bought, name) for name in bought.__struct_fields__} | {"value": 200.0})
    without = forecast(plant, bundles[slot], tmp_path / "without", "stock", [])
    with_it = forecast(plant, bundles[slot], tmp_path / "with", "stock", [many])
    assert (with_it - without)[7:].min() > 60.0  # 200 in truth
    assert np.abs(with_it - without)[:4].max() < 60.0


def test_a_failure_mode_read_from_a_note_warns_of_what_is_to_come(
    plant: PlannedPlant, bundles: dict[str, bytes], tmp_path: Path
) -> None:
    now = now_ms(plant)
    note = failure_read("P-1", "Bearing Wear", now - 1, Source.NOTE, "note-new", lasts_ms=28 * STEP_MS)
    without = forecast(plant, bundles[training.LSTM], tmp_path / "without", "vibration", [])
    with_it = forecast(plant, bundles[training.LSTM], tmp_path / "with", "vibration", [note])
    assert (with_it - without)[-4:].mean() > 0.1
    tomorrow = failure_read("P-1", "Bearing Wear", now + 96 * STEP_MS, Source.NOTE, "note-later")
    np.testing.assert_array_equal(
        forecast(plant, bundles[training.LSTM], tmp_path / "later", "vibration", [tomorrow]), without
    )
