"""What a hybrid's weights are learned from: histories cut short, and cases whose remedy is hidden, at every length.

Rows of events become pairs of what was known and what was chosen next. The same rows and seed give the same lessons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from server.algorithms.interactions import Interactions

Mask = NDArray[np.bool_]
Ints = NDArray[np.integer]
MOST_WANTED = 500


@dataclass(frozen=True)
class Lessons:
    """profiles [B, n] of strength 1, and what was chosen next: wanted [B, n] > 0."""

    profiles: sparse.csr_matrix
    wanted: sparse.csr_matrix

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Known tokens of each profile [B]."""
        return np.asarray(np.diff(self.profiles.indptr), dtype=np.int64)


Teach = Callable[[Interactions, tuple[int, ...], np.random.Generator], Lessons]
"""(rows, lower edges of the profile lengths, draw) -> lessons of these rows."""


def histories(rows: Interactions, lengths: tuple[int, ...], draw: np.random.Generator) -> Lessons:
    """Histories cut after their first events, once at a drawn place within each length that leaves something to find; what
    follows is wanted. Without times the order is drawn, too."""
    profiles, wanted = [], []
    for row in range(len(rows.users)):
        ids = _chosen(rows, row)
        if rows.times_ms is None:
            ids = draw.permutation(ids)
        for low, high in zip(lengths, (*lengths[1:], 2 * lengths[-1] + 1), strict=True):
            cut = int(draw.integers(low, max(high, low + 1)))
            if 0 < cut < len(ids):
                profiles.append(ids[:cut])
                wanted.append(ids[cut : cut + MOST_WANTED])
    return _lessons(profiles, wanted, len(rows.items))


def cases(offered: Mask) -> Teach:
    """Lessons of cases: tokens that are not on offer are the profile, wanted is what was offered and right. A case is asked
    once with all it is known by, and once for every shorter length with tokens left out by chance: a new machine, a
    symptom that nobody entered."""

    def teach(rows: Interactions, lengths: tuple[int, ...], draw: np.random.Generator) -> Lessons:
        profiles, wanted = [], []
        for row in range(len(rows.users)):
            ids = _chosen(rows, row)
            known, right = ids[~offered[ids]], ids[offered[ids]]
            if not len(right) or not len(known):
                continue
            shorter = [draw.permutation(known)[:cut] for cut in lengths if 0 < cut < len(known)]
            profiles += [known, *shorter]
            wanted += [right] * (1 + len(shorter))
        return _lessons(profiles, wanted, len(rows.items))

    return teach


def only(events: Interactions, rows: Ints) -> Interactions:
    """These rows of the events, over the same items."""
    times = None if events.times_ms is None else events.times_ms[rows]
    return replace(events, users=[events.users[r] for r in rows], matrix=events.matrix[rows], times_ms=times)


def covering(events: Interactions, names: list[str]) -> Interactions:
    """The same events over more items: those named that nobody has chosen yet have empty columns."""
    items = sorted({*events.items, *names})
    place = {name: i for i, name in enumerate(items)}
    moved = np.array([place[name] for name in events.items], dtype=np.int32)

    def over(rows: sparse.csr_matrix) -> sparse.csr_matrix:
        made = (rows.data, moved[rows.indices], rows.indptr)  # both ascend, so columns stay in order
        return sparse.csr_matrix(made, shape=(rows.shape[0], len(items)))

    times = None if events.times_ms is None else over(events.times_ms)
    return replace(events, items=items, matrix=over(events.matrix), times_ms=times)


def _chosen(rows: Interactions, row: int) -> Ints:
    """Columns of what a row chose, oldest first where there are times."""
    span = slice(rows.matrix.indptr[row], rows.matrix.indptr[row + 1])
    ids, liked = rows.matrix.indices[span], rows.matrix.data[span] > 0
    if rows.times_ms is None:
        return np.asarray(ids[liked])
    return np.asarray(ids[liked][np.lexsort((ids[liked], rows.times_ms.data[span][liked]))])


def _lessons(profiles: list[Ints], wanted: list[Ints], columns: int) -> Lessons:
    return Lessons(_ones(profiles, columns), _ones(wanted, columns))


def _ones(rows: list[Ints], columns: int) -> sparse.csr_matrix:
    indptr = np.cumsum([0, *map(len, rows)])
    ids = np.concatenate([np.sort(row) for row in rows]) if rows else np.zeros(0, dtype=np.int32)
    return sparse.csr_matrix((np.ones(len(ids), dtype=np.float32), ids, indptr), shape=(len(rows), columns))
