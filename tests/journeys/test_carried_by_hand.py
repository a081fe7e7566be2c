"""Where no line joins a gateway to its server, people carry files: stored exactly once, never in part."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

import millwright
from edge_agent import carried
from edge_agent.agent import Agent
from edge_agent.identity import Identity, replace
from protocol.clocks import ClockConfidence
from protocol.feedback import Feedback, Verdict
from protocol.names import MessageClass
from protocol.observations import WorkOrder
from protocol.sync import ClassAck, Refusal, encode, envelope
from server import enrolment, feedback, ledger
from server.__main__ import migrate
from server.config import Settings
from server.database import Database, Gateway, LedgerRow, QuarantineRow, WorkOrderRow
from server.identity import CA
from tests.edge_agent.test_outbox_and_agent import Gateway as Running
from tests.identities import p256, pem, request
from tests.server.test_ledger import NOW, order, poison

TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF"
EVENT, METRIC = MessageClass.EVENT, MessageClass.METRIC


class Site:
    """A server, and gateways that no line joins to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "server.toml").write_text(
            f'database = "sqlite:///{folder}/server.db"\nartifacts = "{folder}/artifacts"\n'
            f'admin_token = "{TOKEN}"\ngateway_token = "{TOKEN[::-1]}"\n'
        )
        self.settings = Settings(database=f"sqlite:///{folder}/server.db", artifacts=f"{folder}/artifacts")
        migrate(self.settings)
        self.database = Database(self.settings.database)
        self.now = datetime.now(UTC)
        self.ca = CA.make(self.settings.authority_folder, self.now)

    def gateway(self, name: str, ca: CA | None = None, days_ago: float = 0) -> Path:
        """The configuration of a gateway that was enrolled so long ago."""
        when = self.now - timedelta(days=days_ago)
        folder = self.folder / name
        folder.mkdir()
        (folder / "agent.toml").write_text(f'site = "s"\ngateway = "{name}"\ndata_dir = "data"\n')
        key = p256()
        with self.database.begin() as session:
            issued = (ca or self.ca).sign_request(request(name, key), name, when)
            token = enrolment.book(session, issued, "enrolled", when)
        replace(
            folder / "data" / "identity",
            key=pem(key),
            certificate=issued.pem,
            authority=(ca or self.ca).pem,
            token=token,
        )
        return folder / "agent.toml"

    def orders(self) -> list[int]:
        with self.database.begin() as session:
            return list(session.scalars(select(WorkOrderRow.seq).order_by(WorkOrderRow.seq)))


@pytest.fixture
def site(tmp_path: Path) -> Any:
    made = Site(tmp_path)
    yield made
    made.database.close()


def running(site: Site, name: str) -> Running:
    """The gateway's agent, with 450 orders in its outbox (the 7th cannot be read by anybody)."""
    made = Running(site.folder / name)
    outbox = made.agent._outbox
    for n in range(1, 451):
        outbox.add(EVENT, encode(poison(n) if n == 7 else order(n)))
    outbox.commit()
    return made


def run(*words: str | Path) -> int:
    return millwright.main([str(word) for word in words])


def agent_looks(gateway: Running) -> None:
    """Time passes on the gateway, and its agent goes on."""
    for _ in range(3):
        gateway.clock.pass_s(2)
        gateway.agent.step(0.01)


def waiting(agent: Agent) -> int:
    return agent._outbox.lanes[EVENT].waiting


def test_files_carried_both_ways_store_everything_once_and_free_the_outbox(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    config, up, down = site.gateway("g"), site.folder / "up.file", site.folder / "down.file"
    gateway = running(site, "g")
    assert run("sync", "export", "--config", config, "--out", up) == 0
    assert "450" in capsys.readouterr().out
    assert waiting(gateway.agent) == 450, "nothing is freed by writing a file"
    take = ("sync", "import", up, "--server", site.folder / "server.toml", "--answer", down)
    assert run(*take) == 0
    assert "1 messages in quarantine" in capsys.readouterr().out
    assert site.orders() == [n for n in range(1, 451) if n != 7]
    assert run("sync", "import", down, "--config", config) == 0
    assert waiting(gateway.agent) == 450, "only the agent frees its outbox"
    agent_looks(gateway)
    assert waiting(gateway.agent) == 0
    assert gateway.agent._outbox.dead_letters() == 1
    answer = Feedback(id="fb-1", target="x", verdict=Verdict.ACCEPTED, time_ms=1, via="console")
    with site.database.begin() as session:
        feedback.store(session, answer, "g", None, int(site.now.timestamp() * 1000))
        session.get_one(Gateway, "g").desired = {"version": 4, "models": []}
    assert run(*take) == 0, "the same file once more"
    with site.database.begin() as session:
        row = session.get_one(LedgerRow, ("g", "event"))
        assert (row.upto, row.stored, row.quarantined) == (450, 449, 1)
    for _ in range(2):
        assert run("sync", "import", down, "--config", config) == 0
        agent_looks(gateway)
    assert gateway.agent.tally["feedback.from_server"] >= 1
    assert gateway.agent._updates.applied_version == 4
    gateway.agent.close()


def test_what_was_given_up_is_told_by_file_too_and_a_small_file_leaves_the_rest_for_the_next(site: Site) -> None:
    config, up, down = site.gateway("g"), site.folder / "up.file", site.folder / "down.file"
    gateway = running(site, "g")
    gateway.agent._outbox.bury(EVENT, Refusal(7, "never_acknowledged"))
    identity = Identity.load(config.parent / "data" / "identity")
    assert identity is not None
    left = []
    while waiting(gateway.agent):
        outbox = config.parent / "data" / "outbox.db"
        left.append(carried.export(outbox, identity, "s", up, 1, most_bytes=70_000).left)
        assert up.stat().st_size < 80_000
        take = ("sync", "import", up, "--server", site.folder / "server.toml", "--answer", down)
        assert run(*take) == 0
        assert run("sync", "import", down, "--config", config) == 0
        agent_looks(gateway)
    assert len(left) > 1
    assert left[0] > left[-1]
    with site.database.begin() as session:
        (lane,) = [one for one in ledger.state(session, 0, "g").gateways[0].lanes if one.message_class is EVENT]
    assert (lane.dead, lane.complete_to, lane.missing) == ([(7, 7, "never_acknowledged")], 450, [])
    gateway.agent.close()


def test_a_gateway_with_a_new_outbox_carries_once_more_and_loses_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    config, up, down = site.gateway("g"), site.folder / "up.file", site.folder / "down.file"

    def carried_both_ways(gateway: Running) -> str:
        assert run("sync", "export", "--config", config, "--out", up) == 0
        capsys.readouterr()
        assert run("sync", "import", up, "--server", site.folder / "server.toml", "--answer", down) == 0
        said = capsys.readouterr().out
        assert run("sync", "import", down, "--config", config) == 0
        agent_looks(gateway)
        return said

    first = running(site, "g")
    assert "another outbox" not in carried_both_ways(first)
    first.agent.close()
    for file in (config.parent / "data").glob("outbox.db*"):
        file.unlink()
    second = Running(site.folder / "g")
    for n in range(1, 21):
        said = WorkOrder(id=f"NEW-{n}", machine="P-1", time_ms=NOW)
        told = envelope(said, site="s", gateway="g", seq=n, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)
        second.agent._outbox.add(EVENT, encode(told))
    second.agent._outbox.commit()
    assert "Nothing was taken of event" in carried_both_ways(second)
    assert waiting(second.agent) == 20
    assert second.agent.counters()["outbox.begun_anew"] >= 1
    carried_both_ways(second)
    assert waiting(second.agent) == 0
    second.agent.close()
    with site.database.begin() as session:
        orders = set(session.scalars(select(WorkOrderRow.order_id)))
        (lane,) = [one for one in ledger.state(session, 0, "g").gateways[0].lanes if one.message_class is EVENT]
    assert {f"NEW-{n}" for n in range(1, 21)} <= orders
    assert (lane.complete, lane.dead) == (True, [(451, 451, "outbox_replaced")])


def flipped(body: bytes) -> bytes:
    at = body.index(b"WO-300")
    return body[:at] + b"WO-999" + body[at + 6 :]


def another_end(body: bytes) -> bytes:
    lines = body.splitlines(keepends=True)
    return b"".join([*lines[:-2], lines[-1]])


SPOILED: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("altered", flipped, "unsigned"),
    ("cut off", lambda body: body[: len(body) // 2], "bad_archive"),
    ("cut at a line", lambda body: b"".join(body.splitlines(keepends=True)[:-1]), "bad_archive"),
    ("a record taken out", another_end, "bad_archive"),
    ("something added", lambda body: body + b"{}\n", "bad_archive"),
    ("renamed to another gateway", lambda body: body.replace(b'"gateway":"g"', b'"gateway":"h"', 1), "unsigned"),
    ("nothing", lambda _: b"", "bad_archive"),
    ("deeply nested", lambda _: b'{"a":' * 100_000 + b"\n", "malformed_json"),
    ("another kind of file", lambda _: b'{"a": 1}\n', "wrong_type"),
]


@pytest.mark.parametrize(("spoil", "reason"), [s[1:] for s in SPOILED], ids=[s[0] for s in SPOILED])
def test_a_spoiled_file_is_refused_with_its_reason_and_nothing_of_it_is_taken(
    site: Site, spoil: Callable[[bytes], bytes], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config, up, down = site.gateway("g"), site.folder / "up.file", site.folder / "down.file"
    gateway = running(site, "g")
    server = ("--server", site.folder / "server.toml", "--answer", down)
    assert run("sync", "export", "--config", config, "--out", up) == 0
    whole = up.read_bytes()
    up.write_bytes(spoil(whole))
    capsys.readouterr()
    assert run("sync", "import", up, *server) == 1
    assert f": {reason}: " in capsys.readouterr().out
    assert site.orders() == []
    assert not down.exists()
    with site.database.begin() as session:
        (row,) = session.scalars(select(QuarantineRow))
        assert (row.message_class, row.reason) == ("file", reason)
        assert session.scalar(select(func.count()).select_from(Gateway)) == 0
    up.write_bytes(whole)
    assert run("sync", "import", up, *server) == 0
    answer = down.read_bytes()
    if reason != "unsigned":
        down.write_bytes(spoil(answer))
    else:
        down.write_bytes(answer.replace(b'"upto":450', b'"upto":449'))
    capsys.readouterr()
    assert run("sync", "import", down, "--config", config) == 1
    assert f": {reason}: " in capsys.readouterr().out
    agent_looks(gateway)
    assert waiting(gateway.agent) == 450
    gateway.agent.close()


def test_files_of_strangers_of_the_revoked_and_for_others_are_refused(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    config, up, down = site.gateway("g"), site.folder / "up.file", site.folder / "down.file"
    other = site.gateway("h")
    stranger = site.gateway("x", CA.make(site.folder / "strange", site.now))
    agents = [running(site, name) for name in ("g", "h", "x")]
    server = ("--server", site.folder / "server.toml", "--answer", down)

    def refused(reason: str, *words: str | Path) -> None:
        capsys.readouterr()
        assert run("sync", "import", *words) == 1
        assert f": {reason}: " in capsys.readouterr().out

    assert run("sync", "export", "--config", stranger, "--out", up) == 0
    refused("bad_certificate", up, *server)
    assert run("sync", "export", "--config", config, "--out", up) == 0
    refused("bad_archive", up, "--config", config)
    assert run("sync", "import", up, *server) == 0
    refused("unknown_gateway", down, "--config", other)
    refused("bad_certificate", down, "--config", stranger)
    refused("bad_archive", down, *server)
    with site.database.begin() as session:
        enrolment.revoke(session, "g", "stolen", site.now + timedelta(hours=2))
    refused("revoked", up, *server)
    claims_server = down.read_bytes().splitlines(keepends=True)
    own = json.loads(up.read_bytes().splitlines()[0])["certificate"]
    head = json.loads(claims_server[0]) | {"certificate": own}
    down.write_bytes(b"".join([json.dumps(head).encode() + b"\n", *claims_server[1:]]))
    refused("unsigned", down, "--config", config)
    for one in agents:
        one.agent.close()


def test_an_acknowledgement_of_more_than_was_sent_frees_nothing(site: Site) -> None:
    site.gateway("g")
    gateway = running(site, "g")
    before = waiting(gateway.agent)
    gateway.agent._outbox.settle(EVENT, ClassAck(upto=10**9))
    assert waiting(gateway.agent) == before
    assert gateway.agent._outbox.next_seq(EVENT) > 10**9, "whoever gave those numbers, they are not given twice"
    gateway.agent.close()
