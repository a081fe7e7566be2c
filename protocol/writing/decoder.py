"""What writing needs of a language model, whoever runs it: onnxruntime on a gateway, torch in training, a table in a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.observations import Name


class Decoder(Protocol):
    """A causal language model with a memory of what it was fed."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens V."""
        ...

    @property
    def context(self) -> int:
        """Most tokens that it can hold."""
        ...

    @property
    def length(self) -> int:
        """Tokens fed so far."""
        ...

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Appends ids; answers logits [len(ids), V], row i for what follows ids[i]. Raises ValueError beyond `context`."""
        ...

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        ...


@runtime_checkable
class Prompt(Protocol):
    """A decoder that need not work out what nobody asks for."""

    def feed_last(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """As `Decoder.feed`, but answers the last row alone, [1, V]."""
        ...


def feeding(decoder: Decoder) -> Callable[[Sequence[int]], NDArray[np.float32]]:
    """What feeds a decoder where only what follows the last token is wanted: logits [n, V] of which the last row counts."""
    return decoder.feed_last if isinstance(decoder, Prompt) else decoder.feed


class WriterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Travels inside a language model's bundle, whose graph maps `ids` int64 [1, T] and `past` float32 [layers, 2, 1,
    kv_heads, P, head_width] to `logits` float32 [1, T, V] and `present` [layers, 2, 1, kv_heads, P + T, head_width], or has
    its memory in place (`export/in_place.py`), which is faster.

    documents: catalogues that it was taught (member `frames_DOCUMENT.json` of the bundle). end: id of the token that ends a
    section. prefer: document -> whether its choices are worth more than the first wording, measured on held-out text that
    people wrote; where not, the template writes."""

    layers: Annotated[int, msgspec.Meta(ge=1, le=200)]
    kv_heads: Annotated[int, msgspec.Meta(ge=1, le=200)]
    head_width: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    vocabulary: Annotated[int, msgspec.Meta(ge=2, le=1_000_000)]
    context: Annotated[int, msgspec.Meta(ge=8, le=1_000_000)]
    end: Annotated[int, msgspec.Meta(ge=0)]
    documents: Annotated[list[Name], msgspec.Meta(max_length=20)] = []
    prefer: Annotated[dict[Name, bool], msgspec.Meta(max_length=20)] = {}
