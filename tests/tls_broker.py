"""A real Mosquitto as `millwright server broker-config` writes it, and clients that hold what they were given or have made
up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
import uvicorn
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.identity import context
from server import broker_config, revocation
from server.__main__ import migrate
from server.app import create_app
from server.config import BrokerSettings, IdentitySettings, Settings
from server.database import Database
from server.enrolment import book
from server.identity import CA, Issued, write_key
from tests.conftest import SBIN, free_port, wait_for_port
from tests.identities import Key, p256

SERVER = "millwright-server"
HOST = "127.0.0.1"
TLS_FILES = (("ssl_certfile", "pem"), ("ssl_keyfile", "key"))


def until(true: Callable[[], object], timeout_s: float = 10.0) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return bool(true())


class Client:
    """An MQTT client with a certificate of its choice; keeps what it hears."""

    def __init__(
        self,
        port: int,
        files: tuple[Path, Path, Path] | None,
        *,
        client_id: str = "whoever",
        username: str = "",
        will: str = "",
        authority: Path | None = None,
    ) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.accepted, self.ended = False, 0
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, reconnect_on_failure=False
        )
        if files is not None:
            client.tls_set_context(context(*files))
        else:
            client.tls_set_context(context(authority, None, None))
        if username:
            client.username_pw_set(username, "x")
        if will:
            client.will_set(will, b"will", qos=1)
        client.on_connect = lambda _c, _u, _f, reason, _p: setattr(self, "accepted", not reason.is_failure)
        client.on_disconnect = lambda *_: setattr(self, "ended", self.ended + 1)
        client.on_message = lambda _c, _u, m: self.heard.append((m.topic, bytes(m.payload)))
        client.connect_async(HOST, port, keepalive=20)
        client.loop_start()

    def come_in(self) -> Client:
        """Waits until the broker took it in."""
        assert until(lambda: self.accepted), "the broker did not take this client in"
        return self

    def refused(self) -> bool:
        """Whether the broker turned it away."""
        until(lambda: self.accepted or self.ended, 5.0)
        if not self.accepted:
            self.leave()
        return not self.accepted

    def listen(self, *filters: str) -> Client:
        """Asks, and waits until the broker has answered, whatever it says."""
        answered: list[int] = []
        self._client.on_subscribe = lambda _c, _u, mid, *_: answered.append(mid)
        for one in filters:
            self._client.subscribe(one, 1)
        assert until(lambda: len(answered) == len(filters))
        return self

    def say(self, topic: str, payload: bytes = b"x", *, retain: bool = False, wait_s: float = 10.0) -> None:
        """Publishes with QoS 1 and waits for the acknowledgement, which says nothing about delivery."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(wait_s)

    def die(self) -> None:
        """The power is cut: no goodbye."""
        socket = self._client.socket()
        self._client.on_disconnect = None
        self._client.loop_stop()
        if socket is not None:
            socket.close()

    def leave(self) -> None:
        """Says goodbye."""
        self._client.disconnect()
        self._client.loop_stop()


class Plant:
    """Authority, database, broker and the folder of everybody's files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.settings = Settings(
            database=f"sqlite:///{folder}/server.db",
            artifacts=str(folder / "artifacts"),
            admin_token="k3Jx9QmW2vLs8RtZ5yBn7CdF",
            gateway_token="pQ8wE2rT6yU1iO9aS4dF7gHj",
            broker=BrokerSettings(host=HOST, port=self.port, identity=True),
            identity=IdentitySettings(broker=str(folder / "broker")),
        )
        migrate(self.settings)
        self.database = Database(self.settings.database)
        self.ca = CA.make(self.settings.authority_folder, datetime.now(UTC), revocation.terms(self.settings))
        broker_config.write(self.settings, self.database, folder / "broker", [HOST], self.port)
        self.clients: list[Client] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Mosquitto, told to reload by its process id."""
        program = shutil.which("mosquitto", path=SBIN)
        if program is None:
            pytest.skip("mosquitto is not installed (Debian: apt-get install mosquitto)")
        conf = self.folder / "broker" / "mosquitto.conf"
        text = (
            conf.read_text()
            .replace("/var/lib/mosquitto/", f"{self.folder}/")
            .replace("persistence true", "persistence false")
        )
        text = text.replace(f"listener {self.port}", f"listener {self.port} {HOST}")
        conf.write_text(text + "sys_interval 1\n" + ("user root\n" if os.geteuid() == 0 else ""))
        log = (self.folder / "mosquitto.log").open("wb")
        process = subprocess.Popen([program, "-c", str(conf)], stdout=log, stderr=log)
        reload = ("kill", f"-{signal.SIGHUP.value}", str(process.pid))
        told = msgspec.structs.replace(self.settings.identity, reload=reload)
        self.settings = msgspec.structs.replace(self.settings, identity=told)
        try:
            wait_for_port(self.port)
            yield
        finally:
            for client in self.clients:
                client.leave()
            process.terminate()
            process.wait(10)
            log.close()
            self.database.close()

    @contextmanager
    def https(self) -> Iterator[str]:
        """The HTTP API with a certificate of the authority; yields its address."""
        port = free_port()
        broker_config.write_host(self.ca, self.folder / "https", [HOST], datetime.now(UTC))
        place = {"host": HOST, "port": port, "log_level": "error", "lifespan": "off"}
        files = {name: str(self.folder / "https" / f"host.{end}") for name, end in TLS_FILES}
        server = uvicorn.Server(uvicorn.Config(create_app(self.settings, self.database), **place, **files))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            wait_for_port(port)
            yield f"https://{HOST}:{port}"
        finally:
            server.should_exit = True
            thread.join(10)

    def files(self, name: str, *, key: Key | None = None, issued: Issued | None = None) -> tuple[Path, Path, Path]:
        """(authority, certificate, key) of a client that the authority knows by `name`, booked as enrolled."""
        key, now = key or p256(), datetime.now(UTC)
        issued = issued or self.ca.client(key.public_key(), name, now, timedelta(days=30))
        with self.database.begin() as session:
            book(session, issued, "enrolled", now)
        return self.written(issued.pem, key)

    def written(self, certificate: bytes, key: Key) -> tuple[Path, Path, Path]:
        """A certificate and its key as files, with the plant's authority."""
        place = self.folder / f"client-{len(list(self.folder.glob('client-*')))}"
        place.mkdir()
        write_key(place / "key.pem", key)
        (place / "cert.pem").write_bytes(certificate)
        (place / "ca.pem").write_bytes(self.ca.pem)
        return place / "ca.pem", place / "cert.pem", place / "key.pem"

    def client(self, who: str | tuple[Path, Path, Path] | None, **options: str) -> Client:
        """Somebody who tries to connect."""
        files = self.files(who) if isinstance(who, str) else who
        made = Client(self.port, files, authority=self.folder / "broker" / "ca.pem", **options)
        self.clients.append(made)
        return made
