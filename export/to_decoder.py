"""A language model becomes one graph for prefill and decoding, and a text encoder becomes a graph, both with free sizes.

Decoder: `ids` int64 [B, T] and `past` float32 [layers, 2, B, kv_heads, P, head_width] to `logits` float32 [B, T, V] and
`present` [layers, 2, B, kv_heads, P + T, head_width]; P may be 0. Encoder: `ids`, `mask` int64 [B, T] to `tokens` float32 [B,
T, d] and `whole` float32 [B, d]. What a gateway gets of a decoder is `gateway_graph`: its memory stays in place."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from export.decoding import PackedDecoder
from export.in_place import in_place
from export.to_onnx import exported
from protocol.writing.decoder import WriterSpec

FREE = torch.export.Dim.DYNAMIC
OPSET = 23
"""The first with an Attention operator: one node for what was a dozen."""
NEAR = 1e-3
_FED = (7, 1, 1, 3)
"""Numbers of tokens that are fed to a graph to see whether it answers as the module does: prefill, steps, a few at once."""


def decoder_graph(module: nn.Module, *, layers: int, kv_heads: int, head_width: int) -> bytes:
    """The graph's bytes of a module called with (ids, past)."""
    ids = torch.zeros((2, 5), dtype=torch.int64)
    past = torch.zeros((layers, 2, 2, kv_heads, 3, head_width))
    free = {0: FREE, 1: FREE}, {2: FREE, 4: FREE}
    return exported(module, (ids, past), free, ["ids", "past"], ["logits", "present"], OPSET)


def gateway_graph(module: nn.Module, spec: WriterSpec) -> bytes:
    """A decoder's graph as a gateway runs it fastest: with its memory in place where the module's attention allows that and
    the graph then answers as the module does, else that of `decoder_graph`. Float; `quantize.py` makes it small."""
    free = decoder_graph(module, layers=spec.layers, kv_heads=spec.kv_heads, head_width=spec.head_width)
    made = in_place(free, layers=spec.layers, kv_heads=spec.kv_heads, head_width=spec.head_width, context=spec.context)
    return made if made is not None and _answers_alike(module, PackedDecoder(made, spec), spec) else free


def _answers_alike(module: nn.Module, packed: PackedDecoder, spec: WriterSpec) -> bool:
    ids = np.random.default_rng(0).integers(0, spec.vocabulary, min(sum(_FED), spec.context))
    with torch.no_grad():
        none = torch.zeros((spec.layers, 2, 1, spec.kv_heads, 0, spec.head_width))
        wanted = module.eval()(torch.from_numpy(ids)[None], none)[0][0].numpy()
    pieces = np.split(ids, np.cumsum(_FED)[:-1].clip(max=len(ids)))
    said = np.concatenate([packed.feed(piece.tolist()) for piece in pieces if len(piece)])
    return bool(np.abs(said - wanted).max() <= NEAR * max(float(np.abs(wanted).max()), 1.0))


def encoder_graph(module: nn.Module) -> bytes:
    """The graph's bytes of a module called with (ids, mask)."""
    ids = torch.zeros((2, 5), dtype=torch.int64)
    free = {0: FREE, 1: FREE}
    return exported(module, (ids, torch.ones_like(ids)), (free, free), ["ids", "mask"], ["tokens", "whole"])
