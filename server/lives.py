"""Recorded lives: a folder of CSV files becomes one frozen training set.

A row is one reading of one unit: `unit`, `time` (milliseconds or RFC 3339 with a zone), one column per signal, `failed` (1
in the last row of a unit that failed there; 0: its record ends while it still worked), and optionally `machine_type`. Times
of a unit are laid on the training grid; a unit's record begins when it was new."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from protocol.errors import Reason, Refused
from protocol.life_windows import Life
from protocol.observations import LAST_MS
from protocol.windows import MAX_BUCKETS, Floats, resample
from server.datasets import Snapshot, checked, frozen

LIFE = "life"
OWN_COLUMNS = ("unit", "time", "failed", "machine_type")
MOST_CELLS = 50_000_000


@dataclass(frozen=True)
class RecordedLives:
    """Every unit on one grid: `lives[i].signals` [T, len(signals)], its settings not yet split off."""

    machine_type: str
    step_ms: int
    signals: list[str]
    lives: list[Life]


@dataclass
class _Unit:
    times: list[int] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    failed: bool = False


def files(folder: Path) -> list[Path]:
    """The CSV files of a folder, by name; none for a folder that is not there."""
    return sorted(path for path in folder.glob("*.csv") if path.is_file()) if folder.is_dir() else []


def fingerprint(folder: Path) -> str:
    """Changes when a file comes, goes or changes; '' for no files."""
    found = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files(folder)]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16] if found else ""


def read_folder(folder: Path, step_ms: int) -> RecordedLives:
    """Every unit of every file, laid on a grid of step_ms. Raises Refused with the file and the remedy."""
    found = files(folder)
    if not found:
        raise Refused(Reason.NOT_ELIGIBLE, f"no *.csv in {folder}: put recorded lives there")
    units: dict[str, _Unit] = {}
    signals: list[str] = []
    types: set[str] = set()
    for path in found:
        try:
            _read_file(path, units, signals, types)
        except csv.Error as error:
            raise Refused(Reason.WRONG_TYPE, f"{path.name} is no table: {error}") from error
    if len(types) > 1:
        raise Refused(
            Reason.WRONG_TYPE, f"machine types {', '.join(sorted(types))} in one folder: give each a folder of its own"
        )
    if not units or not signals:
        raise Refused(Reason.NOT_ELIGIBLE, f"{folder}: no rows or no signal columns")
    lives = [_on_grid(name, unit, len(signals), step_ms) for name, unit in units.items()]
    if sum(life.signals.size for life in lives) > MOST_CELLS:
        raise Refused(Reason.TOO_LARGE, f"more than {MOST_CELLS} cells: use a longer step_ms or fewer units")
    return RecordedLives(types.pop(), step_ms, signals, lives)


def _read_file(path: Path, units: dict[str, _Unit], signals: list[str], types: set[str]) -> None:
    """Adds the rows of one file to what was read of the others."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        rows = csv.DictReader(lines)
        columns = list(rows.fieldnames or [])
        missing = [name for name in ("unit", "time", "failed") if name not in columns]
        if missing:
            raise Refused(Reason.WRONG_TYPE, f"{path.name}: no column {', '.join(missing)}")
        mine = [name for name in columns if name not in OWN_COLUMNS]
        signals += [name for name in mine if name not in signals]
        for number, row in enumerate(rows, start=2):
            types.add((row.get("machine_type") or "").strip())
            unit = units.setdefault((row["unit"] or "").strip(), _Unit())
            unit.times.append(_time(row["time"], path, number))
            unit.rows.append([_number(row.get(name)) for name in signals])
            unit.failed |= (row["failed"] or "").strip().lower() in ("1", "1.0", "true", "yes")


def freeze_lives(recorded: RecordedLives, artifacts: Path) -> Snapshot:
    """Writes the lives as .npz; the same lives give the same digest."""
    out = io.BytesIO()
    lengths = np.array([len(life) for life in recorded.lives], dtype=np.int64)
    np.savez(
        out,
        values=np.concatenate([life.signals for life in recorded.lives]),
        lengths=lengths,
        failed=np.array([life.failed for life in recorded.lives]),
        units=np.array([life.unit for life in recorded.lives], dtype=np.str_),
        signals=np.array(recorded.signals, dtype=np.str_),
        machine_type=np.array([recorded.machine_type], dtype=np.str_),
        step_ms=np.array([recorded.step_ms], dtype=np.int64),
    )
    described = {
        "units": len(recorded.lives),
        "failed": sum(life.failed for life in recorded.lives),
        "signals": recorded.signals,
        "step_ms": recorded.step_ms,
        "machine_type": recorded.machine_type,
    }
    return frozen(LIFE, out.getvalue(), "npz", int(lengths.sum()), described, artifacts)


def read_lives(path: Path, digest: str) -> RecordedLives:
    """Reads frozen lives; raises BadBundle (digest_mismatch) if the file was altered."""
    with np.load(io.BytesIO(checked(path, digest)), allow_pickle=False) as held:
        parts = np.split(held["values"], np.cumsum(held["lengths"])[:-1])
        lives = [
            Life(str(unit), part, np.zeros((len(part), 0)), bool(failed))
            for unit, part, failed in zip(held["units"], parts, held["failed"], strict=True)
        ]
        signals = [str(name) for name in held["signals"]]
        return RecordedLives(str(held["machine_type"][0]), int(held["step_ms"][0]), signals, lives)


def _on_grid(name: str, unit: _Unit, width: int, step_ms: int) -> Life:
    times = np.array(unit.times, dtype=np.int64)
    rows = np.full((len(times), width), np.nan)
    for i, row in enumerate(unit.rows):
        rows[i, : len(row)] = row
    start = int(times.min()) // step_ms * step_ms
    buckets = int((times.max() - start) // step_ms) + 1
    if buckets > MAX_BUCKETS:
        raise Refused(
            Reason.TOO_LARGE,
            f"unit {name!r} spans {buckets} steps of {step_ms} ms: its times are wrong, or use a longer step",
        )
    columns: list[Floats] = [resample(times, rows[:, s], start, step_ms, buckets) for s in range(width)]
    return Life(name, np.stack(columns, axis=1), np.zeros((buckets, 0)), unit.failed)


def _number(text: str | None) -> float:
    """The cell as a number; an empty one or a word is a reading that was not made."""
    try:
        return float(text) if text else np.nan
    except ValueError:
        return np.nan


def _time(text: str | None, path: Path, number: int) -> int:
    told = (text or "").strip()
    try:
        found = int(told)
    except ValueError:
        found = _stamp(told, path, number)
    if not 0 <= found <= LAST_MS:
        raise Refused(Reason.BAD_TIME, f"{path.name} line {number}: {told[:40]!r} is not between 1970 and 9999")
    return found


def _stamp(told: str, path: Path, number: int) -> int:
    try:
        at = datetime.fromisoformat(told)
    except ValueError as error:
        raise Refused(
            Reason.BAD_TIME, f"{path.name} line {number}: {told[:40]!r} is neither milliseconds nor RFC 3339"
        ) from error
    if at.tzinfo is None:
        raise Refused(Reason.NO_TIME_ZONE, f"{path.name} line {number}: {told[:40]!r} has no zone")
    return round(at.timestamp() * 1000)
