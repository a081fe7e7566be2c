"""One vocabulary for two languages: nothing is unknown, slots stay whole, the same texts give the same file."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from server.algorithms import byte_pairs

TEXTS = [
    "The temperature of the bearing rose above its limit.",
    "The temperature of the motor fell below its limit.",
    "轴承温度升高，超过上限。",
    "电机温度下降，低于下限。",
] * 20
SLOTS = ("<peak>", "<machine>")


LEARNED = byte_pairs.learn(TEXTS, 400, SLOTS)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return LEARNED


def test_same_texts_give_the_same_file(tokenizer: Tokenizer) -> None:
    assert byte_pairs.written(byte_pairs.learn(TEXTS, 400, SLOTS)) == byte_pairs.written(tokenizer)


def test_fixed_tokens_have_the_first_ids_and_slots_are_one_token_each(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(one) for one in (*byte_pairs.SPECIAL, *SLOTS)] == [0, 1, 2, 3, 4]
    ids = byte_pairs.encode(tokenizer, "peak <peak> at <machine>.")
    assert ids.count(3) == 1
    assert ids.count(4) == 1
    assert byte_pairs.decode(tokenizer, ids) == "peak <peak> at <machine>."


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_every_text_comes_back(text: str) -> None:
    assert byte_pairs.decode(LEARNED, byte_pairs.encode(LEARNED, text)) == text


def test_both_languages_get_words_of_their_own(tokenizer: Tokenizer) -> None:
    for text in TEXTS[:4]:
        assert len(byte_pairs.encode(tokenizer, text)) < 0.5 * len(text.encode())


def test_file_is_read_back_and_a_broken_one_is_named(tokenizer: Tokenizer) -> None:
    again = byte_pairs.read(byte_pairs.written(tokenizer))
    assert byte_pairs.encode(again, TEXTS[0]) == byte_pairs.encode(tokenizer, TEXTS[0])
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        byte_pairs.read(b'{"model": 3}')


def test_vocabulary_too_small_for_the_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        byte_pairs.learn(TEXTS, 258)
    with pytest.raises(ValueError, match="stands twice"):
        byte_pairs.learn(TEXTS, 400, ("<peak>", "<peak>"))
