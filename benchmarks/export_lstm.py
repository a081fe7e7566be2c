"""The part of `export.py` that forecasts: an LSTM of 2 layers of 64 on seven columns of ETTh1, a day ahead."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import contract
import numpy as np
import torch
from export_lite import Lites, lite_rows
from export_rows import change_row, faster_row, forms_note, named, size_row, strain_of, timed
from numpy.typing import NDArray
from smaller_sensor import CHECK, SETTINGS, SPEC, TEACHER, TEST, TRAIN, VALID, Asked, asked, read

from export.bounds import FORECASTER
from export.compact import bare
from export.forms import OF_WINDOWS, Choice, choose
from export.parity import compare, one_thread
from export.to_onnx import INPUT, OUTPUT, WHO, to_onnx
from export.trials import Run, Trial, trial_of_rows
from protocol.bundles import Parity
from server.algorithms import lstm
from server.training.forecast_smaller import Schooling

WHAT = "LSTM forecaster 2x64"
MOST_BYTES, MOST_CHANGE, OF_FLOAT, OF_EAGER = 0.28, 0.005, 0.75, 0.4
MOST_COMPARED = 400
Float32s = NDArray[np.float32]


def measure(sheet: contract.Sheet, path: Path) -> None:
    """Rows of size, loss by seed, and time."""
    quick = sheet.options.quick
    began = time.monotonic()
    values, start_ms = read(path)
    every = 40 if quick else 7
    learn = asked(values, start_ms, np.arange(SPEC.context, TRAIN - SPEC.horizon, every)).lessons
    check = asked(values, start_ms, np.arange(TRAIN, CHECK - SPEC.horizon, 11)).lessons
    test = asked(values, start_ms, np.arange(VALID, TEST - SPEC.horizon + 1, 120 if quick else 12))
    settings = replace(SETTINGS, epochs=1 if quick else SETTINGS.epochs)
    nets, choices, exported = [], [], []
    for seed in range(1, (1 if quick else sheet.options.seeds) + 1):
        school = Schooling(learn, check, replace(settings, seed=seed), 1, len(values))
        nets.append(school.fitted(TEACHER, lambda _share, _step: None))
        graph, choice = packed(nets[-1], test)
        choices.append(choice)
        exported.append(graph)
        sheet.say(f"seed {seed}: {choice.words} {choice.parity.task_change:+.3%}")
    first, ours = choices[0], named(choices[0].forms, "int8")
    forms_note(sheet, WHAT, first.forms)
    size_row(
        sheet, f"{WHAT}, int8", ours.size, first.float_bytes, MOST_BYTES, exported=len(exported[0]), judged=not quick
    )
    change_row(
        sheet,
        f"{WHAT}, int8, {len(nets)} seeds",
        "mean absolute error, change",
        [named(one.forms, "int8").parity.task_change for one in choices],
        MOST_CHANGE,
        n=len(test.truth),
        seconds=time.monotonic() - began,
        judged=not quick,
        errors=[round(test.error(net), 5) for net in nets],
        **strain_of(ours),
    )
    row = test.lessons.x[:1], test.lessons.names()[:1]
    given = tuple(torch.from_numpy(part) for part in row)
    ours_call = _call(first.graph, row)
    rivals = {
        "onnxruntime float": (_call(bare(exported[0]), row), OF_FLOAT),
        "torch eager": (partial(_eager, nets[0], *given), OF_EAGER),
    }
    for name, (rival, most) in rivals.items():
        what = f"{WHAT}, {first.name}, one window, one thread"
        times = timed({"ours": ours_call, name: rival})
        faster_row(sheet, what, f"time / {name}", times, "ours", name, most, judged=not quick)
    _lite(sheet, nets[0], test, ours_call)


def packed(net: lstm.QuantileLstm, test: Asked) -> tuple[bytes, Choice]:
    """(the float graph as exported, the form that the product takes of it and all that it tried)."""
    x, who = test.lessons.x, test.lessons.names()
    graph = to_onnx(net, *(torch.from_numpy(part[:2].copy()) for part in (x, who)))
    return graph, choose(graph, FORECASTER, _trial(net, test), tried=OF_WINDOWS)


def _trial(net: lstm.QuantileLstm, test: Asked) -> Trial:
    x, who = test.lessons.x, test.lessons.names()
    some = np.unique(np.linspace(0, len(x) - 1, min(MOST_COMPARED, len(x))).astype(np.int64))
    exact, before = lstm.answer(net, x[some], who[some]), test.error(net)

    def cost(run: Run) -> Parity:
        said = run(x, who)
        after = float(np.abs(_in_units(test, said) - test.truth).mean())
        return compare(exact, said[some], before, after, lower_is_better=True)

    return trial_of_rows(cost, x, who)


def _in_units(test: Asked, said: NDArray[np.floating]) -> NDArray[np.float64]:
    middle = np.asarray(said[:, :, lstm.MIDDLE], dtype=np.float64)
    return middle * test.scale[:, None] + test.center[:, None]


def _call(graph: bytes, row: tuple[Float32s, NDArray[np.int64]]) -> Callable[[], object]:
    return partial(one_thread(graph).run, None, {INPUT: row[0], WHO: row[1]})


def _eager(net: lstm.QuantileLstm, x: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = net(x, who)
    return answer


def _lite(sheet: contract.Sheet, net: lstm.QuantileLstm, test: Asked, onnx_call: Callable[[], object]) -> None:
    x, who = test.lessons.x, test.lessons.names()
    lite_rows(
        sheet,
        Lites(
            what=WHAT,
            module=net,
            examples={INPUT: torch.from_numpy(x[:1].copy()), WHO: torch.from_numpy(who[:1].copy())},
            outputs=[OUTPUT],
            exact=lambda x, who: lstm.answer(net, x, who),
            trial=_trial(net, test),
            bound=FORECASTER,
            asked=lambda engine: (
                lambda x, who: np.concatenate(
                    [engine.run({INPUT: x[i : i + 1], WHO: who[i : i + 1]})[OUTPUT] for i in range(len(x))]
                )
            ),
        ),
        onnx_call,
    )
