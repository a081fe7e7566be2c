"""Language models and text encoders run on a gateway as they do in torch, from the float graph to int8 and int4."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
import torch

from edge_agent.runtimes import load
from edge_agent.runtimes.engine import OnnxEngine, session
from edge_agent.runtimes.text_graphs import GraphEncoder, OnnxDecoder
from export.blocks import BLOCKS, weight_only
from export.in_place import ATTENTION
from export.quantize import operators, quantize
from export.to_decoder import decoder_graph, encoder_graph, gateway_graph
from protocol.bundles import TOKENIZER, Bundle, Golden, Lineage, Parity, Passport, Runtime, digest, pack
from protocol.errors import BadBundle
from protocol.reading.tokens import tokenizer
from protocol.writing.decoder import WriterSpec, feeding

V, W, HEADS = 300, 32, 2
SPEC = WriterSpec(layers=1, kv_heads=HEADS, head_width=W // HEADS, vocabulary=V, context=24, end=0)


class Little(torch.nn.Module):
    """One causal attention with its memory."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.token = torch.nn.Embedding(V, W)
        self.qkv, self.head = torch.nn.Linear(W, 3 * W), torch.nn.Linear(W, V)

    def forward(self, ids: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, steps = ids.shape
        x = self.token(ids)
        parts = self.qkv(x).view(batch, steps, 3 * HEADS, W // HEADS).transpose(1, 2)
        q, k, v = parts.split(HEADS, dim=1)
        k, v = torch.cat([past[0, 0], k], dim=2), torch.cat([past[0, 1], v], dim=2)
        before = past.shape[4]
        mask = torch.arange(before + steps)[None, :] <= torch.arange(before, before + steps)[:, None]
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
        return self.head(x + seen.transpose(1, 2).reshape(batch, steps, W)), torch.stack([k, v])[None]


class LittleEncoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.token, self.mix = torch.nn.Embedding(V, W), torch.nn.Linear(W, W)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.tanh(self.mix(self.token(ids)))
        weight = mask.to(x.dtype)[:, :, None]
        mean = (x * weight).sum(dim=1) / weight.sum(dim=1)
        return x, mean / mean.norm(dim=1, keepdim=True)


MODEL = Little().eval()
GRAPH = decoder_graph(MODEL, layers=1, kv_heads=HEADS, head_width=W // HEADS)
KEPT = gateway_graph(MODEL, SPEC)
FLOAT = OnnxDecoder(session(GRAPH), SPEC)
BOTH = [FLOAT, OnnxDecoder(session(KEPT), SPEC)]
TOKENS = msgspec.json.encode(
    {
        "model": {"type": "BPE", "vocab": {"a": 1, "b": 2, "ab": 3}, "merges": ["a b"]},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    }
)


def in_torch(ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits, _ = MODEL(torch.tensor([ids]), torch.zeros((1, 2, 1, HEADS, 0, W // HEADS)))
    return logits[0].numpy()


def test_a_gateway_keeps_the_memory_in_place() -> None:
    assert ATTENTION in operators(KEPT)


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.integers(0, V - 1), min_size=1, max_size=24), cut=st.data())
def test_however_tokens_are_fed_the_logits_are_torchs(ids: list[int], cut: st.DataObject) -> None:
    for decoder in BOTH:
        decoder.rewind(0)
        at, said = 0, []
        while at < len(ids):
            step = cut.draw(st.integers(1, len(ids) - at))
            said.append(decoder.feed(ids[at : at + step]))
            at += step
        assert decoder.length == len(ids)
        np.testing.assert_allclose(np.concatenate(said), in_torch(ids), atol=1e-4)


@pytest.mark.parametrize("decoder", BOTH, ids=["copied", "in place"])
def test_going_back_forgets_what_came_after(decoder: OnnxDecoder) -> None:
    decoder.rewind(0)
    decoder.feed([1, 2, 3])
    first = decoder.feed([4, 5])
    kept = first.copy()
    decoder.rewind(3)
    decoder.feed([9])
    assert np.array_equal(first, kept)
    decoder.rewind(3)
    assert np.array_equal(decoder.feed([4, 5]), first)
    with pytest.raises(ValueError, match="cannot go back"):
        decoder.rewind(6)


@pytest.mark.parametrize("decoder", BOTH, ids=["copied", "in place"])
def test_the_last_row_alone_is_the_last_of_all(decoder: OnnxDecoder) -> None:
    decoder.rewind(0)
    every = decoder.feed([1, 2, 3, 4])
    decoder.rewind(1)
    last = feeding(decoder)([2, 3, 4])
    assert last.shape == (1, V)
    np.testing.assert_allclose(last[0], every[-1], atol=1e-5)
    assert decoder.length == 4


@pytest.mark.parametrize(
    "change", [{"layers": 2}, {"head_width": 8}, {"kv_heads": 1}, {"context": 48}, {"vocabulary": V + 1}]
)
def test_a_passport_that_speaks_of_another_graph_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(BadBundle, match="passport"):
        OnnxDecoder(session(KEPT), msgspec.structs.replace(SPEC, **change))


def test_a_memory_beyond_what_a_gateway_has_is_refused() -> None:
    long = msgspec.structs.replace(SPEC, context=1_000_000, head_width=1024)
    with pytest.raises(BadBundle, match="export a shorter context"):
        OnnxDecoder(_Told(long), long)


class _Told:
    """A session that says what it would map, and holds nothing."""

    def __init__(self, spec: WriterSpec) -> None:
        shape = [1, spec.kv_heads, spec.context, spec.head_width]
        self._inputs = {"ids": [1, "T"], "key_0": shape, "value_0": shape}
        self._outputs = {"logits": [1, "T", spec.vocabulary], "next_key_0": shape, "next_value_0": shape}

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, shape=shape) for name, shape in self._inputs.items()]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, shape=shape) for name, shape in self._outputs.items()]


@pytest.mark.parametrize("ids", [[], [-1], [V], [1] * 25])
def test_what_the_model_cannot_hold_is_refused(ids: list[int]) -> None:
    for decoder in BOTH:
        decoder.rewind(0)
        with pytest.raises(ValueError, match=r"tokens|ids"):
            decoder.feed(ids)
        assert decoder.length == 0


@pytest.mark.parametrize(
    ("packed", "operator", "most"),
    [
        (quantize, "MatMulInteger", 0.1),
        (lambda graph: weight_only(graph, 8), BLOCKS, 0.1),
        (lambda graph: weight_only(graph, 4), BLOCKS, 0.5),
    ],
    ids=["int8", "blocks of 8 bits", "blocks of 4 bits"],
)
def test_a_small_graph_is_small_and_near(packed: Callable[[bytes], bytes], operator: str, most: float) -> None:
    small = packed(GRAPH)
    assert operator in operators(small)
    assert len(small) < len(GRAPH)
    near = OnnxDecoder(session(small), SPEC).feed([1, 2, 3, 4])
    assert np.abs(near - in_torch([1, 2, 3, 4])).max() < most


def sealed(**change: object) -> bytes:
    rows = np.array([[1, 2, 3], [4, 5, 6]])
    logits = np.stack([in_torch(row.tolist())[-1] for row in rows])
    passport = Passport(
        slot="report.writer",
        family="generate",
        algorithm="gpt",
        version=1,
        runtime=Runtime.DECODER,
        writer=SPEC,
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="1", seed=1, trained_ms=1),
        quality=[],
        eligible=True,
        verdict="",
        parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound=""),
        golden=Golden(atol=1e-3, rtol=1e-3),
        float_bytes=1,
        packed_bytes=1,
        latency_us=1,
        intended_use="",
        limits="",
    )
    parts = {
        "graph": GRAPH,
        "golden_inputs": {"ids": rows},
        "golden_outputs": {"logits": logits},
        "texts": {TOKENIZER: TOKENS},
    }
    return pack(Bundle(passport=passport, **(parts | change)))  # type: ignore[arg-type]


@pytest.mark.parametrize("graph", [GRAPH, KEPT], ids=["copied", "in place"])
def test_a_language_model_is_proven_before_it_serves(graph: bytes) -> None:
    archive = sealed(graph=graph)
    model = load(archive, digest(archive))
    assert model.decoder is not None
    assert model.decoder.length == 0
    assert model.tokenizer is not None
    assert model.tokenizer.encode("ab")[0] == [3]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"golden_outputs": {"logits": np.zeros((2, V), dtype=np.float32)}}, "golden_mismatch"),
        ({"texts": {}}, "bad_archive"),
        ({"texts": {TOKENIZER: TOKENS.replace(b'"ab":3', b'"ab":300')}}, "bad_archive"),
        ({"graph": b"no graph"}, "bad_archive"),
    ],
)
def test_a_language_model_that_is_not_what_it_says_is_refused(change: dict[str, object], reason: str) -> None:
    archive = sealed(**change)
    with pytest.raises(BadBundle) as refused:
        load(archive, digest(archive))
    assert refused.value.reason == reason


def test_an_encoder_and_a_tokenizer_of_another_are_refused() -> None:
    graph = OnnxEngine(encoder_graph(LittleEncoder().eval()))
    wide = tokenizer(TOKENS.replace(b'"ab":3', b'"ab":300'))
    with pytest.raises(BadBundle, match="made for this tokenizer"):
        GraphEncoder(graph, wide, W, context=3)
    with pytest.raises(BadBundle, match="the passport says 8"):
        GraphEncoder(graph, tokenizer(TOKENS), 8, context=3)


def test_an_encoder_that_meets_few_shapes_reads_the_same() -> None:
    graph = encoder_graph(LittleEncoder().eval())
    free = GraphEncoder(OnnxEngine(graph), tokenizer(TOKENS), W, context=8)
    few = GraphEncoder(OnnxEngine(graph, lengths=(8, 4)), tokenizer(TOKENS), W, context=8)
    for text in ("", "ab", "ab a b", "ab" * 20):
        one, other = free.encode(text), few.encode(text)
        np.testing.assert_allclose(one.tokens, other.tokens, atol=1e-6)
        np.testing.assert_allclose(one.whole, other.whole, atol=1e-6)
        assert one.cut == other.cut


def test_an_encoder_gives_vectors_of_what_it_read_and_says_what_it_did_not() -> None:
    encoder = GraphEncoder(OnnxEngine(encoder_graph(LittleEncoder().eval())), tokenizer(TOKENS), W, context=3)
    read = encoder.encode("ab a")
    assert read.tokens.shape == (len(read.places), W)
    assert np.linalg.norm(read.whole) == pytest.approx(1.0)
    assert read.cut == 0
    assert encoder.encode("ab" * 5).cut == 4
    empty = encoder.encode("")
    assert (empty.tokens.shape, float(np.abs(empty.whole).sum())) == ((0, W), 0.0)
