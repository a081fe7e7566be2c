"""Demand of spare parts, learned, sealed and run as on a gateway: better than SBA on parts that fade, the same bytes again
for the same data, and a clear word where the data do not suffice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.runtimes import load
from edge_agent.skills.spare_parts import PartHistory, Wish, forecast_demand
from export import parity
from protocol.bundles import digest, unpack
from protocol.demand_windows import CLASSES, SPARE_PARTS, demand_windows
from protocol.errors import BadMessage, Refused
from protocol.windows import Floats
from server.algorithms import demand, intermittent
from server.training.circumstances import Candidate, Circumstances
from server.training.supply_demand import PINBALL, DemandPlan, DemandTable, train_demand

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WORLD = Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_700_000_000_000, because="a test")
SMALL = demand.DemandSettings(length=12, hidden=12, members=1, rows=2500, epochs=3, batch=128)
HORIZON = 4


def fading_fleet(parts: int, months: int, seed: int) -> Floats:
    """Intermittent parts, every other one dying out; a few without a record, or with nothing ever asked for."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.8, 0.9, parts)[:, None]
    alive = np.where(np.arange(parts) % 2, 1.0, 0.93)[:, None] ** np.arange(months)
    lumps = rng.poisson(1.2, (parts, months)) + 1
    counts = (rng.random((parts, months)) < 1 - np.exp(-rate * alive)) * lumps.astype(np.float64)
    counts[0] = np.nan
    counts[1] = 0.0
    counts[2, :-2] = np.nan
    counts[3, -6:] = np.nan
    return counts


def quiet(_share: float, _step: str) -> None:
    return


@pytest.fixture(scope="module")
def table() -> DemandTable:
    counts = fading_fleet(160, 24, 5)
    return DemandTable([f"part {i}" for i in range(len(counts))], "2023-01", counts)


@pytest.fixture(scope="module")
def candidate(table: DemandTable) -> Candidate:
    return train_demand(table, DemandPlan(HORIZON, SMALL), WORLD, quiet)


def test_the_network_beats_sba_where_parts_fade(table: DemandTable) -> None:
    learned, after = table.counts[:, :-HORIZON], table.counts[:, -HORIZON:]
    fitted = demand.fit(learned, HORIZON, None, SMALL, quiet)
    ours = demand.pinball(after, fitted.ahead(learned).month_quantile(0.95), 0.95)
    theirs = demand.pinball(after, intermittent.sba(learned).month_quantile(0.95)[:, None], 0.95)
    assert ours < theirs
    assert sum(p.numel() for p in fitted.net.parameters()) < 60_000


def test_the_default_network_is_small() -> None:
    settings = demand.DemandSettings()
    net = demand.DemandLstm(12, settings.hidden, settings.dropout, settings.members)
    assert sum(p.numel() for p in net.parameters()) < 60_000


def test_the_sealed_model_is_int8_proven_and_judged(candidate: Candidate, table: DemandTable) -> None:
    bundle = unpack(candidate.archive, digest(candidate.archive))
    passport = bundle.passport
    assert passport.slot == SPARE_PARTS
    assert passport.demand is not None
    assert passport.demand.horizon == HORIZON
    assert passport.demand.calendar is False
    assert passport.quality[0].metric == PINBALL
    assert passport.quality[0].reference_name in {"sba", "tsb", "empirical_quantile"}
    assert passport.eligible, passport.verdict
    assert parity.within_bound(passport.parity), passport.parity
    assert len(passport.demand.month_tail) == len(CLASSES)
    again = parity.Graph(bundle.graph)(np.asarray(bundle.golden_inputs["x"]))
    np.testing.assert_allclose(again, bundle.golden_outputs["q"], atol=passport.golden.atol)


def test_the_same_histories_give_the_same_bundle(candidate: Candidate, table: DemandTable) -> None:
    again = train_demand(table, DemandPlan(HORIZON, SMALL), WORLD, quiet)
    assert unpack(again.archive).graph == unpack(candidate.archive).graph
    assert (again.passport.demand, again.passport.quality) == (candidate.passport.demand, candidate.passport.quality)


def test_a_gateway_answers_with_the_sealed_model(candidate: Candidate, table: DemandTable) -> None:
    model = load(candidate.archive, digest(candidate.archive))
    parts = [PartHistory(name, "2023-01", list(row)) for name, row in zip(table.parts[:12], table.counts, strict=False)]
    parts.append(PartHistory("new", "2025-01", []))
    parts.append(PartHistory("one month", "2024-12", [2]))
    for report in forecast_demand(parts, model, Wish(lead_months=3), model.passport.lineage.trained_ms):
        assert report.model == model.ref
        assert np.isfinite(report.expected)
        assert report.expected > 0
        assert report.baseline + sum(c.amount for c in report.contributions) == pytest.approx(report.expected, abs=1e-9)
    reports = forecast_demand(parts, model, Wish(lead_months=3, explain=False), 0)
    never, new = reports[1], reports[-2]
    assert never.expected < new.expected


def test_the_champion_is_asked_the_same_question(candidate: Candidate, table: DemandTable) -> None:
    world = Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1, champions={SPARE_PARTS: candidate.archive})
    figure = train_demand(table, DemandPlan(HORIZON, SMALL), world, quiet).passport.quality[0]
    assert figure.champion == figure.model


def test_the_fleet_carries_on_from_its_last_year() -> None:
    steady = np.full((5, 30), 2.0)
    assert demand.fleet_ahead(steady, 6) == pytest.approx(2.0)
    falling = steady * 0.97 ** np.arange(30)
    assert falling[0, -1] * 0.97**6 < demand.fleet_ahead(falling, 6) < falling[0, -1]
    assert demand.fleet_ahead(steady[:, :2], 6) == pytest.approx(2.0)
    retired = np.concatenate([steady, np.full((5, 30), np.nan)])
    retired[5:, :10] = 50.0
    assert demand.fleet_ahead(retired, 6) == pytest.approx(2.0)
    assert np.isnan(demand.fleet_ahead(np.full((2, 30), np.nan), 6))


@pytest.mark.parametrize("months", [0, 1, 2 * HORIZON + 3])
def test_too_short_a_history_is_refused_with_the_remedy(months: int) -> None:
    with pytest.raises(Refused, match="shorter horizon"):
        train_demand(DemandTable(["a"], "", np.ones((1, months))), DemandPlan(HORIZON, SMALL), WORLD, quiet)


def test_negative_counts_and_a_fleet_without_demand_are_refused() -> None:
    counts = np.zeros((3, 24))
    with pytest.raises(Refused, match="some demand"):
        train_demand(DemandTable(["a", "b", "c"], "", counts), DemandPlan(HORIZON, SMALL), WORLD, quiet)
    retired = np.ones((3, 24))
    retired[:, 10:] = np.nan
    with pytest.raises(Refused, match="no part has records before and after"):
        demand.fit(retired, HORIZON, None, SMALL, quiet)
    counts[1, 5] = -1
    with pytest.raises(BadMessage, match="part 1 in month 5 is -1"):
        train_demand(DemandTable(["a", "b", "c"], "", counts), DemandPlan(HORIZON, SMALL), WORLD, quiet)


def test_the_calendar_is_an_input_only_where_it_is_asked_for(table: DemandTable) -> None:
    settings = demand.DemandSettings(length=12, hidden=8, members=1, rows=400, epochs=1, calendar=True)
    dated = demand.fit(table.counts, HORIZON, 3, settings, quiet).spec
    undated = demand.fit(table.counts, HORIZON, None, settings, quiet).spec
    assert (dated.calendar, undated.calendar) == (True, False)
    one, other = (demand_windows(table.counts, month, dated).x for month in (0, 6))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("dated", [True, False])
def test_the_benchmark_runs_on_any_folder_of_the_format(
    dated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import contract  # type: ignore[import-not-found]
    import spare_parts  # type: ignore[import-not-found]

    monkeypatch.setattr(contract, "peer", lambda _sheet, _module: None)
    monkeypatch.setattr(demand, "DemandSettings", lambda epochs: SMALL)
    counts = fading_fleet(480, 20, 9)
    head = [f"20{20 + i // 12}-{i % 12 + 1:02d}" for i in range(20)] if dated else [str(i) for i in range(20)]
    ids = dated
    rows = [(["id"] if ids else []) + head]
    for i, row in enumerate(counts):
        rows.append(([f"p{i}"] if ids else []) + ["" if np.isnan(v) else f"{v:g}" for v in row])
    (tmp_path / "pumps.csv").write_text("\n".join(",".join(row) for row in rows))
    assert (
        contract.run(
            "spare_parts", spare_parts.__doc__, spare_parts.measure, ["--data", str(tmp_path), "--quick", "--json"]
        )
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert [row["what"].split(":")[0] for row in printed["rows"]] == ["pumps"] * 5
    assert all(np.isfinite(row["ours"]) for row in printed["rows"])
    assert {row["holds"] for row in printed["rows"]} == {None}
    sys.modules.pop("spare_parts", None)


def test_tails_move_only_as_far_as_the_months_prove() -> None:
    rng = np.random.default_rng(2)
    mean, size = rng.gamma(2.0, 2.0, (400, 1)) * np.ones(6), np.full((400, 6), 1.5)
    kind = np.repeat([0, 3], 200)
    as_said = rng.poisson(rng.gamma(size, mean / size)).astype(np.float64)
    assert demand.tails(as_said, mean, size, kind) == [1.0] * len(CLASSES)
    narrow = np.where(kind[:, None] == 3, rng.poisson(mean), as_said)
    narrow[7] = np.nan
    proved = demand.tails(narrow, mean, size, kind)
    assert proved[:3] == [1.0, 1.0, 1.0]
    assert proved[3] > 1.5
    assert demand.tails(narrow[:29], mean[:29], size[:29], kind[:29]) == [1.0] * len(CLASSES)
    assert demand.tails(np.full((400, 6), np.nan), mean, size, kind) == [1.0] * len(CLASSES)
