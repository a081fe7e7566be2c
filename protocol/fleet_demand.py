"""What the months of a fleet of parts say about each part's demand: an empirical-Bayes posterior over rate and dispersion.

A month's demand of a part is negative binomial with a rate and a size of its own. Over the fleet, the logarithm of the rate
is normal, and the logarithm of the size is normal around a line in it; the fleet's parts tell both (EM; Robbins 1956, Efron
2010). Each part then has a posterior on a grid, so that a short history leaves a wide distribution and a long one a narrow
one. Months that were not recorded are left out; they are not zero. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.counts import size_of
from protocol.demand_windows import checked_history
from protocol.parts_demand import MonthsDemand, log_gamma

Floats = NDArray[np.float64]
RATES = 17
"""Points of the rate's grid, around each part's own mean."""
LOG_SIZES = np.linspace(np.log(0.05), np.log(60.0), 12)
ROUNDS = 20
LEAST_WEIGHT = 5e-4
_MONTHS_TO_JUDGE = 12
_PARTS_TO_JUDGE = 20
_WIDEST = 2.5
"""Spread of the log rate beyond which a fleet says nothing of a new part."""
_WIDTH = 3.6
_OWN_WORTH = 2.0
"""Parts that the starting belief about the fleet is worth."""


@dataclass(frozen=True)
class FleetBelief:
    """log rate ~ N(rate, rate_spread²); log size ~ N(size + slope * (log rate - rate), size_spread²)."""

    rate: float
    rate_spread: float
    size: float = 0.0
    slope: float = 0.3
    size_spread: float = 1.0


@dataclass(frozen=True)
class _Seen:
    """Sums over each part's months: months [N], units [N], ways [N, K] (the likelihood's part that knows no rate)."""

    months: Floats
    units: Floats
    ways: Floats


def fleet_demand(history: Floats, horizon: int = 12) -> list[MonthsDemand]:
    """Demand of the first 1..horizon months together, for each row of the counts [N, T] (NaN: not recorded). A part without a
    month gets the fleet's. Raises BadMessage for a negative count."""
    table = checked_history(history)
    seen = _sums(table)
    belief = _start(seen)
    for _ in range(ROUNDS):
        belief = _learned(seen, belief)
    log_rate, weight = _posterior(seen, belief)
    wider = _scatter(table, log_rate, weight)
    return [_months(log_rate[row], weight[row], horizon, wider) for row in range(len(table))]


def _scatter(table: Floats, log_rate: Floats, weight: Floats) -> float:
    """By how much the fleet's months scatter more (or less) than the posterior says, as a factor on the variance: likelihood
    looks at the zeros, a stock level lives on the variance. Leans on 1 while the parts are few."""
    rate, size = np.exp(log_rate)[:, :, None], np.exp(LOG_SIZES)
    meant = (weight * (rate + rate**2 / size)).sum(axis=(1, 2))
    known = np.isfinite(table)
    told = (known.sum(axis=1) >= _MONTHS_TO_JUDGE) & (np.nansum(table, axis=1) > 0)
    if not told.any():
        return 1.0
    seen = np.nanvar(table[told], axis=1, ddof=1) / meant[told]
    worth = len(seen) / (len(seen) + _PARTS_TO_JUDGE)
    return float(np.clip(1 + worth * (seen.mean() - 1), 0.5, 2.0))


def _sums(table: Floats) -> _Seen:
    known = np.isfinite(table)
    filled = np.where(known, table, 0.0)
    sizes = np.exp(LOG_SIZES)
    distinct, place = np.unique(filled, return_inverse=True)
    each = log_gamma(distinct[:, None] + sizes) - log_gamma(sizes)  # [counts, K], 0 for a count of 0
    ways = each[place.reshape(table.shape)].sum(axis=1) if table.size else np.zeros((len(table), len(sizes)))
    return _Seen(known.sum(axis=1).astype(np.float64), filled.sum(axis=1), ways)


def _start(seen: _Seen) -> FleetBelief:
    rate = np.log((seen.units + 0.5) / (seen.months + 1.0))[seen.months > 0]
    if not len(rate):
        return FleetBelief(np.log(0.05), 1.5)
    return FleetBelief(
        float(rate.mean()), float(np.sqrt((rate.var() * len(rate) + 2.25 * _OWN_WORTH) / (len(rate) + _OWN_WORTH)))
    )


def _posterior(seen: _Seen, belief: FleetBelief) -> tuple[Floats, Floats]:
    """(log rates [N, R], weights [N, R, K]). Each part's rates lie around where data and fleet meet."""
    months = np.maximum(seen.months, 1e-9)
    own = np.maximum(seen.units, 0.5) / months
    error = (1 / own + 1.0) / months  # variance of the log rate at a size of 1
    trust = 1 / error + 1 / belief.rate_spread**2
    centre = (np.log(own) / error + belief.rate / belief.rate_spread**2) / trust
    centre = np.where(seen.months > 0, centre, belief.rate)
    wide = np.where(seen.months > 0, 1.3 / np.sqrt(trust), belief.rate_spread)
    log_rate = centre[:, None] + wide[:, None] * np.linspace(-_WIDTH, _WIDTH, RATES)
    rate, size = np.exp(log_rate)[:, :, None], np.exp(LOG_SIZES)[None, None, :]
    log_sum = np.log(rate + size)
    likely = seen.ways[:, None, :] + seen.months[:, None, None] * size * (np.log(size) - log_sum)
    likely = likely + seen.units[:, None, None] * (np.log(rate) - log_sum)
    away = (log_rate - belief.rate) / belief.rate_spread
    line = belief.size + belief.slope * (log_rate - belief.rate)
    off = (LOG_SIZES - line[:, :, None]) / belief.size_spread
    among_sizes = np.exp(-0.5 * off**2)
    prior = np.log(among_sizes / np.maximum(among_sizes.sum(axis=2, keepdims=True), 1e-300) + 1e-300)
    weight = likely + prior - 0.5 * away[:, :, None] ** 2
    weight = np.exp(weight - weight.max(axis=(1, 2), keepdims=True))
    return log_rate, np.asarray(weight / weight.sum(axis=(1, 2), keepdims=True))


def _learned(seen: _Seen, belief: FleetBelief) -> FleetBelief:
    """One round of EM over the parts that have a month."""
    log_rate, weight = _posterior(seen, belief)
    told = seen.months > 0
    if not told.any():
        return belief
    log_rate, weight = log_rate[told], weight[told]
    parts = len(log_rate)
    by_rate = weight.sum(axis=2)
    rate = float((by_rate * log_rate).sum() / parts)
    second = float((by_rate * (log_rate - rate) ** 2).sum())
    spread = min(float(np.sqrt((second + _OWN_WORTH * 1.5**2) / (parts + _OWN_WORTH))), _WIDEST)
    x = log_rate - rate
    y = (weight * LOG_SIZES).sum(axis=2)  # sum over sizes, still weighted by the rate
    size = float((y.sum() + _OWN_WORTH * 0.0) / (parts + _OWN_WORTH))
    slope = float(((x * y).sum() - size * (x * by_rate).sum() + 0.3 * 5.0) / (second + 5.0))
    line = size + slope * x
    rest = float((weight * (LOG_SIZES - line[:, :, None]) ** 2).sum())
    size_spread = float(np.sqrt((rest + _OWN_WORTH * 1.0) / (parts + _OWN_WORTH)))
    return FleetBelief(rate, spread, size, slope, size_spread)


def _months(log_rate: Floats, weight: Floats, horizon: int, wider: float) -> MonthsDemand:
    """The grid's heavy points as a mixture. Given rate and size, months are independent, so that a total of n months is
    negative binomial of n times the mean and n times the size."""
    heavy = weight >= min(LEAST_WEIGHT, float(weight.max()))
    at_rate, at_size = np.nonzero(heavy)
    kept = weight[heavy]
    count = np.arange(1, horizon + 1)
    mean, size = np.exp(log_rate[at_rate]), np.exp(LOG_SIZES[at_size])
    size = size_of(mean, wider * (mean + mean**2 / size))
    return MonthsDemand(kept / kept.sum(), mean[:, None] * count, np.maximum(size, 0.01)[:, None] * count)
