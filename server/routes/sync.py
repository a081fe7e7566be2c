"""The wire over HTTPS, for gateways that reach no broker: batches up, acknowledged after the commit; what waits for a gateway
down. Who calls is known by the token that was given with his certificate, never by what he sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import Response
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from protocol.errors import Reason, Refused
from protocol.names import MessageClass, strict_name
from protocol.sync import MAX_BATCH_BYTES, Ack, encode
from protocol.topics import Channel
from server import intake
from server.catalogues import Catalogues
from server.config import Settings
from server.database import Database
from server.handed_down import handed_down
from server.routes.access import Denied, gateway_named
from server.routes.api import now_ms, small_body

WHERE = "https"
T = TypeVar("T")
Site = Annotated[str, Query(min_length=1, max_length=64)]
Row = Annotated[int, Query(ge=0, lt=2**62)]


async def _bounded(request: Request) -> bytes:
    try:
        return await small_body(request, MAX_BATCH_BYTES)
    except HTTPException:
        request.app.state.refusals.note(WHERE, Reason.TOO_LARGE)
        raise


def _caller(request: Request) -> str:
    gateway = gateway_named(request)
    if gateway is None:
        request.app.state.refusals.note(WHERE, Reason.UNKNOWN_GATEWAY)
        raise Denied
    return gateway


Caller = Annotated[str, Depends(_caller)]
Body = Annotated[bytes, Depends(_bounded)]


def sync_routes(database: Database, settings: Settings) -> APIRouter:
    """Six calls; the same bytes as on the topics of the same name."""
    router = APIRouter(prefix="/api/v1/sync")
    catalogues = Catalogues(settings.artifact_folder)

    @router.get("/down", summary="What waits for the gateway that asks: its desired twin, answers and notes")
    def down(gateway: Caller, answers: Row = 0, notes: Row = 0) -> Response:
        with database.begin() as session:
            told = handed_down(session, gateway, now_ms(), answers, notes)
        return Response(encode(told), media_type="application/json")

    @router.put("/state", summary="A gateway's state, as on its topic", status_code=204)
    def state(request: Request, gateway: Caller, site: Site, body: Body) -> Response:
        _take(request, gateway, Channel.STATE, body, lambda s: intake.take_state(s, _site(site), gateway, body))
        return Response(status_code=204)

    @router.put("/reported", summary="A gateway's reported twin, as on its topic", status_code=204)
    def reported(request: Request, gateway: Caller, site: Site, body: Body) -> Response:
        _take(
            request, gateway, Channel.TWIN_REPORTED, body, lambda s: intake.take_reported(s, _site(site), gateway, body)
        )
        return Response(status_code=204)

    @router.put("/reply", summary="What became of a command, as on its topic", status_code=204)
    def reply(request: Request, gateway: Caller, site: Site, body: Body) -> Response:
        def store(session: Session) -> None:
            intake.take_reply(session, _site(site), gateway, body, now_ms())

        _take(request, gateway, Channel.UP_REPLY, body, store)
        return Response(status_code=204)

    @router.post("/{message_class}", summary="A batch of one class; answered with its acknowledgement")
    def batch(request: Request, message_class: MessageClass, gateway: Caller, site: Site, body: Body) -> Response:
        def store(session: Session) -> Ack:
            told = intake.store_batch(session, _site(site), gateway, message_class, body, now_ms(), catalogues)
            return Ack(classes={message_class: told}, time=now_ms())

        ack = _take(request, gateway, Channel.up(message_class), body, store)
        told = ack.classes[message_class]
        for reason in [*(refusal.reason for refusal in told.nack), *([Reason.OTHER_NUMBERING] if told.foreign else [])]:
            request.app.state.refusals.note(WHERE, reason)
        return Response(encode(ack), media_type="application/json")

    def _site(site: str) -> str:
        return strict_name(site, "site")

    def _take(request: Request, gateway: str, channel: Channel, body: bytes, store: Callable[[Session], T]) -> T:
        """`store` in one transaction; what cannot be read goes to quarantine, with its reason, and is a 422."""
        try:
            with database.begin() as session:
                return store(session)
        except Refused as why:
            request.app.state.refusals.note(WHERE, why.reason)
            with database.begin() as session:
                intake.quarantine(session, gateway, channel.value, None, why, body, now_ms())
            fact = {"error": str(why), "remedy": "it is in quarantine; the gateway's log and the console show it"}
            raise HTTPException(422, fact) from why
        except SQLAlchemyError as error:
            fact = {"error": "the database does not take it now", "remedy": "send it again later"}
            raise HTTPException(503, fact, headers={"Retry-After": "5"}) from error

    return router
