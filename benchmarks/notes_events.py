"""Accident reports read: what kind of event, how bad, what injury.

    python benchmarks/notes_events.py --data DIR [--quick] [--json]

DIR holds a CSV (or .csv.gz) with the columns of OSHA's accident abstracts: summary_nr, Abstract Text, Event Description,
Event type, Degree of Injury, Nature of Injury. What is read is the title and the narrative (a passage that is told twice is
read once); coded columns and keywords are never inputs. Rows whose md5 of summary_nr is 0 to 2 modulo 10 are the test part;
settings, mixture and threshold come from inner folds of the rest. Ours: the reader's words and past cases from int8 tables.
Reference: TF-IDF of words, word pairs and pieces + linear SVM (penalty from inner folds), on the same texts. --quick: every
third row."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import csv
import gzip
import hashlib
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import readers

from protocol.reading.cases import CaseWeights
from protocol.reading.words import MOST_CHARACTERS, Shape
from server.algorithms.note_fusion import calibration_error
from server.algorithms.note_reader import Labelled, ReaderSettings, fit_reader
from server.algorithms.note_words import WordSettings

QUESTIONS = {"event type": "Event type", "degree of injury": "Degree of Injury", "nature of injury": "Nature of Injury"}
LEAST_OF_A_CLASS = 10
LONG = WordSettings(shape=Shape(consonants=False), least_notes=2)
SETTINGS = ReaderSettings(
    words=(replace(LONG, svm=0.25), replace(LONG, svm=1.0)),
    cases=CaseWeights(nearest=15, sharpness=4.0),
    folds=3,
    repeats=1,
)
"""Long narratives hold their words many times over: consonants of slips tell nothing more there."""


def read(path: Path) -> list[dict[str, str]]:
    """Rows by column."""
    whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(whole.decode("utf-8", errors="replace").splitlines()))


def text_of(row: dict[str, str]) -> str:
    """Title and narrative, a sentence that was told before left out."""
    sentences = [part.strip() for part in row["Abstract Text"].split(". ") if part.strip()]
    once = list(dict.fromkeys(sentences))
    return f"{row['Event Description'].strip()}. {'. '.join(once)}"[:MOST_CHARACTERS]


def is_test(name: str) -> bool:
    """The split: by a hash of the row's own number."""
    return int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % 10 < 3


def measure(sheet: contract.Sheet) -> None:
    """A row of accuracy and of calibration for every question that the folder has."""
    rows = [row for path in sheet.find(sheet.options.train, "*.csv", "*.csv.gz") for row in read(path)]
    if sheet.options.quick:
        rows = rows[::3]
    for called, column in QUESTIONS.items():
        question(sheet, called, column, [row for row in rows if row.get(column, "").strip()])


def question(sheet: contract.Sheet, called: str, column: str, rows: list[dict[str, str]]) -> None:
    """One column read."""
    test_rows = [row for row in rows if is_test(row["summary_nr"])]
    counted: dict[str, int] = {}
    for row in rows:
        if not is_test(row["summary_nr"]):
            counted[row[column].strip()] = counted.get(row[column].strip(), 0) + 1
    classes = sorted(name for name, many in counted.items() if many >= LEAST_OF_A_CLASS)
    if len(classes) < 2 or not test_rows:
        sheet.note(f"{called}: fewer than two classes with {LEAST_OF_A_CLASS} training rows, or no test row: left out")
        return
    train = _labelled([row for row in rows if not is_test(row["summary_nr"])], column, classes)
    test = _labelled(test_rows, column, classes)
    started = time.monotonic()
    fitted = fit_reader(train, SETTINGS)
    seconds = time.monotonic() - started
    reader, numbers = readers.shipped(fitted, train.texts)
    before = time.perf_counter()
    ours = readers.answers(reader, test.texts)
    per_note_ms = (time.perf_counter() - before) * 1e3 / len(test.texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = readers.linear_machine(train, test.texts, penalties=(0.25, 1.0))
    peers = {
        "nearest note": readers.neighbour(train, test.texts),
        "commonest class": readers.commonest(train, test.texts),
    }
    right, theirs = ours.labels == test.labels, reference.labels == test.labels
    sheet.row(
        f"{called}, {len(classes)} classes",
        "accuracy",
        float(right.mean()),
        reference=float(theirs.mean()),
        peers={name: float((said.labels == test.labels).mean()) for name, said in peers.items()},
        target=float(theirs.mean()),
        holds=None if sheet.options.quick else bool(right.mean() >= theirs.mean()),
        n=len(right),
        seconds=seconds,
        p_mcnemar=round(readers.exact_sign(right, theirs), 4),
        macro_f1=round(readers.macro_f1(test.labels, ours.labels, len(classes)), 4),
        reference_macro_f1=round(readers.macro_f1(test.labels, reference.labels, len(classes)), 4),
        parts=fitted.used,
        parameters=numbers,
        ms_per_note=round(per_note_ms, 3),
    )
    assert ours.chances is not None
    assert ours.sure is not None
    sure = ours.sure
    sheet.row(
        f"{called}: chance of the first class",
        "calibration error",
        calibration_error(ours.chances, test.labels),
        n=len(right),
        share_sure=round(float(sure.mean()), 4),
        right_where_sure=round(float(right[sure].mean()), 4) if sure.any() else None,
        right_where_not_sure=round(float(right[~sure].mean()), 4) if not sure.all() else None,
    )


def _labelled(rows: list[dict[str, str]], column: str, classes: list[str]) -> Labelled:
    known = [row for row in rows if row[column].strip() in classes]
    return Labelled(
        [text_of(row) for row in known], np.array([classes.index(row[column].strip()) for row in known]), classes
    )


if __name__ == "__main__":
    sys.exit(contract.run("notes_events", __doc__, measure))
