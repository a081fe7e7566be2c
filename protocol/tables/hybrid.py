"""A hybrid recommender's tables: popularity, neighbours of the profile's items, past rows like the profile, and content,
weighted by how much is known of a case. It answers from the first event on, and its reasons are exact.

Burke 2002, "Hybrid recommender systems" (weighted, switching by profile length); the parts: Sarwar et al. 2001 (items),
Herlocker et al. 1999 (users), Pazzani & Billsus 2007 (content)."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from protocol.errors import BadBundle, Reason
from protocol.recommending import PARTS
from protocol.tables.answers import LocalAnswers, Moves
from protocol.tables.checked import Tables, table
from protocol.tables.offering import Asked, Catalogued, Entries, Shares, asked, chosen, labels, listed
from protocol.tables.ranking import Ids, Scored, in_order, room, strongest, summed
from protocol.tables.rows import LARGEST, Rows
from protocol.windows import Floats

LIKE = "like:"
CONTENT = "content:"
POPULARITY = "popularity"
MOST_CARDS = 10_000
NOTHING = 1e-9
"""Vectors that cancel to so little of their size have no direction."""


class Hybrid:
    """items: n names, id = index; users: u names of past rows (a case, a machine, a customer). Tables:

    `popularity` float [n], not negative;
    `items_indptr`, `items_ids_gaps`, `items_weights`, `items_row_scale`: neighbours of each item, as `Neighbours` has them;
    `users_indptr`, `users_ids_gaps`, `users_weights`, `users_row_scale`: past rows over items, `users_k` int [1] at least 1;
    `content_vectors` int8 [n, d], `content_row_scale` float [n];
    `mix_lengths` int [k], lower edges of profile lengths, the first 0, ascending; `mix_weights`, `mix_scale` float [k, 4] in
    the order of PARTS, scales positive. A part without arrays has weight 0.

    score(i) = sum over parts of mix_weights[b, part] / mix_scale[b, part] * raw(i), b the bucket of the number of known
    tokens. Raw, for strengths s: popularity[i]; sum_j s_j * sim(j, i); sum_v cos(s, row v) * row v(i) over the users_k most
    similar rows (cosine above 0, ties by id); cosine of sum_j s_j * vector_j with vector_i. Where nothing is known of a
    case, popularity has at least weight 1."""

    def __init__(self, items: list[str], users: list[str], tables: Tables) -> None:
        n = len(items)
        self._names = Catalogued(items)
        self.items, self.index, self.users = items, self._names.index, users
        popularity = np.asarray(table(tables, "popularity", "f", (n,)), dtype=np.float64)
        if (popularity < 0).any() or (popularity > LARGEST).any():
            raise BadBundle(Reason.BAD_ARCHIVE, f"popularity must be at least 0 and at most {LARGEST:g}")
        self.popularity = np.append(popularity, np.zeros(room(n) - n))
        self.mix = Mix(tables)
        self.neighbours = Rows(tables, "items_", n, n, "neighbour lists") if "items_indptr" in tables else None
        self.past = Past(tables, users, n) if "users_indptr" in tables else None
        self.content = Content(tables, n) if "content_vectors" in tables else None
        self._refuse_what_does_not_fit()
        self._trained = n  # neighbours and past rows know so many items; cards come after them
        self.answers: LocalAnswers | None = None
        self._moves: Moves | None = None

    def learned(self, answers: LocalAnswers | None) -> Self:
        """The same tables, ranking with these answers beside them; what answers do is said in `Moves`."""
        made = copy.copy(self)
        made.answers = answers
        made._moves = Moves(answers, self.index) if answers else None
        return made

    def with_cards(self, cards: Sequence[tuple[str, Floats]]) -> Self:
        """The same tables with items that nobody has chosen yet: (name, content vector [d]). Content ranks them beside the
        rest. A name that the table knows keeps what it has. Raises BadBundle for vectors that do not fit."""
        if self.content is None:
            raise BadBundle(Reason.BAD_ARCHIVE, "these tables hold no content: new cards cannot be ranked")
        new = {name: vector for name, vector in cards if name not in self.index}
        if len(new) > MOST_CARDS:
            raise BadBundle(Reason.TOO_LARGE, f"{len(new)} new cards; at most {MOST_CARDS}")
        made = copy.copy(self)
        made._names = Catalogued([*self.items, *new])
        made.items, made.index = made._names.items, made._names.index
        n = len(made.items)
        made.popularity = np.append(self.popularity[: len(self.items)], np.zeros(room(n) - len(self.items)))
        made.content = self.content.grown(list(new.values()))
        return made.learned(self.answers)

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
        """As `Ranker.rank`. Contributions: "popularity", tokens of the profile (their neighbours), "like:<user>" (past
        rows), "content:<token>", "answer:<id>"."""
        ask = asked(self._names, profile, top, prefixes, exclude, without)
        score, parts = self._scores(ask)
        found, moved = chosen(self._names, score, ask, self._moves)
        if not reasons:
            return listed(self.items, found, score)
        shares = self._shares(found, ask, parts, len(score))
        if moved is not None and self._moves is not None:
            shares.answers(moved, self._moves)
        return shares.scored(self.items, score)

    def scores(self, profile: Mapping[str, float]) -> Floats:
        """Every item's score [n], whatever may be offered, without answers."""
        ask = asked(self._names, profile, 0, (), (), ())
        return self._scores(ask)[0][: len(self.items)]

    def row_of(self, user: str) -> dict[str, float]:
        """What a past row holds, {item: strength}; nothing for one that is not known."""
        return {} if self.past is None else {self.items[i]: s for i, s in self.past.row(user)}

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """In: profiles in compressed form: `indptr` [n+1], `ids`, `strengths`. Out: `ranked` [n, top] ids (-1: none) and
        `scores`, as wide as `outputs["ranked"]`."""
        indptr = np.asarray(inputs["indptr"], dtype=np.int64)
        names = np.asarray(inputs["ids"], dtype=np.int64)
        strengths = np.asarray(inputs["strengths"], dtype=np.float64)
        wanted = np.asarray(outputs["ranked"], dtype=np.int64)
        ids = np.full_like(wanted, -1)
        scores = np.zeros(ids.shape)
        for row in range(len(wanted)):
            part = slice(int(indptr[row]), int(indptr[row + 1]))
            profile = {self.items[j]: float(s) for j, s in zip(names[part], strengths[part], strict=True)}
            for place, found in enumerate(self.rank(profile, wanted.shape[1], reasons=False)):
                ids[row, place], scores[row, place] = self.index[found.item], found.score
        return {"ranked": ids, "scores": scores}

    def _scores(self, ask: Asked) -> tuple[Floats, _Parts]:
        """Scores [room of n] and what they were made of."""
        weight = self.mix.weights(len(ask.known))
        score = self.popularity * weight[0]
        known, strengths = ask.known, ask.strengths
        if len(known) and known[-1] >= self._trained:
            kept = known < self._trained
            known, strengths = known[kept], strengths[kept]
        near, like, alike = None, None, None
        if self.neighbours is not None and weight[1]:
            near = self.neighbours.gather(known, strengths * weight[1])
            score += summed(near[0], near[1], len(score))
        if self.past is not None and weight[2]:
            alike = self.past.most_similar(known, strengths, ask.without)
            like = self.past.rows.gather(alike[0], alike[1] * weight[2])
            score += summed(like[0], like[1], len(score))
        if self.content is not None and weight[3]:
            score[: len(self.items)] += weight[3] * self.content.cosines(ask.known, ask.strengths)
        return score, _Parts(weight, known, near, like, alike)

    def _shares(self, found: Ids, ask: Asked, parts: _Parts, size: int) -> Shares:
        shares = Shares(found, size)
        shares.table(parts.weight[0] * self.popularity[found][None, :], labels([POPULARITY]))
        if parts.near is not None:
            shares.rows(parts.near, self._names.labels[parts.known])
        if parts.like is not None and parts.alike is not None:
            who = [self.users[v] for v in parts.alike[0].tolist()]
            shares.cases(parts.like, who, parts.alike[1].tolist(), LIKE)
        if self.content is not None and parts.weight[3]:
            amounts = parts.weight[3] * self.content.shares(ask.known, ask.strengths, found)
            shares.table(amounts, labels([CONTENT + self.items[j] for j in ask.known.tolist()]))
        return shares

    def _refuse_what_does_not_fit(self) -> None:
        parts = (self.popularity, self.neighbours, self.past, self.content)
        used = (self.mix.coefficients != 0).any(axis=0)
        missing = [name for name, part, uses in zip(PARTS, parts, used, strict=True) if uses and part is None]
        if missing:
            raise BadBundle(Reason.BAD_ARCHIVE, f"parts {missing} have weight but no tables")
        if self.users and self.past is None:
            raise BadBundle(Reason.BAD_ARCHIVE, f"{len(self.users)} past rows have names but no tables")


@dataclass(frozen=True)
class _Parts:
    """weight [4]; known tokens that rows know; entries gathered of neighbours and of past rows; (ids, cosines) of those."""

    weight: Floats
    known: Ids
    near: Entries | None
    like: Entries | None
    alike: tuple[Ids, Floats] | None


class Mix:
    """What each part counts, by the number of known tokens."""

    def __init__(self, tables: Tables) -> None:
        self.lengths = np.asarray(table(tables, "mix_lengths", "iu", (None,)), dtype=np.int64)
        shape = (len(self.lengths), len(PARTS))
        weights = np.asarray(table(tables, "mix_weights", "f", shape), dtype=np.float64)
        scale = np.asarray(table(tables, "mix_scale", "f", shape), dtype=np.float64)
        ascending = len(self.lengths) > 0 and self.lengths[0] == 0 and bool((np.diff(self.lengths) > 0).all())
        if not ascending or not (scale > 0).all():
            raise BadBundle(Reason.BAD_ARCHIVE, "mix_lengths must rise from 0, and mix_scale be positive")
        with np.errstate(over="ignore"):
            self.coefficients = weights / scale
        if not (np.abs(self.coefficients) <= LARGEST).all():
            raise BadBundle(Reason.BAD_ARCHIVE, f"mix_weights over mix_scale must be at most {LARGEST:g}")

    def weights(self, length: int) -> Floats:
        """What the raw score of each part is multiplied by [4]."""
        found: Floats = self.coefficients[int(np.searchsorted(self.lengths, length, side="right")) - 1]
        if length == 0 and found[0] <= 0:
            return np.array([1.0, *found[1:]])
        return found


class Past:
    """Past rows, and which of them hold a token."""

    def __init__(self, tables: Tables, users: list[str], n: int) -> None:
        self.rows = Rows(tables, "users_", len(users), n, "past rows")
        self.k = int(np.asarray(table(tables, "users_k", "iu", (1,)))[0])
        self._index = {name: v for v, name in enumerate(users)}
        if len(self._index) != len(users) or self.k < 1:
            raise BadBundle(Reason.BAD_ARCHIVE, "names of past rows must be unique, and users_k at least 1")
        self.holders = self.rows.transposed(n)
        owner = np.repeat(np.arange(len(users)), np.diff(self.rows.indptr))
        squares = summed(owner, self.rows.weights.astype(np.float64) ** 2, len(users))
        self._over_size = np.zeros(room(len(users)))
        self._over_size[: len(users)] = np.where(squares > 0, 1.0 / np.sqrt(np.maximum(squares, 1.0)), 0.0)

    def row(self, user: str) -> list[tuple[int, float]]:
        """(id, strength) of what this past row holds; empty for one that is not known."""
        v = self._index.get(user)
        if v is None:
            return []
        span = slice(int(self.rows.indptr[v]), int(self.rows.indptr[v + 1]))
        strengths = self.rows.weights[span].astype(np.float64) * self.rows.scale[v]
        return list(zip(self.rows.ids[span].tolist(), strengths.tolist(), strict=True))

    def most_similar(self, known: Ids, strengths: Floats, without: Collection[str]) -> tuple[Ids, Floats]:
        """The k rows most like a profile, and their cosines, above 0; ties by id."""
        size = float(np.sqrt(strengths @ strengths))
        if not size or not len(self._index):
            return np.zeros(0, dtype=np.intp), np.zeros(0)
        rows, amounts, _ = self.holders.gather(known, strengths / size)
        cosine = summed(rows, amounts, len(self._over_size)) * self._over_size
        left_out = [
            self._index[name[len(LIKE) :]] for name in without if name.startswith(LIKE) and name[5:] in self._index
        ]
        cosine[left_out] = 0.0
        found = in_order(strongest(cosine, self.k), cosine, self.k)
        return found, np.minimum(cosine[found], 1.0)


class Content:
    """Vectors of what items are; int8 as they came, and of unit length."""

    def __init__(self, tables: Tables, n: int) -> None:
        vectors = table(tables, "content_vectors", "i", (n, None))
        scale = np.asarray(table(tables, "content_row_scale", "f", (n,)), dtype=np.float64)
        if vectors.dtype.itemsize != 1 or not vectors.shape[1] or (scale < 0).any() or (scale > LARGEST).any():
            raise BadBundle(Reason.BAD_ARCHIVE, "content needs int8 vectors and scales that are not negative")
        self._set(np.asarray(vectors, dtype=np.int8), scale)

    def _set(self, vectors: np.ndarray[tuple[int, ...], np.dtype[np.int8]], scale: Floats) -> None:
        self._vectors, self._scale = vectors, scale
        self._unit = vectors.astype(np.float64)
        size = np.sqrt(np.einsum("nd,nd->n", self._unit, self._unit))
        self._size = size * scale
        self._unit /= np.where(size > 0, size, 1.0)[:, None]
        self._unit[scale == 0] = 0.0

    def grown(self, vectors: Sequence[Floats]) -> Content:
        """These and more rows [d], rounded to int8 as those of the tables are."""
        wide = self._vectors.shape[1]
        more = np.zeros((len(vectors), wide))
        for row, vector in enumerate(vectors):
            if np.shape(vector) != (wide,) or not np.isfinite(vector).all():
                raise BadBundle(Reason.BAD_ARCHIVE, f"a card's vector must be {wide} finite numbers")
            more[row] = vector
        scale = np.abs(more).max(axis=1, initial=0.0) / 127
        small = np.round(more / np.where(scale > 0, scale, 1.0)[:, None]).astype(np.int8)
        made = copy.copy(self)
        made._set(np.concatenate([self._vectors, small]), np.append(self._scale, scale))
        return made

    def cosines(self, known: Ids, strengths: Floats) -> Floats:
        """Cosine of the profile's mean vector with every item's [n]; 0 where one of the two is empty."""
        pull, size = self._mean(known, strengths)
        return self._unit @ (pull.sum(axis=0) / size) if size else np.zeros(len(self._unit))

    def shares(self, known: Ids, strengths: Floats, found: Ids) -> Floats:
        """What each known token adds to the cosine [known, found]."""
        pull, size = self._mean(known, strengths)
        return (pull / size) @ self._unit[found].T if size else np.zeros((len(known), len(found)))

    def _mean(self, known: Ids, strengths: Floats) -> tuple[Floats, float]:
        """Each token's pull [known, d], and the length of their sum (0: none)."""
        pull = self._unit[known] * (self._size[known] * strengths)[:, None]
        size = float(np.linalg.norm(pull.sum(axis=0)))
        return pull, size if size > NOTHING * float(np.abs(pull).sum()) else 0.0
