"""Content-based filtering: items by what is known of them, so that one that nobody has chosen yet can be recommended.

Lops, de Gemmis & Semeraro 2011; latent semantic analysis (Deerwester et al. 1990) as the sentence embedding; and, where
choices are known, a ridge from words to the items' places in the collaborative space (Gantner et al. 2010, attribute-to-
feature mapping), which tells what of a description decides. A profile is the strength-weighted mean of its items' vectors;
a score is the cosine with it. An item without words has a zero vector and scores 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from protocol.catalogue import ItemCard
from protocol.tables.checked import Tables
from protocol.text_vectors import counted
from protocol.windows import Floats

PLACES = 4096
"""Hashed places; beyond some thousand features they begin to share."""
FEW = 500
"""Rows or columns up to which all axes are computed."""
UNEVEN = 1e-3


class Encoder(Protocol):
    """Cards in, unit vectors [n, d] out: latent semantic analysis here, a language model where one is trained."""

    def encode(self, cards: Sequence[ItemCard]) -> Floats: ...


@dataclass(frozen=True)
class ContentSettings:
    """dimensions: d at most. places: h. mapped: how much of the vector comes from the map to the collaborative space (0:
    words alone). ridge: its penalty."""

    dimensions: int = 64
    places: int = PLACES
    mapped: float = 0.0
    ridge: float = 1.0


@dataclass(frozen=True)
class FittedContent:
    """idf [h]; projection [h, d]: an `Encoder`."""

    idf: Floats
    projection: Floats

    def encode(self, cards: Sequence[ItemCard]) -> Floats:
        """Unit vectors [n, d]; a zero row for a card that says nothing known."""
        return unit(word_counts(cards, len(self.idf)) @ (self.idf[:, None] * self.projection))

    def tables(self) -> Tables:
        """What `protocol.text_vectors.TextVectors` reads: int8, one scale a row."""
        scale = np.abs(self.projection).max(axis=1, initial=0.0) / 127
        whole = np.round(self.projection / np.where(scale > 0, scale, 1.0)[:, None])
        return {
            "text_idf": self.idf.astype(np.float32),
            "text_projection": whole.astype(np.int8),
            "text_row_scale": scale.astype(np.float32),
        }


def fit_content(
    cards: Sequence[ItemCard], settings: ContentSettings, chosen: sparse.csr_matrix | None = None
) -> FittedContent:
    """Learned from the cards of n items, and from who chose them ([U, n] > 0) where `settings.mapped` asks for it."""
    return content_axes(cards, settings, chosen if settings.mapped else None).at(settings.mapped)


@dataclass(frozen=True)
class ContentAxes:
    """idf [h]; words [h, k]: what is said; mapping [h, f]: where in the collaborative space that is, or None."""

    idf: Floats
    words: Floats
    mapping: Floats | None

    def at(self, mapped: float) -> FittedContent:
        """So much of the map, the rest words."""
        if self.mapping is None or not mapped:
            return FittedContent(self.idf, self.words)
        both = [self.words * np.sqrt(1 - mapped), self.mapping * np.sqrt(mapped)]
        return FittedContent(self.idf, np.hstack(both))


def content_axes(cards: Sequence[ItemCard], settings: ContentSettings, chosen: sparse.csr_matrix | None) -> ContentAxes:
    """What any share of the map is made of; both halves are equally long on average."""
    counts = word_counts(cards, settings.places)
    seen = np.bincount(counts.indices, minlength=settings.places)
    idf = np.where(seen > 0, np.log((1 + len(cards)) / (1 + seen)) + 1, 0.0)
    rows = sparse.csr_matrix(normalised(counts @ sparse.diags(idf)))
    axes = latent(rows, settings.dimensions)  # [h, k]
    if chosen is None or not chosen.nnz:
        return ContentAxes(idf, axes, None)
    wide = latent(rows, min(4 * settings.dimensions, 256))
    known = np.asarray((chosen > 0).sum(axis=0)).ravel() > 0
    places = item_places(chosen, settings.dimensions)[known]
    inputs = (rows @ wide)[known]
    gram = inputs.T @ inputs + settings.ridge * np.eye(inputs.shape[1])
    mapping = wide @ np.linalg.solve(gram, inputs.T @ places)  # [h, f]
    return ContentAxes(idf, axes / _mean_size(unit(rows @ axes)), mapping / _mean_size(rows @ mapping))


def _mean_size(vectors: Floats) -> float:
    """Root mean square length of vectors [n, d]; 1 where all are empty."""
    return float(np.sqrt(np.square(vectors).sum(axis=1).mean())) or 1.0 if len(vectors) else 1.0


def item_places(chosen: sparse.csr_matrix, factors: int) -> Floats:
    """Items [n] in the collaborative space [n, f]: right singular vectors of the choices, both sides of unit length, so
    that popularity does not decide."""
    rows = normalised(sparse.csr_matrix(chosen > 0, dtype=np.float64))
    columns = np.sqrt(np.maximum(np.asarray(rows.multiply(rows).sum(axis=0)).ravel(), 1e-12))
    return unit(latent(sparse.csr_matrix(rows @ sparse.diags(1 / columns)), factors, scaled=True))


def latent(rows: sparse.csr_matrix, dimensions: int, *, scaled: bool = False) -> Floats:
    """Leading right singular vectors [columns, k], k at most `dimensions`; scaled: times their singular values. The same data
    gives the same vectors: signs are fixed, and of rows that are alike in size the first counts a little more, so that no two
    axes are equal."""
    count = rows.shape[0]
    order = sparse.diags(1 - UNEVEN * np.arange(count) / max(count, 1))
    left = sparse.csr_matrix(order @ rows, dtype=np.float64)
    values, right = _few_axes(left, dimensions) if min(rows.shape) <= FEW else _many_axes(left, dimensions)
    kept = values > 1e-6 * values.max(initial=0.0)
    if not kept.any():
        return np.eye(rows.shape[1], max(dimensions, 1))
    values, right = values[kept], right[kept]
    right = right * np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])[:, None]
    made = (right * values[:, None] if scaled else right).T
    return np.asarray(np.round(made, 9))  # the last bits depend on where arrays lie in memory


def _few_axes(rows: sparse.csr_matrix, dimensions: int) -> tuple[Floats, Floats]:
    """(singular values, right vectors [k, columns]), largest first, through the smaller side's products."""
    wide = rows.shape[1] > rows.shape[0]
    squares, axes = np.linalg.eigh((rows @ rows.T if wide else rows.T @ rows).toarray())
    squares, axes = squares[::-1][:dimensions], axes[:, ::-1][:, :dimensions]
    values = np.sqrt(np.maximum(squares, 0.0))
    right = np.asarray(rows.T @ axes) / np.where(values > 0, values, 1.0) if wide else axes
    return values, right.T


def _many_axes(rows: sparse.csr_matrix, dimensions: int) -> tuple[Floats, Floats]:
    _, values, right = svds(rows, k=min(dimensions, min(rows.shape) - 1), v0=np.ones(min(rows.shape)))
    order = np.argsort(-values, kind="stable")
    return values[order], right[order]


def word_counts(cards: Sequence[ItemCard], places: int) -> sparse.csr_matrix:
    """Damped counts of hashed features [n, h]."""
    rows = [counted(card.text, card.attributes, places) for card in cards]
    indptr = np.cumsum([0, *(len(at) for at, _ in rows)])
    ids = np.concatenate([at for at, _ in rows]) if rows else np.zeros(0, dtype=np.int64)
    data = np.concatenate([count for _, count in rows]) if rows else np.zeros(0)
    return sparse.csr_matrix((data, ids, indptr), shape=(len(rows), places))


def normalised(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows of unit length; empty ones stay empty."""
    size = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return sparse.diags(1 / np.where(size > 0, size, 1.0)) @ rows


def unit(vectors: Floats) -> Floats:
    """Rows of unit length; zeros stay zero."""
    size = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.where(size > 1e-12, size, 1.0), dtype=np.float64)


def content_rows(profiles: sparse.csr_matrix, vectors: Floats) -> Floats:
    """Cosine of each profile's mean vector with every item: [B, n] -> [B, n]."""
    return np.asarray(unit(np.asarray(profiles @ vectors)) @ unit(vectors).T)


def token_card(token: str) -> ItemCard:
    """What a bare token says of itself: "symptom:vibration:high" is an attribute and words."""
    kind, _, name = token.partition(":")
    return ItemCard(id=token, item=token, attributes={kind: name} if name else {}, text=name.replace("-", " "))
