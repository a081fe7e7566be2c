"""Neighbour lists that rank items for a profile; weights are int8 with one scale a row."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Self

import numpy as np

from protocol.tables.answers import LocalAnswers, Moves
from protocol.tables.checked import Tables
from protocol.tables.offering import Catalogued, Shares, asked, chosen, listed
from protocol.tables.ranking import Ids, Scored, in_order, room, strongest, summed
from protocol.tables.rows import Rows
from protocol.windows import Floats


class Neighbours:
    """Item-based collaborative filtering at the edge (Sarwar et al. 2001; shrinkage as in Bell & Koren 2007).

    items: names, id = index. Tables: indptr int32 [n+1]; ids_gaps uint8, the neighbours of all items as `Rows` has them,
    those of item j are ids[indptr[j]:indptr[j+1]]; weights int8 [nnz]; row_scale float32 [n]. Similarity(j, i) = weights *
    row_scale[j].
    The score of i for a profile {j: strength} is the sum over j of strength_j * similarity(j, i)."""

    def __init__(self, items: list[str], tables: Tables) -> None:
        self._names = Catalogued(items)
        self.items, self.index = items, self._names.index
        self.rows = Rows(tables, "", len(items), len(items), "neighbour lists")
        self.answers: LocalAnswers | None = None
        self._moves: Moves | None = None

    def learned(self, answers: LocalAnswers | None) -> Self:
        """The same table, ranking with these answers beside it; what answers do is said in `Moves`."""
        made = copy.copy(self)
        made.answers = answers
        made._moves = Moves(answers, self.index) if answers else None
        return made

    def rank(
        self,
        profile: Mapping[str, float],
        top: int,
        prefixes: tuple[str, ...] = (),
        exclude: Collection[str] = frozenset(),
        *,
        without: Collection[str] = frozenset(),
        reasons: bool = True,
    ) -> list[Scored]:
        """As `Ranker.rank`: by (score descending, id ascending), so that every runtime gives the same list. Scores <= 0 are
        not offered. Profile names the table does not know are ignored."""
        ask = asked(self._names, profile, top, prefixes, exclude, without)
        entries = self.rows.gather(ask.known, ask.strengths)
        score = summed(entries[0], entries[1], room(len(self.items)))
        found, moved = chosen(self._names, score, ask, self._moves)
        if not reasons:
            return listed(self.items, found, score)
        shares = Shares(found, len(score))
        shares.rows(entries, self._names.labels[ask.known])
        if moved is not None and self._moves is not None:
            shares.answers(moved, self._moves)
        return shares.scored(self.items, score)

    def scores(self, profile: Mapping[str, float]) -> Floats:
        """Every item's score [n], those below zero and those of the profile included, without answers."""
        columns, amounts, _ = self.rows.gather(*self._names.profile(profile))
        return summed(columns, amounts, len(self.items))

    def best(self, known: Ids, strengths: Floats, top: int) -> tuple[Ids, Floats]:
        """Ids and scores of the best `top` items beside the known ones (ids, ascending); no names, no answers."""
        columns, amounts, _ = self.rows.gather(known, strengths)
        score = summed(columns, amounts, room(len(self.items)))
        score[known] = 0.0
        found = in_order(strongest(score, top), score, top)
        return found, score[found]

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """What this table answers to a bundle's golden inputs: `profiles` [n, items] of strengths. Out: `ranked` [n, top]
        ids (-1: none) and `scores`, as wide as `outputs["ranked"]`."""
        wanted = np.asarray(outputs["ranked"], dtype=np.int64)
        ids = np.full_like(wanted, -1)
        scores = np.zeros(ids.shape)
        for row, strengths in enumerate(np.asarray(inputs["profiles"], dtype=np.float64)):
            profile = {self.items[j]: float(strengths[j]) for j in np.flatnonzero(strengths)}
            for place, found in enumerate(self.rank(profile, wanted.shape[1], reasons=False)):
                ids[row, place], scores[row, place] = self.index[found.item], found.score
        return {"ranked": ids, "scores": scores}
