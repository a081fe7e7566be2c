"""Remaining useful life on NASA C-MAPSS turbofans: RMSE, NASA score, and whether the distribution can be trusted.

Train on train_FDxxx only; test on the last window of every engine of test_FDxxx (short ones padded); labels of the test part
capped at 125 (the target's row) and raw (beside it). Scaling, operating conditions and the choice of sensors come from
training engines; the sharpness of the curves from training engines held out in turn. The settings of the algorithm were
chosen by cross-validation over training engines. The int8 graph is scored, as a gateway runs it, mean over seeds.

    python benchmarks/remaining_life.py --data DIR [--subset FD001] [--seeds 5] [--quick] [--json]

--quick: every second training engine, two seeds, a third of the epochs."""

from __future__ import annotations

import gzip
import re
import time
from dataclasses import replace
from pathlib import Path

import contract
import numpy as np
import torch
from numpy.typing import NDArray

from export.parity import Graph
from export.quantize import quantize
from export.to_onnx import to_onnx
from protocol.life_windows import Life, LifeSpec, read_answer, windows_of
from server.algorithms import remaining_life as algorithm
from server.algorithms.remaining_life import LifeSettings

Floats = NDArray[np.float64]
CAP = 125.0
TARGETS = {"FD001": 12.5, "FD002": 14.0, "FD003": 12.3, "FD004": 15.0}
SETTINGS = 3
SOON = 30.0
WINDOW = 20
"""Cycles in a window of the simple references."""


def measure(sheet: contract.Sheet) -> None:
    """One subset."""
    options = sheet.options
    subset = options.subset or subset_of(sheet.find(options.train, "train_FD*.txt*")[0])
    train = read(sheet.find(options.train, f"train_{subset}.txt*")[0])
    test = read(sheet.find(options.test, f"test_{subset}.txt*")[0])
    labels = np.loadtxt(sheet.find(options.test, f"RUL_{subset}.txt*")[0], ndmin=1)
    if len(labels) != len(test):
        raise SystemExit(f"RUL_{subset} has {len(labels)} labels for {len(test)} test engines")
    seeds = min(options.seeds, 2) if options.quick else options.seeds
    if options.quick:
        train = train[::2]
        sheet.note(f"--quick: {len(train)} training engines, {seeds} seeds, a third of the epochs")
    capped = np.minimum(labels, CAP)
    peers = references(sheet, train, test)
    runs = [ours(sheet, train, test, seed, options.quick) for seed in range(1, seeds + 1)]
    n, seconds = len(test), float(np.mean([run.seconds for run in runs]))
    wanted = None if options.quick else TARGETS.get(subset)
    rmses = [rmse(run.expected, capped) for run in runs]
    mean = float(np.mean(rmses))
    sheet.row(
        f"{subset}: remaining life, labels capped at {CAP:g}, int8, mean of {seeds} seeds",
        "RMSE cycles",
        mean,
        reference=rmse(peers["constant"], capped),
        peers={name: rmse(made, capped) for name, made in peers.items() if name != "constant"},
        target=wanted,
        holds=None if wanted is None else mean <= wanted,
        n=n,
        seconds=seconds,
        deviation=round(float(np.std(rmses)), 3),
        float_rmse=round(float(np.mean([rmse(run.float_expected, capped) for run in runs])), 3),
    )
    for what, metric, figure, goal in (
        ("raw labels", "RMSE cycles", rmse, labels),
        (f"labels capped at {CAP:g}", "NASA score", nasa, capped),
        ("raw labels", "NASA score", nasa, labels),
    ):
        sheet.row(
            f"{subset}: {what}",
            metric,
            float(np.mean([figure(run.expected, goal) for run in runs])),
            reference=figure(peers["constant"], goal),
            peers={name: figure(made, goal) for name, made in peers.items() if name != "constant"},
            n=n,
        )
    inside = [np.mean((run.low <= capped) & (capped <= run.high)) for run in runs]
    widths = [np.mean(run.high - run.low) for run in runs]
    sheet.row(
        f"{subset}: 80 % interval holds (mean width {np.mean(widths):.1f} cycles)",
        "share",
        float(np.mean(inside)),
        reference=0.8,
        n=n,
    )
    soon = labels <= SOON
    rate = float(np.mean(np.concatenate([np.arange(len(life)) < SOON for life in train])))
    sheet.row(
        f"{subset}: fails within {SOON:g} cycles",
        "Brier score",
        float(np.mean([np.mean((run.risk - soon) ** 2) for run in runs])),
        reference=float(np.mean((rate - soon) ** 2)),
        n=n,
    )
    sheet.row(
        f"{subset}: fails within {SOON:g} cycles",
        "AUC",
        float(np.mean([auc(run.risk, soon) for run in runs])),
        reference=0.5,
        n=n,
    )
    largest = max(run.parameters for run in runs)
    sheet.row(
        f"{subset}: size ({runs[0].int8_bytes} bytes int8, {runs[0].float_bytes} float)",
        "parameters",
        largest,
        target=100_000,
        holds=largest < 100_000,
    )


class Run:
    """One seed's answers for the last window of every test engine, in cycles."""

    def __init__(self, seconds: float, parameters: int, sizes: tuple[int, int]) -> None:
        self.seconds = seconds
        self.parameters = parameters
        self.float_bytes, self.int8_bytes = sizes
        self.expected = self.float_expected = self.low = self.high = self.risk = np.zeros(0)


def ours(sheet: contract.Sheet, train: list[Life], test: list[Life], seed: int, quick: bool) -> Run:
    """Learn, export, quantize, answer."""
    names = [f"s{i + 1}" for i in range(train[0].signals.shape[1])]
    wanted = LifeSpec(
        signals=names,
        settings=[f"setting{i + 1}" for i in range(SETTINGS)],
        cap=CAP,
        mean=[[0.0] * len(names)],
        scale=[[1.0] * len(names)],
    )
    settings = LifeSettings(seed=seed)
    if quick:
        settings = replace(settings, epochs=max(settings.epochs // 3, 1))
    started = time.monotonic()
    conditions = operating_conditions(train)
    spec = algorithm.learn_spec(train, wanted, conditions, seed)
    net = algorithm.fit(algorithm.keep_signals(train, names, spec), spec, settings, lambda *_: None)
    seconds = time.monotonic() - started
    kept = algorithm.keep_signals(test, names, spec)
    last = [windows_of(life, spec, np.array([len(life) - 1]))[0] for life in kept]
    x = np.concatenate(last)
    graph = to_onnx(net, torch.from_numpy(x[:2].copy() if len(x) > 1 else np.repeat(x, 2, axis=0)))
    small = quantize(graph)
    run = Run(seconds, algorithm.parameters(net), (len(graph), len(small)))
    told = read_answer(Graph(small)(x), spec)
    run.expected = told.expected
    run.float_expected = read_answer(algorithm.answer(net, x), spec).expected
    run.low, run.high = told.quantile(0.1), told.quantile(0.9)
    run.risk = told.fails_within(SOON)
    sheet.say(
        f"seed {seed}: {len(spec.signals)} sensors, {len(spec.conditions)} conditions, {seconds:.1f} s, "
        f"sharpness {float(net.sharpness):.2f}"
    )
    return run


def operating_conditions(train: list[Life]) -> int:
    """One condition where the settings hardly move, six where they do: how many distinct rounded settings there are."""
    rows = np.concatenate([life.settings for life in train])
    return min(len(np.unique(np.round(rows, 1), axis=0)), 6) if len(rows) else 1


def references(sheet: contract.Sheet, train: list[Life], test: list[Life]) -> dict[str, Floats]:
    """Constant, ridge and gradient boosting on features of the last window (mean, deviation, last value, change)."""
    x = np.concatenate([features(life, np.arange(len(life))) for life in train])
    y = np.concatenate([np.minimum(CAP, len(life) - 1 - np.arange(len(life))) for life in train])
    last = np.concatenate([features(life, np.array([len(life) - 1])) for life in test])
    center, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    x, last = (x - center) / scale, (last - center) / scale
    made = {"constant": np.full(len(test), y.mean())}
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    weights = np.linalg.solve(design.T @ design + np.eye(design.shape[1]), design.T @ y)
    made["ridge"] = np.clip(np.concatenate([last, np.ones((len(last), 1))], axis=1) @ weights, 0, CAP)
    if contract.peer(sheet, "sklearn.ensemble") is not None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        booster = HistGradientBoostingRegressor(random_state=0).fit(x, y)
        made["hist_gradient_boosting"] = np.clip(booster.predict(last), 0, CAP)
    return made


def features(life: Life, at: NDArray[np.int64]) -> Floats:
    """[n, 4 * columns] of the last WINDOW cycles."""
    rows = np.concatenate([life.settings, life.signals], axis=1)
    found = []
    for t in at:
        part = rows[max(0, t + 1 - WINDOW) : t + 1]
        found.append(np.concatenate([part.mean(axis=0), part.std(axis=0), part[-1], part[-1] - part[0]]))
    return np.asarray(found)


def read(path: Path) -> list[Life]:
    """Every unit of a file: unit, cycle, three settings, sensors; by unit, in the order of cycles."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        table = np.loadtxt(lines, ndmin=2)
    units: list[Life] = []
    for unit in dict.fromkeys(table[:, 0].tolist()):
        rows = table[table[:, 0] == unit]
        rows = rows[np.argsort(rows[:, 1], kind="stable")]
        units.append(Life(str(int(unit)), rows[:, 2 + SETTINGS :], rows[:, 2 : 2 + SETTINGS]))
    return units


def subset_of(path: Path) -> str:
    """FD001 of train_FD001.txt.gz."""
    found = re.search(r"FD\w+?(?=\.)", path.name)
    if found is None:
        raise SystemExit(f"{path.name}: a file of the form train_FDxxx.txt is needed")
    return found.group()


def rmse(answer: Floats, labels: Floats) -> float:
    """Root mean square error, cycles."""
    return float(np.sqrt(np.mean((answer - labels) ** 2)))


def nasa(answer: Floats, labels: Floats) -> float:
    """The PHM08 score: a late answer costs more than an early one (Saxena et al. 2008)."""
    d = answer - labels
    return float(np.sum(np.where(d < 0, np.exp(-d / 13) - 1, np.exp(d / 10) - 1)))


def auc(score: Floats, positive: NDArray[np.bool_]) -> float:
    """Chance that a positive scores above a negative; 0.5 where there is only one kind."""
    if positive.all() or not positive.any():
        return 0.5
    above = score[positive][:, None] - score[~positive][None]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


if __name__ == "__main__":
    raise SystemExit(contract.run("remaining_life", __doc__, measure))
