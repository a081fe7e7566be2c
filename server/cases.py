"""A case is what a recommender learns from: what was known (`symptom:`, `failure:`, `type:`, `machine:`), and what was right
or wrong to do (`action:`, `part:`, …)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """`profile`: tokens that were known; `items`: what was right (> 0) or wrong (< 0) and how sure that
    is."""

    time_ms: int
    profile: tuple[str, ...]
    items: dict[str, float]
    source: str = "work_order"


def popularity(cases: Iterable[Case]) -> list[str]:
    """The simple reference: candidates by how often they were right, most often first, names breaking
    ties."""
    counted: Counter[str] = Counter()
    for case in cases:
        counted.update({item: 1 for item, value in case.items.items() if value > 0})
    return sorted(counted, key=lambda item: (-counted[item], item))
