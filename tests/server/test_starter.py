"""Models to start with: from our own notes alone, sealed, and honest about what they were shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocol.bundles import Runtime, unpack
from protocol.errors import BadSettings
from protocol.reading.notes import About, Note
from protocol.reading.reader import Reader
from protocol.reports import ModelRef
from server.algorithms.bert import BertSettings
from server.algorithms.descent import Descent
from server.algorithms.gpt import GptSettings
from server.algorithms.imitation import Imitation
from server.algorithms.masking import Alignment, PreTraining
from server.algorithms.note_heads import UNTOLD, FineTuning
from server.algorithms.note_reader import ReaderSettings
from server.training.language import LoopSettings
from server.training.note_grammar import ISO_MODES
from server.training.pretraining import EncoderPlan
from server.training.simulated_notes import ISO, NotePlan, notes
from server.training.starter import (
    LICENCE,
    SOURCES,
    WRITER_SOURCES,
    StarterPlan,
    StarterReader,
    apart,
    starter_reader,
    starter_writer,
)
from server.training.starter_encoder import EncoderCourse, encoder_of, likenesses, numbered
from server.training.text_encoder import PackedEncoder
from server.training.writer_lessons import WriterPlan
from server.workbench.starting import StarterReport, starter_summary, train_starter

LITTLE = StarterPlan(
    notes=NotePlan(tuple(mode for mode in ISO_MODES if mode.name in ("Leaking", "Noise"))),
    unlabelled=120,
    labelled=48,
    judged=20,
    encoder=EncoderPlan(
        pieces=700,
        sizes=BertSettings(width=16, layers=1, heads=2, inner=32, context=32),
        pretraining=PreTraining(Descent(steps=8), batch=8),
        alignment=Alignment(Descent(steps=8), batch=8),
    ),
    heads=FineTuning(epochs=1, refit=False),
    reader=ReaderSettings(shares=(0.0,), folds=2, repeats=1),
    read_by_writer=20,
    writer=WriterPlan(
        made=16,
        vocabulary=900,
        shape=GptSettings(context=384, layers=1, heads=2, width=16),
        text_loop=LoopSettings(steps=2, check_every=2, patience=0),
        made_loop=LoopSettings(steps=2, check_every=2, patience=0),
    ),
)


@pytest.fixture(scope="module")
def made() -> StarterReader:
    return starter_reader(LITTLE, 0, lambda _share, _step: None)


def test_an_encoder_is_taught_by_a_larger_one_and_loses_half_of_its_heads_and_inner_units() -> None:
    told = list(notes(LITTLE.notes, 60, 7))
    large = BertSettings(width=32, layers=1, heads=2, inner=64, context=32)
    few = Imitation(Descent(steps=4), batch=8)
    course = EncoderCourse(LITTLE.encoder, LITTLE.heads, large, few, 0.5)
    encoder = encoder_of(told, course, lambda _share, _step: None)
    settings = encoder.net.settings
    assert (settings.width, settings.heads, settings.each, settings.inner) == (16, 1, 8, 16)
    assert encoder.vectors([told[0].text]).shape == (1, 16)
    said = course.told(settings)
    assert (said["encoder_teacher"], said["encoder_pruned"], said["encoder_dropout"]) == ("1 layers of 32", 0.5, 0.1)


def test_a_plan_is_made_smaller_for_encoder_and_writer_alike() -> None:
    plan = StarterPlan().smaller(384, 0.5)
    assert plan.teacher is not None
    assert plan.writer.teacher is not None
    assert (plan.teacher.width, plan.teacher.inner, plan.writer.teacher.width) == (384, 1536, 384)
    assert (plan.prune, plan.writer.prune) == (0.5, 0.5)
    assert StarterPlan().smaller(0, 0.0) == StarterPlan()
    for teacher, share in ((64, 0.0), (385, 0.0), (0, 1.0)):
        with pytest.raises(BadSettings):
            StarterPlan().smaller(teacher, share)


def test_the_passport_names_the_source_and_the_licence(made: StarterReader) -> None:
    passport = made.candidate.passport
    assert passport.lineage.parameters["sources"] == SOURCES
    assert passport.licence == passport.lineage.parameters["licence"] == LICENCE
    assert passport.lineage.parameters["encoder_dropout"] == "0.1"
    assert "simulated" in passport.because
    assert passport.slot == "notes.reader"
    assert passport.runtime is Runtime.READER


def test_the_bundle_reads_a_note_with_its_own_graph_and_tokenizer(made: StarterReader) -> None:
    bundle = unpack(made.candidate.archive)
    spec = bundle.passport.reader
    assert spec is not None
    run = PackedEncoder(bundle.graph, bundle.texts["tokenizer.json"], spec.context)
    reader = Reader(spec, bundle.tables, bundle.texts, run)
    read = reader.read(Note(id="n", machine="P-101", time_ms=0, text="泵密封漏油"), 0, ModelRef("notes.reader", "d"))
    assert {judged.about for judged in read.judged} <= set(About)
    assert {one.name for one in read.judged[0].classes} <= {"Leaking", "Noise", "none"}
    assert all(one.case.startswith("example-") for one in read.like)


def test_the_writer_learned_from_our_own_catalogue_and_the_template_goes_on_writing() -> None:
    passport = starter_writer(LITTLE, 0, lambda _share, _step: None).passport
    assert passport.slot == "report.writer"
    assert passport.lineage.parameters["sources"] == WRITER_SOURCES
    assert passport.writer is not None
    assert not any(passport.writer.prefer.values())
    assert "made-up" in passport.because


def test_packing_hardly_moves_the_vectors(made: StarterReader) -> None:
    assert made.kept[1] > 0.98


def test_the_figure_is_of_wordings_that_were_never_shown(made: StarterReader) -> None:
    shown, known, never = apart(ISO_MODES)
    for mode, encoder, reader, unseen in zip(ISO_MODES, shown, known, never, strict=True):
        for language in ("en", "zh"):
            parts = [set(getattr(one, language)) for one in (encoder, reader, unseen)]
            assert parts[0] < parts[1]
            assert parts[2]
            assert not parts[1] & parts[2]
            assert parts[1] | parts[2] == set(getattr(mode, language))
    assert made.unseen.notes == 20
    passport = made.candidate.passport
    assert passport.quality[0].metric == "failure_accuracy_unseen_wordings"
    assert passport.eligible == passport.verdict.startswith("Eligible")
    assert {"en", "zh", "sure", "right_where_sure"} == set(made.unseen.right["failure"])
    assert unpack(made.candidate.archive).passport == passport


def test_it_is_sure_only_where_it_was_right_on_what_it_had_not_seen(made: StarterReader) -> None:
    spec = made.candidate.passport.reader
    assert spec is not None
    for about, figures in made.unseen.right.items():
        assert figures["sure"] == 0 or spec.sure_from[about] < 1


def test_pairs_that_are_alike_share_their_mode_and_cross_languages() -> None:
    told = list(notes(ISO, 400, 7))
    groups = {name: at for at, name in enumerate(sorted({one.mode for one in told}))}
    pairs = likenesses(told, groups, 7)
    chinese = [any("一" <= c <= "鿿" for c in text) for pair in pairs for text in (pair.first, pair.second)]
    crossing = np.array(chinese[::2]) != np.array(chinese[1::2])
    assert crossing.mean() > 0.2
    assert {pair.group for pair in pairs} <= set(groups.values())


def test_what_a_note_does_not_say_is_no_label() -> None:
    told = list(notes(replace(ISO, done=0.5), 200, 7))
    labels, classes = numbered(told)
    assert classes["failure"] == 23
    assert ((labels["failure"] == UNTOLD) == np.array([not one.told for one in told])).all()
    assert (labels["event"] != UNTOLD).all()


def test_a_place_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadSettings, match="not the folder of an earlier training"):
        train_starter(tmp_path)
    with pytest.raises(BadSettings, match="more than 0"):
        train_starter(tmp_path / "new", minutes=0)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_report_in_words_says_what_the_figures_are_of() -> None:
    report = StarterReport(
        models=[],
        sources=[SOURCES, WRITER_SOURCES],
        licence=LICENCE,
        seed=7,
        seconds=61.0,
        encoder_parameters=1_900_000,
        unseen={"failure": {"en": 0.5, "zh": 0.75, "sure": 0.2, "right_where_sure": 0.9}},
        unseen_notes=600,
        packed_cosine=[0.999, 0.98],
    )
    words = starter_summary(report)
    assert "wordings that were never shown" in words
    assert "| failure | 50% | 75% | 20% | 90% |" in words
    assert "simpler than what people write" in words
