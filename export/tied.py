"""A language model whose head is its table of tokens, turned round (Press & Wolf 2017, "Using the Output Embedding to Improve
Language Models"), has that table once. Packers do not see it: they round the two apart, and the largest matrix of a small
model is there twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from export.compact import needed

FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Tied:
    """table: name of the constant [V, d] of which rows are looked up; head: of the value [d, V] that it is turned into."""

    table: str
    head: str


def tied_head(graph: bytes) -> Tied | None:
    """The one table that is looked up and also, turned round, multiplied with; None: there is none."""
    whole = onnx.load_from_string(graph).graph
    tables = {one.name for one in whole.initializer if one.data_type == FLOAT and len(one.dims) == 2}
    tables &= {node.input[0] for node in whole.node if node.op_type == "Gather"}
    heads = {node.input[1] for node in whole.node if node.op_type == "MatMul"}
    found = [
        Tied(node.input[0], node.output[0])
        for node in whole.node
        if node.op_type == "Transpose" and node.input[0] in tables and node.output[0] in heads
    ]
    return found[0] if len(found) == 1 else None


def share_int8(graph: GraphProto, tied: Tied) -> None:
    """Of a dynamically quantized graph, in place: the head's rows, each with the scale that it has there, are what is looked
    up, too, which is nearer to the float table than one scale for all of it. Left alone where the packer named things
    otherwise than expected."""
    constants = {one.name: one for one in graph.initializer}
    head, scale = constants.get(f"{tied.head}_quantized"), constants.get(f"{tied.head}_scale")
    zero = constants.get(f"{tied.head}_zero_point")
    looked_up = next((n for n in graph.node if n.op_type == "Gather" and n.input[0] == f"{tied.table}_quantized"), None)
    if head is None or scale is None or zero is None or looked_up is None or np.any(numpy_helper.to_array(zero)):
        return
    widened = next((n for n in graph.node if looked_up.output[0] in n.input), None)
    if widened is None or widened.op_type != "DequantizeLinear":
        return
    rows = np.ascontiguousarray(numpy_helper.to_array(head).T)
    shared, ids, name = f"{tied.table}_shared", looked_up.input[1], looked_up.output[0]
    turned = helper.make_node("Transpose", [shared], [head.name], perm=[1, 0])
    graph.initializer.remove(head)
    graph.initializer.extend(
        [numpy_helper.from_array(rows, shared), numpy_helper.from_array(np.array([-1]), f"{shared}_last")]
    )
    looked_up.input[0] = shared
    instead: list[NodeProto] = [
        helper.make_node("Cast", [name], [f"{name}_wide"], to=FLOAT),
        helper.make_node("Gather", [scale.name, ids], [f"{name}_scale"]),
        helper.make_node("Unsqueeze", [f"{name}_scale", f"{shared}_last"], [f"{name}_scales"]),
        helper.make_node("Mul", [f"{name}_wide", f"{name}_scales"], list(widened.output)),
    ]
    nodes = [turned, *(each for node in graph.node for each in (instead if node == widened else [node]))]
    del graph.node[:]
    graph.node.extend(nodes)
    needed(graph)
