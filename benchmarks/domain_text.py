"""Maintenance texts of the data sets beside a benchmark's folder (training parts only), for pre-training within benchmarks
alone: an encoder that has read them is never shipped. Importable by the scripts beside it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from server.training.pretraining import TextPair


@dataclass(frozen=True)
class DomainText:
    """texts: single ones. pairs: a problem and what was done. likenesses: a text as written and in full."""

    texts: list[str] = field(default_factory=list)
    pairs: list[TextPair] = field(default_factory=list)
    likenesses: list[TextPair] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def domain_text(beside: Path) -> DomainText:
    """What there is in the folders of `beside`: maintnorm, maintie, mwo2kg_ner, maintnet_aviation. A folder that is not there
    is left out."""
    found = DomainText()
    for name, read in (
        ("maintnorm", _norm),
        ("maintie", _maintie),
        ("mwo2kg_ner", _mwo2kg),
        ("maintnet_aviation", _logs),
    ):
        if (beside / name).is_dir():
            read(beside / name, found)
            found.sources.append(name)
    return found


def _lines(path: Path) -> Iterator[str]:
    body = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    yield from io.StringIO(body.decode("utf-8"))


def _norm(folder: Path, found: DomainText) -> None:
    """raw<TAB>normalised token a line, a blank line between texts."""
    for path in sorted(folder.glob("*/train.norm*")):
        for block in "".join(_lines(path)).split("\n\n"):
            rows = [line.split("\t") for line in block.splitlines() if line]
            raw, full = (" ".join(row[side] for row in rows if len(row) > side).strip() for side in (0, 1))
            if raw:
                found.texts.append(raw)
            if raw and full and raw.lower() != full.lower():
                found.texts.append(full)
                found.likenesses.append(TextPair(raw, full))


def _maintie(folder: Path, found: DomainText) -> None:
    """The last 108 texts are the published test."""
    for path in sorted(folder.glob("gold_release*.json*")):
        found.texts.extend([one["text"] for one in json.loads("".join(_lines(path)))[:-108]])


def _mwo2kg(folder: Path, found: DomainText) -> None:
    for path in sorted(folder.glob("train_*.json*")):
        found.texts.extend([" ".join(json.loads(line)["tokens"]) for line in _lines(path) if line.strip()])
    for path in sorted(folder.glob("work_orders*.csv*")):
        found.texts.extend([row["ShortText"] for row in csv.DictReader(io.StringIO("".join(_lines(path))))])


def _logs(folder: Path, found: DomainText) -> None:
    for path in sorted(folder.glob("logs_train*.csv*")):
        for row in csv.DictReader(io.StringIO("".join(_lines(path)))):
            problem, action = row["PROBLEM"].strip(), row["ACTION"].strip()
            if problem and action:
                found.texts.extend([problem, action])
                found.pairs.append(TextPair(problem, action, corpus=1))
