"""What maintenance notes name: exact spans with their class, where one entity may lie inside another.

    python benchmarks/notes_entities.py --data DIR [--quick] [--json]

DIR holds gold_release*.json(.gz) in the format of MaintIE: text, tokens, entities [start, end, type]. The class is the first
part of the type (5 classes). The last 108 texts in file order are the test, as published; the rest is for learning.
Exact-span micro F1. Settings and the lean towards telling are chosen inside the learning part, whose last texts are like the
test (the file is sorted). Folders beside DIR are used where they are there, and the rows say with which: mwo2kg_ner (other
notes, labelled in another scheme: an earlier tagger), maintnorm (unlabelled notes: vectors of words). Reference: longest
match of what was named in learning; peer: a softmax over B, I, O of each token. --quick: every third text of learning."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import gzip
import json
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from protocol.reading.spans import Span, stem
from server.algorithms.span_tagger import SpanSettings, SpanText, fit_spans

TEST = 108
TARGET, STRETCH = 0.874, 0.895
AGREED = 2
"""Annotators who must agree in the folder beside."""
Named = dict[Span, str]
Asked = Callable[[Sequence[str]], Named]


def opened(path: Path) -> str:
    """A file's text, unpacked."""
    whole = path.read_bytes()
    return (gzip.decompress(whole) if path.suffix == ".gz" else whole).decode("utf-8")


def read(path: Path) -> list[SpanText]:
    """Texts with their entities, by class."""
    return [
        SpanText(row["tokens"], {(e["start"], e["end"]): e["type"].split("/")[0] for e in row["entities"]})
        for row in json.loads(opened(path))
    ]


def other_scheme(path: Path) -> list[SpanText]:
    """Notes whose mentions several annotators marked; those that AGREED of them share."""
    return [_agreed(json.loads(line)) for line in opened(path).splitlines() if line.strip()]


def _agreed(row: dict[str, Any]) -> SpanText:
    votes = Counter((m["start"], m["end"], m["labels"][0].split("/")[0]) for m in row["mentions"] if m["labels"])
    found: Named = {}
    for (start, end, kind), times in votes.most_common():
        if times >= AGREED:
            found.setdefault((start, end), kind)
    return SpanText(row["tokens"], found)


def plain_texts(path: Path) -> Iterator[list[str]]:
    """Words of texts without labels (the written form of MaintNorm)."""
    for block in opened(path).split("\n\n"):
        yield [word for line in block.splitlines() for word in line.partition("\t")[2].split()]


def measure(sheet: contract.Sheet) -> None:
    """Rows with the folders beside and without them."""
    texts = [t for p in sheet.find(sheet.options.train, "gold_release*.json", "gold_release*.json.gz") for t in read(p)]
    learn, test = texts[:-TEST], texts[-TEST:]
    if sheet.options.test != sheet.options.train:
        learn, test = texts, read(sheet.find(sheet.options.test, "gold_release*.json", "gold_release*.json.gz")[0])
    if sheet.options.quick:
        learn = learn[::3]
    reference, peers = micro(test, longest_match(learn)), {"BIO softmax": micro(test, token_tagger(learn))}
    unlabelled, earlier = beside(sheet)
    if unlabelled or earlier:
        _row(sheet, "with notes from beside", learn, test, unlabelled, earlier, reference, peers)
    _row(sheet, "these notes alone", learn, test, [], [], reference, peers)


def beside(sheet: contract.Sheet) -> tuple[list[list[str]], list[SpanText]]:
    """(unlabelled texts, texts labelled in another scheme) of the folders beside; empty where there are none."""
    around = sheet.options.train.resolve().parent
    unlabelled, earlier = around / "maintnorm", around / "mwo2kg_ner"
    for folder in (unlabelled, earlier):
        if not folder.is_dir():
            sheet.note(f"no folder {folder.name} beside the data: learned without it")
    plain = sheet.find(unlabelled, "train*.norm", "train*.norm.gz") if unlabelled.is_dir() else []
    marked = sheet.find(earlier, "*_[0-9]*.json", "*_[0-9]*.json.gz") if earlier.is_dir() else []
    return [t for p in plain for t in plain_texts(p)], [t for p in marked for t in other_scheme(p)]


def _row(
    sheet: contract.Sheet,
    how: str,
    learn: Sequence[SpanText],
    test: Sequence[SpanText],
    unlabelled: Sequence[Sequence[str]],
    earlier: Sequence[SpanText],
    reference: dict[str, float],
    peers: dict[str, dict[str, float]],
) -> None:
    started = time.monotonic()
    fitted = fit_spans(learn, SpanSettings(), unlabelled=[*unlabelled, *(t.tokens for t in earlier)], earlier=earlier)
    seconds = time.monotonic() - started
    tagger = fitted.tagger()
    before = time.perf_counter()
    figures = micro(test, lambda tokens: {span: kind for span, (kind, _) in tagger.spans(tokens).items()})
    ms = (time.perf_counter() - before) * 1e3 / max(len(test), 1)
    first = not earlier and not unlabelled
    sheet.row(
        f"5 classes, {how}",
        "span micro F1",
        figures["f1"],
        reference=reference["f1"],
        peers={name: value["f1"] for name, value in peers.items()},
        target=None if first else TARGET,
        holds=None if first or sheet.options.quick else figures["f1"] >= TARGET,
        n=sum(len(t.entities) for t in test),
        seconds=seconds,
        precision=round(figures["precision"], 4),
        recall=round(figures["recall"], 4),
        stretch=STRETCH,
        lean=fitted.lean,
        ms_per_note=round(ms, 2),
        bytes=sum(t.nbytes for t in fitted.tables().values()),
    )


def micro(texts: Sequence[SpanText], ask: Asked) -> dict[str, float]:
    """f1, precision, recall of exact spans with their class."""
    right = said = there = 0
    for text in texts:
        found = ask(text.tokens)
        right += len(set(found.items()) & set(text.entities.items()))
        said += len(found)
        there += len(text.entities)
    return {"f1": 2 * right / max(said + there, 1), "precision": right / max(said, 1), "recall": right / max(there, 1)}


def longest_match(learn: Sequence[SpanText]) -> Asked:
    """From the left, the longest run of words that was named in learning, by its commonest class."""
    known: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for text in learn:
        for (start, end), kind in text.entities.items():
            known[tuple(w.lower() for w in text.tokens[start:end])][kind] += 1
    longest = max(map(len, known), default=1)

    def ask(tokens: Sequence[str]) -> Named:
        low, found, at = [w.lower() for w in tokens], {}, 0
        while at < len(low):
            size = next(
                (n for n in range(longest, 0, -1) if tuple(low[at : at + n]) in known and at + n <= len(low)), 0
            )
            if size:
                found[at, at + size] = known[tuple(low[at : at + size])].most_common(1)[0][0]
            at += max(size, 1)
        return found

    return ask


def token_tagger(learn: Sequence[SpanText]) -> Asked:
    """B, I or O for each token by a softmax over it and its neighbours; of nested entities the longest is kept."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = [_token(t.tokens, i) for t in learn for i in range(len(t.tokens))]
    labels = [label for t in learn for label in _begun(t)]
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=3.0, max_iter=100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, labels)

    def ask(tokens: Sequence[str]) -> Named:
        found: Named = {}
        start = 0
        for i, label in enumerate(model.predict([_token(tokens, i) for i in range(len(tokens))])):
            mark, _, kind = str(label).partition("-")
            if mark == "I" and i and found.get((start, i)) == kind:
                del found[start, i]
                found[start, i + 1] = kind
            elif mark != "O":
                start = i
                found[start, i + 1] = kind
        return found

    return ask


def _token(tokens: Sequence[str], i: int) -> dict[str, bool]:
    low = ["^", "^", *(w.lower() for w in tokens), "$", "$"]
    word, at = low[i + 2], i + 2
    named = [f"{k}:{low[at + k]}" for k in range(-2, 3)] + [f"{k}s:{stem(low[at + k])}" for k in (-1, 0, 1)]
    named += [f"e{n}:{word[-n:]}" for n in (2, 3, 4)] + [f"b{n}:{word[:n]}" for n in (2, 3)]
    return dict.fromkeys([*named, f"l:{low[at - 1]} {word}", f"r:{word} {low[at + 1]}"], True)


def _begun(text: SpanText) -> list[str]:
    labels = np.full(len(text.tokens), "O", dtype=object)
    for (start, end), kind in sorted(text.entities.items(), key=lambda one: one[0][1] - one[0][0]):
        labels[start] = f"B-{kind}"
        labels[start + 1 : end] = f"I-{kind}"
    return [str(label) for label in labels]


if __name__ == "__main__":
    sys.exit(contract.run("notes_entities", __doc__, measure))
