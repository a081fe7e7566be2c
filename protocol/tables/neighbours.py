"""Neighbour lists that rank items for a profile; weights are int8 with one scale a row."""

from __future__ import annotations

import msgspec
import numpy as np

from protocol.errors import BadBundle, Reason
from protocol.tables.checked import Tables, table


class Scored(msgspec.Struct, frozen=True):
    """One ranked item; contributions are exact and sum to the score."""

    item: str
    score: float
    contributions: list[tuple[str, float]]


class Neighbours:
    """Item-based collaborative filtering at the edge (Sarwar et al. 2001; shrinkage as in Bell & Koren 2007).

    items: names, id = index. Tables: indptr int32 [n+1]; ids uint16/uint32 [nnz], neighbours of item j are
    ids[indptr[j]:indptr[j+1]]; weights int8 [nnz]; row_scale float32 [n]. Similarity(j, i) = weights * row_scale[j].
    The score of i for a profile {j: strength} is the sum over j of strength_j * similarity(j, i)."""

    def __init__(self, items: list[str], tables: Tables) -> None:
        n = len(items)
        self.items = items
        self.index = {name: i for i, name in enumerate(items)}
        self.indptr = np.asarray(table(tables, "indptr", "iu", (n + 1,)), dtype=np.int64)
        self.ids = np.asarray(table(tables, "ids", "iu", (None,)), dtype=np.int64)
        self.weights = np.asarray(table(tables, "weights", "i", (len(self.ids),)), dtype=np.float64)
        self.row_scale = np.asarray(table(tables, "row_scale", "f", (n,)), dtype=np.float64)
        if len(self.index) != n:
            raise BadBundle(Reason.BAD_ARCHIVE, "item names are not unique")
        sound = self.indptr[0] == 0 and self.indptr[-1] == len(self.ids) and bool((np.diff(self.indptr) >= 0).all())
        if not sound or (len(self.ids) and int(self.ids.max()) >= n):
            raise BadBundle(Reason.BAD_ARCHIVE, "neighbour lists point outside the table")

    def rank(self, profile: dict[str, float], top: int, prefixes: tuple[str, ...] = ()) -> list[Scored]:
        """The best `top` items whose names start with one of `prefixes` and that are not in the profile, by
        (score descending, id ascending), so that every runtime gives the same list. Scores <= 0 are not offered.
        Profile names the table does not know are ignored."""
        score = np.zeros(len(self.items))
        known = [(self.index[name], strength) for name, strength in profile.items() if name in self.index]
        for j, strength in known:
            row = slice(self.indptr[j], self.indptr[j + 1])
            np.add.at(score, self.ids[row], strength * self.weights[row] * self.row_scale[j])
        order = np.lexsort((np.arange(len(score)), -np.round(score, 9)))
        ranked: list[Scored] = []
        for i in order:
            if len(ranked) == top or score[i] <= 0:
                break
            name = self.items[i]
            if name in profile or (prefixes and not name.startswith(prefixes)):
                continue
            ranked.append(Scored(name, float(score[i]), self._contributions(int(i), known)))
        return ranked

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """What this table answers to a bundle's golden inputs: `profiles` [n, items] of strengths. Out: `ranked` [n, top]
        ids (-1: none) and `scores`, as wide as `outputs["ranked"]`."""
        wanted = np.asarray(outputs["ranked"], dtype=np.int64)
        ids = np.full_like(wanted, -1)
        scores = np.zeros(ids.shape)
        for row, strengths in enumerate(np.asarray(inputs["profiles"], dtype=np.float64)):
            profile = {self.items[j]: float(strengths[j]) for j in np.flatnonzero(strengths)}
            for place, found in enumerate(self.rank(profile, wanted.shape[1])):
                ids[row, place], scores[row, place] = self.index[found.item], found.score
        return {"ranked": ids, "scores": scores}

    def _contributions(self, item: int, known: list[tuple[int, float]]) -> list[tuple[str, float]]:
        parts: list[tuple[str, float]] = []
        for j, strength in known:
            row = slice(self.indptr[j], self.indptr[j + 1])
            amount = float((self.weights[row] * (self.ids[row] == item)).sum() * strength * self.row_scale[j])
            if amount:
                parts.append((self.items[j], amount))
        return sorted(parts, key=lambda part: (-abs(part[1]), part[0]))
