"""What to do about a case: the items that a table ranks highest, without those that must not be shown, with exact reasons.
With a small chance the end of a list shows an experiment, and every item carries the chance with which it stands there, so
that another table can be judged by these lists later. No I/O, and no randomness but the list's own id.

A list has at most `top` items, never one that was excluded; the first place and safety-relevant items are never given
away, and no safety-relevant item is ever an experiment."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from edge_agent.explain import Listing, WhatIf, reasons
from edge_agent.runtimes import LoadedModel
from protocol.catalogue import Catalogue, ItemCard
from protocol.names import stable_id
from protocol.reading.notes import NoteReading
from protocol.recommending import CANDIDATES, RecommendSpec, event_profile, reading_profile, risk_profile
from protocol.reports import (
    FaultEvent,
    FaultRisk,
    LeftOut,
    Recommendation,
    RecommendedItem,
    RemainingLife,
)
from protocol.tables import LocalAnswers, Ranker, Scored

MOST_LEFT_OUT = 100
MOST_TOKENS = 100
ANY = "*"


@dataclass(frozen=True)
class Request:
    """Who asks, for what case. `asked_by`: the id of the event, risk or person's request. `exclude`: items that the caller
    does not want. `prefixes`: kinds of items (none: the model's own)."""

    asked_by: str
    machine: str
    profile: Mapping[str, float]
    machine_type: str = ""
    top: int = 5
    exclude: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answered:
    """What this gateway was answered: `local` moves scores in like cases, `rejected` (item -> since when) are out for this
    very case, `too_late` counts per item and moves nothing."""

    local: LocalAnswers | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    too_late: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ListSettings:
    """explore: the chance that the last `explored_positions` places show experiments, drawn evenly from the `pool` best items
    beyond the list. safety: items on which nobody experiments. flips: whether counterfactual reasons are worked out."""

    explore: float = 0.05
    explored_positions: int = 1
    pool: int = 5
    cards: Mapping[str, ItemCard] = field(default_factory=dict)
    safety: frozenset[str] = frozenset()
    flips: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.explore < 1 or self.explored_positions < 1 or self.pool < 1:
            raise ValueError(
                f"explore {self.explore} must be from 0 to below 1, explored_positions {self.explored_positions} and"
                f" pool {self.pool} at least 1"
            )


def list_settings(catalogue: Catalogue | None = None, *, explore: float = 0.05, pool: int = 5) -> ListSettings:
    """A plant's settings with what its catalogue says of items."""
    if catalogue is None:
        return ListSettings(explore=explore, pool=pool)
    cards = {card.item: card for card in catalogue.card}
    return ListSettings(explore=explore, pool=pool, cards=cards, safety=frozenset(catalogue.safety))


def asked_by_event(event: FaultEvent, open_symptoms: list[str]) -> Request:
    """An event asks what to do about it."""
    return Request(event.id, event.machine, event_profile(event, open_symptoms), event.machine_type)


def asked_by_risk(told: FaultRisk | RemainingLife, open_symptoms: list[str], machine_type: str = "") -> Request:
    """A predicted fault asks what to do before it comes."""
    return Request(told.id, told.machine, risk_profile(told, open_symptoms, machine_type), machine_type)


def asked_by_note(reading: NoteReading, open_symptoms: list[str], machine_type: str = "") -> Request:
    """A failure that somebody wrote of asks what to do about it."""
    return Request(reading.id, reading.machine, reading_profile(reading, open_symptoms, machine_type), machine_type)


def recommend(
    request: Request, model: LoadedModel, answers: Answered, settings: ListSettings, now_ms: int
) -> Recommendation | None:
    """A list, logged as it is to be shown; shorter than asked for, with what was left out, where filters leave little. None
    if the table knows nothing of this case."""
    if model.ranker is None:
        return None
    spec = spec_of(model)
    prefixes = request.prefixes or tuple(spec.candidates)
    ranker = model.ranker.learned(answers.local)
    blocked = _blocked(request, ranker, answers, settings)
    safety = settings.safety | set(spec.safety) | {item for item, card in settings.cards.items() if card.safety}
    listing = Listing(request.profile, request.top, prefixes, frozenset(blocked))
    ranked = _ranked(ranker, listing, safety, settings)
    left_out = _left_out(model.ranker, ranker, listing, blocked)
    if not ranked and not left_out:
        return None
    name = stable_id("recommendation", request.asked_by)
    places = drawn(name, [one.item for one in ranked], request.top, safety, settings)
    found = {one.item: one for one in ranked}
    what_if = WhatIf(ranker, listing) if settings.flips else None
    return Recommendation(
        id=name,
        event=request.asked_by,
        machine=request.machine,
        issued_ms=now_ms,
        profile=sorted(request.profile)[:MOST_TOKENS],
        items=[_shown(found[place.item], place, what_if) for place in places],
        model=model.ref,
        left_out=left_out,
        policy="explore" if any(place.propensity < 1 for place in places) else "greedy",
    )


def spec_of(model: LoadedModel) -> RecommendSpec:
    """What a recommender's passport says of it; of one from before there was such a word, what its lineage says."""
    passport = model.passport
    until = passport.lineage.parameters.get("data_until_ms", "0")
    return passport.recommend or RecommendSpec(candidates=list(CANDIDATES), data_until_ms=int(until))


@dataclass(frozen=True)
class Place:
    """What stands at a position, and the chance with which the policy puts this very item there."""

    item: str
    position: int
    propensity: float
    explored: bool = False


def drawn(
    name: str, ranked: list[str], top: int, safety: frozenset[str] | set[str], settings: ListSettings
) -> list[Place]:
    """The list that goes by this name. `ranked`: the best items, more than `top` of them where there are.

    One throw decides whether this list experiments. Then its last places, in order, get items drawn evenly and without
    replacement from the pool of K items, so that each of them stands at each such place with the chance explore / K, and
    the item that belongs there with 1 - explore: exact, whichever list is drawn."""
    shown, pool = ranked[:top], [item for item in ranked[top:] if item not in safety][: settings.pool]
    first = max(len(shown) - settings.explored_positions, 1)
    slots = [i for i in range(first, len(shown)) if shown[i] not in safety][-len(pool) :] if pool else []
    if not settings.explore:
        slots = []
    experiments = _chance(name, "explore") < settings.explore
    each = settings.explore / len(pool) if pool else 0.0
    places = [Place(item, i + 1, 1.0 - settings.explore if i in slots else 1.0) for i, item in enumerate(shown)]
    for i in slots if experiments else ():
        item = pool.pop(int(_chance(name, f"place {i}") * len(pool)))
        places[i] = Place(item, i + 1, each, explored=True)
    return places


def _chance(name: str, of: str) -> float:
    """Evenly in [0, 1), the same again for the same list after a restart."""
    digest = hashlib.blake2s(f"{name}\x1f{of}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2.0**48


def _ranked(
    ranker: Ranker, listing: Listing, safety: frozenset[str] | set[str], settings: ListSettings
) -> list[Scored]:
    """The list and, beyond it, enough for the pool however many safety-relevant items stand between."""
    wanted = listing.top + (settings.pool + len(safety) if settings.explore else 0)
    return ranker.rank(listing.profile, wanted, listing.prefixes, listing.exclude)


def _shown(scored: Scored, place: Place, what_if: WhatIf | None) -> RecommendedItem:
    why = reasons(scored, None if place.explored else what_if)
    return RecommendedItem(
        item=place.item,
        position=place.position,
        score=scored.score,
        propensity=place.propensity,
        contributions=why.contributions,
        explored=place.explored,
        similar=why.similar,
        flips_without=why.flips_without,
        shown_share=why.shown_share,
    )


def _blocked(
    request: Request, ranker: Ranker, answers: Answered, settings: ListSettings
) -> dict[str, tuple[str, int | None]]:
    """Items that must not be shown: (reason, since when)."""
    blocked: dict[str, tuple[str, int | None]] = {}
    for item, since_ms in answers.rejected.items():
        blocked[item] = ("rejected", since_ms)
    for item, card in settings.cards.items():
        if item in ranker.index:
            reason = _unfit(card, request)
            if reason:
                blocked[item] = (reason, None)
    return blocked | dict.fromkeys(request.exclude, ("excluded", None))


def _unfit(card: ItemCard, request: Request) -> str:
    """Why an item is not for this machine; empty if it may be."""
    if card.withdrawn:
        return "withdrawn"
    if card.machine not in (ANY, request.machine):
        return "other_machine"
    kind = card.attributes.get("machine_type", "")
    return "other_type" if kind and request.machine_type and kind != request.machine_type else ""


def _left_out(
    trained: Ranker, learned: Ranker, listing: Listing, blocked: Mapping[str, tuple[str, int | None]]
) -> list[LeftOut]:
    """Those of the blocked items that would have stood in the list, with the answers heard since or without them."""
    if not blocked:
        return []
    would = dict.fromkeys(item for ranker in (trained, learned) for item in _standing(ranker, listing, blocked))
    return [LeftOut(item=item, reason=blocked[item][0], since_ms=blocked[item][1]) for item in would][:MOST_LEFT_OUT]


def _standing(ranker: Ranker, listing: Listing, blocked: Mapping[str, object]) -> Iterator[str]:
    everything = ranker.rank(listing.profile, listing.top + len(blocked), listing.prefixes, reasons=False)
    allowed = iter(range(listing.top))
    for one in everything:
        if one.item in blocked:
            yield one.item
        elif next(islice(allowed, 1), None) is None:
            return
