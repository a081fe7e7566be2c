"""A running schedule when a machine drops out or an operation takes longer: what has begun stays where it is, the rest keeps
its machine and its order and is shifted, in milliseconds; then it is improved, each change paid for.

`Layout.fixed` is what has begun. Few changes: an operation counts as moved when it is on another machine, or outside the
longest part of its machine's sequence that kept its order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from edge_agent.skills.schedule.dispatch import Pass
from edge_agent.skills.schedule.layout import Layout
from edge_agent.skills.schedule.timeline import Timeline
from protocol.schedules import Closed, Placed, Schedule, Shop

CHANGE_COSTS = 0.0005
"""What moving one operation costs, as a share of the plan's length."""
WORTH_LEAVING = 0.5
"""An operation leaves a closed machine when it ends earlier elsewhere by more than this share of its duration."""


def begun(shop: Shop, before: Schedule, closed: list[Closed], now_ms: int) -> Shop:
    """The shop as it is now: also closed there, and fixed what has begun. A set-up that has begun holds its operation, unless
    the machine just dropped out. An operation that still runs lasts as long as the shop now says."""
    lasting = {
        (job.job, i, c.machine): c.duration_ms
        for job in shop.jobs
        for i, operation in enumerate(job.operations)
        for c in operation.choices
    }
    fixed: dict[tuple[str, int], Placed] = {(p.job, p.operation): p for p in shop.fixed}
    for p in before.placed:
        key = (p.job, p.operation)
        duration = lasting.get((*key, p.machine))
        if key in fixed or duration is None:
            continue
        if p.start_ms < now_ms or p.end_ms <= now_ms:
            still_runs = p.end_ms > now_ms
            end = max(p.start_ms + duration, now_ms) if still_runs else p.end_ms
            fixed[key] = msgspec.structs.replace(p, end_ms=end)
        elif p.start_ms - p.setup_ms < now_ms and not _stopped(p, closed):
            fixed[key] = msgspec.structs.replace(p, end_ms=p.start_ms + duration)
    return msgspec.structs.replace(shop, closed=[*shop.closed, *closed], fixed=list(fixed.values()))


def _stopped(placed: Placed, closed: list[Closed]) -> bool:
    begins = placed.start_ms - placed.setup_ms
    return any(c.machine == placed.machine and c.start_ms < placed.end_ms and c.end_ms > begins for c in closed)


def upkeep_begun(before: Schedule, shop: Shop, now_ms: int) -> dict[str, tuple[int, int]]:
    """Maintenance that has begun, in ms after the shop's start."""
    known = {m.id for m in shop.maintenance}
    return {
        m.id: (m.start_ms - shop.start_ms, m.end_ms - shop.start_ms)
        for m in before.maintenance
        if m.id in known and m.start_ms < now_ms
    }


@dataclass(frozen=True, slots=True)
class Earlier:
    """The plan that is mended: per element its start (None: new since then), and the machine."""

    start: list[int | None]
    machine: list[int]


def earlier(line: Timeline, before: Schedule) -> Earlier:
    """The earlier plan in the numbers of the layout."""
    layout, zero = line.layout, line.layout.shop.start_ms
    number = {name: k for k, name in enumerate(layout.machines)}
    jobs = {job.job: j for j, job in enumerate(layout.shop.jobs)}
    start: list[int | None] = [None] * line.elements
    machine = [options[0][0] for options in layout.choices] + line.upkeep_on
    for p in before.placed:
        j, k = jobs.get(p.job), number.get(p.machine)
        if j is None or k is None or p.operation > layout.last_of(j) - layout.first[j]:
            continue
        x = layout.first[j] + p.operation
        if k in line.durations[x] or x in layout.fixed:
            start[x], machine[x] = p.start_ms - zero, k
    for i, m in enumerate(line.upkeep):
        start[line.n + i] = next((p.start_ms - zero for p in before.maintenance if p.id == m.id), None)
    return Earlier(start, machine)


def order_of(line: Timeline, plan: Earlier) -> list[int]:
    """What is still to be put, in the earlier order; new operations come behind, as early as their job allows."""
    layout = line.layout
    last = max([s for s in plan.start if s is not None], default=0)
    key = [last if known is None else known for known in plan.start]
    rank = [*layout.ranks(), -1]
    for j in layout.turn:
        for x in range(layout.first[j], layout.last_of(j) + 1):
            before = layout.waits.get(x, ()) if line.prior[x] < 0 else (line.prior[x],)
            key[x] = max([key[x], *(key[y] for y in before)])
    fixed_upkeep = {line.n + i for i, m in enumerate(line.upkeep) if m.id in line.done}
    todo = [x for x in range(line.elements) if x not in layout.fixed and x not in fixed_upkeep]
    return sorted(todo, key=lambda x: (key[x], rank[layout.job_of[x] if x < line.n else -1], x))


def shifted(line: Timeline, order: list[int], plan: Earlier, closed: set[int]) -> Pass:
    """Every operation on its machine in its order, later where it must be. Operations of the machines in `closed` go
    elsewhere where that is much earlier."""
    line.reset()
    for x in order:
        line.put(x, _refuge(line, x, plan.machine[x], closed))
    machine = [k if k >= 0 else plan.machine[x] for x, k in enumerate(line.machine)]
    return Pass(line.cost(), line.trail[:], machine)


def _refuge(line: Timeline, x: int, machine: int, closed: set[int]) -> int:
    if x >= line.n or machine not in closed or len(line.layout.choices[x]) < 2:
        return machine
    duration = line.durations[x][machine]
    stays = line.fit(x, machine)[0] + duration
    end, other = min((line.fit(x, k)[0] + d, k) for k, d in line.layout.choices[x])
    return other if stays - end > WORTH_LEAVING * duration else machine


def counter(layout: Layout, plan: Earlier) -> Callable[[Timeline], int]:
    """Counts the operations that moved against the earlier plan."""
    rank = [-1 if s is None else s for s in plan.start]

    def moved(line: Timeline) -> int:
        tails: list[list[tuple[int, int]]] = [[] for _ in layout.machines]
        kept = known = 0
        for x in line.trail:
            if x >= line.n or rank[x] < 0:
                continue
            known += 1
            k = line.machine[x]
            if k != plan.machine[x]:
                continue
            tail, place = tails[k], (rank[x], x)
            at = bisect_left(tail, place)
            if at == len(tail):
                tail.append(place)
            else:
                tail[at] = place
        kept = sum(map(len, tails))
        return known - kept

    return moved
