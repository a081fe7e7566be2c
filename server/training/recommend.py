"""From cases to a sealed recommender: settings chosen on the cases before the held-out ones, figures from blocks that were
not learned from, and a verdict of the lists that were shown and answered meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from export import parity
from export.bounds import RECOMMENDER
from export.bundle import Draft, seal
from protocol.bundles import Bundle, Golden, Quality, Runtime, unpack
from protocol.catalogue import ItemCard, token_card
from protocol.errors import Reason, Refused
from protocol.recommending import CANDIDATES, RecommendSpec, strengths
from protocol.tables import Hybrid, Neighbours, Ranker
from server import evaluation, off_policy
from server.algorithms.content_based import ContentSettings, FittedContent, fit_content
from server.algorithms.hybrid import FittedHybrid, HybridSettings, chosen_settings, fit_hybrid
from server.algorithms.lessons import cases as lessons_of_cases
from server.algorithms.lessons import covering
from server.cases import Case, popularity
from server.evaluation import Ranked
from server.off_policy import Trial
from server.training import certainty
from server.training.circumstances import Candidate, Circumstances, Progress
from server.training.hybrid_tables import PackedHybrid, case_events, packed

ITEMS = "recommend.items"
SHOWN = 5
HALF_LIFE_DAYS = 365.0
WORDS = ContentSettings(dimensions=32, places=1024)
ANSWER_WEIGHTS = (3.0, 1.0, 6.0)


@dataclass(frozen=True)
class CasePlan:
    """How a hybrid is fitted to cases. answer_weight: how much one person's answer counts beside one work order."""

    hybrid: HybridSettings
    answer_weight: float = 3.0
    seed: int = 0


@dataclass(frozen=True)
class Fitted:
    """A hybrid of cases in both forms, and what understands the words of new items."""

    model: FittedHybrid
    packed: PackedHybrid
    content: FittedContent

    def listed(self, case: Case) -> list[str]:
        """The float form's list."""
        return self.model.best(strengths(case.profile), SHOWN)


def train_recommend(
    cases: list[Case],
    seed: int,
    world: Circumstances,
    progress: Progress,
    *,
    cards: Sequence[ItemCard] = (),
    trials: Sequence[Trial] = (),
) -> list[Candidate]:
    """The hybrid candidate. Settings are chosen on cases before the held-out ones; figures come from fits on the cases before
    each held-out block; the sealed tables are fitted on every case with the same settings, so that the newest answers
    count. `trials` after the first held-out case judge a fit that knows none of them. Raises Refused below 16 cases."""
    champion = world.champions.get(ITEMS)
    champion_bundle = unpack(champion) if champion else None
    first = _first_held_out(cases, champion_bundle)
    if first < 8 or len(cases) - first < 4:
        raise Refused(Reason.NOT_ELIGIBLE, f"{len(cases)} usable cases; 16 are needed: wait for more work orders")
    progress(0.1, f"{len(cases)} cases")
    plan = _chosen_plan(cases[:first], cards, seed)
    near = plan.hybrid.items
    progress(0.5, f"shrinkage {near.shrinkage:g}, answers count {plan.answer_weight:g}")
    held = cases[first:]
    float_lists: list[list[str]] = []
    packed_lists: list[list[str]] = []
    reference_lists: list[list[str]] = []
    before_all: Fitted | None = None
    blocks = np.array_split(np.arange(first, len(cases)), min(5, len(held)))
    for number, block in enumerate(blocks):
        before = cases[: int(block[0])]
        fitted = fit_cases(before, cards, plan)
        before_all = before_all or fitted
        ranker = fitted.packed.hybrid()
        popular = popularity(before)
        for case in (cases[int(i)] for i in block):
            float_lists.append(fitted.listed(case))
            packed_lists.append(_list_of(ranker, case))
            reference_lists.append(popular[:SHOWN])
        progress(0.5 + 0.3 * (number + 1) / len(blocks), "held-out cases")
    float_quality = evaluation.ranked_quality(float_lists, held)
    quality = evaluation.ranked_quality(packed_lists, held)
    reference = evaluation.ranked_quality(reference_lists, held)
    serving: Ranked | None = None
    serving_ranker = None if champion_bundle is None else ranker_of(champion_bundle)
    if serving_ranker is not None:
        serving = evaluation.ranked_quality([_list_of(serving_ranker, case) for case in held], held)
    assert before_all is not None  # noqa: S101 - there is at least one block
    since_ms = cases[first - 1].time_ms
    fair = [trial for trial in trials if trial.time_ms > since_ms]
    ok, judged = off_policy.gate(
        _lists(before_all.packed.hybrid()), fair, None if serving_ranker is None else _lists(serving_ranker)
    )
    progress(0.85, "sealing")
    fitted = fit_cases(cases, cards, plan)
    table = fitted.packed.hybrid()
    profiles = [strengths(case.profile) for case in held]
    exact = np.stack([fitted.model.scores(profile) for profile in profiles])
    rounded = np.stack([table.scores(profile) for profile in profiles])
    inputs, outputs = parity.golden_lists(
        fitted.packed.items, fitted.packed.users, fitted.packed.tables, profiles, SHOWN
    )
    split = (
        f"newest {len(held)} of {len(cases)} cases, learned block by block from the cases before; "
        "the sealed tables are fitted on all cases with the same settings"
    )
    settings: dict[str, object] = {
        "shrinkage": near.shrinkage,
        "neighbours": near.neighbours,
        "alike": plan.hybrid.alike,
        "popular": plan.hybrid.popular,
        "answer_weight": plan.answer_weight,
        "half_life_days": HALF_LIFE_DAYS,
        "cards": len(cards),
        "data_until_ms": cases[-1].time_ms,
    }
    between = {
        "ndcg": certainty.of_mean(np.array(quality.gains)),
        "hit": certainty.of_share(int(sum(quality.hits)), quality.n),
    }
    draft = Draft(
        slot=ITEMS,
        family="recommend",
        algorithm="hybrid",
        version=world.versions.get(ITEMS, 1),
        runtime=Runtime.HYBRID,
        items=fitted.packed.items,
        users=fitted.packed.users,
        recommend=RecommendSpec(
            candidates=list(CANDIDATES),
            lengths=list(plan.hybrid.lengths),
            half_life_days=HALF_LIFE_DAYS,
            answer_weight=plan.answer_weight,
            data_until_ms=cases[-1].time_ms,
            safety=[card.item for card in cards if card.safety],
        ),
        tables=fitted.packed.tables,
        lineage=world.lineage(seed, settings),
        quality=[
            Quality(
                metric=metric,
                lower_is_better=False,
                model=getattr(quality, name),
                reference=getattr(reference, name),
                reference_name="popularity",
                champion=None if serving is None else getattr(serving, name),
                low=between[name][0],
                high=between[name][1],
                split=split,
                n=quality.n,
            )
            for metric, name in (("ndcg_at_5", "ndcg"), ("hit_at_3", "hit"))
        ],
        parity=parity.compare(
            exact, rounded, float_quality.ndcg, quality.ndcg, lower_is_better=False, bound=RECOMMENDER
        ),
        golden=Golden(atol=1e-5, rtol=1e-5),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=fitted.packed.float_bytes,
        latency_us=parity.latency_us(lambda: table.rank(profiles[-1], SHOWN, CANDIDATES)),
        intended_use="Ranks maintenance actions, spare parts and plans for what was seen; a person decides.",
        limits="Knows items of finished work orders and answers, and new ones by their words; nothing of cost or stock.",
        words=f"A right item was among the first three in {quality.hit:.0%} of cases; {judged}.",
        refused="" if ok else judged,
        because=world.because,
    )
    progress(1.0, "hybrid sealed")
    return [Candidate(*seal(draft))]


def fit_cases(cases: Sequence[Case], cards: Sequence[ItemCard], plan: CasePlan) -> Fitted:
    """A hybrid over the tokens of cases and the items of cards; what can be recommended is on offer."""
    card_of = {card.item: card for card in cards if not card.withdrawn}
    events = covering(case_events(cases, HALF_LIFE_DAYS, plan.answer_weight), list(card_of))
    offered = np.array([name.startswith(CANDIDATES) for name in events.items], dtype=bool)
    known = [card_of.get(name) or token_card(name) for name in events.items]
    content = fit_content(known, WORDS)
    model = fit_hybrid(
        events,
        plan.hybrid,
        lessons_of_cases(offered),
        vectors=content.encode(known),
        offered=offered,
        seed=plan.seed,
    )
    return Fitted(model, packed(model, content), content)


def ranker_of(bundle: Bundle) -> Ranker:
    """A sealed recommender, of whichever kind, as a gateway asks it."""
    if bundle.passport.runtime is Runtime.HYBRID:
        return Hybrid(bundle.passport.items, bundle.passport.users, bundle.tables)
    return Neighbours(bundle.passport.items, bundle.tables)


def _first_held_out(cases: list[Case], champion: Bundle | None) -> int:
    """Index of the first held-out case: those the champion has not seen, if there are enough; else the newest
    quarter."""
    if champion is not None:
        until = int(champion.passport.lineage.parameters.get("data_until_ms", "0"))
        unseen = next((i for i, case in enumerate(cases) if case.time_ms > until), len(cases))
        if len(cases) - unseen >= 8 and unseen >= 8:
            return unseen
    return len(cases) - len(cases) // 4


def _chosen_plan(cases: list[Case], cards: Sequence[ItemCard], seed: int) -> CasePlan:
    """Neighbours' settings on the cases' own lessons; the weight of answers on the newest quarter, learned from the rest."""
    events = case_events(cases, HALF_LIFE_DAYS, ANSWER_WEIGHTS[0])
    offered = np.array([name.startswith(CANDIDATES) for name in events.items], dtype=bool)
    known = [token_card(name) for name in events.items]
    settings = chosen_settings(
        events,
        HybridSettings(),
        lessons_of_cases(offered),
        vectors=fit_content(known, WORDS).encode(known),
        offered=offered,
        seed=seed,
    )
    plan = CasePlan(settings, ANSWER_WEIGHTS[0], seed)
    cut = len(cases) - max(len(cases) // 4, 1)
    if not any(case.source == "answer" for case in cases[:cut]):
        return plan

    def worth(tried: CasePlan) -> float:
        fitted = fit_cases(cases[:cut], cards, tried)
        return evaluation.ranked_quality([fitted.listed(case) for case in cases[cut:]], cases[cut:]).ndcg

    return max((replace(plan, answer_weight=weight) for weight in ANSWER_WEIGHTS), key=lambda one: round(worth(one), 9))


def _list_of(ranker: Ranker, case: Case) -> list[str]:
    return [found.item for found in ranker.rank(strengths(case.profile), SHOWN, CANDIDATES, reasons=False)]


def _lists(ranker: Ranker) -> Callable[[Mapping[str, float], int], list[str]]:
    """A recommender as the off-policy judge asks it."""
    return lambda profile, top: [one.item for one in ranker.rank(profile, top, CANDIDATES, reasons=False)]
