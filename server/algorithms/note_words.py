"""A linear model of notes over counts of words and pieces of words: what it needs is a few hundred labelled notes.

Features and their weighing are `protocol.reading.words`, the same on a gateway. Several linear engines learn from the same
rows: a support vector machine (one class against the rest; Joachims 1998) and a multinomial logistic regression. A mixture of
linear models is one linear model, so the tables hold one matrix. The names of the classes may be learned as notes of their
class: that says something of classes that have hardly a note yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from protocol.reading.words import PREFIX, Shape, Vocabulary
from protocol.tables import Tables
from protocol.windows import Floats

USUAL = Shape()


@dataclass(frozen=True)
class WordSettings:
    """least_notes: a feature must occur in so many notes. most_features: the most frequent ones are kept. unknown: how much a
    feature that was never met counts towards a text's length, beside the rarest known one. words, pieces: lengths of the two
    blocks. svm, logistic: inverse strengths of the penalties. mix: the machine's share of the mixture. balanced: every class
    counts alike. names: the name of a class is learned as one more note of it."""

    shape: Shape = USUAL
    least_notes: int = 1
    most_features: int = 200_000
    unknown: float = 1.0
    words: float = 1.0
    pieces: float = 1.0
    svm: float = 1.0
    logistic: float = 30.0
    mix: float = 1.0
    balanced: bool = False
    names: bool = True


def rows(vocabulary: Vocabulary, texts: Sequence[str]) -> csr_matrix:
    """[N, F] sparse: texts weighed."""
    indptr, ids, values = [0], [], []
    for text in texts:
        counted = vocabulary.counted(text)
        ids.append(counted.ids)
        values.append(counted.values)
        indptr.append(indptr[-1] + len(counted.ids))
    flat = (np.concatenate([np.zeros(0), *values]), np.concatenate([np.zeros(0, dtype=np.int64), *ids]), indptr)
    return csr_matrix(flat, shape=(len(texts), len(vocabulary)))


@dataclass(frozen=True)
class FittedWords:
    """weights [F, C], bias [C] of one question."""

    weights: Floats
    bias: Floats


def fit_words(x: csr_matrix, labels: NDArray[np.int64], classes: int, settings: WordSettings) -> FittedWords:
    """The mixture of the engines, in log odds. labels: 0 to classes - 1; a class without a note is never said."""
    present = np.unique(labels)
    if len(present) < 2:
        raise ValueError(f"{len(present)} classes among {len(labels)} notes: two are needed")
    parts: list[tuple[float, Any]] = []
    weighing = "balanced" if settings.balanced else None
    if settings.mix > 0:
        parts.append((settings.mix, LinearSVC(C=settings.svm, class_weight=weighing, random_state=0)))
    if settings.mix < 1:
        parts.append((1 - settings.mix, LogisticRegression(C=settings.logistic, class_weight=weighing, max_iter=300)))
    weights, bias = np.zeros((x.shape[1], classes)), np.full(classes, -8.0)
    bias[present] = 0.0
    for share, engine in parts:
        engine.fit(x, labels)
        coefficients, level = engine.coef_, engine.intercept_
        if len(present) == 2:
            coefficients, level = np.vstack([-coefficients, coefficients]) / 2, np.concatenate([-level, level]) / 2
        weights[:, present] += share * coefficients.T
        bias[present] += share * level
    return FittedWords(weights, bias)


def packed_words(about: str, fitted: FittedWords) -> Tables:
    """int8 tables of one question, each feature's row with a scale of its own."""
    scale = np.maximum(np.abs(fitted.weights).max(axis=1), 1e-12) / 127
    return {
        f"{PREFIX}{about}_weights": np.round(fitted.weights / scale[:, None]).astype(np.int8),
        f"{PREFIX}{about}_scale": scale.astype(np.float32),
        f"{PREFIX}{about}_bias": fitted.bias.astype(np.float32),
    }
