"""How much each part of a reader counts, and from which chance on it may be sure: learned on scores of notes that the parts
had not seen.

The fused score of class c is sum_p mix[p] * score[p, c] + prior * log share[c]; mix and prior minimise the log loss of its
softmax (stacking, Wolpert 1992, with temperature scaling inside, Guo et al. 2017), with weights that cannot be negative and
a penalty that draws them to their start. A part stays only if the others do worse without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from protocol.reading.reader import softmax
from protocol.windows import Floats

Ints = NDArray[np.int64]
LEAST_SURE = 0.6
LEAST_GAIN = 0.002
"""Log loss a note that a part must save to stay."""


@dataclass(frozen=True)
class Fusion:
    """mix [P] as the parts are numbered (0: left out); prior: weight of the classes' log shares; loss: log loss a note."""

    mix: Floats
    prior: float
    loss: float

    def logits(self, scores: Floats, log_share: Floats) -> Floats:
        """[P, N, C] -> [N, C]"""
        return np.asarray(np.tensordot(self.mix, scores, 1) + self.prior * log_share)


def fit_fusion(scores: Floats, labels: Ints, log_share: Floats, use: Sequence[int], penalty: float = 1e-3) -> Fusion:
    """scores [P, N, C] of notes that the parts had not seen; use: numbers of the parts that may count."""
    chosen = scores[list(use)]
    at = np.arange(len(labels))

    def loss(w: Floats) -> tuple[float, Floats]:
        logits = np.tensordot(w[:-1], chosen, 1) + w[-1] * log_share
        chances = softmax(logits)
        wrong = chances.copy()
        wrong[at, labels] -= 1.0
        slope = np.array([*(float((wrong * part).sum()) for part in chosen), float((wrong * log_share).sum())])
        told = -float(np.log(np.maximum(chances[at, labels], 1e-12)).mean())
        return told + penalty * float(w @ w) / 2, slope / len(labels) + penalty * w

    start = np.array([1.0] * len(use) + [0.0])
    bounds = [(0.0, 50.0)] * len(use) + [(-2.0, 2.0)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    mix = np.zeros(len(scores))
    mix[list(use)] = found.x[:-1]
    return Fusion(mix, float(found.x[-1]), float(loss(found.x)[0]))


def chosen_fusion(scores: Floats, labels: Ints, log_share: Floats) -> Fusion:
    """The fusion with the parts that earn their place: one after the other is left out while that costs less than
    LEAST_GAIN."""
    use = list(range(len(scores)))
    best = fit_fusion(scores, labels, log_share, use)
    while len(use) > 1:
        fewer = [fit_fusion(scores, labels, log_share, [p for p in use if p != out]) for out in use]
        least = min(range(len(use)), key=lambda i: fewer[i].loss)
        if fewer[least].loss > best.loss + LEAST_GAIN:
            break
        best = fewer[least]
        use.pop(least)
    return best


def sure_from(chances: Floats, labels: Ints, precision: float, least: int = 10) -> float:
    """The lowest chance, LEAST_SURE at least, from which on at least `precision` of the answers were right on these notes, at
    every higher threshold with `least` answers too; 1 if there is none."""
    top = chances.max(axis=1)
    right = (chances.argmax(axis=1) == labels)[np.argsort(-top, kind="stable")]
    ordered = np.sort(top)[::-1]
    share = np.cumsum(right) / np.arange(1, len(right) + 1)
    found = 1.0
    for n in range(least, len(ordered) + 1):
        if n < len(ordered) and ordered[n] == ordered[n - 1]:
            continue
        if share[n - 1] < precision:
            break
        found = max(float(ordered[n - 1]), LEAST_SURE)
    return found


def calibration_error(chances: Floats, labels: Ints, bins: int = 10) -> float:
    """Expected calibration error of the first answer: |share right - mean chance| over bins of equal count (Naeini et al.
    2015)."""
    top = chances.max(axis=1)
    right = chances.argmax(axis=1) == labels
    parts = np.array_split(np.argsort(top, kind="stable"), min(bins, len(top)))
    return float(sum(abs(right[p].mean() - top[p].mean()) * len(p) for p in parts) / len(top))
