"""The server can say of every message whether it is stored, refused, given up or missing, and its word can be checked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, make_url, select, text

import millwright
from protocol.clocks import ClockConfidence
from protocol.errors import BadMessage
from protocol.ledger import LaneLedger, canonical, read_signed
from protocol.names import MessageClass
from protocol.observations import WorkOrder
from protocol.sync import Batch, ClassAck, Envelope, Numbering, Refusal, encode, envelope
from server import intake, ledger, ranges
from server.__main__ import migrate
from server.app import create_app
from server.config import Settings
from server.database import Database, QuarantineRow, Table, WorkOrderRow
from server.seal import Seal

NOW = 1_790_000_000_000
TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF"
spans = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 8)).map(lambda s: (s[0], s[0] + s[1])), max_size=10)


def numbers(told: list[tuple[int, int]]) -> set[int]:
    return {n for first, last, *_ in told for n in range(first, last + 1)}


@given(spans, spans)
def test_what_is_left_of_ranges_is_what_was_not_taken(
    told: list[tuple[int, int]], taken: list[tuple[int, int]]
) -> None:
    left = ranges.minus(told, taken)
    assert numbers(left) == numbers(told) - numbers(taken)
    assert left == ranges.union(left)


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from("ab")), max_size=20))
def test_numbers_with_a_reason_are_told_as_few_ranges(told: list[tuple[int, str]]) -> None:
    made = ranges.grouped(told)
    first = dict(reversed(told))
    assert {n: why for a, b, why in made for n in range(a, b + 1)} == first


def order(seq: int) -> Envelope:
    said = WorkOrder(id=f"WO-{seq}", machine="P-101", time_ms=seq, actions=["replace-bearing"])
    return envelope(said, site="s", gateway="g", seq=seq, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)


def poison(seq: int) -> Envelope:
    return msgspec.structs.replace(order(seq), data=msgspec.Raw(b'{"id": 7}'))


class Lane:
    """One class of one gateway at one server."""

    def __init__(self, database: Database, gateway: str = "g") -> None:
        self.database, self.gateway = database, gateway

    def send(self, batch: Batch) -> ClassAck:
        with self.database.begin() as session:
            return intake.store_batch(session, "s", self.gateway, MessageClass.EVENT, encode(batch), NOW)

    def ledger(self) -> LaneLedger:
        with self.database.begin() as session:
            return ledger.state(session, NOW, self.gateway).gateways[0].lanes[0]

    def rows(self) -> set[int]:
        with self.database.begin() as session:
            return set(session.scalars(select(WorkOrderRow.seq).where(WorkOrderRow.gateway == self.gateway)))

    def refused(self) -> set[int]:
        q = QuarantineRow
        with self.database.begin() as session:
            return {int(n) for n in session.scalars(select(q.seq).where(q.gateway == self.gateway)) if n is not None}


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Batch], set[int]]:
    """What a gateway numbered 1..n may send in any order, again and again: (batches, numbers of poison)."""
    last = draw(st.integers(1, 20))
    bad = draw(st.sets(st.integers(1, last), max_size=4))
    number = st.integers(1, last)
    shed = st.tuples(number, st.integers(0, 4)).map(lambda s: (s[0], min(s[0] + s[1], last)))
    refusals = st.builds(Refusal, number, st.sampled_from(["server_fails", "too_large"]))
    batches = []
    for _ in range(draw(st.integers(1, 8))):
        seqs = draw(st.lists(number, max_size=8))
        batches.append(
            Batch(
                envelopes=[poison(n) if n in bad else order(n) for n in seqs],
                shed=draw(st.lists(shed, max_size=2)),
                dead=draw(st.lists(refusals, max_size=2)),
            )
        )
    return batches, bad


def rows_and_ledger_agree(lane: Lane, batches: list[Batch], bad: set[int]) -> None:
    """Sends it all; after every batch the database and the ledger say the same of every number."""
    sent: set[int] = set()
    told: set[int] = set()
    for batch in batches:
        ack = lane.send(batch)
        sent |= {e.mwseq for e in batch.envelopes}
        told |= numbers(batch.shed) | {one.seq for one in batch.dead}
        says = lane.ledger()
        shed, dead, refused, missing = map(numbers, (says.shed, says.dead, says.quarantined, says.missing))
        assert lane.rows() == sent - bad
        assert lane.refused() == refused == sent & bad
        assert shed | dead == told - sent
        assert not shed & dead
        assert missing == set(range(1, max(sent | told, default=0) + 1)) - sent - told
        assert says.through == max(sent | told, default=0)
        assert says.complete_to == ack.upto == min(missing, default=says.through + 1) - 1
        assert says.stored == len(lane.rows())
        assert ack.gaps == says.missing


@given(histories())
@settings(max_examples=60)
def test_rows_and_ledger_agree_whatever_the_network_did(told: tuple[list[Batch], set[int]]) -> None:
    database = Database("sqlite://")
    Table.metadata.create_all(database.engine)
    rows_and_ledger_agree(Lane(database), *told)
    database.close()


@pytest.mark.postgres
def test_rows_and_ledger_agree_on_postgresql(postgres_url: str) -> None:
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE ledger"))
    server.dispose()
    url = make_url(postgres_url).set(database="ledger").render_as_string(hide_password=False)
    migrate(Settings(database=url, admin_token=TOKEN, gateway_token=TOKEN))
    database = Database(url)
    count = iter(range(1000))

    @given(histories())
    @settings(max_examples=25)
    def whatever_the_network_did(told: tuple[list[Batch], set[int]]) -> None:
        rows_and_ledger_agree(Lane(database, f"g-{next(count)}"), *told)

    whatever_the_network_did()
    database.close()


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    url = f"sqlite:///{tmp_path}/server.db"
    migrate(Settings(database=url, admin_token=TOKEN, gateway_token=TOKEN))
    database = Database(url)
    yield Lane(database)
    database.close()


def test_a_message_that_comes_after_it_was_given_up_is_stored(lane: Lane) -> None:
    assert lane.send(Batch(envelopes=[order(1)], shed=[(2, 4)], dead=[Refusal(5, "server_fails")])).upto == 5
    assert lane.send(Batch(envelopes=[order(3), order(5)])).upto == 5
    says = lane.ledger()
    assert (says.shed, says.dead, says.stored) == ([(2, 2), (4, 4)], [], 3)


def test_messages_that_come_after_they_were_given_up_may_have_neighbours_that_were_not(lane: Lane) -> None:
    lane.send(Batch(envelopes=[], shed=[(4, 4)], dead=[Refusal(2, "server_fails")]))
    assert lane.send(Batch(envelopes=[order(1), order(2), order(3), order(4)])).upto == 4
    says = lane.ledger()
    assert (says.shed, says.dead, says.stored) == ([], [], 4)


def test_another_outbox_begins_beyond_what_the_first_one_told(lane: Lane) -> None:
    first, second = Numbering("a1"), Numbering("b2")
    lane.send(Batch(envelopes=[order(1), order(2), order(5)], shed=[(6, 7)], numbering=first))
    told = lane.send(Batch(envelopes=[order(1), order(2)], shed=[(3, 9)], numbering=second))
    assert (told.foreign, told.numbering, told.highest) == ("b2", "a1", 7)
    assert lane.ledger().missing == [(3, 4)], "nothing of it was taken"
    anew = Numbering("b3", 9)
    told = lane.send(Batch(envelopes=[order(9), order(10)], numbering=anew))
    assert (told.foreign, told.numbering, told.upto) == (None, "b3", 10)
    says = lane.ledger()
    assert (says.complete, says.stored, says.shed) == (True, 5, [(6, 7)])
    assert says.dead == [(3, 4, "outbox_replaced"), (8, 8, "outbox_replaced")]
    late = lane.send(Batch(envelopes=[order(3), order(9)], numbering=second))
    assert (late.foreign, late.highest, lane.rows()) == ("b2", 10, {1, 2, 5, 9, 10})
    lane.send(Batch(envelopes=[order(11)], numbering=first))
    assert lane.rows() == {1, 2, 5, 9, 10}, "the first one's numbers are taken, too, now"


def test_a_gateway_of_an_older_version_does_not_say_whose_its_numbers_are(lane: Lane) -> None:
    lane.send(Batch(envelopes=[order(1)]))
    assert lane.send(Batch(envelopes=[order(2)])).upto == 2
    assert lane.send(Batch(envelopes=[order(1)], numbering=Numbering("a1"))).foreign == "a1"


def test_what_was_stored_is_not_called_shed_when_the_acknowledgement_was_lost(lane: Lane) -> None:
    lane.send(Batch(envelopes=[order(1), order(2)]))
    lane.send(Batch(envelopes=[], shed=[(1, 3)], dead=[Refusal(1, "server_fails")]))
    says = lane.ledger()
    assert (says.shed, says.dead, says.stored) == ([(3, 3)], [], 2)


def test_a_range_that_ends_before_it_begins_is_refused(lane: Lane) -> None:
    with pytest.raises(BadMessage, match="shed range"):
        lane.send(Batch(envelopes=[order(1)], shed=[(5, 3)]))


@pytest.fixture
def url(lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A running server that has heard of one gateway, where 3 to 4 are missing."""
    lane.send(Batch(envelopes=[order(1), poison(2), order(5)], shed=[(6, 7)], dead=[Refusal(8, "server_fails")]))
    settings = Settings(
        database=str(lane.database.engine.url),
        artifacts=str(tmp_path / "artifacts"),
        admin_token=TOKEN,
        gateway_token=TOKEN[::-1],
    )
    app = create_app(settings, lane.database)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 15
    while not server.started:
        assert time.monotonic() < until, "the server did not start"
        time.sleep(0.02)
    monkeypatch.setenv("MILLWRIGHT_ADMIN_TOKEN", TOKEN)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(15)


def test_the_command_names_what_is_missing_and_ends_with_1_until_it_is_there(
    url: str, lane: Lane, capsys: pytest.CaptureFixture[str]
) -> None:
    assert millwright.main(["ledger", "--url", url]) == 1
    said = capsys.readouterr().out
    assert "g (s): ranges are missing" in said
    assert "complete from 1 to 2, heard of 8; missing 3-4; shed 6-7; dead 8 (server_fails)" in said
    assert "quarantined 2 (wrong_type) (2 stored, 0 arrived again)" in said
    lane.send(Batch(envelopes=[order(4), order(3)]))
    assert millwright.main(["ledger", "--url", url, "--gateway", "g"]) == 0
    assert "complete from 1 to 8;" in capsys.readouterr().out


def test_what_the_command_saved_is_checked_without_the_server(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert millwright.main(["ledger", "--url", url, "--json"]) == 1
    file, key = tmp_path / "ledger.json", tmp_path / "keys" / "seal.pub"
    file.write_text(capsys.readouterr().out)
    check = ["ledger", "verify", str(file), "--key", str(key)]
    assert millwright.main(check) == 0
    assert "missing 3-4" in capsys.readouterr().out
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told, indent=3, sort_keys=True))
    assert millwright.main(check) == 0, "spaces and order are not what is signed"
    told["ledger"]["gateways"][0]["lanes"][0]["missing"] = []
    file.write_text(json.dumps(told))
    assert millwright.main(check) == 1
    assert "altered" in capsys.readouterr().out
    Seal.of(tmp_path / "other")
    assert millwright.main(["ledger", "verify", str(file), "--key", str(tmp_path / "other" / "seal.pub")]) == 1
    assert "another key" in capsys.readouterr().out
    file.write_text("{")
    assert millwright.main(check) == 1
    assert "malformed_json" in capsys.readouterr().out


def test_a_later_versions_additions_are_signed_too(tmp_path: Path) -> None:
    seal = Seal.of(tmp_path)
    later = {"format": "millwright.ledger.v1", "issued_ms": NOW, "gateways": [], "weather": "fine"}
    body = json.dumps({"ledger": later, "key": seal.key, "signature": seal.sign(canonical(later))})
    document, payload = read_signed(body.encode())
    assert document.ledger.gateways == []
    assert payload == canonical(later)


def test_only_an_admin_reads_the_ledger_and_a_strange_gateway_is_named(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert millwright.main(["ledger", "--url", url, "--gateway", "no such/../one"]) == 2
    assert "404" in capsys.readouterr().err
    monkeypatch.setenv("MILLWRIGHT_ADMIN_TOKEN", "wrong")
    assert millwright.main(["ledger", "--url", url]) == 2
    assert "401" in capsys.readouterr().err
    assert millwright.main(["ledger", "--url", "file:///etc/passwd"]) == 2
    assert millwright.main(["ledger", "--url", "http://127.0.0.1:9"]) == 2
    assert "does not answer" in capsys.readouterr().err


def test_two_processes_that_need_a_key_at_once_have_the_same(tmp_path: Path) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(Seal.of(tmp_path).key)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert (tmp_path / "seal.key").stat().st_mode & 0o777 == 0o600
