"""Flexible job-shop scheduling: how far the makespan is from the best known, and what maintenance windows cost.

    python benchmarks/schedule_flexible.py --data DIR [--quick] [--json]

DIR holds instances.json (name, path, optimum or bounds.upper) and the instances in Brandimarte's form: "jobs machines", then
for each job the number of its operations and for each of those its choices as pairs of machine and duration. Ours: CP-SAT,
30 s an instance, two workers; second row: the gateway's scheduler, 30 s, one thread, no OR-Tools. Both stop early only where
the best is proven. Reference: the dispatch rule with the lowest mean gap. Gap: makespan / best known - 1 in %, never below 0,
mean over instances. Each plan is checked by protocol.shop_check, which shares no code with the solvers. Maintenance: made-up
Weibull lives for a third of the machines; each that risks more than 10 % within the plan gets a maintenance of 5 % of the
plan, by risk (begin before the chance of a failure is 10 %) and, beside it, at the fixed time in the middle. --quick: kacem
and mk01, 3 s."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import importlib
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
import numpy as np

from edge_agent.skills.schedule import dispatch, schedule
from edge_agent.skills.schedule.layout import lay_out
from edge_agent.skills.schedule.timeline import Timeline
from protocol.errors import Refused
from protocol.maintenance_windows import Hazard, window, window_costs
from protocol.schedules import Maintenance, Schedule, Shop
from protocol.shop_check import violations
from protocol.shop_files import read_flexible

BUDGET_S, QUICK_S, WINDOWS_S = 30.0, 3.0, 5.0
TARGET = 5.0
P_ALLOWED, WEIBULL_SHAPE, UPKEEP = 0.10, 3.0, 0.05
Solve = Callable[[Shop, float, Schedule | None], Schedule]


@dataclass(frozen=True)
class Instance:
    """A shop and the best makespan known for it. `family`: the folder of its file."""

    name: str
    family: str
    shop: Shop
    best: int

    def gap(self, end_ms: int) -> float:
        """Per cent above the best known; 0 for a plan that beats what is listed."""
        return max(100.0 * (end_ms / self.best - 1.0), 0.0)


def instances(sheet: contract.Sheet) -> list[Instance]:
    """What instances.json lists; --quick keeps kacem and mk01."""
    index = sheet.find(sheet.options.test, "instances.json")[0]
    out = []
    for entry in json.loads(index.read_text()):
        path = index.parent / entry["path"]
        family = Path(entry["path"]).parent.name
        if sheet.options.quick and family != "kacem" and entry["name"] != "mk01":
            continue
        sheet.files.append(path)
        try:
            shop = read_flexible(path.read_text())
        except Refused as error:
            raise SystemExit(f"schedule_flexible: {path.name}: {error}") from error
        best = entry.get("optimum") or entry["bounds"]["upper"]
        out.append(Instance(entry["name"], family, shop, int(best)))
    return out


def measure(sheet: contract.Sheet) -> None:
    """Rows for the dispatch rule, CP-SAT, the gateway, and maintenance windows."""
    found = instances(sheet)
    budget = QUICK_S if sheet.options.quick else BUDGET_S
    rule = best_rule(sheet, found)
    server = solver(sheet)
    plans = None if server is None else solved(sheet, found, server, budget, "CP-SAT")
    gateway = solved(sheet, found, lambda shop, s, _: schedule(shop, 0, s, 0), budget, "gateway")
    ends = (
        [p.end_ms for p in gateway[0]]
        if plans is None
        else [min(a.end_ms, b.end_ms) for a, b in zip(gateway[0], plans[0], strict=True)]
    )
    beaten = [i.name for i, end in zip(found, ends, strict=True) if end < i.best]
    above = [i.name for i, p in zip(found, plans[0] if plans else [], strict=False) if p.bound_ms == p.end_ms > i.best]
    if above:
        sheet.note(
            f"proven that no plan ends as early as instances.json says; counted as a gap all the same: {', '.join(above)}"
        )
    if beaten:
        sheet.note(f"checked plans that end before the best known value in instances.json: {', '.join(beaten)}")
    for what, made, beside in (("CP-SAT", plans, gateway), ("gateway's scheduler", gateway, plans)):
        report(sheet, found, f"{what}, {budget:g} s", made, beside, rule)
    if server is None or plans is None:
        server, plans = lambda shop, s, _: schedule(shop, 0, s, 0), gateway
    maintenance(sheet, found, plans[0], server)


def report(
    sheet: contract.Sheet,
    found: list[Instance],
    what: str,
    made: tuple[list[Schedule], float] | None,
    beside: tuple[list[Schedule], float] | None,
    rule: float,
) -> None:
    """The mean gap of one solver, and that of each family."""
    ours = None if made is None else [i.gap(p.end_ms) for i, p in zip(found, made[0], strict=True)]
    other = None if beside is None else float(np.mean([i.gap(p.end_ms) for i, p in zip(found, beside[0], strict=True)]))
    gap = None if ours is None else float(np.mean(ours))
    sheet.row(
        what,
        "mean gap %",
        gap,
        reference=rule,
        peers={"gateway" if "CP" in what else "CP-SAT": other},
        target=TARGET,
        holds=None if gap is None or sheet.options.quick else gap <= TARGET,
        n=len(found),
        seconds=0.0 if made is None else made[1],
        **({} if ours is None else {"worst": round(max(ours), 2), "at_best": sum(g <= 0 for g in ours)}),
    )
    for family in sorted({i.family for i in found}) if ours is not None else []:
        mine = [g for i, g in zip(found, ours or [], strict=True) if i.family == family]
        sheet.row(f"family {family}: {what}", "mean gap %", float(np.mean(mine)), n=len(mine))


def best_rule(sheet: contract.Sheet, found: list[Instance]) -> float:
    """The lowest mean gap of a dispatch rule."""
    gaps: dict[str, list[float]] = {}
    for i in found:
        for name, made in dispatch.passes(Timeline(lay_out(i.shop))):
            gaps.setdefault(name, []).append(i.gap(int(made.cost)))
    name = min(gaps, key=lambda rule: (float(np.mean(gaps[rule])), rule))
    sheet.row(f"dispatch rule {name}", "mean gap %", float(np.mean(gaps[name])), n=len(found))
    return float(np.mean(gaps[name]))


def solver(sheet: contract.Sheet) -> Solve | None:
    """CP-SAT; None with a note where it is not installed."""
    if contract.peer(sheet, "ortools") is None:
        return None
    server = importlib.import_module("server.scheduling")

    def solve(shop: Shop, budget_s: float, hint: Schedule | None) -> Schedule:
        made: Schedule = server.solve(shop, budget_s, workers=2, seed=0, hint=hint)
        return made

    return solve


def solved(
    sheet: contract.Sheet, found: list[Instance], solve: Solve, budget_s: float, what: str
) -> tuple[list[Schedule], float]:
    """A checked plan per instance, and the mean seconds."""
    plans, started = [], time.monotonic()
    for i in found:
        plan = solve(i.shop, budget_s, None)
        checked(i.name, i.shop, plan)
        plans.append(plan)
        sheet.say(f"{what}, {i.name}: {plan.end_ms} ({i.gap(plan.end_ms):.2f} % above {i.best})")
    return plans, (time.monotonic() - started) / max(len(found), 1)


def checked(name: str, shop: Shop, plan: Schedule) -> None:
    """Ends the script if a plan breaks a rule."""
    wrong = violations(shop, plan)
    if wrong:
        raise SystemExit(f"schedule_flexible: {name}: {wrong[0]}")


def maintenance(sheet: contract.Sheet, found: list[Instance], plans: list[Schedule], solve: Solve) -> None:
    """What windows by risk cost, against the fixed time in the middle, and the chance of failing before each."""
    budget = WINDOWS_S / 5 if sheet.options.quick else WINDOWS_S
    cost: dict[str, list[float]] = {"by risk": [], "middle": []}
    risk: dict[str, list[float]] = {"by risk": [], "middle": []}
    each, started = [], time.monotonic()
    for i, plain in zip(found, plans, strict=True):
        windows = by_risk(i, plain.end_ms)
        for how, kept in (("by risk", windows), ("middle", [in_the_middle(w, plain.end_ms) for w in windows])):
            if not kept:
                continue
            shop = msgspec.structs.replace(i.shop, maintenance=kept)
            plan = solve(shop, budget, plain)
            checked(i.name, shop, plan)
            priced = window_costs(shop, plan)
            cost[how].append(100.0 * max(plan.end_ms - plain.end_ms, 0) / plain.end_ms)
            risk[how] += [100.0 * m.risk_before for m in priced]
            if how == "by risk":
                each += [100.0 * m.cost_ms / plain.end_ms for m in priced]
    if not each:
        sheet.note("no machine risks enough within the plan to need a window")
        return
    paired = np.array(cost["middle"]) - np.array(cost["by risk"])
    sheet.row(
        "maintenance windows by failure risk",
        "cost, % of the span",
        float(np.mean(cost["by risk"])),
        reference=float(np.mean(cost["middle"])),
        n=len(paired),
        seconds=(time.monotonic() - started) / max(2 * len(paired), 1),
        windows=len(each),
        cost_of_each=round(float(np.mean(each)), 3),
        saved=round(float(paired.mean()), 3),
        saved_standard_error=round(float(paired.std(ddof=1) / math.sqrt(len(paired))), 3) if len(paired) > 1 else None,
    )
    sheet.row(
        "chance of failing before the maintenance",
        "%, mean",
        float(np.mean(risk["by risk"])),
        reference=float(np.mean(risk["middle"])),
        n=len(each),
        worst=round(max(risk["by risk"]), 2),
    )
    sheet.note(
        f"maintenance: reference is the fixed time in the middle of the plan, same machines and durations; {budget:g} s a "
        "plan, from the plan without maintenance; cost_of_each keeps machines and order"
    )


def by_risk(i: Instance, span: int) -> list[Maintenance]:
    """Windows for every third machine, from Weibull lives with a scale of 0.8 to 2.5 spans."""
    draw, made = Random(i.name), []  # noqa: S311 - made-up lives
    machines = sorted({c.machine for job in i.shop.jobs for o in job.operations for c in o.choices})
    for name in machines[::3]:
        scale = span * draw.uniform(0.8, 2.5)
        times = [span * 3 * k // 60 for k in range(61)]
        hazard = Hazard(times, [1 - math.exp(-((t / scale) ** WEIBULL_SHAPE)) for t in times])
        took = max(round(UPKEEP * span), 1)
        kept = window(hazard, name, f"upkeep-{name}", "Weibull life", took, (0, span), P_ALLOWED)
        made += [] if kept is None else [kept]
    return made


def in_the_middle(m: Maintenance, span: int) -> Maintenance:
    """The same work at a time that nobody chose."""
    at = (span - m.duration_ms) // 2
    return msgspec.structs.replace(m, earliest_ms=at, latest_ms=at)


if __name__ == "__main__":
    sys.exit(contract.run("schedule_flexible", __doc__, measure))
