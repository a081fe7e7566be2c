"""Small TFLite files and the same graphs in ONNX, written by hand: no converter is needed to test what runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

STEPS, CHANNELS, HORIZON, LEVELS = 8, 5, 4, 3
TOKENS, WIDTH = 6, 4
_KINDS = {"float32": 0, "int32": 2, "int64": 4}


@dataclass
class File:
    """One TFLite file as it is written: tensors and operators are added in the order in which they compute."""

    buffers: list[bytes] = field(default_factory=lambda: [b""])
    codes: list[int] = field(default_factory=list)
    graphs: list[tuple[str, Any]] = field(default_factory=list)

    def constant(self, array: NDArray[Any]) -> int:
        """A buffer's number."""
        self.buffers.append(np.ascontiguousarray(array).tobytes())
        return len(self.buffers) - 1

    def graph(self, name: str) -> Graph:
        """A further signature."""
        made = Graph(self)
        self.graphs.append((name, made))
        return made

    def written(self) -> bytes:
        """The file's bytes."""
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT()
        model.version, model.description = 3, "made for a test"
        model.buffers, model.operatorCodes, model.subgraphs, model.signatureDefs = [], [], [], []
        for body in self.buffers:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(body, dtype=np.uint8) if body else None
            model.buffers.append(buffer)
        for code in self.codes:
            operator = schema.OperatorCodeT()
            operator.builtinCode, operator.deprecatedBuiltinCode, operator.version = code, code, 1
            model.operatorCodes.append(operator)
        for at, (name, graph) in enumerate(self.graphs):
            subgraph = schema.SubGraphT()
            subgraph.tensors, subgraph.operators = graph.tensors, graph.operators
            subgraph.inputs, subgraph.outputs = list(graph.inputs.values()), list(graph.outputs.values())
            model.subgraphs.append(subgraph)
            signature = schema.SignatureDefT()
            signature.signatureKey, signature.subgraphIndex = name, at
            signature.inputs, signature.outputs = _map(graph.inputs), _map(graph.outputs)
            model.signatureDefs.append(signature)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


@dataclass
class Graph:
    """The operators of one signature."""

    file: File
    tensors: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)

    def tensor(self, shape: Sequence[int], kind: str = "float32", buffer: int = 0) -> int:
        """A tensor's number."""
        from ai_edge_litert import schema_py_generated as schema

        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = f"t{len(self.tensors)}", list(shape), _KINDS[kind], buffer
        self.tensors.append(made)
        return len(self.tensors) - 1

    def given(self, name: str, shape: Sequence[int], kind: str = "float32") -> int:
        """An input."""
        self.inputs[name] = self.tensor(shape, kind)
        return self.inputs[name]

    def does(self, operator: str, options: str, inputs: Sequence[int], shape: Sequence[int], **settings: Any) -> int:
        """The tensor that an operator answers; options: their class in the schema."""
        from ai_edge_litert import schema_py_generated as schema

        code = getattr(schema.BuiltinOperator, operator)
        if code not in self.file.codes:
            self.file.codes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self.file.codes.index(code), list(inputs), [self.tensor(shape)]
        made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        made.builtinOptions = getattr(schema, f"{options}T")()
        for name, value in settings.items():
            setattr(made.builtinOptions, name, value)
        self.operators.append(made)
        return int(made.outputs[0])

    def reshaped(self, tensor: int, shape: Sequence[int]) -> int:
        """The same values in another shape."""
        told = self.tensor([len(shape)], "int32", self.file.constant(np.array(shape, dtype=np.int32)))
        return self.does("RESHAPE", "ReshapeOptions", [tensor, told], shape, newShape=list(shape))


def weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of a window [STEPS * CHANNELS, HORIZON * LEVELS], of an identity [2, HORIZON * LEVELS]."""
    drawn = np.random.default_rng(2)
    answers = HORIZON * LEVELS
    of_x, of_who = drawn.normal(size=(STEPS * CHANNELS, answers)), drawn.normal(size=(2, answers))
    return (0.1 * of_x).astype(np.float32), of_who.astype(np.float32)


def forecaster(scale: float = 1.0) -> bytes:
    """x float32 [1, STEPS, CHANNELS], who int32 [1, 2] -> q [1, HORIZON, LEVELS]. scale: 1 is right."""
    of_x, of_who = weights()
    file = File()
    graph = file.graph("serving_default")
    x, who = graph.given("x", [1, STEPS, CHANNELS]), graph.given("who", [1, 2], "int32")
    answers = HORIZON * LEVELS
    flat = graph.reshaped(x, [1, STEPS * CHANNELS])
    named = graph.does("CAST", "CastOptions", [who], [1, 2])
    parts = [
        graph.does(
            "FULLY_CONNECTED",
            "FullyConnectedOptions",
            [part, graph.tensor(table.T.shape, buffer=file.constant(table.T * scale)), -1],
            [1, answers],
        )
        for part, table in ((flat, of_x), (named, of_who))
    ]
    total = graph.does("ADD", "AddOptions", parts, [1, answers])
    graph.outputs["q"] = graph.reshaped(total, [1, HORIZON, LEVELS])
    return file.written()


def forecaster_graph(scale: float = 1.0) -> bytes:
    """The same in ONNX, with a free batch and who int64."""
    of_x, of_who = (scale * table for table in weights())
    constants = {
        "wx": of_x.astype(np.float32),
        "ww": of_who.astype(np.float32),
        "flat": np.array([-1, STEPS * CHANNELS]),
        "shape": np.array([-1, HORIZON, LEVELS]),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "wx"], ["a"]),
        helper.make_node("Cast", ["who"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "ww"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Reshape", ["c", "shape"], ["q"]),
    ]
    graph = helper.make_graph(
        nodes,
        "forecaster",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", STEPS, CHANNELS]),
            helper.make_tensor_value_info("who", TensorProto.INT64, ["n", 2]),
        ],
        [helper.make_tensor_value_info("q", TensorProto.FLOAT, ["n", HORIZON, LEVELS])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def forecast(x: NDArray[np.float32], who: NDArray[np.int64]) -> NDArray[np.float32]:
    """What both answer, [N, HORIZON, LEVELS]."""
    of_x, of_who = weights()
    answer: NDArray[np.float32] = x.reshape(len(x), -1) @ of_x + who.astype(np.float32) @ of_who
    return answer.reshape(len(x), HORIZON, LEVELS)


def wide_integers() -> bytes:
    """z int64 [1, 2] -> q float32 [1, 2]: a kind that no file of ours has."""
    file = File()
    graph = file.graph("serving_default")
    graph.outputs["q"] = graph.does("CAST", "CastOptions", [graph.given("z", [1, 2], "int64")], [1, 2])
    return file.written()


def vectors() -> NDArray[np.float32]:
    """Of each token [TOKENS, WIDTH]."""
    return np.random.default_rng(3).normal(size=(TOKENS, WIDTH)).astype(np.float32)


def encoder(lengths: Sequence[int], of_tokens: NDArray[np.float32] | None = None) -> bytes:
    """ids, mask int32 [1, T] -> tokens [1, T, d], whole [1, d] of unit length; a signature for each T. of_tokens [V, d]: what
    each token becomes (None: `vectors`)."""
    file = File()
    held = vectors() if of_tokens is None else of_tokens
    table, (count, width) = file.constant(held), held.shape
    for length in lengths:
        graph = file.graph(f"t{length}")
        ids, mask = graph.given("ids", [1, length], "int32"), graph.given("mask", [1, length], "int32")
        rows = graph.tensor([count, width], buffer=table)
        tokens = graph.does("GATHER", "GatherOptions", [rows, ids], [1, length, width])
        stands = graph.reshaped(graph.does("CAST", "CastOptions", [mask], [1, length]), [1, 1, length])
        total = graph.does("BATCH_MATMUL", "BatchMatMulOptions", [stands, tokens], [1, 1, width])
        flat = graph.reshaped(total, [1, width])
        whole = graph.does("L2_NORMALIZATION", "L2NormOptions", [flat], [1, width])
        graph.outputs |= {"tokens": tokens, "whole": whole}
    return file.written()


def _map(names: dict[str, int]) -> list[Any]:
    from ai_edge_litert import schema_py_generated as schema

    found = []
    for name, at in names.items():
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name, at
        found.append(made)
    return found
