"""The benchmark runs on any folder of the JSPLIB format."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_benchmark_measures_a_tiny_folder(tmp_path: Path) -> None:
    rng = Random(1)
    (tmp_path / "instances").mkdir()
    entries = []
    for name in ("ft91", "la05"):
        rows = [[(m, rng.randint(0, 9)) for m in rng.sample(range(3), 3)] for _ in range(4)]
        text = "# made\n4 3\n" + "\n".join(" ".join(f"{m} {d}" for m, d in row) for row in rows)
        (tmp_path / "instances" / name).write_text(text + "\n")
        longest = max(sum(d for _, d in row) for row in rows)
        entries.append({"name": name, "path": f"instances/{name}", "current_upper": longest})
    (tmp_path / "instances.json").write_text(json.dumps(entries))
    script = [
        "import sys; sys.path[:0] = ['benchmarks', '.']",
        "import schedule_job_shop as s, contract",
        "s.QUICK_S = s.FIRST_S = s.REPAIR_S = 0.1",
        f"sys.exit(contract.run('schedule_job_shop', '', s.measure, ['--data', {str(tmp_path)!r}, '--quick', '--json']))",
    ]
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(script)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    rows = {row["what"]: row for row in json.loads(ran.stdout)["rows"]}
    assert rows["gateway's scheduler, 0.1 s"]["n"] == 2
    assert rows["repair: time to a feasible plan"]["ours"] > 0
