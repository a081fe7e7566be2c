"""A packed language model as a gateway runs it, for measuring it where it was made: `protocol.writing.decoder.Decoder`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from export.parity import one_thread
from protocol.writing.decoder import WriterSpec


class PackedDecoder:
    """A graph of `export.to_decoder`, packed or not, on one thread. Its calls are plain ones, which copy the memory; a
    gateway's own runtime does not."""

    def __init__(self, graph: bytes, spec: WriterSpec) -> None:
        self._session = one_thread(graph)
        self._spec, self._length = spec, 0
        self._in_place = any(given.name == "before" for given in self._session.get_inputs())
        shape = (spec.layers, 2, 1, spec.kv_heads, 0, spec.head_width)
        self._memory: dict[str, NDArray[np.float32]] = {"past": np.zeros(shape, dtype=np.float32)}
        if self._in_place:
            names = [f"{part}_{layer}" for layer in range(spec.layers) for part in ("key", "value")]
            each = (1, spec.kv_heads, spec.context, spec.head_width)
            self._memory = {name: np.zeros(each, dtype=np.float32) for name in names}

    @property
    def vocabulary(self) -> int:
        """Number of tokens V."""
        return self._spec.vocabulary

    @property
    def context(self) -> int:
        """Most tokens that it can hold."""
        return self._spec.context

    @property
    def length(self) -> int:
        """Tokens fed so far."""
        return self._length

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [len(ids), V]. Raises ValueError for none and beyond the context."""
        total = self._length + len(ids)
        if not len(ids) or total > self.context:
            raise ValueError(f"{self._length} + {len(ids)} tokens; at least one, and the model holds {self.context}")
        given: dict[str, NDArray[np.generic]] = {"ids": np.array([list(ids)], dtype=np.int64), **self._memory}
        if self._in_place:
            given["first"], given["before"] = np.zeros(1, dtype=np.int64), np.array([self._length], dtype=np.int64)
            given["last"], given["total"] = np.array([total - 1], dtype=np.int32), np.array(total, dtype=np.int32)
        kept = [f"next_{name}" for name in self._memory] if self._in_place else ["present"]
        logits, *after = self._session.run(["logits", *kept], given)
        self._memory = dict(zip(self._memory, after, strict=True))
        self._length = total
        return np.asarray(logits[0], dtype=np.float32)

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind to {length} of {self.length} tokens")
        if not self._in_place:
            self._memory = {"past": np.ascontiguousarray(self._memory["past"][:, :, :, :, :length])}
        self._length = length
