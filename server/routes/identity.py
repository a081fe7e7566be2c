"""Enrolment and renewal, open to whoever has a token or a certificate. What admins do about them is in `identities`.

Whoever is not believed is counted with the reason, and may try again only so often: that bounds what strangers can make the
database do. A token cannot be guessed anyway."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from protocol.enrolment import ENROL, MOST_BODY_BYTES, RENEW, Enrolment, Renewal
from protocol.errors import BadIdentity, BadSettings, Reason
from protocol.unreadable import UNREADABLE
from server import enrolment, revocation
from server.config import Settings
from server.database import Database
from server.identity import CA, Issued
from server.routes.api import small_body
from server.signing import ROOT_FILE

REFUSALS_AT_ONCE, SECONDS_A_REFUSAL = 10, 6.0
MOST_CALLERS = 10_000
STATUS = {
    Reason.TOKEN_UNKNOWN: 403,
    Reason.TOKEN_USED: 403,
    Reason.TOKEN_EXPIRED: 403,
    Reason.REVOKED: 403,
    Reason.EXPIRED: 403,
    Reason.UNSIGNED: 403,
    Reason.BAD_CERTIFICATE: 403,
    Reason.NOT_DUE: 409,
    Reason.UNKNOWN_GATEWAY: 404,
    Reason.TOO_LARGE: 413,
    Reason.TOO_OFTEN: 429,
}
T = TypeVar("T")
Answer = Callable[[Session, CA, datetime], tuple[Issued, str]]


class Patience:
    """How many refusals a caller may still have: a bucket of ten that gains one every six seconds."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()
        self.turned_away = 0

    def left(self, caller: str) -> bool:
        """Whether to listen to a caller at all."""
        with self._lock:
            if self._now(caller) >= 1:
                return True
            self.turned_away += 1
            return False

    def refused(self, caller: str) -> int:
        """Takes one; answers how many were turned away since the last time that somebody asked here."""
        with self._lock:
            self._buckets[caller] = (self._now(caller) - 1, self._monotonic_s())
            self._buckets.move_to_end(caller)
            if len(self._buckets) > MOST_CALLERS:
                self._buckets.popitem(last=False)
            turned_away, self.turned_away = self.turned_away, 0
            return turned_away

    def _now(self, caller: str) -> float:
        had, when_s = self._buckets.get(caller, (float(REFUSALS_AT_ONCE), 0.0))
        return min(REFUSALS_AT_ONCE, had + (self._monotonic_s() - when_s) / SECONDS_A_REFUSAL)


async def whole_body(request: Request) -> bytes:
    """The request's body, if it is not too large."""
    return await small_body(request, MOST_BODY_BYTES)


Body = Annotated[bytes, Depends(whole_body)]


def identity_routes(database: Database, settings: Settings) -> APIRouter:
    """The routes; the authority is read when somebody asks for a certificate."""
    router = APIRouter()
    patience = Patience()

    def grant(request: Request, answer: Answer) -> Response:
        caller = request.client.host if request.client is not None else ""
        now = datetime.now(UTC)
        try:
            if not patience.left(caller):
                raise BadIdentity(Reason.TOO_OFTEN, "too many refusals; try again in a few seconds")
            ca = authority(settings)
            with database.begin() as session:
                issued, token = answer(session, ca, now)
        except BadIdentity as why:
            if why.reason is not Reason.TOO_OFTEN:
                _count(database, why, patience.refused(caller), now)
            raise refusal(why) from why
        told = msgspec.json.encode(enrolment.granted(ca, issued, token, now, _root(settings)))
        return Response(told, media_type="application/json", headers={"Cache-Control": "no-store"})

    @router.post(ENROL, summary="A gateway's first certificate, for a one-time token: {token, request}")
    def enrol(request: Request, body: Body) -> Response:
        def answer(session: Session, ca: CA, now: datetime) -> tuple[Issued, str]:
            asked = _asked(body, Enrolment)
            return enrolment.enrol(session, ca, asked.token, asked.request, now)

        return grant(request, answer)

    @router.post(RENEW, summary="A gateway's next certificate: {certificate, request, signature}")
    def renew(request: Request, body: Body) -> Response:
        def answer(session: Session, ca: CA, now: datetime) -> tuple[Issued, str]:
            asked = _asked(body, Renewal)
            return enrolment.renew(session, ca, asked.certificate, asked.request, asked.signature, now)

        return grant(request, answer)

    return router


def authority(settings: Settings) -> CA:
    """The authority as it lies in its folder. Raises 503 where there is none."""
    try:
        return CA.load(settings.authority_folder, revocation.terms(settings))
    except BadSettings as error:
        raise HTTPException(503, {"error": str(error), "remedy": "millwright server ca init"}) from error


def refusal(why: BadIdentity, statuses: Mapping[Reason, int] = STATUS) -> HTTPException:
    """The same as an answer."""
    headers = {"Retry-After": str(round(SECONDS_A_REFUSAL))} if why.reason is Reason.TOO_OFTEN else None
    body = {"error": why.detail, "reason": str(why.reason), "remedy": "docs/identity.md says how gateways are enrolled"}
    return HTTPException(statuses.get(why.reason, 422), body, headers)


def _asked(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise BadIdentity(Reason.MALFORMED_JSON, f"not what this call takes: {error}") from error


def _count(database: Database, why: BadIdentity, turned_away: int, now: datetime) -> None:
    if why.reason is Reason.NOT_DUE:
        return
    with database.begin() as session:
        enrolment.count_refusal(session, why, now)
        if turned_away:
            often = BadIdentity(Reason.TOO_OFTEN, "turned away without a look")
            enrolment.count_refusal(session, often, now, turned_away)


def _root(settings: Settings) -> str:
    """Whose signatures on models count; a gateway that is enrolled needs no second file."""
    path = settings.key_folder / ROOT_FILE
    return path.read_text(encoding="utf-8") if path.is_file() else ""
