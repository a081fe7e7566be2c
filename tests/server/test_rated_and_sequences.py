"""What the recommenders from ratings, ordered histories and orders promise, on small worlds whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from protocol.errors import Refused
from server.algorithms import baskets, likeness, listwise, rated_neighbours, sequences
from server.algorithms.baskets import BasketSettings, Line
from server.algorithms.rated_neighbours import Ratings, RatingSettings
from server.algorithms.sequences import Card


def taste(seed: int = 0, users: int = 60, items: int = 40) -> Ratings:
    """Two groups of users, two of items, biases on both sides; half of the pairs are rated."""
    rng = np.random.default_rng(seed)
    user_bias, item_bias = rng.normal(0, 0.4, users), rng.normal(0, 0.4, items)
    rows = []
    for u in range(users):
        for i in range(items):
            if rng.random() < 0.5:
                liked = 0.9 if u % 2 == i % 2 else -0.9
                rows.append((f"u{u}", f"i{i}", float(3 + user_bias[u] + item_bias[i] + liked + rng.normal(0, 0.3))))
    return rated_neighbours.ratings(rows, scale=(0.5, 5.0))


def judged(given: Ratings, settings: RatingSettings | None = None) -> tuple[float, float]:
    held = np.random.default_rng(9).random(len(given.value)) < 0.2
    truth, fitted = given.of(held), rated_neighbours.fit(given.of(~held), settings)
    base = np.clip(fitted.baseline.predict(truth.who, truth.what), given.lowest, given.highest)
    return rated_neighbours.rmse(truth.value, fitted.predict(truth.who, truth.what)), rated_neighbours.rmse(
        truth.value, base
    )


def test_neighbours_find_a_taste_that_biases_cannot_see() -> None:
    ours, biases = judged(taste())
    assert ours < 0.6 * biases


def test_a_residual_is_carried_as_the_paper_says() -> None:
    """Against the formula written out in numpy for one pair, item side and user side."""
    given = taste(1, 20, 12)
    settings = RatingSettings(neighbours=3, shrinkage=5.0)
    fitted = rated_neighbours.fit(given, settings)
    dense = np.full((20, 12), np.nan)
    dense[given.who, given.what] = fitted.residual
    user, item = int(given.who[0]), int(given.what[0])
    sides = fitted.sides(np.array([user]), np.array([item]))[0]
    assert sides[0] == pytest.approx(by_hand(dense.T, item, user, settings))
    assert sides[1] == pytest.approx(by_hand(dense, user, item, settings))


def by_hand(rows: np.ndarray, row: int, column: int, settings: RatingSettings) -> float:
    near = []
    for other in range(len(rows)):
        both = ~np.isnan(rows[row]) & ~np.isnan(rows[other])
        if other == row or math.isnan(rows[other, column]) or not both.any():
            continue
        x, y = rows[row, both], rows[other, both]
        like = (
            float(x @ y / np.sqrt((x @ x) * (y @ y) + 1e-12)) * (both.sum() - 1) / (both.sum() - 1 + settings.shrinkage)
        )
        if like > 0:
            near.append((like, rows[other, column]))
    best = sorted(near, reverse=True)[: settings.neighbours]
    weights = [like**settings.sharpness for like, _ in best]
    return sum(w * r for w, (_, r) in zip(weights, best, strict=True)) / (sum(weights) + settings.reserve)


def test_ratings_stay_in_the_scale_and_an_unknown_user_gets_the_usual() -> None:
    fitted = rated_neighbours.fit(taste())
    for user in ("u1", "nobody"):
        scores = fitted.scores(user)
        assert np.isfinite(scores).all()
        assert scores.min() >= 0.5
        assert scores.max() <= 5.0


def test_a_whole_list_says_what_single_pairs_say() -> None:
    fitted = rated_neighbours.fit(taste())
    what = np.arange(len(fitted.ratings.items))
    singly = fitted.predict(np.full(len(what), fitted.ratings.users.index("u7")), what)
    assert fitted.scores("u7") == pytest.approx(singly, abs=1e-9)


def test_rating_order_does_not_matter_and_the_last_of_a_pair_counts() -> None:
    rows = [("a", "x", 1.0), ("b", "x", 4.0), ("a", "y", float("nan")), ("a", "x", 5.0)]
    given = rated_neighbours.ratings(rows)
    assert (given.value.tolist(), given.dropped) == ([5.0, 4.0], 1)
    turned = rated_neighbours.ratings([("b", "x", 4.0), ("a", "x", 5.0)])
    assert given.who.tolist() == turned.who.tolist()
    with pytest.raises(Refused, match="no ratings"):
        rated_neighbours.ratings([("a", "x", float("inf"))])


def test_settings_are_chosen_by_the_error_on_ratings_not_seen() -> None:
    bad, good = RatingSettings(neighbours=1, shrinkage=1e6), RatingSettings()
    chosen, errors = rated_neighbours.choose(taste(), [bad, good])
    assert chosen == good
    assert errors[good] < errors[bad]


def test_list_weights_find_the_part_that_decides_and_ignore_noise() -> None:
    rng = np.random.default_rng(0)
    telling, noise = (rng.normal(size=(300, 30)).astype(np.float32) for _ in range(2))
    chosen = np.zeros((300, 30))
    chosen[np.arange(300), (2 * telling + rng.gumbel(size=(300, 30))).argmax(axis=1)] = 1
    weights = listwise.fit_weights([telling, noise], sparse.csr_matrix(chosen))
    assert weights == pytest.approx([2.0, 0.0], abs=0.25)
    with pytest.raises(Refused, match="no row has a choice"):
        listwise.fit_weights([telling, noise], sparse.csr_matrix((300, 30)))


def test_no_weight_is_learned_from_what_was_closed() -> None:
    part = np.array([[1.0, 0.0, 0.0]] * 20, dtype=np.float32)
    chosen = sparse.csr_matrix(np.array([[1.0, 1.0, 0.0]] * 20))
    closed = np.array([[True, False, False]] * 20)
    assert listwise.fit_weights([part], chosen, closed)[0] == pytest.approx(0.0, abs=1e-3)


def test_pruned_cosine_is_the_cosine() -> None:
    matrix = sparse.random(50, 20, 0.3, random_state=1, format="csr", dtype=np.float32)
    matrix.data[:] = 1
    whole = matrix.toarray()
    size = np.sqrt(whole.sum(axis=0))
    wanted = whole.T @ whole / (size[:, None] * size[None, :] + 2)
    np.fill_diagonal(wanted, 0)
    assert likeness.cosine(matrix, 2, 20).toarray() == pytest.approx(wanted, abs=1e-5)
    assert (likeness.cosine(matrix, 2, 3).getnnz(axis=1) >= 3).all()


CHAIN = ["pump", "seal", "bolt", "oil", "filter", "belt"]


def chains(seed: int = 0, users: int = 120) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(CHAIN), users)
    return [[CHAIN[(s + k) % len(CHAIN)] for k in range(int(rng.integers(2, 6)))] for s in starts]


def test_the_next_of_a_chain_comes_first() -> None:
    fitted = sequences.fit(chains())
    for place, name in enumerate(CHAIN):
        best = fitted.items[int(fitted.scores([CHAIN[place - 1], name]).argmax())]
        assert best == CHAIN[(place + 1) % len(CHAIN)]


def test_an_item_that_nobody_chose_is_reached_through_its_card() -> None:
    cards = {name: Card(f"the {name}", (f"brand:{name}",)) for name in CHAIN}
    cards["seal kit"] = Card("the seal", ("brand:seal",))
    cards["paint"] = Card("white paint")
    parts = sequences.learn_parts(chains(), cards)
    scores = dict(zip(parts.items, parts.scores(["seal"]), strict=True))
    assert scores["seal kit"] > scores["paint"]


def test_sequence_contributions_add_up_and_strange_histories_are_answered() -> None:
    fitted = sequences.fit(chains(), {"nut": Card()})
    because = fitted.because(["pump", "seal"], "bolt")
    place = fitted.items.index("bolt")
    assert sum(because.values()) == pytest.approx(fitted.scores(["pump", "seal"])[place], rel=1e-5)
    for history in ([], ["never seen"], ["pump"] * 50):
        assert np.isfinite(fitted.scores(history)).all()
    assert fitted.score_rows([]).shape == (0, len(fitted.items))


def test_the_order_of_the_sequences_does_not_matter() -> None:
    first, turned = sequences.fit(chains()), sequences.fit(chains()[::-1])
    assert np.array_equal(first.scores(["pump", "seal"]), turned.scores(["pump", "seal"]))


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: sequences.fit([["pump"], []]),
        lambda: sequences.learn_parts([]),
        lambda: sequences.learn_weights(sequences.learn_parts(chains()), [["pump"]], ["never seen"]),
    ],
)
def test_too_little_order_is_refused(attempt: Callable[[], object]) -> None:
    with pytest.raises(Refused):
        attempt()


def orders(seed: int = 0, customers: int = 80, days: int = 200) -> list[Line]:
    """Two kinds of customers that buy from two halves of the catalogue, and `lamp`, which everybody takes up late."""
    rng = np.random.default_rng(seed)
    lines = []
    for c in range(customers):
        own = [f"part {i:02d}" for i in range(60) if i % 2 == c % 2]
        for n, day in enumerate(sorted(rng.uniform(0, days, 12))):
            items = rng.choice(own, 2, replace=False).tolist()
            lines += [Line(f"c{c}", item, f"{c}-{n}", float(day), float(rng.integers(1, 9)), 2.0) for item in items]
            if day > days - 60 and rng.random() < 0.3:
                lines.append(Line(f"c{c}", "lamp", f"{c}-{n}", float(day)))
    return lines


SETTINGS = BasketSettings(horizon_days=25.0)


def test_new_items_come_from_the_customers_own_half() -> None:
    given = baskets.purchases(orders())
    fitted = baskets.fit(given, settings=SETTINGS)
    hits = []
    for c in range(20):
        scores = fitted.scores(f"c{c}")
        names = [given.items[i] for i in np.argsort(-scores, kind="stable")[:3] if np.isfinite(scores[i])]
        hits += [name == "lamp" or int(name[-2:]) % 2 == c % 2 for name in names]
    assert np.mean(hits) > 0.9


def test_what_was_bought_is_no_candidate_unless_repeats_are_meant() -> None:
    given = baskets.purchases(orders())
    had = {given.items[i] for i in given.matrix()[given.customers.index("c3")].indices}
    scores = dict(zip(given.items, baskets.fit(given, settings=SETTINGS).scores("c3"), strict=True))
    assert {name for name, score in scores.items() if score == -np.inf} == had
    repeated = baskets.fit(given, settings=SETTINGS, again=True).scores("c3")
    assert np.isfinite(repeated).all()


def test_a_new_customer_gets_what_moves_now() -> None:
    fitted = baskets.fit(baskets.purchases(orders()), settings=SETTINGS)
    scores = fitted.scores("never seen")
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0
    because = fitted.because("never seen", "lamp")
    assert sum(because.values()) == pytest.approx(scores[fitted.parts.items.index("lamp")], rel=1e-4)
    assert {name for name, value in because.items() if value} <= set(baskets.SHARED)


def test_nothing_after_the_day_asked_for_is_looked_at() -> None:
    lines = orders()
    later = [Line("c0", "part 01", "late", 300.0 + n, 50.0) for n in range(40)]
    names = baskets.purchases(lines + later)
    with_later = baskets.fit(names, settings=SETTINGS, now_day=201.0).score_rows(np.arange(5))
    without = baskets.fit(names.between(-math.inf, 201.0), settings=SETTINGS, now_day=201.0).score_rows(np.arange(5))
    assert np.array_equal(with_later, without)


def test_cancellations_are_dropped_and_counted_and_line_order_does_not_matter() -> None:
    lines = orders(customers=30)
    bad = [replace(lines[0], quantity=q) for q in (-3.0, 0.0, float("nan"))]
    given = baskets.purchases(lines + bad)
    assert given.dropped == 3
    turned = baskets.fit(baskets.purchases((lines + bad)[::-1]), settings=SETTINGS)
    assert np.array_equal(turned.scores("c1"), baskets.fit(given, settings=SETTINGS).scores("c1"))
    with pytest.raises(Refused, match="positive quantity"):
        baskets.purchases(bad)


def test_strange_lines_never_make_a_score_that_is_no_number() -> None:
    lines = [replace(x, price=price) for x, price in zip(orders(), [float("nan"), 0.0, -1.0, 1e9] * 1000, strict=False)]
    lines += [replace(lines[3], quantity=1e12)] * 5
    scores = baskets.fit(baskets.purchases(lines), settings=SETTINGS).scores("c3")
    assert not np.isnan(scores).any()
    assert not np.isposinf(scores).any()


def test_a_history_too_short_for_a_window_is_refused() -> None:
    with pytest.raises(Refused, match="longer history"):
        baskets.fit(baskets.purchases([Line("a", "x", "1", 0.0), Line("b", "y", "2", 0.5)]))
