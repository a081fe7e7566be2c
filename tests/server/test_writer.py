"""A writer from left reports: what it learns from, how it is judged, and that a gateway writes with it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.runtimes import load
from export.decoding import PackedDecoder
from export.to_decoder import gateway_graph
from protocol.bundles import Passport, digest, unpack
from protocol.reports import ModelRef
from protocol.writing.author import Author, LanguageModel
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.facts import LANGUAGES, Mode
from protocol.writing.frames import TITLE, read_frames, wordings
from protocol.writing.realise import Alternatives, Facts, licensed, template
from server.algorithms import byte_pairs
from server.algorithms.gpt import Gpt, GptSettings, TorchDecoder
from server.checkpoints import save_gpt
from server.evaluation_writing import Chooser, Worth
from server.left import LeftReport
from server.training import certainty
from server.training.circumstances import Candidate, Circumstances
from server.training.language import LoopSettings
from server.training.left_reports import invented, made_up, sections
from server.training.writer import WRITER, Judgement, train_writer
from server.training.writer_lessons import WriterPlan, learn_writer

WORLD = Circumstances(dataset_digest="0" * 64, dataset_rows=0, now_ms=0)
LOOP = LoopSettings(steps=60, learning_rate=4e-3, check_every=20, patience=0)
TINY = WriterPlan(
    made=24,
    vocabulary=900,
    shape=GptSettings(context=256, layers=1, heads=2, width=32, dropout=0.0),
    text_loop=replace(LOOP, steps=10, check_every=10),
    made_loop=LOOP,
    left_loop=replace(LOOP, steps=20),
    batch=8,
)


def quiet(_share: float, _text: str) -> None:
    """Nobody watches."""


def people(count: int) -> tuple[LeftReport, ...]:
    """Reports in the house style, as if people had left them; every third is held out."""
    made = [made_up(FAULT_REPORT, 900 + i, styled=True) for i in range(count)]
    return tuple(replace(report, held_out=i % 3 == 0) for i, report in enumerate(made))


@pytest.fixture(scope="module")
def candidate() -> Candidate:
    return train_writer(replace(TINY, left=people(18), texts=("The pump stands still.",) * 4), WORLD, quiet)[0]


@pytest.mark.parametrize("seed", range(30))
def test_invented_facts_license_a_title_and_something_to_say(seed: int) -> None:
    said = licensed(FAULT_REPORT, Facts(invented(FAULT_REPORT, random.Random(seed))))
    assert TITLE in said
    assert len(said) > 1


def test_made_up_reports_reach_nearly_every_clause_of_the_catalogue() -> None:
    seen: Counter[str] = Counter()
    for seed in range(150):
        seen.update(name.partition("#")[0] for name in made_up(FAULT_REPORT, seed, styled=False).clauses["en"])
    sayable = {clause.id for clause in FAULT_REPORT.clauses if clause.section != TITLE}
    assert len(sayable - seen.keys()) <= 0.05 * len(sayable)


def test_alarms_are_short_and_notices_full_in_the_house_style() -> None:
    lengths: dict[str, list[float]] = {}
    for seed in range(120):
        report = made_up(FAULT_REPORT, seed, styled=True)
        severity = str(Facts(report.facts).value("severity"))
        for name in report.clauses["en"]:
            clause = next(c for c in FAULT_REPORT.clauses if c.id == name.partition("#")[0])
            texts = [len(text) for text in wordings(clause, "en")]
            if max(texts) > min(texts):
                said = len(wordings(clause, "en")[int(name.partition("#")[2])])
                lengths.setdefault(severity, []).append((said - min(texts)) / (max(texts) - min(texts)))
            assert clause.mandatory or severity != "alarm" or len(report.clauses["en"]) < 30
    assert max(lengths["alarm"]) == 0
    assert min(lengths["notice"]) == 1


def test_the_same_seed_makes_the_same_report_and_both_languages_say_the_same_clauses() -> None:
    report = made_up(FAULT_REPORT, 5, styled=False)
    assert report == made_up(FAULT_REPORT, 5, styled=False)
    en, zh = ([name.partition("#")[0] for name in report.clauses[language]] for language in LANGUAGES)
    assert en == zh


def test_clause_that_the_facts_do_not_license_is_refused() -> None:
    report = made_up(FAULT_REPORT, 5, styled=True)
    strange = replace(report, clauses={language: [*names, "no.such#0"] for language, names in report.clauses.items()})
    with pytest.raises(KeyError, match="another catalogue"):
        sections(strange, FAULT_REPORT, "en")


def test_passport_says_how_the_choices_were_judged(candidate: Candidate) -> None:
    passport: Passport = candidate.passport
    assert (passport.slot, passport.runtime, passport.algorithm) == (WRITER, "decoder", "gpt")
    choice, mask = passport.quality
    assert choice.metric == "choice_log_likelihood"
    assert choice.split.startswith("6 reports that people left")
    assert choice.n == 12
    assert choice.model < 0
    assert (mask.reference_name, mask.lower_is_better) == ("five_gram", True)
    assert not mask.beats_reference  # a minute's learning is not enough
    assert not passport.eligible
    assert "without a mask" in passport.verdict
    for figure in passport.quality:
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low < figure.model < figure.high
    assert passport.writer is not None
    assert passport.writer.documents == ["fault_report"]


def heard(likelihood: Sequence[float]) -> Worth:
    """What a chooser made of so many reports of one language."""
    sums = np.array(likelihood)
    ours = Chooser(float(sums.mean()), 1.0, sums)
    return Worth(reports=len(sums), choices=len(sums), model=ours, rivals={}, gain={}, sure={})


def test_a_writers_interval_is_over_reports_whatever_their_languages() -> None:
    sums = np.random.default_rng(3).normal(-5.0, 1.0, 40)
    losses = np.stack([-sums, np.full(40, 4.0)], axis=1)
    one = Judgement({"fault_report": {"en": heard(sums)}}, losses, ["fault_report"] * 40)
    both = Judgement({"fault_report": {"en": heard(sums), "zh": heard(sums)}}, 2 * losses, ["fault_report"] * 40)
    assert one.ours_between() == both.ours_between() == certainty.of_mean(sums)
    assert one.perplexity_between() == both.perplexity_between()
    low, high = one.perplexity_between()
    assert low is not None
    assert high is not None
    assert one.perplexity == pytest.approx(np.exp(-sums.mean() / 4))
    assert low < one.perplexity < high


def test_a_writers_interval_is_over_documents_that_count_alike() -> None:
    drawn = np.random.default_rng(4)
    many, few = drawn.normal(-2.0, 0.1, 60), drawn.normal(-8.0, 1.0, 20)
    told = Judgement(
        {"fault_report": {"en": heard(many)}, "maintenance_plan": {"en": heard(few)}},
        np.ones((80, 2)),
        ["fault_report"] * 60 + ["maintenance_plan"] * 20,
    )
    low, high = told.ours_between()
    assert low is not None
    assert high is not None
    assert low < told.ours < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 * few.std() / np.sqrt(20), rel=0.25)
    assert told.perplexity_between() == (None, None)


def test_four_held_out_reports_tell_nothing_of_a_writers_luck() -> None:
    told = Judgement({"fault_report": {"en": heard([-1.0, -2.0, -3.0, -4.0])}}, np.ones((4, 2)), ["fault_report"] * 4)
    assert told.ours_between() == told.perplexity_between() == (None, None)


def test_gateway_proves_it_and_writes_a_report_with_it(candidate: Candidate) -> None:
    model = load(candidate.archive, digest(candidate.archive))
    assert model.decoder is not None
    assert model.tokenizer is not None
    bundle = unpack(candidate.archive)
    assert read_frames(bundle.texts["frames_fault_report.json"]) == FAULT_REPORT
    spec = bundle.passport.writer
    assert spec is not None
    words = model.tokenizer
    writer = LanguageModel(model.decoder, lambda text: words.encode(text)[0], spec, ModelRef(WRITER, "gpt", 1))
    facts = made_up(FAULT_REPORT, 77, styled=True).facts
    author = Author(writer, FAULT_REPORT, facts, lambda: 0.0)
    known = Facts(facts)
    for section, clauses in licensed(FAULT_REPORT, known).items():
        if section != TITLE:
            said = author(Alternatives(section, "en", known, clauses))
            assert said.mode is Mode.STRICT
            assert said.text
            assert template(Alternatives(section, "en", known, clauses)).text
    assert not author.fell


def test_without_peoples_reports_the_template_goes_on_writing() -> None:
    passport = train_writer(TINY, WORLD, quiet)[0].passport
    assert passport.writer is not None
    assert passport.writer.prefer == {"fault_report": False}
    assert "made-up reports in the house style" in passport.quality[0].split


def test_champion_is_judged_on_the_same_reports(candidate: Candidate) -> None:
    world = replace(WORLD, champions={WRITER: candidate.archive}, versions={WRITER: 2})
    again = train_writer(replace(TINY, left=people(18), texts=("The pump stands still.",) * 4), world, quiet)[0]
    assert again.passport.version == 2
    assert again.passport.quality[0].champion == candidate.passport.quality[0].model == again.passport.quality[0].model


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_checkpoint_that_someone_brings_becomes_a_writer(family: str, tmp_path: Path) -> None:
    tokenizer = byte_pairs.learn(["The pump stands still.", "泵停了。"] * 4, 300)
    shape = GptSettings(vocabulary=tokenizer.get_vocab_size(), context=640, layers=1, heads=2, width=32)
    if family == "llama":
        shape = replace(
            shape, kv_heads=1, positions="rotary", norm="rms", gate="swiglu", bias=False, tied=False, dropout=0.0
        )
    save_gpt(Gpt(shape), byte_pairs.written(tokenizer), tmp_path)
    plan = replace(TINY, checkpoint=tmp_path, low_rank=2, made=12, made_loop=replace(LOOP, steps=4, check_every=2))
    candidate = train_writer(plan, WORLD, quiet)[0]
    model = load(candidate.archive, digest(candidate.archive))
    assert model.tokenizer is not None
    assert len(model.tokenizer.encode("<since> <peak>")[0]) == 3
    spec = candidate.passport.writer
    assert spec is not None
    assert spec.kv_heads == (1 if family == "llama" else 2)
    assert candidate.passport.lineage.parameters["low_rank"] == "2"


def test_catalogue_longer_than_the_context_is_refused_before_anything_is_learned() -> None:
    short = replace(TINY, shape=replace(TINY.shape, context=64))
    with pytest.raises(ValueError, match="longer context"):
        train_writer(short, WORLD, quiet)


def test_a_writer_is_taught_by_a_larger_one_and_loses_half_of_its_parts() -> None:
    larger = replace(TINY.shape, width=48)
    little = replace(LOOP, steps=6, check_every=6)
    plan = replace(TINY, made=10, made_loop=little, teacher=larger, prune=0.5)
    told: list[str] = []
    learned = learn_writer(plan, lambda _share, text: told.append(text))
    settings = learned.net.settings
    assert (settings.width, settings.heads, settings.each, settings.wide) == (32, 1, 16, 64)
    assert learned.words.startswith("teacher, made reports: 6 steps")
    assert learned.words.endswith("pruned to 1 heads and 64 inner units")
    assert any("teacher made reports" in text for text in told)
    assert learned.spec.kv_heads == 1
    ids = [1, 2, 3]
    graph = PackedDecoder(gateway_graph(learned.net, learned.spec), learned.spec)
    np.testing.assert_allclose(graph.feed(ids), TorchDecoder(learned.net).feed(ids), atol=1e-3)
