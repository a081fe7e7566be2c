"""`millwright schedule`: a plan for one shop, with the server's CP-SAT where OR-Tools is installed, else with the gateway's
own search; and the repair of a plan when a machine drops out.

An instance is a job shop (JSPLIB), a flexible job shop (Brandimarte) or our JSON (protocol.schedules.Shop). Each plan is
checked by code that shares nothing with the solvers. Ctrl-C ends the search and gives the best plan so far.
Exit status: 0 a plan in which no job is late, 1 jobs are late or no plan can exist (the constraint is named), 2 wrong
input."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.once.gantt import draw
from edge_agent.skills.schedule import repair, schedule
from edge_agent.skills.schedule.repair import begun
from protocol.errors import BadSettings, NeedsPerson, Reason, Refused
from protocol.schedules import Closed, Schedule, Shop
from protocol.shop_check import critical_path, problems, violations
from protocol.shop_files import guess_format, read_flexible, read_job_shop, shop_from_json
from protocol.unreadable import UNREADABLE

CpSat = Callable[..., Schedule]
MOST_BYTES = 64 * 1024 * 1024
CALENDAR_MS = 100_000_000_000
"""A shop that starts later than this counts milliseconds since 1970, an earlier one has times of its own."""
NO_PLAN = 1e12
"""A cost from here on stands for a plan that breaks a window."""
FIRST_S = 1.0
"""Seconds that the gateway's search gives CP-SAT a first plan."""
WORDS = {
    "en": {
        "ends": "{operations} operations on {machines} machines: ends at {end}",
        "proven": "no plan can end earlier",
        "bound": "no plan can end before {at}",
        "late": "{count} jobs late: {names}",
        "nothing_late": "no job is late",
        "window": "maintenance {id} on {machine} at {at}: the plan ends {cost} later for it, chance of failing before {risk}",
        "path": "the end waits for: {path}",
        "repaired": "{moved} operations changed machine or order",
        "stopped": "stopped: the best plan so far",
    },
    "zh": {
        "ends": "{machines} 台设备上的 {operations} 道工序：{end} 结束",
        "proven": "任何方案都不会更早",
        "bound": "任何方案都不会早于 {at}",
        "late": "{count} 个作业延迟：{names}",
        "nothing_late": "没有作业延迟",
        "window": "{machine} 的维护 {id}，{at} 开始：总工期因此延后 {cost}，此前失效概率 {risk}",
        "path": "决定完工时间的链条：{path}",
        "repaired": "{moved} 道工序更换了设备或次序",
        "stopped": "已停止：目前最好的方案",
    },
}


def main(argv: list[str], cp_sat: CpSat | None = None) -> int:
    """`millwright schedule …`. `cp_sat`: the server's solver, handed in because a gateway does not import the server."""
    arguments = _parser().parse_args(argv)
    _check_options(arguments)
    shop = read(arguments.instance, arguments.format)
    try:
        with _interruptible() as stop:
            plan, judged = _plan(shop, arguments, cp_sat, stop)
        if stop():
            sys.stderr.write(WORDS[arguments.lang]["stopped"] + "\n")
    except Refused as error:
        if error.reason is not Reason.NOT_ELIGIBLE:
            raise
        sys.stderr.write(f"millwright schedule: {error.detail}\n")
        if arguments.json:
            sys.stdout.write(msgspec.json.encode({"infeasible": error.detail}).decode() + "\n")
        return 1
    _write(plan, judged, arguments)
    return 1 if plan.late_jobs else 0


def read(path: Path, form: str = "auto") -> Shop:
    """A shop from a file. Raises BadSettings if it cannot be read, Refused if it is no shop."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadSettings(f"{path} is larger than {MOST_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    if form == "json":
        return shop_from_json(data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(Reason.WRONG_TYPE, f"{path.name} is no text: {error.reason}") from error
    form = guess_format(text) if form == "auto" else form
    if form == "json":
        return shop_from_json(data)
    return read_job_shop(text) if form == "jobshop" else read_flexible(text)


def make(
    shop: Shop,
    *,
    solver: str = "auto",
    seconds: float = 30.0,
    cp_sat: CpSat | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[float, float], None] = lambda _share, _cost: None,
    now_ms: int = 0,
) -> Schedule:
    """A checked plan with its critical path. Raises Refused, naming the constraint, if there is none."""
    found = problems(shop)
    if found:
        raise Refused(Reason.NOT_ELIGIBLE, "infeasible schedule: " + "; ".join(found[:5]))
    ready = cp_sat is not None and importlib.util.find_spec("ortools") is not None
    if solver == "gateway" or (solver == "auto" and not ready):
        return checked(shop, schedule(shop, now_ms, seconds, stop=stop, progress=progress))
    if cp_sat is None:
        raise NeedsPerson("CP-SAT runs where the server's part is installed: use --solver gateway")
    first = _first(shop, min(FIRST_S, seconds / 10), now_ms) if ready else None
    return checked(shop, cp_sat(shop, budget_s=seconds, stop=stop, progress=progress, hint=first, now_ms=now_ms))


def checked(shop: Shop, plan: Schedule) -> Schedule:
    """The plan with its critical path. Raises NeedsPerson if it breaks a rule: a fault of this product."""
    broken = violations(shop, plan)
    if broken:
        raise NeedsPerson(f"the plan breaks a rule: {broken[0]}; report this instance, and try the other --solver")
    return msgspec.structs.replace(plan, critical=critical_path(shop, plan))


def _first(shop: Shop, seconds: float, now_ms: int) -> Schedule | None:
    try:
        return schedule(shop, now_ms, seconds)
    except Refused:
        return None  # the gateway's search is no proof; CP-SAT says whether there is a plan


def _plan(
    shop: Shop, arguments: argparse.Namespace, cp_sat: CpSat | None, stop: Callable[[], bool]
) -> tuple[Schedule, Shop]:
    now = int(time.time() * 1000)
    with _progress() as progress:
        if arguments.repair is None:
            made = make(
                shop,
                solver=arguments.solver,
                seconds=arguments.seconds,
                cp_sat=cp_sat,
                stop=stop,
                progress=progress,
                now_ms=now,
            )
            return made, shop
        before = _schedule(arguments.repair)
        down = _down(arguments.down)
        broken = violations(shop, before)
        if broken:
            raise BadSettings(f"{arguments.repair} is no plan of this shop: {broken[0]}")
        changed = begun(shop, before, [down], down.start_ms)
        mended = repair(shop, before, [down], down.start_ms, arguments.seconds, stop=stop, progress=progress)
        return checked(changed, msgspec.structs.replace(mended, issued_ms=now)), changed


def _schedule(path: Path) -> Schedule:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Schedule)
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    except UNREADABLE as error:
        raise BadSettings(f"{path} is no schedule: {error}; give a file of --out") from error


def _down(text: str) -> Closed:
    try:
        machine, start, end = text.rsplit(":", 2)
        return msgspec.convert(
            {"machine": machine, "start_ms": int(start), "end_ms": int(end), "because": "breakdown"}, type=Closed
        )
    except (ValueError, msgspec.ValidationError) as error:
        raise BadSettings(f"--down {text}: MACHINE:FROM:TO with times in ms, as in the plan") from error


def _check_options(arguments: argparse.Namespace) -> None:
    if not (math.isfinite(arguments.seconds) and 0 <= arguments.seconds <= 86_400):
        raise BadSettings(f"--seconds {arguments.seconds}: from 0 to 86400")
    if (arguments.repair is None) != (arguments.down is None):
        raise BadSettings("--repair SCHEDULE.json and --down MACHINE:FROM:TO belong together")
    for path in (arguments.gantt, arguments.out):
        if path is not None and not path.parent.is_dir():
            raise BadSettings(f"{path}: its folder does not exist")
    if arguments.gantt is not None and arguments.gantt.suffix.lower() != ".svg":
        raise BadSettings(f"--gantt {arguments.gantt}: the picture is an SVG; name it so")


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks the search to stop; one more, a second later or after that, ends the command."""
    asked: list[float] = []

    def ask(_number: int, _frame: Any) -> None:
        if asked and time.monotonic() > asked[0] + 1.0:
            raise KeyboardInterrupt
        asked.append(time.monotonic())

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not the main thread: nobody can press Ctrl-C here
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[float, float], None]]:
    """A bar on a terminal, a line each quarter elsewhere."""
    told, terminal = [-1], sys.stderr.isatty()

    def tell(share: float, cost: float) -> None:
        step = int((100 if terminal else 4) * share)
        if step <= told[0]:
            return
        told[0] = step
        best = "-" if cost >= NO_PLAN else f"{cost:g}"
        if terminal:
            filled = int(30 * share)
            sys.stderr.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {share:4.0%} {best} ")
            sys.stderr.flush()
        else:
            sys.stderr.write(f"{share:4.0%} best cost {best}\n")

    try:
        yield tell
    finally:
        if terminal and told[0] >= 0:
            sys.stderr.write("\n")


def _write(plan: Schedule, shop: Shop, arguments: argparse.Namespace) -> None:
    whole = msgspec.json.format(msgspec.json.encode(plan), indent=1).decode() + "\n"
    if arguments.out is not None:
        arguments.out.write_text(whole, encoding="utf-8")
    if arguments.gantt is not None:
        arguments.gantt.write_text(draw(plan, arguments.lang), encoding="utf-8")
    sys.stdout.write(whole if arguments.json else as_text(plan, shop, arguments.lang))


def as_text(plan: Schedule, shop: Shop, lang: str) -> str:
    """What a person needs to know of a plan, line by line."""
    words, at = WORDS[lang], _clock(shop.start_ms)
    lines = [
        words["ends"].format(
            operations=len(plan.placed),
            machines=len({p.machine for p in plan.placed}),
            end=at(plan.end_ms),
        )
    ]
    if plan.bound_ms > plan.start_ms:
        lines.append(words["proven"] if plan.bound_ms >= plan.end_ms else words["bound"].format(at=at(plan.bound_ms)))
    if plan.late_jobs:
        lines.append(words["late"].format(count=len(plan.late_jobs), names=", ".join(plan.late_jobs[:10])))
    elif any(job.due_ms is not None for job in shop.jobs):
        lines.append(words["nothing_late"])
    lines += [
        words["window"].format(
            id=m.id, machine=m.machine, at=at(m.start_ms), cost=_span(m.cost_ms, plan), risk=f"{m.risk_before:.1%}"
        )
        for m in plan.maintenance
    ]
    if plan.repairs:
        lines.append(words["repaired"].format(moved=plan.moved))
    path = [f"{w.maintenance or w.job}@{w.machine} ({w.because})" for w in reversed(plan.critical)]
    if len(path) > 8:
        path = [*path[:2], "…", *path[-5:]]
    if path:
        lines.append(words["path"].format(path=" → ".join(path)))
    lines.append(plan.because_zh if lang == "zh" else plan.because_en)
    return "\n".join(lines) + "\n"


def _clock(start_ms: int) -> Callable[[int], str]:
    if start_ms < CALENDAR_MS:
        return str
    return lambda ms: datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")


def _span(ms: int, plan: Schedule) -> str:
    return str(ms) if plan.start_ms < CALENDAR_MS else f"{ms / 3_600_000:.1f} h"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millwright schedule",
        description="Plans a shop: job shop, flexible job shop, or JSON with calendars, due dates, set-ups and maintenance.",
    )
    add = parser.add_argument
    add("instance", type=Path, metavar="INSTANCE", help="a JSPLIB or Brandimarte file, or a shop as JSON")
    add("--format", choices=("auto", "jobshop", "flexible", "json"), default="auto", help="default: seen from the file")
    add("--solver", choices=("auto", "gateway", "cp-sat"), default="auto", help="auto: CP-SAT if it is installed")
    add("--seconds", type=float, default=30.0, metavar="N", help="time for the search (default 30)")
    add("--repair", type=Path, metavar="SCHEDULE.json", help="mend this plan (of --out) instead of making one")
    add(
        "--down",
        metavar="MACHINE:FROM:TO",
        help="with --repair: the machine that dropped out, times in ms; FROM is now",
    )
    add("--gantt", type=Path, metavar="FILE.svg", help="write a Gantt picture")
    add("--out", type=Path, metavar="FILE.json", help="write the plan")
    add("--json", action="store_true", help="print the plan as one JSON object")
    add("--lang", choices=("en", "zh"), default="en", help="language of the words")
    return parser
