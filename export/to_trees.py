"""Boosted trees of scikit-learn and learned rules become one set of tables (protocol/tables/trees.py). Thresholds stay
float64: an edge that moved by a rounding would send a row the other way.

Inner nodes carry the mean of the leaves below, weighted by the training rows that passed: the shares of a score are
differences of these means (Saabas 2014)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.tables import Tables
from protocol.windows import Floats

HIGHEST = float(np.finfo(np.float64).max)


class Condition(Protocol):
    """A threshold of a rule: the feature at most the threshold, or above it."""

    @property
    def feature(self) -> int: ...
    @property
    def above(self) -> bool: ...
    @property
    def threshold(self) -> float: ...


@dataclass
class _Nodes:
    root: list[int] = field(default_factory=list)
    class_of: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    missing_left: list[bool] = field(default_factory=list)
    bitset: list[int] = field(default_factory=list)
    bitsets: list[NDArray[np.uint8]] = field(default_factory=list)

    def leaf(self, value: float) -> int:
        """A new node that ends a path; split() may turn it into a question."""
        self.feature.append(-1)
        self.threshold.append(0.0)
        self.left.append(0)
        self.right.append(0)
        self.value.append(value)
        self.missing_left.append(False)
        self.bitset.append(-1)
        return len(self.feature) - 1

    def tables(self, bias: Floats, features: int) -> Tables:
        """As the gateway reads them."""
        return {
            "root": np.array(self.root, dtype=np.int32),
            "class_of": np.array(self.class_of, dtype=np.int32),
            "feature": np.array(self.feature, dtype=np.int32),
            "threshold": np.array(self.threshold, dtype=np.float64),
            "left": np.array(self.left, dtype=np.int32),
            "right": np.array(self.right, dtype=np.int32),
            "value": np.array(self.value, dtype=np.float64),
            "missing_left": np.array(self.missing_left, dtype=np.uint8),
            "bitset": np.array(self.bitset, dtype=np.int32),
            "bitsets": np.stack(self.bitsets) if self.bitsets else np.zeros((0, 1), dtype=np.uint8),
            "bias": np.asarray(bias, dtype=np.float64),
            "feature_count": np.array([features], dtype=np.int32),
        }


def boosted_trees(model: Any) -> Tables:
    """Tables of a fitted HistGradientBoostingClassifier or -Regressor, numeric and categorical features alike
    (categories are the codes 0..255 that it was fitted with)."""
    places, codes = _feature_places(model)
    nodes = _Nodes()
    for iteration in model._predictors:
        for k, predictor in enumerate(iteration):
            _append_predictor(nodes, predictor, k, places, codes)
    bias = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
    tables = nodes.tables(bias, int(model.n_features_in_))
    if not hasattr(model, "classes_"):
        tables["regression"] = np.ones(1, dtype=np.uint8)
    return tables


def rule_trees(rules: Sequence[tuple[Iterable[Condition], float, float]], bias: float, features: int) -> Tables:
    """One chain of questions a rule: (its conditions, the weight it adds where all hold, the share of rows it holds for).
    A missing value fails a condition."""
    nodes = _Nodes()
    for conditions, weight, share in rules:
        chain = list(conditions)
        nodes.root.append(len(nodes.feature))
        nodes.class_of.append(0)
        at = nodes.leaf(weight * share)
        for i, condition in enumerate(chain):
            passed = weight * share ** (1 - (i + 1) / len(chain))
            held, failed = nodes.leaf(passed), nodes.leaf(0.0)
            nodes.feature[at], nodes.threshold[at] = condition.feature, condition.threshold
            nodes.left[at], nodes.right[at] = (failed, held) if condition.above else (held, failed)
            nodes.missing_left[at] = condition.above
            at = held
    return nodes.tables(np.array([bias]), features)


def linear_table(slope: Floats, center: Floats, bias: float) -> Tables:
    """A linear score alone: bias + slope [F] * (x - center [F]); no trees."""
    return {
        **_Nodes().tables(np.array([bias]), len(slope)),
        "slope": np.asarray(slope, dtype=np.float64)[None],
        "center": np.asarray(center, dtype=np.float64),
    }


def summed(first: Tables, second: Tables) -> Tables:
    """Tables whose raw score is the sum of both, over the same features and classes."""
    shift = len(first["feature"])
    both: Tables = {}
    for name in ("class_of", "feature", "threshold", "value", "missing_left"):
        both[name] = np.concatenate([first[name], second[name]])
    for name in ("root", "left", "right"):
        both[name] = np.concatenate([first[name], np.asarray(second[name]) + shift]).astype(np.int32)
    width = max(first["bitsets"].shape[1], second["bitsets"].shape[1])
    padded = [np.pad(t["bitsets"], ((0, 0), (0, width - t["bitsets"].shape[1]))) for t in (first, second)]
    both["bitsets"] = np.concatenate(padded)
    later = np.asarray(second["bitset"], dtype=np.int64)
    both["bitset"] = np.concatenate([first["bitset"], np.where(later >= 0, later + len(first["bitsets"]), -1)]).astype(
        np.int32
    )
    both["bias"] = np.asarray(first["bias"], dtype=np.float64) + np.asarray(second["bias"], dtype=np.float64)
    both["feature_count"] = first["feature_count"]
    for name in ("slope", "center", "regression"):  # at most one of the two has a linear part
        if name in first or name in second:
            both[name] = first[name] if name in first else second[name]
    return both


def scaled(tables: Tables, factor: float) -> Tables:
    """The tables with every score times `factor`."""
    return {
        name: np.asarray(array, dtype=np.float64) * factor if name in ("value", "bias", "slope") else array
        for name, array in tables.items()
    }


def side_by_side(models: Sequence[Tables]) -> Tables:
    """Tables of several single-score models over the same features, as independent classes 0, 1, … Linear parts must have
    one center; raises ValueError otherwise."""
    bent = [{name: array for name, array in model.items() if name not in ("slope", "center")} for model in models]
    together = bent[0]
    for k, model in enumerate(bent[1:], start=1):
        together = summed(together, {**model, "class_of": np.full(len(model["root"]), k, dtype=np.int32)})
    together["bias"] = np.array([float(np.asarray(model["bias"])[0]) for model in models])
    together["independent"] = np.ones(1, dtype=np.uint8)
    straight = [model for model in models if "slope" in model]
    if straight:
        center = np.asarray(straight[0]["center"], dtype=np.float64)
        if any(not np.array_equal(model["center"], center) for model in straight):
            raise ValueError("linear parts side by side need one center")
        none = np.zeros((1, len(center)))
        together["slope"] = np.concatenate([np.asarray(model.get("slope", none), np.float64) for model in models])
        together["center"] = center
    return together


def calibrated(tables: Tables, knots: Floats, heights: Floats) -> Tables:
    """The tables with a calibrated map [K, P] of the raw score in place of the logistic function."""
    return {
        **tables,
        "knots": np.atleast_2d(np.asarray(knots, dtype=np.float64)),
        "heights": np.atleast_2d(np.asarray(heights, dtype=np.float64)),
    }


def _feature_places(model: Any) -> tuple[NDArray[np.int64], dict[int, NDArray[np.int64]]]:
    """Where scikit-learn keeps which of our columns (categorical ones first), and the codes behind its ordinals."""
    count = int(model.n_features_in_)
    chosen = model.is_categorical_
    if chosen is None:
        return np.arange(count), {}
    ours = np.r_[np.flatnonzero(chosen), np.flatnonzero(~np.asarray(chosen))].astype(np.int64)
    encoder = model._preprocessor.named_transformers_["encoder"]
    codes: dict[int, NDArray[np.int64]] = {}
    for place, categories in enumerate(encoder.categories_):
        known = np.asarray(categories, dtype=np.float64)
        codes[place] = known[np.isfinite(known)].astype(np.int64)
    return ours, codes


def _append_predictor(
    nodes: _Nodes, predictor: Any, k: int, places: NDArray[np.int64], codes: dict[int, NDArray[np.int64]]
) -> None:
    rows = predictor.nodes
    first = len(nodes.feature)
    nodes.root.append(first)
    nodes.class_of.append(k)
    expected = _expected_values(rows)
    for i, row in enumerate(rows):
        at = nodes.leaf(float(expected[i]))
        if row["is_leaf"]:
            continue
        place = int(row["feature_idx"])
        nodes.feature[at] = int(places[place])
        nodes.left[at], nodes.right[at] = first + int(row["left"]), first + int(row["right"])
        nodes.missing_left[at] = bool(row["missing_go_to_left"])
        if row["is_categorical"]:
            words = predictor.raw_left_cat_bitsets[row["bitset_idx"]]
            nodes.bitset[at] = len(nodes.bitsets)
            nodes.bitsets.append(_bits(words, codes[place], nodes.missing_left[at]))
        else:
            nodes.threshold[at] = min(float(row["num_threshold"]), HIGHEST)


def _bits(words: NDArray[np.uint32], codes: NDArray[np.int64], missing_left: bool) -> NDArray[np.uint8]:
    """Bit per original code; a code that training never saw goes the missing values' way."""
    bits = np.full(256, missing_left, dtype=np.uint8)
    for ordinal, code in enumerate(codes):
        bits[code] = (int(words[ordinal // 32]) >> (ordinal % 32)) & 1
    return bits


def _expected_values(rows: Any) -> Floats:
    """Every node's mean of the leaves below, by training rows; children come after their parents."""
    value = np.array(rows["value"], dtype=np.float64)
    count = np.array(rows["count"], dtype=np.float64)
    for i in range(len(rows) - 1, -1, -1):
        if not rows["is_leaf"][i]:
            left, right = int(rows["left"][i]), int(rows["right"][i])
            total = max(count[left] + count[right], 1.0)
            value[i] = (count[left] * value[left] + count[right] * value[right]) / total
    return value
