"""Gateways' identities, for admins: what there is, one-time tokens, revocation. The same calls for the API and for the
console; each change is in the audit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from sqlalchemy.orm import Session

from protocol.enrolment import TokenFile
from protocol.errors import BadIdentity, MillwrightError, Reason
from server import enrolment, identity_state, revocation
from server.config import Settings
from server.database import AuditRow, Database
from server.routes.access import admin, sent_by_the_console
from server.routes.identity import STATUS, authority, refusal

Seconds = Annotated[int, Query(ge=1, lt=2**31)]
WITHDRAWAL_STATUS = STATUS | {Reason.TOKEN_UNKNOWN: 404, Reason.TOKEN_USED: 409}


def identities_routes(database: Database, settings: Settings) -> APIRouter:
    """Everything under /api/v1 for whoever has the token; what changes something under /console, too, for the page."""
    whole = APIRouter()

    @whole.get(
        "/api/v1/identities",
        dependencies=[Depends(admin)],
        summary="Every gateway's newest certificate, the tokens that wait, and who was not believed",
    )
    def identities() -> dict[str, Any]:
        with database.begin() as session:
            told = identity_state.state(session, revocation.terms(settings), datetime.now(UTC))
        fields: dict[str, Any] = msgspec.to_builtins(told)
        refused = {one.reason: one.times for one in told.refusals}
        return {"identities": fields.pop("certificates"), "refused": refused} | fields

    for prefix in ("/api/v1", "/console"):
        whole.include_router(_changes(database, settings, prefix))
    return whole


def _changes(database: Database, settings: Settings, prefix: str) -> APIRouter:
    console = prefix == "/console"

    def by_the_page(request: Request) -> None:
        if console:
            sent_by_the_console(request, "the same call under /api/v1")

    guards = [Depends(admin), Depends(by_the_page)]
    router = APIRouter(prefix=prefix, dependencies=guards, include_in_schema=not console)

    @router.post("/gateways/{name}/enrol-token", status_code=201, summary="A one-time token: {valid_s}")
    def enrol_token(name: str, response: Response, valid_s: Seconds = 3600) -> dict[str, Any]:
        now = datetime.now(UTC)
        try:
            ca = authority(settings)
            with database.begin() as session:
                token = enrolment.make_token(session, name, timedelta(seconds=valid_s), now)
                _audit(session, "enrol-token", name, now)
        except BadIdentity as why:
            raise refusal(why) from why
        until = now + timedelta(seconds=valid_s)
        file = TokenFile(token=token, authority=ca.pem.decode()).text(
            f"for gateway {name}, once, until {until:%Y-%m-%dT%H:%MZ}"
        )
        response.headers["Cache-Control"] = "no-store"
        return {"gateway": name, "token_file": file, "expires_ms": int(until.timestamp() * 1000)}

    @router.post("/enrol-tokens/{digest}/withdraw", summary="A token that waits opens nothing from now on")
    def withdraw(digest: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        try:
            with database.begin() as session:
                name = enrolment.withdraw(session, digest, now)
                _audit(session, "withdraw-token", name, now)
        except BadIdentity as why:
            raise refusal(why, WITHDRAWAL_STATUS) from why
        return {"gateway": name}

    @router.post(
        "/gateways/{name}/revoke",
        summary="Take every certificate of a gateway back, and end its sessions",
    )
    def revoke(name: str, because: str = "") -> dict[str, Any]:
        now = datetime.now(UTC)
        try:
            ca = authority(settings)
            with database.begin() as session:
                count = enrolment.revoke(session, name, because, now)
                _audit(session, "revoke", name, now)
        except BadIdentity as why:
            raise refusal(why) from why
        try:
            told = revocation.enforce(settings, database, ca, name)
        except MillwrightError as error:
            fact = f"{name} is revoked here, but the broker does not know: {error}"
            raise HTTPException(502, {"error": fact, "remedy": f"millwright server revoke {name}"}) from error
        return {"gateway": name, "certificates": count, "broker": told}

    return router


def _audit(session: Session, what: str, gateway: str, now: datetime) -> None:
    session.add(AuditRow(time_ms=int(now.timestamp() * 1000), who="admin", what=what, detail={"gateway": gateway}))
