"""The nearest past cases: stretches of a signal's own history that moved like its newest one, and what came after them.

Distance of z-normalised windows (Yeh et al. 2016, "Matrix Profile I"), all of them at once by one correlation: O(T * L)
time, O(T) memory."""

from __future__ import annotations

import numpy as np

from protocol.reports import PastCase
from protocol.windows import Floats, fill_forward

MOST_MISSING = 0.25
LEAST_SIMILAR = 0.5


def nearest_cases(
    history: Floats, end_ms: int, step_ms: int, length: int, horizon: int, count: int = 3
) -> list[PastCase]:
    """Up to `count` stretches of `length` buckets most like the newest one of `history` [T], which ends at end_ms; none
    overlaps the newest one or another, and each is followed by `horizon` buckets. Only those with a correlation of at
    least LEAST_SIMILAR; a stretch that never moves, or misses more than a quarter, is like nothing."""
    total = len(history)
    if length < 3 or total < 2 * length or not np.isfinite(history[-length:]).any():
        return []
    similar = _similarity(history, length)
    last = (
        total - length - max(length, horizon)
    )  # the case and what followed lie before now, and not in the newest stretch
    if last < 0:
        return []
    similar = similar[: last + 1]
    found: list[PastCase] = []
    while len(found) < count:
        at = int(np.argmax(similar))
        if similar[at] < LEAST_SIMILAR:
            break
        after = history[at + length : at + length + horizon]
        start = end_ms - (total - at) * step_ms
        found.append(
            PastCase(
                start_ms=max(start, 0),
                end_ms=max(start + length * step_ms, 0),
                similarity=min(float(similar[at]), 1.0),
                followed=[float(v) if np.isfinite(v) else None for v in after],
            )
        )
        similar[max(at - length + 1, 0) : at + length] = -np.inf
    return found


def _similarity(history: Floats, length: int) -> Floats:
    """Correlation of every window [T - length + 1] with the last one; -inf where it says nothing."""
    observed = np.isfinite(history)
    filled = fill_forward(history[None])[0]
    filled = filled - filled.mean()  # keeps the sums below well conditioned
    query = filled[-length:] - filled[-length:].mean()
    size = float(np.sqrt(np.mean(query**2)))
    answer = np.full(len(history) - length + 1, -np.inf)
    typical = max(float(np.abs(filled).mean()), 1e-12)
    if size <= 1e-9 * typical:
        return answer
    sums, squares = (np.concatenate([[0.0], np.cumsum(v)]) for v in (filled, filled**2))
    mean = (sums[length:] - sums[:-length]) / length
    spread = np.sqrt(np.maximum((squares[length:] - squares[:-length]) / length - mean**2, 0.0))
    seen = np.concatenate([[0], np.cumsum(observed)])
    enough = (seen[length:] - seen[:-length]) >= length * (1 - MOST_MISSING)
    usable = enough & (spread > 1e-6 * typical)
    product = np.correlate(filled, query, "valid") / length
    answer[usable] = np.clip(product[usable] / (spread[usable] * size), -1.0, 1.0)
    return answer
