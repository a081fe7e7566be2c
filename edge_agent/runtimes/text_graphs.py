"""Language models on onnxruntime, and text encoders on any engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runtimes.engine import Engine, failures
from protocol.errors import BadBundle, Reason
from protocol.reading.encoder import Encoded
from protocol.reading.tokens import Tokenizer
from protocol.writing.decoder import WriterSpec

MOST_NOTE_TOKENS = 8192
MOST_MEMORY_BYTES = 1 << 30
KEPT_BINDINGS, KEPT_ROWS = 64, 8


class OnnxDecoder:
    """A `Decoder` whose memory stays inside the engine from call to call: in place where the graph was made for that
    (`export/in_place.py`), else as a longer memory from each call (`export/to_decoder.py`)."""

    def __init__(self, session: Any, spec: WriterSpec) -> None:
        self._spec, self._length = spec, 0
        self._memory = _InPlace(session, spec) if _names(session) & {"key_0"} else _Copied(session, spec)
        self._broken = failures()

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
        """Logits [len(ids), V] after each of them. Raises ValueError for none, for one that is no token, beyond the context,
        and where the graph does not run."""
        return self._fed(ids, 0)

    def feed_last(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [1, V] after the last of them; the others' are not worked out where the memory is in place."""
        return self._fed(ids, len(ids) - 1)[-1:]

    def _fed(self, ids: Sequence[int], first: int) -> NDArray[np.float32]:
        if not len(ids) or min(ids) < 0 or max(ids) >= self._spec.vocabulary:
            raise ValueError(f"{len(ids)} ids between 0 and {self.vocabulary} are needed to go on")
        if self._length + len(ids) > self._spec.context:
            raise ValueError(f"{self._length} + {len(ids)} tokens; the model holds {self.context}")
        try:
            logits: NDArray[np.float32] = self._memory.feed(ids, self._length, first)
        except self._broken as error:
            raise ValueError(f"the language model's graph does not run: {error}") from error
        self._length += len(ids)
        return logits

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` tokens."""
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot go back to {length} of {self._length} tokens")
        if length < self._length:
            self._memory.rewind(length)
            self._length = length


def _names(session: Any) -> set[str]:
    return {one.name for one in session.get_inputs()} | {one.name for one in session.get_outputs()}


class _Copied:
    """The memory is one value; each call answers a longer one."""

    def __init__(self, session: Any, spec: WriterSpec) -> None:
        import onnxruntime as ort

        if not {"ids", "past", "logits", "present"} <= _names(session):
            raise BadBundle(
                Reason.BAD_ARCHIVE,
                f"a language model maps ids and past to logits and present; the graph has {sorted(_names(session))}",
            )
        self._session, self._value = session, ort.OrtValue.ortvalue_from_numpy
        empty = (spec.layers, 2, 1, spec.kv_heads, 0, spec.head_width)
        self._past = self._value(np.zeros(empty, dtype=np.float32))

    def feed(self, ids: Sequence[int], before: int, first: int) -> NDArray[np.float32]:
        """Logits from row `first` on; all are worked out."""
        binding = self._session.io_binding()
        binding.bind_cpu_input("ids", np.array([ids], dtype=np.int64))
        binding.bind_ortvalue_input("past", self._past)
        binding.bind_output("logits", "cpu")
        binding.bind_output("present", "cpu")
        self._session.run_with_iobinding(binding)
        logits, self._past = binding.get_outputs()
        return np.asarray(logits.numpy()[0][first:], dtype=np.float32)

    def rewind(self, length: int) -> None:
        self._past = self._value(np.ascontiguousarray(self._past.numpy()[:, :, :, :, :length]))


class _InPlace:
    """The memory is a buffer of the whole context for each layer, into which the engine writes; what is beyond the length is
    never read, so that going back needs nothing. Values are bound to the engine once for each small number of new tokens."""

    def __init__(self, session: Any, spec: WriterSpec) -> None:
        import onnxruntime as ort

        self._session, self._vocabulary = session, spec.vocabulary
        self._value = ort.OrtValue.ortvalue_from_numpy  # it shares the array's memory on a processor
        shape = (1, spec.kv_heads, spec.context, spec.head_width)
        names = [f"{part}_{layer}" for layer in range(spec.layers) for part in ("key", "value")]
        told = {one.name: one.shape for one in (*session.get_inputs(), *session.get_outputs())}
        wanted = {name: list(shape) for own in names for name in (own, f"next_{own}")}
        if {name: told.get(name) for name in wanted} != wanted or f"key_{spec.layers}" in told:
            raise BadBundle(
                Reason.BAD_ARCHIVE,
                f"the passport speaks of {spec.layers} layers of memory {shape}, the graph of others",
            )
        if told["logits"][2] != spec.vocabulary:
            raise BadBundle(
                Reason.BAD_ARCHIVE, f"the graph knows {told['logits'][2]} tokens, the passport {spec.vocabulary}"
            )
        if 4 * len(names) * int(np.prod(shape)) > MOST_MEMORY_BYTES:
            raise BadBundle(
                Reason.TOO_LARGE,
                f"a memory of {spec.context} tokens takes over {MOST_MEMORY_BYTES >> 20} MiB: export a shorter context",
            )
        self._memory = {name: self._value(np.zeros(shape, dtype=np.float32)) for name in names}
        self._first, self._before = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        self._last, self._total = np.zeros(1, dtype=np.int32), np.zeros((), dtype=np.int32)
        counts = {"first": self._first, "before": self._before, "last": self._last, "total": self._total}
        self._counts = {name: self._value(array) for name, array in counts.items()}
        self._bound: dict[tuple[int, int], tuple[Any, NDArray[np.int64], NDArray[np.float32]]] = {}

    def feed(self, ids: Sequence[int], before: int, first: int) -> NDArray[np.float32]:
        """Logits from row `first` on."""
        count = len(ids)
        binding, given, logits = self._bound.get((count, first)) or self._bind(count, first)
        given[0] = ids
        self._first[0], self._before[0] = first, before
        self._last[0], self._total[()] = before + count - 1, before + count
        self._session.run_with_iobinding(binding)
        return np.array(logits[0])  # the bound array is written again by the next call

    def rewind(self, length: int) -> None:
        """Nothing to do: what is beyond the length is written again before it is read."""

    def _bind(self, count: int, first: int) -> tuple[Any, NDArray[np.int64], NDArray[np.float32]]:
        """Arrays ids [1, count] and logits [1, count - first, V] tied to the engine."""
        binding = self._session.io_binding()
        ids, logits = (
            np.zeros((1, count), dtype=np.int64),
            np.zeros((1, count - first, self._vocabulary), dtype=np.float32),
        )
        for name, value in {"ids": self._value(ids), **self._counts, **self._memory}.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output("logits", self._value(logits))
        for name, value in self._memory.items():
            binding.bind_ortvalue_output(f"next_{name}", value)
        bound = binding, ids, logits
        if count - first <= KEPT_ROWS and len(self._bound) < KEPT_BINDINGS:
            self._bound[count, first] = bound
        return bound


class GraphEncoder:
    """An `Encoder`: the graph maps `ids` int64 [1, T] and `mask` int64 [1, T] to `tokens` float32 [1, T, d] and `whole`
    float32 [1, d]. For an engine that takes certain lengths T only, texts are filled up with tokens that the mask hides."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, width: int, context: int) -> None:
        names = {*engine.inputs, *engine.outputs}
        if not {"ids", "mask", "tokens", "whole"} <= names:
            raise BadBundle(
                Reason.BAD_ARCHIVE, f"an encoder maps ids and mask to tokens and whole; the graph has {sorted(names)}"
            )
        self._engine, self._tokenizer = engine, tokenizer
        self._lengths = sorted(engine.lengths)
        longest = self._lengths[-1] if self._lengths else context
        self._width, self._context = width, min(context, longest, MOST_NOTE_TOKENS)
        self._vectors([tokenizer.vocabulary - 1])  # the last token that the tokenizer may give

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
        tokens, whole = self._vectors(ids)
        vector = whole[0].astype(np.float64)
        size = float(np.sqrt(vector @ vector))
        inside = places[:, 0] < places[:, 1]
        return Encoded(tokens[0][inside].astype(np.float64), places[inside], vector / size if size > 0 else vector, cut)

    def _vectors(self, ids: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """tokens [1, T, d] and whole [1, d]. Raises BadBundle where the graph does not take these tokens, or is of another
        width."""
        count = len(ids)
        row = np.zeros((1, next((n for n in self._lengths if n >= count), count)), dtype=np.int64)
        mask = np.zeros_like(row)
        row[0, :count], mask[0, :count] = ids, 1
        try:
            said = self._engine.run({"ids": row, "mask": mask})
        except BadBundle as error:
            raise BadBundle(
                Reason.BAD_ARCHIVE,
                f"the encoder does not take {count} tokens up to {max(ids)}: was it made for this tokenizer? {error.detail}",
            ) from error
        tokens, whole = said["tokens"], said["whole"]
        if tokens.shape != (*row.shape, self._width) or whole.shape != (1, self._width):
            raise BadBundle(
                Reason.BAD_ARCHIVE, f"the encoder answers {tokens.shape[2]} wide, the passport says {self._width}"
            )
        return tokens[:, :count], whole
