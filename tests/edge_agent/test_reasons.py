"""Why an item stands in a list: what is said is so when the list is ranked again, and what it may cost is bounded."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.explain import Listing, WhatIf, flips_without, readable, reasons, shown_share, similar_cases
from edge_agent.explain.reasons import BESIDE, LONGEST_NAME, MOST_FLIPPING, MOST_SCORES
from export.to_tables import Mixed, SparseRows, hybrid_tables, neighbour_tables
from protocol.tables import Hybrid, LocalAnswer, Neighbours, Ranker, Scored, local_answers

TOKENS = [f"symptom:s{k}" for k in range(5)]
ITEMS = [*TOKENS, *(f"action:a{k}" for k in range(5))]
USERS = [f"case-{k}" for k in range(4)]
TOP = 2


def rows(dense: Any) -> SparseRows:
    owner, ids = np.nonzero(dense)
    return SparseRows(np.concatenate([[0], np.cumsum((dense != 0).sum(axis=1))]), ids, dense[owner, ids])


def near(rng: np.random.Generator) -> Any:
    dense = np.where(rng.random((len(ITEMS), len(ITEMS))) < 0.6, rng.random((len(ITEMS), len(ITEMS))), 0.0)
    np.fill_diagonal(dense, 0.0)
    return dense


def neighbours(seed: int) -> Neighbours:
    kept = rows(near(np.random.default_rng(seed)))
    return Neighbours(ITEMS, neighbour_tables(kept.indptr, kept.ids, kept.weights))


def hybrid(seed: int, answers: int = 0) -> Hybrid:
    rng = np.random.default_rng(seed)
    past = np.where(rng.random((len(USERS), len(ITEMS))) < 0.5, rng.random((len(USERS), len(ITEMS))), 0.0)
    mix = Mixed([0, 1], np.array([[1.0, 0, 0, 0], [0.2, 1.0, 0.7, 0.3]]), np.ones((2, 4)))
    tables = hybrid_tables(
        rng.random(len(ITEMS)), mix, rows(near(rng)), rows(past), 3, rng.normal(size=(len(ITEMS), 3))
    )
    told = [
        LocalAnswer(
            id=str(k),
            profile=dict.fromkeys(rng.choice(TOKENS, 2, replace=False).tolist(), 1.0),
            item=str(rng.choice(ITEMS[len(TOKENS) :])),
            value=float(rng.choice([-1.0, 1.0])),
            weight=3.0,
            time_ms=1 + k,
        )
        for k in range(answers)
    ]
    return Hybrid(ITEMS, USERS, tables).learned(local_answers(told))


def stands(ranker: Ranker, item: str, listing: Listing, without: frozenset[str] = frozenset()) -> bool:
    ranked = ranker.rank(listing.profile, listing.top, listing.prefixes, listing.exclude, without=without)
    return any(found.item == item for found in ranked)


def names_of(shown: Scored, listing: Listing) -> list[str]:
    rows = {name for name, _ in shown.contributions if name.startswith(("like:", "answer:"))}
    return sorted(rows | set(listing.profile))


def by_brute_force(ranker: Ranker, shown: Scored, listing: Listing, largest: int = 2) -> int:
    """Size of the smallest set without which the item is out; 0 where none is so small."""
    names = names_of(shown, listing)
    for size in range(1, largest + 1):
        for taken in combinations(names, size):
            if not stands(ranker, shown.item, listing, frozenset(taken)):
                return size
    return 0


PROFILES = st.dictionaries(st.sampled_from(TOKENS), st.sampled_from([0.5, 1.0, 2.0]), max_size=5)


@example(
    47, {"symptom:s1": 2.0, **dict.fromkeys(("symptom:s0", "symptom:s2", "symptom:s3", "symptom:s4"), 0.5)}, "answered"
)
@given(st.integers(0, 60), PROFILES, st.sampled_from(["neighbours", "hybrid", "answered"]))
def test_sets_that_are_told_flip_and_no_smaller_one_does(seed: int, profile: dict[str, float], kind: str) -> None:
    ranker: Ranker = neighbours(seed) if kind == "neighbours" else hybrid(seed, 3 if kind == "answered" else 0)
    listing = Listing(profile, TOP, ("action:",))
    what_if = WhatIf(ranker, listing)
    for shown in ranker.rank(profile, TOP, ("action:",)):
        told = flips_without(what_if, shown.item)
        smallest = by_brute_force(ranker, shown, listing)
        assert len(told) <= MOST_FLIPPING
        if told:
            assert not stands(ranker, shown.item, listing, frozenset(told))
            for name in told:
                assert len(told) == 1 or stands(ranker, shown.item, listing, frozenset(told) - {name})
        if smallest:
            assert len(told) == smallest
        else:
            assert not 0 < len(told) < 3 or not set(told) <= set(names_of(shown, listing))


def test_every_item_of_a_list_has_the_same_reasons_whoever_asks_first() -> None:
    ranker = hybrid(7, 3)
    listing = Listing(dict.fromkeys(TOKENS, 1.0), 3, ("action:",))
    shown = ranker.rank(listing.profile, 3, ("action:",))
    together, backwards = WhatIf(ranker, listing), WhatIf(ranker, listing)
    first = [flips_without(together, one.item) for one in shown]
    last = [flips_without(backwards, one.item) for one in reversed(shown)][::-1]
    assert first == last == [flips_without(WhatIf(ranker, listing), one.item) for one in shown]


def test_what_is_not_in_the_list_has_no_set() -> None:
    listing = Listing({TOKENS[0]: 1.0}, TOP, ("action:",))
    assert flips_without(WhatIf(hybrid(1), listing), "part:unknown") == []
    assert flips_without(WhatIf(hybrid(1), Listing({}, 0)), ITEMS[-1]) == []


class Counting:
    """A ranker that counts how often it was asked."""

    def __init__(self, ranker: Ranker, as_if: int) -> None:
        self._ranker, self.items, self.asked = ranker, range(as_if), 0

    def rank(self, *given: Any, **named: Any) -> list[Scored]:
        self.asked += 1
        return self._ranker.rank(*given, **named)


@pytest.mark.parametrize("as_if", [10, 20_000, 1_000_000])
def test_a_large_table_is_ranked_a_few_times_only(as_if: int) -> None:
    ranker: Any = Counting(hybrid(3, 3), as_if)
    listing = Listing(dict.fromkeys(TOKENS, 1.0), 4, ("action:",))
    what_if = WhatIf(ranker, listing)
    for one in hybrid(3, 3).rank(listing.profile, 4, ("action:",)):
        told = flips_without(what_if, one.item)
        assert not told or not stands(hybrid(3, 3), one.item, listing, frozenset(told))
    assert ranker.asked <= MOST_SCORES // (as_if + BESIDE)


def test_sums_of_what_is_shown_stay_exact() -> None:
    shown = Scored("action:a", 60.0, [(f"symptom:{k:02}" + "x" * 200, 1.0) for k in range(60)])
    told = readable(shown)
    assert len(told) == 50
    assert told[-1].because == "others"
    assert math.fsum(one.amount for one in told) == 60.0
    assert all(len(one.because) <= LONGEST_NAME for one in told)
    assert shown_share(shown) == pytest.approx(3 / 60)


@pytest.mark.parametrize(
    ("amounts", "share"), [([3.0, -1.0], 1.0), ([4.0, -3.0, 2.0, 1.0], 0.9), ([], 1.0), ([0.0, 0.0], 1.0)]
)
def test_the_share_that_is_shown_counts_what_speaks_against_it_too(amounts: list[float], share: float) -> None:
    assert shown_share(Scored("a", sum(amounts), [("t", amount) for amount in amounts])) == pytest.approx(share)


def test_similar_cases_are_those_that_chose_the_item() -> None:
    similar = [(f"case-{k}" + "y" * 200, 1.0 + k * 1e-12, 1.0 - 0.1 * k) for k in range(8)] + [("case-no", 0.9, -5.0)]
    told = similar_cases(Scored("action:a", 1.0, [], similar))
    assert len(told) == 5
    assert all(one.amount > 0 and one.similarity <= 1.0 and len(one.who) <= LONGEST_NAME for one in told)


@given(st.integers(0, 40), PROFILES)
def test_all_reasons_of_a_list(seed: int, profile: dict[str, float]) -> None:
    ranker = hybrid(seed, 3)
    for shown in ranker.rank(profile, TOP, ("action:",)):
        why = reasons(shown, None)
        assert math.fsum(one.amount for one in why.contributions) == pytest.approx(shown.score, abs=1e-9)
        assert why.flips_without == []
        assert 0 < why.shown_share <= 1
        assert {one.who for one in why.similar} <= set(USERS) | {"answer:0", "answer:1", "answer:2"}
        again = reasons(shown, WhatIf(ranker, Listing(profile, TOP, ("action:",))))
        assert again.contributions == why.contributions
