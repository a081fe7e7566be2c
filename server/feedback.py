"""An answer meets what it judges, whichever arrives first, and is stored once."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from protocol.feedback import Feedback, Verdict
from protocol.purchases import PurchaseProposal
from protocol.reading.notes import NoteReading
from protocol.schedules import Schedule
from server.database import FeedbackRow, RecommendationRow, ReportRow, StatementRow


def store(session: Session, feedback: Feedback, gateway: str, seq: int | None, now_ms: int) -> bool:
    """Stores one answer; False if it is there already. `seq` is None for answers given on the console."""
    known = select(FeedbackRow.id).where(FeedbackRow.gateway == gateway, FeedbackRow.feedback_id == feedback.id)
    if session.scalar(known) is not None:
        return False
    session.add(
        FeedbackRow(
            gateway=gateway,
            seq=seq,
            stored_ms=now_ms,
            feedback_id=feedback.id,
            target=feedback.target,
            target_kind=kind_of(session, gateway, feedback.target),
            item=feedback.item,
            verdict=feedback.verdict.value,
            correction=feedback.correction,
            comment=feedback.comment,
            author=feedback.author,
            time_ms=feedback.time_ms,
            via=feedback.via,
        )
    )
    session.flush()
    return True


def kind_of(session: Session, gateway: str, target: str) -> str:
    """report, recommendation, purchase, schedule, reading, or '' while the target has not arrived."""
    found = judged(session, target, gateway)
    return found[0] if found is not None else ""


def judged(session: Session, target: str, gateway: str = "") -> tuple[str, str] | None:
    """(kind, gateway) of what an answer's target names, on one gateway or on any; None if nothing has that name."""
    for kind, table, named in (
        ("recommendation", RecommendationRow, RecommendationRow.recommendation_id == target),
        ("report", ReportRow, ReportRow.report_id == target),
        ("purchase", StatementRow, _statement(PurchaseProposal.type_name, target)),
        ("schedule", StatementRow, _statement(Schedule.type_name, target)),
        ("reading", StatementRow, _statement(NoteReading.type_name, target)),
    ):
        query = select(table.gateway).where(named).limit(1)
        found = session.scalar(query.where(table.gateway == gateway) if gateway else query)
        if found is not None:
            return kind, found
    return None


def _statement(kind: str, target: str) -> ColumnElement[bool]:
    return (StatementRow.type == kind) & (StatementRow.statement_id == target)


def too_late(session: Session, since_ms: int = 0) -> dict[str, int]:
    """How often each item of a recommendation came too late to be of use: where that is often, ask for earlier warnings
    (`watch.lead_time_s`). An answer without an item is about the whole list."""
    late: Counter[str] = Counter()
    rows = select(FeedbackRow).where(FeedbackRow.verdict == Verdict.TOO_LATE.value, FeedbackRow.time_ms >= since_ms)
    for row in session.scalars(rows):
        named = (RecommendationRow.gateway == row.gateway) & (RecommendationRow.recommendation_id == row.target)
        shown = session.scalar(select(RecommendationRow).where(named))
        if shown is not None:
            late.update([row.item] if row.item else [str(item["item"]) for item in shown.body.get("items", [])])
    return dict(late)


def from_console(session: Session, since_ms: int, after: int) -> list[FeedbackRow]:
    """Answers given on the console since then, row number above `after`: their gateways do not know them yet."""
    rows = select(FeedbackRow).where(
        FeedbackRow.via == "console", FeedbackRow.stored_ms >= since_ms, FeedbackRow.id > after
    )
    return list(session.scalars(rows.order_by(FeedbackRow.id).limit(500)))


def as_told(row: FeedbackRow) -> Feedback:
    """A stored answer as the wire has it."""
    return Feedback(
        id=row.feedback_id,
        target=row.target,
        item=row.item,
        verdict=Verdict(row.verdict),
        correction=row.correction,
        comment=row.comment,
        author=row.author,
        time_ms=row.time_ms,
        via=row.via,
    )


def meet(session: Session, gateway: str, target: str, kind: str) -> None:
    """Tells answers that waited for `target` what it is."""
    waiting = (FeedbackRow.gateway == gateway, FeedbackRow.target == target, FeedbackRow.target_kind == "")
    session.execute(update(FeedbackRow).where(*waiting).values(target_kind=kind))
