"""What can be taken out of a network whole, and where it lies in its parameters (`export.prune` takes it out)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """One parameter's share in units: along `axis`, unit i at `places[i]` ([units, k])."""

    parameter: str
    axis: int
    places: Ints


@dataclass(frozen=True)
class Units:
    """Like units of one layer, and all that they own."""

    name: str
    parts: tuple[Part, ...]


def rows_and_bias(layer: str, places: Ints, *, bias: bool = True) -> tuple[Part, ...]:
    """What units write: rows of a linear layer's matrix and numbers of its bias."""
    return (Part(f"{layer}.weight", 0, places), *((Part(f"{layer}.bias", 0, places),) if bias else ()))


def columns(layer: str, places: Ints) -> tuple[Part, ...]:
    """What is read of units: columns of the next linear layer's matrix."""
    return (Part(f"{layer}.weight", 1, places),)


def blocks(units: int, each: int, *begins: int) -> Ints:
    """Places [units, each * begins] of units that lie one after the other, `each` places wide, from each of `begins` on."""
    own = np.arange(units)[:, None] * each + np.arange(each)
    return np.concatenate([own + begin for begin in begins], axis=1)
