"""A float graph becomes an int8 one: weights per channel, activations scaled at run time, so that a window
far outside of the training data (a fault) is not clipped as fixed ranges would. For language models there are blocks of
weights, too."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.registry import IntegerOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from protocol.errors import BadBundle, Reason

BLOCKS, GATHERED = "MatMulNBits", "GatherBlockQuantized"
FLOAT = onnx.TensorProto.FLOAT
RECURRENT = {"LSTM": "DynamicQuantizeLSTM"}
"""Operators that must not stay float, and what they become."""


def quantize(graph: bytes) -> bytes:
    """The int8 graph's bytes. Raises BadBundle if a recurrent layer stayed float, which happens without an
    error when its weights reach it through another operator."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, prepared, packed = (Path(folder) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        source.write_bytes(graph)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
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
            raise BadBundle(
                Reason.UNSUPPORTED_RUNTIME,
                f"{name} was not quantized: expected {becomes}; check onnxruntime's version",
            )
    return small


def weight_only(graph: bytes, bits: int, block: int = 32) -> bytes:
    """The graph with its matrices in blocks of `block` weights of 4 or 8 bits, each with a scale of its own; what flows
    through it stays float, so that no row depends on another. Embeddings whose width is a multiple of `block` become blocks
    of 8 bits. Raises BadBundle if a matrix stayed float."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source, prepared = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        source.write_bytes(graph)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        packer = MatMulNBitsQuantizer(
            onnx.load(str(prepared)), bits=bits, block_size=block, is_symmetric=True, accuracy_level=4
        )
        packer.process()
        model = packer.model.model
    _with_biases(model.graph)
    _small_embeddings(model.graph, block)
    large = {one.name for one in model.graph.initializer if one.data_type == FLOAT and len(one.dims) == 2}
    left = [node.name for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and large & {*node.input}]
    if BLOCKS not in {node.op_type for node in model.graph.node} or left:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME,
            f"of the graph's matrices {left or 'all'} stayed float: check onnxruntime's version",
        )
    return bytes(model.SerializeToString())


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
