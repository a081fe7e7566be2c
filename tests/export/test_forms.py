"""Forms: what is made is what was meant, what saturates on a fault is found, and the rule takes the smallest that is
right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from export import parity
from export.blocks import BLOCKS, weight_only
from export.bounds import FORECASTER, Bound
from export.compact import bare
from export.forms import FASTER, FLOAT32, FORMS, LARGER, choose, latencies, taken
from export.quantize import WIDENED, operators, static
from export.to_onnx import to_onnx
from export.trained_int8 import rounded_weights
from export.trials import Trial, surprise, trial_of_rows
from export.widened import halved
from protocol.bundles import Form, Parity
from protocol.errors import BadBundle, BadSettings

Float32s = NDArray[np.float32]
CHANNELS, LENGTH = 4, 24


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(CHANNELS, 24, 5), nn.ReLU(), nn.Conv1d(24, 24, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1)
        )
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.body(x.transpose(1, 2))[:, :, 0])
        return answer


class Attention(nn.Module):
    """A transformer's block with the mask that ruins fixed ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.up = nn.Linear(32, 96), nn.Linear(32, 32), nn.Linear(CHANNELS, 32)

    def forward(self, x: Tensor) -> Tensor:
        state = self.up(x)
        query, key, value = self.qkv(state).split(32, dim=2)
        later = torch.triu(torch.full((x.shape[1], x.shape[1]), -1e9), 1)
        mixed = torch.softmax(query @ key.transpose(1, 2) / 32**0.5 + later, dim=2) @ value
        answer: Tensor = self.out(mixed)[:, -1]
        return answer


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(CHANNELS, 32, batch_first=True), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        state, _ = self.lstm(x)
        answer: Tensor = self.head(state[:, -1])
        return answer


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 4))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.body(x)
        return answer


def windows(n: int, seed: int) -> Float32s:
    return np.random.default_rng(seed).normal(size=(n, LENGTH, CHANNELS)).astype(np.float32)


def graph_of(net: nn.Module, x: Float32s) -> bytes:
    return to_onnx(net, torch.from_numpy(x[:2].copy()))


def trial_of(graph: bytes, x: Float32s, learned: Float32s | None = None) -> Trial:
    """The task is to answer as the float graph does, give or take nothing."""
    exact = parity.Graph(graph)(x)

    def cost(run: parity.Graph) -> Parity:
        return parity.compare(exact, run(x), 1.0, 1.0, lower_is_better=True)

    return trial_of_rows(cost, x, calibration=None if learned is None else {"x": learned})


@pytest.fixture(scope="module")
def convolutions() -> bytes:
    torch.manual_seed(3)
    return graph_of(Convolutions(), windows(2, 1))


@pytest.fixture(scope="module")
def recurrent() -> bytes:
    torch.manual_seed(3)
    return graph_of(Recurrent(), windows(2, 1))


@pytest.fixture(scope="module")
def perceptron() -> bytes:
    torch.manual_seed(3)
    return graph_of(Perceptron(), rows_of_numbers())


def rows_of_numbers() -> Float32s:
    return np.random.default_rng(5).normal(size=(40, 32)).astype(np.float32)


def named(forms: list[Form], name: str) -> Form:
    return next(form for form in forms if form.name == name)


def test_fixed_ranges_that_saturate_on_a_fault_are_found_and_not_taken(convolutions: bytes) -> None:
    """On rows like those that set its ranges the form is right; at three times the amplitude it is not."""
    choice = choose(convolutions, FORECASTER, trial_of(convolutions, windows(40, 2), windows(64, 4)))
    form = named(choice.forms, "int8_static")
    assert form.parity is not None
    assert form.parity.rel_rms <= FORECASTER.most_rms
    assert form.strained["3 times the amplitude"] > FORECASTER.most_rms * FORECASTER.most_strained
    assert "with 3 times the amplitude, at most 0.15" in form.why
    assert choice.name == "float16"
    assert "slow with ranges found at run time" in named(choice.forms, "int8").why


def test_a_form_that_saturates_is_refused_when_it_is_asked_for(convolutions: bytes) -> None:
    choice = choose(
        convolutions, FORECASTER, trial_of(convolutions, windows(40, 2), windows(64, 4)), wanted="int8_static"
    )
    assert choice.name == "int8_static"
    assert "3 times the amplitude" in choice.refused


def test_fixed_ranges_are_put_around_convolutions_and_products_alone(convolutions: bytes) -> None:
    packed = onnx.load_from_string(static(convolutions, {"x": windows(16, 4)})).graph
    made_by = {name: node.op_type for node in packed.node for name in node.output}
    weighted = [node for node in packed.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert len(weighted) == 3
    assert all(made_by[node.input[at]] == "DequantizeLinear" for node in weighted for at in (0, 1))
    with pytest.raises(BadBundle, match="no rows"):
        static(convolutions, {})


def test_fixed_ranges_reach_half_as_far_again_as_the_rows_that_set_them(convolutions: bytes) -> None:
    rows = windows(16, 4)
    packed = onnx.load_from_string(static(convolutions, {"x": rows})).graph
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in packed.initializer}
    made_by = {name: node for node in packed.node for name in node.output}
    first = next(node for node in packed.node if node.op_type == "Conv")
    reach = 255 * float(constants[made_by[first.input[0]].input[1]])
    assert reach == pytest.approx(WIDENED * float(np.ptp(rows)), rel=0.01)


def test_a_transformer_never_gets_fixed_ranges() -> None:
    torch.manual_seed(3)
    x = windows(24, 1)
    graph = graph_of(Attention(), x)
    choice = choose(graph, FORECASTER, trial_of(graph, x, x))
    assert "no convolution" in named(choice.forms, "int8_static").why
    assert named(choice.forms, "int8_static").parity is None
    with pytest.raises(BadBundle, match="int8_static could not be made: it has no convolution"):
        choose(graph, FORECASTER, trial_of(graph, x, x), wanted="int8_static")


def through_an_operator(graph: bytes, operator: str) -> bytes:
    """The graph with the weights of one operator cut from a place on (zero) that only the input tells."""
    model = onnx.load_from_string(graph)
    at, node = next((i, node) for i, node in enumerate(model.graph.node) if node.op_type == operator)
    before = [
        helper.make_node("Sub", ["x", "x"], ["nothing"]),
        helper.make_node("ReduceMax", ["nothing"], ["zero"], keepdims=0),
        helper.make_node("Cast", ["zero"], ["start"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["start", "first"], ["starts"]),
        helper.make_node("Slice", [node.input[1], "starts", "end", "first"], ["through"]),
    ]
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array([0]), "first"),
            onnx.numpy_helper.from_array(np.array([np.iinfo(np.int64).max]), "end"),
        ]
    )
    node.input[1] = "through"
    nodes = [*model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], *before, *nodes[at:]])
    return bytes(model.SerializeToString())


def test_an_lstm_that_stays_float_is_no_int8_form(recurrent: bytes) -> None:
    """onnxruntime leaves a layer float without a word where its weights reach it through another operator."""
    graph, x = through_an_operator(recurrent, "LSTM"), windows(12, 2)
    choice = choose(graph, FORECASTER, trial_of(graph, x), tried=("int8",))
    assert choice.name == FLOAT32
    assert "LSTM was not quantized: expected DynamicQuantizeLSTM" in named(choice.forms, "int8").why
    assert "Kept as float32" in choice.words
    assert "could not be made: LSTM was not quantized" in choice.words
    with pytest.raises(BadBundle, match="int8 could not be made: LSTM was not quantized"):
        choose(graph, FORECASTER, trial_of(graph, x), wanted="int8")


@pytest.mark.parametrize("name", ["int8", "int8_blocks", "int4_blocks"])
def test_a_matrix_that_stays_float_is_no_small_form(perceptron: bytes, name: str) -> None:
    graph = through_an_operator(perceptron, "Gemm")
    trial = trial_of(graph, rows_of_numbers())
    assert "stayed float" in named(choose(graph, FORECASTER, trial, tried=(name,)).forms, name).why


def test_an_lstm_becomes_int8_and_says_why_not_the_others(recurrent: bytes) -> None:
    choice = choose(recurrent, FORECASTER, trial_of(recurrent, windows(40, 2)))
    assert choice.name == "int8"
    assert "DynamicQuantizeLSTM" in operators(choice.graph)
    assert [form.name for form in choice.forms if not form.why] == ["int8"]
    assert named(choice.forms, "int8_blocks").why == "could not be made: LSTM has no form in blocks"
    assert named(choice.forms, "float16").why == "within its bound; int8 is smaller"
    assert named(choice.forms, FLOAT32).why == "the last resort"
    assert set(named(choice.forms, "int8").strained) == {"3 times the amplitude", "a missing channel", "constant input"}
    assert choice.float_bytes == named(choice.forms, FLOAT32).size


def test_float32_is_the_last_resort_and_the_verdict_says_so(recurrent: bytes) -> None:
    exact = Bound("task error", 0.0, most_rms=1e-7, most_strained=1.0)
    choice = choose(recurrent, exact, trial_of(recurrent, windows(12, 2)))
    assert choice.name == FLOAT32
    assert not choice.refused
    assert "Kept as float32: no smaller form is within its bound" in choice.words
    assert "int8: element rms" in choice.words


@pytest.mark.parametrize(
    ("name", "operator", "most_of_float", "near"),
    [
        ("float16", "Cast", 0.6, 1e-3),
        ("int8", "MatMulInteger", 0.4, 0.05),
        ("int8_blocks", BLOCKS, 0.5, 0.05),
        ("int4_blocks", BLOCKS, 0.4, 0.3),
        ("int4", BLOCKS, 0.4, 0.3),
    ],
)
def test_a_form_that_is_asked_for_is_the_one_that_is_made(
    perceptron: bytes, name: str, operator: str, most_of_float: float, near: float
) -> None:
    loose = Bound("task error", 1.0, most_rms=1.0)
    choice = choose(perceptron, loose, trial_of(perceptron, rows_of_numbers()), wanted=name)
    assert operator in operators(choice.graph)
    assert len(choice.graph) < most_of_float * choice.float_bytes
    assert choice.parity.rel_rms < near
    assert not choice.refused


def test_a_form_that_there_is_none_of_is_refused(perceptron: bytes) -> None:
    with pytest.raises(BadSettings, match="int3"):
        choose(perceptron, FORECASTER, trial_of(perceptron, rows_of_numbers()), wanted="int3")
    with pytest.raises(BadBundle, match="no way to train it further"):
        choose(perceptron, FORECASTER, trial_of(perceptron, rows_of_numbers()), wanted="int8_trained")


def test_constants_beyond_16_bits_are_not_cut(perceptron: bytes) -> None:
    model = onnx.load_from_string(perceptron)
    large = next(one for one in model.graph.initializer if len(one.dims) == 2)
    large.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(large) * 1e7, large.name))
    with pytest.raises(BadBundle, match="beyond 65504"):
        halved(model.SerializeToString())


def test_what_the_exporter_wrote_beside_the_graph_does_not_travel(perceptron: bytes) -> None:
    assert b"test_forms.py" in perceptron, "the exporter no longer names source files; then `bare` has less to do"
    small = bare(perceptron)
    assert b"test_forms.py" not in small
    np.testing.assert_array_equal(parity.Graph(small)(rows_of_numbers()), parity.Graph(perceptron)(rows_of_numbers()))


def form(name: str, size: int, latency: float) -> Form:
    return Form(name=name, size=size, latency_us=latency)


@pytest.mark.parametrize(
    ("sizes", "broken", "expected"),
    [
        ({"int8": (30, 10.0), "int8_blocks": (32, 8.6)}, {}, "int8"),  # 14 % faster is too little
        ({"int8": (30, 10.0), "int8_blocks": (32, 8.5)}, {}, "int8_blocks"),
        ({"int8": (30, 10.0), "int8_blocks": (34, 1.0)}, {}, "int8"),  # 13 % larger is too much
        ({"int8": (30, 10.0), "float16": (50, 9.0)}, {"int8": "task error"}, "float16"),
        ({"int8": (30, 10.0)}, {"int8": "task error"}, FLOAT32),
        ({"int8": (100, 1.0)}, {}, FLOAT32),  # no smaller than float
    ],
)
def test_the_rule_takes_the_smallest_or_one_a_little_larger_that_is_much_faster(
    sizes: dict[str, tuple[int, float]], broken: dict[str, str], expected: str
) -> None:
    forms = [form(FLOAT32, 100, 10.0), *(form(name, *figures) for name, figures in sizes.items())]
    assert taken(forms, dict.fromkeys([FLOAT32, *sizes], "") | broken) == expected


@given(
    st.dictionaries(
        st.sampled_from(FORMS[1:]), st.tuples(st.integers(1, 200), st.floats(1, 100), st.booleans()), max_size=6
    )
)
def test_what_is_taken_is_right_and_at_most_a_tenth_larger_than_the_smallest(
    tried: dict[str, tuple[int, float, bool]],
) -> None:
    forms = [form(FLOAT32, 100, 10.0), *(form(name, size, spent) for name, (size, spent, _) in tried.items())]
    name = taken(forms, {FLOAT32: ""} | {name: "" if right else "broken" for name, (_, _, right) in tried.items()})
    fit = {name: size for name, (size, _, right) in tried.items() if right and size < 100}
    if fit:
        assert name in fit
        assert fit[name] <= 1.1 * min(fit.values())
    else:
        assert name == FLOAT32


def test_a_form_that_was_not_made_is_never_taken() -> None:
    assert taken([form(FLOAT32, 100, 1.0), Form(name="int8", why="could not be made")], {FLOAT32: ""}) == FLOAT32


def test_forms_are_timed_in_turn() -> None:
    order: list[str] = []
    spent = latencies({name: lambda name=name: order.append(name) for name in "ab"})  # type: ignore[misc]
    assert order[:6] == ["a", "b"] * 3
    assert set(spent) == {"a", "b"}


# --- trained with rounded weights ---------------------------------------------------------------------------------------


def test_a_network_learns_with_the_weights_that_it_will_have(recurrent: bytes) -> None:
    torch.manual_seed(3)
    net, x = Recurrent(), torch.from_numpy(windows(8, 1))
    before = {name: value.clone() for name, value in net.named_parameters()}
    with rounded_weights(net) as rounded:
        optimiser = torch.optim.SGD(rounded.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            (net(x) ** 2).mean().backward()
            optimiser.step()
        during = net(x).detach()
    assert {name for name, _ in net.named_parameters()} == set(before)
    torch.testing.assert_close(net(x).detach(), during)
    for name, value in net.named_parameters():
        assert not torch.equal(value, before[name]), f"{name} learned nothing"
        if name.startswith(("lstm.weight", "head.weight")):
            steps = value / (value.abs().amax(dim=1, keepdim=True) / 127)
            torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)


def test_it_is_trained_further_only_where_no_other_form_of_8_bits_is_right(recurrent: bytes) -> None:
    x, asked = windows(16, 2), []

    def finetune() -> bytes:
        asked.append(True)
        torch.manual_seed(3)
        with rounded_weights(Recurrent()) as net:
            pass
        return graph_of(net, x)

    assert choose(recurrent, FORECASTER, trial_of(recurrent, x), finetune=finetune).name == "int8"
    assert not asked
    # each form is off by a little; the one that was rounded beforehand is off from itself by less
    own = named(
        choose(recurrent, FORECASTER, trial_of(recurrent, x), wanted="int8_trained", finetune=finetune).forms,
        "int8_trained",
    )
    assert asked
    assert own.parity is not None
    other = named(choose(recurrent, FORECASTER, trial_of(recurrent, x)).forms, "int8").parity
    assert other is not None
    assert own.parity.rel_rms < other.rel_rms
    strict = Bound("task error", 0.005, most_rms=(own.parity.rel_rms + other.rel_rms) / 2)
    again = choose(recurrent, strict, trial_of(recurrent, x), finetune=finetune)
    assert again.name == "int8_trained"
    assert "element rms" in named(again.forms, "int8").why


def test_the_likelihood_of_rows_is_that_of_their_next_tokens() -> None:
    odds = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [1, 1, 1], [0.2, 0.2, 0.6], [1, 1, 1]]))
    assert surprise(odds, [[0, 1, 1], [2, 2]]) == pytest.approx(-np.log([0.25, 0.8, 0.6]).mean())
    with pytest.raises(ValueError, match="two tokens"):
        surprise(odds[:1], [[1]])


def test_a_graph_without_a_matrix_has_no_blocks() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> g (float[N] x) => (float[N] y) {y = Neg(x)}'
    )
    with pytest.raises(BadBundle, match="no matrix"):
        weight_only(model.SerializeToString(), 4)
    with pytest.raises(BadBundle, match="no constants"):
        halved(model.SerializeToString())


def test_every_form_is_documented() -> None:
    told = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in FORMS if f"`{name}`" not in told] == []
    assert "up to 10 % larger" in told
    assert "at least 15 % faster" in told
    assert (LARGER, FASTER) == (1.10, 0.85)
