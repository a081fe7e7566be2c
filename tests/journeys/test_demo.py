"""The whole loop in real processes, and its accounting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.demo import accounting

ROOT = Path(__file__).parents[2]


def test_a_reading_that_nobody_accounts_for_is_a_loss() -> None:
    counters = {"intake.stored": 8, "intake.duplicate": 1, "quarantine.not_finite": 1}
    assert accounting.readings({"samples": 10}, counters)["holds"]
    lost = accounting.readings({"samples": 11}, counters)
    assert (lost["holds"], lost["unaccounted"]) == (False, 1)


def test_a_report_stored_twice_or_not_at_all_is_a_loss() -> None:
    assert accounting.reports(2, ["a", "b"], 0)["holds"]
    assert not accounting.reports(2, ["a", "a"], 0)["holds"]
    assert not accounting.reports(2, ["a"], 0)["holds"]


def test_an_event_counts_when_it_lies_in_a_labelled_window() -> None:
    assert accounting.windows_hit([{"detected_ms": 5}], [(4, 6), (8, 9)]) == {
        "events": 1,
        "inside": 1,
        "outside": 0,
        "windows": 2,
        "windows_hit": 1,
        "holds": True,
    }


@pytest.mark.slow
def test_the_demo_loses_nothing_and_learns_from_answers() -> None:
    command = [sys.executable, "-m", "server.demo", "--headless", "--minutes", "4", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=480)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    result = json.loads(done.stdout)
    assert result["hops"]["feedback_model"]["holds"]
    assert result["counters"]["report"] > 0
    assert result["edits"]["reports"] > 0
    assert result["edits"]["wordings_accepted"] == 1


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_no_folder_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server.demo", "--headless", "--minutes", "3"]
    demo = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert demo.stderr is not None
    until = time.monotonic() + 60
    while b"everything runs" not in (line := demo.stderr.readline()):
        assert line
        assert time.monotonic() < until
    folder = str(next(tmp_path.iterdir()))
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=120)
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if folder.encode() in _read(p)]
    assert left == []
    assert list(tmp_path.iterdir()) == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
