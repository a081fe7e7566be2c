"""Orders become a plan around the maintenance that lives ask for; a machine that drops out has its plan repaired; an accepted
plan is known to forecasts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_agent.config import ScheduleSettings
from edge_agent.devices.line import DAY_MS, HOUR_MS, Line
from edge_agent.devices.production import day_of, orders_of_the_day
from edge_agent.planning import Planning
from protocol.errors import Refused
from protocol.feedback import Feedback, Verdict
from protocol.reports import ModelRef, RemainingLife
from protocol.schedules import Closed, Schedule, Shop
from protocol.shop_check import violations

SETTINGS = ScheduleSettings(budget_s=0.2)
LINE = Line(1, 7, days=3)
DAY = day_of(LINE.episodes[0].start_ms)
SHOP = orders_of_the_day(LINE, DAY, 7)
MORNING = SHOP.start_ms - HOUR_MS // 2


def life(median_h: float) -> RemainingLife:
    """A pump that fails around then."""
    levels = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9]
    return RemainingLife(
        id=f"life-{median_h}", machine="P-101", unit="h", issued_ms=MORNING, inputs_until_ms=MORNING, age=50.0,
        cap=200.0, median=median_h, low=median_h * 0.6, high=median_h * 1.4, levels=levels,
        quantiles=[median_h * f for f in (0.5, 0.6, 0.8, 1.0, 1.2, 1.4)], expected=median_h, usual=60.0,
        model=ModelRef("fault.life", "hazard", 1),
    )  # fmt: skip


def planned(path: Path, shop: Shop = SHOP, *lives: RemainingLife) -> tuple[Planning, Schedule]:
    planning = Planning(path / "plan.json", SETTINGS, threads=False)
    planning.hear(shop)
    plan = planning.look(MORNING, lives)
    assert plan is not None
    return planning, plan


def test_the_orders_of_the_day_become_a_plan_that_keeps_every_rule(tmp_path: Path) -> None:
    _, plan = planned(tmp_path)
    assert violations(SHOP, plan) == []
    assert plan.critical
    assert len(plan.placed) == sum(len(job.operations) for job in SHOP.jobs)


def test_nothing_new_asks_for_no_new_plan(tmp_path: Path) -> None:
    planning, _ = planned(tmp_path)
    planning.hear(SHOP)
    assert planning.look(MORNING + 1, []) is None


def test_a_machine_that_will_fail_gets_its_window_in_the_plan(tmp_path: Path) -> None:
    planning, plan = planned(tmp_path, SHOP, life(12.0))
    (window,) = plan.maintenance
    assert window.machine == "P-101"
    assert window.risk_before <= SETTINGS.allowed_risk + 0.01
    assert window.cost_ms >= 0
    assert planning.look(MORNING + 1, [life(12.4)]) is None  # it moved by less than matters
    again = planning.look(MORNING + 2, [life(150.0)])  # replaced meanwhile: the window goes
    assert again is not None
    assert again.maintenance == []


def test_a_maintenance_that_has_begun_stays_in_its_plan(tmp_path: Path) -> None:
    planning, plan = planned(tmp_path, SHOP, life(12.0))
    (window,) = plan.maintenance
    assert planning.look(window.start_ms + 1, [life(150.0)]) is None  # the machine is as new: because of it
    assert planning.plan == plan


def test_a_machine_that_drops_out_has_its_plan_repaired(tmp_path: Path) -> None:
    planning, plan = planned(tmp_path)
    now = SHOP.start_ms + 3 * HOUR_MS
    broken = Closed(machine="V-401", start_ms=now, end_ms=now + 2 * HOUR_MS, because="breakdown")
    planning.hear(msgspec.structs.replace(SHOP, closed=[*SHOP.closed, broken]))
    mended = planning.look(now, [])
    assert mended is not None
    assert mended.repairs == plan.id
    begun = {(p.job, p.operation): p for p in plan.placed if p.start_ms < now}
    after = {(p.job, p.operation): p for p in mended.placed}
    assert all(after[key] == p for key, p in begun.items())
    late = [p for p in mended.placed if p.machine == "V-401" and p.start_ms >= now]
    assert all(p.start_ms >= broken.end_ms for p in late)


def test_orders_that_make_no_sense_are_refused_and_the_ones_before_stand(tmp_path: Path) -> None:
    planning, plan = planned(tmp_path)
    twice = msgspec.structs.replace(SHOP, jobs=[*SHOP.jobs, SHOP.jobs[0]])
    with pytest.raises(Refused, match=SHOP.jobs[0].job):
        planning.hear(twice)
    assert planning.plan == plan


def test_an_accepted_plan_tells_when_machines_are_busy_and_the_next_one_takes_that_back(tmp_path: Path) -> None:
    planning, plan = planned(tmp_path)
    yes = Feedback(id="f-1", target=plan.id, verdict=Verdict.ACCEPTED, time_ms=MORNING + 5)
    told = planning.answered(yes)
    assert {known.machine for known in told} == {"P-101", "R-301", "V-401", "C-201"}
    busy = sum(known.end_ms - known.start_ms for known in told if known.machine == "V-401")
    assert busy >= sum(p.end_ms - p.start_ms for p in plan.placed if p.machine == "V-401")
    assert planning.answered(Feedback(id="f-2", target="other", verdict=Verdict.ACCEPTED, time_ms=1)) == []
    tomorrow = orders_of_the_day(LINE, DAY + 1, 7)
    restarted = Planning(tmp_path / "plan.json", SETTINGS, threads=False)  # what was accepted survives a restart
    restarted.hear(tomorrow)
    again = restarted.look(MORNING + DAY_MS // 2, [])
    assert again is not None
    more = restarted.answered(Feedback(id="f-3", target=again.id, verdict=Verdict.ACCEPTED, time_ms=MORNING + 9))
    gone = {known.id for known in more if known.withdrawn}
    assert gone
    assert gone <= {known.id for known in told}
