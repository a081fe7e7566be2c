"""What the gateway pays: CPU time to import the agent, resident memory with one int8 LSTM loaded, and what the base
install adds to an empty environment.

    python benchmarks/footprint.py [--json] [--quick]

--quick leaves the install out. The LSTM is a random 2x64 one: weights do not change its size."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IMPORT = (
    "import time, resource; a = time.process_time(); import edge_agent.agent; "
    "print(time.process_time() - a, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)
LOADED = """
import sys, numpy as np, resource
import edge_agent.agent
from pathlib import Path
from edge_agent.runtimes import load
from protocol.bundles import digest
archive = Path(sys.argv[1]).read_bytes()
model = load(archive, digest(archive))
w = model.passport.window
model.quantiles(np.zeros((4, w.length, 5), dtype=np.float32))
del archive
rss = [int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmRSS')][0]
print(rss)
"""


def lstm_bundle(folder: Path) -> Path:
    """An int8 bundle of the default LSTM, exported by the product's own path."""
    code = (
        "import sys; from pathlib import Path; from server.training import random_lstm_bundle; "
        "Path(sys.argv[1]).write_bytes(random_lstm_bundle())"
    )
    path = folder / "lstm.bundle"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=ROOT, capture_output=True)
    return path


def child(code: str, *arguments: str, python: str = sys.executable) -> str:
    """Standard output of one fresh interpreter in the project's root."""
    done = subprocess.run([python, "-c", code, *arguments], check=True, cwd=ROOT, capture_output=True, text=True)
    return done.stdout


def tree_bytes(folder: Path) -> int:
    """Disk use of a folder's files."""
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())


def install_megabytes(*flags: str) -> tuple[float, float]:
    """MB that `pip install [flags] .` adds to an empty environment, and seconds taken."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "env"
        venv.create(place, with_pip=True)
        before = tree_bytes(place)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, *flags, "-c", str(ROOT / "requirements.lock"), str(ROOT)], check=True, capture_output=True
        )
        added = tree_bytes(place) - before
    return added / 1e6, time.monotonic() - started


def row(what: str, metric: str, ours: float, target: float, seconds: float, n: int) -> dict[str, Any]:
    """One line of the table; every target here is an upper bound."""
    return {
        "what": what,
        "metric": metric,
        "ours": round(ours, 3),
        "reference": None,
        "peers": {},
        "target": target,
        "holds": ours <= target,
        "n": n,
        "seconds": round(seconds, 2),
    }


def measure(quick: bool, say: Any) -> list[dict[str, Any]]:
    """All rows."""
    rows = []
    started = time.monotonic()
    runs = sorted(float(child(IMPORT).split()[0]) for _ in range(5))
    rows.append(row("import the agent", "CPU s, median of 5", runs[2], 0.5, time.monotonic() - started, 5))
    say("imported")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = lstm_bundle(Path(folder))
        say("exported an LSTM")
        kib = sorted(int(child(LOADED, str(path))) for _ in range(3))
    rows.append(
        row("agent with one int8 LSTM", "RSS MiB, median of 3", kib[1] / 1024, 90, time.monotonic() - started, 3)
    )
    if not quick:
        for what, flags in (("base install", ()), ("base install, pip --no-compile", ("--no-compile",))):
            megabytes, seconds = install_megabytes(*flags)
            rows.append(row(what, "MB added to an empty environment", megabytes, 150, seconds, 1))
    return rows


def main() -> int:
    """Prints the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", help="not used: this benchmark needs no data")
    options = parser.parse_args()
    rows = measure(options.quick, lambda text: sys.stderr.write(f"footprint: {text}\n"))
    result = {
        "benchmark": "footprint",
        "data_digest": hashlib.sha256(b"").hexdigest(),
        "load_average": os.getloadavg()[0],
        "own_peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": rows,
    }
    if options.json:
        print(json.dumps(result))
    else:
        for r in rows:
            verdict = "holds" if r["holds"] else "MISSED"
            print(f"{r['what']:28} {r['ours']:>9} {r['metric']:36} target <= {r['target']:<6} {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
