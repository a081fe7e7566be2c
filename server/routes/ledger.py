"""The delivery ledger, /api/v1/ledger: what arrived from every gateway, to the message, under the server's signature."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import Response

from protocol.errors import BadSettings
from server import ledger
from server.config import Settings
from server.database import Database
from server.routes.access import admin
from server.routes.api import missing, now_ms
from server.seal import Seal


def ledger_routes(database: Database, settings: Settings) -> APIRouter:
    """The ledger for admins; the key that its signature is checked with for everybody."""
    router = APIRouter(prefix="/api/v1")

    @router.get("/ledger", dependencies=[Depends(admin)], summary="What arrived from every gateway, signed")
    def all_gateways() -> Response:
        return _told(None)

    @router.get("/ledger/{gateway}", dependencies=[Depends(admin)], summary="What arrived from one gateway, signed")
    def one_gateway(gateway: str) -> Response:
        return _told(gateway)

    @router.get("/seal.pub", summary="The public key (PEM) of what the server signs; not that of models")
    def public_key() -> Response:
        return Response(_seal().public_pem, media_type="application/x-pem-file")

    def _told(gateway: str | None) -> Response:
        with database.begin() as session:
            told = ledger.state(session, now_ms(), gateway)
        if gateway is not None and not told.gateways:
            raise missing("gateway", gateway)
        return Response(msgspec.json.encode(ledger.signed(_seal(), told)), media_type="application/json")

    def _seal() -> Seal:
        try:
            return Seal.of(settings.key_folder)
        except BadSettings as error:
            raise HTTPException(503, {"error": str(error), "remedy": "mend the folder of keys"}) from error

    return router
