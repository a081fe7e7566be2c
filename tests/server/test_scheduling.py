"""The server's scheduler: every feature of a shop, each plan judged by code that shares nothing with it."""

from __future__ import annotations

import random
import sys

import pytest

from protocol.errors import NeedsPerson, Refused
from protocol.schedules import Choice, Closed, Maintenance, Operation, Placed, Setup, Shop, ShopJob
from protocol.shop_check import figures, violations
from server.scheduling import solve

pytest.importorskip("ortools")


def job(name: str, *steps: tuple[str, int], family: str = "", **more: object) -> ShopJob:
    operations = [Operation(choices=[Choice(m, d)], family=family) for m, d in steps]
    return ShopJob(job=name, operations=operations, **more)  # type: ignore[arg-type]


def made(shop: Shop, **more: object):  # type: ignore[no-untyped-def]
    plan = solve(shop, budget_s=5, workers=1, **more)  # type: ignore[arg-type]
    assert violations(shop, plan) == []
    return plan


def test_two_jobs_share_two_machines_and_the_best_is_proven() -> None:
    plan = made(Shop(jobs=[job("a", ("M1", 3), ("M2", 2)), job("b", ("M2", 2), ("M1", 4))]))
    assert (plan.end_ms, plan.bound_ms) == (7, 7)
    assert "proven best" in plan.because_en
    assert plan.critical[-1].because == "start"


def test_times_are_of_the_calendar_and_in_whole_hours() -> None:
    start, hour = 1_700_000_000_000, 3_600_000
    shop = Shop(
        jobs=[job("a", ("M1", 3 * hour), ("M2", 2 * hour), release_ms=start + hour)],
        closed=[Closed(machine="M2", start_ms=start + 5 * hour, end_ms=start + 9 * hour)],
        start_ms=start,
    )
    plan = made(shop)
    assert plan.end_ms == start + 11 * hour
    assert plan.critical[0].because == "closed"


def test_a_step_takes_the_machine_that_is_free() -> None:
    step = Operation(choices=[Choice("M1", 4), Choice("M2", 5)])
    plan = made(Shop(jobs=[ShopJob(job="a", operations=[step]), ShopJob(job="b", operations=[step])]))
    assert plan.end_ms == 5


def test_set_ups_put_the_same_family_together() -> None:
    jobs = [job(name, ("M", 2), family=family) for name, family in zip("abcd", "xyxy", strict=True)]
    shop = Shop(jobs=jobs, setups=[Setup(after="x", duration_ms=1), Setup(after="y", duration_ms=1)])
    shop = Shop(
        jobs=jobs,
        setups=[*shop.setups, Setup(before="x", after="y", duration_ms=5), Setup(before="y", after="x", duration_ms=3)],
    )
    plan = made(shop)
    assert plan.end_ms == 1 + 8 + 3


def test_a_late_job_costs_by_its_weight() -> None:
    plan = made(Shop(jobs=[job("a", ("M", 5), due_ms=5, weight=1.0), job("b", ("M", 5), due_ms=5, weight=2.5)]))
    assert plan.late_jobs == ["a"]
    assert plan.tardiness_ms == 5


def test_maintenance_is_done_in_its_window_and_its_cost_is_told() -> None:
    upkeep = Maintenance(
        id="u", machine="M", duration_ms=4, earliest_ms=2, latest_ms=6, risk_at_ms=[0, 10], risk=[0.0, 0.5]
    )
    plan = made(Shop(jobs=[job("a", ("M", 6)), job("b", ("M", 3))], maintenance=[upkeep]))
    assert plan.end_ms == 13
    assert plan.maintenance[0].cost_ms == 4
    assert plan.maintenance[0].risk_before == pytest.approx(0.05 * plan.maintenance[0].start_ms)


def test_what_is_fixed_stays_and_jobs_wait_for_one_another() -> None:
    shop = Shop(
        jobs=[job("a", ("M1", 3), ("M2", 3)), job("b", ("M2", 2), after=["a"])],
        fixed=[Placed(job="a", operation=0, machine="M1", start_ms=0, end_ms=4)],
    )
    assert made(shop).end_ms == 9


def test_a_window_that_fixed_work_and_opening_times_leave_no_room_for_is_named() -> None:
    shop = Shop(
        jobs=[job("a", ("M1", 3), ("M2", 3))],
        fixed=[Placed(job="a", operation=1, machine="M2", start_ms=5, end_ms=8)],
        maintenance=[Maintenance(id="oil", machine="M1", duration_ms=3, earliest_ms=0, latest_ms=1)],
    )
    with pytest.raises(Refused, match="maintenance 'oil' on 'M1'"):
        solve(shop, budget_s=5, workers=1)


def test_a_cyclic_routing_is_refused() -> None:
    with pytest.raises(Refused, match="cyclic routing"):
        solve(Shop(jobs=[job("a", ("M", 1), after=["b"]), job("b", ("M", 1), after=["a"])]), budget_s=1)


def test_nothing_to_do_is_a_plan() -> None:
    assert made(Shop(jobs=[])).placed == []


def test_a_stopped_search_gives_its_plan_so_far_and_progress_is_told() -> None:
    draw = random.Random(1)
    jobs = [job(f"j{j}", *((f"M{m}", draw.randint(1, 99)) for m in draw.sample(range(10), 10))) for j in range(20)]
    told: list[tuple[float, float]] = []

    def stop() -> bool:
        return bool(told) and told[-1][1] < float("inf")

    plan = solve(Shop(jobs=jobs), 20, 1, progress=lambda share, cost: told.append((share, cost)), stop=stop)
    assert violations(Shop(jobs=jobs), plan) == []
    assert told[-1][0] < 0.9
    again = solve(Shop(jobs=jobs), 0.01, 1, hint=plan)
    assert again.end_ms <= plan.end_ms


@pytest.mark.parametrize("seed", range(12))
def test_random_shops_with_everything(seed: int) -> None:
    shop = anything(random.Random(seed))
    plan = solve(shop, 1.0, 1)
    assert violations(shop, plan) == []
    _, _, _, cost = figures(shop, plan.placed)
    assert cost >= plan.end_ms - plan.start_ms


def anything(draw: random.Random) -> Shop:
    """A feasible shop that uses every field."""
    machines, start = ["A", "B", "C"], draw.choice([0, 1000])
    jobs = []
    for j in range(5):
        steps = [
            Operation(
                choices=[Choice(m, draw.randint(0, 9)) for m in draw.sample(machines, draw.randint(1, 3))],
                family=draw.choice(["", "x", "y"]),
            )
            for _ in range(draw.randint(1, 3))
        ]
        jobs.append(
            ShopJob(
                job=f"j{j}",
                operations=steps,
                release_ms=start + draw.randint(0, 5),
                due_ms=draw.choice([None, start + 10]),
                weight=draw.choice([0.0, 1.0, 0.3]),
                after=[f"j{j - 1}"] if j and draw.random() < 0.3 else [],
            )
        )
    first = jobs[0].operations[0].choices[0]
    return Shop(
        jobs=jobs,
        closed=[Closed(machine=m, start_ms=start + 12, end_ms=start + 12 + draw.randint(0, 9)) for m in machines],
        setups=[Setup(before="x", after="y", duration_ms=3), Setup(after="x", machine="A", duration_ms=2)],
        maintenance=[Maintenance(id="u", machine="B", duration_ms=4, earliest_ms=start + 9, latest_ms=start + 30)],
        fixed=[Placed(job="j0", operation=0, machine=first.machine, start_ms=start, end_ms=start + first.duration_ms)],
        start_ms=start,
    )


def test_without_the_solver_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    with pytest.raises(NeedsPerson, match="millwright\\[schedule\\]"):
        solve(Shop(jobs=[job("a", ("M", 1))]))
