"""Models to start with, before a plant has written anything of its own: an encoder and a reader from notes that our own
grammar made (`simulated_notes`), and a writer from reports that our own catalogue makes. Nothing here was written by anybody
else, so what is learned may travel with the product; the passport names the source. Sealed like any other model; the first
training on a plant's own notes and reports replaces them.

Of each mode's wordings, in either language, a sixth is never shown: what the reader makes of notes in those is the figure
that the gate looks at, and half of them say from which chance on it may be sure. Another sixth is shown to the reader and
not to the encoder, so that the reader learns how far the encoder can be relied on. All are still notes that the same people
thought up: a plant's own will be stranger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from export.bounds import READER as BOUND
from export.bundle import judge
from export.forms import AUTO
from export.prune import checked_share
from export.to_tflite import LitePart, recipe_of
from protocol.bundles import Lineage, Quality, digest, pack, unpack
from protocol.errors import BadSettings
from protocol.reading.notes import About
from protocol.reading.reader import Reader
from protocol.windows import Floats
from server.algorithms.bert import BertSettings
from server.algorithms.descent import Descent
from server.algorithms.imitation import Imitation
from server.algorithms.masking import Alignment, PreTraining
from server.algorithms.note_fusion import sure_from
from server.algorithms.note_heads import FineTuning
from server.algorithms.note_reader import Labelled, ReaderSettings
from server.labelled import LabelledNote
from server.training import certainty
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress
from server.training.note_grammar import Mode
from server.training.pretraining import EncoderPlan
from server.training.reader import Understood, train_reader
from server.training.reader_worth import linear_references
from server.training.simulated_notes import ISO, LANGUAGES, NotePlan, SimulatedNote, notes
from server.training.starter_encoder import EncoderCourse, encoder_of
from server.training.text_encoder import MOST_COMPARED, PackedEncoder, TextEncoder, packed, packed_lite
from server.training.writer import train_writer
from server.training.writer_lessons import WriterPlan

SOURCES = "notes simulated by our own grammar (server/training/note_grammar.py); no text of anybody else"
WRITER_SOURCES = (
    "reports made up from our own catalogue of clauses (protocol/writing/clauses) and " + SOURCES.partition(";")[0]
)
LICENCE = "Apache-2.0"
PARTS = 6
"""Of a mode's wordings, by turns: one never shown, one for the reader alone, the others for both."""
NEVER, READER_ONLY = 0, 3
PRECISION = 0.9
"""Share of right answers among the sure ones that is asked for."""
ENCODER = EncoderPlan(
    pieces=3000,
    sizes=BertSettings(width=192, layers=3, heads=4, inner=768, context=64),
    pretraining=PreTraining(Descent(steps=350, learning_rate=1e-3), batch=64),
    alignment=Alignment(Descent(steps=250, learning_rate=3e-4), batch=64),
)


@dataclass(frozen=True)
class StarterPlan:
    """unlabelled: notes that the encoder reads and is fine-tuned on. labelled: others, on which the reader is fitted on top.
    judged: of wordings that neither saw. read_by_writer: notes in full that the writer reads before reports. quantize: the
    form of the encoder's weights (`export.forms`). targets: "tflite" among them: its TFLite file lies beside it. teacher,
    imitation, prune: of the encoder, as `EncoderCourse`. minutes: of the encoder's learning, at most; None: as many steps as
    the plan says, and then the same seed gives the same models on the same machine."""

    notes: NotePlan = ISO
    unlabelled: int = 12_000
    labelled: int = 1500
    judged: int = 600
    encoder: EncoderPlan = field(default_factory=lambda: ENCODER)
    heads: FineTuning = field(
        default_factory=lambda: FineTuning(
            epochs=3, batch=32, refit=False, check_share=0.05, smoothing=0.1, unread=0.15
        )
    )
    teacher: BertSettings | None = None
    imitation: Imitation = field(default_factory=Imitation)
    prune: float = 0.0
    reader: ReaderSettings = field(default_factory=ReaderSettings)
    read_by_writer: int = 2000
    writer: WriterPlan = field(default_factory=WriterPlan)
    quantize: str = AUTO
    targets: tuple[str, ...] = ("onnx",)
    minutes: float | None = None
    seed: int = 7

    def smaller(self, teacher: int, prune: float) -> StarterPlan:
        """Encoder and writer taught by networks of so great a width (0: by none), and pruned by a share (0: not). Raises
        BadSettings where a teacher is not larger than its student, its width is none, or the share is none."""
        checked_share(prune)
        heads, width = self.encoder.sizes.heads, max(self.encoder.sizes.width, self.writer.shape.width)
        if teacher and (teacher <= width or teacher % heads or teacher % self.writer.shape.heads):
            raise BadSettings(f"teacher {teacher}: give a width above {width} that {heads} heads can share")
        sizes = replace(self.encoder.sizes, width=teacher, inner=4 * teacher) if teacher else None
        shape = replace(self.writer.shape, width=teacher) if teacher else None
        return replace(self, teacher=sizes, prune=prune, writer=replace(self.writer, teacher=shape, prune=prune))


@dataclass(frozen=True)
class Unseen:
    """Of notes in wordings that were never shown, to each question: the share of right answers by language ("en", "zh"), and
    of the half that did not say when it may be sure, how many it was "sure" of and "right_where_sure"."""

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
    """Circumstances that name the source of the text in every passport, and how what lies beneath was learned."""

    sources: str = SOURCES
    learned: Mapping[str, object] = field(default_factory=dict)

    def lineage(self, seed: int, parameters: dict[str, object]) -> Lineage:
        return super().lineage(seed, {**parameters, **self.learned, "sources": self.sources, "licence": LICENCE})


def starter_reader(plan: StarterPlan, now_ms: int, progress: Progress) -> StarterReader:
    """A reader with an encoder, from nothing but our own grammar."""
    recipe = recipe_of(plan.targets)
    shown, known, never = apart(plan.notes.modes)
    told = list(notes(replace(plan.notes, modes=shown), plan.unlabelled, plan.seed))
    course = EncoderCourse(
        plan.encoder, plan.heads, plan.teacher, plan.imitation, plan.prune, minutes=plan.minutes, seed=plan.seed
    )
    encoder = encoder_of(told, course, lambda share, step: progress(0.7 * share, step))
    progress(0.7, "choosing the form of its weights")
    tried = [one.text for one in notes(replace(plan.notes, modes=known), MOST_COMPARED, plan.seed + 4)]
    choice, tokenizer = packed(encoder, tried, plan.quantize)
    lite, lite_encoder = packed_lite(encoder, tried, recipe) if recipe else (LitePart(), None)
    run = PackedEncoder(choice.graph, tokenizer, encoder.net.settings.context)
    examples = list(notes(replace(plan.notes, modes=known), plan.labelled, plan.seed + 1))
    body = [labelled(one, number) for number, one in enumerate(examples)]
    world = _Origin(
        dataset_digest=digest(msgspec.json.encode(body)),
        dataset_rows=len(body),
        now_ms=now_ms,
        because="to start with: learned from simulated notes, which its figures are of, too",
        learned=course.told(encoder.net.settings),
    )
    understood = Understood(
        run,
        choice.graph,
        tokenizer,
        encoder.net.settings.context,
        forms=tuple(choice.forms),
        float_bytes=choice.float_bytes,
        packing=f"Its encoder: {choice.words}",
        refused=choice.refused,
        lite=lite,
        lite_encoder=lite_encoder,
    )
    candidate = train_reader(
        body,
        plan.seed,
        world,
        lambda share, step: progress(0.72 + 0.26 * share, step),
        encoder=understood,
        settings=plan.reader,
    )[0]
    unseen = list(notes(replace(plan.notes, modes=never), plan.judged, plan.seed + 2))
    checked, figures = gated(candidate, run, examples, unseen)
    return StarterReader(checked, encoder, figures, cosine(encoder, run, unseen[:200]))


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


def apart(modes: Sequence[Mode]) -> tuple[tuple[Mode, ...], tuple[Mode, ...], tuple[Mode, ...]]:
    """The modes with the wordings that the encoder is shown, that the reader is shown, and that neither is."""

    def only(mode: Mode, kept: set[int]) -> Mode:
        en, zh = (
            tuple(wording for at, wording in enumerate(side) if (len(side) - 1 - at) % PARTS in kept) or side
            for side in (mode.en, mode.zh)
        )
        return replace(mode, en=en, zh=zh)

    every = set(range(PARTS))
    parts = (every - {NEVER, READER_ONLY}, every - {NEVER}, {NEVER})
    shown, known, never = (tuple(only(mode, kept) for mode in modes) for kept in parts)
    return shown, known, never


def gated(
    candidate: Candidate, run: PackedEncoder, taught: Sequence[SimulatedNote], unseen: Sequence[SimulatedNote]
) -> tuple[Candidate, Unseen]:
    """The candidate with its figures on unseen wordings before all others, sealed anew; sure only where it was right there,
    too. The reference learned from the same notes."""
    bundle = unpack(candidate.archive)
    spec = bundle.passport.reader
    assert spec is not None  # noqa: S101 - a reader's passport has it
    reader = Reader(spec, bundle.tables, bundle.texts, run)
    asked = {about: _asked(reader, about, taught, unseen) for about in spec.classes}
    sure = {about: max(spec.sure_from[about], one.sure_from) for about, one in asked.items()}
    figures = {about: one.figures(sure[about]) for about, one in asked.items()}
    quality = [one.quality(about) for about, one in asked.items()]
    eligible, verdict = judge(quality[0], bundle.passport.parity, BOUND)
    first = next(iter(figures.values()))
    passport = msgspec.structs.replace(
        bundle.passport,
        reader=msgspec.structs.replace(spec, sure_from=sure),
        quality=[*quality, *bundle.passport.quality],
        eligible=eligible,
        verdict=f"{verdict} It was sure of {first['sure']:.0%} of those and right in {first['right_where_sure']:.0%} of "
        "what it was sure of.",
        limits="Learned from simulated notes alone, whose words are fewer and plainer than a plant's: train on your own as "
        "soon as there are some. Its past cases are examples that nobody ever had.",
    )
    archive = pack(msgspec.structs.replace(bundle, passport=passport))
    return Candidate(archive, unpack(archive).passport), Unseen(figures, len(unseen))


@dataclass(frozen=True)
class _Asked:
    """A question asked of notes in unseen wordings. hits, simple: whether the reader, the simple reference was right."""

    notes: list[SimulatedNote]
    chances: Floats
    truth: NDArray[np.int64]
    simple: NDArray[np.bool_]

    @property
    def hits(self) -> NDArray[np.bool_]:
        return np.asarray(self.chances.argmax(axis=1) == self.truth)

    @property
    def sure_from(self) -> float:
        """As every second note says."""
        return sure_from(self.chances[::2], self.truth[::2], PRECISION)

    def figures(self, threshold: float) -> dict[str, float]:
        """As `Unseen.right` has them: of the other half, what it was sure of."""
        certain = self.chances[1::2].max(axis=1) >= threshold
        by_language = {
            language: _share(self.hits[[one.language == language for one in self.notes]]) for language in LANGUAGES
        }
        return by_language | {"sure": _share(certain), "right_where_sure": _share(self.hits[1::2][certain])}

    def quality(self, about: str) -> Quality:
        """As the passport has it."""
        low, high = certainty.of_share(int(self.hits.sum()), len(self.notes))
        return Quality(
            metric=f"{about}_accuracy_unseen_wordings",
            lower_is_better=False,
            model=_share(self.hits),
            reference=_share(self.simple),
            reference_name="TF-IDF + linear SVM",
            low=low,
            high=high,
            split="simulated notes in wordings that were never shown",
            n=len(self.notes),
        )


def _asked(reader: Reader, about: str, taught: Sequence[SimulatedNote], unseen: Sequence[SimulatedNote]) -> _Asked:
    names = reader.spec.classes[about]

    def telling(some: Sequence[SimulatedNote]) -> tuple[list[SimulatedNote], NDArray[np.int64]]:
        kept = [one for one in some if one.said().get(About(about), "") in names]
        return kept, np.array([names.index(one.said()[About(about)]) for one in kept], dtype=np.int64)

    known, told = telling(taught)
    asked, truth = telling(unseen)
    chances = np.stack([reader.decide(about, reader.see(one.text)).chances for one in asked])
    reference, _ = linear_references(Labelled([one.text for one in known], told, names), [one.text for one in asked])
    return _Asked(asked, chances, truth, np.asarray(reference == truth))


def _share(which: NDArray[np.bool_]) -> float:
    """Of how many it is so; of none, 0."""
    return round(float(which.mean()), DIGITS) if len(which) else 0.0


def cosine(encoder: TextEncoder, run: PackedEncoder, asked: Sequence[SimulatedNote]) -> tuple[float, float]:
    """Of the packed encoder's vectors to the float one's: mean and lowest."""
    exact = encoder.vectors([one.text for one in asked])
    near = [float(row @ run.encode(one.text).whole) for row, one in zip(exact, asked, strict=True)]
    return round(float(np.mean(near)), 5), round(float(np.min(near)), 5)
