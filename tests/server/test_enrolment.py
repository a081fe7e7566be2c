"""Who becomes a gateway, who stays one, who is one no longer: in the books, and over HTTP."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, make_url, text

from protocol.enrolment import Renewal, TokenFile, to_sign
from protocol.errors import BadIdentity, Reason
from server import enrolment
from server.__main__ import main, migrate
from server.app import create_app
from server.config import IdentitySettings, Settings
from server.database import Database, Gateway
from server.identity import CA
from server.routes.identity import Patience
from server.signing import make_keys
from tests.identities import Key, p256, request

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ADMIN, SHARED = "k3Jx9QmW2vLs8RtZ5yBn7CdF", "pQ8wE2rT6yU1iO9aS4dF7gHj"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(
        database=f"sqlite:///{tmp_path}/server.db",
        artifacts=str(tmp_path / "artifacts"),
        admin_token=ADMIN,
        gateway_token=SHARED,
    )
    migrate(made)
    return made


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    made = Database(settings.database)
    yield made
    made.close()


@pytest.fixture
def ca(settings: Settings) -> CA:
    return CA.make(settings.authority_folder, NOW)


class Member:
    """A gateway as the server sees it: it asks with its key, and keeps what it is given."""

    def __init__(self, database: Database, ca: CA, name: str = "gw-1") -> None:
        self.database, self.ca, self.name = database, ca, name
        self.key = p256()
        self.certificate = self.token = ""

    def invited(self, now: datetime = NOW, valid: timedelta = HOUR) -> str:
        with self.database.begin() as session:
            return enrolment.make_token(session, self.name, valid, now)

    def enrol(self, token: str, now: datetime = NOW, key: Key | None = None, name: str = "") -> None:
        asked = request(name or self.name, key or self.key).decode()
        with self.database.begin() as session:
            issued, self.token = enrolment.enrol(session, self.ca, token, asked, now)
        self.certificate = issued.pem.decode()

    def renew(self, now: datetime, key: Key | None = None) -> None:
        new = key or p256()
        asked = request(self.name, new).decode()
        signature = self.key.sign(to_sign(asked), ec.ECDSA(hashes.SHA256()))
        with self.database.begin() as session:
            issued, self.token = enrolment.renew(session, self.ca, self.certificate, asked, signature, now)
        self.certificate, self.key = issued.pem.decode(), new

    def revoke(self, now: datetime) -> int:
        with self.database.begin() as session:
            return enrolment.revoke(session, self.name, "stolen", now)

    def known_by_token(self, now: datetime) -> str | None:
        with self.database.begin() as session:
            return enrolment.gateway_of_token(session, self.token, now)


@pytest.fixture
def gateway(database: Database, ca: CA) -> Member:
    made = Member(database, ca)
    made.enrol(made.invited())
    return made


def why(reason: Reason) -> Any:
    """Refused for this reason and no other."""
    return pytest.raises(BadIdentity, match=f"^{reason}:")


def test_a_token_works_once_for_its_name_and_not_for_long(database: Database, ca: CA) -> None:
    made = Member(database, ca)
    token = made.invited()
    with why(Reason.TOKEN_UNKNOWN):
        made.enrol("mw1.guessed")
    with why(Reason.BAD_REQUEST):
        made.enrol(token, name="gw-2")
    with why(Reason.TOKEN_EXPIRED):
        made.enrol(token, NOW + HOUR + timedelta(seconds=1))
    made.enrol(token)
    with why(Reason.TOKEN_USED):
        made.enrol(token, key=p256())
    made.enrol(token, NOW + timedelta(minutes=5))  # the same key again: the answer was lost on its way
    assert made.known_by_token(NOW) == "gw-1"


def all_at_once(database: Database, ca: CA) -> list[Reason | None]:
    """Eight machines with one token, each with a key of its own, and what became of each."""
    token = Member(database, ca).invited()

    def attempt(_: int) -> Reason | None:
        try:
            Member(database, ca).enrol(token)
        except BadIdentity as refused:
            with database.begin() as session:
                enrolment.count_refusal(session, refused, NOW)
            return refused.reason
        return None

    with ThreadPoolExecutor(8) as machines:
        return list(machines.map(attempt, range(8)))


def test_of_many_machines_with_one_token_only_one_gets_in(database: Database, ca: CA) -> None:
    answers = all_at_once(database, ca)
    assert (answers.count(None), answers.count(Reason.TOKEN_USED)) == (1, 7)


@pytest.mark.postgres
def test_tokens_and_certificates_hold_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE identity"))
    server.dispose()
    url = make_url(postgres_url).set(database="identity").render_as_string(hide_password=False)
    migrate(Settings(database=url, admin_token=ADMIN, gateway_token=SHARED))
    database = Database(url)
    answers = all_at_once(database, CA.make(tmp_path / "ca", NOW))
    assert (answers.count(None), answers.count(Reason.TOKEN_USED)) == (1, 7)
    with database.begin() as session:
        assert enrolment.refusals(session) == {"token_used": 7}
    gateway = Member(database, CA.load(tmp_path / "ca"), "gw-2")
    gateway.enrol(gateway.invited())
    gateway.renew(NOW + 60 * DAY)
    assert gateway.revoke(NOW + 61 * DAY) == 2
    with why(Reason.REVOKED):
        gateway.renew(NOW + 90 * DAY)
    database.close()


@given(st.text(max_size=400))
def test_a_text_that_is_no_token_file_is_refused(body: str) -> None:
    with pytest.raises(BadIdentity):
        TokenFile.read(body)


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_bytes_that_are_no_renewal_are_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(body, type=Renewal)


def test_the_database_holds_no_token(settings: Settings, database: Database, ca: CA, tmp_path: Path) -> None:
    made = Member(database, ca)
    token = made.invited()
    made.enrol(token)
    database.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("server.db*"))
    assert token.encode() not in stored
    assert made.token.encode() not in stored


@pytest.mark.parametrize("name", ["gw/1", "+", "millwright-server", "g" * 65, ""])
def test_no_token_for_a_name_that_no_gateway_may_have(database: Database, ca: CA, name: str) -> None:
    with why(Reason.BAD_NAME):
        Member(database, ca, name).invited()


def test_no_token_for_a_name_that_people_would_take_for_another(database: Database, gateway: Member) -> None:
    with database.begin() as session:
        session.add(Gateway(id="Press-1", site="s", desired={}, reported={}, heartbeat={}))
    for name in ("GW-1", "press-1"):
        with why(Reason.BAD_NAME):
            Member(database, gateway.ca, name).invited()


def test_a_certificate_is_renewed_from_two_thirds_of_its_life_on(gateway: Member) -> None:
    with why(Reason.NOT_DUE):
        gateway.renew(NOW + 19 * DAY)
    first = gateway.certificate
    gateway.renew(NOW + 20 * DAY)
    assert gateway.certificate != first
    gateway.renew(NOW + 40 * DAY)
    assert gateway.known_by_token(NOW + 40 * DAY) == "gw-1"


def test_a_gateway_that_was_offline_for_sixty_days_renews_without_hands(gateway: Member) -> None:
    assert gateway.known_by_token(NOW + 60 * DAY) is None
    gateway.renew(NOW + 60 * DAY)
    assert gateway.known_by_token(NOW + 60 * DAY) == "gw-1"


def test_beyond_the_grace_a_gateway_is_enrolled_again(gateway: Member) -> None:
    with why(Reason.EXPIRED):
        gateway.renew(NOW + 396 * DAY)


def test_a_renewal_is_for_a_new_key_and_signed_by_the_old_one(database: Database, gateway: Member) -> None:
    with why(Reason.BAD_REQUEST):
        gateway.renew(NOW + 25 * DAY, key=gateway.key)
    thief = Member(database, gateway.ca)
    thief.certificate = gateway.certificate  # which everybody may see
    with why(Reason.UNSIGNED):
        thief.renew(NOW + 25 * DAY)


def test_what_was_revoked_stays_revoked(gateway: Member) -> None:
    waiting = gateway.invited(NOW + DAY)
    assert gateway.revoke(NOW + DAY) == 1
    assert gateway.known_by_token(NOW + DAY) is None
    for days in (1, 25, 60):
        with why(Reason.REVOKED):
            gateway.renew(NOW + days * DAY)
    with why(Reason.TOKEN_EXPIRED):  # so do tokens that were made for it before
        gateway.enrol(waiting, NOW + DAY)
    assert gateway.revoke(NOW + DAY) == 0


def test_a_revoked_gateway_may_be_enrolled_again_and_its_old_certificate_still_counts_for_nothing(
    gateway: Member,
) -> None:
    old_key, old = gateway.key, gateway.certificate
    gateway.revoke(NOW + DAY)
    gateway.key = p256()
    gateway.enrol(gateway.invited(NOW + 2 * DAY), NOW + 2 * DAY)
    gateway.renew(NOW + 25 * DAY)
    gateway.key, gateway.certificate = old_key, old
    with why(Reason.REVOKED):
        gateway.renew(NOW + 25 * DAY)


def test_a_certificate_that_a_restored_database_has_forgotten_is_revoked_with_its_gateway(
    database: Database, gateway: Member
) -> None:
    forgotten = gateway.ca.sign_request(request("gw-1", gateway.key), "gw-1", NOW)
    gateway.certificate = forgotten.pem.decode()
    gateway.revoke(NOW + DAY)
    with why(Reason.REVOKED):
        gateway.renew(NOW + 25 * DAY)


def test_a_broker_is_told_of_revoked_certificates_until_they_run_out(database: Database, gateway: Member) -> None:
    gateway.revoke(NOW + DAY)
    with database.begin() as session:
        assert [when for _, when in enrolment.revoked(session, NOW + DAY)] == [NOW + DAY]
        assert enrolment.revoked(session, NOW + 31 * DAY) == []


def test_refusals_are_counted_by_reason(database: Database) -> None:
    for reason in (Reason.TOKEN_UNKNOWN, Reason.TOKEN_UNKNOWN, Reason.REVOKED):
        with database.begin() as session:
            enrolment.count_refusal(session, BadIdentity(reason, "x"), NOW)
    with database.begin() as session:
        assert enrolment.refusals(session) == {"token_unknown": 2, "revoked": 1}


def test_patience_comes_back() -> None:
    now_s = 0.0
    patience = Patience(lambda: now_s)
    for _ in range(10):
        assert patience.left("a")
        patience.refused("a")
    assert not patience.left("a")
    assert patience.left("b")
    now_s = 6.5
    assert patience.left("a")
    assert patience.refused("a") == 1
    assert not patience.left("a")


# over HTTP ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(settings: Settings, database: Database) -> Iterator[TestClient]:
    with TestClient(create_app(settings, database)) as made:
        yield made


BY_ADMIN = {"Authorization": f"Bearer {ADMIN}"}


def invited(client: TestClient, name: str = "gw-1") -> str:
    answer = client.post(f"/api/v1/gateways/{name}/enrol-token", headers=BY_ADMIN)
    assert answer.status_code == 201
    return TokenFile.read(answer.json()["token_file"]).token


def test_without_an_authority_the_server_says_how_to_make_one(client: TestClient) -> None:
    answer = client.post("/api/v1/enrol", json={"token": "mw1.12345678", "request": "x"})
    assert (answer.status_code, answer.json()["remedy"]) == (503, "millwright server ca init")


def test_a_gateway_enrols_and_its_own_token_opens_what_agents_fetch(
    client: TestClient, ca: CA, settings: Settings
) -> None:
    root = make_keys(settings.key_folder)
    assert client.post("/api/v1/gateways/gw-1/enrol-token").status_code == 401
    answer = client.post("/api/v1/enrol", json={"token": invited(client), "request": request("gw-1").decode()})
    assert answer.status_code == 200
    granted = answer.json()
    assert (granted["gateway"], granted["authority"], granted["root"]) == ("gw-1", ca.pem.decode(), root.read_text())
    own = {"Authorization": f"Bearer {granted['token']}"}
    assert client.get("/api/v1/trust/root.json", headers=own).status_code == 200
    assert client.get("/api/v1/gateways", headers=own).status_code == 401  # a gateway is no admin
    revoked = client.post("/api/v1/gateways/gw-1/revoke", headers=BY_ADMIN)
    assert revoked.json()["certificates"] == 1
    assert client.get("/api/v1/trust/root.json", headers=own).status_code == 401
    told = client.get("/api/v1/identities", headers=BY_ADMIN).json()
    assert told["identities"][0]["revoked_ms"] is not None
    assert {row["what"] for row in client.get("/api/v1/audit", headers=BY_ADMIN).json()} == {"enrol-token", "revoke"}


def test_with_identities_required_the_shared_token_opens_nothing(
    settings: Settings, database: Database, ca: CA
) -> None:
    strict = msgspec.structs.replace(settings, identity=IdentitySettings(required=True))
    make_keys(settings.key_folder)
    with TestClient(create_app(strict, database)) as client:
        shared = {"Authorization": f"Bearer {SHARED}"}
        assert client.get("/api/v1/trust/root.json", headers=shared).status_code == 401
        answer = client.post("/api/v1/enrol", json={"token": invited(client), "request": request("gw-1").decode()})
        own = {"Authorization": f"Bearer {answer.json()['token']}"}
        assert client.get("/api/v1/trust/root.json", headers=own).status_code == 200


def test_refusals_over_http_say_why_are_counted_and_run_out(client: TestClient, ca: CA) -> None:
    token = invited(client)
    wrong = client.post("/api/v1/enrol", json={"token": "mw1.guessed-guessed", "request": request("gw-1").decode()})
    assert (wrong.status_code, wrong.json()["reason"]) == (403, "token_unknown")
    other = client.post("/api/v1/enrol", json={"token": token, "request": request("gw-2").decode()})
    assert (other.status_code, other.json()["reason"]) == (422, "bad_request")
    for body in (b"[" * 30_000, b"{}", b"\xff", b'{"token": 7}'):
        assert client.post("/api/v1/enrol", content=body).status_code == 422
    assert client.post("/api/v1/enrol", content=b"x" * 100_000).status_code == 413
    signed = {
        "certificate": ca.pem.decode(),
        "request": request("gw-1").decode(),
        "signature": base64.b64encode(b"nonsense").decode(),
    }
    renewed = client.post("/api/v1/renew", json=signed)
    assert (renewed.status_code, renewed.json()["reason"]) == (403, "bad_certificate")
    codes = [client.post("/api/v1/renew", json=signed).status_code for _ in range(12)]
    assert codes[0] == 403
    assert codes[-1] == 429
    counted = client.get("/api/v1/counters", headers=BY_ADMIN).json()["identity_refused"]
    assert counted["token_unknown"] == 1
    assert counted["malformed_json"] == 4
    assert sum(counted.values()) >= 10


def test_the_command_makes_the_authority_and_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLWRIGHT_DATABASE", f"sqlite:///{tmp_path}/server.db")
    monkeypatch.setenv("MILLWRIGHT_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("MILLWRIGHT_ADMIN_TOKEN", ADMIN)
    monkeypatch.setenv("MILLWRIGHT_GATEWAY_TOKEN", SHARED)
    assert main(["enrol-token", "gw-1"]) == 2
    assert "ca init" in capsys.readouterr().err
    assert main(["ca", "init"]) == 0
    assert main(["ca", "init"]) == 2
    capsys.readouterr()
    assert main(["enrol-token", "gw-1", "--valid", "30m"]) == 0
    assert TokenFile.read(capsys.readouterr().out).token.startswith("mw1.")
    assert main(["enrol-token", "gw-1", "--out", str(tmp_path / "token")]) == 0
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    for wrong in (
        ["enrol-token", "gw-1", "--valid", "soon"],
        ["enrol-token", "gw-1", "--valid", "30d"],
        ["revoke", "gw-1"],
    ):
        assert main(wrong) == 2
    assert main(["ca", "host", "--host", "server.example", "--out", str(tmp_path / "tls")]) == 0
    assert (tmp_path / "tls" / "host.key").stat().st_mode & 0o777 == 0o600
    broker = ["broker-config", "--out", str(tmp_path / "broker")]
    assert main(broker) == 2
    assert "--host" in capsys.readouterr().err
    assert main([*broker, "--host", "broker.example"]) == 0
    assert {path.name for path in (tmp_path / "broker").iterdir()} == {
        "mosquitto.conf",
        "acl",
        "ca.pem",
        "crl.pem",
        "host.pem",
        "host.key",
    }


def test_the_command_says_when_a_broker_could_not_be_told(
    settings: Settings,
    database: Database,
    gateway: Member,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "server.toml"
    told = f'database = "{settings.database}"\nartifacts = "{settings.artifacts}"\n'
    told += f'admin_token = "{ADMIN}"\ngateway_token = "{SHARED}"\n'
    file.write_text(told)
    assert main(["revoke", "gw-1", "--config", str(file)]) == 0
    assert "1 certificate(s) revoked" in (said := capsys.readouterr().out)
    assert "names no folder" in said
    file.write_text(told + f'[broker]\nport = 9\n[identity]\nbroker = "{tmp_path}/broker"\nreload = ["true"]\n')
    assert main(["revoke", "gw-1", "--config", str(file)]) == 1
    assert "no broker at" in capsys.readouterr().err
    assert (tmp_path / "broker" / "crl.pem").exists()
