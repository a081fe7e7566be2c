"""The coverage benchmark runs on any folder of M4's format, and looks ahead nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "forecast_coverage.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    t = np.arange(448)
    rows = [20 + 5 * np.sin(2 * np.pi * t / 24 + k) + rng.standard_normal(448) for k in range(3)]
    for name, part in (("Hourly-train.csv", slice(0, 400)), ("Hourly-test.csv", slice(400, 448))):
        lines = [",".join([f'"Z{k}"', *(f"{v:.3f}" for v in row[part])]) for k, row in enumerate(rows)]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def run(folder: Path, subset: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--data", str(folder), "--quick", "--json", "--subset", subset],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_other_series_of_the_same_format_are_measured_with_their_peers(folder: Path) -> None:
    rows = {(r["what"], r["metric"]): r for r in run(folder, "m4")["rows"]}
    coverage = rows["M4 Hourly, seasonal naive", "coverage 80"]
    assert 0.6 < coverage["ours"] <= 1
    assert coverage["n"] == 3 * 48
    assert "sliding window" in coverage["peers"]
    assert rows["M4 Hourly, own ridge", "MSIS 95"]["ours"] > 0


def test_a_drift_is_measured_without_the_folder_being_read(folder: Path) -> None:
    rows = run(folder, "mean")["rows"]
    assert {r["what"].split(",")[0] for r in rows} == {"mean shift"}
    first = next(r for r in rows if r["metric"] == "coverage 80" and "naive" in r["what"])
    assert abs(first["ours"] - 0.8) < 0.02
    assert first["peers"].keys() == {"sliding window", "ACI .02", "DtACI"}


def test_a_part_that_is_not_there_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run(folder, "tides")
    assert "season" in refused.value.stderr
