"""A reader of notes from labelled notes: each part learned, then how much each counts, from notes that it had not seen.

One question at a time: the notes are dealt into folds class by class; the words' model, the encoder's head and the past cases
are learned on all folds but one and asked about that one. From these answers come the words' settings (fewest wrong, then
the lower log loss), the mixture (`note_fusion`), and the chance from which on the reader may say that it is sure. At last
everything is learned again from all notes with what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.linear_model import LogisticRegression

from protocol.reading.cases import Cases, CaseWeights, votes
from protocol.reading.notes import PastNote
from protocol.reading.reader import CASES, ENCODER, WORDS, softmax
from protocol.reading.words import PREFIX, Shape, Vocabulary
from protocol.tables import Tables
from protocol.windows import Floats
from server.algorithms.note_counts import Counts, count, likeness, vocabulary_tables, weigh, weighed
from server.algorithms.note_fusion import Fusion, Ints, chosen_fusion, sure_from
from server.algorithms.note_words import FittedWords, WordSettings, fit_words, packed_words, rows

PARTS = (WORDS, ENCODER, CASES)
NEAREST = CaseWeights(nearest=5, sharpness=2.0)
ABSENT = -8.0
"""Score of a class without a note."""


@dataclass(frozen=True)
class ReaderSettings:
    """words: settings to choose from. cases: how past notes are compared. shares: of an encoder's vectors in the likeness of
    two notes, to choose from where there is an encoder. head: inverse strength of the encoder's head's
    penalty. folds, repeats: of the inner deals. precision: share of right answers among the sure ones that is asked for."""

    words: tuple[WordSettings, ...] = (WordSettings(),)
    cases: CaseWeights = NEAREST
    shares: tuple[float, ...] = (0.0, 0.5)
    head: float = 10.0
    folds: int = 5
    repeats: int = 2
    precision: float = 0.9
    seed: int = 0


@dataclass(frozen=True)
class Labelled:
    """Notes of one question. labels [N]: index into classes. vectors [N, d]: of an encoder, unit length, or None."""

    texts: Sequence[str]
    labels: Ints
    classes: Sequence[str]
    vectors: Floats | None = None

    def take(self, chosen: Ints) -> Labelled:
        """Some of the notes."""
        return replace(
            self,
            texts=[self.texts[i] for i in chosen],
            labels=self.labels[chosen],
            vectors=None if self.vectors is None else self.vectors[chosen],
        )


@dataclass(frozen=True)
class Parts:
    """Every part of a reader for one question, learned. labels: of the past notes, in their order."""

    words: FittedWords
    vocabulary: Vocabulary
    vocabulary_tables: Tables
    head: FittedWords | None
    cases: Cases
    classes: Sequence[str]
    labels: Ints

    def scores(self, texts: Sequence[str], vectors: Floats | None) -> Floats:
        """[P, N, C] of words, encoder (zeros: none) and cases."""
        words = rows(self.vocabulary, texts) @ self.words.weights + self.words.bias
        head = np.zeros_like(words)
        if self.head is not None and vectors is not None:
            head = vectors @ self.head.weights + self.head.bias
        return np.stack([words, head, self._votes(texts, vectors)])

    def _votes(self, texts: Sequence[str], vectors: Floats | None) -> Floats:
        said = np.zeros((len(texts), len(self.classes)))
        for i, text in enumerate(texts):
            found = self.cases.nearest(text, None if vectors is None else vectors[i], self.cases.weights.nearest)
            said[i] = votes(found, _ASKED, self.classes, self.cases.weights.sharpness).sum(axis=0)
        return said


_ASKED = "asked"


@dataclass(frozen=True)
class FittedReader:
    """What one question's reader is made of. unseen [N, C]: its chances of notes that it had not seen, labels beside."""

    parts: Parts
    settings: WordSettings
    fusion: Fusion
    log_share: Floats
    sure_from: float
    unseen: Floats
    labels: Ints
    used: list[str] = field(default_factory=list)

    def logits(self, texts: Sequence[str], vectors: Floats | None = None) -> Floats:
        """[N, C], in float."""
        return self.fusion.logits(self.parts.scores(texts, vectors), self.log_share)

    def chances(self, texts: Sequence[str], vectors: Floats | None = None) -> Floats:
        """[N, C], calibrated."""
        return softmax(self.logits(texts, vectors))


def fit_reader(notes: Labelled, settings: ReaderSettings, vocabulary: Tables | None = None) -> FittedReader:
    """Parts, mixture and threshold of one question. vocabulary: the tables to weigh words by at last, where several
    questions share them (None: of these notes). Raises ValueError for fewer than two classes or two notes a fold."""
    if len(notes.texts) < 2 * settings.folds or len(np.unique(notes.labels)) < 2:
        classes = len(np.unique(notes.labels))
        raise ValueError(
            f"{len(notes.texts)} notes of {classes} classes: {2 * settings.folds} of two classes are needed"
        )
    log_share = np.log((np.bincount(notes.labels, minlength=len(notes.classes)) + 0.5) / len(notes.labels))
    tried: list[tuple[float, float, int, Floats, Fusion]] = []
    repeated = np.tile(notes.labels, settings.repeats)
    counted: dict[Shape, Counts] = {}
    choices = _choices(notes, settings)
    for i, (words, cases) in enumerate(choices):
        if words.shape not in counted:
            counted[words.shape] = count([*notes.texts, *map(class_words, notes.classes)], words.shape)
        one = replace(settings, cases=cases)
        unseen = [unseen_scores(notes, counted[words.shape], words, one, r) for r in range(settings.repeats)]
        scores = np.concatenate(unseen, axis=1)
        fusion = chosen_fusion(scores, repeated, log_share)
        wrong = float((fusion.logits(scores, log_share).argmax(axis=1) != repeated).mean())
        tried.append((round(wrong, 6), fusion.loss, i, scores, fusion))
    _, _, best, scores, fusion = min(tried, key=lambda one: one[:3])
    chances = softmax(fusion.logits(scores, log_share))
    chosen, cases = choices[best]
    return FittedReader(
        parts=fit_parts(notes, counted[chosen.shape], chosen, replace(settings, cases=cases), vocabulary),
        settings=chosen,
        fusion=fusion,
        log_share=log_share,
        sure_from=sure_from(chances, repeated, settings.precision),
        unseen=chances,
        labels=repeated,
        used=[name for name, weight in zip(PARTS, fusion.mix, strict=True) if weight > 0],
    )


def _choices(notes: Labelled, settings: ReaderSettings) -> list[tuple[WordSettings, CaseWeights]]:
    if notes.vectors is None:
        return [(words, settings.cases) for words in settings.words]
    return [(words, replace(settings.cases, encoder=share)) for words in settings.words for share in settings.shares]


def unseen_scores(
    notes: Labelled, counts: Counts, words: WordSettings, settings: ReaderSettings, repeat: int
) -> Floats:
    """[P, N, C]: what the parts say of notes that they did not learn. counts: of the notes, then of the classes' names."""
    many = len(notes.classes)
    fold = dealt(notes.labels, settings.folds, settings.seed + 1000 * repeat)
    names = len(notes.texts) + np.arange(many if words.names else 0)
    scores = np.zeros((len(PARTS), len(notes.texts), many))
    for k in range(settings.folds):
        learn, ask = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        learned = np.concatenate([learn, names])
        weighing = weigh(counts, learned, words.least_notes, words.most_features, words.unknown)
        x = weighed(counts, weighing, words.words, words.pieces)
        fitted = fit_words(x[learned], np.concatenate([notes.labels[learn], np.arange(len(names))]), many, words)
        scores[0, ask] = x[ask] @ fitted.weights + fitted.bias
        alike = likeness(counts, learn, ask, settings.cases.pieces)
        if notes.vectors is not None:
            head = fit_head(notes.vectors[learn], notes.labels[learn], many, settings.head)
            scores[1, ask] = notes.vectors[ask] @ head.weights + head.bias
            share = settings.cases.encoder
            alike = (1 - share) * alike + share * (notes.vectors[ask] @ notes.vectors[learn].T)
        scores[2, ask] = voted(alike, notes.labels[learn], many, settings.cases)
    return scores


def voted(alike: Floats, labels: Ints, classes: int, weights: CaseWeights) -> Floats:
    """[A, C]: what the nearest of the learned notes [A, L] say, as `protocol.reading.cases.votes` counts them."""
    newest = np.broadcast_to(-np.arange(alike.shape[1]), alike.shape)
    order = np.lexsort((newest, -alike), axis=1)[:, : weights.nearest]
    near = np.maximum(np.take_along_axis(alike, order, axis=1), 0.0)
    strength = near**weights.sharpness
    total = np.maximum(strength.sum(axis=1), 1e-300)
    said = np.zeros((len(alike), classes))
    at = np.repeat(np.arange(len(alike)), order.shape[1])
    np.add.at(said, (at, labels[order].ravel()), (near[:, :1] * strength / total[:, None]).ravel())
    return said


def fit_parts(
    notes: Labelled, counts: Counts, words: WordSettings, settings: ReaderSettings, vocabulary_of: Tables | None = None
) -> Parts:
    """Every part from all notes. counts: of the notes, then of the classes' names."""
    many = len(notes.classes)
    names = len(notes.texts) + np.arange(many if words.names else 0)
    learned = np.concatenate([np.arange(len(notes.texts)), names])
    labels = np.concatenate([notes.labels, np.arange(len(names))])
    if vocabulary_of is None:
        weighing = weigh(counts, learned, words.least_notes, words.most_features, words.unknown)
        tables = vocabulary_tables(counts, weighing, words.words, words.pieces)
        vocabulary = Vocabulary(tables)
        x = weighed(counts, weighing, words.words, words.pieces)[learned]
    else:
        tables, vocabulary = vocabulary_of, Vocabulary(vocabulary_of)
        x = rows(vocabulary, [*notes.texts, *(class_words(name) for name in notes.classes)])[learned]
    past = [
        PastNote(case=str(i), text=text, said={_ASKED: notes.classes[label]})
        for i, (text, label) in enumerate(zip(notes.texts, notes.labels, strict=True))
    ]
    return Parts(
        words=fit_words(x, labels, many, words),
        vocabulary=vocabulary,
        vocabulary_tables=tables,
        head=None if notes.vectors is None else fit_head(notes.vectors, notes.labels, many, settings.head),
        cases=Cases(past, settings.cases, notes.vectors, words.shape),
        classes=notes.classes,
        labels=notes.labels,
    )


def class_words(name: str) -> str:
    """A class's name as a note."""
    return name.replace("_", " ").replace("-", " ")


def fit_head(vectors: Floats, labels: Ints, classes: int, inverse_penalty: float) -> FittedWords:
    """A multinomial logistic regression on an encoder's vectors."""
    present = np.unique(labels)
    engine = LogisticRegression(C=inverse_penalty, max_iter=500).fit(vectors, labels)
    coefficients, level = engine.coef_, engine.intercept_
    if len(present) == 2:
        coefficients, level = np.vstack([-coefficients, coefficients]) / 2, np.concatenate([-level, level]) / 2
    weights, bias = np.zeros((vectors.shape[1], classes)), np.full(classes, ABSENT)
    weights[:, present], bias[present] = coefficients.T, level
    return FittedWords(weights, bias)


def dealt(labels: Ints, folds: int, seed: int) -> Ints:
    """A fold for each note, every class spread over all of them."""
    random = np.random.default_rng(seed)
    fold = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        at = random.permutation(np.flatnonzero(labels == label))
        fold[at] = (np.arange(len(at)) + random.integers(folds)) % folds
    return fold


def packed_reader(about: str, fitted: FittedReader) -> Tables:
    """int8 tables of one question beside the vocabulary's."""
    bias = fitted.fusion.prior * fitted.log_share
    tables: Tables = {
        f"read_{about}_mix": fitted.fusion.mix.astype(np.float64),
        f"read_{about}_bias": bias.astype(np.float64),
    }
    if fitted.fusion.mix[0] > 0:
        tables |= packed_words(about, fitted.parts.words)
    if fitted.fusion.mix[1] > 0 and fitted.parts.head is not None:
        head = packed_words(about, fitted.parts.head)
        tables |= {f"encoder_{name.removeprefix(PREFIX)}": array for name, array in head.items()}
    return tables


def packed_vectors(vectors: Floats) -> Tables:
    """The past notes' vectors in int8."""
    scale = np.maximum(np.abs(vectors).max(axis=1), 1e-12) / 127
    return {
        "cases_vectors": np.round(vectors / scale[:, None]).astype(np.int8),
        "cases_scale": scale.astype(np.float32),
    }
