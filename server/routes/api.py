"""The admin API, /api/v1. Lists are newest first, bounded by `limit`, paged by `before` (an id)."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import FileResponse, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from protocol.bundles import Passport
from protocol.card import Card, card, markdown
from protocol.card_words import Language
from protocol.errors import Refused
from protocol.feedback import Feedback, Verdict
from protocol.plans import WorkPlan
from protocol.purchases import PurchaseProposal
from protocol.reading.notes import Note
from protocol.reports import RemainingLife
from protocol.schedules import Schedule
from protocol.twin import Role
from protocol.unreadable import UNREADABLE
from server import feedback as answers
from server import notes, rollouts
from server.config import Settings
from server.database import (
    AuditRow,
    Database,
    EventRow,
    FeedbackRow,
    ForecastRow,
    Gateway,
    Job,
    LedgerRow,
    Model,
    QuarantineRow,
    RecommendationRow,
    ReplyRow,
    ReportRow,
    Rollout,
    SignalBlockRow,
    StatementRow,
    Table,
    WorkOrderRow,
)
from server.enrolment import refusals
from server.routes.access import admin, gateway_or_admin

Number = Annotated[int, Path(ge=1, lt=2**63)]
T = TypeVar("T")
JOB_KINDS = ("forecast", "recommend", "life", "notes", "write")
Limit = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[int | None, Query(ge=1, lt=2**63)]
LISTS: dict[str, type[Table]] = {
    "events": EventRow,
    "reports": ReportRow,
    "recommendations": RecommendationRow,
    "forecasts": ForecastRow,
    "work-orders": WorkOrderRow,
    "feedback": FeedbackRow,
    "replies": ReplyRow,
    "models": Model,
    "jobs": Job,
    "rollouts": Rollout,
    "quarantine": QuarantineRow,
    "audit": AuditRow,
}


def now_ms() -> int:
    """Wall time."""
    return time.time_ns() // 1_000_000


def missing(what: str, name: object) -> HTTPException:
    """404 with the fact and the remedy."""
    return HTTPException(404, {"error": f"no {what} {name!r}", "remedy": f"GET /api/v1/{what}s lists what there is"})


def plain(row: Table) -> dict[str, Any]:
    """A row as JSON; bytes as text."""
    values = {c.name: getattr(row, c.name) for c in row.__table__.columns}
    return {k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in values.items()}


def card_of(database: Database, number: int, language: Language) -> Card:
    """The card of a model in the registry; 404 if there is none."""
    with database.begin() as session:
        row = session.get(Model, number)
        if row is None:
            raise missing("model", number)
        return card(msgspec.convert(row.passport, Passport), row.digest, language)


def api_routes(database: Database, settings: Settings) -> APIRouter:
    """Everything under /api/v1 but bundles and health needs the admin token."""
    router = APIRouter(prefix="/api/v1")
    guarded = APIRouter(dependencies=[Depends(admin)])

    @router.get("/health", summary="Whether the server and its database answer")
    def health(request: Request) -> dict[str, Any]:
        with database.begin() as session:
            session.execute(select(1))
        intake = getattr(request.app.state, "intake", None)
        return {"status": "ok", "broker_connected": bool(intake is not None and intake.connected)}

    @router.get(
        "/bundles/{digest}", dependencies=[Depends(gateway_or_admin)], summary="A model's bytes; Range is honoured"
    )
    def bundle(digest: str) -> FileResponse:
        with database.begin() as session:
            model = session.scalar(select(Model).where(Model.digest == digest).limit(1))
        if model is None:
            raise missing("model", digest)
        return FileResponse(settings.artifact_folder / model.path, media_type="application/octet-stream")

    @guarded.get("/gateways", summary="Every gateway, with its twin and latest heartbeat")
    def gateways() -> list[dict[str, Any]]:
        with database.begin() as session:
            return [plain(g) for g in session.scalars(select(Gateway).order_by(Gateway.id))]

    @guarded.get("/gateways/{name}", summary="One gateway")
    def gateway(name: str) -> dict[str, Any]:
        with database.begin() as session:
            row = session.get(Gateway, name)
            if row is None:
                raise missing("gateway", name)
            return plain(row)

    @guarded.get("/counters", summary="The loop's counters")
    def counters() -> dict[str, Any]:
        with database.begin() as session:
            return count_everything(session)

    @guarded.get("/signals", summary="Signals the gateways share")
    def signals() -> list[dict[str, Any]]:
        b = SignalBlockRow
        query = select(b.gateway, b.machine, b.signal, func.max(b.unit), func.max(b.start_ms), func.count())
        with database.begin() as session:
            rows = session.execute(query.group_by(b.gateway, b.machine, b.signal))
            names = ("gateway", "machine", "signal", "unit", "newest_block_ms", "blocks")
            return [dict(zip(names, row, strict=True)) for row in rows]

    @guarded.get("/machines/remaining-life", summary="The latest remaining life of every machine")
    def lives() -> list[dict[str, Any]]:
        with database.begin() as session:
            return [row.body | {"gateway": row.gateway} for row in latest_lives(session)]

    @guarded.get("/purchases", summary="The latest proposal for every part")
    def purchases() -> list[dict[str, Any]]:
        with database.begin() as session:
            return [row.body | {"gateway": row.gateway} for row in latest_purchases(session)]

    @guarded.get("/schedules", summary="The latest production schedule of every gateway")
    def schedules() -> list[dict[str, Any]]:
        with database.begin() as session:
            return [row.body | {"gateway": row.gateway} for row in latest_schedules(session)]

    @guarded.get("/plans", summary="The newest maintenance and process plans, each set of alternatives in its order")
    def plans() -> list[list[dict[str, Any]]]:
        with database.begin() as session:
            return [[row.body | {"gateway": row.gateway} for row in one] for one in newest_plans(session, 50)]

    @guarded.get("/notes", summary="The newest notes, each with what was read in it and what people said of that")
    def newest_notes(limit: Limit = 50) -> list[dict[str, Any]]:
        with database.begin() as session:
            return notes.newest(session, limit)

    @guarded.post("/notes", status_code=201, summary="Write a note on a machine: {gateway, machine, text}")
    async def write_note(request: Request) -> dict[str, Any]:
        return write_down(database, await small_body(request))

    @guarded.get("/models/{number}/passport", summary="A model's passport")
    def passport(number: Number) -> dict[str, Any]:
        with database.begin() as session:
            row = session.get(Model, number)
            if row is None:
                raise missing("model", number)
            return row.passport

    @guarded.get("/models/{number}/card", summary="A model's card for people, in one language, from its passport")
    def model_card(number: Number, lang: Language = "en") -> Response:
        return Response(msgspec.json.encode(card_of(database, number, lang)), media_type="application/json")

    @guarded.get("/models/{number}/card.md", summary="The same card as Markdown")
    def model_card_markdown(number: Number, lang: Language = "en") -> Response:
        return Response(markdown(card_of(database, number, lang)), media_type="text/markdown; charset=utf-8")

    for name, table in LISTS.items():
        guarded.add_api_route(f"/{name}", _lister(database, table), methods=["GET"], summary=f"Newest {name} first")
        guarded.add_api_route(
            f"/{name}/{{number}}", _getter(database, table, name), methods=["GET"], summary=f"One of the {name}"
        )

    @guarded.post("/feedback", status_code=201, summary="Answer a report, a recommendation, a purchase or a schedule")
    async def give_feedback(request: Request) -> dict[str, Any]:
        body = await small_body(request)
        try:
            given = msgspec.json.decode(body, type=dict[str, Any])
            feedback = msgspec.convert(
                {"id": f"fb-{uuid.uuid4().hex}", "time_ms": now_ms(), "via": "console"} | given, Feedback
            )
        except UNREADABLE as error:
            raise HTTPException(
                422, {"error": str(error), "remedy": f"send target and verdict, one of {[v.value for v in Verdict]}"}
            ) from error
        return {"stored": store_answer(database, feedback), "id": feedback.id}

    @guarded.post("/jobs", status_code=201, summary=f"Ask for training now: kind is one of {', '.join(JOB_KINDS)}")
    async def make_job(request: Request) -> dict[str, Any]:
        kind = asked(await small_body(request), JobAsked, f"kind is one of {', '.join(JOB_KINDS)}").kind
        if kind not in JOB_KINDS:
            raise HTTPException(
                422, {"error": f"no kind of job {kind!r}", "remedy": f"kind is one of {', '.join(JOB_KINDS)}"}
            )
        with database.begin() as session:
            job = Job(
                kind=kind, because="asked for through the API", created_ms=now_ms(), started_ms=None, finished_ms=None
            )
            session.add(job)
            session.add(AuditRow(time_ms=now_ms(), who="admin", what="job asked for", detail={"kind": kind}))
            session.flush()
            return plain(job)

    @guarded.post("/jobs/{number}/cancel", summary="Stop a job that waits or runs")
    def cancel_job(number: Number) -> dict[str, Any]:
        with database.begin() as session:
            job = session.get(Job, number)
            if job is None:
                raise missing("job", number)
            if job.status not in ("waiting", "running"):
                raise HTTPException(
                    409,
                    {
                        "error": f"job {number} is {job.status}",
                        "remedy": "only waiting or running jobs can be cancelled",
                    },
                )
            job.status = "cancelled"
            session.add(AuditRow(time_ms=now_ms(), who="admin", what="job cancelled", detail={"job": number}))
            return plain(job)

    @guarded.post("/rollouts", status_code=201, summary="Roll a model out, or back: {model, role, gateways}")
    async def make_rollout(request: Request) -> dict[str, Any]:
        given = asked(await small_body(request), RolloutAsked, "send model, role (serving or shadow) and gateways")
        with database.begin() as session:
            model = session.get(Model, given.model)
            if model is None:
                raise missing("model", given.model)
            if given.role is Role.SERVING and not msgspec.convert(model.passport, Passport).eligible:
                raise HTTPException(
                    409, {"error": f"the gate refused this model: {model.verdict}", "remedy": "roll it out as a shadow"}
                )
            rollout = rollouts.start(session, model, given.role, given.gateways, "asked for through the API", now_ms())
            session.add(AuditRow(time_ms=now_ms(), who="admin", what="rollout", detail=msgspec.to_builtins(given)))
            return plain(rollout)

    @guarded.post("/rollouts/{number}/stop", summary="Stop a running rollout")
    def stop_rollout(number: Number) -> dict[str, Any]:
        with database.begin() as session:
            rollout = session.get(Rollout, number)
            if rollout is None:
                raise missing("rollout", number)
            rollout.status, rollout.finished_ms = "stopped", now_ms()
            session.add(AuditRow(time_ms=now_ms(), who="admin", what="rollout stopped", detail={"rollout": number}))
            return plain(rollout)

    router.include_router(guarded)
    return router


class JobAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /jobs`."""

    kind: str


class RolloutAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /rollouts`. gateways: null for all."""

    model: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    role: Role = Role.SERVING
    gateways: list[str] | None = None


def asked(body: bytes, into: type[T], remedy: str) -> T:
    """A request's body; 422 with the remedy for what it is not."""
    try:
        return msgspec.json.decode(body, type=into)
    except UNREADABLE as error:
        raise HTTPException(422, {"error": str(error), "remedy": remedy}) from error


async def small_body(request: Request, limit: int = 64_000) -> bytes:
    """The body, or 413 before it is read whole."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(413, {"error": f"body over {limit} bytes", "remedy": "send less"})
    return body


def store_answer(database: Database, feedback: Feedback) -> bool:
    """An answer from the console or the API, stored with what it judges; 404 if there is no such thing."""
    with database.begin() as session:
        found = answers.judged(session, feedback.target)
        if found is None:
            raise HTTPException(
                404,
                {
                    "error": f"no report, recommendation, purchase, schedule or reading {feedback.target!r}",
                    "remedy": "GET /api/v1/reports, …/recommendations, …/purchases, …/schedules or …/notes lists them",
                },
            )
        _, gateway = found
        try:
            return answers.store(session, feedback, gateway, None, now_ms())
        except Refused as why:
            raise HTTPException(422, {"error": why.detail, "remedy": "send it again, corrected"}) from why


def write_down(database: Database, body: bytes) -> dict[str, Any]:
    """A note from the console or the API, kept for its gateway, which reads it; 422 with the remedy, 404 if there is no such
    gateway."""
    try:
        told = msgspec.json.decode(body, type=dict[str, str])
        note = msgspec.convert(
            {
                "id": f"note-{uuid.uuid4().hex}",
                "machine": told["machine"],
                "time_ms": int(told.get("time_ms") or now_ms()),
                "text": told["text"].strip(),
                "about": told.get("about", ""),
                "via": "console",
            },
            Note,
        )
        gateway = told["gateway"]
    except (*UNREADABLE, KeyError, ValueError) as error:
        raise HTTPException(
            422, {"error": f"not a note: {error}", "remedy": "send gateway, machine and a text of 1 to 4000 characters"}
        ) from error
    with database.begin() as session:
        if session.get(Gateway, gateway) is None:
            raise missing("gateway", gateway)
        notes.keep(session, note, gateway, now_ms())
    return {"stored": True, "id": note.id}


def count_everything(session: Session) -> dict[str, Any]:
    """One JSON of how far the loop has come."""
    tables = (
        SignalBlockRow,
        WorkOrderRow,
        EventRow,
        ForecastRow,
        RecommendationRow,
        ReportRow,
        FeedbackRow,
        QuarantineRow,
    )
    made: dict[str, Any] = {t.__tablename__: session.scalar(select(func.count()).select_from(t)) for t in tables}
    sums = select(
        func.sum(LedgerRow.stored),
        func.sum(LedgerRow.duplicates),
        func.sum(LedgerRow.quarantined),
        func.sum(LedgerRow.bytes),
    )
    names = ("messages_stored", "messages_duplicate", "messages_quarantined", "bytes_up")
    made |= {n: int(v or 0) for n, v in zip(names, session.execute(sums).one(), strict=True)}
    statuses = session.execute(select(Model.status, func.count()).group_by(Model.status))
    unread = func.coalesce(ReportRow.body["frames"].as_string(), "") == ""
    made["reports_not_read_back"] = session.scalar(select(func.count()).select_from(ReportRow).where(unread))
    made["identity_refused"] = refusals(session)
    made["models"] = {str(row[0]): int(row[1]) for row in statuses}
    kinds = session.execute(select(StatementRow.type, func.count()).group_by(StatementRow.type))
    made["statements"] = {str(row[0]): int(row[1]) for row in kinds}
    made["rollouts_done"] = session.scalar(select(func.count()).where(Rollout.status == "done"))
    verdicts = session.execute(select(FeedbackRow.verdict, func.count()).group_by(FeedbackRow.verdict))
    made["verdicts"] = {str(row[0]): int(row[1]) for row in verdicts}
    return made


def latest_lives(session: Session) -> list[StatementRow]:
    """The newest remaining life of each machine, by gateway and machine."""
    found = _latest(session, RemainingLife.type_name, StatementRow.gateway, StatementRow.machine)
    return sorted(found, key=lambda row: (row.gateway, row.machine))


def latest_purchases(session: Session) -> list[StatementRow]:
    """The newest proposal for each part of each gateway, newest first."""
    return _latest(session, PurchaseProposal.type_name, StatementRow.gateway, StatementRow.subject)


def newest_orders(session: Session, most: int) -> list[StatementRow]:
    """The newest proposals that ask for something, answered or not, newest first."""
    r = StatementRow
    wanted = (r.type == PurchaseProposal.type_name, r.body["quantity"].as_integer() > 0)
    return list(session.scalars(select(r).where(*wanted).order_by(r.id.desc()).limit(most)))


def latest_schedules(session: Session) -> list[StatementRow]:
    """The newest schedule of each gateway."""
    return _latest(session, Schedule.type_name, StatementRow.gateway)


def newest_plans(session: Session, most: int) -> list[list[StatementRow]]:
    """The newest sets of alternatives, newest first, each in its order: what one question was answered with."""
    r = StatementRow
    rows = session.scalars(select(r).where(r.type == WorkPlan.type_name).order_by(r.id.desc()).limit(20 * most))
    sets: dict[tuple[str, str, str], dict[str, StatementRow]] = {}
    for row in rows:
        key = (row.gateway, row.machine, str(row.body["ranking"] or row.body["asked_by"] or row.statement_id))
        sets.setdefault(key, {}).setdefault(str(row.body["item"]), row)
    return [sorted(one.values(), key=lambda row: int(row.body["candidate"])) for one in list(sets.values())[:most]]


def _latest(session: Session, kind: str, *per: Any) -> list[StatementRow]:
    r = StatementRow
    newest = select(func.max(r.id)).where(r.type == kind).group_by(*per)
    return list(session.scalars(select(r).where(r.id.in_(newest)).order_by(r.id.desc()).limit(500)))


def _lister(database: Database, table: type[Table]) -> Any:
    def newest(limit: Limit = 100, before: Before = None) -> list[dict[str, Any]]:
        key = table.__table__.c.id
        query = select(table).order_by(key.desc()).limit(limit)
        if before is not None:
            query = query.where(key < before)
        with database.begin() as session:
            return [plain(row) for row in session.scalars(query)]

    return newest


def _getter(database: Database, table: type[Table], name: str) -> Any:
    def one(number: Number) -> dict[str, Any]:
        with database.begin() as session:
            row = session.get(table, number)
            if row is None:
                raise missing(name.rstrip("s"), number)
            return plain(row)

    return one
