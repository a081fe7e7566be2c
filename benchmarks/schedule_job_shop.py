"""Job-shop scheduling: how far the makespan is from the best known, on a gateway and with CP-SAT.

    python benchmarks/schedule_job_shop.py --data DIR [--quick] [--json]

DIR holds instances.json (name, path, current_upper) and the instances: lines with # are comments, then "jobs machines", then
per job pairs of machine and duration. Ours: the gateway's scheduler, 10 s an instance, one thread, no OR-Tools; it stops
early only at a bound worked out from the instance itself. Reference: the dispatch rule with the lowest mean gap. Peer:
CP-SAT, 30 s, two workers, where server.scheduling is there. Gap: makespan / current_upper - 1, mean over instances, in %.
Each plan is checked by protocol.shop_check.
Repair: in the middle of the plan a machine drops out for 10 % of the span. --quick: ft and la01-10, 2 s."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.skills.schedule import dispatch, repair, schedule
from edge_agent.skills.schedule.layout import lay_out
from edge_agent.skills.schedule.timeline import Timeline
from protocol.schedules import Choice, Closed, Operation, Schedule, Shop, ShopJob
from protocol.shop_check import violations

GATEWAY_S, QUICK_S, FIRST_S, SERVER_S = 10.0, 2.0, 1.0, 30.0
GATEWAY_TARGET, SERVER_TARGET, STRETCH = 8.0, 3.0, 3.0
QUICK = ("ft", *(f"la{i:02d}" for i in range(1, 11)))
DOWN = 0.10
REPAIR_S = 2.0


@dataclass(frozen=True)
class Instance:
    """A shop and the best makespan known for it."""

    name: str
    shop: Shop
    best: int

    @property
    def family(self) -> str:
        """The letters its name begins with."""
        return self.name.rstrip("0123456789")

    def gap(self, end_ms: int) -> float:
        """Per cent above the best known."""
        return 100.0 * (end_ms / self.best - 1.0)


def read(path: Path) -> Shop:
    """An instance in the JSPLIB format."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    count, machines = map(int, lines[0].split())
    jobs = []
    for j, line in enumerate(lines[1 : count + 1]):
        numbers = list(map(int, line.split()))
        if len(numbers) != 2 * machines:
            raise SystemExit(f"schedule_job_shop: {path.name} job {j}: {len(numbers)} numbers, not {2 * machines}")
        steps = zip(numbers[::2], numbers[1::2], strict=True)
        jobs.append(ShopJob(job=f"j{j}", operations=[Operation(choices=[Choice(f"m{m}", d)]) for m, d in steps]))
    return Shop(jobs=jobs)


def instances(sheet: contract.Sheet) -> list[Instance]:
    """What instances.json lists; --quick keeps the small families."""
    index = sheet.find(sheet.options.test, "instances.json")[0]
    out = []
    for entry in json.loads(index.read_text()):
        if sheet.options.quick and not entry["name"].startswith(QUICK):
            continue
        path = index.parent / entry["path"]
        sheet.files.append(path)
        out.append(Instance(entry["name"], read(path), int(entry["current_upper"])))
    return out


def measure(sheet: contract.Sheet) -> None:
    """Rows for the dispatch rules, the gateway, CP-SAT, and repair."""
    found = instances(sheet)
    rule, rule_gap = best_rule(sheet, found)
    budget = QUICK_S if sheet.options.quick else GATEWAY_S
    plans, seconds = solved(sheet, found, lambda shop: schedule(shop, 0, budget, 0), f"gateway {budget:g} s")
    early, _ = solved(sheet, found, lambda shop: schedule(shop, 0, FIRST_S, 0), f"gateway {FIRST_S:g} s")
    server = server_gap(sheet, found)
    gap = mean_gap(found, plans)
    sheet.row(
        f"gateway's scheduler, {budget:g} s",
        "mean gap %",
        gap,
        reference=rule_gap,
        peers={"CP-SAT": server},
        target=GATEWAY_TARGET,
        holds=None if sheet.options.quick else gap <= GATEWAY_TARGET,
        n=len(found),
        seconds=seconds,
        worst=round(max(i.gap(p.end_ms) for i, p in zip(found, plans, strict=True)), 2),
        stretch_holds=gap <= STRETCH,
    )
    sheet.row(
        f"gateway's scheduler, {FIRST_S:g} s", "mean gap %", mean_gap(found, early), reference=rule_gap, n=len(found)
    )
    for family in sorted({i.family for i in found}):
        mine = [(i, p) for i, p in zip(found, plans, strict=True) if i.family == family]
        figure = float(np.mean([i.gap(p.end_ms) for i, p in mine]))
        sheet.row(f"family {family}, {budget:g} s", "mean gap %", figure, n=len(mine))
    sheet.row(
        f"CP-SAT, {QUICK_S if sheet.options.quick else SERVER_S:g} s",
        "mean gap %",
        server,
        reference=rule_gap,
        target=SERVER_TARGET,
        holds=None if server is None or sheet.options.quick else server <= SERVER_TARGET,
        n=len(found),
    )
    repairs(sheet, found, plans)
    sheet.note(f"best dispatch rule by mean gap: {rule}; stretch target of the gateway: {STRETCH:g} %")


def best_rule(sheet: contract.Sheet, found: list[Instance]) -> tuple[str, float]:
    """The rule with the lowest mean gap, and that gap."""
    gaps: dict[str, list[float]] = {}
    for i in found:
        for name, made in dispatch.passes(Timeline(lay_out(i.shop))):
            gaps.setdefault(name, []).append(i.gap(int(made.cost)))
    name = min(gaps, key=lambda rule: (float(np.mean(gaps[rule])), rule))
    sheet.row(f"dispatch rule {name}", "mean gap %", float(np.mean(gaps[name])), n=len(found))
    return name, float(np.mean(gaps[name]))


def solved(
    sheet: contract.Sheet, found: list[Instance], solve: Callable[[Shop], Schedule], what: str
) -> tuple[list[Schedule], float]:
    """A checked plan per instance, and the mean seconds."""
    plans, started = [], time.monotonic()
    for i in found:
        plan = solve(i.shop)
        wrong = violations(i.shop, plan)
        if wrong:
            raise SystemExit(f"schedule_job_shop: {what}, {i.name}: {wrong[0]}")
        plans.append(plan)
        sheet.say(f"{what}, {i.name}: {plan.end_ms} ({i.gap(plan.end_ms):.2f} % above {i.best})")
    return plans, (time.monotonic() - started) / max(len(found), 1)


def server_gap(sheet: contract.Sheet, found: list[Instance]) -> float | None:
    """The mean gap of CP-SAT; None with a note where the server's scheduler is not there."""
    try:
        server = importlib.import_module("server.scheduling")
        importlib.import_module("ortools")
    except ImportError:
        sheet.note("peer CP-SAT is not there (pip install 'millwright[schedule]'); its figures are null")
        return None
    budget = QUICK_S if sheet.options.quick else SERVER_S
    plans, _ = solved(sheet, found, lambda shop: server.solve(shop, budget, workers=2, seed=0), f"CP-SAT {budget:g} s")
    return mean_gap(found, plans)


def mean_gap(found: list[Instance], plans: list[Schedule]) -> float:
    """Mean per cent above the best known."""
    return float(np.mean([i.gap(p.end_ms) for i, p in zip(found, plans, strict=True)]))


def repairs(sheet: contract.Sheet, found: list[Instance], plans: list[Schedule]) -> None:
    """Milliseconds to a feasible plan, the share of operations that moved, and the end against planning the rest anew."""
    millis, shifted, improved, moved = [], [], [], []
    for i, plan in zip(found, plans, strict=True):
        now = plan.end_ms // 2
        down = Closed(machine="m0", start_ms=now, end_ms=now + int(DOWN * plan.end_ms), because="breakdown")
        started = time.perf_counter()
        quick = repair(i.shop, plan, [down], now, 0.0)
        millis.append(1000.0 * (time.perf_counter() - started))
        better = repair(i.shop, plan, [down], now, REPAIR_S / 4)
        begun = [p for p in quick.placed if p.start_ms < now]
        anew = repair(msgspec.structs.replace(i.shop, fixed=begun), plan, [down], now, REPAIR_S, change_costs=0.0)
        shifted.append(100.0 * (quick.end_ms / anew.end_ms - 1.0))
        improved.append(100.0 * (better.end_ms / anew.end_ms - 1.0))
        moved.append(100.0 * better.moved / len(plan.placed))
    n = len(found)
    sheet.row("repair: time to a feasible plan", "ms", float(np.mean(millis)), n=n, worst=round(max(millis), 2))
    sheet.row("repair: operations that moved", "% of all", float(np.mean(moved)), n=n)
    sheet.row(
        "repair: end against planning anew",
        "% later",
        float(np.mean(improved)),
        n=n,
        shifted=round(float(np.mean(shifted)), 2),
    )
    sheet.note(
        f"repair improves for {REPAIR_S / 4:g} s after the shift; planning anew: {REPAIR_S:g} s with changes free"
    )


if __name__ == "__main__":
    sys.exit(contract.run("schedule_job_shop", __doc__, measure))
