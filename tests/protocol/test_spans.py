"""Spans of a note: where its words stand, what is refused, what hostile text does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadBundle
from protocol.reading.spans import LONGEST, MOST_ENTITIES, MOST_WORDS, SpanTagger, around, features, spans, words
from protocol.tables.checked import Tables
from server.algorithms.span_tagger import SpanSettings, SpanText, fit_spans


@pytest.fixture(scope="module")
def tables() -> Tables:
    texts = [
        SpanText(["oil", "pump", "leaking"], {(0, 2): "Part", (1, 2): "Part", (2, 3): "State"}),
        SpanText(["油", "泵", "漏"], {(0, 2): "Part", (2, 3): "State"}),
    ]
    return fit_spans(texts * 4, SpanSettings(width=4, steps=40, folds=2)).tables()


def test_entities_stand_where_the_text_has_them(tables: Tables) -> None:
    text = "  Oil pump,  leaking"
    found = [(text[e.start : e.end], e.kind) for e in SpanTagger(tables).entities(text)]
    assert ("Oil pump", "Part") in found
    assert ("leaking", "State") in found


def test_chinese_characters_are_words_of_their_own(tables: Tables) -> None:
    assert [(e.start, e.end, e.kind) for e in SpanTagger(tables).entities("油泵漏")] == [
        (0, 2, "Part"),
        (2, 3, "State"),
    ]


def test_words_of_a_note() -> None:
    text = "<id> P-101 c/o 油泵!"
    assert [text[a:b] for a, b in words(text)] == ["<id>", "P-101", "c/o", "油", "泵", "!"]


def test_every_span_up_to_the_longest_is_looked_at() -> None:
    assert len(spans(6)) == sum(6 - n + 1 for n in range(1, LONGEST + 1))
    assert "t:oil pump" in set(features(["oil", "pump"], 0, 2))


def test_what_is_said_around_a_span_is_zero_where_there_is_none() -> None:
    every = spans(2)
    said = around(np.arange(3.0).reshape(3, 1) + 1, every)
    assert said.shape == (3, 9)
    assert said[every.index((0, 2)), 0] == 2.0
    assert said[every.index((0, 1)), 1] == 0.0


@pytest.mark.parametrize("text", ["", "a b " * 25_000, "\x00\u202e", "pump " * 4000, "\U0001f527" * 3000, "a-" * 9000])
def test_hostile_text_is_answered_in_bounds(tables: Tables, text: str) -> None:
    found = SpanTagger(tables).entities(text)
    assert len(found) <= MOST_ENTITIES
    assert len(words(text)) <= MOST_WORDS
    assert all(0 <= e.start < e.end <= len(text) for e in found)


@given(st.text(max_size=40))
def test_entities_lie_inside_any_text(tables: Tables, text: str) -> None:
    assert all(0 <= e.start < e.end <= len(text) and 0 <= e.probability <= 1 for e in SpanTagger(tables).entities(text))


def test_tables_that_do_not_fit_are_refused(tables: Tables) -> None:
    with pytest.raises(BadBundle, match="spans_words"):
        SpanTagger({})
    with pytest.raises(BadBundle, match="spans_dense"):
        SpanTagger(tables | {"spans_dense": np.zeros((3, 3), dtype=np.float32)})
    with pytest.raises(BadBundle, match="weights of"):
        SpanTagger(tables | {"spans_classes": np.frombuffer(b"one\n", dtype=np.uint8)})
    with pytest.raises(BadBundle, match="twice"):
        SpanTagger(tables | {"spans_words": np.frombuffer(b"a\n" * 7, dtype=np.uint8)})
