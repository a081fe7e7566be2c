"""What the plant says is stored once, or refused for a reason that is counted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_agent import mapping
from edge_agent.history import Grid, History, Stored
from edge_agent.intake import Intake, Row
from protocol.errors import BadSettings, Reason

NOW_MS = 1_790_000_000_000
STAMP = "2026-09-21T14:13:20+00:00"
MAPPING = """
[[source]]
topic = "plant/{line}/{machine}/{signal}"
value = "$.value"
time = "$.timestamp"
quality = "$.quality"
unit = "$.unit"
[[source]]
topic = "batch/{machine}"
each = "$.tags.*"
signal = "@key"
value = "$.value"
root_time = "$.timestamp"
[[source]]
topic = "array/{machine}/{signal}"
each = "$.samples[*]"
value = "$[1]"
time = "$[0]"
time_unit = "ms"
[[source]]
topic = "bare/{machine}/{signal}"
value = "$"
[machines.P-101]
type = "pump"
"""


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    file = tmp_path / "mapping.toml"
    file.write_text(MAPPING)
    return Intake(mapping.load(file), lambda: NOW_MS, accept_future_s=300)


def telemetry(**changes: object) -> bytes:
    return msgspec.json.encode({"value": 3.5, "timestamp": STAMP, "unit": "mm/s"} | changes)


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("plant/l/P-101/v", b'{"value": 3.5', Reason.MALFORMED_JSON),
        ("plant/l/P-101/v", b"\xff\xfe", Reason.MALFORMED_JSON),
        ("plant/l/P-101/v", b'{"value": NaN, "timestamp": "2026-09-21T13:33:20Z"}', Reason.NOT_FINITE),
        ("plant/l/P-101/v", telemetry(value="high"), Reason.WRONG_TYPE),
        ("plant/l/P-101/v", telemetry(value=True), Reason.WRONG_TYPE),
        ("plant/l/P-101/v", telemetry(value=None), Reason.WRONG_TYPE),
        ("plant/l/P-101/v", telemetry(timestamp="2026-09-21T13:33:20"), Reason.NO_TIME_ZONE),
        ("plant/l/P-101/v", telemetry(timestamp="yesterday"), Reason.BAD_TIME),
        ("plant/l/P-101/v", telemetry(timestamp=None), Reason.NO_TIME),
        ("plant/l/P-101/v", telemetry(timestamp="2031-01-01T00:00:00Z"), Reason.FUTURE_TIME),
        ("plant/l/P-101/v", telemetry(timestamp=5), Reason.ANCIENT_TIME),
        ("plant/l/P-101/v", telemetry(timestamp=1e300), Reason.FUTURE_TIME),
        ("plant/l/P-101/v", telemetry(quality="so-so"), Reason.BAD_QUALITY),
        ("plant/l/P-101/v", b'"' + b"x" * 5_000_000 + b'"', Reason.TOO_LARGE),
        ("plant/l/P-101/v", b"[" * 300_000, Reason.MALFORMED_JSON),
        ("plant/l/GHOST/v", telemetry(), Reason.UNKNOWN_MACHINE),
        ("somewhere/else", telemetry(), Reason.UNKNOWN_TOPIC),
        ("batch/P-101", b'{"timestamp": 1, "tags": 7}', Reason.WRONG_TYPE),
    ],
)
def test_bad_input_is_refused_for_its_reason(intake: Intake, topic: str, payload: bytes, reason: Reason) -> None:
    rows, refused = intake.read(topic, payload, retained=False)
    assert rows == []
    assert [r.reason for r in refused] == [reason]
    assert refused[0].detail


def test_a_bad_sample_does_not_spoil_its_neighbours(intake: Intake) -> None:
    body = {"timestamp": STAMP, "tags": {"a": {"value": 1}, "b": {"value": "x"}, "c": {"value": 2.5}}}
    rows, refused = intake.read("batch/P-101", msgspec.json.encode(body), retained=False)
    assert [(r[1], r[3]) for r in rows] == [("a", 1.0), ("c", 2.5)]
    assert [r.reason for r in refused] == [Reason.WRONG_TYPE]


def test_objects_arrays_and_bare_scalars_are_understood(intake: Intake) -> None:
    rows, _ = intake.read("plant/l/P-101/v", telemetry(quality=192), retained=True)
    assert rows == [("P-101", "v", NOW_MS, 3.5, "good", "mm/s", True)]
    rows, _ = intake.read("array/P-101/t", msgspec.json.encode({"samples": [[NOW_MS, 1], [NOW_MS + 1, 2]]}), False)
    assert [(r[2], r[3]) for r in rows] == [(NOW_MS, 1.0), (NOW_MS + 1, 2.0)]
    rows, _ = intake.read("bare/P-101/t", b"21.5", retained=False)
    assert rows[0][2:4] == (NOW_MS, 21.5)


@pytest.mark.parametrize(
    "text",
    ["", '[[source]]\ntopic = "a/{machine}"', '[[source]]\ntopic = "{machine}/{signal}"\nvalue = "value"', "x = 1"],
)
def test_a_mapping_that_cannot_work_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mapping.toml"
    file.write_text(text)
    with pytest.raises(BadSettings, match=r"mapping\.toml"):
        mapping.load(file)


def row(time_ms: int, value: float, signal: str = "v") -> Row:
    return ("P-101", signal, time_ms, value, "good", "mm/s", False)


def counts(stored: Stored) -> dict[str, int]:
    return {"stored": len(stored.fresh), "duplicate": stored.duplicates, "conflict": len(stored.conflicts)}


def test_the_same_again_is_a_duplicate_and_another_value_a_conflict(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    first = history.store([row(1000, 1.0), row(3000, 3.0)], [], counts)
    assert len(first.fresh) == 2
    again = history.store([row(3000, 3.0), row(2000, 2.0), row(1000, 9.0), row(4000, 4.0), row(4000, 4.0)], [], counts)
    assert [r[2] for r in again.fresh] == [2000, 4000]
    assert (again.duplicates, len(again.conflicts)) == (2, 1)
    history.close()
    reopened = History(tmp_path / "history.db")
    times, values = reopened.values(("P-101", "v"), 0, 10_000)
    assert times.tolist() == [1000, 2000, 3000, 4000]
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert reopened.counters() == {"stored": 4, "duplicate": 2, "conflict": 1}
    reopened.close()


def test_buckets_close_in_order_and_empty_ones_are_not_skipped() -> None:
    grid = Grid(step_ms=1000, keep=8)
    grid.add([row(500, 1.0), row(900, 3.0), row(3100, 7.0), row(4200, 8.0)])
    closed = grid.ready(now_ms=4000, lateness_ms=0)
    assert [(start, means.get(("P-101", "v"))) for start, means in closed] == [
        (0, 2.0),
        (1000, None),
        (2000, None),
        (3000, 7.0),
    ]
    grid.add([row(700, 100.0)])
    assert grid.late == 1


def test_on_a_full_disk_the_oldest_readings_give_way_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(tmp_path / "history.db")
    monkeypatch.setattr("edge_agent.storage.Ballast.make", lambda _: False)  # the disk stays full
    monkeypatch.setattr("edge_agent.storage.free_bytes", lambda _: 0)
    first = 1_790_000_000_000
    history.store([row(first + n, 1.0) for n in range(60_000)], [], lambda _: {})
    assert history.gave_way == 0
    (pages,) = history._db.execute("PRAGMA page_count").fetchone()
    history._db.execute(f"PRAGMA max_page_count={pages}")
    history.store([row(first + 60_000 + n, 2.0) for n in range(20_000)], [], lambda _: {})
    there = history.values(("P-101", "v"), first, first + 80_000)[0]
    assert 0 < history.gave_way < 30_000
    assert len(there) + history.gave_way == 80_000
    assert [int(t) for t in there[[0, -1]]] == [first + history.gave_way, first + 79_999]
    history.close()
