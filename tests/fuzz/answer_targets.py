"""What a server answers to a gateway, byte for byte: it may be a proxy's page, half of one, or no HTTP at all."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_agent import enrolment, trust
from edge_agent.updates import http_fetch
from protocol.enrolment import Enrolment, Granted
from protocol.errors import BadBundle, TryLater
from protocol.sync import encode
from protocol.twin import Assignment
from server import calling
from server.signing import make_keys
from tests.fuzz.targets import Target

BODY = b"0123456789"
CERTIFICATE = encode(Granted(gateway="g", certificate="c", authority="a", token="t", now_ms=1))
WAIT_S = 5.0


class Answering:
    """A port on which everybody is told the same."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._answer = b""
        threading.Thread(target=self._run, daemon=True).start()

    def to(self, ask: Callable[[], object], data: bytes) -> None:
        """Asks, and is told `data`."""
        self._answer = data
        ask()

    def _run(self) -> None:
        while True:
            line, _ = self._socket.accept()
            with line, contextlib.suppress(OSError):  # who asked may have gone
                line.settimeout(WAIT_S)
                _hear(line)
                line.sendall(self._answer)


def _hear(line: socket.socket) -> None:
    """All of a request: what is closed with something unread is reset, and then nobody hears the answer."""
    heard = b""
    while b"\r\n\r\n" not in heard and (part := line.recv(65_536)):
        heard += part
    head, _, body = heard.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    missing = int(length[1]) - len(body) if length else 0
    while missing > 0 and (part := line.recv(missing)):
        missing -= len(part)


def targets(folder: Path) -> Iterator[Target]:
    """Every call that a gateway, or a command, makes. folder: an empty one."""
    server = Answering()
    wanted = Assignment(slot="s", version=1, digest="a" * 64, size=len(BODY), path="/x")
    asked, context = Enrolment(token="mw1.abcdefgh", request="-"), ssl.create_default_context()
    fetch = http_fetch(server.url, "t", folder / "parts", WAIT_S)
    listed = trust.signed_list(make_keys(folder / "keys").read_bytes(), server.url, "t", folder / "list", WAIT_S)

    def look_up() -> None:
        with contextlib.suppress(TryLater, BadBundle):  # nothing here is signed
            listed(wanted)

    calls: dict[str, tuple[Callable[[], object], bytes]] = {
        "bundle": (lambda: fetch(wanted), BODY),
        "root": (lambda: trust.fetch_root(server.url, "t", WAIT_S), BODY),
        "list": (look_up, b'{"signed": {"_type": "timestamp", "version": 1}, "signatures": []}'),
        "certificate": (lambda: enrolment._ask(server.url, asked, context, WAIT_S), CERTIFICATE),
        "command": (lambda: calling.ask(server.url, "/", "t", 1000), BODY),
    }
    for name, (call, body) in calls.items():
        yield Target(f"answer-{name}", functools.partial(server.to, call), _answers(body), slow=True)


def _answers(body: bytes) -> list[bytes]:
    """The same said in three ways."""
    return [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
        b"HTTP/1.1 206 Partial Content\r\n\r\n" + body,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    ]
