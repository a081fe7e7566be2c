"""The anomaly benchmarks run on any folder of their format: other names, another subset, no published table."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def measured(script: str, folder: Path) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--data", str(folder), "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def test_streams_are_scored_as_numenta_scores_them(tmp_path: Path) -> None:
    rng, start = np.random.default_rng(2), datetime(2026, 1, 1, tzinfo=UTC)
    windows = {}
    for name in ("plant/pump.csv", "plant/fan.csv"):
        values = rng.normal(50, 1, 900)
        values[620:640] += 15
        times = [(start + timedelta(minutes=5 * i)).strftime("%Y-%m-%d %H:%M:%S") for i in range(900)]
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("timestamp,value\n" + "\n".join(f"{t},{v:.4f}" for t, v in zip(times, values, strict=True)))
        windows[name] = [[times[600] + ".000000", times[660] + ".000000"]]
    windows["plant/absent.csv"] = []
    (tmp_path / "combined_windows.json").write_text(json.dumps(windows))
    rows = measured("anomaly_streams", tmp_path)["rows"]
    mean = rows[0]
    assert mean["n"] == 2
    assert mean["ours"] > 0.8  # found early in the window, next to no false alarm
    assert (mean["target"], mean["holds"], mean["peers"]) == (None, None, {})
    assert not [r for r in rows if "machine_temperature" in r["what"]]


def test_the_test_bed_is_scored_by_file_group(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for group in ("leaks", "valves"):
        (tmp_path / group).mkdir()
        for number in range(4):
            values = rng.normal([5, 2, 100, 7], [1, 0.1, 9, 0.5], (800, 4))
            anomaly = np.zeros(800)
            anomaly[550:680] = 1
            values[550:680, number % 4] += [8, 0.8, 72, 4][number % 4]
            lines = ["datetime;Flow;Pressure;Speed;Current;anomaly;changepoint"]
            lines += [f"t{i};" + ";".join(f"{v:.5f}" for v in values[i]) + f";{anomaly[i]};0.0" for i in range(800)]
            (tmp_path / group / f"{number}.csv").write_text("\n".join(lines))
    (tmp_path / "normal.csv").write_text("datetime;Flow\nt0;1.0\n")
    rows = measured("anomaly_multivariate", tmp_path)["rows"]
    by_name = {(r["what"], r["metric"]): r for r in rows}
    f1 = by_name["all files, knob chosen on the other folders", "F1"]
    assert f1["ours"] > 0.85
    assert f1["holds"] is None  # a quick subset proves no target
    assert by_name["all files, knob chosen on the other folders", "false alarms, %"]["ours"] < 15
    assert f1["n"] == 2 * 400
