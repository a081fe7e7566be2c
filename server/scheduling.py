"""The server's scheduler: constraint programming (OR-Tools CP-SAT) for everything a Shop can say.

    schedule = solve(shop, budget_s=30)

Each operation is one start and, for each machine that can do it, an optional interval; a machine's intervals, closed times
and fixed work do not overlap; set-ups follow a circuit through the operations that need one; maintenance is an interval with
its window. Times are divided by their greatest common divisor. The plan found is laid again as early as its order allows.
Laborie et al. 2018, IBM ILOG CP optimizer for scheduling; Perron and Didier, CP-SAT."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from protocol.errors import NeedsPerson, Reason, Refused, TryLater
from protocol.maintenance_windows import window_costs
from protocol.names import stable_id
from protocol.reports import ModelRef
from protocol.schedules import Maintenance, Placed, PlacedMaintenance, Schedule, Shop
from protocol.shop_check import figures, lower_bound, problems, violations
from protocol.shop_replay import SetupTimes, earliest, read_off

Progress = Callable[[float, float], None]
"""Told the share of the time used (0..1) and the cost in ms of the best plan so far (infinite: none yet)."""
MOST_ARCS = 400_000
BLAME_S = 3.0
FIRST_PLAN_S = 10.0
"""How much longer than asked is searched while there is no plan at all."""


def solve(
    shop: Shop,
    budget_s: float = 30,
    workers: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    hint: Schedule | None = None,
    now_ms: int | None = None,
) -> Schedule:
    """The best plan found in `budget_s`; sooner if it is proven best or `stop()` says so. `hint`: a plan to start from, and
    the answer if nothing better is found. Raises Refused, naming the constraint, if no plan exists; TryLater if none was
    found in the time; NeedsPerson if OR-Tools is not installed."""
    check(shop)
    usable = hint is not None and not violations(shop, hint)
    started = time.perf_counter()
    model = _Model(shop)
    if hint is not None:
        model.hint(hint)
    run = _Run(model, budget_s, workers, seed)
    run.watch(progress, stop)
    if run.status == "UNKNOWN" and not usable and not (stop is not None and stop()):
        run = _Run(model, FIRST_PLAN_S, workers, seed, first=True)
        run.watch(progress, stop)
    if run.status == "INFEASIBLE":
        raise blame(shop, workers, seed)
    if not run.found:
        if hint is None or not usable:
            raise TryLater(f"no plan was found in {time.perf_counter() - started:.1f} s: give more seconds")
        placed, kept = hint.placed, hint.maintenance
    else:
        placed, kept = run.placed()
    if usable and hint is not None and figures(shop, hint.placed)[3] < figures(shop, placed)[3]:
        placed, kept = hint.placed, hint.maintenance
    return _answer(shop, placed, kept, run, time.perf_counter() - started, shop.start_ms if now_ms is None else now_ms)


def check(shop: Shop) -> None:
    """Raises Refused with the first thing that makes the shop impossible."""
    found = problems(shop)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise Refused(Reason.NOT_ELIGIBLE, f"infeasible schedule: {found[0]}{more}")


def blame(shop: Shop, workers: int = 2, seed: int = 0) -> Refused:
    """The refusal of a shop without any plan: which single constraint, or which kind, stands in the way of one."""
    for what, remedy, relaxed in _relaxations(shop):
        run = _Run(_Model(relaxed, goal=False), BLAME_S, workers, seed)
        run.watch(None, None)
        if run.found:
            return Refused(Reason.NOT_ELIGIBLE, f"infeasible schedule: without {what} there is a plan; {remedy}")
    return Refused(Reason.NOT_ELIGIBLE, "infeasible schedule: windows, fixed work and closed times exclude one another")


def _relaxations(shop: Shop) -> Iterator[tuple[str, str, Shop]]:
    without = msgspec.structs.replace
    for m in shop.maintenance[:20]:
        rest = [other for other in shop.maintenance if other.id != m.id]
        yield f"maintenance {m.id!r} on {m.machine!r}", "widen its window", without(shop, maintenance=rest)
    for name in sorted({c.machine for c in shop.closed})[:20]:
        rest_closed = [c for c in shop.closed if c.machine != name]
        yield f"the closed times of {name!r}", "open it sooner or free fixed work", without(shop, closed=rest_closed)
    if shop.maintenance:
        yield "the maintenance windows", "widen them", without(shop, maintenance=[])
    if shop.closed:
        yield "the closed times", "open the machines sooner or free fixed work", without(shop, closed=[])
    if shop.fixed:
        yield "the fixed work", "free some of it", without(shop, fixed=[])


def _answer(
    shop: Shop, placed: list[Placed], kept: list[PlacedMaintenance], run: _Run, seconds: float, now_ms: int
) -> Schedule:
    placed, kept = earliest(shop, placed, kept)
    end, tardiness, late, _ = figures(shop, placed)
    # the judge allows orders of steps without duration that the circuits do not: with such steps nothing is proven
    timeless = any(c.duration_ms == 0 for job in shop.jobs for o in job.operations for c in o.choices)
    proven = run.status == "OPTIMAL" and not timeless
    how_en, how_zh = "no bound is known", "没有已知下界"
    if proven:
        how_en, how_zh = "proven best", "已证明最优"
    elif timeless:
        how_en, how_zh = "steps without duration, so that no bound is claimed", "含零时长工序，不声明下界"
    elif math.isfinite(run.gap):
        how_en = f"at most {100 * run.gap:.1f} % above the least possible cost"
        how_zh = f"最多比可能的最低代价高 {100 * run.gap:.1f} %"
    frame = Schedule(
        id=stable_id(
            "schedule", now_ms, "cp-sat", *(f"{p.job}/{p.operation}/{p.machine}/{p.start_ms}" for p in placed)
        ),
        issued_ms=now_ms,
        start_ms=shop.start_ms,
        end_ms=end,
        tardiness_ms=tardiness,
        placed=placed,
        because_en=f"CP-SAT, {seconds:.1f} s: {len(placed)} operations, {len(late)} jobs late; {how_en}",
        because_zh=f"CP-SAT，{seconds:.1f} 秒：{len(placed)} 道工序，{len(late)} 个作业延迟；{how_zh}",
        solver=ModelRef("schedule", "cp-sat"),
    )
    made = read_off(shop, placed, kept, frame=frame, bound_ms=shop.start_ms if timeless else run.bound_ms)
    made = msgspec.structs.replace(made, maintenance=window_costs(shop, made))
    broken = violations(shop, made)
    if broken:
        raise NeedsPerson(f"the solver's plan breaks a rule: {broken[0]}; report this instance")
    return made


def cp_model() -> Any:
    """The solver's module, imported only where it is used. Raises NeedsPerson if it is absent."""
    try:
        from ortools.sat.python import cp_model as found
    except ImportError as error:
        raise NeedsPerson(
            "CP-SAT needs ortools: pip install 'millwright[schedule]', or use the gateway's scheduler (--solver gateway)"
        ) from error
    return found


@dataclass(frozen=True)
class _Option:
    """One machine that may do a step: `chosen` is True or a literal; `begin` is its start less its set-up."""

    machine: str
    chosen: Any
    took: int


class _Model:
    """The variables by operation. `unit`: ms that one unit of the solver's time stands for."""

    def __init__(self, shop: Shop, *, goal: bool = True) -> None:
        self.cp = cp_model()
        self.shop, self.model = shop, self.cp.CpModel()
        self.jobs = {job.job: job for job in shop.jobs}
        self.fixed = {(p.job, p.operation): p for p in shop.fixed}
        self.unit, self.horizon = _unit_and_horizon(shop)
        self.start: dict[tuple[str, int], Any] = {}
        self.end: dict[tuple[str, int], Any] = {}
        self.setup: dict[tuple[str, int, str], Any] = {}
        self.options: dict[tuple[str, int], list[_Option]] = {}
        self.upkeep: dict[str, Any] = {}
        self._on: dict[str, list[Any]] = defaultdict(list)
        self._nodes: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self._setups = SetupTimes(shop)
        self._changes = _machines_with_setups(shop)
        self._steps()
        self._order()
        self._machines()
        self._circuits()
        self.timed = [job for job in shop.jobs if job.due_ms is not None and job.weight > 0]
        self.scale = 1.0
        if goal:
            self._goal()

    def at(self, time_ms: int) -> int:
        """A time as the solver counts it."""
        return (time_ms - self.shop.start_ms) // self.unit

    def ms(self, time: int) -> int:
        """The solver's time in ms."""
        return time * self.unit + self.shop.start_ms

    def hint(self, plan: Schedule) -> None:
        """A plan to start from."""
        for p in plan.placed:
            key = (p.job, p.operation)
            if key in self.start and key not in self.fixed:
                self.model.add_hint(self.start[key], min(max(self.at(p.start_ms), 0), self.horizon))
                for option in self.options[key]:
                    if option.chosen is not True:
                        self.model.add_hint(option.chosen, option.machine == p.machine)
        for m in plan.maintenance:
            if m.id in self.upkeep:
                self.model.add_hint(self.upkeep[m.id], self.at(m.start_ms))

    def _steps(self) -> None:
        for job in self.shop.jobs:
            release = max(self.at(job.release_ms), 0)
            for k, operation in enumerate(job.operations):
                key = (job.job, k)
                if key in self.fixed:
                    self._stay(key, self.fixed[key])
                    continue
                took = [c.duration_ms // self.unit for c in operation.choices]
                start = self.model.new_int_var(release, self.horizon, "")
                self.start[key] = start
                if len(took) == 1:
                    self.end[key] = start + took[0]
                    chosen: list[Any] = [True]
                else:
                    self.end[key] = self.model.new_int_var(release, self.horizon, "")
                    chosen = [self.model.new_bool_var("") for _ in took]
                    self.model.add_exactly_one(chosen)
                self.options[key] = [
                    _Option(c.machine, lit, t) for c, lit, t in zip(operation.choices, chosen, took, strict=True)
                ]
                for option in self.options[key]:
                    self._on[option.machine].append(self._interval(key, option))

    def _stay(self, key: tuple[str, int], placed: Placed) -> None:
        self.start[key], self.end[key] = self.at(placed.start_ms), self.at(placed.end_ms)
        self.options[key] = [_Option(placed.machine, True, self.end[key] - self.start[key])]
        if self._family(key):
            self._nodes[placed.machine].append(key)

    def _interval(self, key: tuple[str, int], option: _Option) -> Any:
        start, end, model = self.start[key], self.end[key], self.model
        if not (option.machine in self._changes and self._family(key)):
            if option.chosen is True:
                return model.new_fixed_size_interval_var(start, option.took, "")
            return model.new_optional_interval_var(start, option.took, end, option.chosen, "")
        self._nodes[option.machine].append(key)
        most = max(s.duration_ms for s in self.shop.setups) // self.unit
        setup = model.new_int_var(0, most, "")
        begin = model.new_int_var(0, self.horizon, "")
        self.setup[(*key, option.machine)] = setup
        if option.chosen is True:
            model.add(begin == start - setup)
            return model.new_interval_var(begin, setup + option.took, end, "")
        model.add(begin == start - setup).only_enforce_if(option.chosen)
        model.add(setup == 0).only_enforce_if(~option.chosen)
        model.add(end == start + option.took).only_enforce_if(option.chosen)
        return model.new_optional_interval_var(begin, setup + option.took, end, option.chosen, "")

    def _family(self, key: tuple[str, int]) -> str:
        return self.jobs[key[0]].operations[key[1]].family

    def _order(self) -> None:
        for job in self.shop.jobs:
            for k in range(1, len(job.operations)):
                self._before((job.job, k - 1), (job.job, k))
            for name in job.after:
                self._before((name, len(self.jobs[name].operations) - 1), (job.job, 0))

    def _before(self, first: tuple[str, int], second: tuple[str, int]) -> None:
        if second in self.fixed and (first in self.fixed or second[1] == 0):
            return
        self.model.add(self.end[first] <= self.start[second])

    def _machines(self) -> None:
        closed: dict[str, list[tuple[int, int]]] = defaultdict(list)
        fixed: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for c in self.shop.closed:
            closed[c.machine].append((self.at(c.start_ms), self.at(c.end_ms)))
        for p in self.shop.fixed:
            fixed[p.machine].append((self.at(p.start_ms - p.setup_ms), self.at(p.end_ms)))
        by_machine: dict[str, list[Maintenance]] = defaultdict(list)
        for m in self.shop.maintenance:
            by_machine[m.machine].append(m)
        for name in sorted({*self._on, *by_machine}):
            stays = self._walls(fixed[name])
            upkeep = [self._upkeep(m) for m in by_machine[name]]
            if len(self._on[name]) + len(upkeep) + len(stays) > 1:
                self.model.add_no_overlap([*self._on[name], *upkeep, *stays])
            if closed[name] and self._on[name]:
                self.model.add_no_overlap([*self._on[name], *self._walls([*closed[name], *fixed[name]])])

    def _walls(self, spans: list[tuple[int, int]]) -> list[Any]:
        joined: list[tuple[int, int]] = []
        for start, end in sorted((max(s, 0), e) for s, e in spans if e > max(s, 0)):
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return [self.model.new_fixed_size_interval_var(s, e - s, "") for s, e in joined]

    def _upkeep(self, m: Maintenance) -> Any:
        self.upkeep[m.id] = self.model.new_int_var(max(self.at(m.earliest_ms), 0), self.at(m.latest_ms), "")
        return self.model.new_fixed_size_interval_var(self.upkeep[m.id], m.duration_ms // self.unit, "")

    def _circuits(self) -> None:
        """On each machine with set-ups, one way through the steps that need one; the machine's first state is node 0."""
        nodes = {name: keys for name, keys in self._nodes.items() if name in self._changes and keys}
        arcs = sum(len(keys) ** 2 for keys in nodes.values())
        if arcs > MOST_ARCS:
            raise NeedsPerson(f"{arcs} changes between steps with set-ups, at most {MOST_ARCS}: use --solver gateway")
        for name, keys in nodes.items():
            self._circuit(name, keys)

    def _circuit(self, name: str, keys: list[tuple[str, int]]) -> None:
        new, arcs = self.model.new_bool_var, []
        present = [next(o.chosen for o in self.options[key] if o.machine == name) for key in keys]
        if not any(p is True for p in present):
            idle = new("")
            arcs.append((0, 0, idle))
            for literal in present:
                self.model.add_implication(idle, ~literal)
        for j, key in enumerate(keys):
            if present[j] is not True:
                arcs.append((j + 1, j + 1, ~present[j]))
            arcs.append((j + 1, 0, new("")))
            for i, before in enumerate([None, *keys]):
                if i == j + 1:
                    continue
                arc = new("")
                if self._change(name, before, key, arc):
                    arcs.append((i, j + 1, arc))
        self.model.add_circuit(arcs)

    def _change(self, name: str, before: tuple[str, int] | None, key: tuple[str, int], arc: Any) -> bool:
        """`arc` says that `key` follows `before`; False if that cannot be."""
        if before is not None and before[0] == key[0] and before[1] > key[1]:
            return False  # steps without duration could otherwise change places
        needs = self._setups.needed(name, self._family(before) if before else "", self._family(key)) // self.unit
        if key in self.fixed:
            if before is None or before in self.fixed:
                return before is None or self.end[before] <= self.start[key]
            if needs > self.fixed[key].setup_ms // self.unit:
                return False
        else:
            self.model.add(self.setup[(*key, name)] == needs).only_enforce_if(arc)
            if before is None:
                return True
        if before is not None:
            behind = self.fixed[key].setup_ms // self.unit if key in self.fixed else needs
            if before[0] != key[0] and not self._took(before, name) and not self._took(key, name):
                behind = max(behind, 1)  # two steps without duration at one time have no order that all agree on
            self.model.add(self.start[key] >= self.end[before] + behind).only_enforce_if(arc)
        return True

    def _loads(self) -> None:
        """What follows from the rest and is found late: the span is at least each machine's work and the shop's bound."""
        self.model.add(self.span >= -(-(lower_bound(self.shop) - self.shop.start_ms) // self.unit))
        if self.fixed:
            return  # may have been worked before the start
        work: dict[str, list[Any]] = defaultdict(list)
        for options in self.options.values():
            for option in options:
                work[option.machine].append(option.took if option.chosen is True else option.took * option.chosen)
        for terms in work.values():
            self.model.add(self.span >= sum(terms))

    def _took(self, key: tuple[str, int], name: str) -> int:
        return next(o.took for o in self.options[key] if o.machine == name)

    def _goal(self) -> None:
        last = {job.job: self.end[(job.job, len(job.operations) - 1)] for job in self.shop.jobs}
        self.span = self.model.new_int_var(0, self.horizon, "")
        for end in last.values():
            self.model.add(self.span >= end)
        self._loads()
        if not self.timed:
            self.model.minimize(self.span)
            return
        self.scale = _scale([job.weight for job in self.timed], self.horizon)
        cost = max(round(self.scale), 1) * self.span
        for job in self.timed:
            late = self.model.new_int_var(0, self.horizon + max(-self.at(job.due_ms or 0), 0), "")
            self.model.add(late >= last[job.job] - self.at(job.due_ms or 0))
            cost += max(round(job.weight * self.scale), 1) * late
        self.model.minimize(cost)


class _Run:
    """One search, in a thread of its own so that whoever waits can stop it."""

    def __init__(self, model: _Model, budget_s: float, workers: int, seed: int, *, first: bool = False) -> None:
        self.model, self.budget_s = model, budget_s
        self._solver = model.cp.CpSolver()
        self._solver.parameters.max_time_in_seconds = max(budget_s, 0.01)
        self._solver.parameters.num_workers = workers
        self._solver.parameters.random_seed = seed
        self._solver.parameters.catch_sigint_signal = False
        self._solver.parameters.stop_after_first_solution = first
        self.status = "UNKNOWN"
        self._best = math.inf

    @property
    def found(self) -> bool:
        """There is a plan."""
        return self.status in ("OPTIMAL", "FEASIBLE")

    @property
    def bound_ms(self) -> int:
        """Before when no plan can end; the shop's start if nothing is known."""
        if self.model.timed or not self.found:
            return self.model.shop.start_ms
        return self.model.ms(max(math.ceil(self._solver.best_objective_bound - 1e-6), 0))

    @property
    def gap(self) -> float:
        """How far the best cost may at most be above the least possible one, as a share of that."""
        if not self.found:
            return math.inf
        least = self._solver.best_objective_bound
        return max(self._solver.objective_value / least - 1, 0.0) if least > 0 else math.inf

    def watch(self, progress: Progress | None, stop: Callable[[], bool] | None) -> None:
        """Searches until the time is over, the best is proven or `stop()`."""
        thread = threading.Thread(target=self._search, daemon=True)
        started = time.perf_counter()
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.1)
                if progress is not None:
                    progress(min((time.perf_counter() - started) / max(self.budget_s, 0.01), 1.0), self._best)
                if stop is not None and stop():
                    self._solver.stop_search()
        finally:
            self._solver.stop_search()
            thread.join()

    def placed(self) -> tuple[list[Placed], list[PlacedMaintenance]]:
        """The plan as the solver left it."""
        value, model = self._solver.value, self.model
        placed = [*model.shop.fixed]
        for (name, k), options in model.options.items():
            if (name, k) in model.fixed:
                continue
            option = next(o for o in options if o.chosen is True or self._solver.boolean_value(o.chosen))
            start = value(model.start[(name, k)])
            setup = model.setup.get((name, k, option.machine))
            placed.append(
                Placed(
                    job=name,
                    operation=k,
                    machine=option.machine,
                    start_ms=model.ms(start),
                    end_ms=model.ms(start + option.took),
                    setup_ms=0 if setup is None else value(setup) * model.unit,
                )
            )
        upkeep = [
            PlacedMaintenance(
                id=m.id,
                machine=m.machine,
                start_ms=model.ms(value(model.upkeep[m.id])),
                end_ms=model.ms(value(model.upkeep[m.id])) + m.duration_ms,
                because=m.because,
            )
            for m in model.shop.maintenance
        ]
        return placed, upkeep

    def _search(self) -> None:
        watcher = _told(self.model.cp, self)
        self.status = self._solver.status_name(self._solver.solve(self.model.model, watcher))

    def tell(self, objective: float) -> None:
        """A better plan was found."""
        self._best = objective * self.model.unit / max(round(self.model.scale), 1)


def _told(cp: Any, run: _Run) -> Any:
    class Told(cp.CpSolverSolutionCallback):  # type: ignore[misc]
        def on_solution_callback(self) -> None:
            run.tell(self.objective_value)

    return Told()


def _machines_with_setups(shop: Shop) -> set[str]:
    names = {c.machine for job in shop.jobs for o in job.operations if o.family for c in o.choices}
    timed = {s.machine for s in shop.setups if s.duration_ms}
    return names if "*" in timed else names & timed


def _unit_and_horizon(shop: Shop) -> tuple[int, int]:
    zero = shop.start_ms
    longest = [max(c.duration_ms for c in o.choices) for job in shop.jobs for o in job.operations]
    setup = max((s.duration_ms for s in shop.setups), default=0)
    marks = [job.release_ms - zero for job in shop.jobs if job.release_ms > zero]
    marks += [job.due_ms - zero for job in shop.jobs if job.due_ms is not None]
    marks += [t - zero for c in shop.closed for t in (c.start_ms, c.end_ms)]
    marks += [t - zero for m in shop.maintenance for t in (m.earliest_ms, m.latest_ms)]
    marks += [t - zero for p in shop.fixed for t in (p.start_ms, p.end_ms)]
    lengths = [c.duration_ms for job in shop.jobs for o in job.operations for c in o.choices]
    lengths += [s.duration_ms for s in shop.setups] + [m.duration_ms for m in shop.maintenance]
    lengths += [p.setup_ms for p in shop.fixed]
    unit = math.gcd(*marks, *lengths) or 1
    span = sum(longest) + setup * len(longest) + sum(m.duration_ms for m in shop.maintenance)
    # every closed time may cost the pause before it, too short for a step
    pauses = len(shop.closed) * (max(longest, default=0) + setup)
    return unit, (max([*marks, 0]) + span + pauses) // unit + 1


def _scale(weights: list[float], horizon: int) -> float:
    """What weights are multiplied with to be whole numbers, as far as 64 bits allow."""
    wanted = 1.0 if all(w == int(w) for w in weights) else 1000.0
    return min(wanted, 2.0**60 / max(2 * horizon * (sum(weights) + 1), 1))
