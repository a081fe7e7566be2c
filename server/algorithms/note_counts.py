"""Features of many notes counted once, and weighed anew for every fold: the very numbers of `protocol.reading.words` and of
`protocol.reading.cases`, as sparse matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from protocol.reading.words import PIECE, Shape, occurrences, packed_names, split
from protocol.tables import Tables
from protocol.windows import Floats

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """counts [N, F]: how often each feature of `names` (sorted) occurs in each text. piece [F]: whether it is a piece of a
    word."""

    counts: csr_matrix
    names: list[str]
    piece: NDArray[np.bool_]
    shape: Shape


@dataclass(frozen=True)
class Weighing:
    """Which features are known [F] and how rare each is [F], the unknown ones as the tables say."""

    known: NDArray[np.bool_]
    rarity: Floats
    idf: Floats
    unknown: float


def count(texts: Sequence[str], shape: Shape) -> Counts:
    """Every feature of every text."""
    place: dict[str, int] = {}
    indptr, ids = [0], []
    for text in texts:
        found = [place.setdefault(feature, len(place)) for feature, _, _ in occurrences(split(text), shape)]
        ids.append(np.array(found, dtype=np.int32))
        indptr.append(indptr[-1] + len(found))
    flat = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32)
    matrix = csr_matrix((np.ones(len(flat), dtype=np.float32), flat, indptr), shape=(len(texts), len(place)))
    matrix.sum_duplicates()
    names = sorted(place)
    order = np.array([place[name] for name in names], dtype=np.int64)
    piece = np.array([name[:1] == PIECE for name in names], dtype=bool)
    return Counts(matrix[:, order].tocsr(), names, piece, shape)


def weigh(counts: Counts, learn: Ints, least_notes: int, most_features: int, unknown: float) -> Weighing:
    """What the notes `learn` say of rarity: features of at least `least_notes` of them, the most frequent first."""
    notes = np.asarray((counts.counts[learn] > 0).sum(axis=0), dtype=np.float64).ravel()
    known = notes >= max(least_notes, 1)
    if known.sum() > most_features:
        frequent = np.lexsort((np.arange(len(notes)), -notes))[:most_features]
        known &= np.isin(np.arange(len(notes)), frequent)
    idf = 1.0 + np.log((1.0 + len(learn)) / (1.0 + notes))
    weight = unknown * (1.0 + float(np.log((1.0 + len(learn)) / 2.0)))
    return Weighing(known, np.where(known, idf, weight), idf, weight)


def weighed(counts: Counts, weighing: Weighing, words: float, pieces: float) -> csr_matrix:
    """[N, known features]: both blocks of unit length times `words` and `pieces`."""
    weight = _damped(counts, weighing.rarity)
    squares = weight.multiply(weight).tocsr()
    length = np.stack([np.asarray(squares[:, block].sum(axis=1)).ravel() for block in (~counts.piece, counts.piece)])
    scale = np.array([[words], [pieces]]) / np.sqrt(np.where(length > 0, length, 1.0))
    rows = np.repeat(np.arange(weight.shape[0]), np.diff(weight.indptr))
    weight.data *= scale[counts.piece[weight.indices].astype(np.int64), rows]
    return weight[:, np.flatnonzero(weighing.known)].tocsr()


def likeness(counts: Counts, learn: Ints, ask: Ints, pieces: float) -> Floats:
    """[A, L]: cosines of the asked notes with the learned ones, as `Cases` compares them."""
    rarity = weigh(counts, learn, 1, len(counts.names), 1.0).rarity
    weight = _damped(counts, rarity * np.where(counts.piece, pieces, 1.0))
    length = np.sqrt(np.asarray(weight.multiply(weight).sum(axis=1)).ravel())
    rows = np.repeat(np.arange(weight.shape[0]), np.diff(weight.indptr))
    weight.data /= np.where(length > 0, length, 1.0)[rows]
    return np.asarray((weight[ask] @ weight[learn].T).toarray(), dtype=np.float64)


def _damped(counts: Counts, rarity: Floats) -> csr_matrix:
    weight = counts.counts.astype(np.float64)
    weight.data = (1.0 + np.log(weight.data)) * rarity[weight.indices]
    return weight


def vocabulary_tables(counts: Counts, weighing: Weighing, words: float, pieces: float) -> Tables:
    """The tables of `protocol.reading.words.Vocabulary`."""
    at = np.flatnonzero(weighing.known)
    return {
        "words_vocabulary": packed_names([counts.names[i] for i in at]),
        "words_idf": weighing.idf[at].astype(np.float32),
        "words_unknown": np.array([weighing.unknown], dtype=np.float32),
        "words_blocks": np.array([words, pieces], dtype=np.float32),
        "words_shape": np.array(counts.shape.row(), dtype=np.int64),
    }
