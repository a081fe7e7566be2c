"""The signed list of models that may run, /api/v1/trust, as a TUF client asks for it."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import Response

from protocol.errors import BadSettings
from server import signing
from server.config import Settings
from server.database import Database
from server.routes.access import gateway_or_admin

STAMP = "timestamp.json"


def trust_routes(database: Database, settings: Settings) -> APIRouter:
    """Its files; the list is brought up to date when somebody asks which one is the newest."""
    router = APIRouter(prefix="/api/v1/trust", dependencies=[Depends(gateway_or_admin)])

    @router.get("/{name}", summary="A file of the signed list of models (TUF metadata)")
    def document(name: str) -> Response:
        try:
            signed = signing.SignedList(settings.key_folder, settings.artifact_folder / "trust")
        except BadSettings as error:
            raise HTTPException(503, {"error": str(error), "remedy": "millwright server keys"}) from error
        if name == STAMP:
            with database.begin() as session:
                models = signing.trusted(session)
            signed.bring_up_to_date(models)
        body = signed.document(name)
        if body is None:
            raise HTTPException(404, {"error": f"no file {name!r}", "remedy": f"begin with root.json or {STAMP}"})
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-cache"})

    return router
