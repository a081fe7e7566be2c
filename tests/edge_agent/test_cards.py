"""A new machine, a new part, a new site and a generated plan stand in the list from the first minute, by their words."""

from __future__ import annotations

from pathlib import Path

from edge_agent.cards import Cards
from edge_agent.skills.recommend import Answered, ListSettings, asked_by_event, recommend
from protocol.catalogue import ItemCard
from protocol.reports import FaultEvent, Recommendation, Severity

CARDS = [
    ItemCard(id="c-1", item="action:replace-bearing", attributes={"type": "pump"}, text="vibration high; bearing worn"),
    ItemCard(
        id="c-2", item="action:clean-filter", attributes={"type": "oven"}, text="exhaust flow low; filter blocked"
    ),
    ItemCard(id="c-3", item="part:bearing-6204", attributes={"type": "pump"}, text="bearing for vibration high"),
]


def asked(cards: Cards, symptom: str = "vibration:high", machine_type: str = "pump") -> Recommendation | None:
    event = FaultEvent(
        id=f"e-{symptom}", machine="NEW-1", machine_type=machine_type, signal="vibration", kind="above_expected",
        severity=Severity.NOTICE, start_ms=1, detected_ms=2, score=5.0, symptoms=[symptom],
    )  # fmt: skip
    request = asked_by_event(event, [])
    model = cards.beside(None, request.profile)
    return None if model is None else recommend(request, model, Answered(), ListSettings(explore=0.0), 3)


def test_a_new_site_gets_a_sensible_list_before_anything_was_learned(tmp_path: Path) -> None:
    shown = asked(Cards(tmp_path / "cards.json", CARDS))
    assert shown is not None
    assert {one.item for one in shown.items[:2]} == {"action:replace-bearing", "part:bearing-6204"}
    assert shown.model.version == 0
    assert all(abs(sum(c.amount for c in one.contributions) - one.score) < 1e-6 for one in shown.items)


def test_a_generated_plan_becomes_an_item_at_once_and_survives_a_restart(tmp_path: Path) -> None:
    cards = Cards(tmp_path / "cards.json", CARDS)
    plan = ItemCard(id="g-1", item="plan:pump-bearing-change", attributes={"type": "pump"}, text="bearing vibration high",
                    issued_ms=5)  # fmt: skip
    assert cards.hear(plan)
    assert not cards.hear(plan)
    shown = asked(Cards(tmp_path / "cards.json", CARDS))
    assert shown is not None
    assert "plan:pump-bearing-change" in [one.item for one in shown.items]
    assert cards.hear(ItemCard(id="g-1", item="plan:pump-bearing-change", issued_ms=6, withdrawn=True))
    gone = asked(cards)
    assert gone is not None
    assert "plan:pump-bearing-change" not in [one.item for one in gone.items]


def test_without_cards_nothing_is_invented_and_a_damaged_file_is_counted(tmp_path: Path) -> None:
    (tmp_path / "cards.json").write_bytes(b"{not json")
    noted: list[str] = []
    assert asked(Cards(tmp_path / "cards.json", (), noted.append)) is None
    assert noted == ["refused.cards"]
