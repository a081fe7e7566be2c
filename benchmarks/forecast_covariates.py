"""What the other families' knowledge is worth to a forecast: each known input on and off, on a held-out stretch.

    python benchmarks/forecast_covariates.py [--quick] [--seeds N] [--json]

A simulated plant (`edge_agent.devices.planned`): a current that follows an accepted schedule, a stock that jumps with
accepted purchases, a vibration that rises after an operator's note. The product's own training runs twice on the same
values, with the known inputs and without (`reference`); figures are mean absolute errors relative to the simple reference
on the newest fifth of the data, which nothing was chosen on. Mean of the seeds; a seed is another plant and another
training."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import contract
import numpy as np

from edge_agent.devices.planned import planned_plant
from protocol.windows import WindowSpec
from server import training
from server.datasets import SignalGrid

PATHS = {"current": "accepted schedule", "stock": "accepted purchase", "vibration": "failure mode read from a note"}


def errors(grid: SignalGrid, seed: int) -> dict[tuple[str, str], float]:
    """(algorithm, signal) -> mean held-out error relative to the simple reference."""
    window = WindowSpec(step_ms=grid.step_ms, length=48, horizon=12, season=96)
    world = training.Circumstances(dataset_digest="0" * 64, dataset_rows=grid.values.size, now_ms=grid.until_ms)
    plan = training.ForecastPlan(window=window, epochs=12, seed=seed)
    found: dict[tuple[str, str], float] = {}
    for made in training.train_forecast(grid, plan, world, lambda _share, _step: None):
        passport = made.passport
        if passport.slot == training.RIDGE:
            continue  # takes no known inputs
        for signal in PATHS:
            mine = [e for (_, s), e in zip(passport.series, passport.series_error, strict=True) if s == signal]
            if mine:
                found[passport.algorithm, signal] = float(np.mean(mine))
    return found


def measure(sheet: contract.Sheet) -> None:
    """Both trainings for every seed, then a row per path and algorithm."""
    seeds = 1 if sheet.options.quick else min(sheet.options.seeds, 3)
    days = 20 if sheet.options.quick else 40
    runs: list[tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]] = []
    began = time.monotonic()
    for seed in range(seeds):
        plant = planned_plant(days, seed)
        grid = SignalGrid(plant.start_ms, plant.step_ms, plant.series, plant.values, plant.inputs)
        runs.append((errors(grid, seed), errors(replace(grid, inputs=()), seed)))
        sheet.say(f"plant {seed + 1} of {seeds}")
    for signal, path in PATHS.items():
        for algorithm in sorted({key[0] for key in runs[0][0]}):
            if not all((algorithm, signal) in side for run in runs for side in run):
                continue
            known, blind = (float(np.mean([run[side][algorithm, signal] for run in runs])) for side in (0, 1))
            sheet.row(
                f"{path}: {signal}, {algorithm}",
                "error / simple reference",
                known,
                reference=blind,
                target=blind,
                holds=known < blind,
                n=seeds,
                seconds=time.monotonic() - began,
            )
    sheet.note("reference: the same training without the known input; the ridge takes none and is left out")


if __name__ == "__main__":
    sys.exit(contract.run("forecast_covariates", __doc__, measure, needs_data=False))
