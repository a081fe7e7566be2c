"""What may go when there is enough of it: forecasts, their explanations and remaining lives, oldest first. Reports, answers
and what models learned from stay."""

from __future__ import annotations

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from protocol.reports import ForecastExplanation, RemainingLife
from server.database import ForecastRow, StatementRow


def forget_old_forecasts(session: Session, keep: int) -> None:
    """Leaves about the newest `keep` forecasts, and the explanations and remaining lives among the newest `keep` statements;
    ids grow with arrival."""
    newest = session.scalar(select(func.max(ForecastRow.id)))
    if newest is not None and newest > keep:
        session.execute(delete(ForecastRow).where(ForecastRow.id <= newest - keep))
    told = session.scalar(select(func.max(StatementRow.id)))
    if told is not None and told > keep:
        passing = (RemainingLife.type_name, ForecastExplanation.type_name)
        old = StatementRow.type.in_(passing) & (StatementRow.id <= told - keep)
        session.execute(delete(StatementRow).where(old))
