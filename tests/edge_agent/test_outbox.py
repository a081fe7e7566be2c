"""Nothing leaves the outbox before the server's database has it, and nothing vanishes from it without being told."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.dead_letters import listed, want_again
from edge_agent.outbox import Outbox
from edge_agent.storage import Ballast, disk_full, free_bytes
from protocol.clocks import ClockConfidence
from protocol.errors import TryLater
from protocol.names import MessageClass
from protocol.observations import WorkOrder
from protocol.sync import ClassAck, Envelope, Refusal, decode, encode, envelope

ALARM, EVENT, REPORT, METRIC, BULK = (
    MessageClass.ALARM,
    MessageClass.EVENT,
    MessageClass.REPORT,
    MessageClass.METRIC,
    MessageClass.BULK,
)
EVERYTHING = 1 << 40


def kept(outbox: Outbox, message_class: MessageClass) -> list[int]:
    """The numbers that wait."""
    return [seq for seq, _ in outbox.read(message_class, 0, 1_000_000, EVERYTHING)]


def pages(outbox: Outbox) -> int:
    """Of 4096 bytes."""
    (count,) = outbox._db.execute("PRAGMA page_count").fetchone()
    return int(count)


def fill_up(outbox: Outbox) -> None:
    """Reports until there is no room for one more."""
    while True:
        outbox.add(REPORT, b"r" * 1000)
        outbox.commit()


def killed(outbox: Outbox) -> None:
    """As a killed process leaves it: what was not committed is gone."""
    outbox._db.close()


class Faulty:
    """A connection on which the statements number `first` to `last` find the disk full; rolling back never does."""

    def __init__(self, db: sqlite3.Connection, first: int, last: int) -> None:
        self._db, self._first, self._last, self.seen = db, first, last, 0

    def _maybe(self, sql: str) -> None:
        if sql != "ROLLBACK":
            self.seen += 1
            if self._first <= self.seen <= self._last:
                raise sqlite3.OperationalError("database or disk is full")

    def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
        self._maybe(sql)
        return self._db.execute(sql, *rest)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        self._maybe(sql)
        return self._db.executemany(sql, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def spoil(outbox: Outbox, first: int, last: int) -> Faulty:
    """From now on the disk is full for these statements."""
    faulty: Any = Faulty(outbox._db, first, last)
    outbox._db = outbox._letters._db = outbox._room._db = faulty
    return faulty


def test_only_the_servers_word_frees_a_message_and_numbers_are_never_reused(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 10_000_000)
    for i in range(5):
        outbox.add(EVENT, b"e%d" % i)
    outbox.commit()
    assert outbox.settle(EVENT, ClassAck(upto=3, beyond=[(5, 5)], nack=[Refusal(2, "unknown_type")])) == 4
    outbox.close()
    again = Outbox(tmp_path / "outbox.db", 10_000_000)
    assert kept(again, EVENT) == [4]
    assert [(x.message_class, x.seq, x.reason) for x in listed(tmp_path / "outbox.db")] == [(EVENT, 2, "unknown_type")]
    again.settle(EVENT, ClassAck(upto=5))
    again.add(EVENT, b"next")
    again.commit()
    assert kept(again, EVENT) == [6]
    again.close()


def test_what_was_not_committed_is_not_there_after_a_kill(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 10_000_000)
    outbox.add(REPORT, b"safe", known_as="report-1")
    outbox.commit()
    outbox.add(REPORT, b"lost", known_as="report-2")
    killed(outbox)
    again = Outbox(tmp_path / "outbox.db", 10_000_000)
    assert [e for _, e in again.read(REPORT, 0, 10, 1000)] == [b"safe"]
    assert not again.add(REPORT, b"twice", known_as="report-1")
    assert again.add(REPORT, b"now", known_as="report-2")
    assert not again.add(REPORT, b"twice", known_as="report-2")
    again.close()


def test_a_full_outbox_sheds_bulk_first_and_tells_the_ranges(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 200_000)
    for _ in range(80):
        outbox.add(BULK, b"b" * 1000)
    for _ in range(95):
        outbox.add(REPORT, b"r" * 1000)
        outbox.commit()
    assert kept(outbox, REPORT) == list(range(1, 96))
    assert outbox.shed_ranges(BULK) == [(1, outbox.lanes[BULK].shed)]
    with pytest.raises(TryLater):
        fill_up(outbox)
    assert kept(outbox, BULK) == []
    assert pages(outbox) * 4096 <= 200_000
    outbox.close()


def test_nothing_gives_way_to_a_message_less_urgent_than_itself(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 200_000)
    for _ in range(100):
        outbox.add(EVENT, b"e" * 1000)
        outbox.commit()
    full = outbox.lanes[EVENT].waiting
    for _ in range(100):
        outbox.add(BULK, b"b" * 1000)
        outbox.commit()
    assert outbox.lanes[EVENT].waiting == full
    assert kept(outbox, BULK) == list(range(101 - outbox.lanes[BULK].waiting, 101))
    assert outbox.shed_ranges(BULK) == [(1, 100 - outbox.lanes[BULK].waiting)]
    outbox.close()


def test_a_group_that_finds_no_room_waits_whole_and_is_durable_when_there_is_some(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 200_000)
    with pytest.raises(TryLater):
        fill_up(outbox)
    stored = outbox.lanes[REPORT].waiting
    assert outbox.next_seq(REPORT) == stored + 2
    assert kept(outbox, REPORT) == list(range(1, stored + 1))
    outbox.settle(REPORT, ClassAck(upto=12))
    outbox.commit()
    assert kept(outbox, REPORT) == list(range(13, stored + 2))
    outbox.close()


@pytest.mark.parametrize("lasts", [0, 3, 1_000_000])
def test_a_disk_that_is_full_at_any_statement_costs_nothing_but_what_may_be_shed(tmp_path: Path, lasts: int) -> None:
    first = 1
    while True:
        outbox = Outbox(tmp_path / f"{first}.db", 1_000_000)
        for _ in range(30):
            outbox.add(BULK, b"b" * 1000)
        outbox.commit()
        faulty = spoil(outbox, first, first + lasts)
        added = accepted = 0
        for i in range(4):
            try:
                outbox.add(REPORT, b"r" * 1000, known_as=f"report-{i}")
                added += 1
                outbox.add(BULK, b"b" * 1000)
                outbox.commit()
                accepted = added
                outbox.settle(BULK, ClassAck(upto=2 * i))
            except (TryLater, sqlite3.OperationalError):
                continue
        seen = faulty.seen
        killed(outbox)
        again = Outbox(tmp_path / f"{first}.db", 1_000_000)
        assert len(kept(again, REPORT)) >= accepted
        for c in (REPORT, BULK):
            told = {n for a, b in again.shed_ranges(c) for n in range(a, b + 1)}
            gone = set(range(1, again.lanes[c].next)) - set(kept(again, c)) - told
            assert gone <= set(range(1, 7) if c is BULK else ())
            lane = again.lanes[c]
            assert lane.waiting == len(kept(again, c))
            assert lane.next - 1 == lane.waiting + lane.acked + lane.shed
            assert len(told) <= lane.shed
        again.close()
        if seen < first:
            return
        first += 1


def test_on_a_full_disk_the_ballast_goes_and_comes_back_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 1_000_000)
    ballast = tmp_path / "outbox.ballast"
    assert ballast.stat().st_size >= 1.5 * outbox._db.execute("PRAGMA journal_size_limit").fetchone()[0]
    room = 0
    monkeypatch.setattr("edge_agent.storage.free_bytes", lambda _folder: room)
    outbox.add(REPORT, b"r" * 100)
    spoil(outbox, 1, 1)
    outbox.commit()
    assert outbox.tight
    assert not ballast.exists()
    size = pages(outbox)
    for _ in range(300):
        outbox.add(METRIC, b"m" * 1000)
        outbox.commit()
    assert pages(outbox) <= size + 1
    assert outbox.lanes[METRIC].shed > 200
    room = 1 << 30
    outbox.add(METRIC, b"m" * 1000)
    outbox.commit()
    assert not outbox.tight
    assert ballast.exists()
    outbox.close()


def test_ballast_is_not_made_where_it_would_fill_the_disk(tmp_path: Path) -> None:
    assert not Ballast(tmp_path / "b", free_bytes(tmp_path)).make()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (sqlite3.OperationalError("database or disk is full"), True),
        (sqlite3.OperationalError("database is locked"), False),
        (OSError(errno.ENOSPC, "no space"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EIO, "broken"), False),
        (ValueError("x"), False),
    ],
)
def test_want_of_room_is_told_from_other_failures(error: Exception, full: bool) -> None:
    assert disk_full(error) is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Takes every byte that is left."""
    with path.open("wb") as file:
        while left := free_bytes(path.parent):
            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), min(left, 65_536))


def test_a_disk_that_others_have_filled_loses_no_report_and_recovers_without_hands(small_disk: Path) -> None:
    outbox = Outbox(small_disk / "outbox.db", 16_000_000)
    for _ in range(1500):
        outbox.add(BULK, b"b" * 1000)
    outbox.commit()
    fill(small_disk / "log")
    reports = []
    for i in range(400):
        reports.append(outbox.next_seq(REPORT))
        outbox.add(REPORT, b"r%4d" % i * 200)
        outbox.commit()
    assert kept(outbox, REPORT) == reports
    shed = outbox.shed_ranges(BULK)
    assert shed == [(1, outbox.lanes[BULK].shed)]
    assert kept(outbox, BULK) == list(range(shed[0][1] + 1, 1501))
    killed(outbox)
    again = Outbox(small_disk / "outbox.db", 16_000_000)
    assert kept(again, REPORT) == reports
    assert again._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (small_disk / "log").unlink()
    again.add(REPORT, b"r" * 1000)
    again.commit()
    assert not again.tight
    assert (small_disk / "outbox.ballast").exists()
    again.close()


def test_on_a_disk_filled_by_the_outbox_itself_only_what_may_be_shed_is_shed(small_disk: Path) -> None:
    outbox = Outbox(small_disk / "outbox.db", 16_000_000)
    refused = 0
    for i in range(9000):
        outbox.add(REPORT if i % 3 else BULK, b"x" * 1000)
        try:
            outbox.commit()
        except TryLater:
            refused += 1
            outbox.settle(REPORT, ClassAck(upto=outbox.lanes[REPORT].next - 1))
    outbox.commit()
    assert refused
    assert outbox.lanes[REPORT].shed == 0
    assert outbox.lanes[BULK].shed == sum(b - a + 1 for a, b in outbox.shed_ranges(BULK))
    outbox.close()


def test_the_names_of_what_was_told_once_do_not_grow_for_ever(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 1_000_000)
    for i in range(3 * outbox._names_most):
        outbox.add(BULK, b"b", known_as=f"n-{i}")
    outbox.commit()
    (names,) = outbox._db.execute("SELECT count(*) FROM told_once").fetchone()
    assert names == outbox._names_most
    assert not outbox.add(BULK, b"b", known_as=f"n-{i}")
    outbox.close()


def test_an_outbox_of_the_first_version_is_taken_over_with_everything_in_it(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "outbox.db")
    old.executescript("""
    CREATE TABLE message (
        class TEXT, seq INTEGER, envelope BLOB, size INTEGER, PRIMARY KEY (class, seq)) WITHOUT ROWID;
    CREATE TABLE lane (
        class TEXT PRIMARY KEY, next INTEGER, waiting INTEGER, bytes INTEGER, acked INTEGER, shed INTEGER);
    CREATE TABLE shed (class TEXT, first INTEGER, last INTEGER, PRIMARY KEY (class, first)) WITHOUT ROWID;
    CREATE TABLE dead_letter (class TEXT, seq INTEGER, reason TEXT, envelope BLOB, PRIMARY KEY (class, seq));
    CREATE TABLE known (id TEXT PRIMARY KEY) WITHOUT ROWID;
    INSERT INTO message VALUES ('bulk', 7, x'62', 1), ('alarm', 2, x'61', 1);
    INSERT INTO lane VALUES ('bulk', 8, 1, 1, 3, 3), ('alarm', 3, 1, 1, 1, 0);
    INSERT INTO shed VALUES ('bulk', 1, 3);
    INSERT INTO dead_letter VALUES ('bulk', 4, 'wrong_type', x'63');
    """)
    old.close()
    outbox = Outbox(tmp_path / "outbox.db", 10_000_000)
    assert (kept(outbox, BULK), kept(outbox, ALARM)) == ([7], [2])
    assert outbox.shed_ranges(BULK) == [(1, 3)]
    assert [x.seq for x in listed(tmp_path / "outbox.db")] == [4]
    assert outbox.next_seq(BULK) == 8
    outbox.close()


def _work_order(outbox: Outbox, name: str) -> bytes:
    return encode(
        envelope(
            WorkOrder(id=name, machine="P-1", time_ms=1_790_000_000_000),
            site="s",
            gateway="g",
            seq=outbox.next_seq(EVENT),
            boot="b",
            clock=ClockConfidence.SYNCED,
            time_ms=1_790_000_000_000,
        )
    )


def test_a_dead_letter_is_told_listed_and_put_back_under_a_new_number(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 10_000_000)
    for name in ("w-1", "w-2"):
        outbox.add(EVENT, _work_order(outbox, name))
    outbox.commit()
    assert outbox.bury(EVENT, Refusal(1, "never_acknowledged"))
    assert not outbox.bury(EVENT, Refusal(1, "never_acknowledged"))
    assert outbox.untold_dead(EVENT) == [Refusal(1, "never_acknowledged")]
    (letter,) = listed(tmp_path / "outbox.db")
    assert (letter.seq, letter.reason, letter.type, letter.told) == (
        1,
        "never_acknowledged",
        "millwright.work_order.v1",
        False,
    )
    assert want_again(tmp_path / "outbox.db", BULK) == 0
    assert want_again(tmp_path / "outbox.db", EVENT, 1) == 1
    assert outbox.take_back() == 1
    assert outbox.take_back() == 0
    outbox.commit()
    assert kept(outbox, EVENT) == [2, 3]
    again = decode(outbox.read(EVENT, 2, 1, EVERYTHING)[0][1], Envelope)
    assert (again.mwseq, again.id) == (3, "g/event/3")
    assert listed(tmp_path / "outbox.db") == []
    assert outbox.untold_dead(EVENT) == [Refusal(1, "never_acknowledged")], "its old number is still to be told"
    outbox.settle(EVENT, ClassAck(upto=1))
    assert outbox.untold_dead(EVENT) == []
    outbox.close()


def test_a_dead_letter_that_is_no_envelope_stays_where_it_is(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 10_000_000)
    outbox.add(EVENT, b"not an envelope")
    outbox.commit()
    outbox.bury(EVENT, Refusal(1, "too_large"))
    want_again(tmp_path / "outbox.db")
    assert outbox.take_back() == 0
    assert [(x.seq, x.again) for x in listed(tmp_path / "outbox.db")] == [(1, False)]
    outbox.close()


def test_dead_letters_are_bounded_and_each_number_is_still_told(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 1_000_000)
    for _ in range(150):
        outbox.add(EVENT, b"e" * 1000)
    outbox.commit()
    for seq in range(1, 101):
        outbox.bury(EVENT, Refusal(seq, "never_acknowledged"))
    assert sum(x.bytes for x in listed(tmp_path / "outbox.db")) <= 1_000_000 // 16
    assert len(outbox.untold_dead(EVENT)) == 100
    assert outbox.lanes[EVENT].dead == 100
    outbox.close()
