"""From a frozen grid of signals to sealed monitors, one a machine: learn its normal state on the earlier part, and measure on
the held-out tail what a false alarm costs and which injected shifts it finds, against limits of four standard deviations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bundle import Draft, seal
from protocol.alarms import MONTH_MS
from protocol.bundles import Golden, Quality, Runtime
from protocol.errors import Reason, Refused
from protocol.tables import Monitor, Tables
from protocol.windows import Floats
from server.algorithms import monitor
from server.algorithms.monitor import FittedMonitor, MonitorSettings
from server.datasets import SignalGrid
from server.training import certainty
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress

Flags = NDArray[np.bool_]
Detector = Callable[[Floats], Flags]
SLOT = "fault.monitor"
FEWEST_SIGNALS = 3
FEWEST_BUCKETS = 300
LEAST_MS = 7 * 86_400_000
"""A week: every shift and the weekend once, else the first Sunday is an alarm."""
HELD_OUT = 0.3
SHIFT = 2.0
"""Injected shifts, in standard deviations of the signal, that last `SHIFT_BUCKETS`."""
SHIFT_BUCKETS = 24
PLACES = 6
FOUR = 4.0
DIRECTIONS = (0, 2)


@dataclass(frozen=True)
class MonitorPlan:
    """What the watching of a site's machines allows."""

    false_alarms_per_machine_month: float = 0.5
    smoothing: float = 0.1
    seed: int = 7


@dataclass(frozen=True)
class _Judged:
    """On a normal stretch and with shifts injected into it: false alarms, and the share of shifts that were missed."""

    false_alarms: int
    missed: float
    shifts: int


def train_monitors(grid: SignalGrid, plan: MonitorPlan, world: Circumstances, progress: Progress) -> list[Candidate]:
    """One candidate a machine with at least three signals that vary. Raises Refused if there is none."""
    machines: dict[str, list[int]] = {}
    for row, (machine, _) in enumerate(grid.series):
        machines.setdefault(machine, []).append(row)
    found = []
    for done, (machine, rows) in enumerate(sorted(machines.items())):
        progress(done / len(machines), f"monitor of {machine}")
        try:
            found.append(_train_one(grid, machine, rows, plan, world))
        except Refused:
            continue
    if not found:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"no machine has {FEWEST_SIGNALS} signals that vary over {fewest_buckets(grid.step_ms)} buckets: wait until more "
            "is shared",
        )
    progress(1.0, f"{len(found)} monitors sealed")
    return found


def fewest_buckets(step_ms: int) -> int:
    """Buckets of history that a monitor needs."""
    return max(FEWEST_BUCKETS, LEAST_MS // step_ms)


def _train_one(grid: SignalGrid, machine: str, rows: list[int], plan: MonitorPlan, world: Circumstances) -> Candidate:
    values = np.ascontiguousarray(grid.values[rows].T)
    if len(rows) < FEWEST_SIGNALS or len(values) < fewest_buckets(grid.step_ms):
        raise Refused(Reason.NOT_ELIGIBLE, f"{machine}: too few signals or buckets")
    split = int(len(values) * (1 - HELD_OUT))
    settings = _chosen(values[:split], grid.step_ms, plan)
    fitted = monitor.fit_mostly_normal(values[:split], settings)
    if len(fitted.kept) < FEWEST_SIGNALS:
        raise Refused(Reason.NOT_ELIGIBLE, f"{machine}: {len(fitted.kept)} signals vary without drifting")
    tail = values[split:][:, fitted.kept]
    learned = values[:split][:, fitted.kept]
    spread = _spread(learned)
    ours = _judge(tail, spread, partial(_alarms, fitted))
    plain = _judge(tail, spread, partial(_far, learned=learned, limit=FOUR))
    limit = _limit_of_equals(tail, learned, ours.false_alarms)
    fair = _judge(tail, spread, partial(_far, learned=learned, limit=limit))
    months = len(tail) * grid.step_ms / MONTH_MS
    low, high = certainty.of_count(ours.false_alarms, months)
    inputs: Tables = {"values": _golden_rows(fitted)}
    outputs = Monitor(fitted.tables).golden(inputs, {})
    answers = np.asarray(outputs["q"], dtype=np.float64)
    slot = f"{SLOT}.{machine}"
    words = f"last {len(tail)} buckets held out; shifts of {SHIFT:g} sd for {SHIFT_BUCKETS} buckets injected into them"
    draft = Draft(
        slot=slot,
        family="fault",
        algorithm="monitor",
        version=world.versions.get(slot, 1),
        runtime=Runtime.MONITOR,
        series=[grid.series[rows[column]] for column in fitted.kept],
        tables=fitted.tables,
        lineage=world.lineage(
            plan.seed,
            {
                "smoothing": settings.smoothing,
                "components": settings.components,
                "false_alarms_per_machine_month": settings.false_alarms_per_machine_month,
            },
        ),
        quality=[
            Quality(
                metric="missed_shifts",
                lower_is_better=True,
                model=round(ours.missed, DIGITS),
                reference=round(fair.missed, DIGITS),
                reference_name=f"per_signal_{limit:.1f}_sigma_with_as_few_false_alarms",
                split=words,
                n=ours.shifts,
            ),
            Quality(
                metric="false_alarms_per_machine_month",
                lower_is_better=True,
                model=round(ours.false_alarms / months, DIGITS),
                reference=round(plain.false_alarms / months, DIGITS),
                reference_name="per_signal_4_sigma",
                low=low,
                high=high,
                split=words,
                n=len(tail),
            ),
        ],
        parity=parity.compare(answers, answers, ours.missed, ours.missed, lower_is_better=True),
        golden=Golden(atol=1e-9, rtol=1e-9),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=sum(int(table.nbytes) for table in fitted.tables.values()),
        latency_us=parity.latency_us(_one_step(fitted)),
        intended_use="Tells when a machine's signals together leave the state in which it was learned.",
        limits="Frozen: a new product, speed or tool is unusual until the monitor is trained again. Signals that drift are "
        "left out. Values that depend on one another alarm more often than the wanted rate.",
        words=f"{ours.false_alarms} false alarms in {months:.2f} months of held-out running.",
        because=world.because,
    )
    return Candidate(*seal(draft))


def _chosen(values: Floats, step_ms: int, plan: MonitorPlan) -> MonitorSettings:
    """With or without principal directions: the fewest missed shifts, false alarms within bounds, on an inner split."""
    split = int(len(values) * (1 - HELD_OUT))
    tried: list[tuple[float, MonitorSettings]] = []
    for components in DIRECTIONS:
        settings = MonitorSettings(step_ms, plan.false_alarms_per_machine_month, plan.smoothing, components)
        fitted = monitor.fit_mostly_normal(values[:split], settings)
        spread = _spread(values[:split][:, fitted.kept])
        judged = _judge(values[split:][:, fitted.kept], spread, partial(_alarms, fitted))
        tried.append((judged.missed + judged.false_alarms, settings))
    return min(tried, key=lambda t: t[0])[1]


def _judge(normal: Floats, spread: Floats, alarms: Detector) -> _Judged:
    """`alarms`: rows [T, n] -> whether an alarm is on [T]."""
    false_alarms = _onsets(alarms(normal))
    starts = np.linspace(0, max(len(normal) - 2 * SHIFT_BUCKETS, 0), PLACES).astype(int)
    missed, tried = 0, 0
    for start in starts:
        part = normal[start : start + 2 * SHIFT_BUCKETS]
        for column in range(normal.shape[1]):
            for side in (-1.0, 1.0):
                shifted = part.copy()
                shifted[SHIFT_BUCKETS:, column] += side * SHIFT * spread[column]
                missed += not alarms(shifted)[SHIFT_BUCKETS:].any()
                tried += 1
    return _Judged(false_alarms, missed / tried, tried)


def _alarms(fitted: FittedMonitor, rows: Floats) -> Flags:
    live = Monitor(fitted.tables)
    flags = np.zeros(len(rows), dtype=bool)
    for i, row in enumerate(rows):
        live.step(row)
        flags[i] = live.alarm
    return flags


def _far(rows: Floats, learned: Floats, limit: float) -> Flags:
    """The simple reference: any signal more than `limit` standard deviations from its mean."""
    with np.errstate(invalid="ignore"):
        far = np.abs(rows - np.nanmean(learned, axis=0)) > limit * _spread(learned)
    return np.asarray(far.any(axis=1))


def _limit_of_equals(normal: Floats, learned: Floats, allowed: int) -> float:
    """The reference's limit, from four on, that gives no more false alarms than `allowed`."""
    limit = FOUR
    while _onsets(_far(normal, learned, limit)) > allowed and limit < 40:
        limit += 0.5
    return limit


def _onsets(flags: Flags) -> int:
    return int(np.count_nonzero(np.diff(flags.astype(np.int8), prepend=0) == 1))


def _spread(values: Floats) -> Floats:
    return np.asarray(np.nanstd(values, axis=0))


def _golden_rows(fitted: FittedMonitor) -> Floats:
    """A shift of each signal in turn, and one missing value."""
    n = len(fitted.kept)
    centre, scale = (np.asarray(fitted.tables[name], dtype=np.float64) for name in ("centre", "scale"))
    rows = centre + 3.0 * scale * np.eye(n)
    rows[0, -1] = np.nan
    return np.asarray(rows)


def _one_step(fitted: FittedMonitor) -> Callable[[], float]:
    live, row = Monitor(fitted.tables), np.asarray(fitted.tables["centre"], dtype=np.float64)
    return lambda: live.step(row)
