"""What a recommender's bundle must say beside its tables, and what a case is known by: once, for training and gateway.

An item is a token with a kind: `action:replace-seal`, `part:seal-kit`, `symptom:vibration:high`, `type:pump`,
`machine:P-101`; what can be recommended starts with one of the candidates' prefixes. A profile is {token: strength}."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from protocol.covariates import token
from protocol.feedback import Verdict
from protocol.observations import Name, WorkOrder
from protocol.reading.notes import About, NoteReading
from protocol.reports import FaultEvent, FaultRisk, RemainingLife

CANDIDATES = ("action:", "part:", "plan:", "design:", "document:")
PARTS = ("popularity", "items", "users", "content")
"""The parts of a hybrid, in the order of its weights."""
MOST_SHOWN = 100


class RecommendSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Travels inside a recommender's bundle.

    candidates: prefixes of what may be recommended (none: every item). parts: the hybrid's parts in the order of its
    weights. lengths: lower edges of the profile lengths that have weights of their own, ascending, the first 0.
    half_life_days: age at which an event counts half. answer_weight: how much an answer counts beside a work order.
    data_until_ms: answers up to then are inside the tables already. safety: items on which nobody experiments."""

    candidates: Annotated[list[str], msgspec.Meta(max_length=20)] = []
    parts: Annotated[list[Name], msgspec.Meta(max_length=8)] = msgspec.field(default_factory=lambda: list(PARTS))
    lengths: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1, max_length=20)] = (
        msgspec.field(default_factory=lambda: [0])
    )
    half_life_days: Annotated[float, msgspec.Meta(gt=0)] = 365.0
    answer_weight: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    data_until_ms: Annotated[int, msgspec.Meta(ge=0)] = 0
    safety: Annotated[list[Name], msgspec.Meta(max_length=1000)] = []


Profile = dict[str, float]
OF_A_CASE = ("symptom:", "failure:")
"""Kinds of tokens that say what is wrong; the others say with what."""
MACHINE_STRENGTH = 0.5
"""A machine's own past counts half beside what was seen on it."""
MOST_WORN = 3
"""Signals of a remaining life that become part of its case."""


def strengths(tokens: Iterable[str]) -> Profile:
    """How strongly each token of a case speaks; the same for a case of today and for one read from a log."""
    return {name: MACHINE_STRENGTH if name.startswith("machine:") else 1.0 for name in tokens}


def case_profile(
    machine: str, machine_type: str = "", symptoms: Iterable[str] = (), failures: Iterable[str] = ()
) -> Profile:
    """What any case is known by: what was seen, what is wrong, the machine's type and the machine itself."""
    tokens = [f"symptom:{symptom}" for symptom in symptoms]
    tokens += [f"failure:{mode}" for mode in (token(failure) for failure in failures) if mode]
    if machine_type:
        tokens.append(f"type:{machine_type}")
    return strengths(dict.fromkeys([*tokens, f"machine:{machine}"]))


def event_profile(event: FaultEvent, open_symptoms: Iterable[str] = ()) -> Profile:
    """An event's case: its symptoms and what else is open on the machine."""
    return case_profile(event.machine, event.machine_type, (*event.symptoms, *open_symptoms))


def reading_profile(
    reading: NoteReading, open_symptoms: Iterable[str] = (), machine_type: str = "", said: str = ""
) -> Profile:
    """generate -> recommend: a note's case, with the failure mode that the reader is sure of, or that a person said."""
    sure = [judged.classes[0].name for judged in reading.judged if judged.about is About.FAILURE and judged.sure]
    return case_profile(reading.machine, machine_type, open_symptoms, [said] if said else sure)


def order_profile(order: WorkOrder) -> Profile:
    """A finished work order's case: what was seen then and the failure mode that it names."""
    return case_profile(order.machine, order.machine_type, order.symptoms, [order.failure_mode])


def risk_profile(told: FaultRisk | RemainingLife, open_symptoms: Iterable[str] = (), machine_type: str = "") -> Profile:
    """forecast -> recommend: the case that a predicted fault will be. A risk names the component or the class of failure; a
    remaining life names signals: those that shorten it most stand for symptoms in either direction, each the weaker
    the less it explains, since a life does not say which way a signal has gone."""
    if isinstance(told, FaultRisk):
        return case_profile(told.machine, machine_type, open_symptoms, [told.component])
    known_by = case_profile(told.machine, told.machine_type or machine_type, open_symptoms)
    worn = sorted((c for c in told.contributions if c.amount < 0), key=lambda c: (c.amount, c.because))[:MOST_WORN]
    for one in worn:
        for way in ("high", "low"):
            known_by.setdefault(f"symptom:{one.because}:{way}", 0.5 * one.amount / worn[0].amount)
    return known_by


def same_case(tokens: Iterable[str]) -> frozenset[str]:
    """What makes two cases the very same one: the machine and what is wrong with it."""
    return frozenset(name for name in tokens if name.startswith((*OF_A_CASE, "machine:")))


def verdicts(offered: Sequence[str], verdict: str, item: str, correction: str) -> dict[str, float]:
    """What one answer to a shown list says of items: 1 right, -1 wrong. An answer without an item judges the whole list: its
    first item if accepted or corrected, every item if rejected. `too_late` judges the timing and says nothing of items."""
    judged = [item] if item else list(offered[:1] if verdict in (Verdict.ACCEPTED, Verdict.CORRECTED) else offered)
    said: dict[str, float] = {}
    if verdict == Verdict.ACCEPTED:
        said.update(dict.fromkeys(judged, 1.0))
    elif verdict in (Verdict.REJECTED, Verdict.CORRECTED):
        said.update(dict.fromkeys(judged, -1.0))
    if verdict == Verdict.CORRECTED and correction:
        said[correction] = 1.0
    return said
