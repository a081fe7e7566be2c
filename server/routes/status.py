"""How the server is: /api/v1/status for people and programs, /metrics for Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from protocol.exposition import CONTENT_TYPE, exposition
from server.database import Database
from server.routes.access import admin, watcher_or_admin
from server.routes.api import now_ms
from server.status import families, status


def status_routes(database: Database) -> APIRouter:
    """Both are one reading of the database and of this process's counts."""
    router = APIRouter()

    @router.get(
        "/api/v1/status", dependencies=[Depends(admin)], summary="What comes in, what was refused, what is owed"
    )
    def how_it_is(request: Request) -> dict[str, Any]:
        return _read(request)

    @router.get("/metrics", dependencies=[Depends(watcher_or_admin)], summary="The same for Prometheus")
    def metrics(request: Request) -> Response:
        return Response(exposition(families(_read(request))), media_type=CONTENT_TYPE)

    def _read(request: Request) -> dict[str, Any]:
        state = request.app.state
        with database.begin() as session:
            return status(session, state.refusals, state.intake, now_ms())

    return router
