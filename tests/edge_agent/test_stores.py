"""The gateway's store remembers the newest stock through a power cut, and nothing accepted is bought twice."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_agent.buying import proposals
from edge_agent.stores import FILE, Store, load_catalogue
from protocol.catalogue import Catalogue, Part, Supplier
from protocol.covariates import Source, from_purchase
from protocol.errors import BadSettings
from protocol.feedback import Feedback, Verdict
from protocol.purchases import PurchaseProposal, StockLevel

NOW = 1_800_000_000_000
DAY_MS = 86_400_000
CATALOGUE = Catalogue(
    part=[
        Part(
            part="seal 40x52",
            suppliers=[Supplier(supplier="Nord", price=2.0, lead_days=14)],
            shortage_cost=90.0,
        )
    ]
)
SEAL = CATALOGUE.part[0].part


def level(on_hand: int, time_ms: int = NOW, part: str = SEAL) -> StockLevel:
    return StockLevel(
        id=f"stock {part} {time_ms}", part=part, time_ms=time_ms, on_hand=on_hand, monthly=[6.0, 9.0, 7.0] * 8
    )


def answer(
    proposal: PurchaseProposal, verdict: Verdict = Verdict.ACCEPTED, *, correction: str = "", time_ms: int = NOW + 1000
) -> Feedback:
    return Feedback(id="answer 1", target=proposal.id, verdict=verdict, correction=correction, time_ms=time_ms)


def proposed(store: Store) -> PurchaseProposal:
    (made,) = proposals(store.levels(), store.catalogue, None, [], [], NOW)
    return made


def test_newest_level_counts_and_survives_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path, CATALOGUE)
    assert store.hear(level(4))
    assert not store.hear(level(9, NOW - 1))
    assert not store.hear(level(4))
    assert [one.on_hand for one in Store(tmp_path, CATALOGUE).levels()] == [4]
    assert store.ignored == {"not_newer": 2}


def test_level_of_an_unknown_part_is_ignored_and_counted(tmp_path: Path) -> None:
    store = Store(tmp_path, CATALOGUE)
    assert not store.hear(level(1, part="something else"))
    assert store.levels() == []
    assert store.ignored == {"unknown_part": 1}


def test_accepted_proposal_is_not_proposed_again(tmp_path: Path) -> None:
    store = Store(tmp_path, CATALOGUE)
    store.hear(level(2))
    made = proposed(store)
    assert made.quantity > 0
    assert store.accept(answer(made), made)
    assert not store.accept(answer(made), made)
    again = proposed(Store(tmp_path, CATALOGUE))
    assert again.on_order == made.quantity
    assert again.quantity == 0


def test_the_stores_next_word_takes_the_place_of_what_was_accepted(tmp_path: Path) -> None:
    store = Store(tmp_path, CATALOGUE)
    store.hear(level(2))
    made = proposed(store)
    store.accept(answer(made, time_ms=NOW + 1000), made)
    store.hear(level(2, NOW + 500))
    assert store.levels()[0].on_order[0].quantity == made.quantity
    store.hear(level(2, NOW + 2000))
    assert store.levels()[0].on_order == []
    assert not store.accept(answer(made, time_ms=NOW + 1500), made)


def test_corrected_quantity_is_ordered_and_other_answers_order_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, CATALOGUE)
    store.hear(level(2))
    made = proposed(store)
    for verdict in (Verdict.REJECTED, Verdict.TOO_LATE):
        assert not store.accept(answer(made, verdict), made)
    assert not store.accept(answer(made, Verdict.CORRECTED, correction="part:belt"), made)
    assert not store.accept(msgspec.structs.replace(answer(made), target="another"), made)
    assert store.accept(answer(made, Verdict.CORRECTED, correction="7"), made)
    assert store.levels()[0].on_order[0].quantity == 7


def test_purchases_are_due_first_then_after_news_and_each_review(tmp_path: Path) -> None:
    store = Store(tmp_path, CATALOGUE)
    assert store.due(NOW)
    assert not store.due(NOW + 1)
    store.hear(level(2, NOW + 2))
    assert store.due(NOW + 3)
    assert not store.due(NOW + 4)
    assert store.due(NOW + 3 + 7 * DAY_MS)


def test_file_cut_short_is_not_fatal(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'{"levels": {')
    store = Store(tmp_path, CATALOGUE)
    assert store.levels() == []
    assert store.hear(level(3))


def test_accepted_purchase_becomes_a_known_delivery(tmp_path: Path) -> None:
    store = Store(tmp_path, CATALOGUE)
    store.hear(level(2))
    made = proposed(store)
    (known,) = from_purchase(answer(made), made)
    assert known.covariate == "delivery:seal-40x52"
    assert (known.start_ms, known.end_ms, known.value) == (made.arrives_ms, made.arrives_ms, float(made.quantity))
    assert (known.source, known.known_ms) == (Source.PURCHASE, NOW + 1000)
    assert from_purchase(answer(made, Verdict.REJECTED), made) == []
    assert from_purchase(answer(made, Verdict.CORRECTED, correction="12"), made)[0].value == 12.0


PART = '[[part]]\npart = "seal"\nsuppliers = [{ supplier = "Nord", price = 2.0, lead_days = 14 }]\n'


def test_catalogue_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "plant.toml"
    file.write_text(PART + '[[bill]]\npart = "seal"\nmachine_type = "pump"\n', encoding="utf-8")
    assert load_catalogue(file).bill[0].machine_type == "pump"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PART.replace(", lead_days = 14", ""), "lead_days"),
        (PART.replace("lead_days = 14", "lead_days = 0"), "lead_days"),
        (PART.replace("price", "prise"), "prise"),
        (PART + PART, "stands twice"),
        (PART.replace("}]", "}, { supplier = 'Nord', price = 1.0, lead_days = 1 }]"), "supplier 'Nord' stands twice"),
        (PART + '[[bill]]\npart = "belt"\n', "no \\[\\[part\\]\\]"),
        ("[[part", "plant.toml"),
    ],
)
def test_wrong_catalogue_is_refused_with_the_file_and_the_remedy(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "plant.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadSettings, match=words):
        load_catalogue(file)
