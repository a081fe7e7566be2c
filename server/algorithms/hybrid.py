"""One list from four recommenders: popularity, item-based, user-based and content-based, weighted by how much is known.

Burke 2002 (weighted hybrid). With few events popularity and content know more than neighbours do; with many it is the other
way round. So there are weights for each length of profile, learned on rows that no part was fitted on. A score is a sum over
parts, each divided by a fixed scale, so its reasons are exact. Everything is computed as `protocol.tables.Hybrid` does on a
gateway, which ranks from the same numbers in int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
from scipy import sparse

from protocol.catalogue import ItemCard
from protocol.recommending import PARTS
from protocol.windows import Floats
from server.algorithms.content_based import Encoder, content_rows, normalised, token_card, unit
from server.algorithms.interactions import Interactions, profile_row
from server.algorithms.lessons import Ints, Mask, Teach, histories, only
from server.algorithms.mixing import Shortlists, joined, learn_mix, shortlists
from server.algorithms.neighbourhood import ItemNeighbours, NeighbourSettings, item_neighbours, ranked

LENGTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
DECIMALS = 9
BLOCK = 256


@dataclass(frozen=True)
class HybridSettings:
    """items: how neighbours are made. alike: so many of the past rows most like a profile vote. most_users: past rows kept,
    the newest. popular: exponent of an item's count. lengths: lower edges of profile lengths with weights of their own.
    least_content: what content counts at least, so that what nobody has chosen yet can be found. most_lessons: rows that
    weights are learned from. folds: parts are fitted so often without some of those."""

    items: NeighbourSettings = field(default_factory=lambda: NeighbourSettings(shrinkage=5.0, neighbours=200))
    alike: int = 20
    most_users: int = 20_000
    popular: float = 0.5
    lengths: tuple[int, ...] = LENGTHS
    least_content: float = 0.02
    most_lessons: int = 500
    folds: int = 4


@dataclass(frozen=True)
class PastRows:
    """rows [U, n]: confidences of past cases, machines or customers, below 0 what they rejected. The `most` rows nearest to a
    profile by cosine, above 0 and compared to 9 decimals, vote with it; of equals the one that stands first."""

    users: list[str]
    rows: sparse.csr_matrix
    directions: sparse.csr_matrix
    most: int

    def similar(self, profiles: sparse.csr_matrix) -> sparse.csr_matrix:
        """Cosines of each profile with its most similar rows: [B, n] -> [B, U]."""
        cosine = np.round((normalised(profiles) @ self.directions).toarray(), DECIMALS)
        near = ranked(np.where(cosine > 0, cosine, -np.inf), self.most)
        asked, place = np.nonzero(near >= 0)
        who = near[asked, place]
        return sparse.csr_matrix((cosine[asked, who], (asked, who)), shape=cosine.shape)

    def score_rows(self, profiles: sparse.csr_matrix) -> Floats:
        """Every item's votes for each profile: [B, n] -> [B, n]."""
        blocks = [profiles[start : start + BLOCK] for start in range(0, profiles.shape[0], BLOCK)]
        made = [(self.similar(block) @ self.rows).toarray() for block in blocks]
        return np.concatenate(made) if made else np.zeros(profiles.shape)


def past_rows(events: Interactions, most: int) -> PastRows:
    """The events' rows, ready to be compared."""
    rows = sparse.csr_matrix(events.matrix, dtype=np.float64)
    return PastRows(events.users, rows, sparse.csr_matrix(normalised(rows).T), most)


@dataclass(frozen=True)
class HybridParts:
    """popularity [n]; neighbours and past over the same n items, vectors [n, d] of unit length, or None; offered [n]: what
    may be recommended."""

    items: list[str]
    popularity: Floats
    neighbours: ItemNeighbours | None
    past: PastRows | None
    vectors: Floats | None
    offered: Mask

    def raw(self, profiles: sparse.csr_matrix) -> list[Floats]:
        """Every part's own scores of each profile, in the order of PARTS: four times [B, n]."""
        shape = (profiles.shape[0], len(self.items))
        return [
            np.broadcast_to(self.popularity, shape),
            np.zeros(shape) if self.neighbours is None else self.neighbours.score_rows(profiles),
            np.zeros(shape) if self.past is None else self.past.score_rows(profiles),
            np.zeros(shape) if self.vectors is None else content_rows(profiles, self.vectors),
        ]


@dataclass(frozen=True)
class FittedHybrid:
    """lengths [k]: lower edges; weights, scale [k, 4]: score = sum over parts of weights / scale * raw. Where nothing is
    known popularity counts at least 1."""

    parts: HybridParts
    lengths: tuple[int, ...]
    weights: Floats
    scale: Floats

    @property
    def items(self) -> list[str]:
        """Names of the n items."""
        return self.parts.items

    def score_rows(self, profiles: sparse.csr_matrix) -> Floats:
        """Every item's score for each profile: [B, n] -> [B, n]."""
        known = np.diff(profiles.indptr)
        share = (self.weights / self.scale)[np.searchsorted(self.lengths, known, side="right") - 1]
        share[(known == 0) & (share[:, 0] <= 0), 0] = 1.0
        return np.asarray(sum(share[:, p, None] * raw for p, raw in enumerate(self.parts.raw(profiles))))

    def scores(self, profile: dict[str, float]) -> Floats:
        """Every item's score for {token: strength} [n]; tokens that were never seen are ignored."""
        return np.asarray(self.score_rows(profile_row(self.items, profile))[0])

    def best(self, profile: dict[str, float], top: int) -> list[str]:
        """At most `top` of what may be recommended and is not in the profile, by (score descending, name), above 0."""
        score = np.round(self.scores(profile), DECIMALS)
        shown = self.parts.offered & (score > 0) & ~np.isin(self.items, list(profile))
        found = ranked(np.where(shown, score, -np.inf)[None, :], top)[0]
        return [self.items[i] for i in found if i >= 0]


def fit_hybrid(
    events: Interactions,
    settings: HybridSettings,
    teach: Teach = histories,
    *,
    vectors: Floats | None = None,
    offered: Mask | None = None,
    seed: int = 0,
) -> FittedHybrid:
    """Weights from lessons on parts that were fitted without the lessons' rows, then the parts fitted to all events. vectors
    [n, d]: what is known of the items; offered [n]: what may be recommended (default: everything)."""
    may = np.ones(len(events.items), dtype=bool) if offered is None else offered
    lists = rehearsed(events, settings, teach, vectors, may, seed)
    least = np.array([0.0, 0.0, 0.0, settings.least_content])
    weights, scale = learn_mix(lists, settings.lengths, least)
    return FittedHybrid(fit_parts(events, settings, vectors, may), settings.lengths, weights, scale)


def fit_parts(events: Interactions, settings: HybridSettings, vectors: Floats | None, offered: Mask) -> HybridParts:
    """The four parts. Popularity counts what was chosen, not what was rejected."""
    counts = np.asarray(events.matrix.maximum(0).sum(axis=0), dtype=np.float64).ravel()
    popularity = np.where(offered & (counts > 0), np.maximum(counts, 1e-12) ** settings.popular, 0.0)
    largest = popularity.max(initial=0.0)
    return HybridParts(
        events.items,
        popularity / largest if largest > 0 else popularity,
        item_neighbours(events, settings.items, offered),
        past_rows(newest_rows(events, settings.most_users), settings.alike),
        None if vectors is None else unit(vectors),
        offered,
    )


def newest_rows(events: Interactions, most: int) -> Interactions:
    """The `most` rows with the newest events, in the order they stand in."""
    if len(events.users) <= most:
        return events
    if events.times_ms is None:
        return only(events, np.arange(len(events.users) - most, len(events.users)))
    newest = np.asarray(events.times_ms.max(axis=1).todense()).ravel()
    return only(events, np.sort(np.argsort(-newest, kind="stable")[:most]))


def rehearsed(
    events: Interactions, settings: HybridSettings, teach: Teach, vectors: Floats | None, offered: Mask, seed: int
) -> Shortlists:
    """Lessons of drawn rows, each asked of parts that were fitted without its row."""
    draw = np.random.default_rng(seed)
    rows = draw.permutation(len(events.users))[: settings.most_lessons]
    folds = max(1, min(settings.folds, len(rows))) if 2 * len(rows) > len(events.users) else 1
    return joined(
        [_asked(events, np.sort(part), settings, teach, vectors, offered, draw) for part in np.array_split(rows, folds)]
    )


def _asked(
    events: Interactions,
    rows: Ints,
    settings: HybridSettings,
    teach: Teach,
    vectors: Floats | None,
    offered: Mask,
    draw: np.random.Generator,
) -> Shortlists:
    lessons = teach(only(events, rows), settings.lengths, draw)
    rest = np.setdiff1d(np.arange(len(events.users)), rows)
    parts = fit_parts(only(events, rest), settings, vectors, offered)
    lists = []
    for start in range(0, max(lessons.profiles.shape[0], 1), BLOCK):
        profiles = lessons.profiles[start : start + BLOCK]
        closed = np.asarray(profiles.toarray() != 0) | ~offered[None, :]
        wanted = lessons.wanted[start : start + BLOCK]
        lists.append(shortlists(parts.raw(profiles), wanted, closed, np.diff(profiles.indptr).astype(np.int64)))
    return joined(lists)


NEAR = (
    *(NeighbourSettings(shrinkage=s, neighbours=k) for k, s in product((200, 50), (5.0, 1.0, 20.0))),
    NeighbourSettings(evenness=0.5, alpha=0.7, neighbours=200),
)
ALIKE = (20, 10, 50, 100, 200)
POPULAR = (0.5, 1.0)


def chosen_settings(
    events: Interactions,
    settings: HybridSettings,
    teach: Teach = histories,
    *,
    vectors: Floats | None = None,
    offered: Mask | None = None,
    seed: int = 0,
) -> HybridSettings:
    """The settings whose mixture does best on the lessons: first how items are neighbours, then how many past rows vote, then
    popularity's exponent. Of equals the earlier one stays."""
    may = np.ones(len(events.items), dtype=bool) if offered is None else offered
    least = np.array([0.0, 0.0, 0.0, settings.least_content])

    known: dict[HybridSettings, float] = {}

    def worth(tried: HybridSettings) -> float:
        if tried not in known:
            lists = rehearsed(events, replace(tried, folds=min(tried.folds, 2)), teach, vectors, may, seed)
            known[tried] = round(mixed_gain(lists, *learn_mix(lists, tried.lengths, least), tried.lengths), DECIMALS)
        return known[tried]

    def best_of(tried: list[HybridSettings]) -> HybridSettings:
        return max(tried, key=worth)

    best = best_of([replace(settings, items=one) for one in NEAR])
    best = best_of([replace(best, alike=most) for most in ALIKE])
    return best_of([replace(best, popular=power) for power in POPULAR])


def mixed_gain(lists: Shortlists, weights: Floats, scale: Floats, lengths: tuple[int, ...]) -> float:
    """Mean over the profile lengths that have lessons of the mixture's mean nDCG@10."""
    bucket = np.searchsorted(lengths, lists.lengths, side="right") - 1
    found = [lists.of(np.flatnonzero(bucket == b)).gains(weights[b] / scale[b]).mean() for b in np.unique(bucket)]
    return float(np.mean(found)) if found else 0.0


def prior_from_cards(cards: Sequence[ItemCard], tokens: Sequence[str], encoder: Encoder) -> FittedHybrid:
    """A new site's first recommender, without any event: cards ranked by how like they are to what the tokens of a case say
    of themselves. Where nothing is known of a case, every card is offered. Withdrawn cards are left out."""
    card_of = {card.item: card for card in cards if not card.withdrawn}
    items = sorted({*card_of, *tokens})
    offered = np.array([name in card_of for name in items], dtype=bool)
    vectors = encoder.encode([card_of.get(name) or token_card(name) for name in items])
    parts = HybridParts(items, offered.astype(np.float64), None, None, unit(vectors), offered)
    weights = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    return FittedHybrid(parts, (0, 1), weights, np.ones((2, len(PARTS))))
