"""Columns of sparse rows as bytes: what was written is read, and nothing else is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadBundle
from protocol.tables import gaps

ROWS = st.lists(st.sets(st.integers(0, 20), max_size=8) | st.sets(st.integers(0, 99_999_999), max_size=8), max_size=6)


def compressed(rows: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array([i for row in rows for i in sorted(row)], dtype=np.int64)
    return np.cumsum([0, *map(len, rows)]), ids


def one_by_one(code: np.ndarray) -> list[int]:
    """Steps as the definition says, a byte at a time."""
    found, rest = [], 0
    for byte in code.tolist():
        if byte >= gaps.LAST:
            rest = rest * gaps.DIGITS + byte - gaps.LAST + 1
        else:
            found.append(rest * gaps.LAST + byte)
            rest = 0
    return found


@given(ROWS)
def test_what_was_written_is_read(rows: list[set[int]]) -> None:
    indptr, ids = compressed(rows)
    code = gaps.written(indptr, ids)
    assert gaps.read(code, indptr, 100_000_000, "rows").tolist() == ids.tolist()
    steps = one_by_one(code)
    assert [s + 1 for s in steps] == [
        b - a for row in rows for a, b in zip([-1, *sorted(row)], sorted(row), strict=False)
    ]


@given(st.binary(max_size=40), st.lists(st.integers(0, 6), max_size=6), st.integers(1, 400))
def test_any_bytes_are_ascending_columns_of_the_table_or_refused(code: bytes, lengths: list[int], columns: int) -> None:
    indptr = np.cumsum([0, *lengths])
    try:
        ids = gaps.read(np.frombuffer(code, dtype=np.uint8), indptr, columns, "rows")
    except BadBundle:
        return
    assert len(ids) == indptr[-1]
    for start, end in itertools.pairwise(indptr):
        row = ids[start:end].tolist()
        assert row == sorted(set(row))
        assert all(0 <= i < columns for i in row)
    assert gaps.written(indptr, ids).tobytes() == code


def test_large_tables_are_read_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = [set(rng.choice(70_000, int(k), replace=False).tolist()) for k in rng.integers(0, 40, 300)]
    indptr, ids = compressed([*rows, set(), set(range(50))])
    code = gaps.written(indptr, ids)
    for block in (gaps.MOST_BYTES, 7, 64):
        monkeypatch.setattr(gaps, "BLOCK", block)
        assert gaps.read(code, indptr, 70_000, "rows").tolist() == ids.tolist()


def test_near_columns_cost_a_byte_and_far_ones_two() -> None:
    assert len(gaps.written(np.array([0, 3]), np.array([0, 223, 447]))) == 3
    assert len(gaps.written(np.array([0, 2]), np.array([224, 7616]))) == 4
    assert gaps.read(np.zeros(0, dtype=np.uint8), np.array([0, 0]), 5, "rows").dtype == np.uint16
    assert gaps.read(np.zeros(1, dtype=np.uint8), np.array([0, 1]), 70_000, "rows").dtype == np.uint32


@pytest.mark.parametrize(
    ("code", "lengths", "says"),
    [
        ([0, 255], [1], "no entries"),
        ([255, 255, 255, 255, 255, 0], [1], "no entries"),
        ([255, 255, 255, 255, 0], [1], "outside"),
        ([0, 0], [1], "no entries"),
        ([0], [2], "1 entries; 2"),
        ([], [1], "0 entries; 1"),
        ([5], [1], "outside"),
        ([0, 0, 0, 0, 0, 0], [6], "longer"),
    ],
)
def test_bytes_that_are_no_rows_are_refused(code: list[int], lengths: list[int], says: str) -> None:
    with pytest.raises(BadBundle, match=says):
        gaps.read(np.array(code, dtype=np.uint8), np.cumsum([0, *lengths]), 5, "rows")


@pytest.mark.parametrize("ids", [[3, 3], [3, 2], [-1, 2], [0, gaps.MOST_COLUMNS]])
def test_columns_that_do_not_rise_are_not_written(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="rise"):
        gaps.written(np.array([0, 2]), np.array(ids))
