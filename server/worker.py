"""The training worker: notices when there is something to learn, learns it in a child process, and lets the gate decide.

A job is leased, never flagged busy: a worker that dies leaves a lease that ends. There is one live job of a kind."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from protocol.bundles import unpack
from protocol.errors import MillwrightError
from protocol.twin import Role
from protocol.windows import WindowSpec
from server import datasets, registry, rollouts
from server.config import Settings, TrainingSettings
from server.database import Database, FeedbackRow, Job, SignalBlockRow, WorkOrderRow
from server.datasets import Snapshot

log = logging.getLogger(__name__)
FORECAST, RECOMMEND = "train_forecast", "train_recommend"
SLOTS = {FORECAST: ("forecast.arima", "forecast.lstm"), RECOMMEND: ("recommend.items",)}
LEASE_MS = 60_000
MAX_ATTEMPTS = 3
MAX_TRAINING_S = 3600.0


@dataclass(frozen=True)
class Order:
    """Everything a child process needs to know of a job."""

    kind: str
    snapshot: Snapshot
    artifacts: str
    training: TrainingSettings
    versions: dict[str, int]
    champions: dict[str, str]
    because: str
    now_ms: int


def run_worker(settings: Settings, database: Database, stop: threading.Event) -> None:
    """Until `stop`: looks for reasons to train, then does the oldest job."""
    while not stop.is_set():
        with database.begin() as session:
            notice(session, settings.training, now_ms())
            job = lease(session, now_ms())
        if job is None:
            stop.wait(0.5)
            continue
        try:
            do(settings, database, job, stop)
        except MillwrightError as error:
            finish(database, job, "failed", {"error": str(error)})
            log.warning("job %d failed: %s", job, error)


def now_ms() -> int:
    """Wall time."""
    return time.time_ns() // 1_000_000


def notice(session: Session, training: TrainingSettings, now: int) -> None:
    """Makes a job for each kind that has a reason and none waiting or running."""
    live = set(session.scalars(select(Job.kind).where(Job.status.in_(("waiting", "running")))))
    for kind, reason in ((FORECAST, forecast_reason), (RECOMMEND, recommend_reason)):
        because = "" if kind in live else reason(session, training)
        if because:
            session.add(Job(kind=kind, because=because, created_ms=now, started_ms=None, finished_ms=None))


def forecast_reason(session: Session, training: TrainingSettings) -> str:
    """Why forecasters should be trained now, or ''."""
    span = select(func.min(SignalBlockRow.start_ms), func.max(SignalBlockRow.start_ms))
    first, last = session.execute(span).one()
    have = 0 if first is None else (last - first) // training.step_ms
    done = _last_done(session, FORECAST)
    if done is None:
        return f"first training on {have} buckets" if have >= training.first_after_buckets else ""
    since = have - int(done.result.get("seen", 0))
    return f"{since} buckets since the last training" if since >= training.retrain_after_buckets else ""


def recommend_reason(session: Session, training: TrainingSettings) -> str:
    """Why the recommender should be trained now, or ''."""
    orders = session.scalar(select(func.count()).select_from(WorkOrderRow)) or 0
    verdicts = dict(
        session.execute(select(FeedbackRow.verdict, func.count()).group_by(FeedbackRow.verdict)).tuples().all()
    )
    answers = sum(verdicts.values())
    done = _last_done(session, RECOMMEND)
    if done is None:
        return f"first training on {orders} work orders" if orders >= training.first_recommend_after_orders else ""
    told = done.result.get("verdicts", {})
    since = answers - int(done.result.get("seen", 0))
    if since < training.retrain_after_feedback:
        return ""
    parts = [f"{n - told.get(v, 0)} {v}" for v, n in sorted(verdicts.items()) if n > told.get(v, 0)]
    return f"{since} answers since the last training ({', '.join(parts)})"


def _last_done(session: Session, kind: str) -> Job | None:
    """The last job that ended, failures included: the same data would fail the same way."""
    ended = (Job.kind == kind, Job.status.in_(("done", "failed", "cancelled")))
    return session.scalar(select(Job).where(*ended).order_by(Job.id.desc()).limit(1))


def lease(session: Session, now: int) -> int | None:
    """Takes the oldest job that waits or whose lease has run out; a job tried too often fails."""
    query = select(Job).where((Job.status == "waiting") | ((Job.status == "running") & (Job.lease_ms < now)))
    job = session.scalar(query.order_by(Job.id).limit(1).with_for_update(skip_locked=True))
    if job is None:
        return None
    job.attempts += 1
    if job.attempts > MAX_ATTEMPTS:
        job.status, job.finished_ms = "failed", now
        job.result = {"error": f"given up after {MAX_ATTEMPTS} attempts; the worker died in each"}
        return None
    job.status, job.lease_ms, job.started_ms = "running", now + LEASE_MS, now
    return job.id


def do(settings: Settings, database: Database, job: int, stop: threading.Event) -> None:
    """One job: freeze what is known, train in a child, register what came out, roll out what the gate let pass."""
    order, seen = prepare(settings, database, job)
    outcome = train_in_child(order, database, job, stop)
    if outcome is None:
        return
    if "error" in outcome:
        finish(database, job, "failed", {**seen, "error": outcome["error"]})
        return
    made: list[str] = []
    with database.begin() as session:
        for archive in outcome["archives"]:
            passport = unpack(archive).passport
            folder = settings.artifact_folder
            model = registry.register(
                session, archive, passport, folder, order.snapshot.digest, order.because, now_ms()
            )
            made.append(f"{model.slot} v{model.version} {model.status}")
            if passport.eligible:
                rollouts.start(session, model, Role.SERVING, None, order.because, now_ms())
            elif model.slot in SLOTS[FORECAST] and registry.champion(session, model.slot) is None:
                rollouts.start(session, model, Role.SHADOW, None, f"shadow only: {passport.verdict}", now_ms())
    finish(database, job, "done", {**seen, "models": made})


def prepare(settings: Settings, database: Database, number: int) -> tuple[Order, dict[str, Any]]:
    """The frozen data set and what the child must know; and what had been seen when it was frozen."""
    with database.begin() as session:
        job = session.get_one(Job, number)
        seen: dict[str, Any]
        if job.kind == FORECAST:
            grid = datasets.collect_signals(session, settings.training.step_ms)
            snapshot = datasets.freeze_signals(grid, settings.artifact_folder)
            seen = {"seen": int(grid.values.shape[1])}
        else:
            verdicts = session.execute(select(FeedbackRow.verdict, func.count()).group_by(FeedbackRow.verdict)).tuples()
            counted = {str(v): int(n) for v, n in verdicts}
            snapshot = datasets.freeze_cases(datasets.collect_cases(session), settings.artifact_folder)
            seen = {"seen": sum(counted.values()), "verdicts": counted}
        datasets.record(session, snapshot, now_ms())
        champions = {slot: registry.champion(session, slot) for slot in SLOTS[job.kind]}
        order = Order(
            kind=job.kind,
            snapshot=snapshot,
            artifacts=settings.artifacts,
            training=settings.training,
            versions={slot: registry.next_version(session, slot) for slot in SLOTS[job.kind]},
            champions={slot: model.path for slot, model in champions.items() if model is not None},
            because=job.because,
            now_ms=now_ms(),
        )
    return order, seen


def train_in_child(order: Order, database: Database, job: int, stop: threading.Event) -> dict[str, Any] | None:
    """Runs the training in a process that can be killed; keeps the lease and the progress. None if it was cancelled."""
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    child = context.Process(target=train, args=(order, told), daemon=True)
    child.start()
    until = time.monotonic() + MAX_TRAINING_S
    try:
        while time.monotonic() < until:
            try:
                kind, body = told.get(timeout=0.5)
            except queue.Empty:
                if not child.is_alive():
                    return {"error": f"the training process ended with status {child.exitcode}"}
                kind, body = "progress", None
            if kind == "done":
                return dict(body)
            if stop.is_set() or not keep_lease(database, job, body):
                return None
        return {"error": f"training took over {MAX_TRAINING_S:.0f} s"}
    finally:
        child.kill()
        child.join(5)


def keep_lease(database: Database, number: int, progress: tuple[float, str] | None) -> bool:
    """Renews the lease, notes the progress; False if somebody cancelled the job."""
    with database.begin() as session:
        job = session.get_one(Job, number)
        if job.status != "running":
            return False
        job.lease_ms = now_ms() + LEASE_MS
        if progress is not None:
            job.progress, job.step = progress
        return True


def train(order: Order, told: Any) -> None:
    """The child: reads the frozen file, trains, and says what came out."""
    from server import training

    folder = Path(order.artifacts)
    world = training.Circumstances(
        dataset_digest=order.snapshot.digest,
        dataset_rows=order.snapshot.rows,
        now_ms=order.now_ms,
        versions=order.versions,
        champions={slot: (folder / path).read_bytes() for slot, path in order.champions.items()},
        because=order.because,
    )

    def progress(share: float, step: str) -> None:
        told.put(("progress", (share, step)))

    path, settings = folder / order.snapshot.path, order.training
    try:
        if order.kind == FORECAST:
            window = WindowSpec(
                step_ms=settings.step_ms,
                length=settings.window_length,
                horizon=settings.horizon_steps,
                season=settings.season_steps,
            )
            plan = training.ForecastPlan(window=window, epochs=settings.lstm_epochs, seed=settings.seed)
            grid = datasets.read_signals(path, order.snapshot.digest)
            made = training.train_forecast(grid, plan, world, progress)
        else:
            cases = datasets.read_cases(path, order.snapshot.digest)
            made = training.train_recommend(cases, settings.seed, world, progress)
    except MillwrightError as error:
        told.put(("done", {"error": str(error)}))
        return
    told.put(("done", {"archives": [candidate.archive for candidate in made]}))


def finish(database: Database, number: int, status: str, result: dict[str, Any]) -> None:
    """Ends a job that nobody cancelled meanwhile."""
    with database.begin() as session:
        job = session.get_one(Job, number)
        if job.status == "running":
            job.status, job.result, job.finished_ms = status, result, now_ms()
            job.progress = 1.0 if status == "done" else job.progress
