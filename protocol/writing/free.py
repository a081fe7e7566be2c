"""A language model writes a section in its own words, over slots that code fills afterwards.

What it may not write is banned token by token: digits of any script, brackets, control characters, the other special tokens;
a slot only where a fact is known for it, and only once. A slot is written whole or not at all, whether the tokenizer has one
token for it or many. What comes out is no report yet: it is prose with slots, and stands for nothing before
`protocol.writing.verify` has read it back. Nothing here makes it true."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.writing.strict import Encode, Pen, Pick, Stopped, Why, greedy

_BRACKETS = frozenset("<>[]{}‹›")


@dataclass(frozen=True, slots=True)
class Alphabet:
    """What a tokenizer's ids stand for. pieces: the bytes of each; plain: bool [V], those that prose may hold anywhere."""

    pieces: tuple[bytes, ...]
    plain: NDArray[np.bool_]


def alphabet(pieces: Sequence[bytes], end: int) -> Alphabet:
    """Judged once for a tokenizer."""
    plain = np.array([index != end and _is_plain(piece) for index, piece in enumerate(pieces)], dtype=bool)
    return Alphabet(tuple(pieces), plain)


def _is_plain(piece: bytes) -> bool:
    """Whether a token may stand in prose; halves of a character may, they are judged again once they are whole."""
    return bool(piece) and not any(_is_banned(c) for c in piece.decode(errors="ignore"))


def _is_banned(c: str) -> bool:
    return c in _BRACKETS or unicodedata.category(c)[0] in "CN"


def compose(
    pen: Pen,
    letters: Alphabet,
    encode: Encode,
    insertions: Sequence[str],
    end: int,
    most: int,
    pick: Pick | None = None,
) -> str:
    """One section's prose. insertions: slots and marks that it may hold, each once ("<peak>", "[1]"). most: tokens.
    Raises Stopped at a limit, for tokens that are no text, and where nothing was written."""
    if len(letters.pieces) != pen.decoder.vocabulary or not 0 <= end < pen.decoder.vocabulary:
        raise Stopped(
            Why.TOKENIZER, f"the tokenizer has {len(letters.pieces)} tokens, the model {pen.decoder.vocabulary}"
        )
    draft = _Draft(letters, encode, insertions, end)
    while True:
        token = _next(pen, draft.allowed(), pick)
        if token == end:
            pen.append([end])
            return draft.text()
        if len(draft.written) >= most:
            raise Stopped(Why.TOKENS, f"no end within {most} tokens: the model does not know when a section is done")
        pen.budget.spend(1)
        pen.append([token])
        draft.write(token)


class _Draft:
    """What was written, and which insertion is being written now."""

    def __init__(self, letters: Alphabet, encode: Encode, insertions: Sequence[str], end: int) -> None:
        self._letters, self._end = letters, end
        self.written: list[int] = []
        self._left = {text: _ways(text, letters, encode) for text in insertions}
        self._begun: list[tuple[str, tuple[int, ...]]] = []
        self._used: list[str] = []

    def allowed(self) -> NDArray[np.int64]:
        """Tokens that may come next."""
        if self._begun:
            return np.array(sorted({rest[0] for _, rest in self._begun}))
        may = self._letters.plain.copy()
        may[[way[0] for ways in self._left.values() for way in ways]] = True
        may[self._end] = bool(self.written)
        return np.flatnonzero(may)

    def write(self, token: int) -> None:
        self.written.append(token)
        begun = self._begun or [(text, way) for text, ways in self._left.items() for way in ways]
        going = [(text, way[1:]) for text, way in begun if way[0] == token]
        done = [text for text, rest in going if not rest]
        if done:
            del self._left[done[0]]
            self._used.append(done[0])
        self._begun = [] if done else going

    def text(self) -> str:
        """Raises Stopped where the tokens are no text, or make a character that is banned."""
        try:
            whole = b"".join(self._letters.pieces[token] for token in self.written).decode()
        except UnicodeDecodeError as error:
            raise Stopped(Why.PROSE, f"the model's tokens are no text: {error}") from error
        text = whole.strip()
        if not text:
            raise Stopped(Why.PROSE, "the model wrote nothing")
        bare = text
        for insertion in self._used:
            bare = bare.replace(insertion, "", 1)
        if any(_is_banned(c) for c in bare):
            raise Stopped(Why.PROSE, "the model put a banned character together from its bytes")
        return text


def _ways(text: str, letters: Alphabet, encode: Encode) -> list[tuple[int, ...]]:
    """Token rows of an insertion, after a blank or without one; it begins where tokens that prose may hold anyway end."""
    found = []
    for ids in (encode(text), encode(" " + text)):
        first = next((i for i, token in enumerate(ids) if not letters.plain[token]), None)
        if first is not None and tuple(ids[first:]) not in found:
            found.append(tuple(ids[first:]))
    return found


def _next(pen: Pen, allowed: NDArray[np.int64], pick: Pick | None) -> int:
    if len(allowed) == 1:
        return int(allowed[0])
    logits = pen.answer()[allowed]
    if np.isnan(logits).any():
        raise Stopped(Why.LOGITS, "the model's logits are not numbers: its file or its arithmetic is broken")
    return int(allowed[(pick or greedy)(logits)])
