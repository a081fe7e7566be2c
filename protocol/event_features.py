"""What a machine's own log says at one instant: counts of its errors, hours since each part was replaced, its model and age.

The learner and the gateway compute the same columns. Nothing later than the instant is read: an error is known at its stamp
(windows are open on the left and closed at the instant), a replacement only strictly after its stamp, because the log holds
the repair that a failure caused under the failure's own stamp. Hours since an event are whole; after three days they are
told in days, after sixty in four weeks: nothing that old is known to the hour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.errors import Reason, Refused
from protocol.observations import Name
from protocol.windows import Floats

HOUR_MS = 3_600_000
Times = NDArray[np.int64]


class EventSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Which errors, components and machine models a forecaster knows, its counting windows, and its steps ahead: `steps`
    of `step_h` hours."""

    errors: list[Name]
    components: list[Name]
    models: list[Name] = []
    windows_h: tuple[int, ...] = (24, 48, 168)
    step_h: Annotated[int, msgspec.Meta(ge=1)] = 12
    steps: Annotated[int, msgspec.Meta(ge=1, le=100)] = 4

    @property
    def horizon_h(self) -> int:
        """How far ahead is looked."""
        return self.step_h * self.steps

    @property
    def features(self) -> list[str]:
        """Names of the columns of `state`, and `hours ahead` that `ahead` adds."""
        return [
            *(f"{error} in the last {hours} h" for error in self.errors for hours in self.windows_h),
            *(f"hours since {error}" for error in self.errors),
            *(f"hour of the day of the last {error}" for error in self.errors),
            *(f"hours since {component} was replaced" for component in self.components),
            "hours since any replacement",
            "hour of the day",
            "age [years]",
            "model",
            "hours ahead",
        ]


@dataclass(frozen=True)
class MachineLog:
    """One machine: stamps [N] in milliseconds UTC with the name beside each, in any order. `age_years` NaN: unknown."""

    error_ms: Times
    errors: list[str]
    replaced_ms: Times
    replaced: list[str]
    model: str = ""
    age_years: float = float("nan")


def state(log: MachineLog, asked_ms: Times, spec: EventSpec) -> Floats:
    """The columns [N, F - 1] at each asked instant; NaN where there is no such event yet. Errors, components and models
    that the spec does not know are left out (an unknown model is missing). Raises Refused if stamps and names differ."""
    if len(log.error_ms) != len(log.errors) or len(log.replaced_ms) != len(log.replaced):
        raise Refused(Reason.WRONG_TYPE, "a log needs one name for each stamp")
    asked = np.asarray(asked_ms, dtype=np.int64)
    stamps = {name: _stamps(log.error_ms, log.errors, name) for name in spec.errors}
    hour = (asked // HOUR_MS) % 24
    columns: list[Floats] = []
    for name in spec.errors:
        until = np.searchsorted(stamps[name], asked, side="right")
        for hours in spec.windows_h:
            since = np.searchsorted(stamps[name], asked - hours * HOUR_MS, side="right")
            columns.append((until - since).astype(np.float64))
    passed = [_hours_since(stamps[name], asked, side="right") for name in spec.errors]
    columns += passed
    columns += [_hour_of_last(stamps[name], asked) for name in spec.errors]
    replaced = [_stamps(log.replaced_ms, log.replaced, name) for name in spec.components]
    columns += [_hours_since(times, asked, side="left") for times in replaced]
    columns.append(_hours_since(np.sort(np.asarray(log.replaced_ms, dtype=np.int64)), asked, side="left"))
    model = float(spec.models.index(log.model)) if log.model in spec.models else float("nan")
    columns += [hour.astype(np.float64), np.full(len(asked), log.age_years), np.full(len(asked), model)]
    return np.stack(columns, axis=1)


def ahead(columns: Floats, spec: EventSpec) -> Floats:
    """Rows [N * steps, F]: each state once for each step, with the end of the step in hours as the last column."""
    ends = np.tile(np.arange(1, spec.steps + 1) * float(spec.step_h), len(columns))
    return np.column_stack([np.repeat(columns, spec.steps, axis=0), ends])


def within_horizon(hazard: Floats) -> Floats:
    """Chance [N, K] of a failure within all steps, from hazards [N, steps, K]."""
    return np.asarray(1.0 - np.prod(1.0 - hazard, axis=1))


def expected_hours(hazard: Floats, step_h: int) -> Floats:
    """Mean hours [N, K] to a failure, if it comes within the steps; a step counts with its middle."""
    before = np.cumprod(np.concatenate([np.ones_like(hazard[:, :1]), 1.0 - hazard[:, :-1]], axis=1), axis=1)
    chance = before * hazard
    middles = (np.arange(hazard.shape[1]) + 0.5) * step_h
    return np.asarray((chance * middles[None, :, None]).sum(axis=1) / np.maximum(chance.sum(axis=1), 1e-12))


def _stamps(times_ms: Times, names: list[str], name: str) -> Times:
    chosen = np.array([other == name for other in names], dtype=bool)
    return np.sort(np.asarray(times_ms, dtype=np.int64)[chosen])


def _hour_of_last(sorted_ms: Times, asked: Times) -> Floats:
    if not len(sorted_ms):
        return np.full(len(asked), np.nan)
    last = np.searchsorted(sorted_ms, asked, side="right") - 1
    return np.where(last >= 0, (sorted_ms[np.maximum(last, 0)] // HOUR_MS) % 24, np.nan)


def _hours_since(sorted_ms: Times, asked: Times, side: str) -> Floats:
    if not len(sorted_ms):
        return np.full(len(asked), np.nan)
    last = np.searchsorted(sorted_ms, asked, side="right" if side == "right" else "left") - 1
    hours = np.floor((asked - sorted_ms[np.maximum(last, 0)]) / HOUR_MS)
    days = np.where(hours <= 60 * 24, hours // 24 * 24, hours // 672 * 672)
    return np.where(last >= 0, np.where(hours <= 72, hours, days), np.nan)
