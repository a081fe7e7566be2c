"""What a packed model was measured on, and what a process takes that has it loaded and little else: what a gateway spends."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from protocol.processors import processor_class

LIMIT_S = 60.0
CODE = """
import os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.stdin.buffer.read(), options, providers=["CPUExecutionProvider"])
with open("/proc/self/statm") as statm:
    print(int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
"""


def measured_on() -> str:
    """The class of this processor, as passports say it. Latencies are measured on one thread."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    return processor_class(cpuinfo, platform.machine())


def loaded_bytes(graph: bytes) -> int:
    """Resident memory of a fresh process with numpy, onnxruntime and this graph; 0 where it cannot be measured (no /proc) or
    the graph does not load."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MILLWRIGHT_")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE], input=graph, capture_output=True, timeout=LIMIT_S, env=plain, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return int(done.stdout) if done.returncode == 0 else 0
