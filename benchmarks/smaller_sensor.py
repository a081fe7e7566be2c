"""The part of `smaller.py` that forecasts: seven columns of ETTh1, a day ahead, by one network."""

from __future__ import annotations

import csv
import gzip
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import contract
import numpy as np
import torch
from numpy.typing import NDArray
from smaller_rows import Task, pruned_rows, student_row

from export.compact import bare
from export.parity import Graph
from export.quantize import quantize
from export.to_onnx import to_onnx
from protocol.windows import WindowSpec
from server import evaluation
from server.algorithms import lstm
from server.training.forecast_smaller import Schooling, taught_by

Floats = NDArray[np.float64]
TRAIN, CHECK, VALID, TEST = 7200, 8640, 11520, 14400
"""Learned from, stopped early on; settings were chosen on the rows from CHECK to VALID."""
SPEC = WindowSpec(step_ms=3_600_000, length=72, horizon=24, season=24)
TEACHER, STUDENT = 64, 16
SETTINGS = lstm.LstmSettings(epochs=8, batch=128, most_windows=5000, dropout=0.05)


@dataclass(frozen=True)
class Asked:
    """Windows and what came, in deviations of the training rows."""

    lessons: lstm.Lessons
    center: Floats
    scale: Floats
    truth: Floats

    def error(self, net: lstm.QuantileLstm) -> float:
        """Mean absolute error of the medians."""
        said = lstm.answer(net, self.lessons.x, self.lessons.who)[:, :, lstm.MIDDLE]
        return float(np.abs(said * self.scale[:, None] + self.center[:, None] - self.truth).mean())


def read(path: Path) -> tuple[Floats, int]:
    """(columns [7, rows], standardised by the rows before CHECK; time of the first row)."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        table = list(csv.reader(lines))
    values = np.array([[float(cell) for cell in row[1:]] for row in table[1:]]).T
    if values.shape[1] < TEST:
        raise SystemExit(f"{path.name}: {values.shape[1]} rows; the split needs {TEST}")
    first = datetime.fromisoformat(table[1][0]).replace(tzinfo=UTC)
    learned = values[:, :CHECK]
    scaled = (values - learned.mean(axis=1, keepdims=True)) / learned.std(axis=1, keepdims=True)
    return scaled, int(first.timestamp() * 1000)


def asked(values: Floats, start_ms: int, at: NDArray[np.int64]) -> Asked:
    """Every column's window at each of the places."""
    made = evaluation.input_windows(values, start_ms, at, SPEC)
    truth = np.stack([values[:, i : i + SPEC.horizon] for i in at], axis=1).reshape(-1, SPEC.horizon)
    y = np.clip((truth - made.center[:, None]) / made.scale[:, None], -20, 20).astype(np.float32)
    who = np.repeat(np.array([[1, column + 1] for column in range(len(values))]), len(at), axis=0)
    return Asked(lstm.Lessons(made.x, y, who), made.center, made.scale, truth)


def measure(sheet: contract.Sheet, path: Path) -> None:
    """Student and pruned network."""
    quick = sheet.options.quick
    values, start_ms = read(path)
    every = 40 if quick else 7
    learn = asked(values, start_ms, np.arange(SPEC.context, TRAIN - SPEC.horizon, every)).lessons
    check = asked(values, start_ms, np.arange(TRAIN, CHECK - SPEC.horizon, 11)).lessons
    test = asked(values, start_ms, np.arange(VALID, TEST - SPEC.horizon + 1, 60 if quick else 6))
    settings = replace(SETTINGS, epochs=1 if quick else SETTINGS.epochs)
    school = Schooling(learn, check, settings, 1, len(values))
    began = time.monotonic()
    seeds = [replace(school, settings=replace(settings, seed=seed)) for seed in range(1, _seeds(sheet) + 1)]
    wholes = [one.fitted(TEACHER, _quiet) for one in seeds[: 2 if quick else 3]]
    teacher = wholes[0]
    sheet.say(f"teacher: {test.error(teacher):.4f}")
    alone = [one.fitted(STUDENT, _quiet) for one in seeds]
    taught = [one.fitted(STUDENT, _quiet, taught_by(teacher)) for one in seeds]
    task = Task("seven columns of ETTh1, a day ahead, LSTM", "mean absolute error", True, len(test.truth))
    student_row(
        sheet,
        task,
        (test.error(teacher), lstm.parameters(teacher)),
        [test.error(net) for net in taught],
        [test.error(net) for net in alone],
        lstm.parameters(taught[0]),
        judged=not quick,
        seconds=time.monotonic() - began,
    )
    began = time.monotonic()
    halves = [one.pruned(net, 0.5, net) for one, net in zip(seeds, wholes, strict=False)]
    fresh = [one.fitted(TEACHER // 2, _quiet) for one in seeds[: len(wholes)]]
    nets = {"whole": wholes, "pruned": halves, "fresh": fresh}
    row = test.lessons.x[:1], test.lessons.names()[:1]
    graphs: dict[str, bytes] = {}
    for name in ("whole", "pruned"):
        pair = torch.from_numpy(test.lessons.x[:2].copy()), torch.from_numpy(test.lessons.names()[:2].copy())
        made = to_onnx(nets[name][0], *pair)
        graphs |= {f"{name} float": bare(made), f"{name} int8": bare(quantize(made))}
    pruned_rows(
        sheet,
        task,
        {name: [test.error(net) for net in each] for name, each in nets.items()},
        (lstm.parameters(wholes[0]), lstm.parameters(halves[0])),
        {name: partial(Graph(graph), *row) for name, graph in graphs.items()},
        {name: len(graph) for name, graph in graphs.items()},
        judged=not quick,
        seconds=time.monotonic() - began,
    )


def _seeds(sheet: contract.Sheet) -> int:
    return 2 if sheet.options.quick else max(sheet.options.seeds, 3)


def _quiet(_share: float, _step: str) -> None:
    return
