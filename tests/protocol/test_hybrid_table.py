"""A hybrid's tables rank as their definition says, with exact reasons, and what does not fit is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.parity import golden_lists, overlap
from export.to_tables import Mixed, SparseRows, hybrid_tables
from protocol.bundles import Bundle, Golden, Lineage, Parity, Passport, Quality, Runtime, pack, unpack
from protocol.errors import BadBundle
from protocol.tables import Hybrid, LocalAnswer, LocalAnswers, Neighbours, Ranker, Tables, gaps, local_answers
from protocol.tables.answers import MOST_ANSWERS
from protocol.tables.ranking import in_order, room, strongest
from protocol.tables.rows import Rows

ITEMS = [
    "symptom:hot",
    "symptom:loud",
    "type:pump",
    "action:oil",
    "action:seal",
    "action:align",
    "part:seal",
    "part:belt",
]
USERS = ["case-1", "case-2", "case-3"]
CANDIDATES = ("action:", "part:")
CASE = {"symptom:hot": 1.0, "type:pump": 0.5}


def rows(dense: Any) -> SparseRows:
    dense = np.asarray(dense, dtype=np.float64)
    owner, ids = np.nonzero(dense)
    return SparseRows(np.concatenate([[0], np.cumsum((dense != 0).sum(axis=1))]), ids, dense[owner, ids])


def packed(seed: int = 0, n: int = 8, u: int = 3, d: int = 3, weights: Any = None) -> Tables:
    rng = np.random.default_rng(seed)
    near = np.where(rng.random((n, n)) < 0.5, rng.normal(size=(n, n)), 0.0)
    past = np.where(rng.random((u, n)) < 0.5, rng.normal(1, 1, (u, n)), 0.0)
    mix = Mixed(
        lengths=[0, 1, 3],
        weights=np.array([[1.0, 0, 0, 0], [0.4, 1, 0.8, 0.6], [0.1, 1.5, 0.9, 0.3]]) if weights is None else weights,
        scale=np.array([[2.0, 1, 1, 1]] * 3),
    )
    popularity = np.where(np.arange(n) < 3, 0.0, rng.random(n))
    return hybrid_tables(popularity, mix, rows(near), rows(past), 2, rng.normal(size=(n, d)))


def hybrid(seed: int = 0) -> Hybrid:
    return Hybrid(ITEMS, USERS, packed(seed))


def dense(tables: Tables, prefix: str, n: int) -> Any:
    indptr = np.asarray(tables[f"{prefix}indptr"])
    ids = gaps.read(np.asarray(tables[f"{prefix}ids_gaps"], dtype=np.uint8), np.int64(indptr), n, "rows")
    out = np.zeros((len(indptr) - 1, n))
    for j in range(len(out)):
        part = slice(indptr[j], indptr[j + 1])
        out[j, ids[part]] = np.float64(tables[f"{prefix}weights"][part]) * np.float64(tables[f"{prefix}row_scale"][j])
    return out


def reference(tables: Tables, profile: dict[str, float]) -> Any:
    """The definition, with dense matrices and no haste."""
    n = len(ITEMS)
    s = np.array([profile.get(name, 0.0) for name in ITEMS])
    s[np.abs(s) < 1e-6] = 0.0
    b = int(np.searchsorted(tables["mix_lengths"], np.count_nonzero(s), side="right")) - 1
    weight = np.float64(tables["mix_weights"][b]) / np.float64(tables["mix_scale"][b])
    past = dense(tables, "users_", n)
    size = np.linalg.norm(past, axis=1) * np.linalg.norm(s)
    cosine = np.round(np.divide(past @ s, size, out=np.zeros(len(past)), where=size > 0), 12)
    alike = sorted((v for v in range(len(past)) if cosine[v] > 0), key=lambda v: (-round(cosine[v], 9), v))
    like = sum((cosine[v] * past[v] for v in alike[: int(tables["users_k"][0])]), np.zeros(n))
    vectors = np.float64(tables["content_vectors"]) * np.float64(tables["content_row_scale"])[:, None]
    mean = s @ vectors
    size = np.linalg.norm(vectors, axis=1) * np.linalg.norm(mean)
    content = np.divide(vectors @ mean, size, out=np.zeros(n), where=size > 0)
    popularity = np.float64(tables["popularity"])
    return (
        weight[0] * popularity + weight[1] * (s @ dense(tables, "items_", n)) + weight[2] * like + weight[3] * content
    )


PROFILES = st.dictionaries(st.sampled_from([*ITEMS, "machine:unknown"]), st.floats(-5, 5), max_size=6)


@given(st.integers(0, 50), PROFILES)
def test_scores_are_those_of_the_definition(seed: int, profile: dict[str, float]) -> None:
    tables = packed(seed)
    np.testing.assert_allclose(Hybrid(ITEMS, USERS, tables).scores(profile), reference(tables, profile), atol=1e-9)


@given(st.integers(0, 50), PROFILES, st.integers(0, 9), st.sets(st.sampled_from(ITEMS), max_size=3))
def test_a_list_keeps_its_promises(seed: int, profile: dict[str, float], top: int, exclude: set[str]) -> None:
    ranked = hybrid(seed).rank(profile, top, CANDIDATES, exclude)
    assert len(ranked) <= top
    assert not {found.item for found in ranked} & (exclude | set(profile))
    assert all(found.item.startswith(CANDIDATES) for found in ranked)
    assert all(math.isfinite(found.score) and found.score > 0 for found in ranked)
    order = [(-round(found.score, 9), ITEMS.index(found.item)) for found in ranked]
    assert order == sorted(order)
    for found in ranked:
        assert math.fsum(amount for _, amount in found.contributions) == pytest.approx(found.score, abs=1e-9)
        sizes = [abs(amount) for _, amount in found.contributions]
        assert sizes == sorted(sizes, reverse=True)


@given(st.integers(0, 20), PROFILES, st.randoms())
def test_the_order_of_a_profile_changes_nothing(seed: int, profile: dict[str, float], random: Any) -> None:
    shuffled = list(profile.items())
    random.shuffle(shuffled)
    assert hybrid(seed).rank(profile, 5) == hybrid(seed).rank(dict(shuffled), 5)


@given(PROFILES)
def test_lists_without_reasons_are_the_same_lists(profile: dict[str, float]) -> None:
    with_reasons = [(found.item, found.score) for found in hybrid().rank(profile, 5)]
    assert with_reasons == [(found.item, found.score) for found in hybrid().rank(profile, 5, reasons=False)]


def test_nothing_known_of_a_case_gives_what_is_popular() -> None:
    tables = packed()
    popular = np.argsort(-np.asarray(tables["popularity"]), kind="stable")[:3]
    for profile in ({}, {"machine:new": 1.0}, {"symptom:hot": math.nan}):
        ranked = Hybrid(ITEMS, USERS, tables).rank(profile, 3)
        assert [ITEMS.index(found.item) for found in ranked] == popular.tolist()
        assert [name for name, _ in ranked[0].contributions] == ["popularity"]
    unweighted = packed(weights=np.array([[0.0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]))
    assert Hybrid(ITEMS, USERS, unweighted).rank({}, 3)


def test_contributions_say_where_they_come_from() -> None:
    named = {name for found in hybrid().rank(CASE, 5) for name, _ in found.contributions}
    assert named >= {"popularity", "symptom:hot", "content:symptom:hot", "content:type:pump"}
    assert {name for name in named if name.startswith("like:")} <= {f"like:{user}" for user in USERS}
    for found in hybrid().rank(CASE, 5):
        amounts = dict(found.contributions)
        for who, similarity, amount in found.similar:
            assert amounts[f"like:{who}"] == amount
            assert 0 < similarity <= 1


def test_equal_scores_are_shown_by_id() -> None:
    same = hybrid_tables(np.ones(4), Mixed([0], np.array([[1.0, 0, 0, 0]]), np.ones((1, 4))))
    ranked = Hybrid(["d", "c", "b", "a"], [], same).rank({}, 3)
    assert [found.item for found in ranked] == ["d", "c", "b"]


@given(st.integers(0, 30), PROFILES, st.sets(st.sampled_from([*ITEMS, *(f"like:{u}" for u in USERS)]), max_size=3))
def test_what_is_left_out_is_as_if_it_had_never_been(seed: int, profile: dict[str, float], without: set[str]) -> None:
    tables = packed(seed)
    for v, user in enumerate(USERS):
        if f"like:{user}" in without:
            part = slice(int(tables["users_indptr"][v]), int(tables["users_indptr"][v + 1]))
            np.asarray(tables["users_weights"])[part] = 0
    remaining = {name: s for name, s in profile.items() if name not in without}
    expected = Hybrid(ITEMS, USERS, tables).rank(remaining, 4, exclude=set(profile))
    assert hybrid(seed).rank(profile, 4, without=without) == expected


def test_strange_profiles_are_answered() -> None:
    for profile in (
        dict.fromkeys(ITEMS, 1.0),
        {"symptom:hot": 1e300, "type:pump": -1e300},
        {"symptom:hot": math.inf},
        {"symptom:hot": 0.0},
        {f"machine:{k}": 1.0 for k in range(5000)},
        {"symptom:hot": -1.0},
    ):
        ranked = hybrid().rank(profile, 100)
        assert all(math.isfinite(found.score) for found in ranked)
    assert hybrid().rank(CASE, 0) == []
    assert hybrid().rank(CASE, 5, ("plan:",)) == []
    assert hybrid().rank(CASE, 5, exclude=ITEMS) == []


def _spoiled(name: str, change: Any) -> Tables:
    tables = dict(packed())
    tables[name] = change(np.array(tables[name]))
    return tables


def _put(value: Any, at: Any = 0) -> Any:
    def change(array: Any) -> Any:
        array[at] = value
        return array

    return change


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (_spoiled("popularity", _put(-1.0)), "popularity"),
        (_spoiled("popularity", _put(np.nan)), "NaN"),
        (_spoiled("popularity", lambda a: a[1:]), "popularity"),
        (_spoiled("items_ids_gaps", _put(99)), "outside"),
        (_spoiled("items_ids_gaps", _put(255)), "entries"),
        (_spoiled("items_ids_gaps", lambda a: a[1:]), "entries"),
        (_spoiled("items_ids_gaps", lambda a: a.astype(np.uint16)), "bytes"),
        (_spoiled("items_indptr", _put(3)), "outside"),
        (_spoiled("items_weights", lambda a: a.astype(np.int32)), "int8"),
        (_spoiled("items_weights", lambda a: a[1:]), "neighbour lists point outside"),
        (_spoiled("users_row_scale", _put(-1.0)), "scales"),
        (_spoiled("users_row_scale", _put(1e30)), "scales"),
        (_spoiled("users_ids_gaps", _put(99)), "outside"),
        (_spoiled("users_k", _put(0)), "users_k"),
        (_spoiled("content_vectors", lambda a: a.astype(np.float32)), "content_vectors"),
        (_spoiled("content_vectors", lambda a: a[:, :0]), "vectors"),
        (_spoiled("content_row_scale", _put(np.inf)), "infinity"),
        (_spoiled("mix_lengths", _put(1)), "rise"),
        (_spoiled("mix_lengths", _put(0, 1)), "rise"),
        (_spoiled("mix_scale", _put(0.0)), "positive"),
        (_spoiled("mix_scale", _put(1e-40, 1)), "at most"),
        (_spoiled("mix_weights", lambda a: a[:, :3]), "mix_weights"),
        ({k: v for k, v in packed().items() if not k.startswith("items_")}, "items"),
        ({k: v for k, v in packed().items() if k != "users_k"}, "users_k"),
        ({k: v for k, v in packed().items() if not k.startswith("content_")}, "content"),
        ({k: v for k, v in packed().items() if k != "mix_scale"}, "mix_scale"),
    ],
)
def test_tables_that_do_not_fit_are_refused_by_name(tables: Tables, says: str) -> None:
    with pytest.raises(BadBundle, match=says):
        Hybrid(ITEMS, USERS, tables)


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadBundle, match="unique"):
        Hybrid(["a"] * 8, USERS, packed())
    with pytest.raises(BadBundle, match="unique"):
        Hybrid(ITEMS, ["a", "a", "b"], packed())
    with pytest.raises(BadBundle, match="users_indptr"):
        Hybrid(ITEMS, ["a"], packed())


def test_parts_that_are_absent_have_no_say() -> None:
    mix = Mixed([0], np.array([[1.0, 0, 0, 0]]), np.ones((1, 4)))
    alone = Hybrid(ITEMS, [], hybrid_tables(np.ones(8), mix))
    assert [name for name, _ in alone.rank(CASE, 1)[0].contributions] == ["popularity"]
    with pytest.raises(BadBundle, match="no content"):
        alone.with_cards([("plan:x", np.ones(3))])


def test_a_card_that_nobody_has_chosen_is_ranked_by_its_content() -> None:
    tables = packed()
    vector = np.float64(tables["content_vectors"][0]) * float(np.float64(tables["content_row_scale"])[0])
    wider = hybrid().with_cards([("plan:like-hot", vector), ("plan:unlike", -vector), ("action:oil", np.ones(3))])
    assert len(wider.items) == 10
    ranked = wider.rank({"symptom:hot": 1.0}, 10, ("plan:",))
    assert [found.item for found in ranked] == ["plan:like-hot"]
    assert [name for name, _ in ranked[0].contributions] == ["content:symptom:hot"]
    assert ranked[0].score == pytest.approx(0.6)
    np.testing.assert_allclose(wider.scores(CASE)[:8], hybrid().scores(CASE), atol=1e-12)
    assert wider.rank({"plan:like-hot": 1.0, "symptom:hot": 1.0}, 5)
    learned = wider.learned(local_answers([answer("1", "plan:unlike", 1.0)]))
    assert "plan:unlike" in {found.item for found in learned.rank(CASE, 10)}
    for wrong in (np.ones(2), np.array([np.nan, 1, 1])):
        with pytest.raises(BadBundle, match="finite numbers"):
            hybrid().with_cards([("plan:x", wrong)])


def test_tables_survive_their_bundle() -> None:
    tables = packed()
    inputs, outputs = golden_lists(ITEMS, USERS, tables, [CASE, {"symptom:loud": 2.0}], 5)
    figure = Quality(
        metric="ndcg@5", lower_is_better=False, model=1, reference=0, reference_name="popularity", split="", n=1
    )
    passport = Passport(
        slot="recommend.items",
        family="recommend",
        algorithm="hybrid",
        version=1,
        runtime=Runtime.HYBRID,
        items=ITEMS,
        users=USERS,
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="0", seed=1, trained_ms=1),
        quality=[figure],
        eligible=True,
        verdict="",
        parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound=""),
        golden=Golden(atol=1e-9, rtol=1e-9),
        float_bytes=1,
        packed_bytes=1,
        latency_us=1,
        intended_use="",
        limits="",
    )
    bundle = Bundle(passport=passport, tables=tables, golden_inputs=inputs, golden_outputs=outputs)
    from protocol.bundles import digest

    archive = pack(bundle)
    opened = unpack(archive, digest(archive))
    again = Hybrid(opened.passport.items, opened.passport.users, opened.tables)
    assert again.rank(CASE, 5) == hybrid().rank(CASE, 5)
    answers = again.golden(opened.golden_inputs, opened.golden_outputs)
    np.testing.assert_array_equal(answers["ranked"], outputs["ranked"])
    np.testing.assert_array_equal(answers["scores"], outputs["scores"])


# answers that came after training


def answer(
    name: str, item: str, value: float, *, profile: dict[str, float] | None = None, time_ms: int = 0
) -> LocalAnswer:
    return LocalAnswer(
        id=name,
        profile=CASE if profile is None else profile,
        item=item,
        value=value,
        weight=3.0,
        time_ms=time_ms or 1000 + int(name),
    )


def items(ranker: Ranker, profile: dict[str, float] | None = None, top: int = 5) -> list[str]:
    return [found.item for found in ranker.rank(CASE if profile is None else profile, top, CANDIDATES)]


def neighbours() -> Neighbours:
    whole = packed()
    return Neighbours(ITEMS, {name: whole[f"items_{name}"] for name in ("indptr", "ids_gaps", "weights", "row_scale")})


@pytest.mark.parametrize("ranker", [hybrid(), neighbours()], ids=["hybrid", "neighbours"])
def test_an_answer_shows_in_the_next_list(ranker: Any) -> None:
    shown = items(ranker)
    first, last = shown[0], shown[-1]
    rejected = ranker.learned(local_answers([answer("1", first, -1.0)]))
    assert first not in items(rejected) or items(rejected).index(first) > 0
    twice = ranker.learned(local_answers([answer(str(k), first, -1.0) for k in range(40)]))
    assert items(twice)[:1] != [first]
    accepted = ranker.learned(local_answers([answer("1", last, 1.0)]))
    assert items(accepted).index(last) < shown.index(last)
    unseen = shown[-1]
    helped = ranker.learned(local_answers([answer("1", unseen, 1.0)])).rank(CASE, 8, CANDIDATES)
    found = next(one for one in helped if one.item == unseen)
    assert dict(found.contributions)["answer:1"] > 0
    assert found.similar[0][0].startswith(("answer:1", "case-"))
    for one in helped:
        assert math.fsum(amount for _, amount in one.contributions) == pytest.approx(one.score, abs=1e-9)
    assert items(ranker) == shown


def test_an_answer_to_an_unlike_case_changes_nothing() -> None:
    elsewhere = local_answers([answer("1", "part:belt", -1.0, profile={"machine:elsewhere": 1.0})])
    assert hybrid().learned(elsewhere).rank(CASE, 5) == hybrid().rank(CASE, 5)


def test_contradicting_answers_cancel_and_a_newer_one_replaces_its_older_self() -> None:
    both = local_answers([answer("1", "part:belt", 1.0), answer("2", "part:belt", -1.0)])
    np.testing.assert_allclose(
        [f.score for f in hybrid().learned(both).rank(CASE, 5)], [f.score for f in hybrid().rank(CASE, 5)]
    )
    changed = local_answers([answer("1", "part:belt", 1.0), answer("1", "part:belt", -1.0, time_ms=5000)])
    assert [one.value for one in changed.answers] == [-1.0]


def test_an_answer_without_a_place_on_offer_is_left_alone() -> None:
    answers = local_answers([answer("1", "action:unheard", 1.0), answer("2", "symptom:hot", 1.0)])
    learned = hybrid().learned(answers)
    assert items(learned) == items(hybrid())
    assert "symptom:loud" not in items(hybrid().learned(local_answers([answer("1", "symptom:loud", 1.0)])))
    assert "part:belt" not in {
        f.item
        for f in hybrid().learned(local_answers([answer("1", "part:belt", 1.0)])).rank(CASE, 9, exclude=["part:belt"])
    }


def test_a_rejection_can_be_left_out_again() -> None:
    learned = hybrid().learned(local_answers([answer("1", "part:belt", -1.0)]))
    assert learned.rank(CASE, 5, without=["answer:1"]) == hybrid().rank(CASE, 5)


def test_even_a_table_that_knows_nothing_of_a_case_learns_from_answers() -> None:
    strange = {"machine:new": 1.0}
    assert neighbours().rank(strange, 5) == []
    learned = neighbours().learned(local_answers([answer("1", "part:belt", 1.0, profile=strange)]))
    assert learned.rank(strange, 5)[0].contributions == [("answer:1", 0.75)]


def test_answers_that_the_tables_know_already_or_that_say_nothing_are_ignored() -> None:
    told = [
        answer("1", "part:belt", 1.0, time_ms=10),
        answer("2", "part:belt", 0.0),
        answer("3", "part:belt", math.nan),
        answer("4", "part:belt", 1.0, profile={}),
        answer("5", "part:belt", 1.0, profile={"a": math.inf}),
        replace_weight(answer("6", "part:belt", 1.0), math.inf),
        answer("7", "part:belt", 1.0),
    ]
    known = local_answers(told, data_until_ms=10)
    assert [one.id for one in known.answers] == ["7"]
    for one in told[:6]:
        assert known.plus(one) is known


def replace_weight(one: LocalAnswer, weight: float) -> LocalAnswer:
    import msgspec

    return msgspec.structs.replace(one, weight=weight)


ANSWERS = st.lists(
    st.builds(
        answer,
        st.integers(0, 12).map(str),
        st.sampled_from(ITEMS),
        st.sampled_from([-1.0, -0.5, 1.0]),
        profile=PROFILES,
        time_ms=st.integers(1, 8),
    ),
    max_size=12,
)


@given(ANSWERS, st.randoms())
def test_answers_count_whatever_order_they_come_in(answers: list[LocalAnswer], random: Any) -> None:
    ordered = local_answers(answers, 2)
    shuffled = list(answers)
    random.shuffle(shuffled)
    one_by_one = LocalAnswers(data_until_ms=2)
    for one in shuffled:
        one_by_one = one_by_one.plus(one)
    assert one_by_one.answers == ordered.answers == local_answers(shuffled, 2).answers
    want = hybrid().learned(ordered).rank(CASE, 5)
    assert hybrid().learned(one_by_one).rank(CASE, 5) == want
    for found in want:
        assert math.fsum(amount for _, amount in found.contributions) == pytest.approx(found.score, abs=1e-9)


def test_only_the_newest_answers_are_kept() -> None:
    many = [
        answer(str(k), "part:belt", 1.0, profile={f"machine:{k}": 1.0, "type:pump": 1.0})
        for k in range(MOST_ANSWERS + 3)
    ]
    grown = local_answers(many[:MOST_ANSWERS])
    for one in many[MOST_ANSWERS:]:
        grown = grown.plus(one)
    whole = local_answers(many)
    assert grown.answers == whole.answers
    assert len(whole) == MOST_ANSWERS
    profile = {"type:pump": 1.0, "machine:502": 1.0}
    np.testing.assert_array_equal(grown.similarities(profile), whole.similarities(profile))
    assert hybrid().learned(grown).rank(profile, 5) == hybrid().learned(whole).rank(profile, 5)


# the parts that all tables share


@given(st.integers(0, 100), st.sampled_from([3, 500, 2048, 5000]), st.integers(0, 80), st.booleans())
def test_the_strongest_are_those_of_a_full_sort(seed: int, n: int, top: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    score = np.zeros(room(n))
    score[:n] = rng.integers(-3, 4, n) if tied else rng.normal(size=n)
    if seed % 3 == 0:
        score[rng.random(len(score)) < 0.99] = 0.0
    full = np.lexsort((np.arange(len(score)), -np.round(score, 9)))
    want = [int(i) for i in full if score[i] > 0][:top]
    assert in_order(strongest(score, top), score, top).tolist() == want


@given(st.integers(0, 100), st.booleans())
def test_gathered_rows_are_the_rows(seed: int, even: bool) -> None:
    rng = np.random.default_rng(seed)
    whole = np.where(rng.random((6, 9)) < (1.0 if even else 0.3), rng.integers(1, 9, (6, 9)), 0)
    kept = rows(whole)
    tables = {
        "indptr": np.asarray(kept.indptr),
        "ids_gaps": gaps.written(kept.indptr, kept.ids),
        "weights": kept.weights.astype(np.int8),
        "row_scale": np.full(6, 0.5, dtype=np.float32),
    }
    table = Rows(tables, "", 6, 9, "rows")
    columns, amounts, _ = table.gather(np.array([1, 4]), np.array([2.0, -1.0]))
    np.testing.assert_allclose(np.bincount(columns, amounts, 9), whole[1] - 0.5 * whole[4])
    for item in range(9):
        holders, weights = table.transposed(9).row(item)
        assert holders.tolist() == np.flatnonzero(whole[:, item]).tolist()
        assert weights.tolist() == whole[:, item][whole[:, item] != 0].tolist()


def test_int8_lists_stay_those_of_the_float_rows() -> None:
    rng = np.random.default_rng(2)
    names = [f"i{k}" for k in range(300)]
    near = np.where(rng.random((300, 300)) < 0.2, rng.random((300, 300)), 0.0)
    mix = Mixed([0], np.array([[0.0, 1, 0, 0]]), np.ones((1, 4)))
    table = Hybrid(names, [], hybrid_tables(np.zeros(300), mix, rows(near)))
    ours, exact = [], []
    for _ in range(40):
        chosen = rng.choice(300, 12, replace=False)
        score = near[chosen].sum(axis=0)
        score[chosen] = 0
        exact.append([names[i] for i in np.lexsort((np.arange(300), -np.round(score, 9)))[:10]])
        ours.append([found.item for found in table.rank({names[i]: 1.0 for i in chosen}, 10, reasons=False)])
    assert overlap(ours, exact) >= 0.97


def test_rows_that_are_not_finite_are_not_packed() -> None:
    mix = Mixed([0], np.array([[0.0, 1, 0, 0]]), np.ones((1, 4)))
    broken = replace(rows(np.ones((2, 2))), weights=np.array([1.0, np.nan, 1, 1]))
    with pytest.raises(ValueError, match="NaN"):
        hybrid_tables(np.zeros(2), mix, broken)
