"""What the gateway says to its server it says to nobody else: a redirect is refused, counted, and sent nothing."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_agent import enrolment, identity, trust
from edge_agent.agent import Agent, build_agent
from edge_agent.config import AgentSettings, ShareSettings
from edge_agent.enrolment import Keeper, web_context
from edge_agent.https_link import HttpsLink
from edge_agent.identity import Identity
from edge_agent.updates import http_fetch
from protocol.enrolment import Enrolment, TokenFile
from protocol.errors import BadSettings, Redirected, TryLater
from protocol.sync import encode
from protocol.topics import Channel, Topic
from protocol.twin import Assignment, Desired
from server import calling
from server.identity import CA
from server.signing import make_keys
from tests import factory
from tests.identities import p256, pem, request

TOKEN = "only-for-the-server"
STATUSES = (301, 302, 303, 307, 308)
WANTED = Assignment(slot="s", version=1, digest="a" * 64, size=10, path="/api/v1/bundles/a")
NOW = datetime.now(UTC)


class Stand:
    """An HTTP server on loopback that notes who came and with what, and answers with one status. tls: speaks HTTPS."""

    def __init__(self, status: int = 200, location: str = "", tls: ssl.SSLContext | None = None) -> None:
        stand = self
        self.status, self.location = status, location
        self.heard: list[tuple[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                stand.heard.append((self.path, f"{self.headers}{body!r}"))
                self.send_response(stand.status)
                if stand.location:
                    self.send_header("Location", stand.location)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = do_PUT = answer  # noqa: N815 - their names there

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return CA.make(tmp_path_factory.mktemp("ca"), NOW)


@pytest.fixture(scope="module")
def host_context(ca: CA, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """What a host shows that the gateway's authority vouches for."""
    folder, key = tmp_path_factory.mktemp("host"), p256()
    (folder / "host.key").write_bytes(pem(key))
    (folder / "host.pem").write_bytes(ca.host(key.public_key(), ["127.0.0.1"], NOW).pem)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "host.pem", folder / "host.key")
    return made


@pytest.fixture
def elsewhere() -> Iterator[Stand]:
    """Another host, in clear, that would gladly hear a token."""
    made = Stand()
    yield made
    made.close()


@pytest.fixture
def sends_on(elsewhere: Stand, host_context: ssl.SSLContext) -> Iterator[Stand]:
    """Answers where the server is expected, over TLS, and sends on."""
    made = Stand(302, f"{elsewhere.url}/login", host_context)
    yield made
    made.close()


def enrolled(ca: CA, folder: Path) -> Identity:
    key = p256()
    issued = ca.sign_request(request("g", key), "g", NOW - timedelta(days=25))
    identity.replace(folder, key=pem(key), certificate=issued.pem, authority=ca.pem, token=TOKEN)
    found = Identity.load(folder)
    assert found is not None
    return found


def until_true(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


Call = Callable[[str, ssl.SSLContext, Path], object]


def enrols(url: str, context: ssl.SSLContext, folder: Path) -> object:
    return enrolment._ask(url, Enrolment(token="mw1.abcdefgh", request="-"), context, 5.0)


def fetches_a_bundle(url: str, context: ssl.SSLContext, folder: Path) -> object:
    return http_fetch(url, TOKEN, folder / "parts", context=context)(WANTED)


def fetches_the_signed_list(url: str, context: ssl.SSLContext, folder: Path) -> object:
    root = make_keys(folder / "keys").read_bytes()
    return trust.signed_list(root, url, TOKEN, folder / "list", context=context)(WANTED)


@pytest.mark.parametrize("call", [enrols, fetches_a_bundle, fetches_the_signed_list])
@pytest.mark.parametrize("status", [300, *STATUSES])
def test_no_call_follows_a_redirect_off_tls(
    call: Call, status: int, ca: CA, sends_on: Stand, elsewhere: Stand, tmp_path: Path
) -> None:
    sends_on.status = status
    with pytest.raises(Redirected, match=f"answers {status} and sends on to '{elsewhere.url}/login'"):
        call(sends_on.url, web_context(ca.pem.decode()), tmp_path)
    assert len(sends_on.heard) == 1
    assert elsewhere.heard == []


@pytest.mark.parametrize("location", ["", "/api/v1/other", "http://[", "file:///etc/passwd", "x" * 5000])
def test_whatever_a_redirect_names_it_is_refused_the_same(
    location: str, ca: CA, sends_on: Stand, tmp_path: Path
) -> None:
    sends_on.location = location
    with pytest.raises(Redirected) as why:
        fetches_a_bundle(sends_on.url, web_context(ca.pem.decode()), tmp_path)
    assert len(str(why.value)) < 600
    assert len(sends_on.heard) == 1


def test_a_root_is_not_fetched_from_where_nobody_asked(sends_on: Stand, elsewhere: Stand) -> None:
    clear = Stand(307, elsewhere.url)
    with pytest.raises(Redirected):
        trust.fetch_root(clear.url, TOKEN)
    clear.close()
    assert elsewhere.heard == []


def test_a_token_file_is_not_handed_on(ca: CA, sends_on: Stand, elsewhere: Stand, tmp_path: Path) -> None:
    token = TokenFile(token="mw1.once-and-for-nobody-else", authority=ca.pem.decode())
    with pytest.raises(Redirected):
        enrolment.enrol(sends_on.url, token, "g", tmp_path / "identity", None)
    assert elsewhere.heard == []


def test_a_renewal_that_is_sent_elsewhere_is_counted_and_tried_again(
    ca: CA, sends_on: Stand, elsewhere: Stand, tmp_path: Path
) -> None:
    clock, notes = factory.FakeClock(), []
    clock.ms = int(NOW.timestamp() * 1000)
    present = enrolled(ca, tmp_path / "identity")
    keeper = Keeper(present, sends_on.url, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s, renewed=lambda _: None)

    def noted(times: int) -> Callable[[], bool]:
        def look() -> bool:
            keeper.look(True, notes.append)
            return len(notes) == 2 * times

        return look

    until_true(noted(1))
    clock.pass_s(60)
    until_true(noted(2))
    assert notes == ["identity.not_renewed", "identity.redirected"] * 2
    assert "sends on to" in keeper.told()["last_error"]
    assert (len(sends_on.heard), elsewhere.heard) == (2, [])


@pytest.mark.parametrize("status", STATUSES)
def test_the_uplink_over_https_refuses_a_redirect_and_waits(
    status: int, ca: CA, sends_on: Stand, elsewhere: Stand
) -> None:
    sends_on.status = status
    state = Topic("s", "g", Channel.STATE)
    link = HttpsLink(sends_on.url, state, lambda: TOKEN, lambda: web_context(ca.pem.decode()), lambda: 0.0)
    until_true(lambda: link.counters() == {"uplink.redirected": 1})
    assert not link.connected
    with pytest.raises(TryLater):
        link.publish(state.text, b"{}")
    link.close()
    assert elsewhere.heard == []
    assert all(TOKEN in said for _, said in sends_on.heard)


def agent_of(folder: Path, fetch: Callable[[Assignment], bytes]) -> tuple[Agent, Any, Any]:
    (folder / "mapping.toml").write_text('[[source]]\ntopic = "plant/{machine}/{signal}"\nvalue = "$"\n')
    settings = AgentSettings(
        site="s",
        gateway="g",
        data_dir=str(folder / "data"),
        mapping=str(folder / "mapping.toml"),
        share=ShareSettings(),
    )
    broker, clock = factory.MemoryBroker(), factory.FakeClock(disciplined=True)
    links = (factory.MemoryLink(broker), factory.MemoryLink(broker))
    return build_agent(settings, clock=clock, plant=links[0], uplink=links[1], fetch=fetch), broker, clock


def test_an_agent_whose_models_are_sent_elsewhere_counts_it_and_goes_on(
    ca: CA, sends_on: Stand, elsewhere: Stand, tmp_path: Path
) -> None:
    fetch = http_fetch(sends_on.url, TOKEN, tmp_path / "parts", context=web_context(ca.pem.decode()))
    agent, broker, _clock = agent_of(tmp_path, fetch)
    desired = Topic("s", "g", Channel.TWIN_DESIRED).text
    broker.deliver(desired, encode(Desired(version=1, models=[WANTED])), True)

    def counted() -> bool:
        agent.step(0)
        return "updates.redirected" in agent.counters()

    until_true(counted)
    assert agent.counters()["updates.postponed"] >= 1
    agent.close()
    assert elsewhere.heard == []


@pytest.mark.parametrize("status", STATUSES)
def test_an_admins_token_is_not_sent_on_either(status: int, elsewhere: Stand) -> None:
    stand = Stand(status, elsewhere.url)
    with pytest.raises(BadSettings, match=str(status)):
        calling.ask(stand.url, "/api/v1/status", TOKEN, 1000)
    stand.close()
    assert elsewhere.heard == []
