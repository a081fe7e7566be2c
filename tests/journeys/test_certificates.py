"""A gateway, a server and a real Mosquitto between them that lets nobody in without a certificate."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from edge_agent import identity
from edge_agent.agent import Agent, build_agent
from edge_agent.broker import PahoLink
from edge_agent.clock import SystemClock
from edge_agent.config import AgentSettings, ServerSettings, UplinkSettings
from edge_agent.shown import Shown
from protocol.sync import encode
from protocol.topics import Channel, Topic
from protocol.twin import State
from server import enrolment, revocation
from server.broker import Intake
from server.database import Gateway, LedgerRow
from tests.factory import MemoryBroker, MemoryLink
from tests.identities import p256, pem, request
from tests.tls_broker import HOST, Plant, until

pytestmark = pytest.mark.broker
DAY = timedelta(days=1)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    with made.running():
        yield made


def enrolled(plant: Plant, gateway: str, when: datetime) -> Path:
    """The folder of a gateway that was enrolled then, and has not asked for anything since."""
    data, key = plant.folder / gateway, p256()
    with plant.database.begin() as session:
        token = enrolment.make_token(session, gateway, timedelta(hours=1), when)
        issued, own = enrolment.enrol(session, plant.ca, token, request(gateway, key).decode(), when)
    identity.replace(data / "identity", key=pem(key), certificate=issued.pem, authority=plant.ca.pem, token=own)
    return data


@contextmanager
def running(plant: Plant, gateway: str, data: Path, url: str) -> Iterator[Agent]:
    """An agent with a plant in memory and a real uplink."""
    mapping = plant.folder / "mapping.toml"
    mapping.write_text('[[source]]\ntopic = "plant/{machine}/{signal}"\nvalue = "$.value"\nroot_time = "$.timestamp"\n')
    settings = AgentSettings(
        site="s",
        gateway=gateway,
        data_dir=str(data),
        mapping=str(mapping),
        uplink=UplinkSettings(host=HOST, port=plant.port),
        server=ServerSettings(url=url),
    )
    shown, clock = Shown(settings), SystemClock()
    will = encode(State(online=False, timestamp=1, boot_id="b", agent_version="0"))
    state = Topic("s", gateway, Channel.STATE).text
    uplink = PahoLink(host=HOST, port=plant.port, client_id=f"{gateway}-uplink", tls=shown.tls, will=(state, will))
    agent = build_agent(
        settings,
        clock=clock,
        plant=MemoryLink(MemoryBroker()),
        uplink=uplink,
        fetch=lambda _: b"",
        boot_id="b",
        keeper=shown.keeper(clock, uplink.reconnect),
    )
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        yield agent
    finally:
        agent.stop()
        thread.join(30)


@contextmanager
def taking_in(plant: Plant) -> Iterator[Intake]:
    """The server's side of the broker, with a certificate that it made for itself."""
    intake = Intake(plant.settings, plant.database)
    intake.start()
    try:
        yield intake
    finally:
        intake.stop()


def stored(plant: Plant, gateway: str) -> int:
    with plant.database.begin() as session:
        return sum(row.upto for row in session.scalars(select(LedgerRow).where(LedgerRow.gateway == gateway)))


def test_a_gateway_whose_certificate_ran_out_while_it_was_offline_for_sixty_days_syncs_unaided(plant: Plant) -> None:
    data = enrolled(plant, "gw-60", datetime.now(UTC) - 60 * DAY)
    with plant.https() as url, taking_in(plant) as intake, running(plant, "gw-60", data, url) as agent:
        assert until(lambda: intake.connected)
        assert until(lambda: stored(plant, "gw-60") > 0, 30.0)
        assert agent.tally["identity.renewed"] == 1
        assert until(lambda: agent.tally["outbox.acked"] > 0)
    assert not (data / "identity" / "next").exists()


def test_a_certificate_is_renewed_while_the_agent_runs_and_messages_go_on(plant: Plant) -> None:
    data = enrolled(plant, "gw-25", datetime.now(UTC) - 25 * DAY)
    before = (data / "identity" / "cert.pem").read_bytes()
    with taking_in(plant), running(plant, "gw-25", data, "http://127.0.0.1:9") as agent:
        assert until(lambda: stored(plant, "gw-25") > 0, 20.0)
        assert until(lambda: agent.tally["identity.not_renewed"] > 0)  # the server's API is away, nothing else suffers
        told = msgspec.json.decode((data / "status.json").read_bytes())
        assert told["identity"]["failures"] == 0 or "127.0.0.1:9" in told["identity"]["last_error"]
    assert (data / "identity" / "cert.pem").read_bytes() == before
    had = stored(plant, "gw-25")
    with plant.https() as url, taking_in(plant), running(plant, "gw-25", data, url) as agent:
        assert until(lambda: agent.tally["identity.renewed"] == 1, 20.0)
        assert until(lambda: stored(plant, "gw-25") > had, 20.0)
    assert (data / "identity" / "cert.pem").read_bytes() != before


def online(plant: Plant, gateway: str) -> bool:
    with plant.database.begin() as session:
        return session.get_one(Gateway, gateway).online


def test_a_revoked_gateway_is_cut_off_and_goes_on_alone(plant: Plant) -> None:
    data = enrolled(plant, "gw-r", datetime.now(UTC) - DAY)
    with plant.https() as url, taking_in(plant), running(plant, "gw-r", data, url) as agent:
        assert until(lambda: stored(plant, "gw-r") > 0, 20.0)
        with plant.database.begin() as session:
            enrolment.revoke(session, "gw-r", "stolen", datetime.now(UTC))
        revocation.enforce(plant.settings, plant.database, plant.ca, "gw-r")
        assert until(lambda: not agent._link.connected)
        had, waiting = stored(plant, "gw-r"), agent._waiting()
        assert until(lambda: agent._waiting() > waiting, 20.0)  # it works, and keeps what it has to say
        time.sleep(1.0)
        assert stored(plant, "gw-r") == had
        assert until(lambda: not online(plant, "gw-r"))
