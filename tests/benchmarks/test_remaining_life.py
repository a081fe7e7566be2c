"""The benchmark runs on any folder of the C-MAPSS format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent


def engines(count: int, seed: int) -> list[np.ndarray]:
    """Engines in two operating conditions; four of six sensors tell of wear, two are constant."""
    rng = np.random.default_rng(seed)
    made = []
    for unit in range(1, count + 1):
        cycles = int(rng.integers(60, 120))
        condition = rng.integers(0, 2, cycles)
        wear = (np.arange(1, cycles + 1) / cycles) ** 3
        sensors = wear[:, None] * [3, -2, 1, 4] + rng.normal(size=(cycles, 4)) * 0.3 + 50.0 * condition[:, None]
        settings = np.stack([condition * 10.0, condition * 0.5, np.full(cycles, 100.0)], axis=1)
        columns = [np.full(cycles, unit), np.arange(1, cycles + 1), *settings.T, *sensors.T, *np.ones((2, cycles))]
        made.append(np.stack(columns, axis=1))
    return made


def test_the_benchmark_measures_a_tiny_folder_of_another_subset(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "train_FD009.txt", np.concatenate(engines(12, 1)))
    cut = [
        (engine[: int(len(engine) * share)], engine)
        for share, engine in zip((0.1, 0.5, 0.9, 0.97), engines(4, 2), strict=True)
    ]
    cut[0] = (cut[0][0][:1], cut[0][1])  # an engine of one cycle
    np.savetxt(tmp_path / "test_FD009.txt", np.concatenate([part for part, _ in cut]))
    np.savetxt(tmp_path / "RUL_FD009.txt", [len(whole) - len(part) for part, whole in cut])
    ran = subprocess.run(
        [sys.executable, "benchmarks/remaining_life.py", "--data", str(tmp_path), "--quick", "--json", "--seeds", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    result = json.loads(ran.stdout)
    first = result["rows"][0]
    assert result["benchmark"] == "remaining_life"
    assert first["what"].startswith("FD009")
    assert first["n"] == 4
    assert first["holds"] is None  # no target for another subset
    assert first["ours"] < first["reference"]
    assert {row["metric"] for row in result["rows"]} >= {"RMSE cycles", "NASA score", "share", "Brier score", "AUC"}
