"""Constants of a graph in 16 or 8 bits, which are made 32 when it is loaded (the engine folds what is worked out of constants
alone): fewer bytes at the same speed. A gateway's processor computes no halves."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto

from export.compact import put_first
from protocol.errors import BadBundle, Reason

FLOAT = onnx.TensorProto.FLOAT
MOST_HALF = float(np.finfo(np.float16).max)
LEAST_HALVED = 16
"""Numbers of a constant; shorter ones keep their 32 bits."""
LEAST_IN_BYTES = 256
"""Numbers of a matrix; the scales of a shorter one take what its bytes save."""
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
    put_first(graph, widen)
    return len(widen)


def in_bytes(graph: GraphProto, axes: Mapping[str, int]) -> None:
    """Puts matrices into 8 bits with a scale per channel, in place. axes: name of a constant -> the axis of its channels."""
    widen = []
    for one in [one for one in graph.initializer if one.name in axes and int(np.prod(one.dims)) >= LEAST_IN_BYTES]:
        name, values = one.name, onnx.numpy_helper.to_array(one)
        along = tuple(axis for axis in range(values.ndim) if axis != axes[name])
        across = axes[name] < values.ndim - 1  # scales of the last axis need no others to be spread over them
        scale = np.maximum(np.abs(values).max(axis=along, keepdims=across), 1e-30).astype(np.float32) / np.float32(127)
        scales, wide = f"{name}_scale", f"{name}_wide"
        one.CopyFrom(onnx.numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}_bytes"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale, scales))
        widen += [
            onnx.helper.make_node("Cast", [one.name], [wide], to=FLOAT),
            onnx.helper.make_node("Mul", [wide, scales], [name]),
        ]
    put_first(graph, widen)


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
