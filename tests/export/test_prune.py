"""What nobody listens to is taken out and nothing changes; what is taken out makes the network really smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from export import prune
from export.parity import Graph
from export.quantize import operators, quantize
from export.to_onnx import to_onnx
from protocol.errors import BadSettings
from protocol.windows import CHANNELS
from server.algorithms import bert, gpt, lstm
from server.algorithms.bert import BertSettings
from server.algorithms.gpt import Gpt, GptSettings
from server.algorithms.units import Units

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
MASK = torch.ones_like(IDS)


def small_lstm() -> lstm.QuantileLstm:
    torch.manual_seed(1)
    net = lstm.QuantileLstm(3, 10, lstm.LstmSettings(hidden=8), machines=2, signals=2)
    nn.init.normal_(net.head.weight)
    return net.eval()


def lstm_answer(net: lstm.QuantileLstm) -> Tensor:
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(6, 10, len(CHANNELS))).astype(np.float32))
    return net(x, torch.tensor([[1, 2]] * 6))


def small_bert() -> bert.Bert:
    return bert.fresh(BertSettings(vocabulary=12, width=24, layers=2, heads=4, inner=16, context=12), 3).bert.eval()


def small_gpt(**options: Any) -> Gpt:
    settings = GptSettings(vocabulary=12, context=16, layers=2, heads=4, width=24, inner=16, **options)
    net = Gpt(settings).eval()
    torch.manual_seed(4)
    for value in net.parameters():
        nn.init.normal_(value, std=0.4)
    return net


LLAMA = {"kv_heads": 2, "positions": "rotary", "norm": "rms", "gate": "swiglu", "bias": False, "qkv_bias": True}
Case = tuple[Callable[[], Any], Callable[[Any], Tensor], Callable[[Any], list[Units]], Callable[[Any, Any], Any]]
CASES: dict[str, Case] = {
    "lstm": (small_lstm, lstm_answer, lstm.units, lambda net, counts: lstm.resized(net, min(counts.values()))),
    "bert": (
        small_bert,
        lambda net: net(IDS, MASK),
        bert.units,
        lambda net, counts: bert.Bert(bert.with_units(net.settings, counts)),
    ),
    "gpt": (
        small_gpt,
        lambda net: net(IDS)[0],
        gpt.units,
        lambda net, counts: Gpt(gpt.with_units(net.settings, counts)),
    ),
    "llama": (
        lambda: small_gpt(**LLAMA),
        lambda net: net(IDS)[0],
        gpt.units,
        lambda net, counts: Gpt(gpt.with_units(net.settings, counts)),
    ),
}


def unheard(net: nn.Module, groups: list[Units], lost: Mapping[str, list[int]]) -> None:
    """What reads the lost units reads nothing of them any more."""
    named = dict(net.named_parameters())
    for group in groups:
        for part in group.parts:
            if part.axis == 1:
                with torch.no_grad():
                    named[part.parameter][:, torch.from_numpy(part.places[lost[group.name]].ravel())] = 0.0


@pytest.mark.parametrize("kind", CASES)
def test_units_that_nobody_listens_to_are_taken_out_and_nothing_changes(kind: str) -> None:
    make, answer, units, smaller = CASES[kind]
    net = make()
    groups = units(net)
    lost = {group.name: list(range(number % 2, len(group.parts[0].places), 2)) for number, group in enumerate(groups)}
    unheard(net, groups, lost)
    before = answer(net).detach()
    tuned: list[nn.Module] = []
    how = prune.Surgery(
        units=units, smaller=smaller, losses=lambda whole: iter([answer(whole).square().mean()]), tune=tuned.append
    )
    made = prune.pruned(net, 0.5, how)
    torch.testing.assert_close(answer(made.eval()), before, rtol=1e-5, atol=1e-6)
    assert [len(group.parts[0].places) for group in units(made)] == [
        len(group.parts[0].places) // 2 for group in groups
    ]
    assert sum(value.numel() for value in made.parameters()) < sum(value.numel() for value in net.parameters())
    assert tuned
    assert tuned[-1] is made
    torch.testing.assert_close(answer(net), before)  # it is left as it was


@pytest.mark.parametrize("kind", CASES)
def test_every_number_that_depends_on_a_size_belongs_to_a_unit(kind: str) -> None:
    make, _, units, smaller = CASES[kind]
    net = make()
    groups = units(net)
    counts = {group.name: len(group.parts[0].places) // 2 for group in groups}
    state = prune.without(net.state_dict(), groups, {name: torch.arange(n) for name, n in counts.items()})
    wanted = smaller(net, counts).state_dict()
    assert {name: value.shape for name, value in state.items()} == {name: v.shape for name, v in wanted.items()}


@pytest.mark.parametrize("kind", CASES)
def test_a_unit_that_matters_is_worth_more_than_one_that_does_not(kind: str) -> None:
    make, answer, units, _ = CASES[kind]
    net = make()
    groups = units(net)
    unheard(net, groups, {group.name: [1] for group in groups})
    worth = prune.taylor(net, groups, iter([answer(net).square().mean()]))
    for group in groups:
        assert worth[group.name][1] == 0.0
        assert (worth[group.name] > 0).sum() == len(worth[group.name]) - 1
    assert all((size > 0).all() for size in prune.sizes(net, groups).values())
    assert all(value.grad is None for value in net.parameters())


def test_the_size_of_weights_is_another_measure_of_what_matters() -> None:
    net = small_gpt()
    with torch.no_grad():
        net.blocks[0].feed_forward.up.weight[:8] *= 1e-3
        net.blocks[0].feed_forward.up.bias[:8] *= 1e-3
        net.blocks[0].feed_forward.down.weight[:, :8] *= 1e-3
    first = next(group for group in gpt.units(net) if group.name == "inner 0")
    kept = prune.most_worth(prune.sizes(net, [first])["inner 0"], 8)
    assert kept.tolist() == list(range(8, 16))


@given(steps=st.integers(1, 12), share=st.floats(0.0, 0.99))
def test_the_pace_takes_much_at_first_and_ends_where_it_should(steps: int, share: float) -> None:
    taken = [prune.share_at(step, steps, share) for step in range(steps + 1)]
    assert taken[0] == pytest.approx(0.0, abs=1e-12)
    assert taken[-1] == share
    gained = np.diff(taken)
    assert (gained >= -1e-12).all()
    assert (np.diff(gained) <= 1e-12).all()


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(BadSettings, match="give a share from 0 to less than 1"):
        prune.checked_share(share)


def test_at_least_one_unit_stays() -> None:
    make, answer, units, smaller = CASES["gpt"]
    how = prune.Surgery(
        units=units, smaller=smaller, losses=lambda net: iter([answer(net).square().mean()]), tune=lambda _net: None
    )
    made = prune.pruned(make(), 0.99, how, importance="size")
    assert (made.settings.heads, made.settings.wide) == (1, 1)
    assert made(IDS)[0].shape == (2, 8, 12)


def test_single_weights_stay_zero_while_the_rest_learns() -> None:
    net = small_lstm()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seen: list[float] = []

    def tune(learning: lstm.QuantileLstm) -> None:
        holes = learning.lstm.weight_hh_l1 == 0
        seen.append(float(holes.float().mean()))
        optimiser = torch.optim.AdamW(learning.parameters(), lr=0.05)
        for _ in range(5):
            optimiser.zero_grad()
            lstm_answer(learning).square().mean().backward()
            optimiser.step()
        assert (learning.lstm.weight_hh_l1[holes] == 0).all()

    made = prune.thinned(net, 0.75, tune)
    assert seen == sorted(seen)
    for name in ("lstm.weight_ih_l0", "lstm.weight_hh_l1", "head.weight", "gain.weight"):
        value = made.state_dict()[name]
        assert value.shape == before[name].shape
        assert float((value == 0).float().mean()) == pytest.approx(0.75, abs=0.02)
        assert not torch.equal(value[value != 0], before[name][value != 0])
    assert made.state_dict().keys() == before.keys()


def test_a_pruned_forecaster_is_exported_and_quantized_like_any_other() -> None:
    net = small_lstm()
    how = prune.Surgery(
        units=lstm.units,
        smaller=lambda whole, counts: lstm.resized(whole, min(counts.values())),
        losses=lambda whole: iter([lstm_answer(whole).square().mean()]),
        tune=lambda _net: None,
    )
    made = prune.pruned(net, 0.5, how).eval()
    x = np.random.default_rng(2).normal(size=(4, 10, len(CHANNELS))).astype(np.float32)
    who = np.array([[1, 2]] * 4)
    graph = to_onnx(made, torch.from_numpy(x[:2]), torch.from_numpy(who[:2]))
    packed = quantize(graph)
    assert "DynamicQuantizeLSTM" in operators(packed)
    np.testing.assert_allclose(Graph(graph)(x, who), lstm.answer(made, x, who), atol=1e-5)
    np.testing.assert_allclose(Graph(packed)(x, who), lstm.answer(made, x, who), atol=0.2)
