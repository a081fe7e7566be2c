"""A decoder's graph keeps its memory in place: one buffer of the model's whole context for each layer's keys and values, into
which each call writes only what is new. Going on by one token then copies nothing, and going back is a smaller number.

Made from the graph of `to_decoder.py`, whatever module it came from, by putting one GroupQueryAttention (Ainslie et al. 2023;
onnxruntime's operator) where it attends over [past; new]. Where that is not how it attends, `in_place` answers None.

The graph maps `ids` int64 [1, T], `first` int64 [1], `before` int64 [1], `last` int32 [1] (= before + T - 1), `total` int32
[] (= before + T), `key_L`, `value_L` float32 [1, kv_heads, context, head_width] to `logits` float32 [1, T - first, V], of the
tokens from `first` on, and `next_key_L`, `next_value_L`, which are bound to the same buffers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

ATTENTION = "GroupQueryAttention"
NORM = "SkipLayerNormalization"
_SWAPPED = [0, 2, 1, 3]  # [B, T, heads, width] <-> [B, heads, T, width]


def in_place(graph: bytes, *, layers: int, kv_heads: int, head_width: int, context: int) -> bytes | None:
    """The graph's bytes, or None where it does not attend as causal attention over a memory is usually written. That it
    answers the same is for the caller to measure."""
    model = onnx.load_from_string(graph)
    sight = _Sight(model.graph)
    found = [node for node in model.graph.node if node.op_type == "Attention"]
    places = [_memory(sight, node) for node in found]
    if sorted(place for place in places if place is not None) != list(range(layers)) or len(found) != layers:
        return None
    instead: dict[str, list[NodeProto]] = {}
    for node, layer in zip(found, places, strict=True):
        end, nodes = _attend(sight, node, layer or 0, kv_heads)
        instead[end] = nodes
    kept = [one for node in model.graph.node for one in instead.get(node.output[0], [node])]
    _told_how_much(kept)
    if not _asked_from_first(kept, sight, model.graph):
        return None
    _rebuild(model.graph, kept, [(f"{part}_{i}") for i in range(layers) for part in ("key", "value")])
    if any("past" in node.input for node in model.graph.node):
        return None
    vocabulary = next(one for one in model.graph.output if one.name == "logits").type.tensor_type.shape.dim[2].dim_value
    del model.graph.input[:], model.graph.output[:]
    shape = [1, kv_heads, context, head_width]
    model.graph.input.extend(
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "T"]),
            helper.make_tensor_value_info("first", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("before", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("last", TensorProto.INT32, [1]),
            helper.make_tensor_value_info("total", TensorProto.INT32, []),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "asked", vocabulary]))
    for i in range(layers):
        for part in ("key", "value"):
            model.graph.input.append(helper.make_tensor_value_info(f"{part}_{i}", TensorProto.FLOAT, shape))
            model.graph.output.append(helper.make_tensor_value_info(f"next_{part}_{i}", TensorProto.FLOAT, shape))
    _norm_sums(model.graph, sight)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return bytes(model.SerializeToString())


def _told_how_much(nodes: list[NodeProto]) -> None:
    """The length of the past is an input, not measured on it."""
    for node in nodes:
        if (
            node.op_type == "Shape"
            and node.input[0] == "past"
            and (_value(node, "start"), _value(node, "end")) == (4, 5)
        ):
            node.op_type = "Identity"
            node.input[0] = "before"
            del node.attribute[:]


def _asked_from_first(nodes: list[NodeProto], sight: _Sight, graph: onnx.GraphProto) -> bool:
    """Only the tokens from `first` on reach the vocabulary; False where no product makes the logits."""
    head = sight.maker["logits"]
    if head.op_type == "Add":
        head = next((made for name in head.input if (made := sight.made_by(name, "MatMul")) is not None), head)
    if head.op_type != "MatMul":
        return False
    cut = helper.make_node("Slice", [head.input[0], "first", "to_the_end", "along_tokens"], ["asked"])
    nodes.insert(nodes.index(head), cut)
    head.input[0] = "asked"
    graph.initializer.append(numpy_helper.from_array(np.array([np.iinfo(np.int64).max]), "to_the_end"))
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "along_tokens"))
    return True


def _rebuild(graph: onnx.GraphProto, nodes: list[NodeProto], memory: list[str]) -> None:
    """Puts nodes in, without those that nothing needs."""
    needed = {"logits", *(f"next_{name}" for name in memory)}
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    used = [one for one in graph.initializer if one.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)
    del graph.value_info[:]
    if "flat_heads" in needed:
        graph.initializer.append(numpy_helper.from_array(np.array([0, 0, -1]), "flat_heads"))


@dataclass
class _Sight:
    """Who makes and who takes each value of a graph, and its constants."""

    graph: onnx.GraphProto

    def __post_init__(self) -> None:
        self.maker = {name: node for node in self.graph.node for name in node.output}
        self.takers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)
        self._constants = {one.name: one for one in self.graph.initializer}
        told = {one.name: one.type.tensor_type.shape.dim for one in self.graph.value_info}
        self._shapes = {name: [int(d.dim_value) for d in dims] for name, dims in told.items() if name in self.maker}

    def number(self, name: str) -> int | None:
        """The value of a constant of one whole number."""
        one = self._constants.get(name)
        value = None if one is None else numpy_helper.to_array(one)
        return int(value.reshape(-1)[0]) if value is not None and value.size == 1 and value.dtype.kind == "i" else None

    def axis(self, name: str, at: int) -> int:
        """The size of an axis that the exporter knows."""
        return self._shapes[name][at]

    def rank(self, name: str) -> int:
        """How many axes a value has; 0: not known, or a constant."""
        return len(self._shapes.get(name, []))

    def made_by(self, name: str, operator: str) -> NodeProto | None:
        """The node of that kind which makes a value."""
        node: NodeProto | None = self.maker.get(name)
        return node if node is not None and node.op_type == operator else None

    def only_taker(self, name: str, operator: str) -> NodeProto | None:
        """The one node that takes a value, if it is of that kind."""
        takers: list[NodeProto] = self.takers.get(name, [])
        return takers[0] if len(takers) == 1 and takers[0].op_type == operator else None


def _value(node: NodeProto, name: str) -> object:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _joined(sight: _Sight, name: str) -> NodeProto | None:
    """The Concat of past and new behind an input of an Attention; heads may have been repeated on the way."""
    node: NodeProto | None = sight.maker.get(name)
    while node is not None and node.op_type in ("Reshape", "Expand", "Unsqueeze"):
        node = sight.maker.get(node.input[0])
    if node is None or node.op_type != "Concat" or len(node.input) != 2 or _value(node, "axis") not in (2, -2):
        return None
    return node


def _memory(sight: _Sight, attention: NodeProto) -> int | None:
    """Which layer's past an Attention reads, keys and values."""
    layer = None
    for which, name in enumerate(attention.input[1:3]):
        joined = _joined(sight, name)
        half = None if joined is None else sight.made_by(joined.input[0], "Gather")
        whole = None if half is None else sight.made_by(half.input[0], "Gather")
        if half is None or whole is None or whole.input[0] != "past" or sight.number(half.input[1]) != which:
            return None
        at = sight.number(whole.input[1])
        if at is None or layer not in (None, at):
            return None
        layer = at
    return layer


def _attend(sight: _Sight, node: NodeProto, layer: int, kv_heads: int) -> tuple[str, list[NodeProto]]:
    """(the value that they make, nodes): a GroupQueryAttention and what brings q, k and v to its form."""
    keys, values = _joined(sight, node.input[1]), _joined(sight, node.input[2])
    assert keys is not None and values is not None  # noqa: S101, PT018 - `_memory` looked
    parts = [node.input[0], keys.input[1], values.input[1]]
    nodes: list[NodeProto] = []
    whole = _whole(sight, parts)
    if whole is not None:
        given = [whole, "", ""]
    else:
        given = [f"{name}_{layer}_flat" for name in ("query", "new_key", "new_value")]
        for part, flat in zip(parts, given, strict=True):
            nodes.append(helper.make_node("Transpose", [part], [f"{flat}_swapped"], perm=_SWAPPED))
            nodes.append(helper.make_node("Reshape", [f"{flat}_swapped", "flat_heads"], [flat]))
    swapped = sight.only_taker(node.output[0], "Transpose")
    shaped = None if swapped is None else sight.only_taker(swapped.output[0], "Reshape")
    if swapped is None or shaped is None or _value(swapped, "perm") != _SWAPPED:
        raise ValueError("heads are not put side by side after attention")
    scale = _value(node, "scale")
    told: dict[str, Any] = {} if scale is None else {"scale": scale}
    nodes.append(
        helper.make_node(
            ATTENTION,
            [*given, f"key_{layer}", f"value_{layer}", "last", "total"],
            [shaped.output[0], f"next_key_{layer}", f"next_value_{layer}"],
            domain="com.microsoft",
            kv_num_heads=kv_heads,
            num_heads=sight.axis(node.input[0], 1),
            **told,
        )
    )
    return shaped.output[0], nodes


def _norm_sums(graph: onnx.GraphProto, sight: _Sight) -> None:
    """What is added and then normalised becomes one node, which answers the sum, too. onnxruntime's own optimiser misses it
    beside GroupQueryAttention."""
    norms: dict[str, NodeProto] = {}
    for node in graph.node:
        if node.op_type == "LayerNormalization" and len(node.input) == 3 and _value(node, "axis") in (-1, 2):
            norms.setdefault(node.input[0], node)
    nodes: list[NodeProto] = []
    for node in graph.node:
        norm = norms.get(node.output[0]) if node.op_type == "Add" else None
        if norm is not None and [sight.rank(name) for name in node.input] in ([3, 3], [3, 2]):
            given, made = [*node.input, *norm.input[1:]], [norm.output[0], "", "", node.output[0]]
            epsilon = _value(norm, "epsilon") or 1e-5
            node = helper.make_node(NORM, given, made, domain="com.microsoft", epsilon=epsilon)
            norm.op_type = ""
        nodes.append(node)
    kept = [node for node in nodes if node.op_type]
    del graph.node[:]
    graph.node.extend(kept)


def _whole(sight: _Sight, parts: list[str]) -> str | None:
    """The value [B, T, (heads + 2 * kv_heads) * width] whose three parts q, k and v are, if they are."""
    split = sight.made_by(parts[0], "Split")
    if split is None or list(split.output) != parts or _value(split, "axis") != 1:
        return None
    swapped = sight.made_by(split.input[0], "Transpose")
    shaped = (
        None if swapped is None or _value(swapped, "perm") != _SWAPPED else sight.made_by(swapped.input[0], "Reshape")
    )
    return None if shaped is None else shaped.input[0]
