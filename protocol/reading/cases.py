"""Past notes that say something alike, and what fixed it then. A new case is found from the moment that it is added.

Two notes are alike by the cosine of their weighed words and pieces (`protocol.reading.words`), and of an encoder's vectors
where there is one; the tables say how much each counts. Among the nearest, the fix that agrees best with the others' fixes
comes first (least expected loss, as in minimum Bayes risk decoding; Kumar & Byrne 2004): one odd fix does not win by a
comma. All past notes are compared, so the time is bounded by their number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.reading.notes import PastNote
from protocol.reading.words import PIECE, Ints, Shape, Split, occurrences, split
from protocol.tables.checked import Tables, table
from protocol.unreadable import UNREADABLE
from protocol.windows import Floats

MOST_CASES = 50_000
PAST = "cases.json"
"""The bundle's member that holds the past notes."""
_TOKEN = re.compile(r"[^\W_一-鿿㐀-䶿]+|[一-鿿㐀-䶿]")


_WEIGHTS = ("pieces", "encoder", "nearest", "sharpness", "fixes")


@dataclass(frozen=True)
class CaseWeights:
    """pieces: how much pieces of words count beside words. encoder: share of the encoder's cosine in the likeness. nearest:
    how many vote. sharpness: a vote is the likeness to this power. fixes: among how many the fix is chosen."""

    pieces: float = 1.0
    encoder: float = 0.0
    nearest: int = 10
    sharpness: float = 3.0
    fixes: int = 40

    def tables(self) -> Tables:
        """As they travel."""
        return {"cases_weights": np.array([getattr(self, name) for name in _WEIGHTS], dtype=np.float64)}

    @staticmethod
    def of(tables: Tables) -> CaseWeights:
        """As a bundle says. Raises BadBundle."""
        pieces, encoder, nearest, sharpness, fixes = (float(v) for v in table(tables, "cases_weights", "f", (5,)))
        if not (pieces >= 0 and 0 <= encoder <= 1 and 1 <= nearest <= fixes <= 200 and 0 < sharpness <= 20):
            raise BadBundle(Reason.BAD_ARCHIVE, "the weights of past cases are out of bounds")
        return CaseWeights(pieces, encoder, int(nearest), sharpness, int(fixes))


@dataclass(frozen=True, eq=False)
class Found:
    """A past note, how alike it is (cosine), and by which units of the asked text: shared [U] adds up to the words' part of
    it; zeros for one that does not vote."""

    past: PastNote
    similarity: float
    shared: Floats


@dataclass(frozen=True)
class _Row:
    ids: NDArray[np.int32]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class _Flat:
    """All rows behind one another; row i ends before ends[i + 1]. vectors [N, d]: zeros where one has none."""

    ids: NDArray[np.int32]
    values: NDArray[np.float32]
    ends: Ints
    vectors: NDArray[np.float32] | None


class Cases:
    """Past notes, nearest first. vectors: of an encoder, float [N, d], unit length, in the order of `past`."""

    def __init__(
        self,
        past: Sequence[PastNote],
        weights: CaseWeights | None = None,
        vectors: Floats | None = None,
        shape: Shape | None = None,
    ) -> None:
        if vectors is not None and len(vectors) != len(past):
            raise BadBundle(Reason.BAD_ARCHIVE, f"{len(past)} past notes and {len(vectors)} vectors")
        if len(past) > MOST_CASES:
            raise BadBundle(Reason.TOO_LARGE, f"{len(past)} past notes; {MOST_CASES} can be compared")
        self.weights = weights or CaseWeights()
        self._shape = shape or Shape()
        self._past: list[PastNote] = []
        self._at: dict[str, int] = {}
        self._place: dict[str, int] = {}
        self._idf: list[float] = []
        self._rarest = 1.0
        self._rows: list[_Row] = []
        self._vectors: list[Floats | None] = []
        self._flat: _Flat | None = None
        self._learn([one.text for one in past])
        for i, one in enumerate(past):
            self.add(one, None if vectors is None else vectors[i])

    def __len__(self) -> int:
        return len(self._past)

    def _learn(self, texts: Sequence[str]) -> None:
        """Which features are rare; those met later count as the rarest."""
        count: Counter[str] = Counter()
        for text in texts:
            count.update({feature for feature, _, _ in occurrences(split(text), self._shape)})
        self._place = {name: i for i, name in enumerate(count)}
        self._idf = [1.0 + float(np.log((1.0 + len(texts)) / (1.0 + notes))) for notes in count.values()]
        self._rarest = 1.0 + float(np.log((1.0 + len(texts)) / 2.0)) if texts else 1.0

    def add(self, past: PastNote, vector: Floats | None = None) -> None:
        """One more past note; one of the same case is replaced. Beyond MOST_CASES the oldest gives way."""
        row = self._row(past.text)
        at = self._at.get(past.case)
        if at is None and len(self._past) >= MOST_CASES:
            self._drop_oldest()
        if at is None:
            self._at[past.case] = len(self._past)
            self._past.append(past)
            self._rows.append(row)
            self._vectors.append(vector)
        else:
            self._past[at], self._rows[at], self._vectors[at] = past, row, vector
        self._flat = None

    def _drop_oldest(self) -> None:
        del self._past[0], self._rows[0], self._vectors[0]
        self._at = {one.case: i for i, one in enumerate(self._past)}

    def _row(self, text: str) -> _Row:
        row, _, _ = self._weighed(split(text), learn=True)
        return row

    def _weighed(self, units: Split, *, learn: bool) -> tuple[_Row, list[tuple[int, int, int]], Counter[int]]:
        """The text's row of unit length, each known occurrence (feature, unit, units), and how often each feature occurs."""
        told: list[tuple[int, int, int]] = []
        counts: Counter[int] = Counter()
        strange: Counter[str] = Counter()
        pieces: set[int] = set()
        for feature, unit, span in occurrences(units, self._shape):
            at = self._place.get(feature)
            if at is None and learn:
                at = self._place[feature] = len(self._idf)
                self._idf.append(self._rarest)
            if at is None:
                strange[feature] += 1
                continue
            told.append((at, unit, span))
            counts[at] += 1
            if feature[0] == PIECE:
                pieces.add(at)
        ids = np.array(sorted(counts), dtype=np.int64)
        rarity = np.array([self._idf[i] for i in ids])
        values = (1.0 + np.log(np.array([counts[int(i)] for i in ids], dtype=np.float64))) * rarity
        values = values * np.array([self.weights.pieces if int(i) in pieces else 1.0 for i in ids])
        away = np.array(
            [(1.0 + np.log(n)) * (self.weights.pieces if f[0] == PIECE else 1.0) for f, n in strange.items()]
        )
        length = float(np.sqrt(values @ values + self._rarest**2 * (away @ away)))
        values = values / length if length > 0 else values
        return _Row(ids.astype(np.int32), values.astype(np.float32)), told, counts

    def nearest(self, text: str, vector: Floats | None = None, top: int | None = None) -> list[Found]:
        """The most alike past notes that share anything with a text, best first, the newer of equals first."""
        if not self._past:
            return []
        units = split(text)
        row, told, counts = self._weighed(units, learn=False)
        asked = np.zeros(len(self._idf))
        asked[row.ids] = row.values
        words = self._likeness(asked)
        alike = words
        share = self.weights.encoder
        if vector is not None and share > 0:
            alike = (1 - share) * words + share * self._vector_likeness(vector)
        many = min(top or self.weights.fixes, len(alike))
        order = np.lexsort((-np.arange(len(alike)), -alike))[:many]
        found: list[Found] = []
        for k, i in enumerate(int(i) for i in order if alike[i] > 0):
            shared = np.zeros(len(units.words))
            if k < self.weights.nearest:
                shared = self._shared(self._rows[i], asked, told, counts, units)
            found.append(Found(self._past[i], min(float(alike[i]), 1.0), shared))
        return found

    def _all(self) -> _Flat:
        if self._flat is None:
            told = [one for one in self._vectors if one is not None]
            vectors = None
            if told:
                none = np.zeros(len(told[0]), dtype=np.float32)
                fits = [one if one is not None and len(one) == len(none) else none for one in self._vectors]
                vectors = np.stack(fits).astype(np.float32)
            ids = np.concatenate([row.ids for row in self._rows])
            values = np.concatenate([row.values for row in self._rows])
            self._flat = _Flat(ids, values, np.cumsum([0, *(len(row.ids) for row in self._rows)]), vectors)
        return self._flat

    def _likeness(self, asked: Floats) -> Floats:
        flat = self._all()
        total = np.concatenate([[0.0], np.cumsum(flat.values * asked[flat.ids])])
        return np.asarray(total[flat.ends[1:]] - total[flat.ends[:-1]])

    def _vector_likeness(self, vector: Floats) -> Floats:
        vectors = self._all().vectors
        if vectors is None or vectors.shape[1] != len(vector):
            return np.zeros(len(self._past))
        return np.asarray(vectors @ vector, dtype=np.float64)

    def _shared(
        self, row: _Row, asked: Floats, told: list[tuple[int, int, int]], counts: Counter[int], units: Split
    ) -> Floats:
        """[U]: what each unit of the asked text gives to the likeness."""
        both = dict(zip(row.ids.tolist(), (row.values * asked[row.ids]).tolist(), strict=True))
        shared = np.zeros(len(units.words))
        for at, unit, span in told:
            given = both.get(at)
            if given:
                shared[unit : unit + span] += given / (counts[at] * span)
        return shared


def votes(found: Sequence[Found], about: str, classes: Sequence[str], sharpness: float) -> Floats:
    """[K, C]: what each found case says; the sum over K adds up to at most 1, less where the nearest is far."""
    place = {name: i for i, name in enumerate(classes)}
    said = np.zeros((len(found), len(classes)))
    strength = np.array([max(one.similarity, 0.0) ** sharpness for one in found])
    nearest = max((max(one.similarity, 0.0) for one in found), default=0.0)
    told = [place.get(one.past.said.get(about, "")) for one in found]
    total = float(sum(s for s, at in zip(strength, told, strict=True) if at is not None))
    for k, at in enumerate(told):
        if at is not None and total > 0:
            said[k, at] = nearest * strength[k] / total
    return said


def agreed(found: Sequence[Found], sharpness: float = 3.0, shown: int = 5) -> list[Found]:
    """The found cases, reordered by their fixes. First the one whose fix is most like the fixes of all of them, each weighed
    by its likeness; then, up to `shown`, each time the one that adds most to what those before it cover, so that five cases
    are five ways out and not one told five times (Nemhauser et al. 1978). The rest, and cases without a fix, keep their
    order behind."""
    place: dict[str, int] = {}
    told = [[place.setdefault(w, len(place)) for w in _TOKEN.findall(fix_words(one.past).lower())] for one in found]
    if not place:
        return list(found)
    bags = np.stack([np.bincount(np.array(at, dtype=np.int64), minlength=len(place)) for at in told])
    size = bags.sum(axis=1)
    both = np.minimum(bags[:, None], bags[None]).sum(axis=2)
    alike = 2 * both / np.maximum(size[:, None] + size[None], 1)
    strength = np.array([max(one.similarity, 0.0) ** sharpness for one in found])
    covered = np.zeros(len(found))
    order: list[int] = []
    for _ in range(min(shown, int((size > 0).sum()))):
        gain = np.round(np.maximum(alike - covered, 0.0) @ strength, 12)
        gain[[*order, *np.flatnonzero(size == 0)]] = -1.0
        best = int(np.argmax(gain))
        order.append(best)
        covered = np.maximum(covered, alike[best])
    return [found[k] for k in [*order, *(k for k in range(len(found)) if k not in order)]]


def fix_words(past: PastNote) -> str:
    """What was done, as words."""
    return " ".join(past.fixed_by)


def packed_past(past: Sequence[PastNote]) -> bytes:
    """The bundle's member `cases.json`."""
    return msgspec.json.encode(list(past))


def read_past(body: bytes) -> list[PastNote]:
    """Raises BadBundle."""
    try:
        past = msgspec.json.decode(body, type=list[PastNote])
    except UNREADABLE as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"past notes cannot be read: {error}") from error
    if len({one.case for one in past}) != len(past):
        raise BadBundle(Reason.BAD_ARCHIVE, "two past notes have the same case")
    return past
