"""forecast -> recommend -> forecast on one gateway: what is likely to fail asks for parts and for a window, what is accepted
is an order and a known input."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec
import pytest

from edge_agent.config import AgentSettings, ScheduleSettings
from edge_agent.decisions import Decisions
from edge_agent.devices.line import DAY_MS, HOUR_MS, START_MS, Line
from edge_agent.devices.production import day_of, orders_of_the_day
from edge_agent.devices.store import Store as Plant
from edge_agent.devices.store import catalogue_toml
from edge_agent.stores import Store, load_catalogue
from protocol.feedback import Feedback, Verdict
from protocol.purchases import PurchaseProposal
from protocol.reports import ModelRef, RemainingLife
from protocol.schedules import Schedule

MORNING = START_MS + 9 * HOUR_MS // 2


def life(median_h: float) -> RemainingLife:
    """A pump that fails around then."""
    return RemainingLife(
        id="life-1", machine="P-101", machine_type="pump", unit="h", issued_ms=MORNING, inputs_until_ms=MORNING,
        age=50.0, cap=400.0, median=median_h, low=median_h * 0.6, high=median_h * 1.4,
        levels=[0.05, 0.1, 0.25, 0.5, 0.75, 0.9], quantiles=[median_h * f for f in (0.5, 0.6, 0.8, 1.0, 1.2, 1.4)],
        expected=median_h, usual=90.0, model=ModelRef("fault.life", "hazard", 1),
    )  # fmt: skip


def made(folder: Path) -> Decisions:
    (folder / "catalogue.toml").write_text(catalogue_toml(), encoding="utf-8")
    settings = AgentSettings(
        site="s", gateway="g", data_dir=str(folder), catalogue=str(folder / "catalogue.toml"),
        schedule=ScheduleSettings(budget_s=0.1),
    )  # fmt: skip
    return Decisions(folder, settings, types={"P-101": "pump"}.get)  # type: ignore[arg-type]


def stocked(folder: Path) -> Decisions:
    decisions = made(folder)
    for level in Plant("line-1", 7).levels(MORNING):
        assert decisions.hear_stock(level)
    return decisions


def bought(decisions: Decisions, now_ms: int = MORNING) -> dict[str, PurchaseProposal]:
    return {p.part: p for p in decisions.look(now_ms) if isinstance(p, PurchaseProposal)}


def test_a_bearing_that_will_fail_asks_for_a_bearing(tmp_path: Path) -> None:
    found = []
    for name, hours in (("calm", 300.0), ("worn", 30.0)):
        (tmp_path / name).mkdir()
        decisions = stocked(tmp_path / name)
        decisions.hear_lives([life(hours)])
        found.append(bought(decisions))
    calm, worn = found
    part = "bearing-6204"
    assert worn[part].expected > calm[part].expected
    assert worn[part].order_up_to >= calm[part].order_up_to
    assert any(source.because.startswith("risk:P-101") for source in worn[part].sources)
    assert worn["filter-g4"].expected == pytest.approx(calm["filter-g4"].expected)
    for proposal in worn.values():
        assert sum(source.expected for source in proposal.sources) == pytest.approx(proposal.expected, abs=1e-6)


def test_an_accepted_purchase_is_on_its_way_and_known_and_bought_once(tmp_path: Path) -> None:
    decisions = stocked(tmp_path)
    first = next(p for p in bought(decisions).values() if p.quantity)
    yes = Feedback(id="f-1", target=first.id, verdict=Verdict.ACCEPTED, time_ms=first.issued_ms)
    (known,) = decisions.answered(yes)
    assert (known.covariate, known.value) == (f"delivery:{first.part}", float(first.quantity))
    assert decisions.answered(msgspec.structs.replace(yes, id="f-2", time_ms=yes.time_ms + 9)) == []
    again = bought(made(tmp_path), MORNING + 2 * DAY_MS)  # after a restart, too
    assert again[first.part].on_order == first.on_order + first.quantity
    assert again[first.part].quantity < first.quantity


def test_a_rejected_purchase_changes_nothing_and_is_not_said_again(tmp_path: Path) -> None:
    decisions = stocked(tmp_path)
    first = next(p for p in bought(decisions).values() if p.quantity)
    assert decisions.answered(Feedback(id="f", target=first.id, verdict=Verdict.REJECTED, time_ms=MORNING)) == []
    again = bought(decisions, MORNING + 2 * DAY_MS)
    assert first.part not in again or again[first.part].quantity != first.quantity


def test_orders_become_a_schedule_with_the_window_that_a_life_asks_for(tmp_path: Path) -> None:
    decisions = made(tmp_path)
    decisions.hear_lives([life(12.0)])
    decisions.hear_orders(orders_of_the_day(Line(1, 7, days=2), day_of(START_MS), 7))
    found: list[Schedule] = []
    for _ in range(100):
        found += [one for one in decisions.look(MORNING) if isinstance(one, Schedule)]
        if found:
            break
        time.sleep(0.05)
    (plan,) = found
    assert [m.machine for m in plan.maintenance] == ["P-101"]
    told = decisions.answered(Feedback(id="f", target=plan.id, verdict=Verdict.ACCEPTED, time_ms=MORNING))
    assert {known.covariate for known in told} == {"busy"}


def test_a_store_on_a_full_disk_goes_on_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "catalogue.toml").write_text(catalogue_toml(), encoding="utf-8")
    noted: list[str] = []
    folder = tmp_path / "store"
    store = Store(folder, load_catalogue(tmp_path / "catalogue.toml"), noted.append)
    shutil.rmtree(folder)  # nothing can be written there any more
    level = next(iter(Plant("line-1", 7).levels(MORNING)))
    assert store.hear(level)
    assert noted == ["not_saved.stock"]
    assert [one.part for one in store.levels()] == [level.part]
