"""The uplink over HTTPS, for sites where no MQTT gets out: a `Link` whose topics are calls of the server's API.

Batches go up one after the other on a connection that is kept; what comes back is the acknowledgement that the broker would
have brought. What waits on the server (desired twin, answers, notes) is asked for every few seconds. A call that fails is
forgotten: it is still in the outbox, and the uplink sends it again when the link stands. What became of a command is in no
outbox: it waits here, in order, until the server has taken it. Between attempts the link waits,
longer each time, with full jitter (Brooker 2015), so that a thousand gateways do not come back in one second."""

from __future__ import annotations

import http.client
import logging
import queue
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from edge_agent.broker import Arrival, next_of
from edge_agent.calls import redirected
from protocol.errors import BadSettings, Redirected, Refused, TryLater
from protocol.handed_down import MAX_COMMANDS, MAX_HANDED_DOWN_BYTES, HandedDown
from protocol.sync import MAX_BATCH_BYTES, decode, encode
from protocol.topics import Channel, Topic

log = logging.getLogger(__name__)
MOST_CALLS_WAITING, MOST_REPLIES_WAITING = 8, MAX_COMMANDS
TIMEOUT_S = 20.0
ASK_EVERY_S = 5.0
MIN_WAIT_S, MAX_WAIT_S = 1.0, 60.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class _Call:
    method: str
    path: str
    body: bytes
    answered_on: Channel | None
    limit_bytes: int
    may_be_unknown: bool = False
    """A server of an earlier version has no such call: then it goes nowhere, and no other call waits for it."""


class HttpsLink:
    """A `Link` to the server at `url`. token, context: asked for at each connection, since a renewal changes them. Raises
    BadSettings for a URL over which the token would be read by others."""

    def __init__(
        self,
        url: str,
        state: Topic,
        token: Callable[[], str],
        context: Callable[[], ssl.SSLContext | None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        parts = urlsplit(url)
        if parts.hostname is None or (parts.scheme != "https" and parts.hostname not in LOOPBACK):
            raise BadSettings(
                f"[server] url {url!r}: the uplink over HTTPS needs https:// (http:// on this machine alone)"
            )
        self._url = url
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/") + "/api/v1/sync"
        self._state, self._token, self._context, self._jitter = state, token, context, jitter
        self._calls: queue.Queue[_Call] = queue.Queue(MOST_CALLS_WAITING)
        self._replies: deque[_Call] = deque()
        self._arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._connection: http.client.HTTPConnection | None = None
        self._cursor = (0, 0)
        self._desired = 0
        self._connected = False
        self._failures = 0
        self._redirects = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="https uplink", daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether the last call was answered."""
        return self._connected

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Nothing to do: what is for this gateway comes."""

    def time_is_known(self) -> None:
        """Nothing to do: each call is a handshake of its own."""

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Hands a message over; raises TryLater while the link is down or enough waits. Replies wait while it is down."""
        channel = Topic.parse(topic, self._state.root).channel
        call = self._call(channel, payload)
        if call is None:
            return
        if channel is Channel.UP_REPLY:
            if len(self._replies) >= MOST_REPLIES_WAITING:
                raise TryLater(f"{MOST_REPLIES_WAITING} replies wait for the server")
            self._replies.append(call)
            return
        if not self._connected:
            raise TryLater("the server does not answer")
        try:
            self._calls.put_nowait(call)
        except queue.Full as error:
            raise TryLater(f"{MOST_CALLS_WAITING} calls wait for the server") from error

    def receive(self, timeout_s: float) -> Arrival | None:
        """The next message, or None after the wait."""
        return next_of(self._arrivals, timeout_s)

    def acknowledge(self, arrival: Arrival) -> None:
        """Nothing to do: what is not taken is asked for again."""

    def counters(self) -> dict[str, int]:
        """Since boot. redirected: answers that would have sent the token elsewhere."""
        return {"uplink.redirected": self._redirects} if self._redirects else {}

    def reconnect(self) -> None:
        """The next call is on a fresh connection."""
        self._failures = 0
        self._cursor = (0, 0)
        stale, self._connection = self._connection, None
        if stale is not None:
            stale.close()

    def close(self) -> None:
        """Makes the calls that wait, for a moment, and ends."""
        until_s = time.monotonic() + 2.0
        while self._connected and (self._replies or not self._calls.empty()) and time.monotonic() < until_s:
            time.sleep(0.02)
        self._stop.set()
        self._thread.join(TIMEOUT_S)

    def _call(self, channel: Channel, payload: bytes) -> _Call | None:
        lane, site = channel.message_class, urlencode({"site": self._state.site})
        if lane is not None:
            return _Call("POST", f"/{lane.value}?{site}", payload, Channel.DOWN_ACK, MAX_BATCH_BYTES)
        path = {Channel.STATE: "state", Channel.TWIN_REPORTED: "reported", Channel.UP_REPLY: "reply"}.get(channel)
        if path is None:
            return None
        return _Call("PUT", f"/{path}?{site}", payload, None, MAX_BATCH_BYTES, channel is Channel.UP_REPLY)

    def _run(self) -> None:
        asked_s = -ASK_EVERY_S
        while not self._stop.is_set():
            try:
                if not self._connected or time.monotonic() - asked_s >= ASK_EVERY_S:
                    self._ask_down()
                    asked_s = time.monotonic()
                self._connected, self._failures = True, 0
                if self._replies:
                    self._make(self._replies[0])
                    self._replies.popleft()
                self._make(self._calls.get(timeout=0.0 if self._replies else 0.1))
            except queue.Empty:
                continue
            except Refused as why:
                log.warning("the server's answer is refused: %s", why)
            except Redirected as why:
                self._redirects += 1
                log.warning("%s", why)
                self._lost(why)
            except (OSError, http.client.HTTPException, _NotNow) as error:
                self._lost(error)
        self._drop()

    def _lost(self, error: Exception) -> None:
        self._connected = False
        self._drop()
        while not self._calls.empty():
            self._calls.get_nowait()
        self._failures += 1
        wait_s = MIN_WAIT_S + self._jitter() * min(MAX_WAIT_S, 2.0 ** min(self._failures, 10))
        log.info("the server does not answer (%s); trying again in %.0f s", error, wait_s)
        self._stop.wait(wait_s)

    def _ask_down(self) -> None:
        answers, notes = self._cursor
        path = f"/down?{urlencode({'answers': answers, 'notes': notes})}"
        body = self._exchange(_Call("GET", path, b"", None, MAX_HANDED_DOWN_BYTES))
        told = decode(body or b"", HandedDown, MAX_HANDED_DOWN_BYTES)
        if told.desired is not None and told.desired.version != self._desired:
            self._desired = told.desired.version
            self._arrive(Channel.TWIN_DESIRED, encode(told.desired))
        for command in told.commands:
            self._arrive(Channel.DOWN_COMMAND, encode(command))
        self._cursor = (told.answers, told.notes)

    def _make(self, call: _Call) -> None:
        body = self._exchange(call)
        if body is not None and call.answered_on is not None:
            self._arrive(call.answered_on, body)

    def _arrive(self, channel: Channel, payload: bytes) -> None:
        self._arrivals.put(Arrival(self._state.sibling(channel).text, payload, False))

    def _exchange(self, call: _Call) -> bytes | None:
        """What the server answers; None where it will never take this very call, and has said why. Raises _NotNow, and
        Redirected for an answer that sends elsewhere: the connection ends with it."""
        connection = self._connection or self._opened()
        self._connection = connection
        headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}
        connection.request(call.method, self._prefix + call.path, call.body or None, headers)
        answer = connection.getresponse()
        body = answer.read(call.limit_bytes + 1)
        if len(body) > call.limit_bytes:
            raise _NotNow(f"an answer of more than {call.limit_bytes} bytes")
        if answer.status in (413, 422) or (call.may_be_unknown and answer.status in (404, 405)):
            log.warning("the server refuses what was sent: %s", body[:500].decode(errors="replace"))
            return None
        if 300 <= answer.status < 400:
            raise redirected(self._url, answer.status, answer.getheader("Location"))
        if not 200 <= answer.status < 300:
            raise _NotNow(f"{answer.status} {body[:200].decode(errors='replace')}")
        return body

    def _opened(self) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        context = self._context() or ssl.create_default_context()
        return http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=context)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _NotNow(Exception):  # noqa: N818 - what the caller does
    """The server is there, and does not take this call now."""
