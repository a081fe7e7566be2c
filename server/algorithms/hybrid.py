"""One list from four recommenders: popularity, item-based, user-based and content-based, weighted by how much is known.

Burke 2002 (weighted hybrid). With few events popularity and content know more than neighbours do; with many it is the other
way round. So there are weights for each length of profile, learned on rows that no part was fitted on: histories cut short,
or cases whose remedy is hidden. A score is a sum over parts, each divided by a fixed scale, so its reasons are exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protocol.errors import Reason, Refused
from protocol.recommending import PARTS
from protocol.windows import Floats
from server.algorithms.content_based import content_rows, unit
from server.algorithms.interactions import Interactions, profile_row
from server.algorithms.neighbourhood import ItemNeighbours, NeighbourSettings, UserNeighbours, item_neighbours, user_neighbours

Mask = NDArray[np.bool_]
LENGTHS = (0, 1, 2, 4, 8, 16, 32)
ENOUGH = 30
"""Lessons from which on a length has weights of its own."""
TOP = 10
STEPS = (0.5, 0.25, 0.1, 0.05)


@dataclass(frozen=True)
class HybridSettings:
    """items, users: how neighbours are made (`users` as the gateway compares past rows: plain cosine). most_users: past
    rows kept, the newest; popular: exponent of an item's count."""

    items: NeighbourSettings = field(default_factory=lambda: NeighbourSettings(shrinkage=10.0, neighbours=200))
    users: NeighbourSettings = field(default_factory=lambda: NeighbourSettings(neighbours=50))
    most_users: int = 20_000
    popular: float = 0.5
    lengths: tuple[int, ...] = LENGTHS


@dataclass(frozen=True)
class Lessons:
    """What the weights are learned from: profiles [B, n] and what was chosen next, wanted [B, n] > 0."""

    profiles: sparse.csr_matrix
    wanted: sparse.csr_matrix

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Known tokens of each profile [B]."""
        return np.asarray(np.diff(self.profiles.indptr), dtype=np.int64)


@dataclass(frozen=True)
class HybridParts:
    """popularity [n]; neighbours and past over the same n items; vectors [n, d] of unit length, or None; offered [n]: what
    may be recommended."""

    items: list[str]
    popularity: Floats
    neighbours: ItemNeighbours
    past: UserNeighbours
    vectors: Floats | None
    offered: Mask

    def raw(self, profiles: sparse.csr_matrix) -> list[Floats]:
        """Every part's own scores of each profile, in the order of PARTS: four times [B, n]."""
        shape = (profiles.shape[0], len(self.items))
        content = np.zeros(shape) if self.vectors is None else content_rows(profiles, self.vectors)
        return [
            np.broadcast_to(self.popularity, shape),
            self.neighbours.score_rows(profiles),
            self.past.score_rows(profiles),
            content,
        ]


@dataclass(frozen=True)
class FittedHybrid:
    """lengths [k]: lower edges; weights, scale [k, 4]: score = sum over parts of weights / scale * raw."""

    parts: HybridParts
    lengths: tuple[int, ...]
    weights: Floats
    scale: Floats

    def score_rows(self, profiles: sparse.csr_matrix) -> Floats:
        """Every item's score for each profile: [B, n] -> [B, n]."""
        bucket = np.searchsorted(self.lengths, np.diff(profiles.indptr), side="right") - 1
        share = (self.weights / self.scale)[bucket]
        return np.asarray(sum(share[:, p, None] * raw for p, raw in enumerate(self.parts.raw(profiles))))

    def scores(self, profile: dict[str, float]) -> Floats:
        """Every item's score for {token: strength} [n]; tokens that were never seen are ignored."""
        return np.asarray(self.score_rows(profile_row(self.parts.items, profile))[0])


def fit_hybrid(
    events: Interactions,
    taught_by: Interactions,
    lessons: Lessons,
    settings: HybridSettings,
    *,
    vectors: Floats | None = None,
    offered: Mask | None = None,
) -> FittedHybrid:
    """Weights from lessons on parts fitted to `taught_by` (the events without the lessons' rows, over the same items), then
    the parts fitted to all events."""
    if taught_by.items != events.items:
        raise Refused(Reason.WRONG_TYPE, "lessons and events name different items: cut rows, keep the columns")
    rehearsal = fit_parts(taught_by, settings, vectors, offered)
    weights, scale = learn_mix(rehearsal, lessons, settings.lengths)
    return FittedHybrid(fit_parts(events, settings, vectors, offered), settings.lengths, weights, scale)


def fit_parts(
    events: Interactions, settings: HybridSettings, vectors: Floats | None = None, offered: Mask | None = None
) -> HybridParts:
    """The four parts; `offered` [n]: what may be recommended (default: everything)."""
    may = np.ones(len(events.items), dtype=bool) if offered is None else offered
    counts = np.asarray(events.matrix.maximum(0).sum(axis=0), dtype=np.float64).ravel()
    popularity = np.where(may, counts, 0.0) ** settings.popular
    largest = popularity.max(initial=0.0)
    kept = newest_rows(events, settings.most_users)
    return HybridParts(
        events.items,
        popularity / largest if largest > 0 else popularity,
        item_neighbours(events, settings.items, may),
        user_neighbours(kept, settings.users),
        None if vectors is None else unit(vectors),
        may,
    )


def newest_rows(events: Interactions, most: int) -> Interactions:
    """The `most` rows with the newest events, in the order they stand in."""
    if len(events.users) <= most:
        return events
    if events.times_ms is None:
        return only(events, np.arange(len(events.users) - most, len(events.users)))
    newest = np.asarray(events.times_ms.max(axis=1).todense()).ravel()
    return only(events, np.sort(np.argsort(-newest, kind="stable")[:most]))


def only(events: Interactions, rows: NDArray[np.integer]) -> Interactions:
    """These rows of the events, over the same items."""
    times = None if events.times_ms is None else events.times_ms[rows]
    return replace(events, users=[events.users[r] for r in rows], matrix=events.matrix[rows], times_ms=times)


def cut_short(
    events: Interactions, rows: NDArray[np.integer], lengths: Sequence[int], seed: int, most_wanted: int = 500
) -> Lessons:
    """Histories of these rows cut after their first events, once for each of the lengths that leaves something to find;
    what follows is wanted. Where there are no times the order is drawn."""
    draw = np.random.default_rng(seed)
    profiles, wanted = [], []
    for row in rows:
        span = slice(events.matrix.indptr[row], events.matrix.indptr[row + 1])
        ids = events.matrix.indices[span][events.matrix.data[span] > 0]
        if events.times_ms is None:
            ids = draw.permutation(ids)
        else:
            at = events.times_ms.data[span][events.matrix.data[span] > 0]
            ids = ids[np.lexsort((ids, at))]
        for length in lengths:
            if length < len(ids):
                profiles.append(np.sort(ids[:length]))
                wanted.append(ids[length : length + most_wanted])
    return Lessons(_ones(profiles, len(events.items)), _ones(wanted, len(events.items)))


def _ones(rows: list[NDArray[np.integer]], columns: int) -> sparse.csr_matrix:
    indptr = np.cumsum([0, *map(len, rows)])
    ids = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
    return sparse.csr_matrix((np.ones(len(ids), dtype=np.float32), ids, indptr), shape=(len(rows), columns))


def learn_mix(parts: HybridParts, lessons: Lessons, lengths: tuple[int, ...]) -> tuple[Floats, Floats]:
    """(weights, scale) [k, 4]. A length with too few lessons takes those of the nearest one that has enough, or of all
    lessons together."""
    bucket = np.searchsorted(lengths, lessons.lengths, side="right") - 1
    weights = np.zeros((len(lengths), len(PARTS)))
    scale = np.ones((len(lengths), len(PARTS)))
    known = [b for b in range(len(lengths)) if (bucket == b).sum() >= ENOUGH]
    if not known:
        if not len(bucket):
            raise Refused(Reason.NOT_ELIGIBLE, "no lesson to learn weights from: more histories or cases are needed")
        found, size = _learned(parts, lessons, np.arange(len(bucket)))
        weights[:], scale[:] = found, size
    for b in known:
        weights[b], scale[b] = _learned(parts, lessons, np.flatnonzero(bucket == b))
    for b in range(len(lengths)) if known else ():
        if b not in known:
            near = min(known, key=lambda k: (abs(k - b), -k))
            weights[b], scale[b] = weights[near], scale[near]
    if lengths[0] == 0 and 0 not in known:
        weights[0] = [1.0, 0.0, 0.0, 0.0]
    return weights, scale


def _learned(parts: HybridParts, lessons: Lessons, rows: NDArray[np.integer]) -> tuple[Floats, Floats]:
    profiles, wanted = lessons.profiles[rows], np.asarray(lessons.wanted[rows].toarray() > 0)
    closed = np.asarray(profiles.toarray() != 0) | ~parts.offered[None, :]
    raw = parts.raw(profiles)
    scale = np.array([_size(part, closed) for part in raw])
    stacked = [np.where(closed, 0.0, part / size).astype(np.float32) for part, size in zip(raw, scale, strict=True)]
    wanted &= ~closed
    return best_mix(stacked, wanted, closed), scale


def _size(part: Floats, closed: Mask) -> float:
    """Mean over profiles of the best score on offer."""
    best = np.where(closed, 0.0, part).max(axis=1, initial=0.0)
    mean = float(best[best > 0].mean()) if (best > 0).any() else 0.0
    return mean if mean > 1e-9 else 1.0


def best_mix(parts: list[NDArray[np.float32]], wanted: Mask, closed: Mask) -> Floats:
    """Weights [P] that add up to 1 and give the best mean nDCG@10: from every part alone and from all alike, towards one
    part after the other in ever smaller steps, as long as it gets better."""
    count = len(parts)
    cache: dict[tuple[float, ...], float] = {}

    def worth(weights: Floats) -> float:
        key = tuple(np.round(weights, 4))
        if key not in cache:
            total = sum(np.float32(w) * part for w, part in zip(weights, parts, strict=True) if w)
            cache[key] = float(gains(np.where(closed, -np.inf, total), wanted).mean())
        return cache[key]

    starts = [np.eye(count)[p] for p in range(count) if parts[p].any()] or [np.eye(count)[0]]
    best = max([*starts, np.mean(starts, axis=0)], key=worth)
    for step in STEPS:
        for _ in range(8):
            tries = [(1 - step) * best + step * start for start in starts]
            better = max(tries, key=worth)
            if worth(better) <= worth(best) + 1e-9:
                break
            best = better
    return np.asarray(best)


def gains(scores: Floats, wanted: Mask, top: int = TOP) -> Floats:
    """nDCG@top of each row [B]; ties by place. A row that wants nothing counts 0."""
    places = best_places(scores, top)
    hits = np.take_along_axis(wanted, places, axis=1) & (np.take_along_axis(scores, places, axis=1) > -np.inf)
    gain = 1 / np.log2(np.arange(top) + 2)[: hits.shape[1]]
    best = np.concatenate(([0.0], np.cumsum(1 / np.log2(np.arange(top) + 2))))[np.minimum(wanted.sum(axis=1), top)]
    return np.asarray(np.where(best > 0, (hits * gain).sum(axis=1) / np.where(best > 0, best, 1.0), 0.0))


def best_places(scores: Floats, top: int) -> NDArray[np.int64]:
    """Places of the best `top` of each row [B, top], by (score descending, place ascending)."""
    if scores.shape[1] <= 4 * top:
        return np.asarray(np.argsort(-scores, axis=1, kind="stable")[:, :top])
    least = np.partition(scores, scores.shape[1] - top, axis=1)[:, scores.shape[1] - top]
    found = np.empty((len(scores), top), dtype=np.int64)
    for row, (line, low) in enumerate(zip(scores, least, strict=True)):
        near = np.flatnonzero(line >= low)
        found[row] = near[np.argsort(-line[near], kind="stable")[:top]]
    return found
