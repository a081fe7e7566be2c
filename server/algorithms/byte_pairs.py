"""One vocabulary for English and Chinese: byte-level byte-pair encoding, learned from text (Sennrich et al. 2016; Radford et
al. 2019), kept as a `tokenizer.json` of GPT-2's form, which protocol/reading/tokens.py reads on a gateway.

Every text has an encoding and comes back byte for byte; nothing is unknown. The same texts in the same order give the same
file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|end|>"
"""Ends a section, and a text in pre-training."""
PAD = "<|pad|>"
SEPARATOR = "<|write|>"
"""Between what is asked and what is written."""
SPECIAL = (END, PAD, SEPARATOR)
"""Always the first ids, in this order."""
MIN_VOCABULARY = 256 + len(SPECIAL)


def learn(texts: Iterable[str], vocabulary: int, slots: Sequence[str] = ()) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens. slots: strings that are always one token ("<peak>"), none of them part of
    another. Raises ValueError if the vocabulary cannot hold the bytes, the special tokens and the slots."""
    least = MIN_VOCABULARY + len(slots)
    if vocabulary < least:
        raise ValueError(f"a vocabulary of {vocabulary} cannot hold 256 bytes and {least - 256} fixed tokens")
    if len({*slots, *SPECIAL}) != len(slots) + len(SPECIAL):
        raise ValueError("a slot stands twice, or is one of the special tokens")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    fixed = [AddedToken(text, special=True, normalized=False) for text in (*SPECIAL, *slots)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=fixed,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without(texts, (*SPECIAL, *slots)), trainer=trainer)
    return tokenizer


def _without(texts: Iterable[str], fixed: Sequence[str]) -> Iterable[str]:
    """Texts with their fixed tokens taken out, so that no merge is learned from inside of one."""
    for text in texts:
        for one in fixed:
            text = text.replace(one, "\n")
        yield text


def read(body: bytes) -> Tokenizer:
    """A tokenizer from the bytes of a `tokenizer.json`. Raises ValueError if they are not one."""
    try:
        return Tokenizer.from_buffer(body)
    except ValueError as error:
        raise ValueError(f"not a tokenizer.json: {error}") from error


def written(tokenizer: Tokenizer) -> bytes:
    """The bytes of its `tokenizer.json`."""
    return str(tokenizer.to_str(pretty=False)).encode()


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token. Raises ValueError where the tokenizer does not have it."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token!r}: it was made for something else")
    return found


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text; fixed tokens in it are found, nothing is added."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids, fixed tokens included."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))
