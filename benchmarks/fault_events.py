"""Event forecasts: which component of which machine fails within 48 h, from error logs and replacement history.

    python benchmarks/fault_events.py --data DIR [--quick] [--json]

DIR holds *errors*.csv, *maint*.csv, *failures*.csv, *machines*.csv (.gz) in the format of the Azure PdM tables. Both machines
and time are split: machines are dealt into 5 groups; the alarms of a group in the last quarter of the failures' period come
from a model of the *other* groups in the first two thirds (PdM: to August, tested from October). The probability threshold
is the lowest that keeps out-of-fold false alarms (inner folds by machine, same two thirds) within 80 % of the allowance.

Events are scored, not rows. A machine is looked at every 6 h and whenever it logs an error. An alarm of a (machine,
component) is the first instant whose chance reaches the threshold; then that pair is silent for 48 h. It is a hit if
that component fails in the 48 h after it, else a false alarm, whatever else fails. Recall: failures of the test time
with an alarm in the 48 h before (strictly). Lead: from the earliest such alarm to the failure. A machine-month is 730.5
h of one machine. Failures of several components in one hour are several events. References: any error -> alarm for
every component; the most-due-component rule (hours since replacement, threshold chosen in the same way). --quick: 2 of
the 5 groups. With --train DIR --test DIR one model of the first folder's machines is tested on the second folder's."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import csv
import gzip
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from protocol.event_features import HOUR_MS, EventSpec, MachineLog, Times, state
from protocol.windows import Floats
from server.algorithms import fault_events
from server.algorithms.fault_events import EventSettings, LearnedMachine, Looked

GROUPS = 5
ALLOWED = 0.1
TARGET = 0.9
MARGIN = 0.8
MONTH_H = 730.5
Chances = Callable[[LearnedMachine, Times], Floats]


@dataclass
class Tally:
    """Counts over machines: failures, those with an alarm, those with one a day ahead, leads, false alarms."""

    failures: int = 0
    warned: int = 0
    day_ahead: int = 0
    false_alarms: int = 0
    hours: float = 0.0
    leads: list[float] | None = None

    @property
    def recall(self) -> float:
        """Share of failures with an alarm in the horizon before."""
        return self.warned / max(self.failures, 1)

    @property
    def false_rate(self) -> float:
        """False alarms a machine-month."""
        return self.false_alarms / max(self.hours / MONTH_H, 1e-9)

    def add(self, failed: Times, alarms: Times, horizon_h: int, hours: float) -> None:
        """One (machine, component) over the tested time; `hours` counts a machine once."""
        self.hours += hours
        reach = horizon_h * HOUR_MS
        for alarm in alarms:
            self.false_alarms += int(not ((failed > alarm) & (failed <= alarm + reach)).any())
        for moment in failed:
            self.failures += 1
            before = alarms[(alarms < moment) & (alarms >= moment - reach)]
            if len(before):
                lead = float(moment - before[0]) / HOUR_MS
                self.warned += 1
                self.day_ahead += int(lead >= 24)
                self.leads = [*(self.leads or []), lead]


def measure(sheet: contract.Sheet) -> None:
    """Rows for recall, false alarms, recall a day ahead, lead; ours, ablations and references."""
    machines, spec = read(sheet, sheet.options.train)
    others = machines if sheet.options.test == sheet.options.train else read(sheet, sheet.options.test)[0]
    first, last = _period(machines)
    learn_until = first + (last - first) * 2 // 3
    test_first, test_last = _period(others)
    test_from = test_first + (test_last - test_first) * 3 // 4
    learned = [replace(m, from_ms=first, until_ms=learn_until) for m in machines]
    tested = [replace(m, from_ms=test_first, until_ms=test_last + HOUR_MS) for m in others]
    sheet.say(
        f"{len(machines)} machines, {sum(len(m.failed) for m in machines)} failures; learned to {_day(learn_until)}, tested "
        f"from {_day(test_from)}"
    )
    if others is machines:
        splits = [
            ([m for i, m in enumerate(learned) if i % GROUPS != group], tested[group::GROUPS])
            for group in range(2 if sheet.options.quick else GROUPS)
        ]
    else:
        splits = [(learned, tested)]
    ways = {"ours": spec, "ours without hours of the day": spec}
    tallies = {name: Tally() for name in (*ways, "any error", "most due")}
    strict = Tally()
    thresholds: list[float] = []
    seconds = 0.0
    for group, (learn, test) in enumerate(splits):
        started = time.monotonic()
        threshold, chances = ours(learn, spec, EventSettings())
        seconds += time.monotonic() - started
        thresholds.append(threshold)
        _judge(tallies["ours"], test, chances, threshold, spec, test_from)
        _judge(strict, test, lambda m, t, c=chances: c(m, t - 1), threshold, spec, test_from)  # type: ignore[misc]
        blind_threshold, blind = ours(learn, spec, EventSettings(), blind=True)
        _judge(tallies["ours without hours of the day"], test, blind, blind_threshold, spec, test_from)
        _judge(tallies["any error"], test, lambda m, t: _any_error(m, t, spec), 0.5, spec, test_from)
        due = lambda m, t: _most_due(m, t, spec)  # noqa: E731
        _judge(tallies["most due"], test, due, _due_threshold(learn, spec), spec, test_from)
        sheet.say(f"group {group + 1}: threshold {threshold:.3f}, so far {tallies['ours']}"[:200])
    _rows(sheet, tallies, strict, seconds)
    sheet.note(f"thresholds of the groups: {[round(t, 3) for t in thresholds]}")


def ours(
    learn: list[LearnedMachine], spec: EventSpec, settings: EventSettings, *, blind: bool = False
) -> tuple[float, Chances]:
    """(threshold from inner folds by machine, chances of the model of all of `learn`). `blind`: without the columns that
    tell the hour of the day."""
    unseen = tuple(i for i, name in enumerate(spec.features) if "hour of the day" in name) if blind else ()
    looked = fault_events.out_of_machine(learn, spec, settings, 0, unseen)
    threshold = fault_events.choose_threshold(looked, spec, MARGIN * ALLOWED)
    model = fault_events.fit(learn, spec, settings, 0, unseen)

    def chances(machine: LearnedMachine, asked: Times) -> Floats:
        columns = state(machine.log, asked, spec)
        columns[:, list(unseen)] = 0.0
        return model.probability(columns)

    return threshold, chances


def _due_threshold(learn: list[LearnedMachine], spec: EventSpec) -> float:
    looked = []
    for machine in learn:
        asked = fault_events.instants(machine.log, machine.from_ms, machine.until_ms)
        looked.append(Looked(machine, asked, _most_due(machine, asked, spec)))
    return fault_events.choose_threshold(looked, spec, MARGIN * ALLOWED)


def _judge(
    tally: Tally, test: list[LearnedMachine], chances: Chances, threshold: float, spec: EventSpec, test_from: int
) -> None:
    for machine in test:
        asked = fault_events.instants(machine.log, test_from, machine.until_ms)
        _count(tally, machine, asked, chances(machine, asked), threshold, spec, test_from)


def _count(
    tally: Tally,
    machine: LearnedMachine,
    asked: Times,
    chance: Floats,
    threshold: float,
    spec: EventSpec,
    from_ms: int,
) -> None:
    """Failures in the first horizon of the time are left out: their alarms could not be raised within it. So are alarms in
    the last horizon that could still come true after it."""
    names = np.array(machine.failed, dtype=object)
    until = int(asked[-1]) if len(asked) else from_ms
    reach = spec.horizon_h * HOUR_MS
    for k, component in enumerate(spec.components):
        every = np.sort(machine.failed_ms[names == component])
        raised = fault_events.alarms(chance[:, k], asked, threshold, spec.horizon_h)
        failed = every[(every > from_ms + reach) & (every < machine.until_ms)]
        early = every[(every > from_ms) & (every <= from_ms + reach)]
        closed = np.array(
            [a for a in raised if a + reach <= until or ((failed > a) & (failed <= a + reach)).any()], dtype=np.int64
        )
        closed = np.array([a for a in closed if not ((early > a) & (early <= a + reach)).any()], dtype=np.int64)
        tally.add(failed, closed, spec.horizon_h, (until - from_ms) / HOUR_MS if k == 0 else 0.0)


def _any_error(machine: LearnedMachine, asked: Times, spec: EventSpec) -> Floats:
    return np.repeat(np.isin(asked, machine.log.error_ms)[:, None].astype(np.float64), len(spec.components), axis=1)


def _most_due(machine: LearnedMachine, asked: Times, spec: EventSpec) -> Floats:
    """The component with the most hours since its replacement, as a share of a year; the others never."""
    columns = state(machine.log, asked, spec)
    at = spec.features.index(f"hours since {spec.components[0]} was replaced")
    since = np.nan_to_num(columns[:, at : at + len(spec.components)], nan=0.0)
    due = since == since.max(axis=1, keepdims=True)
    return np.where(due, np.minimum(since / 8766.0, 1.0), 0.0)


def _rows(sheet: contract.Sheet, tallies: dict[str, Tally], strict: Tally, seconds: float) -> None:
    mine, blind = tallies["ours"], tallies["ours without hours of the day"]
    any_error, due = tallies["any error"], tallies["most due"]
    full = not sheet.options.quick
    met = mine.recall >= TARGET and mine.false_rate <= ALLOWED
    peers = {"without hours of the day": blind, "most due component": due}
    sheet.row(
        "failures with an alarm within 48 h before",
        "event recall",
        mine.recall,
        reference=any_error.recall,
        peers={name: t.recall for name, t in peers.items()},
        target=TARGET,
        holds=met if full else None,
        n=mine.failures,
        seconds=seconds,
    )
    sheet.row(
        "false alarms",
        "per machine-month",
        mine.false_rate,
        reference=any_error.false_rate,
        peers={name: t.false_rate for name, t in peers.items()},
        target=ALLOWED,
        holds=met if full else None,
        n=round(mine.hours / MONTH_H),
        false_alarms=mine.false_alarms,
    )
    day = mine.day_ahead / max(mine.failures, 1)
    sheet.row(
        "failures with an alarm 24-48 h before",
        "event recall",
        day,
        reference=any_error.day_ahead / max(any_error.failures, 1),
        peers={name: t.day_ahead / max(t.failures, 1) for name, t in peers.items()},
        target=TARGET,
        holds=(day >= TARGET and mine.false_rate <= ALLOWED) if full else None,
        n=mine.failures,
    )
    sheet.row(
        "lead of the alarms that came true",
        "median hours",
        float(np.median(mine.leads or [np.nan])),
        reference=float(np.median(any_error.leads or [np.nan])),
        n=len(mine.leads or []),
        tenth_percentile=round(float(np.percentile(mine.leads or [np.nan], 10)), 1),
    )
    sheet.note(
        "an error is known at its own stamp; where the log is read a millisecond before each instant instead, recall is "
        f"{strict.recall:.3f}, {strict.day_ahead / max(strict.failures, 1):.3f} a day ahead (PdM plants its precursors "
        f"exactly 24 h before a failure), false alarms {strict.false_rate:.3f} a machine-month"
    )
    sheet.note(
        "PdM is simulated: precursors and failures fall on one hour of the day, other errors on any; the column without "
        "hours of the day shows what that is worth (looking every six hours still tells it a quarter). No telemetry is used"
    )


def _period(machines: list[LearnedMachine]) -> tuple[int, int]:
    stamps = np.concatenate([m.failed_ms for m in machines])
    return int(stamps.min()), int(stamps.max())


def read(sheet: contract.Sheet, folder: Path) -> tuple[list[LearnedMachine], EventSpec]:
    """Every machine that the machines table names, and the spec of all names that occur."""
    errors = _grouped(sheet.find(folder, "*errors*.csv*")[0], "errorID")
    repairs = _grouped(sheet.find(folder, "*maint*.csv*")[0], "comp")
    failures = _grouped(sheet.find(folder, "*failures*.csv*")[0], "failure")
    described = _lines(sheet.find(folder, "*machines*.csv*")[0])
    if not any(failures.values()):
        raise SystemExit("fault_events: the failures table is empty; nothing can be learned")
    spec = EventSpec(
        errors=sorted({name for rows in errors.values() for _, name in rows}),
        components=sorted({name for rows in failures.values() for _, name in rows}),
        models=sorted({row["model"] for row in described}),
    )
    machines = []
    for row in described:
        name = row["machineID"]
        machines.append(
            LearnedMachine(
                name=name,
                log=MachineLog(
                    error_ms=_stamps(errors[name]),
                    errors=[what for _, what in errors[name]],
                    replaced_ms=_stamps(repairs[name]),
                    replaced=[what for _, what in repairs[name]],
                    model=row["model"],
                    age_years=float(row["age"]),
                ),
                failed_ms=_stamps(failures[name]),
                failed=[what for _, what in failures[name]],
                from_ms=0,
                until_ms=0,
            )
        )
    return machines, spec


def _stamps(rows: list[tuple[int, str]]) -> Times:
    return np.array([at for at, _ in rows], dtype=np.int64)


def _lines(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return list(csv.DictReader(lines))


def _grouped(path: Path, what: str) -> dict[str, list[tuple[int, str]]]:
    rows: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in _lines(path):
        at = datetime.fromisoformat(row["datetime"])
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        rows[row["machineID"]].append((int(at.timestamp() * 1000), row[what]))
    return rows


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat()


if __name__ == "__main__":
    sys.exit(contract.run("fault_events", __doc__, measure))
