"""A vocabulary for reading notes: pieces of words (Schuster & Nakajima 2012; Devlin et al. 2019), kept as a `tokenizer.json`
of BERT's form. Letter case and accents do not count; a Chinese character is a word of its own.

The same texts give the same file, whatever their order; what the vocabulary cannot spell is one unknown token. A note that
holds "[SEP]" holds a bracket and three letters, not the token: nobody writes the special ones."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

PAD, UNKNOWN, OPEN, CLOSE, HIDDEN = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = (PAD, UNKNOWN, OPEN, CLOSE, HIDDEN)
"""Always the first ids, in this order."""
CONTINUES = "##"
"""Before a piece that does not begin a word."""


def learn(texts: Iterable[str], vocabulary: int, most_characters: int = 2000) -> Tokenizer:
    """A tokenizer of at most `vocabulary` pieces, of which at most `most_characters` are single characters, the commonest.
    Raises ValueError if that leaves no room for pieces."""
    kept = sorted(texts)
    common = [c for c, _ in sorted(_characters(kept).items(), key=lambda it: (-it[1], it[0]))[:most_characters]]
    # the trainer meets characters in an order of chance; told beforehand, their ids and all that follows are settled
    settled = [*sorted(common), *(CONTINUES + c for c in sorted(common) if _continues(c))]
    if vocabulary < len(SPECIAL) + len(settled):
        raise ValueError(
            f"a vocabulary of {vocabulary} cannot hold {len(settled)} characters: allow more, or fewer of them"
        )
    tokenizer = _around(models.WordPiece(unk_token=UNKNOWN))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[*SPECIAL, *settled],
        limit_alphabet=len(common),
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    tokenizer.train_from_iterator(kept, trainer=trainer)
    return of_vocabulary(tokenizer.get_vocab())


def of_vocabulary(ids: dict[str, int], *, lowercase: bool = True) -> Tokenizer:
    """A tokenizer of BERT's form over given pieces, the special ones among them (a `vocab.txt`, read). Raises ValueError if
    one of these is missing."""
    missing = [token for token in SPECIAL if token not in ids]
    if missing:
        raise ValueError(f"a vocabulary without {', '.join(missing)} is not BERT's")
    tokenizer = _around(models.WordPiece(vocab=ids, unk_token=UNKNOWN), lowercase=lowercase)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{OPEN} $A {CLOSE}",
        pair=f"{OPEN} $A {CLOSE} $B:1 {CLOSE}:1",
        special_tokens=[(OPEN, ids[OPEN]), (CLOSE, ids[CLOSE])],
    )
    return tokenizer


def written(tokenizer: Tokenizer) -> bytes:
    """The bytes of its `tokenizer.json`."""
    return str(tokenizer.to_str(pretty=False)).encode()


def _around(model: models.WordPiece, *, lowercase: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _characters(texts: Iterable[str]) -> Counter[str]:
    """How often each character stands in the texts, as the tokenizer will see them."""
    normalize = normalizers.BertNormalizer(lowercase=True).normalize_str
    return Counter(c for text in texts for c in normalize(text) if not c.isspace())


def _continues(character: str) -> bool:
    """Whether it may stand inside a word: not punctuation, and not a Chinese character."""
    letter = unicodedata.category(character)[0] in "LMN"
    return letter and not unicodedata.name(character, "").startswith("CJK UNIFIED")
