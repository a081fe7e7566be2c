"""The language benchmark runs on any folder of documents, and its two models are measured on the same bytes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = "the pump valve filter runs stops leaks and is cleaned by an operator before after each shift".split()  # noqa: SIM905


def corpus(path: Path, seed: int) -> None:
    draw = random.Random(seed)
    rows = []
    for number in range(60):
        sentences = [" ".join(draw.choices(WORDS, k=9)).capitalize() + "." for _ in range(12)]
        rows.append(json.dumps({"path": f"{seed}/{number}.md", "text": "# Title\n\n" + "\n\n".join(sentences)}))
    path.write_text("\n".join(rows))


def test_every_corpus_has_bits_and_perplexity_of_both_models(tmp_path: Path) -> None:
    corpus(tmp_path / "pumps.jsonl", 1)
    corpus(tmp_path / "valves.jsonl", 2)
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "language_model.py"), "--data", str(tmp_path), "--quick", "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)["rows"]
    assert [(row["what"], row["metric"]) for row in rows] == [
        (name, metric) for name in ("pumps", "valves") for metric in ("bits per byte", "perplexity per token")
    ]
    for row in rows:
        assert 0 < row["ours"] < 100
        assert 0 < row["reference"] <= min(row["peers"].values()) + 1e-9
    assert rows[0]["holds"] == (rows[0]["ours"] <= rows[0]["target"])
    assert len(rows[0]["curve"]) == 3
