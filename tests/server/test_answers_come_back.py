"""Answers to purchases, schedules and readings meet what they judge; what is answered or written on the console reaches the
gateway."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import select

from protocol.clocks import ClockConfidence
from protocol.feedback import Feedback, Verdict
from protocol.names import MessageClass
from protocol.purchases import PurchaseProposal
from protocol.reading.notes import Note, NoteReading
from protocol.schedules import Schedule
from protocol.sync import ANSWER, NOTE, Batch, Command, Message, Reply, decode, encode, envelope
from server import feedback as answers
from server import intake, notes
from server.broker import Intake
from server.config import BrokerSettings, Settings
from server.database import Database, FeedbackRow, QuarantineRow, ReplyRow, Table
from server.routes.api import latest_purchases, latest_schedules

NOW = 1_790_000_000_000
TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF"
_spec = importlib.util.spec_from_file_location(
    "wire_examples", Path(__file__).parent.parent / "protocol" / "wire_examples.py"
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
NOTE_WRITTEN: Note = _module.EXAMPLES["note"]
READING: NoteReading = _module.EXAMPLES["note_reading"]
PROPOSAL: PurchaseProposal = _module.EXAMPLES["purchase_proposal"]
SCHEDULE: Schedule = _module.EXAMPLES["schedule"]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/server.db")
    Table.metadata.create_all(made.engine)
    yield made
    made.close()


def send(database: Database, lane: MessageClass, *told: Message) -> None:
    wrapped = [
        envelope(m, site="s", gateway="g", seq=n, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)
        for n, m in enumerate(told, start=1)
    ]
    with database.begin() as session:
        intake.store_batch(session, "s", "g", lane, encode(Batch(envelopes=wrapped)), NOW)


@pytest.mark.parametrize(("judged", "kind"), [(PROPOSAL, "purchase"), (SCHEDULE, "schedule"), (READING, "reading")])
@pytest.mark.parametrize("answer_first", [True, False])
def test_an_answer_meets_a_purchase_or_a_schedule_whichever_comes_first(
    database: Database, judged: PurchaseProposal | Schedule | NoteReading, kind: str, answer_first: bool
) -> None:
    yes = Feedback(id="f-1", target=judged.id, verdict=Verdict.ACCEPTED, time_ms=NOW)
    steps = [(MessageClass.FEEDBACK, yes), (MessageClass.REPORT, judged)]
    for lane, told in steps if answer_first else reversed(steps):
        send(database, lane, told)
    with database.begin() as session:
        assert session.scalars(select(FeedbackRow.target_kind)).one() == kind
        assert answers.judged(session, judged.id) == (kind, "g")
        assert answers.judged(session, "nothing") is None


def test_the_latest_proposal_of_a_part_and_the_latest_schedule_of_a_gateway_are_shown(database: Database) -> None:
    later = msgspec.structs.replace(PROPOSAL, id="purchase-2", issued_ms=PROPOSAL.issued_ms + 1, quantity=0)
    other = msgspec.structs.replace(PROPOSAL, id="purchase-3", part="seal-kit-p40")
    mended = msgspec.structs.replace(SCHEDULE, id="schedule-2", issued_ms=NOW, repairs=SCHEDULE.id)
    send(database, MessageClass.REPORT, PROPOSAL, SCHEDULE, other, later, mended)
    with database.begin() as session:
        assert [row.body["id"] for row in latest_purchases(session)] == ["purchase-2", "purchase-3"]
        assert [row.body["id"] for row in latest_schedules(session)] == ["schedule-2"]


def test_a_note_stands_beside_what_was_read_in_it_and_what_people_said_of_that(database: Database) -> None:
    with database.begin() as session:
        notes.keep(session, NOTE_WRITTEN, "g", NOW)
        assert [one["reading"] for one in notes.newest(session, 5)] == [None]
    wrong = Feedback(
        id="f-2", target=READING.id, verdict=Verdict.CORRECTED, correction="failure:leaking", time_ms=NOW, via="console"
    )
    send(database, MessageClass.FEEDBACK, NOTE_WRITTEN, wrong)
    send(database, MessageClass.REPORT, READING)
    with database.begin() as session:
        (one,) = notes.newest(session, 5)
        assert one["note"]["id"] == NOTE_WRITTEN.id
        assert one["reading"]["id"] == READING.id
        assert [a["correction"] for a in one["answers"]] == ["failure:leaking"]
        assert [row.statement_id for row in notes.from_console(session, NOW, 0)] == [NOTE_WRITTEN.id]
        assert notes.from_console(session, NOW + 1, 0) == []


def became(database: Database) -> dict[str, tuple[bool, str]]:
    with database.begin() as session:
        return {row.command: (row.done, row.reason) for row in session.scalars(select(ReplyRow))}


def quarantined(database: Database) -> list[str]:
    with database.begin() as session:
        return list(session.scalars(select(QuarantineRow.reason).where(QuarantineRow.message_class == "up/reply")))


def test_what_was_done_stays_done_and_the_newest_refusal_counts(database: Database) -> None:
    def says(done: bool, reason: str, when_ms: int, command: str = "c-1") -> None:
        with database.begin() as session:
            body = encode(Reply(id=command, done=done, reason=reason, result=msgspec.Raw(b"null")))
            intake.take_reply(session, "s", "g", body, when_ms)

    says(False, "queue_full", NOW)
    says(False, "expired", NOW + 1)
    assert became(database) == {"c-1": (False, "expired")}
    says(True, "", NOW + 2)
    says(False, "expired", NOW + 3)
    assert became(database) == {"c-1": (True, "")}
    says(True, "", NOW + 3 + intake.REPLIES_KEPT_MS, "c-2")
    assert became(database) == {"c-2": (True, "")}


@pytest.mark.broker
def test_what_is_answered_and_written_on_the_console_is_told_to_its_gateway(
    mosquitto_port: int, database: Database
) -> None:
    send(database, MessageClass.REPORT, PROPOSAL)
    given = Feedback(id="fb-7", target=PROPOSAL.id, verdict=Verdict.REJECTED, time_ms=NOW, via="console")
    with database.begin() as session:
        answers.store(session, given, "g", None, time.time_ns() // 1_000_000)
        notes.keep(session, NOTE_WRITTEN, "g", time.time_ns() // 1_000_000)
    server = Intake(
        Settings(admin_token=TOKEN, gateway_token=TOKEN, broker=BrokerSettings(port=mosquitto_port)), database
    )
    heard: list[Command] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="g-uplink")
    client.on_message = lambda _c, _u, m: heard.append(decode(m.payload, Command))
    client.connect("127.0.0.1", mosquitto_port)
    client.subscribe("mw/v1/s/g/dn/cmd", 1)
    client.loop_start()
    time.sleep(0.3)
    server.start()
    until = time.monotonic() + 10
    while len(heard) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    client.publish("mw/v1/s/g/up/reply", encode(Reply(id="fb-7", done=True, result=msgspec.Raw(b"null"))), qos=1)
    client.publish("mw/v1/s/g/up/reply", b"{", qos=1)
    while (not became(database) or not quarantined(database)) and time.monotonic() < until:
        time.sleep(0.05)
    server.stop()
    client.disconnect()
    client.loop_stop()
    assert became(database) == {"fb-7": (True, "")}
    assert quarantined(database) == ["malformed_json"]
    answered, written = sorted(heard, key=lambda command: command.name)
    assert (answered.name, written.name) == (ANSWER, NOTE)
    assert decode(answered.arguments, Feedback) == given
    assert decode(written.arguments, Note) == NOTE_WRITTEN
