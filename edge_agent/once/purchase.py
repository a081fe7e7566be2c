"""`millwright purchase`: what to buy, from a stock list, a catalogue and what was taken in the past, with the gateway's own
code and no server.

Tables are CSV or Parquet with these columns (others are passed over):
- `--stock`: part, on_hand; if there: on_order, due_days (days until it comes), time (when it was counted);
- `--demand`: part, quantity, and time (each withdrawal) or month ("2026-04"). A month of the table's span without a row is a
  month without demand; an empty quantity is a month that was not recorded; the running month is left out;
- `--risks`: machine, probability, within_days; if there: failure (none: any), machine_type, and usual_probability of such a
  machine in the same time, which history's demand already holds (without it, nothing is taken out of history).

Exit status: 0 every part of the catalogue was looked at, 1 some have no stock level, 2 wrong input."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from edge_agent.buying import proposals
from edge_agent.once.moments import moment_ms
from edge_agent.runtimes import LoadedModel, load
from edge_agent.stores import load_catalogue
from protocol import columns
from protocol.bundles import MAX_BUNDLE_BYTES, digest
from protocol.catalogue import Catalogue
from protocol.demand_windows import month_name, month_number
from protocol.errors import BadSettings, Reason, Refused
from protocol.names import stable_id
from protocol.observations import LAST_MS
from protocol.purchases import OpenOrder, PurchaseProposal, StockLevel
from protocol.reports import FaultRisk, ModelRef

T = TypeVar("T")
DAY_MS = 86_400_000
MOST_DAYS = 3660
TOLD = ModelRef("supply.purchase", "told_by_file")
_NEVER = -700.0
"""Log odds of what never happens."""
Months = tuple[str, list[float | None]]


def main(argv: list[str]) -> int:
    """`millwright purchase …`."""
    given = _parser().parse_args(argv)
    now_ms = moment_ms("--today", given.today)
    catalogue = load_catalogue(given.catalogue)
    if given.budget is not None:
        if not (math.isfinite(given.budget) and given.budget >= 0):
            raise BadSettings(f"--budget {given.budget}: give an amount of 0 or more")
        catalogue = msgspec.structs.replace(catalogue, budget=given.budget)
    demand = _from_table(given.demand, lambda table: _demand(table, now_ms)) if given.demand else {}
    risks = _from_table(given.risks, lambda table: _risks(table, now_ms)) if given.risks else Risks([], {})
    levels = _from_table(given.stock, lambda table: _stock(table, catalogue, demand, now_ms))
    model = _model(given.model) if given.model else None
    made = proposals(levels, catalogue, model, [], risks.risks, now_ms, machine_types=risks.machine_types)
    without = [part.part for part in catalogue.part if part.part not in {level.part for level in levels}]
    sys.stdout.write(_as_json(made, without, now_ms) if given.json else _as_text(made, without, given.lang))
    return 1 if without else 0


@dataclass(frozen=True)
class Table:
    """A file's columns. `has`: the names in its header."""

    read: columns.Columns
    has: frozenset[str]

    def names(self, column: str) -> list[str]:
        """A column of names, "" where it is not there."""
        if column not in self.has:
            return [""] * self.read.rows
        label = self.read.labels[column]
        return [label.names[code].strip() for code in label.codes]

    def numbers(self, column: str, default: float = math.nan) -> list[float]:
        """A column of numbers, `default` where it is not there."""
        return [float(v) for v in self.read.numbers[column]] if column in self.has else [default] * self.read.rows

    def times_ms(self, column: str, default_ms: int) -> list[int]:
        """The column of times (a stamp without a zone is UTC), `default_ms` where it is not there. Raises Refused for a
        stamp that cannot be read."""
        if column not in self.has:
            return [default_ms] * self.read.rows
        stamps = self.read.time
        bad = np.flatnonzero(~stamps.good)
        if len(bad) or stamps.numbers is not None:
            row = int(bad[0]) + 1 if len(bad) else 1
            raise Refused(
                Reason.BAD_TIME, f"row {row}: the {column} cannot be read: write 2026-04-30 or 2026-04-30T08:00Z"
            )
        odd = np.flatnonzero((stamps.wall_ms < 0) | (stamps.wall_ms > LAST_MS))
        if len(odd):
            raise Refused(Reason.BAD_TIME, f"row {int(odd[0]) + 1}: the {column} is not between 1970 and 9999")
        return [int(ms) for ms in stamps.wall_ms]


def _from_table(path: Path, make: Callable[[Path], T]) -> T:
    """What `make` reads of a file; a refusal names the file."""
    try:
        return make(path)
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    except Refused as error:
        raise Refused(error.reason, f"{path}: {error.detail}") from error


def _table(path: Path, needed: tuple[str, ...], labels: tuple[str, ...], numbers: tuple[str, ...], time: str) -> Table:
    with path.open("rb") as stream:
        has = frozenset(columns.header(stream))
        wanted = columns.Wanted(
            time=time if time in has or time in needed else needed[0],
            labels=tuple(name for name in labels if name in has or name in needed),
            numbers=tuple(name for name in numbers if name in has or name in needed),
        )
        return Table(columns.read(stream, wanted), has)


def _stock(path: Path, catalogue: Catalogue, demand: dict[str, Months], now_ms: int) -> list[StockLevel]:
    table = _table(path, ("part", "on_hand"), ("part",), ("on_hand", "on_order", "due_days"), "time")
    known = {part.part for part in catalogue.part}
    rows = zip(
        table.names("part"),
        table.numbers("on_hand"),
        table.numbers("on_order", 0.0),
        table.numbers("due_days", 0.0),
        table.times_ms("time", now_ms),
        strict=True,
    )
    levels: dict[str, StockLevel] = {}
    for row, (part, on_hand, on_order, due_days, time_ms) in enumerate(rows, 1):
        if part not in known:
            raise Refused(
                Reason.UNKNOWN_TARGET, f"row {row}: part {part!r} is not in the catalogue: add a [[part]] for it"
            )
        if part in levels:
            raise Refused(Reason.CONFLICTING_DUPLICATE, f"row {row}: part {part!r} stands twice: one row a part")
        ordered = _units(0.0 if math.isnan(on_order) else on_order, f"row {row}: on_order of {part}")
        due_days = 0.0 if math.isnan(due_days) else due_days
        if not 0 <= due_days <= MOST_DAYS:
            raise Refused(Reason.WRONG_TYPE, f"row {row}: due_days of {part} must be from 0 to {MOST_DAYS}")
        due_ms = time_ms + round(due_days * DAY_MS)
        first, monthly = demand.get(part, ("", []))
        levels[part] = StockLevel(
            id=stable_id("stock", part, time_ms),
            part=part,
            time_ms=time_ms,
            on_hand=_units(on_hand, f"row {row}: on_hand of {part}"),
            on_order=[OpenOrder(quantity=ordered, due_ms=due_ms)] if ordered else [],
            first_month=first,
            monthly=monthly,
        )
    return list(levels.values())


def _units(value: float, what: str) -> int:
    if not (math.isfinite(value) and value >= 0 and value == int(value) and value <= 1e9):
        said = "empty or no number" if math.isnan(value) else f"{value:g}"
        raise Refused(Reason.WRONG_TYPE, f"{what} is {said}: give whole units, 0 or more (choose a smaller unit)")
    return int(value)


def _demand(path: Path, now_ms: int) -> dict[str, Months]:
    """Units of each part a month over the whole table's span, the running month left out."""
    with path.open("rb") as stream:
        by_month = "month" in columns.header(stream)
    time_name = "month" if by_month else "time"
    table = _table(path, ("part", time_name, "quantity"), ("part", "month"), ("quantity",), "time")
    running = _month_of(now_ms)
    if by_month:
        months = [month_number(name) for name in table.names("month")]
    else:
        months = [_month_of(ms) for ms in table.times_ms("time", now_ms)]
    sums: dict[str, dict[int, float | None]] = {}
    for row, (part, month, units) in enumerate(
        zip(table.names("part"), months, table.numbers("quantity"), strict=True), 1
    ):
        if units < 0 or math.isinf(units):
            raise Refused(
                Reason.WRONG_TYPE, f"row {row}: quantity {units:g} of {part}: 0 or more; book a return as a receipt"
            )
        of_part = sums.setdefault(part, {})
        before = of_part.get(month, 0.0)
        of_part[month] = None if math.isnan(units) or before is None else before + units
    past = [month for month in months if month < running]
    if not past:
        return {}
    first, behind = max(min(past), max(past) - 239), max(past) + 1
    return {
        part: (month_name(first), [of_part.get(month, 0.0) for month in range(first, behind)])
        for part, of_part in sums.items()
    }


@dataclass(frozen=True)
class Risks:
    """Risks, and the types of their machines."""

    risks: list[FaultRisk]
    machine_types: dict[str, str]


def _risks(path: Path, now_ms: int) -> Risks:
    needed = ("machine", "probability", "within_days")
    labels, numbers = ("machine", "failure", "machine_type"), ("probability", "within_days", "usual_probability")
    table = _table(path, needed, labels, numbers, "")
    usual = table.numbers("usual_probability")
    found: list[FaultRisk] = []
    rows = zip(
        table.names("machine"),
        table.names("failure"),
        table.numbers("probability"),
        table.numbers("within_days"),
        usual,
        strict=True,
    )
    for row, (machine, failure, probability, within_days, base) in enumerate(rows, 1):
        if not 0 <= probability <= 1 or not (math.isnan(base) or 0 <= base <= 1):
            raise Refused(Reason.WRONG_TYPE, f"row {row}: probabilities of {machine} must be between 0 and 1")
        if not 0 < within_days <= MOST_DAYS:
            raise Refused(
                Reason.WRONG_TYPE, f"row {row}: within_days of {machine} must be above 0, at most {MOST_DAYS}"
            )
        found.append(
            FaultRisk(
                id=stable_id("risk", machine, failure, now_ms),
                machine=machine,
                component=failure or "*",
                issued_ms=now_ms,
                horizon_ms=round(within_days * DAY_MS),
                probability=probability,
                score=_log_odds(probability),
                expected_score=_NEVER if math.isnan(base) else _log_odds(base),
                model=TOLD,
            )
        )
    kinds = zip(table.names("machine"), table.names("machine_type"), strict=True)
    return Risks(found, {machine: kind for machine, kind in kinds if kind})


def _log_odds(chance: float) -> float:
    inside = min(max(chance, 1e-12), 1 - 1e-12)
    return math.log(inside / (1 - inside))


def _model(path: Path) -> LoadedModel:
    try:
        if path.stat().st_size > MAX_BUNDLE_BYTES:
            raise BadSettings(f"{path} is larger than {MAX_BUNDLE_BYTES} bytes")
        archive = path.read_bytes()
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    model = load(archive, digest(archive))
    if model.passport.demand is None:
        raise BadSettings(f"{path} forecasts no spare-part demand: give a bundle of the slot supply.demand, or none")
    return model


def _month_of(time_ms: int) -> int:
    here = datetime.fromtimestamp(time_ms / 1000, UTC)
    return here.year * 12 + here.month - 1


def _as_json(made: list[PurchaseProposal], without: list[str], now_ms: int) -> str:
    told: dict[str, Any] = {
        "issued": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "total_price": sum(one.total_price for one in made),
        "proposals": made,
        "without_stock_level": without,
    }
    return msgspec.json.encode(told).decode() + "\n"


def _as_text(made: list[PurchaseProposal], without: list[str], lang: str) -> str:
    chinese = lang == "zh"
    header = (
        ["备件", "数量", "供应商", "最迟下单", "到货", "金额", "缺货概率"]
        if chinese
        else ["part", "buy", "supplier", "order by", "arrives", "price", "chance to run short"]
    )
    rows = [
        [
            one.part,
            str(one.quantity),
            one.supplier if one.quantity else "-",
            _day(one.order_by_ms) if one.quantity else "-",
            _day(one.arrives_ms) if one.quantity else "-",
            f"{one.total_price:.2f}",
            f"{100 * one.short_now:.0f} % -> {100 * one.short_then:.0f} %",
        ]
        for one in made
    ]
    wide = [max(_width(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell + " " * (wide[i] - _width(cell)) for i, cell in enumerate(row)).rstrip()
        for row in [header, *rows]
    ]
    total = sum(one.total_price for one in made)
    lines += ["", f"合计 {total:.2f}" if chinese else f"total {total:.2f}", ""]
    lines += [one.because_zh if chinese else one.because_en for one in made]
    lines += [
        f"{part}：没有库存数据，未评估" if chinese else f"{part}: no stock level, not looked at" for part in without
    ]
    return "\n".join(lines) + "\n"


def _width(text: str) -> int:
    return sum(2 if ord(character) > 0x2E7F else 1 for character in text)


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millwright purchase",
        description="Which parts to buy, from whom, how many and when, with reasons. docs/purchasing.md shows the files.",
    )
    add = parser.add_argument
    add("--stock", type=Path, required=True, metavar="FILE", help="part, on_hand [, on_order, due_days, time]")
    add("--catalogue", type=Path, required=True, metavar="FILE.toml", help="parts, suppliers, bill of parts")
    add("--demand", type=Path, metavar="FILE", help="part, quantity and time or month: what was taken in the past")
    add("--model", type=Path, metavar="BUNDLE", help="a bundle that forecasts spare-part demand; else history decides")
    add("--risks", type=Path, metavar="FILE", help="machine, probability, within_days [, failure, machine_type, …]")
    add("--budget", type=float, metavar="N", help="most to spend now; default: the catalogue's")
    add("--today", default="", metavar="DATE", help="the day to decide on; default: this one")
    add("--json", action="store_true", help="print one JSON object")
    add("--lang", choices=("en", "zh"), default="en", help="language of the reasons")
    return parser
