"""The chance of a span is the share of all cuts that hold it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from protocol.reading.segments import Cut
from protocol.reading.spans import cut_of, spans


def cuts(words: int, classes: int) -> list[list[tuple[int, int, int]]]:
    """Every cut of a text: (start, end, class) of its spans."""
    if not words:
        return [[]]
    made = []
    for size, kind in product(range(1, min(4, words) + 1), range(classes)):
        if kind or size == 1:
            made += [[*rest, (words - size, words, kind)] for rest in cuts(words - size, classes)]
    return made


def test_chances_are_those_of_all_cuts_counted_one_by_one() -> None:
    every = spans(5)
    scores = np.random.default_rng(0).normal(size=(len(every), 3))
    whole, chances = cut_of(every, 5).marginals(scores)
    row = {span: i for i, span in enumerate(every)}
    expected, total = np.zeros_like(chances), 0.0
    for cut in cuts(5, 3):
        weight = np.exp(sum(scores[row[a, b], c] for a, b, c in cut))
        total += weight
        for a, b, c in cut:
            expected[row[a, b], c] += weight
    assert whole[0] == pytest.approx(np.log(total))
    assert chances == pytest.approx(expected / total)


def test_texts_of_different_length_do_not_touch_one_another() -> None:
    short, long = spans(2), spans(6)
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(len(short) + len(long), 2))
    places = [*((0, s, e) for s, e in short), *((1, s, e) for s, e in long)]
    text, start, end = (np.array([place[k] for place in places]) for k in (0, 1, 2))
    _, both = Cut(text, start, end - start, np.array([2, 6]), 4).marginals(scores)
    assert both[: len(short)] == pytest.approx(cut_of(short, 2).marginals(scores[: len(short)])[1])
    assert both[len(short) :] == pytest.approx(cut_of(long, 6).marginals(scores[len(short) :])[1])


def test_huge_scores_stay_finite() -> None:
    every = spans(3)
    whole, chances = cut_of(every, 3).marginals(np.full((len(every), 2), 1e5))
    assert np.isfinite(whole).all()
    assert np.isfinite(chances).all()
