"""What an admin sees of gateways' identities, and what he does about them over HTTP."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from protocol.enrolment import TokenFile
from protocol.errors import BadIdentity, Reason
from server import enrolment, identity_state
from server.database import CertificateRow, Database, Gateway
from server.identity import CA, Terms
from server.identity_state import Identities, Standing
from server.routes.access import COOKIE, session_of
from tests.identities import request
from tests.server.test_enrolment import (
    ADMIN,
    BY_ADMIN,
    DAY,
    HOUR,
    NOW,
    Member,
    ca,  # noqa: F401 - a fixture
    client,  # noqa: F401 - a fixture
    database,  # noqa: F401 - a fixture
    gateway,  # noqa: F401 - a fixture
    invited,
    settings,  # noqa: F401 - a fixture
    why,
)

BY_PAGE = {"X-Millwright": "console"}


def state(database: Database, now: datetime = NOW, most: int | None = None) -> Identities:  # noqa: F811
    with database.begin() as session:
        return identity_state.state(session, Terms(), now, most)


@pytest.mark.parametrize(
    ("days", "standing"),
    [(0, "valid"), (19.9, "valid"), (20, "due"), (29.9, "due"), (30.1, "expired"), (394, "expired"), (396, "lost")],
)
def test_a_certificate_stands_as_its_dates_say(
    gateway: Member,  # noqa: F811
    days: float,
    standing: str,
) -> None:
    (one,) = state(gateway.database, NOW + timedelta(days=days)).certificates
    assert one.standing == standing
    assert one.not_before_ms == int((NOW - HOUR).timestamp() * 1000)
    assert one.not_after_ms - one.not_before_ms == 30 * 86_400_000 + 3_600_000


def test_what_is_told_of_a_renewal_is_when_it_is_granted(gateway: Member) -> None:  # noqa: F811
    (one,) = state(gateway.database).certificates
    from_ = NOW + (timedelta(milliseconds=one.renewed_from_ms) - timedelta(seconds=NOW.timestamp()))
    with why(Reason.NOT_DUE):
        gateway.renew(from_ - timedelta(seconds=1))
    gateway.renew(from_)
    (new,) = state(gateway.database, from_).certificates
    assert (new.because, new.standing) == ("renewed", "valid")
    assert new.serial != one.serial


def test_who_needs_somebody_comes_first_and_a_bound_still_counts_everybody(
    database: Database,  # noqa: F811
    ca: CA,  # noqa: F811
) -> None:
    ages = {"new": 0, "due": 22, "gone": 400, "ended": 40, "stolen": 1}
    for name, days in ages.items():
        member = Member(database, ca, name)
        member.enrol(member.invited(NOW - days * DAY), NOW - days * DAY)
    member.revoke(NOW)
    with database.begin() as session:
        session.add(Gateway(id="bare", site="s", desired={}, reported={}, heartbeat={}))
        session.add(Gateway(id="new", site="s", desired={}, reported={}, heartbeat={}))
        made_to_end_a_session = ca.sign_request(request("new"), "new", NOW + HOUR)
        enrolment.book(session, made_to_end_a_session, "revocation", NOW + HOUR)
    told = state(database, NOW + 2 * HOUR)
    assert [c.gateway for c in told.certificates] == ["gone", "ended", "due", "new", "stolen"]
    assert (told.certificates[-1].revoked_because, told.without) == ("stolen", ["bare"])
    few = state(database, NOW + 2 * HOUR, most=2)
    assert [c.gateway for c in few.certificates] == ["gone", "ended"]
    assert few.standings == told.standings == dict.fromkeys(Standing, 1)


def test_a_token_waits_until_it_is_used_runs_out_or_is_withdrawn(database: Database, ca: CA) -> None:  # noqa: F811
    used, withdrawn, late = (Member(database, ca, name) for name in ("used", "withdrawn", "late"))
    used.enrol(used.invited())
    token, _ = withdrawn.invited(), late.invited(valid=3 * HOUR)
    waiting = {one.gateway: one.digest for one in state(database).tokens}
    assert list(waiting) == ["withdrawn", "late"]
    with database.begin() as session:
        assert enrolment.withdraw(session, waiting["withdrawn"], NOW) == "withdrawn"
    with why(Reason.TOKEN_EXPIRED):
        withdrawn.enrol(token)
    assert [one.gateway for one in state(database).tokens] == ["late"]
    assert state(database, NOW + 4 * HOUR).tokens == []
    with database.begin() as session:
        digest = session.query(enrolment.EnrolTokenRow.digest).filter_by(gateway="used").scalar()
        for unknown, reason in ((digest, Reason.TOKEN_USED), ("0" * 64, Reason.TOKEN_UNKNOWN)):
            with why(reason):
                enrolment.withdraw(session, str(unknown), NOW)


def test_refusals_are_told_with_the_last_one_in_words(database: Database) -> None:  # noqa: F811
    with database.begin() as session:
        for n, reason in enumerate((Reason.REVOKED, Reason.TOKEN_UNKNOWN, Reason.TOKEN_UNKNOWN)):
            enrolment.count_refusal(session, BadIdentity(reason, f"fact {n}"), NOW + n * HOUR)
    told = [(one.reason, one.times, one.last_detail) for one in state(database).refusals]
    assert told == [("token_unknown", 2, "fact 2"), ("revoked", 1, "fact 0")]


def whole(client: TestClient, **how: Any) -> dict[str, Any]:  # noqa: F811
    told: dict[str, Any] = client.get("/api/v1/identities", **how).json()
    return told


def test_the_api_tells_everything_and_a_token_is_withdrawn_once(client: TestClient, ca: CA) -> None:  # noqa: F811
    assert client.get("/api/v1/identities").status_code == 401
    token = invited(client)
    (waiting,) = whole(client, headers=BY_ADMIN)["tokens"]
    path = f"/api/v1/enrol-tokens/{waiting['digest']}/withdraw"
    assert client.post(path).status_code == 401
    assert client.post(path, headers=BY_ADMIN).json() == {"gateway": "gw-1"}
    gone = client.post("/api/v1/enrol", json={"token": token, "request": request("gw-1").decode()})
    assert (gone.status_code, gone.json()["reason"]) == (403, "token_expired")
    assert client.post("/api/v1/enrol-tokens/00/withdraw", headers=BY_ADMIN).status_code == 404
    for seconds in (-1, 0, 8 * 86_400, 10**30):
        refused = client.post(f"/api/v1/gateways/gw-1/enrol-token?valid_s={seconds}", headers=BY_ADMIN)
        assert refused.status_code in (403, 422)
    used = invited(client, "gw-2")
    (waiting,) = whole(client, headers=BY_ADMIN)["tokens"]
    assert client.post("/api/v1/enrol", json={"token": used, "request": request("gw-2").decode()}).status_code == 200
    path = f"/api/v1/enrol-tokens/{waiting['digest']}/withdraw"
    assert client.post(path, headers=BY_ADMIN).status_code == 409
    told = whole(client, headers=BY_ADMIN)
    assert [(c["gateway"], c["standing"]) for c in told["identities"]] == [("gw-2", "valid")]
    assert (told["refused"], told["tokens"]) == ({"token_expired": 1}, [])
    audit = [(row["what"], row["detail"]["gateway"]) for row in client.get("/api/v1/audit", headers=BY_ADMIN).json()]
    assert sorted(audit) == [("enrol-token", "gw-1"), ("enrol-token", "gw-2"), ("withdraw-token", "gw-1")]


def test_the_console_changes_nothing_for_a_foreign_page(client: TestClient, ca: CA) -> None:  # noqa: F811
    client.cookies.set(COOKIE, session_of(ADMIN))
    for path in ("gateways/gw-1/enrol-token", "gateways/gw-1/revoke", "enrol-tokens/00/withdraw"):
        assert client.post(f"/console/{path}").status_code == 403
    answer = client.post("/console/gateways/gw-1/enrol-token?valid_s=60", headers=BY_PAGE)
    assert answer.headers["cache-control"] == "no-store"
    token = TokenFile.read(answer.json()["token_file"]).token
    assert client.post("/api/v1/enrol", json={"token": token, "request": request("gw-1").decode()}).status_code == 200
    told = client.get("/console/state.json").json()["identities"]
    assert (told["authority"], told["certificates"][0]["gateway"]) == (True, "gw-1")
    assert token not in client.get("/console/state.json").text
    revoked = client.post("/console/gateways/gw-1/revoke?because=stolen", headers=BY_PAGE)
    assert revoked.json()["certificates"] == 1
    with client.app.state.database.begin() as session:  # type: ignore[attr-defined]
        assert [row.revoked_because for row in session.query(CertificateRow)] == ["stolen"]
