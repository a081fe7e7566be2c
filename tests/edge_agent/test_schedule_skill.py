"""What a gateway plans is feasible, good, repeatable, and mended without touching what has begun."""

from __future__ import annotations

import itertools
from random import Random

import msgspec
import pytest

from edge_agent.skills.schedule import repair, schedule
from edge_agent.skills.schedule.graph import Graph
from edge_agent.skills.schedule.layout import lay_out
from edge_agent.skills.schedule.search import Watch, improve
from edge_agent.skills.schedule.timeline import Timeline
from protocol.errors import Refused
from protocol.schedules import Choice, Closed, Maintenance, Operation, Placed, Setup, Shop, ShopJob
from protocol.shop_check import violations


class Ticks:
    """A clock that moves by a step each time it is read: a budget of readings, not of seconds."""

    def __init__(self, step: float = 0.01) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def made_shop(seed: int, *, jobs: int = 6, machines: int = 4, rich: bool = False, flexible: bool = False) -> Shop:
    """Random routings; `rich`: closed times, set-ups, maintenance, releases and due dates besides."""
    rng = Random(seed)
    names = [f"m{k}" for k in range(machines)]

    def operation(machine: str) -> Operation:
        where = rng.sample(names, rng.randint(1, 3)) if flexible else [machine]
        length = [0, *range(1, 20)]
        return Operation(
            choices=[Choice(m, rng.choice(length)) for m in where], family=rng.choice("ABC ").strip() * rich
        )

    made = [
        ShopJob(
            job=f"j{j}",
            operations=[operation(m) for m in rng.sample(names, machines)],
            release_ms=1000 + rng.randint(0, 20) * rich,
            due_ms=1000 + rng.randint(20, 90) if rich and rng.random() < 0.6 else None,
            weight=rng.choice([0.5, 1.0, 3.0]),
        )
        for j in range(jobs)
    ]
    if not rich:
        return Shop(jobs=made, start_ms=1000)
    closed = [Closed(machine=m, start_ms=1000 + s, end_ms=1000 + s + 7) for m in names for s in range(10, 400, 31)]
    setups = [
        Setup(machine="*", before=b, after=a, duration_ms=3) for b in ["", "A", "B", "C"] for a in "ABC" if a != b
    ]
    setups.append(Setup(machine="m0", before="A", after="B", duration_ms=6))
    upkeep = [Maintenance(id=f"u{m}", machine=m, duration_ms=8, earliest_ms=1015, latest_ms=1060) for m in names[:2]]
    upkeep.append(Maintenance(id="again", machine="m0", duration_ms=5, earliest_ms=1040, latest_ms=1090))
    return Shop(jobs=made, closed=closed, setups=setups, maintenance=upkeep, start_ms=1000)


@pytest.mark.parametrize("flexible", [False, True])
@pytest.mark.parametrize("rich", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_plan_breaks_no_rule(seed: int, rich: bool, flexible: bool) -> None:
    shop = made_shop(seed, rich=rich, flexible=flexible)
    for budget in (0.0, 1.0):
        plan = schedule(shop, 5, budget, seed, Ticks(0.02))
        assert violations(shop, plan) == []
        assert plan.placed == sorted(plan.placed, key=lambda p: (p.start_ms, p.machine, p.job, p.operation))
        assert plan.end_ms == max(p.end_ms for p in plan.placed)
        assert plan.bound_ms <= plan.end_ms


def test_the_best_plan_of_a_small_shop_is_found() -> None:
    shop = made_shop(3, jobs=3, machines=3)
    assert schedule(shop, 0, 1.0, 0, Ticks(0.005)).end_ms - shop.start_ms == best_by_trying(shop)


def best_by_trying(shop: Shop) -> int:
    """The makespan over all orders in which jobs may take turns: every active schedule is among them."""
    layout = lay_out(shop)
    line = Timeline(layout)
    machine = [c[0][0] for c in layout.choices]
    best = float("inf")
    for turns in set(itertools.permutations(layout.job_of)):
        step = list(layout.first)
        order = []
        for j in turns:
            order.append(step[j])
            step[j] += 1
        best = min(best, line.lay(order, machine))
    return int(best)


def test_heads_and_tails_stay_exact_over_many_moves() -> None:
    shop = made_shop(1, jobs=8, machines=5)
    layout = lay_out(shop)
    graph, fresh, rng = Graph(layout), Graph(layout), Random(4)
    found = improve(Timeline(layout), rng, Watch(0.0, Ticks(), lambda: False, None))
    graph.load([[x for x in found.order if found.machine[x] == k] for k in range(len(layout.machines))])
    for _ in range(500):
        x = rng.randrange(layout.n)
        if graph.next[x] < layout.n:
            y = graph.next[x]
            graph.move_after(x, y) if rng.random() < 0.5 else graph.move_before(y, x)
        assert fresh.load(graph.order())
        assert (fresh.end, fresh.tail[: layout.n], fresh.span) == (graph.end, graph.tail[: layout.n], graph.span)


@pytest.mark.parametrize("rich", [False, True])
def test_the_same_seed_and_clock_give_the_same_plan(rich: bool) -> None:
    shop = made_shop(2, rich=rich)
    assert schedule(shop, 0, 1.0, 7, Ticks()) == schedule(shop, 0, 1.0, 7, Ticks())


def test_search_is_not_worse_than_the_rules_and_tells_how_far_it_is() -> None:
    shop = made_shop(5, rich=True)
    told: list[float] = []
    plan = schedule(shop, 0, 1.0, 0, Ticks(0.001), progress=lambda share, cost: told.append(cost))
    rules = schedule(shop, 0, 0.0)
    assert plan.end_ms + plan.tardiness_ms <= rules.end_ms + rules.tardiness_ms
    assert told == sorted(told, reverse=True)


def test_a_search_that_is_told_to_stop_still_answers() -> None:
    shop = made_shop(6, jobs=10, machines=5)
    plan = schedule(shop, 0, 1e9, stop=lambda: True)
    assert violations(shop, plan) == []


def test_repair_keeps_what_has_begun_and_begins_nothing_in_the_past() -> None:
    for seed in range(6):
        shop = made_shop(seed, rich=seed % 2 == 0, flexible=seed > 2)
        before = schedule(shop, 0, 0.5, seed, Ticks())
        now = before.start_ms + (before.end_ms - before.start_ms) // 3
        down = Closed(machine="m3", start_ms=now, end_ms=now + 30, because="breakdown")
        for budget in (0.0, 1.0):
            plan = repair(shop, before, [down], now, budget, clock=Ticks())
            old = {(p.job, p.operation): p for p in before.placed}
            begun = {key for key, p in old.items() if p.start_ms < now}
            assert all(p == old[p.job, p.operation] for p in plan.placed if (p.job, p.operation) in begun)
            assert all(p.start_ms - p.setup_ms >= now or p in before.placed for p in plan.placed)
            fixed = [p for p in plan.placed if p.start_ms - p.setup_ms < now]
            now_shop = msgspec.structs.replace(shop, closed=[*shop.closed, down], fixed=fixed)
            assert violations(now_shop, plan) == []
            assert plan.repairs == before.id


def test_repair_makes_room_for_an_operation_that_takes_longer() -> None:
    shop = made_shop(1)
    before = schedule(shop, 0, 0.5, clock=Ticks())
    running = next(p for p in before.placed if p.end_ms - p.start_ms > 2)
    slow = Operation(choices=[Choice(running.machine, running.end_ms - running.start_ms + 40)])
    jobs = [
        msgspec.structs.replace(
            job, operations=[slow if i == running.operation else o for i, o in enumerate(job.operations)]
        )
        if job.job == running.job
        else job
        for job in shop.jobs
    ]
    longer = msgspec.structs.replace(shop, jobs=jobs)
    plan = repair(longer, before, [], running.start_ms + 1, 0.0)
    assert next(p for p in plan.placed if (p.job, p.operation) == (running.job, running.operation)).end_ms == (
        running.end_ms + 40
    )
    assert violations(longer, plan) == []


def test_an_impossible_window_is_refused_by_name() -> None:
    shop = made_shop(0)
    two = [Maintenance(id=i, machine="m0", duration_ms=50, earliest_ms=1000, latest_ms=1010) for i in ("left", "right")]
    with pytest.raises(Refused, match="maintenance 'left', 'right' on 'm0'"):
        schedule(msgspec.structs.replace(shop, maintenance=two), 0, 0.1, clock=Ticks())


def test_a_fixed_operation_of_an_unknown_job_is_refused() -> None:
    fixed = [Placed(job="ghost", operation=0, machine="m0", start_ms=1000, end_ms=1001)]
    with pytest.raises(Refused, match="ghost"):
        schedule(msgspec.structs.replace(made_shop(0), fixed=fixed), 0)


def test_an_empty_shop_has_an_empty_plan() -> None:
    plan = schedule(Shop(jobs=[], start_ms=5), 0)
    assert (plan.placed, plan.end_ms) == ([], 5)
