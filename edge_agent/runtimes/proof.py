"""How near this machine's own answers come to a bundle's golden vectors."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.bundles import Golden
from protocol.errors import BadBundle, Reason


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
