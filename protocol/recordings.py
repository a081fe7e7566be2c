"""A long table of recorded values becomes regular series, one row a machine and signal; what was odd is counted and said.

Rules, each counted in a Finding when it was used:
- every value of a bucket is averaged, duplicates of one instant too; the order of rows does not matter;
- a stamp without a zone is local time of `time_zone`, or UTC where none is named; an hour that comes twice when the clocks
  go back is told apart by the order of rows, and is the first one where the order does not tell; an hour that never was
  (clocks went forward) is moved on by the size of the jump;
- the step is the median difference of stamps, near ones snapped to a round step, unless it is given; calendar months,
  quarters and years become equal steps of their mean length;
- where counts are declared, a negative value is taken as missing;
- a series without two values is left out by name; a jump that looks like a change of unit is pointed out, not mended.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.columns import Columns, Stamps, Wanted
from protocol.covariates import KnownInput, Source
from protocol.errors import BadMessage, BadSettings, Reason, Refused
from protocol.names import stable_id
from protocol.windows import DAY_MS, MAX_BUCKETS, Floats

MOST_CELLS = 20_000_000
SECOND_MS, MINUTE_MS, HOUR_MS = 1000, 60_000, 3_600_000
ROUND_STEPS = tuple(
    unit * n
    for unit, counts in (
        (SECOND_MS, (1, 2, 5, 10, 15, 20, 30)),
        (MINUTE_MS, (1, 2, 3, 5, 10, 15, 20, 30)),
        (HOUR_MS, (1, 2, 3, 4, 6, 8, 12)),
        (DAY_MS, (1, 7, 14)),
    )
    for n in counts
)
MONTH_MS = 2_629_746_000
"""Mean length of a calendar month (365.2425 / 12 days)."""
_CALENDAR = ((27.5, 31.5, 1), (88.0, 93.0, 3), (364.0, 367.0, 12))
_UNITS = {"ms": 1, "s": SECOND_MS, "min": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS, "month": MONTH_MS}
_FACTORS = {1000.0: "kilo", 1e6: "mega", 14.5038: "bar and psi", 100.0: "percent and share", 25.4: "inch and mm"}
NAMED = 5
MOST_NUMBERED = 1e19
"""Nanoseconds since 1970 in the year 2286."""
FIRST_LOCAL_MS, LAST_LOCAL_MS = -5_364_662_400_000, 7_258_118_400_000
"""1800 to 2200: every day in between is looked at for a change of a zone's offset."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Which column means what. Travels in a bundle's lineage, so that it need not be said again.

    series: columns that together name a machine (none: the file is one machine); targets: columns of signals; known:
    columns that are known ahead; step_ms None: inferred; counts: the targets count things."""

    time: str
    targets: tuple[str, ...]
    series: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    step_ms: int | None = None
    time_zone: str = ""
    time_format: str = ""
    counts: bool = False

    @property
    def wanted(self) -> Wanted:
        """The columns to read."""
        return Wanted(self.time, self.series, (*self.targets, *self.known), self.time_format)


@dataclass(frozen=True)
class Finding:
    """Something odd in the file and what was done about it. `kind` is stable; `series` names at most a few."""

    kind: str
    count: int
    words: str
    series: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recordings:
    """values [S, T], NaN where nothing was recorded, on buckets [start_ms + i*step_ms, + step_ms). series[s] = (machine,
    signal). known[name] is [S, T'], T' >= T where inputs reach beyond the last target. stamp_ms: where in its bucket a
    stamp stands (half a step where stamps jitter around the grid). left_out: series without two values, with the only
    value if there is one."""

    start_ms: int
    step_ms: int
    series: list[tuple[str, str]]
    values: Floats
    known: dict[str, Floats] = field(default_factory=dict)
    stamp_ms: int = 0
    rows: int = 0
    findings: list[Finding] = field(default_factory=list)
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def until_ms(self) -> int:
        """Start of the bucket after the last one."""
        return self.start_ms + self.step_ms * int(self.values.shape[1])


def known_inputs(recordings: Recordings) -> list[KnownInput]:
    """The known columns as what forecasters are told of a machine's future: one input a run of equal values, known from
    the start. What is 0 or empty says nothing."""
    made: dict[str, KnownInput] = {}
    start, step = recordings.start_ms, recordings.step_ms
    for name, table in recordings.known.items():
        for (machine, _), row in zip(recordings.series, np.nan_to_num(table), strict=True):
            edges = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
            for first, behind in itertools.pairwise(edges):
                if row[first] == 0.0:
                    continue
                known = KnownInput(
                    id=stable_id("known", "file", machine, name, start + first * step),
                    machine=machine,
                    covariate=name,
                    start_ms=max(start + first * step, 0),
                    end_ms=max(start + behind * step, 0),
                    known_ms=0,
                    value=float(np.clip(row[first], -1e12, 1e12)),
                    source=Source.SCHEDULE,
                )
                made[known.id] = known
    return list(made.values())


def parse_step(text: str) -> int:
    """ "15min" -> milliseconds; units ms, s, min, h, d, w, month. Raises BadSettings."""
    match = re.fullmatch(r"\s*(\d*)\s*(ms|s|min|h|d|w|month)\s*", text)
    if match is None or match[1] == "0":
        raise BadSettings(f"step {text!r}: write a number and one of {', '.join(_UNITS)}, such as 15min")
    return int(match[1] or 1) * _UNITS[match[2]]


def step_words(step_ms: int) -> str:
    """Milliseconds -> "15min", as `parse_step` reads it."""
    for unit in ("month", "d", "h", "min", "s"):
        if step_ms % _UNITS[unit] == 0:
            return f"{step_ms // _UNITS[unit]}{unit}"
    return f"{step_ms}ms"


def lay_out(columns: Columns, layout: Layout) -> Recordings:
    """The table as regular series. Raises Refused where no series has two values or the grid would be too large, and
    BadSettings for an unknown time zone; the message names the remedy."""
    findings: list[Finding] = []
    zone = _zone(layout.time_zone) if layout.time_zone else None
    if not columns.rows:
        raise Refused(Reason.WRONG_TYPE, "the file has a header and no rows")
    machine, names = _machines(columns, layout)
    times, good = _instants(columns.time, machine, layout, zone, findings)
    _count_unread(columns, layout, findings)
    numbers = {name: np.where(np.isfinite(v), v, np.nan) for name, v in columns.numbers.items()}
    if layout.counts:
        for name in layout.targets:
            numbers[name] = _without_negatives(name, numbers[name], findings)
    told = np.zeros(columns.rows, dtype=bool)
    for name in layout.targets:
        told |= np.isfinite(numbers[name])
    if not (told & good).any():
        raise Refused(
            Reason.NOT_ELIGIBLE, f"no row has a time and a number in {', '.join(layout.targets)}: check the columns"
        )
    order = _in_order(machine, times, good, findings)
    step = layout.step_ms or _step(machine[order], times[order])
    step, start, stamp = _anchor(times[order], step, layout.step_ms is not None)
    grid = _Grid(start, step, names)
    ends = int((times[good & told].max() - start) // step) + 1
    reach = max(ends, int((times[good].max() - start) // step) + 1) if layout.known else ends
    grid.check(reach, len(layout.targets), layout.step_ms is None)
    index = (times[order] - start) // step
    whole = {name: grid.means(machine[order], index, numbers[name][order], ends) for name in layout.targets}
    known = {name: grid.means(machine[order], index, numbers[name][order], reach) for name in layout.known}
    return _kept(whole, known, grid, stamp, columns.rows, findings)


@dataclass(frozen=True)
class _Grid:
    start_ms: int
    step_ms: int
    names: list[str]

    def check(self, buckets: int, targets: int, inferred: bool) -> None:
        most = min(MAX_BUCKETS, MOST_CELLS // max(len(self.names) * targets, 1))
        if buckets <= most:
            return
        least = self.step_ms * buckets / max(most, 1)
        wider = next((s for s in ROUND_STEPS if s >= least), int(-(-least // DAY_MS) * DAY_MS))
        raise BadMessage(
            Reason.TOO_LARGE,
            f"{buckets} buckets of {step_words(self.step_ms)}{' (inferred)' if inferred else ''} for {len(self.names)} "
            f"series; at most {most} can be had: give a longer step (--step {step_words(wider)}) or fewer series",
        )

    def means(self, machine: NDArray[np.int64], index: NDArray[np.int64], values: Floats, buckets: int) -> Floats:
        """Means per bucket [S, buckets]."""
        inside = np.isfinite(values) & (index < buckets)
        flat = machine[inside] * buckets + index[inside]
        cells = len(self.names) * buckets
        total = np.bincount(flat, weights=values[inside], minlength=cells)
        count = np.bincount(flat, minlength=cells)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(count > 0, total / count, np.nan)
        return np.asarray(means.reshape(len(self.names), buckets), dtype=np.float64)


def _machines(columns: Columns, layout: Layout) -> tuple[NDArray[np.int64], list[str]]:
    """(row -> machine, names). Several columns are joined by " / "."""
    if not layout.series:
        return np.zeros(columns.rows, dtype=np.int64), ["series"]
    first, *others = (columns.labels[name] for name in layout.series)
    codes, names = first.codes, list(first.names)
    for other in others:
        pair = codes * len(other.names) + other.codes
        seen, codes = np.unique(pair, return_inverse=True)
        names = [f"{names[p // len(other.names)]} / {other.names[p % len(other.names)]}" for p in seen.tolist()]
    seen, codes = np.unique(codes, return_inverse=True)
    names = [names[i] or "(unnamed)" for i in seen.tolist()]
    too_long = next((name for name in names if len(name) > 128), None)
    if too_long is not None:
        raise Refused(Reason.BAD_NAME, f"series {too_long[:40]!r}… is longer than 128 characters")
    by_name = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(names), dtype=np.int64)
    place[by_name] = np.arange(len(names))
    return place[codes.reshape(-1)], [names[i] for i in by_name]


def _instants(
    stamps: Stamps, machine: NDArray[np.int64], layout: Layout, zone: ZoneInfo | None, findings: list[Finding]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Milliseconds UTC of every row, and whether it has one."""
    good = stamps.good
    bad = int((~good).sum())
    if bad == len(good):
        raise Refused(
            Reason.BAD_TIME,
            f"no stamp of column {layout.time!r} can be read: ISO 8601 and epoch numbers are; for others give "
            "--time-format, such as '%d.%m.%Y %H:%M'",
        )
    if bad:
        findings.append(Finding("unreadable_time", bad, f"{bad} rows without a readable time were left out"))
    if stamps.numbers is not None:
        return _from_numbers(stamps.numbers, good, layout, findings), good
    times = stamps.wall_ms
    bare = good & ~stamps.zoned
    if bare.any():
        if zone is not None:
            local, ambiguous, missing = _from_local(times, bare, machine, zone)
            times = local
            if ambiguous:
                findings.append(
                    Finding(
                        "ambiguous_hour",
                        ambiguous,
                        f"{ambiguous} stamps lie in an hour that {layout.time_zone} had twice: told apart by the order of "
                        "rows, else taken as the first",
                    )
                )
            if missing:
                findings.append(
                    Finding(
                        "missing_hour",
                        missing,
                        f"{missing} stamps lie in an hour that {layout.time_zone} never had: moved on by the jump",
                    )
                )
        else:
            findings.append(
                Finding(
                    "no_time_zone",
                    int(bare.sum()),
                    f"{int(bare.sum())} stamps name no zone and were read as UTC: give --time-zone if they are local",
                )
            )
    return times, good


def _from_numbers(
    numbers: Floats, good: NDArray[np.bool_], layout: Layout, findings: list[Finding]
) -> NDArray[np.int64]:
    largest = float(np.abs(numbers[good]).max())
    if largest >= MOST_NUMBERED:
        raise Refused(Reason.BAD_TIME, f"column {layout.time!r} counts up to {largest:g}, which no clock does: mend it")
    if largest < 1e8:
        if layout.step_ms is None:
            raise Refused(
                Reason.BAD_TIME,
                f"column {layout.time!r} counts up to {largest:g}: too small for a time; with --step they are step numbers",
            )
        unit, words = float(layout.step_ms), "step numbers"
    else:
        limits = ((1e11, 1000.0, "seconds"), (1e14, 1.0, "milliseconds"), (1e17, 1e-3, "microseconds"))
        unit, words = next(((u, w) for limit, u, w in limits if largest < limit), (1e-6, "nanoseconds"))
        words += " since 1970"
    findings.append(Finding("numbered_time", int(good.sum()), f"times are numbers, read as {words}"))
    return np.round(np.where(good, numbers, 0.0) * unit).astype(np.int64)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadSettings(f"time zone {name!r} is not known here: use a name such as Europe/Berlin or UTC") from error


def _changes(zone: ZoneInfo, first_ms: int, last_ms: int) -> list[tuple[int, int, int]]:
    """(instant, offset before, offset after) of every change of a zone's offset in a span; offset = local - UTC."""

    def offset(ms: int) -> int:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
        return round((zone.utcoffset(moment.astimezone(zone)) or timedelta()).total_seconds() * 1000)

    days = range(first_ms - 2 * DAY_MS, last_ms + 3 * DAY_MS, DAY_MS)
    found: list[tuple[int, int, int]] = [(days[0], offset(days[0]), offset(days[0]))]
    before = found[0][1]
    for day in days[1:]:
        after = offset(day)
        if after != before:
            low, high = day - DAY_MS, day
            while high - low > 1000:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            found.append((-(-low // MINUTE_MS) * MINUTE_MS, before, after))
            before = after
    return found


def _from_local(
    wall: NDArray[np.int64], bare: NDArray[np.bool_], machine: NDArray[np.int64], zone: ZoneInfo
) -> tuple[NDArray[np.int64], int, int]:
    """(instants, stamps in hours that came twice, stamps in hours that never were)."""
    first, last = int(wall[bare].min()), int(wall[bare].max())
    if first < FIRST_LOCAL_MS or last > LAST_LOCAL_MS:
        raise Refused(
            Reason.BAD_TIME,
            "a local time before 1800 or after 2200 is a slip of a column or of --time-format: mend the stamp, or leave "
            "--time-zone out",
        )
    changes = _changes(zone, first, last)
    starts = np.array([at + max(before, after) for at, before, after in changes], dtype=np.int64)
    offsets = np.array([after for _, _, after in changes], dtype=np.int64)
    offset = offsets[np.maximum(np.searchsorted(starts, wall, side="right") - 1, 0)]
    ambiguous = missing = 0
    for at, before, after in changes[1:]:
        low, high = at + min(before, after), at + max(before, after)
        rows = np.flatnonzero(bare & (wall >= low) & (wall < high))
        if not len(rows):
            continue
        offset[rows] = before
        if after > before:
            missing += len(rows)
        else:
            ambiguous += len(rows)
            offset[rows[_second_pass(wall[rows], machine[rows])]] = after
    return np.where(bare, wall - offset, wall), ambiguous, missing


def _second_pass(wall: NDArray[np.int64], machine: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows after the one place where a machine's own stamps stand still or step back; none where there are more."""
    order = np.argsort(machine, kind="stable")
    same = np.diff(machine[order]) == 0
    back = np.concatenate([[False], (np.diff(wall[order]) <= 0) & same])
    began = np.concatenate([[True], ~same])
    group = np.cumsum(began) - 1
    steps = np.cumsum(back)
    steps -= steps[began][group]
    single = np.bincount(group, weights=back)[group] == 1
    later = np.zeros(len(wall), dtype=bool)
    later[order] = (steps == 1) & single
    return later


def _count_unread(columns: Columns, layout: Layout, findings: list[Finding]) -> None:
    for name in (*layout.targets, *layout.known):
        infinite = int(np.isinf(columns.numbers[name]).sum())
        bad = columns.unread.get(name, 0) + infinite
        if bad:
            findings.append(
                Finding("not_a_number", bad, f"{bad} cells of {name!r} are no finite numbers: taken as missing")
            )


def _without_negatives(name: str, values: Floats, findings: list[Finding]) -> Floats:
    negative = values < 0
    if negative.any():
        count = int(negative.sum())
        findings.append(
            Finding("negative_count", count, f"{count} negative values of the count {name!r}: taken as missing")
        )
    return np.where(negative, np.nan, values)


def _in_order(
    machine: NDArray[np.int64], times: NDArray[np.int64], good: NDArray[np.bool_], findings: list[Finding]
) -> NDArray[np.int64]:
    """Rows with a time, by machine and time; counts rows out of order and duplicates of one instant."""
    rows = np.flatnonzero(good)
    if not good.all() or (np.diff(machine) < 0).any():
        narrow = machine[rows].astype(np.uint16) if len(rows) and machine.max() < 65_536 else machine[rows]
        rows = rows[np.argsort(narrow, kind="stable")]
    same = np.diff(machine[rows]) == 0
    backwards = int(((np.diff(times[rows]) < 0) & same).sum())
    if backwards:
        findings.append(Finding("unsorted", backwards, f"{backwards} rows are older than the one before: put in order"))
        rows = rows[np.lexsort((times[rows], machine[rows]))]
        same = np.diff(machine[rows]) == 0
    twice = int(((np.diff(times[rows]) == 0) & same).sum())
    if twice:
        findings.append(Finding("duplicate_time", twice, f"{twice} rows repeat an instant of their series: averaged"))
    return rows


def _step(machine: NDArray[np.int64], times: NDArray[np.int64]) -> int:
    """Median difference of consecutive stamps of a series (the lower one of two), snapped to a round step within 2 %."""
    gaps = np.diff(times)[np.diff(machine) == 0]
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return DAY_MS
    typical = float(np.partition(gaps, (len(gaps) - 1) // 2)[(len(gaps) - 1) // 2])
    for low, high, months in _CALENDAR:
        if low * DAY_MS <= typical <= high * DAY_MS:
            return months * MONTH_MS
    near = min(ROUND_STEPS, key=lambda step: abs(step - typical))
    return near if abs(near - typical) <= 0.02 * near else max(round(typical), 1)


def _anchor(times: NDArray[np.int64], step: int, given: bool) -> tuple[int, int, int]:
    """(step, start, where in its bucket a stamp stands). Buckets begin at multiples of the step; where stamps jitter
    around such a multiple, or months are uneven, the bucket is centred on them instead."""
    first = int(times.min())
    calendar = step % MONTH_MS == 0
    if calendar:
        return step, first - step // 2, step // 2
    aligned = first // step * step
    if given:
        return step, aligned, 0
    phase = times % step
    if (phase == phase[0]).all():
        return step, aligned, int(phase[0])
    angle = phase[:: max(len(phase) // 100_000, 1)] * (2 * np.pi / step)
    swing = np.exp(1j * angle).mean()
    if abs(swing) < 0.5:
        return step, aligned, 0
    centre = round(float(np.angle(swing)) / (2 * np.pi) * step) % step
    if centre > step - centre:
        centre -= step
    begin = centre - step // 2
    return step, int((first - begin) // step * step + begin), step // 2


def _kept(
    whole: dict[str, Floats], known: dict[str, Floats], grid: _Grid, stamp: int, rows: int, findings: list[Finding]
) -> Recordings:
    series: list[tuple[str, str]] = []
    kept: list[tuple[str, int]] = []
    left_out: dict[tuple[str, str], str] = {}
    for s, machine in enumerate(grid.names):
        for name, values in whole.items():
            seen = values[s][np.isfinite(values[s])]
            if len(seen) < 2:
                left_out[machine, name] = f"one point ({seen[0]:g})" if len(seen) else "no value"
            else:
                series.append((machine, name))
                kept.append((name, s))
    if left_out:
        named = _named(left_out)
        findings.append(
            Finding("left_out", len(left_out), f"{len(left_out)} series without two values left out", named)
        )
    values = (
        np.stack([whole[name][s] for name, s in kept]) if kept else np.zeros((0, next(iter(whole.values())).shape[1]))
    )
    inputs = {name: array[[s for _, s in kept]] for name, array in known.items()}
    _look_at(values, series, findings)
    return Recordings(grid.start_ms, grid.step_ms, series, values, inputs, stamp, rows, findings, left_out)


def _named(keys: object) -> tuple[str, ...]:
    return tuple("/".join(key) for key in list(keys)[:NAMED])  # type: ignore[call-overload]


def _look_at(values: Floats, series: list[tuple[str, str]], findings: list[Finding]) -> None:
    """Gaps, constants and jumps of unit."""
    seen = np.isfinite(values)
    inner = (np.maximum.accumulate(seen, axis=1) & np.maximum.accumulate(seen[:, ::-1], axis=1)[:, ::-1]) & ~seen
    gaps = int(inner.sum())
    if gaps:
        worst = [series[i] for i in np.argsort(-inner.sum(axis=1))[:NAMED] if inner[i].any()]
        findings.append(
            Finding("gap", gaps, f"{gaps} buckets ({gaps / seen.size:.1%}) between values are empty", _named(worst))
        )
    still = [key for key, row in zip(series, values, strict=True) if np.nanmax(row) == np.nanmin(row)]
    if still:
        findings.append(
            Finding(
                "constant", len(still), f"{len(still)} series never change: the forecast is their value", _named(still)
            )
        )
    jumps = {key: words for key, row in zip(series, values, strict=True) if (words := unit_jump(row))}
    if jumps:
        first = next(iter(jumps.items()))
        findings.append(
            Finding(
                "unit_jump",
                len(jumps),
                f"{'/'.join(first[0])} {first[1]}: check the unit; nothing was changed",
                _named(jumps),
            )
        )


def unit_jump(row: Floats, side: int = 24) -> str:
    """What a jump of level looks like if it looks like a change of unit (a factor of 1000, 25.4, …; °C and °F; °C and K),
    else "". `row` [T]; looks at the largest steps and compares the medians of up to `side` values on either side."""
    seen = row[np.isfinite(row)]
    if len(seen) < 12:
        return ""
    changes = np.abs(np.diff(seen))
    for at in np.argsort(-changes, kind="stable")[:3].tolist():
        left, right = seen[max(at + 1 - side, 0) : at + 1], seen[at + 1 : at + 1 + side]
        if min(len(left), len(right)) < 6:
            continue
        low, high = sorted((float(np.median(left)), float(np.median(right))), key=abs)
        wobble = max(
            float(np.median(np.abs(left - np.median(left)))), float(np.median(np.abs(right - np.median(right))))
        )
        if abs(high - low) < 8 * wobble or abs(low) < 1e-9:
            continue
        for factor, words in _FACTORS.items():
            if abs(high / low / factor - 1) < 0.05:
                return f"jumps by a factor of about {factor:g} ({words})"
        if abs(high - low - 273.15) < 2.0 and low > -60:
            return "jumps by about 273 (°C and K)"
        if low > 0 and abs(high - (1.8 * low + 32)) < 0.02 * high and high - low > 20:
            return "jumps as from °C to °F"
    return ""
