"""Serial generation with calendars: operations are put, one after another, at the earliest time their machine offers behind
what it has already: set-up directly before, closed times and fixed work respected, maintenance inside its window.
Where set-ups matter, work goes into a gap before fixed work only if the set-up of that one stays right
(`bold`: or can be made right by what still comes between).

Elements are operations 0..n-1 and maintenance n, n+1, ... A maintenance is put when its turn comes, earlier where it fits
into a pause without delaying anything, and at the latest before an operation that would push it out of its window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_agent.skills.schedule.layout import Layout, Spans, joined

BROKEN = 1e12
"""Cost of a broken window or a missed fixed start, and per millisecond of it: more than any plan."""
AT_LAST = 1 << 60


@dataclass(frozen=True, slots=True)
class Stay:
    """Fixed work of a machine with set-ups, from its own set-up on. `wants`: the next family from here on and the set-up
    that is fixed for it."""

    element: int
    begin: int
    end: int
    family: str
    wants: tuple[str, int] | None

    def allows(self, family: str, table: Mapping[tuple[str, str], int]) -> bool:
        """Whether the machine may be set up for this family when the fixed work comes."""
        if self.wants is None or self.wants[0] == family:
            return True
        return table.get((family, self.wants[0]), 0) <= self.wants[1]


class Timeline:
    """The plan so far. `start`, `end`, `setup`: by element; `cause[x]`: the element that x waits for, or -1; `trail`: the
    elements in the order put; `breaks`, `breaker`: the rule that was broken last, and by which element; `bold`:
    work goes before fixed work even if another step must still set the machine up for that one."""

    def __init__(self, layout: Layout, since: int = 0, done: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Nothing new begins before `since`; `done`: start and end of maintenance (by id) that has begun and stays."""
        self.layout, self.n, self.since, self.done = layout, layout.n, since, done or {}
        self.bold = False
        self.upkeep = [m for of_machine in layout.upkeep for m in of_machine]
        self.upkeep_on = [k for k, of_machine in enumerate(layout.upkeep) for _ in of_machine]
        zero = layout.shop.start_ms
        self.window = [(m.earliest_ms - zero, m.latest_ms - zero, m.duration_ms) for m in self.upkeep]
        self.durations = [dict(options) for options in layout.choices]
        self.changes = [any(table.values()) for table in layout.setups]
        self.taken, self.walls = self._walls()
        self.stays = [self._staying(k) if changes else [] for k, changes in enumerate(self.changes)]
        self.pending0: list[list[int]] = [[] for _ in layout.machines]
        for i, k in enumerate(self.upkeep_on):
            if self.upkeep[i].id not in self.done:
                self.pending0[k].append(self.n + i)
        self.prior = [-1 if x == layout.first[j] else x - 1 for x, j in enumerate(layout.job_of)]
        self.waits = layout.waits
        self.reset()

    @property
    def elements(self) -> int:
        """Operations and maintenance together."""
        return self.n + len(self.upkeep)

    def reset(self) -> None:
        """Back to what is fixed."""
        size, zero = self.elements, self.layout.shop.start_ms
        self.start, self.end, self.setup = [0] * size, [0] * size, [0] * size
        self.cause, self.machine = [-1] * size, [-1] * size
        count = len(self.layout.machines)
        self.free, self.family = [self.since] * count, [""] * count
        self.passed, self.set_by = [0] * count, [-1] * count
        self.busy_with = [-1] * len(self.free)
        self.place_in = [0] * len(self.free)
        self.pending = [waiting[:] for waiting in self.pending0]
        self.trail: list[int] = []
        self.broken = 0.0
        self.breaks, self.breaker = "", -1
        for x, placed in self.layout.fixed.items():
            self.start[x], self.end[x] = placed.start_ms - zero, placed.end_ms - zero
            self.setup[x] = placed.setup_ms
        for i, m in enumerate(self.upkeep):
            if m.id in self.done:
                self.start[self.n + i], self.end[self.n + i] = self.done[m.id]

    def _walls(self) -> tuple[list[Spans], list[Spans]]:
        """Per machine, what stops maintenance (fixed work) and what stops operations (that and closed times)."""
        layout, zero = self.layout, self.layout.shop.start_ms
        number = {name: k for k, name in enumerate(layout.machines)}
        taken: list[Spans] = [[] for _ in layout.machines]
        for placed in layout.fixed.values():
            k = number.get(placed.machine)
            if k is not None:
                taken[k].append((placed.start_ms - placed.setup_ms - zero, placed.end_ms - zero))
        for i, m in enumerate(self.upkeep):
            if m.id in self.done:
                taken[self.upkeep_on[i]].append(self.done[m.id])
        taken = [joined(spans) for spans in taken]
        return taken, [joined([*a, *b]) for a, b in zip(taken, layout.closed, strict=True)]

    def _staying(self, k: int) -> list[Stay]:
        """Fixed work of a machine in its order."""
        layout, zero = self.layout, self.layout.shop.start_ms
        rows = [(x, p) for x, p in layout.fixed.items() if p.machine == layout.machines[k]]
        rows.sort(key=lambda row: (row[1].start_ms, row[1].end_ms, row[1].job, row[1].operation))
        out: list[Stay] = []
        wants: tuple[str, int] | None = None
        for x, p in reversed(rows):
            if layout.family[x]:
                wants = (layout.family[x], p.setup_ms)
            out.append(Stay(x, p.start_ms - p.setup_ms - zero, p.end_ms - zero, layout.family[x], wants))
        return out[::-1]

    def blocker(self, x: int) -> int:
        """The operation that x waits for in its job or in the jobs before; -1: none."""
        before = self.prior[x]
        if before < 0 and x in self.waits:
            return max(self.waits[x], key=self.end.__getitem__)
        return before

    def ready(self, x: int) -> int:
        """When its job, and the jobs before, allow operation x to begin."""
        release, before = self.layout.release[self.layout.job_of[x]], self.blocker(x)
        return release if before < 0 else max(self.end[before], release)

    def fit(self, x: int, k: int) -> tuple[int, int]:
        """The earliest start of operation x on machine k behind what is there, and the set-up before it."""
        before = self.prior[x]
        start = self.layout.release[self.layout.job_of[x]]
        if before >= 0:
            if self.end[before] > start:
                start = self.end[before]
        elif x in self.waits:
            start = self.ready(x)
        if self.stays[k]:
            return self._fit_gap(x, k, start)
        setup, duration = 0, self.durations[x][k]
        if self.changes[k]:
            family = self.layout.family[x]
            if family and family != self.family[k]:
                setup = self.layout.setups[k].get((self.family[k], family), 0)
            if not duration and family and self._at_once(self.set_by[k], x, max(start, self.free[k] + setup)):
                start = self.free[k] + setup + 1
        if self.free[k] + setup > start:
            start = self.free[k] + setup
        walls = self.walls[k]
        if walls:
            i, count = self.place_in[k], len(walls)
            while i < count:
                opens, closes = walls[i]
                if closes > start - setup:
                    if opens >= start + duration:
                        break
                    start = closes + setup
                i += 1
        return start, setup

    def _fit_gap(self, x: int, k: int, ready: int) -> tuple[int, int]:
        """`fit` on a machine with set-ups and fixed work: gap by gap."""
        family, duration, table = self.layout.family[x], self.durations[x][k], self.layout.setups[k]
        free, current, last = self.free[k], self.family[k], self.set_by[k]
        stays, i = self.stays[k], self.passed[k]
        while True:
            setup = table.get((current, family), 0) if family and family != current else 0
            start = free + setup if free + setup > ready else ready
            if not duration and family and self._at_once(last, x, start):
                start += 1
            start = self._open(k, start, setup, duration)
            if i == len(stays):
                return start, setup
            ahead = stays[i]
            before_it = start + duration <= ahead.begin and (duration or start < ahead.end)
            if before_it and (self.bold or not family or ahead.allows(family, table)):
                return start, setup
            free, i = max(free, ahead.end), i + 1
            if ahead.family:
                current, last = ahead.family, ahead.element

    def _at_once(self, last: int, x: int, start: int) -> bool:
        """Whether both take no time at one time, and the names would put x first: rows are read in order of time and name."""
        if last < 0 or not self.start[last] == self.end[last] == start:
            return False
        jobs, of = self.layout.shop.jobs, self.layout.job_of
        return (jobs[of[x]].job, x) < (jobs[of[last]].job, last)

    def _open(self, k: int, start: int, setup: int, duration: int) -> int:
        """The first start from this one on that walls allow."""
        walls = self.walls[k]
        i, count = self.place_in[k], len(walls)
        while i < count:
            opens, closes = walls[i]
            if closes > start - setup:
                if opens >= start + duration:
                    break
                start = closes + setup
            i += 1
        return start

    def put(self, x: int, k: int) -> None:
        """Element x goes to machine k."""
        if x >= self.n:
            if x in self.pending[k]:
                self._force(k, max(self.free[k], self.window[x - self.n][0]) + self.window[x - self.n][2], x)
                self._put_upkeep(x, k)
            return
        start, setup = self.fit(x, k)
        duration = self.durations[x][k]
        if self.pending[k] and self._make_room(k, start, setup, duration):
            start, setup = self.fit(x, k)
        before, behind = self.prior[x], self.free[k] + setup
        if before < 0 and x in self.waits:
            before = self.blocker(x)
        if before >= 0 and self.end[before] >= behind:
            self.cause[x] = before
        elif behind > self.layout.release[self.layout.job_of[x]]:
            self.cause[x] = self.busy_with[k]
        if self.stays[k]:
            self._pass(k, start - setup)
        self._take(x, k, start, start + duration)
        self.setup[x] = setup
        if self.layout.family[x]:
            self.family[k], self.set_by[k] = self.layout.family[x], x

    def _pass(self, k: int, begin: int) -> None:
        """The machine is set up for the fixed work that ended before."""
        stays, i = self.stays[k], self.passed[k]
        while i < len(stays) and stays[i].end <= begin:
            if stays[i].family:
                if self.set_by[k] not in self.layout.fixed and self.family[k]:
                    self._check_set_up(k, stays[i])
                self.family[k], self.set_by[k] = stays[i].family, stays[i].element
            i += 1
        self.passed[k] = i

    def _check_set_up(self, k: int, stay: Stay) -> None:
        """Breaks the plan if what is new before fixed work leaves it too short a set-up."""
        if stay.allows(self.family[k], self.layout.setups[k]):
            return
        self.broken += 1
        self.breaker = self.set_by[k]
        job = self.layout.shop.jobs[self.layout.job_of[stay.element]].job
        self.breaks = f"fixed work of job {job!r} needs the machine set up for {stay.family!r}"

    def _take(self, x: int, k: int, start: int, end: int) -> None:
        self.start[x], self.end[x], self.machine[x] = start, end, k
        self.free[k], self.busy_with[k] = end, x
        self.trail.append(x)
        walls, i = self.walls[k], self.place_in[k]
        while i < len(walls) and walls[i][1] <= end:
            i += 1
        self.place_in[k] = i

    def _make_room(self, k: int, start: int, setup: int, duration: int) -> bool:
        """Puts waiting maintenance that fits before the operation or would come too late after it; True if any was put."""
        put = False
        for u in list(self.pending[k]):
            at = self._upkeep_start(u, k, self.free[k])
            if at + self.window[u - self.n][2] <= start - setup and at <= self.window[u - self.n][1]:
                self._put_upkeep(u, k)
                put = True
        return self._force(k, start + duration, -1) or put

    def _force(self, k: int, until: int, besides: int) -> bool:
        """Puts maintenance now, first window first, while waiting until then would break a window."""
        put = False
        while True:
            at, late = until, False
            for u in self.pending[k]:
                if u != besides:
                    at = self._upkeep_start(u, k, at)
                    late = late or at > self.window[u - self.n][1]
                    at += self.window[u - self.n][2]
            if not late:
                return put
            first = next(u for u in self.pending[k] if u != besides)
            was = self.free[k]
            self._put_upkeep(first, k)
            until += self.free[k] - was
            put = True

    def _upkeep_start(self, u: int, k: int, free: int) -> int:
        earliest, _, duration = self.window[u - self.n]
        start = max(free, earliest)
        for opens, closes in self.taken[k]:
            if closes > start and opens < start + duration:
                start = closes
        return start

    def _put_upkeep(self, u: int, k: int) -> None:
        start = self._upkeep_start(u, k, self.free[k])
        _, latest, duration = self.window[u - self.n]
        self.cause[u] = self.busy_with[k] if start == self.free[k] else -1
        if start > latest:
            self.broken += start - latest
            name, machine = self.upkeep[u - self.n].id, self.layout.machines[k]
            self.breaks = f"maintenance {name!r} on {machine!r} cannot begin by its latest_ms"
            self.breaker = u
        self._pass(k, start)
        self._take(u, k, start, start + duration)
        self.pending[k].remove(u)

    def lay(self, order: Iterable[int], machine: list[int]) -> float:
        """Everything in this order on these machines; the cost."""
        self.reset()
        put = self.put
        for x in order:
            put(x, machine[x])
        return self.cost()

    def cost(self) -> float:
        """Makespan plus weighted lateness; broken windows outweigh all."""
        layout, end = self.layout, self.end
        if self.bold:
            for k in range(len(self.stays)):
                self._pass(k, AT_LAST)
        span, late = 0, 0.0
        for j in range(len(layout.first)):
            done = end[layout.last_of(j)]
            span = max(span, done)
            due = layout.due[j]
            if due is not None and done > due:
                late += layout.weight[j] * (done - due)
        broken = self.broken + self._missed()
        return span + late + (BROKEN * (1 + broken) if broken else 0.0)

    def _missed(self) -> float:
        """Milliseconds by which steps end after a later step of their job that is fixed."""
        missed = 0
        for x in self.layout.fixed:
            before = self.prior[x]
            if before >= 0 and before not in self.layout.fixed and self.end[before] > self.start[x]:
                missed += self.end[before] - self.start[x]
                self.breaker = before
                job = self.layout.shop.jobs[self.layout.job_of[x]]
                self.breaks = (
                    f"operation {before - self.layout.first[self.layout.job_of[x]]} of job {job.job!r} cannot end before "
                    "the fixed start of the next one"
                )
        return missed
