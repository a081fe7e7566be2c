"""Recorded files, row by row, as they are: unsorted and repeated rows too. NAB (`timestamp,value`), SKAB (`;`, label
columns are never published) and any CSV with a time column."""

from __future__ import annotations

import csv
import glob
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from protocol.errors import BadSettings

LONGEST_LINE = 1_000_000
LABELS = {"anomaly", "changepoint", "label", "is_anomaly"}


@dataclass(frozen=True, slots=True)
class Recording:
    """One file: its machine name and how its columns are called."""

    path: Path
    machine: str
    time_column: str
    value_columns: tuple[str, ...]
    delimiter: str


def find(patterns: list[str]) -> list[Path]:
    """Files that match, sorted; raises BadSettings if there are none."""
    found = sorted({Path(p) for pattern in patterns for p in glob.glob(pattern)})  # noqa: PTH207 - patterns may be absolute
    if not found:
        raise BadSettings(f"no file matches {' '.join(patterns)}")
    return found


def recognise(path: Path, time_column: str = "") -> Recording:
    """Reads the head of a file; raises BadSettings naming what is missing."""
    with open_text(path) as file:
        try:
            head = file.readline(LONGEST_LINE)
        except (EOFError, zlib.error, OSError) as error:
            raise BadSettings(f"{path} cannot be read: {error}") from error
    delimiter = max(",;\t", key=head.count)
    columns = [c.strip().strip('"') for c in head.strip().split(delimiter)]
    time = time_column or next((c for c in columns if c.lower() in {"timestamp", "datetime", "time", "date"}), "")
    if time not in columns:
        raise BadSettings(f"{path}: no time column {time_column!r}; it has {columns}. Give --time-column")
    values = tuple(c for c in columns if c != time and c.lower() not in LABELS and c)
    if not values:
        raise BadSettings(f"{path}: no value column beside {time!r}")
    return Recording(path, path.name.split(".")[0], time, values, delimiter)


def rows(recording: Recording) -> Iterator[tuple[int, dict[str, str]]]:
    """(time_ms, column -> text). A stamp without a zone is read as UTC; a row whose time cannot be read has time -1."""
    with open_text(recording.path) as file:
        try:
            for row in csv.DictReader(_lines(file, recording.path), delimiter=recording.delimiter):
                yield (
                    to_ms(row.get(recording.time_column) or ""),
                    {c: row.get(c) or "" for c in recording.value_columns},
                )
        except (csv.Error, EOFError, zlib.error, OSError) as error:
            raise BadSettings(f"{recording.path} cannot be read to its end: {error}") from error


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Its lines, of which none is without an end."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise BadSettings(f"{path}: a line of {LONGEST_LINE} characters or more is none of a table")
        yield line


def open_text(path: Path) -> TextIO:
    """A file as text, compressed by gzip or not."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def to_ms(text: str) -> int:
    """ISO text or epoch seconds as milliseconds UTC; -1 if it is neither."""
    try:
        return round(float(text) * 1000)
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return -1
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def mapping_toml(line: str) -> str:
    """The mapping file of the replay's gateway."""
    return (
        f'[[source]]\ntopic = "plant/{line}/{{machine}}/telemetry"\neach = "$.tags.*"\nsignal = "@key"\n'
        'value = "$.value"\nroot_time = "$.timestamp"\n'
    )
