"""What a sealed forecaster answers on a held-out tail, as the gate measured it: for pictures and coverage."""

from __future__ import annotations

from export import parity
from protocol.bundles import Runtime, unpack
from protocol.windows import Floats
from server import evaluation
from server.datasets import SignalGrid
from server.evaluation import Tail
from server.training.forecast import Z80, restarted_filter


def held_out_answers(archive: bytes, grid: SignalGrid, tail: Tail) -> tuple[Floats, Floats, Floats] | None:
    """(low, mean, high) [S, O, H] of the 80 % interval; NaN where the model has no answer. A filter is walked from an
    unknown state, because its own has seen the tail. None for a runtime that is not measured here."""
    bundle = unpack(archive)
    spec = bundle.passport.window
    if spec is None:
        return None
    if bundle.passport.runtime is Runtime.ONNX:
        q = evaluation.window_answers(tail, spec, parity.Graph(bundle.graph))
        middle = bundle.passport.levels.index(0.5)
        return q[..., 0], q[..., middle], q[..., -1]
    if bundle.passport.runtime is Runtime.STATE_SPACE:
        mean, deviation = restarted_filter(tail, grid, list(range(len(grid.series))), bundle)
        return mean - Z80 * deviation, mean, mean + Z80 * deviation
    return None
