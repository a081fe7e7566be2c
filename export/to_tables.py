"""Fitted models that need no inference engine become plain tables: state-space rows of unequal size padded to
one k (float64, never quantized), and neighbour weights as int8 with one scale a row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.tables import Tables
from protocol.windows import Floats

_NARROW = {"weights": np.float32, "bias": np.float32, "own": np.float16}
_BY_STATE = {"transition": 2, "state_cov": 2, "cov": 2, "design": 1, "state": 1}


def stack_series(rows: list[Tables]) -> Tables:
    """Tables of S series [S, ...] from S tables of one series each [1, ...]. Padding states are zero and stay
    zero: no transition leads into them, no noise drives them, the design does not see them."""
    k = max(row["design"].shape[1] for row in rows)
    stacked: Tables = {}
    for name in rows[0]:
        arrays = [np.asarray(row[name], dtype=np.float64)[0] for row in rows]
        axes = _BY_STATE.get(name, 0)
        stacked[name] = np.stack([np.pad(a, [(0, k - a.shape[0])] * axes) if axes else a for a in arrays])
    return stacked


def ridge_tables(tables: Tables) -> Tables:
    """A ridge's tables with narrower weights: what all series share in float32, what each adds in float16."""
    return {name: table.astype(_NARROW.get(name, table.dtype)) for name, table in tables.items()}


def neighbour_tables(indptr: NDArray[np.integer], ids: NDArray[np.integer], weights: Floats) -> Tables:
    """Rows of a sparse similarity in compressed form -> int8 tables. A row's largest weight becomes 127;
    weights that round to 0 are dropped."""
    n = len(indptr) - 1
    kept_ids: list[NDArray[np.int64]] = []
    kept: list[NDArray[np.int8]] = []
    scale = np.zeros(n, dtype=np.float32)
    pointer = np.zeros(n + 1, dtype=np.int32)
    for j in range(n):
        row = slice(int(indptr[j]), int(indptr[j + 1]))
        values = np.asarray(weights[row], dtype=np.float64)
        largest = float(np.abs(values).max()) if len(values) else 0.0
        scale[j] = largest / 127
        small = np.round(values / scale[j]).astype(np.int8) if largest > 0 else np.zeros(len(values), dtype=np.int8)
        kept_ids.append(np.asarray(ids[row], dtype=np.int64)[small != 0])
        kept.append(small[small != 0])
        pointer[j + 1] = pointer[j] + len(kept[-1])
    narrow = np.uint16 if n <= 65_535 else np.uint32
    return {
        "indptr": pointer,
        "ids": np.concatenate(kept_ids).astype(narrow) if n else np.zeros(0, narrow),
        "weights": np.concatenate(kept) if n else np.zeros(0, np.int8),
        "row_scale": scale,
    }
