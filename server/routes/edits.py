"""Reports are changed clause by clause, and proposed wordings answered: the same calls for the API and for the console."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Request
from sqlalchemy.orm import Session

from protocol.errors import Reason, Refused
from server import edits
from server.catalogues import Catalogues
from server.config import Settings
from server.database import Database, ReportRow
from server.routes.access import admin, sent_by_the_console
from server.routes.api import Limit, Number, asked, missing, now_ms, small_body

_OUTSIDE_QUOTES = re.compile(r": (?![^“”]*”)")
"""A value that a refusal quotes may hold a colon."""
REMEDY = "see /docs for what this call takes"
Status = Literal["open", "accepted", "rejected", ""]
CONFLICTS = (Reason.NOT_ELIGIBLE, Reason.CONFLICTING_DUPLICATE)


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a proposed wording becomes part of the catalogue."""

    accept: bool
    author: edits.Author = ""
    despite_doubts: bool = False


def edit_routes(database: Database, settings: Settings) -> APIRouter:
    """Under /api/v1 for whoever has the token, under /console for the page."""
    whole = APIRouter()
    for prefix in ("/api/v1", "/console"):
        whole.include_router(_routes(database, settings, prefix))
    return whole


def _routes(database: Database, settings: Settings, prefix: str) -> APIRouter:
    console = prefix == "/console"
    router = APIRouter(prefix=prefix, dependencies=[Depends(admin)], include_in_schema=not console)
    known = Catalogues(settings.artifact_folder)

    def by_the_page(request: Request) -> None:
        if console:
            sent_by_the_console(request, "the same call under /api/v1")

    @router.get("/reports/{number}/wordings", summary="A report's clauses, what stands and what else may be said")
    def alternatives(number: Number) -> dict[str, Any]:
        with _refusals(), database.begin() as session:
            return edits.describe(session, known, _report(session, number))

    @router.post(
        "/reports/{number}/edits",
        status_code=201,
        dependencies=[Depends(by_the_page)],
        summary="Leave a report as you want it: {language, clauses: [{clause, wording} | {clause, text}], author}",
    )
    async def save(number: Number, request: Request) -> dict[str, Any]:
        given = asked(await small_body(request), edits.Given, REMEDY)
        with _refusals(), database.begin() as session:
            edit, proposed = edits.save(session, known, _report(session, number), given, now_ms())
            told = [{"id": w.id, "clause": w.clause, "text": w.text, "doubts": w.doubts} for w in proposed]
            return {"edit": edit.id, "proposed": told}

    @router.get(
        "/wordings", summary="Wordings that people proposed, newest first; status: open, accepted, rejected or ''"
    )
    def proposals(status: Status = "open", limit: Limit = 100) -> list[dict[str, Any]]:
        with _refusals(), database.begin() as session:
            return edits.proposals(session, known, status, limit)

    @router.post(
        "/wordings/{number}/answer",
        dependencies=[Depends(by_the_page)],
        summary="Accept or reject a wording: {accept, author, despite_doubts}",
    )
    async def answer(number: Number, request: Request) -> dict[str, Any]:
        given = asked(await small_body(request), Answer, REMEDY)
        with _refusals(), database.begin() as session:
            row = edits.answer(
                session, number, settings.artifact_folder, given.accept, given.author, given.despite_doubts, now_ms()
            )
            return {"id": row.id, "status": row.status}

    @router.get("/catalogues/{document}", summary="A catalogue of clauses with the wordings that were accepted")
    def catalogue(document: str) -> dict[str, Any]:
        with _refusals(), database.begin() as session:
            told: dict[str, Any] = msgspec.to_builtins(edits.catalogue(session, document))
            return told

    return router


def _report(session: Session, number: int) -> ReportRow:
    row = session.get(ReportRow, number)
    if row is None:
        raise missing("report", number)
    return row


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Refused as why:
        status = 404 if why.reason is Reason.UNKNOWN_TARGET else 409 if why.reason in CONFLICTS else 422
        *facts, remedy = _OUTSIDE_QUOTES.split(why.detail)
        raise HTTPException(status, {"error": ": ".join(facts) or remedy, "remedy": remedy}) from why
