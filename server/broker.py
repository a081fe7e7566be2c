"""The server's side of the broker: batches in, acknowledgements out after the commit. The only file here that imports
paho. A message is acknowledged to the broker after it is committed, so a killed server gets it again."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from protocol.errors import BadTopic
from protocol.feedback import Feedback
from protocol.names import MessageClass
from protocol.reading.notes import Note
from protocol.sync import encode
from protocol.topics import Channel, Topic
from server import feedback as answers
from server import leases, notes, rollouts
from server.broker_tls import server_context
from server.catalogues import Catalogues
from server.config import Settings
from server.database import Database, Gateway
from server.handed_down import LASTS_MS, command
from server.lines import Arrival, InOrder, Line, Received, line_of
from server.refusals import Refusals
from server.retention import forget_old_forecasts

log = logging.getLogger(__name__)
DUTY = "gateways"
HEARD = [*(Channel.up(c) for c in MessageClass), Channel.UP_REPLY, Channel.STATE, Channel.TWIN_REPORTED]


class Intake:
    """From broker to database on its lines, and what the one server on duty tells gateways, on a thread of its own. `stop`
    ends it after the transactions in progress."""

    def __init__(self, settings: Settings, database: Database, refusals: Refusals | None = None) -> None:
        self._settings = settings
        self._database = database
        self._catalogues = Catalogues(settings.artifact_folder)
        self._stop = threading.Event()
        self._told: dict[str, int] = {}
        self._answers_told = self._notes_told = 0
        self._forgot_s = time.monotonic()
        self._refusals = refusals or Refusals()
        self._holder = leases.new_holder()
        self._failures = 0
        broker = settings.broker
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=broker.client_id, clean_session=False, manual_ack=True
        )
        client.max_inflight_messages_set(200)
        client.reconnect_delay_set(1, 30)
        if broker.username:
            with open(broker.password_file, encoding="utf-8") as file:  # noqa: PTH123
                client.username_pw_set(broker.username, file.read().strip())
        tls = server_context(settings, datetime.now(UTC))
        if tls is not None:
            client.tls_set_context(tls)
        client.on_connect = self._on_connect
        client.on_message = lambda _c, _u, message: self._heard(message)
        self._client = client
        self._in_order = InOrder(client.ack)
        # SQLite has one writer: a second line would wait for the first
        lines = broker.lines if database.engine.dialect.name != "sqlite" else 1
        self._lines: list[Line] = [
            Line(database, self._catalogues, self._refusals, self._answer, self._in_order.done) for _ in range(lines)
        ]
        self._thread = threading.Thread(target=self._run, name="duty", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return bool(self._client.is_connected())

    @property
    def failures(self) -> int:
        """Transactions that the database did not take."""
        return self._failures + sum(line.failures for line in self._lines)

    def start(self) -> None:
        """Connects (again and again if need be) and begins."""
        self._client.connect_async(self._settings.broker.host, self._settings.broker.port, keepalive=20)
        self._client.loop_start()
        for line in self._lines:
            line.start()
        self._thread.start()

    def stop(self) -> None:
        """Ends cleanly; unacknowledged messages come again."""
        self._stop.set()
        for line in self._lines:
            line.stop()
        self._thread.join(10)
        self._leave_duty()
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: mqtt.Client, _user: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("broker refused the connection: %s", reason)
            return
        self._in_order.forget()
        self._told.clear()
        self._answers_told = self._notes_told = 0
        client.subscribe([(Topic.every(channel, self._settings.root), 1) for channel in HEARD])

    def _heard(self, message: mqtt.MQTTMessage) -> None:
        """On the client's thread."""
        try:
            topic = Topic.parse(message.topic, self._settings.root)
        except BadTopic as why:
            self._refusals.note("mqtt", why.reason)
            self._in_order.came(Received(mid=message.mid, qos=message.qos, done=True))
            self._in_order.done(())
            return
        broker = self._settings.broker
        arrival = Arrival(mid=message.mid, qos=message.qos, topic=topic, payload=bytes(message.payload))
        self._in_order.came(arrival)
        if broker.takes(topic.gateway):
            self._lines[line_of(topic.gateway, len(self._lines), broker.parts)].put(arrival)
        else:
            self._in_order.done([arrival])

    def _answer(self, topic: Topic, payload: bytes) -> None:
        self._client.publish(topic.text, payload, qos=1)

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            try:
                if self._on_duty():
                    self._look_after_twins()
                    self._tell_gateways()
            except SQLAlchemyError:
                self._failures += 1
                log.exception("the database did not take a transaction; trying again")
                self._stop.wait(1.0)

    def _on_duty(self) -> bool:
        """Whether this process is the one that tells gateways and looks after twins. One without a broker cannot."""
        if not self.connected:
            return False
        with self._database.begin() as session:
            return leases.hold(session, DUTY, self._holder, time.time_ns() // 1_000_000)

    def _leave_duty(self) -> None:
        try:
            with self._database.begin() as session:
                leases.give_back(session, DUTY, self._holder)
        except SQLAlchemyError:
            log.warning("the lease %r is not given back; it runs out by itself", DUTY)

    def _look_after_twins(self) -> None:
        with self._database.begin() as session:
            rollouts.advance(session, time.time_ns() // 1_000_000)
            rollouts.bring_newcomers_up(session)
            if time.monotonic() - self._forgot_s > 600:
                self._forgot_s = time.monotonic()
                forget_old_forecasts(session, self._settings.keep_forecasts)
            twins = [(g.site, g.id, g.desired) for g in session.scalars(select(Gateway)) if g.desired]
        for site, gateway, desired in twins:
            version = int(desired["version"])
            if self._told.get(gateway) != version and self.connected:
                topic = Topic(site, gateway, Channel.TWIN_DESIRED, self._settings.root)
                self._client.publish(topic.text, encode_json(desired), qos=1, retain=True)
                self._told[gateway] = version

    def _tell_gateways(self) -> None:
        """What people answered or wrote on the console goes to its gateway, so that the very next list knows it. A gateway
        knows an answer and a note by its id: telling it again after a reconnection does no harm."""
        if not self.connected:
            return
        now_ms = time.time_ns() // 1_000_000
        with self._database.begin() as session:
            sites = {g.id: g.site for g in session.scalars(select(Gateway))}
            rows = answers.from_console(session, now_ms - LASTS_MS, self._answers_told)
            told = [(row.id, row.gateway, answers.as_told(row)) for row in rows]
            waiting = notes.from_console(session, now_ms - LASTS_MS, self._notes_told)
            written = [(row.id, row.gateway, msgspec.convert(row.body, Note)) for row in waiting]
        for number, gateway, feedback in told:
            self._command(sites[gateway], gateway, feedback, now_ms)
            self._answers_told = number
        for number, gateway, note in written:
            self._command(sites[gateway], gateway, note, now_ms)
            self._notes_told = number

    def _command(self, site: str, gateway: str, what: Feedback | Note, now_ms: int) -> None:
        topic = Topic(site, gateway, Channel.DOWN_COMMAND, self._settings.root)
        self._client.publish(topic.text, encode(command(what, now_ms)), qos=1)


def encode_json(document: dict[str, Any]) -> bytes:
    """A stored document as the wire has it."""
    return msgspec.json.encode(document)
