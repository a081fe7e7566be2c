"""What this gateway knows of its machines' future: told by the plant, accepted by people, read in notes and reports.

Every version is on disk before it is used, and a forecaster is given only what was known at its origin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.history import History
from protocol.covariates import EVERY_MACHINE, KnownInput, Standing, columns_of, standing
from protocol.windows import Floats

MOST_PER_MACHINE = 5000


class KnownInputs:
    """Versions by machine, in the order in which they became known; at most MOST_PER_MACHINE, the oldest go first."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._told: dict[str, list[KnownInput]] = {}
        self._standing: dict[str, list[Standing]] = {}
        for known in history.known_inputs():
            self._hold(known)

    def tell(self, known: KnownInput) -> bool:
        """Keeps one; False if this version was told before."""
        if not self._history.remember_input(known):
            return False
        self._hold(known)
        return True

    def columns(
        self,
        machine: str,
        covariates: Sequence[str],
        origins_ms: NDArray[np.int64],
        step_ms: int,
        before: int,
        ahead: int,
    ) -> Floats:
        """[N, C, before + ahead] around each origin, as `protocol.covariates.columns` says."""
        stands = self._stands(machine) + self._stands(EVERY_MACHINE)
        return columns_of(stands, covariates, origins_ms, step_ms, before, ahead)

    def forget_before(self, time_ms: int) -> None:
        """Drops what had ended by then, in every version of it."""
        self._history.forget_inputs_before(time_ms)
        for machine, told in self._told.items():
            lasting = {known.id for known in told if known.end_ms >= time_ms}
            self._told[machine] = [known for known in told if known.id in lasting]
        self._standing.clear()

    def _stands(self, machine: str) -> list[Standing]:
        """Its versions in order, put so once after every change."""
        if machine not in self._standing:
            self._standing[machine] = standing(self._told.get(machine, []))
        return self._standing[machine]

    def _hold(self, known: KnownInput) -> None:
        told = self._told.setdefault(known.machine, [])
        told.append(known)
        del told[:-MOST_PER_MACHINE]
        self._standing.pop(known.machine, None)
