"""The console: one page for maintenance engineers and plant IT. Server-rendered shell, own small scripts, no request ever
leaves the host. It reads what is in the database and nothing else; queries are bounded."""

from __future__ import annotations

import hmac
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, select_autoescape
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from protocol.feedback import Feedback
from protocol.reports import ForecastExplanation
from protocol.unreadable import UNREADABLE
from server import edits, identity_state, ledger, notes, revocation
from server.catalogues import Catalogues
from server.config import Settings
from server.database import (
    Database,
    EventRow,
    FeedbackRow,
    ForecastRow,
    Gateway,
    Job,
    Model,
    RecommendationRow,
    ReportRow,
    Rollout,
    SignalBlockRow,
    StatementRow,
)
from server.identity import CA_FILE
from server.routes.access import COOKIE, Denied, admin, sent_by_the_console, session_of
from server.routes.api import (
    count_everything,
    latest_lives,
    latest_purchases,
    latest_schedules,
    newest_orders,
    newest_plans,
    small_body,
    store_answer,
    write_down,
)

HERE = Path(__file__).parent
POINTS = 240
AROUND_MS = 3 * 3_600_000
MOST_QUARANTINED = 500
MOST_IDENTITIES = 200
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def console_routes(database: Database, settings: Settings) -> APIRouter:
    """The page, its data and its assets."""
    router = APIRouter(include_in_schema=False)
    known = Catalogues(settings.artifact_folder)
    templates = Environment(loader=FileSystemLoader(HERE), autoescape=select_autoescape())

    @router.get("/")
    def page(request: Request, token: str = "", lang: str = "") -> Response:
        if token:
            if not hmac.compare_digest(token.encode(), settings.admin_token.encode()):
                raise Denied
            answer = RedirectResponse("/?lang=zh" if lang == "zh" else "/", status_code=303)
            answer.set_cookie(COOKIE, session_of(settings.admin_token), httponly=True, samesite="strict")
            return answer
        admin(request)
        return HTMLResponse(templates.get_template("page.html").render(lang="zh" if lang == "zh" else "en"))

    @router.get("/console/assets/{name}")
    def asset(name: str) -> FileResponse:
        path = HERE / "assets" / Path(name).name
        if path.suffix not in TYPES or not path.is_file():
            raise HTTPException(404, {"error": f"no asset {name!r}", "remedy": "reload the page"})
        return FileResponse(path, media_type=TYPES[path.suffix], headers={"Cache-Control": "no-cache"})

    @router.get("/console/state.json", dependencies=[Depends(admin)])
    def state() -> Response:
        with database.begin() as session:
            body = overview(session, time.time_ns() // 1_000_000, known)
            body["identities"] = _identities(session, settings)
        return Response(msgspec.json.encode(body), media_type="application/json")

    @router.get("/console/machine/{gateway}/{machine}", dependencies=[Depends(admin)])
    def machine(gateway: str, machine: str) -> Response:
        with database.begin() as session:
            body = signals_of(session, gateway, machine)
        return Response(msgspec.json.encode(body), media_type="application/json")

    @router.get("/console/samples/{gateway}/{machine}/{signal}", dependencies=[Depends(admin)])
    def samples(gateway: str, machine: str, signal: str, start_ms: int, end_ms: int) -> Response:
        with database.begin() as session:
            body = shared_samples(session, (gateway, machine, signal), start_ms, end_ms)
        return Response(msgspec.json.encode(body), media_type="application/json")

    @router.post("/console/note", dependencies=[Depends(admin)])
    async def note(request: Request) -> dict[str, Any]:
        sent_by_the_console(request, "POST /api/v1/notes")
        return write_down(database, await small_body(request))

    @router.post("/console/feedback", dependencies=[Depends(admin)])
    async def answer(request: Request) -> dict[str, Any]:
        sent_by_the_console(request, "POST /api/v1/feedback")
        try:
            told = msgspec.json.decode(await small_body(request), type=dict[str, str])
            feedback = msgspec.convert(
                {
                    "id": f"fb-{uuid.uuid4().hex}",
                    "target": told["target"],
                    "verdict": told["verdict"],
                    "item": told.get("item", ""),
                    "correction": told.get("correction", ""),
                    "comment": told.get("comment", ""),
                    "time_ms": int(told.get("time_ms") or time.time_ns() // 1_000_000),
                    "via": "console",
                },
                Feedback,
            )
        except (*UNREADABLE, KeyError, ValueError) as error:
            raise HTTPException(422, {"error": str(error), "remedy": "reload the page and answer again"}) from error
        return {"stored": store_answer(database, feedback)}

    return router


def shared_samples(session: Session, key: tuple[str, str, str], start_ms: int, end_ms: int) -> dict[str, Any]:
    """What a gateway shared of one signal around a span: {unit, step_ms, points [[ms, value]]}, as much again on
    either side, AROUND_MS at least; no points where nothing was shared. Raw observations stay on the gateway."""
    b = SignalBlockRow
    margin = max(end_ms - start_ms, AROUND_MS)
    longest = 10_000
    start_ms, end_ms = max(start_ms, 0) - margin, min(end_ms, start_ms + 366 * 86_400_000) + margin
    mine = (b.gateway == key[0], b.machine == key[1], b.signal == key[2])
    newest = select(b).where(*mine, b.start_ms <= end_ms).order_by(b.start_ms.desc()).limit(200)
    points: list[tuple[int, float]] = []
    unit, step_ms = "", 0
    for block in session.scalars(newest):
        unit, step_ms = block.unit, block.step_ms
        at = ((block.start_ms + i * block.step_ms, v) for i, v in enumerate(block.values) if v is not None)
        points += [(ms, v) for ms, v in at if start_ms <= ms <= end_ms]
        if block.start_ms + longest * block.step_ms < start_ms:
            break
    return {"unit": unit, "step_ms": step_ms, "points": sorted(points)[:2000]}


def overview(session: Session, now_ms: int, known: Catalogues) -> dict[str, Any]:
    """Everything the page shows but the charts. known: the catalogues that reports were written with."""
    gateways = list(session.scalars(select(Gateway).order_by(Gateway.id)))
    reports = list(session.scalars(select(ReportRow).order_by(ReportRow.id.desc()).limit(25)))
    events = {r.event_id for r in reports}
    edited = edits.edited(session, known, reports)
    lists = session.scalars(select(RecommendationRow).where(RecommendationRow.event_id.in_(events)))
    recommendations = {r.event_id: r.body for r in lists}
    asked_for = newest_orders(session, 6)
    shown = {row.id for row in asked_for}
    purchases = [*asked_for, *(row for row in latest_purchases(session)[:60] if row.id not in shown)][:12]
    schedules = latest_schedules(session)[:8]
    targets = {r.report_id for r in reports} | {str(r["id"]) for r in recommendations.values()}
    targets |= {row.statement_id for row in (*purchases, *schedules)}
    answers: dict[str, list[dict[str, str]]] = {}
    for a in session.scalars(select(FeedbackRow).where(FeedbackRow.target.in_(targets)).order_by(FeedbackRow.id)):
        answers.setdefault(a.target, []).append(_answer(a))
    return {
        "now_ms": now_ms,
        "counters": count_everything(session)
        | {"readings": sum(_counters(g).get("intake.stored", 0) for g in gateways)},
        "gateways": [_gateway(g, now_ms) for g in gateways],
        "machines": _machines(session),
        "lives": [_with_list(session, row, answers) for row in latest_lives(session)],
        "purchases": [_answered(row, answers) for row in purchases],
        "schedules": [_answered(row, answers) for row in schedules],
        "notes": notes.newest(session, 12),
        "plans": [_plan_set(session, one) for one in newest_plans(session, 6)],
        "events": [
            e.body | {"gateway": e.gateway}
            for e in session.scalars(select(EventRow).order_by(EventRow.start_ms.desc()).limit(30))
        ],
        "reports": [
            r.body
            | {
                "gateway": r.gateway,
                "number": r.id,
                "edited": edited.get(r.id),
                "list": recommendations.get(r.event_id),
                "answers": answers.get(r.report_id, [])
                + answers.get(str(recommendations.get(r.event_id, {}).get("id", "")), []),
            }
            for r in reports
        ],
        "cards": _numbers(session, gateways),
        "ledger": ledger.state(session, now_ms, most_quarantined=MOST_QUARANTINED).gateways,
        "wordings": edits.proposals(session, known, most=20),
        "models": [_model(m) for m in session.scalars(select(Model).order_by(Model.id.desc()).limit(12))],
        "rollouts": [
            {
                "slot": r.slot,
                "role": r.role,
                "status": r.status,
                "because": r.because,
                "gateways": r.gateways,
                "version": session.get_one(Model, r.model_id).version,
                "finished_ms": r.finished_ms,
            }
            for r in session.scalars(select(Rollout).order_by(Rollout.id.desc()).limit(8))
        ],
        "jobs": [
            {"kind": j.kind, "status": j.status, "progress": j.progress, "step": j.step, "because": j.because}
            for j in session.scalars(select(Job).order_by(Job.id.desc()).limit(4))
        ],
    }


def _with_list(session: Session, life: StatementRow, answers: dict[str, list[dict[str, str]]]) -> dict[str, Any]:
    """A remaining life and what was recommended because of one of this machine's."""
    r = RecommendationRow
    mine = (r.gateway == life.gateway, r.machine == life.machine, r.event_id.like("life-%"))
    row = session.scalar(select(r).where(*mine).order_by(r.id.desc()).limit(1))
    if row is None:
        return life.body | {"gateway": life.gateway, "list": None, "answers": []}
    target = row.recommendation_id
    if target not in answers:
        given = session.scalars(select(FeedbackRow).where(FeedbackRow.target == target).order_by(FeedbackRow.id))
        answers[target] = [_answer(a) for a in given]
    return life.body | {"gateway": life.gateway, "list": row.body, "answers": answers[target]}


def _plan_set(session: Session, rows: list[StatementRow]) -> dict[str, Any]:
    """Alternatives and what people answered to the list that ranked them, by item."""
    target = str(rows[0].body["ranking"])
    given = session.scalars(select(FeedbackRow).where(FeedbackRow.target == target).order_by(FeedbackRow.id))
    return {
        "gateway": rows[0].gateway,
        "ranking": target,
        "plans": [row.body for row in rows],
        "answers": [_answer(a) for a in given] if target else [],
    }


def _answer(row: FeedbackRow) -> dict[str, str]:
    return {"verdict": row.verdict, "item": row.item, "correction": row.correction, "via": row.via}


def _answered(row: StatementRow, answers: dict[str, list[dict[str, str]]]) -> dict[str, Any]:
    return row.body | {"gateway": row.gateway, "answers": answers.get(row.statement_id, [])}


def signals_of(session: Session, gateway: str, machine: str) -> list[dict[str, Any]]:
    """Every signal of one machine: the newest shared buckets, the newest forecast, the newest explanation of one, and its
    events."""
    b = SignalBlockRow
    mine = (b.gateway == gateway, b.machine == machine)
    names = session.execute(select(b.signal, func.max(b.start_ms)).where(*mine).group_by(b.signal).limit(40))
    found = []
    for signal, newest in names.all():
        blocks = list(
            session.scalars(
                select(b).where(*mine, b.signal == signal, b.start_ms <= newest).order_by(b.start_ms.desc()).limit(60)
            )
        )
        points: list[tuple[int, float]] = []
        for block in blocks:
            at = [(block.start_ms + i * block.step_ms, v) for i, v in enumerate(block.values) if v is not None]
            points = at + points
            if len(points) >= POINTS:
                break
        f = ForecastRow
        forecast = session.scalar(
            select(f)
            .where(f.gateway == gateway, f.machine == machine, f.signal == signal)
            .order_by(f.issued_ms.desc())
            .limit(1)
        )
        e = EventRow
        events = session.scalars(
            select(e)
            .where(e.gateway == gateway, e.machine == machine, e.signal == signal)
            .order_by(e.start_ms.desc())
            .limit(10)
        )
        s = StatementRow
        why = session.scalar(
            select(s)
            .where(s.type == ForecastExplanation.type_name, s.gateway == gateway, s.machine == machine)
            .where(s.subject == signal)
            .order_by(s.time_ms.desc())
            .limit(1)
        )
        found.append(
            {
                "signal": signal,
                "why": why.body if why is not None else None,
                "unit": blocks[0].unit if blocks else "",
                "points": points[-POINTS:],
                "forecast": forecast.body if forecast is not None else None,
                "events": [{"start_ms": x.start_ms, "end_ms": x.end_ms, "severity": x.severity} for x in events],
            }
        )
    return found


def _identities(session: Session, settings: Settings) -> dict[str, Any]:
    """How gateways' certificates stand; authority: whether this server could make one at all."""
    told = identity_state.state(session, revocation.terms(settings), datetime.now(UTC), MOST_IDENTITIES)
    return {"authority": (settings.authority_folder / CA_FILE).is_file(), **msgspec.structs.asdict(told)}


def _counters(gateway: Gateway) -> dict[str, int]:
    counters: dict[str, int] = (gateway.heartbeat or {}).get("counters", {})
    return counters


def _gateway(gateway: Gateway, now_ms: int) -> dict[str, Any]:
    heartbeat = gateway.heartbeat or {}
    quarantine = {
        name.removeprefix("quarantine."): n for name, n in _counters(gateway).items() if name.startswith("quarantine.")
    }
    return {
        "id": gateway.id,
        "site": gateway.site,
        # alive is who delivers data, not who holds a socket
        "alive": gateway.online and now_ms - gateway.last_data_ms < 30_000,
        "last_data_s": round((now_ms - gateway.last_data_ms) / 1000, 1),
        "version": gateway.agent_version,
        "rss_mib": round(heartbeat.get("rss_bytes", 0) / 2**20, 1),
        "outbox": sum(heartbeat.get("outbox", {}).values()),
        "quarantine": quarantine,
        "models": (gateway.reported or {}).get("models", []),
        "live_errors": heartbeat.get("live_errors", []),
        "skills": heartbeat.get("skills", {}),
    }


def _numbers(session: Session, gateways: list[Gateway]) -> dict[str, int]:
    """digest -> number in the registry, of the models that gateways say they have."""
    digests = {m.get("digest") for g in gateways for m in (g.reported or {}).get("models", [])}
    found = session.execute(select(Model.digest, Model.id).where(Model.digest.in_(digests)))
    return {row.digest: row.id for row in found}


def _machines(session: Session) -> list[dict[str, Any]]:
    b, e = SignalBlockRow, EventRow
    open_events: dict[tuple[str, str], str] = {}
    rank = {"notice": 0, "warning": 1, "alarm": 2}
    recent = select(e).where(e.end_ms.is_(None)).order_by(e.id.desc()).limit(100)
    for event in session.scalars(recent):
        key = (event.gateway, event.machine)
        if rank[event.severity] >= rank.get(open_events.get(key, ""), -1):
            open_events[key] = event.severity
    count = func.count(func.distinct(b.signal))
    known = select(b.gateway, b.machine, count, func.max(b.start_ms)).group_by(b.gateway, b.machine)
    return [
        {"gateway": g, "machine": m, "signals": n, "newest_ms": at, "severity": open_events.get((g, m), "")}
        for g, m, n, at in session.execute(known.order_by(b.gateway, b.machine).limit(200))
    ]


def _model(model: Model) -> dict[str, Any]:
    passport = model.passport
    return {
        "number": model.id,
        "slot": model.slot,
        "version": model.version,
        "status": model.status,
        "verdict": model.verdict,
        "because": model.because,
        "algorithm": passport["algorithm"],
        "quality": passport["quality"],
        "packed_bytes": passport["packed_bytes"],
        "float_bytes": passport["float_bytes"],
        "latency_us": passport["latency_us"],
        "task_change": passport["parity"]["task_change"],
    }
