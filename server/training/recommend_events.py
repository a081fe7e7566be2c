"""From who chose what to a sealed recommender of any items: settings and weights from the older choices, figures from each
user's newest ones, tables from all.

The same events and seed give the same bundle to the last byte, whatever the order of the table's rows: the lineage names the
newest event instead of the hour of training, and nothing that was measured with a clock is sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

import msgspec
import numpy as np
from scipy import sparse

from export import parity
from export.bounds import RECOMMENDER
from export.bundle import Draft, seal
from protocol.bundles import Golden, Parity, Quality, Runtime
from protocol.catalogue import ItemCard, token_card
from protocol.choices import CHOICES, ChoiceColumns, Choices
from protocol.errors import BadSettings, Reason, Refused
from protocol.recommending import PARTS, RecommendSpec
from protocol.recordings import Finding
from protocol.tables import Hybrid
from protocol.windows import Floats
from server.algorithms import linear_items
from server.algorithms.content_based import ContentSettings, FittedContent, fit_content
from server.algorithms.hybrid import FittedHybrid, HybridSettings, chosen_settings, fit_hybrid
from server.algorithms.interactions import Event, Interactions, interactions
from server.algorithms.lessons import Mask, covering
from server.algorithms.linear_items import LinearSettings
from server.training import certainty
from server.training.circumstances import DIGITS, Candidate, Circumstances, Progress
from server.training.held_choices import TOP, Figures, HeldOut, Scores, hold_out, judged, lists_of, ones
from server.training.hybrid_tables import PackedHybrid, packed
from server.training.recommend import ITEMS

MOST_ITEMS = 50_000
MOST_NAME_BYTES = 3_000_000
"""Of the names that a passport holds."""
MOST_JUDGED = 1000
LEAST_JUDGED = 20
MOST_TUNED = 1_000_000
"""Entries up to which settings are chosen; beyond, the usual ones stand."""
MOST_LINEAR = 3000
"""Users or items, whichever are fewer, up to which the linear model is fitted for comparison."""
PENALTIES = (10.0, 100.0, 500.0)
SHOWN_LENGTHS = (1, 2, 4, 8, 16, 32)
POPULARITY, LINEAR, HYBRID = "popularity", "linear_items", "hybrid"
ALONE = {"items": "item_neighbours", "users": "user_neighbours", "content": "content_based"}
PARITY_ROWS = 100
MOST_COMPARED = 300
"""Users of each length of profile whose lists by float and by int8 are compared."""


@dataclass(frozen=True)
class EventPlan:
    """half_life_days: age at which a choice counts half (None: never). candidates: prefixes of what may be recommended (none:
    everything). most_users: past rows that a bundle holds, the newest."""

    half_life_days: float | None = None
    candidates: tuple[str, ...] = ()
    most_users: int = 20_000
    seed: int = 7


@dataclass(frozen=True)
class ModelFigure:
    """A model's means over the judged users, and by how much its nDCG is above popularity's, paired by user, with that
    difference's standard error."""

    name: str
    ndcg: float
    recall: float
    above: float
    error: float


@dataclass(frozen=True)
class LengthFigure:
    """nDCG by model of users of whom only the newest `known` choices were told."""

    known: int
    users: int
    ndcg: dict[str, float]


@dataclass(frozen=True)
class Learned:
    """candidate: sealed. figures: popularity first. weights: {lower edge of the profile's length: {part: weight}}."""

    candidate: Candidate
    figures: list[ModelFigure]
    lengths: list[LengthFigure]
    weights: dict[int, dict[str, float]]
    users: int
    items: int
    entries: int
    kept_users: int
    split: str
    latency_us: float
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class _World:
    """What is learned from: events over all items, cards among them, what may be recommended."""

    events: Interactions
    cards: Mapping[str, ItemCard]
    content: FittedContent | None
    vectors: Floats | None
    offered: Mask


@dataclass(frozen=True)
class _Cost:
    """Mean nDCG of the same lists by float and by int8, over every length of profile: more lists than users, so that a tie
    that falls the other way decides nothing."""

    of_float: float
    of_packed: float


def train_recommend_events(
    choices: Choices, cards: Mapping[str, ItemCard], layout: ChoiceColumns, plan: EventPlan, progress: Progress
) -> Learned:
    """Raises Refused where there is nothing to learn from or to judge by, BadSettings where the plan does not fit the table;
    the messages name the remedy."""
    findings: list[Finding] = []
    world = _world(choices, cards, plan, findings)
    progress(0.1, f"{len(world.events.users)} users, {len(world.events.items)} items")
    held = hold_out(world.events, MOST_JUDGED, plan.seed, world.offered)
    if len(held.rows) < LEAST_JUDGED:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"{len(held.rows)} users chose two or more items that may be recommended; {LEAST_JUDGED} are needed to judge a "
            "model: record longer, or check which columns are users and items",
        )
    settings = _settings(held.earlier, world, plan, findings)
    progress(0.45, f"shrinkage {settings.items.shrinkage:g}, {settings.alike} past rows vote")
    rehearsed = _fit(held.earlier, world, settings, plan)
    progress(0.6, "weights learned from older choices")
    table = packed(rehearsed, world.content, keep_past=True).hybrid()
    figures, means = _figures(held, rehearsed, table, world, plan, findings)
    lengths, cost = _by_length(held, rehearsed, table, world)
    progress(0.75, "judged on the newest choices")
    fitted = _fit(world.events, world, settings, plan)
    made = packed(fitted, world.content, keep_past=True)
    progress(0.95, "sealing")
    candidate, latency = _sealed(fitted, made, world, choices, layout, plan, settings, held, figures, cost)
    return Learned(
        candidate=candidate,
        figures=means,
        lengths=lengths,
        weights={
            low: dict(zip(PARTS, row.tolist(), strict=True))
            for low, row in zip(fitted.lengths, np.round(fitted.weights, 3), strict=True)
        },
        users=len(world.events.users),
        items=len(world.events.items),
        entries=int(world.events.matrix.nnz),
        kept_users=len(made.users),
        split=_split_words(held),
        latency_us=round(latency, 1),
        findings=findings,
    )


def _world(choices: Choices, cards: Mapping[str, ItemCard], plan: EventPlan, findings: list[Finding]) -> _World:
    if len(choices.users) < 2:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"all events are of one user ({choices.users[0]}): nobody to learn from; is --user right?",
        )
    if len(choices.items) < 2:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"all events are of one item ({choices.items[0]}): nothing to choose from; is --item right?",
        )
    if plan.half_life_days is not None and choices.times_ms is None:
        raise BadSettings("--half-life-days needs times: say --time COLUMN, or leave it out")
    events = lasting(softened(_limited(interactions(_events(choices), half_life_days=plan.half_life_days), findings)))
    events = covering(events, list(cards)[: max(MOST_ITEMS - len(events.items), 0)])
    _say_cards(events, choices, cards, findings)
    offered = np.array(
        [name.startswith(plan.candidates) if plan.candidates else True for name in events.items], dtype=bool
    )
    if not offered.any():
        raise BadSettings(
            f"--candidates {' '.join(plan.candidates)}: no item starts so; items are {_few(events.items)}"
        )
    size = sum(len(name.encode()) + 8 for name in (*events.items, *events.users[: plan.most_users]))
    if size > MOST_NAME_BYTES:
        raise Refused(
            Reason.TOO_LARGE,
            f"names of items and users take {size} bytes; a bundle holds {MOST_NAME_BYTES}: give shorter names, or fewer",
        )
    if len(events.users) > plan.most_users:
        words = (
            f"the bundle holds the newest {plan.most_users} of {len(events.users)} users; items are learned from all"
        )
        findings.append(Finding("newest_users", len(events.users) - plan.most_users, words))
    if not cards:
        return _World(events, cards, None, None, offered)
    known = [cards.get(name) or token_card(name) for name in events.items]
    content = fit_content(known, ContentSettings())
    return _World(events, cards, content, content.encode(known), offered)


def _events(choices: Choices) -> Iterator[Event]:
    times = choices.times_ms.tolist() if choices.times_ms is not None else [None] * len(choices.who)
    for who, what, value, at in zip(
        choices.who.tolist(), choices.what.tolist(), choices.values.tolist(), times, strict=True
    ):
        yield choices.users[who], choices.items[what], value, at


def _limited(events: Interactions, findings: list[Finding]) -> Interactions:
    """The most chosen MOST_ITEMS items."""
    surplus = len(events.items) - MOST_ITEMS
    if surplus <= 0:
        return events
    findings.append(
        Finding("seldom", surplus, f"{surplus} items that fewest users chose were left out; {MOST_ITEMS} are learned")
    )
    many = np.bincount(events.matrix.indices, minlength=len(events.items))
    kept = np.sort(np.argsort(-many, kind="stable")[:MOST_ITEMS])
    times = None if events.times_ms is None else sparse.csr_matrix(events.times_ms[:, kept])
    matrix = sparse.csr_matrix(events.matrix[:, kept])
    return replace(events, items=[events.items[i] for i in kept], matrix=matrix, times_ms=times)


def softened(events: Interactions) -> Interactions:
    """What is above 1 grows with its logarithm: a dozen is surer than one, not twelve times as sure."""
    data = events.matrix.data
    return _with(events, np.where(data > 1, 1 + np.log(np.maximum(data, 1)), data))


def lasting(events: Interactions) -> Interactions:
    """No entry below a 127th of its row's largest, which would be lost in int8: what was chosen is never offered again."""
    lengths = np.diff(events.matrix.indptr)
    largest = np.asarray(events.matrix.max(axis=1).todense()).ravel()
    return _with(events, np.maximum(events.matrix.data, np.repeat(largest / 127, lengths)))


def _with(events: Interactions, data: Floats) -> Interactions:
    matrix = events.matrix
    made = sparse.csr_matrix((data.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
    return replace(events, matrix=made)


def _say_cards(events: Interactions, choices: Choices, cards: Mapping[str, ItemCard], findings: list[Finding]) -> None:
    if not cards:
        return
    chosen = set(choices.items)
    new = [name for name in cards if name not in chosen]
    if new:
        words = (
            f"{len(new)} items of the items' table were chosen by nobody yet: content alone can rank them ({_few(new)})"
        )
        findings.append(Finding("not_chosen_yet", len(new), words))
    bare = [name for name in events.items if name not in cards]
    if bare:
        words = (
            f"{len(bare)} chosen items have no attributes in the items' table: known by choices alone ({_few(bare)})"
        )
        findings.append(Finding("no_card", len(bare), words))


def _few(names: list[str]) -> str:
    return ", ".join(name[:40] for name in names[:5]) + (", …" if len(names) > 5 else "")


def _settings(earlier: Interactions, world: _World, plan: EventPlan, findings: list[Finding]) -> HybridSettings:
    usual = HybridSettings(most_users=plan.most_users)
    if earlier.matrix.nnz > MOST_TUNED:
        words = f"{earlier.matrix.nnz} choices: the usual settings of neighbours were taken, none were tried out"
        findings.append(Finding("not_tuned", int(earlier.matrix.nnz), words))
        return usual
    return chosen_settings(earlier, usual, vectors=world.vectors, offered=world.offered, seed=plan.seed)


def _fit(events: Interactions, world: _World, settings: HybridSettings, plan: EventPlan) -> FittedHybrid:
    return fit_hybrid(events, settings, vectors=world.vectors, offered=world.offered, seed=plan.seed)


def _figures(
    held: HeldOut, fitted: FittedHybrid, table: Hybrid, world: _World, plan: EventPlan, findings: list[Finding]
) -> tuple[dict[str, Figures], list[ModelFigure]]:
    """Every model's figures; the hybrid's are those of its tables, as a gateway ranks."""

    def of(scores: Scores) -> Figures:
        return judged(lists_of(scores, held.known, held.known, world.offered), held.wanted, world.offered)

    found = {name: of(scores) for name, scores in _alone(held, fitted, world).items()}
    if min(held.earlier.matrix.shape) <= MOST_LINEAR:
        found[LINEAR] = of(_linear(held.earlier, world, plan).score_rows)
    else:
        words = f"the linear model was not fitted for comparison: more than {MOST_LINEAR} users and items"
        findings.append(Finding("no_linear", min(held.earlier.matrix.shape), words))
    found[HYBRID] = _as_sealed(table, held.known, held.known, held.wanted, world)
    return found, [_mean(name, figures, found[POPULARITY]) for name, figures in found.items()]


def _alone(held: HeldOut, fitted: FittedHybrid, world: _World) -> dict[str, Scores]:
    """The simple reference and every part by itself."""

    def part(place: int) -> Scores:
        return lambda rows: fitted.parts.raw(rows)[place]

    found: dict[str, Scores] = {POPULARITY: lambda rows: _popularity(held.earlier, rows.shape[0])}
    found |= {name: part(PARTS.index(which)) for which, name in ALONE.items()}
    if world.vectors is None:
        del found[ALONE["content"]]
    return found


def _popularity(events: Interactions, rows: int) -> Floats:
    """The simple reference: how many users chose an item [B, n]."""
    many = np.bincount(events.matrix.indices, minlength=len(events.items)).astype(np.float64)
    return np.broadcast_to(many, (rows, len(many)))


def _linear(earlier: Interactions, world: _World, plan: EventPlan) -> linear_items.LinearItems:
    """With the penalty that does best on the newest of the older choices."""
    inner = hold_out(earlier, MOST_JUDGED, plan.seed, world.offered)

    def worth(penalty: float) -> float:
        scores = linear_items.fit(inner.earlier, LinearSettings(penalty=penalty)).score_rows
        lists = lists_of(scores, inner.known, inner.known, world.offered)
        return round(float(judged(lists, inner.wanted, world.offered).ndcg.sum()), 9)

    return linear_items.fit(earlier, LinearSettings(penalty=max(PENALTIES, key=worth)))


def _as_sealed(
    table: Hybrid, profiles: sparse.csr_matrix, closed: sparse.csr_matrix, wanted: sparse.csr_matrix, world: _World
) -> Figures:
    """What the tables reach for profiles [B, n]; closed [B, n]: what is not shown."""
    lists = np.full((profiles.shape[0], TOP), -1, dtype=np.int64)
    barred = frozenset(name for name, may in zip(table.items, world.offered, strict=True) if not may)
    for b in range(len(lists)):
        profile = {table.items[i]: 1.0 for i in profiles.indices[profiles.indptr[b] : profiles.indptr[b + 1]]}
        own = (table.items[i] for i in closed.indices[closed.indptr[b] : closed.indptr[b + 1]])
        for place, one in enumerate(table.rank(profile, TOP, exclude=barred.union(own), reasons=False)):
            lists[b, place] = table.index[one.item]
    return judged(lists, wanted, world.offered)


def _mean(name: str, found: Figures, reference: Figures) -> ModelFigure:
    gap = found.ndcg - reference.ndcg
    error = float(gap.std(ddof=1) / np.sqrt(len(gap)))
    return ModelFigure(
        name,
        round(float(found.ndcg.mean()), DIGITS),
        round(float(found.recall.mean()), DIGITS),
        round(float(gap.mean()), DIGITS),
        round(error, DIGITS),
    )


def _by_length(held: HeldOut, fitted: FittedHybrid, table: Hybrid, world: _World) -> tuple[list[LengthFigure], _Cost]:
    """What each part is worth when only the newest few choices are told, and what int8 costs over all these lists. All that
    a user had chosen is closed."""
    made, of_float, of_packed = [], [], []
    for known in (*SHOWN_LENGTHS, None):
        places, profiles = held.shortened(known) if known else (np.arange(len(held.rows)), held.known)
        if known and len(places) < LEAST_JUDGED:
            continue
        closed, wanted = held.known[places], held.wanted[places]
        some = np.arange(min(len(places), MOST_COMPARED))
        exact = judged(lists_of(fitted.score_rows, profiles, closed, world.offered), wanted, world.offered)
        of_float.append(exact.ndcg[some])
        of_packed.append(_as_sealed(table, profiles[some], closed[some], wanted[some], world).ndcg)
        if known:
            ndcg = {}
            for name, scores in _alone(held, fitted, world).items():
                figures = judged(lists_of(scores, profiles, closed, world.offered), wanted, world.offered)
                ndcg[name] = round(float(figures.ndcg.mean()), DIGITS)
            ndcg[HYBRID] = round(float(exact.ndcg.mean()), DIGITS)
            made.append(LengthFigure(known, len(places), ndcg))
    return made, _Cost(float(np.concatenate(of_float).mean()), float(np.concatenate(of_packed).mean()))


def _sealed(
    fitted: FittedHybrid,
    made: PackedHybrid,
    world: _World,
    choices: Choices,
    layout: ChoiceColumns,
    plan: EventPlan,
    settings: HybridSettings,
    held: HeldOut,
    figures: dict[str, Figures],
    cost: _Cost,
) -> tuple[Candidate, float]:
    """(the bundle, microseconds of one list of ten)."""
    until = int(choices.times_ms.max()) if choices.times_ms is not None else 0
    table = made.hybrid()
    profiles = [dict.fromkeys(table.row_of(user), 1.0) for user in made.users]
    inputs, outputs = parity.golden_lists(made.items, made.users, made.tables, profiles, TOP)
    about = Circumstances(canonical_digest(choices, world.cards), len(choices.who), until)
    parameters: dict[str, object] = {
        CHOICES: msgspec.json.encode(layout).decode(),
        "items": asdict(settings.items),
        "alike": settings.alike,
        "popular": settings.popular,
        "half_life_days": plan.half_life_days,
    }
    draft = Draft(
        slot=ITEMS,
        family="recommend",
        algorithm="hybrid",
        version=1,
        runtime=Runtime.HYBRID,
        items=made.items,
        users=made.users,
        recommend=RecommendSpec(
            candidates=list(plan.candidates),
            lengths=list(fitted.lengths),
            half_life_days=plan.half_life_days or 365.0,
            data_until_ms=until,
        ),
        tables=made.tables,
        lineage=about.lineage(plan.seed, parameters),
        quality=_quality(figures, _split_words(held)),
        parity=_parity(fitted, table, cost),
        golden=Golden(atol=1e-5, rtol=1e-5),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=made.float_bytes,
        latency_us=0.0,
        intended_use="Ranks items for a user by what he and others chose, and by what items are; a person decides.",
        limits="Knows what was chosen, not why; nothing about price or stock. Holds what each named user chose.",
        because="trained on a table of events",
    )
    profile = sorted(profiles, key=len)[len(profiles) // 2]
    return Candidate(*seal(draft)), parity.latency_us(lambda: table.rank(profile, TOP, plan.candidates))


def canonical_digest(choices: Choices, cards: Mapping[str, ItemCard]) -> str:
    """sha256 of what was learned from, whatever the order of rows or the format of the file."""
    found = hashlib.sha256(msgspec.json.encode([choices.users, choices.items, list(cards.values())]))
    times = choices.times_ms if choices.times_ms is not None else np.zeros(len(choices.who), dtype=np.int64)
    order = np.lexsort((choices.values, times, choices.what, choices.who))
    for column in (choices.who, choices.what, times, choices.values):
        found.update(np.ascontiguousarray(column[order]).tobytes())
    return found.hexdigest()


def _quality(figures: dict[str, Figures], split: str) -> list[Quality]:
    between = {name: certainty.of_mean(getattr(figures[HYBRID], name)) for name in ("ndcg", "recall")}
    return [
        Quality(
            metric=metric,
            lower_is_better=False,
            model=round(float(getattr(figures[HYBRID], name).mean()), DIGITS),
            reference=round(float(getattr(figures[POPULARITY], name).mean()), DIGITS),
            reference_name=POPULARITY,
            low=between[name][0],
            high=between[name][1],
            split=split,
            n=len(figures[HYBRID].ndcg),
        )
        for metric, name in (("ndcg_at_10", "ndcg"), ("recall_at_10", "recall"))
    ]


def _parity(fitted: FittedHybrid, table: Hybrid, cost: _Cost) -> Parity:
    """Scores of a few spread users by float and by int8, and what both reach on held-out choices."""
    rows = np.unique(np.linspace(0, len(table.users) - 1, min(PARITY_ROWS, len(table.users))).astype(np.int64))
    profiles = [dict.fromkeys(table.row_of(table.users[row]), 1.0) for row in rows]
    ids = [np.array([table.index[name] for name in profile], dtype=np.int64) for profile in profiles]
    exact = fitted.score_rows(ones(ids, len(table.items)))
    rounded = np.stack([table.scores(profile) for profile in profiles])
    return parity.compare(exact, rounded, cost.of_float, cost.of_packed, lower_is_better=False, bound=RECOMMENDER)


def _split_words(held: HeldOut) -> str:
    which = "newest" if held.timed else "a drawn"
    return (
        f"the {which} fifth of each user's choices, {len(held.rows)} users judged, every item on offer that a user had not "
        "chosen competes; other users' later choices are known to the models; the sealed tables are fitted on all choices"
        if held.timed
        else f"{which} fifth of each user's choices (there are no times), {len(held.rows)} users judged, every item on offer "
        "that a user had not chosen competes; the sealed tables are fitted on all choices"
    )
