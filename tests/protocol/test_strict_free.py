"""Prose that a model writes freely holds no digit, no slot twice, and no slot without a fact, whatever the logits are."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocol.writing.free import alphabet, compose
from protocol.writing.strict import Budget, Encode, Limits, Pen, Pick, Stopped, Why, sampled

WORDS = ["<|end|>", " rose", " to", " fell", " from", "6", "½", "高", "。", ".", " 3rd", "<pad>", "\n"]
SLOTS = ["<peak>", "<part>", "<since>"]
PIECES = [*(word.encode() for word in WORDS), *(bytes([b]) for b in range(256)), *(slot.encode() for slot in SLOTS)]
END = 0
INSERTIONS = ["<peak>", "<part>", "[1]"]
"""<since> has no fact."""


class FixedLogits:
    """A decoder whose logits at step t are row t of a table."""

    def __init__(self, table: NDArray[np.float32]) -> None:
        self.table, self.vocabulary, self.context, self.length = table, table.shape[1], 4000, 0

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        rows = [self.table[(self.length + i) % len(self.table)] for i in range(len(ids))]
        self.length += len(ids)
        return np.array(rows)

    def rewind(self, length: int) -> None:
        self.length = length


def bytes_only(text: str) -> list[int]:
    """A foreign tokenizer: a slot is many tokens."""
    return [len(WORDS) + b for b in text.encode()]


def slots_whole(text: str) -> list[int]:
    """Our own: a slot is one token."""
    found: list[int] = []
    for part in re.split("(" + "|".join(SLOTS) + ")", text):
        found += [len(WORDS) + 256 + SLOTS.index(part)] if part in SLOTS else bytes_only(part)
    return found


def pen(table: NDArray[np.float32], limits: Limits | None = None) -> Pen:
    made = Pen(FixedLogits(table), Budget(limits or Limits(10.0, 10_000), lambda: 0.0))
    made.append([1])
    return made


def attempt(written: Pen, encode: Encode, pick: Pick) -> str | Why:
    try:
        return compose(written, alphabet(PIECES, END), encode, INSERTIONS, END, 60, pick)
    except Stopped as stopped:
        return stopped.why


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 3.0, 30.0]), st.booleans())
def test_any_logits_give_prose_without_digits_and_each_known_slot_at_most_once(
    seed: int, temperature: float, foreign: bool
) -> None:
    draw = np.random.default_rng(seed)
    table = draw.normal(0, 5, (40, len(PIECES))).astype(np.float32)
    table[:, END] += 8
    encode = bytes_only if foreign else slots_whole
    text = attempt(pen(table), encode, sampled(draw, temperature))
    if isinstance(text, Why):
        assert text in (Why.PROSE, Why.TOKENS)
        return
    counts = Counter(re.findall(r"<[^<>]*>|\[[^\[\]]*\]", text))
    assert set(counts) <= set(INSERTIONS)
    assert not counts or max(counts.values()) == 1
    bare = re.sub(r"<peak>|<part>|\[1\]", "", text)
    assert not any(unicodedata.category(c)[0] in "CN" or c in "<>[]" for c in bare)


def prefer(*rows: str | int) -> NDArray[np.float32]:
    """A table that wants these tokens one after the other, then the end."""
    ids = [PIECES.index(row.encode()) if isinstance(row, str) else row for row in rows]
    table = np.zeros((len(ids) + 1, len(PIECES)), dtype=np.float32)
    table[np.arange(len(ids)), ids] = 9.0
    table[-1, END] = 9.0
    return table


def write(table: NDArray[np.float32], most: int = 30) -> str:
    return compose(pen(table), alphabet(PIECES, END), slots_whole, INSERTIONS, END, most)


def test_what_the_model_wants_is_written_where_it_may_be() -> None:
    assert write(prefer(" rose", " to", " ", "<peak>", ".")) == "rose to <peak>."


def test_a_slot_without_a_fact_is_not_written_however_much_the_model_wants_it() -> None:
    assert "<since>" not in write(prefer(" rose", " to", "<since>", "."))


def test_a_character_put_together_from_bytes_is_judged_as_a_whole() -> None:
    full_width_seven = [len(WORDS) + b for b in "７".encode()]
    with pytest.raises(Stopped) as caught:
        write(prefer(" rose", *full_width_seven))
    assert caught.value.why is Why.PROSE
    with pytest.raises(Stopped, match="no text"):
        write(prefer(" rose", full_width_seven[0]))


def test_a_model_that_never_ends_is_ended() -> None:
    with pytest.raises(Stopped) as caught:
        write(prefer(*[" rose"] * 50), most=20)
    assert caught.value.why is Why.TOKENS


def test_a_tokenizer_of_another_size_is_refused() -> None:
    with pytest.raises(Stopped) as caught:
        compose(pen(prefer(" rose")), alphabet(PIECES[:-1], END), slots_whole, INSERTIONS, END, 30)
    assert caught.value.why is Why.TOKENIZER


def test_time_that_is_up_stops_prose() -> None:
    with pytest.raises(Stopped) as caught:
        compose(pen(prefer(" rose"), Limits(0.0, 99)), alphabet(PIECES, END), slots_whole, INSERTIONS, END, 30)
    assert caught.value.why is Why.TIME
