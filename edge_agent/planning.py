"""What the plant has ordered becomes a plan, around the maintenance that its machines' lives ask for; a machine that drops
out has its plan repaired, not thrown away.

A search takes seconds, so it runs on a thread of its own, one at a time; what was ordered is on disk before it counts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edge_agent.config import ScheduleSettings
from edge_agent.skills.schedule import repair, schedule
from edge_agent.updates import write_durably
from protocol.covariates import KnownInput, from_schedule
from protocol.errors import Reason, Refused
from protocol.feedback import Feedback
from protocol.maintenance_windows import by_life
from protocol.names import stable_id
from protocol.reports import RemainingLife
from protocol.schedules import Maintenance, Schedule, Shop
from protocol.shop_check import critical_path, problems
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
LOOK_AHEAD_MS = 24 * 3_600_000
"""How far beyond a plan's start a failure is still its business."""
MOVED_MS = 3_600_000
"""A window that closes earlier by less asks for no new plan."""


class Ordered(msgspec.Struct):
    """What is kept on disk: the orders as they were told, the plan that stands, what an accepted one told of the future."""

    shop: Shop | None = None
    plan: Schedule | None = None
    known: list[KnownInput] = []


@dataclass
class Task:
    """One search: what it is asked, and what came of it."""

    shop: Shop
    before: Schedule | None
    now_ms: int
    made: Schedule | None = None
    refused: str = ""
    thread: threading.Thread | None = field(default=None, repr=False)


class Planning:
    """Owner of plan.json. `note` counts; `threads` False makes plans at once, for tests."""

    def __init__(
        self,
        path: Path,
        settings: ScheduleSettings,
        note: Callable[[str], None] = lambda _what: None,
        *,
        threads: bool = True,
    ) -> None:
        self._path, self._settings, self._note, self._threads = path, settings, note, threads
        self._kept = _restored(path, note)
        self._windows: dict[str, Maintenance] = {}
        self._task: Task | None = None
        self._due = False

    @property
    def plan(self) -> Schedule | None:
        """The plan that stands."""
        return self._kept.plan

    def hear(self, shop: Shop) -> None:
        """Takes the planner's document; the same again changes nothing. Raises Refused, naming what is wrong, and the orders
        from before stand."""
        if shop == self._kept.shop:
            return
        wrong = problems(shop)
        if wrong:
            raise Refused(Reason.WRONG_TYPE, f"production orders: {'; '.join(wrong[:5])}")
        self._kept.shop = shop
        self._due = True
        self._save()

    def look(self, now_ms: int, lives: Iterable[RemainingLife]) -> Schedule | None:
        """Begins a search if orders, closed times or maintenance windows changed; hands over a plan once it is made."""
        shop = self._kept.shop
        if shop is None:
            return None
        self._look_at_lives(shop, now_ms, lives)
        if self._task is None and self._due and now_ms < _over_ms(shop):
            self._due = False
            self._begin(shop, now_ms)
        return self._finished()

    def answered(self, feedback: Feedback) -> list[KnownInput]:
        """recommend -> forecast: what an accepted plan tells of the machines' future, and what it takes back of the one
        before; empty for an answer to something else."""
        plan = self._kept.plan
        if plan is None or feedback.target != plan.id:
            return []
        told = from_schedule(feedback, plan)
        if not told:
            return []
        gone = [
            msgspec.structs.replace(known, known_ms=feedback.time_ms, withdrawn=True)
            for known in self._kept.known
            if known.end_ms > plan.issued_ms
        ]
        self._kept.known = told
        self._save()
        return [*gone, *told]

    def _look_at_lives(self, shop: Shop, now_ms: int, lives: Iterable[RemainingLife]) -> None:
        machines = {choice.machine for job in shop.jobs for step in job.operations for choice in step.choices}
        found: dict[str, Maintenance] = {}
        for life in lives:
            if life.machine in machines:
                window = by_life(
                    life,
                    duration_ms=self._settings.upkeep_s * 1000,
                    from_ms=max(now_ms, shop.start_ms),
                    until_ms=shop.start_ms + LOOK_AHEAD_MS,
                    p_allowed=self._settings.allowed_risk,
                )
                if window is not None:
                    found[life.machine] = window
        for machine in self._begun(shop, now_ms) & self._windows.keys():
            found.setdefault(machine, self._windows[machine])  # what was begun stays in its plan
        if found.keys() != self._windows.keys() or self._too_late(found):
            self._due = True
        self._windows = found

    def _begun(self, shop: Shop, now_ms: int) -> set[str]:
        """Machines whose maintenance has begun in the plan of these orders."""
        plan = self._kept.plan
        if plan is None or not _same_jobs(plan, shop):
            return set()
        return {m.machine for m in plan.maintenance if m.start_ms <= now_ms}

    def _too_late(self, windows: dict[str, Maintenance]) -> bool:
        """Whether the plan that stands begins a maintenance so late that it no longer helps."""
        placed = {} if self._kept.plan is None else {m.machine: m.start_ms for m in self._kept.plan.maintenance}
        return any(m in placed and placed[m] > window.latest_ms + MOVED_MS for m, window in windows.items())

    def _begin(self, shop: Shop, now_ms: int) -> None:
        known = {m.id for m in shop.maintenance}
        windows = [m for m in self._windows.values() if m.id not in known]
        asked = msgspec.structs.replace(shop, maintenance=[*shop.maintenance, *windows])
        plan = self._kept.plan
        runs = plan is not None and _same_jobs(plan, shop) and now_ms > plan.start_ms
        self._task = Task(asked, plan if runs else None, now_ms)
        if not self._threads:
            self._search(self._task)
            return
        self._task.thread = threading.Thread(target=self._search, args=(self._task,), name="planning", daemon=True)
        self._task.thread.start()

    def _search(self, task: Task) -> None:
        try:
            if task.before is None:
                task.made = schedule(task.shop, task.now_ms, self._settings.budget_s)
            else:
                task.made = repair(task.shop, task.before, task.shop.closed, task.now_ms, self._settings.budget_s)
        except Refused as why:
            task.refused = why.detail

    def _finished(self) -> Schedule | None:
        task = self._task
        if task is None or (task.thread is not None and task.thread.is_alive()):
            return None
        self._task = None
        if task.made is None:
            self._note("schedules.impossible")
            log.warning("no plan: %s", task.refused)
            return None
        plan = msgspec.structs.replace(
            task.made,
            id=stable_id("schedule", msgspec.json.encode(task.shop).hex(), task.now_ms),
            issued_ms=task.now_ms,
            critical=critical_path(task.shop, task.made)[:200],
        )
        self._kept.plan = plan
        self._save()
        self._note("schedules.repaired" if plan.repairs else "schedules.made")
        return plan

    def _save(self) -> None:
        try:
            write_durably(self._path, msgspec.json.encode(self._kept))
        except OSError as error:
            self._note("not_saved.plan")
            log.warning("%s was not saved: %s", self._path, error)


def _restored(path: Path, note: Callable[[str], None]) -> Ordered:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ordered)
    except FileNotFoundError:
        return Ordered()
    except (*UNREADABLE, OSError) as error:
        note("refused.plan")
        log.warning("%s is not readable, planning begins anew: %s", path, error)
        return Ordered()


def _same_jobs(plan: Schedule, shop: Shop) -> bool:
    """Whether a plan is one of these orders."""
    return {placed.job for placed in plan.placed} == {job.job for job in shop.jobs}


def _over_ms(shop: Shop) -> int:
    """When a document is history: two days after its start, or at its last due date."""
    return max([shop.start_ms + 2 * LOOK_AHEAD_MS, *(job.due_ms or 0 for job in shop.jobs)])
