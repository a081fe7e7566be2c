"""From cases to a sealed recommender: settings chosen on the cases before the held-out ones, figures from blocks that
were not learned from."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from export import parity
from export.bundle import Draft, seal
from export.to_tables import neighbour_tables
from protocol.bundles import Bundle, Golden, Quality, Runtime, unpack
from protocol.errors import Reason, Refused
from protocol.tables import Neighbours
from server import evaluation
from server.algorithms import collaborative
from server.algorithms.collaborative import CANDIDATES, Case, CollaborativeSettings, FittedNeighbours
from server.evaluation import Ranked
from server.training.circumstances import Candidate, Circumstances, Progress

ITEMS = "recommend.items"


def train_recommend(cases: list[Case], seed: int, world: Circumstances, progress: Progress) -> list[Candidate]:
    """The item-neighbour candidate. Settings are chosen on cases before the held-out ones; figures come from
    fits on the cases before each held-out block; the sealed tables are fitted on every case with the same
    settings, so that the newest answers count."""
    champion = world.champions.get(ITEMS)
    champion_bundle = unpack(champion) if champion else None
    first = _first_held_out(cases, champion_bundle)
    if first < 8 or len(cases) - first < 4:
        raise Refused(Reason.NOT_ELIGIBLE, f"{len(cases)} usable cases; 16 are needed: wait for more work orders")
    progress(0.1, f"{len(cases)} cases")
    settings = _chosen_settings(cases[:first])
    progress(0.5, f"shrinkage {settings.shrinkage:g}, answers count {settings.answer_weight:g}")
    held = cases[first:]
    float_lists: list[list[str]] = []
    packed_lists: list[list[str]] = []
    reference_lists: list[list[str]] = []
    for block in np.array_split(np.arange(first, len(cases)), min(5, len(held))):
        before = cases[: int(block[0])]
        fitted = collaborative.fit(before, settings)
        table = _packed_neighbours(fitted)
        popular = collaborative.popularity(before)
        for case in (cases[int(i)] for i in block):
            float_lists.append(_float_list(fitted, case))
            packed_lists.append(_table_list(table, case))
            reference_lists.append(popular[:5])
    float_quality = evaluation.ranked_quality(float_lists, held)
    quality = evaluation.ranked_quality(packed_lists, held)
    reference = evaluation.ranked_quality(reference_lists, held)
    serving: Ranked | None = None
    if champion_bundle is not None:
        table = Neighbours(champion_bundle.passport.items, champion_bundle.tables)
        serving = evaluation.ranked_quality([_table_list(table, case) for case in held], held)
    progress(0.8, "sealing")
    fitted = collaborative.fit(cases, settings)
    packed = _packed_neighbours(fitted)
    tables = _neighbour_tables(fitted)
    profiles = [_profile(case) for case in held]
    exact = np.stack([fitted.scores(profile) for profile in profiles])
    rounded = np.stack([packed.scores(profile) for profile in profiles])
    inputs, outputs = parity.golden_profiles(fitted.items, tables, profiles, 5)
    split = (
        f"newest {len(held)} of {len(cases)} cases, learned block by block from the cases before; "
        "the sealed tables are fitted on all cases with the same settings"
    )
    draft = Draft(
        slot=ITEMS,
        family="recommend",
        algorithm="item_neighbours",
        version=world.versions.get(ITEMS, 1),
        runtime=Runtime.NEIGHBOURS,
        items=fitted.items,
        tables=tables,
        lineage=world.lineage(seed, {**asdict(settings), "data_until_ms": cases[-1].time_ms}),
        quality=[
            Quality(
                metric=metric,
                lower_is_better=False,
                model=getattr(quality, name),
                reference=getattr(reference, name),
                reference_name="popularity",
                champion=None if serving is None else getattr(serving, name),
                split=split,
                n=quality.n,
            )
            for metric, name in (("ndcg_at_5", "ndcg"), ("hit_at_3", "hit"))
        ],
        parity=parity.compare(exact, rounded, float_quality.ndcg, quality.ndcg, lower_is_better=False),
        golden=Golden(atol=1e-5, rtol=1e-5),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=int(
            fitted.similarity.data.nbytes + fitted.similarity.indices.nbytes + fitted.similarity.indptr.nbytes
        ),
        latency_us=parity.latency_us(lambda: packed.rank(profiles[-1], 5, CANDIDATES)),
        intended_use="Ranks maintenance actions and spare parts for what was seen; a person decides.",
        limits="Knows only items of finished work orders and answers; says nothing about cost or stock.",
        words=f"A right item was among the first three in {quality.hit:.0%} of cases.",
        because=world.because,
    )
    progress(1.0, "item neighbours sealed")
    return [Candidate(*seal(draft))]


def _first_held_out(cases: list[Case], champion: Bundle | None) -> int:
    """Index of the first held-out case: those the champion has not seen, if there are enough; else the newest
    quarter."""
    if champion is not None:
        until = int(champion.passport.lineage.parameters.get("data_until_ms", "0"))
        unseen = next((i for i, case in enumerate(cases) if case.time_ms > until), len(cases))
        if len(cases) - unseen >= 8 and unseen >= 8:
            return unseen
    return len(cases) - len(cases) // 4


def _chosen_settings(cases: list[Case]) -> CollaborativeSettings:
    cut = len(cases) - max(len(cases) // 4, 1)
    tried = [
        CollaborativeSettings(shrinkage=shrinkage, answer_weight=weight)
        for shrinkage in (5.0, 1.0, 20.0)
        for weight in (3.0, 1.0, 6.0)
    ]
    best, best_ndcg = tried[0], -1.0
    for settings in tried:
        fitted = collaborative.fit(cases[:cut], settings)
        ndcg = evaluation.ranked_quality([_float_list(fitted, case) for case in cases[cut:]], cases[cut:]).ndcg
        if ndcg > best_ndcg + 1e-9:
            best, best_ndcg = settings, ndcg
    return best


def _profile(case: Case) -> dict[str, float]:
    return dict.fromkeys(case.profile, 1.0)


def _float_list(fitted: FittedNeighbours, case: Case) -> list[str]:
    score = fitted.scores(_profile(case))
    order = np.lexsort((np.arange(len(score)), -np.round(score, 9)))
    return [fitted.items[i] for i in order if score[i] > 0 and fitted.items[i].startswith(CANDIDATES)][:5]


def _table_list(table: Neighbours, case: Case) -> list[str]:
    return [found.item for found in table.rank(_profile(case), 5, CANDIDATES)]


def _neighbour_tables(fitted: FittedNeighbours) -> dict[str, NDArray[np.generic]]:
    rows = fitted.similarity
    return neighbour_tables(rows.indptr, rows.indices, rows.data)


def _packed_neighbours(fitted: FittedNeighbours) -> Neighbours:
    return Neighbours(fitted.items, _neighbour_tables(fitted))
