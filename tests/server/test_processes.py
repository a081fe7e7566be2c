"""What the demo and the drill start knows nothing of a real installation on the same machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.demo.processes import Processes


def test_variables_of_a_real_server_reach_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLWRIGHT_DATABASE", "postgresql+psycopg://plant/db")
    monkeypatch.setenv("MILLWRIGHT_GATEWAY_TOKEN", "what-opens-it")
    monkeypatch.setenv("MILLWRIGHT_TFLITE_PYTHON", "/opt/lite/bin/python")
    with Processes(tmp_path) as processes:
        processes.start("env", ["env"])
        processes.running.pop("env").wait(10)
    said = (tmp_path / "env.log").read_text()
    assert "MILLWRIGHT_DATABASE" not in said
    assert "what-opens-it" not in said
    assert "MILLWRIGHT_TFLITE_PYTHON=/opt/lite/bin/python" in said
