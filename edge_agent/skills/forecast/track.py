"""One forecaster's record on this gateway: its intervals, its scores, its per-signal corrections; and what of it a new
version of the same slot takes over.

The same bundle again continues exactly. A new version of the same algorithm starts from the widths of the version before
(they are relative to what a model expects of itself), as if they had been seen INHERITED times, so that they are revised
fast; its scores start anew, and forecasts of the version before are charged to nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from edge_agent.skills.forecast.memory import Learned, pack, unpack
from edge_agent.skills.forecast.scores import Scores
from protocol.intervals import Intervals, Rows
from protocol.tables import Tables
from protocol.windows import Floats

INHERITED = 8


class Correction(Protocol):
    """A signal's own correction of a model's forecast, [H] each."""

    def apply(self, mean: Floats) -> Floats:
        """The corrected mean."""
        ...

    def learn(self, mean: Floats, actual: Floats) -> None:
        """An uncorrected forecast whose values have arrived (NaN: not observed)."""
        ...

    def state(self) -> Tables:
        """What survives a restart."""
        ...

    def restore(self, state: Tables) -> None:
        """Carries on from a state."""
        ...


CorrectionMaker = Callable[[int], Correction]
"""horizon -> a new correction."""


class Track:
    """Of one forecaster; signals are numbered by the skill."""

    def __init__(self, horizon: int, algorithm: str, digest: str, make: CorrectionMaker | None = None) -> None:
        self.algorithm = algorithm
        self.digest = digest
        self.intervals = Intervals(horizon)
        self.scores = Scores(horizon)
        self._horizon = horizon
        self._make = make
        self._corrections: dict[int, Correction] = {}

    def corrected(self, rows: Rows, mean: Floats) -> Floats:
        """`mean` [N, H] after each signal's own correction; NaN rows stay NaN."""
        if self._make is None:
            return mean
        made = mean.copy()
        for i in np.flatnonzero(np.isfinite(mean).all(axis=1)):
            made[i] = self._correction(int(rows[i]), self._make).apply(mean[i])
        return np.where(np.isfinite(made), made, mean)

    def learn_correction(self, rows: Rows, mean: Floats, actual: Floats) -> None:
        """Uncorrected forecasts [N, H] and everything that came [N, H]."""
        if self._make is not None:
            for i in np.flatnonzero(np.isfinite(mean).all(axis=1)):
                self._correction(int(rows[i]), self._make).learn(mean[i], actual[i])

    def learned(self, signals: int) -> Learned:
        """As it is kept: row i of every table is signal i."""
        rows = np.arange(signals)
        self.intervals.grow(signals)
        self.scores.grow(signals)
        tables = {**self.intervals.state(), **self.scores.state()}
        if self._make is not None and self._corrections:
            each = [self._correction(int(row), self._make).state() for row in rows]
            tables |= {f"correction.{name}": np.stack([state[name] for state in each]) for name in each[0]}
        return Learned(algorithm=self.algorithm, digest=self.digest, tables=pack(tables))

    def take_over(self, before: Learned, rows: Rows) -> None:
        """Continues from what was kept, row i of it being signal rows[i]: wholly for the same bundle, with its widths for
        another version of the same algorithm, not at all otherwise. Raises BadMessage if it does not fit."""
        if before.algorithm != self.algorithm or not len(rows):
            return
        tables = unpack(before.tables)
        self.intervals.restore(tables, rows)
        if before.digest != self.digest:
            self.intervals.forget_count(INHERITED)
            return
        self.scores.restore(tables, rows)
        names = [name for name in tables if name.startswith("correction.")]
        if self._make is not None and names:
            for i, row in enumerate(rows):
                state = {name.removeprefix("correction."): tables[name][i] for name in names}
                self._correction(int(row), self._make).restore(state)

    def _correction(self, row: int, make: CorrectionMaker) -> Correction:
        if row not in self._corrections:
            self._corrections[row] = make(self._horizon)
        return self._corrections[row]
