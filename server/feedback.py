"""An answer meets what it judges, whichever arrives first, and is stored once."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from protocol.feedback import Feedback
from server.database import FeedbackRow, RecommendationRow, ReportRow


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
    """report, recommendation, or '' while the target has not arrived."""
    for kind, table, column in (
        ("recommendation", RecommendationRow, RecommendationRow.recommendation_id),
        ("report", ReportRow, ReportRow.report_id),
    ):
        if session.scalar(select(table.id).where(table.gateway == gateway, column == target).limit(1)) is not None:
            return kind
    return ""


def meet(session: Session, gateway: str, target: str, kind: str) -> None:
    """Tells answers that waited for `target` what it is."""
    waiting = (FeedbackRow.gateway == gateway, FeedbackRow.target == target, FeedbackRow.target_kind == "")
    session.execute(update(FeedbackRow).where(*waiting).values(target_kind=kind))
