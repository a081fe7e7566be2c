"""A hybrid's bundle is proven on the gateway's own CPU before it answers, and refused when anything of it was altered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from edge_agent.runtimes import LoadedModel, load
from export.parity import golden_lists
from export.to_tables import Mixed, SparseRows, hybrid_tables
from protocol.bundles import Bundle, Golden, Lineage, Parity, Passport, Runtime, digest, pack
from protocol.errors import BadBundle
from protocol.recommending import RecommendSpec

ITEMS = [*(f"symptom:s{k}" for k in range(10)), *(f"action:a{k}" for k in range(30))]
USERS = [f"case-{k}" for k in range(12)]
PROFILES = [{f"symptom:s{k}": 1.0, f"symptom:s{(k + 3) % 10}": 0.5} for k in range(10)]


def rows(dense: Any) -> SparseRows:
    owner, ids = np.nonzero(dense)
    return SparseRows(np.concatenate([[0], np.cumsum((dense != 0).sum(axis=1))]), ids, dense[owner, ids])


def bundle() -> Bundle:
    rng = np.random.default_rng(4)
    n, u = len(ITEMS), len(USERS)
    near = np.where(rng.random((n, n)) < 0.4, rng.random((n, n)), 0.0)
    past = np.where(rng.random((u, n)) < 0.3, rng.random((u, n)), 0.0)
    mix = Mixed([0, 1], np.array([[1.0, 0, 0, 0], [0.3, 1.0, 0.6, 0.4]]), np.ones((2, 4)))
    tables = hybrid_tables(rng.random(n), mix, rows(near), rows(past), 5, rng.normal(size=(n, 8)))
    inputs, outputs = golden_lists(ITEMS, USERS, tables, PROFILES, 5)
    passport = Passport(
        slot="recommend.items",
        family="recommend",
        algorithm="hybrid",
        version=1,
        runtime=Runtime.HYBRID,
        items=ITEMS,
        users=USERS,
        recommend=RecommendSpec(candidates=["action:"], lengths=[0, 1]),
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="0", seed=1, trained_ms=1),
        quality=[],
        eligible=True,
        verdict="made for a test",
        parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound="none"),
        golden=Golden(atol=1e-7, rtol=0),
        float_bytes=1,
        packed_bytes=1,
        latency_us=1,
        intended_use="tests",
        limits="none",
    )
    return Bundle(passport=passport, tables=tables, golden_inputs=inputs, golden_outputs=outputs)


def loaded(made: Bundle) -> LoadedModel:
    archive = pack(made)
    return load(archive, digest(archive))


def test_a_hybrid_is_loaded_and_answers_its_golden_lists() -> None:
    made = bundle()
    model = loaded(made)
    assert model.hybrid is not None
    assert model.ranker is model.hybrid
    answers = model.hybrid.golden(made.golden_inputs, made.golden_outputs)
    np.testing.assert_array_equal(answers["ranked"], made.golden_outputs["ranked"])
    assert (np.asarray(made.golden_outputs["ranked"])[1:] >= 0).all()
    for profile in PROFILES:
        for found in model.hybrid.rank(profile, 5, ("action:",)):
            assert sum(amount for _, amount in found.contributions) == pytest.approx(found.score, abs=1e-9)


def test_an_archive_that_is_not_the_one_announced_is_refused() -> None:
    archive = pack(bundle())
    with pytest.raises(BadBundle, match="digest"):
        load(archive, "0" * 64)
    for at in range(40, len(archive), len(archive) // 50):
        altered = archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]
        with pytest.raises(BadBundle):
            load(altered, digest(archive))


def _table(name: str, change: Callable[[Any], Any]) -> Callable[[Bundle], Bundle]:
    return lambda made: replace(made, tables={**made.tables, name: change(np.array(made.tables[name]))})


def _passport(**changes: Any) -> Callable[[Bundle], Bundle]:
    return lambda made: replace(made, passport=replace(made.passport, **changes))


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (_table("items_weights", lambda a: -a), "golden"),
        (_table("items_row_scale", lambda a: a * np.float32(1.01)), "golden"),
        (_table("users_row_scale", lambda a: a[::-1].copy()), "golden"),
        (_table("popularity", lambda a: a[::-1].copy()), "golden"),
        (_table("content_vectors", lambda a: a[::-1].copy()), "golden"),
        (_table("items_ids_gaps", lambda a: a[:-1]), "entries"),
        (_table("items_ids_gaps", lambda a: a + np.uint8(20)), "outside"),
        (_table("users_ids_gaps", lambda a: a | np.uint8(224)), "no entries"),
        (_passport(users=USERS[1:]), "users_indptr"),
        (_passport(items=ITEMS[1:]), "popularity"),
        (_passport(recommend=None), "lengths"),
        (_passport(recommend=RecommendSpec(candidates=["action:"], lengths=[0, 2])), "lengths"),
        (lambda made: replace(made, golden_outputs={}), "golden"),
    ],
)
def test_an_altered_hybrid_is_refused_by_what_is_wrong(alter: Callable[[Bundle], Bundle], says: str) -> None:
    with pytest.raises(BadBundle, match=says):
        loaded(alter(bundle()))
