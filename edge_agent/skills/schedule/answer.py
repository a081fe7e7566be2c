"""A filled timeline as the schedule that people read: rows in order, what is late, what each maintenance window costs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge_agent.skills.schedule.timeline import BROKEN, Timeline
from protocol.errors import Reason, Refused
from protocol.names import stable_id
from protocol.reports import ModelRef
from protocol.schedules import Placed, PlacedMaintenance, Schedule
from protocol.shop_check import critical_path, figures, risk_at

PRICED = 400_000
"""Maintenance x elements up to which the cost of every window is worked out."""
SHOWN_CLOSED = 2000


def answer(
    line: Timeline, order: Sequence[int], machine: list[int], *, now_ms: int, how: str, bound: int, seconds: float
) -> Schedule:
    """Lays the plan once more and reads it off. Raises Refused, naming the constraint, if it breaks one."""
    shop = line.layout.shop
    if line.lay(order, machine) >= BROKEN:
        raise Refused(
            Reason.NOT_ELIGIBLE, f"no feasible schedule was found: {line.breaks}; widen the window or free the time"
        )
    zero = shop.start_ms
    placed = [_placed(line, x) for x in range(line.n)]
    placed.sort(key=lambda p: (p.start_ms, p.machine, p.job, p.operation))
    end, tardiness, late, _ = figures(shop, placed)
    spans = [(line.start[line.n + i], line.end[line.n + i]) for i in range(len(line.upkeep))]
    maintenance = [
        PlacedMaintenance(
            id=m.id,
            machine=m.machine,
            start_ms=start + zero,
            end_ms=stop + zero,
            risk_before=risk_at(m, start + zero),
            because=m.because,
        )
        for m, (start, stop) in zip(line.upkeep, spans, strict=True)
    ]
    maintenance = _priced(line, order, machine, maintenance, end - zero)
    maintenance.sort(key=lambda m: (m.start_ms, m.machine, m.id))
    lowest = bound + zero if bound > 0 else 0
    made = Schedule(
        id=stable_id("schedule", now_ms, how, *(f"{p.job}/{p.operation}/{p.machine}/{p.start_ms}" for p in placed)),
        issued_ms=now_ms,
        start_ms=zero,
        end_ms=end,
        bound_ms=min(lowest, end),
        tardiness_ms=tardiness,
        late_jobs=late,
        placed=placed,
        maintenance=maintenance,
        closed=[c for c in shop.closed if c.start_ms < end and c.end_ms > zero][:SHOWN_CLOSED],
        because_en=f"{how}, {seconds:.1f} s: {len(placed)} operations, {len(late)} jobs late",
        because_zh=f"{how}，{seconds:.1f} 秒：{len(placed)} 道工序，{len(late)} 个作业延迟",
        solver=ModelRef("schedule", how),
    )
    return msgspec.structs.replace(made, critical=critical_path(shop, made))


def _placed(line: Timeline, x: int) -> Placed:
    layout, zero = line.layout, line.layout.shop.start_ms
    if x in layout.fixed:
        return layout.fixed[x]
    j = layout.job_of[x]
    return Placed(
        job=layout.shop.jobs[j].job,
        operation=x - layout.first[j],
        machine=layout.machines[line.machine[x]],
        start_ms=line.start[x] + zero,
        end_ms=line.end[x] + zero,
        setup_ms=line.setup[x],
    )


def _priced(
    line: Timeline, order: Sequence[int], machine: list[int], made: list[PlacedMaintenance], end: int
) -> list[PlacedMaintenance]:
    """How much later the last job ends than with the same order and without each maintenance."""
    if len(made) * line.elements > PRICED:
        return made
    priced = []
    for i, m in enumerate(made):
        if m.id in line.done:
            priced.append(m)
            continue
        line.reset()
        for k, waiting in enumerate(line.pending):
            line.pending[k] = [u for u in waiting if u != line.n + i]
        for x in order:
            if x != line.n + i:
                line.put(x, machine[x])
        without = max((line.end[line.layout.last_of(j)] for j in range(len(line.layout.first))), default=0)
        cost = max(end - without, 0)
        priced.append(
            PlacedMaintenance(
                id=m.id,
                machine=m.machine,
                start_ms=m.start_ms,
                end_ms=m.end_ms,
                risk_before=m.risk_before,
                cost_ms=cost,
                because=m.because,
            )
        )
    line.lay(order, machine)
    return priced
