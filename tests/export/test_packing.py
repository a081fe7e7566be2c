"""Packing: what a gateway runs equals what was fitted, within a stated bound, and a layer that stayed float
is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from export import parity
from export.bundle import judge
from export.quantize import operators, quantize
from export.to_onnx import to_onnx
from export.to_tables import neighbour_tables, stack_series
from protocol.bundles import Parity, Quality
from protocol.errors import BadBundle
from protocol.tables import Neighbours, StateSpace, Tables


class SmallLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 32, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        state, _ = self.lstm(x)
        answer: Tensor = self.head(state[:, -1])
        return answer


def test_an_lstm_is_exported_with_a_free_batch_and_quantized() -> None:
    torch.manual_seed(1)
    net = SmallLstm()
    graph = to_onnx(net, torch.randn(2, 12, 5))
    small = quantize(graph)
    assert "DynamicQuantizeLSTM" in operators(small)
    x = np.random.default_rng(1).normal(size=(7, 12, 5)).astype(np.float32)
    with torch.inference_mode():
        exact = net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(parity.Graph(graph)(x), exact, atol=1e-5)
    np.testing.assert_allclose(parity.Graph(small)(x), exact, atol=0.03)
    inputs, outputs = parity.golden_graph(parity.Graph(small), x)
    assert inputs["x"].shape[0] == outputs["q"].shape[0] == parity.GOLDEN_ROWS


def test_a_batch_of_one_is_not_frozen_into_a_graph() -> None:
    with pytest.raises(ValueError, match="two rows or more"):
        to_onnx(SmallLstm(), torch.randn(1, 12, 5))


def test_a_recurrent_layer_that_would_stay_float_is_refused() -> None:
    """Weights that are graph inputs cannot be quantized; onnxruntime says nothing about it."""
    shapes = {"x": [6, 1, 3], "w": [1, 8, 3], "r": [1, 8, 2]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [6, 1, 1, 2])
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2)
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, [output]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    with pytest.raises(BadBundle, match="LSTM was not quantized"):
        quantize(model.SerializeToString())


def one_series(k: int, seed: int) -> Tables:
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(k, k))
    return {
        "transition": 0.4 * rng.normal(size=(1, k, k)),
        "design": rng.normal(size=(1, k)),
        "state_cov": (half @ half.T)[None] * 0.1,
        "obs_var": np.array([0.1]),
        "state": rng.normal(size=(1, k)),
        "cov": np.eye(k)[None],
        "beta": rng.normal(size=(1, 5)),
        "center": np.array([20.0]),
        "scale": np.array([2.0]),
    }


def test_padding_to_a_common_size_changes_no_forecast() -> None:
    rows = [one_series(1, 1), one_series(3, 2)]
    together = StateSpace(stack_series(rows))
    alone = [StateSpace(row) for row in rows]
    for t, value in enumerate([20.0, np.nan, 25.0]):
        together.step(np.array([value, value]), t * 900_000)
        for one in alone:
            one.step(np.array([value]), t * 900_000)
    mean, deviation = together.forecast(2_700_000, 900_000, 6)
    for s, one in enumerate(alone):
        exact_mean, exact_deviation = one.forecast(2_700_000, 900_000, 6)
        np.testing.assert_allclose(mean[s], exact_mean[0], rtol=1e-12)
        np.testing.assert_allclose(deviation[s], exact_deviation[0], rtol=1e-12)


def test_neighbour_weights_keep_sign_and_size_in_one_byte() -> None:
    dense = np.array([[0.0, 0.5, -0.25], [0.0, 0.0, 0.9], [0.0, 0.0, 0.0]])
    tables = neighbour_tables(np.array([0, 2, 3, 3]), np.array([1, 2, 2]), np.array([0.5, -0.25, 0.9]))
    held = Neighbours(["a", "b", "c"], tables)
    assert tables["weights"].dtype == np.int8
    for j in range(3):
        ids, values = held.rows.row(j)
        back = np.zeros(3)
        back[ids] = values
        np.testing.assert_allclose(back, dense[j], atol=0.005)


def figure(model: float, champion: float | None) -> Quality:
    return Quality(
        metric="error",
        lower_is_better=True,
        model=model,
        reference=1.0,
        reference_name="naive",
        champion=champion,
        split="",
        n=9,
    )


@pytest.mark.parametrize(
    ("model", "champion", "rms", "eligible", "words"),
    [
        (0.8, None, 0.01, True, "no champion yet"),
        (0.8, 0.8, 0.01, True, "champion 0.8"),
        (1.0, None, 0.01, False, "does not beat the simple reference"),
        (0.8, 0.7, 0.01, False, "worse than the champion"),
        (0.8, None, 0.2, False, "packing cost too much"),
        (float("nan"), None, 0.0, False, "could not be measured"),
    ],
)
def test_the_gate_says_why(model: float, champion: float | None, rms: float, eligible: bool, words: str) -> None:
    cost = Parity(max_abs=rms, rel_rms=rms, task_change=0.0, n=9, bound="a bound")
    passed, verdict = judge(figure(model, champion), cost)
    assert passed is eligible
    assert words in verdict
