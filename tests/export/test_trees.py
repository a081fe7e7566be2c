"""Trees, rules and linear scores as tables: what the library says, the gateway says, with reasons that add up."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from export import to_trees
from protocol.errors import BadBundle, Refused
from protocol.tables import Tables, Trees
from server.algorithms.rule_list import Condition


def rows(seed: int, count: int = 500) -> np.ndarray:
    """Two numeric columns and two of codes, a tenth missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4))
    x[:, 1] = rng.integers(3, 12, count)
    x[:, 3] = rng.integers(0, 40, count) * 3
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


def target(x: np.ndarray) -> np.ndarray:
    known = np.nan_to_num(x)
    return (known[:, 0] + known[:, 1] % 3 + known[:, 3] % 5 > 3.5).astype(int)


def asked() -> np.ndarray:
    x = rows(2, 80)
    x[:10, 1] = 200.0  # codes that no training row had
    x[10:20, 3] += 1.0
    x[20] = np.nan
    x[21, 0] = 1e300
    return x


@pytest.mark.parametrize("categorical", [None, [1, 3], [3]])
@pytest.mark.parametrize("classes", [2, 3])
def test_boosted_trees_answer_as_the_library_does_with_gaps_and_unknown_codes(
    categorical: list[int] | None, classes: int
) -> None:
    x = rows(1)
    y = target(x) + (np.nan_to_num(x[:, 2]) > 0 if classes == 3 else 0)
    model = HistGradientBoostingClassifier(max_iter=12, categorical_features=categorical, random_state=0).fit(x, y)
    trees = Trees(to_trees.boosted_trees(model))
    expected = model.predict_proba(asked())
    got = trees.probability(asked())
    np.testing.assert_allclose(got, expected if classes == 3 else expected[:, 1:], atol=1e-12)


def test_a_regression_answers_in_the_unit_of_its_target() -> None:
    x = rows(3)
    model = HistGradientBoostingRegressor(max_iter=12, random_state=0).fit(x, 3.0 * np.nan_to_num(x[:, 0]) + 7.0)
    trees = Trees(to_trees.boosted_trees(model))
    np.testing.assert_allclose(trees.probability(asked())[:, 0], model.predict(asked()), atol=1e-10)


def everything() -> Tables:
    """Rules, trees and a linear part together."""
    x = rows(1)
    model = HistGradientBoostingClassifier(max_iter=8, categorical_features=[1], random_state=0).fit(x, target(x))
    rules = [((Condition(0, True, 0.5), Condition(2, False, 0.0)), 4.0, 0.1), ((Condition(3, True, 60.0),), -2.0, 0.4)]
    ruled = to_trees.summed(to_trees.rule_trees(rules, 0.25, 4), to_trees.boosted_trees(model))
    straight = to_trees.linear_table(np.array([0.5, 0.0, -1.0, 0.01]), np.array([0.1, 7.0, 0.0, 60.0]), -0.5)
    return to_trees.summed(straight, to_trees.scaled(ruled, 0.3))


def test_contributions_and_the_expected_score_sum_to_the_score_exactly() -> None:
    for tables in (everything(), to_trees.side_by_side([everything(), everything()])):
        trees = Trees(tables)
        expected, shares = trees.contributions(asked())
        np.testing.assert_allclose(expected + shares.sum(axis=1), trees.raw(asked()), atol=1e-12)


def test_a_rule_adds_its_weight_where_all_its_conditions_hold_and_a_gap_fails_it() -> None:
    rule = [((Condition(0, True, 1.0), Condition(1, False, 5.0)), 3.0, 0.2)]
    trees = Trees(to_trees.rule_trees(rule, -1.0, 2))
    x = np.array([[2.0, 5.0], [1.0, 5.0], [2.0, 5.1], [np.nan, 5.0], [2.0, np.nan]])
    np.testing.assert_allclose(trees.raw(x)[:, 0], [2.0, -1.0, -1.0, -1.0, -1.0])


def test_models_side_by_side_keep_their_own_scores() -> None:
    one, other = everything(), to_trees.rule_trees([((Condition(0, True, 0.5),), 2.0, 0.1)], 3.0, 4)
    both = Trees(to_trees.side_by_side([one, other, one])).raw(asked())
    for k, alone in enumerate((one, other, one)):
        np.testing.assert_allclose(both[:, k], Trees(alone).raw(asked())[:, 0], atol=1e-12)
    with pytest.raises(ValueError, match="center"):
        to_trees.side_by_side([one, to_trees.linear_table(np.ones(4), np.ones(4), 0.0)])


def test_a_calibrated_map_is_linear_between_knots_and_flat_outside() -> None:
    straight = to_trees.linear_table(np.ones(1), np.zeros(1), 0.0)
    trees = Trees(to_trees.calibrated(straight, np.array([-1.0, 1.0]), np.array([0.1, 0.5])))
    np.testing.assert_allclose(trees.probability(np.array([[-9.0], [0.0], [9.0]]))[:, 0], [0.1, 0.3, 0.5])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("left", np.zeros(3, dtype=np.int32)),
        ("feature", np.array([7, -1, -1], dtype=np.int32)),
        ("root", np.array([9], dtype=np.int32)),
        ("bitset", np.array([5, -1, -1], dtype=np.int32)),
        ("value", np.array([np.nan, 0.0, 0.0])),
        ("class_of", np.array([3], dtype=np.int32)),
    ],
)
def test_trees_that_point_outside_or_back_are_refused(name: str, value: np.ndarray) -> None:
    tables = to_trees.rule_trees([((Condition(0, True, 1.0),), 1.0, 0.5)], 0.0, 1)
    with pytest.raises(BadBundle):
        Trees({**tables, name: value})


def test_knots_that_fall_and_rows_of_another_width_are_refused() -> None:
    straight = to_trees.linear_table(np.ones(2), np.zeros(2), 0.0)
    with pytest.raises(BadBundle, match="rise"):
        Trees(to_trees.calibrated(straight, np.array([1.0, -1.0]), np.array([0.1, 0.5])))
    with pytest.raises(Refused, match="2 features"):
        Trees(straight).raw(np.zeros((3, 5)))
    assert Trees(straight).raw(np.zeros((0, 2))).shape == (0, 1)
