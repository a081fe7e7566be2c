"""Learns to write operators' shorthand in full: a memory of what was written for what, and a log-linear ranking.

Berger, Della Pietra & Della Pietra 1996, "A maximum entropy approach to natural language processing"; the candidates and
features are those of `protocol/reading/normalise.py`. The ranking is learned on texts that the memory did not hold: the
texts are split into folds, and each fold's candidates come from a memory of the others, so that unseen words are met in
training as often as they will be afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from protocol.reading.normalise import DENSE, MEMORY, PLACES, Lexicon, Memory, Ranking, remember
from protocol.tables.checked import Tables
from protocol.windows import Floats

Text = Sequence[tuple[str, str]]
"""(token, what it became); "" where it is part of the word before."""


@dataclass(frozen=True)
class ShorthandSettings:
    """folds: parts of the texts, each read with the memory of the others. ridge: penalty of a weight's square, per token.
    steps: of the optimiser."""

    folds: int = 8
    ridge: float = 1e-4
    steps: int = 150


@dataclass(frozen=True)
class Choices:
    """named [M, PLACES] sparse and dense [M, D]: features of all candidates; token [M]: whose they are; right [M] bool."""

    named: sparse.csr_matrix
    dense: Floats
    token: NDArray[np.int64]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class FittedShorthand:
    """memory, and the weights [PLACES] and [D] of the features."""

    memory: Memory
    weights: Floats
    dense: Floats

    def tables(self) -> Tables:
        """What `Normaliser` reads, int8."""
        scale = max(float(np.abs(self.weights).max(initial=0.0)) / 127, 1e-12)
        return {
            "norm_weights": np.round(self.weights / scale).astype(np.int8),
            "norm_scale": np.array([scale], dtype=np.float32),
            "norm_dense": self.dense.astype(np.float32),
        }

    def texts(self) -> dict[str, bytes]:
        """The bundle's text member."""
        return {MEMORY: msgspec.json.encode(self.memory)}


def fit_shorthand(texts: Sequence[Text], settings: ShorthandSettings, *, seed: int = 0) -> FittedShorthand:
    """Learned from texts whose words a person wrote in full."""
    weights, dense = _ranked(choices(texts, settings, seed), settings)
    return FittedShorthand(remember(texts), weights, dense)


def choices(texts: Sequence[Text], settings: ShorthandSettings, seed: int) -> Choices:
    """Candidates of every token, each fold's with the memory of the others. A token whose right reading is not among its
    candidates teaches nothing."""
    fold = np.random.default_rng(seed).permutation(len(texts)) % max(min(settings.folds, len(texts)), 2)
    places: list[int] = []
    ends, dense, token, right = [0], [], [], []
    n = 0
    for k in range(int(fold.max(initial=0)) + 1):
        ranking = Ranking(Lexicon(remember([t for t, f in zip(texts, fold, strict=True) if f != k])))
        for text in (t for t, f in zip(texts, fold, strict=True) if f == k):
            tokens = [raw for raw, _ in text]
            for i, (_, norm) in enumerate(text):
                before = text[i - 1][1] if i else ""
                found = ranking.lexicon.candidates(tokens, i, before).sources
                if norm not in found:
                    continue
                for candidate, sources in found.items():
                    named, numbers = ranking.features(tokens, i, before, candidate, sources)
                    places += named
                    ends.append(len(places))
                    dense.append(numbers)
                    token.append(n)
                    right.append(candidate == norm)
                n += 1
    named_matrix = sparse.csr_matrix(
        (np.ones(len(places)), np.array(places, dtype=np.int32), np.array(ends)), shape=(len(ends) - 1, PLACES)
    )
    return Choices(
        named_matrix,
        np.array(dense, dtype=np.float64).reshape(-1, len(DENSE)),
        np.array(token, dtype=np.int64),
        np.array(right, dtype=bool),
    )


def _ranked(given: Choices, settings: ShorthandSettings) -> tuple[Floats, Floats]:
    """Weights by maximum likelihood of the right candidates (L-BFGS, Liu & Nocedal 1989)."""
    many = int(given.token.max(initial=-1)) + 1
    if not many:
        return np.zeros(PLACES), np.zeros(len(DENSE))
    starts = np.searchsorted(given.token, np.arange(many))
    whole = sparse.hstack([given.named, sparse.csr_matrix(given.dense)], format="csr")
    turned = whole.T.tocsr()

    def loss(weights: Floats) -> tuple[float, Floats]:
        scores = whole @ weights
        scores -= np.maximum.reduceat(scores, starts)[given.token]
        raised = np.exp(scores)
        total = np.add.reduceat(raised, starts)
        miss = np.log(total).sum() - scores[given.right].sum()
        slope = turned @ (raised / total[given.token] - given.right)
        return float(miss / many + settings.ridge * weights @ weights), slope / many + 2 * settings.ridge * weights

    found = minimize(loss, np.zeros(whole.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": settings.steps})
    return np.asarray(found.x[:PLACES]), np.asarray(found.x[PLACES:])
