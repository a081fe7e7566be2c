"""A language model becomes one graph for prefill and decoding, and a text encoder becomes a graph, both with free sizes.

Decoder: `ids` int64 [B, T] and `past` float32 [layers, 2, B, kv_heads, P, head_width] to `logits` float32 [B, T, V] and
`present` [layers, 2, B, kv_heads, P + T, head_width]; P may be 0. Encoder: `ids`, `mask` int64 [B, T] to `tokens` float32 [B,
T, d] and `whole` float32 [B, d]."""

from __future__ import annotations

import torch
from torch import nn

from export.to_onnx import exported

FREE = torch.export.Dim.DYNAMIC


def decoder_graph(module: nn.Module, *, layers: int, kv_heads: int, head_width: int) -> bytes:
    """The graph's bytes of a module called with (ids, past)."""
    ids = torch.zeros((2, 5), dtype=torch.int64)
    past = torch.zeros((layers, 2, 2, kv_heads, 3, head_width))
    return exported(
        module, (ids, past), ({0: FREE, 1: FREE}, {2: FREE, 4: FREE}), ["ids", "past"], ["logits", "present"]
    )


def encoder_graph(module: nn.Module) -> bytes:
    """The graph's bytes of a module called with (ids, mask)."""
    ids = torch.zeros((2, 5), dtype=torch.int64)
    free = {0: FREE, 1: FREE}
    return exported(module, (ids, torch.ones_like(ids)), (free, free), ["ids", "mask"], ["tokens", "whole"])
