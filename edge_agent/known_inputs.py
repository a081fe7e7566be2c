"""What this gateway knows of its machines' future: told by the plant, accepted by people, read in notes and reports.

Every version is on disk before it is used, and a forecaster is given only what was known at its origin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.history import History
from protocol.covariates import EVERY_MACHINE, KnownInput, columns
from protocol.windows import Floats

MOST_PER_MACHINE = 5000


class KnownInputs:
    """Versions by machine, in the order in which they became known; at most MOST_PER_MACHINE, the oldest go first."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._told: dict[str, list[KnownInput]] = {}
        for known in history.known_inputs():
            self._hold(known)

    def tell(self, known: KnownInput) -> bool:
        """Keeps one; False if this version was told before."""
        if not self._history.remember_input(known):
            return False
        self._hold(known)
        return True

    def columns(
        self, machine: str, covariates: Sequence[str], origin_ms: int, step_ms: int, before: int, ahead: int
    ) -> Floats:
        """[C, before + ahead] around origin_ms, by `protocol.covariates.columns`."""
        mine = self._told.get(machine, []) + self._told.get(EVERY_MACHINE, [])
        origins = np.array([origin_ms], dtype=np.int64)
        made: Floats = columns(mine, covariates, machine, origins, step_ms, before, ahead)[0]
        return made

    def forget_before(self, time_ms: int) -> None:
        """Drops what had ended by then."""
        self._history.forget_inputs_before(time_ms)
        for machine, told in self._told.items():
            self._told[machine] = [known for known in told if known.end_ms >= time_ms]

    def _hold(self, known: KnownInput) -> None:
        told = self._told.setdefault(known.machine, [])
        told.append(known)
        del told[:-MOST_PER_MACHINE]
