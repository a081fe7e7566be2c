"""The simulated plants tell the truth of what they plan."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from edge_agent.devices.line import DAY_MS, HOUR_MS, START_MS, Line, line_load
from edge_agent.devices.planned import planned_plant
from edge_agent.history import History
from edge_agent.known_inputs import KnownInputs
from protocol.covariates import KnownInput, Source, columns


def test_a_lines_schedule_is_the_load_that_follows() -> None:
    plans = list(Line(1, seed=7).plans(START_MS, START_MS + DAY_MS))
    assert len(plans) == 24
    for plan in plans:
        middle = line_load(plan.start_ms + HOUR_MS // 2)
        assert abs(plan.value - middle) < 0.2
        assert plan.known_ms == plan.start_ms - DAY_MS
    assert list(Line(1, seed=7).plans(plans[3].start_ms, plans[3].start_ms + 1)) == [plans[3]]


def test_every_signal_of_the_planned_plant_follows_its_known_input() -> None:
    plant = planned_plant(days=10, seed=3, machines=1)
    assert plant.values.shape == (3, 960)
    origins = plant.start_ms + plant.step_ms * np.arange(96, 960, dtype=np.int64)
    names = ["load", "delivery:blanks", "event:bearing-wear"]
    known = {
        machine: columns(plant.inputs, names, machine, origins, plant.step_ms, 1, 0)[:, :, 0]
        for machine, _ in plant.series
    }
    current, _stock, vibration = (row[95:-1] for row in plant.values)
    assert np.corrcoef(current, known["M-1"][:, 0])[0, 1] > 0.9
    jumps = np.diff(plant.values[1])[94:-1] > 60
    assert (known["S-1"][:, 1][jumps] > 0).mean() > 0.9
    assert vibration[known["P-1"][:, 2] > 0].mean() > vibration[known["P-1"][:, 2] == 0].mean() + 0.3
    np.testing.assert_array_equal(planned_plant(10, 3, 1).values, plant.values)


def test_what_was_withdrawn_does_not_come_back_when_its_withdrawal_is_old(tmp_path: Path) -> None:
    plan = KnownInput(
        id="plan-1", machine="P-1", covariate="load", start_ms=8_000, end_ms=9_000, known_ms=1, source=Source.SCHEDULE
    )
    moved = msgspec.structs.replace(plan, start_ms=2_000, end_ms=3_000, known_ms=2)
    past = msgspec.structs.replace(plan, id="plan-0", start_ms=1_000, end_ms=2_000)
    history = History(tmp_path / "history.db")
    known = KnownInputs(history)
    for one in (plan, moved, past):
        assert known.tell(one)
        assert not known.tell(one)
    known.forget_before(5_000)
    for held in (known, KnownInputs(history)):
        seen = held.columns("P-1", ["load"], np.array([5_000], dtype=np.int64), 1_000, 5, 5)
        assert seen[0, 0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert [one.id for one in history.known_inputs()] == ["plan-1", "plan-1"]
    history.close()
