"""A causal language model of the GPT-2 or Llama family, in one graph: token ids and a memory in, logits and a longer memory
out.

Radford et al. 2019 (GPT-2: pre-norm block, learned positions, GELU, tied head) is the default; by settings Su et al. 2021
(rotary positions), Zhang & Sennrich 2019 (RMSNorm), Shazeer 2020 (SwiGLU) and Ainslie et al. 2023 (grouped-query attention),
which together are the Llama block (Touvron et al. 2023). `server/checkpoints.py` maps the names to Hugging Face's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from protocol.writing.decoder import Decoder
from server.algorithms.units import Units, blocks, columns, rows_and_bias


@dataclass(frozen=True)
class GptSettings:
    """Sizes and options. kv_heads, head_width, inner: None for as many as heads, width / heads, 4 * width.
    bias: on every linear map; qkv_bias: on the query, key and value maps (None: as `bias`).
    rope_scaling: (factor,) stretches all rotary periods; (factor, low, high, original context) only the long ones (Llama 3).
    Raises ValueError for sizes that do not fit together."""

    vocabulary: int = 4096
    context: int = 512
    layers: int = 4
    heads: int = 4
    width: int = 256
    kv_heads: int | None = None
    head_width: int | None = None
    inner: int | None = None
    positions: Literal["learned", "rotary"] = "learned"
    norm: Literal["layer", "rms"] = "layer"
    gate: Literal["gelu", "swiglu"] = "gelu"
    bias: bool = True
    qkv_bias: bool | None = None
    tied: bool = True
    norm_eps: float = 1e-5
    rope_base: float = 10_000.0
    rope_scaling: tuple[float, ...] = ()
    dropout: float = 0.1
    seed: int = 7

    def __post_init__(self) -> None:
        if min(self.vocabulary, self.context, self.layers, self.heads, self.width, self.kv, self.each, self.wide) < 1:
            raise ValueError(f"a size below one in {self}")
        if self.heads % self.kv:
            raise ValueError(f"{self.heads} heads cannot share {self.kv} key/value heads evenly")
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads: give head_width")
        if self.positions == "rotary" and self.each % 2:
            raise ValueError(f"rotary positions need an even head width, not {self.each}")
        if len(self.rope_scaling) not in (0, 1, 4):
            raise ValueError(f"rope_scaling has 1 or 4 numbers, not {len(self.rope_scaling)}")

    @property
    def kv(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def each(self) -> int:
        """Width of a head."""
        return self.width // self.heads if self.head_width is None else self.head_width

    @property
    def wide(self) -> int:
        """Width inside the feed-forward part."""
        return 4 * self.width if self.inner is None else self.inner


class RmsNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in float32 whatever the precision around it."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        seen = x.float()
        return (seen * torch.rsqrt(seen.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Causal attention; `kv` heads of keys and values serve `heads` heads of queries."""

    def __init__(self, s: GptSettings) -> None:
        super().__init__()
        self.heads, self.kv, self.each, self.dropout = s.heads, s.kv, s.each, s.dropout
        bias = s.bias if s.qkv_bias is None else s.qkv_bias
        self.qkv = nn.Linear(s.width, (s.heads + 2 * s.kv) * s.each, bias=bias)
        self.out = nn.Linear(s.heads * s.each, s.width, bias=s.bias)

    def forward(
        self, x: Tensor, past: Tensor | None, turn: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, width], past [2, B, kv, P, each], turn [2, T, each], mask [T, P + T] (None: causal, nothing past)."""
        batch, steps, _ = x.shape
        parts = self.qkv(x).view(batch, steps, self.heads + 2 * self.kv, self.each).transpose(1, 2)
        q, k, v = parts.split([self.heads, self.kv, self.kv], dim=1)  # [B, heads or kv, T, each]
        if turn is not None:
            q, k = turned(q, turn), turned(k, turn)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        present = torch.stack([k, v])  # [2, B, kv, P + T, each]
        if self.heads != self.kv:
            k, v = (part.repeat_interleave(self.heads // self.kv, dim=1) for part in (k, v))
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=mask is None)
        out: Tensor = self.out(seen.transpose(1, 2).reshape(batch, steps, self.heads * self.each))
        return out, present


class FeedForward(nn.Module):
    """GELU (tanh form, as GPT-2 has it) or SwiGLU, whose gate and value are the two halves of `up`."""

    def __init__(self, s: GptSettings) -> None:
        super().__init__()
        self.gated = s.gate == "swiglu"
        self.up = nn.Linear(s.width, s.wide * (2 if self.gated else 1), bias=s.bias)
        self.down = nn.Linear(s.wide, s.width, bias=s.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            gate, value = self.up(x).chunk(2, dim=-1)
            answer: Tensor = self.down(functional.silu(gate) * value)
        else:
            answer = self.down(functional.gelu(self.up(x), approximate="tanh"))
        return answer


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, s: GptSettings) -> None:
        super().__init__()
        self.norm_1, self.attention = _norm(s), Attention(s)
        self.norm_2, self.feed_forward = _norm(s), FeedForward(s)
        self.drop = nn.Dropout(s.dropout)

    def forward(
        self, x: Tensor, past: Tensor | None, turn: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        seen, present = self.attention(self.norm_1(x), past, turn, mask)
        x = x + self.drop(seen)
        return x + self.drop(self.feed_forward(self.norm_2(x))), present


class Gpt(nn.Module):
    """(ids int64 [B, T], past [layers, 2, B, kv, P, each] or None) -> (logits [B, T, V], present [layers, 2, B, kv, P + T,
    each]). P + T must not exceed the context; who feeds it checks that."""

    turns: Tensor

    def __init__(self, settings: GptSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.token = nn.Embedding(s.vocabulary, s.width)
        self.place = nn.Embedding(s.context, s.width) if s.positions == "learned" else None
        self.drop = nn.Dropout(s.dropout)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.layers))
        self.norm = _norm(s)
        self.head = None if s.tied else nn.Linear(s.width, s.vocabulary, bias=False)
        turns = rotary_turns(s) if s.positions == "rotary" else torch.zeros(0)
        self.register_buffer("turns", turns, persistent=False)
        self._start(torch.Generator().manual_seed(s.seed))

    def forward(self, ids: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        before = 0 if past is None else past.shape[4]
        at = torch.arange(before, before + ids.shape[1], device=ids.device)
        mask = None if past is None else torch.arange(before + ids.shape[1], device=ids.device)[None, :] <= at[:, None]
        x = self.token(ids)
        if self.place is not None:
            x = x + self.place(at)
        x = self.drop(x)
        turn = None if self.place is not None else self.turns[:, at]
        presents = []
        for i, block in enumerate(self.blocks):
            x, present = block(x, None if past is None else past[i], turn, mask)
            presents.append(present)
        weight = self.token.weight if self.head is None else self.head.weight
        return functional.linear(self.norm(x), weight), torch.stack(presents)

    def _start(self, random: torch.Generator) -> None:
        """GPT-2's start: normal with deviation 0.02, smaller where a block adds to the stream."""
        for name, value in self.named_parameters():
            if value.dim() >= 2:
                adds = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
                deviation = 0.02 / math.sqrt(2 * self.settings.layers) if adds else 0.02
                nn.init.normal_(value, std=deviation, generator=random)
            elif name.endswith("bias"):
                nn.init.zeros_(value)


def rotary_turns(s: GptSettings) -> Tensor:
    """cos and sin [2, context, each] of each place and pair; the two halves of a head are the pairs."""
    rates = s.rope_base ** -(torch.arange(0, s.each, 2, dtype=torch.float32) / s.each)  # [each / 2]
    if s.rope_scaling:
        factor = s.rope_scaling[0]
        share = torch.zeros_like(rates)
        if len(s.rope_scaling) == 4:  # short periods stay, long ones are stretched, between them a mixture
            _, low, high, original = s.rope_scaling
            share = ((original * rates / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        rates = share * rates + (1 - share) * rates / factor
    angles = torch.arange(s.context, dtype=torch.float32)[:, None] * rates[None, :]
    return torch.stack([angles.cos(), angles.sin()]).repeat(1, 1, 2)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotates the pairs of x [B, heads, T, each] by turn [2, T, each]."""
    first, second = x.chunk(2, dim=-1)
    return (x * turn[0] + torch.cat([-second, first], dim=-1) * turn[1]).to(x.dtype)


def decay_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for AdamW: matrices shrink, gains, biases and what does not learn do not (Loshchilov & Hutter 2019)."""
    learning = [value for value in net.parameters() if value.requires_grad]
    return [
        {"params": [value for value in learning if value.dim() >= 2], "weight_decay": weight_decay},
        {"params": [value for value in learning if value.dim() < 2], "weight_decay": 0.0},
    ]


def hidden_matrices(net: nn.Module) -> list[Tensor]:
    """Weights of the linear maps between layers, which Muon may learn: neither what reads tokens nor what answers them."""
    outer = {id(part.weight) for part in net.modules() if isinstance(part, nn.Embedding)}
    linear = [(name, part) for name, part in net.named_modules() if isinstance(part, nn.Linear)]
    return [
        part.weight
        for name, part in linear
        if part.weight.requires_grad and id(part.weight) not in outer and name.rpartition(".")[2] != "head"
    ]


def units(net: Gpt) -> list[Units]:
    """The groups of heads (those that share a key and a value) and the inner units of each block."""
    s, found = net.settings, list[Units]()
    group = s.heads // s.kv * s.each  # of queries
    keys = s.heads * s.each
    read = blocks(s.kv, group, 0)
    written = np.concatenate([read, blocks(s.kv, s.each, keys, keys + s.kv * s.each)], axis=1)
    inner = blocks(s.wide, 1, 0)
    up = blocks(s.wide, 1, 0, s.wide) if s.gate == "swiglu" else inner
    qkv_bias = s.bias if s.qkv_bias is None else s.qkv_bias
    for number in range(s.layers):
        attention, forward = f"blocks.{number}.attention", f"blocks.{number}.feed_forward"
        found += [
            Units(
                f"heads {number}",
                (*rows_and_bias(f"{attention}.qkv", written, bias=qkv_bias), *columns(f"{attention}.out", read)),
            ),
            Units(
                f"inner {number}",
                (*rows_and_bias(f"{forward}.up", up, bias=s.bias), *columns(f"{forward}.down", inner)),
            ),
        ]
    return found


def with_units(settings: GptSettings, counts: Mapping[str, int]) -> GptSettings:
    """The settings of a network with so many units of each name, as `units` names them."""
    kv, shared = counts["heads 0"], settings.heads // settings.kv
    return replace(settings, heads=kv * shared, kv_heads=kv, head_width=settings.each, inner=counts["inner 0"])


class TorchDecoder:
    """A Gpt as protocol.writing.decoder.Decoder."""

    def __init__(self, net: Gpt) -> None:
        self._net = net.eval()
        s = net.settings
        self._empty = torch.zeros(s.layers, 2, 1, s.kv, 0, s.each, device=net.token.weight.device)
        self._past = self._empty

    @property
    def vocabulary(self) -> int:
        return self._net.settings.vocabulary

    @property
    def context(self) -> int:
        return self._net.settings.context

    @property
    def length(self) -> int:
        return int(self._past.shape[4])

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        if self.length + len(ids) > self.context:
            raise ValueError(f"{self.length} + {len(ids)} tokens; the model holds {self.context}")
        if not len(ids):
            return np.zeros((0, self.vocabulary), dtype=np.float32)
        with torch.inference_mode():
            given = torch.tensor([list(ids)], dtype=torch.int64, device=self._empty.device)
            logits, self._past = self._net(given, self._past)
        answer: NDArray[np.float32] = logits[0].float().cpu().numpy()
        return answer

    def rewind(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind to {length} of {self.length} tokens")
        self._past = self._past[:, :, :, :, :length]


def continued(decoder: Decoder, ids: Sequence[int], most: int, end: int | None = None) -> list[int]:
    """The likeliest next token, again and again: at most `most` of them, up to and with `end`, within the context."""
    found: list[int] = []
    given = list(ids)
    while len(found) < most and decoder.length + len(given) <= decoder.context:
        given = [int(decoder.feed(given)[-1].argmax())]
        found += given
        if given[0] == end:
            break
    return found


def _norm(s: GptSettings) -> nn.Module:
    return RmsNorm(s.width, s.norm_eps) if s.norm == "rms" else nn.LayerNorm(s.width, eps=s.norm_eps)
