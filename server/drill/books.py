"""Reads the books after something went wrong: what the machines said against the gateway's disk, and the gateway's disk
against the server's database. It looks at the rows themselves and trusts nobody's counters."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from sqlalchemy import func, select

from protocol.names import MessageClass
from server.database import Database, FeedbackRow, ForecastRow, LedgerRow, QuarantineRow, ReportRow, SignalBlockRow
from server.drill.machines import A_STEP, SIGNALS, Machines, bucket_mean, reading

MOST_TOLD = 5


@dataclass
class Books:
    """What was looked at, and what is wrong. holds: nothing is."""

    counts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, nothing came twice and nothing is other than it was said."""
        return not self.wrong

    def blame(self, what: str) -> None:
        """One more thing that is wrong; the first few are told, the rest counted."""
        self.counts["wrong"] = self.counts.get("wrong", 0) + 1
        if len(self.wrong) < MOST_TOLD:
            self.wrong.append(what)


def history_holds(books: Books, history: Path, machines: Machines, *, forgets: bool = False) -> None:
    """Every reading that the plant's broker took is on the gateway's disk, once, with its value. `forgets`: the oldest may
    have given way to newer ones, but none between."""
    ticks, time_of = machines.ticks, machines.beat.time_of
    with closing(sqlite3.connect(f"{history.resolve().as_uri()}?mode=ro", uri=True)) as db:
        there = {
            (machine, signal, at): value
            for machine, signal, at, value in db.execute(
                "SELECT machine, signal, time_ms, value FROM observation JOIN series ON series.id = observation.series"
            )
        }
    oldest = min((at for _, _, at in there), default=0) if forgets else 0
    first = next((tick for tick in range(ticks) if time_of(tick) >= oldest), ticks)
    for machine, signals in SIGNALS.items():
        for signal in signals:
            for tick in range(first, ticks):
                value = there.pop((machine, signal, time_of(tick)), None)
                if value != reading(machine, signal, tick):
                    books.blame(f"{machine}/{signal} at tick {tick} is {value} on the gateway's disk")
    signals_there = sum(map(len, SIGNALS.values()))
    books.counts |= {"readings": ticks * signals_there, "forgotten": first * signals_there}
    if there:
        books.blame(f"{len(there)} readings on the gateway's disk that nobody sent, such as {next(iter(there))}")


def ledger_holds(books: Books, lanes: dict[str, dict[str, int]], database: Database, gateway: str) -> None:
    """Every message that the gateway numbered is committed on the server, still on the gateway's disk, or shed and named."""
    with database.begin() as session:
        rows = {
            row.message_class: row for row in session.scalars(select(LedgerRow).where(LedgerRow.gateway == gateway))
        }
        for name, lane in lanes.items():
            row = rows.get(name)
            numbered, upto = lane["next"] - 1, row.upto if row else 0
            if not numbered - lane["waiting"] <= upto <= numbered or (row is not None and row.beyond):
                books.blame(
                    f"{name}: the gateway numbered {numbered}, {lane['waiting']} of them wait there; the server has {upto}"
                    " without a gap"
                )
            shed = sum(last - first + 1 for first, last in row.shed) if row else 0
            if shed > lane["shed"]:  # fewer: what was on its way when it was shed came after all, and is stored
                books.blame(f"{name}: {lane['shed']} shed on the gateway, {shed} in the ledger")
        books.counts["messages"] = sum(lane["next"] - 1 for lane in lanes.values())
        books.counts["told_again"] = sum(row.duplicates for row in rows.values())
        books.counts["shed"] = sum(lane["shed"] for lane in lanes.values())


def blocks_hold(books: Books, database: Database, gateway: str, machines: Machines, *, shed: bool = False) -> None:
    """The signals that the gateway shares are whole in the database: every closed bucket once, with its mean. The newest
    buckets, less than a block, may still be on the gateway. With `shed`, blocks may be missing but never wrong."""
    ticks = machines.ticks
    with database.begin() as session:
        query = select(SignalBlockRow).where(SignalBlockRow.gateway == gateway).order_by(SignalBlockRow.start_ms)
        rows = list(session.scalars(query))
    found: dict[tuple[str, str], dict[int, float | None]] = {}
    for row in rows:
        buckets = found.setdefault((row.machine, row.signal), {})
        for i, value in enumerate(row.values):
            at = machines.beat.bucket_of(row.start_ms) + i
            if at in buckets:
                books.blame(f"{row.machine}/{row.signal}: bucket {at} twice in the database")
            buckets[at] = value
    for machine, signals in SIGNALS.items():
        for signal in signals:
            buckets = found.get((machine, signal), {})
            newest = max(buckets, default=-1)
            if not shed and newest < ticks // A_STEP - 40:
                books.blame(f"{machine}/{signal}: the database ends with bucket {newest} of {ticks // A_STEP}")
            for at in range(newest + 1):
                value = buckets.get(at)
                if value is None and shed:
                    continue
                if value is None or abs(value - bucket_mean(machine, signal, at)) > 1e-6:
                    books.blame(
                        f"{machine}/{signal}: bucket {at} is {value}, not {bucket_mean(machine, signal, at):.6f}"
                    )
    books.counts["buckets"] = sum(map(len, found.values()))


def answers_hold(books: Books, database: Database, gateway: str, answers: list[str]) -> None:
    """Every answer is in the database, once; reports are there once."""
    with database.begin() as session:
        there = list(session.scalars(select(FeedbackRow.feedback_id).where(FeedbackRow.gateway == gateway)))
        reports = list(session.scalars(select(ReportRow.report_id).where(ReportRow.gateway == gateway)))
    missing = set(answers) - set(there)
    if missing:
        books.blame(f"{len(missing)} answers are not in the database, such as {sorted(missing)[0]}")
    for what, ids in (("answers", there), ("reports", reports)):
        books.counts[what] = len(ids)
        if len(ids) != len(set(ids)):
            books.blame(f"{len(ids) - len(set(ids))} {what} twice in the database")


def forecasts_hold(books: Books, database: Database, gateway: str, machines: Machines, every_ms: int) -> None:
    """Forecasts were issued every `every_ms` of the machines' time, from the first to the end, without a gap."""
    with database.begin() as session:
        query = select(ForecastRow.machine, ForecastRow.signal, ForecastRow.issued_ms)
        rows = session.execute(query.where(ForecastRow.gateway == gateway).order_by(ForecastRow.issued_ms)).all()
    issued: dict[tuple[str, str], list[int]] = {}
    for machine, signal, at in rows:
        issued.setdefault((machine, signal), []).append(at)
    end_ms = machines.beat.time_of(machines.ticks)
    for machine, signals in SIGNALS.items():
        for signal in signals:
            times = [*issued.get((machine, signal), [0]), end_ms]
            longest = max(b - a for a, b in pairwise(times))
            if longest > 2 * every_ms:
                books.blame(f"{machine}/{signal}: no forecast for {longest / 3_600_000:.1f} hours")
    books.counts["forecasts"] = len(rows)


def quarantined(database: Database) -> dict[str, int]:
    """What the server put aside, by reason."""
    with database.begin() as session:
        query = select(QuarantineRow.reason, func.count()).group_by(QuarantineRow.reason)
        return {str(reason): int(count) for reason, count in session.execute(query)}


def lanes_of(outbox: Path) -> dict[str, dict[str, int]]:
    """The lanes of an outbox, from its file: next number, messages waiting, messages shed."""
    with closing(sqlite3.connect(f"{outbox.resolve().as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT class, next, waiting, shed FROM lane").fetchall()
    lanes = {name: {"next": next_, "waiting": waiting, "shed": shed} for name, next_, waiting, shed in rows}
    return {c.value: lanes.get(c.value, {"next": 1, "waiting": 0, "shed": 0}) for c in MessageClass}
