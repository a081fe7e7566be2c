"""Constants of a graph in 16 bits, which are made 32 when it is loaded (the engine folds a Cast of a constant): half the
bytes at the same speed. A gateway's processor computes no halves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto

from protocol.errors import BadBundle, Reason

FLOAT = onnx.TensorProto.FLOAT
MOST_HALF = float(np.finfo(np.float16).max)
LEAST_HALVED = 16
"""Numbers of a constant; shorter ones keep their 32 bits."""
LOST = 2.0**-10
"""Share of a number that 16 bits may cost it."""


def halved(graph: bytes) -> bytes:
    """The graph with all its constants in 16 bits. Raises BadBundle where one is beyond what 16 bits hold."""
    model = onnx.load_from_string(graph)
    if not in_halves(model.graph, _within):
        raise BadBundle(Reason.UNSUPPORTED_RUNTIME, "it has no constants to make smaller")
    return bytes(model.SerializeToString())


def in_halves(graph: GraphProto, may: Callable[[str, NDArray[np.floating]], bool]) -> int:
    """Puts constants into 16 bits, in place; how many. may: whether a constant of that name and these values is."""
    widen = []
    for one in graph.initializer:
        if one.data_type != FLOAT or int(np.prod(one.dims)) < LEAST_HALVED:
            continue
        name, values = one.name, onnx.numpy_helper.to_array(one)
        if may(name, values):
            one.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_halved"))
            widen.append(onnx.helper.make_node("Cast", [one.name], [name], to=FLOAT))
    nodes = [*widen, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(widen)


def keeps_its_digits(_name: str, values: NDArray[np.floating]) -> bool:
    """Whether 16 bits cost a constant next to nothing: of numbers of one sign (scales, gains) each its own LOST share, of
    others the largest's. Scales of tiny weights are below what 16 bits hold exactly."""
    largest = float(np.abs(values).max())
    if not largest <= MOST_HALF:
        return False
    gap = np.abs(values.astype(np.float16).astype(np.float64) - values)
    one_sign = bool((values > 0).all() or (values < 0).all())
    return bool((gap <= LOST * (np.abs(values) if one_sign else largest)).all())


def _within(name: str, values: NDArray[np.floating]) -> bool:
    if not np.abs(values).max() <= MOST_HALF:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME, f"{name} holds numbers beyond {MOST_HALF:g}, the greatest of 16 bits"
        )
    return True
