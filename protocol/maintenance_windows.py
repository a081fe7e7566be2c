"""From the risk of a failure to the window in which maintenance must begin, and what that window costs the plan.

    window = by_life(life, duration_ms=2 * HOUR_MS, from_ms=now, until_ms=end, p_allowed=0.1)   # None: not in this plan

Two rules set the latest start, and the earlier one counts: the chance of a failure before it is at most `p_allowed`, and
(where costs are given) age replacement: the time at which the expected cost for each hour in
use is least (Barlow and Hunter 1960, Optimum preventive maintenance policies, Oper. Res. 8(1))."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from protocol.errors import Reason, Refused
from protocol.reports import FaultRisk, RemainingLife
from protocol.schedules import Maintenance, PlacedMaintenance, Schedule, Shop
from protocol.shop_check import figures, risk_at
from protocol.shop_replay import earliest

HOUR_MS = 3_600_000
GRID = 64
"""How many times of a plan's horizon the risk is looked at."""
Solver = Callable[[Shop], Schedule]


@dataclass(frozen=True)
class Costs:
    """Money in any currency: of a failure, and of the maintenance when it is planned."""

    failure: float
    planned: float


@dataclass(frozen=True)
class Hazard:
    """P(failed by times_ms[i]) = chances[i], rising, absolute times; linear between them, flat behind the last."""

    times_ms: list[int]
    chances: list[float]

    def by(self, time_ms: float) -> float:
        """The chance of a failure before a time."""
        if time_ms <= self.times_ms[0]:
            return self.chances[0] if time_ms == self.times_ms[0] else 0.0
        i = bisect_right(self.times_ms, time_ms)
        if i == len(self.times_ms):
            return self.chances[-1]
        t0, t1 = self.times_ms[i - 1], self.times_ms[i]
        return self.chances[i - 1] + (self.chances[i] - self.chances[i - 1]) * (time_ms - t0) / (t1 - t0)

    def reaches(self, chance: float) -> float:
        """The last time at which the chance of a failure before is at most `chance`; infinite if it never is more."""
        if self.chances[-1] <= chance:
            return math.inf
        i = next(i for i, c in enumerate(self.chances) if c > chance)
        if i == 0:
            return self.times_ms[0]
        t0, t1, c0, c1 = self.times_ms[i - 1], self.times_ms[i], self.chances[i - 1], self.chances[i]
        return t0 + (t1 - t0) * (chance - c0) / (c1 - c0)


def life_hazard(life: RemainingLife) -> Hazard:
    """The quantiles of a remaining life as a rising curve from 0 at issued_ms. Raises Refused for a unit without a clock."""
    if life.unit != "h":
        raise Refused(
            Reason.WRONG_TYPE,
            f"remaining life of {life.machine!r} is in {life.unit!r}, a plan needs hours: say how many hours one lasts",
        )
    points: dict[int, float] = {life.issued_ms: 0.0}
    for level, hours in sorted(zip(life.levels, life.quantiles, strict=False)):
        if hours < life.cap and math.isfinite(hours):
            at = life.issued_ms + round(hours * HOUR_MS)
            points[at] = max(points.get(at, 0.0), level)
    times, chances, most = sorted(points), [], 0.0
    for at in times:
        most = max(most, points[at])
        chances.append(most)
    return Hazard(times, chances)


def fault_hazard(risk: FaultRisk) -> Hazard:
    """A failure within horizon_ms with the chance given: an even hazard, so that P(t) = 1 - (1 - p)^(t / horizon). Where the
    mean time to it is told, half of the chance lies before that."""
    span = max(risk.horizon_ms, 1)
    p = min(max(risk.probability, 0.0), 1.0 - 1e-9)
    power = 1.0
    mean = risk.expected_ms
    if mean is not None and 0 < mean < span and p > 0:
        half = math.log(1 - p / 2) / math.log(1 - p)
        power = min(max(math.log(half) / math.log(mean / span), 0.2), 8.0)
    shares = [i / GRID for i in range(GRID + 1)]
    chances = [1 - (1 - p) ** (s**power) for s in shares]
    times = [risk.issued_ms + round(s * span) for s in shares]
    if span < GRID:
        times, chances = [risk.issued_ms, risk.issued_ms + span], [0.0, p]
    return Hazard(times, chances)


def by_life(
    life: RemainingLife,
    *,
    duration_ms: int,
    from_ms: int,
    until_ms: int,
    p_allowed: float = 0.1,
    costs: Costs | None = None,
    id: str = "",  # noqa: A002 - the field's name
) -> Maintenance | None:
    """The window of a machine's maintenance in a plan from from_ms to until_ms; None if the risk stays low that long."""
    because = f"remaining life {life.median:.0f} {life.unit} (median)"
    name = id or f"maintenance-{life.machine}"
    return window(life_hazard(life), life.machine, name, because, duration_ms, (from_ms, until_ms), p_allowed, costs)


def by_fault(
    risk: FaultRisk,
    *,
    duration_ms: int,
    from_ms: int,
    until_ms: int,
    p_allowed: float = 0.1,
    costs: Costs | None = None,
    id: str = "",  # noqa: A002 - the field's name
) -> Maintenance | None:
    """As by_life, from the chance of a failure of one component."""
    because = f"{risk.component}: {100 * risk.probability:.0f} % within {risk.horizon_ms / HOUR_MS:.0f} h"
    name = id or f"maintenance-{risk.machine}-{risk.component}"[:128]
    return window(fault_hazard(risk), risk.machine, name, because, duration_ms, (from_ms, until_ms), p_allowed, costs)


def window(
    hazard: Hazard,
    machine: str,
    id: str,  # noqa: A002 - the field's name
    because: str,
    duration_ms: int,
    plan_ms: tuple[int, int],
    p_allowed: float,
    costs: Costs | None = None,
) -> Maintenance | None:
    """What must begin so early that `p_allowed` and the costs are kept. A risk that is too high already gives the shortest
    window from the plan's begin on. Raises Refused for a chance or a cost that is none."""
    if not 0 < p_allowed < 1:
        raise Refused(Reason.WRONG_TYPE, f"p_allowed {p_allowed}: a chance between 0 and 1 is needed")
    start, until = plan_ms
    latest = hazard.reaches(p_allowed)
    rule = f"P(failure before) <= {p_allowed:.0%}"
    if costs is not None:
        economic = worth_until(hazard, costs, start, until)
        if economic < latest:
            latest, rule = economic, "replacing is cheaper than waiting"
    if latest >= until:
        return None
    latest_ms = max(round(latest), start)
    if latest < start:
        latest_ms, rule = start + duration_ms, f"overdue: {hazard.by(start):.0%} already"
    times = [start + (latest_ms - start) * i // 8 for i in range(9)] + [until]
    times = sorted(set(times))
    return Maintenance(
        id=id,
        machine=machine,
        duration_ms=duration_ms,
        earliest_ms=start,
        latest_ms=latest_ms,
        risk_at_ms=times,
        risk=[round(hazard.by(t), 6) for t in times],
        because=f"{because}; {rule}"[:128],
    )


def worth_until(hazard: Hazard, costs: Costs, from_ms: int, until_ms: int) -> float:
    """Until when waiting is worth it, in the plan: over a grid of starts t, the least cost rate
    (planned x R(t) + failure x F(t)) / expected time in use until min(failure, t); infinite if it falls until the end."""
    if not (costs.failure >= costs.planned > 0 and math.isfinite(costs.failure)):
        raise Refused(
            Reason.WRONG_TYPE, f"costs {costs}: a failure must cost at least what planned maintenance does, above 0"
        )
    origin = hazard.times_ms[0]
    span = max(until_ms, hazard.times_ms[-1]) - origin
    best, best_at, used = math.inf, math.inf, 0.0
    before, previous = hazard.by(origin), origin
    for i in range(1, 8 * GRID + 1):
        at = origin + span * i // (8 * GRID)
        failed = hazard.by(at)
        used += (at - previous) * (1 - (before + failed) / 2)
        before, previous = failed, at
        rate = (costs.planned * (1 - failed) + costs.failure * failed) / max(used, 1.0)
        if rate < best * (1 - 1e-9):
            best, best_at = rate, at
    return math.inf if best_at >= until_ms else max(best_at, from_ms)


def window_costs(shop: Shop, schedule: Schedule, solver: Solver | None = None) -> list[PlacedMaintenance]:
    """Each maintenance with `cost_ms`: how much later the plan ends than without it. Without a solver the machines and the
    order on each stay, so it is what this plan would gain; with one the shop is planned anew without it, so that the cost is
    what the window really takes (never below 0: a search may find less). `risk_before` is read off the window's risk."""
    windows = {m.id: m for m in shop.maintenance}
    made = []
    for m in schedule.maintenance:
        without = msgspec.structs.replace(shop, maintenance=[w for w in shop.maintenance if w.id != m.id])
        end = _end_without(without, schedule, solver)
        risk = risk_at(windows[m.id], m.start_ms) if m.id in windows else m.risk_before
        made.append(msgspec.structs.replace(m, cost_ms=max(schedule.end_ms - end, 0), risk_before=risk))
    return made


def _end_without(shop: Shop, schedule: Schedule, solver: Solver | None) -> int:
    if solver is not None:
        return solver(shop).end_ms
    placed, _ = earliest(shop, schedule.placed, schedule.maintenance)
    return figures(shop, placed)[0]


def conflicts(windows: Sequence[Maintenance]) -> list[Maintenance]:
    """The same windows, those of one machine that cannot all be kept widened just enough, most urgent first; a plan is better
    late with maintenance than without a plan."""
    free: dict[str, int] = {}
    made = []
    for m in sorted(windows, key=lambda m: (m.latest_ms, m.id)):
        start = max(m.earliest_ms, free.get(m.machine, 0))
        free[m.machine] = start + m.duration_ms
        made.append(m if start <= m.latest_ms else msgspec.structs.replace(m, latest_ms=start))
    return made
