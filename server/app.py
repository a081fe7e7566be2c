"""`create_app(settings)`: the API, its documentation and the console as a value. Nothing happens at import."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from sqlalchemy.exc import DataError

from server.config import Settings
from server.console import console_routes
from server.database import Database
from server.refusals import Refusals
from server.routes.access import Denied
from server.routes.api import api_routes
from server.routes.edits import edit_routes
from server.routes.identities import identities_routes
from server.routes.identity import identity_routes
from server.routes.ledger import ledger_routes
from server.routes.status import status_routes
from server.routes.sync import sync_routes
from server.routes.trust import trust_routes


def create_app(settings: Settings, database: Database, intake: Any = None, refusals: Refusals | None = None) -> FastAPI:
    """The application; `intake` (start, stop, connected) lives as long as the application does. `refusals` counts what this
    process refuses, `intake` included."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        if intake is not None:
            intake.start()
        yield
        if intake is not None:
            intake.stop()

    app = FastAPI(title="Millwright", version="1", docs_url=None, redoc_url=None, lifespan=life)
    app.state.settings = settings
    app.state.database = database
    app.state.intake = intake
    app.state.refusals = refusals or Refusals()
    app.include_router(api_routes(database, settings))
    app.include_router(edit_routes(database, settings))
    app.include_router(ledger_routes(database, settings))
    app.include_router(status_routes(database))
    app.include_router(sync_routes(database, settings))
    app.include_router(trust_routes(database, settings))
    app.include_router(identity_routes(database, settings))
    app.include_router(identities_routes(database, settings))
    app.include_router(console_routes(database, settings))

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(describe(app.openapi()))

    @app.exception_handler(Denied)
    def denied(request: Request, _error: Denied) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(LOGIN, status_code=401)
        body = {"error": "no valid token", "remedy": "send Authorization: Bearer <admin token>"}
        return JSONResponse(body, status_code=401, headers={"WWW-Authenticate": "Bearer"})

    @app.exception_handler(HTTPException)
    def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        body = error.detail if isinstance(error.detail, dict) else {"error": str(error.detail), "remedy": "see /docs"}
        return JSONResponse(body, status_code=error.status_code)

    @app.exception_handler(DataError)
    def never_taken(_request: Request, _error: DataError) -> JSONResponse:
        body = {"error": "the database takes no such value", "remedy": "leave out NUL and numbers of more than 64 bits"}
        return JSONResponse(body, status_code=422)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        fact = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        return JSONResponse({"error": fact, "remedy": "see /docs for what this call takes"}, status_code=422)

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
        return answer

    return app


LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Millwright</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<h1>Millwright</h1><p>Please give the admin token.</p>
<form method="get" action="/"><label>Token <input type="password" name="token" autocomplete="current-password"></label>
<button>Open</button></form></html>"""


def describe(openapi: dict[str, Any]) -> str:
    """The API as one plain page that needs no network."""
    rows = []
    for path, calls in openapi["paths"].items():
        for verb, call in calls.items():
            parameters = ", ".join(p["name"] for p in call.get("parameters", []))
            cells = (verb.upper(), path, call.get("summary", ""), parameters)
            rows.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Millwright API</title>'
        '<link rel="stylesheet" href="/console/assets/console.css"><main class="docs"><h1>Millwright API</h1>'
        "<p>Authorization: Bearer &lt;admin token&gt;. Errors are {error, remedy}. "
        '<a href="/openapi.json">openapi.json</a></p><table><tr><th>verb<th>path<th>what<th>parameters</tr>'
        + "".join(rows)
        + "</table></main></html>"
    )
