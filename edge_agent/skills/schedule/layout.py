"""A shop in integers, as every solver here reads it: operations are numbered job by job, times are milliseconds after the
shop's start. What cannot be planned at all is refused here with the constraint's name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from protocol.errors import Reason, Refused
from protocol.schedules import Maintenance, Placed, Shop
from protocol.shop_check import problems

Spans = list[tuple[int, int]]
"""Start and end of times that are taken, sorted, without overlaps."""


def infeasible(fact: str) -> Refused:
    """The refusal of a shop that no schedule can satisfy."""
    return Refused(Reason.NOT_ELIGIBLE, f"infeasible schedule: {fact}")


def check(shop: Shop) -> None:
    """Raises Refused with the first thing that makes the shop impossible."""
    found = problems(shop)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise infeasible(f"{found[0]}{more}")


@dataclass(frozen=True, slots=True)
class Layout:
    """n operations of J jobs on M machines. `choices[x]`: (machine, duration), quickest first; `waits[x]`: last operations of
    the jobs that come before the job that x begins; `turn`: the jobs, each behind those it waits for; `ends_before[x]`: by
    when a step must have ended because something that waits for it is fixed."""

    shop: Shop
    machines: list[str]
    first: list[int]
    job_of: list[int]
    choices: list[list[tuple[int, int]]]
    family: list[str]
    release: list[int]
    due: list[int | None]
    weight: list[float]
    closed: list[Spans]
    fixed: dict[int, Placed]
    upkeep: list[list[Maintenance]]
    setups: list[dict[tuple[str, str], int]]
    waits: dict[int, list[int]]
    turn: list[int]
    ends_before: dict[int, int]

    @property
    def n(self) -> int:
        """How many operations there are."""
        return len(self.job_of)

    @property
    def plain(self) -> bool:
        """Nothing but unrelated jobs, machines and release times: the disjunctive graph says it all."""
        shop = self.shop
        timed = any(d is not None and w > 0 for d, w in zip(self.due, self.weight, strict=True))
        families = any(self.family) and any(self.setups)
        return not (any(self.closed) or shop.maintenance or shop.fixed or timed or families or self.waits)

    def heads(self) -> list[int]:
        """Before when each operation cannot begin, machines apart."""
        out = [0] * self.n
        for j in self.turn:
            x = self.first[j]
            out[x] = max([self.release[j], *(out[y] + self.choices[y][0][1] for y in self.waits.get(x, ()))])
            for x in range(self.first[j] + 1, self.last_of(j) + 1):
                out[x] = out[x - 1] + self.choices[x - 1][0][1]
        return out

    def ranks(self) -> list[int]:
        """By job, its place in `turn`."""
        out = [0] * len(self.turn)
        for place, j in enumerate(self.turn):
            out[j] = place
        return out

    def kin(self) -> list[set[int]]:
        """By job, itself and the jobs that must be finished before it begins or cannot begin before it is finished."""
        out: list[set[int]] = [{j} for j in range(len(self.first))]
        for j in self.turn:
            for y in self.waits.get(self.first[j], ()):
                out[j] |= out[self.job_of[y]]
        for j, earlier in enumerate([set(jobs) for jobs in out]):
            for a in earlier:
                out[a].add(j)
        return out

    def last_of(self, job: int) -> int:
        """The last operation of a job."""
        return (self.first[job + 1] if job + 1 < len(self.first) else self.n) - 1


def lay_out(shop: Shop) -> Layout:
    """A shop that `check` lets through, in numbers. Raises Refused for fixed work that is no part of it."""
    machines = sorted(
        {c.machine for job in shop.jobs for o in job.operations for c in o.choices}
        | {m.machine for m in shop.maintenance}
    )
    number = {name: k for k, name in enumerate(machines)}
    first: list[int] = []
    job_of: list[int] = []
    choices: list[list[tuple[int, int]]] = []
    family: list[str] = []
    for j, job in enumerate(shop.jobs):
        first.append(len(job_of))
        for operation in job.operations:
            job_of.append(j)
            choices.append(
                sorted(
                    {number[c.machine]: c.duration_ms for c in operation.choices}.items(), key=lambda c: (c[1], c[0])
                )
            )
            family.append(operation.family)
    layout = Layout(
        shop,
        machines,
        first,
        job_of,
        choices,
        family,
        [max(job.release_ms - shop.start_ms, 0) for job in shop.jobs],
        [None if job.due_ms is None else job.due_ms - shop.start_ms for job in shop.jobs],
        [job.weight for job in shop.jobs],
        _closed(shop, number),
        {},
        [[] for _ in machines],
        _setups(shop, machines),
        {},
        [],
        {},
    )
    for m in sorted(shop.maintenance, key=lambda m: (m.latest_ms, m.id)):
        layout.upkeep[number[m.machine]].append(m)
    _fix(layout)
    _wait(layout)
    _deadlines(layout)
    return layout


def _wait(layout: Layout) -> None:
    """Which operations wait for other jobs, and the jobs in an order that respects it."""
    jobs = {job.job: j for j, job in enumerate(layout.shop.jobs)}
    before = [sorted({jobs[name] for name in job.after}) for job in layout.shop.jobs]
    layout.waits.update(
        {layout.first[j]: [layout.last_of(a) for a in earlier] for j, earlier in enumerate(before) if earlier}
    )
    followers: list[list[int]] = [[] for _ in before]
    for j, earlier in enumerate(before):
        for a in earlier:
            followers[a].append(j)
    missing = [len(earlier) for earlier in before]
    layout.turn.extend(j for j, count in enumerate(missing) if not count)
    for j in layout.turn:
        for follower in followers[j]:
            missing[follower] -= 1
            if not missing[follower]:
                layout.turn.append(follower)


def _deadlines(layout: Layout) -> None:
    """Backwards from the fixed starts, with the quickest durations."""
    for j in reversed(layout.turn if layout.fixed else []):
        for x in range(layout.last_of(j), layout.first[j] - 1, -1):
            placed, limit = layout.fixed.get(x), layout.ends_before.get(x)
            if placed is not None:
                limit = placed.start_ms - layout.shop.start_ms
            elif limit is not None:
                limit -= layout.choices[x][0][1]
            if limit is None or (x == layout.first[j] and placed is not None):
                continue
            for y in [x - 1] if x > layout.first[j] else layout.waits.get(x, []):
                if y not in layout.fixed:
                    layout.ends_before[y] = min(limit, layout.ends_before.get(y, limit))


def _closed(shop: Shop, number: dict[str, int]) -> list[Spans]:
    by_machine: list[Spans] = [[] for _ in number]
    for c in shop.closed:
        if c.machine in number and c.end_ms > c.start_ms:
            by_machine[number[c.machine]].append((c.start_ms - shop.start_ms, c.end_ms - shop.start_ms))
    return [joined(spans) for spans in by_machine]


def joined(spans: Iterable[tuple[int, int]]) -> Spans:
    """The same times without overlaps, in order. Those that touch stay apart: a step without duration fits between."""
    out: Spans = []
    for start, end in sorted(spans):
        if out and start < out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def _setups(shop: Shop, machines: list[str]) -> list[dict[tuple[str, str], int]]:
    everywhere = {(s.before, s.after): s.duration_ms for s in shop.setups if s.machine == "*"}
    own = [{(s.before, s.after): s.duration_ms for s in shop.setups if s.machine == name} for name in machines]
    return [everywhere | table for table in own]


def _fix(layout: Layout) -> None:
    jobs = {job.job: j for j, job in enumerate(layout.shop.jobs)}
    for placed in layout.shop.fixed:
        j = jobs.get(placed.job)
        if j is None or placed.operation > layout.last_of(j) - layout.first[j]:
            raise infeasible(
                f"fixed operation {placed.operation} of job {placed.job!r} is not part of the shop; take it out of `fixed`"
            )
        layout.fixed[layout.first[j] + placed.operation] = placed
