"""Models to start with, before a plant has written anything of its own: an encoder and a reader from notes that our own
grammar made (`simulated_notes`), and a writer from reports that our own catalogue makes. Nothing here was written by anybody
else, so what is learned may travel with the product; the passport names the source. Sealed like any other model; the first
training on a plant's own notes and reports replaces them.

A sixth of the wordings of each mode is never shown, in either language: what the reader makes of those is the honest figure,
and still one of notes that the same people thought up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.bundles import Lineage, digest, unpack
from protocol.reading.notes import About
from protocol.reading.reader import Reader
from server.algorithms.bert import Bert, BertSettings
from server.algorithms.descent import Descent
from server.algorithms.masking import Alignment, PreTraining
from server.algorithms.note_heads import UNTOLD, FineTuning, finetune
from server.labelled import LabelledNote
from server.training import simulated_notes
from server.training.circumstances import Candidate, Circumstances, Progress
from server.training.note_grammar import Mode
from server.training.pretraining import EncoderPlan, TextPair, pretrained_encoder
from server.training.reader import Understood, train_reader
from server.training.simulated_notes import ISO, NotePlan, SimulatedNote, notes
from server.training.text_encoder import PackedEncoder, TextEncoder, packed
from server.training.writer import WriterPlan, train_writer

SOURCES = "notes simulated by our own grammar (server/training/note_grammar.py); no text of anybody else"
WRITER_SOURCES = (
    "reports made up from our own catalogue of clauses (protocol/writing/clauses) and " + SOURCES.partition(";")[0]
)
LICENCE = "Apache-2.0"
HELD = 6
"""One wording of so many is never shown."""
ENCODER = EncoderPlan(
    pieces=3000,
    sizes=BertSettings(width=192, layers=3, heads=4, inner=768, context=64),
    pretraining=PreTraining(Descent(steps=600, learning_rate=1e-3), batch=64),
    alignment=Alignment(Descent(steps=250, learning_rate=3e-4), batch=64),
)


@dataclass(frozen=True)
class StarterPlan:
    """unlabelled: notes that the encoder reads and is fine-tuned on. labelled: others, on which the reader is fitted on top.
    judged: of wordings that neither saw. read_by_writer: notes in full that the writer reads before reports. minutes: of the
    encoder's learning, at most; None: as many steps as the plan says, and then the same seed gives the same models on the
    same machine."""

    notes: NotePlan = ISO
    unlabelled: int = 12_000
    labelled: int = 1500
    judged: int = 600
    encoder: EncoderPlan = field(default_factory=lambda: ENCODER)
    heads: FineTuning = field(default_factory=lambda: FineTuning(epochs=2, batch=32, refit=False, check_share=0.05))
    read_by_writer: int = 2000
    writer: WriterPlan = field(default_factory=WriterPlan)
    minutes: float | None = None
    seed: int = 7


@dataclass(frozen=True)
class Unseen:
    """Share of right answers to each question on notes in wordings that were never shown, by language."""

    right: dict[str, dict[str, float]]
    notes: int


@dataclass(frozen=True)
class StarterReader:
    """The sealed reader, the float encoder that it came from, and what it makes of unseen wordings. kept: cosine of the
    packed encoder's vectors to the float one's, mean and lowest."""

    candidate: Candidate
    encoder: TextEncoder
    unseen: Unseen
    kept: tuple[float, float]


@dataclass(frozen=True)
class _Origin(Circumstances):
    """Circumstances that name the source of the text in every passport."""

    sources: str = SOURCES

    def lineage(self, seed: int, parameters: dict[str, object]) -> Lineage:
        return super().lineage(seed, parameters | {"sources": self.sources, "licence": LICENCE})


def starter_reader(plan: StarterPlan, now_ms: int, progress: Progress) -> StarterReader:
    """A reader with an encoder, from nothing but our own grammar."""
    shown, held = apart(plan.notes.modes)
    told = list(notes(replace(plan.notes, modes=shown), plan.unlabelled, plan.seed))
    encoder = starter_encoder(told, plan, lambda share, step: progress(0.7 * share, step))
    progress(0.7, "int8 for the gateway")
    graph, tokenizer = packed(encoder)
    run = PackedEncoder(graph, tokenizer, encoder.net.settings.context)
    examples = list(notes(replace(plan.notes, modes=shown), plan.labelled, plan.seed + 1))
    body = [labelled(one, number) for number, one in enumerate(examples)]
    world = _Origin(
        dataset_digest=digest(msgspec.json.encode(body)),
        dataset_rows=len(body),
        now_ms=now_ms,
        because="to start with: learned from simulated notes, which its figures are of, too",
    )
    understood = Understood(run, graph, tokenizer, encoder.net.settings.context)
    candidate = train_reader(
        body, plan.seed, world, lambda share, step: progress(0.72 + 0.26 * share, step), encoder=understood
    )[0]
    unseen = list(notes(replace(plan.notes, modes=held), plan.judged, plan.seed + 2))
    return StarterReader(candidate, encoder, judged(candidate, run, unseen), cosine(encoder, run, unseen[:200]))


def starter_writer(plan: StarterPlan, now_ms: int, progress: Progress) -> Candidate:
    """A writer of fault reports that chooses among our own clauses. The template goes on writing until people's own reports
    have shown that its choices are worth more."""
    told = notes(replace(plan.notes, slips=0.0, shorthand=0.0), plan.read_by_writer, plan.seed + 3)
    texts = tuple(f"{one.plain}. {one.fix}." if one.language == "en" else f"{one.plain}。{one.fix}。" for one in told)
    learned = replace(plan.writer, texts=texts, seed=plan.seed)
    world = _Origin(
        dataset_digest=digest(msgspec.json.encode([texts, learned.frames])),
        dataset_rows=len(texts) + learned.made,
        now_ms=now_ms,
        because="to start with: learned from made-up reports, which its figures are of, too",
        sources=WRITER_SOURCES,
    )
    return train_writer(learned, world, progress)[0]


def starter_encoder(told: Sequence[SimulatedNote], plan: StarterPlan, progress: Progress) -> TextEncoder:
    """Hidden words and what fixed what, likeness across wordings and languages, then the questions themselves."""
    groups = {name: at for at, name in enumerate(sorted({one.mode for one in told}))}
    shares = (0.65, 0.35)
    encoder = pretrained_encoder(
        [one.text for one in told],
        plan.seed,
        None if plan.minutes is None else shares[0] * plan.minutes,
        pairs=[TextPair(one.text, one.fix, groups[one.mode]) for one in told if one.told],
        likenesses=likenesses(told, groups, plan.seed),
        plan=plan.encoder,
        progress=lambda share, step: progress(shares[0] * share, step),
    )
    heads = replace(plan.heads, minutes=None if plan.minutes is None else shares[1] * plan.minutes, seed=plan.seed)
    labels, classes = numbered(told)
    fitted = finetune(
        encoder.net.bert,
        encoder.rows([one.text for one in told]),
        labels,
        classes,
        heads,
        lambda share, step: progress(shares[0] + shares[1] * share, step),
    )
    _take(encoder.net.bert, fitted.bert)
    return encoder


def likenesses(told: Sequence[SimulatedNote], groups: dict[str, int], seed: int) -> list[TextPair]:
    """Each note with itself written in full, and each that tells its mode with another of that mode, in either language."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    members: dict[str, list[SimulatedNote]] = {}
    for one in told:
        if one.told:
            members.setdefault(one.mode, []).append(one)
    found = [TextPair(one.text, one.plain, groups[one.mode]) for one in told if one.text.lower() != one.plain.lower()]
    return found + [
        TextPair(one.text, chance.choice(members[one.mode]).seen, groups[one.mode]) for one in told if one.told
    ]


def numbered(told: Sequence[SimulatedNote]) -> tuple[dict[str, NDArray[np.int64]], dict[str, int]]:
    """Each question's labels [N] (UNTOLD where a note does not say) and number of classes."""
    labels: dict[str, NDArray[np.int64]] = {}
    classes: dict[str, int] = {}
    for about in About:
        names = sorted({one.said()[about] for one in told if about in one.said()})
        if len(names) > 1:
            at = {name: number for number, name in enumerate(names)}
            labels[about] = np.array([at.get(one.said().get(about, ""), UNTOLD) for one in told], dtype=np.int64)
            classes[about] = len(names)
    return labels, classes


def labelled(one: SimulatedNote, number: int) -> LabelledNote:
    """As a reader learns from it. Its case says that nobody ever had it."""
    return LabelledNote(
        case=f"example-{number:05d}",
        time_ms=number,
        text=one.text,
        said={about.value: name for about, name in one.said().items()},
        fixed_by=[f"action:{one.action}"] if one.action else [],
        source="file",
    )


def apart(modes: Sequence[Mode]) -> tuple[tuple[Mode, ...], tuple[Mode, ...]]:
    """(modes with the wordings that are shown, modes with those that are not)."""

    def only(mode: Mode, held: bool) -> Mode:
        en, zh = (
            tuple(wording for at, wording in enumerate(side) if ((len(side) - 1 - at) % HELD == 0) is held) or side
            for side in (mode.en, mode.zh)
        )
        return replace(mode, en=en, zh=zh)

    return tuple(only(mode, held=False) for mode in modes), tuple(only(mode, held=True) for mode in modes)


def judged(candidate: Candidate, run: PackedEncoder, asked: Sequence[SimulatedNote]) -> Unseen:
    """What a sealed reader answers to notes, against what they say."""
    bundle = unpack(candidate.archive)
    spec = bundle.passport.reader
    assert spec is not None  # noqa: S101 - a reader's passport has it
    reader = Reader(spec, bundle.tables, bundle.texts, run)
    right: dict[str, dict[str, float]] = {}
    for about, names in spec.classes.items():
        for language in simulated_notes.LANGUAGES:
            mine = [one for one in asked if one.language == language and about in one.said()]
            hits = [names[reader.decide(about, reader.see(one.text)).first] == one.said()[About(about)] for one in mine]
            right.setdefault(about, {})[language] = round(float(np.mean(hits)), 4) if hits else 0.0
    return Unseen(right, len(asked))


def cosine(encoder: TextEncoder, run: PackedEncoder, asked: Sequence[SimulatedNote]) -> tuple[float, float]:
    """Of the packed encoder's vectors to the float one's: mean and lowest."""
    exact = encoder.vectors([one.text for one in asked])
    near = [float(row @ run.encode(one.text).whole) for row, one in zip(exact, asked, strict=True)]
    return round(float(np.mean(near)), 5), round(float(np.min(near)), 5)


def _take(mine: Bert, learned: Bert) -> None:
    """The fine-tuned weights; the word and the pair head stay as they were."""
    mine.load_state_dict(learned.state_dict())
