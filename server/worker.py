"""The training worker: sees when there is enough to learn, leases one job at a time, trains in a child
process that can be killed, and starts the rollout of what passed the gate.

A job's lease is renewed while its child lives; a worker that dies leaves a lease that runs out, and the job
is taken up again, three times at most. There are never two live jobs of a kind."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from protocol.bundles import Passport, unpack
from protocol.errors import MillwrightError, Refused
from protocol.twin import Role
from protocol.windows import WindowSpec
from server import datasets, lives
from server.database import Database, FeedbackRow, Job, Model, SignalBlockRow, WorkOrderRow

if TYPE_CHECKING:
    from server.config import Settings

FORECAST, RECOMMEND, LIFE = datasets.FORECAST, datasets.RECOMMEND, lives.LIFE
SLOTS = {
    FORECAST: ("forecast.arima", "forecast.lstm", "forecast.ridge"),
    RECOMMEND: ("recommend.items",),
    LIFE: ("fault.life",),
}
MONITOR = "fault.monitor"
"""One slot a machine, trained with the forecasters: `fault.monitor.P-101`."""
LIVE = ("waiting", "running")
MOST_ATTEMPTS = 3
LEASE_MS = 60_000
JUDGED = ("accepted", "rejected", "corrected")

log = logging.getLogger(__name__)


class Plan(Protocol):
    """The settings that the worker reads (section [training] of the server's configuration)."""

    @property
    def step_ms(self) -> int: ...
    @property
    def season_steps(self) -> int: ...
    @property
    def window_length(self) -> int: ...
    @property
    def horizon_steps(self) -> int: ...
    @property
    def first_after_buckets(self) -> int: ...
    @property
    def retrain_after_buckets(self) -> int: ...
    @property
    def retrain_after_feedback(self) -> int: ...
    @property
    def first_recommend_after_orders(self) -> int: ...
    @property
    def lstm_epochs(self) -> int: ...
    @property
    def lives(self) -> str: ...
    @property
    def life_settings(self) -> tuple[str, ...]: ...
    @property
    def life_conditions(self) -> int: ...
    @property
    def life_cap_h(self) -> float: ...
    @property
    def life_renewed_by(self) -> tuple[str, ...]: ...
    @property
    def seed(self) -> int: ...


class Shelf(Protocol):
    """Where finished bundles go and where the serving ones come from."""

    def next_version(self, session: Session, slot: str) -> int: ...
    def champion_archive(self, session: Session, slot: str) -> bytes | None: ...
    def register(
        self, session: Session, archive: bytes, passport: Passport, dataset: str, because: str, now_ms: int
    ) -> Model: ...
    def roll_out(self, session: Session, model: Model, role: Role, because: str, now_ms: int) -> None: ...


@dataclass(frozen=True)
class Task:
    """What the child process is given: everything but a database."""

    kind: str
    dataset: Path
    digest: str
    rows: int
    window: WindowSpec
    epochs: int
    seed: int
    versions: dict[str, int]
    champions: dict[str, bytes]
    because: str
    now_ms: int
    life_settings: tuple[str, ...] = ()
    life_conditions: int = 1
    life_cap_h: float = 0.0
    life_renewed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a child: its sealed bundles, or why there are none. `lost`: it died without a word."""

    archives: list[bytes] = field(default_factory=list)
    error: str = ""
    cancelled: bool = False
    lost: bool = False


def run_worker(settings: Settings, database: Database, stop: threading.Event, poll_s: float = 2.0) -> None:
    """Works until `stop` is set. An error of one round is counted and logged, and the next round tried."""
    artifacts = settings.artifact_folder
    shelf = RegistryShelf(artifacts)
    failed = 0
    while not stop.is_set():
        try:
            worked = work_once(database, artifacts, settings.training, shelf, stop)
        except Exception:
            failed += 1
            log.exception(
                "the worker's round failed, the %d. since its start; the next follows in %.0f s", failed, poll_s
            )
            worked = False
        if not worked:
            stop.wait(poll_s)


def work_once(
    database: Database,
    artifacts: Path,
    plan: Plan,
    shelf: Shelf,
    stop: threading.Event,
    clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> bool:
    """One round: creates the jobs that are due, then runs the oldest waiting one. True if a job was run."""
    with database.begin() as session:
        create_due_jobs(session, plan, clock())
    with database.begin() as session:
        leased = lease(session, clock())
        if leased is None:
            return False
        job_id, kind, because = leased.id, leased.kind, leased.because
    try:
        task, snapshot = _prepare(database, artifacts, plan, shelf, kind, because, clock())
        with database.begin() as session:
            datasets.record(session, snapshot, clock())
        outcome = run_child(task, lambda share, step: _report(database, job_id, share, step, clock()), stop)
        _finish(database, shelf, job_id, snapshot, outcome, clock())
    except (MillwrightError, OSError, ValueError) as error:
        log.warning("job %d (%s) failed: %s", job_id, kind, error)
        _finish(database, shelf, job_id, None, Outcome(error=f"{type(error).__name__}: {error}"), clock())
    return True


def create_due_jobs(session: Session, plan: Plan, now_ms: int) -> list[Job]:
    """Adds a waiting job of each kind that is due and has none alive."""
    due = (
        (LIFE, _life_due(session, plan)),
        (FORECAST, _forecast_due(session, plan)),
        (RECOMMEND, _recommend_due(session, plan)),
    )
    made: list[Job] = []
    for kind, reason in due:
        alive = session.scalar(select(func.count()).select_from(Job).where(Job.kind == kind, Job.status.in_(LIVE)))
        if reason is not None and not alive:
            because, arguments = reason
            job = Job(
                kind=kind,
                status="waiting",
                because=because,
                arguments=arguments,
                result={},
                progress=0.0,
                step="",
                attempts=0,
                lease_ms=0,
                created_ms=now_ms,
                started_ms=None,
                finished_ms=None,
            )
            session.add(job)
            made.append(job)
            log.info("%s training is due: %s", kind, because)
    session.flush()
    return made


def lease(session: Session, now_ms: int) -> Job | None:
    """Takes the oldest job that waits or whose worker is gone; a job that lost its worker too often has
    failed."""
    free = (Job.status == "waiting") | ((Job.status == "running") & (Job.lease_ms < now_ms))
    for job in session.scalars(select(Job).where(free).order_by(Job.id).with_for_update(skip_locked=True)):
        if job.attempts >= MOST_ATTEMPTS:
            job.status, job.finished_ms = "failed", now_ms
            job.step = f"given up after {job.attempts} attempts: the training process died; look at the worker's log"
            continue
        job.status, job.lease_ms, job.attempts = "running", now_ms + LEASE_MS, job.attempts + 1
        job.started_ms = job.started_ms or now_ms
        return job
    return None


def run_child(task: Task, report: Callable[[float, str], bool], stop: threading.Event) -> Outcome:
    """Trains in a fresh process and relays its progress. The child is killed as soon as `report` answers
    False (the job was cancelled) or `stop` is set."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    child = spawn.Process(target=train_in_child, args=(task, theirs), daemon=True, name=f"train-{task.kind}")
    child.start()
    theirs.close()
    share, step = 0.0, "starting"
    try:
        while True:
            if ours.poll(0.5):
                try:
                    word, value = ours.recv()
                except EOFError:
                    child.join(5)
                    return Outcome(error=f"the training process ended with code {child.exitcode}", lost=True)
                if word == "done":
                    return Outcome(archives=value)
                if word == "failed":
                    return Outcome(error=value)
                share, step = value
            if stop.is_set():
                return Outcome(error="the worker was stopped", lost=True)
            if not report(share, step):
                return Outcome(cancelled=True)
    finally:
        if child.is_alive():
            child.join(2 if not stop.is_set() else 0)
        if child.is_alive():
            child.kill()
        child.join()
        ours.close()


def train_in_child(task: Task, out: Connection) -> None:
    """The child's whole life: read the frozen set, train, hand the archives back. Never raises: it tells."""
    # torch's exporter keeps a cache; without this it would lie in the machine's temporary folder for ever
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(task.dataset.parent / "torch-cache"))
    try:
        from server import training

        world = training.Circumstances(
            dataset_digest=task.digest,
            dataset_rows=task.rows,
            now_ms=task.now_ms,
            versions=task.versions,
            champions=task.champions,
            because=task.because,
        )

        def progress(share: float, step: str) -> None:
            out.send(("progress", (share, step)))

        if task.kind == FORECAST:
            grid = datasets.read_signals(task.dataset, task.digest)
            plan = training.ForecastPlan(window=task.window, epochs=task.epochs, seed=task.seed)
            found = training.train_forecast(grid, plan, world, lambda share, step: progress(0.95 * share, step))
            try:
                found += training.train_monitors(
                    grid, training.MonitorPlan(seed=task.seed), world, lambda s, step: progress(0.95 + 0.05 * s, step)
                )
            except Refused as why:
                log.info("no monitors yet: %s", why)
        elif task.kind == LIFE:
            found = training.train_life(
                lives.read_lives(task.dataset, task.digest),
                training.LifePlan(
                    settings=task.life_settings,
                    conditions=task.life_conditions,
                    cap_h=task.life_cap_h,
                    renewed_by=task.life_renewed_by,
                    seed=task.seed,
                ),
                world,
                progress,
            )
        else:
            book = datasets.read_casebook(task.dataset, task.digest)
            found = training.train_recommend(
                book.cases, task.seed, world, progress, cards=book.cards, trials=book.trials
            )
        out.send(("done", [candidate.archive for candidate in found]))
    except Exception as error:
        log.exception("training failed")
        out.send(("failed", f"{type(error).__name__}: {error}"))
    finally:
        out.close()


@dataclass(frozen=True)
class RegistryShelf:
    """The server's own registry and rollouts."""

    artifacts: Path

    def next_version(self, session: Session, slot: str) -> int:
        from server import registry

        return registry.next_version(session, slot)

    def champion_archive(self, session: Session, slot: str) -> bytes | None:
        from server import registry

        model = registry.champion(session, slot)
        return None if model is None else (self.artifacts / model.path).read_bytes()

    def register(
        self, session: Session, archive: bytes, passport: Passport, dataset: str, because: str, now_ms: int
    ) -> Model:
        from server import catalogues, registry

        if passport.writer is not None:
            catalogues.keep_those_of(unpack(archive).texts, self.artifacts)
        return registry.register(session, archive, passport, self.artifacts, dataset, because, now_ms)

    def roll_out(self, session: Session, model: Model, role: Role, because: str, now_ms: int) -> None:
        from server import rollouts

        rollouts.start(session, model, role, _concerned(session, model), because, now_ms)


def _concerned(session: Session, model: Model) -> list[str] | None:
    """The gateways that tell of a monitor's machine; None: all of them, for every other model."""
    if not model.slot.startswith(MONITOR):
        return None
    machines = {machine for machine, _ in model.passport["series"]}
    told = select(SignalBlockRow.gateway).where(SignalBlockRow.machine.in_(machines)).distinct()
    return list(session.scalars(told))


def _forecast_due(session: Session, plan: Plan) -> tuple[str, dict[str, Any]] | None:
    buckets = shared_buckets(session, plan.step_ms)
    last = _last_job(session, FORECAST)
    arguments = {"buckets": buckets}
    if last is None:
        return (f"first training on {buckets} buckets", arguments) if buckets >= plan.first_after_buckets else None
    more = buckets - int(last.arguments.get("buckets", 0))
    if more < plan.retrain_after_buckets:
        return None
    return f"{more} buckets since {_since(session, FORECAST)}", arguments


def shared_buckets(session: Session, step_ms: int) -> int:
    """Longest stretch of history that any signal has shared, in buckets of the training grid."""
    span = func.max(SignalBlockRow.start_ms) - func.min(SignalBlockRow.start_ms)
    longest = session.execute(
        select(
            SignalBlockRow.gateway,
            SignalBlockRow.machine,
            SignalBlockRow.signal,
            func.min(SignalBlockRow.start_ms),
        )
        .group_by(SignalBlockRow.gateway, SignalBlockRow.machine, SignalBlockRow.signal)
        .order_by(span.desc())
        .limit(1)
    ).first()
    if longest is None:
        return 0
    gateway, machine, signal, first_ms = longest
    newest = session.scalars(
        select(SignalBlockRow)
        .where(
            SignalBlockRow.gateway == gateway,
            SignalBlockRow.machine == machine,
            SignalBlockRow.signal == signal,
        )
        .order_by(SignalBlockRow.start_ms.desc())
        .limit(1)
    ).one()
    return int((newest.start_ms + newest.step_ms * len(newest.values) - first_ms) // step_ms)


def _recommend_due(session: Session, plan: Plan) -> tuple[str, dict[str, Any]] | None:
    orders = session.scalar(select(func.count()).select_from(WorkOrderRow)) or 0
    last = _last_job(session, RECOMMEND)
    newest = session.scalar(select(func.max(FeedbackRow.id))) or 0
    arguments = {"orders": orders, "feedback_id": newest}
    if last is None:
        return (
            (f"first training on {orders} work orders", arguments)
            if orders >= plan.first_recommend_after_orders
            else None
        )
    seen = int(last.arguments.get("feedback_id", 0))
    verdicts = Counter(
        session.scalars(
            select(FeedbackRow.verdict).where(
                FeedbackRow.id > seen, FeedbackRow.target_kind != "", FeedbackRow.verdict.in_(JUDGED)
            )
        )
    )
    if verdicts.total() < plan.retrain_after_feedback:
        return None
    parts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ("rejected", "corrected") if verdicts[verdict])
    return f"{verdicts.total()} answers since {_since(session, RECOMMEND)}" + (
        f" ({parts})" if parts else ""
    ), arguments


def _life_due(session: Session, plan: Plan) -> tuple[str, dict[str, Any]] | None:
    """Once when the folder holds recorded lives, and again whenever its files change."""
    if not plan.lives:
        return None
    files, last = lives.fingerprint(Path(plan.lives)), _last_job(session, LIFE)
    if not files or (last is not None and last.arguments.get("files") == files):
        return None
    because = "first training on recorded lives" if last is None else "the recorded lives have changed"
    return because, {"files": files}


def _last_job(session: Session, kind: str) -> Job | None:
    """The last automatic job that ended, however it ended: a failure waits for new data, too."""
    ended = select(Job).where(Job.kind == kind, Job.status.not_in(LIVE)).order_by(Job.id.desc())
    return next((job for job in session.scalars(ended) if job.arguments), None)


def _since(session: Session, kind: str) -> str:
    version = session.scalar(select(func.max(Model.version)).where(Model.slot.in_(SLOTS[kind])))
    return f"v{version}" if version else "the last attempt"


def _prepare(
    database: Database, artifacts: Path, plan: Plan, shelf: Shelf, kind: str, because: str, now_ms: int
) -> tuple[Task, datasets.Snapshot]:
    if kind not in SLOTS:
        raise ValueError(f"unknown kind of job {kind!r}: use one of {', '.join(SLOTS)}")
    with database.begin() as session:
        grid = datasets.collect_signals(session, plan.step_ms) if kind == FORECAST else None
        machines = sorted({machine for machine, _ in grid.series}) if grid is not None else []
        slots = [*SLOTS[kind], *(f"{MONITOR}.{machine}" for machine in machines)]
        versions = {slot: shelf.next_version(session, slot) for slot in slots}
        archives = {slot: shelf.champion_archive(session, slot) for slot in slots}
        book = datasets.collect_casebook(session) if kind == RECOMMEND else datasets.CaseBook()
    if grid is not None:
        snapshot = datasets.freeze_signals(grid, artifacts)
    elif kind == LIFE:
        if not plan.lives:
            raise ValueError("no folder of recorded lives: set [training] lives")
        snapshot = lives.freeze_lives(lives.read_folder(Path(plan.lives), plan.step_ms), artifacts)
    else:
        snapshot = datasets.freeze_casebook(book, artifacts)
    window = WindowSpec(
        step_ms=plan.step_ms, length=plan.window_length, horizon=plan.horizon_steps, season=plan.season_steps
    )
    task = Task(
        kind=kind,
        dataset=artifacts / snapshot.path,
        digest=snapshot.digest,
        rows=snapshot.rows,
        window=window,
        epochs=plan.lstm_epochs,
        seed=plan.seed,
        versions=versions,
        champions={slot: archive for slot, archive in archives.items() if archive is not None},
        because=because,
        now_ms=now_ms,
        life_settings=plan.life_settings,
        life_conditions=plan.life_conditions,
        life_cap_h=plan.life_cap_h,
        life_renewed_by=plan.life_renewed_by,
    )
    return task, snapshot


def _report(database: Database, job_id: int, share: float, step: str, now_ms: int) -> bool:
    """Renews the lease and shows progress. False: the job is no longer ours to run."""
    with database.begin() as session:
        job = session.get(Job, job_id)
        if job is None or job.status != "running":
            return False
        job.progress, job.step, job.lease_ms = share, step, now_ms + LEASE_MS
        return True


def _finish(
    database: Database,
    shelf: Shelf,
    job_id: int,
    snapshot: datasets.Snapshot | None,
    outcome: Outcome,
    now_ms: int,
) -> None:
    """Registers every bundle, refused ones as well, starts what may run, and closes the job: all or
    nothing."""
    from protocol.bundles import unpack

    with database.begin() as session:
        job = session.get(Job, job_id)
        if job is None or job.status != "running":
            return  # cancelled while it ran: what was trained is thrown away
        if outcome.cancelled:
            job.status, job.step, job.finished_ms = "cancelled", "cancelled", now_ms
            return
        if outcome.lost and job.attempts < MOST_ATTEMPTS:
            job.status, job.step, job.lease_ms = "waiting", f"to be tried again: {outcome.error}", 0
            return
        if outcome.error or snapshot is None:
            job.status, job.step, job.finished_ms = "failed", outcome.error, now_ms
            job.result = {"error": outcome.error}
            return
        models: list[dict[str, Any]] = []
        for archive in outcome.archives:
            passport = unpack(archive).passport
            model = shelf.register(session, archive, passport, snapshot.digest, job.because, now_ms)
            role = Role.SERVING if passport.eligible else Role.SHADOW
            if passport.eligible or passport.slot in SLOTS[FORECAST]:  # a forecaster may also run as a shadow
                shelf.roll_out(session, model, role, job.because, now_ms)
            told = {"slot": passport.slot, "version": passport.version, "eligible": passport.eligible}
            models.append({**told, "verdict": passport.verdict, "role": role.value})
            log.info("%s v%d: %s", passport.slot, passport.version, passport.verdict)
        job.status, job.progress, job.step, job.finished_ms = "done", 1.0, "done", now_ms
        job.result = {"dataset": snapshot.digest, "models": models}
