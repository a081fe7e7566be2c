"""What two numbers say of one another. Decided here and nowhere else: no relation was ever written by a model.

A range is closed: a value equal to its limit lies inside. A limit that is missing, NaN or infinite is no limit; limits in
the wrong order are no range. A value that is not finite has no relation. Two values are compared only in the same unit,
as it is written: nothing here converts."""

from __future__ import annotations

import math
from enum import StrEnum

from protocol.writing.facts import number, plain

STEADY_SHARE = 0.25
"""A forecast is steady where it moves by no more than this share of its interval's width."""


class Side(StrEnum):
    """Where a value lies against an expected range."""

    ABOVE = "above"
    BELOW = "below"
    INSIDE = "inside"
    UNKNOWN = "unknown"


class Margin(StrEnum):
    """How far beyond the limit: so little that both are written alike, or clearly."""

    SLIGHT = "slight"
    CLEAR = "clear"


class Trend(StrEnum):
    RISING = "rising"
    FALLING = "falling"
    STEADY = "steady"
    UNKNOWN = "unknown"


class Change(StrEnum):
    """A value against an earlier one."""

    UP = "up"
    DOWN = "down"
    SAME = "same"
    UNKNOWN = "unknown"


class Readings(StrEnum):
    """How many readings a statement rests on: its grammar, and a warning."""

    NONE = "none"
    ONE = "one"
    MANY = "many"


def expected_range(low: float | None, high: float | None) -> tuple[float, float] | None:
    """Both limits where they make a range, else None."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)) or low > high:
        return None
    return low, high


def side(value: float, low: float | None, high: float | None) -> Side:
    """Above, below or inside the range; unknown without one."""
    limits = expected_range(low, high)
    if limits is None or not math.isfinite(value):
        return Side.UNKNOWN
    return Side.ABOVE if value > limits[1] else Side.BELOW if value < limits[0] else Side.INSIDE


def beyond(value: float, low: float | None, high: float | None) -> float | None:
    """Distance to the nearer limit, in the value's unit; 0 inside; None without a range."""
    where, limits = side(value, low, high), expected_range(low, high)
    if limits is None or where is Side.UNKNOWN:
        return None
    return value - limits[1] if where is Side.ABOVE else limits[0] - value if where is Side.BELOW else 0.0


def margin(value: float, low: float | None, high: float | None) -> Margin | None:
    """Slight where the value and the limit that it passed are written alike; None where it passed none."""
    where = side(value, low, high)
    if where not in (Side.ABOVE, Side.BELOW):
        return None
    limit = high if where is Side.ABOVE else low
    return Margin.SLIGHT if limit is not None and number(value) == number(limit) else Margin.CLEAR


def trend(first: float, last: float, low: float, high: float) -> Trend:
    """Where a forecast goes from its first to its last step, against the interval low..high of the last one."""
    limits = expected_range(low, high)
    if limits is None or not (math.isfinite(first) and math.isfinite(last)):
        return Trend.UNKNOWN
    if number(first) == number(last) or abs(last - first) <= STEADY_SHARE * (limits[1] - limits[0]):
        return Trend.STEADY
    return Trend.RISING if last > first else Trend.FALLING


def change(now: float, unit: str, before: float, unit_before: str) -> Change:
    """A value against an earlier one; the same where both are written alike, unknown in different units."""
    if not same_unit(unit, unit_before) or not (math.isfinite(now) and math.isfinite(before)):
        return Change.UNKNOWN
    if number(now) == number(before):
        return Change.SAME
    return Change.UP if now > before else Change.DOWN


def same_unit(a: str, b: str) -> bool:
    """Whether two units are written alike."""
    return plain(a) == plain(b)


def readings(samples: int) -> Readings:
    """None, one, or many."""
    return Readings.NONE if samples <= 0 else Readings.ONE if samples == 1 else Readings.MANY
