"""Late delivery: chance and expected days of lateness of each order line of the last year, learned from the years before.

    python benchmarks/late_delivery.py --data DIR [--quick] [--json]

DIR holds a CSV (or .csv.gz) in the format of the USAID SCMS delivery history. Lines whose scheduled day lies in the
last year of the folder are tested, all earlier ones are learned from. A line is judged on its scheduled day, before it
is due, from lines due on earlier days only (their lateness is known: what was due and has not come is late); rows with
7 and 30 days of notice stand beside. Delivered and recorded dates of the judged line are never read. Learned weights
stay frozen through the test year; the shares of lateness and the drift shift move with what has come due, as on a
gateway. Late: delivered after the scheduled day. AUC; ECE over 10 bins of equal count; mean absolute error of the
expected days. Reference: the vendor's share of late lines in the training years (shrunk to the base rate); peers:
HistGradientBoosting on the raw columns, and on our columns. --quick: every third line, no notice rows. With --train DIR
--test DIR all lines of the second folder are tested."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import csv
import gzip
import io
import re
import sys
import time
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.order_lines import LateSpec, OrderLines, late_features
from protocol.windows import Floats
from server.algorithms import late_delivery
from server.algorithms.late_delivery import FittedLate, LateSettings

AUC_TARGET, ECE_TARGET, BINS = 0.72, 0.03, 10
FIELDS = {
    "term": "Vendor INCO Term",
    "country": "Country",
    "vendor": "Vendor",
    "site": "Manufacturing Site",
    "part": "Item Description",
    "project": "Project Code",
    "mode": "Shipment Mode",
    "group": "Sub Classification",
}
SPEC = LateSpec(
    keys=[
        *([name] for name in FIELDS),
        ["term", "country"],
        ["vendor", "country"],
        ["mode", "country"],
        ["term", "mode"],
        ["term", "group"],
        ["term", "part"],
    ],
    numbers=["quantity", "value", "unit price", "weight", "freight", "days ordered ahead", "lines due together"],
)
_FORMATS = ("%d-%b-%y", "%m/%d/%y", "%Y-%m-%d", "%d-%b-%Y", "%m/%d/%Y")
Mask = NDArray[np.bool_]


def measure(sheet: contract.Sheet) -> None:
    """Rows for AUC, calibration and days, with and without notice."""
    lines, test = read_split(sheet)
    years = np.array([date.fromordinal(int(day) + date(1970, 1, 1).toordinal()).year for day in lines.scheduled_day])
    sheet.say(
        f"{int((~test).sum())} lines to {years[~test].max()} ({lines.late[~test].mean():.3f} late), {int(test.sum())} of "
        f"{years.max()} ({lines.late[test].mean():.3f} late)"
    )
    late = lines.late[test]
    days = np.maximum(lines.delivered_day - lines.scheduled_day, 0.0)[test]
    started = time.monotonic()
    chance, expected, fitted = judged(lines, test, SPEC)
    seconds = time.monotonic() - started
    sheet.note(
        f"penalty {fitted.penalty:g}, weight of the trees {fitted.tree_weight:.2f}, shift over "
        f"{fitted.spec.drift_days} days: chosen on the newest half-years of the training part"
    )
    peers = {"HistGB raw": _boosted(_raw_columns(lines), lines.late, test)}
    peers["HistGB on our columns"] = _boosted(late_features(lines, lines, SPEC), lines.late, test)
    vendor, vendor_days = _vendor_mean(lines, test)
    full = not sheet.options.quick
    sheet.row(
        f"late lines of {years.max()}",
        "AUC",
        area(late, chance),
        reference=area(late, vendor),
        peers={name: area(late, p) for name, p in peers.items()},
        target=AUC_TARGET,
        holds=area(late, chance) >= AUC_TARGET if full else None,
        n=int(test.sum()),
        seconds=seconds,
    )
    sheet.row(
        f"late lines of {years.max()}",
        "ECE, 10 bins of equal count",
        calibration_error(late, chance),
        reference=calibration_error(late, vendor),
        peers={name: calibration_error(late, p) for name, p in peers.items()},
        target=ECE_TARGET,
        holds=calibration_error(late, chance) <= ECE_TARGET if full else None,
        n=int(test.sum()),
        told=round(float(chance.mean()), 4),
        happened=round(float(late.mean()), 4),
    )
    sheet.row(
        f"late lines of {years.max()}",
        "Brier score",
        brier(late, chance),
        reference=brier(late, vendor),
        peers={name: brier(late, p) for name, p in peers.items()},
        n=int(test.sum()),
    )
    sheet.row(
        f"expected days late in {years.max()}",
        "mean absolute error, days",
        float(np.abs(expected - days).mean()),
        reference=float(np.abs(vendor_days - days).mean()),
        peers={"always on time": float(days.mean())},
        n=int(test.sum()),
        told=round(float(expected.mean()), 3),
        happened=round(float(days.mean()), 3),
    )
    if full:
        for notice in (7, 30):
            early, _, _ = judged(lines, test, msgspec.structs.replace(SPEC, notice_days=notice))
            sheet.row(
                f"the same, judged {notice} days before",
                "AUC",
                area(late, early),
                n=int(test.sum()),
                ece=round(calibration_error(late, early), 4),
            )


def read_split(sheet: contract.Sheet) -> tuple[OrderLines, Mask]:
    """All lines in the order of their scheduled days, and which are tested: those of the last year, or those of the second
    folder where there are two."""
    files = ("*.csv", "*.csv.gz")
    rows = read_rows(sheet.find(sheet.options.train, *files)[0])
    apart = sheet.options.test != sheet.options.train
    learned = {row["ID"] for row in rows}
    if apart:
        rows += [row for row in read_rows(sheet.find(sheet.options.test, *files)[0]) if row["ID"] not in learned]
    lines = as_lines(rows)
    if sheet.options.quick:
        lines = lines.rows(np.arange(len(lines)) % 3 == 0)
    if apart:
        return lines, np.array([name not in learned for name in lines.ids])
    years = np.array([date.fromordinal(int(day) + date(1970, 1, 1).toordinal()).year for day in lines.scheduled_day])
    return lines, years == years.max()


def judged(lines: OrderLines, test: Mask, spec: LateSpec) -> tuple[Floats, Floats, FittedLate]:
    """(chance, expected days, model) of the test lines."""
    fitted = late_delivery.fit(lines.rows(~test), spec, LateSettings())
    x = late_features(lines, lines, spec)
    raw = late_delivery.shifted(fitted.raw(x), lines.scheduled_day, lines.late, fitted)[test]
    chance = 0.5 * (1.0 + np.tanh(0.5 * raw))
    return chance, chance * fitted.days_if_late(x)[test], fitted


def area(truth: Mask, chance: Floats) -> float:
    """Area under the receiver operating characteristic, ties counted half."""
    values, place = np.unique(chance, return_inverse=True)
    ones, zeros = np.bincount(place, truth, len(values)), np.bincount(place, ~truth, len(values))
    below = np.cumsum(zeros) - zeros
    return float((ones * (below + 0.5 * zeros)).sum() / max(ones.sum() * zeros.sum(), 1))


def calibration_error(truth: Mask, chance: Floats) -> float:
    """Expected calibration error: bins of equal count, |told - happened| weighted by the bin's share."""
    bins = np.array_split(np.argsort(chance, kind="stable"), BINS)
    gaps = [abs(float(chance[b].mean()) - float(truth[b].mean())) * len(b) for b in bins if len(b)]
    return float(sum(gaps) / max(len(truth), 1))


def brier(truth: Mask, chance: Floats) -> float:
    """Mean squared error of the chance."""
    return float(np.mean((chance - truth) ** 2))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file that have a scheduled day."""
    whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    every = csv.DictReader(io.StringIO(whole.decode("utf-8-sig"), newline=""))
    rows = [row for row in every if _day(row.get("Scheduled Delivery Date", "")) is not None]
    if not rows:
        raise SystemExit(f"late_delivery: {path.name} has no line with a Scheduled Delivery Date")
    return rows


def as_lines(rows: list[dict[str, str]]) -> OrderLines:
    """Lines in the order of their scheduled days; cells with text where a number belongs are not known."""
    rows.sort(key=lambda row: (_day(row["Scheduled Delivery Date"]) or 0, row["ID"]))
    scheduled = np.array([_day(row["Scheduled Delivery Date"]) for row in rows], dtype=np.int64)
    together = Counter((row["Project Code"], row["Scheduled Delivery Date"]) for row in rows)
    numbers = {
        "quantity": [_number(row["Line Item Quantity"]) for row in rows],
        "value": [_number(row["Line Item Value"]) for row in rows],
        "unit price": [_number(row["Unit Price"]) for row in rows],
        "weight": [_number(row["Weight (Kilograms)"]) for row in rows],
        "freight": [_number(row["Freight Cost (USD)"]) for row in rows],
        "days ordered ahead": [_float_day(row["PO Sent to Vendor Date"]) for row in rows],
        "lines due together": [
            float(together[row["Project Code"], row["Scheduled Delivery Date"]] - 1) for row in rows
        ],
    }
    columns = {name: np.array(column, dtype=np.float64) for name, column in numbers.items()}
    columns["days ordered ahead"] = scheduled - columns["days ordered ahead"]
    return OrderLines(
        ids=[row["ID"] for row in rows],
        fields={name: [row[column].strip() or "?" for row in rows] for name, column in FIELDS.items()},
        numbers=columns,
        scheduled_day=scheduled,
        delivered_day=np.array([_float_day(row["Delivered to Client Date"]) for row in rows]),
    )


def _number(cell: str) -> float:
    plain = cell.replace(",", "").strip()
    return float(plain) if re.fullmatch(r"-?\d+(\.\d+)?", plain) else float("nan")


def _day(cell: str) -> int | None:
    for layout in _FORMATS:
        try:
            read_as = datetime.strptime(cell.strip(), layout).replace(tzinfo=UTC)
        except ValueError:
            continue
        return read_as.date().toordinal() - date(1970, 1, 1).toordinal()
    return None


def _float_day(cell: str) -> float:
    day = _day(cell)
    return float("nan") if day is None else float(day)


def _raw_columns(lines: OrderLines) -> Floats:
    columns = [lines.numbers[name] for name in SPEC.numbers]
    for name in SPEC.keys:
        if len(name) == 1:
            codes = {text: float(i) for i, text in enumerate(sorted(set(lines.fields[name[0]])))}
            columns.append(np.array([codes[text] for text in lines.fields[name[0]]]))
    month = [date.fromordinal(int(d) + date(1970, 1, 1).toordinal()).month for d in lines.scheduled_day]
    return np.column_stack([*columns, np.array(month, dtype=np.float64)])


def _boosted(x: Floats, late: Mask, test: Mask) -> Floats:
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.where(np.isnan(x[~test]).all(axis=0), 0.0, x)  # the library refuses a column without a value
    model: Any = HistGradientBoostingClassifier(random_state=0).fit(x[~test], late[~test])
    return np.asarray(model.predict_proba(x[test])[:, 1], dtype=np.float64)


def _vendor_mean(lines: OrderLines, test: Mask) -> tuple[Floats, Floats]:
    learned = np.flatnonzero(~test)
    base = float(lines.late[learned].mean())
    days = np.maximum(lines.delivered_day - lines.scheduled_day, 0.0)
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for i in learned:
        seen = counts[lines.fields["vendor"][i]]
        seen[0] += 1
        seen[1] += float(lines.late[i])
        seen[2] += float(np.nan_to_num(days[i]))
    asked = [counts[lines.fields["vendor"][i]] for i in np.flatnonzero(test)]
    base_days = float(np.nanmean(days[learned]))
    chance = np.array([(late + 10 * base) / (n + 10) for n, late, _ in asked])
    return chance, np.array([(total + 10 * base_days) / (n + 10) for n, _, total in asked])


if __name__ == "__main__":
    sys.exit(contract.run("late_delivery", __doc__, measure))
