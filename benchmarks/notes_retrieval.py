"""Past cases found: a problem was written down; what fixed the most alike ones?

    python benchmarks/notes_retrieval.py --data DIR [--quick] [--json]

DIR holds a CSV (or .csv.gz) with the columns PROBLEM and ACTION, as MaintNet's aviation logbook. Problems that are the same
words are one group; groups whose md5 is 0 to 2 modulo 10 are the test part, so every tested problem text is unseen. Beside
it, rows are split by their own hash and those whose problem text was seen are scored apart. Judged: unigram F1 of the first
retrieved action with the true one, and recall@5: how often the same words (numbers aside) stand among the first five
different actions. Ours: `protocol.reading.cases`, the nearest notes and among them the action that agrees best with the rest;
its settings are chosen on inner groups of the training part. Reference: the action of BM25's first (k1 1.5, b 0.75, as is
usual); peers: TF-IDF cosine's first, the commonest action, and BM25 with our choice among its list. --quick: every fourth
row."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import csv
import gzip
import hashlib
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protocol.reading.cases import Cases, CaseWeights, Found, agreed
from protocol.reading.notes import PastNote
from protocol.reading.words import split
from protocol.windows import Floats

K1, B = 1.5, 0.75
SHOWN = 5
GRID = [
    CaseWeights(pieces=pieces, nearest=1, fixes=fixes, sharpness=sharpness)
    for pieces in (0.5, 1.0)
    for fixes in (20, 60, 150)
    for sharpness in (3.0, 6.0)
]
_WORD = re.compile(r"[a-z]+|[0-9]+")


@dataclass(frozen=True)
class Line:
    """One line of the logbook."""

    problem: str
    action: str


def read(path: Path) -> list[Line]:
    """Lines that have both."""
    whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = csv.DictReader(whole.decode("utf-8", errors="replace").splitlines())
    if not {"PROBLEM", "ACTION"} <= set(rows.fieldnames or ()):
        return []
    return [
        Line(row["PROBLEM"].strip(), row["ACTION"].strip())
        for row in rows
        if (row["PROBLEM"] or "").strip() and words(row["ACTION"] or "")
    ]


def words(text: str) -> Counter[str]:
    """A bag of words."""
    return Counter(_WORD.findall(text.lower()))


def group(line: Line) -> str:
    """Problems of the same words are the same."""
    return " ".join(split(line.problem).words)


def part(name: str, of: int = 10) -> int:
    """A number from 0 to of - 1 that belongs to a name."""
    return int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % of


Finder = Callable[[str], Sequence[str]]
"""Actions for a problem, best first."""


def ours(train: Sequence[Line], weights: CaseWeights) -> Finder:
    """The gateway's past cases."""
    cases = Cases([_past(i, line) for i, line in enumerate(train)], weights)
    return lambda problem: [one.past.fixed_by[0] for one in agreed(cases.nearest(problem), weights.sharpness)]


def cosine(train: Sequence[Line]) -> Finder:
    """The nearest without a choice among them."""
    cases = Cases([_past(i, line) for i, line in enumerate(train)], CaseWeights(nearest=1))
    return lambda problem: [one.past.fixed_by[0] for one in cases.nearest(problem)]


def _past(number: int, line: Line) -> PastNote:
    return PastNote(case=str(number), text=line.problem, fixed_by=[line.action[:128]])


class Okapi:
    """BM25 over words (Robertson & Zaragoza 2009)."""

    def __init__(self, train: Sequence[Line]) -> None:
        bags = [words(line.problem) for line in train]
        length = np.array([sum(bag.values()) for bag in bags], dtype=np.float64)
        self._lines = train
        self._norm = K1 * (1 - B + B * length / max(length.mean(), 1e-9))
        self._at: dict[str, list[tuple[int, int]]] = {}
        for i, bag in enumerate(bags):
            for word, n in bag.items():
                self._at.setdefault(word, []).append((i, n))

    def scores(self, problem: str) -> Floats:
        """[N]"""
        total, many = np.zeros(len(self._lines)), len(self._lines)
        for word in words(problem):
            held = self._at.get(word, [])
            rarity = np.log(1 + (many - len(held) + 0.5) / (len(held) + 0.5))
            for i, n in held:
                total[i] += rarity * n * (K1 + 1) / (n + self._norm[i])
        return total

    def __call__(self, problem: str) -> list[str]:
        order = np.argsort(-self.scores(problem), kind="stable")[:50]
        return [self._lines[i].action for i in order]

    def chosen(self, problem: str, weights: CaseWeights) -> list[str]:
        """With our choice among its list."""
        scores = self.scores(problem)
        order = np.argsort(-scores, kind="stable")[: weights.fixes]
        best = max(float(scores[order[0]]), 1e-9)
        found = [Found(_past(int(i), self._lines[i]), float(scores[i]) / best, np.zeros(0)) for i in order]
        return [one.past.fixed_by[0] for one in agreed(found, weights.sharpness)]


def judged(find: Finder, test: Sequence[Line]) -> tuple[Floats, Floats]:
    """([N] F1 of the first action, [N] whether the right one is among the first five different ones)."""
    first, among = np.zeros(len(test)), np.zeros(len(test))
    for i, line in enumerate(test):
        found = list(dict.fromkeys(find(line.problem)))
        truth = words(line.action)
        if found:
            first[i] = overlap(words(found[0]), truth)
        among[i] = any(_bare(words(action)) == _bare(truth) for action in found[:SHOWN])
    return first, among


def overlap(said: Counter[str], truth: Counter[str]) -> float:
    """Unigram F1."""
    return 2 * sum((said & truth).values()) / max(sum(said.values()) + sum(truth.values()), 1)


def _bare(bag: Counter[str]) -> Counter[str]:
    return Counter({word: n for word, n in bag.items() if not word.isdigit()})


def chosen_weights(train: Sequence[Line], sheet: contract.Sheet) -> CaseWeights:
    """By F1 on inner groups."""
    inner = [line for line in train if part("inner" + group(line), 5) > 0]
    held = [line for line in train if part("inner" + group(line), 5) == 0]
    tried = [(float(judged(ours(inner, weights), held)[0].mean()), -i, weights) for i, weights in enumerate(GRID)]
    best = max(tried, key=lambda one: one[:2])
    sheet.say(f"inner F1 {best[0]:.4f} with {best[2]}")
    return best[2]


def measure(sheet: contract.Sheet) -> None:
    """Rows for unseen and for seen problem texts."""
    lines = [line for path in sheet.find(sheet.options.train, "*.csv", "*.csv.gz") for line in read(path)]
    if sheet.options.quick:
        lines = lines[::4]
    if not lines:
        sheet.note("no file with the columns PROBLEM and ACTION: nothing to measure")
        return
    train = [line for line in lines if part(group(line)) > 2]
    test = [line for line in lines if part(group(line)) <= 2]
    weights = chosen_weights(train, sheet)
    compared(sheet, "unseen problem texts", train, test, weights, target=True)
    rows = [part(f"{i}") > 2 for i in range(len(lines))]
    known = [line for line, kept in zip(lines, rows, strict=True) if kept]
    seen = {group(line) for line in known}
    again = [line for line, kept in zip(lines, rows, strict=True) if not kept and group(line) in seen]
    if again:
        compared(sheet, "problem texts that were seen", known, again, weights, target=False)


def compared(
    sheet: contract.Sheet, what: str, train: Sequence[Line], test: Sequence[Line], weights: CaseWeights, *, target: bool
) -> None:
    """F1 and recall@5 of ours, BM25 and the peers."""
    started = time.monotonic()
    finder = ours(train, weights)
    mine = judged(finder, test)
    seconds = time.monotonic() - started
    okapi = Okapi(train)
    theirs = judged(okapi, test)
    common = [action for action, _ in Counter(line.action for line in train).most_common(SHOWN)]
    peers = {
        "TF-IDF cosine": judged(cosine(train), test),
        "commonest action": judged(lambda _problem: common, test),
        "BM25, our choice": judged(lambda problem: okapi.chosen(problem, weights), test),
    }
    difference = mine[0] - theirs[0]
    error = float(difference.std(ddof=1)) / len(test) ** 0.5 if len(test) > 1 else float("nan")
    for column, metric in enumerate(("unigram F1", "recall@5")):
        value, reference = float(mine[column].mean()), float(theirs[column].mean())
        wanted = target and metric == "unigram F1"
        sheet.row(
            what,
            metric,
            value,
            reference=reference,
            peers={name: float(figures[column].mean()) for name, figures in peers.items()},
            target=reference if wanted else None,
            holds=None if sheet.options.quick or not wanted else value > reference,
            n=len(test),
            seconds=seconds,
            **(
                {"difference": round(float(difference.mean()), 4), "standard_error": round(error, 4)}
                if column == 0
                else {}
            ),
        )


if __name__ == "__main__":
    sys.exit(contract.run("notes_retrieval", __doc__, measure))
