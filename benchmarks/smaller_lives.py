"""The part of `smaller.py` that foresees failures: turbofans of C-MAPSS FD001, of which four in five still run.

A plant has seen few machines fail. Of the training engines every fifth keeps its whole life; of the others the record ends
somewhere between 30 and 95 % of it (drawn once), so that their ends are unknown to every network. A teacher answers for those
too. It learns for three times as many epochs from twice as many windows, which its student is spared; "alone, as long as the
teacher" is a student that is not. What is judged is the last window of every test engine, labels capped at 125 cycles."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import contract
import numpy as np
import remaining_life as engines
from smaller_rows import Task, student_row

from protocol.life_windows import Life, LifeSpec, read_answer, windows_of
from server.algorithms import remaining_life as algorithm
from server.algorithms.remaining_life import LifeNet, LifeSettings
from server.training.life import STUDENT
from server.training.taught import by_lives

TEACHERS = 5
WHOLE = 5
"""Every so many engines."""
SETTINGS = LifeSettings(folds=0)
LONG: dict[str, Any] = {"epochs": 3 * SETTINGS.epochs, "every": 1, "dropout": 0.05}
"""How a teacher learns."""
SHARE = 0.9
"""What the teacher's answers count."""


def measure(sheet: contract.Sheet, path: Path) -> None:
    """Student beside teacher and beside the same student alone."""
    quick, seeds = sheet.options.quick, 2 if sheet.options.quick else max(sheet.options.seeds, 3)
    subset = engines.subset_of(path)
    test = engines.read(sheet.find(sheet.options.test, f"test_{subset}.txt*")[0])
    labels = np.minimum(np.loadtxt(sheet.find(sheet.options.test, f"RUL_{subset}.txt*")[0], ndmin=1), engines.CAP)
    lives = cut_short(engines.read(path))
    names = [f"s{i + 1}" for i in range(lives[0].signals.shape[1])]
    wanted = LifeSpec(
        signals=names,
        settings=[f"setting{i + 1}" for i in range(engines.SETTINGS)],
        cap=engines.CAP,
        mean=[[0.0] * len(names)],
        scale=[[1.0] * len(names)],
    )
    spec = algorithm.learn_spec(lives, wanted, engines.operating_conditions(lives), 1)
    lives, test = (algorithm.keep_signals(part, names, spec) for part in (lives, test))
    x = np.concatenate([windows_of(life, spec, np.array([len(life) - 1]))[0] for life in test])

    def error(net: LifeNet) -> float:
        return engines.rmse(read_answer(algorithm.answer(net, x), spec).expected, labels)

    began = time.monotonic()
    settings = replace(SETTINGS, epochs=2 if quick else SETTINGS.epochs)
    long = settings if quick else replace(settings, **LONG)
    teacher = algorithm.fit(lives, spec, replace(long, members=TEACHERS, seed=1), _quiet)
    sheet.say(f"teacher: {error(teacher):.4f}")
    alone, taught, alone_long = [], [], []
    for seed in range(1, seeds + 1):
        how = replace(settings, **STUDENT, seed=seed + 50)
        alone.append(algorithm.fit(lives, spec, how, _quiet))
        taught.append(algorithm.fit(lives, spec, how, _quiet, by_lives(teacher, spec, how, SHARE)))
        alone_long.append(algorithm.fit(lives, spec, replace(long, **STUDENT, seed=seed + 50), _quiet))
    student_row(
        sheet,
        Task(f"remaining life, {subset} with four engines in five still running", "RMSE cycles", True, len(labels)),
        (error(teacher), algorithm.parameters(teacher)),
        [error(net) for net in taught],
        [error(net) for net in alone],
        algorithm.parameters(taught[0]),
        judged=not quick,
        seconds=time.monotonic() - began,
        peers={"alone, as long as the teacher": float(np.mean([error(net) for net in alone_long]))},
    )


def cut_short(lives: list[Life]) -> list[Life]:
    """The same units; of most the record ends before they did."""
    draw = np.random.default_rng(0)

    def until(life: Life) -> Life:
        rows = max(int(len(life) * draw.uniform(0.3, 0.95)), 35)
        return Life(life.unit, life.signals[:rows], life.settings[:rows], False)

    return [life if number % WHOLE == 0 else until(life) for number, life in enumerate(lives)]


def _quiet(_share: float, _step: str) -> None:
    return
