"""How near this machine's own answers come to a bundle's golden vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.bundles import Golden
from protocol.errors import BadBundle, Reason

Ask = Callable[[NDArray[np.float32], NDArray[np.int64] | None], NDArray[np.float32]]
"""Rows x and who -> quantiles, in one call of a graph."""
LOUD = np.float32(20.0)
"""How many times as loud as a golden row its neighbour is: a window's `observed` channel is 1, and windows are clipped at 20
of their own deviations (`protocol.windows`), so that no machine can be louder."""


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """One golden output: error, the largest difference of an element; share, the largest of what its tolerance allows
    (1: all of it); n: elements."""

    output: str
    error: float
    share: float
    n: int


def proven(name: str, got: NDArray[Any] | None, expected: NDArray[Any], tolerance: Golden) -> Proven:
    """Raises BadBundle (golden_mismatch) where |got - expected| is over atol + rtol * |expected| in an element, or nothing of
    that shape was answered."""
    want = np.asarray(expected, dtype=np.float64)
    if got is None or got.shape != want.shape:
        told = "does not come out" if got is None else f"comes out with the shape {got.shape}"
        raise BadBundle(Reason.GOLDEN_MISMATCH, f"golden output {name!r} {told}; {want.shape} is right")
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # infinity less infinity: refused below
        apart = np.abs(got - want)
        allowed = tolerance.atol + tolerance.rtol * np.abs(want)
        over = float(np.max(apart - tolerance.rtol * np.abs(want), initial=0.0))
        share = float(np.max(np.where(apart > 0, apart / allowed, 0.0), initial=0.0))
    if not over <= tolerance.atol:
        raise BadBundle(
            Reason.GOLDEN_MISMATCH,
            f"golden output {name!r} is off by {over:.3g} on this CPU; {tolerance.atol:.3g} is allowed",
        )
    return Proven(output=name, error=float(np.max(apart, initial=0.0)), share=share, n=want.size)


def right_among_neighbours(
    ask: Ask,
    x: NDArray[np.float32],
    who: NDArray[np.int64] | None,
    expected: NDArray[Any],
    tolerance: Golden,
) -> bool:
    """Whether rows may share a call of a graph: golden rows x [N, ...] must come out as near to `expected` [N, ...] among as
    many loud ones as they must alone. Dynamic int8 has one scale of activations for all rows of a call, so that a loud
    machine makes it coarse for the others; some engines take one row only."""
    names = None if who is None else np.concatenate([who, who])
    with np.errstate(over="ignore"):
        rows = np.concatenate([x, LOUD * x])
    try:
        answers = ask(rows, names)
        proven("beside others", answers[: len(x)], expected, tolerance)
    except BadBundle:
        return False
    return True
