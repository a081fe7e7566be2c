"""What every benchmark shares: its options, its rows, its one JSON object. Importable by the scripts beside it.

    python benchmarks/NAME.py --data DIR [--train DIR --test DIR] [--quick] [--json]

A script finds its files in the folder by pattern, so any folder of the same format serves. Progress goes to stderr, the
result to stdout. One thread: the environment is set before numpy is imported, so a script imports this module first."""

from __future__ import annotations

import os

for _name in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NIXTLA_NUMBA_RELEASE_GIL",
):
    os.environ.setdefault(_name, "1")

import argparse
import hashlib
import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [str(ROOT), *(place for place in sys.path if place != str(ROOT))]
"""Before this folder, whose export.py is not the package of that name."""


@dataclass(frozen=True)
class Options:
    """train and test are `--data` unless given."""

    train: Path
    test: Path
    quick: bool
    subset: str
    seeds: int


@dataclass
class Sheet:
    """Rows as they come, and the files they were made from."""

    name: str
    options: Options
    files: list[Path] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)

    def find(self, folder: Path, *patterns: str) -> list[Path]:
        """Files of a folder (and below) that match one of the patterns, by name; ends the script if there are none."""
        found = sorted({path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()})
        if not found:
            raise SystemExit(
                f"{self.name}: no {' or '.join(patterns)} in {folder}: give a folder of that format with --data"
            )
        self.files += [path for path in found if path not in self.files]
        return found

    def say(self, text: str) -> None:
        """Progress."""
        sys.stderr.write(f"[{time.monotonic() - self.started_s:6.1f} s] {self.name}: {text}\n")
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """A fact that a reader of the table needs: an absent peer, a parameter's source, a limit."""
        self.notes.append(text)
        self.say(text)

    def row(
        self,
        what: str,
        metric: str,
        ours: float | None,
        *,
        reference: float | None = None,
        peers: dict[str, float | None] | None = None,
        target: float | None = None,
        holds: bool | None = None,
        n: int = 0,
        seconds: float = 0.0,
        **more: Any,
    ) -> None:
        """One line of the table. `holds` None: the target does not apply to this folder."""
        made: dict[str, Any] = {
            "what": what,
            "metric": metric,
            "ours": _short(ours),
            "reference": _short(reference),
            "peers": {name: _short(value) for name, value in (peers or {}).items()},
            "target": _short(target),
            "holds": None if holds is None else bool(holds),
            "n": int(n),
            "seconds": round(seconds, 2),
        }
        self.rows.append(made | more)
        verdict = {True: "holds", False: "MISSED", None: ""}[made["holds"]]
        self.say(f"{what}: {metric} {made['ours']} (reference {made['reference']}, peers {made['peers']}) {verdict}")

    def digest(self) -> str:
        """sha256 over the names and bytes of the files that were read."""
        whole = hashlib.sha256()
        for path in sorted(self.files, key=lambda p: p.name):
            whole.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()


def peer(sheet: Sheet, module: str) -> Any:
    """A peer's module, or None with a note that names the remedy."""
    try:
        return importlib.import_module(module)
    except ImportError:
        sheet.note(
            f"peer {module.split('.')[0]} is not installed (pip install 'millwright[bench]'); its figures are null"
        )
        return None


def run(
    name: str,
    doc: str | None,
    measure: Callable[[Sheet], None],
    argv: list[str] | None = None,
    *,
    needs_data: bool = True,
) -> int:
    """Parses the options, measures, prints. Exit status 0: measured, whatever the verdicts."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds the data set")
    parser.add_argument("--train", type=Path, help="folder of the training part, where the split is between folders")
    parser.add_argument("--test", type=Path, help="folder of the test part")
    parser.add_argument("--quick", action="store_true", help="a stated subset, for a first look")
    parser.add_argument("--subset", default="", help="which part of the data set, where it has several")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, where learning is random")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    given = parser.parse_args(argv)
    if not needs_data:
        given.data = given.data or Path()
    elif given.data is None and (given.train is None or given.test is None):
        parser.error("--data DIR, or both --train DIR and --test DIR")
    train, test = given.train or given.data, given.test or given.data
    for folder in (train, test):
        if not folder.is_dir():
            parser.error(f"{folder} is not a folder")
    sheet = Sheet(name, Options(train, test, given.quick, given.subset, given.seeds))
    measure(sheet)
    result = {
        "benchmark": name,
        "data_digest": sheet.digest(),
        "load_average": os.getloadavg()[0],
        "notes": sheet.notes,
        "rows": sheet.rows,
    }
    if given.json:
        print(json.dumps(result, ensure_ascii=False))
        return 0
    for r in sheet.rows:
        verdict = {True: "holds", False: "MISSED", None: ""}[r["holds"]]
        beside = ", ".join(f"{k} {v}" for k, v in r["peers"].items())
        against = f"ref {r['reference']!s:>9}  target {r['target']!s:>7}"
        print(f"{r['what']:44} {r['metric']:28} {r['ours']!s:>10}  {against}  {verdict}  {beside}")
    return 0


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{float(value):.6g}")
