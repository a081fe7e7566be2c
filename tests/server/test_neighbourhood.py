"""Neighbours of both sides agree with a dense reference, and strange matrices break nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from protocol.errors import Refused
from protocol.windows import Floats
from server.algorithms import linear_items
from server.algorithms.interactions import Interactions, interactions
from server.algorithms.linear_items import LinearSettings, blended
from server.algorithms.neighbourhood import NeighbourSettings, item_neighbours, neighbours, ranked, user_neighbours


def little(users: int = 40, items: int = 25, seed: int = 0, signed: bool = False) -> Interactions:
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 4, (users, items)) * (rng.random((users, items)) < 0.25)
    if signed:
        dense = dense * rng.choice([1, -1], dense.shape, p=[0.8, 0.2])
    dense[3], dense[:, 4] = 0, 0
    names = [f"u{k:03}" for k in range(users)], [f"i{k:03}" for k in range(items)]
    return Interactions(*names, sparse.csr_matrix(dense.astype(np.float32)))


def dense_similarity(rows: Floats, settings: NeighbourSettings) -> Floats:
    """Row r's weight for row s, the straight way."""
    norm = np.sqrt((rows**2).sum(axis=1))
    size = np.outer(norm ** (2 * settings.alpha), norm ** (2 * (1 - settings.alpha))) + settings.shrinkage
    share = np.maximum((rows != 0).sum(axis=1), 1.0) ** -settings.damping
    similarity = np.asarray(rows @ rows.T / np.where(size > 0, size, 1) * share)
    np.fill_diagonal(similarity, 0)
    for r, row in enumerate(similarity):
        order = np.lexsort((np.arange(len(row)), -np.round(np.abs(row), 6)))
        similarity[r, order[settings.neighbours :]] = 0
    return np.sign(similarity) * np.abs(similarity) ** settings.power


@pytest.mark.parametrize(
    "settings",
    [
        NeighbourSettings(),
        NeighbourSettings(neighbours=5),
        NeighbourSettings(neighbours=7, shrinkage=3.0, alpha=0.7, damping=0.2, power=2.0),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_both_sides_agree_with_a_dense_reference(settings: NeighbourSettings, signed: bool) -> None:
    events = little(signed=signed)
    x = events.matrix.toarray().astype(np.float64)
    by_item = dense_similarity(x.T, settings)
    found = item_neighbours(events, settings)
    np.testing.assert_allclose(np.abs(found.similarity.toarray()).sum(1), np.abs(by_item).sum(1), rtol=1e-4, atol=1e-6)
    if settings.neighbours == 100:
        np.testing.assert_allclose(found.similarity.toarray(), by_item, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.score_rows(events.matrix), x @ by_item, rtol=1e-4, atol=1e-5)


def test_answers_on_request_are_the_neighbours_votes() -> None:
    events, settings = little(), NeighbourSettings(neighbours=40)
    x = events.matrix.toarray().astype(np.float64)
    norm = np.maximum(np.sqrt((x**2).sum(axis=1)), 1e-12)
    cosine = x @ x.T / np.outer(norm, norm)
    model = user_neighbours(events, settings)
    np.testing.assert_allclose(model.score_rows(events.matrix), cosine @ x, rtol=1e-4, atol=1e-5)
    profile = {"i001": 1.0, "i002": 2.0, "unheard": 3.0}
    asked = np.zeros(25)
    asked[[1, 2]] = [1, 2]
    strengths = x @ asked / norm / np.sqrt(5)
    np.testing.assert_allclose(model.scores(profile), strengths @ x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weighting", ["none", "bm25", "tfidf", "log"])
def test_the_sides_are_one_function_and_a_transposition(weighting: str) -> None:
    events = little()
    settings = NeighbourSettings(weighting=weighting, neighbours=6)  # type: ignore[arg-type]
    items = item_neighbours(events, settings).similarity
    assert (items != neighbours(sparse.csr_matrix(events.matrix.T), settings)).nnz == 0
    assert items.has_sorted_indices
    assert np.diff(items.indptr).max() <= 6
    assert items.diagonal().sum() == 0


def test_bm25_weights_are_those_of_the_formula() -> None:
    events = little()
    x = events.matrix.toarray().T.astype(np.float64)
    rarity = np.log(len(x)) - np.log1p((x > 0).sum(axis=0))
    lengths = x.sum(axis=1)
    share = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())
    weighed = x * 2.2 / (share[:, None] + x) * np.maximum(rarity, 1e-6)
    together = weighed @ weighed.T
    np.fill_diagonal(together, 0)
    found = item_neighbours(events, NeighbourSettings(weighting="bm25", similarity="dot")).similarity
    np.testing.assert_allclose(found.toarray(), together, rtol=1e-4, atol=1e-5)


def test_an_item_nobody_offers_is_no_neighbour() -> None:
    offered = np.arange(25) % 2 == 0
    found = item_neighbours(little(), NeighbourSettings(neighbours=4), offered).similarity
    assert set(found.indices.tolist()) <= set(np.flatnonzero(offered).tolist())


def test_of_equal_neighbours_the_smaller_ids_stay() -> None:
    found = neighbours(sparse.csr_matrix(np.ones((6, 3), dtype=np.float32)), NeighbourSettings(neighbours=2))
    assert found.indices.reshape(6, 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]


def test_the_order_of_events_and_a_second_fit_change_nothing() -> None:
    rng = np.random.default_rng(3)
    rows = [(f"u{rng.integers(20)}", f"i{rng.integers(15)}", 1.0, int(rng.integers(99))) for _ in range(400)]
    settings = NeighbourSettings(weighting="bm25", neighbours=5, normalise=True)
    one = item_neighbours(interactions(rows), settings).similarity
    other = item_neighbours(interactions(rows[::-1]), settings).similarity
    assert one.data.tobytes() == other.data.tobytes()
    assert one.indices.tobytes() == other.indices.tobytes()
    np.testing.assert_allclose(np.asarray(one.sum(axis=1)).ravel(), 1.0, rtol=1e-5)


def test_an_item_bought_a_million_times_breaks_nothing() -> None:
    rows = [("u1", "bolt", 1e6, 1), ("u1", "nut", 1.0, 1), ("u2", "nut", 1.0, 1), ("u2", "seal", 1.0, 1)]
    for cap in (10.0, 1e6):
        events = interactions([*rows, *[("u2", "bolt", 1.0, 2)] * 1000], cap=cap)
        for settings in (NeighbourSettings(), NeighbourSettings(weighting="bm25"), NeighbourSettings(weighting="log")):
            for made in (item_neighbours(events, settings), user_neighbours(events, settings)):
                assert np.isfinite(made.scores({"bolt": 1e6, "nut": 1.0})).all()
        assert np.isfinite(linear_items.fit(events, LinearSettings()).scores({"bolt": 1e6})).all()


def test_a_matrix_without_entries_gives_no_neighbours_and_no_scores() -> None:
    nothing = interactions([])
    assert item_neighbours(nothing, NeighbourSettings()).similarity.shape == (0, 0)
    assert len(user_neighbours(nothing, NeighbourSettings()).scores({"a": 1.0})) == 0
    silent = Interactions(["u", "v"], ["a", "b"], sparse.csr_matrix((2, 2), dtype=np.float32))
    for weighting in ("none", "bm25", "tfidf"):
        settings = NeighbourSettings(weighting=weighting)
        assert not item_neighbours(silent, settings).scores({"a": 1.0}).any()
        assert not user_neighbours(silent, settings).scores({"a": 1.0}).any()
        assert not user_neighbours(silent, settings).scores({}).any()
    assert not linear_items.fit(silent, LinearSettings()).scores({"a": 1.0}).any()


def test_settings_and_entries_of_no_use_are_refused() -> None:
    with pytest.raises(Refused, match="neighbours >= 1"):
        item_neighbours(little(), NeighbourSettings(neighbours=0))
    broken = little()
    broken.matrix.data[0] = np.nan
    with pytest.raises(Refused, match="not finite"):
        user_neighbours(broken, NeighbourSettings())
    with pytest.raises(Refused, match="penalty"):
        linear_items.fit(little(), LinearSettings(penalty=0))


def test_lists_are_ordered_by_score_then_id_without_what_is_known() -> None:
    scores = np.array([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, -1.0, 0.0]])
    known = sparse.csr_matrix(np.array([[0, 1, 0, 0], [1, 0, 1, 0]], dtype=np.float32))
    assert ranked(scores, 3).tolist() == [[1, 2, 3], [0, 1, 3]]
    assert ranked(scores, 3, known).tolist() == [[2, 3, 0], [1, 3, -1]]


@pytest.mark.parametrize(
    "settings", [LinearSettings(20.0), LinearSettings(5.0, dropout=0.3, user_power=0.5, damping=0.1)]
)
def test_the_linear_model_is_the_same_from_either_side(settings: LinearSettings) -> None:
    for users, items in ((40, 25), (15, 25)):
        events = little(users, items)
        x = events.matrix.toarray().astype(np.float64)
        lengths = np.maximum((x != 0).sum(axis=1), 1)
        weighed = x * lengths[:, None] ** (-settings.user_power / 2)
        energy = (weighed**2).sum(axis=0)
        inverse = np.linalg.inv(
            weighed.T @ weighed + np.diag(settings.penalty + settings.dropout / (1 - settings.dropout) * energy)
        )
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        share = np.maximum((x != 0).sum(axis=0), 1.0) ** -settings.damping
        model = linear_items.fit(events, settings)
        np.testing.assert_allclose(model.score_rows(events.matrix), x @ weights * share, atol=1e-8)
        np.testing.assert_allclose(model.strongest(items).toarray(), weights * share, atol=1e-6)
        assert np.diff(model.strongest(3).indptr).max() <= 3


def test_a_blend_is_the_sum_of_parts_of_one_size() -> None:
    one, other = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [2.0, 2.0]])
    made = blended([(0.5, one), (2.0, other)])
    np.testing.assert_allclose(made[1], [2.0, 2.0])
    np.testing.assert_allclose(made, blended([(0.5, one * 10), (2.0, other)]))
