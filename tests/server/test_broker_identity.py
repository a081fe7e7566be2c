"""What a gateway can do at a real Mosquitto that `millwright server broker-config` has set up, and what it cannot. A granted
subscription and an acknowledged publication say nothing, so every test looks at what was delivered."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from edge_agent.broker import PahoLink
from edge_agent.identity import context
from protocol.errors import BadSettings, TryLater
from protocol.sync import MAX_BATCH_BYTES
from protocol.topics import Channel, Topic
from server import broker_config, enrolment, revocation
from server.broker_config import READ, WRITTEN, rules
from server.identity import CA
from tests.identities import Key, p256
from tests.tls_broker import HOST, SERVER, Plant, until

pytestmark = pytest.mark.broker
A, B = "gw-a", "gw-b"


def topic(gateway: str, channel: Channel, site: str = "s") -> str:
    return Topic(site, gateway, channel).text


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    made = Plant(tmp_path_factory.mktemp("plant"))
    with made.running():
        yield made


def settled(plant: Plant) -> None:
    """Everything that was published before has been delivered, or never will be."""
    probe = plant.client(SERVER + "-probe").come_in()
    time.sleep(0.3)
    probe.leave()


def test_every_channel_has_a_rule_or_is_the_plants_own() -> None:
    assert {*WRITTEN, *READ} == {channel for channel in Channel if not channel.value.startswith("shop/")}
    assert "shop" not in rules("mw/v1", [SERVER])


def test_a_gateway_says_what_is_its_own_and_nothing_in_the_name_of_another(plant: Plant) -> None:
    server = plant.client(SERVER).come_in().listen("mw/v1/#", *(Topic.every(c) for c in WRITTEN))
    a = plant.client(A).come_in()
    for channel in Channel:
        a.say(topic(B, channel))
    for other in (
        "mw/v1/s/gw-a",
        "mw/v1/gw-a/up/alarm",
        "mw/v1/s/gw-a/x/up/alarm",
        "mw/v1/s/gw-a/shop/event",
        "plant/x",
    ):
        a.say(other)
    for channel in READ:
        a.say(topic(A, channel), b"an acknowledgement of its own making")
    for channel in WRITTEN:
        a.say(topic(A, channel), channel.value.encode())
    assert until(lambda: len({t for t, _ in server.heard}) == len(WRITTEN))
    settled(plant)
    assert {t for t, _ in server.heard} == {topic(A, channel) for channel in WRITTEN}
    assert all(t.endswith(payload.decode()) for t, payload in server.heard)
    server.leave()


def test_a_gateway_hears_what_is_for_it_whatever_it_subscribes_to(plant: Plant) -> None:
    b = plant.client(B).come_in().listen(*(topic(B, channel) for channel in READ))
    wide = [
        "#",
        "mw/#",
        "mw/v1/#",
        "+/+/+/+/dn/ack",
        "mw/v1/s/+/dn/#",
        topic(B, Channel.DOWN_ACK),
        "$share/g/mw/v1/#",
        "$SYS/#",
    ]
    a = plant.client(A).come_in().listen(*wide, *(topic(B, channel) for channel in Channel))
    server = plant.client(SERVER).come_in()
    for channel in READ:
        server.say(topic(B, channel), b"for b")
        server.say(topic(A, channel), b"for a")
    assert until(lambda: len(b.heard) == len(READ))
    assert until(lambda: {t for t, _ in a.heard} == {topic(A, channel) for channel in READ})
    other = plant.client("gw-c").come_in()
    for channel in WRITTEN:
        other.say(topic("gw-c", channel))
    time.sleep(1.5)  # $SYS is told every second
    assert {payload for _, payload in a.heard} == {b"for a"}
    assert {payload for _, payload in b.heard} == {b"for b"}


def test_what_is_retained_is_for_its_gateway_alone(plant: Plant) -> None:
    server = plant.client(SERVER).come_in()
    server.say(topic(B, Channel.TWIN_DESIRED), b"b's twin", retain=True)
    a = plant.client(A).come_in().listen(topic(B, Channel.TWIN_DESIRED), "mw/v1/+/+/twin/desired", "#")
    a.say(topic(B, Channel.STATE), b"b is gone, says a", retain=True)
    b = plant.client(B).come_in().listen(topic(B, Channel.TWIN_DESIRED))
    assert until(lambda: b.heard == [(topic(B, Channel.TWIN_DESIRED), b"b's twin")])
    late = plant.client(SERVER).come_in().listen(topic(B, Channel.STATE))
    settled(plant)
    assert (a.heard, late.heard) == ([], [])
    late.say(topic(B, Channel.TWIN_DESIRED), b"", retain=True)


def test_nobody_ends_another_ones_session_by_its_client_id_or_its_username(plant: Plant) -> None:
    b = plant.client(B, client_id=B).come_in().listen(topic(B, Channel.DOWN_ACK))
    a = plant.client(A, client_id=B, username=B).come_in()
    server = plant.client(SERVER).come_in().listen("mw/v1/+/+/up/alarm")
    a.say(topic(B, Channel.UP_ALARM), b"a as b")
    a.say(topic(A, Channel.UP_ALARM), b"a as a")
    assert until(lambda: server.heard)
    server.say(topic(B, Channel.DOWN_ACK), b"still there?")
    assert until(lambda: b.heard)
    assert b.ended == 0
    assert server.heard == [(topic(A, Channel.UP_ALARM), b"a as a")]


def test_a_will_reaches_the_gateways_own_state_and_no_other(plant: Plant) -> None:
    server = plant.client(SERVER).come_in().listen(Topic.every(Channel.STATE))
    for victim in (B, A):
        # a will that the rules do not let out is refused with the connection, or stays silent: both are right
        a = plant.client(A, will=topic(victim, Channel.STATE))
        until(lambda a=a: a.accepted or a.ended, 5.0)  # type: ignore[misc]
        a.die()
    assert until(lambda: server.heard == [(topic(A, Channel.STATE), b"will")], 5.0)
    settled(plant)
    assert server.heard == [(topic(A, Channel.STATE), b"will")]


def test_a_message_beyond_the_limit_reaches_nobody_and_costs_its_sender_the_session(plant: Plant) -> None:
    server = plant.client(SERVER).come_in().listen(Topic.every(Channel.UP_BULK))
    a = plant.client(A).come_in()
    a.say(topic(A, Channel.UP_BULK), b"x" * MAX_BATCH_BYTES)
    with suppress(RuntimeError):  # the session ended while it was being sent
        a.say(topic(A, Channel.UP_BULK), b"x" * (MAX_BATCH_BYTES + 1000), wait_s=1.0)
    assert until(lambda: a.ended)
    settled(plant)
    assert [len(payload) for _, payload in server.heard] == [MAX_BATCH_BYTES]


def self_signed(name: str, key: Key) -> bytes:
    subject, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_who_has_no_certificate_of_this_authority_or_one_that_ran_out_is_not_let_in(
    plant: Plant, tmp_path: Path
) -> None:
    key, now = p256(), datetime.now(UTC)
    strangers = CA.make(tmp_path / "strangers", now)
    month = timedelta(days=30)
    expired = plant.ca.client(key.public_key(), A, now - 31 * timedelta(days=1), month).pem
    certificates = {
        "expired": expired,
        "self-signed": self_signed(A, key),
        "another authority's": strangers.client(key.public_key(), A, now, month).pem,
        "a host's": plant.ca.host(key.public_key(), [HOST], now).pem,
    }
    for what, certificate in certificates.items():
        assert plant.client(plant.written(certificate, key), username=A).refused(), what
    assert plant.client(None, username=A).refused(), "none"
    assert not plant.client(A).refused()


@pytest.mark.parametrize("name", ["+", "#", f"{B}/x", B.upper(), f"{B} ", f"{B}\n", "%u", "*", "$SYS", "mw/v1/s/gw-b"])
def test_a_strange_name_gains_nothing_even_if_it_were_signed(plant: Plant, name: str) -> None:
    server = plant.client(SERVER).come_in().listen("mw/v1/#", Topic.every(Channel.UP_ALARM))
    strange = plant.client(name)
    if not strange.refused():
        strange.listen(topic(B, Channel.DOWN_ACK), "mw/v1/+/+/dn/ack", "#")
        strange.say(topic(B, Channel.UP_ALARM))
        server.say(topic(B, Channel.DOWN_ACK), b"for b")
    settled(plant)
    assert (strange.heard, server.heard) == ([], [])


def test_revocation_ends_the_open_session_and_keeps_the_gateway_out(plant: Plant) -> None:
    files = plant.files("gw-r")
    stolen = plant.client(files).come_in().listen(topic("gw-r", Channel.DOWN_ACK))
    other = plant.client(B).come_in()
    now = datetime.now(UTC)
    with plant.database.begin() as session:
        enrolment.revoke(session, "gw-r", "stolen", now)
    revocation.write_list(plant.settings, plant.database, plant.ca, now)
    revocation.reload(plant.settings)
    server = plant.client(SERVER).come_in().listen(Topic.every(Channel.UP_ALARM))
    stolen.say(topic("gw-r", Channel.UP_ALARM), b"the list alone does not end a session")
    assert until(lambda: server.heard)
    assert revocation.enforce(plant.settings, plant.database, plant.ca, "gw-r").startswith("refuses it")
    assert until(lambda: stolen.ended)
    server.heard.clear()
    assert plant.client(files).refused()
    with pytest.raises(RuntimeError, match="not currently connected"):
        stolen.say(topic("gw-r", Channel.UP_ALARM))
    other.say(topic(B, Channel.UP_ALARM))
    assert until(lambda: server.heard)
    assert server.heard == [(topic(B, Channel.UP_ALARM), b"x")]
    assert other.ended == 0


def test_a_revoked_gateway_that_is_enrolled_again_is_let_in(plant: Plant) -> None:
    old = plant.files("gw-s")
    with plant.database.begin() as session:
        enrolment.revoke(session, "gw-s", "", datetime.now(UTC))
    revocation.enforce(plant.settings, plant.database, plant.ca, "gw-s")
    assert plant.client(old).refused()
    assert not plant.client("gw-s").refused()


def test_a_broker_that_does_not_read_the_list_again_is_found_out(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.files("gw-t")
    deaf = msgspec.structs.replace(plant.settings.identity, reload=("true",))
    settings = msgspec.structs.replace(plant.settings, identity=deaf)
    monkeypatch.setattr(revocation, "BROKER_TIMEOUT_S", 1.0)
    with pytest.raises(TryLater, match="still takes in"):
        revocation.enforce(settings, plant.database, plant.ca, "gw-t")
    for reload, said in (((), "is empty"), (("false",), "ended with 1"), (("no-such-program",), "no-such-program")):
        broken = msgspec.structs.replace(settings, identity=msgspec.structs.replace(deaf, reload=reload))
        with pytest.raises(BadSettings, match=said):
            revocation.enforce(broken, plant.database, plant.ca, "gw-t")


def test_a_new_certificate_in_the_middle_of_a_session_loses_nothing(plant: Plant) -> None:
    authority, certificate, key = plant.files("gw-m")
    tls = context(authority, certificate, key)
    server = plant.client(SERVER).come_in().listen(Topic.every(Channel.UP_EVENT))
    link = PahoLink(host=HOST, port=plant.port, client_id="x", tls=tls, will=(topic("gw-m", Channel.STATE), b"gone"))
    try:
        link.subscribe(topic("gw-m", Channel.DOWN_ACK))
        assert until(lambda: link.connected)
        link.publish(topic("gw-m", Channel.UP_EVENT), b"1")
        assert until(lambda: len(server.heard) == 1)
        _, new_certificate, new_key = plant.files("gw-m")
        tls.load_cert_chain(new_certificate, new_key)
        link.reconnect()
        assert until(lambda: link.connected)
        link.publish(topic("gw-m", Channel.UP_EVENT), b"2")
        assert until(lambda: [payload for _, payload in server.heard] == [b"1", b"2"])
        server.say(topic("gw-m", Channel.DOWN_ACK), b"heard")
        arrival = link.receive(5.0)
        assert arrival is not None
        assert arrival.payload == b"heard"
    finally:
        link.close()


def test_a_new_certificate_for_a_link_that_was_refused_holds_nobody_up(plant: Plant) -> None:
    now, key = datetime.now(UTC), p256()
    old = plant.ca.client(key.public_key(), "gw-n", now - timedelta(days=60), timedelta(days=30))
    authority, certificate, place = plant.written(old.pem, key)
    tls = context(authority, certificate, place)
    link = PahoLink(host=HOST, port=plant.port, client_id="x", tls=tls)
    try:
        time.sleep(3.5)  # refused, and refused again: the next try is seconds away
        assert not link.connected
        _, new_certificate, new_key = plant.files("gw-n")
        tls.load_cert_chain(new_certificate, new_key)
        before = time.monotonic()
        link.reconnect()
        assert time.monotonic() - before < 0.5
        assert until(lambda: link.connected)
    finally:
        link.close()


def test_a_gateway_whose_clock_says_1970_still_knows_the_broker(plant: Plant) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = plant.folder / "broker"
    day_two = ["-attime", "86400", "-CAfile", str(folder / "ca.pem"), "-purpose", "sslserver", "-verify_ip", HOST]
    done = subprocess.run(
        [openssl, "verify", *day_two, str(folder / "host.pem")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_broker_is_only_set_up_for_names_that_can_be_right(plant: Plant, tmp_path: Path) -> None:
    for hosts, users, said in (
        ((), (), "--host"),
        (["*"], (), "neither a host"),
        ([HOST], ("gw-a",), "must begin with"),
    ):
        with pytest.raises(BadSettings, match=said):
            broker_config.write(plant.settings, plant.database, tmp_path, hosts, 8883, users)
