"""Item-based collaborative filtering over maintenance cases: what went together, learned from orders and
answers.

Sarwar et al. 2001 (item-based), cosine shrunk as in Bell & Koren 2007, confidence as in Hu, Koren & Volinsky
2008. A case is a row: what was seen (`symptom:`, `type:`, `machine:`) and what was done (`action:`, `part:`).
An item that people rejected is a negative entry, which pulls it away from the tokens it was offered for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protocol.windows import Floats

CANDIDATES = ("action:", "part:")
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Case:
    """`profile`: tokens that were known; `items`: what was right (> 0) or wrong (< 0) and how sure that
    is."""

    time_ms: int
    profile: tuple[str, ...]
    items: dict[str, float]
    source: str = "work_order"


@dataclass(frozen=True)
class CollaborativeSettings:
    """`answer_weight`: how much one person's answer counts against one work order."""

    shrinkage: float = 5.0
    neighbours: int = 40
    half_life_days: float = 365.0
    answer_weight: float = 3.0


@dataclass(frozen=True)
class FittedNeighbours:
    """items: names; similarity [n, n]: row j holds the weights that token j gives to candidates, at most K of
    them."""

    items: list[str]
    similarity: sparse.csr_matrix

    def scores(self, profile: dict[str, float]) -> Floats:
        """Every item's score for a profile [n]."""
        index = {name: i for i, name in enumerate(self.items)}
        strengths = np.zeros(len(self.items))
        for name, strength in profile.items():
            if name in index:
                strengths[index[name]] = strength
        return np.asarray(self.similarity.T @ strengths, dtype=np.float64)


def fit(cases: list[Case], settings: CollaborativeSettings) -> FittedNeighbours:
    """Shrunk cosine between tokens over cases, K strongest candidates per token. Deterministic."""
    items = sorted({token for case in cases for token in (*case.profile, *case.items)})
    index = {name: i for i, name in enumerate(items)}
    newest = max((case.time_ms for case in cases), default=0)
    rows: list[int] = []
    columns: list[int] = []
    entries: list[float] = []
    for row, case in enumerate(cases):
        age_days = (newest - case.time_ms) / DAY_MS
        sure = 0.5 ** (age_days / settings.half_life_days) * (
            1.0 if case.source == "work_order" else settings.answer_weight
        )
        for token, value in [*((token, 1.0) for token in set(case.profile)), *case.items.items()]:
            rows.append(row)
            columns.append(index[token])
            entries.append(value * np.sqrt(sure))
    matrix = sparse.csr_matrix((entries, (rows, columns)), shape=(len(cases), len(items)))
    together = (matrix.T @ matrix).toarray()  # [n, n]
    norm = np.sqrt(np.maximum(np.diag(together), 1e-12))
    similarity = together / (np.outer(norm, norm) + settings.shrinkage)
    np.fill_diagonal(similarity, 0.0)
    offered = np.array([name.startswith(CANDIDATES) for name in items], dtype=bool)
    similarity[:, ~offered] = 0.0
    return FittedNeighbours(items=items, similarity=sparse.csr_matrix(_strongest(similarity, settings.neighbours)))


def popularity(cases: list[Case]) -> list[str]:
    """The simple reference: candidates by how often they were right, most often first, names breaking
    ties."""
    counted: Counter[str] = Counter()
    for case in cases:
        counted.update({item: 1 for item, value in case.items.items() if value > 0})
    return sorted(counted, key=lambda item: (-counted[item], item))


def _strongest(similarity: Floats, most: int) -> Floats:
    if similarity.shape[1] <= most:
        return similarity
    strength = np.abs(similarity)
    keep: NDArray[np.int64] = np.argsort(-strength, axis=1, kind="stable")[:, :most]
    kept = np.zeros_like(similarity)
    np.put_along_axis(kept, keep, np.take_along_axis(similarity, keep, axis=1), axis=1)
    return kept
