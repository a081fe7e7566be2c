"""Plans and designs: a request and the plant's catalogue in, checked alternatives out, each with the card by which a
recommender knows it. A language model may choose among what the catalogue allows; where it cannot, rules do. No I/O.

Nothing leaves here that breaks a rule of `protocol.plan_check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec
import numpy as np

from protocol.capabilities import PlanKind, called
from protocol.catalogue import Catalogue, ItemCard
from protocol.covariates import token
from protocol.design_grammar import DesignGrammar, DesignRequest, Sketch
from protocol.errors import Reason, Refused
from protocol.names import stable_id
from protocol.plan_check import DESIGN_RULES, PLAN_RULES, design_complaints, plan_complaints
from protocol.plan_decoding import (
    DesignRules,
    Encode,
    ModelChooser,
    PlanRules,
    Silent,
    decode,
    design_prompt,
    plan_prompt,
)
from protocol.planning_grammar import Draft, PlanGrammar, PlanRequest
from protocol.plans import MOST_CANDIDATES, Aim, Asked, Design, WorkPlan
from protocol.reports import Evidence, ModelRef, Recommendation
from protocol.writing.decoder import Decoder
from protocol.writing.plan_text import PlantNames

RULES = ModelRef("plan.rules", "rules")
TRIES = 8
"""Draws for each alternative that is still missing."""
Document = TypeVar("Document", WorkPlan, Design)
_AIM_WORDS = {
    Aim.USUAL: "usual typical standard 常规 典型",
    Aim.THOROUGH: "thorough complete every inspection and check 全面 检查",
    Aim.SHORT: "short quick fast least time 快速 省时",
    Aim.SMALL: "small compact light 小 紧凑 轻",
    Aim.LARGE: "large strong heavy 大 坚固",
    Aim.OTHER: "other alternative 其他 备选",
    Aim.MODEL: "chosen by a model 模型",
}
"""What a recommender hears of an aim, so that a wish in words finds it."""
USUAL_WISH = "wish:usual typical standard 常规 典型"
"""What nobody said otherwise."""


@dataclass(frozen=True)
class Behind:
    """Why there is a plan. places: action -> its place in the recommendation. sources: ids, the recommendation's first."""

    asked: Asked = Asked.REQUEST
    asked_by: str = ""
    asked_ms: int | None = None
    places: Mapping[str, int] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Voice:
    """A language model that chooses."""

    decoder: Decoder
    encode: Encode
    ref: ModelRef


def write_plans(
    catalogue: Catalogue,
    request: PlanRequest,
    behind: Behind,
    now_ms: int,
    *,
    candidates: int = 4,
    seed: int = 0,
    voice: Voice | None = None,
) -> list[WorkPlan]:
    """Up to `candidates` different plans without words, in the order in which rules would offer them; fewer where there are
    fewer. Raises Refused as `PlanGrammar`."""
    grammar = PlanGrammar(catalogue, request)
    made = _Alternatives[Draft](_bounded(candidates), lambda draft: draft.steps)
    fallback = (
        made.by_model(lambda: _voiced_plans(grammar, request, voice, seed, candidates)) if voice is not None else ""
    )
    made.take(_ruled_plans(grammar, seed, candidates))
    models = {True: voice.ref if voice is not None else RULES, False: RULES}
    plans = [
        _plan(grammar, draft, aim, behind, models[aim is Aim.MODEL], fallback, now_ms) for aim, draft in made.found
    ]
    for plan in plans:
        _refuse_broken(plan.item, plan_complaints(catalogue, plan, request.unavailable))
    return plans


def write_designs(
    catalogue: Catalogue,
    request: DesignRequest,
    behind: Behind,
    now_ms: int,
    *,
    candidates: int = 4,
    seed: int = 0,
    voice: Voice | None = None,
) -> list[Design]:
    """Up to `candidates` different designs without words. Raises Refused as `DesignGrammar`, and NOT_ELIGIBLE where nothing
    keeps all rules and needs."""
    grammar = DesignGrammar(catalogue, request)
    made = _Alternatives[Sketch](_bounded(candidates), lambda sketch: sketch.chosen)
    fallback = ""
    if voice is not None:
        fallback = made.by_model(lambda: _voiced_designs(grammar, request, voice, seed, candidates))
    made.take(_ruled_designs(grammar, seed, candidates))
    models = {True: voice.ref if voice is not None else RULES, False: RULES}
    designs = [
        _design(grammar, sketch, aim, behind, models[aim is Aim.MODEL], fallback, now_ms) for aim, sketch in made.found
    ]
    for design in designs:
        _refuse_broken(design.item, design_complaints(catalogue, design))
    return designs


def card_of(document: WorkPlan | Design, names: PlantNames, now_ms: int) -> ItemCard:
    """How a recommender knows it before anybody has chosen it: what it is for, what it does, with what, and its aim. What is
    known of the remedy's own item speaks for the plan too, and so does that nobody experiments on it."""
    if isinstance(document, Design):
        return _design_card(document, names, now_ms)
    about = called(document.action or document.product, "", "")[0]
    known = next((one for one in names.catalogue.card if one.item == document.action), None)
    safety = document.action in names.catalogue.safety or (known is not None and known.safety)
    words = [about, document.failure, known.text if known is not None else "", _AIM_WORDS[document.aim]]
    for step in document.steps:
        words += [*names.operation(step.operation), step.tool.replace("-", " ")]
    attributes = {
        "type": document.machine_type,
        "machine_type": document.machine_type,
        "failure": token(document.failure) if document.failure else "",
        "action": document.action.partition(":")[2],
        "product": document.product,
        "aim": document.aim.value,
    }
    return _card(document.item, attributes, words, now_ms, safety=safety)


def placed(documents: Sequence[Document], ranking: Recommendation | None) -> list[Document]:
    """In the order of a ranking, each with its place and score; what it does not name keeps its order behind the others."""
    scores = {one.item: one.score for one in ranking.items} if ranking is not None else {}
    order = sorted(range(len(documents)), key=lambda at: (-round(scores.get(documents[at].item, -np.inf), 6), at))
    return [
        msgspec.structs.replace(
            documents[at],
            candidate=place,
            candidates=len(documents),
            score=scores.get(documents[at].item),
            ranking=ranking.id if ranking is not None and documents[at].item in scores else "",
            ranked_by=ranking.model if ranking is not None and documents[at].item in scores else None,
        )
        for place, at in enumerate(order, 1)
    ]


# alternatives ---------------------------------------------------------------------------------------------------------

D = TypeVar("D", Draft, Sketch)


class _Alternatives(Generic[D]):
    """Different drafts, the first of equal ones kept."""

    def __init__(self, wanted: int, content: Callable[[D], object]) -> None:
        self._wanted = wanted
        self._content: Callable[[D], object] = content
        self.found: list[tuple[Aim, D]] = []

    def take(self, offered: Iterator[tuple[Aim, D]]) -> None:
        """Takes until there are as many as wanted."""
        while len(self.found) < self._wanted:
            try:
                aim, draft = next(offered)
            except StopIteration:
                return
            if all(self._content(draft) != self._content(other) for _, other in self.found):
                self.found.append((aim, draft))

    def by_model(self, offered: Callable[[], Iterator[tuple[Aim, D]]]) -> str:
        """The same from a model; why it stopped ("": it did not)."""
        try:
            self.take(offered())
        except Silent as why:
            return str(why)[:200]
        return ""


def _bounded(candidates: int) -> int:
    if not 1 <= candidates <= MOST_CANDIDATES:
        raise Refused(Reason.WRONG_TYPE, f"{candidates} alternatives: ask for 1 to {MOST_CANDIDATES}")
    return candidates


def _ruled_plans(grammar: PlanGrammar, seed: int, candidates: int) -> Iterator[tuple[Aim, Draft]]:
    """Every remedy as usual, then each thorough and short, then draws over machines, tools and order."""
    remedies = [choice.name for choice in grammar.choices(grammar.start())] if grammar.start().job is None else [""]
    for remedy in remedies:
        yield Aim.USUAL, decode(grammar, PlanRules(grammar, Aim.USUAL, remedy))
    for remedy in remedies:
        for aim in (Aim.THOROUGH, Aim.SHORT):
            yield aim, decode(grammar, PlanRules(grammar, aim, remedy))
    draw = np.random.default_rng(seed)
    for _ in range(TRIES * candidates):
        yield Aim.OTHER, decode(grammar, PlanRules(grammar, loose=True), draw)


def _ruled_designs(grammar: DesignGrammar, seed: int, candidates: int) -> Iterator[tuple[Aim, Sketch]]:
    for aim in (Aim.USUAL, Aim.SMALL, Aim.LARGE):
        yield aim, decode(grammar, DesignRules(grammar, aim))
    draw = np.random.default_rng(seed)
    for _ in range(TRIES * candidates):
        yield Aim.OTHER, decode(grammar, DesignRules(grammar, loose=True), draw)


def _voiced_plans(
    grammar: PlanGrammar, request: PlanRequest, voice: Voice, seed: int, candidates: int
) -> Iterator[tuple[Aim, Draft]]:
    """The model's own choice, then draws from it."""
    chooser, draw = ModelChooser(voice.decoder, voice.encode, plan_prompt(request)), np.random.default_rng(seed)
    yield Aim.MODEL, decode(grammar, chooser)
    for _ in range(TRIES * candidates):
        yield Aim.MODEL, decode(grammar, chooser, draw)


def _voiced_designs(
    grammar: DesignGrammar, request: DesignRequest, voice: Voice, seed: int, candidates: int
) -> Iterator[tuple[Aim, Sketch]]:
    chooser, draw = ModelChooser(voice.decoder, voice.encode, design_prompt(request)), np.random.default_rng(seed)
    yield Aim.MODEL, decode(grammar, chooser)
    for _ in range(TRIES * candidates):
        yield Aim.MODEL, decode(grammar, chooser, draw)


# documents ------------------------------------------------------------------------------------------------------------


def _plan(
    grammar: PlanGrammar, draft: Draft, aim: Aim, behind: Behind, model: ModelRef, fallback: str, now_ms: int
) -> WorkPlan:
    request, job, steps = grammar.request, draft.job, list(draft.steps)
    mends = request.kind is PlanKind.MAINTENANCE
    remedy = job.remedy if job is not None else None
    action, failure = (remedy.action, remedy.failure) if remedy is not None else ("", "")
    told = [
        msgspec.structs.replace(one, machine="@" if one.machine == request.machine else one.machine) for one in steps
    ]
    content = stable_id("plan", request.kind, request.product, failure, action, msgspec.json.encode(told).hex())
    about = (action.partition(":")[2] or request.product)[:80]
    return WorkPlan(
        id=stable_id("plan", content, request.machine, behind.asked, behind.asked_by or now_ms),
        item=f"plan:{about}-{content[-8:]}",
        kind=request.kind,
        machine=request.machine if mends else "*",
        machine_type=request.machine_type if mends else "",
        product=request.product,
        failure=failure,
        action=action,
        issued_ms=now_ms,
        aim=aim,
        steps=steps,
        minutes=round(sum(step.minutes for step in steps), 2),
        asked=behind.asked,
        asked_ms=behind.asked_ms,
        place=behind.places.get(action, 0),
        asked_by=behind.asked_by,
        sources=list(behind.sources),
        evidence=list(behind.evidence),
        checks=list(PLAN_RULES),
        model=model,
        fallback=fallback,
    )


def _design(
    grammar: DesignGrammar, sketch: Sketch, aim: Aim, behind: Behind, model: ModelRef, fallback: str, now_ms: int
) -> Design:
    request, values = grammar.request, grammar.values(sketch.chosen)
    content = stable_id("design", request.family, *(f"{value:.12g}" for value in sketch.chosen))
    return Design(
        id=stable_id("design", content, *request.needs, behind.asked_by or now_ms),
        item=f"design:{request.family[:80]}-{content[-8:]}",
        family=request.family,
        issued_ms=now_ms,
        aim=aim,
        values=values,
        needs=list(request.needs),
        asked=behind.asked,
        asked_ms=behind.asked_ms,
        asked_by=behind.asked_by,
        sources=list(behind.sources),
        checks=list(DESIGN_RULES),
        model=model,
        fallback=fallback,
    )


def _design_card(design: Design, names: PlantNames, now_ms: int) -> ItemCard:
    family = next((one for one in names.catalogue.family if one.family == design.family), None)
    words = [*called(design.family, family.en if family else "", family.zh if family else ""), _AIM_WORDS[design.aim]]
    words += [f"{one.name} {one.value:.6g}" for one in design.values]
    attributes = {"family": design.family, "aim": design.aim.value}
    return _card(design.item, attributes, words, now_ms)


def _card(
    item: str, attributes: Mapping[str, str], words: Sequence[str], now_ms: int, *, safety: bool = False
) -> ItemCard:
    kept = {key: value[:128] for key, value in attributes.items() if value}
    text = ". ".join(word for word in words if word)[:4000]
    return ItemCard(id=stable_id("card", item), item=item, issued_ms=now_ms, attributes=kept, text=text, safety=safety)


def _refuse_broken(item: str, complaints: Sequence[object]) -> None:
    """A rule that is broken here is a fault of the program, or a catalogue that contradicts itself: nobody gets the plan."""
    if complaints:
        raise Refused(Reason.NOT_ELIGIBLE, f"{item} breaks its rules: {'; '.join(str(one) for one in complaints[:5])}")
