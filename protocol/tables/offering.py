"""From scores to a list: what may be offered at all, what answers change, who is shown in which order, and why."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.tables.answers import ANSWER, AnswerShares, Moves
from protocol.tables.ranking import Ids, Scored, in_order, strongest
from protocol.windows import Floats

MOST_STRENGTH = 1e6
MOST_PREFIXES = 16
Entries = tuple[Ids, Floats, Ids | int]


class Catalogued:
    """Names of items, their ids, and which may be offered for which prefixes."""

    def __init__(self, items: list[str]) -> None:
        self.items = items
        self.index = {name: i for i, name in enumerate(items)}
        if len(self.index) != len(items):
            raise BadBundle(Reason.BAD_ARCHIVE, "item names are not unique")
        self._barred: dict[tuple[str, ...], NDArray[np.bool_] | None] = {(): None}

    def ids(self, names: Collection[str]) -> Ids:
        """Ids of the names that are known."""
        known = [i for i in map(self.index.get, names) if i is not None]
        return np.array(known, dtype=np.intp)

    def profile(self, profile: Mapping[str, float]) -> tuple[Ids, Floats]:
        """Ids, ascending, and strengths of what is known of a profile; NaN and infinity are not."""
        found = list(map(self.index.get, profile))
        strengths = np.fromiter(profile.values(), np.float64, len(found))
        if None in found or not float(strengths @ strengths) <= MOST_STRENGTH:
            kept = [k for k, i in enumerate(found) if i is not None and math.isfinite(strengths[k])]
            found = [found[k] for k in kept]
            strengths = np.clip(strengths[kept], -MOST_STRENGTH, MOST_STRENGTH)
        ids = np.array(found, dtype=np.intp)
        order = ids.argsort()
        return ids[order], strengths[order]

    def barred(self, prefixes: tuple[str, ...]) -> NDArray[np.bool_] | None:
        """Which items start with none of the prefixes [n]; None where any may be offered. Kept for the next call."""
        if prefixes not in self._barred:
            if len(self._barred) > MOST_PREFIXES:
                self._barred = {(): None}
            self._barred[prefixes] = np.array([not name.startswith(prefixes) for name in self.items], dtype=bool)
        return self._barred[prefixes]


class Asked(NamedTuple):
    """One question to a table: what is to be ranked for, and what may be shown. `profile`: what counts, without what is left
    out; `known`, `strengths`: ids and strengths of it, ids ascending; `own`: ids that are not offered."""

    profile: Mapping[str, float]
    known: Ids
    strengths: Floats
    own: Ids
    top: int
    prefixes: tuple[str, ...]
    exclude: Collection[str]
    without: Collection[str]


def asked(
    names: Catalogued,
    profile: Mapping[str, float],
    top: int,
    prefixes: tuple[str, ...],
    exclude: Collection[str],
    without: Collection[str],
) -> Asked:
    """The question in ids."""
    counting = {name: s for name, s in profile.items() if name not in without} if without else profile
    known, strengths = names.profile(counting)
    own = known if len(known) == len(profile) else names.ids(profile)
    return Asked(counting, known, strengths, own, top, prefixes, exclude, without)


def chosen(names: Catalogued, score: Floats, ask: Asked, moves: Moves | None) -> tuple[Ids, AnswerShares | None]:
    """Ids of what is shown, best first, and what answers changed; `score` [room of n] is changed in place."""
    barred = names.barred(ask.prefixes)
    if barred is not None:
        score[: len(barred)][barred] = 0.0
    score[ask.own] = 0.0
    moved = None
    if moves is not None:
        best = float(score.max(initial=0.0))
        moved = moves.shares(ask.profile, best if best > 0 else 1.0, ask.without)
        score[moved.items] += moved.changes
        score[ask.own] = 0.0
        if barred is not None:
            score[moved.items[barred[moved.items]]] = 0.0
    if ask.exclude:
        score[names.ids(ask.exclude)] = 0.0
    near = strongest(score, ask.top)
    return in_order(near, score, ask.top), moved


class Shares:
    """Collects what adds to the score of each shown item."""

    def __init__(self, found: Ids, room: int) -> None:
        self._slot = np.zeros(room, dtype=np.int32)
        self._slot[found] = np.arange(1, len(found) + 1)
        self._found = found
        self._slots: list[NDArray[np.int32]] = []
        self._amounts: list[Floats] = []
        self._names: list[str] = []
        self._similar: list[list[tuple[str, float, float]]] = [[] for _ in found]

    def rows(self, entries: Entries, names: Sequence[str]) -> list[tuple[int, int, float]]:
        """Adds gathered rows, each of which carries a name; returns (place of the item, row, amount) of each share."""
        columns, amounts, length = entries
        slots = self._slot[columns]
        hits = np.flatnonzero(slots)
        hits = hits[amounts[hits] != 0]
        owner = hits // length if isinstance(length, int) else np.searchsorted(length.cumsum(), hits, side="right")
        self._slots.append(slots[hits])
        self._amounts.append(amounts[hits])
        self._names += [names[row] for row in owner.tolist()]
        return list(zip((slots[hits] - 1).tolist(), owner.tolist(), amounts[hits].tolist(), strict=True))

    def table(self, amounts: Floats, names: Sequence[str]) -> None:
        """Adds amounts [names, shown items]."""
        rows, places = np.nonzero(amounts)
        self._slots.append((places + 1).astype(np.int32))
        self._amounts.append(amounts[rows, places])
        self._names += [names[row] for row in rows.tolist()]

    def cases(self, entries: Entries, who: Sequence[str], similarities: Sequence[float], prefix: str) -> None:
        """Adds gathered past rows and keeps who they are."""
        for place, row, amount in self.rows(entries, [prefix + name for name in who]):
            self._similar[place].append((who[row], similarities[row], amount))

    def answers(self, moved: AnswerShares, moves: Moves) -> None:
        """Adds what answers said."""
        who = [ANSWER + moves.answers.answers[place].id for place in moved.place.tolist()]
        one_each = np.ones(len(who), dtype=np.intp)
        self.cases((moved.item, moved.amount, one_each), who, moved.cosine.tolist(), "")

    def scored(self, items: Sequence[str], score: Floats) -> list[Scored]:
        """The shown items with their shares, strongest first."""
        slots = np.concatenate(self._slots) if self._slots else np.zeros(0, dtype=np.int32)
        amounts = np.concatenate(self._amounts) if self._amounts else np.zeros(0)
        order = np.lexsort((np.arange(len(slots)), -np.abs(amounts), slots))
        ends = np.cumsum(np.bincount(slots, minlength=len(self._found) + 1)).tolist()
        names, listed = self._names, amounts[order].tolist()
        pairs = [(names[k], amount) for k, amount in zip(order.tolist(), listed, strict=True)]
        return [
            Scored(
                items[i],
                float(score[i]),
                pairs[ends[place] : ends[place + 1]],
                sorted(self._similar[place], key=lambda one: (-abs(one[2]), one[0])),
            )
            for place, i in enumerate(self._found.tolist())
        ]


def listed(items: Sequence[str], found: Ids, score: Floats) -> list[Scored]:
    """The shown items without reasons."""
    return [Scored(items[i], s, []) for i, s in zip(found.tolist(), score[found].tolist(), strict=True)]
