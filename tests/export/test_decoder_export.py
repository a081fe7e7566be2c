"""A language model's graph: one for prefill and decoding, its memory in place, its weights really small."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx
import onnxruntime
import torch
from torch.nn import functional

from export.blocks import BLOCKS, GATHERED, weight_only
from export.decoding import PackedDecoder
from export.in_place import ATTENTION, NORM, in_place
from export.parity import compare_decoders, golden_decoder
from export.quantize import operators, quantize
from export.to_decoder import decoder_graph, gateway_graph
from protocol.errors import BadBundle
from protocol.writing.decoder import WriterSpec

V, W, HEADS, CONTEXT = 160, 64, 4, 32


class Small(torch.nn.Module):
    """Two layers with learned places; `kv` heads of keys and values; `apart`: queries, keys and values by maps of their own;
    `ahead`: a model that sees what comes after, which is no causal attention."""

    def __init__(self, kv: int = HEADS, *, apart: bool = False, ahead: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kv, self.apart, self.ahead = kv, apart, ahead
        self.token, self.place = torch.nn.Embedding(V, W), torch.nn.Embedding(CONTEXT, W)
        wide = (HEADS + 2 * kv) * W // HEADS
        self.maps = torch.nn.ModuleList(torch.nn.Linear(W, wide) for _ in range(2))
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(W) for _ in range(3))

    def forward(self, ids: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, steps = ids.shape
        before, each = past.shape[4], W // HEADS
        at = torch.arange(before, before + steps)
        mask = torch.arange(before + steps)[None, :] <= at[:, None] + (1 if self.ahead else 0)
        x, presents = self.token(ids) + self.place(at), []
        for i, to_heads in enumerate(self.maps):
            parts = to_heads(self.norms[i](x)).view(batch, steps, -1, each).transpose(1, 2)
            q, k, v = parts.split([HEADS, self.kv, self.kv], dim=1)
            if self.apart:
                q, k = q * 0.5, k * 2.0
            k, v = torch.cat([past[i, 0], k], dim=2), torch.cat([past[i, 1], v], dim=2)
            presents.append(torch.stack([k, v]))
            k, v = (one.repeat_interleave(HEADS // self.kv, dim=1) for one in (k, v))
            seen = functional.scaled_dot_product_attention(q, k, v, mask)
            x = x + seen.transpose(1, 2).reshape(batch, steps, W)
        return functional.linear(self.norms[2](x), self.token.weight), torch.stack(presents)


def spec(kv: int = HEADS) -> WriterSpec:
    return WriterSpec(layers=2, kv_heads=kv, head_width=W // HEADS, vocabulary=V, context=CONTEXT, end=0)


def in_torch(module: Small, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return module(torch.tensor([ids]), torch.zeros((2, 2, 1, module.kv, 0, W // HEADS)))[0][0].numpy()


@cache
def graph_of(kv: int = HEADS, *, apart: bool = False, ahead: bool = False) -> bytes:
    return gateway_graph(Small(kv, apart=apart, ahead=ahead), spec(kv))


@cache
def free_graph() -> bytes:
    return decoder_graph(Small(), layers=2, kv_heads=HEADS, head_width=W // HEADS)


IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]


@pytest.mark.parametrize(("kv", "apart"), [(HEADS, False), (2, False), (1, True)], ids=["one map", "shared", "apart"])
def test_the_memory_is_kept_in_place_and_the_answers_are_torchs(kv: int, apart: bool) -> None:
    module, graph = Small(kv, apart=apart), graph_of(kv, apart=apart)
    assert operators(graph) >= {ATTENTION, NORM}
    assert "Attention" not in operators(graph)
    decoder = PackedDecoder(graph, spec(module.kv))
    said = np.concatenate([decoder.feed(piece) for piece in (IDS[:5], IDS[5:6], IDS[6:9], IDS[9:])])
    np.testing.assert_allclose(said, in_torch(module, IDS), atol=1e-4)
    decoder.rewind(4)
    np.testing.assert_allclose(decoder.feed(IDS[4:]), said[4:], atol=1e-5)


def test_a_model_that_is_not_causal_keeps_its_own_graph() -> None:
    module, graph = Small(ahead=True), graph_of(ahead=True)
    assert ATTENTION not in operators(graph)
    free = PackedDecoder(graph, spec())
    np.testing.assert_allclose(free.feed(IDS), in_torch(module, IDS), atol=1e-4)


def test_a_graph_of_another_shape_is_left() -> None:
    assert in_place(free_graph(), layers=3, kv_heads=HEADS, head_width=W // HEADS, context=CONTEXT) is None
    encoder = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> g (float[N] x) => (float[N] y) {y = Neg(x)}'
    )
    assert in_place(encoder.SerializeToString(), layers=1, kv_heads=1, head_width=1, context=8) is None


def test_one_graph_serves_several_texts_at_once() -> None:
    module = Small()
    run = onnxruntime.InferenceSession(free_graph(), providers=["CPUExecutionProvider"])
    rows = np.array([IDS, IDS[::-1], IDS[1:] + IDS[:1]])
    past = np.zeros((2, 2, 3, HEADS, 0, W // HEADS), dtype=np.float32)
    logits, present = run.run(["logits", "present"], {"ids": rows, "past": past})
    assert present.shape == (2, 2, 3, HEADS, len(IDS), W // HEADS)
    for row, said in zip(rows, logits, strict=True):
        np.testing.assert_allclose(said, in_torch(module, row.tolist()), atol=1e-4)


def test_small_weights_are_small_near_and_agree() -> None:
    graph = graph_of()
    exact = PackedDecoder(graph, spec())
    packed = {"int8": quantize(graph), "blocks of 8": weight_only(graph, 8), "blocks of 4": weight_only(graph, 4)}
    found = {
        name: compare_decoders(exact, PackedDecoder(one, spec()), [[1, 2, 3], [7]], 20) for name, one in packed.items()
    }
    assert operators(packed["blocks of 4"]) >= {BLOCKS, GATHERED, ATTENTION}
    assert not operators(packed["blocks of 4"]) & {"MatMul", "Gather"}
    assert "MatMulInteger" in operators(packed["int8"])
    assert "MatMul" not in operators(packed["int8"])
    assert len(packed["blocks of 4"]) < len(packed["blocks of 8"]) < 0.6 * len(graph)
    assert len(packed["int8"]) < 0.6 * len(graph)
    assert found["blocks of 8"].rel_rms < 0.05 > found["int8"].rel_rms
    assert found["blocks of 4"].rel_rms < 0.4
    assert found["blocks of 8"].agreement >= 0.9
    assert found["int8"].n == 40


def test_blocks_make_no_row_depend_on_another() -> None:
    packed = PackedDecoder(weight_only(graph_of(), 8), spec())
    together = packed.feed(IDS)
    packed.rewind(0)
    np.testing.assert_allclose(np.concatenate([packed.feed([i]) for i in IDS]), together, atol=1e-4)


def test_an_embedding_that_does_not_fit_the_blocks_stays_float_and_a_matrix_never_does() -> None:
    packed = weight_only(graph_of(), 4, block=128)
    assert "Gather" in operators(packed)
    assert GATHERED not in operators(packed)
    assert "MatMul" not in operators(packed)
    no_matrix = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> g (float[N] x) => (float[N] y) {y = Neg(x)}'
    )
    with pytest.raises(BadBundle, match="no matrix"):
        weight_only(no_matrix.SerializeToString(), 4)


def test_golden_vectors_come_out_again() -> None:
    decoder = PackedDecoder(graph_of(), spec())
    inputs, outputs = golden_decoder(decoder, np.array([IDS[:4], IDS[4:8]]))
    assert outputs["logits"].shape == (2, V)
    assert np.array_equal(decoder.feed(inputs["ids"][1].tolist())[-1], outputs["logits"][1])
    with pytest.raises(ValueError, match="no prompt"):
        compare_decoders(decoder, decoder, [], 3)
