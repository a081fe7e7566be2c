"""How well another recommender is judged by the lists that were shown: a simulated plant whose truth is known.

    python benchmarks/recommend_off_policy.py --json

A context is one of 3 machine types and some of 8 symptoms; 12 actions, each accepted with a chance that depends on both.
The lists that are logged come from a recommender that knows the truth roughly; the one to be judged knows it better or worse.
Both show an action by chance. Nothing of the truth reaches an estimate: penalties and limits are chosen out of fold."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from contract import Sheet, run  # isort: skip  (sets the threads before numpy comes)

import numpy as np
from numpy.typing import NDArray

from server.off_policy import Log, estimates

Floats = NDArray[np.float64]
TYPES, SYMPTOMS, ACTIONS = 3, 8, 12
SEEN = 0.25
METHODS = ("dm", "ips", "snips", "dr")
WITHOUT, BLIND = "dr without propensities", "dr with a blind reward model"
IPS_WITHOUT = "ips without propensities"
DM_BLIND = "dm with a blind reward model"
ALL = (*METHODS, WITHOUT, IPS_WITHOUT, BLIND, DM_BLIND)
LEAST_LIFT = 0.05
TARGET, IN_ORDER = 0.025, 0.95


@dataclass(frozen=True)
class Plant:
    """Every context [C, D] with its chance [C], the chance that each action is accepted there [C, A], and both policies."""

    contexts: Floats
    chance: Floats
    accepted: Floats
    logging: Floats
    candidate: Floats

    def worth(self, policy: Floats) -> float:
        """The true value of a policy [C, A]."""
        return float(self.chance @ (policy * self.accepted).sum(axis=1))


def plant(rng: np.random.Generator) -> Plant:
    """A plant, the recommender that serves, and another that is better in half of all plants."""
    symptoms = ((np.arange(2**SYMPTOMS)[:, None] >> np.arange(SYMPTOMS)) & 1).astype(np.float64)
    each = np.prod(np.where(symptoms > 0, SEEN, 1 - SEEN), axis=1) / TYPES
    contexts = np.concatenate(
        [np.column_stack([np.tile(np.eye(TYPES)[t], (len(symptoms), 1)), symptoms]) for t in range(TYPES)]
    )
    weights = rng.normal(0, 1, (TYPES + SYMPTOMS, ACTIONS))
    logits: Floats = contexts @ weights + rng.normal(-0.5, 0.5, ACTIONS) + _together(symptoms, rng)
    rough, good = (contexts @ (weights + rng.normal(0, s, weights.shape)) for s in (1.0, 0.5))
    serving, other = (rough, good) if rng.random() < 0.5 else (good, rough)
    return Plant(
        contexts=contexts,
        chance=np.tile(each, TYPES),
        accepted=1 / (1 + np.exp(-logits)),
        logging=_softened(serving, 0.2),
        candidate=_softened(other, 0.05),
    )


def _together(symptoms: Floats, rng: np.random.Generator) -> Floats:
    """What pairs of symptoms mean beyond each of them [C, A]: no reward model of single tokens can know it."""
    pairs = [symptoms[:, i] * symptoms[:, j] for i in range(SYMPTOMS) for j in range(i)]
    meant = np.column_stack(pairs) @ rng.normal(0, 0.5, (len(pairs), ACTIONS))
    return np.tile(meant, (TYPES, 1))


def _softened(scores: Floats, even: float) -> Floats:
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    mixed: Floats = (1 - even) * likely / likely.sum(axis=1, keepdims=True) + even / ACTIONS
    return mixed


def logged(world: Plant, events: int, rng: np.random.Generator) -> Log:
    """Shown actions and their answers."""
    at = rng.choice(len(world.chance), events, p=world.chance / world.chance.sum())
    throw = rng.random((events, 1))
    chosen = np.minimum((throw > world.logging[at].cumsum(axis=1)).sum(axis=1), ACTIONS - 1)
    return Log(
        rewards=(rng.random(events) < world.accepted[at, chosen]).astype(np.float64),
        propensities=world.logging[at, chosen],
        chosen=chosen,
        contexts=world.contexts[at],
        lists=np.arange(events),
        target=world.candidate[at],
    )


@dataclass
class Judged:
    """Of each replicate: true value and lift, and for each method the estimated value, lift and standard error."""

    truth: list[tuple[float, float]]
    found: dict[str, list[tuple[float, float, float]]]

    def error(self, method: str) -> float:
        """Root mean square of the relative errors of the value."""
        value = np.array([v for v, _, _ in self.found[method]])
        true = np.array([v for v, _ in self.truth])
        return float(np.sqrt(np.mean((value / true - 1) ** 2)))

    def better(self) -> Judged:
        """Those replicates whose candidate is better by LEAST_LIFT or more."""
        kept = [i for i, (value, lift) in enumerate(self.truth) if lift >= LEAST_LIFT * (value - lift)]
        return Judged(
            [self.truth[i] for i in kept], {name: [all_[i] for i in kept] for name, all_ in self.found.items()}
        )

    def in_order(self, method: str) -> tuple[float, int]:
        """Share of replicates with a relative lift of at least LEAST_LIFT where its sign was found, and their number."""
        right = [
            (lift > 0) == (true > 0)
            for (value, true), (_, lift, _) in zip(self.truth, self.found[method], strict=True)
            if abs(true) >= LEAST_LIFT * (value - true)
        ]
        return (float(np.mean(right)) if right else float("nan")), len(right)

    def inside(self, method: str) -> float:
        """Share of replicates whose true value is within 1.96 standard errors."""
        pairs = zip(self.truth, self.found[method], strict=True)
        return float(np.mean([abs(value - true) <= 1.96 * error for (true, _), (value, _, error) in pairs]))


def judged(events: int, replicates: int, seed: int = 4) -> Judged:
    """Many plants, each with a log of its own."""
    result = Judged([], {name: [] for name in ALL})
    for replicate in range(replicates):
        rng = np.random.default_rng([seed, events, replicate])
        world = plant(rng)
        value = world.worth(world.candidate)
        result.truth.append((value, value - world.worth(world.logging)))
        log = logged(world, events, rng)
        found = estimates(log)
        often = np.bincount(log.chosen, minlength=ACTIONS) / len(log.chosen)
        without = estimates(replace(log, propensities=often[log.chosen]))
        blind = estimates(replace(log, contexts=np.zeros((events, 1))))
        found |= {WITHOUT: without["dr"], IPS_WITHOUT: without["ips"], BLIND: blind["dr"], DM_BLIND: blind["dm"]}
        for name, kept in result.found.items():
            kept.append((found[name].value, found[name].lift, found[name].standard_error))
    return result


def measure(sheet: Sheet) -> None:
    replicates = 20 if sheet.options.quick else 400
    started = time.monotonic()
    main = judged(2000, replicates)
    seconds = time.monotonic() - started
    error = main.error("dr")
    peers: dict[str, float | None] = {name: main.error(name) for name in METHODS[:3]}
    sheet.row(
        "value of a candidate, 2,000 events", "relative RMSE (DR)", error, peers=peers, target=TARGET,
        holds=error <= TARGET, n=replicates, seconds=seconds, inside_95=main.inside("dr"),
    )  # fmt: skip
    share, n = main.in_order("dr")
    sheet.row(
        "old and new in the right order, lift >= 5 %", "share (DR)", share,
        peers={name: main.in_order(name)[0] for name in METHODS[:3]}, target=IN_ORDER, holds=share >= IN_ORDER, n=n,
    )  # fmt: skip
    sheet.row(
        "without stored propensities, 2,000 events", "relative RMSE (DR)", main.error(WITHOUT), reference=error,
        peers={"ips": main.error(IPS_WITHOUT)}, n=replicates,
    )  # fmt: skip
    lifts = np.array([lift / (value - lift) for value, lift in main.truth])
    sheet.note(
        f"lifts of the candidates: {lifts.min():+.0%} to {lifts.max():+.0%}, half of them worse than what serves, median"
        f" size {np.median(np.abs(lifts)):.1%}; 95 % intervals of DR held the truth in {main.inside('dr'):.0%}"
    )
    ahead = main.better()
    sheet.note(
        f"relative RMSE of DR is known to +- {error / (2 * replicates) ** 0.5:.4f}; of the {len(ahead.truth)} candidates that"
        f" are better by 5 % or more it is {ahead.error('dr'):.4f} (dm {ahead.error('dm'):.4f}, snips"
        f" {ahead.error('snips'):.4f})"
    )
    sheet.note(
        f"a reward model that is blind to the context: dm {main.error(DM_BLIND):.4f}, dr {main.error(BLIND):.4f}: the stored"
        " chances make up for a bad model"
    )
    sheet.note("without stored propensities: an action's share of the log stands for its chance in every context")
    for events in (500, 10_000):
        other = judged(events, min(replicates, 200))
        figures = ", ".join(f"{name} {other.error(name):.4f}" for name in ALL)
        share, n = other.in_order("dr")
        sheet.note(f"{events} events: relative RMSE {figures}; right order {share:.1%} of {n}")


if __name__ == "__main__":
    raise SystemExit(run("recommend_off_policy", __doc__, measure, needs_data=False))
