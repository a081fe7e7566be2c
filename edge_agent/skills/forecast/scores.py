"""How good one forecaster turned out to be here: against the reference on the same values, and whether its intervals
held. Errors fade (about the last five hundred values of a signal count), so a model that has grown old loses its place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.intervals import Rows
from protocol.tables import Tables
from protocol.windows import Floats

FORGET = 0.998
GROUPS = 3
"""Near, middle and far third of the horizon."""


class Scores:
    """own, naive: faded sums of absolute errors [S]; count [S]; seen, held: of the 80 % interval, by horizon [H]."""

    def __init__(self, horizon: int) -> None:
        self.own = np.zeros(0)
        self.naive = np.zeros(0)
        self.count = np.zeros(0, dtype=np.int64)
        self.seen = np.zeros(horizon, dtype=np.int64)
        self.held = np.zeros(horizon, dtype=np.int64)

    def note(self, rows: Rows, step: int, miss: Floats, naive_miss: Floats, held: NDArray[np.bool_]) -> None:
        """Values of the signals rows [N] arrived for one step of a forecast."""
        self.grow(int(rows.max(initial=-1)) + 1)
        self.own[rows] = FORGET * self.own[rows] + miss
        self.naive[rows] = FORGET * self.naive[rows] + naive_miss
        self.count[rows] += 1
        self.seen[step] += len(rows)
        self.held[step] += int(held.sum())

    def scaled(self, rows: Rows, enough: int) -> Floats:
        """Error over the reference's [N]; NaN for signals with fewer than `enough` values, infinity where the reference
        was never off."""
        self.grow(int(rows.max(initial=-1)) + 1)
        own, naive = self.own[rows], self.naive[rows]
        ratio = np.where(naive > 0, own / np.where(naive > 0, naive, 1.0), np.where(own > 0, np.inf, 1.0))
        return np.where(self.count[rows] >= enough, ratio, np.nan)

    def coverage(self) -> tuple[int, float, list[float]]:
        """(values, share inside the 80 % interval, the same by third of the horizon)."""
        n = int(self.seen.sum())
        thirds = [(int(h.sum()), int(s.sum())) for h, s in zip(*self._thirds(), strict=True)]
        return n, float(self.held.sum() / n) if n else 0.0, [round(h / s, 4) for h, s in thirds if s]

    def mean_scaled(self, enough: int) -> float:
        """Mean of `scaled` over the signals that have one; 0 for none."""
        ratios = self.scaled(np.arange(len(self.count)), enough)
        ratios = ratios[np.isfinite(ratios)]
        return float(ratios.mean()) if len(ratios) else 0.0

    def state(self) -> Tables:
        """What survives a restart."""
        return {
            "own": self.own,
            "naive": self.naive,
            "count": self.count,
            "step_seen": self.seen,
            "step_held": self.held,
        }

    def restore(self, tables: Tables, rows: Rows) -> None:
        """Row i of the tables becomes row rows[i] here."""
        self.grow(int(rows.max(initial=-1)) + 1)
        self.own[rows], self.naive[rows], self.count[rows] = tables["own"], tables["naive"], tables["count"]
        self.seen[:], self.held[:] = tables["step_seen"], tables["step_held"]

    def _thirds(self) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        return np.array_split(self.held, GROUPS), np.array_split(self.seen, GROUPS)

    def grow(self, rows: int) -> None:
        """Makes room for `rows` signals."""
        more = rows - len(self.count)
        if more > 0:
            self.own, self.naive = (np.concatenate([part, np.zeros(more)]) for part in (self.own, self.naive))
            self.count = np.concatenate([self.count, np.zeros(more, dtype=np.int64)])
