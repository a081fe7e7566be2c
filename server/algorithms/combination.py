"""Shares of several forecasters of one series, from their errors on a stretch that none of them learned from.

Bates & Granger 1969: the shares with the smallest squared error of the weighted mean, pulled towards equal shares, because
a short stretch says little (Claeskens et al. 2016), and none below zero."""

from __future__ import annotations

import numpy as np

from protocol.windows import Floats

CALM = 0.05
"""How strongly shares are pulled together, in units of the members' mean squared error."""


def shares(misses: Floats) -> Floats:
    """Shares [M] that add up to one. misses [M, n]: forecast minus value; columns with a NaN are left out; without any
    column the shares are equal. A member whose errors are huge gets nothing."""
    members = len(misses)
    misses = misses[:, np.isfinite(misses).all(axis=0)]
    if members == 1 or not misses.shape[1]:
        return np.full(members, 1.0 / members)
    size = float(np.abs(misses).mean(axis=1).min())
    if size == 0:
        right = (np.abs(misses).mean(axis=1) == 0).astype(np.float64)
        return np.asarray(right / right.sum())
    scaled = np.clip(misses / size, -1e3, 1e3)
    covariance = scaled @ scaled.T / scaled.shape[1]
    calm = CALM * float(np.diag(covariance).min())
    active = np.ones(members, dtype=np.bool_)
    while True:  # at most M rounds: the most negative leaves
        part = covariance[np.ix_(active, active)] + calm * np.eye(int(active.sum()))
        found = np.linalg.solve(part, np.ones(len(part)))
        found /= found.sum()
        if (found >= 0).all():
            break
        active[np.flatnonzero(active)[int(np.argmin(found))]] = False
    result = np.zeros(members)
    result[active] = found
    return result
