"""A reader adds its parts up exactly, an encoder among them, and refuses tables that do not fit."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.bundles import unpack
from protocol.errors import BadBundle
from protocol.reading.encoder import Encoded
from protocol.reading.notes import About, Entity, Note, PastNote, ReaderSpec
from protocol.reading.reader import Reader, softmax
from protocol.reading.words import split
from protocol.reports import ModelRef
from server.algorithms.note_reader import ReaderSettings
from server.training import Circumstances
from server.training.reader import Beside, Understood, train_reader
from tests import scribbled

MODEL = ModelRef("notes.reader", "reader")
MODES = sorted(scribbled.SAID)


class Oracle:
    """An encoder that knows words of a mode by heart: a vector for each word, and of the text their sum and a frame."""

    width = len(MODES) + 2

    def encode(self, text: str) -> Encoded:
        units = split(text)
        tokens = np.zeros((len(units.words), self.width))
        for i, word in enumerate(units.words):
            for m, mode in enumerate(MODES):
                tokens[i, m] = any(word in said for said in (*scribbled.SAID[mode][0], *scribbled.SAID[mode][1]))
            tokens[i, -1] = 0.3
        if not len(tokens):
            return Encoded(tokens, units.places, np.zeros(self.width))
        whole = tokens.sum(axis=0) + 0.2 * np.eye(self.width)[-2]
        return Encoded(tokens, units.places, whole / np.sqrt(whole @ whole))


@pytest.fixture(scope="module", name="reader")
def _reader() -> Reader:
    notes = scribbled.notes(150)
    world = Circumstances("0" * 64, len(notes), 0)
    [made] = train_reader(
        notes,
        0,
        world,
        lambda _share, _step: None,
        encoder=Understood(Oracle(), b"", b"{}", 64),
        settings=ReaderSettings(folds=3, repeats=1),
        beside=Beside(entities=("state",)),
    )
    bundle = unpack(made.archive)
    assert made.passport.reader is not None
    assert made.passport.reader.width == Oracle.width
    return Reader(
        made.passport.reader,
        bundle.tables,
        bundle.texts,
        Oracle(),
        entities=lambda text: [Entity(start=0, end=min(3, len(text)), kind="state")],
        normaliser=str.upper,
    )


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=80) | st.text("seal weping oil 泵漏油 fuse hot 滤网堵了", max_size=40))
def test_the_lead_of_the_first_class_is_what_everything_added(reader: Reader, text: str) -> None:
    seen = reader.see(text)
    for about in ("failure", "urgency"):
        decided = reader.decide(about, seen)
        lead = decided.logits[decided.first] - decided.logits[decided.second]
        told = decided.baseline + decided.units.sum() + sum(decided.named.values())
        assert told == pytest.approx(lead, abs=1e-9)
        assert decided.chances.sum() == pytest.approx(1.0)


def test_an_encoder_that_knows_more_earns_its_place_and_its_words_are_named(reader: Reader) -> None:
    assert "encoder" in reader.spec.parts["failure"]
    text = "squealing at start, pls check"
    judged = reader.judged(About.FAILURE, reader.see(text))
    assert judged.classes[0].name == "noise"
    start, end = (int(at) for at in judged.words[0].because.split(":"))
    assert text[start:end] in ("squealing", "start")


def test_entities_and_the_written_out_note_travel_with_the_reading(reader: Reader) -> None:
    reading = reader.read(Note(id="n", machine="M", time_ms=0, text="fuse blown"), 5, MODEL)
    assert (reading.normalised, reading.entities[0].kind, reading.issued_ms) == ("FUSE BLOWN", "state", 5)
    assert [one.about for one in reading.judged] == [About.FAILURE, About.URGENCY]
    assert 1 <= len(reading.like) <= 5


def test_a_language_that_was_not_measured_is_never_sure(reader: Reader) -> None:
    both = reader.spec
    assert reader.may_be_sure(reader.see("密封漏油"))
    reader.spec = msgspec.structs.replace(both, languages=["en"])
    assert not reader.may_be_sure(reader.see("密封漏油"))
    assert reader.may_be_sure(reader.see("seal weeping oil"))
    reader.spec = both


def test_what_was_taught_is_known_however_strange(reader: Reader) -> None:
    strange = "zzyzx qwop"
    assert not reader.may_be_sure(reader.see(strange))
    reader.teach(PastNote(case="T-1", text=strange, said={"failure": "blocked"}, taught=True))
    judged = reader.judged(About.FAILURE, reader.see(strange))
    assert (judged.classes[0].name, judged.sure) == ("blocked", True)


def test_a_reader_without_its_encoder_or_with_wrong_tables_is_refused(reader: Reader) -> None:
    with pytest.raises(BadBundle, match="encoder of width"):
        Reader(reader.spec, {}, {})
    spec = ReaderSpec(classes={"failure": ["a", "b"]})
    with pytest.raises(BadBundle, match="missing"):
        Reader(spec, {}, {})
    np.testing.assert_allclose(softmax(np.array([[1000.0, 0.0], [0.0, 0.0]])), [[1.0, 0.0], [0.5, 0.5]])
