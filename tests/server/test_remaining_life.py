"""Recorded lives -> a distribution of remaining life: censored units are handled, bad input says so, the packed model is
small and answers as the gateway will."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import select

from edge_agent import runtimes
from edge_agent.devices import line
from protocol.bundles import digest, pack, unpack
from protocol.clocks import ClockConfidence
from protocol.errors import BadBundle, Reason, Refused
from protocol.life_windows import Life, LifeSpec, read_answer
from protocol.names import MessageClass
from protocol.reports import Contribution, ModelRef, RemainingLife, Risk
from protocol.sync import Batch, encode, envelope
from server import intake, lives, training, worker
from server.__main__ import migrate
from server.algorithms import remaining_life
from server.algorithms.remaining_life import LifeSettings
from server.app import create_app
from server.config import Settings, TrainingSettings
from server.database import Database, Job, StatementRow, Table
from server.retention import forget_old_forecasts
from server.routes.api import latest_lives
from server.training.taught import by_lives
from server.worker import RegistryShelf

QUICK = LifeSettings(members=1, hidden=16, epochs=8, every=3, folds=0, dropout=0.0)
WORLD = training.Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_700_000_000_000)


def quiet(_share: float, _step: str) -> None:
    return


def wanted(signals: int, settings: int = 0, **more: Any) -> LifeSpec:
    names = [f"s{i}" for i in range(signals)]
    return LifeSpec(
        signals=names,
        settings=[f"c{i}" for i in range(settings)],
        mean=[[0.0] * signals],
        scale=[[1.0] * signals],
        **({"looks": 4, "stride": 3, "first_rows": 5, "least_rows": 3, "cap": 40.0, "bins": 10} | more),
    )


def wearing(units: int, seed: int, conditions: int = 1) -> list[Life]:
    """Two signals grow towards the end, one says nothing, one is constant; the load shifts everything."""
    rng = np.random.default_rng(seed)
    made = []
    for unit in range(units):
        rows = int(rng.integers(35, 80))
        load = rng.integers(0, conditions, rows).astype(float)
        spent = np.arange(1, rows + 1) / rows
        wear = spent**3
        signals = np.stack([wear * 4, 10 - wear * 3, np.zeros(rows), np.zeros(rows)], axis=1)
        signals[:, :3] += rng.normal(size=(rows, 3)) * 0.3 + 20 * load[:, None]
        made.append(Life(f"u{unit:02d}", signals, load[:, None]))
    return made


def learned(units: list[Life], spec: LifeSpec, conditions: int, how: LifeSettings) -> tuple[LifeSpec, Any]:
    names = list(spec.signals)
    spec = remaining_life.learn_spec(units, spec, conditions)
    return spec, remaining_life.fit(remaining_life.keep_signals(units, names, spec), spec, how, quiet)


def error(units: list[Life], names: list[str], spec: LifeSpec, net: Any) -> tuple[float, float]:
    rows = remaining_life.sample(remaining_life.keep_signals(units, names, spec), spec, 4)
    labels = np.minimum(rows.lived, spec.cap)
    told = read_answer(remaining_life.answer(net, rows.x), spec).expected
    return float(np.sqrt(np.mean((told - labels) ** 2))), float(np.std(labels))


def test_remaining_life_is_learned_across_operating_conditions() -> None:
    spec, net = learned(wearing(24, 1, 3), wanted(4, 1), 3, QUICK)
    assert spec.signals == ["s0", "s1", "s2"]  # s3 is constant
    assert len(spec.conditions) == 3
    mine, constant = error(wearing(8, 2, 3), ["s0", "s1", "s2", "s3"], spec, net)
    assert mine < 0.6 * constant
    assert remaining_life.parameters(net) < 100_000


def test_the_same_lives_and_seed_give_the_same_answers() -> None:
    units = wearing(6, 3)
    how = LifeSettings(members=2, hidden=8, epochs=2, folds=2)
    (spec, one), (_, other) = (learned(units, wanted(4, 1), 1, how) for _ in range(2))
    x = remaining_life.sample(remaining_life.keep_signals(units, ["s0", "s1", "s2", "s3"], spec), spec, 9).x
    assert np.array_equal(remaining_life.answer(one, x), remaining_life.answer(other, x))


def test_log_chances_of_failing_are_the_same_from_hazards_and_from_a_curve() -> None:
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32))
    told = remaining_life.log_deaths(logits)
    assert told.shape == (5, 8)
    torch.testing.assert_close(told.exp().sum(dim=1), torch.ones(5))
    curve = torch.exp(remaining_life.log_survival(logits))
    torch.testing.assert_close(remaining_life.log_deaths_of(curve), told, atol=1e-4, rtol=1e-4)


def test_a_small_network_follows_the_large_one_that_teaches_it() -> None:
    units = wearing(24, 1)
    spec, teacher = learned(units, wanted(4, 1), 1, replace(QUICK, members=2, hidden=32))
    kept = remaining_life.keep_signals(units, wanted(4).signals, spec)
    small = replace(QUICK, hidden=8, epochs=4)
    alone, taught = (
        remaining_life.fit(kept, spec, small, quiet, teaching)
        for teaching in (None, by_lives(teacher, spec, small, share=0.9))
    )
    x = remaining_life.sample(kept, spec, 4).x
    said = [remaining_life.answer(net, x) for net in (teacher, alone, taught)]
    assert np.abs(said[2] - said[0]).mean() < np.abs(said[1] - said[0]).mean()


def test_a_taught_model_is_small_and_its_lineage_says_by_how_many() -> None:
    plan = training.LifePlan(settings=("load",), conditions=2, cap_h=8.0, epochs=2, seed=3, teacher=2, quantize="int8")
    (made,) = training.train_life(recorded(12), plan, WORLD, quiet)
    told = made.passport.lineage.parameters
    assert (told["teacher_members"], told["members"], told["hidden"], told["dropout"]) == ("2", "1", "32", "0.05")


def chance_lives(units: int, seed: int) -> list[tuple[float, Life]]:
    """Signals that say nothing: what is left is the distribution of lives, here 20 to 60 rows."""
    rng = np.random.default_rng(seed)
    return [
        (float(n), Life(f"u{i}", rng.normal(size=(int(n), 2)), np.zeros((int(n), 0))))
        for i, n in enumerate(rng.integers(20, 61, units))
    ]


def test_taking_units_that_still_work_for_failures_is_biased_and_handling_them_is_not() -> None:
    rng = np.random.default_rng(5)
    full = chance_lives(300, 4)
    watched = [(life, int(rng.integers(5, 66))) for _, life in full]
    cut = [
        Life(life.unit, life.signals[:until], life.settings[:until], failed=until >= len(life))
        for life, until in watched
    ]
    assert 0.3 < np.mean([not life.failed for life in cut]) < 0.7
    truth = float(np.mean([min(n - 5, 40.0) for n, _ in full]))  # after five rows

    def told(units: list[Life]) -> float:
        how = LifeSettings(members=1, hidden=8, epochs=30, every=4, folds=0, dropout=0.0)
        spec, net = learned(units, wanted(2, least_rows=5), 1, how)
        rows = [life for _, life in full[:60]]
        x = np.concatenate(
            [remaining_life.sample([Life(u.unit, u.signals[:5], u.settings[:5])], spec, 1).x for u in rows]
        )
        return float(read_answer(remaining_life.answer(net, x), spec).expected.mean())

    unseen = told([life for _, life in full])  # what the same network says when nothing is hidden
    handled = told(cut)
    as_failures = told([Life(u.unit, u.signals, u.settings, failed=True) for u in cut])
    left_out = told([u for u in cut if u.failed])
    assert abs(handled - unseen) < 1.0, (handled, unseen)
    assert abs(handled - truth) < 2.0, (handled, truth)
    assert as_failures < truth - 5.0, (as_failures, truth)
    assert left_out < truth - 2.0, (left_out, truth)


def test_constant_signals_few_failures_and_no_lives_are_refused_with_a_remedy() -> None:
    still = [Life(f"u{i}", np.ones((30, 2)), np.zeros((30, 0))) for i in range(4)]
    with pytest.raises(Refused, match="constant or empty"):
        remaining_life.learn_spec(still, wanted(2), 1)
    with pytest.raises(Refused, match="constant or empty"):
        remaining_life.learn_spec([Life("u", np.full((30, 2), np.nan), np.zeros((30, 0)))], wanted(2), 1)
    with pytest.raises(Refused, match="no recorded lives"):
        remaining_life.learn_spec([], wanted(2), 1)
    with pytest.raises(Refused, match="were named"):
        remaining_life.learn_spec(wearing(2, 1), wanted(2), 1)
    working = [Life(u.unit, u.signals, u.settings, failed=False) for u in wearing(5, 1)]
    spec = remaining_life.learn_spec(working, wanted(4, 1), 1)
    with pytest.raises(Refused, match="at least two must have failed"):
        remaining_life.fit(remaining_life.keep_signals(working, ["s0", "s1", "s2", "s3"], spec), spec, QUICK, quiet)


def test_a_unit_of_one_cycle_is_no_obstacle() -> None:
    units = [*wearing(6, 1), Life("short", np.zeros((1, 4)), np.zeros((1, 1)))]
    spec, net = learned(units, wanted(4, 1), 1, QUICK)
    assert np.isfinite(error(wearing(3, 9), ["s0", "s1", "s2", "s3"], spec, net)[0])


def recorded(units: int = 16, seed: int = 1) -> lives.RecordedLives:
    made = [
        Life(life.unit, np.concatenate([life.signals, life.settings], axis=1), np.zeros((len(life), 0)), i % 8 != 7)
        for i, life in enumerate(wearing(units, seed, 2))
    ]
    return lives.RecordedLives("pump", 900_000, ["vibration", "pressure", "noise", "lamp", "load"], made)


@pytest.fixture(scope="module")
def candidate() -> training.Candidate:
    plan = training.LifePlan(settings=("load",), conditions=2, cap_h=8.0, renewed_by=("replace-*",), seed=3)
    (made,) = training.train_life(recorded(24), plan, WORLD, quiet)
    return made


def test_a_trained_model_is_sealed_small_and_proven_like_on_a_gateway(candidate: training.Candidate) -> None:
    passport = candidate.passport
    assert passport.slot == "fault.life"
    assert passport.life is not None
    assert passport.life.signals == ["vibration", "pressure", "noise"]  # a load tells nothing within itself
    assert (passport.life.unit, passport.life.per_row, passport.life.step_ms) == ("h", 0.25, 900_000)
    assert passport.packed_bytes < passport.float_bytes / 2
    assert passport.eligible, passport.verdict
    assert passport.quality[0].reference_name in ("constant", "ridge")
    assert "% of held-out moments" in passport.verdict
    model = runtimes.load(candidate.archive, digest(candidate.archive))
    x = unpack(candidate.archive).golden_inputs["x"]
    told = read_answer(model.quantiles(np.asarray(x, dtype=np.float32)), passport.life)
    assert told.survival.shape == (len(x), passport.life.bins)


def test_a_bundle_whose_scales_do_not_fit_its_signals_is_refused_by_the_gateway(candidate: training.Candidate) -> None:
    bundle = unpack(candidate.archive)
    life = bundle.passport.life
    assert life is not None
    broken = msgspec.structs.replace(life, mean=[row[:-1] for row in life.mean])
    archive = pack(msgspec.structs.replace(bundle, passport=msgspec.structs.replace(bundle.passport, life=broken)))
    with pytest.raises(BadBundle, match="wrong shape"):
        runtimes.load(archive, digest(archive))


def test_a_model_no_better_than_its_champion_says_so(candidate: training.Candidate) -> None:
    world = training.Circumstances(
        dataset_digest="0" * 64, dataset_rows=1, now_ms=1, champions={"fault.life": candidate.archive}
    )
    plan = training.LifePlan(settings=("load",), conditions=2, cap_h=8.0, epochs=1, seed=5)
    (weak,) = training.train_life(recorded(24), plan, world, quiet)
    assert weak.passport.quality[0].champion == candidate.passport.quality[0].model
    assert not weak.passport.eligible


def test_too_few_failures_or_an_unknown_setting_train_nothing() -> None:
    with pytest.raises(Refused, match="are needed"):
        training.train_life(recorded(3), training.LifePlan(), WORLD, quiet)
    with pytest.raises(Refused) as refused:
        training.train_life(recorded(8), training.LifePlan(settings=("speed",)), WORLD, quiet)
    assert refused.value.reason is Reason.UNKNOWN_SIGNAL


def written(folder: Path, text: str, name: str = "a.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_recorded_lives_are_laid_on_the_grid_and_frozen(tmp_path: Path) -> None:
    folder = written(
        tmp_path / "lives",
        "unit,time,vibration,failed\nA,0,1.0,0\nA,1000,3.0,0\nA,180000,,1\nB,1970-01-01T00:01:00+00:00,5,0\nB,120000,x,0\n",
    )
    found = lives.read_folder(folder, 60_000)
    first, second = found.lives
    assert first.failed
    assert not second.failed
    assert first.signals[:, 0].tolist()[0] == 2.0
    assert len(first) == 4
    assert np.isnan(first.signals[1:]).all()
    assert second.signals[0, 0] == 5.0
    snapshot = lives.freeze_lives(found, tmp_path)
    again = lives.read_lives(tmp_path / snapshot.path, snapshot.digest)
    assert [life.unit for life in again.lives] == ["A", "B"]
    assert np.array_equal(again.lives[0].signals, first.signals, equal_nan=True)
    (tmp_path / snapshot.path).write_bytes(b"altered")
    with pytest.raises(BadBundle):
        lives.read_lives(tmp_path / snapshot.path, snapshot.digest)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("unit,vibration,failed\nA,1,0\n", Reason.WRONG_TYPE),
        ("unit,time,vibration,failed\nA,yesterday,1,0\n", Reason.BAD_TIME),
        ("unit,time,vibration,failed\nA,2026-01-01T00:00:00,1,0\n", Reason.NO_TIME_ZONE),
        ("unit,time,vibration,failed\nA,0,1,0\nA,99999999999999,1,1\n", Reason.TOO_LARGE),
        ("unit,machine_type,time,v,failed\nA,pump,0,1,0\nB,press,0,1,0\n", Reason.WRONG_TYPE),
        ("unit,time,vibration,failed\n", Reason.NOT_ELIGIBLE),
        ("unit,time,failed\nA,0,1\n", Reason.NOT_ELIGIBLE),
    ],
)
def test_a_file_of_lives_that_cannot_be_used_says_why(tmp_path: Path, text: str, reason: Reason) -> None:
    with pytest.raises(Refused) as refused:
        lives.read_folder(written(tmp_path / "lives", text), 60_000)
    assert refused.value.reason is reason


def test_no_folder_is_no_lives(tmp_path: Path) -> None:
    assert lives.fingerprint(tmp_path / "absent") == ""
    with pytest.raises(Refused, match="put recorded lives there"):
        lives.read_folder(tmp_path / "absent", 60_000)


@pytest.fixture
def database(tmp_path: Path) -> Any:
    held = Database(f"sqlite:///{tmp_path / 'server.db'}")
    Table.metadata.create_all(held.engine)
    yield held
    held.close()


def test_training_on_lives_is_due_once_and_again_when_files_change(database: Database, tmp_path: Path) -> None:
    folder = written(tmp_path / "lives", "unit,time,v,failed\nA,0,1,1\n")
    plan = TrainingSettings(lives=str(folder))
    with database.begin() as session:
        (job,) = worker.create_due_jobs(session, plan, 1)
        assert (job.kind, job.because) == ("life", "first training on recorded lives")
        assert worker.create_due_jobs(session, plan, 2) == []
        job.status = "failed"
        session.flush()
        assert worker.create_due_jobs(session, plan, 3) == []
        written(folder, "unit,time,v,failed\nB,0,1,1\n", "b.csv")
        (again,) = worker.create_due_jobs(session, plan, 4)
        assert again.because == "the recorded lives have changed"
        assert worker.create_due_jobs(session, TrainingSettings(), 5) == []


def test_a_job_for_lives_that_cannot_be_read_fails_with_its_reason(database: Database, tmp_path: Path) -> None:
    settings = Settings(admin_token="", gateway_token="", training=TrainingSettings(lives=str(tmp_path / "absent")))
    with database.begin() as session:
        session.add(Job(kind="life", created_ms=0, arguments={}, result={}))
    worker.work_once(database, tmp_path, settings.training, RegistryShelf(tmp_path), threading.Event())
    with database.begin() as session:
        (job,) = session.scalars(select(Job))
        assert job.status == "failed"
        assert "put recorded lives there" in job.result["error"]


def told(machine: str, issued_ms: int) -> RemainingLife:
    return RemainingLife(
        id=f"{machine}-{issued_ms}",
        machine=machine,
        unit="h",
        issued_ms=issued_ms,
        inputs_until_ms=issued_ms,
        age=1.0,
        cap=48.0,
        median=20.0,
        low=10.0,
        high=30.0,
        levels=[0.5],
        quantiles=[20.0],
        risks=[Risk(6.0, 0.1)],
        expected=20.0,
        usual=21.0,
        contributions=[Contribution("vibration", -1.0)],
        model=ModelRef("fault.life", "hazard_net", 1),
    )


def test_the_server_stores_remaining_lives_and_gives_the_latest_of_each_machine(database: Database) -> None:
    sent = [told("P-101", 1), told("P-101", 2), told("P-102", 1)]
    wrapped = [
        envelope(m, site="s", gateway="g", seq=i, boot="b", clock=ClockConfidence.SYNCED, time_ms=1)
        for i, m in enumerate(sent, start=1)
    ]
    for _ in range(2):  # a batch seen twice is stored once
        with database.begin() as session:
            intake.store_batch(session, "s", "g", MessageClass.METRIC, encode(Batch(envelopes=wrapped)), 5)
    with database.begin() as session:
        found = latest_lives(session)
        assert [(row.machine, row.time_ms) for row in found] == [("P-101", 2), ("P-102", 1)]
        assert msgspec.convert(found[0].body, RemainingLife) == sent[1]
        forget_old_forecasts(session, 1)
        assert len(list(session.scalars(select(StatementRow)))) == 1


def test_pumps_of_the_simulated_line_wear_out_and_are_replaced() -> None:
    made = line.Line(1, 7)
    first, second = made.lives["P-101"][:2]
    assert second.born_ms == first.end_ms
    assert first.wear(first.born_ms) == 0.0
    assert 0.0 < first.wear((first.born_ms + first.fails_ms) // 2) < first.wear(first.fails_ms) == 1.0
    (order,) = made.replaced(first.end_ms - 1, first.end_ms)
    assert order.actions == ["replace-bearing"]
    assert list(made.replaced(first.end_ms, first.end_ms + 1)) == []
    rows = list(line.recorded_lives(7, lines=4, days=6.0, step_ms=3_600_000))
    assert rows[0][:3] == ["unit", "machine_type", "time"]
    failed = {row[0] for row in rows[1:] if row[-1] == "1"}
    assert failed
    assert {row[0] for row in rows[1:]} - failed  # the last bearings still work


def test_the_api_and_the_console_give_the_latest_remaining_life(tmp_path: Path) -> None:
    token = "k3Jx9QmW2vLs8RtZ5yBn7CdF"
    settings = Settings(
        database=f"sqlite:///{tmp_path}/api.db", artifacts=str(tmp_path), admin_token=token, gateway_token=token[::-1]
    )
    migrate(settings)
    held = Database(settings.database)
    wrapped = envelope(
        told("P-101", 7), site="s", gateway="g", seq=1, boot="b", clock=ClockConfidence.SYNCED, time_ms=1
    )
    with held.begin() as session:
        intake.store_batch(session, "s", "g", MessageClass.METRIC, encode(Batch(envelopes=[wrapped])), 5)
    with TestClient(create_app(settings, held, None), headers={"Authorization": f"Bearer {token}"}) as client:
        (life,) = client.get("/api/v1/machines/remaining-life").json()
        assert (life["gateway"], life["machine"], life["issued_ms"]) == ("g", "P-101", 7)
        assert client.get("/console/state.json").json()["lives"] == [life | {"list": None, "answers": []}]
        assert "lifeChart" in client.get("/console/assets/life.js").text
    held.close()
