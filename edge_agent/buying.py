"""Stock, demand and risk come together: the one place that asks for demand and proposes purchases. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from edge_agent.runtimes import LoadedModel
from edge_agent.skills.purchase import FLEET, Circumstances, Need, propose
from edge_agent.skills.spare_parts import PartHistory, months_demand
from protocol.catalogue import Catalogue
from protocol.demand_windows import month_name, month_number
from protocol.parts_demand import failure_outlooks
from protocol.purchases import PurchaseProposal, StockLevel
from protocol.reports import FaultRisk, RemainingLife


def proposals(
    levels: Sequence[StockLevel],
    catalogue: Catalogue,
    demand_model: LoadedModel | None,
    lives: Sequence[RemainingLife],
    risks: Sequence[FaultRisk],
    now_ms: int,
    *,
    machine_types: dict[str, str] | None = None,
) -> list[PurchaseProposal]:
    """One proposal for each part of the catalogue whose stock is known, in the catalogue's order; the newest level of a
    part counts, and a level of a part that is not in the catalogue is passed over. machine_types: of machines whose type
    no life tells. Raises as `propose` and `months_demand`."""
    newest = {level.part: level for level in sorted(levels, key=lambda one: one.time_ms)}
    parts = [part for part in catalogue.part if part.part in newest]
    demand = months_demand([_history(newest[part.part], part.unit) for part in parts], demand_model)
    forecasts = demand_model is not None and demand_model.passport.demand is not None
    model = demand_model.ref if demand_model is not None and forecasts else FLEET
    around = Circumstances(
        now_ms=now_ms,
        review_days=catalogue.review_days,
        budget=catalogue.budget,
        outlooks=failure_outlooks(lives, risks, now_ms, machine_types),
        bill=catalogue.bill,
    )
    return propose(
        [Need(part, newest[part.part], months, model) for part, months in zip(parts, demand, strict=True)], around
    )


def _history(level: StockLevel, unit: str) -> PartHistory:
    """The months that a level tells; without a first month, they end with the last one that was finished at its time."""
    first = level.first_month or _ends_before(level.time_ms, len(level.monthly))
    return PartHistory(level.part, first, level.monthly, level.machine, unit)


def _ends_before(time_ms: int, months: int) -> str:
    here = datetime.fromtimestamp(time_ms / 1000, UTC)
    return month_name(month_number(f"{here.year:04d}-{here.month:02d}") - months)
