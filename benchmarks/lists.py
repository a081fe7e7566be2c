"""Lists judged: where the wanted items stand in a full ranking, and differences paired by user. Importable by the scripts
beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocol.windows import Floats

Ranks = NDArray[np.int64]


def ranks_of_one(scores: Floats, wanted: NDArray[np.int64]) -> Ranks:
    """How many items stand before the wanted one in each row of [B, I]; ties by place, the lower first."""
    own = scores[np.arange(len(wanted)), wanted][:, None]
    before = (scores > own).sum(axis=1)
    tied = ((scores == own) & (np.arange(scores.shape[1])[None, :] < wanted[:, None])).sum(axis=1)
    return np.asarray(before + tied, dtype=np.int64)


def top(scores: Floats, n: int) -> Ranks:
    """Places of the n best of each row [B, n], by (score descending, place ascending)."""
    return np.asarray(np.argsort(-scores, axis=1, kind="stable")[:, :n], dtype=np.int64)


def discounted(hits: NDArray[np.bool_], wanted: NDArray[np.int64]) -> Floats:
    """nDCG [B] of hits [B, n] where `wanted` [B] items were there to be found."""
    n = hits.shape[1]
    gain = 1 / np.log2(np.arange(n) + 2)
    best = np.concatenate(([0.0], np.cumsum(gain)))[np.minimum(wanted, n)]
    return np.asarray((hits * gain).sum(axis=1) / np.maximum(best, 1e-12))


def paired(ours: Floats, theirs: Floats, users: Sequence[object]) -> tuple[float, float]:
    """Mean difference over rows, and its standard error with a user's rows taken together."""
    difference = ours - theirs
    _, user = np.unique([str(u) for u in users], return_inverse=True)
    mean = float(difference.mean())
    by_user = np.bincount(user, difference - mean)
    return mean, float(np.sqrt((by_user**2).sum()) / len(difference))
