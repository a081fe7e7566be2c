"""A plan laid again with the same machines and the same order on each, everything as early as that allows. No search."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from protocol.schedules import Maintenance, Placed, PlacedMaintenance, Schedule, Shop
from protocol.shop_check import critical_path, figures, lower_bound, risk_at

Spans = list[tuple[int, int]]


def earliest(
    shop: Shop, placed: Sequence[Placed], maintenance: Sequence[PlacedMaintenance]
) -> tuple[list[Placed], list[PlacedMaintenance]]:
    """The same plan without waiting that nothing demands. `placed` must be feasible for the shop, or for one that allows
    less; operations sorted as schedules are, maintenance by (start, machine, id). Fixed operations stay."""
    replay, rank = _Replay(shop), _ranks(shop)
    rows: list[tuple[tuple[int, int, int, int], Placed | PlacedMaintenance]] = []
    rows += [((p.start_ms, p.end_ms, rank[p.job], p.operation), p) for p in placed]
    rows += [((m.start_ms, m.end_ms, -1, n), m) for n, m in enumerate(maintenance)]
    for _, row in sorted(rows, key=lambda r: r[0]):
        if isinstance(row, Placed):
            replay.put(row)
        else:
            replay.keep(row)
    return (
        sorted(replay.placed, key=lambda p: (p.start_ms, p.machine, p.job, p.operation)),
        sorted(replay.maintenance, key=lambda m: (m.start_ms, m.machine, m.id)),
    )


def read_off(
    shop: Shop, placed: list[Placed], maintenance: list[PlacedMaintenance], *, frame: Schedule, bound_ms: int
) -> Schedule:
    """`frame` (its id, words and solver) with this plan, its figures and its critical path."""
    end, tardiness, late, _ = figures(shop, placed)
    made = msgspec.structs.replace(
        frame,
        start_ms=shop.start_ms,
        end_ms=end,
        bound_ms=min(max(bound_ms, lower_bound(shop)), end),
        tardiness_ms=tardiness,
        late_jobs=late,
        placed=placed,
        maintenance=maintenance,
        closed=[c for c in shop.closed if c.start_ms < end and c.end_ms > shop.start_ms][:2000],
        critical=[],
    )
    return msgspec.structs.replace(made, critical=critical_path(shop, made))


def _ranks(shop: Shop) -> dict[str, int]:
    """A place for each job behind those it comes after; what takes no time is laid in this order."""
    followers: dict[str, list[str]] = {job.job: [] for job in shop.jobs}
    waits = {job.job: len(set(job.after)) for job in shop.jobs}
    for job in shop.jobs:
        for name in set(job.after):
            followers[name].append(job.job)
    order = [name for name, count in waits.items() if count == 0]
    for name in order:
        for follower in followers[name]:
            waits[follower] -= 1
            if waits[follower] == 0:
                order.append(follower)
    return {name: n for n, name in enumerate(order)}


class SetupTimes:
    """Set-up in ms by machine and families: the machine's own entry, else that of every machine, else 0."""

    def __init__(self, shop: Shop) -> None:
        self._own = {(s.machine, s.before, s.after): s.duration_ms for s in shop.setups}

    def needed(self, machine: str, before: str, after: str) -> int:
        """From family `before` ("": the first state) to `after` ("": needs none)."""
        if not after or after == before:
            return 0
        return self._own.get((machine, before, after), self._own.get(("*", before, after), 0))


class _Replay:
    def __init__(self, shop: Shop) -> None:
        self._shop, self._setups = shop, SetupTimes(shop)
        self._jobs = {job.job: job for job in shop.jobs}
        self._fixed = {(p.job, p.operation) for p in shop.fixed}
        self._windows: dict[str, Maintenance] = {m.id: m for m in shop.maintenance}
        self._closed: dict[str, Spans] = {}
        for c in sorted(shop.closed, key=lambda c: (c.start_ms, c.end_ms)):
            if c.end_ms > c.start_ms:
                self._closed.setdefault(c.machine, []).append((c.start_ms, c.end_ms))
        self._free: dict[str, int] = {}
        self._family: dict[str, str] = {}
        self._ends: dict[tuple[str, int], int] = {}
        self.placed: list[Placed] = []
        self.maintenance: list[PlacedMaintenance] = []

    def put(self, p: Placed) -> None:
        """An operation, behind what its machine has."""
        job = self._jobs[p.job]
        family = job.operations[p.operation].family
        if (p.job, p.operation) not in self._fixed:
            setup = self._setups.needed(p.machine, self._family.get(p.machine, ""), family)
            start = max(self._ready(p), self._free.get(p.machine, self._shop.start_ms) + setup)
            start = self._open(p.machine, start, setup, p.end_ms - p.start_ms)
            p = msgspec.structs.replace(p, start_ms=start, end_ms=start + p.end_ms - p.start_ms, setup_ms=setup)
        self._free[p.machine] = max(p.end_ms, self._free.get(p.machine, self._shop.start_ms))
        if family:
            self._family[p.machine] = family
        self._ends[(p.job, p.operation)] = p.end_ms
        self.placed.append(p)

    def keep(self, m: PlacedMaintenance) -> None:
        """A maintenance, in its window; one that is no longer asked for is left out."""
        window = self._windows.get(m.id)
        if window is None:
            return
        free = self._free.get(m.machine, self._shop.start_ms)
        start = max(free, window.earliest_ms)
        self._free[m.machine] = start + window.duration_ms
        self.maintenance.append(
            msgspec.structs.replace(
                m, start_ms=start, end_ms=start + window.duration_ms, risk_before=risk_at(window, start)
            )
        )

    def _ready(self, p: Placed) -> int:
        job = self._jobs[p.job]
        ready = max(job.release_ms, self._shop.start_ms)
        if p.operation:
            return max(ready, self._ends[(p.job, p.operation - 1)])
        return max([ready, *(self._ends[(n, len(self._jobs[n].operations) - 1)] for n in job.after)])

    def _open(self, machine: str, start: int, setup: int, took: int) -> int:
        for opens, closes in self._closed.get(machine, ()):
            if closes > start - setup and opens < start + took:
                start = closes + setup
        return start
