"""Windows, tables and bundles: what a model means is the same on both sides."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.bundles import (
    Bundle,
    Golden,
    Lineage,
    Parity,
    Passport,
    Quality,
    Runtime,
    digest,
    pack,
    unpack,
)
from protocol.errors import BadBundle, BadMessage, Reason
from protocol.tables import Neighbours, StateSpace
from protocol.windows import WindowSpec, fill_forward, naive_forecast, resample, windows

SPEC = WindowSpec(step_ms=900_000, length=16, horizon=4, season=24)


def test_resample_takes_means_and_leaves_gaps_as_nan() -> None:
    times = np.array([30, 10, 0, 99, -5], dtype=np.int64)
    got = resample(times, np.array([4.0, 3.0, 1.0, 9.0, 7.0]), start_ms=0, step_ms=20, buckets=3)
    np.testing.assert_array_equal(got, [2.0, 4.0, np.nan])


def test_resample_refuses_an_absurd_grid() -> None:
    with pytest.raises(BadMessage):
        resample(np.zeros(1, dtype=np.int64), np.zeros(1), 0, 1, 10**9)


def test_gaps_take_the_last_value_seen() -> None:
    nan = np.nan
    got = fill_forward(np.array([[nan, 1.0, nan, 3.0, nan], [nan] * 5]))
    np.testing.assert_array_equal(got[0], [1, 1, 1, 3, 3])
    assert np.isnan(got[1]).all()


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e4))
def test_scaling_is_reversible(level: float, spread: float) -> None:
    rng = np.random.default_rng(1)
    context = level + spread * rng.standard_normal((3, SPEC.context))
    made = windows(context, np.full(3, 1_760_000_000_000, dtype=np.int64), SPEC)
    back = made.unscale(made.x[:, :, 0].astype(np.float64))
    np.testing.assert_allclose(back, context[:, -SPEC.length :], atol=1e-4 * max(spread, abs(level) * 1e-3))


def test_season_ago_shows_last_season_at_the_horizon() -> None:
    context = np.arange(SPEC.context, dtype=np.float64)[None]
    made = windows(context, np.zeros(1, dtype=np.int64), SPEC)
    lag = made.x[0, :, 2].astype(np.float64) * made.scale[0] + made.center[0]
    np.testing.assert_allclose(lag[-1], SPEC.context - 1 + SPEC.horizon - SPEC.season, atol=1e-3)


def test_a_window_with_too_many_gaps_is_not_usable_and_has_no_nan() -> None:
    context = np.ones((2, SPEC.context))
    context[0, -8:] = np.nan
    made = windows(context, np.zeros(2, dtype=np.int64), SPEC)
    assert made.usable.tolist() == [False, True]
    assert np.isfinite(made.x).all()


def test_the_simple_reference_is_last_season_or_else_the_last_value() -> None:
    context = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    np.testing.assert_array_equal(naive_forecast(context, 4, 6), [[3, 4, 5, 6, 3, 4]])
    np.testing.assert_array_equal(naive_forecast(context, 0, 2), [[6, 6]])


def _random_walk() -> StateSpace:
    one = np.ones((1, 1))
    return StateSpace(
        {
            "transition": one[None],
            "design": one,
            "state_cov": 0.5 * one[None],
            "obs_var": np.array([1.0]),
            "state": np.zeros((1, 1)),
            "cov": 100 * one[None],
            "beta": np.zeros((1, 1)),
            "center": np.array([10.0]),
            "scale": np.array([2.0]),
        }
    )


def test_a_missing_value_widens_the_forecast_and_moves_nothing() -> None:
    model = _random_walk()
    for t in range(50):
        model.step(np.array([14.0]), t)
    mean, deviation = model.forecast(50, 1, 3)
    np.testing.assert_allclose(mean, 14.0, atol=1e-6)
    assert (np.diff(deviation[0]) > 0).all()
    z, _ = model.step(np.array([np.nan]), 51)
    assert np.isnan(z[0])
    wider = model.forecast(52, 1, 1)[1][0, 0]
    assert wider > deviation[0, 0]


def test_tables_of_the_wrong_shape_are_refused_by_name() -> None:
    with pytest.raises(BadBundle, match="transition"):
        StateSpace({"design": np.ones((1, 2)), "transition": np.ones((1, 3, 3))})


def _neighbours() -> Neighbours:
    return Neighbours(
        ["symptom:a", "action:x", "action:y", "part:z"],
        {
            "indptr": np.array([0, 3, 3, 3, 3], dtype=np.int32),
            "ids_gaps": np.array([1, 0, 0], dtype=np.uint8),
            "weights": np.array([100, 100, 50], dtype=np.int8),
            "row_scale": np.full(4, 0.01, dtype=np.float32),
        },
    )


def test_ties_are_broken_by_id_and_contributions_sum_to_the_score() -> None:
    ranked = _neighbours().rank({"symptom:a": 1.0, "unknown": 5.0}, top=5)
    assert [r.item for r in ranked] == ["action:x", "action:y", "part:z"]
    for r in ranked:
        assert sum(amount for _, amount in r.contributions) == pytest.approx(r.score)


def test_only_items_that_were_asked_for_are_ranked() -> None:
    assert [r.item for r in _neighbours().rank({"symptom:a": 1.0}, 5, ("part:",))] == ["part:z"]


def _bundle() -> Bundle:
    passport = Passport(
        slot="recommend.items",
        family="recommend",
        algorithm="item_cf",
        version=1,
        runtime=Runtime.NEIGHBOURS,
        items=["a"],
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="0", seed=1, trained_ms=1),
        quality=[
            Quality(
                metric="ndcg@5",
                lower_is_better=False,
                model=0.8,
                reference=0.5,
                reference_name="popularity",
                split="last 25 %",
                n=40,
            )
        ],
        eligible=True,
        verdict="beats popularity",
        parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound="0.5 %"),
        golden=Golden(atol=1e-6, rtol=0),
        float_bytes=10,
        packed_bytes=5,
        latency_us=3.0,
        intended_use="tests",
        limits="none",
    )
    return Bundle(
        passport=passport,
        tables={"t": np.arange(4.0)},
        golden_inputs={"x": np.ones(2)},
        golden_outputs={"y": np.ones(2)},
    )


def test_the_same_model_packed_twice_gives_the_same_bytes() -> None:
    first, second = pack(_bundle()), pack(_bundle())
    assert first == second
    opened = unpack(first, digest(first))
    np.testing.assert_array_equal(opened.tables["t"], np.arange(4.0))
    assert opened.passport.quality[0].beats_reference


def test_an_altered_or_truncated_bundle_is_refused() -> None:
    archive = pack(_bundle())
    altered = bytearray(archive)
    altered[len(archive) // 2] ^= 1
    for wrong in (bytes(altered), archive[:-30], archive[: len(archive) // 2], b"", b"PK"):
        with pytest.raises(BadBundle) as refused:
            unpack(wrong, digest(archive))
        assert refused.value.reason is Reason.DIGEST_MISMATCH
        with pytest.raises(BadBundle):
            unpack(wrong)


def test_a_compressed_or_foreign_member_is_refused() -> None:
    for name, method in (("passport.json", zipfile.ZIP_DEFLATED), ("../evil.npy", zipfile.ZIP_STORED)):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.writestr(name, b"0" * 100_000)
        with pytest.raises(BadBundle):
            unpack(out.getvalue())
