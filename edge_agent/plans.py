"""Maintenance plans, as the agent sees them: a list of what to do goes in, ranked plans of how to do it come out. An accepted
plan becomes an item that the next lists may offer, and work that is known to come.

recommend -> generate -> recommend -> forecast, on one page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edge_agent.lists import Lists
from edge_agent.runtimes import LoadedModel
from edge_agent.skills.recommend import Request
from edge_agent.skills.write_plan import USUAL_WISH, Behind, Voice, card_of, placed, write_plans
from edge_agent.updates import write_durably
from protocol.capabilities import PlanKind
from protocol.catalogue import Catalogue, ItemCard
from protocol.covariates import KnownInput, Source, token
from protocol.errors import Refused
from protocol.feedback import Feedback, Verdict
from protocol.names import stable_id
from protocol.planning_grammar import PlanRequest
from protocol.plans import Asked, WorkPlan
from protocol.recommending import strengths
from protocol.reports import Recommendation
from protocol.unreadable import UNREADABLE
from protocol.writing.plan_text import PlantNames, Words, write_plan
from protocol.writing.realise import Writer, template
from protocol.writing.verify import complaints_of

log = logging.getLogger(__name__)
CANDIDATES = 4
MOST_ACTIONS = 3
"""Recommended actions that are planned for."""
MOST_OFFERED = 300
"""Plans whose answers are still understood."""
FILE = "plans.json"


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer to a plan needs: how a recommender knows it, and the work that it is."""

    card: ItemCard
    action: str
    minutes: float


@dataclass(frozen=True)
class Made:
    """Plans in their order, the list that ranked them (None: nothing is known to rank them by), and what an accepted plan
    gives: its card, and the work that is now known of the future."""

    plans: list[WorkPlan] = field(default_factory=list)
    ranking: Recommendation | None = None
    cards: list[ItemCard] = field(default_factory=list)
    known: list[KnownInput] = field(default_factory=list)


class Plans:
    """Owner of plans.json below `folder`. `note` counts. types: a machine's type; machines: what machines are called. voice:
    a language model that chooses among what the catalogue allows; writer: who chooses the words. Not thread-safe: the
    agent's thread only."""

    def __init__(
        self,
        folder: Path,
        catalogue: Catalogue,
        note: Callable[[str], None] = lambda _what: None,
        *,
        types: Callable[[str], str] = lambda _machine: "",
        machines: Mapping[str, Words] | None = None,
    ) -> None:
        self._path, self._catalogue, self._note, self._types = folder / FILE, catalogue, note, types
        self._names = PlantNames(catalogue, machines or {})
        self._offered = _restored(self._path, note)
        self.voice: Voice | None = None
        self.writer: Writer = template

    def for_list(
        self, lists: Lists, shown: Recommendation, asked: Asked, asked_ms: int, now_ms: int, only: str = ""
    ) -> Made | None:
        """Plans for what a list recommends first, ranked; `only`: for this one of its actions. None if the catalogue has no
        remedy for any of them, or none that can be carried out here (counted)."""
        actions = [one.item for one in shown.items if one.item.startswith("action:") and not one.explored]
        places = {one.item: one.position for one in shown.items}
        wanted = [only] if only else actions[:MOST_ACTIONS]
        kind = self._types(shown.machine)
        wanted = [action for action in wanted if self._has_remedy(action, kind)]
        if not wanted:
            return None
        request = PlanRequest(
            kind=PlanKind.MAINTENANCE, machine=shown.machine, machine_type=kind, actions=tuple(wanted)
        )
        behind = Behind(asked, shown.event, asked_ms, places, (shown.id,))
        return self._made(lists, request, behind, shown, now_ms)

    def answered(self, lists: Lists, feedback: Feedback, shown: Recommendation | None, now_ms: int) -> Made | None:
        """What an answer asks for: an accepted action its plans; an accepted plan its place among what may be recommended,
        and its work among what is known of the future. None for any other answer."""
        if shown is None or feedback.verdict not in (Verdict.ACCEPTED, Verdict.CORRECTED):
            return None
        corrected = feedback.correction if feedback.verdict is Verdict.CORRECTED else ""
        item = corrected or feedback.item or (shown.items[0].item if shown.items else "")
        if item.startswith("action:"):
            return self.for_list(lists, shown, Asked.ANSWER, feedback.time_ms, now_ms, item)
        offered = self._offered.get(item)
        if offered is None or not item.startswith("plan:"):
            return None
        self._note("plans.accepted")
        lists.hear(offered.card)
        return Made(cards=[offered.card], known=_work(feedback, shown, offered))

    def _has_remedy(self, action: str, kind: str) -> bool:
        return any(one.action == action and one.machine_type in ("", kind) for one in self._catalogue.remedy)

    def _made(
        self, lists: Lists, request: PlanRequest, behind: Behind, shown: Recommendation, now_ms: int
    ) -> Made | None:
        try:
            plans = write_plans(self._catalogue, request, behind, now_ms, candidates=CANDIDATES, voice=self.voice)
            cards = [card_of(plan, self._names, now_ms) for plan in plans]
            ranking = lists.among(cards, self._case(request, shown), now_ms)
            ranked = [self._written(plan) for plan in placed(_not_rejected(plans, ranking), ranking)]
        except Refused as why:
            self._note("plans.impossible")
            log.warning("no plan for %s: %s", request.machine, why)
            return None
        self._remember(plans, cards)
        self._note("plans.made")
        return Made(ranked, ranking) if ranked else None

    def _written(self, plan: WorkPlan) -> WorkPlan:
        return write_plan(plan, self._names, self.writer, complaints_of)

    @staticmethod
    def _case(request: PlanRequest, shown: Recommendation) -> Request:
        """What the alternatives are compared with: the case, that nothing but the usual was wished for, and the recommended
        actions, each as strongly as it was recommended."""
        scores = {one.item: one.score for one in shown.items if one.item in request.actions and one.score > 0}
        best = max(scores.values(), default=1.0)
        wanted = {item: score / best for item, score in scores.items()}
        return Request(
            asked_by=stable_id("plans", shown.event, *request.actions),
            machine=request.machine,
            profile={**strengths([*shown.profile, USUAL_WISH]), **wanted},
            machine_type=request.machine_type,
        )

    def _remember(self, plans: list[WorkPlan], cards: list[ItemCard]) -> None:
        for plan, card in zip(plans, cards, strict=True):
            self._offered.pop(plan.item, None)
            self._offered[plan.item] = Offered(card=card, action=plan.action, minutes=plan.minutes)
        while len(self._offered) > MOST_OFFERED:
            self._offered.pop(next(iter(self._offered)))
        try:
            write_durably(self._path, msgspec.json.encode(self._offered))
        except OSError as error:
            self._note("not_saved.plans")
            log.warning("%s was not saved: %s", self._path, error)


def voice_of(model: LoadedModel, document: str) -> Voice | None:
    """A language model's bundle as one that chooses, if it was taught this kind of document ("work_plan", "design")."""
    taught = model.passport.writer is not None and document in model.passport.writer.documents
    if not taught or model.decoder is None or model.tokenizer is None:
        return None
    tokenizer = model.tokenizer
    return Voice(model.decoder, lambda text: tokenizer.encode(text)[0], model.ref)


def _not_rejected(plans: list[WorkPlan], ranking: Recommendation | None) -> list[WorkPlan]:
    """Without those that people rejected for this very case."""
    rejected = {one.item for one in ranking.left_out if one.reason == "rejected"} if ranking is not None else set()
    return [plan for plan in plans if plan.item not in rejected]


def _work(feedback: Feedback, shown: Recommendation, offered: Offered) -> list[KnownInput]:
    """generate -> forecast: the work on the machine that an accepted plan is."""
    name = token(offered.action.partition(":")[2])
    return [
        KnownInput(
            id=stable_id("known", "plan", shown.machine, shown.id, name),
            machine=shown.machine,
            covariate=f"work:{name}",
            start_ms=feedback.time_ms,
            end_ms=feedback.time_ms + round(offered.minutes * 60_000),
            known_ms=feedback.time_ms,
            source=Source.SCHEDULE,
            origin=feedback.id,
        )
    ]


def _restored(path: Path, note: Callable[[str], None]) -> dict[str, Offered]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Offered])
    except FileNotFoundError:
        return {}
    except (*UNREADABLE, OSError) as error:
        note("refused.plans")
        log.warning("%s is not readable, answers to older plans are not understood: %s", path, error)
        return {}
