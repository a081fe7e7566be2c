"""An encoder with its tokenizer, before it is packed: texts in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from protocol.reading.encoder import Encoded
from server.algorithms import bert
from server.algorithms.bert import BertForPreTraining, Float32s
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
        for encoding, tokens in zip(read, bert.token_vectors(self.net.bert, [e.ids for e in read], batch), strict=True):
            own = ~np.array(encoding.special_tokens_mask, dtype=bool)
            own[len(tokens) - 1 :] = False  # the last token read is the closing one
            places = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            cut = int(places[-2, 1] - places[len(tokens) - 2, 1]) if len(own) > len(tokens) else 0
            kept = own[: len(tokens)]
            whole = bert.whole(torch.from_numpy(tokens)[None], torch.ones(1, len(tokens)))[0].numpy()
            found.append(
                Encoded(tokens[kept], places[: len(tokens)][kept], whole if kept.any() else np.zeros_like(whole), cut)
            )
        return found
