"""What a reader is worth on notes that it has not learned, beside the simple references on the same notes.

The figure that decides is the log loss of its chances, against a logistic regression over TF-IDF counts: it tells a reader
that knows when it does not know from one that guesses. Beside it stands accuracy against a linear support vector machine, and
against the commonest class; a reader that is right less often than the machine, by more than chance would do, is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union
from sklearn.svm import LinearSVC

from protocol.bundles import Bundle, Quality
from protocol.reading.reader import Reader
from protocol.windows import Floats
from server.algorithms.note_fusion import calibration_error
from server.algorithms.note_reader import Labelled, ReaderSettings, dealt, fit_reader
from server.training import certainty

BLOCKS = 4
MOST_FOR_BLOCKS = 3000
LEAST_NEWER = 20
LEAST_CHANCE = 1e-3
"""A smaller chance counts as this one: no single note decides a mean log loss."""
LOGISTIC, MACHINE, COMMONEST = "TF-IDF + logistic regression", "TF-IDF + linear SVM", "commonest class"
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """Notes of one question, and when each was told, ascending."""

    labelled: Labelled
    times_ms: list[int]


@dataclass(frozen=True)
class Measured:
    """Held-out figures of one question. worse: why it may not serve, though its log loss is lower ("": it may)."""

    log_loss: float
    logistic_log_loss: float
    champion_log_loss: float | None
    right: float
    machine_right: float
    commonest_right: float
    champion_right: float | None
    worse: str
    sure_share: float
    sure_right: float
    calibration: float
    split: str
    n: int
    log_loss_between: certainty.Interval = certainty.UNKNOWN
    right_between: certainty.Interval = certainty.UNKNOWN


@dataclass(frozen=True)
class _Held:
    """One block of unseen notes: what everybody says of them. Chances [N, C]; the champion's of the right class [N] and
    whether it was right [N]."""

    truth: Ints
    ours: Floats
    sure: NDArray[np.bool_]
    logistic: Floats
    machine: Ints
    commonest: Ints
    champion: Floats | None
    champion_right: NDArray[np.bool_] | None


def measured_reader(about: str, asked: Asked, settings: ReaderSettings, serving: Bundle | None) -> Measured:
    """Every note is asked of a fit that did not learn it: those newer than what the champion learned where these are enough,
    so that both can be compared; else dealt into blocks, or the newest quarter of very many."""
    block, blocks, fair = _dealt(asked, settings, serving)
    champion = _champion(serving, about) if fair and serving is not None else None
    held = [_asked(asked.labelled, block == number, settings, champion) for number in blocks]
    truth, ours, sure = (np.concatenate([getattr(one, name) for one in held]) for name in ("truth", "ours", "sure"))
    right = ours.argmax(axis=1) == truth
    machine = np.concatenate([one.machine == one.truth for one in held])
    known = [one for one in held if one.champion is not None and one.champion_right is not None]
    return Measured(
        log_loss=_log_loss(ours[np.arange(len(truth)), truth]),
        logistic_log_loss=_log_loss(
            np.concatenate([one.logistic[np.arange(len(one.truth)), one.truth] for one in held])
        ),
        champion_log_loss=_log_loss(np.concatenate([one.champion for one in known])) if known else None,
        right=float(right.mean()),
        machine_right=float(machine.mean()),
        commonest_right=float(np.concatenate([one.commonest == one.truth for one in held]).mean()),
        champion_right=float(np.concatenate([one.champion_right for one in known]).mean()) if known else None,
        worse=_worse(right, machine),
        sure_share=float(sure.mean()),
        sure_right=float(right[sure].mean()) if sure.any() else 0.0,
        calibration=calibration_error(ours, truth),
        split=f"{len(truth)} of {len(asked.labelled.texts)} notes, each asked of a fit that had not learned it"
        + ("; newer than what the champion learned" if fair else ""),
        n=len(truth),
        log_loss_between=certainty.of_mean(_losses(ours[np.arange(len(truth)), truth])),
        right_between=certainty.of_share(int(right.sum()), len(right)),
    )


def figures(about: str, measured: Measured) -> list[Quality]:
    """The figure that decides, and what is shown beside it."""

    def figure(metric: str, model: float, reference: float, name: str, champion: float | None) -> Quality:
        low, high = measured.log_loss_between if metric == "log_loss" else measured.right_between
        return Quality(
            metric=f"{about}_{metric}",
            lower_is_better=metric == "log_loss",
            model=model,
            reference=reference,
            reference_name=name,
            champion=champion,
            low=low,
            high=high,
            split=measured.split,
            n=measured.n,
        )

    m = measured
    return [
        figure("log_loss", m.log_loss, m.logistic_log_loss, LOGISTIC, m.champion_log_loss),
        figure("accuracy", m.right, m.machine_right, MACHINE, m.champion_right),
        figure("accuracy", m.right, m.commonest_right, COMMONEST, m.champion_right),
    ]


def _dealt(asked: Asked, settings: ReaderSettings, serving: Bundle | None) -> tuple[Ints, list[int], bool]:
    """(block of each note, blocks that are asked about, whether the champion has seen none of them)."""
    notes = asked.labelled
    until = 0 if serving is None else int(serving.passport.lineage.parameters.get("data_until_ms", "0"))
    newer = np.array(asked.times_ms) > until
    if serving is not None and LEAST_NEWER <= newer.sum() <= len(newer) // 2:
        return newer.astype(np.int64), [1], True
    if len(notes.texts) > MOST_FOR_BLOCKS:
        return (np.arange(len(notes.texts)) >= len(notes.texts) * 3 // 4).astype(np.int64), [1], False
    return dealt(notes.labels, BLOCKS, settings.seed), list(range(BLOCKS)), False


Champion = Callable[[str], dict[str, float]]
"""A text -> the chance of each class that it knows."""


def _asked(notes: Labelled, asked: NDArray[np.bool_], settings: ReaderSettings, champion: Champion | None) -> _Held:
    learned, held = notes.take(np.flatnonzero(~asked)), notes.take(np.flatnonzero(asked))
    fitted = fit_reader(learned, settings)
    ours = fitted.chances(held.texts, held.vectors)
    machine, logistic = linear_references(learned, held.texts)
    said = None if champion is None else [champion(text) for text in held.texts]
    names = [notes.classes[label] for label in held.labels]
    return _Held(
        truth=held.labels,
        ours=ours,
        sure=ours.max(axis=1) >= fitted.sure_from,
        logistic=logistic,
        machine=machine,
        commonest=np.full(len(held.texts), int(np.bincount(learned.labels).argmax()), dtype=np.int64),
        champion=None
        if said is None
        else np.array([one.get(name, 0.0) for one, name in zip(said, names, strict=True)]),
        champion_right=None
        if said is None
        else np.array([max(one, key=lambda c: one[c]) == name for one, name in zip(said, names, strict=True)]),
    )


def linear_references(learned: Labelled, asked: Sequence[str]) -> tuple[Ints, Floats]:
    """(classes that a linear support vector machine says [N], chances of a logistic regression [N, C]), both over TF-IDF of
    words, word pairs and pieces of 2 to 5 characters."""
    counts = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    x, y = counts.fit_transform(list(learned.texts)), counts.transform(list(asked))
    machine = LinearSVC(C=1.0, random_state=0).fit(x, learned.labels).predict(y)
    model = LogisticRegression(C=10.0, max_iter=300).fit(x, learned.labels)
    chances = np.zeros((len(asked), len(learned.classes)))
    chances[:, model.classes_] = model.predict_proba(y)
    return np.asarray(machine, dtype=np.int64), chances


def _champion(serving: Bundle, about: str) -> Champion | None:
    """What the serving reader says; None where it has an encoder (the gateway's engine runs that) or no such question."""
    spec = serving.passport.reader
    if spec is None or spec.width or about not in spec.classes:
        return None
    reader, names = Reader(spec, serving.tables, serving.texts), spec.classes[about]
    return lambda text: dict(zip(names, reader.decide(about, reader.see(text)).chances.tolist(), strict=True))


def _log_loss(chances: Floats) -> float:
    return float(_losses(chances).mean())


def _losses(chances: Floats) -> Floats:
    return np.asarray(-np.log(np.maximum(chances, LEAST_CHANCE)))


def _worse(right: NDArray[np.bool_], machine: NDArray[np.bool_]) -> str:
    difference = right.astype(np.float64) - machine
    error = float(difference.std()) / len(difference) ** 0.5
    if difference.mean() >= -error:
        return ""
    return (
        f"it is right in {right.mean():.1%} of unseen notes, a linear support vector machine in {machine.mean():.1%}, "
        f"and that is more than chance (standard error {error:.1%})"
    )
