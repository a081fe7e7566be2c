"""What may go when there is enough of it: forecasts, oldest first. Reports, answers and what models learned from stay."""

from __future__ import annotations

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from server.database import ForecastRow


def forget_old_forecasts(session: Session, keep: int) -> None:
    """Leaves about the newest `keep` forecasts; their ids grow with arrival."""
    newest = session.scalar(select(func.max(ForecastRow.id)))
    if newest is not None and newest > keep:
        session.execute(delete(ForecastRow).where(ForecastRow.id <= newest - keep))
