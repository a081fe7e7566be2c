"""Words and pieces of words: every place of a text knows what it added, whatever stands in the text."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadBundle
from protocol.reading.words import Shape, Vocabulary, WordModel, occurrences, split, stretches
from protocol.tables import Tables
from server.algorithms.note_counts import count, vocabulary_tables, weigh, weighed
from server.algorithms.note_words import WordSettings, fit_words, packed_words, rows

TEXTS = ["pump leaks oil", "oil leak at pump seal", "motor noisy", "noise from motor bearing", "泵漏油", "电机异响"]
LABELS = np.array([0, 0, 1, 1, 0, 1])
ANY = st.text(max_size=200) | st.text("pump leaks oil 泵漏油'’ｐ１\x00🙂<b>", max_size=60)


@pytest.fixture(scope="module", name="tables")
def _tables() -> Tables:
    counts = count(TEXTS, Shape())
    weighing = weigh(counts, np.arange(len(TEXTS)), 1, 10_000, 1.0)
    tables = vocabulary_tables(counts, weighing, 1.0, 1.0)
    fitted = fit_words(weighed(counts, weighing, 1.0, 1.0), LABELS, 2, WordSettings())
    return tables | packed_words("failure", fitted)


@pytest.fixture(scope="module", name="model")
def _model(tables: Tables) -> WordModel:
    return WordModel(tables, {"failure": ["leak", "noise"]})


def test_units_stand_where_they_were_written() -> None:
    text = "P-101: Won’t start，ｐｕｍｐ泵漏油!"
    units = split(text)
    assert [text[a:b] for a, b in units.places.tolist()] == ["P", "101", "Won’t", "start", "ｐｕｍｐ", "泵", "漏", "油"]
    assert units.words == ["p", "101", "wont", "start", "pump", "泵", "漏", "油"]
    assert units.joined == [False] * 6 + [True, True]


def test_a_slip_of_the_pen_shares_features_with_what_was_meant() -> None:
    def features(text: str) -> set[str]:
        return {feature for feature, _, _ in occurrences(split(text), Shape())}

    meant = features("seized")
    assert "w%szd" in meant & features("siezed")
    assert "w%szd" not in features("sealed")
    assert "c\x02un" not in features("not run")
    assert "ct\x02r" in features("not run")
    assert {"w漏油", "w漏", "c泵漏油"} <= features("泵漏油")


@given(ANY)
def test_the_score_is_the_bias_and_what_every_unit_added(model: WordModel, text: str) -> None:
    counted = model.counted(text)
    scores = model.scores("failure", counted)
    weights = model.weights("failure", counted.ids)
    for at in range(2):
        added = counted.by_unit(counted.values * weights[:, at])
        assert added.sum() + model.bias("failure")[at] == pytest.approx(scores[at], abs=1e-9)
        told = stretches(counted.units, added)
        assert sum(amount for _, _, amount in told) == pytest.approx(added.sum(), abs=1e-9)
        assert all(0 <= start < end <= len(text) for start, end, _ in told)
    assert np.sqrt((counted.values**2).sum()) <= np.sqrt(2) + 1e-9


def test_training_and_the_gateway_weigh_a_text_alike(tables: Tables) -> None:
    counts = count([*TEXTS, "pump squeals", "泵异响"], Shape())
    learn = np.arange(len(TEXTS))
    theirs = weighed(counts, weigh(counts, learn, 1, 10_000, 1.0), 1.0, 1.0).toarray()
    ours = rows(Vocabulary(tables), [*TEXTS, "pump squeals", "泵异响"]).toarray()
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_unknown_words_are_told_nothing_but_the_bias(model: WordModel) -> None:
    near, far = model.counted("leaks"), model.counted("leaks qzzvx wqrtyv kkjjhh zxzxzx")
    gain = [float(model.scores("failure", one)[0] - model.bias("failure")[0]) for one in (near, far)]
    assert gain[0] > gain[1] > 0
    strange = model.counted("🙂🙂")
    np.testing.assert_array_equal(model.scores("failure", strange), model.bias("failure"))


@pytest.mark.parametrize("text", ["x" * 100_000, "泵" * 100_000, "a b " * 25_000, "<p>" * 30_000, "\x00" * 100_000])
def test_time_is_bounded_by_what_a_note_can_hold(model: WordModel, text: str) -> None:
    before = time.perf_counter()
    counted = model.counted(text)
    assert time.perf_counter() - before < 2.0
    assert (counted.units.places <= 4000).all()


def test_tables_that_do_not_fit_are_refused(tables: Tables) -> None:
    classes = {"failure": ["leak", "noise"]}
    for name, array in [
        ("words_vocabulary", tables["words_vocabulary"][:-3]),
        ("words_vocabulary", np.full(len(tables["words_vocabulary"]), 255, dtype=np.uint8)),
        ("words_idf", np.full(len(tables["words_idf"]), np.nan, dtype=np.float32)),
        ("words_shape", np.array([5, 2, 1, 1, 1])),
        ("words_failure_weights", np.asarray(tables["words_failure_weights"], dtype=np.int32)),
        ("words_failure_bias", np.zeros(3, dtype=np.float32)),
    ]:
        with pytest.raises(BadBundle):
            WordModel(tables | {name: array}, classes)
