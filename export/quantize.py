"""A float graph in the other forms of its weights.

8 bits per channel with activations scaled at run time, so that a window far outside of the training data (a fault) is not
clipped as fixed ranges would; fixed ranges for convolutions alone, which have no quick form otherwise; blocks of 8 or 4 bits,
whose activations stay float; 16 bits, computed in 32. A form whose matrices would stay float is refused: onnxruntime leaves
them so without a word."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
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

from export.parity import ENGINE_FAILED, first_line
from protocol.errors import BadBundle, Reason

BLOCKS, GATHERED = "MatMulNBits", "GatherBlockQuantized"
FLOAT = onnx.TensorProto.FLOAT
RECURRENT = {"LSTM": "DynamicQuantizeLSTM"}
"""Operators that must not stay float, and what they become."""
WEIGHTED = ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN")
"""Operators whose weights make a graph large."""
PRODUCTS = ("MatMul", "Gemm", "Conv")
"""Those that fixed ranges are good for."""
LAID_OUT = ("Transpose", "Reshape", "Slice", "Split", "Concat", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast")
"""Operators behind which a matrix is still that matrix, also where something tells them how only at run time."""
WIDENED = 1.5
"""How far beyond the calibrating rows fixed ranges reach."""
MOST_HALF = float(np.finfo(np.float16).max)
LEAST_HALVED = 16
"""Numbers of a constant; shorter ones keep their 32 bits."""


def quantize(graph: bytes) -> bytes:
    """The int8 graph's bytes. Raises BadBundle if a matrix or a recurrent layer stayed float, which happens without an
    error when its weights reach it through another operator, and for convolutions: with ranges found at run time they are
    seven times as slow as float."""
    if "Conv" in operators(graph):
        raise _refused("convolutions are slow with ranges found at run time: int8_static is their form")
    with _packing() as folder:
        prepared, packed = _prepared(graph, folder), folder / "int8.onnx"
        quantize_dynamic(
            str(prepared),
            str(packed),
            op_types_to_quantize=sorted(set(IntegerOpsRegistry) - {"Attention"}),  # ONNX's own has no int8 form
            weight_type=QuantType.QInt8,
            per_channel=True,
            extra_options={"DefaultTensorType": FLOAT},  # of values that pass an operator that ONNX does not know
        )
        small = packed.read_bytes()
    had, has = operators(graph), operators(small)
    for name, becomes in RECURRENT.items():
        if name in had and (name in has or becomes not in has):
            raise _refused(f"{name} was not quantized: expected {becomes}; check onnxruntime's version")
    _all_small(small)
    return small


def static(graph: bytes, rows: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The graph with fixed ranges of 8 bits around each Conv, MatMul and Gemm whose weights are constant: the true least and
    greatest of `rows` (name of an input -> [N, ...]) and of the same rows WIDENED times as wide. Raises BadBundle for a graph
    without convolutions (fixed ranges ruin attention and clip what a recurrence sums up) and if a matrix stayed float."""
    had = operators(graph)
    if "Conv" not in had:
        raise _refused("it has no convolution, and fixed ranges are for convolutions alone")
    if had & {"LSTM", "GRU", "RNN"}:
        raise _refused("its recurrent layers have no form with fixed ranges")
    if not rows:
        raise _refused("there are no rows to find its ranges from")
    with _packing() as folder:
        prepared, packed = _prepared(graph, folder), folder / "static.onnx"
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
    _all_small(small)
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


def halved(graph: bytes) -> bytes:
    """The graph with its constants in 16 bits, which are made 32 when it is loaded: half the bytes at the float graph's speed
    (a gateway's processor computes no halves). Raises BadBundle where a constant is beyond what 16 bits hold."""
    model = onnx.load_from_string(graph)
    widen = []
    for one in model.graph.initializer:
        if one.data_type != FLOAT or int(np.prod(one.dims)) < LEAST_HALVED:
            continue
        values = onnx.numpy_helper.to_array(one)
        if not np.abs(values).max() <= MOST_HALF:
            raise _refused(f"{one.name} holds numbers beyond {MOST_HALF:g}, the greatest of 16 bits")
        name = one.name
        one.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_halved"))
        widen.append(onnx.helper.make_node("Cast", [one.name], [name], to=FLOAT))
    if not widen:
        raise _refused("it has no constants to make smaller")
    nodes = [*widen, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def bare(graph: bytes) -> bytes:
    """The graph without what the exporter wrote beside it: where in whose source each node comes from, and shapes that follow
    from the others. Of a small int8 graph that is nearly half."""
    model = onnx.load_from_string(graph)
    whole = model.graph
    del model.metadata_props[:], whole.metadata_props[:], whole.value_info[:]
    for part in (*whole.node, *whole.input, *whole.output, *whole.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return bytes(model.SerializeToString())


@contextmanager
def _packing() -> Iterator[Path]:
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
        raise _refused(f"the packer fails: {first_line(error)}") from error


def _prepared(graph: bytes, folder: Path) -> Path:
    """A file with the graph's constants folded, so that weights reach their operators directly."""
    source, prepared = folder / "float.onnx", folder / "prepared.onnx"
    source.write_bytes(graph)
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    return prepared


def _all_small(graph: bytes) -> None:
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
        raise _refused(f"{', '.join(left[:5])} stayed float, which this form does not have for them")


def _refused(why: str) -> BadBundle:
    return BadBundle(Reason.UNSUPPORTED_RUNTIME, why)


def weight_only(graph: bytes, bits: int, block: int = 32) -> bytes:
    """The graph with its matrices in blocks of `block` weights of 4 or 8 bits, each with a scale of its own; what flows
    through it stays float, so that no row depends on another. Embeddings whose width is a multiple of `block` become blocks
    of 8 bits. Raises BadBundle if a matrix stayed float, as those of recurrent layers and convolutions do."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    other = sorted(operators(graph) & set(WEIGHTED) - {"MatMul", "Gemm"})
    if other:
        raise _refused(f"{', '.join(other)} has no form in blocks")
    with _packing() as folder:
        whole = ONNXModel(onnx.load(str(_prepared(graph, folder))))
        whole.replace_gemm_with_matmul()
        packer = MatMulNBitsQuantizer(
            whole.model,
            bits=bits,
            block_size=block,
            is_symmetric=True,
            accuracy_level=4,
        )
        packer.process()
        model = packer.model.model
    _with_biases(model.graph)
    _small_embeddings(model.graph, block)
    small = bytes(model.SerializeToString())
    _all_small(small)
    if BLOCKS not in operators(small):
        raise _refused("it has no matrix of which to make blocks")
    return small


def _with_biases(graph: onnx.GraphProto) -> None:
    """A constant that is added to a product of blocks becomes an input of that product."""
    takers = Counter(name for node in graph.node for name in node.input)
    made = {node.output[0]: node for node in graph.node if node.op_type == BLOCKS and takers[node.output[0]] == 1}
    flat = {one.name for one in graph.initializer if len(one.dims) == 1}
    kept = []
    for node in graph.node:
        product, bias = next(
            (
                (made[a], b)
                for a, b in (tuple(node.input), tuple(reversed(node.input)))
                if a in made and b in flat and len(made[a].input) < 6
            )
            if node.op_type == "Add"
            else iter(()),
            (None, ""),
        )
        if product is None:
            kept.append(node)
            continue
        product.input.extend([""] * (5 - len(product.input)) + [bias])
        product.output[0] = node.output[0]
    del graph.node[:]
    graph.node.extend(kept)


def _small_embeddings(graph: onnx.GraphProto, block: int) -> None:
    """Rows that are looked up are kept in blocks of 8 bits with a scale each, around 128."""
    tables = {one.name: one for one in graph.initializer if one.data_type == FLOAT and len(one.dims) == 2}
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if table is None or axis != 0 or table.dims[1] % block:
            continue
        rows = onnx.numpy_helper.to_array(table)
        parts = rows.reshape(len(rows), -1, block)
        scale = np.maximum(np.abs(parts).max(axis=2), 1e-30) / 127
        whole = (np.rint(parts / scale[:, :, None]) + 128).astype(np.uint8).reshape(rows.shape)
        names = [f"{table.name}_blocks", f"{table.name}_scales"]
        if not any(one.name == names[0] for one in graph.initializer):
            graph.initializer.extend(
                [
                    onnx.numpy_helper.from_array(whole, names[0]),
                    onnx.numpy_helper.from_array(scale.astype(np.float32), names[1]),
                ]
            )
        small = onnx.helper.make_node(
            GATHERED,
            [names[0], node.input[1], names[1]],
            list(node.output),
            domain="com.microsoft",
            bits=8,
            block_size=block,
            gather_axis=0,
            quantize_axis=1,
        )
        node.CopyFrom(small)
    used = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def operators(graph: bytes) -> set[str]:
    """Names of the operators in a graph."""
    return {str(node.op_type) for node in onnx.load_from_string(graph).graph.node}
