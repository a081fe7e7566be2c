"""Sparse rows of a bundle: int8 weights with one scale a row, as they are stored, and quick to gather."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.tables import gaps
from protocol.tables.checked import Tables, table
from protocol.tables.ranking import Ids
from protocol.windows import Floats

MOST_PADDING = 1.5
LARGEST = 1e12
"""No scale, weight or popularity of a table is larger, so that no score overflows."""


class Rows:
    """n rows over m columns. Tables, each name after `prefix`: indptr int [n+1]; ids_gaps uint8, the columns of all rows as
    `gaps` writes them, those of row j are ids[indptr[j]:indptr[j+1]]; weights int8 [nnz]; row_scale float [n]. The value is
    weight * row_scale of its row. Where rows are about equally long they are padded with zero weights, which makes
    gathering them two copies."""

    def __init__(self, tables: Tables, prefix: str, n: int, m: int, what: str) -> None:
        indptr = np.asarray(table(tables, f"{prefix}indptr", "iu", (n + 1,)), dtype=np.int64)
        weights = table(tables, f"{prefix}weights", "i", (None,))
        code = table(tables, f"{prefix}ids_gaps", "u", (None,))
        self.scale: Floats = np.asarray(table(tables, f"{prefix}row_scale", "f", (n,)), dtype=np.float64)
        if indptr[0] != 0 or indptr[-1] != len(weights) or (np.diff(indptr) < 0).any():
            raise BadBundle(Reason.BAD_ARCHIVE, f"{what} point outside the table")
        if weights.dtype.itemsize != 1 or (self.scale < 0).any() or (self.scale > LARGEST).any():
            raise BadBundle(Reason.BAD_ARCHIVE, f"{what} need int8 weights and scales that are not negative")
        if code.dtype.itemsize != 1:
            raise BadBundle(Reason.BAD_ARCHIVE, f"{what} need ids_gaps in bytes, not {code.dtype}")
        ids = gaps.read(np.asarray(code, dtype=np.uint8), indptr, m, what)
        self._keep(indptr, ids, np.ascontiguousarray(weights))

    @classmethod
    def of(cls, indptr: NDArray[np.int64], ids: NDArray[np.generic], weights: NDArray[np.generic]) -> Rows:
        """Rows of one's own, whose scale is 1."""
        made = cls.__new__(cls)
        made.scale = np.ones(len(indptr) - 1)
        made._keep(indptr, ids, weights)
        return made

    def _keep(self, indptr: NDArray[np.int64], ids: NDArray[np.generic], weights: NDArray[np.generic]) -> None:
        self.indptr, self.ids, self.weights = indptr, ids, weights
        length = np.diff(indptr)
        width = int(length.max(initial=0))
        self._padded: tuple[NDArray[np.generic], NDArray[np.generic]] | None = None
        if 0 < width * len(length) <= MOST_PADDING * len(ids):
            filled = np.arange(width) < length[:, None]
            wide_ids, wide = np.zeros(filled.shape, ids.dtype), np.zeros(filled.shape, weights.dtype)
            wide_ids[filled], wide[filled] = ids, weights
            self._padded = (wide_ids, wide)
            # the compact form is a view of what is kept twice otherwise
            if width * len(length) == len(ids):
                self.ids, self.weights = wide_ids.reshape(-1), wide.reshape(-1)

    def __len__(self) -> int:
        return len(self.scale)

    def row(self, j: int) -> tuple[Ids, Floats]:
        """Columns and values of one row."""
        part = slice(int(self.indptr[j]), int(self.indptr[j + 1]))
        return self.ids[part].astype(np.intp), self.weights[part].astype(np.float64) * self.scale[j]

    def gather(self, rows: Ids, factors: Floats) -> tuple[Ids, Floats, Ids | int]:
        """The entries of some rows, one after the other: columns [t], factor * value [t], and how many each row has
        ([rows], or one number for all; padding with value 0 included)."""
        factors = factors * self.scale[rows]
        if self._padded is not None:
            ids, weights = self._padded
            amounts = weights.take(rows, axis=0).astype(np.float64)
            amounts *= factors[:, None]
            columns = ids.take(rows, axis=0).astype(np.intp)
            return columns.reshape(-1), amounts.reshape(-1), ids.shape[1]
        starts = self.indptr[rows]
        length = (self.indptr[rows + 1] - starts).astype(np.intp)
        ends = length.cumsum()
        places = np.repeat(starts - ends + length, length) + np.arange(int(ends[-1]) if len(ends) else 0)
        return (
            self.ids[places].astype(np.intp),
            self.weights[places].astype(np.float64) * np.repeat(factors, length),
            length,
        )

    def transposed(self, m: int) -> Rows:
        """Columns as rows: for each of the m columns, which rows hold it, ascending. Weights without their scale."""
        owner = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        order = np.argsort(self.ids, kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(self.ids.astype(np.intp), minlength=m))]).astype(np.int64)
        return Rows.of(indptr, owner[order].astype(gaps.narrowest(len(self))), self.weights[order])
