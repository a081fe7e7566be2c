"""From labelled notes to a sealed reader: figures of notes that were not learned, beside a TF-IDF support vector machine and
the commonest class, and tables that a gateway reads without any library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from export import parity
from export.bounds import READER as BOUND
from export.bundle import Draft, seal
from export.to_tflite import LitePart, held_to_golden
from protocol.bundles import TOKENIZER, Form, Golden, Runtime, unpack
from protocol.errors import Reason, Refused
from protocol.reading.cases import PAST, packed_past
from protocol.reading.encoder import Encoder
from protocol.reading.notes import About, Note, PastNote, ReaderSpec
from protocol.reading.reader import ENCODER, Reader, golden_texts, reader_of
from protocol.reports import ModelRef
from protocol.tables import Tables
from protocol.windows import Floats
from server.algorithms.note_counts import count, vocabulary_tables, weigh
from server.algorithms.note_reader import (
    FittedReader,
    Labelled,
    ReaderSettings,
    class_words,
    fit_reader,
    packed_reader,
    packed_vectors,
)
from server.labelled import LabelledNote
from server.training.circumstances import Candidate, Circumstances, Progress
from server.training.reader_worth import Asked, Measured, figures, measured_reader

READER = "notes.reader"
LEAST_NOTES = 40
LEAST_OF_A_LANGUAGE = 20
MOST_TRAVELLING = 5000
MOST_COMPARED = 400
USUAL = ReaderSettings()
_STRANGE = ("", "泵漏油，需要更换密封", "<b>DROP TABLE notes;</b> \x00 🙂")


@dataclass(frozen=True)
class Understood:
    """An encoder that travels with the reader: what it says here, and the files by which a gateway says the same. forms:
    those that packing tried; float_bytes: of the graph before it; packing: what the verdict says of it; refused: why it may
    not serve. lite: its TFLite file; lite_encoder: that file as a gateway reads with it."""

    encoder: Encoder
    graph: bytes
    tokenizer: bytes
    context: int
    forms: tuple[Form, ...] = ()
    float_bytes: int = 0
    packing: str = ""
    refused: str = ""
    lite: LitePart = field(default_factory=LitePart)
    lite_encoder: Encoder | None = None


@dataclass(frozen=True)
class Beside:
    """What of a reader was learned elsewhere: spans of entities, shorthand written out. It joins the bundle's own."""

    tables: Tables = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    entities: tuple[str, ...] = ()


def train_reader(
    notes: Sequence[LabelledNote],
    seed: int,
    world: Circumstances,
    progress: Progress,
    *,
    encoder: Understood | None = None,
    beside: Beside = Beside(),
    settings: ReaderSettings = USUAL,
) -> list[Candidate]:
    """The reader. Figures come from notes that the fit beside them had not seen; the sealed tables are fitted on all notes.
    Raises Refused where no question has LEAST_NOTES labelled notes of two classes."""
    ordered = sorted(notes, key=lambda note: (note.time_ms, note.case))
    questions = _questions(ordered)
    if not questions:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"{len(ordered)} notes: {LEAST_NOTES} with a class, of two classes, are needed: wait for more",
        )
    vectors = None if encoder is None else np.stack([encoder.encoder.encode(note.text).whole for note in ordered])
    asked = {about: _asked(ordered, about, vectors) for about in questions}
    settings = replace(settings, seed=seed)
    champion = world.champions.get(READER)
    serving = unpack(champion) if champion else None
    measured: dict[str, Measured] = {}
    for number, (about, one) in enumerate(asked.items()):
        measured[about] = measured_reader(about, one, settings, serving)
        progress(0.1 + 0.5 * (number + 1) / len(asked), f"{about}: {measured[about].right:.1%} of unseen notes right")
    fitted, tables = _fitted(asked, [note.text for note in ordered], settings)
    progress(0.8, "packing")
    if not (beside.entities or any(ENCODER in one.used or one.parts.cases.weights.encoder for one in fitted.values())):
        encoder, vectors = None, None  # a graph that decides nothing would cost time and space all the same
    packed = _packed(ordered, vectors, fitted, tables, encoder, beside)
    draft = _draft(ordered, asked, fitted, measured, packed, encoder, world, settings)
    progress(1.0, "reader sealed")
    return [Candidate(*seal(draft))]


@dataclass(frozen=True)
class Packed:
    """What travels."""

    spec: ReaderSpec
    tables: Tables
    texts: dict[str, bytes]
    reader: Reader


def _packed(
    ordered: Sequence[LabelledNote],
    vectors: Floats | None,
    fitted: Mapping[str, FittedReader],
    tables: Tables,
    encoder: Understood | None,
    beside: Beside,
) -> Packed:
    past = [_past(note) for note in ordered[-MOST_TRAVELLING:]]
    tables = tables | beside.tables | next(iter(fitted.values())).parts.cases.weights.tables()
    texts = {PAST: packed_past(past)} | beside.texts
    if encoder is not None and vectors is not None:
        tables |= packed_vectors(vectors[-MOST_TRAVELLING:])
        texts[TOKENIZER] = encoder.tokenizer
    spec = ReaderSpec(
        classes={about: list(one.parts.classes) for about, one in fitted.items()},
        sure_from={about: one.sure_from for about, one in fitted.items()},
        parts={about: one.used for about, one in fitted.items()},
        entities=list(beside.entities),
        languages=languages(ordered),
        width=encoder.encoder.width if encoder else 0,
        context=encoder.context if encoder else 0,
    )
    return Packed(spec, tables, texts, reader_of(spec, tables, texts, encoder.encoder if encoder else None))


def _draft(
    ordered: Sequence[LabelledNote],
    asked: Mapping[str, Asked],
    fitted: Mapping[str, FittedReader],
    measured: Mapping[str, Measured],
    packed: Packed,
    encoder: Understood | None,
    world: Circumstances,
    settings: ReaderSettings,
) -> Draft:
    about = next(iter(asked))
    notes, first, reader = asked[about].labelled, measured[about], packed.reader
    sample = notes.take(
        np.unique(np.linspace(0, len(notes.texts) - 1, min(MOST_COMPARED, len(notes.texts))).astype(np.int64))
    )
    exact = fitted[about].logits(sample.texts, sample.vectors)
    rounded = np.stack([reader.decide(about, reader.see(text)).logits for text in sample.texts])
    right = [float((said.argmax(axis=1) == sample.labels).mean()) for said in (exact, rounded)]
    spread = sample.texts[:: max(len(sample.texts) // parity.GOLDEN_ROWS, 1)][: parity.GOLDEN_ROWS]
    inputs: Tables = {"texts": golden_texts([*_STRANGE, *spread])}
    wanted: Tables = {name: np.zeros(0) for name in asked}
    outputs = reader.golden(inputs, wanted)
    golden = Golden(atol=1e-4 if encoder is None else 0.05, rtol=1e-4)
    lite = LitePart() if encoder is None else encoder.lite
    if encoder is not None and encoder.lite_encoder is not None:
        by_lite = reader_of(packed.spec, packed.tables, packed.texts, encoder.lite_encoder)
        lite = held_to_golden(lite, golden, outputs, by_lite.golden(inputs, wanted))
    packing = [part for part in (encoder.packing if encoder else "", lite.words) if part]
    note = Note(id="latency", machine="M", time_ms=0, text=spread[-1])
    return Draft(
        slot=READER,
        family="generate",
        algorithm="reader",
        version=world.versions.get(READER, 1),
        runtime=Runtime.READER,
        reader=packed.spec,
        graph=encoder.graph if encoder else b"",
        forms=list(encoder.forms) if encoder else [],
        texts=packed.texts,
        tables=packed.tables,
        lineage=world.lineage(
            settings.seed,
            {
                "precision": settings.precision,
                "words": {name: asdict(one.settings) for name, one in fitted.items()},
                "head": settings.head,
                "notes": len(ordered),
                "corrected": sum(one.source == "answer" for one in ordered),
                "data_until_ms": ordered[-1].time_ms,
            },
        ),
        quality=[figure for name, one in measured.items() for figure in figures(name, one)],
        parity=parity.compare(exact, rounded, right[0], right[1], lower_is_better=False, bound=BOUND),
        golden=golden,
        lite=lite.told,
        lite_graph=lite.content,
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=sum(8 * one.parts.words.weights.size for one in fitted.values())
        + (encoder.float_bytes if encoder else 0),
        latency_us=parity.latency_us(lambda: reader.read(note, 0, ModelRef(READER, "reader"))),
        intended_use="Reads what people write about machines: what failed, with a chance, and which past notes were alike.",
        limits=f"Knows the {len(notes.classes)} classes that it was shown; where it is not sure it says so.",
        refused=first.worse or (encoder.refused if encoder else ""),
        words=f"It was sure of {first.sure_share:.0%} of unseen notes and right in {first.sure_right:.0%} of those; "
        + " ".join([f"calibration error {first.calibration:.3f}.", *packing]),
        because=world.because,
    )


def _fitted(
    asked: Mapping[str, Asked], texts: Sequence[str], settings: ReaderSettings
) -> tuple[dict[str, FittedReader], Tables]:
    """Every question on all its notes, with one vocabulary of all texts; the first question chooses the words' settings."""
    classes = [name for one in asked.values() for name in one.labelled.classes]
    fitted: dict[str, FittedReader] = {}
    tables: Tables = {}
    for about, one in asked.items():
        if not fitted:
            first = fit_reader(one.labelled, settings)
            words, cases = first.settings, first.parts.cases.weights
            settings = replace(settings, words=(words,), cases=cases, shares=(cases.encoder,))
            counts = count([*texts, *(class_words(name) for name in classes)], words.shape)
            everything = np.arange(counts.counts.shape[0])
            weighing = weigh(counts, everything, words.least_notes, words.most_features, words.unknown)
            tables |= vocabulary_tables(counts, weighing, words.words, words.pieces)
        fitted[about] = fit_reader(one.labelled, settings, tables)
    for about, one_fitted in fitted.items():
        tables |= packed_reader(about, one_fitted)
    return fitted, tables


def _past(note: LabelledNote) -> PastNote:
    return PastNote(case=note.case, text=note.text, said=note.said, fixed_by=note.fixed_by)


def languages(notes: Sequence[LabelledNote]) -> list[str]:
    """Languages with enough notes to have been measured."""
    chinese = sum(any("一" <= c <= "鿿" for c in note.text) for note in notes)
    found = {"en": len(notes) - chinese, "zh": chinese}
    return [name for name, count in found.items() if count >= LEAST_OF_A_LANGUAGE]


def _questions(notes: Sequence[LabelledNote]) -> list[str]:
    """Questions with enough labelled notes of two classes at least, in their usual order."""
    found: list[str] = []
    for about in About:
        said = [note.said[about] for note in notes if about in note.said]
        if len(said) >= LEAST_NOTES and len(set(said)) > 1:
            found.append(about.value)
    return found


def _asked(notes: Sequence[LabelledNote], about: str, vectors: Floats | None) -> Asked:
    at = np.array([i for i, note in enumerate(notes) if about in note.said], dtype=np.int64)
    chosen = [notes[i] for i in at]
    classes = sorted({note.said[about] for note in chosen})
    labels = np.array([classes.index(note.said[about]) for note in chosen], dtype=np.int64)
    labelled = Labelled([note.text for note in chosen], labels, classes, None if vectors is None else vectors[at])
    return Asked(labelled, [note.time_ms for note in chosen])
