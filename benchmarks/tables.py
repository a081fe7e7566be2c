"""Runs the benchmarks and writes their figures into the README, between the markers of each table.

python benchmarks/tables.py [NAME ...]      default: those that need no data set"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = ("footprint", "agent_intake")


def table(result: dict[str, Any]) -> str:
    """One Markdown table; a missed target stays visible."""
    lines = ["| what | metric | ours | reference | target | verdict |", "|---|---|---|---|---|---|"]
    for r in result["rows"]:
        verdict = {True: "holds", False: "**missed**", None: "–"}[r["holds"]]
        reference = "–" if r["reference"] is None else f"{r['reference']:g}"
        lines.append(f"| {r['what']} | {r['metric']} | {r['ours']:g} | {reference} | {r['target']:g} | {verdict} |")
    return "\n".join(lines)


def main() -> int:
    """Rewrites README.md in place."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name in sys.argv[1:] or DEFAULT:
        command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        made = f"<!-- {name} -->\n{table(json.loads(done.stdout))}\n<!-- /{name} -->"
        parts = re.split(f"<!-- {name} -->.*?<!-- /{name} -->", text, flags=re.DOTALL)
        if len(parts) != 2:
            raise SystemExit(f"README.md must hold <!-- {name} --> … <!-- /{name} --> once")
        text = made.join(parts)
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
