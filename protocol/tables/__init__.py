"""Models that need no inference engine: what their tables mean, in numpy, for the parity check at export and for the
gateway alike. A table model is built from a bundle's tables, refuses what does not fit, and answers golden inputs."""

from __future__ import annotations

from typing import Protocol

from protocol.tables.answers import LocalAnswer, LocalAnswers, local_answers
from protocol.tables.checked import Tables, table
from protocol.tables.hybrid import Hybrid
from protocol.tables.monitor import Monitor
from protocol.tables.neighbours import Neighbours
from protocol.tables.ranking import Ranker, Scored
from protocol.tables.ridge import Contributions, Ridge
from protocol.tables.state_space import StateSpace
from protocol.tables.trees import Trees

__all__ = [
    "Contributions",
    "Hybrid",
    "LocalAnswer",
    "LocalAnswers",
    "Monitor",
    "Neighbours",
    "Ranker",
    "Ridge",
    "Scored",
    "StateSpace",
    "TableModel",
    "Tables",
    "Trees",
    "local_answers",
    "table",
]


class TableModel(Protocol):
    """What every table model can do besides its own work."""

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """Answers to golden inputs, under the names and in the shapes of `outputs`; moves no state."""
        ...
