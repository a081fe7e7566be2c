"""User-based and item-based collaborative filtering: one similarity, two sides of one matrix.

Sarwar et al. 2001 (item-based), Herlocker et al. 1999 (user-based), BM25 as in Robertson & Zaragoza 2009, shrinkage as
in Bell & Koren 2007, the asymmetric cosine and the power as in Aiolli 2013. The rules kept here:
- Never a dense user x user or item x item matrix: one row is accumulated at a time, and its K strongest are kept.
- A pair is computed once and given to both of its rows.
- Of equal similarities the smaller id stays; sums run in the order of the ids. One thread: the same result every time.
- Strength is the absolute similarity: a rejection (an entry below 0) pushes away as strongly as a choice pulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protocol.errors import Reason, Refused
from protocol.windows import Floats
from server.algorithms.arima_likelihood import compiled
from server.algorithms.interactions import Interactions, profile_row

Singles = NDArray[np.float32]
Small = NDArray[np.int32]
Strength = Any
"""A float of either width."""
ALMOST = 1.0 + 1e-6
"""More than a float32 is rounded by."""
TINY = np.float32(1e-30)
"""Stands for a sum that is 0 again, so that a touched place never looks untouched."""


@dataclass(frozen=True)
class NeighbourSettings:
    """weighting of the entries before anything else, with BM25's k1 and b. similarity: dot / (|r|^2a |s|^2(1-a) +
    shrinkage), a = alpha (0.5: the cosine), or the bare dot product. damping: what is similar counts popularity^-damping.
    evenness: a column of n entries counts n^-evenness. neighbours: kept per row. power: similarity^power afterwards.
    normalise: a row's strengths then sum to 1."""

    weighting: Literal["none", "bm25", "tfidf", "log"] = "none"
    k1: float = 1.2
    b: float = 0.75
    similarity: Literal["cosine", "dot"] = "cosine"
    evenness: float = 0.0
    shrinkage: float = 0.0
    alpha: float = 0.5
    damping: float = 0.0
    neighbours: int = 100
    power: float = 1.0
    normalise: bool = False


@dataclass(frozen=True)
class Weighting:
    """What the entries of a row are worth: of_column [C] float32; mean_length: of all rows' sums."""

    settings: NeighbourSettings
    of_column: Singles
    mean_length: float

    def weighed(self, rows: sparse.csr_matrix) -> sparse.csr_matrix:
        """The same pattern [., C] with weighted entries, float32; the pattern's arrays are shared, not copied."""
        kind, data = self.settings.weighting, rows.data.astype(np.float32, copy=False)
        if kind == "bm25":
            lengths = np.add.reduceat(np.append(np.abs(data), 0), rows.indptr[:-1]) * (np.diff(rows.indptr) > 0)
            share = self.settings.k1 * (1 - self.settings.b + self.settings.b * lengths / self.mean_length)
            size = np.abs(data)
            data = data * np.float32(self.settings.k1 + 1) / (np.repeat(share, np.diff(rows.indptr)) + size)
        elif kind == "tfidf":
            data = np.sign(data) * np.sqrt(np.abs(data))
        elif kind == "log":
            data = np.sign(data) * np.log1p(np.abs(data))
        if kind in ("bm25", "tfidf") or self.settings.evenness:
            data = data * self.of_column[rows.indices]
        return sparse.csr_matrix((data.astype(np.float32, copy=False), rows.indices, rows.indptr), shape=rows.shape)


def weighting(rows: sparse.csr_matrix, settings: NeighbourSettings) -> Weighting:
    """Learned from rows [R, C]: a column that every second row has says little (inverse frequency)."""
    seen = np.bincount(rows.indices, minlength=rows.shape[1])
    rarity = _damped(seen, settings.evenness)
    if settings.weighting in ("bm25", "tfidf"):
        rarity = rarity * np.maximum(np.log(max(rows.shape[0], 1)) - np.log1p(seen), 1e-6)
    mean = float(np.abs(rows.data).sum(dtype=np.float64)) / max(rows.shape[0], 1)
    return Weighting(settings, rarity.astype(np.float32), mean or 1.0)


def neighbours(
    matrix: sparse.csr_matrix, settings: NeighbourSettings, offered: NDArray[np.bool_] | None = None
) -> sparse.csr_matrix:
    """Rows' most similar rows: matrix [R, C] -> similarity [R, R] float32, at most K entries a row, none on the diagonal.
    offered [R]: rows that may be anybody's neighbour (default all)."""
    rows = _checked(matrix, settings)
    weighed = weighting(rows, settings).weighed(rows)
    return _strongest_pairs(weighed, sparse.csr_matrix(weighed.T), settings, offered)


@dataclass(frozen=True)
class ItemNeighbours:
    """similarity [I, I]: row j holds what item j gives to others. A score is a sum over the profile, so its reasons are
    exact."""

    items: list[str]
    similarity: sparse.csr_matrix

    def scores(self, profile: dict[str, float]) -> Floats:
        """Every item's score for {item: strength} [I]."""
        return np.asarray(self.score_rows(profile_row(self.items, profile))[0], dtype=np.float64)

    def score_rows(self, rows: sparse.csr_matrix) -> Floats:
        """Every item's score for each profile: [B, I] -> [B, I]."""
        made: Floats = _added_rows(*_parts(sparse.csr_matrix(rows, dtype=np.float32)), *_parts(self.similarity))
        return made


def item_neighbours(
    events: Interactions, settings: NeighbourSettings, offered: NDArray[np.bool_] | None = None
) -> ItemNeighbours:
    """Items that the same users chose."""
    by_user = _checked(events.matrix, settings)
    by_item = sparse.csr_matrix(by_user.T)
    if settings.weighting != "none" or settings.evenness:
        by_item = weighting(by_item, settings).weighed(by_item)
        by_user = sparse.csr_matrix(by_item.T)
    return ItemNeighbours(events.items, _strongest_pairs(by_item, by_user, settings, offered))


@dataclass(frozen=True)
class UserNeighbours:
    """Answers on request through an inverted index; nothing is stored per pair of users. by_user [U, I] the users' rows
    as they were, by_item [I, U] the weighed ones; size [U]: their norms^2(1-alpha); item_share [I]: what a vote counts."""

    items: list[str]
    users: list[str]
    settings: NeighbourSettings
    by_user: sparse.csr_matrix
    by_item: sparse.csr_matrix
    weights: Weighting
    size: Floats
    item_share: Floats

    def similar(self, row: sparse.csr_matrix) -> tuple[Small, Singles]:
        """The K most similar users of one profile [1, I], in ascending order of ids, and how similar they are."""
        weighed = self.weights.weighed(row)
        own = _sizes(weighed)[0] if self.settings.similarity == "cosine" else 1.0
        most = min(self.settings.neighbours, len(self.users))
        ids, strengths = _similar_rows(
            weighed.indices.astype(np.int32, copy=False),
            weighed.data,
            *_parts(self.by_item),
            self.size,
            float(own ** (2 * self.settings.alpha)),
            self.settings.shrinkage,
            most,
        )
        order = np.argsort(ids)
        return ids[order], _finished(strengths[order], self.settings)

    def scores(self, profile: dict[str, float]) -> Floats:
        """Every item's score for {item: strength} [I]: the neighbours' votes."""
        return self.score_row(profile_row(self.items, profile))

    def score_row(self, row: sparse.csr_matrix) -> Floats:
        """Every item's score for one profile [1, I] -> [I]."""
        ids, strengths = self.similar(row)
        votes: Floats = _votes(ids, strengths, *_parts(self.by_user), len(self.items))
        return votes * self.item_share

    def score_rows(self, rows: sparse.csr_matrix) -> Floats:
        """Every item's score for each profile: [B, I] -> [B, I]."""
        rows = sparse.csr_matrix(rows)
        return np.array([self.score_row(rows[b]) for b in range(rows.shape[0])]).reshape(rows.shape)


def user_neighbours(events: Interactions, settings: NeighbourSettings) -> UserNeighbours:
    """The index of users; users that chose the same items are similar."""
    by_user = _checked(events.matrix, settings)
    weights = weighting(by_user, settings)
    weighed = weights.weighed(by_user)
    size = _sizes(weighed) ** (2 * (1 - settings.alpha))
    if settings.similarity == "dot":
        size = np.ones(len(size))
    share = _damped(np.bincount(by_user.indices, minlength=by_user.shape[1]), settings.damping)
    return UserNeighbours(
        events.items, events.users, settings, by_user, sparse.csr_matrix(weighed.T), weights, size, share
    )


def ranked(scores: Floats, most: int, without: sparse.csr_matrix | None = None) -> NDArray[np.int64]:
    """The best `most` items of each row of scores [B, I] by (score descending, id ascending), without each row's entries
    in `without`; -1 where there are no more."""
    if most <= 0:
        return np.zeros((len(scores), 0), dtype=np.int64)
    left = np.array(scores, dtype=np.float64)
    if without is not None:
        left[without.nonzero()] = -np.inf
    found: NDArray[np.int64] = _ranked_rows(left, min(most, left.shape[1]))
    return found


def _checked(matrix: sparse.csr_matrix, settings: NeighbourSettings) -> sparse.csr_matrix:
    """Sorted, float32, finite; raises Refused where a setting or an entry is of no use."""
    if settings.neighbours < 1 or settings.shrinkage < 0 or not 0 <= settings.alpha <= 1 or settings.power <= 0:
        raise Refused(
            Reason.NOT_FINITE, f"{settings}: neighbours >= 1, shrinkage >= 0, 0 <= alpha <= 1 and power > 0 are needed"
        )
    rows = sparse.csr_matrix(matrix, dtype=np.float32)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    if not np.isfinite(rows.data).all():
        raise Refused(Reason.NOT_FINITE, "an entry is not finite: make the matrix with interactions()")
    return rows


def _sizes(rows: sparse.csr_matrix) -> Floats:
    """Norms of the rows."""
    found: Floats = _norms(rows.indptr, rows.data)
    return found


def _damped(counts: NDArray[Any], damping: float) -> Floats:
    return np.asarray(np.maximum(counts, 1).astype(np.float64) ** -damping, dtype=np.float64)


def _finished(strengths: Singles, settings: NeighbourSettings) -> Singles:
    if settings.power == 1:
        return strengths
    return np.asarray(np.sign(strengths) * np.abs(strengths) ** settings.power, dtype=np.float32)


def _parts(rows: sparse.csr_matrix) -> tuple[Small, Small, Singles]:
    return rows.indptr.astype(np.int32, copy=False), rows.indices.astype(np.int32, copy=False), rows.data


def _strongest_pairs(
    rows: sparse.csr_matrix,
    columns: sparse.csr_matrix,
    settings: NeighbourSettings,
    offered: NDArray[np.bool_] | None,
) -> sparse.csr_matrix:
    count = rows.shape[0]
    size = _sizes(rows) if settings.similarity == "cosine" else np.ones(count)
    ids, strengths, kept = _pairs(
        *_parts(rows),
        *_parts(columns),
        size ** (2 * settings.alpha),
        size ** (2 * (1 - settings.alpha)),
        _damped(np.diff(rows.indptr), settings.damping),
        np.ones(count, dtype=np.bool_) if offered is None else offered,
        settings.shrinkage if settings.similarity == "cosine" else 0.0,
        max(1, min(settings.neighbours, count - 1)),
    )
    indptr = np.append(0, np.cumsum(kept)).astype(np.int32)
    similarity = sparse.csr_matrix((_finished(strengths, settings), ids, indptr), shape=(count, count))
    if settings.normalise:
        total = np.asarray(abs(similarity).sum(axis=1)).ravel()
        similarity.data /= np.repeat(np.where(total > 0, total, 1), kept).astype(np.float32)
    return similarity


@compiled
def _norms(start: Small, values: Singles) -> Floats:
    norms = np.zeros(len(start) - 1)
    for r in range(len(norms)):
        for a in range(start[r], start[r + 1]):
            norms[r] += np.float64(values[a]) * values[a]
    return np.sqrt(norms)


@compiled
def _weaker(strength: Strength, number: int, than: Strength, other: int) -> bool:
    """Whether a neighbour comes after another: by absolute strength, then the larger id."""
    one, two = abs(strength), abs(than)
    return one < two or (one == two and number > other)


@compiled
def _offer(ids: Small, strengths: Singles, filled: int, number: int, strength: Strength) -> int:
    """Puts a neighbour into a heap whose weakest is first, or leaves it out if all are stronger; how many there are."""
    most = len(ids)
    if filled < most:
        place = filled
        filled += 1
        while place > 0:
            up = (place - 1) // 2
            if not _weaker(strength, number, strengths[up], ids[up]):
                break
            ids[place], strengths[place] = ids[up], strengths[up]
            place = up
    else:
        if not _weaker(strengths[0], ids[0], strength, number):
            return filled
        place = 0
        while True:
            down = 2 * place + 1
            if down >= most:
                break
            if down + 1 < most and _weaker(strengths[down + 1], ids[down + 1], strengths[down], ids[down]):
                down += 1
            if not _weaker(strengths[down], ids[down], strength, number):
                break
            ids[place], strengths[place] = ids[down], strengths[down]
            place = down
    ids[place], strengths[place] = number, strength
    return filled


@compiled
def _pairs(
    row_start: Small,
    row_columns: Small,
    row_values: Singles,
    column_start: Small,
    column_rows: Small,
    column_values: Singles,
    giving: Floats,
    taking: Floats,
    share: Floats,
    offered: NDArray[np.bool_],
    shrinkage: float,
    most: int,
) -> tuple[Small, Singles, Small]:
    """Every pair's similarity once, row by row through the columns, and each row's strongest in order of ids,
    row after row, and how many each has [R]."""
    count = len(row_start) - 1
    ids = np.zeros((count, most), dtype=np.int32)
    strengths = np.zeros((count, most), dtype=np.float32)
    filled = np.zeros(count, dtype=np.int32)
    floor = np.zeros(count)
    dot = np.zeros(count, dtype=np.float32)
    touched = np.zeros(count + 1, dtype=np.int32)
    behind = column_start[:-1].copy()
    for i in range(count):
        n = 0
        for a in range(row_start[i], row_start[i + 1]):
            c, value = row_columns[a], row_values[a]
            behind[c] += 1  # rows before i, and i itself, have had their pairs
            for b in range(behind[c], column_start[c + 1]):
                j = column_rows[b]
                before = dot[j]
                touched[n] = j
                n += before == 0
                after = before + value * column_values[b]
                dot[j] = after if after != 0 else TINY
        for t in range(n):
            j = touched[t]
            d = dot[j]
            dot[j] = 0
            if abs(d) <= TINY:
                continue
            near = abs(d) * ALMOST  # products first: a division only for what may stay
            size = giving[i] * taking[j] + shrinkage
            if offered[j] and near * share[j] >= floor[i] * size:
                s = np.float32(d / size * share[j])
                if s != 0:
                    filled[i] = _offer(ids[i], strengths[i], filled[i], j, s)
                    if filled[i] == most:
                        floor[i] = abs(strengths[i, 0])
            size = giving[j] * taking[i] + shrinkage
            if offered[i] and near * share[i] >= floor[j] * size:
                s = np.float32(d / size * share[i])
                if s != 0:
                    filled[j] = _offer(ids[j], strengths[j], filled[j], i, s)
                    if filled[j] == most:
                        floor[j] = abs(strengths[j, 0])
    flat_ids, flat_strengths, end = ids.reshape(-1), strengths.reshape(-1), 0
    for i in range(count):  # into one run without holes, where they stand: no second copy of the table
        order = np.argsort(ids[i, : filled[i]])
        its_ids, its_strengths = ids[i, : filled[i]][order], strengths[i, : filled[i]][order]
        flat_ids[end : end + filled[i]] = its_ids
        flat_strengths[end : end + filled[i]] = its_strengths
        end += filled[i]
    return flat_ids[:end], flat_strengths[:end], filled


@compiled
def _similar_rows(
    asked: Small,
    values: Singles,
    start: Small,
    rows: Small,
    weights: Singles,
    size: Floats,
    own: float,
    shrinkage: float,
    most: int,
) -> tuple[Small, Singles]:
    """The strongest rows for one profile through the inverted index, unordered."""
    dot = np.zeros(len(size), dtype=np.float32)
    for a in range(len(asked)):
        for b in range(start[asked[a]], start[asked[a] + 1]):
            dot[rows[b]] += values[a] * weights[b]
    ids = np.zeros(most, dtype=np.int32)
    strengths = np.zeros(most, dtype=np.float32)
    filled = 0
    for j in range(len(size)):
        if dot[j] != 0:
            s = np.float32(dot[j] / (own * size[j] + shrinkage))
            if filled < most or abs(s) > abs(strengths[0]):  # ids ascend: an equal one comes later
                filled = _offer(ids, strengths, filled, j, s)
    return ids[:filled], strengths[:filled]


@compiled
def _added_rows(
    start: Small, asked: Small, values: Singles, row_start: Small, columns: Small, weights: Singles
) -> Floats:
    """Profiles' sums over rows of a table: [B, R] sparse, [R, C] sparse -> [B, C]."""
    scores = np.zeros((len(start) - 1, len(row_start) - 1))
    for p in range(len(start) - 1):
        for a in range(start[p], start[p + 1]):
            for b in range(row_start[asked[a]], row_start[asked[a] + 1]):
                scores[p, columns[b]] += values[a] * weights[b]
    return scores


@compiled
def _votes(ids: Small, strengths: Singles, start: Small, columns: Small, values: Singles, items: int) -> Floats:
    scores = np.zeros(items)
    for a in range(len(ids)):
        for b in range(start[ids[a]], start[ids[a] + 1]):
            scores[columns[b]] += strengths[a] * values[b]
    return scores


@compiled
def _ranked_rows(scores: Floats, most: int) -> NDArray[np.int64]:
    found = np.full((len(scores), most), -1, dtype=np.int64)
    best = np.zeros(most)
    for r in range(len(scores)):
        filled = 0
        for i in range(scores.shape[1]):
            s = scores[r, i]
            if not s > -np.inf or (filled == most and s <= best[most - 1]):
                continue
            place = filled if filled < most else most - 1
            filled = min(filled + 1, most)
            while place > 0 and best[place - 1] < s:
                best[place], found[r, place] = best[place - 1], found[r, place - 1]
                place -= 1
            best[place], found[r, place] = s, i
    return found
