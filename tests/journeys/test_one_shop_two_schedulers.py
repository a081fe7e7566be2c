"""Whatever CP-SAT can plan, a gateway can plan too; one judge that shares no code with either finds nothing wrong."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from edge_agent.skills.schedule import schedule
from protocol.errors import Refused
from protocol.schedules import Choice, Closed, Maintenance, Operation, Setup, Shop, ShopJob
from protocol.shop_check import figures, problems, violations

pytest.importorskip("ortools")

from server.scheduling import solve

MACHINES, START = ("A", "B", "C"), 1000
NEAR = 0.10
"""By how much a gateway's plans cost more than CP-SAT's at most, in the mean."""


def test_a_gateway_plans_whatever_cp_sat_plans() -> None:
    feasible, fixed, dearer = 0, 0, 0.0
    for seed in range(60):
        shop = any_shop(Random(seed))
        try:
            best = solve(shop, 2, workers=1)
        except Refused:
            continue
        if seed % 3:  # some of a plan has begun
            shop = msgspec.structs.replace(shop, fixed=begun(Random(seed), best.placed))
            best = solve(shop, 2, workers=1)
        feasible, fixed = feasible + 1, fixed + bool(shop.fixed)
        plan = schedule(shop, 0, 1.0, clock=ticking())
        assert (violations(shop, best), violations(shop, plan)) == ([], []), seed
        ours, theirs = figures(shop, plan.placed)[3], figures(shop, best.placed)[3]
        assert ours >= theirs - 1e-6 or "proven best" not in best.because_en, seed
        dearer += ours / theirs - 1
    assert feasible >= 50
    assert fixed >= 30
    assert dearer / feasible < NEAR


def begun(draw: Random, placed: list) -> list:  # type: ignore[type-arg]
    """The first rows of a plan, or, as when people have promised something, any of them."""
    count = draw.randint(1, 6)
    return placed[:count] if draw.random() < 0.7 else draw.sample(placed, min(count, len(placed)))


def ticking():  # type: ignore[no-untyped-def]
    """A clock that moves when it is read, so that each run searches alike."""
    now = iter(range(10**9))
    return lambda: next(now) / 60


def any_shop(draw: Random) -> Shop:
    """Flexible steps, releases, due dates, jobs in order, closed times, set-ups and tight maintenance windows."""
    jobs = [
        ShopJob(
            job=f"j{j}",
            operations=[step(draw) for _ in range(draw.randint(1, 3))],
            release_ms=START + draw.randint(0, 5),
            due_ms=draw.choice([None, START + draw.randint(5, 30)]),
            weight=draw.choice([0.0, 0.3, 1.0, 2.0]),
            after=[f"j{draw.randrange(j)}"] if j and draw.random() < 0.3 else [],
        )
        for j in range(5)
    ]
    closed = [
        Closed(machine=m, start_ms=at, end_ms=at + draw.randint(0, 6))
        for m in MACHINES
        for at in (START + draw.randint(3, 12), START + draw.randint(20, 30))
    ]
    setups = [Setup(before=b, after=a, duration_ms=draw.randint(0, 4)) for b in ("", "x", "y") for a in "xy" if a != b]
    setups.append(Setup(machine="A", before="x", after="y", duration_ms=5))
    upkeep = [window(draw, i, m) for i, m in enumerate(draw.sample(MACHINES, 2))]
    shop = Shop(jobs=jobs, closed=closed, setups=setups, maintenance=upkeep, start_ms=START)
    assert problems(shop) == []
    return shop


def step(draw: Random) -> Operation:
    """On one to three machines; seldom without duration."""
    where = draw.sample(MACHINES, draw.randint(1, 3))
    lengths = [0, *range(1, 10)]
    return Operation(choices=[Choice(m, draw.choice(lengths)) for m in where], family=draw.choice(["", "x", "y"]))


def window(draw: Random, number: int, machine: str) -> Maintenance:
    """Maintenance with little room."""
    earliest = START + draw.randint(0, 15)
    return Maintenance(
        id=f"u{number}",
        machine=machine,
        duration_ms=draw.randint(1, 5),
        earliest_ms=earliest,
        latest_ms=earliest + draw.randint(0, 6),
    )
