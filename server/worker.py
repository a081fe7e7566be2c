"""The training worker: sees when there is enough to learn, leases one job at a time, trains in a child
process that can be killed, and starts the rollout of what passed the gate."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol.bundles import Passport, unpack
from protocol.errors import MillwrightError
from protocol.twin import Role
from protocol.windows import WindowSpec
from server import datasets, jobs
from server.database import Database, Job, Model, SignalBlockRow
from server.kinds import FORECAST, KINDS, MONITOR, Plan, Task, lstm_plan

if TYPE_CHECKING:
    from server.config import Settings

log = logging.getLogger(__name__)


class Shelf(Protocol):
    """Where finished bundles go and where the serving ones come from."""

    def next_version(self, session: Session, slot: str) -> int: ...
    def champion_archive(self, session: Session, slot: str) -> bytes | None: ...
    def register(
        self, session: Session, archive: bytes, passport: Passport, dataset: str, because: str, now_ms: int
    ) -> Model: ...
    def roll_out(self, session: Session, model: Model, role: Role, because: str, now_ms: int) -> None: ...


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
        leased = jobs.lease(session, clock())
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
    made: list[Job] = []
    for name, kind in KINDS.items():
        reason = kind.due(session, plan)
        job = jobs.add(session, name, *reason, now_ms) if reason is not None else None
        if job is not None:
            made.append(job)
            log.info("%s training is due: %s", name, job.because)
    return made


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

        found = KINDS[task.kind].train(task, world, progress)
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


def _prepare(
    database: Database, artifacts: Path, plan: Plan, shelf: Shelf, kind: str, because: str, now_ms: int
) -> tuple[Task, datasets.Snapshot]:
    if kind not in KINDS:
        raise ValueError(f"unknown kind of job {kind!r}: use one of {', '.join(KINDS)}")
    snapshot, beside = KINDS[kind].freeze(database, plan, artifacts)
    slots = [*KINDS[kind].slots, *beside]
    with database.begin() as session:
        versions = {slot: shelf.next_version(session, slot) for slot in slots}
        archives = {slot: shelf.champion_archive(session, slot) for slot in slots}
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
        life_teacher=plan.life_teacher,
        life_renewed_by=plan.life_renewed_by,
        writer_steps=plan.writer_steps,
        writer_layers=plan.writer_layers,
        writer_width=plan.writer_width,
        writer_teacher=plan.writer_teacher,
        writer_prune=plan.writer_prune,
        quantize=plan.quantize,
        lstm=lstm_plan(plan),
        targets=plan.targets,
    )
    return task, snapshot


def _report(database: Database, job_id: int, share: float, step: str, now_ms: int) -> bool:
    """Renews the lease and shows progress. False: the job is no longer ours to run."""
    with database.begin() as session:
        job = session.get(Job, job_id)
        if job is None or job.status != "running":
            return False
        job.progress, job.step, job.lease_ms = share, step, now_ms + jobs.LEASE_MS
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
        if outcome.lost and job.attempts < jobs.MOST_ATTEMPTS:
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
            if passport.eligible or passport.slot in KINDS[FORECAST].slots:  # a forecaster may also run as a shadow
                shelf.roll_out(session, model, role, job.because, now_ms)
            told = {"slot": passport.slot, "version": passport.version, "eligible": passport.eligible}
            models.append({**told, "verdict": passport.verdict, "role": role.value})
            log.info("%s v%d: %s", passport.slot, passport.version, passport.verdict)
        job.status, job.progress, job.step, job.finished_ms = "done", 1.0, "done", now_ms
        job.result = {"dataset": snapshot.digest, "models": models}
