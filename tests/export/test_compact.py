"""Graphs travel without what computes nothing, and answer as before; what is rounded is rounded as little as it says."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export import parity
from export.blocks import in_blocks, weight_only
from export.compact import bare
from export.quantize import operators, quantize
from export.tied import tied_head
from export.to_onnx import exported, to_onnx
from export.widened import LOST, in_halves, keeps_its_digits

V, D = 256, 64


class TwoLayers(nn.Module):
    """Recurrent layers with a small head, and a number that is added behind a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 32, 2, batch_first=True)
        self.gain, self.head = nn.Linear(32, 32), nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        last = self.lstm(x)[0][:, -1]
        answer: Tensor = nn.functional.softplus(self.head(last * (1.0 + self.gain(last))))
        return answer


class Tied(nn.Module):
    """A table of tokens that is also the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.token, self.norm, self.map = nn.Embedding(V, D), nn.LayerNorm(D), nn.Linear(D, D)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.linear(torch.tanh(self.map(self.norm(self.token(ids)))), self.token.weight)


@cache
def recurrent() -> bytes:
    return to_onnx(TwoLayers(), torch.randn(2, 9, 3))


@cache
def tied() -> bytes:
    ids = torch.zeros((2, 5), dtype=torch.int64)
    return exported(Tied(), (ids,), ({0: torch.export.Dim.DYNAMIC},), ["ids"], ["logits"])


def windows() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(6, 9, 3)).astype(np.float32)


def test_layers_follow_one_another_without_shapes_worked_out_between_them() -> None:
    graph = recurrent()
    assert not operators(graph) & {"Shape", "Expand", "Where", "Greater"}
    assert [list(n.input[5:]) for n in onnx.load_from_string(graph).graph.node if n.op_type == "LSTM"] == [[], []]
    with torch.inference_mode():
        exact = TwoLayers()(torch.from_numpy(windows())).numpy()
    np.testing.assert_allclose(parity.Graph(graph)(windows()), exact, atol=1e-5)
    np.testing.assert_array_equal(parity.Graph(bare(graph))(windows()), parity.Graph(graph)(windows()))


def test_what_lies_beside_a_recurrence_is_small_and_multiplied_as_float() -> None:
    graph, small = recurrent(), quantize(recurrent())
    assert "DynamicQuantizeLSTM" in operators(small)
    assert not operators(small) & {"MatMulInteger", "DynamicQuantizeLinear"}
    kinds = {tuple(one.dims): one.data_type for one in onnx.load_from_string(small).graph.initializer}
    assert kinds[32, 32] == TensorProto.INT8
    near = np.abs(parity.Graph(bare(small))(windows()) - parity.Graph(graph)(windows()))
    assert near.max() < 0.02


def test_a_head_that_is_the_table_of_tokens_is_there_once() -> None:
    graph = tied()
    found = tied_head(graph)
    assert found is not None
    ids = np.random.default_rng(0).integers(0, V, (1, 5))
    (exact,) = parity.one_thread(graph).run(None, {"ids": ids})
    for name, small in {
        "int8": quantize(graph),
        "blocks": weight_only(graph, 8),
        "4 bits": weight_only(graph, 4),
    }.items():
        whole = onnx.load_from_string(bare(small)).graph
        large = [one for one in whole.initializer if int(np.prod(one.dims)) >= V * D]
        assert len(large) == 1, name
        (said,) = parity.one_thread(bare(small)).run(None, {"ids": ids})
        assert np.sqrt(np.mean((said - exact) ** 2)) < (0.1 if name == "4 bits" else 0.03) * exact.std(), name


def test_a_graph_without_such_a_head_has_none() -> None:
    assert tied_head(recurrent()) is None


def test_equal_constants_are_kept_once_and_zeros_are_made() -> None:
    zeros, same = np.zeros(64, dtype=np.float32), np.arange(64, dtype=np.float32)
    nodes = [
        helper.make_node("Add", ["x", "a_long_name"], ["first"]),
        helper.make_node("Add", ["first", "another_long_name"], ["second"]),
        helper.make_node("Add", ["second", "nothing"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64]) for name in "xy"]
    constants = {"a_long_name": same, "another_long_name": same.copy(), "nothing": zeros}
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("org.example.unused", 1)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], initial), opset_imports=opsets, ir_version=10
    )
    small = bare(model.SerializeToString())
    found = onnx.load_from_string(small)
    assert [list(one.dims) for one in found.graph.initializer] == [[64], [1]]
    assert [one.domain for one in found.opset_import] == [""]
    assert [one.name for one in (*found.graph.input, *found.graph.output)] == ["x", "y"]
    (said,) = parity.one_thread(small).run(None, {"x": same})
    np.testing.assert_array_equal(said, 3 * same)


def test_a_graph_within_a_graph_keeps_its_names() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (bool a_flag, float[2] x) => (float[2] y) {'
        " kept = Neg(x)"
        " y = If (a_flag) <then_branch = t () => (float[2] z) { z = Neg(kept) }, else_branch = e () => (float[2] w)"
        " { w = Abs(kept) }> }"
    )
    small = bare(model.SerializeToString())
    (said,) = parity.one_thread(small).run(None, {"a_flag": np.array(True), "x": np.ones(2, dtype=np.float32)})
    np.testing.assert_array_equal(said, [1, 1])


@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=16, max_size=40))
def test_16_bits_are_taken_only_where_they_cost_next_to_nothing(numbers: list[float]) -> None:
    values = np.array(numbers, dtype=np.float32)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(values, "c")])
    assert in_halves(graph, keeps_its_digits) == int(keeps_its_digits("c", values))
    if keeps_its_digits("c", values):
        kept = numpy_helper.to_array(graph.initializer[0]).astype(np.float64)
        assert np.abs(kept - values).max() <= LOST * np.abs(values).max()


def test_scales_below_what_16_bits_hold_exactly_keep_32() -> None:
    assert not keeps_its_digits("scale", np.full(16, 1e-6, dtype=np.float32))
    assert keeps_its_digits("scale", np.full(16, 1e-3, dtype=np.float32))


def test_blocks_of_8_bits_are_right_to_half_a_step() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    whole, scale = in_blocks(rows, 32)
    back = (whole.reshape(5, 2, 32).astype(np.float32) - 128) * scale[:, :, None]
    assert (np.abs(back.reshape(rows.shape) - rows) <= 0.501 * np.repeat(scale, 32, axis=1)).all()
