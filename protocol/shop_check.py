"""The independent judge of schedules: it shares no code with any solver, so what passes here was not merely believed.

- A machine does one thing at a time; operations are not interrupted and do not overlap closed times of their machine.
- A step begins at or after the end of the step before it, the release of its job, the end of the jobs in `after` and the
  shop's start; what is fixed is excepted and stays exactly where it is.
- Where the family changes on a machine, the set-up lies directly before the step, outside closed times and other work.
- Maintenance begins inside its window, exactly once; it may lie in closed times and leaves the set-up as it was.
- The objective: (end - start) + sum of weight x max(0, completion - due), in ms."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from protocol.observations import LAST_MS
from protocol.schedules import Maintenance, Operation, Placed, PlacedMaintenance, Schedule, Shop, ShopJob, Waits

Span = tuple[int, int]
_T = TypeVar("_T")


def problems(shop: Shop) -> list[str]:
    """Why no schedule can exist, or why the input makes no sense; each names its constraint. Empty: nothing was found, which
    proves no feasibility."""
    found = [*_odd_jobs(shop), *_odd_setups(shop), *_odd_closed(shop)]
    if found:
        return found
    found = [*_cycle(shop), *_odd_fixed(shop), *_odd_maintenance(shop)]
    return found or [*_no_room(shop)]


def violations(shop: Shop, schedule: Schedule) -> list[str]:
    """Every rule that a schedule breaks, in words with times. Empty: it is feasible and its figures are right."""
    found = list(_not_the_operations(shop, schedule.placed))
    if found:
        return found
    jobs = {job.job: job for job in shop.jobs}
    found += _steps(shop, jobs, schedule.placed)
    found += _machines(shop, jobs, schedule)
    found += _windows(shop, schedule.maintenance)
    return found + list(_wrong_figures(shop, schedule))


def figures(shop: Shop, placed: Sequence[Placed]) -> tuple[int, float, list[str], float]:
    """When the last step ends, weighted lateness in ms, the late jobs in the shop's order, and the objective."""
    done: dict[str, int] = {}
    for p in placed:
        done[p.job] = max(done.get(p.job, p.end_ms), p.end_ms)
    end = max(done.values(), default=shop.start_ms)
    late = [(j, done[j.job] - j.due_ms) for j in shop.jobs if j.due_ms is not None and done.get(j.job, 0) > j.due_ms]
    tardiness = float(sum(j.weight * by for j, by in late))
    return end, tardiness, [j.job for j, _ in late], (end - shop.start_ms) + tardiness


def lower_bound(shop: Shop) -> int:
    """A time in ms before which no schedule ends: the longest job with what must precede it, and for each machine the work
    that only it can do, between its earliest begin and what must follow."""
    heads, tails, ends = _heads_and_tails(shop)
    found = [shop.start_ms, *ends.values()]
    alone: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    everywhere, machines = 0, set()
    for job in shop.jobs:
        for k, operation in enumerate(job.operations):
            took = quickest(operation)
            everywhere += took
            names = {c.machine for c in operation.choices}
            machines |= names
            if len(names) == 1:
                alone[names.pop()].append((heads[job.job][k], took, tails[job.job][k]))
    if shop.fixed:  # what is fixed may begin before the shop's start, so machines' loads prove nothing
        return max([*found, *(p.end_ms for p in shop.fixed)])
    found += [_one_machine(steps) for steps in alone.values()]
    if machines:
        found.append(shop.start_ms + -(-everywhere // len(machines)))
    return max(found)


def critical_path(shop: Shop, schedule: Schedule) -> list[Waits]:
    """From the step that ends last back to the start, last first: each link with why it could not begin earlier."""
    table = _Links(shop, schedule)
    if not schedule.placed:
        return []
    at: _Item | None = max(table.items_of_operations(), key=lambda i: (i.end, i.start, i.machine))
    path: list[Waits] = []
    seen: set[int] = set()
    while at is not None and id(at) not in seen and len(path) < 2000:
        seen.add(id(at))
        because, before = table.cause(at)
        path.append(
            Waits(
                job=at.job,
                operation=at.operation,
                maintenance=at.maintenance,
                machine=at.machine,
                start_ms=at.start,
                end_ms=at.end,
                because=because,
            )
        )
        at = before
    return path


def quickest(operation: Operation) -> int:
    """The shortest time that a step takes anywhere, in ms."""
    return min(c.duration_ms for c in operation.choices)


def risk_at(maintenance: Maintenance, time_ms: int) -> float:
    """The chance of failure by a time: linear between the given ones, constant outside them; 0 if none are given."""
    known = sorted(zip(maintenance.risk_at_ms, maintenance.risk, strict=False))
    if not known:
        return 0.0
    for (t0, r0), (t1, r1) in itertools.pairwise(known):
        if t0 <= time_ms < t1:
            return min(max(r0 + (r1 - r0) * (time_ms - t0) / (t1 - t0), 0.0), 1.0)
    return min(max(known[0][1] if time_ms < known[0][0] else known[-1][1], 0.0), 1.0)


# what makes no sense


def _odd_jobs(shop: Shop) -> Iterator[str]:
    names = {job.job for job in shop.jobs}
    for name in _twice(job.job for job in shop.jobs):
        yield f"job {name!r} is given twice: give each job its own name"
    for job in shop.jobs:
        if not math.isfinite(job.weight):
            yield f"job {job.job!r}: weight {job.weight} is no number"
        for name in job.after:
            if name not in names:
                yield f"job {job.job!r} comes after job {name!r}, which is not in the shop: add it or take it out of `after`"
        for k, operation in enumerate(job.operations):
            for machine in _twice(c.machine for c in operation.choices):
                yield f"operation {k} of job {job.job!r} names machine {machine!r} twice: one duration for each machine"


def _odd_setups(shop: Shop) -> Iterator[str]:
    for machine, before, after in _twice((s.machine, s.before, s.after) for s in shop.setups):
        yield f"set-up {before!r} -> {after!r} on {machine!r} is given twice: one duration for each change"


def _odd_closed(shop: Shop) -> Iterator[str]:
    for c in shop.closed:
        if c.end_ms < c.start_ms:
            yield f"machine {c.machine!r} is closed from {c.start_ms} to {c.end_ms}: the end is before the start"


def _cycle(shop: Shop) -> Iterator[str]:
    after = {job.job: list(job.after) for job in shop.jobs}
    state: dict[str, int] = {}
    for first in after:
        trail = [(first, iter(after[first]))] if not state.get(first) else []
        state.setdefault(first, 1)
        while trail:
            name, rest = trail[-1]
            step = next(rest, None)
            if step is None:
                state[name] = 2
                trail.pop()
            elif state.get(step) == 1:
                ring = [n for n, _ in trail]
                ring = [*ring[ring.index(step) :], step]
                yield f"cyclic routing: {' after '.join(repr(n) for n in ring)}; no job can be the first: cut one of these"
                return
            elif not state.get(step):
                state[step] = 1
                trail.append((step, iter(after[step])))


def _odd_fixed(shop: Shop) -> Iterator[str]:
    jobs = {job.job: job for job in shop.jobs}
    for name, k in _twice((p.job, p.operation) for p in shop.fixed):
        yield f"operation {k} of job {name!r} is fixed twice"
    known = []
    for p in shop.fixed:
        if p.job not in jobs or p.operation >= len(jobs[p.job].operations):
            yield f"fixed operation {p.operation} of job {p.job!r} is not part of the shop: take it out of `fixed`"
        elif p.end_ms < p.start_ms:
            yield f"fixed operation {p.operation} of job {p.job!r} ends before it starts"
        else:
            known.append(p)
    for machine, a, b in _clashes((p.machine, p.start_ms - p.setup_ms, p.end_ms, f"{_said(p)}") for p in known):
        yield f"fixed work on machine {machine!r} overlaps: {a} and {b}"
    yield from _fixed_too_early(shop, known)


def _fixed_too_early(shop: Shop, known: list[Placed]) -> Iterator[str]:
    at = {(p.job, p.operation): p for p in known}
    for job in shop.jobs:
        ready = max(job.release_ms, shop.start_ms)
        moved = False
        for k, operation in enumerate(job.operations):
            fixed = at.get((job.job, k))
            if fixed is None:
                ready, moved = ready + quickest(operation), True
                continue
            if (moved or (k and (job.job, k - 1) in at)) and fixed.start_ms < ready:
                yield (
                    f"fixed {_said(fixed)} begins at {fixed.start_ms}, but the step before it cannot end before {ready}: "
                    "free it or what precedes it"
                )
            ready, moved = fixed.end_ms, False


def _odd_maintenance(shop: Shop) -> Iterator[str]:
    for name in _twice(m.id for m in shop.maintenance):
        yield f"maintenance {name!r} is given twice"
    by_machine: dict[str, list[Maintenance]] = defaultdict(list)
    for m in shop.maintenance:
        if m.latest_ms < m.earliest_ms:
            yield f"maintenance {m.id!r}: latest_ms {m.latest_ms} is before earliest_ms {m.earliest_ms}"
            continue
        if m.latest_ms < shop.start_ms:
            yield f"maintenance {m.id!r} should have begun by {m.latest_ms}, before the shop starts at {shop.start_ms}"
            continue
        if len(m.risk) != len(m.risk_at_ms) or not all(0 <= r <= 1 for r in m.risk):
            yield f"maintenance {m.id!r}: `risk` needs a chance from 0 to 1 for each of `risk_at_ms`"
        taken = [(p.start_ms - p.setup_ms, p.end_ms) for p in shop.fixed if p.machine == m.machine]
        start = _first_gap(taken, max(m.earliest_ms, shop.start_ms), m.duration_ms)
        if start > m.latest_ms:
            yield (
                f"maintenance {m.id!r} on {m.machine!r} conflicts with fixed work: it must begin by {m.latest_ms}, the first "
                f"gap of {m.duration_ms} ms is at {start}"
            )
        by_machine[m.machine].append(m)
    for group in by_machine.values():
        yield from _crowded(shop, group)


def _crowded(shop: Shop, group: list[Maintenance]) -> Iterator[str]:
    """Maintenance of one machine that cannot be done one after the other: for every pair of window limits, the work that must
    lie between them."""
    limits = sorted({m.latest_ms + m.duration_ms for m in group})
    starts = sorted({max(m.earliest_ms, shop.start_ms) for m in group})
    for start in starts:
        for end in limits:
            inside = [m for m in group if m.earliest_ms >= start or start <= shop.start_ms]
            inside = [m for m in inside if m.latest_ms + m.duration_ms <= end]
            if sum(m.duration_ms for m in inside) > end - start:
                named = ", ".join(repr(m.id) for m in inside)
                yield f"maintenance {named} on {group[0].machine!r}: the window from {start} to {end} is shorter than needed"
                return


def _no_room(shop: Shop) -> Iterator[str]:
    """A step that no machine is ever open long enough for."""
    closed = _closed(shop)
    fixed = {(p.job, p.operation) for p in shop.fixed}
    heads, _, _ = _heads_and_tails(shop)
    for job in shop.jobs:
        for k, operation in enumerate(job.operations):
            if (job.job, k) in fixed:
                continue
            starts = [(_first_gap(closed[c.machine], heads[job.job][k], c.duration_ms), c) for c in operation.choices]
            if all(start + c.duration_ms > LAST_MS for start, c in starts):
                named = ", ".join(repr(c.machine) for _, c in starts)
                yield f"operation {k} of job {job.job!r}: machine {named} closed throughout: open it or name another one"


# what a schedule breaks


def _not_the_operations(shop: Shop, placed: Sequence[Placed]) -> Iterator[str]:
    wanted = {(job.job, k) for job in shop.jobs for k in range(len(job.operations))}
    given = [(p.job, p.operation) for p in placed]
    for name, k in sorted(_twice(given)):
        yield f"operation {k} of job {name!r} is placed twice"
    for name, k in sorted(wanted - set(given)):
        yield f"operation {k} of job {name!r} is not placed"
    for name, k in sorted(set(given) - wanted):
        yield f"operation {k} of job {name!r} is not part of the shop"


def _steps(shop: Shop, jobs: dict[str, ShopJob], placed: Sequence[Placed]) -> Iterator[str]:
    at = {(p.job, p.operation): p for p in placed}
    fixed = {(p.job, p.operation): p for p in shop.fixed}
    for p in placed:
        job, key = jobs[p.job], (p.job, p.operation)
        if key in fixed:
            if fixed[key] != p:
                yield f"{_said(p)} is fixed at {fixed[key].start_ms} on {fixed[key].machine!r} and was moved"
            continue
        durations = {c.machine: c.duration_ms for c in job.operations[p.operation].choices}
        if p.machine not in durations:
            yield f"{_said(p)} is on machine {p.machine!r}, which cannot do it"
        elif p.end_ms - p.start_ms != durations[p.machine]:
            yield f"{_said(p)} takes {p.end_ms - p.start_ms} ms, not {durations[p.machine]} ms"
        if p.start_ms - p.setup_ms < shop.start_ms:
            yield f"{_said(p)} begins before the shop's start {shop.start_ms}"
        if p.start_ms < job.release_ms:
            yield f"{_said(p)} begins at {p.start_ms}, before its release {job.release_ms}"
        yield from (
            f"{_said(p)} begins at {p.start_ms}, before job {name!r} is finished"
            for name in (job.after if p.operation == 0 else ())
            if at[(name, len(jobs[name].operations) - 1)].end_ms > p.start_ms
        )
    for p in placed:
        before = at.get((p.job, p.operation - 1))
        if before is not None and before.end_ms > p.start_ms:
            yield f"{_said(p)} begins at {p.start_ms}, before the step before it ends at {before.end_ms}"


def _machines(shop: Shop, jobs: dict[str, ShopJob], schedule: Schedule) -> Iterator[str]:
    rows = [(p.machine, p.start_ms - p.setup_ms, p.end_ms, _said(p)) for p in schedule.placed]
    rows += [(m.machine, m.start_ms, m.end_ms, f"maintenance {m.id!r}") for m in schedule.maintenance]
    for machine, a, b in _clashes(rows):
        yield f"machine {machine!r} does two things at a time: {a} and {b}"
    closed = _closed(shop)
    fixed = {(p.job, p.operation) for p in shop.fixed}
    for p in schedule.placed:
        if (p.job, p.operation) not in fixed:
            yield from (
                f"{_said(p)} on {p.machine!r} lies in the closed time from {start} to {end}"
                for start, end in closed[p.machine]
                if end > p.start_ms - p.setup_ms and start < p.end_ms
            )
    yield from _setups(shop, jobs, schedule.placed, fixed)


def _setups(
    shop: Shop, jobs: dict[str, ShopJob], placed: Sequence[Placed], fixed: set[tuple[str, int]]
) -> Iterator[str]:
    table = {(s.machine, s.before, s.after): s.duration_ms for s in shop.setups}
    family: dict[str, str] = defaultdict(str)
    planned: set[str] = set()
    for p in sorted(placed, key=_in_order):
        wants = jobs[p.job].operations[p.operation].family
        needed = _setup(table, p.machine, family[p.machine], wants)
        stays = (p.job, p.operation) in fixed
        if stays and p.machine in planned and p.setup_ms < needed:
            yield f"{_said(p)} is fixed with {p.setup_ms} ms of set-up; what is now before it needs {needed} ms"
        elif not stays and p.setup_ms != needed:
            yield f"{_said(p)} on {p.machine!r} has {p.setup_ms} ms of set-up from {family[p.machine]!r}, not {needed} ms"
        if wants:
            family[p.machine] = wants
            planned = planned - {p.machine} if stays else planned | {p.machine}


def _windows(shop: Shop, placed: Sequence[PlacedMaintenance]) -> Iterator[str]:
    wanted = {m.id: m for m in shop.maintenance}
    for name in _twice(m.id for m in placed):
        yield f"maintenance {name!r} is placed twice"
    for name in wanted.keys() - {m.id for m in placed}:
        yield f"maintenance {name!r} is not placed"
    for p in placed:
        m = wanted.get(p.id)
        if m is None:
            yield f"maintenance {p.id!r} is not part of the shop"
            continue
        if p.machine != m.machine:
            yield f"maintenance {p.id!r} is on machine {p.machine!r}, not {m.machine!r}"
        if not m.earliest_ms <= p.start_ms <= m.latest_ms or p.start_ms < shop.start_ms:
            yield f"maintenance {p.id!r} begins at {p.start_ms}, outside its window {m.earliest_ms} to {m.latest_ms}"
        if p.end_ms - p.start_ms != m.duration_ms:
            yield f"maintenance {p.id!r} takes {p.end_ms - p.start_ms} ms, not {m.duration_ms} ms"


def _wrong_figures(shop: Shop, schedule: Schedule) -> Iterator[str]:
    end, tardiness, late, _ = figures(shop, schedule.placed)
    if schedule.end_ms != end:
        yield f"end_ms {schedule.end_ms} is not the last end {end}"
    if schedule.start_ms != shop.start_ms:
        yield f"start_ms {schedule.start_ms} is not the shop's start {shop.start_ms}"
    if not math.isclose(schedule.tardiness_ms, tardiness, rel_tol=1e-6, abs_tol=1.0):
        yield f"tardiness_ms {schedule.tardiness_ms} is not {tardiness}"
    if sorted(schedule.late_jobs) != sorted(late):
        yield f"late_jobs {sorted(schedule.late_jobs)} are not {sorted(late)}"
    if schedule.bound_ms > end:
        yield f"bound_ms {schedule.bound_ms} is after the end {end}"
    keys = [(p.start_ms, p.machine, p.job, p.operation) for p in schedule.placed]
    if keys != sorted(keys):
        yield "placed is not sorted by (start, machine, job, operation)"


# shared by both


@dataclass(frozen=True, eq=False)
class _Item:
    """An operation or a maintenance on its machine; `begin` is its start less its set-up."""

    machine: str
    begin: int
    start: int
    end: int
    job: str = ""
    operation: int = 0
    maintenance: str = ""


class _Links:
    """Who waits for whom in a schedule."""

    def __init__(self, shop: Shop, schedule: Schedule) -> None:
        self._shop, self._jobs, self._closed = shop, {job.job: job for job in shop.jobs}, _closed(shop)
        self._fixed = {(p.job, p.operation) for p in shop.fixed}
        self._earliest = {m.id: m.earliest_ms for m in shop.maintenance}
        self._at = {
            (p.job, p.operation): _Item(p.machine, p.start_ms - p.setup_ms, p.start_ms, p.end_ms, p.job, p.operation)
            for p in schedule.placed
        }
        items = [*self._at.values()]
        items += [_Item(m.machine, m.start_ms, m.start_ms, m.end_ms, maintenance=m.id) for m in schedule.maintenance]
        self._before: dict[int, _Item] = {}
        last: dict[str, _Item] = {}
        for item in sorted(items, key=lambda i: (i.begin, i.end, i.job, i.operation)):
            if item.machine in last:
                self._before[id(item)] = last[item.machine]
            last[item.machine] = item

    def items_of_operations(self) -> list[_Item]:
        """One for each placed operation."""
        return list(self._at.values())

    def cause(self, item: _Item) -> tuple[str, _Item | None]:
        """Why it could not begin earlier, and what it waited for (None: nothing)."""
        if (item.job, item.operation) in self._fixed and not item.maintenance:
            return "start", None
        reasons = [*self._by_machine(item), *(() if item.maintenance else self._by_job(item))]
        time, why, before = max(reasons, key=lambda r: (r[0], r[2] is not None))
        if time == item.start:
            return why, before
        if any(end == item.begin for _, end in self._closed[item.machine]):
            return "closed", before
        return ("slack" if time < item.start else why), before

    def _by_machine(self, item: _Item) -> Iterator[tuple[int, str, _Item | None]]:
        setup, before = item.start - item.begin, self._before.get(id(item))
        yield self._shop.start_ms + setup, "setup" if setup else "start", None
        if item.maintenance:
            yield self._earliest.get(item.maintenance, 0), "release", None
        if before is not None:
            yield before.end + setup, "maintenance" if before.maintenance else "setup" if setup else "machine", before

    def _by_job(self, item: _Item) -> Iterator[tuple[int, str, _Item | None]]:
        job = self._jobs[item.job]
        if job.release_ms:
            yield job.release_ms, "release", None
        if item.operation:
            before = self._at[(item.job, item.operation - 1)]
            yield before.end, "job", before
            return
        for name in job.after:
            before = self._at[(name, len(self._jobs[name].operations) - 1)]
            yield before.end, "after", before


def _heads_and_tails(shop: Shop) -> tuple[dict[str, list[int]], dict[str, list[int]], dict[str, int]]:
    """By job: the earliest begin of each step, the least time behind each step until all that follows is done, and
    the earliest end of the job. Quickest durations; fixed steps as they are; a cyclic routing counts as none."""
    jobs = {job.job: job for job in shop.jobs}
    fixed = {(p.job, p.operation): p for p in shop.fixed}
    followers: dict[str, list[str]] = defaultdict(list)
    waits = {job.job: len(set(job.after)) for job in shop.jobs}
    for job in shop.jobs:
        for name in set(job.after):
            followers[name].append(job.job)
    order = [name for name, count in waits.items() if count == 0]
    for name in order:
        for follower in followers[name]:
            waits[follower] -= 1
            if waits[follower] == 0:
                order.append(follower)
    order += [name for name, count in waits.items() if count > 0]
    ends: dict[str, int] = {}
    heads: dict[str, list[int]] = {}
    for name in order:
        job = jobs[name]
        at = max([job.release_ms, shop.start_ms, *(ends.get(n, 0) for n in job.after)])
        heads[name] = []
        for k, operation in enumerate(job.operations):
            placed = fixed.get((name, k))
            at = at if placed is None else placed.start_ms
            heads[name].append(at)
            at = at + quickest(operation) if placed is None else placed.end_ms
        ends[name] = at
    tails: dict[str, list[int]] = {}
    for name in reversed(order):
        following = [tails[n][0] + quickest(jobs[n].operations[0]) for n in followers[name] if n in tails]
        behind = max(following, default=0)
        tails[name] = [0] * len(jobs[name].operations)
        for k in range(len(jobs[name].operations) - 1, -1, -1):
            tails[name][k] = behind
            behind += quickest(jobs[name].operations[k])
    return heads, tails, ends


def _one_machine(steps: list[tuple[int, int, int]]) -> int:
    """One machine with steps of (head, duration, tail), set-ups and closed times left out: for each head, all that begins no
    earlier, then the shortest tail."""
    best, load, tail = 0, 0, LAST_MS
    for head, took, behind in sorted(steps, reverse=True):
        load, tail = load + took, min(tail, behind)
        best = max(best, head + load + tail)
    return best


def _setup(table: dict[tuple[str, str, str], int], machine: str, before: str, after: str) -> int:
    if after in ("", before):
        return 0
    own = table.get((machine, before, after))
    return table.get(("*", before, after), 0) if own is None else own


def _closed(shop: Shop) -> dict[str, list[Span]]:
    by_machine: dict[str, list[Span]] = defaultdict(list)
    for c in shop.closed:
        if c.end_ms > c.start_ms:
            by_machine[c.machine].append((c.start_ms, c.end_ms))
    return by_machine


def _first_gap(taken: list[Span], start: int, length: int) -> int:
    """The first time from `start` on with `length` ms free of `taken`."""
    for opens, closes in sorted(taken):
        if closes > start and opens < start + length:
            start = closes
    return start


def _clashes(rows: Iterable[tuple[str, int, int, str]]) -> Iterator[tuple[str, str, str]]:
    """(machine, who, who) for neighbours in time that overlap, from rows of (machine, begin, end, who)."""
    before: tuple[str, int, int, str] | None = None
    for row in sorted(rows):
        if before is not None and before[0] == row[0] and row[1] < before[2]:
            yield row[0], before[3], row[3]
        before = row if before is None or before[0] != row[0] or row[2] >= before[2] else before


def _in_order(p: Placed) -> tuple[int, int, str, int]:
    return p.start_ms, p.end_ms, p.job, p.operation


def _said(p: Placed) -> str:
    return f"operation {p.operation} of job {p.job!r}"


def _twice(values: Iterable[_T]) -> list[_T]:
    seen: set[_T] = set()
    again: dict[_T, None] = {}
    for value in values:
        if value in seen:
            again[value] = None
        seen.add(value)
    return list(again)
