"""A gateway that no line joins to its server keeps its certificate by the files that people carry anyway, by the rules of a
renewal over HTTPS."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import select

from edge_agent.enrolment import Keeper, renewal_to_carry
from edge_agent.identity import Identity
from protocol.carried import Header, Writer
from protocol.enrolment import CarriedRenewal, to_sign
from protocol.errors import TryLater
from protocol.sync import decode
from server import enrolment
from server.database import CertificateRow
from tests.edge_agent.test_outbox_and_agent import Gateway as Running
from tests.identities import request
from tests.journeys.test_carried_by_hand import Site, agent_looks, run


class Line:
    """A gateway without one, and the files that are carried for it."""

    def __init__(self, site: Site, days_ago: float, name: str = "g") -> None:
        self.site, self.name = site, name
        self.config = site.gateway(name, days_ago=days_ago)
        self.folder = self.config.parent / "data" / "identity"
        self.up, self.down = site.folder / f"{name}.up", site.folder / f"{name}.down"
        self.renewed: list[Identity] = []

    @property
    def identity(self) -> Identity:
        found = Identity.load(self.folder)
        assert found is not None
        return found

    def running(self) -> Running:
        """Its agent, which is told of a new certificate."""
        self.keeper = Keeper(
            self.identity,
            "https://server.example",
            now_ms=lambda: int(datetime.now(UTC).timestamp() * 1000),
            monotonic_s=lambda: 0.0,
            renewed=self.renewed.append,
            ask=_no_line,
        )
        return Running(self.config.parent, self.keeper)

    def exported(self) -> Header:
        """What the first line of a new file says."""
        assert run("sync", "export", "--config", self.config, "--out", self.up) == 0
        return decode(self.up.read_bytes().splitlines()[0], Header)

    def taken(self) -> int:
        """The exit status of the server's import."""
        return run("sync", "import", self.up, "--server", self.site.folder / "server.toml", "--answer", self.down)

    def answered(self) -> int:
        """The exit status of the gateway's import."""
        return run("sync", "import", self.down, "--config", self.config)

    def certificates(self) -> int:
        with self.site.database.begin() as session:
            return len(session.scalars(select(CertificateRow).where(CertificateRow.name == self.name)).all())

    def refusals(self) -> dict[str, int]:
        with self.site.database.begin() as session:
            return enrolment.refusals(session)


def _no_line(_present: Identity, _url: str) -> Identity:
    raise TryLater("there is no line")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.database.close()


@pytest.mark.parametrize("days_ago", [21, 60], ids=["due", "run out"])
def test_the_next_certificate_comes_with_the_answer_and_no_secret_is_carried(
    site: Site, days_ago: float, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Line(site, days_ago)
    before, gateway = line.identity, line.running()
    assert line.exported().renewal is not None
    assert "asks for the next one" in capsys.readouterr().out
    assert line.taken() == 0
    assert "it is in the answer" in capsys.readouterr().out
    assert line.answered() == 0
    assert line.identity == before, "only the agent changes its identity"
    agent_looks(gateway)
    after = line.identity
    assert line.renewed == [after]
    assert gateway.agent.tally["identity.renewed"] == 1
    assert (after.gateway, after.due(site.now), after.not_after > before.not_after) == ("g", False, True)
    assert _key(after) != _key(before)
    assert not (line.folder / "renewal.pem").exists()
    with site.database.begin() as session:
        assert enrolment.gateway_of_token(session, after.token, site.now) == "g"
    secrets = [after.token.encode(), *(line.folder / "key.pem").read_bytes().splitlines()[1:2]]
    assert not any(secret in file.read_bytes() for secret in secrets for file in (line.up, line.down))
    assert line.exported().renewal is None, "the new one is not due"
    assert line.taken() == 0, "and it signs the next file"
    gateway.agent.close()


def test_an_answer_that_comes_twice_late_or_to_an_earlier_file_does_no_harm(site: Site) -> None:
    line = Line(site, 21)
    line.running().agent.close()
    first = line.exported()
    assert line.taken() == 0
    early = line.down.read_bytes()
    assert line.exported().renewal != first.renewal, "a request is signed anew"
    assert line.taken() == 0
    line.down.write_bytes(early)
    assert line.answered() == 0
    gateway = line.running()  # it had not run, and takes the answer when it starts
    agent_looks(gateway)
    after = line.identity
    assert line.renewed == [after]
    told = line.keeper.told()
    assert told["last_error"] == ""
    assert line.answered() == 0
    agent_looks(gateway)
    assert (line.identity, line.keeper.told()) == (after, told)
    gateway.agent.close()


def test_a_power_cut_before_the_waiting_key_is_taken_away_costs_nothing(site: Site) -> None:
    line = Line(site, 21)
    (line.folder / "renewal.pem").write_bytes((line.folder / "key.pem").read_bytes())
    asked = renewal_to_carry(line.identity)
    assert x509.load_pem_x509_csr(asked.request.encode()).public_key() != _key(line.identity)


def test_the_revoked_and_those_beyond_the_grace_are_refused_and_counted(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    stolen, forgotten = Line(site, 21), Line(site, 500, "h")
    for line in (stolen, forgotten):
        line.running().agent.close()
        assert line.exported().renewal is not None
    with site.database.begin() as session:
        enrolment.revoke(session, "g", "stolen", site.now)
    capsys.readouterr()
    assert stolen.taken() == forgotten.taken() == 1
    said = capsys.readouterr().out
    assert ": revoked: " in said
    assert ": expired: " in said
    assert stolen.refusals() == {"revoked": 1, "expired": 1}
    assert stolen.certificates() == forgotten.certificates() == 1
    assert not stolen.down.exists()


def test_what_a_request_may_not_ask_for_is_not_given_and_the_messages_are_taken_all_the_same(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    line, other = Line(site, 21), Line(site, 21, "h")
    name = request("h").decode()
    wide = request("g", extension=x509.BasicConstraints(ca=True, path_length=None)).decode()
    theirs = renewal_to_carry(other.identity)
    for asked, reason in (
        (_signed(line.identity, name), "bad_request"),
        (_signed(line.identity, wide), "bad_request"),
        (theirs, "unsigned"),
    ):
        _write(line, asked)
        capsys.readouterr()
        assert line.taken() == 0
        assert f"g gets no new certificate: {reason}: " in capsys.readouterr().out
        assert b'"granted":{' not in line.down.read_bytes()
    assert line.refusals() == {"bad_request": 2, "unsigned": 1}
    assert line.certificates() == other.certificates() == 1


def test_one_that_asks_too_early_is_told_so_and_not_counted(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    line = Line(site, 1)
    _write(line, renewal_to_carry(line.identity))
    assert line.taken() == 0
    assert "not_due" in capsys.readouterr().out
    assert line.refusals() == {}


def _signed(present: Identity, asked: str) -> CarriedRenewal:
    return CarriedRenewal(request=asked, signature=present.sign(to_sign(asked)), token_digest="0" * 64)


def _write(line: Line, asked: CarriedRenewal) -> None:
    """A file of nothing but a request, as somebody makes it who has the gateway's key."""
    present, lines = line.identity, list[bytes]()
    certificate = present.certificate_pem.decode()
    header = Header(way="up", site="s", gateway="g", made_ms=1, certificate=certificate, renewal=asked)
    Writer(lines.append, header).end(present.sign)
    line.up.write_bytes(b"".join(lines))


def _key(present: Identity) -> object:
    return x509.load_pem_x509_certificate(present.certificate_pem).public_key()
