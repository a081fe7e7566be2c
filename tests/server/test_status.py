"""Every refusal is counted with its reason, and seen by whoever looks: the command, the API, Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

import millwright
from protocol.exposition import Family, exposition
from protocol.names import MessageClass
from protocol.sync import Batch, Refusal, encode
from server import leases
from server.app import create_app
from server.broker import Intake
from server.config import Settings
from server.database import Database, Table
from server.refusals import Refusals
from tests.server.test_ledger import Lane, lane, order, poison, url  # noqa: F401 - fixtures

TOKEN, WATCHER = "k3Jx9QmW2vLs8RtZ5yBn7CdF", "zX3cV5bN7mQ9wE1rT2yU4iO6"
NOW = 1_790_000_000_000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/server.db")
    Table.metadata.create_all(made.engine)
    yield made
    made.close()


@given(st.text(max_size=20))
def test_whatever_a_label_says_its_line_is_one_line_that_can_be_read_back(value: str) -> None:
    one = Family("m_total", "counter", "What was\ncounted.")
    one.add(3, reason=value)
    _, kind, line = exposition([one, Family("empty", "gauge", "Nothing.")]).removesuffix("\n").split("\n")
    assert kind == "# TYPE m_total counter"
    (told,) = re.fullmatch(r'm_total\{reason="((?:[^"\\]|\\.)*)"\} 3', line, re.DOTALL).groups()  # type: ignore[union-attr]
    assert re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), told) == value


def message(topic: str, payload: bytes) -> mqtt.MQTTMessage:
    made = mqtt.MQTTMessage(topic=topic.encode())
    made.payload = payload
    return made


def test_each_refusal_of_the_intake_is_counted_by_its_reason(database: Database) -> None:
    refusals = Refusals()
    settings = Settings(admin_token=TOKEN, gateway_token=TOKEN[::-1], metrics_token=WATCHER)
    intake = Intake(settings, database, refusals)
    batch = encode(Batch(envelopes=[order(1), poison(2)], dead=[Refusal(3, "server_fails")]))
    told = [("mw/v1/s/g/up/event", batch), ("mw/v1/s/g/up/event", b"{"), ("mw/v1/s/g/up/else", b""), ("x/y", b"")]
    for topic, payload in told:
        intake._heard(message(topic, payload))
    intake._lines[0].take_some()
    client = TestClient(create_app(settings, database, None, refusals))
    assert client.get("/api/v1/status").status_code == 401
    status = client.get("/api/v1/status", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    counts = {(one["where"], one["why"]): one["count"] for one in status["refusals"]}
    assert counts == {("mqtt", "malformed_json"): 1, ("mqtt", "unknown_topic"): 2, ("mqtt", "wrong_type"): 1}
    assert status["quarantine"] == {"malformed_json": 1, "wrong_type": 1}
    event = {"complete_to": 3, "through": 3, "stored": 1, "duplicates": 0, "quarantined": 1, "missing": 0, "shed": 0}
    assert status["gateways"][0]["lanes"] == {MessageClass.EVENT: event | {"dead": 1}}
    assert client.get("/metrics").status_code == 401
    watcher = {"Authorization": f"Bearer {WATCHER}"}
    assert client.get("/api/v1/status", headers=watcher).status_code == 401
    metrics = client.get("/metrics", headers=watcher)
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'millwright_refusals_total{where="mqtt",reason="unknown_topic"} 2\n' in metrics.text
    assert 'millwright_ledger_messages{gateway="g",class="event",state="dead"} 1\n' in metrics.text


def test_the_command_says_how_the_server_is(url: str, lane: Lane, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert millwright.main(["status", "--url", url]) == 1
    said = capsys.readouterr().out
    assert "in quarantine: wrong_type 1" in said
    assert "event     complete to 2, 0 waiting; 2 missing, 2 shed, 1 dead, 1 quarantined" in said
    lane.send(Batch(envelopes=[order(3), order(4)]))
    assert millwright.main(["status", "--url", url, "--json"]) == 0


def test_one_process_has_a_lease_until_it_gives_it_back_or_dies(database: Database) -> None:
    def held(holder: str, at_ms: int) -> bool:
        with database.begin() as session:
            return leases.hold(session, "gateways", holder, at_ms)

    assert held("a", NOW)
    assert not held("b", NOW + leases.LEASE_MS - 1)
    assert held("a", NOW + leases.LEASE_MS - 1)
    assert not held("b", NOW + leases.LEASE_MS + 1), "it was renewed"
    assert held("b", NOW + 2 * leases.LEASE_MS), "a died"
    assert not held("a", NOW + 2 * leases.LEASE_MS)
    with database.begin() as session:
        leases.give_back(session, "gateways", "a")
        leases.give_back(session, "gateways", "b")
    assert held("a", NOW + 2 * leases.LEASE_MS)
