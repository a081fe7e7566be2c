"""From order lines to a sealed model of late delivery: figures from the newest year, judged by a model of the years before;
the sealed tables learn from all lines."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from export import parity, to_trees
from export.bundle import Draft, seal
from protocol.bundles import Golden, Quality, Runtime, unpack
from protocol.errors import Reason, Refused
from protocol.order_lines import LateSpec, OrderLines, late_features
from protocol.tables import Tables, Trees
from protocol.windows import Floats
from server.algorithms import late_delivery
from server.algorithms.late_delivery import FittedLate, LateSettings
from server.training import certainty
from server.training.circumstances import Candidate, Circumstances, Progress
from server.training.faults import golden_rows

LATE = "supply.late"
HELD_DAYS = 365
Mask = NDArray[np.bool_]
LEAST_HELD = 50


def train_late(
    lines: OrderLines,
    spec: LateSpec,
    seed: int,
    world: Circumstances,
    progress: Progress,
    settings: LateSettings | None = None,
) -> list[Candidate]:
    """The candidate that says which order line comes late and by how many days. Held out: the newest year of delivered
    lines, or the newest quarter where that is less; reference: the share of late lines before. Raises Refused."""
    settings = settings or LateSettings()
    lines = lines.rows(np.flatnonzero(np.isfinite(lines.delivered_day)))
    if len(lines) < 2 * LEAST_HELD:
        raise Refused(Reason.NOT_ELIGIBLE, f"{len(lines)} delivered lines; wait for {2 * LEAST_HELD}")
    newest = int(lines.scheduled_day.max())
    held = lines.scheduled_day > max(newest - HELD_DAYS, int(np.quantile(lines.scheduled_day, 0.75)))
    progress(0.1, f"{len(lines)} lines, {int(lines.late.sum())} late, {int(held.sum())} held out")
    measured = late_delivery.fit(lines.rows(~held), spec, settings)
    x = late_features(lines, lines, measured.spec)
    packed = Trees(late_tables(measured, x.shape[1]))
    exact = late_delivery.shifted(measured.raw(x), lines.scheduled_day, lines.late, measured)[held]
    given = late_delivery.shifted(packed.raw(x)[:, 0], lines.scheduled_day, lines.late, measured)[held]
    late = lines.late[held]
    base = float(lines.late[~held].mean())
    champion = world.champions.get(LATE)
    progress(0.6, "sealing")
    fitted = late_delivery.fit(lines, spec, settings)
    tables = late_tables(fitted, x.shape[1])
    run = Trees(tables)
    inputs, outputs = golden_rows(run, x)
    brier = _brier(_chance(given), late)
    low, high = certainty.of_mean((_chance(given) - late) ** 2)
    draft = Draft(
        slot=LATE,
        family="supply",
        algorithm="asof_logistic_trees",
        version=world.versions.get(LATE, 1),
        runtime=Runtime.TREES,
        features=fitted.spec.features,
        orders=fitted.spec,
        classes=["late", "log days if late"],
        tables=tables,
        lineage=world.lineage(seed, {**asdict(settings), "penalty": fitted.penalty, "tree_weight": fitted.tree_weight}),
        quality=[
            Quality(
                metric="brier",
                lower_is_better=True,
                model=brier,
                reference=_brier(np.full(len(late), base), late),
                reference_name="share of late lines before",
                champion=None if champion is None else _champion_brier(champion, lines, held),
                low=low,
                high=high,
                split="newest year of lines by a model of the lines before; the sealed tables learn from all",
                n=len(late),
            )
        ],
        parity=parity.compare(
            _chance(exact), _chance(given), _brier(_chance(exact), late), brier, lower_is_better=True
        ),
        golden=Golden(atol=1e-9, rtol=1e-9),
        golden_inputs=inputs,
        golden_outputs=outputs,
        float_bytes=sum(int(table.nbytes) for table in tables.values()),
        latency_us=parity.latency_us(lambda: run.raw(x[:1])),
        intended_use="Says which open order lines may come late; a person decides.",
        limits="A vendor, route or part never seen is judged as any other; says nothing of why.",
        words=f"Told {_chance(given).mean():.1%} late on average, {late.mean():.1%} were.",
        because=world.because,
    )
    progress(1.0, "late delivery sealed")
    return [Candidate(*seal(draft))]


def late_tables(fitted: FittedLate, features: int) -> Tables:
    """Class 0: log odds of being late; class 1: log of the expected days if late."""
    late = to_trees.linear_table(fitted.slope, fitted.center, fitted.bias)
    if fitted.trees is not None:
        late = to_trees.summed(late, to_trees.scaled(to_trees.boosted_trees(fitted.trees), fitted.tree_weight))
    tables = dict(late)
    tables["bias"] = np.array([float(np.asarray(late["bias"])[0]), fitted.days_bias])
    tables["slope"] = np.stack([fitted.slope, fitted.days_slope])
    tables["independent"] = np.ones(1, dtype=np.uint8)
    return tables


def _chance(raw: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * raw)))


def _brier(chance: Floats, late: Mask) -> float:
    return float(np.mean((chance - late) ** 2))


def _champion_brier(archive: bytes, lines: OrderLines, held: Mask) -> float | None:
    """The champion with its own spec; it may have seen the held-out lines, which only makes it harder to beat."""
    bundle = unpack(archive)
    spec = bundle.passport.orders
    if spec is None or any(name not in lines.fields for key in spec.keys for name in key):
        return None
    raw = Trees(bundle.tables).raw(late_features(lines, lines, spec))[:, 0]
    shifted = late_delivery.shift_by_drift(
        raw, lines.scheduled_day, lines.late, spec.notice_days, spec.drift_days, spec.firmness
    )
    return _brier(_chance(shifted[held]), lines.late[held])
