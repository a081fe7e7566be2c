"""The forecasting benchmarks run on any folder of the M4 format, whatever peers are installed, and keep their contract."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def weekly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short weekly series of other names, with a header, uncompressed."""
    folder = tmp_path_factory.mktemp("m4")
    rng = np.random.default_rng(1)
    with (folder / "Weekly-train.csv").open("w") as train, (folder / "Weekly-test.csv").open("w") as test:
        for out, columns in ((csv.writer(train), 70), (csv.writer(test), 6)):
            out.writerow(["id", *(f"V{i}" for i in range(columns))])
        for name in ("pump", "press", "oven"):
            values = 50 + np.cumsum(rng.standard_normal(76))
            csv.writer(train).writerow([name, *values[:70]])
            csv.writer(test).writerow([name, *values[70:]])
    return folder


def measured(script: str, folder: Path) -> dict:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--data", str(folder), "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", ["forecast_search", "forecast_weekly", "forecast_update"])
def test_a_forecasting_benchmark_runs_on_any_folder_of_its_format(script: str, weekly: Path) -> None:
    result = measured(script, weekly)
    assert result["benchmark"] == script
    assert len(result["data_digest"]) == 64
    for row in result["rows"]:
        if row["metric"] == "ratio" and row["ours"] is None:  # a ratio to a peer that is not installed
            assert row["holds"] is None
            assert any("not installed" in note for note in result["notes"])
            continue
        assert np.isfinite(row["ours"])
        compared = all(value is not None for value in row["peers"].values())
        assert row["target"] is None or row["holds"] is not None or not compared
    exact = [row for row in result["rows"] if row["metric"] == "largest deviation"]
    assert all(row["holds"] for row in exact)
