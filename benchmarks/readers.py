"""What the note benchmarks share: the simple references with tuned settings, a reader as a gateway runs it (int8 tables),
and a paired test for repeated cross-validation. Importable by the scripts beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.reading.cases import packed_past
from protocol.reading.notes import PastNote, ReaderSpec
from protocol.reading.reader import Reader
from protocol.windows import Floats
from server.algorithms.note_reader import FittedReader, Labelled, dealt, packed_reader

Ints = NDArray[np.int64]
ABOUT = "failure"
PENALTIES = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Said:
    """What a method says of the test rows: classes [N], and, where it has any, chances [N, C] and whether it is sure [N]."""

    labels: Ints
    chances: Floats | None = None
    sure: NDArray[np.bool_] | None = None


def shipped(fitted: FittedReader, texts: Sequence[str], cases: bool = True) -> tuple[Reader, int]:
    """The reader of a bundle for one question, from its int8 tables, and how many numbers it holds."""
    classes = list(fitted.parts.classes)
    tables = fitted.parts.vocabulary_tables | packed_reader(ABOUT, fitted) | fitted.parts.cases.weights.tables()
    spec = ReaderSpec(classes={ABOUT: classes}, sure_from={ABOUT: fitted.sure_from}, parts={ABOUT: fitted.used})
    said = fitted.parts.labels
    past = [
        PastNote(case=str(i), text=text, said={ABOUT: classes[label]})
        for i, (text, label) in enumerate(zip(texts, said, strict=True))
    ]
    numbers = sum(int(t.size) for name, t in tables.items() if name != "words_vocabulary")
    return Reader(spec, tables, {"cases.json": packed_past(past)} if cases else {}), numbers


def answers(reader: Reader, texts: Sequence[str]) -> Said:
    """What the shipped reader says, note by note."""
    seen = [reader.see(text) for text in texts]
    chances = np.stack([reader.decide(ABOUT, one).chances for one in seen])
    may = np.array([reader.may_be_sure(one) for one in seen])
    return Said(chances.argmax(axis=1), chances, may & (chances.max(axis=1) >= reader.spec.sure_from[ABOUT]))


def counts() -> Any:
    """TF-IDF of words, word pairs, and pieces of 2 to 5 characters: the reference's rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    return make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )


def linear_machine(
    notes: Labelled, asked: Sequence[str], seed: int = 0, penalties: Sequence[float] = PENALTIES
) -> Said:
    """The reference: a linear support vector machine whose penalty is chosen on inner folds of the training part."""
    from sklearn.svm import LinearSVC

    fold = dealt(notes.labels, 4, seed)
    right = np.zeros(len(penalties))
    for k in range(4):
        learn, ask = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        made = counts()
        x, y = made.fit_transform(notes.take(learn).texts), made.transform(notes.take(ask).texts)
        for p, penalty in enumerate(penalties):
            right[p] += (LinearSVC(C=penalty).fit(x, notes.labels[learn]).predict(y) == notes.labels[ask]).sum()
    made = counts()
    best = LinearSVC(C=penalties[int(right.argmax())]).fit(made.fit_transform(list(notes.texts)), notes.labels)
    return Said(np.asarray(best.predict(made.transform(list(asked))), dtype=np.int64))


def neighbour(notes: Labelled, asked: Sequence[str], nearest: int = 1) -> Said:
    """The class of the most alike training notes by TF-IDF cosine."""
    from sklearn.neighbors import KNeighborsClassifier

    made = counts()
    model = KNeighborsClassifier(nearest, metric="cosine", algorithm="brute")
    model.fit(made.fit_transform(list(notes.texts)), notes.labels)
    return Said(np.asarray(model.predict(made.transform(list(asked))), dtype=np.int64))


def commonest(notes: Labelled, asked: Sequence[str]) -> Said:
    """The commonest class of the training part."""
    return Said(np.full(len(asked), int(np.bincount(notes.labels).argmax()), dtype=np.int64))


def corrected_t(differences: Sequence[float], test_share: float) -> tuple[float, float]:
    """(t, one-sided p that the mean difference is not above 0) of differences over repeated folds, with the variance
    corrected for the training sets that they share (Nadeau & Bengio 2003): (1/n + test/train) * s^2."""
    from scipy.stats import t as student

    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n < 2 or not values.std(ddof=1) > 0:
        return math.nan, 0.0 if n and values.mean() > 0 else 1.0
    error = math.sqrt((1 / n + test_share / (1 - test_share)) * values.var(ddof=1))
    return float(values.mean() / error), float(student.sf(values.mean() / error, n - 1))


def exact_sign(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    """One-sided p of McNemar's exact test that we are not right more often on the same rows."""
    from scipy.stats import binomtest

    won, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return float(binomtest(won, won + lost, 0.5, alternative="greater").pvalue) if won + lost else 1.0


def macro_f1(truth: Ints, said: Ints, classes: int) -> float:
    """Mean F1 of the classes that occur in the truth."""
    scores = []
    for c in range(classes):
        both, told, there = ((said == c) & (truth == c)).sum(), (said == c).sum(), (truth == c).sum()
        if there:
            scores.append(2 * both / (told + there))
    return float(np.mean(scores))
