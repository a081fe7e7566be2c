"""Which open order lines will come late, and by how many days: each with its exact reasons. No I/O."""

from __future__ import annotations

import numpy as np

from edge_agent.runtimes import LoadedModel
from protocol.names import stable_id
from protocol.order_lines import MOST_LOG_DAYS, LateSpec, OrderLines, drift_offsets, late_features
from protocol.reports import Contribution, SupplyRisk
from protocol.tables import Trees
from protocol.windows import Floats

DAY_MS = 86_400_000
DRIFT = "drift: how the lines due lately came out"


def supply_risks(known: OrderLines, asked: OrderLines, model: LoadedModel, now_ms: int) -> list[SupplyRisk]:
    """The risk of each asked line, likeliest first, judged from the `known` lines that were due before its day. A vendor,
    route or part that was never seen is judged as any other. Empty if the model does not read order lines."""
    trees, spec = model.trees, model.passport.orders
    if trees is None or spec is None or not len(asked):
        return []
    x = late_features(known, asked, spec)
    raw = trees.raw(x)
    expected, shares = trees.contributions(x)
    drift = _drift(known, asked, trees, spec)
    score = raw[:, 0] + drift
    chance = 0.5 * (1.0 + np.tanh(0.5 * score))
    days = chance * np.exp(np.clip(raw[:, 1], 0.0, MOST_LOG_DAYS))
    risks: list[SupplyRisk] = []
    for i in np.argsort(-chance, kind="stable"):
        moved = [(name, float(share)) for name, share in zip(spec.features, shares[i, :, 0], strict=True) if share]
        moved += [(DRIFT, float(drift[i]))] if drift[i] else []
        risks.append(
            SupplyRisk(
                id=stable_id("supply-risk", asked.ids[i], now_ms, model.digest),
                order_line=asked.ids[i],
                issued_ms=now_ms,
                probability=float(chance[i]),
                expected_days=float(days[i]),
                score=float(score[i]),
                expected_score=float(expected[0]),
                contributions=[
                    Contribution(because, amount) for because, amount in sorted(moved, key=lambda part: -abs(part[1]))
                ],
                model=model.ref,
            )
        )
    return risks


def _drift(known: OrderLines, asked: OrderLines, trees: Trees, spec: LateSpec) -> Floats:
    """The shift of each asked line [N] by the known lines that were due in the `drift_days` before it is judged."""
    days, place = np.unique(asked.scheduled_day - spec.notice_days, return_inverse=True)
    recent = known.rows((known.scheduled_day >= days.min() - spec.drift_days) & (known.scheduled_day < days.max()))
    if not len(recent):
        return np.zeros(len(asked))
    raw = trees.raw(late_features(known, recent, spec))[:, 0]
    offsets = drift_offsets(raw, recent.late, recent.scheduled_day, days, spec.drift_days, spec.firmness)
    return np.asarray(offsets[place])
