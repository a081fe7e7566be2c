"""Fault and supply models: learn, seal, load on a gateway, answer with reasons; the gate is honest; bad input is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from edge_agent.runtimes import LoadedModel, load
from edge_agent.skills import fault_risk, supply_risk
from protocol.bundles import digest
from protocol.errors import Refused
from protocol.event_features import HOUR_MS, EventSpec, MachineLog
from protocol.order_lines import LateSpec, OrderLines
from protocol.physics import Formula, Law
from server import training
from server.algorithms import fault_events, fault_rules, late_delivery, rule_list
from server.algorithms.fault_events import EventSettings, LearnedMachine
from server.algorithms.fault_rules import FaultSettings
from server.algorithms.late_delivery import LateSettings
from server.algorithms.rule_list import RuleSettings

ROOT = Path(__file__).parent.parent.parent
WORLD = training.Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=1_700_000_000_000, because="a test")
POWER = [Formula("power [W]", Law.POWER, ["torque", "speed"])]
EVENTS = EventSpec(errors=["e1", "e2"], components=["pump", "seal"], models=["A"])
LINES = LateSpec(keys=[["vendor"], ["route"]], numbers=["quantity"])
FEW_RULES = FaultSettings(
    weights=(3.0,), rules=RuleSettings(most_rules=4, beam=4, ladder=3, most_conditions=3), trees=20
)
DAY_MS = 24 * HOUR_MS


def quiet(_share: float, _step: str) -> None:
    return


def opened(candidate: training.Candidate) -> LoadedModel:
    return load(candidate.archive, digest(candidate.archive))


def shop(count: int = 900) -> tuple[np.ndarray, np.ndarray]:
    """Torque and speed; a machine fails above 9 kW or, rarely, by chance."""
    rng = np.random.default_rng(4)
    x = np.column_stack([rng.normal(45, 12, count), rng.normal(1600, 180, count), rng.normal(size=count)])
    failed = x[:, 0] * x[:, 1] * 2 * np.pi / 60 > 10_000
    return x, failed | (rng.random(count) < 0.004)


def plant(machines: int = 9, days: int = 150) -> list[LearnedMachine]:
    """e1 comes a day before the pump fails; e2 means nothing; a repair follows each failure."""
    rng = np.random.default_rng(5)
    made = []
    for m in range(machines):
        failures = np.sort(rng.choice(np.arange(5, days - 3), 5, replace=False)) * DAY_MS + 6 * HOUR_MS
        noise = np.sort(rng.integers(0, days * 24, 15)) * HOUR_MS
        log = MachineLog(
            error_ms=np.r_[failures - DAY_MS, noise].astype(np.int64),
            errors=["e1"] * len(failures) + ["e2"] * len(noise),
            replaced_ms=failures.astype(np.int64),
            replaced=["pump"] * len(failures),
            model="A",
            age_years=float(m),
        )
        made.append(
            LearnedMachine(f"M-{m}", log, failures.astype(np.int64), ["pump"] * len(failures), 0, days * DAY_MS)
        )
    return made


def book(count: int = 1200) -> OrderLines:
    """Vendor b is late half the time, the others seldom."""
    rng = np.random.default_rng(6)
    vendor = rng.choice(["a", "b", "c"], count)
    day = np.sort(rng.integers(15_000, 16_100, count))
    late = rng.random(count) < np.where(vendor == "b", 0.5, 0.03)
    return OrderLines(
        ids=[f"PO-{i}" for i in range(count)],
        fields={"vendor": [str(v) for v in vendor], "route": [str(r) for r in rng.choice(["sea", "air"], count)]},
        numbers={"quantity": rng.integers(1, 100, count).astype(float)},
        scheduled_day=day.astype(np.int64),
        delivered_day=(day + np.where(late, rng.integers(1, 20, count), -1)).astype(float),
    )


@pytest.fixture(scope="module")
def table_model() -> training.Candidate:
    x, failed = shop()
    return training.train_fault_table(x, ["torque", "speed", "noise"], POWER, failed, 0, WORLD, quiet, FEW_RULES)[0]


@pytest.fixture(scope="module")
def event_model() -> training.Candidate:
    return training.train_fault_events(plant(), EVENTS, 0.2, 0, WORLD, quiet, EventSettings(trees=25, leaves=6))[0]


@pytest.fixture(scope="module")
def late_model() -> training.Candidate:
    return training.train_late(book(), LINES, 0, WORLD, quiet)[0]


def test_a_learned_rule_finds_the_edge_that_physics_made() -> None:
    x, failed = shop(3000)
    power = x[:, :1] * x[:, 1:2] * 2 * np.pi / 60
    rules = rule_list.fit(np.hstack([x, power]), failed, RuleSettings(beam=4, ladder=3))
    edge = next(c for c in rules[0].conditions if c.feature == 3)
    assert edge.above
    assert edge.threshold == pytest.approx(10_000, abs=60)
    assert rule_list.precision_bound(0, 0) == 0.0
    assert rule_list.precision_bound(9, 10) < 0.9


@pytest.mark.parametrize("column", [0.0, np.nan])
def test_rules_and_trees_survive_a_constant_or_empty_column(column: float) -> None:
    x, failed = shop()
    x[:, 2] = column
    fitted = fault_rules.fit(x, failed, FEW_RULES, 0)
    assert np.isfinite(fitted.probability(x)).all()
    assert np.isfinite(fitted.probability(np.full((2, 3), np.nan))).all()


def test_too_few_failures_or_a_torn_table_are_refused() -> None:
    x, _ = shop()
    with pytest.raises(Refused, match="failures"):
        fault_rules.fit(x, np.zeros(len(x), dtype=bool), FEW_RULES, 0)
    with pytest.raises(Refused):
        fault_rules.fit(x, np.zeros(3, dtype=bool), FEW_RULES, 0)
    with pytest.raises(Refused):
        rule_list.fit(x, np.ones(len(x), dtype=bool), RuleSettings())
    with pytest.raises(Refused):
        fault_events.fit([], EVENTS, EventSettings(), 0)
    with pytest.raises(Refused, match="200"):
        late_delivery.fit(book(50), LINES, LateSettings())
    with pytest.raises(Refused):
        training.train_late(book(20), LINES, 0, WORLD, quiet)


def test_a_fault_table_is_sealed_and_answers_on_the_gateway_with_exact_reasons(
    table_model: training.Candidate,
) -> None:
    passport = table_model.passport
    assert passport.eligible, passport.verdict
    assert passport.parity.max_abs < 1e-9
    assert passport.features == ["torque", "speed", "noise", "power [W]"]
    model = opened(table_model)
    risk = fault_risk.risk_now("M-1", {"torque": 80.0, "speed": 1700.0}, model, 5)
    assert risk is not None
    assert risk.alarm
    assert risk.probability > 0.9
    assert risk.expected_score + sum(c.amount for c in risk.contributions) == pytest.approx(risk.score, abs=1e-9)
    assert risk.contributions[0].because in passport.features
    calm = fault_risk.risk_now("M-1", {"torque": 40.0, "speed": 1500.0, "noise": 0.0}, model, 5)
    assert calm is not None
    assert not calm.alarm
    assert fault_risk.risk_now("M-1", {"weather": 1.0}, model, 5) is None


def test_a_component_is_foretold_from_its_errors_and_nothing_else(event_model: training.Candidate) -> None:
    passport = event_model.passport
    assert passport.eligible, passport.verdict
    assert passport.parity.max_abs < 1e-9
    model = opened(event_model)
    now = 100 * DAY_MS + 6 * HOUR_MS
    none = np.zeros(0, dtype=np.int64)
    told = fault_risk.risks_ahead("new machine", MachineLog(np.array([now]), ["e1"], none, []), model, now)
    assert [risk.component for risk in told] == ["pump", "seal"]
    assert told[0].alarm
    assert told[0].expected_ms is not None
    assert 12 * HOUR_MS < told[0].expected_ms < 30 * HOUR_MS
    for risk in told:
        assert risk.expected_score + sum(c.amount for c in risk.contributions) == pytest.approx(risk.score, abs=1e-9)
    calm = fault_risk.risks_ahead("new machine", MachineLog(none, [], none, []), model, now)
    assert not any(risk.alarm for risk in calm)
    assert fault_risk.risk_now("M-1", {"e1": 1.0}, model, now) is None


def test_alarms_fall_silent_and_the_threshold_keeps_its_promise() -> None:
    asked = np.arange(0, 96, 6) * HOUR_MS
    raised = fault_events.alarms(np.full(len(asked), 0.9), asked, 0.5, 48)
    assert (raised // HOUR_MS).tolist() == [0, 54]
    machine = LearnedMachine("M", MachineLog(asked[:0], [], asked[:0], []), asked[:0], [], 0, 10**12)
    looked = [fault_events.Looked(machine, asked, np.full((len(asked), 2), 0.62))]
    assert fault_events.choose_threshold(looked, EVENTS, 0.0) == 0.65
    assert fault_events.choose_threshold(looked, EVENTS, 1e6) == 0.05


def test_late_lines_are_told_with_their_reasons_and_an_unknown_vendor_has_an_answer(
    late_model: training.Candidate,
) -> None:
    passport = late_model.passport
    assert passport.eligible, passport.verdict
    assert passport.parity.max_abs < 1e-9
    model = opened(late_model)
    asked = OrderLines(
        ids=["new-a", "new-b", "new-z"],
        fields={"vendor": ["a", "b", "z"], "route": ["sea"] * 3},
        numbers={"quantity": np.array([10.0, 10.0, np.nan])},
        scheduled_day=np.full(3, 16_110, dtype=np.int64),
        delivered_day=np.full(3, np.nan),
    )
    risks = {risk.order_line: risk for risk in supply_risk.supply_risks(book(), asked, model, 7)}
    assert risks["new-b"].probability > 0.3 > risks["new-a"].probability
    assert risks["new-a"].probability < risks["new-z"].probability < risks["new-b"].probability
    assert risks["new-b"].expected_days > risks["new-a"].expected_days > 0
    for risk in risks.values():
        assert risk.expected_score + sum(c.amount for c in risk.contributions) == pytest.approx(risk.score, abs=1e-9)
    assert supply_risk.supply_risks(book(), asked.rows(np.zeros(0, dtype=np.int64)), model, 7) == []
    alone = supply_risk.supply_risks(book().rows(np.zeros(0, dtype=np.int64)), asked, model, 7)
    assert len({risk.probability for risk in alone}) >= 1
    assert all(np.isfinite(risk.score) for risk in alone)


def test_chances_of_late_lines_are_calibrated() -> None:
    lines = book(3000)
    learned = lines.scheduled_day < 15_700
    fitted = late_delivery.fit(lines.rows(learned), LINES, LateSettings())
    from protocol.order_lines import late_features

    raw = late_delivery.shifted(fitted.raw(late_features(lines, lines, LINES)), lines.scheduled_day, lines.late, fitted)
    chance, late = 0.5 * (1 + np.tanh(0.5 * raw[~learned])), lines.late[~learned]
    for chosen in np.array_split(np.argsort(chance), 4):
        assert abs(chance[chosen].mean() - late[chosen].mean()) < 0.12


def test_a_model_of_one_family_has_no_answer_for_another(
    late_model: training.Candidate, table_model: training.Candidate
) -> None:
    none = np.zeros(0, dtype=np.int64)
    assert fault_risk.risks_ahead("M", MachineLog(none, [], none, []), opened(table_model), 1) == []
    assert supply_risk.supply_risks(book(), book(3), opened(table_model), 1) == []
    assert fault_risk.risk_now("M", {"torque": 1.0}, opened(late_model), 1) is None


def test_the_serving_model_is_measured_on_the_same_rows(table_model: training.Candidate) -> None:
    x, failed = shop()
    world = training.Circumstances("0" * 64, 1, 1, champions={training.TABULAR: table_model.archive})
    again = training.train_fault_table(x, ["torque", "speed", "noise"], POWER, failed, 0, world, quiet, FEW_RULES)[0]
    assert again.passport.quality[0].champion is not None
    assert again.passport.quality[0].champion > 0.8


def _benchmark(name: str, folder: Path) -> dict[str, object]:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--data", str(folder), "--quick", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_the_tabular_benchmark_runs_on_any_folder_of_its_format(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    head = "UDI,Product ID,Type,Air temperature [K],Process temperature [K],Rotational speed [rpm],Torque [Nm],"
    rows = [head + "Tool wear [min],Machine failure,TWF"]
    for i in range(900):
        torque, speed = rng.normal(45, 12), rng.normal(1600, 180)
        failed = int(torque * speed * 2 * np.pi / 60 > 9800)
        rows.append(
            f"{i},X{i},{'LMH'[i % 3]},300,{310 + rng.random():.2f},{speed:.0f},{torque:.1f},{i % 250},{failed},0"
        )
    (tmp_path / "mill.csv").write_text("\n".join(rows), encoding="utf-8")
    made = _benchmark("fault_tabular", tmp_path)["rows"]
    assert isinstance(made, list)
    assert {row["metric"] for row in made} == {"F1", "precision", "recall", "AUC"}
    assert all(row["holds"] is None for row in made)


def test_the_event_benchmark_runs_on_any_folder_of_its_format(tmp_path: Path) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    tables = {"errors": ["datetime,machineID,errorID"], "failures": ["datetime,machineID,failure"]}
    tables |= {"maint": ["datetime,machineID,comp"], "machines": ["machineID,model,age"]}
    for machine in plant(10):
        name = machine.name
        tables["machines"].append(f"{name},A,{machine.log.age_years:.0f}")

        def line(ms: int, what: str, name: str = name) -> str:
            return f"{(start + timedelta(milliseconds=int(ms))).strftime('%Y-%m-%d %H:%M:%S')},{name},{what}"

        tables["errors"] += [line(t, e) for t, e in zip(machine.log.error_ms, machine.log.errors, strict=True)]
        tables["failures"] += [line(t, c) for t, c in zip(machine.failed_ms, machine.failed, strict=True)]
        tables["maint"] += [line(t, c) for t, c in zip(machine.failed_ms, machine.failed, strict=True)]
    for table, rows in tables.items():
        (tmp_path / f"x_{table}.csv").write_text("\n".join(rows), encoding="utf-8")
    made = _benchmark("fault_events", tmp_path)["rows"]
    assert isinstance(made, list)
    assert made[0]["metric"] == "event recall"
    assert made[0]["n"] > 0


def test_the_late_benchmark_runs_on_any_folder_of_its_format(tmp_path: Path) -> None:
    lines = book(2400)
    names = (
        "ID,Project Code,Country,Vendor INCO Term,Shipment Mode,PO Sent to Vendor Date,Scheduled Delivery Date,"
        "Delivered to Client Date,Sub Classification,Vendor,Item Description,Line Item Quantity,Line Item Value,Unit Price,"
        "Manufacturing Site,Weight (Kilograms),Freight Cost (USD)"
    )

    def day(value: float) -> str:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=float(value))).strftime("%d-%b-%y")

    rows = [
        f"{i},P{i % 5},Kenya,EXW,Air,Date Not Captured,{day(lines.scheduled_day[i])},{day(lines.delivered_day[i])},Adult,"
        f"{lines.fields['vendor'][i]},Test,{lines.numbers['quantity'][i]:.0f},100,1.5,Works,See ASN-1,Freight Included"
        for i in range(len(lines))
    ]
    (tmp_path / "orders.csv").write_text("\n".join([names, *rows]), encoding="utf-8")
    made = _benchmark("late_delivery", tmp_path)["rows"]
    assert isinstance(made, list)
    assert made[0]["metric"] == "AUC"
    assert made[0]["ours"] > 0.6
