"""The forecasting benchmarks run on any small folder of their format and print one object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]


def measured(script: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), "--data", str(folder), "--quick", "--json"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_hourly_fleet_of_another_factory_can_be_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with (tmp_path / "Hourly-train.csv").open("w") as train, (tmp_path / "Hourly-test.csv").open("w") as test:
        for s in range(32):
            t = np.arange(600 + s)
            values = 50 + s + 20 * np.sin(2 * np.pi * t / 24 + s) + rng.normal(size=len(t))
            train.write(",".join([f"press-{s}", *(f"{v:.2f}" for v in values[:-48])]) + "\n")
            test.write(",".join([f"press-{s}", *(f"{v:.2f}" for v in values[-48:])]) + "\n")
    found = measured("forecast_hourly.py", tmp_path)
    rows = {(row["what"], row["metric"]): row for row in found["rows"]}
    fleet = rows["hourly fleet, ridge with shares of seasonal naive", "OWA"]
    assert fleet["n"] == 4
    assert fleet["holds"] is None  # a quick run proves nothing about the target
    assert fleet["ours"] < fleet["reference"]
    assert ("hourly fleet, LSTM alone", "OWA") in rows


def test_oil_temperature_of_another_transformer_can_be_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    t = np.arange(14_500)
    values = 20 + 5 * np.sin(2 * np.pi * t / 24) + np.cumsum(0.05 * rng.normal(size=len(t)))
    start = datetime(2020, 1, 1, tzinfo=UTC)
    with (tmp_path / "ETTh1.csv").open("w") as out:
        out.write("date,HUFL,OT\n")
        for i, value in enumerate(values):
            out.write(f"{(start + timedelta(hours=i)):%Y-%m-%d %H:%M:%S},1.0,{value:.3f}\n")
    found = measured("forecast_ett.py", tmp_path)
    assert [row["metric"] for row in found["rows"]] == ["MSE", "MAE", "MSE"]
    assert found["rows"][0]["n"] == 2880 - 24 + 1
    assert found["rows"][0]["ours"] < found["rows"][0]["peers"]["last value"]
