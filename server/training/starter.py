"""Models to start with, before a plant has written anything of its own: an encoder and a reader from notes that our own
grammar made (`simulated_notes`), and a writer from reports that our own catalogue makes. Nothing here was written by anybody
else, so what is learned may travel with the product; the passport names the source. Sealed like any other model; the first
training on a plant's own notes and reports replaces them.

Of each mode's wordings, in either language, a sixth is never shown: what the reader makes of notes in those is the figure
that the gate looks at, and half of them say from which chance on it may be sure. Another sixth is shown to the reader and
not to the encoder, so that the reader learns how far the encoder can be relied on. All are still notes that the same people
thought up: a plant's own will be stranger."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from export.bounds import READER as BOUND
from export.bundle import judge
from export.forms import AUTO
from export.to_tflite import LitePart, recipe_of
from protocol.bundles import Lineage, Quality, digest, pack, unpack
from protocol.reading.notes import About
from protocol.reading.reader import Reader
from protocol.windows import Floats
from server.algorithms.bert import Bert, BertSettings
from server.algorithms.descent import Descent
from server.algorithms.masking import Alignment, PreTraining
from server.algorithms.note_fusion import sure_from
from server.algorithms.note_heads import UNTOLD, FineTuning, finetune
from server.algorithms.note_reader import Labelled, ReaderSettings
from server.labelled import LabelledNote
from server.training import certainty
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress
from server.training.note_grammar import Mode
from server.training.pretraining import EncoderPlan, TextPair, pretrained_encoder
from server.training.reader import Understood, train_reader
from server.training.reader_worth import linear_references
from server.training.simulated_notes import ISO, LANGUAGES, NotePlan, SimulatedNote, notes
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
    form of the encoder's weights (`export.forms`). targets: "tflite" among them: its TFLite file lies beside it. minutes: of
    the encoder's learning, at most; None: as many steps as the plan says, and then the same seed gives the same models on the
    same machine."""

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
    reader: ReaderSettings = field(default_factory=ReaderSettings)
    read_by_writer: int = 2000
    writer: WriterPlan = field(default_factory=WriterPlan)
    quantize: str = AUTO
    targets: tuple[str, ...] = ("onnx",)
    minutes: float | None = None
    seed: int = 7


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
    """Circumstances that name the source of the text in every passport."""

    sources: str = SOURCES

    def lineage(self, seed: int, parameters: dict[str, object]) -> Lineage:
        return super().lineage(seed, parameters | {"sources": self.sources, "licence": LICENCE})


def starter_reader(plan: StarterPlan, now_ms: int, progress: Progress) -> StarterReader:
    """A reader with an encoder, from nothing but our own grammar."""
    recipe = recipe_of(plan.targets)
    shown, known, never = apart(plan.notes.modes)
    told = list(notes(replace(plan.notes, modes=shown), plan.unlabelled, plan.seed))
    encoder = starter_encoder(told, plan, lambda share, step: progress(0.7 * share, step))
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


def _take(mine: Bert, learned: Bert) -> None:
    """The fine-tuned weights; the word and the pair head stay as they were."""
    mine.load_state_dict(learned.state_dict())
