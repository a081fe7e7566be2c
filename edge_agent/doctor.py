"""`millwright doctor`: what runs models on this machine, what does not and why, and the [runtime] that suits it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import msgspec

from edge_agent import config
from edge_agent.config import RuntimeSettings
from edge_agent.runtimes.machine import Answered, Machine, look


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 an engine works, 1 none does, 2 wrong settings."""
    parser = argparse.ArgumentParser(
        prog="millwright doctor", description="What runs models on this machine, what does not, and why."
    )
    parser.add_argument("--config", type=Path, help="agent.toml: also looks at the disk where its data lie")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args(argv)
    machine = look(_folder(options.config))
    if options.json:
        sys.stdout.write(msgspec.json.encode(machine).decode() + "\n")
    else:
        sys.stdout.write(told(machine))
    return 0 if machine.works else 1


def told(machine: Machine) -> str:
    """The same in words."""
    features = ", ".join(machine.features) or "none that the engines look for"
    lines = [
        f"Python {machine.python}, numpy {machine.numpy}, {machine.system}",
        f"processor    {machine.processor}: {features}; {machine.threads} thread(s) to use",
        f"free         {machine.memory_free_mb} MiB of memory, {machine.disk_free_mb} MiB of disk",
        *_engine("onnxruntime", machine.onnxruntime),
        *_engine("TFLite", machine.tflite),
        *(f"note         {one}" for one in machine.advice),
        "",
        *written(machine.runtime),
    ]
    return "\n".join(lines) + "\n"


def written(runtime: RuntimeSettings) -> list[str]:
    """The lines of agent.toml."""
    return [
        "[runtime]",
        f"threads = {runtime.threads}",
        f"engines = {json.dumps(runtime.engines)}",
        f"providers = {json.dumps(runtime.providers)}",
    ]


def _engine(title: str, answered: list[Answered]) -> list[str]:
    return [
        f"{title:12} {one.name} {one.version}".rstrip()
        + (f": right, {one.call_us:.0f} us for the probe" if one.works else f": no, {one.why}")
        for one in answered
    ]


def _folder(file: Path | None) -> Path:
    """Where the agent's data lie, or the nearest folder above that is there."""
    place = Path.cwd() if file is None else Path(config.load(file).data_dir)
    return next(one for one in (place, *place.parents) if one.is_dir())


if __name__ == "__main__":
    sys.exit(main())
