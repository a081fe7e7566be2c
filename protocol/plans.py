"""Plans and designs: what is to be done, on what, with what, in which order; or which measures a part is to have. Every
step, value and quantity comes from the plant's catalogue; the words are made of clauses and can be read back."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from protocol.capabilities import MOST_PARAMETERS, Minutes, PlanKind, Unit
from protocol.names import MessageClass
from protocol.observations import Name, Text, TimeMs
from protocol.reports import Evidence, ModelRef, Section
from protocol.writing.facts import Fact

MOST_STEPS = 40
MOST_CANDIDATES = 10


class Aim(StrEnum):
    """What an alternative is meant to be: the typical one; with every optional step; as quick, as small or as large as it can
    be; one that differs in machines, tools or order; chosen by a model."""

    USUAL = "usual"
    THOROUGH = "thorough"
    SHORT = "short"
    SMALL = "small"
    LARGE = "large"
    OTHER = "other"
    MODEL = "model"


class Asked(StrEnum):
    """What was behind a plan: a fault event, a note that tells of a failure, a predicted failure, an answer that accepted a
    remedy, a person's request."""

    EVENT = "event"
    NOTE = "note"
    RISK = "risk"
    ANSWER = "answer"
    REQUEST = "request"


class Setting(msgspec.Struct, frozen=True):
    """A parameter of an operation and what it is set to, in the catalogue's unit."""

    name: Name
    value: float
    unit: Unit = ""


class PlanPart(msgspec.Struct, frozen=True):
    """What a step uses up."""

    part: Name
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    unit: Unit = ""


class PlanStep(msgspec.Struct, frozen=True, kw_only=True):
    """One operation on a machine. after: steps (counted from 0) that must be finished before it begins."""

    operation: Name
    machine: Name
    tool: Annotated[str, msgspec.Meta(max_length=128)] = ""
    settings: Annotated[list[Setting], msgspec.Meta(max_length=MOST_PARAMETERS)] = []
    parts: Annotated[list[PlanPart], msgspec.Meta(max_length=MOST_PARAMETERS)] = []
    minutes: Minutes
    after: Annotated[list[Annotated[int, msgspec.Meta(ge=0, lt=MOST_STEPS)]], msgspec.Meta(max_length=MOST_STEPS)] = []


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a plan's text with all that it may claim: sections of the catalogue of clauses `document`, made of `facts`
    alone. frames: that catalogue's name, version and sha256. A plan begins with one passage about the whole, then comes one
    for each step, or for each value of a design."""

    document: Name
    title_en: Text
    title_zh: Text
    frames: Annotated[str, msgspec.Meta(max_length=256)]
    facts: Annotated[list[Fact], msgspec.Meta(max_length=200)]
    sections: Annotated[list[Section], msgspec.Meta(min_length=1, max_length=20)]


_Place = Annotated[int, msgspec.Meta(ge=1, le=MOST_CANDIDATES)]
_Rules = Annotated[list[Name], msgspec.Meta(max_length=50)]
_Passages = Annotated[list[Passage], msgspec.Meta(max_length=MOST_STEPS + 1)]
_Sources = Annotated[list[Name], msgspec.Meta(max_length=20)]


class WorkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How to make a product, or how to put right a failure of a machine: one of `candidates` alternatives, `candidate` being
    its place after ranking and `score` the recommender's (None: it was not ranked).

    item: what a recommender calls a plan with these very steps, whichever machine they are for. machine: the one that is
    mended ("*": of a process plan, whose steps name theirs). action: the remedy's item. asked_by: id of the event, risk or
    answer behind it ("": a person's request), of `asked_ms`; place: the remedy's in the recommendation (0: in none);
    sources: ids of what else it rests on (a recommendation, a forecast). ranking: the list that ranked it: an answer's
    target, with `item` as the answer's item. checks: rules that it was found to
    keep. minutes: of all steps together. fallback: why rules chose where a model should have ("": they did not have to)."""

    type_name: ClassVar[str] = "millwright.work_plan.v1"
    message_class: ClassVar[MessageClass] = MessageClass.REPORT

    id: Name
    item: Name
    kind: PlanKind
    machine: Name = "*"
    machine_type: Annotated[str, msgspec.Meta(max_length=128)] = ""
    product: Annotated[str, msgspec.Meta(max_length=128)] = ""
    failure: Annotated[str, msgspec.Meta(max_length=128)] = ""
    action: Annotated[str, msgspec.Meta(max_length=128)] = ""
    issued_ms: TimeMs
    candidate: _Place = 1
    candidates: _Place = 1
    aim: Aim = Aim.USUAL
    score: float | None = None
    steps: Annotated[list[PlanStep], msgspec.Meta(min_length=1, max_length=MOST_STEPS)]
    minutes: Annotated[float, msgspec.Meta(gt=0)]
    asked: Asked = Asked.REQUEST
    asked_ms: TimeMs | None = None
    place: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    asked_by: Annotated[str, msgspec.Meta(max_length=128)] = ""
    sources: _Sources = []
    evidence: Annotated[list[Evidence], msgspec.Meta(max_length=20)] = []
    checks: _Rules = []
    model: ModelRef
    ranking: Annotated[str, msgspec.Meta(max_length=128)] = ""
    ranked_by: ModelRef | None = None
    fallback: Annotated[str, msgspec.Meta(max_length=200)] = ""
    passages: _Passages = []


class DesignValue(msgspec.Struct, frozen=True, kw_only=True):
    """A measure of a design: chosen from the family's values, or derived from those."""

    name: Name
    value: float
    unit: Unit = ""
    derived: bool = False


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal for a part of a family: its parameters, what follows from them, and what was asked for (`needs`, as rules
    over both, "force >= 20"). The rest as in WorkPlan."""

    type_name: ClassVar[str] = "millwright.design.v1"
    message_class: ClassVar[MessageClass] = MessageClass.REPORT

    id: Name
    item: Name
    family: Name
    machine: Name = "*"
    issued_ms: TimeMs
    candidate: _Place = 1
    candidates: _Place = 1
    aim: Aim = Aim.USUAL
    score: float | None = None
    values: Annotated[list[DesignValue], msgspec.Meta(min_length=1, max_length=40)]
    needs: Annotated[list[Annotated[str, msgspec.Meta(max_length=300)]], msgspec.Meta(max_length=MOST_PARAMETERS)] = []
    asked: Asked = Asked.REQUEST
    asked_ms: TimeMs | None = None
    asked_by: Annotated[str, msgspec.Meta(max_length=128)] = ""
    sources: _Sources = []
    checks: _Rules = []
    model: ModelRef
    ranking: Annotated[str, msgspec.Meta(max_length=128)] = ""
    ranked_by: ModelRef | None = None
    fallback: Annotated[str, msgspec.Meta(max_length=200)] = ""
    passages: _Passages = []
