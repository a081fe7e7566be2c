"""BERT: token ids in, a vector for each token and one for the text out.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers" (post-norm layers, learned positions, a word head
tied to the embeddings and a pair head); Reimers & Gurevych 2019, "Sentence-BERT" (a text's vector is the mean of its
tokens'). Weights have the names of Hugging Face's BertForPreTraining, so that a folder of that family fits as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from server.algorithms.units import Units, blocks, columns, rows_and_bias

Rows = Sequence[Sequence[int]]
"""Token ids of texts, each with its opening and closing token."""
Float32s = NDArray[np.float32]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}


@dataclass(frozen=True)
class BertSettings:
    """width: length d of a vector; inner: of a layer's hidden vector; context: most tokens; types: kinds of segment;
    padding: id of the token that fills a batch up. head_width: None for width / heads; another where heads were taken
    out."""

    vocabulary: int = 4096
    width: int = 192
    layers: int = 4
    heads: int = 4
    inner: int = 768
    context: int = 128
    types: int = 2
    dropout: float = 0.1
    padding: int = 0
    activation: str = "gelu"
    epsilon: float = 1e-12
    head_width: int | None = None

    @property
    def each(self) -> int:
        """Width of a head."""
        return self.width // self.heads if self.head_width is None else self.head_width


class Joined(nn.Module):
    """A linear map, dropout, what went around it, and the norm of their sum."""

    def __init__(self, inputs: int, settings: BertSettings) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, settings.width)
        self.LayerNorm = nn.LayerNorm(settings.width, settings.epsilon)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        joined: Tensor = self.LayerNorm(beside + self.dropout(self.dense(x)))
        return joined


class Attention(nn.Module):
    """Every token looks at every token of its text."""

    def __init__(self, settings: BertSettings) -> None:
        super().__init__()
        width, seen = settings.width, settings.heads * settings.each
        self.heads, self.each, self.drop = settings.heads, settings.each, settings.dropout
        self.self = nn.ModuleDict({name: nn.Linear(width, seen) for name in ("query", "key", "value")})
        self.output = Joined(seen, settings)

    def forward(self, x: Tensor, veil: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (
            self.self[name](x).view(n, length, self.heads, self.each).transpose(1, 2)  # [N, heads, T, each]
            for name in ("query", "key", "value")
        )
        seen = functional.scaled_dot_product_attention(q, k, v, veil, self.drop if self.training else 0.0)
        joined: Tensor = self.output(seen.transpose(1, 2).reshape(n, length, self.heads * self.each), x)
        return joined


class Layer(nn.Module):
    """Attention, then two linear maps for each token alone."""

    def __init__(self, settings: BertSettings) -> None:
        super().__init__()
        self.attention = Attention(settings)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(settings.width, settings.inner)})
        self.output = Joined(settings.inner, settings)
        self.activation = ACTIVATIONS[settings.activation]

    def forward(self, x: Tensor, veil: Tensor) -> Tensor:
        seen = self.attention(x, veil)
        joined: Tensor = self.output(self.activation(self.intermediate["dense"](seen)), seen)
        return joined


class Layers(nn.Module):
    """One after the other."""

    def __init__(self, settings: BertSettings) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(settings) for _ in range(settings.layers))

    def forward(self, x: Tensor, veil: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, veil)
        return x


class Embeddings(nn.Module):
    """What a token is, where it stands and which segment it belongs to."""

    def __init__(self, settings: BertSettings) -> None:
        super().__init__()
        width = settings.width
        self.word_embeddings = nn.Embedding(settings.vocabulary, width, padding_idx=settings.padding)
        self.position_embeddings = nn.Embedding(settings.context, width)
        self.token_type_embeddings = nn.Embedding(settings.types, width)
        self.LayerNorm = nn.LayerNorm(width, settings.epsilon)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, ids: Tensor, types: Tensor | None) -> Tensor:
        segment = self.token_type_embeddings.weight[0] if types is None else self.token_type_embeddings(types)
        x = self.word_embeddings(ids) + segment + self.position_embeddings.weight[: ids.shape[1]]
        embedded: Tensor = self.dropout(self.LayerNorm(x))
        return embedded


class Bert(nn.Module):
    """(ids int64 [N, T], mask [N, T] with 1 where a token stands, types int64 [N, T] or None) -> vectors [N, T, d]."""

    def __init__(self, settings: BertSettings) -> None:
        super().__init__()
        self.settings = settings
        self.embeddings = Embeddings(settings)
        self.encoder = Layers(settings)
        self.pooler = nn.ModuleDict({"dense": nn.Linear(settings.width, settings.width)})

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
        x = self.embeddings(ids, types)
        veil = (1.0 - mask.to(x.dtype))[:, None, None, :] * torch.finfo(x.dtype).min  # [N, 1, 1, T]
        seen: Tensor = self.encoder(x, veil)
        return seen

    def pooled(self, tokens: Tensor) -> Tensor:
        """[N, d]: the first token's vector as the pair head reads it."""
        return torch.tanh(self.pooler["dense"](tokens[:, 0]))


class Transform(nn.Module):
    """A token's vector made ready to be told as a word."""

    def __init__(self, settings: BertSettings) -> None:
        super().__init__()
        self.dense = nn.Linear(settings.width, settings.width)
        self.LayerNorm = nn.LayerNorm(settings.width, settings.epsilon)
        self.activation = ACTIVATIONS[settings.activation]

    def forward(self, x: Tensor) -> Tensor:
        ready: Tensor = self.LayerNorm(self.activation(self.dense(x)))
        return ready


class WordHead(nn.Module):
    """Vectors [M, d] -> logits [M, V] of the words behind them."""

    def __init__(self, settings: BertSettings) -> None:
        super().__init__()
        self.transform = Transform(settings)
        self.decoder = nn.Linear(settings.width, settings.vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.transform(x))
        return logits


class BertForPreTraining(nn.Module):
    """An encoder with its two heads: which word stands behind a mask, and whether a second text follows a first."""

    def __init__(self, settings: BertSettings) -> None:
        super().__init__()
        if settings.head_width is None and settings.width % settings.heads:
            raise ValueError(f"width {settings.width} does not divide among {settings.heads} heads: choose a multiple")
        self.bert = Bert(settings)
        words, follows = WordHead(settings), nn.Linear(settings.width, 2)
        self.cls = nn.ModuleDict({"predictions": words, "seq_relationship": follows})
        spread = 0.02 * (768 / settings.width) ** 0.5
        self.apply(lambda module: _start(module, spread))
        words.decoder.weight = self.bert.embeddings.word_embeddings.weight  # one table reads and writes words

    @property
    def settings(self) -> BertSettings:
        """As the encoder has them."""
        return self.bert.settings

    def words(self, vectors: Tensor) -> Tensor:
        """Logits [M, V] of the words behind tokens' vectors [M, d]."""
        logits: Tensor = self.cls["predictions"](vectors)
        return logits

    def follows(self, tokens: Tensor) -> Tensor:
        """Logits [N, 2] of a pair's second text: 0 it follows the first, 1 it does not."""
        logits: Tensor = self.cls["seq_relationship"](self.bert.pooled(tokens))
        return logits


class EncoderForExport(nn.Module):
    """What a gateway runs: (ids int64 [N, T], mask int64 [N, T]) -> (tokens [N, T, d], texts [N, d] of unit length)."""

    def __init__(self, bert: Bert) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.bert(ids, mask)
        return tokens, whole(tokens, mask)


def whole(tokens: Tensor, mask: Tensor) -> Tensor:
    """A text's vector [N, d]: the mean of its tokens' [N, T, d], of unit length; zero where there is no token."""
    stands = mask.to(tokens.dtype)[:, :, None]
    total = (tokens * stands).sum(dim=1)
    length: Tensor = total.norm(dim=1, keepdim=True).clamp(min=1e-9)
    return total / length


def fresh(settings: BertSettings, seed: int) -> BertForPreTraining:
    """A network that has learned nothing yet; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForPreTraining(settings)


def units(bert: Bert, within: str = "") -> list[Units]:
    """The heads and the inner units of each layer. within: what stands before the encoder's parameter names."""
    s, found = bert.settings, list[Units]()
    heads, inner = blocks(s.heads, s.each, 0), blocks(s.inner, 1, 0)
    for number in range(s.layers):
        layer = f"{within}encoder.layer.{number}"
        seen = [
            part
            for name in ("query", "key", "value")
            for part in rows_and_bias(f"{layer}.attention.self.{name}", heads)
        ]
        found += [
            Units(f"heads {number}", (*seen, *columns(f"{layer}.attention.output.dense", heads))),
            Units(
                f"inner {number}",
                (*rows_and_bias(f"{layer}.intermediate.dense", inner), *columns(f"{layer}.output.dense", inner)),
            ),
        ]
    return found


def with_units(settings: BertSettings, counts: Mapping[str, int]) -> BertSettings:
    """The settings of an encoder with so many units of each name, as `units` names them."""
    return replace(settings, heads=counts["heads 0"], head_width=settings.each, inner=counts["inner 0"])


def padded(rows: Rows, settings: BertSettings) -> tuple[Tensor, Tensor]:
    """ids and mask, int64 [N, T], T the longest row's, at most the context: what is longer keeps its closing token."""
    most = settings.context
    kept = [list(row) if len(row) <= most else [*row[: most - 1], row[-1]] for row in rows]
    length = max((len(row) for row in kept), default=0) or 1
    ids = torch.full((len(kept), length), settings.padding, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(kept):
        ids[at, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[at, : len(row)] = 1
    return ids, mask


def vectors(bert: Bert, rows: Rows, batch: int = 64) -> Float32s:
    """The texts' vectors [N, d], of unit length, without dropout."""
    found = np.zeros((len(rows), bert.settings.width), dtype=np.float32)
    for at, tokens, mask in _encoded(bert, rows, batch):
        found[at] = whole(tokens, mask).numpy()
    return found


def token_vectors(bert: Bert, rows: Rows, batch: int = 64) -> list[Float32s]:
    """Of each text the vectors [T, d] of its tokens, opening and closing token included."""
    found: list[Float32s] = [np.zeros((0, bert.settings.width), dtype=np.float32)] * len(rows)
    for at, tokens, mask in _encoded(bert, rows, batch):
        for row, vectors_of, length in zip(at, tokens.numpy(), mask.sum(dim=1).tolist(), strict=True):
            found[row] = vectors_of[:length].copy()
    return found


def _encoded(bert: Bert, rows: Rows, batch: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Rows of like length together, each batch with the places of its rows."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    bert.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            at = order[start : start + batch]
            ids, mask = padded([rows[row] for row in at], bert.settings)
            yield at, bert(ids, mask), mask


def _start(module: nn.Module, spread: float) -> None:
    """Weights before any lesson: normal, by 0.02 at BERT's own width of 768, wider where there are fewer to a sum."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=spread)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
