"""What a note names: every run of up to LONGEST words is scored against each class and against nothing, so that one entity
may lie inside another ("tilt cylinder" and "cylinder"), which a label a word cannot say.

A span-based tagger (Eberts & Ulges 2020, SpERT, without its transformer): a softmax over hashed features of a span (its
words, their beginnings and endings, its neighbours), over vectors of its words, learned from unlabelled notes, and over what
an earlier tagger, learned from notes labelled in another scheme, says of it and of the spans that overlap it. Two readings
count evenly: in one every span is judged by itself, in the other spans compete for the text (`segments.py`) and what lies
inside an entity is judged there. A span is told where its best class beats "nothing" less the lean, which is chosen on notes
that were not learned from.

Bounded: MOST_WORDS words of LONGEST_WORD characters, MOST_ENTITIES entities. Chinese characters are words of their own."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.reading.notes import Entity
from protocol.reading.segments import Cut
from protocol.tables.checked import Tables, table
from protocol.windows import Floats

LONGEST = 4
MOST_CHARACTERS = 4000
MOST_WORDS = 300
MOST_ENTITIES = 100
LONGEST_WORD = 40
MOST_CLASSES = 100
UNLIKELY = 0.02
"""Of a span below this chance nothing is looked for inside."""
PLACES = 1 << 17
PREFIX = "spans_"
NOTHING = 0
_WORD = re.compile(r"<\w+>|[一-鿿㐀-䶿]|[^\W一-鿿㐀-䶿]+(?:[-'./&+][^\W一-鿿㐀-䶿]+)*|[^\w\s]")
_ENDINGS = ("ings", "ing", "ies", "ed", "es", "s")
_BEFORE, _AFTER = "^", "$"

Ints = NDArray[np.int64]
Span = tuple[int, int]
"""First word and the one after the last."""


def words(text: str) -> list[Span]:
    """Where the words of a text stand, in characters."""
    found = _WORD.finditer(text[:MOST_CHARACTERS])
    return [place.span() for place, _ in zip(found, range(MOST_WORDS), strict=False)]


def spans(many: int) -> list[Span]:
    """All spans of a text of so many words."""
    return [(start, end) for start in range(many) for end in range(start + 1, min(start + LONGEST, many) + 1)]


def stem(word: str) -> str:
    """A word without its ending."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def features(low: Sequence[str], start: int, end: int) -> Iterator[str]:
    """Names of a span's features; low: the text's words in lower case."""

    def at(i: int) -> str:
        return _BEFORE if i < 0 else _AFTER if i >= len(low) else low[i]

    inside = low[start:end]
    size, few = end - start, min(end - start, 2)
    first, head = inside[0], inside[-1]
    before, after = at(start - 1), at(end)
    yield f"L{size}"
    yield "t:" + " ".join(inside)
    yield "st:" + " ".join(map(stem, inside))
    yield f"h:{head}:{few}"
    yield f"hs:{stem(head)}"
    yield f"f:{first}:{few}"
    for n in (2, 3, 4):
        yield f"hx:{head[-n:]}:{few}"
        yield f"fx:{first[-n:]}:{few}"
        yield f"hp:{head[:n]}:{few}"
    for word in inside[1:-1]:
        yield f"m:{word}"
    for word in inside:
        yield f"b:{word}:{size}"
    yield f"p:{before}:{few}"
    yield f"n:{after}:{few}"
    yield f"p2:{at(start - 2)}"
    yield f"n2:{at(end + 1)}"
    yield f"pf:{before}:{first}"
    yield f"hn:{head}:{after}"
    yield f"pn:{before}:{after}:{size}"
    yield f"ps:{stem(before)}:{stem(head)}"
    yield f"p3:{before[-3:]}:{size}"
    yield f"n3:{after[-3:]}:{size}"
    yield f"hn3:{head}:{after[-3:]}"
    yield f"x3n3:{head[-3:]}:{after[-3:]}:{size}"
    yield f"p3f3:{before[-3:]}:{first[-3:]}:{size}"
    yield f"nn:{after}:{at(end + 1)}"
    yield f"pp:{at(start - 2)}:{before}"
    yield f"edge:{start == 0}:{end == len(low)}:{size}"


def places(low: Sequence[str], start: int, end: int) -> list[int]:
    """Hashed features of a span."""
    return [zlib.crc32(name.encode(errors="replace")) % PLACES for name in features(low, start, end)]


class WordVectors:
    """Vectors of words, learned from unlabelled notes. vectors [V, d]."""

    def __init__(self, names: Sequence[str], vectors: Floats) -> None:
        self._place = {name: i for i, name in enumerate(names)}
        self._vectors = np.vstack([vectors, np.zeros((1, vectors.shape[1]))])
        self.width = vectors.shape[1]

    def of(self, low: Sequence[str]) -> Floats:
        """[n + 2, d + 1]: before the text, its words, after it; a last column of 1 where a word is known."""
        ids = np.array([self._place.get(word, -1) for word in (_BEFORE, *low, _AFTER)], dtype=np.int64)
        return np.hstack([self._vectors[ids], (ids >= 0)[:, None].astype(np.float64)])


def dense(vectors: Floats, every: Sequence[Span]) -> Floats:
    """[S, 6(d + 1)]: of each span a lone word, the last and the first of several, their mean, and both neighbours."""
    start = np.array([s for s, _ in every], dtype=np.int64).reshape(-1)
    end = np.array([e for _, e in every], dtype=np.int64).reshape(-1)
    size = (end - start)[:, None]
    total = np.vstack([np.zeros(vectors.shape[1]), np.cumsum(vectors[1:-1], axis=0)])
    head, first = vectors[end], vectors[start + 1]
    return np.hstack(
        [
            head * (size == 1),
            head * (size > 1),
            (total[end] - total[start]) / np.maximum(size, 1),
            first * (size > 1),
            vectors[start],
            vectors[end + 1],
        ]
    )


def around(chances: Floats, every: Sequence[Span]) -> Floats:
    """[S, 9E]: what an earlier tagger says of a span and of eight that overlap or touch it (zeros where there is none)."""
    row = {span: i for i, span in enumerate(every)}
    padded = np.vstack([chances, np.zeros((1, chances.shape[1]))])
    shifts = ((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))
    near = [[row.get((s + a, e + b), -1) for s, e in every] for a, b in shifts]
    near += [[row.get(span, -1) for span in found] for found in zip(*map(_touching, every), strict=True)]
    return np.hstack([padded[ids] for ids in near]) if every else np.zeros((0, 9 * chances.shape[1]))


def _touching(span: Span) -> tuple[Span, ...]:
    start, end = span
    return (start - 1, start), (end, end + 1), (end - 1, end), (start, start + 1)


@dataclass(frozen=True)
class Inside:
    """Spans within longer ones. inner, outer: int [M], rows of `spans`; sides float [M, SIDES]: how they lie."""

    inner: Ints
    outer: Ints
    sides: Floats


SIDES = 5


def inside(every: Sequence[Span]) -> Inside:
    """All pairs of a span and a longer one that holds it."""
    row = {span: i for i, span in enumerate(every)}
    pairs = [
        (i, row[a, b])
        for i, (start, end) in enumerate(every)
        for a in range(max(0, end - LONGEST), start + 1)
        for b in range(end, a + LONGEST + 1)
        if (a, b) != (start, end) and (a, b) in row
    ]
    sides = [_sides(every[i], every[j]) for i, j in pairs]
    inner, outer = (np.array([pair[k] for pair in pairs], dtype=np.int64) for k in (0, 1))
    return Inside(inner, outer, np.array(sides, dtype=np.float64).reshape(-1, SIDES))


def _sides(inner: Span, outer: Span) -> tuple[float, ...]:
    size = outer[1] - outer[0]
    same = inner[0] == outer[0], inner[1] == outer[1], size == 2, size == 3, size > 3
    return tuple(map(float, same))


def cut_of(every: Sequence[Span], many: int) -> Cut:
    """All spans of one text of `many` words."""
    start = np.array([s for s, _ in every], dtype=np.int64)
    size = np.array([e - s for s, e in every], dtype=np.int64)
    return Cut(np.zeros(len(every), dtype=np.int64), start, size, np.array([many]), LONGEST)


def softmax(logits: Floats) -> Floats:
    """Chances [S, C]."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


class Scorer:
    """`PREFIXweights` int8 [PLACES, C], `PREFIXscale` float [C]; `PREFIXdense` float [D, C]; `PREFIXbias` float [C]."""

    def __init__(self, tables: Tables, prefix: str, numbers: int) -> None:
        weights = table(tables, f"{prefix}weights", "i", (PLACES, None))
        self.classes = weights.shape[1]
        if not 1 < self.classes <= MOST_CLASSES:
            raise BadBundle(
                Reason.BAD_ARCHIVE, f"{self.classes} classes of spans: 2 to {MOST_CLASSES} can be told apart"
            )
        self._weights = weights
        self._scale = np.asarray(table(tables, f"{prefix}scale", "f", (self.classes,)), dtype=np.float64)
        self._dense = np.asarray(table(tables, f"{prefix}dense", "f", (numbers, self.classes)), dtype=np.float64)
        self._bias = np.asarray(table(tables, f"{prefix}bias", "f", (self.classes,)), dtype=np.float64)

    def logits(self, hashed: Sequence[Sequence[int]], numbers: Floats) -> Floats:
        """[S, C]."""
        counts = [len(row) for row in hashed]
        if not counts:
            return np.zeros((0, self.classes))
        flat = self._weights[np.concatenate([np.asarray(row, dtype=np.int64) for row in hashed])].astype(np.float64)
        sums = np.add.reduceat(flat, np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=0)
        return np.asarray(sums * self._scale + numbers @ self._dense + self._bias)


class SpanTagger:
    """Tables `spans_…` of a reader's bundle: `spans_classes` and `spans_words` uint8, names, each ended by a newline;
    `spans_vectors` int8 [V, d] with `spans_vector_scale` float [V]; `spans_lean` float [1]; a `Scorer` under `spans_`, one
    each under `spans_outer_` and `spans_inner_`, and
    one under `spans_earlier_` where there is an earlier tagger. Raises BadBundle."""

    def __init__(self, tables: Tables) -> None:
        names = _names(tables, "spans_words")
        packed = table(tables, "spans_vectors", "i", (len(names), None))
        scale = np.asarray(table(tables, "spans_vector_scale", "f", (len(names),)), dtype=np.float64)
        self._vectors = WordVectors(names, packed.astype(np.float64) * scale[:, None])
        numbers = 6 * (self._vectors.width + 1)
        self._earlier: Scorer | None = None
        if "spans_earlier_weights" in tables:
            self._earlier = Scorer(tables, "spans_earlier_", numbers)
            numbers += 10 * self._earlier.classes
        self._scorer = Scorer(tables, PREFIX, numbers)
        self._outer = Scorer(tables, "spans_outer_", numbers)
        self._inner = Scorer(tables, "spans_inner_", numbers + SIDES)
        self.classes = _names(tables, "spans_classes")
        self._lean = float(table(tables, "spans_lean", "f", (1,))[0])
        if {len(self.classes) + 1} != {self._scorer.classes, self._outer.classes, self._inner.classes}:
            raise BadBundle(
                Reason.BAD_ARCHIVE, f"{len(self.classes)} classes of spans, weights of {self._scorer.classes - 1}"
            )

    def chances(self, tokens: Sequence[str]) -> tuple[list[Span], Floats]:
        """(all spans of up to LONGEST words, chances [S, 1 + classes]: the first column is that of "nothing")."""
        low = [word[:LONGEST_WORD].lower() for word in tokens[:MOST_WORDS]]
        every = spans(len(low))
        hashed = [places(low, start, end) for start, end in every]
        numbers = dense(self._vectors.of(low), every)
        if self._earlier is not None:
            numbers = np.hstack([numbers, heard(self._earlier.logits(hashed, numbers), every)])
        if not every:
            return [], np.zeros((0, self._scorer.classes))
        alone = softmax(self._scorer.logits(hashed, numbers))
        return every, (alone + self._together(every, hashed, numbers, len(low))) / 2

    def _together(self, every: Sequence[Span], hashed: Sequence[Sequence[int]], numbers: Floats, many: int) -> Floats:
        """Chances where spans compete for the text, and those inside a chosen one are judged there."""
        _, chances = cut_of(every, many).marginals(self._outer.logits(hashed, numbers))
        found = inside(every)
        held = chances[:, 1:].sum(axis=1)[found.outer]
        kept = held > UNLIKELY
        inner, weight, sides = found.inner[kept], held[kept], found.sides[kept]
        said = softmax(self._inner.logits([hashed[i] for i in inner], np.hstack([numbers[inner], sides])))
        return composed(chances, inner, weight, said)

    def spans(self, tokens: Sequence[str]) -> dict[Span, tuple[str, float]]:
        """What is named: (first word, one after the last) -> (class, chance); spans may overlap."""
        every, chances = self.chances(tokens)
        if not every:
            return {}
        leaning = chances - self._lean * (np.arange(chances.shape[1]) == NOTHING)
        best = leaning.argmax(axis=1)
        return {
            span: (self.classes[c - 1], float(chances[i, c]))
            for i, (span, c) in enumerate(zip(every, best, strict=True))
            if c != NOTHING
        }

    def entities(self, text: str) -> list[Entity]:
        """What a note names, in the order of the text; the MOST_ENTITIES likeliest."""
        at = words(text)
        found = self.spans([text[start:end] for start, end in at])
        likely = sorted(found.items(), key=lambda one: -one[1][1])[:MOST_ENTITIES]
        return [
            Entity(start=at[first][0], end=at[last - 1][1], kind=kind, probability=min(chance, 1.0))
            for (first, last), (kind, chance) in sorted(likely)
        ]


def composed(chances: Floats, inner: Ints, weight: Floats, said: Floats) -> Floats:
    """Chances [S, C] of being an outermost entity, or one inside an entity whose chance is `weight` [M]."""
    made = chances.copy()
    np.add.at(made[:, 1:], inner, weight[:, None] * said[:, 1:])
    made[:, NOTHING] = np.maximum(1.0 - made[:, 1:].sum(axis=1), 0.0)
    return made


def heard(logits: Floats, every: Sequence[Span]) -> Floats:
    """[S, 10E]: an earlier tagger's log odds of each span, and its chances there and around."""
    centred = logits - logits.mean(axis=1, keepdims=True)
    return np.hstack([EARLIER * centred, around(softmax(logits), every)])


EARLIER = 0.3
"""How large the earlier tagger's log odds are beside the other numbers."""


def _names(tables: Tables, name: str) -> list[str]:
    try:
        found = table(tables, name, "u", (None,)).tobytes().decode().split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"table {name!r} is not UTF-8: {error}") from error
    if len(set(found)) != len(found):
        raise BadBundle(Reason.BAD_ARCHIVE, f"table {name!r} holds a name twice")
    return found
