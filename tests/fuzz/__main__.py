"""`python -m tests.fuzz [--inputs N] [--seconds N] [--target NAME ...] [--seed N] [--json]`: looks for holes in every reader.
An input that finds one is kept in tests/fuzz/found/TARGET/; the exit status is then 1."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path

from tests.fuzz.hunt import Hunt, Hunted, quiet
from tests.fuzz.targets import Target, named

SLOW = 0.05
"""Share of the inputs that a slow target gets."""


def main(argv: list[str]) -> int:
    """Exit status: 0 no hole, 1 holes, 2 no such target."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="altogether; slow targets get fewer")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many, shared out alike")
    parser.add_argument("--target", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # numpy says of a NaN that it is one
    with tempfile.TemporaryDirectory() as folder:
        try:
            targets = list(named(Path(folder), asked.target))
        except KeyError as unknown:
            parser.error(f"no target {unknown}")
        told: list[Hunted] = []
        quiet(lambda: told.extend(_hunted(targets, asked)))
    if asked.json:
        sys.stdout.write(json.dumps([asdict(one) for one in told], indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("\n".join(_in_words(told)) + "\n")
    return int(any(one.holes for one in told))


def _hunted(targets: list[Target], asked: argparse.Namespace) -> list[Hunted]:
    shares = [SLOW if target.slow else 1.0 for target in targets]
    each = asked.inputs / sum(shares)
    told = []
    for left, (target, share) in enumerate(zip(targets, shares, strict=True)):
        done = sum(one.seconds for one in told)
        until_s = time.monotonic() + (asked.seconds - done) / (len(targets) - left)
        told.append(Hunt(target, asked.seed, keep=True).run(round(each * share) + 1, until_s))
        sys.stderr.write(_line(told[-1]) + "\n")
    return told


def _line(one: Hunted) -> str:
    holes = "".join(f"\n    {times} x {hole}" for hole, times in one.holes.items())
    return (
        f"{one.target:28} {one.inputs:9,} inputs {one.taken:8,} taken {one.lines:6,} lines {one.kept:4} kept "
        f"{one.seconds:7.1f} s {len(one.holes)} holes{holes}"
    )


def _in_words(told: list[Hunted]) -> list[str]:
    inputs, seconds = sum(one.inputs for one in told), sum(one.seconds for one in told)
    holes = sum(len(one.holes) for one in told)
    return [*map(_line, told), f"{len(told)} targets, {inputs:,} inputs, {seconds:.0f} s, {holes} holes"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
