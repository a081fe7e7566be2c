"""A shop in integers, as every solver here reads it: operations are numbered job by job, times are milliseconds after the
shop's start. What cannot be planned at all is refused here with the constraint's name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from protocol.errors import Reason, Refused
from protocol.schedules import Maintenance, Placed, Shop

Spans = list[tuple[int, int]]
"""Start and end of times that are taken, sorted, without overlaps."""


def infeasible(fact: str) -> Refused:
    """The refusal of a shop that no schedule can satisfy."""
    return Refused(Reason.NOT_ELIGIBLE, f"infeasible schedule: {fact}")


@dataclass(frozen=True, slots=True)
class Layout:
    """n operations of J jobs on M machines. `choices[x]`: (machine, duration), quickest first; `ends_before[x]`: by when a
    step must have ended because a later step of its job is fixed."""

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

    @property
    def n(self) -> int:
        """How many operations there are."""
        return len(self.job_of)

    @property
    def plain(self) -> bool:
        """Nothing but jobs, machines and release times: the disjunctive graph says it all."""
        shop = self.shop
        timed = any(d is not None and w > 0 for d, w in zip(self.due, self.weight, strict=True))
        families = any(self.family) and any(self.setups)
        return not (any(self.closed) or shop.maintenance or shop.fixed or timed or families)

    def last_of(self, job: int) -> int:
        """The last operation of a job."""
        return (self.first[job + 1] if job + 1 < len(self.first) else self.n) - 1


def lay_out(shop: Shop) -> Layout:
    """Raises Refused where the shop contradicts itself, or asks for what is planned on the server only."""
    waiting = next((job for job in shop.jobs if job.after), None)
    if waiting is not None:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"job {waiting.job!r} waits for {waiting.after[0]!r}: a gateway plans no order between jobs, use CP-SAT",
        )
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
    )
    for m in sorted(shop.maintenance, key=lambda m: (m.latest_ms, m.id)):
        layout.upkeep[number[m.machine]].append(m)
    _fix(layout)
    return layout


def _closed(shop: Shop, number: dict[str, int]) -> list[Spans]:
    by_machine: list[Spans] = [[] for _ in number]
    for c in shop.closed:
        if c.machine in number and c.end_ms > c.start_ms:
            by_machine[number[c.machine]].append((c.start_ms - shop.start_ms, c.end_ms - shop.start_ms))
    return [joined(spans) for spans in by_machine]


def joined(spans: Iterable[tuple[int, int]]) -> Spans:
    """The same times without overlaps, in order."""
    out: Spans = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
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
