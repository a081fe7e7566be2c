"""What the gateway may not load, and what the API process may not load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_no_telemetry_of_the_inference_engine_starts(tmp_path: Path) -> None:
    code = (
        "from server.training import random_lstm_bundle as b; from protocol.bundles import digest; "
        "from edge_agent.runtimes import load; a = b(); load(a, digest(a))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert not (tmp_path / ".ses").exists()


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("edge_agent.__main__", ["torch", "pandas", "statsmodels", "fastapi", "sqlalchemy", "onnxruntime"]),
        ("server.app", ["torch", "statsmodels", "onnx"]),
        ("millwright", ["numpy", "edge_agent", "server"]),
    ],
)
def test_importing_loads_nothing_heavy(module: str, forbidden: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
