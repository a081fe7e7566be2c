"""`millwright status --config agent.toml` (and `millwright agent status`): what the agent of this machine last wrote about
itself. Exit status: 0 it runs, 1 it does not, 2 wrong settings."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edge_agent import config, status
from edge_agent.config import AgentSettings
from protocol.exposition import exposition

STALE_S = 30.0


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="millwright status",
        description="How the gateway of this machine is; without --config, how a server is.",
    )
    parser.add_argument("--config", type=Path, required=True, help="agent.toml")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument(
        "--metrics", action="store_true", help="as Prometheus reads it, such as node_exporter's textfiles"
    )
    options = parser.parse_args(argv)
    settings = config.load(options.config)
    return show(settings, "json" if options.json else "metrics" if options.metrics else "words")


def show(settings: AgentSettings, form: str) -> int:
    """Prints it; form: words, json, metrics."""
    folder = Path(settings.data_dir)
    try:
        told, age_s = status.read(folder)
    except FileNotFoundError:
        sys.stderr.write(f"no {folder / status.FILE}: the agent has not run here yet\n")
        return 1
    if form == "json":
        sys.stdout.write(json.dumps({**told, "age_s": round(age_s, 1)}) + "\n")
    elif form == "metrics":
        sys.stdout.write(exposition(status.families(told, age_s)))
    else:
        sys.stdout.write(status.in_words(told, age_s))
    return 0 if age_s < STALE_S else 1
