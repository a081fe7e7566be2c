"""`millwright drill`: breaks a small site of real processes on purpose, or the copy of a real gateway, and says what came of
it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from protocol.errors import MillwrightError
from server.drill.cases import CASES, Outcome, played
from server.drill.copy import NOT_ON_A_COPY, CopySite, what_waited
from server.drill.site import Site

WHAT_WAITED = "what-waited"
"""Only on a copy, and always first there."""


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 everything that could be tried held, 1 something did not, 2 the drill could not start."""
    options = arguments(argv)
    if options.list:
        sys.stdout.writelines(f"{name:26} {words(name)}\n" for name in CASES)
        return 0
    kept = options.keep is not None
    before = signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(options.keep) if kept else Path(tempfile.mkdtemp(prefix="millwright-drill-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        outcomes = drill(options.only or list(CASES), folder.resolve(), options.database, options.copy_of)
    except (MillwrightError, OSError) as error:
        sys.stderr.write(f"millwright drill: {error}\n")
        return 2
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)
    failed = [name for name, each in outcomes.items() if each["holds"] is False]
    if options.json:
        result = {"holds": not failed, "failed": failed, "cases": outcomes, "load_average": os.getloadavg()[0]}
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    else:
        show(outcomes)
    return 1 if failed else 0


def _interrupt(*_: object) -> NoReturn:
    """Whoever ends the drill ends its processes, and what it copied goes."""
    raise KeyboardInterrupt


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="millwright drill", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(CASES), metavar="CASE", help="these cases (see --list)")
    parser.add_argument("--list", action="store_true", help="say what there is to play, and play nothing")
    parser.add_argument(
        "--database", default="", metavar="URL", help="the server's database (default: SQLite, thrown away)"
    )
    parser.add_argument(
        "--copy-of",
        type=Path,
        metavar="AGENT_TOML",
        help="play on a copy of this gateway, which may be at work and is only read",
    )
    parser.add_argument("--keep", metavar="DIR", help="keep everything in this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(argv)


def drill(names: list[str], folder: Path, database: str, copy_of: Path | None = None) -> dict[str, dict[str, Any]]:
    """Plays the cases one after another on one site; progress on stderr. copy_of: the agent.toml of a gateway whose copy the
    site's gateway is. Raises MillwrightError where there is nothing to play on."""
    outcomes: dict[str, dict[str, Any]] = {}

    def play(name: str, case: Callable[[], Outcome]) -> None:
        began = time.monotonic()
        outcome = case()
        seconds = round(time.monotonic() - began, 1)
        sys.stderr.write(f"{verdict(outcome):9} {name} ({seconds} s)\n")
        outcomes[name] = {**asdict(outcome), "seconds": seconds}

    with Site(folder, database) if copy_of is None else CopySite(folder, copy_of, database) as site:
        site.machines.publish(400)
        if isinstance(site, CopySite):
            play(WHAT_WAITED, partial(played, site, what_waited))
        else:
            site.settle()
        for name in names:
            if isinstance(site, CopySite) and name in NOT_ON_A_COPY:
                play(name, partial(Outcome, None, reason=f"not on a copy: {NOT_ON_A_COPY[name]}"))
            else:
                play(name, partial(played, site, CASES[name]))
    return outcomes


def words(name: str) -> str:
    """What a case does."""
    case = what_waited if name == WHAT_WAITED else CASES[name]
    return " ".join((case.__doc__ or "").split())


def verdict(outcome: Outcome) -> str:
    """In a word."""
    return "not tried" if outcome.holds is None else "holds" if outcome.holds else "FAILS"


def show(outcomes: dict[str, dict[str, Any]]) -> None:
    """For people."""
    for name, each in outcomes.items():
        head = "not tried" if each["holds"] is None else "holds" if each["holds"] else "FAILS"
        sys.stdout.write(f"\n{head}: {name}\n  {words(name)}\n")
        sys.stdout.writelines(f"  {key.replace('_', ' ')}: {value}\n" for key, value in each["evidence"].items())
        sys.stdout.writelines(f"  wrong: {what}\n" for what in each["wrong"])
        if each["reason"]:
            sys.stdout.write(f"  {each['reason']}\n")


if __name__ == "__main__":
    sys.exit(main())
