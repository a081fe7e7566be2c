"""What lists are worth on choices that were held out: each user's newest ones, asked of models that saw the older ones.

Full ranking: every item on offer that the user has not chosen yet competes. nDCG as in Järvelin & Kekäläinen 2002; a user
counts once, however much was held out of him."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protocol.windows import Floats
from server.algorithms.interactions import Interactions
from server.algorithms.lessons import Ints, Mask
from server.algorithms.neighbourhood import ranked

TOP = 10
DECIMALS = 9
SHARE = 0.2
"""Of each user's choices, the newest ones, that are held out: at least one, and one is left."""
BLOCK = 256
Scores = Callable[[sparse.csr_matrix], Floats]
"""Profiles [B, n] -> scores [B, n]."""


@dataclass(frozen=True)
class HeldOut:
    """earlier: what may be learned from, over all users and items. rows: the judged users [B]; known, wanted [B, n] > 0: what
    they had chosen before, and what they chose then. in_order [B]: the known ids of each, oldest first."""

    earlier: Interactions
    rows: Ints
    known: sparse.csr_matrix
    wanted: sparse.csr_matrix
    in_order: list[Ints]
    timed: bool

    def shortened(self, length: int) -> tuple[Ints, sparse.csr_matrix]:
        """(places of judged users who knew at least so many, their newest `length` as profiles of strength 1)."""
        enough = np.array([b for b, ids in enumerate(self.in_order) if len(ids) >= length], dtype=np.int64)
        return enough, ones([self.in_order[b][-length:] for b in enough], self.known.shape[1])


@dataclass(frozen=True)
class Figures:
    """Per judged user [B]."""

    ndcg: Floats
    recall: Floats


def hold_out(events: Interactions, most: int, seed: int, offered: Mask) -> HeldOut:
    """Every user of two choices or more gives his newest ones away; at most `most` drawn users whose given ones are on offer
    are judged. Without times the order is drawn."""
    draw = np.random.default_rng(seed)
    matrix = events.matrix
    owner = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    when = events.times_ms.data if events.times_ms is not None else draw.permutation(len(owner))
    order = np.lexsort((matrix.indices, when, owner))
    length = np.diff(matrix.indptr)
    place = np.empty(len(owner), dtype=np.int64)
    place[order] = np.arange(len(owner)) - np.repeat(matrix.indptr[:-1], length)
    given = np.where(length >= 2, np.clip(np.round(SHARE * length), 1, np.maximum(length - 1, 1)), 0)
    held = place >= (length - given)[owner]
    findable = np.unique(owner[held & offered[matrix.indices]])
    rows = np.sort(draw.permutation(findable)[:most])
    rest = replace(events, matrix=_entries(matrix, ~held), times_ms=_where(events.times_ms, ~held))
    in_order = []
    for row in rows:
        span = order[matrix.indptr[row] : matrix.indptr[row + 1]]
        in_order.append(matrix.indices[span[~held[span]]].astype(np.int64))
    known = ones(in_order, matrix.shape[1])
    return HeldOut(rest, rows, known, _entries(matrix, held)[rows], in_order, events.times_ms is not None)


def _where(matrix: sparse.csr_matrix | None, kept: Mask) -> sparse.csr_matrix | None:
    return None if matrix is None else _entries(matrix, kept)


def _entries(matrix: sparse.csr_matrix, kept: Mask) -> sparse.csr_matrix:
    indptr = np.concatenate(([0], np.cumsum(kept)))[matrix.indptr]
    return sparse.csr_matrix((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


def ones(rows: Sequence[Ints], columns: int) -> sparse.csr_matrix:
    """Profiles of strength 1 [B, n]."""
    indptr = np.cumsum([0, *map(len, rows)])
    ids = np.concatenate([np.sort(row) for row in rows]) if rows else np.zeros(0, dtype=np.int64)
    return sparse.csr_matrix((np.ones(len(ids), dtype=np.float32), ids, indptr), shape=(len(rows), columns))


def lists_of(
    scores: Scores, profiles: sparse.csr_matrix, closed: sparse.csr_matrix, offered: Mask
) -> NDArray[np.int64]:
    """The best TOP items of each profile [B, TOP], -1 where there are no more; `closed` [B, n]: what is not shown."""
    made = []
    for start in range(0, profiles.shape[0], BLOCK):
        block = np.asarray(np.round(scores(profiles[start : start + BLOCK]), DECIMALS), dtype=np.float64)
        block[:, ~offered] = -np.inf
        made.append(ranked(block, TOP, closed[start : start + BLOCK]))
    found = [np.pad(one, [(0, 0), (0, TOP - one.shape[1])], constant_values=-1) for one in made]
    return np.concatenate(found) if found else np.zeros((0, TOP), dtype=np.int64)


def judged(lists: NDArray[np.int64], wanted: sparse.csr_matrix, offered: Mask) -> Figures:
    """nDCG@10 and recall@10 of each list [B]."""
    gain = 1 / np.log2(np.arange(TOP) + 2)
    ndcg, recall = np.zeros(len(lists)), np.zeros(len(lists))
    for b, found in enumerate(lists):
        ids = wanted.indices[wanted.indptr[b] : wanted.indptr[b + 1]]
        right = ids[offered[ids]]
        hits = np.isin(found, right)
        ndcg[b] = gain[hits].sum() / max(gain[: min(len(right), TOP)].sum(), 1e-12)
        recall[b] = hits.sum() / max(len(right), 1)
    return Figures(ndcg, recall)
