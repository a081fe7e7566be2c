"""Weights in blocks of 8 or 4 bits with a scale each; activations stay float."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, helper, numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel

from export.compact import needed, put_first
from export.quantize import FLOAT, WEIGHTED, all_small, operators, packing, prepared_file, refused
from export.tied import Tied, tied_head
from export.widened import in_halves, keeps_its_digits

BLOCKS, GATHERED = "MatMulNBits", "GatherBlockQuantized"
SIZES = {8: (128, 64, 32), 4: (32,)}
"""Bits -> how many weights may share a scale; the largest that divides every matrix's depth is taken."""


def weight_only(graph: bytes, bits: int, block: int = 0) -> bytes:
    """The graph with its matrices in blocks of `block` weights (0: by SIZES) of 4 or 8 bits, each with a scale of its own;
    what flows through it stays float, so that no row depends on another. Embeddings whose width is a multiple of the block
    become blocks of 8 bits, and so does the head that is such a table turned round: then it is there once. Raises BadBundle
    if a matrix stayed float, as those of recurrent layers and convolutions do."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    other = sorted(operators(graph) & set(WEIGHTED) - {"MatMul", "Gemm"})
    if other:
        raise refused(f"{', '.join(other)} has no form in blocks")
    with packing() as folder:
        whole = ONNXModel(onnx.load(str(prepared_file(graph, folder))))
        whole.replace_gemm_with_matmul()
        block = block or _block(whole.model.graph, bits)
        tied = _dividing(whole.model.graph, tied_head(graph), block)
        packer = MatMulNBitsQuantizer(
            whole.model,
            bits=bits,
            block_size=block,
            is_symmetric=True,
            accuracy_level=4,
            nodes_to_exclude=[] if tied is None else _named(whole.model.graph, tied.head),
        )
        packer.process()
        model = packer.model.model
    _with_biases(model.graph)
    _small_embeddings(model.graph, block)
    if tied is not None:
        _share(model.graph, tied, block)
    needed(model.graph)
    small = bytes(model.SerializeToString())
    all_small(small)
    if BLOCKS not in operators(small):
        raise refused("it has no matrix of which to make blocks")
    in_halves(model.graph, keeps_its_digits)
    return bytes(model.SerializeToString())


def _block(graph: GraphProto, bits: int) -> int:
    constants = {one.name: one.dims for one in graph.initializer}
    depths = [constants[n.input[1]][0] for n in graph.node if n.op_type == "MatMul" and n.input[1] in constants]
    return next((size for size in SIZES[bits] if all(depth % size == 0 for depth in depths)), SIZES[bits][-1])


def _dividing(graph: GraphProto, tied: Tied | None, block: int) -> Tied | None:
    """The tied head if its table can be in blocks."""
    widths = {one.name: one.dims[1] for one in graph.initializer if len(one.dims) == 2}
    return tied if tied is not None and widths.get(tied.table, 1) % block == 0 and tied.head in widths else None


def _named(graph: GraphProto, head: str) -> list[str]:
    """Names of the products with a head, made up where they have none."""
    found = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] == head]
    for number, node in enumerate(found):
        node.name = node.name or f"head_{number}"
    return [node.name for node in found]


def _share(graph: GraphProto, tied: Tied, block: int) -> None:
    """The head's product takes the blocks of the table."""
    rows, scales = _block_names(tied.table)
    deep = next(one.dims[1] for one in graph.initializer if one.name == rows)
    many = next(one.dims[0] for one in graph.initializer if one.name == rows)
    shape = f"{rows}_shape"
    graph.initializer.append(numpy_helper.from_array(np.array([many, deep // block, block]), shape))
    laid_out = helper.make_node("Reshape", [rows, shape], [f"{rows}_laid_out"])
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] == tied.head:
            node.CopyFrom(
                helper.make_node(
                    BLOCKS,
                    [node.input[0], laid_out.output[0], scales],
                    list(node.output),
                    domain="com.microsoft",
                    K=deep,
                    N=many,
                    bits=8,
                    block_size=block,
                    accuracy_level=4,
                )
            )
    put_first(graph, [laid_out])


def _with_biases(graph: GraphProto) -> None:
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


def _small_embeddings(graph: GraphProto, block: int) -> None:
    """Rows that are looked up are kept in blocks of 8 bits with a scale each, around 128."""
    tables = {one.name: one for one in graph.initializer if one.data_type == FLOAT and len(one.dims) == 2}
    made: set[str] = set()
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if table is None or axis != 0 or table.dims[1] % block:
            continue
        names = _block_names(table.name)
        if table.name not in made:
            parts = zip(in_blocks(numpy_helper.to_array(table), block), names, strict=True)
            graph.initializer.extend(numpy_helper.from_array(part, name) for part, name in parts)
            made.add(table.name)
        small = helper.make_node(
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


def in_blocks(rows: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Rows [n, d] as whole numbers of 8 bits around 128 and their scales [n, d / block]."""
    parts = rows.reshape(len(rows), -1, block)
    scale = np.maximum(np.abs(parts).max(axis=2), 1e-30) / 127
    whole = (np.rint(parts / scale[:, :, None]) + 128).astype(np.uint8).reshape(rows.shape)
    return whole, scale.astype(np.float32)


def _block_names(table: str) -> tuple[str, str]:
    return f"{table}_blocks", f"{table}_scales"
