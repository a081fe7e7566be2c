"""A model on its way to gateways. Every state has a deadline, and unknown is not success: a gateway counts as done when
its own reported twin serves the digest and has given results with it."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol.twin import Assignment, Desired, Role
from server.database import Gateway, Model, Rollout
from server.registry import promote


def start(
    session: Session,
    model: Model,
    role: Role,
    gateways: list[str] | None,
    because: str,
    now_ms: int,
    deadline_s: float = 600.0,
) -> Rollout:
    """Writes the model into the desired twins of these gateways (None: all), whole documents with the next version."""
    for running in session.scalars(select(Rollout).where(Rollout.slot == model.slot, Rollout.status == "running")):
        running.status, running.finished_ms = "stopped", now_ms
        running.because += f"; overtaken by v{model.version}"
    assignment = Assignment(
        slot=model.slot,
        role=role,
        version=model.version,
        digest=model.digest,
        size=model.size,
        path=f"/api/v1/bundles/{model.digest}",
        because=because[:500],
    )
    chosen = list(session.scalars(select(Gateway).order_by(Gateway.id)))
    if gateways is not None:
        chosen = [g for g in chosen if g.id in gateways]
    for gateway in chosen:
        gateway.desired = with_assignment(gateway.desired, assignment)
    rollout = Rollout(
        slot=model.slot,
        model_id=model.id,
        digest=model.digest,
        role=role.value,
        status="running",
        gateways={g.id: "asked" for g in chosen},
        because=because,
        started_ms=now_ms,
        deadline_ms=now_ms + int(deadline_s * 1000),
        finished_ms=None,
    )
    session.add(rollout)
    session.flush()
    return rollout


def with_assignment(desired: dict[str, Any], assignment: Assignment) -> dict[str, Any]:
    """The next desired document: the slot's assignment replaced, the others kept."""
    before = msgspec.convert(desired, Desired) if desired else None
    others = [a for a in before.models if a.slot != assignment.slot] if before else []
    version = before.version + 1 if before else 1
    made: dict[str, Any] = msgspec.to_builtins(Desired(version=version, models=[*others, assignment]))
    return made


def advance(session: Session, now_ms: int) -> list[Rollout]:
    """Looks at every running rollout; returns those that ended now. A refusal anywhere stops it."""
    ended: list[Rollout] = []
    for rollout in session.scalars(select(Rollout).where(Rollout.status == "running")):
        told = {g.id: g for g in session.scalars(select(Gateway).where(Gateway.id.in_(list(rollout.gateways))))}
        states = {name: _state(told.get(name), rollout) for name in rollout.gateways}
        if states != rollout.gateways:
            rollout.gateways = states
        refused = [f"{name}: {state}" for name, state in states.items() if state.startswith("refused")]
        if refused or now_ms > rollout.deadline_ms:
            rollout.status = "stopped"
            rollout.because += "; " + ("; ".join(refused) or "not every gateway answered in time")
        elif states and all(state == "done" for state in states.values()):
            rollout.status = "done"
            model = session.get_one(Model, rollout.model_id)
            if rollout.role == Role.SERVING.value:
                promote(session, model)
        else:
            continue
        rollout.finished_ms = now_ms
        ended.append(rollout)
    return ended


def _state(gateway: Gateway | None, rollout: Rollout) -> str:
    for model in (gateway.reported or {}).get("models", []) if gateway is not None else []:
        if model["digest"] == rollout.digest:
            if model["status"] == "refused":
                return f"refused: {model.get('error', '')}"[:300]
            if model["status"] == rollout.role:
                return "done" if model.get("results", 0) > 0 else "installed"
    return "asked"


def bring_newcomers_up(session: Session) -> None:
    """A gateway heard of for the first time gets the champions of every slot."""
    champions = list(session.scalars(select(Model).where(Model.status == "champion").order_by(Model.id)))
    for gateway in session.scalars(select(Gateway)):
        if gateway.desired or not champions:
            continue
        for model in champions:
            assignment = Assignment(
                slot=model.slot,
                version=model.version,
                digest=model.digest,
                size=model.size,
                path=f"/api/v1/bundles/{model.digest}",
                because="the models that serve on the other gateways",
            )
            gateway.desired = with_assignment(gateway.desired, assignment)
