"""The queue of trainings: who may run the next one. A job's lease is renewed while its training lives; a worker that dies
leaves a lease that runs out, and the job is taken up again, three times at most."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.database import Job

LIVE = ("waiting", "running")
MOST_ATTEMPTS = 3
LEASE_MS = 60_000


def add(session: Session, kind: str, because: str, arguments: dict[str, Any], now_ms: int) -> Job | None:
    """A waiting job; None if one of its kind is alive."""
    alive = session.scalar(select(func.count()).select_from(Job).where(Job.kind == kind, Job.status.in_(LIVE)))
    if alive:
        return None
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
    session.flush()
    return job


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


def last(session: Session, kind: str) -> Job | None:
    """The last automatic job that ended, however it ended: a failure waits for new data, too."""
    ended = select(Job).where(Job.kind == kind, Job.status.not_in(LIVE)).order_by(Job.id.desc())
    return next((job for job in session.scalars(ended) if job.arguments), None)
