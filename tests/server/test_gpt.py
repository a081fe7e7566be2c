"""One graph for two families: with a memory it says what it says without, it sees nothing ahead, and it starts sound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from server.algorithms.gpt import Gpt, GptSettings, TorchDecoder, continued, decay_groups, hidden_matrices

GPT2: dict[str, Any] = {"vocabulary": 50, "context": 32, "layers": 2, "heads": 4, "width": 32}
LLAMA = GPT2 | {
    "kv_heads": 2, "head_width": 12, "inner": 40, "positions": "rotary", "norm": "rms", "gate": "swiglu",
    "bias": False, "tied": False,
}  # fmt: skip
FAMILIES = pytest.mark.parametrize("options", [GPT2, LLAMA], ids=["gpt2", "llama"])
IDS = torch.randint(0, 50, (3, 20), generator=torch.Generator().manual_seed(0))


@FAMILIES
def test_shapes_are_the_graph_contract(options: dict[str, Any]) -> None:
    s = GptSettings(**options)
    logits, present = Gpt(s).eval()(IDS, torch.zeros(s.layers, 2, 3, s.kv, 0, s.each))
    assert logits.shape == (3, 20, 50)
    assert present.shape == (s.layers, 2, 3, s.kv, 20, s.each)


@FAMILIES
@pytest.mark.parametrize("cuts", [(7,), (1, 2, 3, 19), (10, 11)])
def test_fed_in_pieces_it_says_what_it_says_at_once(options: dict[str, Any], cuts: tuple[int, ...]) -> None:
    net = Gpt(GptSettings(**options)).eval()
    with torch.inference_mode():
        whole, memory = net(IDS)
        past, said = None, []
        for part in torch.tensor_split(IDS, cuts, dim=1):
            logits, past = net(part, past)
            said.append(logits)
    assert torch.allclose(torch.cat(said, dim=1), whole, atol=1e-5)
    assert torch.allclose(past, memory, atol=1e-5)


@FAMILIES
def test_nothing_ahead_is_seen_and_places_matter(options: dict[str, Any]) -> None:
    net = Gpt(GptSettings(**options)).eval()
    with torch.no_grad():
        for value in net.parameters():
            value *= 5.0  # untrained attention is almost even
        changed = IDS.clone()
        changed[:, 12:] = (changed[:, 12:] + 1) % 50
        assert torch.equal(net(IDS)[0][:, :12], net(changed)[0][:, :12])
        swapped = IDS.clone()
        swapped[:, [2, 3]] = IDS[:, [3, 2]]
        assert not torch.allclose(net(IDS)[0][:, -1], net(swapped)[0][:, -1], atol=1e-4)


@FAMILIES
def test_untrained_it_knows_nothing_and_the_same_seed_is_the_same_network(options: dict[str, Any]) -> None:
    net = Gpt(GptSettings(**options)).eval()
    loss = torch.nn.functional.cross_entropy(net(IDS[:, :-1])[0].flatten(0, 1), IDS[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(50), rel=0.05)
    again = Gpt(GptSettings(**options)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in net.state_dict().items())
    other = Gpt(GptSettings(**options, seed=8))
    assert not torch.equal(other.token.weight, net.token.weight)


@FAMILIES
def test_decoder_feeds_and_rewinds(options: dict[str, Any]) -> None:
    decoder = TorchDecoder(Gpt(GptSettings(**options)))
    row = IDS[0].tolist()
    first = decoder.feed(row[:8])
    assert decoder.length == 8
    decoder.feed([1, 2, 3])
    decoder.rewind(5)
    assert np.allclose(decoder.feed(row[5:8]), first[5:], atol=1e-5)
    assert decoder.feed([]).shape == (0, decoder.vocabulary)
    with pytest.raises(ValueError, match="holds 32"):
        decoder.feed([0] * 25)
    with pytest.raises(ValueError, match="rewind"):
        decoder.rewind(9)


def test_greedy_stops_at_the_end_and_at_the_context() -> None:
    net = Gpt(GptSettings(**GPT2))
    free = continued(TorchDecoder(net), [1, 2], 100)
    assert len(free) == 31
    assert continued(TorchDecoder(net), [1, 2], 100, end=free[0]) == free[:1]
    assert len(continued(TorchDecoder(net), [1, 2], 4)) == 4


@pytest.mark.parametrize("tied", [True, False])
def test_hidden_matrices_are_all_linear_maps_but_the_head(tied: bool) -> None:
    net = Gpt(GptSettings(vocabulary=24, context=32, layers=2, heads=2, width=16, tied=tied))
    names = {id(value): name for name, value in net.named_parameters()}
    found = sorted(names[id(value)] for value in hidden_matrices(net))
    parts = ("attention.out", "attention.qkv", "feed_forward.down", "feed_forward.up")
    assert found == [f"blocks.{layer}.{part}.weight" for layer in range(2) for part in parts]


def test_only_matrices_decay() -> None:
    net = Gpt(GptSettings(**GPT2))
    net.token.weight.requires_grad_(False)
    shrinking, free = (group["params"] for group in decay_groups(net, 0.1))
    assert all(value.dim() == 2 for value in shrinking)
    assert all(value.dim() == 1 for value in free)
    assert len(shrinking) + len(free) == len(list(net.parameters())) - 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"heads": 3}, "multiple"),
        ({"heads": 4, "kv_heads": 3}, "evenly"),
        ({"layers": 0}, "below one"),
        ({"positions": "rotary", "head_width": 7}, "even head width"),
        ({"rope_scaling": (1.0, 2.0)}, "1 or 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        GptSettings(**(GPT2 | wrong))
