"""From scores to a list: what may be offered at all, what answers change, who is shown in which order, and why."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.tables.answers import ANSWER, AnswerShares, Moves
from protocol.tables.gaps import narrowest
from protocol.tables.ranking import Ids, Scored, in_order, strongest
from protocol.windows import Floats

LEAST_STRENGTH, MOST_STRENGTH = 1e-6, 1e6
MOST_PREFIXES = 16
Entries = tuple[Ids, Floats, Ids | int]
Labels = NDArray[np.object_]
Part = tuple[NDArray[np.integer], NDArray[np.integer], Floats]


class Catalogued:
    """Names of items, their ids, and which may be offered for which prefixes."""

    def __init__(self, items: list[str]) -> None:
        self.items, self.labels = items, labels(items)
        self.index = {name: i for i, name in enumerate(items)}
        if len(self.index) != len(items):
            raise BadBundle(Reason.BAD_ARCHIVE, "item names are not unique")
        self._barred: dict[tuple[str, ...], NDArray[np.bool_] | None] = {(): None}

    def ids(self, names: Collection[str]) -> Ids:
        """Ids of the names that are known."""
        known = [i for i in map(self.index.get, names) if i is not None]
        return np.array(known, dtype=np.intp)

    def profile(self, profile: Mapping[str, float]) -> tuple[Ids, Floats]:
        """Ids, ascending, and strengths of what is known of a profile and says something: NaN, infinity and less than
        LEAST_STRENGTH do not."""
        found = list(map(self.index.get, profile))
        strengths = np.fromiter(profile.values(), np.float64, len(found))
        plain = strengths.min(initial=1.0) >= LEAST_STRENGTH and strengths.max(initial=0.0) <= MOST_STRENGTH
        if None in found or not plain:
            kept = [
                k
                for k, s in enumerate(strengths.tolist())
                if found[k] is not None and LEAST_STRENGTH <= abs(s) < math.inf
            ]
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
    """Collects what adds to the score of each shown item: where it is shown, whose share it is (a code), how much."""

    def __init__(self, found: Ids, room: int) -> None:
        self._found = found
        self._shown = np.zeros(room, dtype=bool)
        self._shown[found] = True
        self._place = np.zeros(room, dtype=narrowest(len(found)))
        self._place[found] = np.arange(len(found))
        self._names: list[Labels] = []
        self._named = 0
        self._parts: list[Part] = []
        self._similar: list[list[tuple[str, float, float]]] = [[] for _ in found]

    def rows(self, entries: Entries, names: Labels) -> Part:
        """Adds gathered rows, each of which carries a name; returns place of the item, row, and amount of each share."""
        columns, amounts, length = entries
        hits = self._shown.take(columns).nonzero()[0]
        said = amounts[hits]
        if np.count_nonzero(said) < len(said):
            hits = hits[said != 0]
            said = amounts[hits]
        owner = hits // length if isinstance(length, int) else np.searchsorted(length.cumsum(), hits, side="right")
        part = (self._place[columns[hits]], owner, said)
        self._add(part, names)
        return part

    def table(self, amounts: Floats, names: Labels) -> None:
        """Adds amounts [names, shown items]."""
        rows, places = np.nonzero(amounts)
        self._add((places.astype(self._place.dtype), rows, amounts[rows, places]), names)

    def cases(self, entries: Entries, who: Sequence[str], similarities: Sequence[float], prefix: str) -> None:
        """Adds gathered past rows and keeps who they are."""
        part = self.rows(entries, labels([prefix + name for name in who]))
        for place, row, amount in zip(*(column.tolist() for column in part), strict=True):
            self._similar[place].append((who[row], similarities[row], amount))

    def answers(self, moved: AnswerShares, moves: Moves) -> None:
        """Adds what answers said."""
        who = [ANSWER + moves.answers.answers[place].id for place in moved.place.tolist()]
        one_each = np.ones(len(who), dtype=np.intp)
        self.cases((moved.item, moved.amount, one_each), who, moved.cosine.tolist(), "")

    def scored(self, items: Sequence[str], score: Floats) -> list[Scored]:
        """The shown items with their shares, strongest first; equal ones as they were added."""
        if len(self._parts) == 1:
            (places, codes, amounts), known = self._parts[0], self._names[0]
        else:
            places, codes, amounts = map(np.concatenate, zip(*self._parts, strict=True))
            known = np.concatenate(self._names)
        order = np.lexsort((-np.abs(amounts), places))
        names = known[codes[order]].tolist()
        shares = zip(names, amounts[order].tolist(), strict=True)
        lengths = np.bincount(places, minlength=len(self._found)).tolist()
        for similar in filter(None, self._similar):
            similar.sort(key=lambda one: (-abs(one[2]), one[0]))
        listed = zip(self._found.tolist(), score[self._found].tolist(), lengths, self._similar, strict=True)
        return [Scored(items[i], s, list(islice(shares, length)), similar) for i, s, length, similar in listed]

    def _add(self, part: Part, names: Labels) -> None:
        places, owner, amounts = part
        self._parts.append((places, owner + self._named if self._named else owner, amounts))
        self._names.append(names)
        self._named += len(names)


def labels(names: Sequence[str]) -> Labels:
    """Names as an array, from which many are picked at once."""
    return np.array(names, dtype=object)


def listed(items: Sequence[str], found: Ids, score: Floats) -> list[Scored]:
    """The shown items without reasons."""
    return [Scored(items[i], s, []) for i, s in zip(found.tolist(), score[found].tolist(), strict=True)]
