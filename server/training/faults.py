"""From arrays to sealed fault models: one that reads a row of process values, one that reads a machine's own log. Figures
come from rows and machines that the measured model has not learned from; the sealed tables learn from all."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from export import parity, to_trees
from export.bundle import Draft, seal
from protocol.bundles import Golden, Quality, Runtime, unpack
from protocol.event_features import EventSpec, ahead, state, within_horizon
from protocol.physics import Formula, with_physics
from protocol.tables import Tables, Trees
from protocol.windows import Floats
from server.algorithms import fault_events, fault_rules
from server.algorithms.fault_events import EventSettings, FittedEvents, LearnedMachine, Looked
from server.algorithms.fault_rules import FaultSettings, FittedFaults
from server.algorithms.late_delivery import logistic
from server.training import certainty
from server.training.circumstances import Candidate, Circumstances, Progress

TABULAR = "fault.tabular"
EVENTS = "fault.events"
HELD_FOLDS = 4
GOLDEN = Golden(atol=1e-9, rtol=1e-9)
Mask = NDArray[np.bool_]


def train_fault_table(
    x: Floats,
    features: list[str],
    formulas: list[Formula],
    failed: Mask,
    seed: int,
    world: Circumstances,
    progress: Progress,
    settings: FaultSettings | None = None,
) -> list[Candidate]:
    """The candidate that says from measured rows x [N, features] (NaN: missing) whether a machine fails; `formulas` add
    physics. Held out: a stratified quarter; reference: logistic regression on the measured features. Raises Refused."""
    settings = settings or FaultSettings()
    failed = np.asarray(failed, dtype=bool)
    wide, names = with_physics(x, features, formulas)
    held = fault_rules.stratified(failed, HELD_FOLDS, seed) == 0
    progress(0.1, f"{len(x)} rows, {int(failed.sum())} failures")
    measured = fault_rules.fit(wide[~held], failed[~held], settings, seed)
    packed = Trees(fault_tables(measured, wide.shape[1]))
    chance = packed.probability(wide[held])[:, 0]
    quality = _f1(chance >= measured.threshold, failed[held])
    low, high = _f1_interval(chance >= measured.threshold, failed[held])
    champion = world.champions.get(TABULAR)
    progress(0.6, f"F1 {quality:.3f} on {int(held.sum())} held-out rows")
    fitted = fault_rules.fit(wide, failed, settings, seed)
    tables = fault_tables(fitted, wide.shape[1])
    run = Trees(tables)
    inputs, outputs = golden_rows(run, wide)
    draft = Draft(
        slot=TABULAR,
        family="fault",
        algorithm="rules_and_trees",
        version=world.versions.get(TABULAR, 1),
        runtime=Runtime.TREES,
        features=names,
        formulas=formulas,
        classes=["failure"],
        threshold=fitted.threshold,
        tables=tables,
        lineage=world.lineage(seed, {**asdict(settings), "false_alarm_weight": fitted.false_alarm_weight}),
        quality=[
            Quality(
                metric="f1",
                lower_is_better=False,
                model=quality,
                reference=_logistic_f1(x, failed, held),
                reference_name="logistic regression",
                champion=None if champion is None else _champion_f1(champion, wide[held], names, failed[held]),
                low=low,
                high=high,
                split="stratified quarter, settings from inner folds of the rest; the sealed tables learn from all",
                n=int(held.sum()),
            )
        ],
        parity=parity.compare(
            measured.probability(wide[held]),
            chance,
            _f1(measured.probability(wide[held]) >= measured.threshold, failed[held]),
            quality,
            lower_is_better=False,
        ),
        golden=GOLDEN,
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=sum(int(table.nbytes) for table in tables.values()),
        latency_us=parity.latency_us(lambda: run.raw(wide[:1])),
        intended_use="Warns that a machine's present state leads to a failure; a person decides.",
        limits="Knows states like those it learned from; failures by chance are not foretold.",
        words=f"{len(fitted.rules)} rules found: {rules_in_words(fitted, names)}"[:3000],
        because=world.because,
    )
    progress(1.0, "fault table sealed")
    return [Candidate(*seal(draft))]


def train_fault_events(
    machines: list[LearnedMachine],
    spec: EventSpec,
    allowed_false_alarms: float,
    seed: int,
    world: Circumstances,
    progress: Progress,
    settings: EventSettings | None = None,
) -> list[Candidate]:
    """The candidate that says from machines' logs which component fails within the horizon. Figures: what models of other
    machines say of each machine; reference: each component's mean chance; the threshold keeps at most
    `allowed_false_alarms` a machine-month. Raises Refused."""
    settings = settings or EventSettings()
    progress(0.1, f"{len(machines)} machines, {sum(len(m.failed) for m in machines)} failures")
    looked = fault_events.out_of_machine(machines, spec, settings, seed)
    truth = np.concatenate([_outcomes(one, spec) for one in looked])
    said = np.concatenate([one.chance for one in looked])
    champion = world.champions.get(EVENTS)
    threshold = fault_events.choose_threshold(looked, spec, allowed_false_alarms)
    progress(0.7, f"threshold {threshold:g}")
    fitted = fault_events.fit(machines, spec, settings, seed)
    tables = event_tables(fitted)
    run = Trees(tables)
    columns = np.concatenate([state(one.machine.log, one.asked_ms, spec) for one in looked])
    sample = columns[np.linspace(0, len(columns) - 1, min(200, len(columns))).astype(np.int64)]
    hazard = run.probability(ahead(sample, spec)).reshape(len(sample), spec.steps, len(spec.components))
    inputs, outputs = golden_rows(run, ahead(sample, spec))
    quality = _log_loss(said, truth)
    low, high = _loss_interval(said, truth, [len(one.chance) for one in looked])
    draft = Draft(
        slot=EVENTS,
        family="fault",
        algorithm="discrete_hazard_trees",
        version=world.versions.get(EVENTS, 1),
        runtime=Runtime.TREES,
        features=spec.features,
        events=spec,
        classes=spec.components,
        threshold=threshold,
        tables=tables,
        lineage=world.lineage(seed, {**asdict(settings), "allowed_false_alarms": allowed_false_alarms}),
        quality=[
            Quality(
                metric="log_loss",
                lower_is_better=True,
                model=quality,
                reference=_log_loss(np.broadcast_to(truth.mean(axis=0), truth.shape), truth),
                reference_name="mean chance of the component",
                champion=None if champion is None else _champion_loss(champion, columns, spec, truth),
                low=low,
                high=high,
                split="each machine by a model of other machines; the sealed tables learn from all",
                n=len(truth),
            )
        ],
        parity=parity.compare(fitted.probability(sample), within_horizon(hazard), 1.0, 1.0, lower_is_better=True),
        golden=GOLDEN,
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=sum(int(table.nbytes) for table in tables.values()),
        latency_us=parity.latency_us(lambda: run.raw(ahead(sample[:1], spec))),
        intended_use=f"Says which component may fail within {spec.horizon_h} h; a person decides.",
        limits="Reads errors and replacements of the names it knows; an unknown model of machine is judged as missing.",
        words=f"An alarm is given from a chance of {threshold:.2f} on.",
        because=world.because,
    )
    progress(1.0, "event forecast sealed")
    return [Candidate(*seal(draft))]


def fault_tables(fitted: FittedFaults, features: int) -> Tables:
    """Rules and rest as one set of tables."""
    rules = to_trees.rule_trees(
        [
            (rule.conditions, gain, share)
            for rule, gain, share in zip(fitted.rules, fitted.gains, fitted.shares, strict=True)
        ],
        fitted.bias if fitted.rest is None else 0.0,
        features,
    )
    return rules if fitted.rest is None else to_trees.summed(rules, to_trees.boosted_trees(fitted.rest))


def event_tables(fitted: FittedEvents) -> Tables:
    """A class for each component of the spec."""
    width = len(fitted.spec.features)
    return to_trees.side_by_side(
        [
            to_trees.linear_table(np.zeros(width), np.zeros(width), float(np.log(model / (1.0 - model))))
            if isinstance(model, float)
            else to_trees.boosted_trees(model)
            for model in fitted.models
        ]
    )


def golden_rows(run: Trees, x: Floats) -> tuple[Tables, Tables]:
    """A few spread rows, one of them with every value missing, and what the tables answer."""
    chosen = x[np.linspace(0, len(x) - 1, min(parity.GOLDEN_ROWS, len(x))).astype(np.int64)]
    inputs: Tables = {"x": np.concatenate([chosen, np.full((1, x.shape[1]), np.nan)])}
    return inputs, run.golden(inputs, {})


def rules_in_words(fitted: FittedFaults, names: list[str]) -> str:
    """The rules as a person reads them."""
    return "; ".join(
        " and ".join(f"{names[c.feature]} {'>' if c.above else '<='} {c.threshold:.6g}" for c in rule.conditions)
        + f" ({rule.hits} of {rule.covered})"
        for rule in fitted.rules
    )


def _f1(said: Mask, truth: Mask) -> float:
    return float(2 * (said & truth).sum() / max(said.sum() + truth.sum(), 1))


def _f1_interval(said: Mask, truth: Mask) -> certainty.Interval:
    parts = [said & truth, said, truth]
    return certainty.of_sums(
        [part.astype(np.float64) for part in parts], lambda hits, told, real: 2 * hits / np.maximum(told + real, 1)
    )


def _logistic_f1(x: Floats, failed: Mask, held: Mask) -> float:
    known = np.where(np.isfinite(x[~held]), x[~held], 0.0)
    center = known.mean(axis=0)
    spread = np.where(known.std(axis=0) > 0, known.std(axis=0), 1.0)
    away = np.where(np.isfinite(x), (x - center) / spread, 0.0)
    slope, bias = logistic(away[~held], failed[~held], 1.0)
    chance = 0.5 * (1.0 + np.tanh(0.5 * (away @ slope + bias)))
    threshold, _ = fault_rules.best_threshold(chance[~held], failed[~held])
    return _f1(chance[held] >= threshold, failed[held])


def _champion_f1(archive: bytes, x: Floats, names: list[str], truth: Mask) -> float | None:
    bundle = unpack(archive)
    if bundle.passport.features != names:
        return None
    return _f1(Trees(bundle.tables).probability(x)[:, 0] >= bundle.passport.threshold, truth)


def _champion_loss(archive: bytes, columns: Floats, spec: EventSpec, truth: Floats) -> float | None:
    bundle = unpack(archive)
    if bundle.passport.events != spec:
        return None
    hazard = Trees(bundle.tables).probability(ahead(columns, spec))
    return _log_loss(within_horizon(hazard.reshape(len(columns), spec.steps, len(spec.components))), truth)


def _outcomes(one: Looked, spec: EventSpec) -> Floats:
    failed, _ = fault_events.outcomes(one.machine, one.asked_ms, spec)
    return np.asarray(failed.any(axis=1), dtype=np.float64)


def _log_loss(chance: Floats, truth: Floats) -> float:
    return float(np.mean(_losses(chance, truth)))


def _losses(chance: Floats, truth: Floats) -> Floats:
    safe = np.clip(chance, 1e-6, 1.0 - 1e-6)
    return np.asarray(-(truth * np.log(safe) + (1.0 - truth) * np.log(1.0 - safe)))


def _loss_interval(chance: Floats, truth: Floats, rows: list[int]) -> certainty.Interval:
    """Over machines. rows: how many rows in turn are each machine's."""
    machine = np.repeat(np.arange(len(rows)), rows).tolist()
    losses = _losses(chance, truth).mean(axis=1)
    return certainty.of_sums(
        [certainty.by_group(losses, machine), certainty.by_group(np.ones(len(losses)), machine)],
        lambda total, count: total / count,
    )
