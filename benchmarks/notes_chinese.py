"""Chinese notes beside English ones: the same reader, the same modes, the same number of notes of each.

    python benchmarks/notes_chinese.py [--data DIR] [--quick] [--json]

DIR holds zh.jsonl and en.jsonl, an object {"text", "failure"} a line; without it this project's own hand-written sets
(benchmarks/hand_written_notes/README.md says how they were made and what they are not). 5 times 5-fold cross-validation
(--quick: once), folds dealt mode by mode, the same seeds for both languages. The reader (words + past cases, fused and
calibrated) runs from its int8 tables as on a gateway, its settings chosen on inner folds. Reference: TF-IDF + linear SVM,
penalty chosen on inner folds; peer: the commonest mode. The target compares languages: Chinese within 5 points of English."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import readers

from protocol.windows import Floats
from server.algorithms.note_reader import Labelled, ReaderSettings, dealt, fit_reader

OWN = Path(__file__).parent / "hand_written_notes"
FOLDS, REPEATS = 5, 5
NEAR = 0.05
"""How far Chinese may be behind English."""
SETTINGS = ReaderSettings()


@dataclass(frozen=True)
class Measured:
    """Accuracy of each fold, ours and the others'; the share of sure answers and how many of them were right."""

    ours: Floats
    reference: Floats
    commonest: Floats
    sure: float
    right_where_sure: float
    seconds: float


def read(path: Path) -> Labelled:
    """The notes of a file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    classes = sorted({row["failure"] for row in rows})
    labels = np.array([classes.index(row["failure"]) for row in rows], dtype=np.int64)
    return Labelled([row["text"] for row in rows], labels, classes)


def measure(sheet: contract.Sheet) -> None:
    """A row for each language, and how far apart they are."""
    folder = OWN if sheet.options.train == Path() else sheet.options.train
    notes = {language: read(sheet.find(folder, f"{language}.jsonl")[0]) for language in ("en", "zh")}
    repeats = 1 if sheet.options.quick else REPEATS
    found = {language: crossed(sheet, language, of, repeats) for language, of in notes.items()}
    english = float(found["en"].ours.mean())
    for language, one in found.items():
        mean = float(one.ours.mean())
        sheet.row(
            f"{language}, {repeats} x {FOLDS}-fold, {len(notes[language].classes)} modes",
            "accuracy",
            mean,
            reference=float(one.reference.mean()),
            peers={"commonest mode": float(one.commonest.mean())},
            target=english - NEAR if language == "zh" else None,
            holds=mean >= english - NEAR if language == "zh" and not sheet.options.quick else None,
            n=len(notes[language].texts) * repeats,
            seconds=one.seconds,
            deviation_of_folds=round(float(one.ours.std()), 4),
            share_sure=round(one.sure, 4),
            right_where_sure=round(one.right_where_sure, 4),
        )


def crossed(sheet: contract.Sheet, language: str, notes: Labelled, repeats: int) -> Measured:
    """Repeated cross-validation of one language."""
    started = time.monotonic()
    ours, reference, commonest = [], [], []
    sure: list[bool] = []
    right: list[bool] = []
    for repeat in range(repeats):
        fold = dealt(notes.labels, FOLDS, repeat)
        for k in range(FOLDS):
            learn, ask = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            train, test = notes.take(learn), notes.take(ask)
            said = readers.answers(readers.shipped(fit_reader(train, SETTINGS), train.texts)[0], test.texts)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                machine = readers.linear_machine(train, test.texts)
            ours.append(float((said.labels == test.labels).mean()))
            reference.append(float((machine.labels == test.labels).mean()))
            commonest.append(float((readers.commonest(train, test.texts).labels == test.labels).mean()))
            assert said.sure is not None
            sure += said.sure.tolist()
            right += (said.labels == test.labels)[said.sure].tolist()
        sheet.say(f"{language}, repeat {repeat + 1}: ours {np.mean(ours):.4f}, reference {np.mean(reference):.4f}")
    return Measured(
        np.array(ours),
        np.array(reference),
        np.array(commonest),
        float(np.mean(sure)),
        float(np.mean(right)) if right else float("nan"),
        time.monotonic() - started,
    )


if __name__ == "__main__":
    sys.exit(contract.run("notes_chinese", __doc__, measure, needs_data=False))
