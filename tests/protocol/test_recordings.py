"""A user's own table: whatever is odd in it is put right by a stated rule and counted, or refused with the remedy."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from protocol import columns
from protocol.columns import Wanted
from protocol.errors import BadMessage, BadSettings, Refused
from protocol.recordings import Layout, Recordings, known_inputs, lay_out, parse_step, step_words, unit_jump

HOUR = 3_600_000
LAYOUT = Layout(time="time", series=("machine",), targets=("value",))


def read(text: str, layout: Layout = LAYOUT, *, arrow: bool = True) -> Recordings:
    return lay_out(columns.read_csv(io.BytesIO(text.encode()), layout.wanted, arrow=arrow), layout)


def table(rows: list[tuple[str, str, object]]) -> str:
    return "time,machine,value\n" + "".join(f"{t},{m},{v}\n" for t, m, v in rows)


def hourly(count: int, machine: str = "P-1", day: int = 1) -> list[tuple[str, str, object]]:
    return [(f"2026-01-{day + i // 24:02}T{i % 24:02}:00:00Z", machine, float(i)) for i in range(count)]


def found(recordings: Recordings) -> dict[str, int]:
    return {finding.kind: finding.count for finding in recordings.findings}


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize("arrow", [True, False])
def test_a_plain_table_becomes_one_row_a_machine(arrow: bool) -> None:
    got = read(table(hourly(30) + hourly(28, "P-2")), arrow=arrow)
    assert got.series == [("P-1", "value"), ("P-2", "value")]
    assert (got.start_ms, got.step_ms, got.values.shape) == (ms("2026-01-01"), HOUR, (2, 30))
    np.testing.assert_array_equal(got.values[0], np.arange(30))
    assert np.isnan(got.values[1, 28:]).all()
    assert got.findings == []


def test_both_readers_agree_on_an_untidy_file() -> None:
    text = "﻿time;machine;value;x\n2026-01-01 00:00;A;1,5;a\n2026-01-01 01:00;A;off;b\n2026-01-01 02:00;B;;c\n;B;2,0;d\n"
    text += "2026-01-01 03:00+01:00;A;3,25;e\n2026-01-01 05:00;B;7,0;f\n2026-01-01 06:00;B;8,0;f\n"
    one, two = read(text), read(text, arrow=False)
    np.testing.assert_array_equal(one.values, two.values)
    assert one.findings == two.findings
    assert found(one).items() >= {"unreadable_time": 1, "not_a_number": 1, "no_time_zone": 5}.items()
    assert one.values[0, 2] == 3.25


def test_rows_in_any_order_give_the_same_series_and_are_counted() -> None:
    rows = hourly(30)
    mixed = [rows[i] for i in np.random.default_rng(1).permutation(30)]
    np.testing.assert_array_equal(read(table(mixed)).values, read(table(rows)).values)
    assert found(read(table(mixed)))["unsorted"] > 0


def test_duplicates_of_an_instant_are_averaged_and_counted() -> None:
    got = read(table([*hourly(10), ("2026-01-01T03:00:00Z", "P-1", 7.0)]))
    assert got.values[0, 3] == 5.0
    assert found(got)["duplicate_time"] == 1


def test_gaps_stay_gaps_and_are_counted() -> None:
    rows = hourly(30)
    del rows[10:13]
    got = read(table(rows))
    assert np.isnan(got.values[0, 10:13]).all()
    assert found(got)["gap"] == 3


def test_an_hour_that_comes_twice_is_told_apart_by_the_order_of_rows() -> None:
    local = ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00", "2026-10-25T02:00", "2026-10-25T03:00"]
    layout = Layout(time="time", series=("machine",), targets=("value",), time_zone="Europe/Berlin")
    got = read(table([(t, "A", i) for i, t in enumerate(local)]), layout)
    np.testing.assert_array_equal(got.values, [[0, 1, 2, 3, 4]])
    assert got.start_ms == ms("2026-10-24T22:00")
    assert found(got) == {"ambiguous_hour": 2}


def test_an_hour_that_never_was_is_moved_on_and_counted() -> None:
    local = ["2026-03-29T00:00", "2026-03-29T01:00", "2026-03-29T02:30", "2026-03-29T04:00", "2026-03-29T05:00"]
    layout = Layout(time="time", series=("machine",), targets=("value",), time_zone="Europe/Berlin", step_ms=HOUR)
    got = read(table([(t, "A", i) for i, t in enumerate(local)]), layout)
    np.testing.assert_array_equal(got.values, [[0, 1, 2, 3, 4]])
    assert found(got) == {"missing_hour": 1}


def test_stamps_without_a_zone_are_utc_unless_one_is_named_and_an_unknown_zone_is_refused() -> None:
    text = table([(f"2026-07-01 {h:02}:00", "A", h) for h in range(6)])
    assert read(text).start_ms == ms("2026-07-01")
    assert found(read(text)) == {"no_time_zone": 6}
    zoned = Layout(time="time", series=("machine",), targets=("value",), time_zone="Asia/Shanghai")
    assert read(text, zoned).start_ms == ms("2026-06-30T16:00")
    with pytest.raises(BadSettings, match="Europe/Berlin"):
        read(text, Layout(time="time", targets=("value",), time_zone="Mars/Olympus"))


@pytest.mark.parametrize(("unit", "factor"), [("seconds", 1), ("milliseconds", 1e3), ("microseconds", 1e6)])
def test_epoch_numbers_are_read_by_their_size(unit: str, factor: float) -> None:
    rows = [(f"{int((1_760_000_400 + 60 * i) * factor)}", "A", i) for i in range(10)]
    got = read(table(rows))
    assert (got.start_ms, got.step_ms) == (1_760_000_400_000, 60_000)
    assert unit in got.findings[0].words


@pytest.mark.parametrize("arrow", [True, False])
def test_a_day_without_hyphens_is_a_day_and_no_year_in_the_millions(arrow: bool) -> None:
    got = read(table([(f"202601{d:02}", "A", d) for d in range(1, 11)]), arrow=arrow)
    assert (got.start_ms, got.step_ms, got.values.shape) == (ms("2026-01-01"), 24 * HOUR, (1, 10))


@pytest.mark.parametrize("arrow", [True, False])
def test_a_count_of_seconds_among_days_is_no_time(arrow: bool) -> None:
    rows = [("1769846400", "A", 0), *((f"2026-01-{d:02}", "A", d) for d in range(1, 11))]
    got = read(table([rows[1], rows[0], *rows[2:]]), arrow=arrow)
    assert (found(got)["unreadable_time"], got.values.shape) == (1, (1, 10))


def test_step_numbers_need_a_step() -> None:
    text = table([(str(i), "A", i) for i in range(10)])
    with pytest.raises(Refused, match="--step"):
        read(text)
    stepped = Layout(time="time", series=("machine",), targets=("value",), step_ms=HOUR)
    np.testing.assert_array_equal(read(text, stepped).values[0], np.arange(10))


def test_other_stamps_need_their_format() -> None:
    text = table([(f"{d:02}.01.2026 06:00", "A", d) for d in range(1, 11)])
    with pytest.raises(Refused, match="--time-format"):
        read(text)
    layout = Layout(time="time", series=("machine",), targets=("value",), time_format="%d.%m.%Y %H:%M")
    assert read(text, layout).step_ms == 24 * HOUR


def test_a_jittering_clock_fills_every_bucket_once() -> None:
    rng = np.random.default_rng(2)
    seconds = 1_760_000_040 + 60 * np.arange(200) + rng.integers(-8, 9, 200)
    got = read(table([(str(s), "A", i) for i, s in enumerate(seconds)]))
    assert got.step_ms == 60_000
    np.testing.assert_array_equal(got.values[0], np.arange(200))


def test_calendar_months_fill_every_bucket_once() -> None:
    months = [f"{2000 + i // 12}-{i % 12 + 1:02}-01" for i in range(240)]
    got = read(table([(m, "A", i) for i, m in enumerate(months)]))
    np.testing.assert_array_equal(got.values[0], np.arange(240))
    assert step_words(got.step_ms) == "1month"


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda v: v * 1000, "factor of about 1000"), (lambda v: v * 1.8 + 32, "°F"), (lambda v: v + 273.15, "°C and K")],
)
def test_a_change_of_unit_is_pointed_out_and_not_mended(change: object, words: str) -> None:
    values = 40 + np.random.default_rng(3).normal(size=200) * 0.5
    assert callable(change)
    jumped = np.concatenate([values[:120], change(values[120:])])
    assert words in unit_jump(jumped)
    rows = [(t, m, v) for (t, m, _), v in zip(hourly(200), jumped, strict=True)]
    got = read(table(rows))
    assert found(got) == {"unit_jump": 1}
    np.testing.assert_allclose(got.values[0], jumped)


def test_a_fault_or_a_noisy_signal_is_no_change_of_unit() -> None:
    rng = np.random.default_rng(4)
    walk = 40 + np.cumsum(rng.normal(size=300))
    fault = np.concatenate([40 + rng.normal(size=100), 47 + rng.normal(size=100)])
    assert unit_jump(walk) == ""
    assert unit_jump(fault) == ""
    assert unit_jump(np.full(100, np.nan)) == ""
    assert unit_jump(np.zeros(100)) == ""


def test_negative_counts_are_missing_where_counts_are_declared() -> None:
    rows = hourly(20)
    rows[5] = (rows[5][0], "P-1", -3)
    assert read(table(rows)).values[0, 5] == -3
    counts = read(table(rows), Layout(time="time", series=("machine",), targets=("value",), counts=True))
    assert np.isnan(counts.values[0, 5])
    assert found(counts)["negative_count"] == 1


def test_series_without_two_values_are_left_out_by_name() -> None:
    rows = [*hourly(20), ("2026-01-01T00:00:00Z", "one", 4), *[(t, "none", "") for t, _, _ in hourly(3)]]
    got = read(table([*rows, *[(t, "still", 2) for t, _, _ in hourly(20)]]))
    assert got.series == [("P-1", "value"), ("still", "value")]
    assert got.left_out == {("none", "value"): "no value", ("one", "value"): "one point (4)"}
    assert found(got)["constant"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("time,machine,value\n", "no rows"),
        ("time,machine,value\n2026-01-01,A,\n2026-01-02,A,nan\n", "no row has a time and a number"),
        ("time,machine\n2026-01-01,A\n", "no column 'value'; there are time, machine"),
        ("time,machine,value,value\n2026-01-01,A,1,2\n", "twice"),
        ("time,machine,value\nsoon,A,1\n", "--time-format"),
        ("time,machine,value\n2026-01-01,A,1,5,6\n2026-01-01,A\n", "(?i)csv|cells"),
    ],
    ids=["nothing", "header only", "all missing", "no column", "column twice", "no time", "ragged"],
)
@pytest.mark.parametrize("arrow", [True, False])
def test_a_table_that_says_nothing_is_refused_in_words(text: str, words: str, arrow: bool) -> None:
    with pytest.raises(Refused, match=words):
        read(text, arrow=arrow)


def test_infinite_values_are_missing() -> None:
    rows = hourly(10)
    rows[3] = (rows[3][0], "P-1", "inf")
    assert np.isnan(read(table(rows)).values[0, 3])
    assert found(read(table(rows)))["not_a_number"] == 1


def test_too_fine_a_grid_is_refused_with_the_step_that_fits() -> None:
    far = [("2000-01-01T00:00:00Z", "A", 1), ("2000-01-01T00:00:01Z", "A", 2), ("2000-01-01T00:00:02Z", "A", 3)]
    text = table([*far, ("2026-01-01T00:00:00Z", "A", 4)])
    with pytest.raises(BadMessage, match="--step 15min"):
        read(text)
    coarse = Layout(time="time", series=("machine",), targets=("value",), step_ms=parse_step("1d"))
    assert read(text, coarse).values.shape == (1, 9498)


def test_a_million_points_become_minutes() -> None:
    wanted = Wanted("time", (), ("value",))
    stamps = np.datetime64("2026-01-01T00:00:00") + np.arange(1_000_000).astype("timedelta64[s]")
    read_in = columns.from_arrays({"time": stamps, "value": np.arange(1_000_000.0)}, wanted)
    got = lay_out(read_in, Layout(time="time", targets=("value",), step_ms=60_000))
    assert got.values.shape == (1, 16_667)
    np.testing.assert_allclose(got.values[0, :2], [29.5, 89.5])


def test_several_columns_name_a_machine_and_several_are_targets() -> None:
    layout = Layout(time="t", series=("line", "machine"), targets=("a", "b"))
    text = "t,line,machine,a,b\n" + "".join(f"2026-01-01T{h:02}:00Z,L{h % 2},P,{h},{-h}\n" for h in range(8))
    assert read(text, layout).series == [("L0 / P", "a"), ("L0 / P", "b"), ("L1 / P", "a"), ("L1 / P", "b")]


def test_known_columns_reach_beyond_the_last_target() -> None:
    layout = Layout(time="time", series=("machine",), targets=("value",), known=("load",))
    rows = [f"2026-01-01T{h:02}:00Z,A,{h if h < 6 else ''},{(h // 3) % 2}" for h in range(12)]
    got = read("time,machine,value,load\n" + "\n".join(rows) + "\n", layout)
    assert got.values.shape == (1, 6)
    assert got.known["load"].tolist() == [[0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]]
    told = known_inputs(got)
    assert [(k.covariate, (k.start_ms - got.start_ms) // HOUR, (k.end_ms - got.start_ms) // HOUR) for k in told] == [
        ("load", 3, 6),
        ("load", 9, 12),
    ]


def test_parquet_gives_what_the_csv_gives() -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = hourly(30)
    stamps = [datetime.fromisoformat(t) for t, _, _ in rows]
    written = io.BytesIO()
    made = pa.table({"time": stamps, "machine": [m for _, m, _ in rows], "value": [v for _, _, v in rows]})
    parquet.write_table(made, written)
    written.seek(0)
    got = lay_out(columns.read(written, LAYOUT.wanted), LAYOUT)
    np.testing.assert_array_equal(got.values, read(table(rows)).values)
    assert got.start_ms == ms("2026-01-01")
    with pytest.raises(Refused, match="Parquet"):
        columns.read(io.BytesIO(b"PAR1" + b"x" * 50), LAYOUT.wanted)


def test_a_gzipped_csv_is_read_and_a_torn_one_is_refused() -> None:
    packed = gzip.compress(table(hourly(30)).encode())
    got = lay_out(columns.read(io.BytesIO(packed), LAYOUT.wanted), LAYOUT)
    np.testing.assert_array_equal(got.values, read(table(hourly(30))).values)
    with pytest.raises(Refused, match="gzip"):
        columns.read(io.BytesIO(packed[:60]), LAYOUT.wanted)


def test_parquet_without_pyarrow_says_what_to_install() -> None:
    code = (
        "import io, sys; sys.modules['pyarrow'] = None; from protocol import columns as c; "
        "print(len(c.read(io.BytesIO(b't,v\\n1,2\\n'), c.Wanted('t', (), ('v',))).numbers['v'])); "
        "c.read(io.BytesIO(b'PAR1'), c.Wanted('t', (), ('v',)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.strip() == "1"
    assert "pip install pyarrow" in done.stderr


@pytest.mark.parametrize("text", ["15min", "1h", "30s", "1d", "500ms", "1month"])
def test_a_step_is_written_as_it_is_read(text: str) -> None:
    assert step_words(parse_step(text)) == text


def test_a_step_that_is_none_is_refused() -> None:
    for bad in ("", "0h", "ten", "-5min"):
        with pytest.raises(BadSettings, match="15min"):
            parse_step(bad)
