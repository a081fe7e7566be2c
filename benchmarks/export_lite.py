"""Rows of TFLite files, asked through the runtime that gateways have (`edge_agent/runtimes/lite.py`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import contract
import numpy as np
import torch
from export_rows import timed

from edge_agent.runtimes.engine import Engine
from edge_agent.runtimes.lite import LiteEngine, tflite_runtime
from export.bounds import Bound
from export.parity import compare
from export.strain import strained_error
from export.to_tflite import DYNAMIC, WEIGHTS, converter, to_tflite
from export.trials import Run, Trial
from protocol.bundles import Lite
from protocol.errors import BadBundle, BadSettings

UNPROVEN = compare(np.zeros(1), np.zeros(1), 1.0, 1.0, lower_is_better=True)


@dataclass(frozen=True)
class Lites:
    """A module to convert. exact: its own answers to the trial's rows; asked: from a loaded file to what answers them."""

    what: str
    module: torch.nn.Module
    examples: Mapping[str, torch.Tensor]
    outputs: Sequence[str]
    exact: Run
    trial: Trial
    bound: Bound
    asked: Callable[[Engine], Run]
    lengths: Sequence[int] = ()


def lite_rows(sheet: contract.Sheet, lites: Lites, onnx_call: Callable[[], Any]) -> None:
    """Whether each recipe's file is within the bound of the graph's forms, and its time beside theirs. Leaves the rows out,
    with a note, where no converter or no runtime is, and with --quick: converting takes longer than all the rest."""
    if sheet.options.quick:
        sheet.note(f"{lites.what}: no rows of TFLite: --quick leaves them out")
        return
    try:
        converter()
        runtime = tflite_runtime()
    except (BadSettings, BadBundle) as error:
        sheet.note(f"{lites.what}: no rows of TFLite: {str(error).splitlines()[0]}")
        return
    trial = lites.trial
    runs: dict[str, Run] = {}
    for recipe in (WEIGHTS, DYNAMIC):
        began = time.monotonic()
        file = to_tflite(lites.module, lites.examples, lites.outputs, recipe=recipe, lengths=lites.lengths)
        told = Lite(recipe=recipe, inputs=file.inputs, outputs=file.outputs, size=len(file.content), parity=UNPROVEN)
        run = runs[f"TFLite {recipe}"] = lites.asked(LiteEngine(file.content, told))
        cost = trial.measure(run)
        wanted = {kind: lites.exact(*rows) for kind, rows in trial.strained.items()}
        said = {kind: run(*rows) for kind, rows in trial.strained.items()}
        strained = strained_error(wanted, said, lites.exact(*trial.rows))
        broken = lites.bound.broken(cost, strained)
        sheet.row(
            f"{lites.what}, TFLite {recipe} by {runtime.package} {runtime.version}",
            "element rms / deviation",
            cost.rel_rms,
            target=lites.bound.most_rms,
            holds=not broken,
            n=cost.n,
            seconds=time.monotonic() - began,
            task_change=round(cost.task_change, 6),
            strained={kind: round(rms, 5) for kind, rms in strained.items()},
            bytes=len(file.content),
            broken=broken,
        )
    for name, run in runs.items():
        times = timed({"onnx": onnx_call, name: partial(run, *trial.one)})
        sheet.row(
            f"{lites.what}, {name}, one row, one thread",
            "microseconds",
            times[name],
            reference=times["onnx"],
            microseconds={each: round(one, 1) for each, one in times.items()},
        )
