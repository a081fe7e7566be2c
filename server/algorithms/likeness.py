"""How alike items are, by their words and by who chose them; in blocks of rows, pruned, so no dense item × item is stored.

TF-IDF (Salton & Buckley 1988) for words, cosine with a shrunk denominator (Bell & Koren 2007) for choices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Dense = NDArray[np.float32]
BLOCK = 512


def text_rows(texts: Sequence[str]) -> sparse.csr_matrix:
    """TF-IDF of words and word pairs, rows of length 1 [I, V]; an item without words has an empty row."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), stop_words="english", dtype=np.float32)
    if not any(words.build_analyzer()(text) for text in texts):
        return sparse.csr_matrix((len(texts), 1), dtype=np.float32)
    return words.fit_transform(texts).tocsr()


def cosine(matrix: sparse.csr_matrix, shrinkage: float, kept: int) -> sparse.csr_matrix:
    """Cosine between columns of a 0/1 matrix [R, I], the strongest `kept` of each row [I, I]; nothing is like itself."""
    by_item = matrix.T.tocsr()
    size = np.sqrt(np.asarray(matrix.sum(axis=0)).ravel())
    rows = []
    for start in range(0, by_item.shape[0], BLOCK):
        like = dense(by_item[start : start + BLOCK] @ matrix)
        like /= size[start : start + BLOCK][:, None] * size[None, :] + shrinkage + 1e-9
        like[np.arange(len(like)), start + np.arange(len(like))] = 0
        rows.append(strongest(like, kept))
    return sparse.vstack(rows).tocsr()


def word_neighbours(text: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """Squared cosine to the `most` items of the likest words, as shares that add up to 1 [I, I]."""
    rows = []
    for start in range(0, text.shape[0], BLOCK):
        like = dense(text[start : start + BLOCK] @ text.T) ** 2
        like[np.arange(len(like)), start + np.arange(len(like))] = 0
        near = strongest(like, most)
        rows.append(scaled_rows(near, 1 / (np.asarray(near.sum(axis=1)).ravel() + 1e-9)))
    return sparse.vstack(rows).tocsr()


def to_profiles(profiles: sparse.csr_matrix, vectors: sparse.csr_matrix) -> Dense:
    """Σ_j profile_j · cosine(j, i) over the others j ≠ i [B, I], for vectors of length 1 [I, V]."""
    own = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()
    return np.asarray(np.maximum(dense((profiles @ vectors) @ vectors.T) - dense(profiles.multiply(own[None, :])), 0))


def strongest(like: Dense, most: int) -> sparse.csr_matrix:
    """The `most` largest of each row of [R, I] (ties with the last of them stay too); changes `like`."""
    if most < like.shape[1]:
        like[like < np.partition(like, -most, axis=1)[:, -most][:, None]] = 0
    return sparse.csr_matrix(like)


def scaled_rows(matrix: sparse.csr_matrix, factor: NDArray[np.floating] | NDArray[np.bool_]) -> sparse.csr_matrix:
    """Each row times its factor [R]."""
    return (sparse.diags(factor.astype(np.float32)) @ matrix).tocsr()


def dense(matrix: sparse.spmatrix) -> Dense:
    """As an array of float32."""
    return np.asarray(matrix.toarray(), dtype=np.float32)
