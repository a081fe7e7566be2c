"""Fitted models that need no inference engine become plain tables: state-space rows of unequal size padded to
one k (float64, never quantized), neighbour weights, past rows and content as int8 with one scale a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.tables import Tables, gaps
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


def neighbour_tables(indptr: NDArray[np.integer], ids: NDArray[np.integer], weights: NDArray[np.floating]) -> Tables:
    """Rows of a sparse similarity in compressed form -> int8 tables. A row's largest weight becomes 127;
    weights that round to 0 are dropped."""
    return _int8_rows(SparseRows(indptr, ids, weights), "")


@dataclass(frozen=True)
class SparseRows:
    """Rows in compressed form: the columns of row j are ids[indptr[j]:indptr[j+1]], beside their weights."""

    indptr: NDArray[np.integer]
    ids: NDArray[np.integer]
    weights: NDArray[np.floating]

    @property
    def float_bytes(self) -> int:
        """Size as float32 with 32-bit ids, which packing is measured against."""
        return 4 * len(self.indptr) + 8 * len(self.ids)


@dataclass(frozen=True)
class Mixed:
    """What each part counts [k, 4], by lower edges of the profile's length [k]; `scale`: what its raw score is divided by."""

    lengths: list[int]
    weights: Floats
    scale: Floats


def hybrid_tables(
    popularity: Floats,
    mix: Mixed,
    items: SparseRows | None = None,
    users: SparseRows | None = None,
    users_k: int = 50,
    vectors: Floats | None = None,
) -> Tables:
    """Float parts of a hybrid -> the tables of `protocol.tables.Hybrid`: rows in int8 with a scale each, ids as
    gaps in bytes. popularity [n]; items: similar items of each item [n]; users: past rows over items; vectors [n, d]."""
    tables: Tables = {
        "popularity": np.asarray(popularity, dtype=np.float32),
        "mix_lengths": np.asarray(mix.lengths, dtype=np.int32),
        "mix_weights": np.asarray(mix.weights, dtype=np.float32),
        "mix_scale": np.asarray(mix.scale, dtype=np.float32),
    }
    if items is not None:
        tables |= _int8_rows(items, "items_")
    if users is not None:
        tables |= _int8_rows(users, "users_") | {"users_k": np.array([users_k], dtype=np.int32)}
    if vectors is not None:
        largest = np.abs(vectors).max(axis=1, initial=0.0)
        scale = (largest / 127).astype(np.float32)
        tables["content_vectors"] = _rounded(vectors, np.repeat(scale, vectors.shape[1]).reshape(vectors.shape))
        tables["content_row_scale"] = scale
    return tables


def _int8_rows(rows: SparseRows, prefix: str) -> Tables:
    """One scale a row: its largest weight becomes 127; weights that round to 0 are dropped. Columns ascend in a row."""
    indptr = np.asarray(rows.indptr, dtype=np.int64)
    length = np.diff(indptr)
    owner = np.repeat(np.arange(len(length)), length)
    values = np.asarray(rows.weights, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{prefix or 'neighbour '}rows hold NaN or infinity: leave such weights out before packing")
    largest = np.zeros(len(length))
    np.maximum.at(largest, owner, np.abs(values))
    scale = (largest / 127).astype(np.float32)
    small = _rounded(values, scale[owner])
    kept = np.flatnonzero(small)
    kept = kept[np.lexsort((np.asarray(rows.ids)[kept], owner[kept]))]
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner[kept], minlength=len(length)))])
    return {
        f"{prefix}indptr": starts.astype(np.int32),
        f"{prefix}ids_gaps": gaps.written(starts, np.asarray(rows.ids)[kept]),
        f"{prefix}weights": small[kept],
        f"{prefix}row_scale": scale,
    }


def _rounded(values: Floats, scale: NDArray[np.float32]) -> NDArray[np.int8]:
    wide = np.asarray(scale, dtype=np.float64)
    return np.clip(np.round(values / np.where(wide > 0, wide, 1.0)), -127, 127).astype(np.int8)
