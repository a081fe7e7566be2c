"""A hybrid knows whom to trust at each length of profile, and a gateway gives the same lists."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from export.parity import overlap
from protocol.catalogue import ItemCard
from protocol.errors import Refused
from protocol.recommending import CANDIDATES
from protocol.text_vectors import TextVectors
from server.algorithms.collaborative import Case
from server.algorithms.content_based import ContentSettings, fit_content, token_card
from server.algorithms.hybrid import (
    FittedHybrid,
    HybridSettings,
    chosen_settings,
    fit_hybrid,
    fit_parts,
    newest_rows,
    past_rows,
    prior_from_cards,
)
from server.algorithms.interactions import Interactions, interactions, profile_row
from server.algorithms.lessons import cases, covering, histories, only
from server.algorithms.mixing import Shortlists, best_mix, joined, learn_mix
from server.training.hybrid_tables import case_events, packed

HOUR_MS = 3_600_000
KNOWN = HybridSettings(lengths=(0, 1, 2, 4, 8, 16, 32))


def customers(count: int = 240) -> Interactions:
    """The first purchase is chance, then comes what everybody buys; from the fifth on most are of one's own kind."""
    draw = np.random.default_rng(1)
    common = 1 / np.arange(2, 22)
    events = []
    for user in range(count):
        own = [f"kind{user % 6}:{n:02d}" for n in draw.permutation(40)[:34]]
        shared = [f"common:{n:02d}" for n in draw.choice(20, 14, replace=False, p=common / common.sum())]
        rest = [str(name) for name in draw.permutation([*own, *shared[4:]])]
        bought = [f"chance:{draw.integers(60):02d}", *shared[:4], *rest]
        events += [(f"user{user:03d}", item, 1.0, (place + 1) * HOUR_MS) for place, item in enumerate(bought)]
    return interactions(events)


def orders(count: int = 60, seed: int = 0) -> list[Case]:
    """Hot machines get their filter cleaned, shaking ones their bearing replaced; a few orders are odd."""
    draw = np.random.default_rng(seed)
    made = []
    for i in range(count):
        hot = bool(draw.random() < 0.5)
        seen = "symptom:temperature:high" if hot else "symptom:vibration:high"
        done = "action:clean-filter" if hot else "action:replace-bearing"
        items = {done: 1.0} if draw.random() < 0.9 else {"action:call-maker": 1.0}
        if not hot:
            items |= {"part:bearing": 1.0}
        made.append(Case(i * HOUR_MS, (seen, "type:pump", f"machine:P-{i % 5}"), items))
    return made


SHAKING = {"symptom:vibration:high": 1.0, "type:pump": 1.0, "machine:P-1": 1.0}
HOT = {"symptom:temperature:high": 1.0, "type:pump": 1.0, "machine:P-1": 1.0}


def on_offer(events: Interactions) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.array([name.startswith(CANDIDATES) for name in events.items], dtype=bool)


def of_cases(given: list[Case], *, content: bool = True) -> FittedHybrid:
    events = case_events(given, 365.0, 3.0)
    may = on_offer(events)
    cards = [token_card(name) for name in events.items]
    vectors = fit_content(cards, ContentSettings(dimensions=8, places=512)).encode(cards) if content else None
    return fit_hybrid(events, HybridSettings(), cases(may), vectors=vectors, offered=may)


@pytest.fixture(scope="module", name="shop")
def _shop() -> FittedHybrid:
    return fit_hybrid(customers(), KNOWN)


@pytest.fixture(scope="module", name="plant")
def _plant() -> FittedHybrid:
    return of_cases(orders())


def test_popularity_leads_a_short_profile_and_neighbours_a_long_one(shop: FittedHybrid) -> None:
    first, last = shop.weights[1], shop.weights[-1]
    assert first[0] > 0.5
    assert last[1] + last[2] > 0.8
    np.testing.assert_allclose(shop.weights.sum(axis=1), 1.0)


def test_a_long_history_gets_what_its_own_kind_buys(shop: FittedHybrid) -> None:
    profile = {f"kind3:{n:02d}": 1.0 for n in range(16)} | {f"common:{n:02d}": 1.0 for n in range(4)}
    shown = shop.best(profile, 10)
    assert all(name.startswith(("kind3:", "common:")) for name in shown)
    assert sum(name.startswith("kind3:") for name in shown) >= 6
    assert shop.best({}, 3) == shop.best({"never seen": 1.0}, 3)
    assert all(name.startswith("common:") for name in shop.best({}, 8))


def test_the_order_of_the_profile_and_of_the_events_changes_nothing() -> None:
    given = orders()
    turned = [replace(case, profile=case.profile[::-1], items=dict(reversed(case.items.items()))) for case in given]
    one, other = of_cases(given), of_cases(turned)
    assert np.array_equal(one.weights, other.weights)
    np.testing.assert_allclose(one.scores(SHAKING), other.scores(dict(reversed(SHAKING.items()))), rtol=0, atol=1e-10)


def test_the_same_data_and_seed_give_the_same_hybrid(shop: FittedHybrid) -> None:
    again = fit_hybrid(customers(), KNOWN)
    assert np.array_equal(shop.weights, again.weights)
    assert np.array_equal(shop.scale, again.scale)


def test_sixty_cases_are_enough_and_only_what_is_offered_is_shown(plant: FittedHybrid) -> None:
    assert plant.best(SHAKING, 2) == ["part:bearing", "action:replace-bearing"]
    assert plant.best(HOT, 1) == ["action:clean-filter"]
    for profile in ({}, SHAKING, {"no such token": 1.0}, {"action:replace-bearing": 1.0}, {"type:pump": -1.0}):
        assert all(name.startswith(CANDIDATES) and name not in profile for name in plant.best(profile, 100))
        assert np.isfinite(plant.scores(profile)).all()


def test_strengths_that_are_no_number_are_as_if_they_were_not_there(plant: FittedHybrid) -> None:
    assert np.array_equal(plant.scores(SHAKING | {"machine:P-2": float("nan")}), plant.scores(SHAKING))


def test_a_machine_that_was_never_seen_gets_the_list_of_its_type_and_symptom(plant: FittedHybrid) -> None:
    assert plant.best(SHAKING | {"machine:new": 1.0}, 2) == ["part:bearing", "action:replace-bearing"]


def test_a_part_that_nobody_has_ordered_is_found_by_its_card() -> None:
    cards = {"part:bearing-6204": "vibration bearing pump 6204", "part:filter-mesh": "temperature filter mesh"}
    events = covering(case_events(orders(), 365.0, 3.0), list(cards))
    known = [
        ItemCard(id=name, item=name, text=cards[name]) if name in cards else token_card(name) for name in events.items
    ]
    content = fit_content(known, ContentSettings(dimensions=8, places=512))
    may = on_offer(events)
    fitted = fit_hybrid(events, HybridSettings(), cases(may), vectors=content.encode(known), offered=may)
    new = [name for name in fitted.best(SHAKING, 100) if name in cards]
    assert new[:1] == ["part:bearing-6204"]
    there = packed(fitted, content)
    words = TextVectors(there.tables)
    later = [("part:bearing-6205", words.vector("vibration bearing pump 6205"))]
    shown = [one.item for one in there.hybrid().with_cards(later).rank(SHAKING, 100, CANDIDATES)]
    assert "part:bearing-6205" in shown


def test_without_any_event_cards_are_ranked_by_the_tokens_of_a_case() -> None:
    cards = [
        ItemCard(
            id="1", item="action:bearing", attributes={"type": "pump"}, text="replace the bearing against vibration"
        ),
        ItemCard(
            id="2", item="action:filter", attributes={"type": "pump"}, text="clean the filter, temperature too high"
        ),
        ItemCard(id="3", item="action:belt", attributes={"type": "conveyor"}, text="tighten the belt"),
        ItemCard(id="4", item="action:old", attributes={"type": "pump"}, text="vibration", withdrawn=True),
    ]
    encoder = fit_content(cards, ContentSettings(dimensions=4, places=1024))
    prior = prior_from_cards(cards, list(SHAKING), encoder)
    assert prior.best(SHAKING, 1) == ["action:bearing"]
    assert prior.best({}, 10) == ["action:bearing", "action:belt", "action:filter"]
    there = packed(prior, encoder).hybrid()
    assert [one.item for one in there.rank(SHAKING, 10, CANDIDATES)] == prior.best(SHAKING, 10)
    assert [one.item for one in there.rank({}, 10, CANDIDATES)] == prior.best({}, 10)


def test_a_rejected_item_sinks_and_its_correction_rises() -> None:
    verdict = {"action:replace-bearing": -1.0, "part:bearing": -1.0, "action:align-shaft": 1.0}
    answers = [Case((31 + k) * HOUR_MS, tuple(SHAKING), verdict, source="answer") for k in range(8)]
    before, after = of_cases(orders(30), content=False), of_cases([*orders(30), *answers], content=False)
    assert before.best(SHAKING, 2) == ["part:bearing", "action:replace-bearing"]
    assert after.best(SHAKING, 1) == ["action:align-shaft"]

    def place(fitted: FittedHybrid, item: str) -> int:
        return [*fitted.best(SHAKING, 100), item].index(item)

    assert place(after, "action:replace-bearing") > place(before, "action:replace-bearing")


def test_a_past_row_votes_against_what_it_rejected() -> None:
    events = interactions(
        [("one", "x", 1.0, None), ("one", "a", 1.0, None), ("two", "x", 1.0, None), ("two", "a", -1.0, None)],
        rejections=True,
    )
    alike = past_rows(only(events, np.array([0])), 5).score_rows(profile_row(events.items, {"x": 1.0}))
    torn = past_rows(events, 5).score_rows(profile_row(events.items, {"x": 1.0}))
    assert torn[0, 0] < alike[0, 0]
    parts = fit_parts(events, HybridSettings(), None, np.ones(2, dtype=bool))
    assert parts.popularity[0] < parts.popularity[1]


def test_what_was_only_rejected_is_not_popular() -> None:
    given = [Case(1, ("type:pump",), {"part:a": 1.0, "part:b": -1.0}), Case(2, ("type:pump",), {"part:a": 1.0})]
    events = case_events(given, 365.0, 3.0)
    parts = fit_parts(events, HybridSettings(), None, on_offer(events))
    assert parts.popularity[events.items.index("part:b")] == 0
    assert parts.popularity[events.items.index("type:pump")] == 0


def test_a_gateway_gives_the_same_lists_of_histories(shop: FittedHybrid) -> None:
    there = packed(shop).hybrid()
    asked = histories(only(customers(), np.arange(0, 240, 8)), KNOWN.lengths, np.random.default_rng(0)).profiles
    profiles = [{shop.items[i]: 1.0 for i in asked[b].indices} for b in range(asked.shape[0])]
    ours = [shop.best(profile, 10) for profile in profiles]
    theirs = [[one.item for one in there.rank(profile, 10, reasons=False)] for profile in profiles]
    assert overlap(theirs, ours) >= 0.99


def test_a_gateway_gives_the_same_lists_of_cases(plant: FittedHybrid) -> None:
    answers = [
        Case(
            (61 + k) * HOUR_MS,
            tuple(SHAKING),
            {"action:replace-bearing": -1.0, "action:align-shaft": 0.5},
            source="answer",
        )
        for k in range(5)
    ]
    for fitted in (plant, of_cases([*orders(), *answers])):
        there = packed(fitted).hybrid()
        profiles = [{}, SHAKING, HOT, *(dict.fromkeys(case.profile, 1.0) for case in orders(30, seed=5))]
        ours = [fitted.best(profile, 5) for profile in profiles]
        theirs = [[one.item for one in there.rank(profile, 5, CANDIDATES)] for profile in profiles]
        assert overlap(theirs, ours) >= 0.99
        np.testing.assert_allclose(there.scores(SHAKING), fitted.scores(SHAKING), atol=0.02)


def test_settings_are_chosen_in_the_same_way_each_time() -> None:
    events = case_events(orders(), 365.0, 3.0)
    may = on_offer(events)
    found = [chosen_settings(events, HybridSettings(), cases(may), offered=may) for _ in range(2)]
    assert found[0] == found[1]


def test_lessons_hide_what_was_done_and_drop_what_was_known() -> None:
    given = [*orders(10), Case(11 * HOUR_MS, tuple(HOT), {"action:clean-filter": -1.0})]
    events = case_events(given, 365.0, 3.0)
    may = on_offer(events)
    lessons = cases(may)(events, (0, 1, 2, 3), np.random.default_rng(0))
    assert sorted(set(lessons.lengths.tolist())) == [1, 2, 3]
    assert lessons.profiles.shape[0] == 30  # nothing was right in the eleventh
    assert not lessons.profiles[:, np.flatnonzero(may)].nnz
    assert not lessons.wanted[:, np.flatnonzero(~may)].nnz


def test_a_history_is_cut_in_the_order_of_time() -> None:
    events = customers(1)
    lessons = histories(events, (0, 1, 4, 8), np.random.default_rng(0))
    assert events.times_ms is not None
    at = dict(zip(events.times_ms.indices.tolist(), events.times_ms.data.tolist(), strict=True))
    for known, wanted in zip(lessons.profiles, lessons.wanted, strict=True):
        assert max(at[i] for i in known.indices) < min(at[i] for i in wanted.indices)
    assert all(a < b for a, b in pairwise(lessons.lengths.tolist()))


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(Refused, match="more histories or cases"):
        fit_hybrid(interactions([("a", "x", 1.0, 1), ("b", "y", 1.0, 2)]), HybridSettings())
    with pytest.raises(Refused, match="more histories or cases"):
        fit_hybrid(interactions([]), HybridSettings())


def test_the_newest_rows_are_kept() -> None:
    events = interactions([("a", "x", 1.0, 30), ("b", "x", 1.0, 10), ("c", "y", 1.0, 20)])
    assert newest_rows(events, 2).users == ["a", "c"]
    assert newest_rows(replace(events, times_ms=None), 2).users == ["b", "c"]


def test_the_best_mixture_is_found_and_a_rare_length_takes_the_nearest() -> None:
    draw = np.random.default_rng(0)
    right = draw.random((240, 40)) < 0.1
    right[:, 0] = True
    good, noise = right + draw.normal(0, 0.5, right.shape), draw.random(right.shape)
    lists = Shortlists(
        np.array([1] * 120 + [4] * 120),
        np.stack([good, noise], axis=2),
        np.ones(right.shape, dtype=bool),
        right,
        right.sum(axis=1),
    )
    assert best_mix(lists)[0] > 0.8
    weights, scale = learn_mix(joined([lists]), (0, 1, 2, 4, 8), np.zeros(2))
    assert np.array_equal(weights[1], weights[0])
    assert np.array_equal(weights[4], weights[3])
    assert (scale > 0).all()
