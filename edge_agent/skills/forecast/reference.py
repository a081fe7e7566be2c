"""The simple reference: the better of last season's value and the last value, whichever has been off less here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_agent.skills.forecast.answers import Answer
from protocol.intervals import Rows, typical_changes
from protocol.tables import Tables
from protocol.windows import Floats, fill_forward, naive_forecast

FORGET = 0.99
"""Weight of the past at each scored value: about a hundred values count."""
ENOUGH = 24


class Reference:
    """Keeps score of both simple ways per signal; before that, the context itself is the judge."""

    def __init__(self, season: int, horizon: int) -> None:
        self._season = season
        self._horizon = horizon
        self.errors = np.zeros((0, 2), dtype=np.float32)
        self.count = np.zeros(0, dtype=np.int32)

    def both(self, stack: Floats) -> Floats:
        """Last season's and the last value for contexts [N, T]: [2, N, H]."""
        seasonal = naive_forecast(stack, self._season, self._horizon)
        return np.stack([seasonal, naive_forecast(stack, 0, self._horizon)])

    def answer(self, rows: Rows, stack: Floats, both: Floats) -> Answer:
        """The better one, with a prior from the signal's own changes."""
        self.grow(int(rows.max(initial=-1)) + 1)
        judged = np.where((self.count[rows] >= ENOUGH)[:, None], self.errors[rows], self._looking_back(stack))
        last_wins = judged[:, 1] < judged[:, 0]
        mean = np.where(last_wins[:, None], both[1], both[0])
        return Answer(mean, self._prior(stack))

    def note(self, rows: Rows, seasonal_miss: Floats, last_miss: Floats) -> None:
        """How far both were off a value that arrived, [N] each."""
        self.grow(int(rows.max(initial=-1)) + 1)
        misses = np.stack([seasonal_miss, last_miss], axis=1)
        # a running mean at first, so that the first value does not decide for a hundred
        rate = np.maximum(1 - FORGET, 1 / (self.count[rows] + 1.0))[:, None]
        self.errors[rows] += rate * (misses - self.errors[rows])
        self.count[rows] += 1

    def state(self) -> Tables:
        """What survives a restart."""
        return {"errors": self.errors, "count": self.count}

    def restore(self, tables: Tables, rows: Rows) -> None:
        """Row i of the tables becomes row rows[i] here."""
        self.grow(int(rows.max(initial=-1)) + 1)
        self.errors[rows], self.count[rows] = tables["errors"], tables["count"]

    def grow(self, rows: int) -> None:
        """Makes room for `rows` signals."""
        more = rows - len(self.count)
        if more > 0:
            self.errors = np.concatenate([self.errors, np.zeros((more, 2), dtype=np.float32)])
            self.count = np.concatenate([self.count, np.zeros(more, dtype=np.int32)])

    def _looking_back(self, stack: Floats) -> Floats:
        """Mean absolute error that both would have had inside the context, half a horizon ahead: [N, 2]."""
        apart = [self._season or 1, max(self._horizon // 2, 1)]
        return np.stack([_mean_miss(stack, steps) for steps in apart], axis=1)

    def _prior(self, stack: Floats) -> Floats:
        prior = typical_changes(stack, self._horizon)
        level = np.maximum(np.abs(fill_forward(stack)[:, -1:]), 1e-3)
        seen = np.isfinite(stack).sum(axis=1, keepdims=True)
        # nothing is known of the spread of one value, next to nothing of that of a constant
        least = np.where(seen < 2, 0.1, 1e-3) * level
        return np.where(prior > 0, prior, least)


def _mean_miss(stack: Floats, steps: int) -> NDArray[np.float64]:
    """Mean |x[t] - x[t - steps]|; infinity where no such pair was observed: [N]."""
    if stack.shape[1] <= steps:
        return np.full(len(stack), np.inf)
    apart = np.abs(stack[:, steps:] - stack[:, :-steps])
    known = np.isfinite(apart)
    n = known.sum(axis=1)
    return np.where(n > 0, np.where(known, apart, 0.0).sum(axis=1) / np.maximum(n, 1), np.inf)
