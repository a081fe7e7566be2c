"""A float graph in the other forms of its weights.

8 bits per channel with activations scaled at run time, so that a window far outside of the training data (a fault) is not
clipped as fixed ranges would; fixed ranges for convolutions alone, which have no quick form otherwise; blocks of 8 or 4 bits,
whose activations stay float; 16 bits, computed in 32. A form whose matrices would stay float is refused: onnxruntime leaves
them so without a word."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.registry import IntegerOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from export.compact import one_bias
from export.parity import ENGINE_FAILED, first_line
from export.tied import share_int8, tied_head
from export.widened import in_bytes, in_halves, keeps_its_digits
from protocol.errors import BadBundle, Reason

FLOAT = onnx.TensorProto.FLOAT
RECURRENT = {"LSTM": "DynamicQuantizeLSTM"}
"""Operators that must not stay float, and what they become."""
WEIGHTED = ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN")
"""Operators whose weights make a graph large."""
CHANNELS = {"MatMul": 1, "Gather": 0}
"""Operators with a matrix, and the axis of its channels."""
SMALL = 1 << 14
"""Numbers of a matrix, beside a recurrence, with which multiplying in 8 bits costs more than it saves."""
PRODUCTS = ("MatMul", "Gemm", "Conv")
"""Those that fixed ranges are good for."""
LAID_OUT = ("Transpose", "Reshape", "Slice", "Split", "Concat", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast")
"""Operators behind which a matrix is still that matrix, also where something tells them how only at run time."""
WIDENED = 1.5
"""How far beyond the calibrating rows fixed ranges reach."""


def quantize(graph: bytes) -> bytes:
    """The int8 graph's bytes. Raises BadBundle if a matrix or a recurrent layer stayed float, which happens without an
    error when its weights reach it through another operator, and for convolutions: with ranges found at run time they are
    seven times as slow as float."""
    if "Conv" in operators(graph):
        raise refused("convolutions are slow with ranges found at run time: int8_static is their form")
    with packing() as folder:
        prepared, packed = prepared_file(graph, folder), folder / "int8.onnx"
        beside = _beside_a_recurrence(prepared)
        quantize_dynamic(
            str(prepared),
            str(packed),
            op_types_to_quantize=sorted(set(IntegerOpsRegistry) - {"Attention"}),  # ONNX's own has no int8 form
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=beside,
            extra_options={"DefaultTensorType": FLOAT},  # of values that pass an operator that ONNX does not know
        )
        model = onnx.load(str(packed))
    if beside:
        in_bytes(model.graph, {name: axis for _, name, axis in _small_matrices(model.graph)})
    tied = tied_head(graph)
    if tied is not None:
        share_int8(model.graph, tied)
    small = bytes(model.SerializeToString())
    had, has = operators(graph), operators(small)
    for name, becomes in RECURRENT.items():
        if name in had and (name in has or becomes not in has):
            raise refused(f"{name} was not quantized: expected {becomes}; check onnxruntime's version")
    all_small(small)
    one_bias(model.graph)
    in_halves(model.graph, keeps_its_digits)
    return bytes(model.SerializeToString())


def _beside_a_recurrence(prepared: Path) -> list[str]:
    """Names of the operators with SMALL matrices in a graph with recurrent layers. They are asked once for dozens of steps,
    and finding ranges takes longer than such a product: their matrices have 8 bits and are widened when they are loaded."""
    whole = ONNXModel(onnx.load(str(prepared)))
    if not {node.op_type for node in whole.model.graph.node} & set(RECURRENT):
        return []
    whole.replace_gemm_with_matmul()
    found = [node for node, _, _ in _small_matrices(whole.model.graph)]
    for at, node in enumerate(found):
        node.name = node.name or f"small_{at}"
    onnx.save(whole.model, str(prepared))
    return [node.name for node in found]


def _small_matrices(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, str, int]]:
    """(operator, name of its matrix, axis of the channels)."""
    small = {
        one.name
        for one in graph.initializer
        if one.data_type == FLOAT and len(one.dims) == 2 and int(np.prod(one.dims)) < SMALL
    }
    given = [(node, node.input[node.op_type == "MatMul"]) for node in graph.node if node.op_type in CHANNELS]
    return [(node, name, CHANNELS[node.op_type]) for node, name in given if name in small]


def static(graph: bytes, rows: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The graph with fixed ranges of 8 bits around each Conv, MatMul and Gemm whose weights are constant: the true least and
    greatest of `rows` (name of an input -> [N, ...]) and of the same rows WIDENED times as wide. Raises BadBundle for a graph
    without convolutions (fixed ranges ruin attention and clip what a recurrence sums up) and if a matrix stayed float."""
    had = operators(graph)
    if "Conv" not in had:
        raise refused("it has no convolution, and fixed ranges are for convolutions alone")
    if had & {"LSTM", "GRU", "RNN"}:
        raise refused("its recurrent layers have no form with fixed ranges")
    if not rows:
        raise refused("there are no rows to find its ranges from")
    with packing() as folder:
        prepared, packed = prepared_file(graph, folder), folder / "static.onnx"
        model = onnx.load(str(prepared))
        constant = {one.name for one in model.graph.initializer}
        for at, node in enumerate(model.graph.node):
            node.name = node.name or f"node_{at}"
        chosen = [n.name for n in model.graph.node if n.op_type in PRODUCTS and n.input[1] in constant]
        onnx.save(model, str(prepared))
        quantize_static(
            str(prepared),
            str(packed),
            _Rows(rows),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=chosen,
        )
        small = packed.read_bytes()
    all_small(small)
    return small


class _Rows(CalibrationDataReader):  # type: ignore[misc]
    """Rows one by one, as they are and widened."""

    def __init__(self, rows: Mapping[str, NDArray[np.generic]]) -> None:
        self._rows = self._each(rows)

    @staticmethod
    def _each(rows: Mapping[str, NDArray[np.generic]]) -> Iterator[dict[str, NDArray[np.generic]]]:
        for at in range(min(map(len, rows.values()))):
            row = {name: values[at : at + 1] for name, values in rows.items()}
            yield row
            yield {name: _widened(values) for name, values in row.items()}

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        return next(self._rows, None)


def _widened(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.asarray(np.multiply(values, WIDENED), dtype=values.dtype) if values.dtype.kind == "f" else values


@contextmanager
def packing() -> Iterator[Path]:
    """A folder to pack in. What the packer cannot do becomes BadBundle; its warnings are its own."""
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield Path(folder)
    except (
        ValueError,
        RuntimeError,
        KeyError,
        AssertionError,
        *ENGINE_FAILED,
    ) as error:  # NotImplementedError is a RuntimeError
        raise refused(f"the packer fails: {first_line(error)}") from error


def prepared_file(graph: bytes, folder: Path) -> Path:
    """A file with the graph's constants folded, so that weights reach their operators directly."""
    source, prepared = folder / "float.onnx", folder / "prepared.onnx"
    source.write_bytes(graph)
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    return prepared


def all_small(graph: bytes) -> None:
    """Raises BadBundle if an operator's matrix is still float, also where it reaches it through others."""
    model = onnx.load_from_string(graph).graph
    constant = {one.name for one in model.initializer}
    large = {one.name for one in model.initializer if one.data_type == FLOAT and len(one.dims) > 1}
    left = []
    for node in model.node:
        if node.op_type in WEIGHTED and large & {*node.input}:
            left.append(node.name or node.op_type)
        elif node.op_type == "Constant":
            constant.update(node.output)
            large.update(
                node.output if any(a.t.data_type == FLOAT and len(a.t.dims) > 1 for a in node.attribute) else ()
            )
        elif node.op_type in LAID_OUT or {*node.input} - {""} <= constant:
            constant.update(node.output if {*node.input} - {""} <= constant else ())
            large.update(node.output if large & {*node.input} else ())
    if left:
        raise refused(f"{', '.join(left[:5])} stayed float, which this form does not have for them")


def refused(why: str) -> BadBundle:
    """A form that cannot be made."""
    return BadBundle(Reason.UNSUPPORTED_RUNTIME, why)


def operators(graph: bytes) -> set[str]:
    """Names of the operators in a graph."""
    return {str(node.op_type) for node in onnx.load_from_string(graph).graph.node}
