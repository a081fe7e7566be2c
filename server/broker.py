"""The server's side of the broker: batches in, acknowledgements out after the commit. The only file here that imports
paho. A message is acknowledged to the broker after it is committed, so a killed server gets it again."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from protocol.errors import BadTopic, Refused
from protocol.feedback import Feedback
from protocol.names import MessageClass
from protocol.reading.notes import Note
from protocol.sync import ANSWER, NOTE, Ack, ClassAck, Command, encode
from protocol.topics import Channel, Topic
from server import feedback as answers
from server import intake, notes, rollouts
from server.catalogues import Catalogues
from server.config import Settings
from server.database import Database, Gateway
from server.retention import forget_old_forecasts

log = logging.getLogger(__name__)
MAX_MESSAGES_A_TRANSACTION = 50
ANSWER_LASTS_MS = 7 * 86_400_000
HEARD = [*(Channel.up(c) for c in MessageClass), Channel.STATE, Channel.TWIN_REPORTED]


class Intake:
    """One thread from broker to database. `stop` ends it after the transaction in progress."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._catalogues = Catalogues(settings.artifact_folder)
        self._arrivals: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._told: dict[str, int] = {}
        self._answers_told = self._notes_told = 0
        self._forgot_s = time.monotonic()
        self.refused = 0
        self.failures = 0
        broker = settings.broker
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=broker.client_id, clean_session=False, manual_ack=True
        )
        client.max_inflight_messages_set(200)
        client.reconnect_delay_set(1, 30)
        if broker.username:
            with open(broker.password_file, encoding="utf-8") as file:  # noqa: PTH123
                client.username_pw_set(broker.username, file.read().strip())
        if broker.tls_ca:
            client.tls_set(ca_certs=broker.tls_ca)
        client.on_connect = self._on_connect
        client.on_message = lambda _c, _u, message: self._arrivals.put(message)
        self._client = client
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return bool(self._client.is_connected())

    def start(self) -> None:
        """Connects (again and again if need be) and begins."""
        self._client.connect_async(self._settings.broker.host, self._settings.broker.port, keepalive=20)
        self._client.loop_start()
        self._thread.start()

    def stop(self) -> None:
        """Ends cleanly; unacknowledged messages come again."""
        self._stop.set()
        self._thread.join(10)
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: mqtt.Client, _user: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            log.warning("broker refused the connection: %s", reason)
            return
        self._told.clear()
        self._answers_told = self._notes_told = 0
        client.subscribe([(Topic.every(channel, self._settings.root), 1) for channel in HEARD])

    def _run(self) -> None:
        looked_s = 0.0
        while not self._stop.is_set():
            try:
                self._take_some()
                if time.monotonic() - looked_s >= 0.5:
                    looked_s = time.monotonic()
                    self._look_after_twins()
                    self._tell_gateways()
            except SQLAlchemyError:
                # nothing was acknowledged: gateways send again when the database is back
                self.failures += 1
                log.exception("the database did not take a transaction; trying again")
                self._stop.wait(1.0)

    def _take_some(self) -> None:
        try:
            batch = [self._arrivals.get(timeout=0.2)]
        except queue.Empty:
            return
        while len(batch) < MAX_MESSAGES_A_TRANSACTION and not self._arrivals.empty():
            batch.append(self._arrivals.get_nowait())
        now_ms = time.time_ns() // 1_000_000
        acks: dict[Topic, dict[MessageClass, ClassAck]] = {}
        with self._database.begin() as session:
            for message in batch:
                self._take(session, message, now_ms, acks)
        for topic, classes in acks.items():
            self._client.publish(topic.text, encode(Ack(classes=classes, time=time.time_ns() // 1_000_000)), qos=1)
        for message in batch:
            self._client.ack(message.mid, message.qos)

    def _take(
        self, session: Any, message: mqtt.MQTTMessage, now_ms: int, acks: dict[Topic, dict[MessageClass, ClassAck]]
    ) -> None:
        payload = bytes(message.payload)
        try:
            topic = Topic.parse(message.topic, self._settings.root)
        except BadTopic:
            self.refused += 1
            return
        try:
            lane = topic.channel.message_class
            if lane is not None:
                told = intake.store_batch(session, topic.site, topic.gateway, lane, payload, now_ms, self._catalogues)
                classes = acks.setdefault(topic.sibling(Channel.DOWN_ACK), {})
                before = classes.get(lane)
                nack = [*(before.nack if before else []), *told.nack][:500]
                classes[lane] = ClassAck(upto=told.upto, beyond=told.beyond, gaps=told.gaps, nack=nack)
            elif topic.channel is Channel.STATE:
                intake.take_state(session, topic.site, topic.gateway, payload)
            elif topic.channel is Channel.TWIN_REPORTED:
                intake.take_reported(session, topic.site, topic.gateway, payload)
        except Refused as why:
            self.refused += 1
            intake.quarantine(session, topic.gateway, topic.channel.value, None, why, payload, now_ms)

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
            rows = answers.from_console(session, now_ms - ANSWER_LASTS_MS, self._answers_told)
            told = [(row.id, row.gateway, answers.as_told(row)) for row in rows]
            waiting = notes.from_console(session, now_ms - ANSWER_LASTS_MS, self._notes_told)
            written = [(row.id, row.gateway, msgspec.convert(row.body, Note)) for row in waiting]
        for number, gateway, feedback in told:
            self._command(sites[gateway], gateway, ANSWER, feedback, now_ms)
            self._answers_told = number
        for number, gateway, note in written:
            self._command(sites[gateway], gateway, NOTE, note, now_ms)
            self._notes_told = number

    def _command(self, site: str, gateway: str, name: str, what: Feedback | Note, now_ms: int) -> None:
        command = Command(
            id=what.id, name=name, expires_ms=now_ms + ANSWER_LASTS_MS, arguments=msgspec.Raw(encode(what))
        )
        topic = Topic(site, gateway, Channel.DOWN_COMMAND, self._settings.root)
        self._client.publish(topic.text, encode(command), qos=1)


def encode_json(document: dict[str, Any]) -> bytes:
    """A stored document as the wire has it."""
    return msgspec.json.encode(document)
