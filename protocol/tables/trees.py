"""Decision trees as tables: boosted or averaged trees, learned rules and a linear part, scored in numpy, with exact reasons.

The raw score of a row is `bias` plus its linear part plus the value of the leaf it reaches in each tree. A probability
is a map of the raw score: the logistic function, or a calibrated curve through knots. The change of a node's expected
value along the path is a feature's share (Saabas 2014): bias plus all shares is the raw score, exactly."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason, Refused
from protocol.tables.checked import Tables, table
from protocol.windows import Floats

MOST_DEPTH = 64
LEAF = -1


class Trees:
    """T trees of M nodes together, for K classes (1: a single score).

    Tables: `root` int [T], first node of each tree; `class_of` int [T], the class a tree adds to; `feature` int [M]
    (-1: a leaf); `threshold` float [M]: a value at most this goes left; `left`, `right` int [M], later nodes than their
    parent; `value` float [M]: the expected sum of the leaves below, a leaf's own value at a leaf; `missing_left` uint8
    [M]: where a NaN goes; `bitset` int [M] (-1: numeric) and `bitsets` uint8 [B, W]: a categorical split sends code c
    left if bit c is set, an unknown code (negative, or beyond the bits) goes where a missing value goes; `bias` float
    [K]: the score before any leaf; `feature_count` int [1]. Optional: `knots` and `heights` float [K, P], rising: the
    calibrated map of a raw score, linear between knots and flat outside; without them a single score is logistic,
    several are softmax; `regression` uint8 [1] set: the score is the answer; `independent` uint8 [1] set: each class is
    a logistic score of its own; `slope` float [K, F] and `center` float [F]: the linear part is the sum of slope * (x -
    center), to which a missing value adds nothing."""

    def __init__(self, tables: Tables) -> None:
        self.root = np.asarray(table(tables, "root", "iu", (None,)), dtype=np.int64)
        self.class_of = np.asarray(table(tables, "class_of", "iu", (len(self.root),)), dtype=np.int64)
        self.feature = np.asarray(table(tables, "feature", "i", (None,)), dtype=np.int64)
        nodes = (len(self.feature),)
        self.threshold = np.asarray(table(tables, "threshold", "f", nodes), dtype=np.float64)
        self.left = np.asarray(table(tables, "left", "iu", nodes), dtype=np.int64)
        self.right = np.asarray(table(tables, "right", "iu", nodes), dtype=np.int64)
        self.value = np.asarray(table(tables, "value", "f", nodes), dtype=np.float64)
        self.missing_left = np.asarray(table(tables, "missing_left", "u", nodes), dtype=bool)
        self.bitset = np.asarray(table(tables, "bitset", "i", nodes), dtype=np.int64)
        self.bitsets = np.asarray(table(tables, "bitsets", "u", (None, None)), dtype=bool)
        self.bias = np.asarray(table(tables, "bias", "f", (None,)), dtype=np.float64)
        self.features = int(np.asarray(table(tables, "feature_count", "iu", (1,)))[0])
        self.regression = _is_set(tables, "regression")
        self.independent = len(self.bias) == 1 or _is_set(tables, "independent")
        self.slope, self.center = _linear_part(tables, len(self.bias), self.features)
        self.knots, self.heights = _curve(tables, len(self.bias))
        self._refuse_what_does_not_fit()
        self.depth = self._deepest()
        # bias of the shares: the class's bias plus what each tree expects at its root
        self.expected = self.bias + np.bincount(self.class_of, self.value[self.root], minlength=len(self.bias))

    def raw(self, x: Floats) -> Floats:
        """Scores [N, K] of rows x [N, F]; NaN is a missing value. Raises Refused for another width."""
        x = self._rows(x)
        leaf = self._descend(x)[-1]
        return self.bias + self._by_class(self.value[leaf]) + np.asarray(self._away(x) @ self.slope.T)

    def probability(self, x: Floats) -> Floats:
        """The mapped score [N, K]: chances, or the answer itself of a regression."""
        raw = self.raw(x)
        if self.knots is not None and self.heights is not None:
            return np.stack(
                [np.interp(raw[:, k], self.knots[k], self.heights[k]) for k in range(len(self.bias))], axis=1
            )
        if self.regression:
            return raw
        if self.independent:
            return np.asarray(0.5 * (1.0 + np.tanh(0.5 * raw)))
        odds = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def contributions(self, x: Floats) -> tuple[Floats, Floats]:
        """(`expected` [K], shares [N, F, K]): expected + the sum of a row's shares is its raw score."""
        x = self._rows(x)
        steps = self._descend(x)
        shares = self._away(x)[:, :, None] * self.slope.T[None]
        rows = np.broadcast_to(np.arange(len(x))[:, None], steps[0].shape)
        classes = np.broadcast_to(self.class_of, steps[0].shape)
        for node, child in pairwise(steps):
            inner = self.feature[node] != LEAF
            change = (self.value[child] - self.value[node])[inner]
            np.add.at(shares, (rows[inner], self.feature[node[inner]], classes[inner]), change)
        return self.expected, shares

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """Golden inputs: `x` [n, F]. Out: `raw` and `probability` [n, K], `shares` [n, F, K]."""
        x = np.asarray(inputs["x"], dtype=np.float64)
        return {"raw": self.raw(x), "probability": self.probability(x), "shares": self.contributions(x)[1]}

    def _rows(self, x: Floats) -> Floats:
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.features:
            raise Refused(Reason.WRONG_TYPE, f"rows of shape {x.shape}; these trees read {self.features} features")
        return x

    def _away(self, x: Floats) -> Floats:
        return np.where(np.isnan(x), 0.0, x - self.center)

    def _descend(self, x: Floats) -> list[NDArray[np.int64]]:
        """Node of each row in each tree [N, T] before every step; the last entry is the leaf."""
        at = np.broadcast_to(self.root, (len(x), len(self.root))).copy()
        steps = [at]
        rows = np.arange(len(x))[:, None]
        for _ in range(self.depth):
            feature = self.feature[at]
            seen = x[rows, np.maximum(feature, 0)]
            left = np.where(np.isnan(seen), self.missing_left[at], seen <= self.threshold[at])
            if len(self.bitsets):
                left = self._by_category(at, seen, left)
            at = np.where(feature == LEAF, at, np.where(left, self.left[at], self.right[at]))
            steps.append(at)
        return steps

    def _by_category(self, at: NDArray[np.int64], seen: Floats, left: NDArray[np.bool_]) -> NDArray[np.bool_]:
        which = self.bitset[at]
        known = np.isfinite(seen) & (seen >= 0) & (seen < self.bitsets.shape[1])
        code = np.where(known, seen, 0).astype(np.int64)
        chosen = np.where(known, self.bitsets[np.maximum(which, 0), code], self.missing_left[at])
        return np.where(which >= 0, chosen, left)

    def _by_class(self, leaves: Floats) -> Floats:
        summed = np.zeros((len(leaves), len(self.bias)))
        for k in range(len(self.bias)):
            summed[:, k] = leaves[:, self.class_of == k].sum(axis=1)
        return summed

    def _refuse_what_does_not_fit(self) -> None:
        count, inner = len(self.feature), self.feature != LEAF
        own = np.arange(count)[inner]
        sound = (
            bool(((self.root >= 0) & (self.root < count)).all())
            and bool(((self.class_of >= 0) & (self.class_of < len(self.bias))).all())
            and bool(((self.feature >= LEAF) & (self.feature < self.features)).all())
            and all(bool(((side[inner] > own) & (side[inner] < count)).all()) for side in (self.left, self.right))
            and bool((self.bitset < len(self.bitsets)).all())
        )
        if not sound:
            raise BadBundle(Reason.BAD_ARCHIVE, "trees point outside their tables or back to an earlier node")

    def _deepest(self) -> int:
        level = np.zeros(len(self.feature), dtype=np.int64)
        for node in np.flatnonzero(self.feature != LEAF):
            for child in (self.left[node], self.right[node]):
                level[child] = max(level[child], level[node] + 1)
        deepest = int(level.max(initial=0))
        if deepest > MOST_DEPTH:
            raise BadBundle(Reason.TOO_LARGE, f"a tree of depth {deepest}; at most {MOST_DEPTH}")
        return deepest


def _is_set(tables: Tables, name: str) -> bool:
    return name in tables and bool(np.asarray(table(tables, name, "u", (1,)))[0])


def _linear_part(tables: Tables, classes: int, features: int) -> tuple[Floats, Floats]:
    if "slope" not in tables:
        return np.zeros((classes, features)), np.zeros(features)
    slope = np.asarray(table(tables, "slope", "f", (classes, features)), dtype=np.float64)
    return slope, np.asarray(table(tables, "center", "f", (features,)), dtype=np.float64)


def _curve(tables: Tables, classes: int) -> tuple[Floats | None, Floats | None]:
    if "knots" not in tables:
        return None, None
    knots = np.asarray(table(tables, "knots", "f", (classes, None)), dtype=np.float64)
    heights = np.asarray(table(tables, "heights", "f", knots.shape), dtype=np.float64)
    if not knots.shape[1] or (np.diff(knots, axis=1) < 0).any():
        raise BadBundle(Reason.BAD_ARCHIVE, "the knots of a calibrated map must rise")
    return knots, heights
