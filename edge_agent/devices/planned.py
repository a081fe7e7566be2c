"""A simulated plant whose future is partly decided: schedules, deliveries and what operators' notes warn of.

Three machines, each with one signal that only an input from another family of models can foretell: a motor's current
follows an irregular production schedule, a store's stock jumps with accepted purchases, a pump's vibration rises an hour or
two after an operator noted a failing bearing (one note in seven is wrong, one fault in five has no note). Seeded and pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocol.covariates import KnownInput, Source, failure_read
from protocol.windows import Floats

START_MS = 1_788_134_400_000
STEP_MS = 900_000
HOUR = 4
"""Buckets an hour."""
DAY = 24 * HOUR


@dataclass(frozen=True)
class PlannedPlant:
    """values [S, T] from start_ms on a grid of step_ms; series[s] = (machine, signal); inputs as they became known."""

    start_ms: int
    step_ms: int
    series: list[tuple[str, str]]
    values: Floats
    inputs: tuple[KnownInput, ...]


def planned_plant(days: int, seed: int, machines: int = 2) -> PlannedPlant:
    """`machines` of each of the three kinds over `days`."""
    rows: list[tuple[tuple[str, str], Floats, list[KnownInput]]] = []
    for number in range(1, machines + 1):
        for kind, made in (("M", _motor), ("S", _store), ("P", _pump)):
            machine = f"{kind}-{number}"
            signal, values, inputs = made(machine, days * DAY, np.random.default_rng([seed, number, ord(kind)]))
            rows.append(((machine, signal), values, inputs))
    told = sorted((known for row in rows for known in row[2]), key=lambda known: (known.known_ms, known.id))
    return PlannedPlant(START_MS, STEP_MS, [row[0] for row in rows], np.stack([row[1] for row in rows]), tuple(told))


def _motor(machine: str, buckets: int, rng: np.random.Generator) -> tuple[str, Floats, list[KnownInput]]:
    load = np.zeros(buckets)
    inputs: list[KnownInput] = []
    at = 0
    while at < buckets:
        long, share = int(rng.integers(2 * HOUR, 7 * HOUR)), float(rng.choice([0.2, 0.5, 0.8, 1.0]))
        load[at : at + long] = share
        start, end = _ms(at), _ms(at + long)
        inputs.append(_planned(f"plan-{machine}-{at}", machine, "load", start, end, share, Source.SCHEDULE))
        at += long
    return "current", 7.0 + 11.0 * load + 0.6 * _noise(buckets, 0.7, rng), inputs


def _store(machine: str, buckets: int, rng: np.random.Generator) -> tuple[str, Floats, list[KnownInput]]:
    arrives = np.zeros(buckets)
    inputs: list[KnownInput] = []
    stock, at, levels = 400.0, int(rng.integers(1, 6) * HOUR), np.zeros(buckets)
    for t in range(buckets):
        if t == at:
            arrives[t] = float(rng.choice([120.0, 180.0, 240.0]))
            start = _ms(t)
            inputs.append(
                _planned(
                    f"order-{machine}-{t}", machine, "delivery:blanks", start, start, float(arrives[t]), Source.PURCHASE
                )
            )
            at += int(rng.integers(8 * HOUR, 20 * HOUR))
        stock = max(stock + arrives[t] - max(rng.normal(3.2, 0.8), 0.0), 0.0)
        levels[t] = stock
    return "stock", levels + rng.normal(0.0, 1.0, buckets), inputs


def _pump(machine: str, buckets: int, rng: np.random.Generator) -> tuple[str, Floats, list[KnownInput]]:
    values = 2.6 + 0.15 * np.sin(2 * np.pi * np.arange(buckets) / DAY) + 0.12 * _noise(buckets, 0.6, rng)
    inputs: list[KnownInput] = []
    at = int(rng.integers(6 * HOUR, 18 * HOUR))
    while at < buckets - 12 * HOUR:
        real, noted = rng.random() > 1 / 7, rng.random() > 1 / 5
        onset, repaired = at + int(rng.integers(HOUR, 2 * HOUR + 1)), at + int(rng.integers(6 * HOUR, 8 * HOUR))
        if real:
            values[onset:repaired] += 1.6 * np.clip(np.arange(1, repaired - onset + 1) / (1.5 * HOUR), 0.0, 1.0)
        if noted or not real:
            note = f"note-{machine}-{at}"
            lasts_ms = 7 * HOUR * STEP_MS
            inputs.append(failure_read(machine, "bearing wear", _ms(at), Source.NOTE, note, lasts_ms=lasts_ms))
        at += int(rng.integers(14 * HOUR, 34 * HOUR))
    return "vibration", values, inputs


def _planned(
    name: str, machine: str, covariate: str, start_ms: int, end_ms: int, value: float, source: Source
) -> KnownInput:
    """Decided a day ahead."""
    return KnownInput(
        id=name,
        machine=machine,
        covariate=covariate,
        start_ms=start_ms,
        end_ms=end_ms,
        known_ms=start_ms - DAY * STEP_MS,
        value=value,
        source=source,
        origin=name,
    )


def _ms(bucket: int) -> int:
    return START_MS + bucket * STEP_MS


def _noise(buckets: int, memory: float, rng: np.random.Generator) -> Floats:
    """AR(1) with unit variance."""
    made = np.zeros(buckets)
    shocks = rng.normal(0.0, np.sqrt(1 - memory**2), buckets)
    for t in range(1, buckets):
        made[t] = memory * made[t - 1] + shocks[t]
    return made
