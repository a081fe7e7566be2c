"""Reads the books after something went wrong: what the machines said against the gateway's disk, and the gateway's disk
against the server's database. It looks at the rows themselves and trusts nobody's counters."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import func, select

from protocol.names import MessageClass
from server.database import Database, FeedbackRow, ForecastRow, LedgerRow, QuarantineRow, ReportRow, SignalBlockRow
from server.drill.machines import DAY_MS, Machines

MOST_TOLD = 5
OPEN_BUCKETS = 32
"""Newest buckets that may not have been closed, beside those of a block that is not full."""


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


def history_holds(
    books: Books, history: Path, machines: Machines, days: float = math.inf, *, forgets: bool = False
) -> None:
    """Every reading that the plant's broker took is on the gateway's disk, once, with its value, for so many days.
    `forgets`: the oldest may have given way to newer ones, but none between."""
    ticks, beat = machines.ticks, machines.beat
    query = (
        "SELECT machine, signal, time_ms, value FROM observation JOIN series ON series.id = observation.series"
        " WHERE time_ms >= ?"
    )
    with closing(sqlite3.connect(f"{history.resolve().as_uri()}?mode=ro", uri=True)) as db:
        there = {(machine, signal, at): value for machine, signal, at, value in db.execute(query, (beat.time_of(0),))}
    oldest = min((at for _, _, at in there), default=0) if forgets else 0
    oldest = max(oldest, beat.time_of(ticks) - days * DAY_MS)
    first = next((tick for tick in range(ticks) if beat.time_of(tick) >= oldest), ticks)
    for one in machines.signals:
        for tick in range(ticks):
            value = there.pop((one.machine, one.signal, beat.time_of(tick)), None)
            if value != machines.value(one, tick) and (tick >= first or value is not None):
                books.blame(f"{one.machine}/{one.signal} at tick {tick} is {value} on the gateway's disk")
    books.counts |= {"readings": ticks * len(machines.signals), "forgotten": first * len(machines.signals)}
    if there:
        books.blame(f"{len(there)} readings on the gateway's disk that nobody sent, such as {next(iter(there))}")


def ledger_holds(
    books: Books,
    lanes: dict[str, dict[str, int]],
    database: Database,
    gateway: str,
    shed_before: Mapping[str, int] = MappingProxyType({}),
    *,
    exchanged: bool = False,
) -> None:
    """Every message that the gateway numbered is committed on the server, still on the gateway's disk, or shed and named.
    shed_before: messages that were shed and told before this server was there. exchanged: its outbox is another one than
    before, and a lane that has had nothing to say since does not know yet how far the earlier one counted."""
    with database.begin() as session:
        rows = {
            row.message_class: row for row in session.scalars(select(LedgerRow).where(LedgerRow.gateway == gateway))
        }
        for name, lane in lanes.items():
            row = rows.get(name)
            numbered, upto = lane["next"] - 1, row.upto if row else 0
            within = numbered - lane["waiting"] <= upto and (upto <= numbered or exchanged)
            if not within or (row is not None and row.beyond):
                books.blame(
                    f"{name}: the gateway numbered {numbered}, {lane['waiting']} of them wait there; the server has {upto}"
                    " without a gap"
                )
            shed = sum(last - first + 1 for first, last in row.shed) if row else 0
            given_up = lane["shed"] - shed_before.get(name, 0)
            if shed > given_up:  # fewer: what was on its way when it was shed came after all, and is stored
                books.blame(f"{name}: {given_up} shed on the gateway, {shed} in the ledger")
        books.counts["messages"] = sum(lane["next"] - 1 for lane in lanes.values())
        books.counts["told_again"] = sum(row.duplicates for row in rows.values())
        books.counts["shed"] = sum(lane["shed"] for lane in lanes.values()) - sum(shed_before.values())


def blocks_hold(
    books: Books,
    database: Database,
    gateway: str,
    machines: Machines,
    block_steps: int,
    *,
    shed: bool = False,
    windows: bool = False,
) -> None:
    """The signals that the gateway shares are whole in the database: every closed bucket once, with its mean. The newest
    buckets, less than a block, may still be on the gateway. With `shed`, blocks may be missing but never wrong; with
    `windows`, a bucket may be there twice, because blocks around events are of the same width."""
    beat = machines.beat
    closed, unfinished = machines.ticks // beat.ticks_a_bucket, block_steps + OPEN_BUCKETS
    r = SignalBlockRow
    with database.begin() as session:
        query = select(r).where(r.gateway == gateway, r.step_ms == beat.bucket_ms).order_by(r.start_ms)
        rows = list(session.scalars(query.where(r.start_ms >= beat.t0_ms - block_steps * beat.bucket_ms)))
    found: dict[tuple[str, str], dict[int, float | None]] = {}
    for row in rows:
        buckets = found.setdefault((row.machine, row.signal), {})
        for at, value in enumerate(row.values, beat.bucket_of(row.start_ms)):
            if at in buckets and not windows:
                books.blame(f"{row.machine}/{row.signal}: bucket {at} twice in the database")
            if at >= 0:
                buckets[at] = value
    compared = [one for one in machines.signals if one.told_as]
    for one in compared:
        name = f"{one.machine}/{one.signal}"
        buckets = found.get((one.told_as, one.signal), {})
        newest = max(buckets, default=-1)
        if not shed and newest < closed - unfinished:
            books.blame(f"{name}: the database ends with bucket {newest} of {closed}")
        for at in range(newest + 1):
            value, mean = buckets.get(at), machines.mean(one, at)
            if value is None and shed:
                continue
            if value is None or not math.isclose(value, mean, rel_tol=1e-9, abs_tol=1e-6):
                books.blame(f"{name}: bucket {at} is {value}, not {mean:.6f}")
    books.counts["buckets"] = sum(len(found.get((one.told_as, one.signal), {})) for one in compared)


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
    for one in machines.signals:
        times = [*issued.get((one.machine, one.signal), [0]), end_ms]
        longest = max(b - a for a, b in pairwise(times))
        if longest > 2 * every_ms:
            books.blame(f"{one.machine}/{one.signal}: no forecast for {longest / 3_600_000:.1f} hours")
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
