"""The simple references of spare-part demand, against numbers worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from protocol.errors import BadMessage
from protocol.windows import Floats
from server.algorithms import intermittent
from server.algorithms.intermittent import Rates

NAN = float("nan")
# demands 2 and 4, the first after two months, the second three months later
SERIES = [0.0, 2.0, 0.0, 0.0, 4.0, 0.0]
METHODS = [
    intermittent.mean,
    intermittent.ses,
    intermittent.croston,
    intermittent.sba,
    intermittent.tsb,
    intermittent.adida,
    intermittent.imapa,
]


def test_croston_and_sba_by_hand() -> None:
    size, interval = 2 + 0.1 * (4 - 2), 2 + 0.1 * (3 - 2)
    assert intermittent.croston(np.array([SERIES]), 0.1).rate[0] == pytest.approx(size / interval)
    assert intermittent.sba(np.array([SERIES]), 0.1).rate[0] == pytest.approx(0.95 * size / interval)


def test_tsb_by_hand() -> None:
    chance = 0.0
    for hit in (1, 0, 0, 1, 0):
        chance += 0.2 * (hit - chance)
    assert intermittent.tsb(np.array([SERIES]), 0.1, 0.2).rate[0] == pytest.approx(chance * 2.2)


def test_tsb_lets_a_dead_part_fade_and_croston_does_not() -> None:
    dead = np.array([[3.0, 3, 3, 3, *[0.0] * 20]])
    assert intermittent.tsb(dead, 0.2, 0.2).rate[0] < 0.1
    assert intermittent.croston(dead, 0.2).rate[0] == pytest.approx(3.0)


def test_adida_and_imapa_by_hand() -> None:
    series = np.array([[0.0, 2, 0, 2, 0, 2]])  # mean interval 2: blocks of two months hold 2 each
    assert intermittent.adida(series).rate[0] == pytest.approx(1.0)
    single = intermittent.imapa(series).rate[0]
    assert 0.0 < single < 2.0
    assert intermittent.imapa(np.array([[2.0, 2, 2]])).rate[0] == pytest.approx(2.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_month_moves_nothing(method: Callable[[Floats], Rates]) -> None:
    gaps = np.array([[NAN, NAN, *SERIES[:2], NAN, *SERIES[2:], NAN]])
    assert method(gaps).rate[0] == pytest.approx(method(np.array([SERIES])).rate[0])


@pytest.mark.parametrize("method", METHODS)
def test_bad_and_empty_histories(method: Callable[[Floats], Rates]) -> None:
    fleet = np.array([[NAN, NAN, NAN, NAN], [0.0, 0, 0, 0], [NAN, NAN, NAN, 4.0], [1.0, 1, 1, 1]])
    found = method(fleet)
    assert np.isfinite(found.rate).all()
    assert found.rate[0] == pytest.approx(8 / 9)  # the fleet's mean
    assert found.rate[1] == 0
    assert found.rate[3] == pytest.approx(1.0, rel=0.31)
    assert (found.variance >= found.rate).all()
    assert np.isfinite(found.month_quantile(0.95)).all()
    with pytest.raises(BadMessage, match="counts are 0 or more"):
        method(np.array([[1.0, -1.0]]))


def test_the_weight_is_chosen_part_by_part_on_the_parts_own_errors() -> None:
    rng = np.random.default_rng(2)
    noisy = rng.poisson(3.0, 60).astype(float)
    walking = np.repeat([1.0, 9.0, 2.0, 8.0], 15)
    found = intermittent.ses(np.array([noisy, walking]))
    assert found.rate[1] == pytest.approx(8.0, abs=0.1)
    assert found.rate[0] == pytest.approx(3.0, abs=0.8)


def test_the_empirical_quantile_is_that_of_recorded_months() -> None:
    history = np.array([[NAN, 0.0, 1.0, 2.0, 3.0], [NAN] * 5])
    found = intermittent.empirical_quantile(history, 0.5)
    assert found.tolist() == [1.5, 1.5]
    assert intermittent.empirical_quantile(np.full((1, 2), NAN), 0.5).tolist() == [0.0]
