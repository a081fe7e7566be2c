"""Rows that are appended many at a time come back as they were said, from SQLite and PostgreSQL, and one that the database
refuses takes nothing else with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
from fastapi.testclient import TestClient
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import create_engine, make_url, select, text
from sqlalchemy.exc import DBAPIError

from protocol.clocks import ClockConfidence
from protocol.names import MessageClass
from protocol.observations import SignalBlock
from protocol.reports import Forecast, ModelRef
from protocol.sync import Ack, Batch, ClassAck, Envelope, Message, decode, encode, envelope
from protocol.topics import Topic
from protocol.twin import State
from server import intake
from server.app import create_app
from server.broker import Intake
from server.config import BrokerSettings, Settings
from server.database import Database, ForecastRow, QuarantineRow, SignalBlockRow, Table
from server.lines import Arrival
from server.many_rows import refuses

NOW = 1_790_000_000_000
NUMBERS = count()
TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "postgresql":
        url = make_url(request.getfixturevalue("postgres_url"))
        server = create_engine(url, isolation_level="AUTOCOMMIT")
        name = f"many_rows_{next(NUMBERS)}"
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        server.dispose()
        made = Database(url.set(database=name).render_as_string(hide_password=False))
        Table.metadata.create_all(made.engine)
    else:
        made = Database(f"sqlite:///{tmp_path}/server.db")
        Table.metadata.create_all(made.engine)
    yield made
    made.close()


def wrapped(message: Message, seq: int) -> Envelope:
    return envelope(message, site="s", gateway="g", seq=seq, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)


def block(n: int, machine: str = "P-101", values: list[float | None] | None = None) -> SignalBlock:
    return SignalBlock(
        machine=machine,
        signal="flow",
        unit="m³/h",
        start_ms=NOW + n,
        step_ms=1000,
        values=values or [float(n), None, -0.5],
    )


def forecast(n: int) -> Forecast:
    return Forecast(
        id=f"f-{n}",
        machine="P-101",
        signal="flow",
        issued_ms=NOW + n,
        inputs_until_ms=NOW,
        start_ms=NOW,
        step_ms=1000,
        mean=[1.5],
        low=[0.5],
        high=[2.5],
        level=0.8,
        model=ModelRef("forecast.lstm", "lstm", 1),
    )


def send(database: Database, *envelopes: Envelope, one_by_one: bool = False) -> ClassAck:
    payload = encode(Batch(envelopes=list(envelopes)))
    with database.begin() as session:
        return intake.store_batch(session, "s", "g", MessageClass.BULK, payload, NOW, one_by_one=one_by_one)


def seqs(database: Database) -> list[int]:
    with database.begin() as session:
        return list(session.scalars(select(SignalBlockRow.seq).order_by(SignalBlockRow.seq)))


def taken_already(database: Database, seq: int) -> None:
    """A row that the ledger does not know of: the database refuses another one of its number."""
    with database.begin() as session:
        session.add(
            SignalBlockRow(
                gateway="g",
                seq=seq,
                sent_ms=1,
                stored_ms=1,
                machine="m",
                signal="s",
                unit="",
                start_ms=1,
                step_ms=1,
                values=[],
            )
        )


@pytest.mark.postgres
def test_what_was_said_comes_back(database: Database) -> None:
    odd = 'tab\there, "quoted", back\\slash, \\N, 泵 \N{PILE OF POO}, literally \\u0000'
    said = [block(1), block(2, odd), block(3, values=[1e-300, 1e300, None])]
    ack = send(database, *(wrapped(b, n) for n, b in enumerate(said, start=1)), wrapped(forecast(4), 4))
    assert (ack.upto, ack.nack) == (4, [])
    with database.begin() as session:
        rows = session.scalars(select(SignalBlockRow).order_by(SignalBlockRow.seq)).all()
        fields = [{n: getattr(row, n) for n in SignalBlock.__struct_fields__} for row in rows]
        assert [msgspec.convert(f, SignalBlock) for f in fields] == said
        assert {(row.gateway, row.sent_ms, row.stored_ms) for row in rows} == {("g", NOW, NOW)}
        (told,) = session.scalars(select(ForecastRow))
        assert msgspec.convert(told.body, Forecast) == forecast(4)
    assert send(database, *(wrapped(b, n) for n, b in enumerate(said, start=1))).upto == 4
    assert seqs(database) == [1, 2, 3]


@pytest.mark.postgres
def test_a_text_with_nul_is_refused_and_nothing_else(database: Database) -> None:
    ack = send(database, wrapped(block(1), 1), wrapped(block(2, "P\0"), 2), wrapped(block(3), 3))
    assert (ack.upto, [(r.seq, r.reason) for r in ack.nack]) == (3, [(2, "wrong_type")])
    assert seqs(database) == [1, 3]


@pytest.mark.postgres
def test_a_state_with_nul_is_put_aside_and_what_came_with_it_is_stored(database: Database) -> None:
    server = Intake(Settings(admin_token=TOKEN, gateway_token=TOKEN), database)
    state = State(online=True, timestamp=1, boot_id="b\0", agent_version="1")
    told = {"mw/v1/s/bad/state": encode(state), "mw/v1/s/g/up/bulk": encode(Batch(envelopes=[wrapped(block(1), 1)]))}
    for topic, payload in told.items():
        server._lines[0].put(Arrival(mid=1, qos=1, topic=Topic.parse(topic), payload=payload))
    server._lines[0].take_some()
    assert seqs(database) == [1]
    with database.begin() as session:
        (put_aside,) = session.scalars(select(QuarantineRow))
        assert (put_aside.gateway, put_aside.reason) == ("bad", "wrong_type")


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v1/notes", {"gateway": "g", "machine": "P\0", "text": "t"}),
        ("POST", "/api/v1/notes", {"gateway": "g\0", "machine": "P", "text": "t"}),
        ("POST", "/api/v1/feedback", {"target": "r\0", "verdict": "accepted"}),
        ("GET", "/api/v1/gateways/%00", None),
        ("GET", "/api/v1/bundles/%00", None),
        ("GET", "/api/v1/ledger/%00", None),
        ("GET", "/console/machine/g%00/m", None),
        ("GET", "/console/samples/g/m%00/s?start_ms=0&end_ms=1", None),
        ("GET", f"/api/v1/events?before={10**20}", None),
    ],
)
def test_a_call_with_what_no_database_holds_is_answered(
    database: Database, tmp_path: Path, method: str, path: str, body: dict[str, str] | None
) -> None:
    settings = Settings(artifacts=str(tmp_path / "artifacts"), admin_token=TOKEN, gateway_token=TOKEN[::-1])
    with database.begin() as session:
        intake.heard_of(session, "s", "g")
    with TestClient(create_app(settings, database), headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        answer = client.request(method, path, json=body)
    assert answer.status_code < 500
    assert answer.status_code < 300 or {"error", "remedy"} <= answer.json().keys()


@pytest.mark.postgres
def test_what_the_database_refuses_is_put_aside_alone(database: Database) -> None:
    taken_already(database, 2)
    batch = [wrapped(block(n), n) for n in (1, 2, 3)]
    with pytest.raises(DBAPIError) as raised:
        send(database, *batch)
    assert refuses(raised.value)
    ack = send(database, *batch, one_by_one=True)
    assert (ack.upto, [(r.seq, r.reason) for r in ack.nack]) == (3, [(2, "not_storable")])
    assert seqs(database) == [1, 2, 3]
    with database.begin() as session:
        (put_aside,) = session.scalars(select(QuarantineRow))
        assert (put_aside.seq, put_aside.reason) == (2, "not_storable")


@pytest.mark.postgres
@pytest.mark.broker
def test_a_message_that_the_database_refuses_holds_no_other_gateway_up(mosquitto_port: int, database: Database) -> None:
    taken_already(database, 1)
    server = Intake(
        Settings(admin_token=TOKEN, gateway_token=TOKEN, broker=BrokerSettings(port=mosquitto_port)), database
    )
    heard: dict[str, Ack] = {}
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="both")
    client.on_message = lambda _c, _u, m: heard.update({m.topic.split("/")[3]: decode(m.payload, Ack)})
    client.connect("127.0.0.1", mosquitto_port)
    client.subscribe("mw/v1/s/+/dn/ack", 1)
    client.loop_start()
    server.start()
    until = time.monotonic() + 20
    while not server.connected and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    payload = encode(Batch(envelopes=[wrapped(block(n), n) for n in (1, 2)]))
    for gateway in ("g", "other"):
        client.publish(f"mw/v1/s/{gateway}/up/bulk", payload, qos=1)
    while len(heard) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    client.disconnect()
    client.loop_stop()
    server.stop()
    assert {gateway: ack.classes[MessageClass.BULK].upto for gateway, ack in heard.items()} == {"g": 2, "other": 2}
    assert [r.reason for r in heard["g"].classes[MessageClass.BULK].nack] == ["not_storable"]


@pytest.mark.postgres
def test_rows_that_are_read_at_once_are_those_that_are_read_one_by_one(database: Database) -> None:
    lanes = {(gateway, lane) for gateway in ("g", "h") for lane in (MessageClass.BULK, MessageClass.EVENT)}
    for seq in (1, 2):
        payload = encode(Batch(envelopes=[wrapped(block(seq), seq)]))
        with database.begin() as session:
            taking = intake.Taking(session, NOW)
            taking.expect(lanes)
            told = [taking.batch("s", gateway, MessageClass.BULK, payload) for gateway in ("g", "h")]
            taking.finish()
        assert [one.upto for one in told] == [seq, seq]
    assert seqs(database) == [1, 1, 2, 2]
