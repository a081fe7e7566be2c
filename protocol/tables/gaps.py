"""Ascending columns of sparse rows as bytes: how many columns are stepped over before each entry, mostly one byte an entry.

A number is a last byte below LAST and, before it, digits that are not (dense codes: Brisaboa et al. 2003, "(S, C)-dense
coding"): the bytes themselves say where an entry ends, so that whole arrays are read at once. Columns of a row cannot
repeat or fall, whatever the bytes are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason

LAST = 224
DIGITS = 256 - LAST
MOST_BYTES = 5
MOST_COLUMNS = 100_000_000
"""So many fit into MOST_BYTES."""
BLOCK = 1 << 18
"""Bytes, and entries, that are read at once: what bounds the memory beside the result."""

Bytes = NDArray[np.uint8]


def narrowest(columns: int) -> type[np.uint16] | type[np.uint32]:
    """The type that holds ids of so many columns."""
    return np.uint16 if columns <= 65_536 else np.uint32


def written(indptr: NDArray[np.integer], ids: NDArray[np.integer]) -> Bytes:
    """Columns ids[indptr[j]:indptr[j+1]] of each row j, strictly ascending and at least 0 -> bytes. Raises ValueError."""
    ids = np.asarray(ids, dtype=np.int64)
    before = np.concatenate([[-1], ids[:-1]]) if len(ids) else ids
    starts = np.asarray(indptr, dtype=np.int64)[:-1]
    before[starts[starts < len(ids)]] = -1
    steps = ids - before - 1
    if (steps < 0).any() or (ids >= MOST_COLUMNS).any():
        raise ValueError(f"columns of a row must rise from 0 and stay below {MOST_COLUMNS:,}: sort them before packing")
    rest = steps // LAST
    digits = [(steps % LAST).astype(np.uint8)]
    kept = [np.ones(len(ids), dtype=bool)]
    while (rest > 0).any():
        kept.append(rest > 0)
        digits.append((LAST + (rest - 1) % DIGITS).astype(np.uint8))
        rest = (rest - 1) // DIGITS
    code: Bytes = np.stack(digits[::-1], axis=1)[np.stack(kept[::-1], axis=1)]
    return code


def read(code: Bytes, indptr: NDArray[np.int64], columns: int, what: str) -> NDArray[np.unsignedinteger]:
    """The columns of all rows [indptr[-1]], as narrow as they can be. Raises BadBundle for bytes that are no such rows;
    needs no more memory than 4 bytes an entry and some blocks beside the result."""
    entries = int(indptr[-1])
    if np.diff(indptr).max(initial=0) > columns:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{what} point outside the table: a row is longer than it is wide")
    steps = _steps(code, entries, what)
    ids = np.empty(entries, dtype=narrowest(columns))
    row = 0
    while row < len(indptr) - 1:
        until = max(int(np.searchsorted(indptr, indptr[row] + BLOCK, side="right")) - 1, row + 1)
        part = slice(int(indptr[row]), int(indptr[until]))
        length = np.diff(indptr[row : until + 1])
        reached = np.concatenate([[0], np.cumsum(steps[part].astype(np.int64) + 1)])
        found = reached[1:] - np.repeat(reached[indptr[row:until] - indptr[row]], length) - 1
        if found.max(initial=0) >= columns:
            raise BadBundle(Reason.BAD_ARCHIVE, f"{what} point outside the table")
        ids[part] = found
        row = until
    return ids


def _steps(code: Bytes, entries: int, what: str) -> NDArray[np.int32]:
    """How many columns are stepped over before each entry [entries]."""
    steps = np.empty(entries, dtype=np.int32)
    done, start = 0, 0
    while start < len(code):
        block = code[start : start + BLOCK]
        ends = np.flatnonzero(block < LAST)
        length = np.diff(ends, prepend=-1)
        if not len(ends) or length.max() > MOST_BYTES or done + len(ends) > entries:
            raise BadBundle(Reason.BAD_ARCHIVE, f"{what} hold bytes that are no entries")
        step, worth = block[ends].astype(np.int64), LAST
        for place in range(1, int(length.max())):
            longer = np.flatnonzero(length > place)
            step[longer] += worth * (block[ends[longer] - place].astype(np.int64) - LAST + 1)
            worth *= DIGITS
        if step.max() >= MOST_COLUMNS:
            raise BadBundle(Reason.BAD_ARCHIVE, f"{what} point outside the table")
        steps[done : done + len(ends)] = step
        done, start = done + len(ends), start + int(ends[-1]) + 1
    if done != entries:
        raise BadBundle(Reason.BAD_ARCHIVE, f"{what} hold {done} entries; {entries} are said to be there")
    return steps
