"""Which component fails next, and when: a discrete-time hazard per component, learned from error logs and replacements.

Discrete-time survival analysis (Allison 1982; Singer & Willett 1993): the next hours are cut into steps; for each instant
and each step the chance that the component fails in it, given that it has not before, is a boosted tree's answer on the
machine's log (protocol/event_features.py) and the step's distance. Most instants are quiet: only one of several is learned
from, with its weight, and all instants near an error or a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.errors import Reason, Refused
from protocol.event_features import HOUR_MS, EventSpec, MachineLog, Times, ahead, state, within_horizon
from protocol.windows import Floats

GRID_H = 6
INNER_FOLDS = 3
MONTH_H = 730.5
THRESHOLDS = (*(round(0.05 * i, 2) for i in range(1, 20)), 0.99)


@dataclass(frozen=True)
class LearnedMachine:
    """A machine to learn from: its log, and the stamps [N] and components of its failures. Both are read from `from_ms`
    until `until_ms` and no later."""

    name: str
    log: MachineLog
    failed_ms: Times
    failed: list[str]
    from_ms: int
    until_ms: int


@dataclass(frozen=True)
class EventSettings:
    """`quiet_share`: one of so many quiet instants is learned from."""

    quiet_share: int = 16
    trees: int = 60
    leaves: int = 12
    learning_rate: float = 0.08
    least_rows: int = 20
    least_failures: int = 5


@dataclass(frozen=True)
class FittedEvents:
    """models: for each component of the spec a fitted HistGradientBoostingClassifier of the hazard of one step, or the
    constant hazard where there were too few failures to learn from."""

    spec: EventSpec
    models: list[Any]

    def hazard(self, columns: Floats) -> Floats:
        """[N, steps, components] for states [N, F - 1]."""
        rows = ahead(columns, self.spec)
        answers = [
            np.full(len(rows), model) if isinstance(model, float) else model.predict_proba(rows)[:, 1]
            for model in self.models
        ]
        return np.stack(answers, axis=1).reshape(len(columns), self.spec.steps, len(self.models))

    def probability(self, columns: Floats) -> Floats:
        """Chance of a failure within the horizon [N, components]."""
        return within_horizon(self.hazard(columns))


def instants(log: MachineLog, from_ms: int, until_ms: int) -> Times:
    """When a gateway would look: every six hours, and whenever an error is logged."""
    grid = np.arange(-(-from_ms // (GRID_H * HOUR_MS)) * GRID_H * HOUR_MS, until_ms, GRID_H * HOUR_MS, dtype=np.int64)
    logged = np.asarray(log.error_ms, dtype=np.int64)
    return np.unique(np.concatenate([grid, logged[(logged >= from_ms) & (logged < until_ms)]]))


def fit(
    machines: list[LearnedMachine], spec: EventSpec, settings: EventSettings, seed: int, unseen: tuple[int, ...] = ()
) -> FittedEvents:
    """Hazards of the spec's components. An instant counts only if its whole horizon lies before the machine's
    `until_ms`. `unseen`: columns to learn without. Raises Refused if no machine offers an instant."""
    rng = np.random.default_rng(seed)
    states: list[Floats] = []
    failures: list[NDArray[np.bool_]] = []
    alive: list[NDArray[np.bool_]] = []
    weights: list[Floats] = []
    for machine in machines:
        asked = instants(machine.log, machine.from_ms, machine.until_ms - spec.horizon_h * HOUR_MS)
        columns = state(machine.log, asked, spec)
        failed, at_risk = outcomes(machine, asked, spec)
        eventful = _recent_error(machine.log, asked, spec) | failed.any(axis=(1, 2))
        kept = eventful | (rng.integers(0, settings.quiet_share, len(asked)) == 0)
        states.append(columns[kept])
        failures.append(failed[kept])
        alive.append(at_risk[kept])
        weights.append(np.where(eventful, 1.0, float(settings.quiet_share))[kept])
    if not sum(len(rows) for rows in states):
        raise Refused(
            Reason.NOT_ELIGIBLE, f"no machine has a log longer than the horizon of {spec.horizon_h} h: wait for more"
        )
    rows = ahead(np.concatenate(states), spec)
    rows[:, list(unseen)] = 0.0
    rows[:, np.isnan(rows).all(axis=0)] = 0.0  # nothing to split on; the library refuses a column without a value
    failed, at_risk = np.concatenate(failures), np.concatenate(alive)
    weight = np.repeat(np.concatenate(weights), spec.steps)
    models = [
        _hazard_model(rows, failed[:, :, k].ravel(), at_risk[:, :, k].ravel(), weight, settings, seed)
        for k in range(len(spec.components))
    ]
    return FittedEvents(spec, models)


def _recent_error(log: MachineLog, asked: Times, spec: EventSpec) -> NDArray[np.bool_]:
    stamps = np.sort(np.asarray(log.error_ms, dtype=np.int64))
    since = np.searchsorted(stamps, asked - spec.horizon_h * HOUR_MS, side="left")
    return np.asarray(np.searchsorted(stamps, asked, side="right") > since)


def outcomes(machine: LearnedMachine, asked: Times, spec: EventSpec) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(fails in the step, has not failed in an earlier step) [N, steps, components]; a step is open on the left."""
    failed = np.zeros((len(asked), spec.steps, len(spec.components)), dtype=bool)
    edges = asked[:, None] + np.arange(spec.steps + 1)[None] * spec.step_h * HOUR_MS
    names = np.array(machine.failed, dtype=object)
    for k, component in enumerate(spec.components):
        stamps = np.sort(np.asarray(machine.failed_ms, dtype=np.int64)[names == component])
        counts = np.searchsorted(stamps, edges, side="right")
        failed[:, :, k] = np.diff(counts, axis=1) > 0
    earlier = np.concatenate([np.zeros_like(failed[:, :1]), np.logical_or.accumulate(failed, axis=1)[:, :-1]], axis=1)
    return failed, ~earlier


def _hazard_model(
    rows: Floats,
    failed: NDArray[np.bool_],
    at_risk: NDArray[np.bool_],
    weight: Floats,
    settings: EventSettings,
    seed: int,
) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows, failed, weight = rows[at_risk], failed[at_risk], weight[at_risk]
    if failed.sum() < settings.least_failures:
        return float((failed @ weight + 0.5) / (weight.sum() + 1.0))
    model = HistGradientBoostingClassifier(
        max_iter=settings.trees,
        max_leaf_nodes=settings.leaves,
        learning_rate=settings.learning_rate,
        min_samples_leaf=settings.least_rows,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    return model.fit(rows, failed, sample_weight=weight)


def alarms(chance: Floats, asked_ms: Times, threshold: float, mute_h: int) -> Times:
    """Stamps of the alarms of one component: the first instant whose chance [N] reaches the threshold, then silence for
    `mute_h` hours."""
    above = np.asarray(asked_ms, dtype=np.int64)[chance >= threshold]
    raised: list[int] = []
    at = 0
    while at < len(above):
        raised.append(int(above[at]))
        at = int(np.searchsorted(above, above[at] + mute_h * HOUR_MS, side="right"))
    return np.array(raised, dtype=np.int64)


@dataclass(frozen=True)
class Looked:
    """A machine's failures and what a model said of it: instants [N], chances [N, components]."""

    machine: LearnedMachine
    asked_ms: Times
    chance: Floats


def choose_threshold(looked: list[Looked], spec: EventSpec, allowed: float) -> float:
    """The lowest of a grid of chances that keeps false alarms within `allowed` a machine-month. An alarm is false if its
    component does not fail within the horizon after it; one whose horizon was not seen to its end counts only if it came
    true. 1 if no chance is high enough."""
    reach = spec.horizon_h * HOUR_MS
    months = sum(int(one.asked_ms[-1] - one.asked_ms[0]) for one in looked if len(one.asked_ms)) / HOUR_MS / MONTH_H
    for threshold in THRESHOLDS:
        false = 0
        for one in looked:
            names = np.array(one.machine.failed, dtype=object)
            for k, component in enumerate(spec.components):
                failed = np.sort(np.asarray(one.machine.failed_ms, dtype=np.int64)[names == component])
                raised = alarms(one.chance[:, k], one.asked_ms, threshold, spec.horizon_h)
                raised = raised[raised + reach <= one.machine.until_ms]
                came = np.searchsorted(failed, raised + reach, "right") > np.searchsorted(failed, raised, "right")
                false += int((~came).sum())
        if false <= allowed * months:
            return threshold
    return 1.0


def out_of_machine(
    machines: list[LearnedMachine], spec: EventSpec, settings: EventSettings, seed: int, unseen: tuple[int, ...] = ()
) -> list[Looked]:
    """What models of the other machines say of each machine: three folds by machine."""
    looked: list[Looked] = []
    for k in range(INNER_FOLDS):
        others = [m for i, m in enumerate(machines) if i % INNER_FOLDS != k]
        model = fit(others, spec, settings, seed, unseen)
        for machine in machines[k::INNER_FOLDS]:
            asked = instants(machine.log, machine.from_ms, machine.until_ms)
            columns = state(machine.log, asked, spec)
            columns[:, list(unseen)] = 0.0
            looked.append(Looked(machine, asked, model.probability(columns)))
    return looked
