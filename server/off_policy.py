"""What another recommender would have been worth, judged by the lists that were shown: before it is rolled out.

Every shown item was logged with the chance that its place got it. Under the item-position model (Li et al. 2018) each
answered place is one trial: context, item, chance, reward. Four estimates of the share of items that people would accept:

direct method (DM)   a reward model's answer for what the candidate would show; needs no chances, inherits the model's bias
IPS, SNIPS           rewards weighted by chance under the candidate / chance as logged (Swaminathan & Joachims 2015)
doubly robust (DR)   DM plus the weighted mean of the model's errors (Dudik et al. 2011), self-normalised; the model never
                     saw the trial it is asked about (cross-fitting, Chernozhukov et al. 2018)

Standard errors hold for whole lists: places of one list are not taken for independent. Where the candidate shows what was
hardly ever shown, nothing can be said, and that is what is said."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol.recommending import strengths, verdicts
from protocol.windows import Floats
from server.database import FeedbackRow, RecommendationRow, ReportRow

Ints = NDArray[np.intp]
Lists = Callable[[Mapping[str, float], int], Sequence[str]]
"""A recommender: (profile, how many) -> items in the order in which they would be shown."""
FOLDS = 5
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""How strongly an item's own weights are held to those that all items share; one of them is chosen out of fold."""
LIMITS = (50.0, 20.0, 10.0, 5.0)
"""Limits of the weights that the doubly robust estimate chooses among."""
MOST_TOKENS = 100
LEAST_EFFECTIVE = 50.0
LEAST_SUPPORT = 0.5
ERRORS_WORSE = 2.0


@dataclass(frozen=True)
class Trial:
    """A place of a list shown at time_ms that was answered: reward 1 (accepted) or 0 (rejected or corrected)."""

    shown: str
    profile: Mapping[str, float]
    item: str
    position: int
    propensity: float
    reward: float
    time_ms: int = 0


@dataclass(frozen=True)
class Estimate:
    """value: mean reward of an answered place. effective_n: how many trials the weighted ones are worth. support: the mean
    weight, 1 if everything that the candidate shows was shown now and then. lift: value less that of the logged lists (or of
    the recommender it is compared with), its error from the same trials."""

    method: str
    value: float
    standard_error: float
    n: int
    effective_n: float
    support: float
    logged_value: float
    lift: float
    lift_error: float

    @property
    def enough(self) -> bool:
        """Whether there is overlap enough to judge."""
        return self.effective_n >= LEAST_EFFECTIVE and self.support >= LEAST_SUPPORT

    def words(self) -> str:
        """The figure, and what it rests on."""
        if not self.enough:
            return (
                f"{self.n} answered places are worth {self.effective_n:.0f} for what it would show (support"
                f" {self.support:.0%}): too few to judge; let lists experiment, or wait for more answers"
            )
        return (
            f"accepted {self.value:.3f} +- {self.standard_error:.3f}, {self.lift:+.3f} +- {self.lift_error:.3f} against"
            f" what serves; {self.n} answered places worth {self.effective_n:.0f}"
        )


# from the log ---------------------------------------------------------------------------------------------------------


def logged(session: Session, since_ms: int = 0, unanswered: float | None = None) -> list[Trial]:
    """Stored lists and what people said of them. The newest answer to an item stands; "too late" says nothing of the item;
    what nobody answered is left out, unless `unanswered` declares its reward (for lists that got some answer)."""
    shown = {
        (row.gateway, row.recommendation_id): row
        for row in session.scalars(select(RecommendationRow).where(RecommendationRow.issued_ms >= since_ms))
    }
    by_event = {(row.gateway, row.event_id): row for row in shown.values()}
    for report in session.scalars(select(ReportRow).where(ReportRow.issued_ms >= since_ms)):
        carried = by_event.get((report.gateway, report.event_id))
        if carried is not None:
            shown.setdefault((report.gateway, report.report_id), carried)
    said: dict[int, dict[str, float]] = {}
    rows = {row.id: row for row in shown.values()}
    for answer in session.scalars(select(FeedbackRow).order_by(FeedbackRow.time_ms, FeedbackRow.id)):
        row = shown.get((answer.gateway, answer.target))
        if row is not None:
            offered = [str(item["item"]) for item in row.body.get("items", [])]
            new = verdicts(offered, answer.verdict, answer.item, answer.correction)
            said[row.id] = said.get(row.id, {}) | new
    return [trial for number, of in said.items() for trial in _trials(rows[number], of, unanswered)]


def _trials(row: RecommendationRow, said: Mapping[str, float], unanswered: float | None) -> list[Trial]:
    name, profile = f"{row.gateway}/{row.recommendation_id}", strengths(map(str, row.body.get("profile", [])))
    made = []
    for item in row.body.get("items", []):
        verdict = said.get(str(item["item"]))
        if verdict is None and (unanswered is None or not said):
            continue
        reward = float(unanswered or 0.0) if verdict is None else float(verdict > 0)
        made.append(
            Trial(
                name,
                profile,
                str(item["item"]),
                int(item["position"]),
                float(item.get("propensity", 1.0)),
                reward,
                row.issued_ms,
            )
        )
    return made


# what a candidate is worth ---------------------------------------------------------------------------------------------


def evaluate(candidate: Lists, events: Sequence[Trial], serving: Lists | None = None) -> Estimate | None:
    """The doubly robust estimate of a candidate. Its lift is over `serving`, judged by the same trials, or over the logged
    lists as they were. None without events."""
    if not events:
        return None
    items = sorted({event.item for event in events})
    log = _log(events, items, candidate)
    found, influence = _doubly_robust(log)
    if serving is None:
        return found
    against, before = _doubly_robust(log.under(_placed(events, items, serving)))
    return Estimate(
        **{
            **found.__dict__,
            "effective_n": min(found.effective_n, against.effective_n),
            "support": min(found.support, against.support),
            "lift": found.value - against.value,
            "lift_error": _error(influence - before, log.lists),
        }
    )


def gate(candidate: Lists, events: Sequence[Trial], serving: Lists | None = None) -> tuple[bool, str]:
    """Whether a candidate may be rolled out, and the words for its verdict: not if it is worse than what serves by more
    than two standard errors. Where too little is known to judge, it may, and the words say so."""
    found = evaluate(candidate, events, serving)
    if found is None:
        return True, "answered lists: none yet, not judged by them"
    if not found.enough:
        return True, f"answered lists: {found.words()}"
    ok = found.lift >= -ERRORS_WORSE * found.lift_error
    return ok, f"answered lists: {found.words()}{'' if ok else ', worse by more than two standard errors'}"


@dataclass(frozen=True)
class Log:
    """N trials over A items. rewards, propensities [N]; chosen [N]: item; contexts [N, D]; lists [N]: number of the list;
    target [N, A]: the chance that the candidate shows each item at the trial's place. Rows of `target` may sum to less than
    1 where it shows something that was never logged: the rest is worth what the average item is."""

    rewards: Floats
    propensities: Floats
    chosen: Ints
    contexts: Floats
    lists: Ints
    target: Floats

    def under(self, target: Floats) -> Log:
        """The same trials for another candidate."""
        return Log(self.rewards, self.propensities, self.chosen, self.contexts, self.lists, target)

    @property
    def weights(self) -> Floats:
        """Chance under the candidate over chance as logged [N]."""
        ratio: Floats = self.target[np.arange(len(self.chosen)), self.chosen] / self.propensities
        return ratio


def estimates(log: Log) -> dict[str, Estimate]:
    """dm, ips, snips and dr of the same trials."""
    modelled = predicted(log)
    answer, weights = _under_target(modelled, log), log.weights
    mean_weight = max(float(weights.mean()), 1e-12)
    snips = float(weights @ log.rewards) / (mean_weight * len(weights))
    made = {
        "dm": (float(answer.mean()), answer),
        "ips": (float((weights * log.rewards).mean()), weights * log.rewards),
        "snips": (snips, snips + weights / mean_weight * (log.rewards - snips)),
    }
    found = {name: _estimate(name, value, influence, log) for name, (value, influence) in made.items()}
    return found | {"dr": _doubly_robust(log, modelled)[0]}


def _doubly_robust(log: Log, modelled: Floats | None = None) -> tuple[Estimate, Floats]:
    """The estimate and each trial's influence on it [N]. Weights are limited at the one of LIMITS that gives the smallest
    standard error and does not move the estimate by more than two standard errors of that move: further than that is
    bias (after Lepski; for off-policy values Su, Srinath and Krishnamurthy 2020)."""
    modelled = predicted(log) if modelled is None else modelled
    answer, weights = _under_target(modelled, log), log.weights
    missed = log.rewards - modelled[np.arange(len(log.chosen)), log.chosen]
    whole, influence = best = _corrected(answer, weights, missed)
    least = _error(influence, log.lists)
    for limit in LIMITS:
        if limit < weights.max():
            value, limited = _corrected(answer, np.minimum(weights, limit), missed)
            error = _error(limited, log.lists)
            if error < least and abs(value - whole) <= 2 * _error(limited - influence, log.lists):
                best, least = (value, limited), error
    return _estimate("dr", *best, log), best[1]


def _corrected(answer: Floats, weights: Floats, missed: Floats) -> tuple[float, Floats]:
    """DM plus the self-normalised mean error, and the influence of each trial."""
    mean_weight = float(weights.mean())
    if mean_weight <= 0:
        return float(answer.mean()), answer
    correction = float((weights * missed).mean()) / mean_weight
    influence: Floats = answer + correction + weights / mean_weight * (missed - correction)
    return float(answer.mean()) + correction, influence


def _under_target(modelled: Floats, log: Log) -> Floats:
    """What the reward model expects of the candidate at each trial's place [N]."""
    unknown = np.clip(1.0 - log.target.sum(axis=1), 0.0, 1.0)
    expected: Floats = (log.target * modelled).sum(axis=1) + unknown * modelled.mean(axis=1)
    return expected


def _estimate(method: str, value: float, influence: Floats, log: Log) -> Estimate:
    weights = log.weights
    logged_value = float(log.rewards.mean())
    squares = float(weights @ weights)
    return Estimate(
        method=method,
        value=value,
        standard_error=_error(influence, log.lists),
        n=len(weights),
        effective_n=float(weights.sum()) ** 2 / squares if squares > 0 else 0.0,
        support=float(weights.mean()),
        logged_value=logged_value,
        lift=value - logged_value,
        lift_error=_error(influence - log.rewards, log.lists),
    )


def _error(influence: Floats, lists: Ints) -> float:
    """Standard error of the mean, of whole lists."""
    by_list = np.bincount(lists, influence - influence.mean())
    number = len(by_list)
    return math.sqrt(float(by_list @ by_list) * number / max(number - 1, 1)) / len(influence)


# the reward model -----------------------------------------------------------------------------------------------------


def predicted(log: Log) -> Floats:
    """The chance that each item is accepted in each trial's context [N, A], from trials of other lists: logistic regression
    whose weights every item shares, with deviations of its own, penalised as does best out of fold."""
    lists = int(log.lists.max()) + 1
    fold = (np.random.default_rng(0).permutation(lists) % FOLDS)[log.lists]
    x = np.column_stack([np.ones(len(log.contexts)), log.contexts])
    rows = np.arange(len(x))
    best, least = np.full(log.target.shape, float(log.rewards.mean())), math.inf
    shared = [_shared(x[fold != f], log.rewards[fold != f]) for f in range(FOLDS)]
    for penalty in PENALTIES:
        modelled = np.zeros(log.target.shape)
        for f in range(FOLDS):
            train, test = fold != f, fold == f
            if test.any():
                own = _of_items(
                    x[train], log.rewards[train], log.chosen[train], shared[f], penalty, log.target.shape[1]
                )
                modelled[test] = _logistic(x[test] @ own.T)
        p = np.clip(modelled[rows, log.chosen], 1e-6, 1 - 1e-6)
        loss = -float((log.rewards * np.log(p) + (1 - log.rewards) * np.log1p(-p)).mean())
        if loss < least:
            best, least = modelled, loss
    return best


def _shared(x: Floats, rewards: Floats) -> Floats:
    """Weights [D] that all items share."""
    held = np.full(x.shape[1], 1.0)
    held[0] = 1e-3
    return _fitted(x, rewards, np.zeros(x.shape[1]), held)


def _of_items(x: Floats, rewards: Floats, chosen: Ints, shared: Floats, penalty: float, items: int) -> Floats:
    """Weights of each item [A, D], held to the shared ones; an item without trials has those."""
    held = np.full(x.shape[1], penalty)
    held[0] = 1.0
    own = np.tile(shared, (items, 1))
    for item in np.unique(chosen):
        mine = chosen == item
        own[item] = _fitted(x[mine], rewards[mine], shared, held)
    return own


def _fitted(x: Floats, rewards: Floats, start: Floats, held: Floats, steps: int = 8) -> Floats:
    """Logistic regression by Newton's steps, with weights [D] held to `start` by penalties [D]."""
    weights = start.copy()
    for _ in range(steps):
        p = _logistic(x @ weights)
        slope = x.T @ (rewards - p) - held * (weights - start)
        curve = (x * (p * (1 - p))[:, None]).T @ x + np.diag(held)
        move = np.linalg.solve(curve, slope)
        weights = weights + move
        if np.abs(move).max() < 1e-6:
            break
    return weights


def _logistic(z: Floats) -> Floats:
    p: Floats = 1.0 / (1.0 + np.exp(-np.clip(z, -30, 30)))
    return p


# trials as numbers ----------------------------------------------------------------------------------------------------


def _log(events: Sequence[Trial], items: list[str], candidate: Lists) -> Log:
    place = {item: i for i, item in enumerate(items)}
    lists: dict[str, int] = {}
    return Log(
        rewards=np.array([event.reward for event in events]),
        propensities=np.array([event.propensity for event in events]),
        chosen=np.array([place[event.item] for event in events], dtype=np.intp),
        contexts=_contexts(events),
        lists=np.array([lists.setdefault(event.shown, len(lists)) for event in events], dtype=np.intp),
        target=_placed(events, items, candidate),
    )


def _contexts(events: Sequence[Trial]) -> Floats:
    """The commonest tokens and how far down the list the place is [N, D]."""
    heard: Counter[str] = Counter(name for event in events for name in event.profile)
    names = [name for name, n in sorted(heard.items(), key=lambda one: (-one[1], one[0])) if n < len(events)]
    column = {name: i for i, name in enumerate(names[:MOST_TOKENS])}
    contexts = np.zeros((len(events), len(column) + 1))
    for row, event in enumerate(events):
        contexts[row, -1] = math.log2(event.position)
        for name, strength in event.profile.items():
            if name in column:
                contexts[row, column[name]] = strength
    return contexts


def _placed(events: Sequence[Trial], items: list[str], candidate: Lists) -> Floats:
    """Where a recommender would put the items: 1 for the item that it shows at the trial's place [N, A]."""
    place = {item: i for i, item in enumerate(items)}
    depth = max(event.position for event in events)
    known: dict[str, Any] = {}
    target = np.zeros((len(events), len(items)))
    for row, event in enumerate(events):
        if event.shown not in known:
            known[event.shown] = candidate(event.profile, depth)
        shown = known[event.shown]
        if event.position <= len(shown) and shown[event.position - 1] in place:
            target[row, place[shown[event.position - 1]]] = 1.0
    return target
