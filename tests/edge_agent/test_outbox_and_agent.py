"""Nothing leaves the outbox before the server's database has it; the agent works with the cable pulled."""

from __future__ import annotations

import errno
import importlib.util
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.agent import Agent, build_agent
from edge_agent.config import AgentSettings, ClockSettings, ForecastSettings, ShareSettings
from edge_agent.enrolment import Keeper
from edge_agent.explain import Labels
from edge_agent.runtimes import load
from edge_agent.skills.write_report import Facts, write
from edge_agent.updates import Change
from protocol.bundles import digest
from protocol.covariates import EVERY_MACHINE, KnownInput, Source
from protocol.feedback import Feedback, Verdict
from protocol.names import MessageClass
from protocol.observations import WorkOrder
from protocol.reports import Evidence, FaultEvent, Forecast, Recommendation, Report, Severity
from protocol.sync import ANSWER, Ack, Batch, ClassAck, Command, Message, decode, decode_message, encode
from protocol.twin import Role
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.verify import verify
from server import training
from server.cases import Case

EVENT, REPORT, BULK = MessageClass.EVENT, MessageClass.REPORT, MessageClass.BULK


def _factory() -> ModuleType:
    spec = importlib.util.spec_from_file_location("factory", Path(__file__).parent.parent / "factory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["factory"] = module
    spec.loader.exec_module(module)
    return module


factory = _factory()


class Gateway:
    """An agent in an in-memory factory, and a server that acknowledges when told to."""

    def __init__(self, folder: Path, keeper: Keeper | None = None) -> None:
        self._keeper = keeper
        (folder / "mapping.toml").write_text(
            '[[source]]\ntopic = "plant/{machine}/{signal}"\nvalue = "$.value"\ntime = "$.timestamp"\ntime_unit = "ms"\n'
            '[[known_inputs]]\ntopic = "schedule/line"\n[[work_orders]]\ntopic = "orders/{machine}"\n'
        )
        self.folder = folder
        self.broker: Any = factory.MemoryBroker()
        self.clock: Any = factory.FakeClock()
        self.time_ms = 1_790_000_000_000
        self.agent = self.start()

    def start(self) -> Agent:
        self.plant: Any = factory.MemoryLink(self.broker)
        self.uplink: Any = factory.MemoryLink(self.broker)
        settings = AgentSettings(
            site="s",
            gateway="g",
            data_dir=str(self.folder / "data"),
            mapping=str(self.folder / "mapping.toml"),
            step_ms=1000,
            clock=ClockSettings(simulated=True),
            forecast=ForecastSettings(season_steps=0, every_steps=4, horizon_steps=6),
            share=ShareSettings(block_steps=10),
        )
        self.agent = build_agent(
            settings,
            clock=self.clock,
            plant=self.plant,
            uplink=self.uplink,
            fetch=lambda _: b"",
            boot_id="b",
            keeper=self._keeper,
        )
        return self.agent

    def tell(self, value: float) -> None:
        body = {"value": value, "timestamp": self.time_ms}
        self.broker.deliver("plant/P-101/v", msgspec.json.encode(body), False)
        self.time_ms += 1000
        self.clock.pass_s(1)
        self.agent.step(0)

    def sent(self, message_class: MessageClass) -> list[int]:
        topic = f"mw/v1/s/g/up/{message_class.value}"
        batches = [decode(p, Batch) for t, p in self.broker.published if t == topic]
        return sorted({e.mwseq for b in batches for e in b.envelopes})

    def reports(self) -> list[Report]:
        return [m for m in self.messages(REPORT) if isinstance(m, Report)]

    def messages(self, message_class: MessageClass) -> list[Message]:
        """What went up on one lane, each number once."""
        found = {}
        for topic, payload in self.broker.published:
            if topic == f"mw/v1/s/g/up/{message_class.value}":
                for e in decode(payload, Batch).envelopes:
                    found[e.mwseq] = decode_message(e.type, e.data)
        return list(found.values())


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path)
    yield made
    made.agent.close()


def calm(gateway: Gateway, n: int) -> None:
    noise = random.Random(3)
    for _ in range(n):
        gateway.tell(20 + noise.gauss(0, 0.2))


def test_a_fault_becomes_one_report_that_cites_its_evidence_in_both_languages(gateway: Gateway) -> None:
    calm(gateway, 80)
    for _ in range(12):
        gateway.tell(26.0)
    (report,) = gateway.reports()
    assert "above its expected range" in report.title_en
    assert "高于预期范围" in report.title_zh
    assert report.evidence[0].value == 26.0
    assert "26.0" in report.sections[0].text_en
    assert "26.0" in report.sections[0].text_zh
    assert "[1]" in report.sections[0].text_en


def test_what_the_agent_reports_is_read_back(gateway: Gateway) -> None:
    calm(gateway, 80)
    for _ in range(12):
        gateway.tell(26.0)
    (report,) = gateway.reports()
    assert verify(report, FAULT_REPORT) == []


def test_a_report_of_silence_says_that_nothing_was_observed_since(gateway: Gateway) -> None:
    noise = random.Random(4)
    for n in range(100):
        if n < 80:
            body = {"value": 5.0 + noise.gauss(0, 0.1), "timestamp": gateway.time_ms}
            gateway.broker.deliver("plant/P-102/v", msgspec.json.encode(body), False)
        gateway.tell(20 + noise.gauss(0, 0.2))
    (report,) = [r for r in gateway.reports() if r.machine == "P-102"]
    assert "has sent no values" in report.sections[0].text_en
    assert report.evidence[0].samples == 0
    assert "There was no observation" in report.sections[1].text_en
    assert verify(report, FAULT_REPORT) == []


def test_a_restart_does_not_warm_the_watch_up_again(gateway: Gateway) -> None:
    calm(gateway, 100)
    gateway.agent.close()
    assert (gateway.folder / "data" / "watch.json").exists()
    gateway.start()
    calm(gateway, 20)
    for _ in range(12):
        gateway.tell(26.0)
    assert len(gateway.reports()) == 1


def test_a_watch_file_that_cannot_be_read_is_left_aside(gateway: Gateway) -> None:
    calm(gateway, 10)
    gateway.agent.close()
    (gateway.folder / "data" / "watch.json").write_text('{"signals": 3}')
    gateway.start()
    calm(gateway, 10)


@pytest.mark.parametrize(
    ("kind", "en", "zh"),
    [
        ("stuck", "stood still at 7.00", "一直停在"),
        ("silent", "the last was 7.00", "无数据上报"),
        ("machine_unusual", "together have left their normal state", "组合偏离正常状态"),
    ],
)
def test_a_report_says_in_both_languages_what_stands_out(kind: str, en: str, zh: str) -> None:
    seen = Evidence(machine="P-101", signal="v", start_ms=0, end_ms=60_000, samples=1, statistic="max", value=7.0)
    event = FaultEvent(
        id="e",
        machine="P-101",
        signal="v",
        kind=kind,
        severity=Severity.WARNING,
        start_ms=0,
        detected_ms=60_000,
        score=0.0,
    )
    report = write(Facts(event, seen, None, None, None), Labels(), 60_000)
    assert en in report.sections[0].text_en
    assert zh in report.sections[0].text_zh
    assert "expected range" not in report.title_en


def test_readings_are_acknowledged_after_they_are_on_disk_and_all_accounted_for(gateway: Gateway) -> None:
    calm(gateway, 30)
    gateway.broker.deliver("plant/P-101/v", b"not json", False)
    gateway.broker.deliver(
        "plant/P-101/v", msgspec.json.encode({"value": 1.0, "timestamp": gateway.time_ms - 1000}), False
    )
    gateway.clock.pass_s(1)
    gateway.agent.step(0)
    gateway.clock.pass_s(1)
    gateway.agent.step(0)
    counters = gateway.agent.counters()
    assert len(gateway.plant.acknowledged) == 32
    assert counters["intake.stored"] == 30
    assert counters["quarantine.malformed_json"] == 1
    assert counters["quarantine.conflicting_duplicate"] == 1
    assert counters["intake.samples"] == 32


def test_with_the_cable_pulled_it_goes_on_and_everything_arrives_afterwards(gateway: Gateway) -> None:
    calm(gateway, 40)
    gateway.uplink.connected = False
    calm(gateway, 40)
    for _ in range(12):
        gateway.tell(26.0)
    assert gateway.agent.counters()["reports.written"] == 1
    assert gateway.reports() == []
    gateway.uplink.connected = True
    gateway.clock.pass_s(10)
    gateway.agent.step(0)
    assert len(gateway.reports()) == 1
    bulk = gateway.sent(BULK)
    assert bulk == list(range(1, len(bulk) + 1))


def test_what_the_server_has_not_acknowledged_goes_out_again_after_a_restart(gateway: Gateway) -> None:
    calm(gateway, 80)
    for _ in range(12):
        gateway.tell(26.0)
    assert len(gateway.reports()) == 1
    gateway.agent.close()
    gateway.broker.published.clear()
    gateway.start()
    gateway.agent.step(0)
    assert len(gateway.reports()) == 1
    ack = Ack(classes={REPORT: ClassAck(upto=1)})
    gateway.broker.deliver("mw/v1/s/g/dn/ack", encode(ack), False)
    gateway.agent.step(0)
    gateway.broker.published.clear()
    gateway.clock.pass_s(60)
    gateway.agent.step(0)
    assert gateway.reports() == []


def test_a_schedule_and_a_failure_mode_are_known_on_the_gateway_and_told_to_the_server_once(gateway: Gateway) -> None:
    now = gateway.time_ms
    plan = KnownInput(
        id="plan-1", machine=EVERY_MACHINE, covariate="load", start_ms=now + 2000, end_ms=now + 5000, known_ms=now - 1,
        value=0.5, source=Source.SCHEDULE,
    )  # fmt: skip
    order = WorkOrder(id="w-1", machine="P-101", time_ms=now, failure_mode="bearing wear")
    for _ in range(2):
        gateway.broker.deliver("schedule/line", encode(plan), False)
        gateway.broker.deliver("orders/P-101", encode(order), False)
        calm(gateway, 2)
    told = [m for m in gateway.messages(EVENT) if isinstance(m, KnownInput)]
    assert sorted(m.covariate for m in told) == ["event:bearing-wear", "load"]
    gateway.agent.close()
    gateway.start()
    origin = np.array([now], dtype=np.int64)
    seen = gateway.agent._known.columns("P-101", ["load", "event:bearing-wear"], origin, 1000, 0, 6)
    assert seen[0].tolist() == [[0, 0, 0.5, 0.5, 0.5, 0], [1, 1, 1, 1, 1, 1]]


def test_a_restart_costs_neither_history_nor_what_the_forecaster_has_learned(gateway: Gateway) -> None:
    calm(gateway, 80)
    learned = gateway.agent._forecast.live_errors()
    assert learned
    gateway.agent.close()
    gateway.start()
    assert gateway.agent._forecast.live_errors() == learned
    gateway.broker.published.clear()
    calm(gateway, 6)
    shown = [decode(p, Forecast) for t, p in gateway.broker.published if t.endswith("/shop/forecast")]
    assert shown[0].fallback == ""
    assert shown[0].coverage_n > 50


def test_a_damaged_memory_is_told_and_the_gateway_starts_without_it(gateway: Gateway) -> None:
    calm(gateway, 30)
    gateway.agent.close()
    (gateway.folder / "data" / "forecast.state").write_bytes(b"torn")
    agent = gateway.start()
    assert agent.tally["refused.wrong_type"] == 1
    assert agent._forecast.live_errors() == []
    calm(gateway, 10)
    assert agent.tally["forecasts.issued"] > 0


def test_a_place_that_cannot_be_written_costs_what_was_learned_and_not_the_gateway(gateway: Gateway) -> None:
    calm(gateway, 10)
    for file in ("forecast.state", "watch.json"):
        (gateway.folder / "data" / file).mkdir()  # a file cannot replace a folder
    gateway.agent._save_watch()
    gateway.agent._save_learned()
    calm(gateway, 10)
    counters = gateway.agent.counters()
    assert (counters["not_saved.watch.json"], counters["not_saved.forecast.state"]) == (1, 1)
    assert counters["intake.stored"] == 20


def test_a_damaged_memory_is_counted_and_the_gateway_starts_anew(gateway: Gateway) -> None:
    calm(gateway, 6)
    gateway.agent.close()
    for file in ("forecast.state", "watch.json"):
        (gateway.folder / "data" / file).write_bytes(b"{half")
    gateway.start()
    calm(gateway, 6)
    counters = gateway.agent.counters()
    assert sum(n for name, n in counters.items() if name.startswith("refused.")) == 2
    assert counters["intake.stored"] == 12


def _recommender(gateway: Gateway) -> None:
    """What cured high values of v: mostly a, often b, now and then c."""
    cases = [
        Case(i * 3_600_000, ("symptom:v:high", f"machine:P-{i % 3}"), {f"action:{'aaabbc'[i % 6]}": 1.0})
        for i in range(60)
    ]
    world = training.Circumstances(dataset_digest="0" * 64, dataset_rows=60, now_ms=9, because="a test")
    (made,) = training.train_recommend(cases, 7, world, lambda _share, _step: None)
    gateway.agent._install(Change(training.ITEMS, Role.SERVING, load(made.archive, digest(made.archive))))


def _next_list(gateway: Gateway, name: str) -> Recommendation:
    """What is shown for one more fault of the same kind."""
    now = gateway.time_ms
    seen = Evidence(
        machine="P-101", signal="v", start_ms=now - 9, end_ms=now, samples=3, statistic="max", value=26.0
    )  # fmt: skip
    fault = FaultEvent(
        id=name, machine="P-101", signal="v", kind="above_expected", severity=Severity.WARNING, start_ms=now - 9,
        detected_ms=now, score=9.0, symptoms=["v:high"], evidence=[seen],
    )  # fmt: skip
    gateway.agent._tell_event(fault, now)
    shown = [decode(p, Recommendation) for t, p in gateway.broker.published if t.endswith("/shop/recommendation")]
    return shown[-1]


@pytest.mark.parametrize("by", ["the plant", "the server"])
def test_the_next_list_knows_an_answer_with_the_cable_pulled_and_after_a_restart(gateway: Gateway, by: str) -> None:
    calm(gateway, 8)
    _recommender(gateway)
    first = _next_list(gateway, "e-1")
    wrong = first.items[0].item
    no = Feedback(
        id="f-1", target=first.id, item=wrong, verdict=Verdict.REJECTED, time_ms=gateway.time_ms,
        via="shop" if by == "the plant" else "console",
    )  # fmt: skip
    if by == "the plant":
        gateway.broker.deliver("mw/v1/s/g/shop/feedback", encode(no), False)
    else:
        order = Command(
            id=no.id, name=ANSWER, expires_ms=gateway.clock.now_ms() + 9999, arguments=msgspec.Raw(encode(no))
        )
        gateway.broker.deliver("mw/v1/s/g/dn/cmd", encode(order), False)
    gateway.tell(26.0)
    gateway.uplink.connected = False
    gateway.agent.close()
    gateway.start()
    _recommender(gateway)
    second = _next_list(gateway, "e-2")
    assert second.event == "e-2"
    assert second.items
    assert wrong not in [one.item for one in second.items]
    assert [(out.item, out.reason) for out in second.left_out] == [(wrong, "rejected")]
    assert gateway.agent.tally["recommendations.made"] == 1


def test_a_full_outbox_stops_neither_readings_nor_alarms_and_says_what_it_did_not_take(gateway: Gateway) -> None:
    calm(gateway, 80)
    outbox = gateway.agent._outbox
    outbox._max_bytes = 1
    outbox._group_most = 2_000
    gateway.uplink.connected = False
    for _ in range(12):
        gateway.tell(26.0)
    answer = Feedback(id="f-9", target="r-1", verdict=Verdict.REJECTED, time_ms=gateway.time_ms, via="shop")
    gateway.broker.deliver("mw/v1/s/g/shop/feedback", encode(answer), False)
    calm(gateway, 40)
    counters = gateway.agent.counters()
    assert counters["intake.stored"] == 132
    assert [t for t, _ in gateway.broker.published if t.endswith("/shop/report")], "people on the floor hear of it"
    assert counters["outbox.no_room"] > 0
    assert counters["quarantine.queue_full.other"] == 1, "the answer was not accepted, and that is told"
    assert all(outbox.lanes[c].shed == 0 for c in (MessageClass.ALARM, MessageClass.FEEDBACK, REPORT))
    outbox._max_bytes = 256_000_000
    gateway.uplink.connected = True
    calm(gateway, 10)
    assert gateway.agent._unkept == []
    assert gateway.sent(REPORT) == [1]


def test_an_agent_stops_in_good_order_although_its_status_finds_no_room(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    calm(gateway, 10)
    monkeypatch.setattr("edge_agent.agent.write_status", no_room)
    calm(gateway, 10)
    gateway.agent.close()
    assert gateway.agent.tally["not_saved.status.json"] > 0
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        gateway.agent._outbox.read(REPORT, 0, 1, 1)
    gateway.start()


def test_readings_that_find_no_room_are_not_acknowledged_and_come_in_when_there_is_some(gateway: Gateway) -> None:
    calm(gateway, 10)
    before = len(gateway.plant.acknowledged)
    store = gateway.agent._history._store
    full: Any = sqlite3.OperationalError("database or disk is full")

    def no_room(*_: object) -> Any:
        raise full

    gateway.agent._history._store = no_room  # type: ignore[method-assign]
    calm(gateway, 5)
    assert len(gateway.plant.acknowledged) == before
    assert gateway.agent.tally["history.no_room"] > 0
    gateway.agent._history._store = store  # type: ignore[method-assign]
    calm(gateway, 5)
    assert gateway.agent.counters()["intake.stored"] == 20
    assert len(gateway.plant.acknowledged) == 20
