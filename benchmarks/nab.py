"""The Numenta Anomaly Benchmark's files, windows and scoring function (Lavin & Ahmad 2015, standard profile, raw scores)."""

from __future__ import annotations

import csv
import gzip
import json
import math
from dataclasses import dataclass
from pathlib import Path

import contract

FALSE_POSITIVE, FALSE_NEGATIVE = 0.11, 1.0


@dataclass(frozen=True)
class Stream:
    """One file. `windows`: first and last row of each labelled window."""

    name: str
    values: list[float]
    windows: list[tuple[int, int]]

    @property
    def probation(self) -> int:
        """Rows at the start that are not scored."""
        return min(math.floor(0.15 * len(self.values)), 750)


@dataclass(frozen=True)
class Scored:
    """NAB's raw score of one file, and what it is made of."""

    score: float
    windows_hit: int
    outside: int


def read(sheet: contract.Sheet) -> list[Stream]:
    """Every file of the label file that is present, rows in the file's order (one file steps back in time once)."""
    labels = sheet.find(sheet.options.test, "combined_windows.json")[0]
    streams = []
    for name, windows in json.loads(labels.read_text()).items():
        path = next((p for p in (labels.parent / f"{name}.gz", labels.parent / name) if p.is_file()), None)
        if path is None:
            continue
        sheet.find(path.parent, path.name)
        times, values = _columns(path)
        spans = [(times.index(first[:19]), times.index(last[:19])) for first, last in windows]
        streams.append(Stream(name, values, spans))
    return streams


def published(sheet: contract.Sheet) -> dict[str, dict[str, dict[str, float]]]:
    """detector -> file -> Score, TP, TN, FP, FN; empty if the table is not in the folder."""
    found = sorted(sheet.options.test.rglob("published_standard_scores.csv"))
    table: dict[str, dict[str, dict[str, float]]] = {}
    for path in found[:1]:
        sheet.find(path.parent, path.name)
        with path.open() as lines:
            for row in csv.DictReader(lines):
                figures = {k: float(row[k]) for k in ("Score", "TP", "TN", "FP", "FN")}
                table.setdefault(row["Detector"] or "null", {})[row["File"]] = figures
    return table


def score(stream: Stream, alarms: list[int]) -> Scored:
    """The first alarm in a window earns up to 1, more the earlier; a missed window costs 1; an alarm outside costs up to
    0.11, less shortly after a window."""
    best = [-FALSE_NEGATIVE] * len(stream.windows)
    outside, cost = 0, 0.0
    for row in alarms:
        if row < stream.probation:
            continue
        inside = next((i for i, (first, last) in enumerate(stream.windows) if first <= row <= last), None)
        if inside is None:
            outside += 1
            cost += FALSE_POSITIVE * _after(stream, row)
        else:
            first, last = stream.windows[inside]
            best[inside] = max(best[inside], _sigmoid(-(last - row + 1) / (last - first + 1)) / _sigmoid(-1.0))
    return Scored(sum(best) + cost, sum(b > -FALSE_NEGATIVE for b in best), outside)


def _after(stream: Stream, row: int) -> float:
    before = [window for window in stream.windows if window[1] < row]
    if not before:
        return -1.0
    first, last = before[-1]
    return _sigmoid((row - last) / max(last - first, 1))


def _sigmoid(position: float) -> float:
    return -1.0 if position > 3 else 2 / (1 + math.exp(5 * position)) - 1


def _columns(path: Path) -> tuple[list[str], list[float]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        rows = [row for row in csv.reader(lines) if len(row) == 2]
    return [row[0][:19] for row in rows[1:]], [float(row[1]) for row in rows[1:]]
