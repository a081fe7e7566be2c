"""The proxy of bad links does to a real connection what it says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from server.drill.proxy import FaultProxy, Faults


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says back what it hears; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(end,), daemon=True).start()

    def answer(end: socket.socket) -> None:
        with end:
            try:
                while piece := end.recv(65_536):
                    end.sendall(piece)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    yield int(listener.getsockname()[1])
    listener.close()


def connected(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def said_back(end: socket.socket, text: bytes) -> bytes:
    end.sendall(text)
    heard = b""
    while len(heard) < len(text):
        heard += end.recv(65_536)
    return heard


def said_until_it_ends(end: socket.socket) -> None:
    """Talks to a connection that is about to end, or has ended."""
    for _ in range(50):
        end.sendall(b"x")
        end.recv(1)


def talked_to(proxy: FaultProxy) -> None:
    """From the connection on, which may already be cut when it is there."""
    with connected(proxy) as end:
        said_until_it_ends(end)


def test_a_good_link_passes_every_byte(echo: int) -> None:
    text = bytes(range(256)) * 1000
    with FaultProxy(echo) as proxy, connected(proxy) as end:
        assert said_back(end, text) == text
        assert (proxy.counts.taken, proxy.counts.up, proxy.counts.down) == (1, len(text), len(text))


def test_delay_and_rate_take_their_time(echo: int) -> None:
    with FaultProxy(echo) as proxy, connected(proxy) as end:
        proxy.faults = Faults(delay_s=0.15)
        began = time.monotonic()
        assert said_back(end, b"x") == b"x"
        assert time.monotonic() - began >= 0.3
        proxy.faults = Faults(rate=20_000)
        began = time.monotonic()
        assert len(said_back(end, b"x" * 8000)) == 8000
        assert time.monotonic() - began >= 0.4


def test_a_stalled_link_stands_and_goes_on(echo: int) -> None:
    with FaultProxy(echo) as proxy, connected(proxy) as end:
        with proxy.with_faults(Faults(stalled=True)):
            end.sendall(b"late")
            end.settimeout(0.3)
            with pytest.raises(TimeoutError):
                end.recv(10)
        end.settimeout(5)
        assert end.recv(10) == b"late"


def test_a_reset_ends_what_stands_and_lets_others_come(echo: int) -> None:
    with FaultProxy(echo) as proxy, connected(proxy) as end:
        assert said_back(end, b"x") == b"x"
        assert proxy.reset() == 1
        with pytest.raises(ConnectionError):
            said_until_it_ends(end)
        with connected(proxy) as other:
            assert said_back(other, b"y") == b"y"


def test_a_refused_link_and_an_absent_server(echo: int) -> None:
    with FaultProxy(echo) as proxy, proxy.with_faults(Faults(refused=True)):
        with pytest.raises(ConnectionError):
            talked_to(proxy)
        assert proxy.counts.refused == 1
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = int(nobody.getsockname()[1])
    with FaultProxy(port) as proxy, pytest.raises(ConnectionError):
        talked_to(proxy)
