"""Dispatch rules: schedules built in one pass by always taking, where operations compete for a machine, the one that a rule
prefers. Active schedules after Giffler and Thompson 1960, non-delay ones, and everything between (`delay`).

Rules: SPT and LPT (shortest, longest operation), MWKR (most work remaining), MOPNR (most operations remaining), FIFO (who
waits longest), EDD (earliest due date), ATC (apparent tardiness cost, Vepsalainen and Morton 1987), FIXED (what must end
first for a later step that is fixed)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from edge_agent.skills.schedule.layout import Layout
from edge_agent.skills.schedule.timeline import Timeline

ATC_LOOK_AHEAD = 2.0
SCANNED = 3_000_000
"""More operations x jobs than this are not scanned step by step: one pass in order of earliest possible start."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules look at: per operation, the work and the steps that remain with it; the mean duration."""

    layout: Layout
    work: list[int]
    steps: list[int]
    mean: float


Rule = Callable[[Facts, int, int, int, int], float]
"""facts, operation, when its job is ready, its start, its duration -> lower goes first."""


def _atc(facts: Facts, x: int, ready: int, start: int, duration: int) -> float:
    j = facts.layout.job_of[x]
    due = facts.layout.due[j]
    if due is None:
        return 0.0
    slack = max(due - facts.work[x] - start, 0)
    return -facts.layout.weight[j] / max(duration, 1) * math.exp(-slack / (ATC_LOOK_AHEAD * facts.mean))


def _edd(facts: Facts, x: int, ready: int, start: int, duration: int) -> float:
    due = facts.layout.due[facts.layout.job_of[x]]
    return math.inf if due is None else due


RULES: dict[str, Rule] = {
    "FIXED": lambda facts, x, ready, start, duration: facts.layout.ends_before.get(x, math.inf) - duration,
    "MWKR": lambda facts, x, ready, start, duration: -facts.work[x],
    "EDD": _edd,
    "ATC": _atc,
    "SPT": lambda facts, x, ready, start, duration: duration,
    "MOPNR": lambda facts, x, ready, start, duration: -facts.steps[x],
    "FIFO": lambda facts, x, ready, start, duration: ready,
    "LPT": lambda facts, x, ready, start, duration: -duration,
}


def facts_of(layout: Layout) -> Facts:
    """Work and steps remaining, with the quickest machines."""
    work, steps = [0] * layout.n, [0] * layout.n
    for x in reversed(range(layout.n)):
        last = x == layout.last_of(layout.job_of[x])
        work[x] = layout.choices[x][0][1] + (0 if last else work[x + 1])
        steps[x] = 1 + (0 if last else steps[x + 1])
    return Facts(layout, work, steps, max(sum(c[0][1] for c in layout.choices) / max(layout.n, 1), 1.0))


@dataclass(frozen=True, slots=True)
class Pass:
    """A built plan: elements in the order put, the machine of each, the cost."""

    cost: float
    order: list[int]
    machine: list[int]


def dispatch(
    line: Timeline, facts: Facts, rule: Rule, *, delay: float = 1.0, noise: float = 0.0, rng: Random | None = None
) -> Pass:
    """One pass. `delay` 0: no machine waits while it has work (non-delay), 1: active; `noise`: how often chance chooses."""
    layout = line.layout
    line.reset()
    waiting = [_skip_fixed(layout, j, layout.first[j]) for j in range(len(layout.first))]
    open_jobs = [j for j, x in enumerate(waiting) if x >= 0 and _let_in(layout, waiting, x)]
    held = [j for j, x in enumerate(waiting) if x >= 0 and not _let_in(layout, waiting, x)]
    while open_jobs:
        offers = [_offer(line, waiting[j]) for j in open_jobs]
        x, k = _pick(line, facts, offers, rule, delay, noise, rng)
        line.put(x, k)
        j = layout.job_of[x]
        waiting[j] = _skip_fixed(layout, j, x + 1)
        if waiting[j] < 0:
            open_jobs.remove(j)
            if held:
                open_jobs += [h for h in held if _let_in(layout, waiting, waiting[h])]
                held = [h for h in held if not _let_in(layout, waiting, waiting[h])]
    return _finished(line)


def _let_in(layout: Layout, waiting: list[int], x: int) -> bool:
    """Whether the jobs before the job that x begins are all put."""
    return all(waiting[layout.job_of[y]] < 0 for y in layout.waits.get(x, ()))


def _skip_fixed(layout: Layout, job: int, x: int) -> int:
    while x <= layout.last_of(job):
        if x not in layout.fixed:
            return x
        x += 1
    return -1


Offer = tuple[int, int, int, int]
"""End, start, operation, machine."""


def _offer(line: Timeline, x: int) -> Offer:
    """The machine that would end x first."""
    best: Offer | None = None
    for k, duration in line.layout.choices[x]:
        start, _ = line.fit(x, k)
        if best is None or start + duration < best[0]:
            best = (start + duration, start, x, k)
    if best is None:
        raise AssertionError("an operation has at least one choice")
    return best


def _pick(
    line: Timeline, facts: Facts, offers: list[Offer], rule: Rule, delay: float, noise: float, rng: Random | None
) -> tuple[int, int]:
    end, _, _, machine = min(offers)
    here = [o for o in offers if o[3] == machine]
    soonest = min(o[1] for o in here)
    limit = soonest + delay * (end - soonest)
    rivals = [o for o in here if o[1] < limit or o[1] == soonest]
    if rng is not None and noise and rng.random() < noise:
        chosen = rivals[int(rng.random() * len(rivals))]
    else:
        chosen = min(rivals, key=lambda o: (rule(facts, o[2], line.ready(o[2]), o[1], o[0] - o[1]), o))
    return chosen[2], machine


def _finished(line: Timeline) -> Pass:
    for k, waiting in enumerate(line.pending):
        for u in list(waiting):
            line.put(u, k)
    return Pass(line.cost(), line.trail[:], line.machine[:])


def by_earliest_start(line: Timeline) -> Pass:
    """One cheap pass for very large shops: operations in order of the earliest start that their job allows."""
    layout = line.layout
    early, rank = layout.heads(), layout.ranks()
    line.reset()
    for x in sorted(range(layout.n), key=lambda x: (early[x], rank[layout.job_of[x]], x)):
        if x not in layout.fixed:
            line.put(x, _offer(line, x)[3])
    return _finished(line)


def passes(line: Timeline, *, over: Callable[[], bool] = lambda: False) -> list[tuple[str, Pass]]:
    """Every rule, non-delay and active, best first; at least one."""
    layout = line.layout
    if layout.n * len(layout.first) > SCANNED:
        return [("earliest start", by_earliest_start(line))]
    facts = facts_of(layout)
    dated = any(due is not None for due in layout.due)
    made: list[tuple[str, Pass]] = []
    for name in RULES:
        if (name in ("EDD", "ATC") and not dated) or (name == "FIXED" and not layout.ends_before):
            continue
        for delay in (0.0, 1.0):
            if made and over():
                break
            made.append(
                (f"{name} {'active' if delay else 'non-delay'}", dispatch(line, facts, RULES[name], delay=delay))
            )
    return sorted(made, key=lambda entry: entry[1].cost)
