"""Operators' shorthand written in full, company by company.

    python benchmarks/notes_normalise.py --data DIR [--quick] [--json]

DIR holds folders with train.norm, val.norm and test.norm (or .norm.gz) in the format of MaintNorm: a token, a tab and what it
means a line, texts apart by an empty line. Case counts. Error reduction rate as published for lexical normalisation (van der
Goot 2019): (accuracy - accuracy of leaving everything) / (1 - accuracy of leaving everything), over tokens. Precision: share
of changed tokens that were changed rightly; recall: share of tokens in need of a change that were. The strength of the
penalty is chosen on val; test is read once, from the int8 tables as on a gateway. Reference in the same run: most-frequent
replacement. --quick: 600 texts of training, 150 of test."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import gzip
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from protocol.reading.normalise import Normaliser
from server.algorithms.shorthand import FittedShorthand, ShorthandSettings, Text, fit_shorthand

TARGET = 0.95
RIDGES = (3e-4, 1e-4, 3e-5)
Asked = Callable[[Sequence[str]], Sequence[str]]


def read(path: Path) -> list[Text]:
    """Texts of (token, what it means)."""
    whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    texts: list[list[tuple[str, str]]] = [[]]
    for line in whole.decode("utf-8").splitlines():
        raw, tab, norm = line.partition("\t")
        if tab:
            texts[-1].append((raw, norm))
        elif texts[-1]:
            texts.append([])
    return [text for text in texts if text]


def measure(sheet: contract.Sheet) -> None:
    """Rows of each company."""
    for train in sheet.find(sheet.options.train, "train*.norm", "train*.norm.gz"):
        company = train.parent.name
        val = [t for p in sheet.find(train.parent, "val*.norm", "val*.norm.gz") for t in read(p)]
        folder = sheet.options.test if sheet.options.test != sheet.options.train else train.parent
        test = [t for p in sheet.find(folder, "test*.norm", "test*.norm.gz") for t in read(p)]
        one_company(sheet, company, read(train), val, test)


def one_company(sheet: contract.Sheet, company: str, train: list[Text], val: list[Text], test: list[Text]) -> None:
    """Learned on train, its penalty chosen on val, asked on test."""
    if sheet.options.quick:
        train, test = train[:600], test[:150]
    started = time.monotonic()
    chosen = choose(sheet, train, val)
    seconds = time.monotonic() - started
    ours = Normaliser(chosen.tables(), chosen.texts()).tokens
    before = time.perf_counter()
    figures = scores(test, ours)
    ms = (time.perf_counter() - before) * 1e3 / max(len(test), 1)
    reference = scores(test, most_frequent(train))
    size = sum(t.nbytes for t in chosen.tables().values()) + sum(map(len, chosen.texts().values()))
    for metric in ("error reduction", "precision", "recall"):
        aimed = metric == "error reduction"
        sheet.row(
            f"{company}, shorthand to words",
            metric,
            figures[metric],
            reference=reference[metric],
            target=TARGET if aimed else None,
            holds=figures[metric] >= TARGET if aimed and not sheet.options.quick else None,
            n=sum(map(len, test)),
            seconds=seconds,
        )
        if aimed:
            sheet.rows[-1] |= {"ms_per_note": round(ms, 3), "bytes": size}


def choose(sheet: contract.Sheet, train: list[Text], val: list[Text]) -> FittedShorthand:
    """The penalty that does best on val."""
    best: tuple[float, FittedShorthand] | None = None
    for ridge in RIDGES[1:2] if sheet.options.quick else RIDGES:
        fitted = fit_shorthand(train, ShorthandSettings(ridge=ridge))
        reduced = scores(val, Normaliser(fitted.tables(), fitted.texts()).tokens)["error reduction"]
        sheet.say(f"penalty {ridge:g}: error reduction {reduced:.4f} on val")
        if best is None or reduced > best[0]:
            best = reduced, fitted
    assert best is not None
    return best[1]


def most_frequent(train: Sequence[Text]) -> Asked:
    """What each token, as it stands, most often became; an unseen one stays."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for text in train:
        for raw, norm in text:
            seen[raw][norm] += 1
    return lambda tokens: [seen[t].most_common(1)[0][0] if t in seen else t for t in tokens]


def scores(texts: Sequence[Text], ask: Asked) -> dict[str, float]:
    """error reduction, precision, recall."""
    right = needed = changed = mended = total = 0
    for text in texts:
        for (raw, norm), said in zip(text, ask([raw for raw, _ in text]), strict=True):
            total += 1
            right += said == norm
            needed += raw != norm
            changed += said != raw
            mended += said == norm != raw
    left = 1 - needed / max(total, 1)
    return {
        "error reduction": (right / max(total, 1) - left) / max(1 - left, 1e-12),
        "precision": mended / max(changed, 1),
        "recall": mended / max(needed, 1),
    }


if __name__ == "__main__":
    sys.exit(contract.run("notes_normalise", __doc__, measure))
