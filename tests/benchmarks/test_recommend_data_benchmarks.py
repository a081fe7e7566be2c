"""The benchmarks over ratings, ordered histories and orders run on any folder of their format."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def measured(script: str, folder: Path, *options: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--data", str(folder), "--json", *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def test_ratings_are_judged_against_the_bias_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with gzip.open(tmp_path / "ratings.csv.gz", "wt", newline="") as file:
        out = csv.writer(file)
        out.writerow(["userId", "movieId", "rating", "timestamp"])
        for u in range(50):
            for i in range(40):
                if rng.random() < 0.5:
                    value = 3 + (1 if u % 2 == i % 2 else -1) + rng.normal(0, 0.5)
                    out.writerow([u, i, float(np.clip(round(value * 2) / 2, 0.5, 5)), 0])
    errors = measured("recommend_ratings", tmp_path)["rows"]
    assert [row["metric"] for row in errors] == ["RMSE", "MAE"]
    assert errors[0]["ours"] < errors[0]["reference"]
    assert errors[0]["holds"] is True
    assert errors[0]["standard_error"] > 0
    assert set(errors[0]["peers"]) == {"mean", "item neighbours alone", "user neighbours alone"}


def test_sequences_are_judged_without_a_published_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cards = {
        str(i): {"title": f"part {i}", "description": "", "brand": f"b{i % 3}", "categories": ""} for i in range(12)
    }
    (tmp_path / "items.json").write_text(json.dumps(cards))
    for name, first in (("valid", 0), ("test", 60)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["user_id", "history_item_id", "item_id"])
            for user in range(first, first + 80):  # users 60 to 79 are in both
                start = int(rng.integers(0, 12))
                history = [(start + k) % 12 for k in range(3)]
                out.writerow([f"u{user}", str(history), (start + 3) % 12])
                out.writerow([f"u{user}", str([*history, (start + 3) % 12]), (start + 4) % 12])
    result = measured("recommend_sequence", tmp_path)
    hits, gains, first, _ = result["rows"]
    assert (hits["metric"], hits["n"], hits["target"], hits["holds"]) == ("HR@10", 160, None, None)
    assert gains["ours"] > gains["reference"]  # the chain is found, popularity finds nothing
    assert first["n"] == 80
    assert not [name for name in hits["peers"] if "published" in name]


def test_no_test_choice_is_learned_from(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from recommend_sequence import Choice, before_test, before_validation
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    valid = [Choice("a", ("1",), "2"), Choice("a", ("1", "2"), "3")]
    test = [Choice("a", ("1", "2", "3"), "4"), Choice("a", ("1", "2", "3", "4"), "5"), Choice("b", ("7",), "8")]
    assert sorted(before_validation(valid, test)) == [("1",), ("7",)]
    assert sorted(before_test(valid, test)) == [("1", "2", "3"), ("7",)]


def test_purchases_are_judged_on_items_new_to_the_customer(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, start = np.random.default_rng(2), datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    rows = []
    for c in range(80):
        own = [i for i in range(40) if i % 2 == c % 2]
        for n, day in enumerate(sorted(rng.uniform(0, 180, 14))):
            for item in rng.choice(own, 2, replace=False):
                when = str(start + timedelta(days=float(day)))
                rows.append(
                    (f"{c}-{n}", f"{10000 + item}", f"ITEM {item}", int(rng.integers(-1, 9)), when, 1.5, float(c))
                )
    rows += [
        ("post", "POST", "POSTAGE", 1, str(start), 3.0, 1.0),
        ("none", "10001", "ITEM 1", 1, str(start), 3.0, None),
    ]
    names = ("Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID")
    table = pa.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})
    pq.write_table(table, tmp_path / "orders.parquet")
    made = measured("recommend_purchases", tmp_path)["rows"]
    assert [(row["what"], row["metric"]) for row in made] == [
        (what, metric) for what in ("items new to the customer", "any item") for metric in ("recall@10", "nDCG@10")
    ]
    assert made[0]["ours"] > made[0]["reference"]  # popularity does not know the two halves
    assert made[0]["target"] is not None
    assert "own repeats" in made[2]["peers"]
