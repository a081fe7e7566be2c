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
BLOCKS = 512
"""Largest scores are sought among the maxima of so many blocks; scores come in arrays of a multiple of it."""


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


def room(n: int) -> int:
    """Length of an array of scores of n items: `strongest` wants whole blocks."""
    return n if n < 4 * BLOCKS else -(-n // BLOCKS) * BLOCKS


def strongest(score: Floats, top: int) -> Ids:
    """Ids, ascending, of everything that may be among the best `top` above zero, ties included. The top-th largest of the
    blocks' maxima is at most the top-th largest score, so what is below it is out."""
    if top <= 0:
        return np.zeros(0, dtype=np.intp)
    if len(score) < 4 * BLOCKS or len(score) % BLOCKS:
        return _above(score, score, top)
    blocks = score.reshape(-1, BLOCKS)
    highest = blocks.max(axis=0)
    if top > BLOCKS // 4:
        return _above(score, score, top)
    columns = _above(highest, highest, top)
    inside = blocks[:, columns]
    least = _least(highest, top)
    rows, places = np.nonzero(inside >= least) if least > 0 else np.nonzero(inside > 0)
    ids = rows * BLOCKS + columns[places]
    return np.asarray(ids[ids.argsort()])


def in_order(ids: Ids, score: Floats, top: int) -> list[int]:
    """Places in `ids` of the best `top` above zero, in the order in which they are shown."""
    order = np.lexsort((ids, -np.round(score, DECIMALS)))
    kept = [int(k) for k in order if score[k] > 0]
    return kept[:top]


def _least(values: Floats, top: int) -> float:
    if top >= len(values):
        return 0.0
    return float(np.partition(values, len(values) - top)[len(values) - top]) - TIE


def _above(score: Floats, values: Floats, top: int) -> Ids:
    least = _least(values, top)
    return np.flatnonzero(score >= least) if least > 0 else np.flatnonzero(score > 0)
