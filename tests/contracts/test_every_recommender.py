"""Every recommender keeps the same promises: at most N, nothing excluded, never NaN, the same each time, the order of events
changes nothing, strangers and empty histories are answered; and what a gateway lists is what the server listed. A new module
of server/algorithms that recommends must be given its case here (test_every_learner looks after that)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest

from edge_agent.runtimes import LoadedModel, load
from edge_agent.skills.recommend import Answered, ListSettings, Request, recommend
from protocol.bundles import digest, pack, unpack
from protocol.catalogue import token_card
from protocol.recommending import CANDIDATES, strengths
from protocol.tables import Hybrid
from server import training
from server.algorithms import baskets, linear_items, rated_neighbours, sequences
from server.algorithms.baskets import Line
from server.algorithms.content_based import ContentSettings, fit_content
from server.algorithms.hybrid import HybridSettings, fit_hybrid
from server.algorithms.interactions import Event, interactions
from server.algorithms.linear_items import LinearSettings
from server.algorithms.neighbourhood import NeighbourSettings, item_neighbours, ranked, user_neighbours
from server.cases import Case
from server.training.hybrid_tables import packed

DAY_MS = 86_400_000
Scores = dict[str, float]
Asker = Callable[[str, Sequence[str]], Scores]
"""(user, history in time) -> every item's score."""


def events(users: int = 60, items: int = 30) -> list[Event]:
    """Three groups of taste, popular and rare items, each choice at its own time."""
    draw = random.Random(5)
    made: list[Event] = []
    for u in range(users):
        liked = [i for i in range(items) if i % 3 == u % 3 or i < 3]
        for step, i in enumerate(draw.sample(liked, 7)):
            made.append((f"u{u:02d}", f"i{i:02d}", 1.0, (u + 7 * step) * DAY_MS))
    return made


@dataclass(frozen=True)
class Recommender:
    """learn: events -> who answers. exact: whether the order of events may not change the last bit."""

    name: str
    covers: tuple[str, ...]
    learn: Callable[[list[Event]], Asker]


def _of_profiles(model: object, items: list[str]) -> Asker:
    scores = model.scores  # type: ignore[attr-defined]
    return lambda _user, history: dict(zip(items, scores(dict.fromkeys(history, 1.0)).tolist(), strict=True))


def _items(told: list[Event]) -> Asker:
    made = interactions(told)
    return _of_profiles(item_neighbours(made, NeighbourSettings(shrinkage=1.0, neighbours=20)), made.items)


def _users(told: list[Event]) -> Asker:
    made = interactions(told)
    return _of_profiles(user_neighbours(made, NeighbourSettings(neighbours=20)), made.items)


def _linear(told: list[Event]) -> Asker:
    made = interactions(told)
    return _of_profiles(linear_items.fit(made, LinearSettings(penalty=5.0)), made.items)


def _hybrid(told: list[Event]) -> Asker:
    made = interactions(told)
    cards = [token_card(f"group:{int(name[1:]) % 3}") for name in made.items]
    vectors = fit_content(cards, ContentSettings(dimensions=8, places=256)).encode(cards)
    return _of_profiles(fit_hybrid(made, HybridSettings(), vectors=vectors, seed=1), made.items)


def _rated(told: list[Event]) -> Asker:
    """Choices as high ratings, and some of the other groups' items as low ones: a rating says more than a choice."""
    high = [(user, item, 4.5) for user, item, _, _ in told]
    users = sorted({user for user, _, _ in high})
    low = [
        (user, f"i{i:02d}", 1.5)
        for user in users
        for i in range(3, 30)
        if i % 3 != int(user[1:]) % 3 and (i + int(user[1:])) % 4 == 0
    ]
    given = rated_neighbours.ratings([*high, *low])
    fitted = rated_neighbours.fit(given)
    return lambda user, _history: dict(zip(given.items, fitted.scores(user).tolist(), strict=True))


def _sequences(told: list[Event]) -> Asker:
    of: dict[str, list[str]] = {}
    for user, item, _, _ in sorted(told, key=lambda e: (e[0], e[3] or 0, e[1])):
        of.setdefault(user, []).append(item)
    fitted = sequences.fit([of[user] for user in sorted(of)])
    return lambda _user, history: dict(zip(fitted.items, fitted.scores(history).tolist(), strict=True))


def _baskets(told: list[Event]) -> Asker:
    lines = [Line(u, i, f"{u}-{(t or 0) // DAY_MS}", (t or 0) / DAY_MS) for u, i, _, t in told]
    given = baskets.purchases(lines)
    fitted = baskets.fit(given, {f"i{i:02d}": f"group {i % 3} thing {i}" for i in range(30)})
    return lambda user, _history: dict(zip(given.items, fitted.scores(user).tolist(), strict=True))


RECOMMENDERS = [
    Recommender("item neighbours", ("interactions", "neighbourhood"), _items),
    Recommender("user neighbours", ("neighbourhood",), _users),
    Recommender("linear items", ("linear_items",), _linear),
    Recommender("hybrid", ("hybrid", "lessons", "mixing", "content_based"), _hybrid),
    Recommender("rated neighbours", ("rated_neighbours",), _rated),
    Recommender("sequences", ("sequences", "listwise"), _sequences),
    Recommender("baskets", ("baskets", "likeness"), _baskets),
]
COVERED = {module for recommender in RECOMMENDERS for module in recommender.covers}
every = pytest.mark.parametrize("recommender", RECOMMENDERS, ids=[r.name for r in RECOMMENDERS])
_learned: dict[str, Asker] = {}


def learned(recommender: Recommender) -> Asker:
    if recommender.name not in _learned:
        _learned[recommender.name] = recommender.learn(events())
    return _learned[recommender.name]


def history(user: str) -> list[str]:
    return [item for who, item, _, at in sorted(events(), key=lambda e: e[3] or 0) if who == user]


def listed(scores: Scores, top: int, exclude: Sequence[str] = ()) -> list[str]:
    """As every list is made: by score, then by name, without what is excluded."""
    names = sorted(scores)
    row = np.array([[-np.inf if name in exclude else scores[name] for name in names]])
    return [names[i] for i in ranked(row, top)[0] if i >= 0]


@every
def test_a_list_has_at_most_n_items_and_none_that_was_excluded(recommender: Recommender) -> None:
    asked = learned(recommender)
    for user in ("u00", "u01", "u02"):
        had = history(user)
        for top in (0, 1, 5, 1000):
            shown = listed(asked(user, had), top, had)
            assert len(shown) <= top
            assert len(set(shown)) == len(shown)
            assert not set(shown) & set(had)


@every
def test_no_score_is_ever_nan(recommender: Recommender) -> None:
    asked = learned(recommender)
    situations: list[tuple[str, list[str]]] = [
        ("u00", history("u00")), ("u00", []), ("nobody", []), ("nobody", ["never seen"]), ("nobody", ["i00"] * 50),
    ]  # fmt: skip
    for user, had in situations:
        scores = asked(user, had)
        assert scores
        assert not any(math.isnan(score) or score == math.inf for score in scores.values())


@every
def test_the_order_of_events_changes_no_list(recommender: Recommender) -> None:
    told = events()
    random.Random(3).shuffle(told)
    again = recommender.learn(told)
    for user in ("u00", "u01", "u17"):
        one, two = learned(recommender)(user, history(user)), again(user, history(user))
        assert one.keys() == two.keys()
        assert [round(one[i], 9) for i in sorted(one)] == [round(two[i], 9) for i in sorted(two)]
        assert listed(one, 10) == listed(two, 10)


@every
def test_what_was_learned_is_worth_something(recommender: Recommender) -> None:
    """Of the best five that a user has not had, most belong to its group or to what everybody takes."""
    asked = learned(recommender)
    right = total = 0
    for u in range(12):
        had = history(f"u{u:02d}")
        for item in listed(asked(f"u{u:02d}", had), 5, had):
            right += int(item[1:]) % 3 == u % 3 or int(item[1:]) < 3
            total += 1
    assert right / total > 0.6


# the gateway -----------------------------------------------------------------------------------------------------------


def cases(count: int = 90) -> list[Case]:
    draw = random.Random(2)
    kinds = {"vibration": "replace-bearing", "temperature": "clean-filter", "pressure": "replace-seal"}
    made = []
    for i in range(count):
        kind = draw.choice(sorted(kinds))
        profile = (f"symptom:{kind}:high", "type:pump", f"machine:P-{draw.randrange(4)}")
        items = {f"action:{kinds[kind]}": 1.0, f"part:{kind}-kit": 1.0}
        made.append(Case(i * 3_600_000, profile, items))
    return made


@pytest.fixture(scope="module")
def sealed() -> training.Candidate:
    world = training.Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_790_000_000_000, because="a test")
    return training.train_recommend(cases(), 3, world, lambda _share, _step: None)[0]


@pytest.fixture(scope="module")
def model(sealed: training.Candidate) -> LoadedModel:
    return load(sealed.archive, digest(sealed.archive))


def test_a_gateway_lists_what_the_server_listed(sealed: training.Candidate, model: LoadedModel) -> None:
    made = interactions(events())
    fitted = fit_hybrid(made, HybridSettings(), seed=1)
    table = packed(fitted).hybrid()
    same = total = 0
    for u in range(40):
        had = history(f"u{u:02d}")
        server = fitted.best(dict.fromkeys(had, 1.0), 10)
        gateway = [one.item for one in table.rank(dict.fromkeys(had, 1.0), 10, reasons=False)]
        same += len(set(server) & set(gateway))
        total += len(server)
    assert same / total >= 0.99
    parity = sealed.passport.parity
    assert parity.rel_rms <= 0.05
    assert sealed.passport.eligible, sealed.passport.verdict
    assert model.passport.quality[0].model > model.passport.quality[0].reference


def test_a_sealed_recommender_survives_being_packed_again(sealed: training.Candidate) -> None:
    bundle = unpack(sealed.archive)
    assert digest(pack(bundle)) == digest(sealed.archive)
    table = Hybrid(bundle.passport.items, bundle.passport.users, bundle.tables)
    again = table.golden(bundle.golden_inputs, bundle.golden_outputs)
    np.testing.assert_array_equal(again["ranked"], bundle.golden_outputs["ranked"])


@pytest.mark.parametrize("top", [1, 3, 50])
def test_a_gateways_list_keeps_n_excludes_and_sums(model: LoadedModel, top: int) -> None:
    asked = strengths(("symptom:vibration:high", "type:pump", "machine:P-9"))
    banned = frozenset({"action:replace-bearing"})
    request = Request("e-1", "P-9", asked, "pump", top=top, exclude=banned)
    shown = recommend(request, model, Answered(), ListSettings(explore=0.0), 5)
    assert shown is not None
    assert 0 < len(shown.items) <= top
    assert not banned & {one.item for one in shown.items}
    assert any(out.item == "action:replace-bearing" and out.reason == "excluded" for out in shown.left_out)
    for one in shown.items:
        assert one.item.startswith(CANDIDATES)
        assert sum(c.amount for c in one.contributions) == pytest.approx(one.score, abs=1e-5)
    again = recommend(request, model, Answered(), ListSettings(explore=0.0), 5)
    assert again == shown
    assert msgspec.json.decode(msgspec.json.encode(shown), type=type(shown)) == shown


def test_filters_that_leave_nothing_give_an_empty_list_with_its_reasons(model: LoadedModel) -> None:
    everything = frozenset(name for name in model.passport.items if name.startswith(CANDIDATES))
    asked = strengths(("symptom:vibration:high", "type:pump"))
    shown = recommend(Request("e-2", "P-1", asked, exclude=everything), model, Answered(), ListSettings(), 5)
    assert shown is not None
    assert shown.items == []
    assert shown.left_out
