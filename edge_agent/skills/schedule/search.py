"""Which search a shop gets, and for how long: tabu search with elite solutions where the disjunctive graph says everything,
annealing over a timeline where calendars, set-ups, maintenance, due dates, fixed work or jobs that wait for others matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random

from edge_agent.skills.schedule import dispatch, tabu
from edge_agent.skills.schedule.annealing import Annealing
from edge_agent.skills.schedule.graph import Graph, Order
from edge_agent.skills.schedule.layout import Layout
from edge_agent.skills.schedule.timeline import BROKEN, Timeline

UNIMPROVED = 2000
ELITE = 5
RELINKED = 2000
"""Shops of more operations are kicked by chance instead: counting the distance between two plans would take too long."""


@dataclass(slots=True)
class Watch:
    """The time a search may take, whether it was told to stop, and who wants to see progress."""

    budget_s: float
    clock: Callable[[], float]
    stop: Callable[[], bool]
    progress: Callable[[float, float], None] | None
    started: float = 0.0
    told: float = -1.0

    def __post_init__(self) -> None:
        self.started = self.clock()

    def left(self) -> float:
        """Share of the time that is left; 0 when it is over or the caller said stop."""
        if self.stop():
            return 0.0
        if self.budget_s <= 0:
            return 0.0
        return max(0.0, 1.0 - (self.clock() - self.started) / self.budget_s)

    def over(self) -> bool:
        """No time is left."""
        return self.left() <= 0.0

    def tell(self, cost: float) -> None:
        """Progress: the share of the time used and the cost of the best plan, when it changed by a hundredth."""
        if self.progress is None:
            return
        used = 1.0 - self.left()
        if used - self.told >= 0.01 or used >= 1.0:
            self.told = used
            self.progress(used, cost)


def bound(layout: Layout) -> int:
    """Before when no plan can end, in ms after the shop's start: the longest job, and for each machine the earliest it can
    begin, the work that only it can do, and the shortest rest after it."""
    heads, rests = layout.heads(), [0] * layout.n
    for x in reversed(range(layout.n)):
        last = x == layout.last_of(layout.job_of[x])
        rests[x] = 0 if last else rests[x + 1] + layout.choices[x + 1][0][1]
    longest = max((heads[x] + layout.choices[x][0][1] + rests[x] for x in range(layout.n)), default=0)
    if layout.fixed:
        return 0
    only: list[list[int]] = [[] for _ in layout.machines]
    for x, options in enumerate(layout.choices):
        if len(options) == 1:
            only[options[0][0]].append(x)
    loads = [one_machine(heads, rests, [layout.choices[x][0][1] for x in range(layout.n)], xs) for xs in only if xs]
    return max([longest, *loads])


def one_machine(heads: list[int], rests: list[int], lengths: list[int], xs: list[int]) -> int:
    """The preemptive one-machine bound (Jackson's rule, Carlier 1982): work may be interrupted, the longest
    rest goes first."""
    waiting = sorted(xs, key=lambda x: (heads[x], x))
    open_work: list[list[int]] = []  # [-rest, x, left]
    now, place, latest = 0, 0, 0
    while place < len(waiting) or open_work:
        if not open_work:
            now = max(now, heads[waiting[place]])
        while place < len(waiting) and heads[waiting[place]] <= now:
            x = waiting[place]
            heappush(open_work, [-rests[x], x, lengths[x]])
            place += 1
        first = open_work[0]
        until = now + first[2]
        if place < len(waiting) and heads[waiting[place]] < until:
            first[2] -= heads[waiting[place]] - now
            now = heads[waiting[place]]
            continue
        now = until
        heappop(open_work)
        latest = max(latest, now - first[0])
    return latest


@dataclass(frozen=True, slots=True)
class Found:
    """The best plan: elements in order of their start, the machine of each, its cost, and how it was found."""

    order: list[int]
    machine: list[int]
    cost: float
    how: str


def improve(line: Timeline, rng: Random, watch: Watch) -> Found:
    """From the dispatch rules to the end of the time or the bound."""
    layout = line.layout
    passes = dispatch.passes(line, over=watch.over)
    name, first = passes[0]
    lowest = bound(layout)
    watch.tell(first.cost)
    if first.cost <= lowest or (watch.over() and first.cost < BROKEN):
        return Found(first.order, first.machine, first.cost, name)
    if layout.plain:
        return _by_tabu(line, passes, rng, watch, lowest)
    search = Annealing(line, first, rng)

    def left() -> float:
        watch.tell(search.best.cost)
        return watch.left()

    search.run(left, lowest)
    plan = search.until_whole(watch.stop)
    return Found(plan.order, plan.machine, plan.cost, "annealing")


def _by_tabu(line: Timeline, passes: list[tuple[str, dispatch.Pass]], rng: Random, watch: Watch, lowest: int) -> Found:
    layout = line.layout
    graph = Graph(layout)
    graph.load(sequences(layout, passes[0][1]))

    def over() -> bool:
        watch.tell(search.best)
        return watch.over()

    search = tabu.Search(graph, rng, lowest, over)
    facts = dispatch.facts_of(layout)
    pool: list[tuple[int, Order]] = []
    while not search.done() and len(pool) < ELITE:
        if pool and len(pool) < len(passes):
            graph.load(sequences(layout, passes[len(pool)][1]))
        elif pool:
            again = dispatch.dispatch(line, facts, dispatch.RULES["MWKR"], delay=0.3, noise=0.3, rng=rng)
            graph.load(sequences(layout, again))
        pool.append(search.run(UNIMPROVED))
    while not search.done():
        a, b = rng.sample(range(len(pool)), 2)
        graph.load(pool[a][1])
        if layout.n <= RELINKED:
            tabu.relink(graph, pool[b][1], rng, 0.3 + 0.4 * rng.random())
        else:
            tabu.kick(graph, rng, layout.n // 20)
        tabu.keep(pool, search.run(UNIMPROVED))
    graph.load(search.best_order)
    return Found(graph.walk, graph.on[: layout.n], search.best, "tabu search")


def sequences(layout: Layout, made: dispatch.Pass) -> Order:
    """A pass as one sequence per machine."""
    out: Order = [[] for _ in layout.machines]
    for x in made.order:
        out[made.machine[x]].append(x)
    return out
