"""Language models and text encoders on onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.reading.encoder import Encoded
from protocol.reading.tokens import Tokenizer
from protocol.writing.decoder import WriterSpec

MOST_NOTE_TOKENS = 8192


class OnnxDecoder:
    """A `Decoder` whose memory stays inside the engine from call to call."""

    def __init__(self, session: Any, spec: WriterSpec) -> None:
        import onnxruntime as ort

        names = {one.name for one in session.get_inputs()} | {one.name for one in session.get_outputs()}
        if not {"ids", "past", "logits", "present"} <= names:
            raise BadBundle(
                Reason.BAD_ARCHIVE,
                f"a language model maps ids and past to logits and present; the graph has {sorted(names)}",
            )
        self._session, self._spec, self._value = session, spec, ort.OrtValue.ortvalue_from_numpy
        self._length = 0
        self._past = self._value(np.zeros(self._shape(0), dtype=np.float32))

    def _shape(self, length: int) -> tuple[int, ...]:
        return self._spec.layers, 2, 1, self._spec.kv_heads, length, self._spec.head_width

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
        """Logits [len(ids), V] after each of them. Raises ValueError for none, for one that is no token, and beyond the
        context."""
        if not ids or min(ids) < 0 or max(ids) >= self.vocabulary:
            raise ValueError(f"{len(ids)} ids between 0 and {self.vocabulary} are needed to go on")
        if self._length + len(ids) > self.context:
            raise ValueError(f"{self._length} + {len(ids)} tokens; the model holds {self.context}")
        binding = self._session.io_binding()
        binding.bind_cpu_input("ids", np.array([ids], dtype=np.int64))
        binding.bind_ortvalue_input("past", self._past)
        binding.bind_output("logits", "cpu")
        binding.bind_output("present", "cpu")
        self._session.run_with_iobinding(binding)
        logits, self._past = binding.get_outputs()
        self._length += len(ids)
        return np.asarray(logits.numpy()[0], dtype=np.float32)

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot go back to {length} of {self._length} tokens")
        if length < self._length:
            self._past = self._value(np.ascontiguousarray(self._past.numpy()[:, :, :, :, :length]))
            self._length = length


class OnnxEncoder:
    """An `Encoder`: the graph maps `ids` int64 [B, T] and `mask` int64 [B, T] to `tokens` float32 [B, T, d] and `whole`
    float32 [B, d]."""

    def __init__(self, session: Any, tokenizer: Tokenizer, width: int, context: int) -> None:
        names = {one.name for one in session.get_inputs()} | {one.name for one in session.get_outputs()}
        if not {"ids", "mask", "tokens", "whole"} <= names:
            raise BadBundle(
                Reason.BAD_ARCHIVE, f"an encoder maps ids and mask to tokens and whole; the graph has {sorted(names)}"
            )
        self._session, self._tokenizer = session, tokenizer
        self._width, self._context = width, min(context, MOST_NOTE_TOKENS)

    @property
    def width(self) -> int:
        """Length d of a vector."""
        return self._width

    def encode(self, text: str) -> Encoded:
        """Vectors of a text; what is beyond the context is not read."""
        ids, places = self._tokenizer.encode(text)
        framed = places[:, 0] == places[:, 1] if len(places) else np.zeros(0, dtype=bool)
        if not len(ids) or framed.all():
            return Encoded(np.zeros((0, self._width)), np.zeros((0, 2), dtype=np.int64), np.zeros(self._width))
        cut = 0
        if len(ids) > self._context:
            closes = 1 if framed[-1] else 0
            kept = self._context - closes
            cut = len(text) - int(places[kept - 1, 1])
            ids = [*ids[:kept], *ids[len(ids) - closes :]]
            places = np.concatenate([places[:kept], places[len(places) - closes :]])
        row = np.array([ids], dtype=np.int64)
        tokens, whole = self._session.run(["tokens", "whole"], {"ids": row, "mask": np.ones_like(row)})
        if tokens.shape[2] != self._width or whole.shape[1] != self._width:
            raise BadBundle(
                Reason.BAD_ARCHIVE, f"the encoder answers {tokens.shape[2]} wide, the passport says {self._width}"
            )
        vector = whole[0].astype(np.float64)
        size = float(np.sqrt(vector @ vector))
        inside = places[:, 0] < places[:, 1]
        return Encoded(tokens[0][inside].astype(np.float64), places[inside], vector / size if size > 0 else vector, cut)
