"""A packed language model as a gateway runs it, for measuring it where it was made: `protocol.writing.decoder.Decoder`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from protocol.writing.decoder import WriterSpec


class PackedDecoder:
    """A graph of `export.to_decoder.decoder_graph`, packed or not, on one thread."""

    def __init__(self, graph: bytes, spec: WriterSpec) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._spec = spec
        shape = (spec.layers, 2, 1, spec.kv_heads, 0, spec.head_width)
        self._past: NDArray[np.float32] = np.zeros(shape, dtype=np.float32)

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
        return int(self._past.shape[4])

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [len(ids), V]. Raises ValueError for none and beyond the context."""
        if not len(ids) or self.length + len(ids) > self.context:
            raise ValueError(f"{self.length} + {len(ids)} tokens; at least one, and the model holds {self.context}")
        given = {"ids": np.array([list(ids)], dtype=np.int64), "past": self._past}
        logits, self._past = self._session.run(["logits", "present"], given)
        return np.asarray(logits[0], dtype=np.float32)

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind to {length} of {self.length} tokens")
        self._past = np.ascontiguousarray(self._past[:, :, :, :, :length])
