"""Words and attributes become a vector, the same on the server and on a gateway, so that an item that nobody has chosen yet
(a generated plan, a new part) is understood by what is known of it.

Features: attributes as "key=value", words, pairs of neighbouring words, character 4-grams of longer words, and for Chinese
single characters and pairs (there are no spaces to tell words by). Each is hashed into one of h places (Weinberger et al.
2009) by blake2s, never by a process's own hash; counts are damped by their logarithm, weighted by how rare a place is, and
projected (latent semantic analysis, Deerwester et al. 1990) to d numbers of unit length."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.tables.checked import Tables, table
from protocol.windows import Floats

MOST_CHARACTERS = 4000
MOST_FEATURES = 2000
MOST_ATTRIBUTES = 50
LONGEST_ATTRIBUTE = 256
GRAM = 4
PREFIX = "text_"
_WORD = re.compile(r"[^\W_一-鿿㐀-䶿]+|[一-鿿㐀-䶿]+")
_HAN = re.compile(r"[一-鿿㐀-䶿]")


def features(text: str, attributes: Mapping[str, str] | None = None) -> Counter[str]:
    """How often each feature occurs; at most MOST_FEATURES. Of the text the first MOST_CHARACTERS are read, of attributes the
    first MOST_ATTRIBUTES in the order of their keys, and LONGEST_ATTRIBUTE characters of each key and value."""
    found: Counter[str] = Counter()
    for key, value in sorted((attributes or {}).items())[:MOST_ATTRIBUTES]:
        said = value[:LONGEST_ATTRIBUTE]
        found[f"{key[:LONGEST_ATTRIBUTE].strip().lower()}={said.strip().lower()}"] += 1
        found.update(_of_text(said))
    found.update(_of_text(text[:MOST_CHARACTERS]))
    if len(found) > MOST_FEATURES:
        return Counter(dict(sorted(found.items(), key=lambda one: (-one[1], one[0]))[:MOST_FEATURES]))
    return found


def _of_text(text: str) -> Iterator[str]:
    before = ""
    for word in _WORD.findall(text.lower()):
        if _HAN.match(word):
            yield from word
            yield from (word[i : i + 2] for i in range(len(word) - 1))
        else:
            yield word
            if len(word) > GRAM + 1:
                yield from (f"~{word[i : i + GRAM]}" for i in range(len(word) - GRAM + 1))
        if before:
            yield f"{before} {word}"
        before = word


def place(feature: str, h: int) -> int:
    """Where a feature is counted, of h places."""
    return int.from_bytes(hashlib.blake2s(feature.encode(errors="replace"), digest_size=4).digest(), "big") % h


def counted(text: str, attributes: Mapping[str, str] | None, h: int) -> tuple[NDArray[np.int64], Floats]:
    """(places, 1 + log count), ascending by place; features that share a place add up."""
    total: dict[int, float] = {}
    for feature, count in features(text, attributes).items():
        at = place(feature, h)
        total[at] = total.get(at, 0.0) + count
    places = np.array(sorted(total), dtype=np.int64)
    return places, 1.0 + np.log(np.array([total[int(at)] for at in places], dtype=np.float64))


class TextVectors:
    """`text_idf` float [h]; `text_projection` int8 [h, d] and `text_row_scale` float [h]: row j of the projection is
    text_projection[j] * text_row_scale[j]."""

    def __init__(self, tables: Tables) -> None:
        self.idf = np.asarray(table(tables, "text_idf", "f", (None,)), dtype=np.float64)
        h = len(self.idf)
        projection = table(tables, "text_projection", "i", (h, None))
        scale = np.asarray(table(tables, "text_row_scale", "f", (h,)), dtype=np.float64)
        finite = np.isfinite(self.idf).all() and np.isfinite(scale).all()
        if projection.dtype.itemsize != 1 or not h or not projection.shape[1] or not finite:
            raise BadBundle(Reason.BAD_ARCHIVE, "text needs finite weights of places and an int8 projection of them")
        self._projection, self._scale = projection, scale

    @property
    def width(self) -> int:
        """Length d of a vector."""
        return int(self._projection.shape[1])

    def vector(self, text: str, attributes: Mapping[str, str] | None = None) -> Floats:
        """A vector [d] of unit length; zeros where nothing in it was ever seen."""
        places, counts = counted(text, attributes, len(self.idf))
        weight = counts * self.idf[places] * self._scale[places]
        made = weight @ self._projection[places].astype(np.float64) if len(places) else np.zeros(self.width)
        size = float(np.sqrt(made @ made))
        return np.asarray(made / size if size > 0 else made)
