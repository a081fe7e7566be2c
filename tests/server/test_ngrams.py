"""The five-gram reference: its probabilities are probabilities, and what Kneser and Ney say they are."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.algorithms.ngrams import fit

VOCABULARY = 7
DOCUMENTS = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=40), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, st.lists(st.integers(0, VOCABULARY - 1), max_size=6), st.integers(1, 5))
def test_after_every_context_the_probabilities_sum_to_one(
    documents: list[list[int]], before: list[int], order: int
) -> None:
    if not any(documents):
        documents = [[0]]
    model = fit(documents, VOCABULARY, order)
    chances = model.next(before)
    assert chances.sum() == pytest.approx(1.0)
    assert (chances > 0).all()


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12))
def test_a_row_is_worth_what_its_tokens_are_one_by_one(documents: list[list[int]], row: list[int]) -> None:
    model = fit([*documents, [1]], VOCABULARY)
    one_by_one = [np.log(model.next(row[:i])[token]) for i, token in enumerate(row)]
    assert np.allclose(model.log_probabilities(row), one_by_one)


def test_bigram_is_the_formula_by_hand() -> None:
    """Too few counts for three discounts, so D = 1/2; the unigram counts contexts, not occurrences."""
    text = [0, 1, 0, 1, 0, 2]
    model = fit([text], 3, order=2)
    pairs = Counter(pairwise(text))
    assert pairs == {(0, 1): 2, (1, 0): 2, (0, 2): 1}
    unigram = [(1 - 0.5) / 3 + 1.5 / 3 / 3] * 3
    expected = [0.0 + 1.0 / 3 * unigram[0], 1.5 / 3 + 1.0 / 3 * unigram[1], 0.5 / 3 + 1.0 / 3 * unigram[2]]
    assert np.allclose(model.next([0]), expected)


def test_what_follows_a_rare_name_is_not_taken_for_frequent() -> None:
    """Kneser-Ney's own example: a token that is frequent after one context only is unlikely after a new one."""
    text = [5, 6] * 30 + [0, 3, 1, 3, 2, 3, 4, 3]
    chances = fit([text], 8, order=2).next([7])
    assert chances[3] > chances[6]


def test_longer_contexts_tell_more() -> None:
    rng = np.random.default_rng(0)
    text = [0, 0]
    for _ in range(3000):
        text.append(int((text[-1] + text[-2] + (rng.random() < 0.1)) % 5))
    losses = [-fit([text[:2500]], 5, order).log_probabilities(text[2500:]).mean() for order in (1, 2, 3)]
    assert losses[0] > 1.2 * losses[2]
    assert losses[1] > 1.2 * losses[2]


def test_runs_do_not_cross_documents() -> None:
    apart, together = fit([[1, 2], [3, 4]], 5, 2), fit([[1, 2, 3, 4]], 5, 2)
    assert together.next([2])[3] > together.next([2])[4]
    assert apart.next([2])[3] == pytest.approx(apart.next([2])[1])


def test_nothing_to_count_and_strange_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to count"):
        fit([[]], 5)
    with pytest.raises(ValueError, match="vocabulary has 5"):
        fit([[5]], 5)
    with pytest.raises(ValueError, match="vocabulary has 5"):
        fit([[1]], 5).log_probabilities([-1])
