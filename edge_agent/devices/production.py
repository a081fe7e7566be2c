"""Simulated production orders: what a planner hands down every morning, as one whole document. Seeded and pure."""

from __future__ import annotations

import random

from edge_agent.devices.line import DAY_MS, HOUR_MS, Line
from protocol.schedules import Choice, Closed, Operation, Setup, Shop, ShopJob

MINUTE_MS = 60_000
TOOLS = ("tool-a", "tool-b", "tool-c")
ORDERS = 9
BREAKDOWN_MS = 2 * HOUR_MS
ROUTE = (("P-10", (20, 50)), ("R-30", (40, 90)), ("V-40", (50, 110)), ("C-20", (20, 40)))
"""Feed pump, press, oven, conveyor: machine name without its line's number, and minutes from least to most."""


def day_of(time_ms: int) -> int:
    """Days since 1970."""
    return time_ms // DAY_MS


def orders_of_the_day(line: Line, day: int, seed: int, broken: tuple[str, int] | None = None) -> Shop:
    """Orders released at 05:00 of a day, due within it or the next; the press changes tools; the oven is shut at night.
    broken: (machine, since when): closed for two hours from then."""
    draw = random.Random(f"orders/{seed}/{line.name}/{day}")
    number = line.name.rpartition("-")[2]
    start_ms = day * DAY_MS + 5 * HOUR_MS
    jobs = []
    for order in range(1, ORDERS + 1):
        tool = draw.choice(TOOLS)
        operations = [
            Operation(
                name=machine + number,
                family=tool if machine == "R-30" else "",
                choices=[Choice(machine + number, draw.randint(*minutes) * MINUTE_MS)],
            )
            for machine, minutes in ROUTE
        ]
        jobs.append(
            ShopJob(
                job=f"{day % 1000:03d}-{order:02d}",
                operations=operations,
                release_ms=start_ms + draw.choice([0, 0, 0, 2, 4]) * HOUR_MS,
                due_ms=start_ms + draw.randint(7, 17) * HOUR_MS,
                weight=draw.choice([0.5, 1.0, 1.0, 2.0]),
            )
        )
    night = Closed(
        machine="V-40" + number,
        start_ms=start_ms + 18 * HOUR_MS,
        end_ms=start_ms + 24 * HOUR_MS,
        because="night",
    )
    closed = [night]
    if broken is not None:
        machine, since_ms = broken
        closed.append(Closed(machine=machine, start_ms=since_ms, end_ms=since_ms + BREAKDOWN_MS, because="breakdown"))
    setups = [
        Setup(machine="R-30" + number, before=before, after=after, duration_ms=15 * MINUTE_MS)
        for before in ("", *TOOLS)
        for after in TOOLS
        if before and before != after
    ]
    return Shop(jobs=jobs, closed=closed, setups=setups, start_ms=start_ms)
