"""Models that need no inference engine: what their tables mean, in numpy, for the parity check at export and for the
gateway alike. A table model is built from a bundle's tables, refuses what does not fit, and answers golden inputs."""

from __future__ import annotations

from typing import Protocol

from protocol.tables.checked import Tables, table
from protocol.tables.monitor import Monitor
from protocol.tables.neighbours import Neighbours, Scored
from protocol.tables.ridge import Contributions, Ridge
from protocol.tables.state_space import StateSpace
from protocol.tables.trees import Trees

__all__ = [
    "Contributions",
    "Monitor",
    "Neighbours",
    "Ridge",
    "Scored",
    "StateSpace",
    "TableModel",
    "Tables",
    "Trees",
    "table",
]


class TableModel(Protocol):
    """What every table model can do besides its own work."""

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """Answers to golden inputs, under the names and in the shapes of `outputs`; moves no state."""
        ...
