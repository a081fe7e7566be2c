"""Where no MQTT gets out, the same batches go over HTTPS: stored once, acknowledged after the commit, whatever happens."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from fastapi import Request, Response
from fastapi.testclient import TestClient
from sqlalchemy import select

from edge_agent.agent import build_agent
from edge_agent.config import AgentSettings
from edge_agent.enrolment import web_context
from edge_agent.https_link import MOST_REPLIES_WAITING, HttpsLink
from edge_agent.outbox import Outbox
from edge_agent.uplink import Uplink
from protocol.errors import BadSettings, TryLater
from protocol.feedback import Feedback, Verdict
from protocol.names import MessageClass
from protocol.sync import MAX_BATCH_BYTES, Ack, Batch, Command, Reply, decode, encode
from protocol.topics import Channel, Topic
from protocol.twin import State
from server import feedback
from server.__main__ import migrate
from server.app import create_app
from server.config import Settings
from server.database import CertificateRow, Database, Gateway, LedgerRow, ReplyRow, WorkOrderRow
from server.enrolment import book
from server.handed_down import handed_down
from server.identity import CA, Issued
from tests import factory
from tests.identities import p256, pem
from tests.server.test_ledger import order, poison

TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF"
EVENT = MessageClass.EVENT
STATE = Topic("s", "g", Channel.STATE)


class Server:
    """A server on loopback that can be killed and come back on its port; it knows the gateway g."""

    def __init__(self, folder: Path) -> None:
        self.tls: dict[str, str] = {}
        self.settings = Settings(
            database=f"sqlite:///{folder}/server.db",
            artifacts=str(folder / "artifacts"),
            admin_token=TOKEN,
            gateway_token=TOKEN[::-1],
        )
        migrate(self.settings)
        self.database = Database(self.settings.database)
        now = datetime.now(UTC)
        later = now.replace(year=now.year + 1, day=1)
        with self.database.begin() as session:
            self.token = book(session, Issued("g", "1", b"", "k", now, later), "enrolled", now)
        self.app = create_app(self.settings, self.database)
        self.kills = 0
        self.app.middleware("http")(self.die_before_the_answer)
        self.app.middleware("http")(self.hear_replies)
        self.replies: list[bytes] = []
        self.knows_replies = True
        self.client = TestClient(self.app, headers={"Authorization": f"Bearer {self.token}"})
        self.port = 0
        self.start()

    def start(self) -> None:
        config = uvicorn.Config(
            self.app, host="127.0.0.1", port=self.port, log_level="critical", timeout_graceful_shutdown=1, **self.tls
        )
        self.uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.uvicorn.run)
        self.thread.start()
        until = time.monotonic() + 15
        while not self.uvicorn.started:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.02)
        self.port = self.uvicorn.servers[0].sockets[0].getsockname()[1]

    async def die_before_the_answer(self, request: Request, call_next: Callable[..., Any]) -> Response:
        """So many times: what was asked is committed, and the server is gone before anybody hears of it."""
        answer: Response = await call_next(request)
        if request.url.path.endswith(f"/{EVENT.value}") and self.kills:  # not at the canary, which is empty
            self.kills -= 1
            self.uvicorn.should_exit = self.uvicorn.force_exit = True
            await asyncio.sleep(60)
        return answer

    async def hear_replies(self, request: Request, call_next: Callable[..., Any]) -> Response:
        """Keeps their bytes; a server of an earlier version has no such call."""
        if request.url.path.endswith("/sync/reply"):
            if not self.knows_replies:
                return Response(status_code=405)
            self.replies.append(await request.body())
        answer: Response = await call_next(request)
        return answer

    def became(self) -> dict[str, tuple[bool, str]]:
        with self.database.begin() as session:
            return {
                row.command: (row.done, row.reason) for row in session.scalars(select(ReplyRow).order_by(ReplyRow.id))
            }

    def stop(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(15)

    def orders(self) -> list[int]:
        with self.database.begin() as session:
            return list(session.scalars(select(WorkOrderRow.seq).order_by(WorkOrderRow.seq)))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.stop()
    made.database.close()


@pytest.fixture
def link(server: Server) -> Iterator[HttpsLink]:
    made = HttpsLink(f"http://127.0.0.1:{server.port}", STATE, lambda: server.token, lambda: None, lambda: 0.0)
    yield made
    made.close()


def until_true(what: str, holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until, f"not after {timeout_s} s: {what}"
        time.sleep(0.02)


def test_an_outbox_empties_over_https_although_the_server_is_killed_between_commit_and_answer(
    server: Server, link: HttpsLink, tmp_path: Path
) -> None:
    outbox = Outbox(tmp_path / "outbox.db", 10_000_000)
    for n in range(1, 1001):
        outbox.add(EVENT, encode(order(n)))
    outbox.commit()
    uplink = Uplink(link, outbox, STATE, time.monotonic, resend_after_s=1.0)
    server.kills = 2

    def empty() -> bool:
        uplink.pump()
        while (arrival := link.receive(0.0)) is not None:
            if arrival.topic.endswith("dn/ack"):
                uplink.acknowledged(decode(arrival.payload, Ack))
        if server.uvicorn.should_exit:
            server.stop()
            server.start()
        return outbox.lanes[EVENT].waiting == 0

    until_true("the outbox is empty", empty, 60.0)
    assert server.orders() == list(range(1, 1001))
    with server.database.begin() as session:
        ledger = session.get_one(LedgerRow, ("g", "event"))
        assert (ledger.upto, ledger.stored, server.kills) == (1000, 1000, 0)
        assert ledger.duplicates >= 2, "what was committed and not answered came again"
    outbox.close()


def test_state_goes_up_and_what_people_said_comes_down(server: Server, link: HttpsLink) -> None:
    until_true("the link stands", lambda: link.connected)
    born = State(online=True, timestamp=5, boot_id="b", agent_version="1")
    link.publish(STATE.text, encode(born), retain=True)

    def known() -> bool:
        with server.database.begin() as session:
            return session.get(Gateway, "g") is not None

    until_true("the gateway is known", known)
    answer = Feedback(id="fb-1", target="x", verdict=Verdict.ACCEPTED, time_ms=1, via="console")
    with server.database.begin() as session:
        session.get_one(Gateway, "g").desired = {"version": 3, "models": []}
        feedback.store(session, answer, "g", None, time.time_ns() // 1_000_000)
    heard = [link.receive(10.0), link.receive(10.0)]
    topics = {arrival.topic.removeprefix("mw/v1/s/g/"): arrival.payload for arrival in heard if arrival is not None}
    assert msgspec.json.decode(topics["twin/desired"])["version"] == 3
    assert decode(topics["dn/cmd"], Command).id == "fb-1"
    assert link.receive(6.0) is None, "what was handed down is not handed down again"


def said(number: int) -> bytes:
    return encode(Reply(id=f"c-{number}", done=number % 2 == 0, reason="expired", result=msgspec.Raw(b'{"n":1}')))


def test_replies_wait_for_a_server_that_is_away_and_come_in_order_with_the_same_bytes(
    server: Server, link: HttpsLink
) -> None:
    until_true("the link stands", lambda: link.connected)
    topic = STATE.sibling(Channel.UP_REPLY).text
    link.publish(topic, said(1))
    until_true("the first is there", lambda: len(server.became()) == 1)
    server.stop()
    for number in range(2, 30):
        link.publish(topic, said(number))
    until_true("the link is down", lambda: not link.connected)
    server.start()
    until_true("all are there", lambda: len(server.became()) == 29)
    assert [*dict.fromkeys(server.replies)] == [said(number) for number in range(1, 30)]
    assert list(server.became().items())[:2] == [("c-1", (False, "expired")), ("c-2", (True, "expired"))]
    told = server.client.get("/api/v1/replies", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    assert (told[-1]["gateway"], told[-1]["command"], told[-1]["result"]) == ("g", "c-1", '{"n":1}')


def test_what_an_agent_says_of_a_command_is_the_same_over_https_and_over_mqtt(
    server: Server, link: HttpsLink, tmp_path: Path
) -> None:
    (tmp_path / "mapping.toml").write_text('[[source]]\ntopic = "plant/{machine}/{signal}"\nvalue = "$"\n')
    broker, clock = factory.MemoryBroker(), factory.FakeClock(ms=time.time_ns() // 1_000_000, disciplined=True)

    def agent_with(uplink: Any, folder: str) -> Any:
        settings = AgentSettings(
            site="s", gateway="g", data_dir=str(tmp_path / folder), mapping=str(tmp_path / "mapping.toml")
        )
        plant = factory.MemoryLink(factory.MemoryBroker())
        return build_agent(settings, clock=clock, plant=plant, uplink=uplink, fetch=lambda _: b"")

    until_true("the link stands", lambda: link.connected)
    over_https = agent_with(link, "https")
    answer = Feedback(id="fb-1", target="x", verdict=Verdict.ACCEPTED, time_ms=1, via="console")
    with server.database.begin() as session:
        session.add(Gateway(id="g", site="s", desired={}, reported={}, heartbeat={}))
        feedback.store(session, answer, "g", None, clock.ms)

    def replied() -> bool:
        over_https.step(0)
        return "fb-1" in server.became()

    until_true("the agent's word is there", replied)
    assert server.became() == {"fb-1": (True, "")}
    over_mqtt = agent_with(factory.MemoryLink(broker), "mqtt")
    with server.database.begin() as session:
        (command,) = handed_down(session, "g", clock.ms).commands
    broker.deliver(STATE.sibling(Channel.DOWN_COMMAND).text, encode(command), False)
    over_mqtt.step(0)
    heard = [payload for topic, payload in broker.published if topic == STATE.sibling(Channel.UP_REPLY).text]
    assert heard == server.replies
    over_https.close()
    over_mqtt.close()


def test_a_server_that_knows_no_replies_holds_nothing_up(server: Server, link: HttpsLink) -> None:
    server.knows_replies = False
    until_true("the link stands", lambda: link.connected)
    link.publish(STATE.sibling(Channel.UP_REPLY).text, said(1))
    link.publish(STATE.sibling(Channel.UP_EVENT).text, encode(Batch(envelopes=[order(1)])))
    arrival = link.receive(10.0)
    assert arrival is not None
    assert decode(arrival.payload, Ack).classes[EVENT].upto == 1
    assert (link.connected, server.became()) == (True, {})


def test_replies_that_nobody_fetches_are_bounded() -> None:
    link = HttpsLink("http://127.0.0.1:9", STATE, lambda: "t", lambda: None, lambda: 0.0)
    topic = STATE.sibling(Channel.UP_REPLY).text
    for number in range(MOST_REPLIES_WAITING):
        link.publish(topic, said(number))
    with pytest.raises(TryLater, match="replies wait"):
        link.publish(topic, said(0))
    link.close()


def test_a_reply_that_cannot_be_read_is_refused_and_counted(server: Server) -> None:
    put = server.client.put
    assert put("/api/v1/sync/reply?site=s", content=b"{").status_code == 422
    assert put("/api/v1/sync/reply?site=s", content=b'{"id":"c","done":1,"result":null}').status_code == 422
    assert put("/api/v1/sync/reply?site=s", content=b'{"id":"c\\u0000","done":true,"result":null}').status_code == 422
    assert put("/api/v1/sync/reply?site=s", content=said(1), headers={"Authorization": "Bearer x"}).status_code == 401
    assert put("/api/v1/sync/reply?site=s", content=said(1)).status_code == 204
    assert server.became() == {"c-1": (False, "expired")}
    counts = {c.why: n for c, n in server.app.state.refusals.counts()}
    assert counts == {"malformed_json": 1, "wrong_type": 2, "unknown_gateway": 1}


def test_who_calls_is_known_by_the_token_and_by_nothing_else(server: Server) -> None:
    claims_another = encode(Batch(envelopes=[msgspec.structs.replace(order(1), id="h/event/1", source="s/h")]))
    told = server.client.post("/api/v1/sync/event?site=s", content=claims_another)
    assert decode(told.content, Ack).classes[EVENT].upto == 1
    with server.database.begin() as session:
        assert [g.id for g in session.scalars(select(Gateway))] == ["g"]
    for token in ("", "nobody's", server.settings.gateway_token, server.settings.admin_token):
        bearer = {"Authorization": f"Bearer {token}"}
        assert server.client.post("/api/v1/sync/event?site=s", content=b"", headers=bearer).status_code == 401
    with server.database.begin() as session:
        session.get_one(CertificateRow, "1").revoked_ms = 1
    assert server.client.post("/api/v1/sync/event?site=s", content=claims_another).status_code == 401
    counts = {(c.where, c.why): n for c, n in server.app.state.refusals.counts()}
    assert counts == {("https", "unknown_gateway"): 5}


def test_what_cannot_be_taken_is_refused_with_its_reason_and_counted(server: Server) -> None:
    post = server.client.post
    assert post("/api/v1/sync/event?site=s", content=b"{").status_code == 422
    assert post("/api/v1/sync/event?site=s", content=b"[" * 100_000).status_code == 422
    assert post("/api/v1/sync/event?site=s", content=b" " * (MAX_BATCH_BYTES + 1)).status_code == 413
    assert post("/api/v1/sync/event?site=a/b", content=encode(Batch(envelopes=[order(1)]))).status_code == 422
    assert post("/api/v1/sync/gossip?site=s", content=b"{}").status_code == 422
    told = post("/api/v1/sync/event?site=s", content=encode(Batch(envelopes=[poison(1)])))
    assert [r.reason for r in decode(told.content, Ack).classes[EVENT].nack] == ["wrong_type"]
    counts = {c.why: n for c, n in server.app.state.refusals.counts()}
    assert counts == {"malformed_json": 1, "wrong_type": 2, "too_large": 1, "bad_name": 1}


@pytest.mark.parametrize("url", ["http://server.example:8420", "ftp://x", "nonsense"])
def test_a_token_is_not_sent_where_others_could_read_it(url: str) -> None:
    with pytest.raises(BadSettings, match="https"):
        HttpsLink(url, STATE, lambda: "t", lambda: None)


def test_over_tls_a_gateway_speaks_to_the_server_that_its_authority_vouches_for_and_to_no_other(
    server: Server, tmp_path: Path
) -> None:
    ca, key = CA.make(tmp_path / "ca", datetime.now(UTC)), p256()
    (tmp_path / "host.pem").write_bytes(ca.host(key.public_key(), ["127.0.0.1"], datetime.now(UTC)).pem)
    (tmp_path / "host.key").write_bytes(pem(key))
    server.stop()
    server.tls = {"ssl_certfile": str(tmp_path / "host.pem"), "ssl_keyfile": str(tmp_path / "host.key")}
    server.start()
    url = f"https://127.0.0.1:{server.port}"
    stranger = HttpsLink(url, STATE, lambda: server.token, lambda: None, lambda: 0.0)
    time.sleep(1.5)
    assert not stranger.connected
    with pytest.raises(TryLater):
        stranger.publish(STATE.sibling(Channel.UP_EVENT).text, b"{}")
    stranger.close()
    link = HttpsLink(url, STATE, lambda: server.token, lambda: web_context(ca.pem.decode()), lambda: 0.0)
    until_true("the link stands", lambda: link.connected)
    link.publish(STATE.sibling(Channel.UP_EVENT).text, encode(Batch(envelopes=[order(1)])))
    arrival = link.receive(10.0)
    assert arrival is not None
    assert decode(arrival.payload, Ack).classes[EVENT].upto == 1
    link.close()
