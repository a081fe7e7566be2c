"""An encoder with its tokenizer, before it is packed and after: texts in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.quantize import quantize
from export.to_decoder import encoder_graph
from protocol.reading import tokens
from protocol.reading.encoder import Encoded
from server.algorithms import bert, word_pieces
from server.algorithms.bert import BertForPreTraining, EncoderForExport, Float32s
from server.algorithms.masking import Marks
from server.algorithms.word_pieces import CONTINUES

_MARKS = (("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>"), ("[PAD]", "<pad>"), ("[UNK]", "<unk>"))
_SPACE = "Ġ"


@dataclass(frozen=True)
class TextEncoder:
    """A BERT and the tokenizer that it was taught with; a `protocol.reading.encoder.Encoder`."""

    net: BertForPreTraining
    tokenizer: Tokenizer

    @property
    def width(self) -> int:
        """Length d of a vector."""
        return self.net.settings.width

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, each with its opening and closing token; not yet cut to the context."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

    def marks(self) -> Marks:
        """Which of its tokens are no words. Raises ValueError if the tokenizer does not open, close and hide as BERT's or
        RoBERTa's do."""
        opening, closing, hidden, padding, unknown = (self._id(names) for names in _MARKS)
        pieces = self.tokenizer.get_vocab()
        spaced = any(
            piece.startswith(_SPACE) for piece in pieces
        )  # byte-level: a piece that begins a word has the space
        continues = np.zeros(self.net.settings.vocabulary, dtype=bool)
        for piece, at in pieces.items():
            continues[at] = not piece.startswith(_SPACE) if spaced else piece.startswith(CONTINUES)
        special = (opening, closing, hidden, padding, unknown)
        continues[list(special)] = False
        return Marks(opening, closing, hidden, special, continues)

    def _id(self, names: Sequence[str]) -> int:
        found = [at for name in names if (at := self.tokenizer.token_to_id(name)) is not None]
        if not found:
            raise ValueError(f"the tokenizer has none of {', '.join(names)}")
        return int(found[0])

    def vectors(self, texts: Sequence[str], batch: int = 64) -> Float32s:
        """The texts' vectors [N, d], of unit length."""
        return bert.vectors(self.net.bert, self.rows(texts), batch)

    def encode(self, text: str) -> Encoded:
        """Vectors of a text's own tokens (opening and closing left out) with their places, and of the whole."""
        return self.encoded([text])[0]

    def encoded(self, texts: Sequence[str], batch: int = 64) -> list[Encoded]:
        """As `encode`, many texts at once."""
        read = self.tokenizer.encode_batch(list(texts))
        found: list[Encoded] = []
        for text, row, vectors in zip(
            texts, read, bert.token_vectors(self.net.bert, [one.ids for one in read], batch), strict=True
        ):
            places = np.array(row.offsets, dtype=np.int64).reshape(-1, 2)
            whole = bert.whole(torch.from_numpy(vectors)[None], torch.ones(1, len(vectors)))[0].numpy()
            found.append(_of_the_text(text, vectors, whole, places))
        return found


class PackedEncoder:
    """The graph that a gateway runs, run here in the same way: what is learned on top of its vectors fits there."""

    def __init__(self, graph: bytes, tokenizer: bytes, context: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._tokenizer, self._context = tokens.tokenizer(tokenizer), context
        self._width = int(next(one for one in self._session.get_outputs() if one.name == "whole").shape[1])

    @property
    def width(self) -> int:
        """Length d of a vector."""
        return self._width

    def encode(self, text: str) -> Encoded:
        """One text at a time: an int8 graph scales its activations over the whole batch."""
        ids, places = self._tokenizer.encode(text)
        if len(ids) > self._context:
            ids = [*ids[: self._context - 1], ids[-1]]
        row = np.array([ids], dtype=np.int64)
        vectors, whole = self._session.run(["tokens", "whole"], {"ids": row, "mask": np.ones_like(row)})
        return _of_the_text(text, vectors[0], whole[0], places)


def packed(encoder: TextEncoder) -> tuple[bytes, bytes]:
    """(int8 graph, tokenizer.json) for a gateway."""
    graph = quantize(encoder_graph(EncoderForExport(encoder.net.bert)))
    return graph, word_pieces.written(encoder.tokenizer)


def _of_the_text(text: str, vectors: Float32s, whole: Float32s, places: NDArray[np.int64]) -> Encoded:
    """Of the tokens that were read (the first ones and the closing one) those that stand for characters of the text."""
    cut = 0
    if len(places) > len(vectors):
        cut = len(text) - int(places[len(vectors) - 2, 1])
        places = np.concatenate([places[: len(vectors) - 1], places[-1:]])
    own = places[:, 0] < places[:, 1]
    vector = (whole if own.any() else np.zeros_like(whole)).astype(np.float64)
    return Encoded(vectors[own].astype(np.float64), places[own], vector, cut)
