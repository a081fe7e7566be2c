"""Items nobody has chosen yet are found by what is known of them."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from protocol.catalogue import ItemCard
from protocol.text_vectors import TextVectors
from server.algorithms.content_based import ContentSettings, content_rows, fit_content, token_card

CARDS = [
    ItemCard(id="1", item="action:seal", attributes={"type": "pump"}, text="replace the mechanical seal"),
    ItemCard(id="2", item="action:seal-kit", attributes={"type": "pump"}, text="order a mechanical seal kit"),
    ItemCard(id="3", item="action:belt", attributes={"type": "conveyor"}, text="tighten the belt"),
    ItemCard(id="4", item="action:belt-new", attributes={"type": "conveyor"}, text="fit a new belt"),
    ItemCard(id="5", item="action:blank"),
]
SETTINGS = ContentSettings(dimensions=3, places=1024)


def test_likeness_follows_words_and_a_blank_card_scores_zero() -> None:
    vectors = fit_content(CARDS, SETTINGS).encode(CARDS)
    scores = content_rows(sparse.csr_matrix(np.eye(5)), vectors)
    assert scores[0, 1] > scores[0, 2]
    assert np.isfinite(scores).all()
    assert not scores[4].any()
    assert not scores[:, 4].any()


def test_without_any_event_the_tokens_of_a_case_find_its_cards() -> None:
    fitted = fit_content(CARDS, SETTINGS)
    scores = fitted.encode(CARDS) @ fitted.encode([token_card("type:pump")])[0]
    assert min(scores[:2]) > max(scores[2:])


def test_the_gateway_makes_the_same_vectors() -> None:
    fitted = fit_content(CARDS, SETTINGS)
    theirs = TextVectors(fitted.tables())
    for card, ours in zip(CARDS, fitted.encode(CARDS), strict=True):
        there = theirs.vector(card.text, card.attributes)
        assert np.abs(there - ours).max() < 0.03
        assert there @ ours > 0.99 or not (there.any() or ours.any())


def test_a_card_that_came_later_is_the_same_on_the_gateway() -> None:
    chosen = sparse.csr_matrix(np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [1, 1, 1, 0, 0]], dtype=np.float32))
    fitted = fit_content(CARDS, ContentSettings(dimensions=3, places=1024, mapped=0.5), chosen)
    later = ItemCard(
        id="6", item="action:belt-2", attributes={"type": "conveyor"}, text="fit a belt and a seal 更换轴承"
    )
    there = TextVectors(fitted.tables()).vector(later.text, later.attributes)
    assert there @ fitted.encode([later])[0] > 0.99


def test_the_same_cards_give_the_same_vectors_and_few_cards_are_enough() -> None:
    assert np.array_equal(fit_content(CARDS, SETTINGS).encode(CARDS), fit_content(CARDS, SETTINGS).encode(CARDS))
    for few in ([], CARDS[:1], CARDS[:2], CARDS[4:]):
        vectors = fit_content(few, SETTINGS).encode(CARDS)
        assert np.isfinite(vectors).all()
