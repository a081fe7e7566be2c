"""Learn, seal, unpack, run: what the gateway computes stays within the bound that the passport states; the
gate is honest; the worker never runs two jobs of a kind."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from export import parity
from protocol.bundles import Bundle, Passport, Quality, digest, unpack
from protocol.errors import BadBundle, Refused
from protocol.recommending import CANDIDATES
from protocol.tables import Hybrid, StateSpace
from protocol.twin import Role
from protocol.windows import WindowSpec, windows
from server import datasets, evaluation, jobs, kinds, training, worker
from server.cases import Case
from server.database import (
    Database,
    Dataset,
    FeedbackRow,
    Job,
    Model,
    RecommendationRow,
    SignalBlockRow,
    Table,
    WorkOrderRow,
)
from server.datasets import SignalGrid

STEP_MS = 900_000
SPEC = WindowSpec(step_ms=STEP_MS, length=24, horizon=6, season=96)
WORLD = training.Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_700_000_000_000, because="a test")


def plant(signals: int, buckets: int, seed: int) -> SignalGrid:
    rng = np.random.default_rng(seed)
    t = np.arange(buckets)
    values = np.zeros((signals, buckets))
    for s in range(signals):
        noise = np.zeros(buckets)
        for i in range(1, buckets):
            noise[i] = 0.85 * noise[i - 1] + 0.4 * rng.normal()
        values[s] = 20 + s + 3 * np.sin(2 * np.pi * t / 96 + s) + noise
    values[:, 100:104] = np.nan
    return SignalGrid(0, STEP_MS, [(f"M-{s}", "temperature") for s in range(signals)], values)


def quiet(_share: float, _step: str) -> None:
    return


@pytest.fixture(scope="module")
def grid() -> SignalGrid:
    return plant(2, 520, 3)


@pytest.fixture(scope="module")
def forecasters(grid: SignalGrid) -> dict[str, training.Candidate]:
    found = training.train_forecast(grid, training.ForecastPlan(window=SPEC, epochs=3), WORLD, quiet)
    return {candidate.passport.slot: candidate for candidate in found}


def opened(candidate: training.Candidate) -> Bundle:
    return unpack(candidate.archive, digest(candidate.archive))


def test_lstm_is_int8_small_and_repeats_its_golden_vectors(
    forecasters: dict[str, training.Candidate], grid: SignalGrid
) -> None:
    bundle = opened(forecasters[training.LSTM])
    passport = bundle.passport
    assert passport.packed_bytes <= passport.float_bytes / 3
    assert passport.parity.task_change <= 0.005
    assert passport.latency_us > 0
    run = parity.Graph(bundle.graph)
    answer = run(np.asarray(bundle.golden_inputs["x"]), np.asarray(bundle.golden_inputs["who"]))
    np.testing.assert_allclose(answer, bundle.golden_outputs["q"], atol=passport.golden.atol)
    context = grid.values[:, -SPEC.context :]
    answers = run(windows(context, np.full(2, grid.until_ms), SPEC).x, passport.who(grid.series))
    assert answers.shape == (2, SPEC.horizon, len(passport.levels))
    assert (np.diff(answers, axis=2) >= 0).all()


def test_arima_tables_carry_on_where_training_ended(
    forecasters: dict[str, training.Candidate], grid: SignalGrid
) -> None:
    bundle = opened(forecasters[training.ARIMA])
    passport = bundle.passport
    assert passport.eligible, passport.verdict
    assert passport.series == grid.series
    assert passport.series_until_ms == [grid.until_ms] * 2
    inputs, outputs = bundle.golden_inputs, bundle.golden_outputs
    filter_ = StateSpace(bundle.tables)
    for row, at in zip(inputs["values"], inputs["times_ms"], strict=True):
        filter_.step(np.asarray(row, dtype=np.float64), int(at))
    step = int(inputs["step_ms"][0])
    mean, deviation = filter_.forecast(int(inputs["times_ms"][-1]) + step, step, SPEC.horizon)
    np.testing.assert_allclose(mean, outputs["mean"], atol=passport.golden.atol)
    np.testing.assert_allclose(deviation, outputs["deviation"], atol=passport.golden.atol)


def test_the_same_data_and_seed_give_the_same_bundle(
    forecasters: dict[str, training.Candidate], grid: SignalGrid
) -> None:
    again = training.train_forecast(grid, training.ForecastPlan(window=SPEC, epochs=3), WORLD, quiet)
    for candidate in again:
        before = opened(forecasters[candidate.passport.slot])
        after = opened(candidate)
        assert after.graph == before.graph
        for name, table in after.tables.items():
            np.testing.assert_array_equal(table, before.tables[name])


def test_a_forecaster_that_loses_to_the_naive_one_is_refused() -> None:
    steps = np.cumsum(np.random.default_rng(5).normal(size=(1, 300)), axis=1)
    repeated = np.tile(steps[:, :96], (1, 4))[:, :380]  # every day exactly as the last: naive is perfect
    found = training.train_forecast(
        SignalGrid(0, STEP_MS, [("M", "s")], repeated + 1e-6),
        training.ForecastPlan(window=SPEC, epochs=1),
        WORLD,
        quiet,
    )
    for candidate in found:
        assert not candidate.passport.eligible
        assert candidate.passport.verdict.startswith("Refused: does not beat the simple reference")


def test_the_champion_is_measured_on_the_same_tail(
    forecasters: dict[str, training.Candidate], grid: SignalGrid
) -> None:
    tail = evaluation.hold_out(grid.values, grid.start_ms, STEP_MS, SPEC.season, SPEC.horizon)
    for candidate in forecasters.values():
        figure = candidate.passport.quality[0]
        champion = training.course.champion_error(tail, grid, [0, 1], candidate.archive)
        assert champion == pytest.approx(figure.model, rel=0.02)


def test_nothing_of_the_tail_reaches_the_learner(grid: SignalGrid) -> None:
    tail = evaluation.hold_out(grid.values, grid.start_ms, STEP_MS, SPEC.season, SPEC.horizon)
    other = grid.values.copy()
    other[:, tail.split :] = 1e6
    changed = SignalGrid(0, STEP_MS, grid.series, other)
    who = np.ones((2, 2), dtype=np.int64)
    before = training.forecast_lstm.training_windows(grid, tail, SPEC, who)
    after = training.forecast_lstm.training_windows(changed, tail, SPEC, who)
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.x, two.x)
        np.testing.assert_array_equal(one.y, two.y)


def test_too_little_history_is_refused_in_words() -> None:
    with pytest.raises(Refused, match="wait until more is shared"):
        training.train_forecast(plant(1, 40, 1), training.ForecastPlan(window=SPEC), WORLD, quiet)


KINDS = {
    "vibration": "replace-bearing",
    "temperature": "clean-filter",
    "pressure": "replace-seal",
    "current": "check-motor",
}


def maintenance(count: int, seed: int) -> list[Case]:
    rng = np.random.default_rng(seed)
    names = list(KINDS)
    cases = []
    for i in range(count):
        kind = names[int(rng.integers(4))]
        done = f"action:{KINDS[kind]}" if rng.random() < 0.85 else f"action:{KINDS[names[int(rng.integers(4))]]}"
        profile = (f"symptom:{kind}:high", "type:pump", f"machine:P-{int(rng.integers(5))}")
        cases.append(Case(time_ms=i * 3_600_000, profile=profile, items={done: 1.0, f"part:{kind}-kit": 1.0}))
    return cases


def test_recommendations_beat_popularity_and_survive_packing() -> None:
    cases = maintenance(80, 1)
    (candidate,) = training.train_recommend(cases, 7, WORLD, quiet)
    bundle = opened(candidate)
    assert candidate.passport.eligible, candidate.passport.verdict
    table = Hybrid(bundle.passport.items, bundle.passport.users, bundle.tables)
    best = table.rank({"symptom:vibration:high": 1.0, "type:pump": 1.0}, 2, CANDIDATES)
    assert {found.item for found in best} == {"action:replace-bearing", "part:vibration-kit"}
    again_there = table.golden(bundle.golden_inputs, bundle.golden_outputs)
    np.testing.assert_array_equal(again_there["ranked"], bundle.golden_outputs["ranked"])
    (again,) = training.train_recommend(cases, 7, WORLD, quiet)
    for name, array in opened(again).tables.items():
        np.testing.assert_array_equal(array, bundle.tables[name])


def test_answers_make_the_next_version_better_than_the_champion() -> None:
    cases = maintenance(60, 2)
    (first,) = training.train_recommend(cases, 7, WORLD, quiet)
    start = cases[-1].time_ms
    answers = [
        Case(
            start + (i + 1) * 60_000,
            ("symptom:vibration:high", "type:pump", f"machine:P-{i % 5}"),
            {"action:replace-bearing": -1.0, "action:align-shaft": 1.0},
            source="answer",
        )
        for i in range(12)
    ]
    world = training.Circumstances(
        "1" * 64, 72, 1_700_000_100_000, {training.ITEMS: 2}, {training.ITEMS: first.archive}, ""
    )
    (second,) = training.train_recommend([*cases, *answers], 7, world, quiet)
    figure: Quality = second.passport.quality[0]
    assert second.passport.eligible, second.passport.verdict
    assert figure.champion is not None
    assert figure.model > figure.champion
    table = Hybrid(second.passport.items, second.passport.users, opened(second).tables)
    assert table.rank(dict.fromkeys(answers[0].profile, 1.0), 1, ("action:",))[0].item == "action:align-shaft"


# --- data sets and the worker, on a database ---


@dataclass(frozen=True)
class Plan:
    step_ms: int = STEP_MS
    season_steps: int = 96
    window_length: int = 24
    horizon_steps: int = 6
    first_after_buckets: int = 160
    retrain_after_buckets: int = 400
    retrain_after_feedback: int = 12
    first_recommend_after_orders: int = 40
    first_read_after_notes: int = 10_000
    first_write_after_edits: int = 40
    retrain_after_edits: int = 20
    writer_steps: int = 600
    writer_layers: int = 4
    writer_width: int = 128
    writer_teacher: int = 0
    writer_prune: float = 0.0
    lstm_epochs: int = 1
    lstm_hidden: int = 64
    lstm_dropout: float = 0.1
    lstm_weight_decay: float = 1e-3
    lstm_teacher: int = 0
    lstm_prune: tuple[float, ...] = ()
    lstm_prune_of: Literal["units", "weights"] = "units"
    lives: str = ""
    life_settings: tuple[str, ...] = ()
    life_conditions: int = 1
    life_cap_h: float = 0.0
    life_teacher: int = 0
    life_renewed_by: tuple[str, ...] = ()
    quantize: str = "auto"
    targets: tuple[str, ...] = ("onnx",)
    seed: int = 7


@dataclass
class MemoryShelf:
    """A registry and rollouts that only remember."""

    registered: list[Passport] = field(default_factory=list)
    rollouts: list[tuple[str, Role]] = field(default_factory=list)

    def next_version(self, session: Session, slot: str) -> int:
        return 1 + sum(passport.slot == slot for passport in self.registered)

    def champion_archive(self, session: Session, slot: str) -> bytes | None:
        return None

    def register(
        self, session: Session, archive: bytes, passport: Passport, dataset: str, because: str, now_ms: int
    ) -> Model:
        self.registered.append(passport)
        model = Model(
            slot=passport.slot,
            version=passport.version,
            digest=digest(archive),
            path="",
            size=len(archive),
            status="candidate" if passport.eligible else "refused",
            verdict=passport.verdict,
            because=because,
            dataset=dataset,
            passport={},
            created_ms=now_ms,
        )
        session.add(model)
        return model

    def roll_out(self, session: Session, model: Model, role: Role, because: str, now_ms: int) -> None:
        self.rollouts.append((model.slot, role))


@pytest.fixture
def database(tmp_path: Path) -> Any:
    held = Database(f"sqlite:///{tmp_path / 'server.db'}")
    Table.metadata.create_all(held.engine)
    yield held
    held.close()


def share_history(database: Database, grid: SignalGrid, block: int = 24) -> None:
    with database.begin() as session:
        seq = 0
        for (machine, signal), row in zip(grid.series, grid.values, strict=True):
            for at in range(0, len(row), block):
                seq += 1
                values = [None if np.isnan(v) else float(v) for v in row[at : at + block]]
                session.add(
                    SignalBlockRow(
                        gateway="line-1",
                        seq=seq,
                        sent_ms=0,
                        stored_ms=0,
                        machine=machine,
                        signal=signal,
                        unit="",
                        start_ms=grid.start_ms + at * STEP_MS,
                        step_ms=STEP_MS,
                        values=values,
                    )
                )


def finish_orders(database: Database, count: int) -> None:
    with database.begin() as session:
        for i, case in enumerate(maintenance(count, 1)):
            kind = case.profile[0].removeprefix("symptom:").removesuffix(":high")
            body = {
                "id": f"wo-{i}",
                "machine": case.profile[2].removeprefix("machine:"),
                "machine_type": "pump",
                "time_ms": case.time_ms,
                "symptoms": [f"{kind}:high"],
                "actions": [KINDS[kind]],
                "parts": [f"{kind}-kit"],
            }
            session.add(
                WorkOrderRow(
                    gateway="line-1",
                    seq=i,
                    sent_ms=0,
                    stored_ms=0,
                    order_id=f"wo-{i}",
                    machine="P",
                    time_ms=case.time_ms,
                    body=body,
                )
            )


def test_shared_blocks_come_back_from_the_frozen_set_and_tampering_is_seen(
    database: Database, tmp_path: Path, grid: SignalGrid
) -> None:
    share_history(database, grid)
    with database.begin() as session:
        collected = datasets.collect_signals(session, STEP_MS)
        assert kinds.shared_buckets(session, STEP_MS) == 520
    snapshot = datasets.freeze_signals(collected, tmp_path)
    assert datasets.freeze_signals(collected, tmp_path) == snapshot
    back = datasets.read_signals(tmp_path / snapshot.path, snapshot.digest)
    np.testing.assert_array_equal(back.values, grid.values)
    assert back.series == grid.series
    path = tmp_path / snapshot.path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BadBundle, match="altered"):
        datasets.read_signals(path, snapshot.digest)


def test_answers_become_cases_with_wrong_and_right_items(database: Database, tmp_path: Path) -> None:
    shown = {
        "profile": ["symptom:vibration:high", "type:pump"],
        "items": [{"item": "action:a"}, {"item": "action:b"}],
    }
    with database.begin() as session:
        session.add(
            RecommendationRow(
                gateway="g",
                seq=1,
                sent_ms=0,
                stored_ms=0,
                recommendation_id="r",
                event_id="e",
                machine="P",
                issued_ms=1,
                body=shown,
            )
        )
        session.add(
            FeedbackRow(
                gateway="g",
                seq=1,
                stored_ms=0,
                feedback_id="f",
                target="r",
                target_kind="recommendation",
                item="action:a",
                verdict="corrected",
                correction="action:c",
                time_ms=2,
                via="shop",
            )
        )
    with database.begin() as session:
        (case,) = datasets.collect_cases(session)
    assert case.items == {"action:a": -1.0, "action:c": 1.0}
    book = datasets.CaseBook([case])
    snapshot = datasets.freeze_casebook(book, tmp_path)
    assert datasets.read_casebook(tmp_path / snapshot.path, snapshot.digest) == book


def test_one_round_trains_registers_and_starts_a_rollout(database: Database, tmp_path: Path) -> None:
    finish_orders(database, 48)
    shelf = MemoryShelf()
    assert worker.work_once(database, tmp_path, Plan(), shelf, threading.Event())
    with database.begin() as session:
        (job,) = session.scalars(select(Job))
        assert (job.status, job.because) == ("done", "first training on 48 work orders"), job.step
        assert session.scalar(select(Dataset.rows)) == 48
    assert shelf.rollouts == [("recommend.items", Role.SERVING)]
    assert not worker.work_once(database, tmp_path, Plan(), shelf, threading.Event())


def test_jobs_are_due_once_and_say_why(database: Database) -> None:
    share_history(database, plant(1, 168, 1))
    finish_orders(database, 10)
    with database.begin() as session:
        (made,) = worker.create_due_jobs(session, Plan(), 1)
        assert made.because == "first training on 168 buckets"
        assert worker.create_due_jobs(session, Plan(), 2) == []
        session.add(
            Job(
                kind="recommend",
                status="done",
                arguments={"orders": 40, "feedback_id": 0},
                result={},
                created_ms=0,
                finished_ms=1,
            )
        )
        verdicts = ["accepted"] * 2 + ["rejected"] * 7 + ["corrected"] * 3 + ["too_late"] * 5
        for i, verdict in enumerate(verdicts):
            session.add(
                FeedbackRow(
                    gateway="g",
                    seq=i,
                    stored_ms=0,
                    feedback_id=f"f{i}",
                    target="r",
                    target_kind="recommendation",
                    verdict=verdict,
                    time_ms=i,
                    via="shop",
                )
            )
        session.flush()
        (made,) = worker.create_due_jobs(session, Plan(), 3)
        assert made.because == "12 answers since the last attempt (7 rejected, 3 corrected)"


def test_a_job_whose_worker_died_is_taken_up_three_times_then_failed(database: Database) -> None:
    with database.begin() as session:
        session.add(Job(kind="forecast", created_ms=0, arguments={}, result={}))
    now = 1_000
    for attempt in (1, 2, 3):
        with database.begin() as session:
            job = jobs.lease(session, now)
            assert job is not None
            assert job.attempts == attempt
        with database.begin() as session:
            assert jobs.lease(session, now) is None  # leased: nobody else may have it
        now += jobs.LEASE_MS + 1
    with database.begin() as session:
        assert jobs.lease(session, now) is None
    with database.begin() as session:
        (job,) = session.scalars(select(Job))
        assert job.status == "failed"
        assert "given up after 3 attempts" in job.step


def test_a_cancelled_training_is_killed_and_leaves_no_model(
    database: Database, tmp_path: Path, grid: SignalGrid
) -> None:
    share_history(database, grid)
    with database.begin() as session:
        session.add(Job(kind="forecast", status="cancelled", arguments={}, result={}, created_ms=0))
        grid_now = datasets.collect_signals(session, STEP_MS)
    snapshot = datasets.freeze_signals(grid_now, tmp_path)
    task = kinds.Task(
        kind="forecast",
        dataset=tmp_path / snapshot.path,
        digest=snapshot.digest,
        rows=1,
        window=SPEC,
        epochs=50,
        seed=1,
        versions={},
        champions={},
        because="",
        now_ms=0,
    )
    outcome = worker.run_child(task, lambda share, step: worker._report(database, 1, share, step, 5), threading.Event())
    assert outcome.cancelled
    assert not outcome.archives


def test_a_job_that_cannot_be_trained_fails_with_its_reason(database: Database, tmp_path: Path) -> None:
    with database.begin() as session:
        session.add(Job(kind="forecast", created_ms=0, arguments={}, result={}))
    shelf = MemoryShelf()
    worker.work_once(database, tmp_path, Plan(), shelf, threading.Event())
    with database.begin() as session:
        (job,) = session.scalars(select(Job))
        assert job.status == "failed"
        assert "wait until more is shared" in job.result["error"]
    assert shelf.registered == []
