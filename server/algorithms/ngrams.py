"""The simple reference of a language model: how often these tokens followed those. Interpolated Kneser-Ney with three
discounts (Kneser & Ney 1995; Chen & Goodman 1998, "modified"), over the same tokens as the network, on integers: a context
is known by its number, and a pair (context, token) is one 64-bit key in a sorted array.

p_n(w | h) = (count(h w) - D(count)) / count(h) + gamma(h) * p_(n-1)(w | h without its first), where below the highest order a
count is in how many different contexts the run occurred; the lowest order falls back on 1 / V."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
ORDER = 5


@dataclass(frozen=True)
class _Level:
    """Runs of n tokens. keys: sorted numbers of the runs, `context number * V + token`; counts: of each; by context number:
    `total` count, `gamma` what is left for the level below (1 where a context was never seen)."""

    keys: Ints
    counts: Ints
    total: Ints
    gamma: Floats
    discounts: Floats

    def number(self, contexts: Ints, tokens: Ints, vocabulary: int) -> Ints:
        """Position of each run in `keys`, -1 where it was never seen."""
        wanted = contexts * vocabulary + tokens
        at = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
        seen = (contexts >= 0) & (self.keys[at] == wanted)
        return np.where(seen, at, -1)


class Ngrams:
    """A fitted model of `order` tokens over a vocabulary of `vocabulary`."""

    def __init__(self, levels: list[_Level], vocabulary: int) -> None:
        self._levels, self.vocabulary = levels, vocabulary

    @property
    def order(self) -> int:
        """Longest run that was counted."""
        return len(self._levels)

    def log_probabilities(self, ids: Sequence[int]) -> Floats:
        """Natural logarithm of p(ids[i] | what stands before it in ids), [len(ids)]."""
        row = np.asarray(ids, dtype=np.int64)
        self._checked(row)
        at = np.arange(len(row))
        found = np.full(len(row), 1.0 / self.vocabulary)
        for n, level in enumerate(self._levels, start=1):
            deep = at >= n - 1
            contexts = np.full(len(row), -1, dtype=np.int64)
            contexts[deep] = self._contexts(row, at[deep], n)
            found = _mixed(level, contexts, row, found, self.vocabulary)
        answer: Floats = np.log(found)
        return answer

    def next(self, before: Sequence[int]) -> Floats:
        """p(w | before) of every token w [V]."""
        tail = np.asarray(before, dtype=np.int64)[-(self.order - 1) :] if self.order > 1 else np.zeros(0, np.int64)
        self._checked(tail)
        every = np.arange(self.vocabulary, dtype=np.int64)
        found = np.full(self.vocabulary, 1.0 / self.vocabulary)
        for n, level in enumerate(self._levels, start=1):
            if n - 1 > len(tail):
                break
            context = self._number(tail[len(tail) - (n - 1) :])
            found = _mixed(level, np.full(self.vocabulary, context), every, found, self.vocabulary)
        return found

    def _contexts(self, row: Ints, at: Ints, n: int) -> Ints:
        """Number of the n - 1 tokens before each place."""
        numbers = np.zeros(len(at), dtype=np.int64)
        for k in range(n - 1):
            numbers = self._levels[k].number(numbers, row[at - (n - 1) + k], self.vocabulary)
        return numbers

    def _number(self, context: Ints) -> int:
        return int(self._contexts(np.append(context, 0), np.array([len(context)]), len(context) + 1)[0])

    def _checked(self, row: Ints) -> None:
        if row.size and not 0 <= row.min() <= row.max() < self.vocabulary:
            raise ValueError(f"token ids {row.min()} to {row.max()}; the vocabulary has {self.vocabulary}")


def fit(documents: Sequence[Sequence[int]], vocabulary: int, order: int = ORDER) -> Ngrams:
    """Counts runs within documents (never across two). Raises ValueError if there is no text."""
    rows = [np.asarray(ids, dtype=np.int64) for ids in documents if len(ids)]
    if not rows or order < 1:
        raise ValueError("nothing to count: give at least one document with a token, and an order of at least 1")
    flat = np.concatenate(rows)
    if flat.min() < 0 or flat.max() >= vocabulary:
        raise ValueError(f"token ids {flat.min()} to {flat.max()}; the vocabulary has {vocabulary}")
    begins = np.repeat(np.cumsum([0, *[len(row) for row in rows[:-1]]]), [len(row) for row in rows])
    numbers = _numbered(flat, np.arange(len(flat)) - begins, vocabulary, order)
    levels = []
    for n in range(1, order + 1):
        keys, whole = numbers[n - 1]
        if not len(keys):
            break  # no document is that long
        counts = np.bincount(whole[whole >= 0], minlength=len(keys))
        if n < order:
            counts = _continued(counts, whole, numbers[n][1])
        levels.append(_level(keys, counts, 1 if n == 1 else len(numbers[n - 2][0]), vocabulary))
    return Ngrams(levels, vocabulary)


def _numbered(flat: Ints, depth: Ints, vocabulary: int, order: int) -> list[tuple[Ints, Ints]]:
    """Of each length n: the sorted keys, and the number of the run that ends at each place (-1: it would begin in an earlier
    document)."""
    found: list[tuple[Ints, Ints]] = []
    before = np.zeros(len(flat), dtype=np.int64)  # number of the n - 1 tokens that end one place earlier
    for n in range(1, order + 1):
        whole = np.full(len(flat), -1, dtype=np.int64)
        deep = depth >= n - 1
        keys, inverse = np.unique(before[deep] * vocabulary + flat[deep], return_inverse=True)
        whole[deep] = inverse
        found.append((keys, whole))
        before = np.concatenate([[-1], whole[:-1]])
    return found


def _continued(counts: Ints, whole: Ints, longer: Ints) -> Ints:
    """In how many different contexts each run occurred; a run that only ever began a document keeps its count."""
    ends = longer >= 0
    pairs = np.unique(np.stack([longer[ends], whole[ends]], axis=1), axis=0)
    contexts = np.bincount(pairs[:, 1], minlength=len(counts))
    return np.where(contexts > 0, contexts, counts)


def _level(keys: Ints, counts: Ints, contexts: int, vocabulary: int) -> _Level:
    owner = keys // vocabulary
    discounts = _discounts(counts)
    total = np.bincount(owner, weights=counts, minlength=contexts).astype(np.int64)
    taken = np.bincount(owner, weights=discounts[np.minimum(counts, 3)], minlength=contexts)
    gamma = np.divide(taken, total, out=np.ones(contexts), where=total > 0)
    return _Level(keys, counts, total, gamma, discounts)


def _discounts(counts: Ints) -> Floats:
    """[0, D1, D2, D3+] of Chen & Goodman; a half, where too few runs occurred once to four times to tell."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    if (n[1:5] == 0).any():
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = n[1] / (n[1] + 2 * n[2])
    found = np.array([0.0, *(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))])
    return (
        found if (found[1:] > 0).all() and (found <= np.array([1, 1, 2, 3])).all() else np.array([0.0, 0.5, 0.5, 0.5])
    )


def _mixed(level: _Level, contexts: Ints, tokens: Ints, below: Floats, vocabulary: int) -> Floats:
    """This level's probabilities; where the context (by number, -1: never seen) was never continued, `below`'s."""
    known = (contexts >= 0) & (level.total[np.maximum(contexts, 0)] > 0)
    at = level.number(contexts, tokens, vocabulary)
    counts = np.where(at >= 0, level.counts[np.maximum(at, 0)], 0)
    left = counts - level.discounts[np.minimum(counts, 3)]
    total = np.maximum(level.total[np.maximum(contexts, 0)], 1)
    answer: Floats = np.where(known, left / total + level.gamma[np.maximum(contexts, 0)] * below, below)
    return answer
