"""Local search for shops with calendars, set-ups, maintenance, due dates or fixed work: simulated annealing over the order in
which a timeline is filled and over the machine of each operation. Moves begin at what makes the plan late: the chain of
causes behind the last operation or behind a late job (van Laarhoven, Aarts and Lenstra 1992; the chain as in Zhang and
Wu 2010)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from edge_agent.skills.schedule.dispatch import Pass
from edge_agent.skills.schedule.timeline import BROKEN, Timeline

HOT, COLD = 0.01, 0.0002
"""First and last temperature, as shares of the cost."""
ROUND = 0.25
"""Share of the time that one cooling takes; the next begins at the best plan, less hot."""
AT_RANDOM = 0.15
"""Share of moves that do not follow the chain of causes."""

RESTLESS = 0.3
"""The temperature, as a share of the cost, while there is no plan at all."""
WHOLE = 300_000
"""While there is no plan at all, so many elements are laid beyond the time; about a second."""


@dataclass(slots=True)
class Plan:
    """Elements in the order of their start, the machine of each, and what the plan costs."""

    order: list[int]
    machine: list[int]
    cost: float


class Annealing:
    """`best` is the best plan seen. `besides(line)`: a further cost, such as changes against an earlier plan."""

    def __init__(
        self,
        line: Timeline,
        first: Pass,
        rng: Random,
        besides: Callable[[Timeline], float] = lambda line: 0.0,
        heat: float = 1.0,
    ) -> None:
        self.line, self.rng, self.besides, self.heat = line, rng, besides, heat
        self.layout = line.layout
        self.kin = line.layout.kin()
        self.moves_done = 0
        self.now = self._laid(list(first.order), list(first.machine))
        self.chain = self._causes()
        self.best = self.now

    def _laid(self, order: list[int], machine: list[int]) -> Plan:
        line = self.line
        cost = line.lay(order, machine) + self.besides(line)
        start = line.start
        return Plan(sorted(line.trail, key=start.__getitem__), machine, cost)

    def run(self, left: Callable[[], float], bound: float) -> Plan:
        """Cools until `left()`, the share of the time that is left, is 0, or the bound is reached."""
        share = left()
        while share > 0 and self.best.cost > bound:
            within = ((1 - share) % ROUND) / ROUND
            hot = HOT if share > 1 - ROUND else HOT / 3
            temperature = self.heat * self.best.cost * hot * (COLD / hot) ** within
            if within < 0.02 and self.now.cost > self.best.cost:
                self._back()
            for _ in range(16):
                self.step(temperature)
            share = left()
        return self.best

    def until_whole(self, stop: Callable[[], bool]) -> Plan:
        """Further moves, but not for ever, until no rule is broken; the second half with a bold timeline."""
        moves = WHOLE // (self.line.elements + 1)
        for i in range(moves):
            if self.best.cost < BROKEN or stop():
                break
            if i == moves // 2 and self.layout.fixed:
                self.line.bold = True
                self._back()
            self.step(self.best.cost * RESTLESS)
        return self.best

    def _back(self) -> None:
        self.now = self._laid(self.best.order, self.best.machine)
        self.chain = self._causes()

    def step(self, temperature: float) -> None:
        """One move, kept if it is better or by chance."""
        made = self._neighbour()
        self.moves_done += 1
        if made is None:
            return
        plan = self._laid(*made)
        worse = plan.cost - self.now.cost
        if worse <= 0 or self.rng.random() < math.exp(-worse / max(temperature, 1e-9)):
            self.now = plan
            self.chain = self._causes()
            if plan.cost < self.best.cost:
                self.best = plan

    def _causes(self) -> list[int]:
        """From what breaks a rule or is late back to the start of the plan: each waits for the one behind it in this list."""
        line, layout = self.line, self.layout
        ends = [line.end[layout.last_of(j)] for j in range(len(layout.first))]
        late = [j for j, due in enumerate(layout.due) if due is not None and ends[j] > due and layout.weight[j] > 0]
        if line.breaker >= 0:
            x = line.breaker
        elif late and self.rng.random() < 0.6:
            x = layout.last_of(late[int(self.rng.random() * len(late))])
        else:
            x = layout.last_of(max(range(len(ends)), key=lambda j: (ends[j], j)))
        chain = []
        while x >= 0:
            chain.append(x)
            x = line.cause[x]
        return chain

    def _neighbour(self) -> tuple[list[int], list[int]] | None:
        rng = self.rng
        if rng.random() < AT_RANDOM:
            x = self.now.order[int(rng.random() * len(self.now.order))]
        else:
            x = self.chain[int(rng.random() * len(self.chain))]
        if x in self.layout.fixed:
            return None
        if x < self.line.n and len(self.layout.choices[x]) > 1 and rng.random() < 0.5:
            return self._elsewhere(x)
        return self._reordered(x)

    def _elsewhere(self, x: int) -> tuple[list[int], list[int]] | None:
        """x on another of its machines, a little earlier or later in the order."""
        rng, now = self.rng, self.now
        others = [k for k, _ in self.layout.choices[x] if k != now.machine[x]]
        machine = now.machine[:]
        machine[x] = others[int(rng.random() * len(others))]
        there = [y for y in now.order if machine[y] == machine[x]]
        place = there.index(x)
        low, high = max(0, place - 3), min(len(there) - 1, place + 2)
        y = there[low + int(rng.random() * (high - low + 1))]
        if y == x:
            return now.order, machine
        order = self.moved(x, y)
        return None if order is None else (order, machine)

    def _reordered(self, x: int) -> tuple[list[int], list[int]] | None:
        """x past one or a few neighbours on its machine, earlier more often than later."""
        rng, now = self.rng, self.now
        k = now.machine[x]
        there = [y for y in now.order if now.machine[y] == k]
        place = there.index(x)
        steps = 1 if rng.random() < 0.6 else 1 + int(rng.random() * 5)
        to = place - steps if rng.random() < 0.6 else place + steps
        to = max(0, min(len(there) - 1, to))
        if to == place:
            return None
        order = self.moved(x, there[to])
        return None if order is None else (order, now.machine)

    def moved(self, x: int, y: int) -> list[int] | None:
        """The order with x right before y if y is earlier, else right behind it; steps of x's own job, and of jobs that wait
        for it or that it waits for, move along. None if y is one of these."""
        order, job_of, n = self.now.order, self.layout.job_of, self.line.n
        kin = self.kin[job_of[x]] if x < n else ()
        if y < n and job_of[y] in kin:
            return None
        at, to = order.index(x), order.index(y)
        low, high = (to, at) if to < at else (at, to)
        own: list[int] = []
        other: list[int] = []
        for z in order[low : high + 1]:
            (own if z == x or (z < n and job_of[z] in kin) else other).append(z)
        part = own + other if to < at else other + own
        return order[:low] + part + order[high + 1 :]
