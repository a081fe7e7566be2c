"""The benchmark runs on any folder of Brandimarte's format."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_benchmark_measures_a_tiny_folder(tmp_path: Path) -> None:
    rng = Random(1)
    (tmp_path / "kacem").mkdir()
    entries = []
    for name, best in (("k8", {"optimum": 20}), ("k9", {"optimum": None, "bounds": {"upper": 20, "lower": 3}})):
        lines = ["4 3"]
        for _ in range(4):
            steps = [[(m, rng.randint(1, 9)) for m in rng.sample(range(3), rng.randint(1, 3))] for _ in range(3)]
            words = [len(steps)] + [n for step in steps for n in (len(step), *(n for pair in step for n in pair))]
            lines.append(" ".join(map(str, words)))
        (tmp_path / "kacem" / f"{name}.txt").write_text("\n".join(lines) + "\n")
        entries.append({"name": name, "path": f"kacem/{name}.txt"} | best)
    (tmp_path / "instances.json").write_text(json.dumps(entries))
    script = [
        "import sys; sys.path[:0] = ['benchmarks', '.']",
        "import schedule_flexible as s, contract",
        "s.QUICK_S = s.WINDOWS_S = 0.2",
        f"sys.exit(contract.run('schedule_flexible', '', s.measure, ['--data', {str(tmp_path)!r}, '--quick', '--json']))",
    ]
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(script)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    rows = {row["what"]: row for row in json.loads(ran.stdout)["rows"]}
    assert rows["gateway's scheduler, 0.2 s"]["n"] == 2
    assert rows["family kacem: gateway's scheduler, 0.2 s"]["n"] == 2
