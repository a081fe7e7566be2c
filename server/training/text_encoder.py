"""An encoder with its tokenizer, before it is packed and after: texts in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export import parity
from export.bounds import ENCODER
from export.forms import AUTO, OF_WINDOWS, Choice, choose
from export.strain import strained_tokens
from export.to_decoder import encoder_graph
from export.to_tflite import SHORTEST, LiteFile, LitePart, LiteTokens, lengths_up_to, lite_part, to_tflite
from export.trials import STRAINED_ROWS, Run, Trial
from protocol.bundles import Parity
from protocol.reading import tokens
from protocol.reading.encoder import Encoded
from server.algorithms import bert, word_pieces
from server.algorithms.bert import BertForPreTraining, EncoderForExport, Float32s
from server.algorithms.masking import Marks
from server.algorithms.word_pieces import CONTINUES

_MARKS = (("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>"), ("[PAD]", "<pad>"), ("[UNK]", "<unk>"))
_SPACE = "Ġ"
MOST_COMPARED = 64
"""Texts by whose vectors the forms of a graph are judged."""


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
        self._session = parity.one_thread(graph)
        self._tokenizer, self._context = tokens.tokenizer(tokenizer), context
        self._width = int(next(one for one in self._session.get_outputs() if one.name == "whole").shape[1])

    @property
    def width(self) -> int:
        """Length d of a vector."""
        return self._width

    def encode(self, text: str) -> Encoded:
        """One text at a time: an int8 graph scales its activations over the whole batch."""
        ids, places = self._tokenizer.encode(text)
        row = np.array([_cut(ids, self._context)], dtype=np.int64)
        vectors, whole = self._session.run(["tokens", "whole"], {"ids": row, "mask": np.ones_like(row)})
        return _of_the_text(text, vectors[0], whole[0], places)


class GraphOfTokens:
    """An encoder's graph on one thread: rows of token ids to their texts' vectors [N, d], one at a time."""

    def __init__(self, graph: bytes) -> None:
        self._session = parity.one_thread(graph)

    def __call__(self, rows: Sequence[Sequence[int]]) -> Float32s:
        given = (np.array([row], dtype=np.int64) for row in rows)
        return np.concatenate([self._session.run(["whole"], {"ids": x, "mask": np.ones_like(x)})[0] for x in given])


def packed(encoder: TextEncoder, texts: Sequence[str], quantize: str = AUTO) -> tuple[Choice, bytes]:
    """(graph in the form that suits it, tokenizer.json) for a gateway. texts: held out ones, by whose vectors the forms are
    judged; quantize: as `export.forms.choose` takes it."""
    graph = encoder_graph(EncoderForExport(encoder.net.bert))
    choice = choose(graph, ENCODER, trial_of_texts(encoder, texts), wanted=quantize, tried=OF_WINDOWS)
    return choice, word_pieces.written(encoder.tokenizer)


def packed_lite(encoder: TextEncoder, texts: Sequence[str], recipe: str) -> tuple[LitePart, LiteEncoder | None]:
    """(the TFLite file that lies beside the graph, the encoder that it is) judged by the same texts."""
    part, file = lite_part(
        lambda: lite_file(encoder, recipe),
        LiteTokens,
        lambda rows: bert.vectors(encoder.net.bert, rows),
        ENCODER,
        trial_of_texts(encoder, texts),
    )
    return part, None if file is None else LiteEncoder(file, word_pieces.written(encoder.tokenizer), encoder.width)


def lite_file(encoder: TextEncoder, recipe: str) -> LiteFile:
    """The encoder as a TFLite file with a signature for each of several lengths. Raises as `to_tflite`."""
    ids = torch.ones((1, SHORTEST), dtype=torch.int32)
    return to_tflite(
        EncoderForExport(encoder.net.bert),
        {"ids": ids, "mask": torch.ones_like(ids)},
        ["tokens", "whole"],
        recipe=recipe,
        lengths=lengths_up_to(encoder.net.settings.context),
    )


class LiteEncoder:
    """A TFLite file as a gateway reads texts with it; each text is a process of its own."""

    def __init__(self, file: LiteFile, tokenizer: bytes, width: int) -> None:
        self._run, self._context = LiteTokens(file), file.lengths[-1]
        self._tokenizer, self.width = tokens.tokenizer(tokenizer), width

    def encode(self, text: str) -> Encoded:
        """Vectors of a text."""
        ids, places = self._tokenizer.encode(text)
        ((vectors, whole),) = self._run.vectors([_cut(ids, self._context)])
        return _of_the_text(text, vectors, whole[0], places)


def trial_of_texts(encoder: TextEncoder, texts: Sequence[str]) -> Trial:
    """How forms of an encoder are tried: by their nearness to the float vectors of the texts."""
    rows = [_cut(row, encoder.net.settings.context) for row in encoder.rows(texts)[:MOST_COMPARED]]
    exact = bert.vectors(encoder.net.bert, rows)

    def cost(run: Run) -> Parity:
        said = run(rows)
        near = float((said * exact).sum(axis=1).mean())  # both of unit length
        return parity.compare(exact, said, 1.0, near, lower_is_better=False, bound=ENCODER)

    few = rows[:STRAINED_ROWS]
    strained = {kind: (odd,) for kind, odd in strained_tokens(few, encoder.net.settings.vocabulary).items()}
    return Trial(load=GraphOfTokens, measure=cost, rows=(few,), strained=strained, one=(few[:1],))


def _cut(row: list[int], context: int) -> list[int]:
    return row if len(row) <= context else [*row[: context - 1], row[-1]]


def _of_the_text(text: str, vectors: Float32s, whole: Float32s, places: NDArray[np.int64]) -> Encoded:
    """Of the tokens that were read (the first ones and the closing one) those that stand for characters of the text."""
    cut = 0
    if len(places) > len(vectors):
        cut = len(text) - int(places[len(vectors) - 2, 1])
        places = np.concatenate([places[: len(vectors) - 1], places[-1:]])
    own = places[:, 0] < places[:, 1]
    vector = (whole if own.any() else np.zeros_like(whole)).astype(np.float64)
    return Encoded(vectors[own].astype(np.float64), places[own], vector, cut)
