"""Every recommender ranks in the same way, so that every runtime gives the same list: by score rounded to 9 decimals,
descending, then by id, ascending. What scores zero or less is not offered, nor is what the profile holds already."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.windows import Floats

if TYPE_CHECKING:
    from protocol.tables.answers import LocalAnswers

Ids = NDArray[np.intp]
DECIMALS = 9
TIE = 1e-9
"""Scores this near may round to the same number."""
TENTHS = 1e9
"""Scores are compared after rounding to 9 decimals."""
TIE = 1e-9
BLOCKS = 512
FEW = 64
"""Lists of at most so many are found by the maxima of BLOCKS blocks; an array of scores is a multiple of BLOCKS long."""


class Scored(msgspec.Struct, frozen=True):
    """One ranked item; contributions are exact and sum to the score, strongest first. `similar`: the past rows and answers
    among them: (who, similarity, amount)."""

    item: str
    score: float
    contributions: list[tuple[str, float]]
    similar: list[tuple[str, float, float]] = []


class Ranker(Protocol):
    """A table that ranks items for a profile, and can be told answers that came after its training."""

    items: list[str]
    index: dict[str, int]
    answers: LocalAnswers | None

    def rank(
        self,
        profile: Mapping[str, float],
        top: int,
        prefixes: tuple[str, ...] = (),
        exclude: Collection[str] = frozenset(),
        *,
        without: Collection[str] = frozenset(),
        reasons: bool = True,
    ) -> list[Scored]:
        """The best `top` items whose names start with one of `prefixes` (none: any), that are neither in the profile nor in
        `exclude`. Profile names the table does not know are ignored. `without`: names of contributions (tokens of the
        profile, "like:…", "answer:…") as if they had never been; a token left out is still not offered. Without `reasons`
        the contributions stay empty."""
        ...

    def learned(self, answers: LocalAnswers | None) -> Self:
        """The same tables, ranking with these answers beside them."""
        ...


def summed(columns: Ids, amounts: Floats, size: int) -> Floats:
    """The sum of the amounts of each column [size]."""
    return np.asarray(np.bincount(columns, amounts, size), dtype=np.float64)  # of nothing, it counts in whole numbers


def room(n: int) -> int:
    """Length of an array of scores of n items: `strongest` wants whole blocks."""
    return n if n < 4 * BLOCKS else -(-n // BLOCKS) * BLOCKS


def strongest(score: Floats, top: int) -> Ids:
    """Ids, ascending, of everything above zero that may be among the best `top`, ties included, and of little else.

    Of disjoint blocks of the scores, the top-th largest maximum is at most the top-th largest score: what is below it is
    out. Maxima of maxima say where to look, so that only one pass goes over all scores."""
    if top <= 0:
        return np.zeros(0, dtype=np.intp)
    if len(score) < 4 * BLOCKS or len(score) % BLOCKS or top > FEW:
        return _from(score, _least(score, top))
    blocks = score.reshape(-1, BLOCKS)
    highest = blocks.max(axis=0)
    least = _least(highest.reshape(-1, 2 * FEW).max(axis=0), top)
    columns = _from(highest, least)
    inside = blocks.take(columns, axis=1)
    rows, places = (inside >= least).nonzero() if least > 0 else (inside > 0).nonzero()
    ids = rows * BLOCKS + columns[places]
    ids.sort()
    return np.asarray(ids)


def in_order(ids: Ids, score: Floats, top: int) -> Ids:
    """The best `top` of `ids`, ascending, whose scores are above zero, in the order in which they are shown."""
    return ids[np.rint(score[ids] * -TENTHS).argsort(kind="stable")[:top]]


def _least(values: Floats, top: int) -> float:
    """What a value must reach to be among the best `top`, ties included; 0 where all may be."""
    if top >= len(values):
        return 0.0
    ordered = np.sort(values) if len(values) <= BLOCKS else np.partition(values, len(values) - top)
    return float(ordered[len(values) - top]) - TIE


def _from(values: Floats, least: float) -> Ids:
    return (values >= least).nonzero()[0] if least > 0 else (values > 0).nonzero()[0]
