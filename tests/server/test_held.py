"""What a copied outbox held is found again on the server of its drill, or its loss is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from edge_agent.lanes import LANES
from edge_agent.outbox import Outbox
from protocol.clocks import ClockConfidence
from protocol.errors import NeedsPerson
from protocol.names import MessageClass
from protocol.observations import WorkOrder
from protocol.sync import Batch, ClassAck, Envelope, Numbering, Refusal, encode, envelope
from protocol.twin import Desired
from server import intake
from server.database import Database, Gateway, LedgerRow, Table
from server.drill.books import Books
from server.drill.held import Held, all_arrived, teach

NOW = 1_790_000_000_000
EVENT = MessageClass.EVENT


def order(seq: int) -> Envelope:
    said = WorkOrder(id=f"WO-{seq}", machine="P-101", time_ms=seq, actions=["replace-bearing"])
    return envelope(said, site="s", gateway="g", seq=seq, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """Ten orders: 1 to 4 are told (2 of them as shed), 5 is shed and not told, 6 is given up and not told, 7 to 10 wait."""
    path = tmp_path / "outbox.db"
    box = Outbox(path, 10_000_000)
    for seq in range(1, 11):
        box.add(EVENT, encode(order(seq)))
    box.commit()
    box.settle(EVENT, ClassAck(upto=4))
    box.bury(EVENT, Refusal(6, "never_acknowledged"))
    box.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM waiting WHERE key = ?", (LANES[EVENT] + 5,))
        db.execute("INSERT INTO shed VALUES ('event', 5, 5)")
        db.execute("UPDATE lane SET waiting = waiting - 1, acked = acked - 2, shed = 3 WHERE class = 'event'")
        db.commit()
    return path


@pytest.fixture
def database() -> Database:
    made = Database("sqlite://")
    Table.metadata.create_all(made.engine)
    return made


def books(held: Held, database: Database) -> Books:
    read = Books()
    all_arrived(read, held, database, "g")
    return read


def taught(outbox: Path, database: Database) -> Held:
    held = Held.of(outbox)
    with database.begin() as session:
        teach(session, "s", "g", held, Desired(version=4))
    return held


def send(held: Held, database: Database, envelopes: list[Envelope]) -> ClassAck:
    """As the copy would: its numbering, what waits, and what it gave up."""
    batch = Batch(
        envelopes=envelopes,
        shed=[(5, 5)],
        dead=[Refusal(6, "never_acknowledged")],
        numbering=Numbering(held.following[EVENT][1]),
    )
    with database.begin() as session:
        return intake.store_batch(session, "s", "g", EVENT, encode(batch), NOW)


def test_a_new_server_knows_what_the_gateway_does_not_owe(outbox: Path, database: Database) -> None:
    held = taught(outbox, database)
    assert held.owed[EVENT] == [(5, 10)]
    assert held.shed_before["event"] == 2
    with database.begin() as session:
        assert session.get_one(LedgerRow, ("g", "event")).upto == 4
        assert session.get_one(Gateway, "g").desired["version"] == 4
    with database.begin() as session, pytest.raises(NeedsPerson, match="needs an empty one"):
        teach(session, "s", "g", held, Desired(version=4))


def test_everything_that_waited_is_found_once(outbox: Path, database: Database) -> None:
    held = taught(outbox, database)
    assert books(held, database).counts["wrong"] == 4
    ack = send(held, database, [order(seq) for seq in range(7, 11)])
    assert (ack.upto, ack.foreign) == (10, None)
    send(held, database, [order(8)])
    found = books(held, database)
    assert found.holds, found.wrong
    assert (found.counts["held"], found.counts["held_arrived"]) == (4, 4)


def test_one_that_did_not_come_is_named(outbox: Path, database: Database) -> None:
    held = taught(outbox, database)
    send(held, database, [order(seq) for seq in (7, 8, 10)])
    assert books(held, database).wrong == ["event 9 waited in the copied outbox, and the server has not heard of it"]


def test_one_that_the_server_refused_is_in_quarantine(outbox: Path, database: Database) -> None:
    held = taught(outbox, database)
    broken = msgspec.structs.replace(order(9), data=msgspec.Raw(b'{"id": 7}'))
    send(held, database, [order(7), order(8), broken, order(10)])
    found = books(held, database)
    assert found.holds, found.wrong
    assert (found.counts["held_arrived"], found.counts["held_in_quarantine"]) == (3, 1)
