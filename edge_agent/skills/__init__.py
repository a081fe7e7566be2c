"""Skills: observations and models in, answers out. No I/O, and none imports another; what they share stands here."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.reports import ModelRef

Key = tuple[str, str]
"""(machine, signal)."""


@dataclass(frozen=True, slots=True)
class Residual:
    """One closed bucket against what was expected of it. z = (value - expected) / deviation."""

    value: float
    expected: float
    deviation: float
    z: float
    model: ModelRef
