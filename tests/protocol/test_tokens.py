"""The gateway reads text as `tokenizers` does: the same ids, and the characters that each stands for."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import BadBundle
from protocol.reading.tokens import MOST_BYTES, Tokenizer, tokenizer

pytest.importorskip("tokenizers")
import tokenizers as lib
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "The bearing on P-101 is hot, 85.6 °C; it's been rattling since 06:00.",
    "pump won't start, we've checked the 24V supply",
    "轴承温度高，振动 7.8 mm/s，请检查联轴器。",
    "Ölstand prüfen – naïve café ½ ² Ⅷ\r\n\ttabs  and   spaces ",
    "emoji 🔧🏭 and <peak> of <expected_high> at <b>5</b>",
] * 4


def byte_pairs(*special: str) -> lib.Tokenizer:
    made = lib.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


def word_pieces(*, lowercase: bool = True, frame: bool = True) -> lib.Tokenizer:
    made = lib.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    if frame:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return made


def framed_byte_pairs(after: processors.PostProcessor) -> lib.Tokenizer:
    """As RoBERTa's: spaces do not belong to a word's place."""
    made = byte_pairs("<s>", "</s>")
    made.post_processor = after
    return made


ROBERTAS = [
    framed_byte_pairs(processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True, add_prefix_space=False)),
    framed_byte_pairs(processors.ByteLevel(trim_offsets=True)),
]
BPE = byte_pairs("<end>", "<peak>", "<expected_high>")
PIECES = [word_pieces(), word_pieces(lowercase=False, frame=False)]
PAIRS: list[tuple[lib.Tokenizer, Tokenizer]] = [(t, tokenizer(t.to_str().encode())) for t in (BPE, *PIECES, *ROBERTAS)]
SAID = st.text(
    st.one_of(
        st.sampled_from(
            "abcdeghilnoprst ABC'.,-–—°/()[]<>0123456789½²ß İıé\t\n\r\x0b\x0c\x85\xa0\u2003\u3000轴承温度高，。🔧"
        ),
        *(
            st.characters(min_codepoint=low, max_codepoint=high, exclude_categories=["Cs", "Cn"])
            for low, high in (
                (0, 0x24F),
                (0x300, 0x52F),
                (0x2000, 0x206F),
                (0x3000, 0x303F),
                (0x4E00, 0x9FEF),
                (0x1F300, 0x1F64F),
            )
        ),
    ),
    max_size=60,
)
"""Characters that every version of Unicode since 2018 knows: the library's tables are older than Python's."""


@pytest.mark.parametrize(
    "text",
    [
        "",
        *TEXTS[:5],
        "<peak><peak>x<pea<peak>k>",
        "' 's don't 'LL we'll''s",
        "a\u0301e\u0308\u200b",
        "\ufa01度\u0378x  ",
    ],
)
@pytest.mark.parametrize("pair", PAIRS, ids=["byte pairs", "pieces", "cased", "framed", "trimmed"])
def test_sentences_are_read_as_the_library_reads_them(pair: tuple[lib.Tokenizer, Tokenizer], text: str) -> None:
    theirs, ours = pair
    wanted = theirs.encode(text)
    ids, places = ours.encode(text)
    assert ids == wanted.ids
    assert [tuple(p) for p in places.tolist()] == wanted.offsets


@settings(max_examples=400, deadline=None)
@given(text=SAID)
def test_any_text_is_read_as_the_library_reads_it(text: str) -> None:
    for theirs, ours in PAIRS:
        wanted = theirs.encode(text)
        ids, places = ours.encode(text)
        assert ids == wanted.ids
        assert [tuple(p) for p in places.tolist()] == wanted.offsets


@settings(max_examples=200, deadline=None)
@given(text=SAID)
def test_byte_pairs_lose_nothing(text: str) -> None:
    ours = PAIRS[0][1]
    assert ours.decode(ours.encode(text)[0]) == text


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "轴" * 50_000, " " * 100_000, "<peak" * 20_000, "'" * 100_000, "ab" * 50_000]
)
def test_a_hostile_text_takes_a_moment(text: str) -> None:
    began = time.perf_counter()
    for _, ours in PAIRS:
        ours.encode(text)
    assert time.perf_counter() - began < 20


def test_a_lone_surrogate_and_controls_do_no_harm() -> None:
    for _, ours in PAIRS:
        ids, places = ours.encode("a\ud800b\x00\x1f")
        assert len(ids) == len(places)
    assert PAIRS[0][1].decode(PAIRS[0][1].encode("a\ud800b")[0]) == "a\ufffdb"


def test_what_cannot_be_read_is_refused_with_the_remedy() -> None:
    told = msgspec.json.decode(BPE.to_str())
    for change in (
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"normalizer": {"type": "NFC"}},
        {"model": {"type": "Unigram", "vocab": []}},
        {"model": {"type": "BPE", "vocab": {}, "merges": []}},
    ):
        with pytest.raises(BadBundle):
            tokenizer(msgspec.json.encode(told | change))
    pieces = msgspec.json.decode(PIECES[0].to_str())
    for change in (
        {"normalizer": None},
        {"post_processor": {"type": "TemplateProcessing"}},
        {"post_processor": {"type": "BertProcessing", "cls": []}},
        {"model": pieces["model"] | {"max_input_chars_per_word": 100_000}},
        {"model": pieces["model"] | {"unk_token": "none"}},
        {"added_tokens": [{"id": 5, "content": "x", "single_word": True}]},
        {"added_tokens": [{"id": 5, "content": "x", "normalized": True}]},
    ):
        with pytest.raises(BadBundle):
            tokenizer(msgspec.json.encode(pieces | change))
    with pytest.raises(BadBundle, match="limit"):
        tokenizer(b" " * (MOST_BYTES + 1))
    for body in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(BadBundle):
            tokenizer(body)


def test_ids_are_found_by_their_tokens() -> None:
    ours = PAIRS[0][1]
    assert ours.id_of("<peak>") == BPE.token_to_id("<peak>")
    assert ours.id_of("<nothing>") is None
    assert ours.vocabulary == BPE.get_vocab_size()
