"""What a sealed forecaster answers on a held-out tail, as the gate measured it: for pictures and coverage."""

from __future__ import annotations

from protocol.bundles import Runtime, unpack
from protocol.windows import Floats
from server.datasets import SignalGrid
from server.evaluation import Tail
from server.training.course import Z80, graph_answers, restarted_filter, ridge_answers


def held_out_answers(archive: bytes, grid: SignalGrid, tail: Tail) -> tuple[Floats, Floats, Floats] | None:
    """(low, mean, high) [S, O, H] of the 80 % interval; NaN where the model has no answer. A filter is walked from an
    unknown state, because its own has seen the tail. None for a runtime that is not measured here."""
    bundle = unpack(archive)
    spec = bundle.passport.window
    if spec is None:
        return None
    if bundle.passport.runtime in (Runtime.ONNX, Runtime.RIDGE):
        low, high = (bundle.passport.levels.index(level) for level in (0.1, 0.9))
        if bundle.passport.runtime is Runtime.ONNX:
            q = graph_answers(tail, grid, grid.series, bundle)
            return q[..., low], q[..., bundle.passport.levels.index(0.5)], q[..., high]
        made = ridge_answers(tail, grid.series, bundle)
        return made[..., 1 + low], made[..., 0], made[..., 1 + high]
    if bundle.passport.runtime is Runtime.STATE_SPACE:
        mean, deviation = restarted_filter(tail, grid, list(range(len(grid.series))), bundle)
        return mean - Z80 * deviation, mean, mean + Z80 * deviation
    return None
