"""Bounds: one place says how much packing may cost, and a refusal names the check and by how much it failed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export import bounds, parity
from export.bounds import ENCODER, FORECASTER, GRAPH, READER, RECOMMENDER, WRITER, Bound, bound_of
from export.bundle import judge
from export.strain import strained_error, strained_rows, strained_tokens
from protocol.bundles import Parity, Quality

EVERY = (FORECASTER, READER, ENCODER, WRITER, RECOMMENDER, GRAPH)


def cost(task: float = 0.0, rms: float = 0.0) -> Parity:
    return Parity(max_abs=rms, rel_rms=rms, task_change=task, n=9, bound="")


def test_each_family_has_its_bound_and_what_is_new_has_the_forecasters() -> None:
    assert bound_of("forecast", "lstm") is FORECASTER
    assert bound_of("fault", "hazard_net") is FORECASTER
    assert bound_of("recommend", "hybrid") is RECOMMENDER
    assert bound_of("generate", "reader") is READER
    assert bound_of("generate", "gpt") is WRITER
    assert (FORECASTER.most_task, FORECASTER.most_rms) == (0.005, 0.05)
    assert (READER.most_task, READER.points) == (0.005, True)
    assert WRITER.most_task == 0.01


@pytest.mark.parametrize(
    ("bound", "spent", "strained", "words"),
    [
        (FORECASTER, cost(task=0.0231), {}, "task error 2.31% worse, at most 0.50%"),
        (READER, cost(task=0.012), {}, "share of right answers 1.2 points worse, at most 0.5 points"),
        (WRITER, cost(rms=0.2), {}, "element rms 0.2, at most 0.1"),
        (
            FORECASTER,
            cost(),
            {"3 times the amplitude": 1.45},
            "element rms 1.45 with 3 times the amplitude, at most 0.15",
        ),
    ],
)
def test_what_broke_and_by_how_much_is_said(
    bound: Bound, spent: Parity, strained: dict[str, float], words: str
) -> None:
    assert words in bound.broken(spent, strained)
    assert not bound.broken(cost())


@pytest.mark.parametrize("bound", EVERY)
def test_what_could_not_be_measured_has_failed(bound: Bound) -> None:
    assert bound.broken(cost(rms=float("nan")))
    assert bound.broken(cost(), {"constant input": float("nan")})
    assert bool(bound.task) is bool(bound.broken(cost(task=float("nan"))))


@given(st.floats(-0.02, 0.02), st.floats(0, 0.2))
def test_within_its_bound_is_what_broke_nothing(task: float, rms: float) -> None:
    spent = cost(task, rms)
    within = task <= FORECASTER.most_task and rms <= FORECASTER.most_rms
    assert parity.within_bound(spent) is within
    assert (FORECASTER.broken(spent) == "") is within


def test_a_share_changes_by_points_and_an_error_by_its_own_size() -> None:
    assert READER.change(0.80, 0.79, lower_is_better=False) == pytest.approx(0.01)
    assert FORECASTER.change(2.0, 2.1, lower_is_better=True) == pytest.approx(0.05)
    same = np.ones((2, 3))
    assert parity.compare(same, same, 0.5, 0.45, lower_is_better=False, bound=READER).task_change == pytest.approx(0.05)


def test_the_gate_holds_a_reader_to_the_readers_bound() -> None:
    figure = Quality(
        metric="accuracy", lower_is_better=False, model=0.8, reference=0.7, reference_name="linear", split="", n=9
    )
    assert judge(figure, cost(task=0.004), READER)[0]
    passed, verdict = judge(figure, cost(task=0.006), READER)
    assert not passed
    assert "0.6 points worse, at most 0.5 points" in verdict
    assert judge(figure, cost(rms=0.08), bounds.WRITER)[0]


def test_strained_windows_are_loud_partly_missing_and_stuck() -> None:
    x = np.random.default_rng(1).normal(size=(5, 7, 3)).astype(np.float32)
    loud, missing, stuck = strained_rows(x).values()
    np.testing.assert_allclose(loud, 3 * x)
    assert [sorted(set(np.flatnonzero((row == 0).all(axis=0)))) for row in missing] == [[0], [1], [2], [0], [1]]
    assert (stuck == x[:, :1]).all()
    assert (np.ptp(strained_rows(x[:, 0])["constant input"], axis=0) == 0).all()


def test_strained_tokens_stay_in_the_vocabulary_and_as_long_as_they_were() -> None:
    rows = [[1, 2, 3], [4, 5]]
    for odd in strained_tokens(rows, 6).values():
        assert [len(row) for row in odd] == [3, 2]
        assert all(0 <= token < 6 for row in odd for token in row)


def test_an_error_where_answers_hardly_differ_counts_against_ordinary_ones() -> None:
    ordinary = np.array([0.0, 2.0])
    steady = {"constant input": np.full(4, 5.0)}
    assert strained_error(steady, {"constant input": np.full(4, 5.1)}, ordinary)["constant input"] == pytest.approx(0.1)
