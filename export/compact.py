"""A graph's bytes without what computes nothing: the exporter's traces, long names, constants that are there twice, and the
plumbing that it lays around recurrent layers. Of a small int8 graph all that was half."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import count, product
from string import ascii_letters, digits

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, numpy_helper

FORWARD = b"forward"
RECURRENT = ("LSTM", "DynamicQuantizeLSTM")
LEAST_MADE = 128
"""Bytes of a constant of zeros that is made instead."""
SOFT_AS_LINEAR = 17.0
"""From here on ln(1 + e^x) is x in 32 bits."""
_SUBGRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def bare(graph: bytes) -> bytes:
    """The graph without what the exporter wrote beside it (where in whose source each node comes from, shapes that follow
    from the others), each constant once, values by short names; those of inputs and outputs stay. Graphs that hold others
    (If, Loop) keep their names."""
    model = onnx.load_from_string(graph)
    whole = model.graph
    del model.metadata_props[:], whole.metadata_props[:], whole.value_info[:]
    model.ClearField("producer_name")
    model.ClearField("producer_version")
    for part in (*whole.node, *whole.input, *whole.output, *whole.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    domains = {node.domain for part in (whole, *model.functions) for node in part.node}
    used = [one for one in model.opset_import if one.domain in domains or not one.domain]
    del model.opset_import[:]
    model.opset_import.extend(used)
    if not any(told.type in _SUBGRAPHS for node in whole.node for told in node.attribute):
        _once(whole)
        _zeros_made(whole)
        _short(whole)
    return bytes(model.SerializeToString())


def _once(graph: GraphProto) -> None:
    """Constants that are equal to the bit become one."""
    first: dict[tuple[object, ...], str] = {}
    same: dict[str, str] = {}
    kept = []
    public = {one.name for one in (*graph.input, *graph.output)}
    for one in graph.initializer:
        key = (one.data_type, tuple(one.dims), numpy_helper.to_array(one).tobytes())
        if one.name not in public and first.setdefault(key, one.name) != one.name:
            same[one.name] = first[key]
        else:
            kept.append(one)
    if same:
        del graph.initializer[:]
        graph.initializer.extend(kept)
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]


def _zeros_made(graph: GraphProto) -> None:
    """Long constants of nothing but zeros (the zero points of symmetric weights) are made when the graph is loaded."""
    public = {one.name for one in (*graph.input, *graph.output)}
    nodes = []
    for one in graph.initializer:
        values, name = numpy_helper.to_array(one), one.name
        if name in public or values.nbytes < LEAST_MADE or values.any():
            continue
        zero = numpy_helper.from_array(np.zeros(1, dtype=values.dtype))
        one.CopyFrom(numpy_helper.from_array(np.array(values.shape, dtype=np.int64), f"{name}_shape"))
        nodes.append(onnx.helper.make_node("ConstantOfShape", [one.name], [name], value=zero))
    put_first(graph, nodes)


def _short(graph: GraphProto) -> None:
    """Every value that no caller names gets the shortest name that is left."""
    public = {one.name for one in (*graph.input, *graph.output)}
    fresh = (name for name in _names() if name not in public)
    named: dict[str, str] = defaultdict(lambda: next(fresh), {name: name for name in (*public, "")})
    for one in graph.initializer:
        one.name = named[one.name]
    for node in graph.node:
        node.name = ""
        node.input[:] = [named[name] for name in node.input]
        node.output[:] = [named[name] for name in node.output]


def _names() -> Iterator[str]:
    for length in count(1):
        yield from ("".join(letters) for letters in product(ascii_letters + digits, repeat=length))


def one_bias(graph: GraphProto) -> None:
    """Of one-way LSTMs the input's and the state's bias [1, 8H], which the operator adds up, become their sum [1, 4H], in
    place; zeros fill it up when the graph is loaded."""
    constants = {one.name: one for one in graph.initializer}
    pads = []
    for node in graph.node:
        given = constants.get(node.input[3]) if node.op_type in RECURRENT and len(node.input) > 3 else None
        if given is None or given.dims[0] != 1:
            continue
        whole = numpy_helper.to_array(given).reshape(2, -1).sum(axis=0, keepdims=True)
        name, room = f"{given.name}_sum", f"{given.name}_room"
        graph.initializer.append(numpy_helper.from_array(whole, name))
        graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, whole.shape[1]]), room))
        node.input[3] = f"{name}_padded"
        pads.append(onnx.helper.make_node("Pad", [name, room], [node.input[3]]))
    put_first(graph, pads)
    needed(graph)


def put_first(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Puts nodes before the others."""
    every = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(every)


def plain_recurrence(graph: bytes) -> bytes:
    """The graph with its one-way LSTMs as ONNX means them: states that begin at zero are left out, since that is what the
    operator takes for granted, and layers follow one another directly; the exporter works out each shape between them at run
    time. What only the last step is read of comes from the operator's own last state."""
    model = onnx.load_from_string(graph)
    whole = model.graph
    if not any(node.op_type == "LSTM" for node in whole.node):
        return graph
    _plain_softplus(whole)
    _one_addend(whole)
    for node in whole.node:
        if node.op_type == "LSTM" and _told(node, "direction", FORWARD) == FORWARD:
            _zero_states(whole, node)
            _one_way(whole, node)
    _plain_attributes(model)
    needed(whole)
    return bytes(model.SerializeToString())


def _zero_states(graph: GraphProto, node: NodeProto) -> None:
    """Blanks the first states where they are zeros."""
    for at in (5, 6):
        if len(node.input) > at and node.input[at] and _zeros(graph, node.input[at]):
            node.input[at] = ""
    while node.input and not node.input[-1]:
        node.input.pop()


def _zeros(graph: GraphProto, name: str) -> bool:
    """Whether a value is made of nothing but zeros, whatever its shape."""
    constants = {one.name: one for one in graph.initializer}
    maker = {made: node for node in graph.node for made in node.output}
    while name in maker and maker[name].op_type in ("Slice", "Expand", "Identity", "Reshape", "Unsqueeze"):
        name = maker[name].input[0]
    return name in constants and not np.any(numpy_helper.to_array(constants[name]))


def _one_way(graph: GraphProto, node: NodeProto) -> None:
    """All steps [T, 1, N, H] -> Transpose -> Reshape to [T, N, H] becomes a Squeeze; its last step the operator's Y_h."""
    takers: dict[str, list[NodeProto]] = defaultdict(list)
    for one in graph.node:
        for name in one.input:
            takers[name].append(one)
    swapped = next((n for n in takers[node.output[0]] if n.op_type == "Transpose"), None)
    if len(takers[node.output[0]]) != 1 or swapped is None or _told(swapped, "perm") != [0, 2, 1, 3]:
        return
    shaped = next((n for n in takers[swapped.output[0]] if n.op_type == "Reshape"), None)
    if shaped is None or any(n.op_type not in ("Reshape", "Shape") for n in takers[swapped.output[0]]):
        return
    along, steps = f"{node.output[0]}_direction", shaped.output[0]
    graph.initializer.append(numpy_helper.from_array(np.array([1]), along))
    shaped.CopyFrom(onnx.helper.make_node("Squeeze", [node.output[0], along], [steps]))
    last = _last_step(graph, takers, steps)
    if last is not None:
        first = f"{node.output[0]}_layer"
        graph.initializer.append(numpy_helper.from_array(np.array([0]), first))
        node.output.extend([""] * (2 - len(node.output)))
        node.output[1] = node.output[1] or f"{node.output[0]}_last"
        last.CopyFrom(onnx.helper.make_node("Squeeze", [node.output[1], first], list(last.output)))


def _last_step(graph: GraphProto, takers: dict[str, list[NodeProto]], steps: str) -> NodeProto | None:
    """The Gather that takes the last step of [T, N, H] -> [N, T, H], where nothing else is read of it."""
    if [n.op_type for n in takers[steps]] != ["Transpose"] or _told(takers[steps][0], "perm") != [1, 0, 2]:
        return None
    readers = takers[takers[steps][0].output[0]]
    constants = {one.name: one for one in graph.initializer}
    if [n.op_type for n in readers] != ["Gather"] or _told(readers[0], "axis", 0) != 1:
        return None
    at = constants.get(readers[0].input[1])
    return readers[0] if at is not None and numpy_helper.to_array(at).tolist() == -1 else None


def _told(node: NodeProto, name: str, otherwise: object = None) -> object:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), otherwise)


def _plain_softplus(graph: GraphProto) -> None:
    """Where(x > 20, x, Softplus(x)), which is how torch says it, becomes Softplus(x): the same in 32 bits."""
    maker = {made: node for node in graph.node for made in node.output}
    constants = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type != "Where":
            continue
        above, soft = maker.get(node.input[0]), maker.get(node.input[2])
        if above is None or soft is None or (above.op_type, soft.op_type) != ("Greater", "Softplus"):
            continue
        limit = constants.get(above.input[1])
        same = above.input[0] == node.input[1] == soft.input[0]
        if same and limit is not None and float(numpy_helper.to_array(limit)) >= SOFT_AS_LINEAR:
            node.CopyFrom(onnx.helper.make_node("Softplus", [node.input[1]], list(node.output)))


def _one_addend(graph: GraphProto) -> None:
    """A number that is added to a product with a bias becomes part of the bias."""
    maker = {made: node for node in graph.node for made in node.output}
    constants = {one.name: one for one in graph.initializer}
    read = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        product = maker.get(node.input[0]) if node.op_type == "Add" else None
        if product is None or product.op_type != "Gemm" or len(product.input) != 3 or read[node.input[0]] != 1:
            continue
        bias, number = constants.get(product.input[2]), constants.get(node.input[1])
        if bias is None or number is None or number.dims:
            continue
        name = f"{product.input[2]}_and_{node.input[1]}"
        graph.initializer.append(
            numpy_helper.from_array(numpy_helper.to_array(bias) + numpy_helper.to_array(number), name)
        )
        product.input[2] = name
        product.output[0], node.op_type = node.output[0], ""
    kept = [node for node in graph.node if node.op_type]
    del graph.node[:]
    graph.node.extend(kept)


def _plain_attributes(model: onnx.ModelProto) -> None:
    """Takes out attributes that say what their operator takes for granted."""
    version = next((one.version for one in model.opset_import if not one.domain), 1)
    for node in model.graph.node:
        if not node.domain and onnx.defs.has(node.op_type):
            usual = {
                name: told.default_value
                for name, told in onnx.defs.get_schema(node.op_type, version).attributes.items()
                if told.default_value.name
            }
            said = [one for one in node.attribute if one.name not in usual or _value(one) != _value(usual[one.name])]
            del node.attribute[:]
            node.attribute.extend(said)


def _value(told: AttributeProto) -> object:
    return onnx.helper.get_attribute_value(told)


def needed(graph: GraphProto) -> None:
    """Takes out what no output depends on, in place."""
    wanted = {one.name for one in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if wanted & {*node.output} - {""}:
            wanted |= {*node.input}
            kept.append(node)
    kept.reverse()
    del graph.node[:]
    graph.node.extend(kept)
    constants = [one for one in graph.initializer if one.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(constants)
