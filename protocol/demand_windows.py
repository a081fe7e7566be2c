"""What a history of spare-part demand means to a model, and what a model's answer means: once, for training and gateway.

A history is counts per month of shape [N, T], the newest month last, NaN where nothing was recorded (which is not zero).
The anchor is a discounted mean rate that leans on the fleet's rate while little is known; a model answers by how much the
coming months differ from it and how widely they scatter, so that silence (all zeros) already is a smoothing forecast.

The demand of one month and the demand of the first 1..horizon months together are negative binomial, each with a size of
its own: months of one part move together, so the total of a lead time scatters more than independent months would."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol import counts
from protocol.errors import BadMessage, Reason

Floats = NDArray[np.float64]
CHANNELS = (
    "relative_count",
    "log_count",
    "observed",
    "demanded",
    "since_demand",
    "log_rate",
    "long_run",
    "age",
    "sin_month",
    "cos_month",
)
ANSWERS = ("log_factor", "log_month_size", "log_total_size")
SMOOTH, ERRATIC, INTERMITTENT, LUMPY, RARE = range(5)
CLASSES = ("smooth", "erratic", "intermittent", "lumpy", "rare")
"""Syntetos, Boylan & Croston 2005: mean interval between demands above 1.32 or not, squared variation of their sizes above
0.49 or not; `rare` had fewer than two demands to judge by."""
SPARE_PARTS = "supply.demand"
"""The slot of a demand model."""
MAX_MONTHS = 1200
KNOWN_WELL = 12
"""Months of history beyond which more are no input: parts that entered together would tell the calendar by them."""
_FARTHEST = 3.0

Positive = Annotated[float, msgspec.Meta(gt=0)]
PerClass = Annotated[list[Positive], msgspec.Meta(min_length=len(CLASSES), max_length=len(CLASSES))]


class DemandSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a demand model sees and how its answers are read; travels inside its bundle.

    length: months it looks at; horizon: months it answers; discount: weight of a month against the next newer one;
    prior_months: how many months of history the fleet's rate `prior_rate` [units per month] is worth; calendar: whether
    the month of the year is an input; month_size, total_size [horizon]: sizes where a model is silent; level: factor on
    every expectation, which removes the bias measured on validation months; month_tail, total_tail: factors on the sizes
    by intermittency class, which set the upper quantiles right on validation months."""

    length: Annotated[int, msgspec.Meta(ge=2, le=240)]
    horizon: Annotated[int, msgspec.Meta(ge=1, le=60)]
    discount: Annotated[float, msgspec.Meta(gt=0, le=1)]
    prior_months: Positive
    prior_rate: Positive
    calendar: bool = False
    month_size: list[Positive]
    total_size: list[Positive]
    level: Positive = 1.0
    month_tail: PerClass = msgspec.field(default_factory=lambda: [1.0] * len(CLASSES))
    total_tail: PerClass = msgspec.field(default_factory=lambda: [1.0] * len(CLASSES))


@dataclass(frozen=True)
class DemandWindows:
    """Inputs of a demand model: x float32 [N, length, len(CHANNELS)]; rate: the anchor [N], units per month, above 0;
    kind: intermittency class [N]; known: observed months [N] (0: a part without history, for which the fleet
    answers)."""

    x: NDArray[np.float32]
    rate: Floats
    kind: NDArray[np.int64]
    known: NDArray[np.int64]


@dataclass(frozen=True)
class DemandAhead:
    """Demand of the coming months. month_mean, month_size [N, H]: of each month; total_mean, total_size [N, H]: of the
    first 1..H months together. Units of demand."""

    month_mean: Floats
    month_size: Floats
    total_mean: Floats
    total_size: Floats

    def month_quantile(self, level: float) -> Floats:
        """Whole units that one month stays within with this probability: [N, H]."""
        return counts.quantile(level, self.month_mean, self.month_size)

    def total_quantile(self, level: float) -> Floats:
        """Whole units that the first 1..H months together stay within: [N, H]; column lead - 1 is the stock to order up
        to at that service level for a lead time of `lead` months. Never falls with the lead time."""
        return np.asarray(np.maximum.accumulate(counts.quantile(level, self.total_mean, self.total_size), axis=1))

    def chance_of_none(self) -> Floats:
        """Probability that nothing is asked for within the first 1..H months: [N, H]."""
        return np.asarray(np.minimum.accumulate(counts.chance_of_none(self.total_mean, self.total_size), axis=1))


def checked_history(history: Floats) -> Floats:
    """The history as float64 [N, T]. Raises BadMessage for another shape, a negative or infinite count."""
    table = np.asarray(history, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] > MAX_MONTHS:
        raise BadMessage(
            Reason.WRONG_TYPE, f"demand of shape {table.shape}; expected [parts, months], at most {MAX_MONTHS} months"
        )
    bad = np.argwhere((table < 0) | np.isinf(table))
    if len(bad):
        part, month = (int(i) for i in bad[0])
        raise BadMessage(
            Reason.WRONG_TYPE,
            f"demand of part {part} in month {month} is {table[part, month]:g}; counts are 0 or more: "
            "book a return as a receipt, leave an unknown month empty",
        )
    return table


def anchor(history: Floats, discount: float, prior_months: float, prior_rate: float) -> Floats:
    """Discounted mean demand per month, leaning on the fleet's rate with the weight of `prior_months`: [N]."""
    weight = discount ** np.arange(history.shape[1] - 1, -1, -1, dtype=np.float64)
    seen = np.isfinite(history)
    total = np.where(seen, history, 0.0) @ weight
    return np.asarray((total + prior_months * prior_rate) / (seen @ weight + prior_months))


def intermittency(history: Floats) -> NDArray[np.int64]:
    """Each part's class, an index into CLASSES: [N]."""
    seen = np.isfinite(history)
    demanded = seen & (np.nan_to_num(history) > 0)
    times = demanded.sum(axis=1)
    some = np.maximum(times, 1)
    sizes = np.where(demanded, history, 0.0)
    mean = sizes.sum(axis=1) / some
    spread = np.where(demanded, (history - mean[:, None]) ** 2, 0.0).sum(axis=1) / some
    erratic = spread > 0.49 * np.maximum(mean, 1e-12) ** 2
    seldom = seen.sum(axis=1) > 1.32 * some
    kind = np.where(seldom, np.where(erratic, LUMPY, INTERMITTENT), np.where(erratic, ERRATIC, SMOOTH))
    return np.asarray(np.where(times < 2, RARE, kind), dtype=np.int64)


def demand_windows(history: Floats, next_month: int | NDArray[np.int64], spec: DemandSpec) -> DemandWindows:
    """Inputs for histories [N, T] of any length, an empty one included. next_month: month of the year (0..11) of the
    first month to forecast, one or one a part; only read if `spec.calendar`. Raises BadMessage as `checked_history`."""
    table = checked_history(history)
    parts, months = table.shape
    length = spec.length
    rate = anchor(table, spec.discount, spec.prior_months, spec.prior_rate)
    long_run = anchor(table, 1.0, spec.prior_months, spec.prior_rate)
    seen = np.isfinite(table)
    filled = np.where(seen, table, 0.0)
    age = np.cumsum(seen, axis=1)
    last_age = np.maximum.accumulate(np.where(filled > 0, age, 0), axis=1) if months else age
    x = np.zeros((parts, length, len(CHANNELS)), dtype=np.float32)
    kept = min(length, months)
    if kept:
        recent = slice(months - kept, months)
        window = x[:, length - kept :]
        window[:, :, 0] = np.log1p(filled[:, recent] / np.maximum(rate, 0.02)[:, None]) / 2
        window[:, :, 1] = np.log1p(filled[:, recent]) / 2
        window[:, :, 2] = seen[:, recent]
        window[:, :, 3] = filled[:, recent] > 0
        window[:, :, 4] = np.log1p(age - last_age)[:, recent] / 3
        window[:, :, 7] = np.minimum(age[:, recent], KNOWN_WELL) / KNOWN_WELL
    x[:, :, 5] = (np.log(rate) / 3)[:, None]
    x[:, :, 6] = np.log(long_run / rate)[:, None]
    if spec.calendar:
        month = np.broadcast_to(np.asarray(next_month), (parts,))[:, None] - length + np.arange(length)
        x[:, :, 8] = np.sin(month * (np.pi / 6))
        x[:, :, 9] = np.cos(month * (np.pi / 6))
    np.clip(x, -4.0, 4.0, out=x)
    return DemandWindows(x, rate, intermittency(table), np.asarray(seen.sum(axis=1), dtype=np.int64))


def demand_ahead(windows: DemandWindows, answer: NDArray[np.floating], spec: DemandSpec) -> DemandAhead:
    """Reads a model's answer [N, horizon, len(ANSWERS)]. A total never scatters less than Poisson."""
    steps = np.clip(np.asarray(answer, dtype=np.float64), -_FARTHEST, _FARTHEST)
    month_mean = windows.rate[:, None] * np.exp(steps[..., 0]) * spec.level
    month_tail = np.asarray(spec.month_tail)[windows.kind][:, None]
    total_tail = np.asarray(spec.total_tail)[windows.kind][:, None]
    return DemandAhead(
        month_mean=month_mean,
        month_size=np.asarray(spec.month_size) * np.exp(steps[..., 1]) * month_tail,
        total_mean=np.cumsum(month_mean, axis=1),
        total_size=np.asarray(spec.total_size) * np.exp(steps[..., 2]) * total_tail,
    )


_MONTH = re.compile(r"([0-9]{4})-(0?[1-9]|1[0-2])")


def month_number(name: str) -> int:
    """Months since year 0 of "2026-04". Raises BadMessage for anything else."""
    told = _MONTH.fullmatch(name)
    if told is None:
        raise BadMessage(Reason.BAD_TIME, f"month {name[:20]!r}: write it as 2026-04")
    return int(told[1]) * 12 + int(told[2]) - 1


def month_name(number: int) -> str:
    """The opposite of `month_number`."""
    return f"{number // 12:04d}-{number % 12 + 1:02d}"


def month_start_ms(number: int) -> int:
    """Milliseconds UTC of the first instant of a month; its end is the start of the next one."""
    return int(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp() * 1000)


def usual_horizon(months: int) -> int:
    """How far ahead a fleet with so many months of history is looked: a year, or half of one below three years."""
    return 12 if months >= 36 else 6
