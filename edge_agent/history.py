"""Recent observations on disk, one row per (machine, signal, time), and the grid of bucket means in memory.

`store` is one transaction: when it returns, every row is on disk and the message may be acknowledged. The first value of
an instant stays; the same again is a duplicate, another one is a conflict for the quarantine. Where the time was given here,
at arrival, another value of the same millisecond goes into the next one; and when that time turns out to be wrong, `retime`
moves such values, and `clock_shift` keeps by how much: what was given is time_ms - shift_ms."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Set
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from edge_agent.clock import Shift
from edge_agent.intake import Row
from edge_agent.storage import close_store, disk_full, open_bounded, roll_back
from protocol.covariates import KnownInput
from protocol.errors import BadSettings, Refused, TryLater
from protocol.sync import decode, encode
from protocol.windows import Floats, resample

Key = tuple[str, str]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY, machine TEXT, signal TEXT, unit TEXT, UNIQUE (machine, signal));
CREATE TABLE IF NOT EXISTS observation (
    series INTEGER, time_ms INTEGER, value REAL, quality TEXT, initial INTEGER,
    PRIMARY KEY (series, time_ms)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (
    id INTEGER PRIMARY KEY, time_ms INTEGER, topic TEXT, reason TEXT, detail TEXT, payload BLOB);
CREATE TABLE IF NOT EXISTS work_order (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS known_input (
    id TEXT, machine TEXT, known_ms INTEGER, end_ms INTEGER, body BLOB, PRIMARY KEY (machine, id, known_ms));
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, n INTEGER);
CREATE TABLE IF NOT EXISTS stamped_here (series INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS clock_shift (
    boot TEXT, first_ms INTEGER, until_ms INTEGER, shift_ms INTEGER, PRIMARY KEY (boot, first_ms)) WITHOUT ROWID;
"""
T = TypeVar("T")
UNBOUNDED_BYTES = 1 << 40
"""`history_days` bounds this file, not its size."""
TRANSACTION_BYTES = 1_000_000
MAX_QUARANTINE_ROWS = 10_000
MAX_QUARANTINE_PAYLOAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one `store`: rows new on disk, rows seen before, rows that contradict what is stored."""

    fresh: list[Row]
    duplicates: int
    conflicts: list[Row]


class History:
    """Owner of history.db. Not thread-safe: the agent's thread writes, `series_values` opens its own reader."""

    def __init__(self, path: Path) -> None:
        self._db, self._room = open_bounded(path, _SCHEMA, UNBOUNDED_BYTES, TRANSACTION_BYTES)
        self.gave_way = 0
        """Observations that newer ones took the place of on a full disk, since the start."""
        self._ids: dict[Key, int] = {}
        self.units: dict[Key, str] = {}
        self._read_series()
        self._quarantined = self._db.execute("SELECT count(*) FROM quarantine").fetchone()[0]
        here = {number for (number,) in self._db.execute("SELECT series FROM stamped_here")}
        self._stamped_here = {key for key, number in self._ids.items() if number in here}

    def store(
        self,
        rows: list[Row],
        refused: list[tuple[str, bytes, Refused, int]],
        counted: Callable[[Stored], dict[str, int]],
        stamped_here: Set[Key] = frozenset(),
    ) -> Stored:
        """One transaction: observations, quarantined messages (topic, payload, why, time_ms) and, with them, the
        counters that `counted` derives from the outcome, so that no restart can make the books disagree. stamped_here:
        signals whose rows have the time of their arrival. On a full disk the oldest observations make room; raises TryLater
        when even that does not help."""
        return self._in_room(lambda: self._store(rows, refused, counted, stamped_here))

    def _store(
        self,
        rows: list[Row],
        refused: list[tuple[str, bytes, Refused, int]],
        counted: Callable[[Stored], dict[str, int]],
        stamped_here: Set[Key],
    ) -> Stored:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            numbered = [(self._id(r), r[2], r[3], r[4], r[6]) for r in rows]
            before = db.total_changes
            db.executemany("INSERT OR IGNORE INTO observation VALUES (?,?,?,?,?)", numbered)
            if db.total_changes - before == len(rows):
                stored = Stored(rows, 0, [])
            else:
                stored = self._sort_out(rows, self._stamped_here | stamped_here)
            new_here = [key for key in stamped_here if key in self._ids and key not in self._stamped_here]
            db.executemany("INSERT OR IGNORE INTO stamped_here VALUES (?)", [(self._ids[key],) for key in new_here])
            for topic, payload, why, at in refused:
                self._quarantine(topic, payload, why.reason.value, why.detail, at)
            for r in stored.conflicts:
                detail = f"{r[0]}/{r[1]} already has another value at {r[2]}; {r[3]} was not stored"
                self._quarantine("", b"", "conflicting_duplicate", detail, r[2])
            db.executemany(
                "INSERT INTO counter VALUES (?,?) ON CONFLICT(name) DO UPDATE SET n = n + excluded.n",
                list(counted(stored).items()),
            )
            db.execute("COMMIT")
        except BaseException:
            roll_back(db)
            self._read_series()
            raise
        self._stamped_here.update(new_here)
        return stored

    def counters(self) -> dict[str, int]:
        """Everything counted since the gateway was installed."""
        return dict(self._db.execute("SELECT name, n FROM counter"))

    def remember_input(self, known: KnownInput) -> bool:
        """Whether this version of a known input is new here; keeps it."""
        row = (known.id, known.machine, known.known_ms, known.end_ms, encode(known))
        sql = "INSERT OR IGNORE INTO known_input VALUES (?,?,?,?,?)"
        return self._in_room(lambda: self._db.execute(sql, row).rowcount == 1)

    def known_inputs(self) -> list[KnownInput]:
        """Every version that is kept, in the order in which they became known."""
        rows = self._db.execute("SELECT body FROM known_input ORDER BY known_ms, id")
        return [decode(body, KnownInput) for (body,) in rows]

    def forget_inputs_before(self, time_ms: int) -> None:
        """Drops known inputs of which every version had ended by then: one that is left must not stand without the
        version that replaced it."""
        self._db.execute(
            "DELETE FROM known_input WHERE (machine, id) NOT IN"
            " (SELECT machine, id FROM known_input WHERE end_ms >= ?)",
            (time_ms,),
        )

    def keys(self) -> list[Key]:
        """Every signal that was ever observed."""
        return list(self._ids)

    def newest_ms(self) -> int:
        """Time of the newest observation, 0 for none."""
        return max((self._edge(i, "max") for i in self._ids.values()), default=0)

    def oldest_ms(self, key: Key) -> int:
        """Time of a signal's oldest observation, 0 for none."""
        query = "SELECT min(time_ms) FROM observation WHERE series = ?"
        return int(self._db.execute(query, (self._ids.get(key, -1),)).fetchone()[0] or 0)

    def rows_since(self, time_ms: int) -> list[Row]:
        """Every observation from a time on, signal by signal."""
        query = "SELECT time_ms, value, quality, initial FROM observation WHERE series = ? AND time_ms >= ?"
        return [
            (*key, at, value, quality, self.units[key], bool(initial))
            for key, number in self._ids.items()
            for at, value, quality, initial in self._db.execute(query, (number, time_ms))
        ]

    def values(self, key: Key, start_ms: int, end_ms: int) -> tuple[np.ndarray, Floats]:
        """(times int64 [n], values float64 [n]) of good and uncertain observations in [start, end), by time."""
        rows = self._db.execute(
            "SELECT time_ms, value FROM observation WHERE series = ? AND time_ms >= ? AND time_ms < ?"
            " AND quality <> 'bad' AND initial = 0 ORDER BY time_ms",
            (self._ids.get(key, -1), start_ms, end_ms),
        ).fetchall()
        table = np.array(rows, dtype=np.float64).reshape(-1, 2)
        return table[:, 0].astype(np.int64), table[:, 1]

    def readings(self, key: Key, start_ms: int, end_ms: int) -> list[float]:
        """Good and uncertain values in [start, end), by time."""
        return list(self.values(key, start_ms, end_ms)[1])

    def buckets(self, key: Key, start_ms: int, step_ms: int, count: int) -> Floats:
        """Bucket means [count] from disk, NaN where nothing was observed."""
        times, values = self.values(key, start_ms, start_ms + step_ms * count)
        return resample(times, values, start_ms, step_ms, count)

    def forget_before(self, time_ms: int) -> int:
        """Drops observations older than time_ms; returns how many."""
        return self._db.execute("DELETE FROM observation WHERE time_ms < ?", (time_ms,)).rowcount

    @property
    def tight(self) -> bool:
        """Whether the disk is so full that the file is held at the size it has."""
        return self._room.tight

    @property
    def stamped_here(self) -> Set[Key]:
        """Signals whose values have the time of their arrival."""
        return self._stamped_here

    def newest_stamped_ms(self) -> int:
        """The newest time that was given here, 0 for none."""
        return max((self._edge(self._ids[key], "max") for key in self._stamped_here), default=0)

    def retime(self, shifts: list[Shift], boot: str) -> int:
        """Moves what was stamped here in these stretches, in one transaction and once: the same again, after a crash, does
        nothing. Returns how many observations moved; their order stays. Raises TryLater where the disk has no room."""
        return self._in_room(lambda: self._retime(shifts, boot))

    def _retime(self, shifts: list[Shift], boot: str) -> int:
        db = self._db
        moved = 0
        db.execute("BEGIN IMMEDIATE")
        try:
            fresh = [s for s in shifts if s.shift_ms and self._note_shift(s, boot)]
            for key in sorted(self._stamped_here):
                moved += self._move(self._ids[key], fresh)
            db.execute("COMMIT")
        except BaseException:
            roll_back(db)
            raise
        return moved

    def shifts(self) -> list[tuple[str, Shift]]:
        """(boot, shift) of everything that was ever moved, by the time it had first."""
        rows = self._db.execute("SELECT boot, first_ms, until_ms, shift_ms FROM clock_shift ORDER BY first_ms")
        return [(boot, Shift(first, until, by)) for boot, first, until, by in rows]

    def _note_shift(self, shift: Shift, boot: str) -> bool:
        row = (boot, shift.first_ms, shift.until_ms, shift.shift_ms)
        return self._db.execute("INSERT OR IGNORE INTO clock_shift VALUES (?,?,?,?)", row).rowcount == 1

    def _move(self, series: int, shifts: list[Shift]) -> int:
        """Takes the rows of all stretches out before any is put back, so that none meets another one on its way."""
        taken: list[tuple[int, int, float, str, int]] = []
        for s in shifts:
            span = (series, s.first_ms, s.until_ms)
            inside = "series = ? AND time_ms >= ? AND time_ms < ?"
            rows = self._db.execute(
                f"SELECT time_ms, value, quality, initial FROM observation WHERE {inside} ORDER BY time_ms",  # noqa: S608
                span,
            )
            taken += [(series, at + s.shift_ms, value, quality, initial) for at, value, quality, initial in rows]
            self._db.execute(f"DELETE FROM observation WHERE {inside}", span)  # noqa: S608 # a constant
        last_ms = 0
        for row in taken:
            last_ms = self._free_ms(series, max(row[1], last_ms + 1))
            self._db.execute("INSERT INTO observation VALUES (?,?,?,?,?)", (series, last_ms, *row[2:]))
        return len(taken)

    def _free_ms(self, series: int, at_ms: int) -> int:
        """The first millisecond from at_ms on at which nothing stands."""
        taken = "SELECT 1 FROM observation WHERE series = ? AND time_ms = ?"
        while self._db.execute(taken, (series, at_ms)).fetchone():
            at_ms += 1
        return at_ms

    def close(self) -> None:
        """Checkpoints, as far as there is room, and closes."""
        close_store(self._db)

    def _in_room(self, change: Callable[[], T]) -> T:
        """`change`, again after each thing that made room for it."""
        while True:
            try:
                done = change()
            except sqlite3.OperationalError as error:
                if not disk_full(error):
                    raise
                if not self._room.tighten() and not self._forget_some():
                    raise TryLater(f"no room in the history: {error}") from error
            else:
                self._room.hold()
                return done

    def _forget_some(self) -> bool:
        """The oldest fiftieth of the time that is kept goes. False where that would not help: the file has pages to
        spare, and what lacks room is its WAL."""
        oldest = min((self._edge(i, "min") for i in self._ids.values()), default=0)
        newest = self.newest_ms()
        if self._room.spare_bytes() > TRANSACTION_BYTES or oldest >= newest:
            return False
        try:
            self.gave_way += self.forget_before(oldest + max((newest - oldest) // 50, 1))
        except sqlite3.OperationalError as error:
            if not disk_full(error):
                raise
            return False
        return True

    def _read_series(self) -> None:
        """Number and unit of every signal, as the file has them."""
        self._ids.clear()
        for number, machine, signal, unit in self._db.execute("SELECT id, machine, signal, unit FROM series"):
            self._ids[machine, signal] = number
            self.units[machine, signal] = unit

    def _edge(self, series: int, of: Literal["min", "max"]) -> int:
        found = self._db.execute(f"SELECT {of}(time_ms) FROM observation WHERE series = ?", (series,)).fetchone()[0]  # noqa: S608
        return int(found or 0)

    def _id(self, row: Row) -> int:
        key = (row[0], row[1])
        number = self._ids.get(key)
        if number is None:
            self._db.execute("INSERT OR IGNORE INTO series (machine, signal, unit) VALUES (?,?,?)", (*key, row[5]))
            found = self._db.execute("SELECT id FROM series WHERE machine = ? AND signal = ?", key).fetchone()
            number = self._ids[key] = int(found[0])
            self.units[key] = row[5]
        return number

    def _sort_out(self, rows: list[Row], stamped_here: Set[Key]) -> Stored:
        """Some rows met one that was there already. Which is new is told by what stands on disk now: the first row of
        this batch at its instant with the stored value, unless an earlier transaction had put it there."""
        db = self._db
        db.execute("ROLLBACK")
        db.execute("BEGIN IMMEDIATE")
        self._read_series()
        fresh: list[Row] = []
        conflicts: list[Row] = []
        duplicates = 0
        for row in rows:
            at = (self._id(row), row[2])
            if db.execute(
                "INSERT OR IGNORE INTO observation VALUES (?,?,?,?,?)", (*at, row[3], row[4], row[6])
            ).rowcount:
                fresh.append(row)
            else:
                there = db.execute("SELECT value FROM observation WHERE series = ? AND time_ms = ?", at).fetchone()
                if (row[0], row[1]) in stamped_here and not row[6]:
                    free_ms = self._free_ms(at[0], row[2])
                    db.execute("INSERT INTO observation VALUES (?,?,?,?,?)", (at[0], free_ms, row[3], row[4], row[6]))
                    fresh.append((row[0], row[1], free_ms, *row[3:]))
                elif there[0] == row[3]:
                    duplicates += 1
                else:
                    conflicts.append(row)
        return Stored(fresh, duplicates, conflicts)

    def _quarantine(self, topic: str, payload: bytes, reason: str, detail: str, time_ms: int) -> None:
        cut = payload[:MAX_QUARANTINE_PAYLOAD_BYTES]
        self._db.execute(
            "INSERT INTO quarantine (time_ms, topic, reason, detail, payload) VALUES (?,?,?,?,?)",
            (time_ms, topic[:500], reason, detail[:500], cut),
        )
        self._quarantined += 1
        if self._quarantined > MAX_QUARANTINE_ROWS:
            self._db.execute("DELETE FROM quarantine WHERE id = (SELECT min(id) FROM quarantine)")
            self._quarantined -= 1


def samples_of(path: Path, key: Key, start_ms: int, end_ms: int) -> Floats:
    """Good and uncertain values in [start, end) of a history.db that is only read; empty where there are none. Raises
    BadSettings if it is no history."""
    if not path.is_file():
        raise BadSettings(f"there is no {path}; give the history.db of the gateway that wrote the report")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute(
                "SELECT value FROM observation JOIN series ON series.id = observation.series WHERE machine = ? AND signal = ?"
                " AND time_ms >= ? AND time_ms < ? AND quality <> 'bad' AND initial = 0 ORDER BY time_ms",
                (*key, start_ms, end_ms),
            ).fetchall()
    except sqlite3.DatabaseError as error:
        raise BadSettings(f"{path} cannot be read as a gateway's history: {error}") from error
    return np.array(rows, dtype=np.float64).reshape(-1)


class Grid:
    """Bucket means of every signal, as they close. Memory: `keep` buckets of float64 per signal."""

    def __init__(self, step_ms: int, keep: int) -> None:
        self.step_ms = step_ms
        self.keep = keep
        self.closed_until_ms = 0
        self.series: dict[Key, Floats] = {}
        self._open: dict[int, dict[Key, list[float]]] = {}
        self.late = 0

    def add(self, rows: list[Row]) -> None:
        """Takes stored rows. Retained and bad ones are history, not news; those of closed buckets come too late."""
        step, closed, open_buckets = self.step_ms, self.closed_until_ms, self._open
        for machine, signal, at, value, quality, _unit, initial in rows:
            if initial or quality == "bad":
                continue
            start = at - at % step
            if start < closed:
                self.late += 1
                continue
            bucket = open_buckets.get(start)
            if bucket is None:
                bucket = open_buckets[start] = {}
            total = bucket.get((machine, signal))
            if total is None:
                bucket[machine, signal] = [value, 1.0]
            else:
                total[0] += value
                total[1] += 1.0

    def ready(self, now_ms: int, lateness_ms: int) -> list[tuple[int, dict[Key, float]]]:
        """Closes every bucket that ended `lateness_ms` ago: (start_ms, means) in order, empty ones between included."""
        due = sorted(s for s in self._open if s + self.step_ms + lateness_ms <= now_ms)
        made: list[tuple[int, dict[Key, float]]] = []
        for start in due:
            empty = range(self.closed_until_ms or start, start, self.step_ms)[-self.keep :]
            made += [self._close(missing, {}) for missing in empty]
            means = {k: total / n for k, (total, n) in self._open.pop(start).items()}
            made.append(self._close(start, means))
        return made

    def _close(self, start: int, means: dict[Key, float]) -> tuple[int, dict[Key, float]]:
        for key in means:
            if key not in self.series:
                self.series[key] = np.full(self.keep, np.nan)
        for key, ring in self.series.items():
            ring[:-1] = ring[1:]
            ring[-1] = means.get(key, np.nan)
        self.closed_until_ms = start + self.step_ms
        return start, means
