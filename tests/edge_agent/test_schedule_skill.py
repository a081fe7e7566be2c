"""What a gateway plans is feasible, good, repeatable, and mended without touching what has begun."""

from __future__ import annotations

import itertools
from random import Random

import msgspec
import pytest

from edge_agent.skills.schedule import dispatch, repair, schedule
from edge_agent.skills.schedule.graph import Graph
from edge_agent.skills.schedule.layout import lay_out
from edge_agent.skills.schedule.repair import begun
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


def one(name: str, machine: str, duration: int, family: str = "", **more: object) -> ShopJob:
    """A job of one step."""
    step = Operation(choices=[Choice(machine, duration)], family=family)
    return ShopJob(job=name, operations=[step], **more)  # type: ignore[arg-type]


def test_work_goes_into_the_gap_before_fixed_work_where_its_set_up_stays_right() -> None:
    setups = [Setup(before=b, after=a, duration_ms=2) for b in ("", "x", "y") for a in "xy" if a != b]
    promised = Placed(job="p", operation=0, machine="m", start_ms=20, end_ms=25, setup_ms=0)
    upkeep = Maintenance(id="oil", machine="m", duration_ms=3, earliest_ms=0, latest_ms=15)
    jobs = [one("p", "m", 5, "x"), one("same", "m", 5, "x"), one("other", "m", 5, "y"), one("any", "m", 5)]
    shop = Shop(jobs=jobs, setups=setups, fixed=[promised], maintenance=[upkeep])
    plan = schedule(shop, 0, 1.0, clock=Ticks())
    start = {p.job: p.start_ms for p in plan.placed}
    assert violations(shop, plan) == []
    assert start["same"] < 20 < start["other"]
    assert start["any"] < 20
    assert plan.end_ms == 32


def test_maintenance_is_done_before_fixed_work_of_a_machine_with_set_ups() -> None:
    shop = Shop(
        jobs=[one("p", "m", 5, "x"), one("q", "m", 5, "x")],
        setups=[Setup(after="x", duration_ms=2)],
        fixed=[Placed(job="p", operation=0, machine="m", start_ms=10, end_ms=15, setup_ms=2)],
        maintenance=[Maintenance(id="oil", machine="m", duration_ms=3, earliest_ms=0, latest_ms=4)],
    )
    plan = schedule(shop, 0, 0.0)
    assert violations(shop, plan) == []
    assert plan.maintenance[0].start_ms == 0


def test_what_must_be_done_before_a_promised_step_goes_first() -> None:
    last = Operation(choices=[Choice("n", 1)])
    step = Operation(choices=[Choice("m", 4)])
    jobs = [one(f"j{i}", "m", 9 - i) for i in range(6)]
    jobs.append(ShopJob(job="p", operations=[step, last], after=["j5"]))
    shop = Shop(jobs=jobs, fixed=[Placed(job="p", operation=1, machine="n", start_ms=8, end_ms=9)])
    plan = schedule(shop, 0, 0.0)
    assert violations(shop, plan) == []


def test_a_set_up_that_fixed_work_needs_may_come_with_the_step_between() -> None:
    steps = [Operation(choices=[Choice("m", 3)], family=f) for f in "xyy"]
    shop = Shop(
        jobs=[ShopJob(job="p", operations=steps)],
        setups=[Setup(before="x", after="y", duration_ms=2)],
        fixed=[Placed(job="p", operation=2, machine="m", start_ms=10, end_ms=13)],
    )
    plan = schedule(shop, 0, 0.1, clock=Ticks())
    assert violations(shop, plan) == []
    assert plan.end_ms == 13


@pytest.mark.parametrize("rich", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_jobs_wait_for_the_jobs_before_them(seed: int, rich: bool) -> None:
    shop = made_shop(seed, rich=rich, flexible=seed > 1)
    order = Random(seed).sample(range(6), 6)
    after = {f"j{b}": [f"j{a}"] for a, b in itertools.pairwise(order[:4])} | {f"j{order[5]}": [f"j{order[0]}"] * 2}
    shop = msgspec.structs.replace(
        shop, jobs=[msgspec.structs.replace(j, after=after.get(j.job, [])) for j in shop.jobs]
    )
    for budget in (0.0, 1.0):
        plan = schedule(shop, 0, budget, seed, Ticks(0.02))
        assert violations(shop, plan) == []
        assert plan.critical[0].end_ms == plan.end_ms
    now = plan.start_ms + (plan.end_ms - plan.start_ms) // 3
    down = Closed(machine="m3", start_ms=now, end_ms=now + 15)
    for budget in (0.0, 1.0):
        mended = repair(shop, plan, [down], now, budget, clock=Ticks(0.02))
        assert violations(begun(shop, plan, [down], now), mended) == []


def test_very_large_shops_with_jobs_in_order_are_laid_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "SCANNED", 0)
    shop = Shop(jobs=[one("a", "m", 0, after=["b"]), one("b", "n", 7), one("c", "m", 3, after=["a"])])
    plan = schedule(shop, 0, 0.0)
    assert violations(shop, plan) == []
    assert (plan.end_ms, plan.bound_ms) == (10, 10)


@pytest.mark.parametrize(
    ("shop", "said"),
    [
        (Shop(jobs=[one("a", "m", 1), one("a", "m", 1)]), "job 'a' is given twice"),
        (Shop(jobs=[one("a", "m", 1, after=["b"]), one("b", "m", 1, after=["a"])]), "cyclic routing"),
        (
            Shop(
                jobs=[one("a", "m", 5), one("b", "m", 5)],
                fixed=[Placed(job=j, operation=0, machine="m", start_ms=i, end_ms=i + 5) for i, j in enumerate("ab")],
            ),
            "fixed work on machine 'm' overlaps",
        ),
    ],
)
def test_a_shop_that_contradicts_itself_is_refused_by_name(shop: Shop, said: str) -> None:
    with pytest.raises(Refused, match=said):
        schedule(shop, 0, 0.1, clock=Ticks())
    with pytest.raises(Refused, match=said):
        repair(shop, schedule(Shop(jobs=[]), 0), [], 0, 0.1, clock=Ticks())
