"""How likely a machine fails: from one row of its process values, or from its own log of errors and replacements. No I/O.

Every risk carries its exact reasons: the expected score and the contributions sum to the stated score."""

from __future__ import annotations

import numpy as np

from edge_agent.runtimes import LoadedModel
from protocol.event_features import HOUR_MS, MachineLog, ahead, expected_hours, state, within_horizon
from protocol.names import stable_id
from protocol.physics import with_physics
from protocol.reports import Contribution, FaultRisk
from protocol.windows import Floats


def risk_now(machine: str, values: dict[str, float], model: LoadedModel, now_ms: int) -> FaultRisk | None:
    """The risk that a row of process values means. A feature that is not among `values` is missing; None if the model is no
    table of trees or none of its features is known."""
    trees, passport = model.trees, model.passport
    measured = passport.features[: len(passport.features) - len(passport.formulas)]
    if trees is None or passport.events is not None or not any(name in values for name in measured):
        return None
    row = np.array([[values.get(name, np.nan) for name in measured]], dtype=np.float64)
    x, names = with_physics(row, measured, passport.formulas)
    expected, shares = trees.contributions(x)
    chance = float(trees.probability(x)[0, 0])
    component = passport.classes[0] if passport.classes else "failure"
    return FaultRisk(
        id=stable_id("fault-risk", machine, component, now_ms, model.digest),
        machine=machine,
        component=component,
        issued_ms=now_ms,
        probability=chance,
        alarm=chance >= passport.threshold,
        score=float(trees.raw(x)[0, 0]),
        expected_score=float(expected[0]),
        contributions=reasons(names, shares[0, :, 0]),
        model=model.ref,
    )


def risks_ahead(machine: str, log: MachineLog, model: LoadedModel, now_ms: int) -> list[FaultRisk]:
    """The risk of each component within the model's horizon, likeliest first; empty if the model does not read logs. The
    score and its reasons are those of the step in which a failure is likeliest."""
    trees, spec = model.trees, model.passport.events
    if trees is None or spec is None:
        return []
    rows = ahead(state(log, np.array([now_ms], dtype=np.int64), spec), spec)
    hazard = trees.probability(rows)[None]  # [1, steps, components]
    chances, hours = within_horizon(hazard)[0], expected_hours(hazard, spec.step_h)[0]
    expected, shares = trees.contributions(rows)
    raw = trees.raw(rows)
    risks: list[FaultRisk] = []
    for k in np.argsort(-chances, kind="stable"):
        step = int(np.argmax(raw[:, k]))
        risks.append(
            FaultRisk(
                id=stable_id("fault-risk", machine, spec.components[k], now_ms, model.digest),
                machine=machine,
                component=spec.components[k],
                issued_ms=now_ms,
                horizon_ms=spec.horizon_h * HOUR_MS,
                probability=float(chances[k]),
                alarm=bool(chances[k] >= model.passport.threshold),
                expected_ms=round(float(hours[k]) * HOUR_MS),
                score=float(raw[step, k]),
                expected_score=float(expected[k]),
                contributions=reasons(spec.features, shares[step, :, k]),
                model=model.ref,
            )
        )
    return risks


def reasons(names: list[str], shares: Floats) -> list[Contribution]:
    """What moved a score, strongest first; nothing that moved it is left out."""
    order = np.argsort(-np.abs(shares), kind="stable")
    return [Contribution(names[i], float(shares[i])) for i in order if shares[i] != 0.0]
