"""From a shared grid to a sealed monitor that a gateway proves and runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from edge_agent.runtimes import load
from protocol.bundles import Runtime, digest
from protocol.errors import BadBundle, Refused
from protocol.twin import Role
from server import training
from server.algorithms.monitor import MonitorSettings, fit_mostly_normal
from server.database import Database, Gateway, Rollout, SignalBlockRow, Table
from server.datasets import SignalGrid
from server.training.monitor import SLOT
from server.worker import RegistryShelf

STEP_MS = 900_000
WORLD = training.Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_700_000_000_000, because="a test")


def plant(buckets: int = 900, machines: int = 2, signals: int = 4) -> SignalGrid:
    """Signals of a machine follow its load; one machine has too few of them."""
    rng = np.random.default_rng(6)
    rows, names = [], []
    for m in range(machines):
        load = rng.normal(size=buckets)
        for s in range(signals):
            rows.append(20 + s + load * (s < 2) + 0.3 * rng.normal(size=buckets))
            names.append((f"M-{m}", f"signal-{s}"))
    rows.append(rng.normal(size=buckets))
    names.append(("M-9", "alone"))
    values = np.array(rows)
    values[:, 100:104] = np.nan
    return SignalGrid(0, STEP_MS, names, values)


def quiet(_share: float, _step: str) -> None:
    return


@pytest.fixture(scope="module")
def candidates() -> list[training.Candidate]:
    return training.train_monitors(plant(), training.MonitorPlan(), WORLD, quiet)


def test_each_machine_with_enough_signals_gets_a_monitor(candidates: list[training.Candidate]) -> None:
    assert [c.passport.slot for c in candidates] == [f"{SLOT}.M-0", f"{SLOT}.M-1"]
    for passport in (c.passport for c in candidates):
        assert passport.runtime is Runtime.MONITOR
        assert len({machine for machine, _ in passport.series}) == 1
        assert passport.eligible, passport.verdict
        missed, false = passport.quality
        assert missed.model < missed.reference
        assert false.metric == "false_alarms_per_machine_month"


def test_a_gateway_proves_the_bundle_and_watches_with_it(candidates: list[training.Candidate]) -> None:
    archive = candidates[0].archive
    model = load(archive, digest(archive))
    assert model.monitor is not None
    assert len(model.monitor) == len(model.passport.series)
    model.monitor.step(model.monitor.centre + 9 * model.monitor.scale / 0.1)
    assert model.monitor.alarm


def test_training_again_gives_the_same_bundle(candidates: list[training.Candidate]) -> None:
    again = training.train_monitors(plant(), training.MonitorPlan(), WORLD, quiet)
    assert [c.passport.quality for c in again] == [c.passport.quality for c in candidates]


def test_a_fault_in_the_learning_stretch_does_not_widen_the_normal_state() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1000, 3))
    settings = MonitorSettings(STEP_MS)
    clean = fit_mostly_normal(rows, settings)
    rows[400:460, 1] += 25
    faulty = fit_mostly_normal(rows, settings)
    assert faulty.kept == [0, 1, 2]
    np.testing.assert_allclose(
        np.asarray(faulty.tables["scale"], dtype=float), np.asarray(clean.tables["scale"], dtype=float), rtol=0.35
    )


@pytest.mark.parametrize("grid", [plant(200), plant(900, machines=0), SignalGrid(0, STEP_MS, [], np.zeros((0, 0)))])
def test_too_little_to_learn_from_is_refused(grid: SignalGrid) -> None:
    with pytest.raises(Refused):
        training.train_monitors(grid, training.MonitorPlan(), WORLD, quiet)


def test_a_bundle_whose_series_do_not_fit_is_refused(candidates: list[training.Candidate]) -> None:
    import msgspec

    from protocol.bundles import pack, unpack

    bundle = unpack(candidates[0].archive)
    short = msgspec.structs.replace(bundle, passport=msgspec.structs.replace(bundle.passport, series=[("M-0", "a")]))
    archive = pack(short)
    with pytest.raises(BadBundle, match="series and tables differ"):
        load(archive, digest(archive))


def test_a_monitor_waits_for_a_week_and_goes_to_the_gateways_of_its_machine(tmp_path: Path) -> None:
    week = plant(7 * 96)
    short = SignalGrid(0, STEP_MS, week.series, week.values[:, :-1])
    with pytest.raises(Refused, match="672 buckets"):
        training.train_monitors(short, training.MonitorPlan(), WORLD, quiet)
    database = Database(f"sqlite:///{tmp_path}/server.db")
    Table.metadata.create_all(database.engine)
    made = training.train_monitors(week, training.MonitorPlan(), WORLD, quiet)[0]
    with database.begin() as session:
        for gateway, machine in (("line-1", "M-0"), ("line-2", "M-1")):
            session.add(Gateway(id=gateway, site="s", desired={}, reported={}, heartbeat={}))
            block = {"signal": "signal-0", "unit": "", "start_ms": 0, "step_ms": STEP_MS, "values": [1.0]}
            session.add(SignalBlockRow(gateway=gateway, seq=1, sent_ms=0, stored_ms=0, machine=machine, **block))
    shelf = RegistryShelf(tmp_path)
    with database.begin() as session:
        model = shelf.register(session, made.archive, made.passport, "0" * 64, "a test", 1)
        shelf.roll_out(session, model, Role.SERVING, "a test", 1)
        (rollout,) = session.scalars(select(Rollout))
        assert rollout.slot == f"{SLOT}.M-0"
        assert list(rollout.gateways) == ["line-1"]
    database.close()
