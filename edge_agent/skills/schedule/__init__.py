"""What to run when, on a gateway: dispatch rules, local search, repair. No I/O.

    plan = schedule(shop, now_ms)                       # the best plan found in a second
    plan = repair(shop, plan, [Closed(...)], now_ms)    # a machine dropped out: what has begun stays

The objective is one number: the makespan in ms plus, over the jobs with a due date, weight x milliseconds late.
What a plan must respect is written down, and judged, in protocol.shop_check."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

import msgspec

from edge_agent.skills.schedule import repair as mending
from edge_agent.skills.schedule.annealing import Annealing
from edge_agent.skills.schedule.answer import answer
from edge_agent.skills.schedule.layout import check, lay_out
from edge_agent.skills.schedule.search import Watch, bound, improve
from edge_agent.skills.schedule.timeline import BROKEN, Timeline
from protocol.schedules import Closed, Schedule, Shop

__all__ = ["repair", "schedule"]

Progress = Callable[[float, float], None]
"""Told the share of the time used (0..1) and the cost of the best plan so far."""


def schedule(
    shop: Shop,
    now_ms: int,
    budget_s: float = 1.0,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> Schedule:
    """The best plan found in `budget_s` (0: the best dispatch rule), earlier if no plan can be better or `stop()` says so.
    The same seed and the same readings of `clock` give the same plan. Raises Refused, naming the constraint, if no plan
    satisfies the shop."""
    check(shop)
    watch = Watch(budget_s, clock, stop, progress)
    line = Timeline(lay_out(shop))
    found = improve(line, Random(seed), watch)  # noqa: S311 - a search, not a secret
    return answer(
        line,
        found.order,
        found.machine,
        now_ms=now_ms,
        how=found.how,
        bound=bound(line.layout),
        seconds=clock() - watch.started,
    )


def repair(
    shop: Shop,
    before: Schedule,
    closed: list[Closed],
    now_ms: int,
    budget_s: float = 1.0,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
    change_costs: float = mending.CHANGE_COSTS,
) -> Schedule:
    """`before`, mended for the new closed times (and for durations of `shop` that changed): nothing that has begun by now_ms
    moves, nothing else begins before it. budget_s 0: only shifted, in milliseconds, where that breaks
    no rule.
    `change_costs`: what moving one operation costs, as a share of the plan's length. Raises Refused as `schedule` does."""
    check(shop)
    watch = Watch(budget_s, clock, stop, progress)
    now_shop = mending.begun(shop, before, closed, now_ms)
    layout = lay_out(now_shop)
    line = Timeline(layout, max(now_ms - shop.start_ms, 0), mending.upkeep_begun(before, shop, now_ms))
    plan = mending.earlier(line, before)
    order = mending.order_of(line, plan)
    moved = mending.counter(layout, plan)
    price = change_costs * max(before.end_ms - before.start_ms, 1)
    affected = {k for k, name in enumerate(layout.machines) if any(c.machine == name for c in closed)}
    first = mending.shifted(line, order, plan, set())
    leaving = mending.shifted(line, order, plan, affected)
    if leaving.cost < first.cost:
        first = leaving
    if order and (first.cost >= BROKEN or not watch.over()):
        search = Annealing(line, first, Random(seed), lambda laid: price * moved(laid), heat=0.3)  # noqa: S311

        def left() -> float:
            watch.tell(search.best.cost)
            return watch.left()

        search.run(left, 0.0)
        best = search.until_whole(watch.stop)
        order, machine = best.order, best.machine
    else:
        order, machine = first.order, first.machine
    line.lay(order, machine)
    changes = moved(line)
    made = answer(line, order, machine, now_ms=now_ms, how="repair", bound=0, seconds=clock() - watch.started)
    return msgspec.structs.replace(made, repairs=before.id, moved=changes)
