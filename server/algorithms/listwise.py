"""Weights of a sum of parts, learned from what people chose out of a whole list.

Multinomial logit (McFadden 1974), in ranking known as the list-wise top-one loss (Cao et al. 2007, ListNet): the chance
that an item is chosen is softmax(Σ_p weight_p · part_p). The loss is convex, so the answer is the same on every run, and the
score stays a sum, so a part's contribution is exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from protocol.errors import Reason, Refused
from protocol.windows import Floats

Part = NDArray[np.float32]
Mask = NDArray[np.bool_]
NEVER = np.float32(-1e9)


def mixed(parts: Sequence[Part], weights: Floats) -> Part:
    """Σ_p weights[p] · parts[p], [B, I]."""
    total = np.zeros_like(parts[0])
    for weight, part in zip(weights, parts, strict=True):
        total += np.float32(weight) * part
    return total


def fit_weights(
    parts: Sequence[Part],
    chosen: sparse.csr_matrix,
    closed: Mask | None = None,
    *,
    evenness: float = 0.5,
    ridge: float = 1e-4,
    most_steps: int = 60,
) -> Floats:
    """Weights [P] of parts, each [B, I], that make the chosen items (> 0 in [B, I]) likely among those not `closed` [B, I].
    A row with m choices counts m ** (1 - evenness) times a row with one. Raises Refused where no row has a choice."""
    said = np.asarray(chosen.toarray() > 0)
    if closed is not None:
        said &= ~closed
    count = said.sum(axis=1)
    if not count.any():
        raise Refused(
            Reason.NOT_ELIGIBLE, "no row has a choice to learn from; give histories that are followed by choices"
        )
    per_choice = np.where(count > 0, 1 / np.maximum(count, 1) ** evenness, 0.0)
    per_choice /= (per_choice * count).sum()
    row, item = np.nonzero(said)
    wanted = np.array([float(per_choice[row] @ part[row, item]) for part in parts])
    mass = (per_choice * count).astype(np.float32)

    def loss(weights: Floats) -> tuple[float, Floats]:
        share = mixed(parts, weights)
        if closed is not None:
            share[closed] = NEVER
        peak = share.max(axis=1, keepdims=True)
        np.exp(share - peak, out=share)
        whole = share.sum(axis=1, keepdims=True)
        value = float(mass @ (np.log(whole) + peak)[:, 0]) - float(weights @ wanted) + ridge * float(weights @ weights)
        share *= (mass / whole[:, 0])[:, None]
        slope = np.array([float(np.vdot(share, part)) for part in parts]) - wanted
        return value, slope + 2 * ridge * weights

    start = np.full(len(parts), 0.1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": most_steps})
    return np.asarray(found.x, dtype=np.float64)
