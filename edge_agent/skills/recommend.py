"""What to do about an event: what helped in cases like it, with exact reasons. No I/O."""

from __future__ import annotations

from edge_agent.explain.reasons import readable
from edge_agent.runtimes import LoadedModel
from protocol.names import stable_id
from protocol.reports import Contribution, FaultEvent, Recommendation, RecommendedItem

CANDIDATES = ("action:", "part:")


def profile(event: FaultEvent, open_symptoms: list[str]) -> dict[str, float]:
    """What a case is known by: its symptoms, what else is open on the machine, the machine's type and itself."""
    strengths = {f"symptom:{s}": 1.0 for s in (*event.symptoms, *open_symptoms)}
    if event.machine_type:
        strengths[f"type:{event.machine_type}"] = 1.0
    strengths[f"machine:{event.machine}"] = 0.5
    return strengths


def recommend(
    event: FaultEvent, open_symptoms: list[str], model: LoadedModel, now_ms: int, top: int = 5
) -> Recommendation | None:
    """A ranked list, or None if the table knows nothing of this case."""
    if model.ranker is None:
        return None
    known_by = profile(event, open_symptoms)
    ranked = model.ranker.rank(known_by, top, CANDIDATES)
    if not ranked:
        return None
    return Recommendation(
        id=stable_id("recommendation", event.id),
        event=event.id,
        machine=event.machine,
        issued_ms=now_ms,
        profile=sorted(known_by),
        items=[
            RecommendedItem(
                item=r.item,
                position=i,
                score=round(r.score, 6),
                contributions=[Contribution(c.because, round(c.amount, 6)) for c in readable(r)],
            )
            for i, r in enumerate(ranked, start=1)
        ],
        model=model.ref,
    )
