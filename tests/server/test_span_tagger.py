"""What notes name is learned from few texts, from unlabelled ones, and from those of another scheme."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.reading.notes import Entity
from protocol.reading.spans import WordVectors
from server.algorithms.span_tagger import SpanSettings, SpanText, fit_spans, span_rows, span_text, word_vectors

PARTS = ["tilt cylinder", "oil pump", "fuel filter", "door hinge", "water tank", "drive belt"]
STATES = ["leaking", "broken", "seized", "cracked"]


def labelled(parts: list[str]) -> list[SpanText]:
    made = []
    for i, part in enumerate(parts * 4):
        state = STATES[i % 4]
        tokens = ["replace", *part.split(), state] if i % 2 else [*part.split(), state, "on", "<id>"]
        at = 1 if i % 2 else 0
        entities = {(at, at + 2): "Part", (at + 1, at + 2): "Part", (at + 2, at + 3): "State"}
        made.append(SpanText(tokens, entities | ({(0, 1): "Activity"} if i % 2 else {})))
    return made


SETTINGS = SpanSettings(width=8, steps=60, folds=2, penalty=1e-5)


def test_nested_entities_are_found_in_a_note_never_seen() -> None:
    tagger = fit_spans(labelled(PARTS[:5]), SETTINGS).tagger()
    found = tagger.spans(["replace", "drive", "hinge", "seized"])
    assert found[(1, 3)][0] == found[(2, 3)][0] == "Part"
    assert found[(0, 1)][0] == "Activity"
    assert found[(3, 4)][0] == "State"


def test_packed_tables_say_what_the_exact_weights_say() -> None:
    texts = labelled(PARTS)
    fitted = fit_spans(texts, SETTINGS, earlier=labelled(PARTS[:3]))
    plain = fit_spans(texts, SETTINGS)
    exact = plain.weights.chances(span_rows(texts[:3], plain.classes, WordVectors(plain.names, plain.vectors)))
    packed = np.vstack([plain.tagger().chances(text.tokens)[1] for text in texts[:3]])
    assert abs(exact - packed).max() < 0.03
    assert fitted.tagger().spans(texts[0].tokens).keys() == texts[0].entities.keys()


def test_words_used_alike_get_like_vectors() -> None:
    texts = [
        ["replace", thing, state] for thing in ("pump", "valve", "motor") for state in ("broken", "leaking", "bent")
    ]
    names, vectors = word_vectors(
        [*texts, *([verb, "the", "pump"] for verb in ("check", "check", "replace"))], SETTINGS
    )
    at = {name: vectors[i] for i, name in enumerate(names)}
    assert at["valve"] @ at["motor"] > at["valve"] @ at["broken"]


def test_entities_by_character_become_words() -> None:
    text = span_text(
        "P-101 oil pump leaking", [Entity(start=6, end=14, kind="Part"), Entity(start=0, end=3, kind="Tag")]
    )
    assert list(text.tokens) == ["P-101", "oil", "pump", "leaking"]
    assert text.entities == {(1, 3): "Part", (0, 1): "Tag"}


def test_nothing_labelled_is_an_error_with_its_remedy() -> None:
    with pytest.raises(ValueError, match="label some notes"):
        fit_spans([SpanText(["a"], {})], SETTINGS)
