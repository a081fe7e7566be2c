"""Spans compete: a text is cut into entities and words that are none, and every cut has its chance.

A semi-Markov conditional random field (Sarawagi & Cohen 2004) without weights between neighbours: the score of a cut is the
sum of its spans' scores, so the chance of a span is that of all cuts that hold it, by forward and backward sums. Many texts
at once, in numpy: learning and reading share it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.windows import Floats

Ints = NDArray[np.int64]
NEVER = -1e4
"""Score of what cannot be: "nothing" for more than one word."""


@dataclass(frozen=True)
class Cut:
    """Where S spans lie. text, start, size: int [S]; lengths: words of each text [T]; longest: words of a span at most."""

    text: Ints
    start: Ints
    size: Ints
    lengths: Ints
    longest: int

    def marginals(self, scores: Floats) -> tuple[Floats, Floats]:
        """scores [S, C], column 0: nothing. Returns (log of the sum over all cuts [T], chances [S, C])."""
        held = scores.copy()
        held[self.size > 1, 0] = NEVER
        top = held.max(axis=1, keepdims=True)
        raised = np.exp(held - top)
        total = raised.sum(axis=1, keepdims=True)
        one = (np.log(total) + top)[:, 0]
        whole, chance = self._sums(one)
        return whole, raised / total * chance[:, None]

    def _sums(self, one: Floats) -> tuple[Floats, Floats]:
        """(log of the sum over all cuts [T], chance [S] that a span is in the cut) from log scores [S]."""
        many, words = len(self.lengths), int(self.lengths.max(initial=0))
        placed = np.full((many, words, self.longest), -np.inf)
        placed[self.text, self.start, self.size - 1] = one
        before = np.full((many, words + 1), -np.inf)
        before[:, 0] = 0.0
        for end in range(1, words + 1):
            sizes = range(1, min(self.longest, end) + 1)
            before[:, end] = _log_sum([before[:, end - k] + placed[:, end - k, k - 1] for k in sizes])
        after = np.full((many, words + 1), -np.inf)
        after[np.arange(many), self.lengths] = 0.0
        for start in range(words - 1, -1, -1):
            sizes = range(1, min(self.longest, words - start) + 1)
            found = _log_sum([placed[:, start, k - 1] + after[:, start + k] for k in sizes])
            after[:, start] = np.where(self.lengths > start, found, after[:, start])
        whole = before[np.arange(many), self.lengths]
        of_span = before[self.text, self.start] + one + after[self.text, self.start + self.size]
        return whole, np.exp(np.minimum(of_span - whole[self.text], 0.0))


def _log_sum(parts: list[Floats]) -> Floats:
    stacked = np.stack(parts)
    top = stacked.max(axis=0)
    finite = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(stacked - finite).sum(axis=0)) + finite)
