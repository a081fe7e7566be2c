"""Events become one matrix, whatever is in them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from protocol.errors import Refused
from server.algorithms.interactions import DAY_MS, interactions, profile_row


def test_repeated_events_add_up_to_the_cap() -> None:
    made = interactions([("u", "a", 1.0, 1), ("u", "a", 2.0, 5), ("u", "b", 1.0, 2)], cap=10)
    assert made.users == ["u"]
    assert made.items == ["a", "b"]
    np.testing.assert_array_equal(made.matrix.toarray(), [[3.0, 1.0]])
    assert made.times_ms is not None
    np.testing.assert_array_equal(made.times_ms.toarray(), [[5, 2]])


def test_an_item_bought_a_million_times_is_one_capped_entry() -> None:
    made = interactions([("u", "a", 1e6, 1), ("u", "a", 1e300, 2), *[("v", "a", 1.0, 1)] * 1000], cap=10)
    np.testing.assert_array_equal(made.matrix.toarray(), [[10.0], [10.0]])


def test_an_event_halves_with_every_half_life_and_the_future_counts_as_now() -> None:
    events = [("u", "a", 1.0, 0), ("u", "b", 1.0, 10 * DAY_MS), ("u", "c", 1.0, 30 * DAY_MS)]
    made = interactions(events, half_life_days=10, now_ms=20 * DAY_MS)
    np.testing.assert_allclose(made.matrix.toarray(), [[0.25, 0.5, 1.0]])


def test_bad_quantities_are_dropped_and_counted_by_reason() -> None:
    nan, inf = float("nan"), float("inf")
    events = [("u", "a", -1.0, 1), ("u", "a", 0.0, 1), ("u", "a", nan, 1), ("u", "a", inf, 1), ("", "a", 1.0, 1)]
    made = interactions([*events, ("u", "b", 1.0, 1)])
    assert made.dropped == {"no_name": 1, "not_finite": 2, "not_positive": 2}
    assert made.items == ["b"]


def test_a_bad_quantity_is_refused_with_the_event_where_asked() -> None:
    with pytest.raises(Refused, match=r"event 1 .*not_positive"):
        interactions([("u", "a", 1.0, 1), ("u", "b", -2.0, 1)], refuse=True)
    with pytest.raises(Refused, match="no_time"):
        interactions([("u", "a", 1.0, None)], half_life_days=1, refuse=True)
    with pytest.raises(Refused, match="cap"):
        interactions([], cap=0)


def test_a_rejection_stays_where_it_is_a_verdict() -> None:
    made = interactions(
        [("u", "a", -1.0, 1), ("u", "b", 1.0, 1), ("u", "c", 1.0, 1), ("u", "c", -1.0, 2)], rejections=True
    )
    np.testing.assert_array_equal(made.matrix.toarray(), [[-1.0, 1.0, 0.0]])


def test_the_newest_rating_stands() -> None:
    made = interactions([("u", "a", 5.0, 9), ("u", "a", 2.0, 1), ("u", "b", 0.0, 1)], explicit=True, half_life_days=1)
    np.testing.assert_array_equal(made.matrix.toarray(), [[5.0, 0.0]])
    assert made.matrix.nnz == 2


def test_the_order_of_events_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    events = [
        (f"u{rng.integers(9)}", f"i{rng.integers(20)}", float(rng.random()), int(rng.integers(1, 9)))
        for _ in range(500)
    ]
    mixed = random.Random(1).sample(events, len(events))
    one, other = interactions(events, half_life_days=1e-7), interactions(mixed, half_life_days=1e-7)
    assert one.users == other.users
    assert one.items == other.items
    assert one.matrix.data.tobytes() == other.matrix.data.tobytes()
    np.testing.assert_array_equal(one.matrix.indices, other.matrix.indices)


def test_no_events_make_an_empty_matrix() -> None:
    made = interactions([])
    assert made.matrix.shape == (0, 0)
    assert made.times_ms is None


def test_a_profile_keeps_what_is_known_and_a_number() -> None:
    row = profile_row(["a", "b", "c"], {"c": 2.0, "x": 1.0, "a": float("nan"), "b": 0.0})
    np.testing.assert_array_equal(row.toarray(), [[0.0, 0.0, 2.0]])
