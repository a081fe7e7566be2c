"""How a gateway asks for its certificate and keeps one, with a real HTTPS server; when it asks, with a clock of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_agent import enrolment, identity
from edge_agent.__main__ import main
from edge_agent.config import AgentSettings, UplinkSettings
from edge_agent.enrolment import Keeper
from edge_agent.identity import Identity
from edge_agent.shown import Shown
from protocol.enrolment import TokenFile
from protocol.errors import BadIdentity, BadSettings, Reason, TryLater
from server import enrolment as books
from server.identity import CA
from server.signing import make_keys
from tests.identities import p256, pem, request
from tests.tls_broker import Plant

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    made = Plant(tmp_path_factory.mktemp("plant"))
    make_keys(made.settings.key_folder)
    yield made
    made.database.close()


@pytest.fixture(scope="module")
def url(plant: Plant) -> Iterator[str]:
    with plant.https() as address:
        yield address


def invited(plant: Plant, name: str) -> TokenFile:
    with plant.database.begin() as session:
        token = books.make_token(session, name, timedelta(hours=1), datetime.now(UTC))
    return TokenFile.read(TokenFile(token=token, authority=plant.ca.pem.decode()).text("for a test"))


def enrolled(plant: Plant, folder: Path, name: str, when: datetime) -> Identity:
    """As it was enrolled then."""
    key, token = p256(), invited(plant, name).token
    with plant.database.begin() as session:
        row = session.get_one(books.EnrolTokenRow, books._sha256(token))
        row.expires_ms = int((when + DAY).timestamp() * 1000)
        issued, own = books.enrol(session, plant.ca, token, request(name, key).decode(), when)
    identity.replace(folder, key=pem(key), certificate=issued.pem, authority=plant.ca.pem, token=own)
    found = Identity.load(folder)
    assert found is not None
    return found


def test_a_gateway_enrols_over_https_and_is_given_the_root_of_models_too(
    plant: Plant, url: str, tmp_path: Path
) -> None:
    made = enrolment.enrol(url, invited(plant, "gw-1"), "gw-1", tmp_path / "identity", tmp_path / "root.json")
    assert made.gateway == "gw-1"
    assert (tmp_path / "root.json").read_bytes() == (plant.settings.key_folder / "root.json").read_bytes()
    assert sorted(path.name for path in made.folder.iterdir()) == sorted(identity.FILES)
    assert plant.ca.verify(made.certificate_pem, made.sign(b"x"), b"x", datetime.now(UTC)) == "gw-1"
    with pytest.raises(BadIdentity) as early:
        enrolment.renew(made, url)
    assert early.value.reason is Reason.NOT_DUE


def test_an_answer_that_was_lost_does_not_use_up_the_token(
    plant: Plant, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = invited(plant, "gw-lost")

    def lost(*_: object, **__: object) -> None:
        raise OSError("the power was cut")

    with monkeypatch.context() as cut:
        cut.setattr(identity, "replace", lost)
        with pytest.raises(OSError, match="power"):
            enrolment.enrol(url, token, "gw-lost", tmp_path / "identity", None)
    assert enrolment.enrol(url, token, "gw-lost", tmp_path / "identity", None).gateway == "gw-lost"
    with pytest.raises(BadIdentity) as used:  # another machine with the same token
        enrolment.enrol(url, token, "gw-lost", tmp_path / "elsewhere", None)
    assert used.value.reason is Reason.TOKEN_USED


def test_a_token_is_sent_to_the_server_that_made_it_and_to_nobody_else(plant: Plant, url: str, tmp_path: Path) -> None:
    strangers = CA.make(tmp_path / "ca", datetime.now(UTC))
    token = TokenFile(token=invited(plant, "gw-2").token, authority=strangers.pem.decode())
    with pytest.raises(TryLater, match="CERTIFICATE_VERIFY_FAILED"):
        enrolment.enrol(url, token, "gw-2", tmp_path / "identity", None)
    with pytest.raises(BadSettings, match="https"):
        enrolment.enrol("http://server.example", token, "gw-2", tmp_path / "identity", None)
    with pytest.raises(TryLater, match="no certificate from"):
        enrolment.enrol("http://127.0.0.1:9", token, "gw-2", tmp_path / "identity", None)


def test_a_gateway_that_was_offline_for_sixty_days_renews_over_https(plant: Plant, url: str, tmp_path: Path) -> None:
    old = enrolled(plant, tmp_path / "identity", "gw-60", datetime.now(UTC) - 60 * DAY)
    assert old.not_after < datetime.now(UTC)
    new = enrolment.renew(old, url)
    assert new.not_after > datetime.now(UTC) + 29 * DAY
    assert new.token != old.token
    with pytest.raises(BadIdentity) as why:  # the files have changed, so the old certificate's key is gone
        enrolment.renew(old, url)
    assert why.value.reason is Reason.UNSIGNED


def test_the_command_enrols_a_gateway_and_says_what_it_has(
    plant: Plant, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.toml").write_text(
        f'site = "s"\ngateway = "gw-cli"\ndata_dir = "data"\n[server]\nurl = "{url}"\n'
    )
    (tmp_path / "token").write_text(invited(plant, "gw-cli").text("x"))
    arguments = ["enrol", "--config", str(tmp_path / "agent.toml")]
    assert main(arguments) == 2
    assert main([*arguments, "--token-file", str(tmp_path / "agent.toml")]) == 2
    assert "no token file" in capsys.readouterr().err
    assert main([*arguments, "--token-file", str(tmp_path / "token")]) == 0
    said = capsys.readouterr().out
    assert "gw-cli enrolled" in said
    assert "sha256" in said
    assert (tmp_path / "data" / "identity" / "key.pem").stat().st_mode & 0o777 == 0o600


def test_what_is_shown_follows_a_renewal_and_is_never_another_gateways(plant: Plant, url: str, tmp_path: Path) -> None:
    settings = AgentSettings(site="s", gateway="gw-s", data_dir=str(tmp_path))
    assert Shown(settings).tls is None
    old = enrolled(plant, tmp_path / "identity", "gw-s", datetime.now(UTC) - 25 * DAY)
    shown = Shown(settings)
    tls, token = shown.tls, shown.token
    assert (tls is not None, token) == (True, old.token)
    clock = _Clock()
    reconnected: list[bool] = []
    keeper = shown.keeper(clock, lambda: reconnected.append(True))
    assert keeper is not None
    keeper._url = url
    notes: list[str] = []
    _look_until(keeper, notes, lambda: bool(notes))
    assert notes == ["identity.renewed"]
    assert reconnected == [True]
    assert shown.tls is tls  # the connection holds this very context
    assert shown.token != token
    assert (
        Shown(
            AgentSettings(site="s", gateway="gw-s", data_dir=str(tmp_path), uplink=UplinkSettings(identity=False))
        ).tls
        is None
    )
    with pytest.raises(BadSettings, match="is the identity of 'gw-s'"):
        Shown(AgentSettings(site="s", gateway="gw-t", data_dir=str(tmp_path)))


def test_an_identity_that_cannot_be_read_closes_the_uplink_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "cert.pem").write_bytes(b"nonsense")
    shown = Shown(AgentSettings(site="s", gateway="gw-s", data_dir=str(tmp_path)))
    assert shown.tls is not None  # nothing is sent in clear instead
    assert shown.keeper(_Clock(), lambda: None) is None


class _Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.wall = datetime.now(UTC)
        self.monotonic = 0.0

    def now_ms(self) -> int:
        return int(self.wall.timestamp() * 1000)

    def monotonic_s(self) -> float:
        return self.monotonic

    def pass_s(self, seconds: float) -> None:
        self.wall, self.monotonic = self.wall + timedelta(seconds=seconds), self.monotonic + seconds


def _look_until(keeper: Keeper, notes: list[str], true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        keeper.look(True, notes.append)
        time.sleep(0.01)
    assert true()


class Asked:
    """A server that answers as it is told to."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        self.clock, self.times = _Clock(), 0
        self.answer: Exception | None = None
        self.folder, self.plant = folder, plant
        self.notes: list[str] = []
        self.renewed: list[Identity] = []
        self.keeper = Keeper(
            self.issued(),
            "https://server",
            now_ms=self.clock.now_ms,
            monotonic_s=self.clock.monotonic_s,
            renewed=self.renewed.append,
            ask=self.ask,
        )

    def issued(self) -> Identity:
        key = p256()
        pem_ = self.plant.ca.sign_request(request("gw-k", key), "gw-k", self.real()).pem
        identity.replace(self.folder, key=pem(key), certificate=pem_, authority=self.plant.ca.pem, token="t")
        found = Identity.load(self.folder)
        assert found is not None
        return found

    def real(self) -> datetime:
        """The server's clock."""
        return datetime.now(UTC) + timedelta(seconds=self.clock.monotonic)

    def ask(self, _present: Identity, _url: str) -> Identity:
        self.times += 1
        if self.answer is not None:
            raise self.answer
        return self.issued()

    def live(self, days: float, *, connected: bool = True, step_s: float = 60.0) -> int:
        """Lets time pass; answers how often the server was asked in it."""
        before = self.times
        for _ in range(int(days * 86_400 / step_s)):
            self.clock.pass_s(step_s)
            self.keeper.look(connected, self.notes.append)
            if self.keeper._thread is not None:
                self.keeper._thread.join()
                self.keeper.look(connected, self.notes.append)
        return self.times - before


@pytest.fixture
def asked(plant: Plant, tmp_path: Path) -> Asked:
    return Asked(plant, tmp_path / "identity")


def test_the_server_is_asked_once_in_twenty_days(asked: Asked) -> None:
    assert asked.live(19.5, step_s=600) == 0
    assert asked.live(1.0, step_s=600) == 1
    assert asked.live(19.0, step_s=600) == 0
    assert (asked.keeper.renewals, len(asked.renewed), asked.notes) == (1, 1, ["identity.renewed"])


def test_a_renewal_that_fails_is_counted_shown_and_tried_again_and_nothing_else(asked: Asked) -> None:
    asked.live(19.9, step_s=600)
    asked.answer = TryLater("the server is away")
    tries = asked.live(1.1)
    assert 86_400 / 900 / 2 < tries < 86_400 / 300 + 10  # every 5 to 15 minutes
    assert asked.keeper.told()["failures"] == tries
    assert asked.keeper.told()["last_error"] == "the server is away"
    assert set(asked.notes) == {"identity.not_renewed"}
    asked.answer = OSError("the disk is full")
    assert asked.live(0.1) > 0
    asked.answer = None
    assert asked.live(0.1) == 1
    assert asked.keeper.told()["last_error"] == ""


def test_a_clock_in_1970_asks_at_once_and_then_once_a_day_at_most(asked: Asked) -> None:
    asked.clock.wall = datetime(1970, 1, 1, tzinfo=UTC)
    assert 1 <= asked.live(3.0, step_s=600) <= 7
    asked.answer = BadIdentity(Reason.NOT_DUE, "not yet")
    asked.times = 0
    asked.live(1.0)
    assert asked.keeper.failures == 0


def test_a_clock_that_fell_behind_is_made_up_for_when_the_broker_stays_closed(asked: Asked) -> None:
    """The clock says that the certificate is new; the broker knows that it has run out."""
    assert asked.live(0.5) == 0
    asked.answer = BadIdentity(Reason.NOT_DUE, "not yet")
    assert asked.live(0.01, connected=False) == 0
    assert asked.live(0.05, connected=False) >= 1
    asked.answer = None
    asked.live(0.012, connected=False)
    assert len(asked.renewed) == 1
