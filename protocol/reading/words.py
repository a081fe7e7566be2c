"""Words and characters decide: a linear model over counts of words, pairs of words and pieces of words, in numpy.

Every place of the text knows what it added: score = bias + the sum over the units of a text (a word; for Chinese, a
character), exactly. A feature that spans several units is shared among them evenly; one that occurs several times is shared
among its occurrences.

Two blocks of features, each damped by its logarithm, weighted by rarity and brought to unit length (Salton & Buckley 1988):
words, pairs of neighbouring words and the consonants of a word, by which slips of the pen meet what was meant ("siezed",
"seized"); pieces of 2 to 5 characters inside a word with its edges marked, and across the gap between two words. Chinese
has no spaces: single characters and pairs stand for words there, up to 4 characters for pieces. A feature that training
never met counts towards the length, so that a text of unknown words is told nothing rather than anything."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.tables.checked import Tables, table
from protocol.windows import Floats

MOST_CHARACTERS = 4000
LONGEST_WORD = 40
MOST_FEATURES = 400_000
PREFIX = "words_"
WORD, PIECE = "w", "c"
_HAN = "一-鿿㐀-䶿"
_UNIT = re.compile(rf"[^\W_{_HAN}]+(?:['’][^\W_{_HAN}]+)*|[{_HAN}]+")
_IS_HAN = re.compile(f"[{_HAN}]")
_EDGE = "\x02"
Ints = NDArray[np.int64]
Occurrence = tuple[str, int, int]
"""(feature, its first unit, how many units it spans)."""


@dataclass(frozen=True)
class Shape:
    """What is counted: pieces of `least` to `most` characters, and whether pairs of neighbouring words, the consonants of
    words and pieces across the gaps between words."""

    least: int = 2
    most: int = 5
    pairs: bool = True
    consonants: bool = True
    gaps: bool = True

    def row(self) -> list[int]:
        """As it travels."""
        return [self.least, self.most, self.pairs, self.consonants, self.gaps]


@dataclass(frozen=True)
class Split:
    """A text's units. words [U]: as they are compared; places int [U, 2]: first and last character (exclusive) in the text
    as it was written; joined [U]: whether a unit follows the one before without a gap (Chinese characters)."""

    words: list[str]
    places: Ints
    joined: list[bool]


def split(text: str) -> Split:
    """Units of the first MOST_CHARACTERS of a text; letter case, width of characters and apostrophes do not count."""
    folded, origin = _folded(text[:MOST_CHARACTERS])
    words: list[str] = []
    places: list[tuple[int, int]] = []
    joined: list[bool] = []
    for found in _UNIT.finditer(folded):
        start, end = found.span()
        if _IS_HAN.match(found[0]):
            words += found[0]
            places += [(origin[i], origin[i] + 1) for i in range(start, end)]
            joined += [i > start for i in range(start, end)]
        else:
            words.append(found[0].replace("'", "").replace("’", ""))
            places.append((origin[start], origin[end - 1] + 1))
            joined.append(False)
    return Split(words, np.array(places, dtype=np.int64).reshape(-1, 2), joined)


def _folded(text: str) -> tuple[str, Sequence[int]]:
    """(the text in lower case and usual width, where each of its characters stood)."""
    if text.isascii():
        return text.lower(), range(len(text))
    made: list[str] = []
    origin: list[int] = []
    for i, character in enumerate(text):
        plain = unicodedata.normalize("NFKC", character).lower()
        made.append(plain)
        origin += [i] * len(plain)
    return "".join(made), origin


def occurrences(units: Split, shape: Shape) -> Iterator[Occurrence]:
    """Every feature of a text, as often as it occurs."""
    words = units.words
    run = ""
    for i, word in enumerate(words):
        yield WORD + word, i, 1
        if _IS_HAN.match(word):
            run = (run + word)[-4:] if units.joined[i] else word
            for n in range(2, len(run) + 1):
                yield PIECE + run[-n:], i - n + 1, n
            yield PIECE + word, i, 1
            if shape.pairs and units.joined[i]:
                yield f"{WORD}{words[i - 1]}{word}", i - 1, 2
        else:
            run = ""
            for piece in _pieces(word, shape.least, shape.most):
                yield piece, i, 1
            if shape.consonants:
                yield _consonants(word), i, 1
            if not i or _IS_HAN.match(words[i - 1]):
                continue
            if shape.pairs:
                yield f"{WORD}{words[i - 1]} {word}", i - 1, 2
            if shape.gaps:
                for piece in _across(words[i - 1], word, shape.most):
                    yield piece, i - 1, 2


@lru_cache(maxsize=20_000)
def _pieces(word: str, least: int, most: int) -> tuple[str, ...]:
    whole = f"{_EDGE}{word[:LONGEST_WORD]}{_EDGE}"
    return tuple(PIECE + whole[i : i + n] for n in range(least, most + 1) for i in range(max(len(whole) - n + 1, 0)))


@lru_cache(maxsize=20_000)
def _consonants(word: str) -> str:
    made = word[:1]
    for character in word[1:LONGEST_WORD]:
        if character not in "aeiouyh" and character != made[-1]:
            made += character
    return f"{WORD}%{made}"


def _across(before: str, after: str, most: int) -> Iterator[str]:
    """Pieces of 3 characters and more that hold the gap between two words."""
    for n in range(3, most + 1):
        for left in range(max(1, n - 1 - len(after)), min(n - 2, len(before)) + 1):
            yield f"{PIECE}{before[-left:]}{_EDGE}{after[: n - 1 - left]}"


@dataclass(frozen=True)
class Counted:
    """A text's features that are known, and where they stand. ids [F] ascending, values [F]: weights of the features;
    at [M], unit [M], part [M]: the feature (index into ids), unit and share of each place that it has. whole: the sum of
    all squared weights, also of features that are not known."""

    units: Split
    ids: Ints
    values: Floats
    at: Ints
    unit: Ints
    part: Floats
    whole: float

    @property
    def known(self) -> float:
        """Of what the text weighs, the share that training has met."""
        return float(self.values @ self.values) / self.whole if self.whole > 0 else 0.0

    def by_unit(self, amounts: Floats) -> Floats:
        """Amounts [F] of the features, spread over the units [U]; the sum stays the same."""
        share = amounts[self.at] * self.part
        return np.asarray(np.bincount(self.unit, share, len(self.units.words)), dtype=np.float64)


class Vocabulary:
    """Features by name, how rare each is, and how a text is weighed by them.

    `words_vocabulary` uint8: names in UTF-8, each ended by a newline; `words_idf` float [F]; `words_unknown` float [1]: how
    rare one that is not among them counts (0: not at all); `words_blocks` float [2]: length of the words' and of the
    pieces' block; `words_shape` int [5]: `Shape`."""

    def __init__(self, tables: Tables) -> None:
        self.idf = np.asarray(table(tables, "words_idf", "f", (None,)), dtype=np.float64)
        self._unknown = float(table(tables, "words_unknown", "f", (1,))[0])
        self._blocks = np.asarray(table(tables, "words_blocks", "f", (2,)), dtype=np.float64)
        least, most, pairs, consonants, gaps = (int(v) for v in table(tables, "words_shape", "iu", (5,)))
        names = _names(table(tables, "words_vocabulary", "u", (None,)))
        if len(names) != len(self.idf) or len(set(names)) != len(names) or not 1 <= least <= most <= 8:
            raise BadBundle(Reason.BAD_ARCHIVE, "the vocabulary's names and weights differ in number, or names repeat")
        self.shape = Shape(least, most, bool(pairs), bool(consonants), bool(gaps))
        self._place = {name: i for i, name in enumerate(names)}
        self._block = np.array([name[:1] == PIECE for name in names], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.idf)

    def counted(self, text: str) -> Counted:
        """A text weighed."""
        units = split(text)
        place, known = self._place, len(self.idf)
        unknown: dict[str, int] = {}
        ids: list[int] = []
        first: list[int] = []
        span: list[int] = []
        for feature, unit, width in occurrences(units, self.shape):
            at = place.get(feature)
            if at is None:
                at = unknown.setdefault(feature, known + len(unknown))
            ids.append(at)
            first.append(unit)
            span.append(width)
        pieces = [feature[0] == PIECE for feature in unknown]
        return self._weighed(units, np.array(ids, dtype=np.int64), first, span, np.array(pieces, dtype=np.int64))

    def _weighed(self, units: Split, ids: Ints, first: list[int], span: list[int], strange: Ints) -> Counted:
        kept, at, counts = np.unique(ids, return_inverse=True, return_counts=True)
        known = kept < len(self.idf)
        inside = kept[known]
        rarity = np.full(len(kept), self._unknown)
        rarity[known] = self.idf[inside]
        block = np.concatenate([self._block[inside], strange[kept[~known] - len(self.idf)]])
        weight = (1.0 + np.log(counts)) * rarity
        length = np.sqrt(np.bincount(block, weight**2, 2))
        values = weight * (self._blocks / np.where(length > 0, length, 1.0))[block]
        width = np.array(span, dtype=np.int64)
        spread = np.repeat(np.arange(len(ids)), width)
        unit = (
            np.array(first, dtype=np.int64)[spread]
            + np.arange(len(spread))
            - np.repeat(np.cumsum(width) - width, width)
        )
        part = np.asarray(1.0 / (width * counts[at])[spread], dtype=np.float64)
        mine = (ids < len(self.idf))[spread]
        return Counted(
            units, inside, values[: len(inside)], at[spread][mine], unit[mine], part[mine], float(values @ values)
        )


def _names(packed: NDArray[np.generic]) -> list[str]:
    try:
        names = packed.tobytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"the vocabulary is no UTF-8: {error}") from error
    if names.pop() or len(names) > MOST_FEATURES:
        raise BadBundle(Reason.BAD_ARCHIVE, f"the vocabulary holds more than {MOST_FEATURES} names or is cut")
    return names


def packed_names(names: Sequence[str]) -> NDArray[np.uint8]:
    """The vocabulary's table."""
    return np.frombuffer("".join(f"{name}\n" for name in names).encode(), dtype=np.uint8)


class WordModel:
    """Scores of the classes of several questions about one text.

    Beside the vocabulary's tables, for each question `words_ABOUT_weights` int8 [F, C], `words_ABOUT_scale` float [F] (row f
    of the weights is weights[f] * scale[f]) and `words_ABOUT_bias` float [C]."""

    def __init__(self, tables: Tables, classes: Mapping[str, Sequence[str]]) -> None:
        self.vocabulary = Vocabulary(tables)
        self._of: dict[str, tuple[NDArray[np.generic], Floats, Floats]] = {}
        for about, names in classes.items():
            size, many = len(self.vocabulary), len(names)
            if f"{PREFIX}{about}_weights" not in tables:
                continue
            weights = table(tables, f"{PREFIX}{about}_weights", "i", (size, many))
            if weights.dtype.itemsize != 1:
                raise BadBundle(Reason.BAD_ARCHIVE, f"the words' weights of {about} are {weights.dtype}, not int8")
            scale = np.asarray(table(tables, f"{PREFIX}{about}_scale", "f", (size,)), dtype=np.float64)
            bias = np.asarray(table(tables, f"{PREFIX}{about}_bias", "f", (many,)), dtype=np.float64)
            self._of[about] = (weights, scale, bias)

    @property
    def abouts(self) -> list[str]:
        """Questions that it answers."""
        return list(self._of)

    def counted(self, text: str) -> Counted:
        """A text weighed, once for all questions."""
        return self.vocabulary.counted(text)

    def scores(self, about: str, counted: Counted) -> Floats:
        """[C]"""
        return np.asarray(counted.values @ self.weights(about, counted.ids) + self.bias(about))

    def weights(self, about: str, ids: Ints) -> Floats:
        """[F, C] of some features."""
        weights, scale, _ = self._of[about]
        return np.asarray(weights[ids].astype(np.float64) * scale[ids, None])

    def bias(self, about: str) -> Floats:
        """[C]: what a text without a known word is told."""
        return self._of[about][2]


def stretches(units: Split, amounts: Floats) -> list[tuple[int, int, float]]:
    """(start, end, amount) of each word, and of each run of Chinese characters that point the same way, in the order of the
    text; what added nothing is left out."""
    found: list[tuple[int, int, float]] = []
    before = 0.0
    for i, amount in enumerate(float(a) for a in amounts):
        start, end = (int(v) for v in units.places[i])
        if units.joined[i] and found and found[-1][1] == start and amount * before > 0:
            found[-1] = (found[-1][0], end, found[-1][2] + amount)
        elif amount:
            found.append((start, end, amount))
        before = amount
    return found
