"""Runs benchmarks, keeps each one's result object in benchmarks/results/, and writes the README's tables from these.

A README table has the rows that have a target. Of a script with more than MOST_ROWS of them it has those that missed and
says how many others hold; every row is in the script's result.

    python benchmarks/tables.py [NAME ...] [--data ROOT] [--render]

Without names: those that need no data set, and with --data ROOT (a folder that holds m4/, ett/, cmapss/, …) all of them.
--render writes the tables from the results at hand and runs nothing."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PLAIN = {"footprint": ("footprint",), "agent_intake": ("agent_intake",)}
"""Tables of their own: README marker -> scripts."""
FORECASTING = {
    "forecast_search": "m4",
    "forecast_hourly": "m4",
    "forecast_weekly": "m4",
    "forecast_ett": "ett",
    "forecast_coverage": "m4",
    "forecast_update": "m4",
    "forecast_covariates": None,
    "remaining_life": "cmapss",
    "fault_tabular": "ai4i2020",
    "anomaly_multivariate": "skab",
    "anomaly_streams": "nab",
    "fault_events": "pdm_events",
    "late_delivery": "scms_supply",
    "spare_parts": "spare_parts_demand",
}
"""The forecasting table: script -> folder below the data root (None: it makes its own plant)."""
RECOMMENDING = {
    "recommend_offline": "movielens_latest_small",
    "recommend_ratings": "movielens_latest_small",
    "recommend_cold_start": "movielens_latest_small",
    "recommend_purchases": "online_retail_2009",
    "recommend_sequence": "amazon_industrial",
    "recommend_scale": None,
    "recommend_edge": None,
    "recommend_off_policy": None,
    "schedule_job_shop": "jobshop",
    "schedule_flexible": "flexible_jobshop",
    "purchasing": None,
}
"""The recommendation table, likewise."""
GENERATING = {
    "report_faithfulness": None,
    "generate_speed": None,
    "language_model": "text_corpus",
    "notes_failure_mode": "fmc_mwo2kg",
    "notes_entities": "maintie",
    "notes_normalise": "maintnorm",
    "notes_events": "osha_accidents",
    "notes_retrieval": "maintnet_aviation",
    "notes_chinese": None,
}
"""The generation table, likewise."""
EXPORTING: dict[str, str | None] = {
    "export": ".",
    "latency": None,
    "smaller": ".",
}
"""The table of small models and what they cost a gateway, likewise; "." is the data root itself."""
SYNCING: dict[str, str | None] = {
    "outbox": None,
    "server_intake": None,
    "sync": None,
}
"""The table of what is sent and kept, likewise."""
DATA = {**FORECASTING, **RECOMMENDING, **GENERATING, **EXPORTING, **SYNCING}
MOST_ROWS = 20
TABLES: dict[str, tuple[str, ...]] = {
    **PLAIN,
    "forecasting": tuple(FORECASTING),
    "recommending": tuple(RECOMMENDING),
    "generating": tuple(GENERATING),
    "exporting": tuple(EXPORTING),
    "syncing": tuple(SYNCING),
}


def measured(name: str, root: Path | None) -> None:
    """Runs one script and keeps its object."""
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--json"]
    folder = DATA.get(name)
    if folder is not None:
        if root is None:
            raise SystemExit(f"{name} needs --data ROOT, a folder that holds {folder}/")
        command += ["--data", str(root / folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    RESULTS.mkdir(exist_ok=True)
    body = json.dumps(json.loads(done.stdout), ensure_ascii=False, indent=1)
    (RESULTS / f"{name}.json").write_text(body + "\n", encoding="utf-8")


def table(names: tuple[str, ...]) -> str:
    """One Markdown table over the results at hand; a missed target stays visible, a script without a result says so."""
    peers = len(names) > 1
    head = ["what", "metric", "ours", "reference", *(["peers"] if peers else []), "target", "n", "verdict"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in names:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            lines.append(f"| {name} |" + " |" * (len(head) - 2) + " not run |")
            continue
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        chosen = [r for r in rows if r["holds"] is not None] if peers else rows
        if len(chosen) > MOST_ROWS:
            held = sum(r["holds"] for r in chosen)
            chosen = [r for r in chosen if not r["holds"] or r.get("headline")]
            shown = sum(r["holds"] for r in chosen)
            rest = f"`{name}` {held - shown} more rows with a target, see results/{name}.json"
            lines.append(f"| {rest} |" + " |" * (len(head) - 2) + " hold |")
        lines += ["| " + " | ".join(cells(name if peers else "", r, peers)) + " |" for r in chosen]
    return "\n".join(lines)


def cells(name: str, r: dict[str, Any], peers: bool) -> list[str]:
    """One row of the table."""
    verdict = {True: "holds", False: "**missed**", None: "–"}[r["holds"]]
    beside = ", ".join(f"{peer} {number(value)}" for peer, value in r["peers"].items()) or "–"
    what = f"`{name}` {r['what']}" if name else r["what"]
    made = [what, r["metric"], number(r["ours"]), number(r["reference"])]
    return [*made, *([beside] if peers else []), number(r["target"]), str(r["n"]), verdict]


def number(value: float | None) -> str:
    """Four digits; a dash for what is not there."""
    return "–" if value is None else f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def main() -> int:
    """Rewrites README.md in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    if not options.render:
        every = [*PLAIN, *(DATA if options.data else ())]
        for name in options.names or every:
            measured(name, options.data)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for marker, names in TABLES.items():
        made = f"<!-- {marker} -->\n{table(names)}\n<!-- /{marker} -->"
        parts = re.split(f"<!-- {marker} -->.*?<!-- /{marker} -->", text, flags=re.DOTALL)
        if len(parts) != 2:
            raise SystemExit(f"README.md must hold <!-- {marker} --> … <!-- /{marker} --> once")
        text = made.join(parts)
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
