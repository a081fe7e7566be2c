"""A synced batch is stored exactly once, whatever the network did to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import func, select

from protocol.clocks import ClockConfidence
from protocol.covariates import KnownInput, Source
from protocol.errors import BadMessage, BadSettings
from protocol.feedback import Feedback, Verdict
from protocol.names import MessageClass
from protocol.observations import WorkOrder
from protocol.reports import DemandForecast, FaultRisk, ModelRef, SupplyRisk
from protocol.sync import Ack, Batch, ClassAck, Envelope, Message, decode, encode, envelope
from protocol.twin import State
from server import config, datasets, intake, ranges
from server.__main__ import migrate
from server.broker import Intake
from server.config import BrokerSettings, Settings
from server.database import Database, FeedbackRow, Gateway, LedgerRow, QuarantineRow, StatementRow, Table, WorkOrderRow

NOW = 1_790_000_000_000
TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF"
span = st.tuples(st.integers(1, 60), st.integers(0, 8)).map(lambda s: (s[0], s[0] + s[1]))


@given(st.lists(span, max_size=12), st.integers(0, 20))
def test_ranges_say_exactly_which_numbers_are_there(told: list[tuple[int, int]], upto: int) -> None:
    there = set(range(1, upto + 1)) | {n for a, b in told for n in range(a, b + 1)}
    reached, beyond = ranges.settle(upto, told)
    assert {n for n in range(1, 80) if ranges.holds(n, reached, beyond)} == there
    assert reached + 1 not in there
    missing = {n for a, b in ranges.gaps(reached, beyond) for n in range(a, b + 1)}
    assert missing == set(range(1, max(there, default=0) + 1)) - there


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/server.db")
    Table.metadata.create_all(made.engine)
    yield made
    made.close()


def order(n: int) -> WorkOrder:
    return WorkOrder(id=f"WO-{n}", machine="P-101", time_ms=n, actions=["replace-bearing"])


def wrapped(message: Message, seq: int) -> Envelope:
    return envelope(message, site="s", gateway="g", seq=seq, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)


def send(database: Database, *envelopes: Envelope, shed: list[tuple[int, int]] | None = None) -> ClassAck:
    payload = encode(Batch(envelopes=list(envelopes), shed=shed or []))
    with database.begin() as session:
        return intake.store_batch(session, "s", "g", MessageClass.EVENT, payload, NOW)


def stored(database: Database) -> list[str]:
    with database.begin() as session:
        return list(session.scalars(select(WorkOrderRow.order_id).order_by(WorkOrderRow.seq)))


def test_a_batch_seen_twice_is_acknowledged_twice_and_stored_once(database: Database) -> None:
    batch = [wrapped(order(n), n) for n in (1, 2, 3)]
    assert send(database, *batch).upto == 3
    assert send(database, *batch).upto == 3
    assert stored(database) == ["WO-1", "WO-2", "WO-3"]
    with database.begin() as session:
        ledger = session.get_one(LedgerRow, ("g", "event"))
        assert (ledger.stored, ledger.duplicates) == (3, 3)


def test_a_gap_is_named_until_it_is_filled_or_shed(database: Database) -> None:
    ack = send(database, wrapped(order(5), 5), wrapped(order(2), 2))
    assert (ack.upto, ack.beyond, ack.gaps) == (0, [(2, 2), (5, 5)], [(1, 1), (3, 4)])
    assert send(database, wrapped(order(1), 1)).upto == 2
    ack = send(database, shed=[(3, 4)])
    assert (ack.upto, ack.gaps) == (5, [])


def test_what_cannot_be_stored_is_quarantined_with_its_reason_and_does_not_block_what_follows(
    database: Database,
) -> None:
    strange = msgspec.structs.replace(wrapped(order(1), 1), type="millwright.surprise.v9")
    broken = msgspec.structs.replace(wrapped(order(2), 2), data=msgspec.Raw(b'{"id": 7}'))
    ack = send(database, strange, broken, wrapped(order(3), 3))
    assert ack.upto == 3
    assert [(r.seq, r.reason) for r in ack.nack] == [(1, "unknown_type"), (2, "wrong_type")]
    with database.begin() as session:
        assert session.scalar(select(func.count()).select_from(QuarantineRow)) == 2
    assert stored(database) == ["WO-3"]


def test_a_batch_that_cannot_be_read_stores_nothing(database: Database) -> None:
    with pytest.raises(BadMessage), database.begin() as session:
        intake.store_batch(session, "s", "g", MessageClass.EVENT, b'{"envelopes": [', NOW)
    assert stored(database) == []


def test_the_same_thing_under_another_number_is_stored_once(database: Database) -> None:
    send(database, wrapped(order(1), 1), wrapped(order(1), 2))
    assert stored(database) == ["WO-1"]


def test_an_answer_that_comes_before_its_target_is_kept(database: Database) -> None:
    answer = Feedback(id="f1", target="later", verdict=Verdict.ACCEPTED, time_ms=NOW)
    send(database, wrapped(answer, 1), wrapped(answer, 2))
    with database.begin() as session:
        (row,) = session.scalars(select(FeedbackRow))
        assert (row.target, row.target_kind) == ("later", "")


def test_a_late_will_of_an_old_session_does_not_take_a_gateway_offline(database: Database) -> None:
    def state(online: bool, timestamp: int) -> bytes:
        return encode(State(online=online, timestamp=timestamp, boot_id="b", agent_version="1"))

    with database.begin() as session:
        intake.take_state(session, "s", "g", state(True, 2000))
        intake.take_state(session, "s", "g", state(False, 1000))
        assert session.get_one(Gateway, "g").online
        intake.take_state(session, "s", "g", state(False, 2000))
        assert not session.get_one(Gateway, "g").online


@pytest.mark.parametrize("token", ["", "short", "a" * 40, "changeme-changeme-changeme-1"])
def test_an_unsafe_secret_refuses_to_start(token: str) -> None:
    with pytest.raises(BadSettings, match="admin_token"):
        config.load(None, {"MILLWRIGHT_ADMIN_TOKEN": token, "MILLWRIGHT_GATEWAY_TOKEN": TOKEN})


@pytest.mark.postgres
def test_migrations_and_intake_hold_on_postgresql(postgres_url: str) -> None:
    migrate(Settings(database=postgres_url, admin_token=TOKEN, gateway_token=TOKEN))
    made = Database(postgres_url)
    batch = [wrapped(order(n), n) for n in (1, 2)]
    assert send(made, *batch).upto == 2
    assert send(made, *batch).upto == 2
    assert stored(made) == ["WO-1", "WO-2"]
    made.close()


@pytest.mark.broker
def test_a_real_broker_gets_the_acknowledgement_after_the_row_is_there(mosquitto_port: int, database: Database) -> None:
    settings = Settings(admin_token=TOKEN, gateway_token=TOKEN, broker=BrokerSettings(port=mosquitto_port))
    server = Intake(settings, database)
    server.start()
    heard: list[tuple[Ack, list[str]]] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="g-uplink")
    client.on_message = lambda _c, _u, m: heard.append((decode(m.payload, Ack), stored(database)))
    client.connect("127.0.0.1", mosquitto_port)
    client.subscribe("mw/v1/s/g/dn/ack", 1)
    client.loop_start()
    until = time.monotonic() + 10
    while not server.connected and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    client.publish("mw/v1/s/g/up/event", encode(Batch(envelopes=[wrapped(order(1), 1)])), qos=1)
    while not heard and time.monotonic() < until:
        time.sleep(0.05)
    client.disconnect()
    client.loop_stop()
    server.stop()
    ((ack, rows),) = heard
    assert ack.classes[MessageClass.EVENT].upto == 1
    assert rows == ["WO-1"]


def test_stated_risks_are_kept_once_with_what_they_are_about(database: Database) -> None:
    model = ModelRef("fault.events", "discrete_hazard_trees", 1)
    fault = FaultRisk(
        id="r-1",
        machine="P-1",
        component="seal",
        issued_ms=NOW,
        probability=0.5,
        score=0.0,
        expected_score=0.0,
        model=model,
    )
    supply = SupplyRisk(
        id="r-2",
        order_line="PO-1/2",
        issued_ms=NOW,
        probability=0.25,
        expected_days=1.5,
        score=-1.1,
        expected_score=-1.1,
        model=model,
    )
    send(database, wrapped(fault, 1), wrapped(supply, 2), wrapped(supply, 3))
    with database.begin() as session:
        kept = session.scalars(select(StatementRow).order_by(StatementRow.id)).all()
        assert [(row.type, row.machine, row.subject) for row in kept] == [
            ("millwright.fault_risk.v1", "P-1", "seal"),
            ("millwright.supply_risk.v1", "", "PO-1/2"),
        ]


def test_known_inputs_are_kept_in_every_version_and_reach_the_data_set(database: Database, tmp_path: Path) -> None:
    plan = KnownInput(
        id="plan-1",
        machine="P-1",
        covariate="load",
        start_ms=NOW,
        end_ms=NOW + 1000,
        known_ms=NOW - 10,
        source=Source.SCHEDULE,
    )
    later = msgspec.structs.replace(plan, value=0.5, known_ms=NOW - 5)
    send(database, wrapped(later, 1), wrapped(plan, 2), wrapped(plan, 3))
    with database.begin() as session:
        inputs = datasets.collect_inputs(session, 0)
        assert [known.value for known in inputs] == [1.0, 0.5]
        grid = datasets.SignalGrid(0, 1000, [("P-1", "v")], np.zeros((1, 3)), inputs)
        snapshot = datasets.freeze_signals(grid, tmp_path)
    assert datasets.read_signals(tmp_path / snapshot.path, snapshot.digest).inputs == inputs


def test_a_demand_forecast_is_kept_once_and_found_by_its_part(database: Database) -> None:
    told = DemandForecast(
        id="demand-1",
        part="bearing 6204",
        issued_ms=NOW,
        inputs_until_ms=NOW - 5,
        first_month="2026-04",
        known_months=0,
        pattern="rare",
        month_mean=[0.5],
        expected=0.5,
        levels=[0.95],
        quantiles=[2],
        none_probability=0.6,
        order_up_to=2,
        baseline=0.5,
        model=ModelRef("supply.demand", "smoothed_rate"),
    )
    send(database, wrapped(told, 1), wrapped(told, 2))
    with database.begin() as session:
        kept = list(session.scalars(select(StatementRow).where(StatementRow.subject == "bearing 6204")))
        assert [msgspec.convert(row.body, DemandForecast) for row in kept] == [told]
