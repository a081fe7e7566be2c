"""The simple references of intermittent demand: exponential smoothing, Croston, SBA, TSB, ADIDA, IMAPA, empirical quantile.

All take a history [N, T] (counts per month, newest last, NaN: not recorded) and work on all parts at once. A missing month
moves nothing: no demand is read into it, and no interval grows over it. A smoothing weight that is not given is chosen for
each part by its squared one-step error over its own history. A part without any record gets the fleet's mean rate.

Croston 1972; Syntetos & Boylan 2005 (SBA); Teunter, Syntetos & Babai 2011 (TSB); Nikolopoulos et al. 2011 (ADIDA);
Petropoulos & Kourentzes 2015 (IMAPA). Start values are the first demand and the first interval, as in statsforecast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from protocol import counts
from protocol.demand_windows import Floats, checked_history

WEIGHTS = tuple(round(0.05 * i, 2) for i in range(1, 13))
BLOCK_WEIGHTS = tuple(round(0.1 + 0.01 * i, 2) for i in range(21))
"""The bounds 0.1 and 0.3 are those of statsforecast, which searches between them without a grid."""
SBA_FACTOR = 0.5


@dataclass(frozen=True)
class Rates:
    """rate [N]: demand per month from now on, the same for every month; variance [N]: of the history's counts
    about this rate, at least the rate itself (Poisson)."""

    rate: Floats
    variance: Floats

    def month_quantile(self, level: float) -> Floats:
        """Negative binomial with this rate and variance: whole units [N]."""
        return counts.quantile(level, self.rate, counts.size_of(self.rate, self.variance))

    def total_quantile(self, level: float, months: int) -> Floats:
        """Of `months` independent months together: [N]."""
        mean = self.rate * months
        return counts.quantile(level, mean, counts.size_of(mean, self.variance * months))


def ses(history: Floats, weight: float | None = None) -> Rates:
    """Simple exponential smoothing of the counts themselves."""
    return _best(history, [partial(_ses, weight=a) for a in _weights(weight)])


def croston(history: Floats, weight: float | None = None) -> Rates:
    """Sizes and intervals smoothed apart, with one weight; rate = size / interval. Biased upwards."""
    return _best(history, [partial(_croston, weight=a, correction=0.0) for a in _weights(weight)])


def sba(history: Floats, weight: float | None = None) -> Rates:
    """Croston's rate times (1 - weight / 2), which removes its bias to first order."""
    return _best(history, [partial(_croston, weight=a, correction=SBA_FACTOR) for a in _weights(weight)])


def tsb(history: Floats, size_weight: float | None = None, chance_weight: float | None = None) -> Rates:
    """Chance of demand smoothed in every month, size in months of demand: a part that dies out fades."""
    pairs = [(a, b) for a in _weights(size_weight) for b in _weights(chance_weight)]
    return _best(history, [partial(_tsb, size_weight=a, chance_weight=b) for a, b in pairs])


def adida(history: Floats) -> Rates:
    """Smoothing of totals over blocks as long as the part's mean interval between demands, spread evenly."""
    table = checked_history(history)
    return _with_fallback(table, _aggregated(table, np.maximum(np.round(_mean_interval(table)), 1), only_longest=True))


def imapa(history: Floats) -> Rates:
    """The mean of such forecasts over every block length from one month to the mean interval."""
    table = checked_history(history)
    return _with_fallback(table, _aggregated(table, np.maximum(np.round(_mean_interval(table)), 1), only_longest=False))


def empirical_quantile(history: Floats, level: float) -> Floats:
    """The level's quantile of the part's own months (linear between order statistics): [N]. The fleet's where nothing was
    recorded."""
    table = checked_history(history)
    answer = np.full(len(table), np.nan)
    some = np.isfinite(table).any(axis=1)
    if some.any():
        answer[some] = np.nanquantile(table[some], level, axis=1)
        answer[~some] = np.nanquantile(table, level)
    return np.where(np.isfinite(answer), answer, 0.0)


def mean_rate(history: Floats) -> Floats:
    """Each part's mean over its recorded months, the fleet's where there are none (0 for a fleet without any): [N]."""
    table = checked_history(history)
    seen = np.isfinite(table)
    total, count = np.where(seen, table, 0.0).sum(axis=1), seen.sum(axis=1)
    fleet = total.sum() / max(count.sum(), 1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), fleet), dtype=np.float64)


def mean(history: Floats) -> Rates:
    """`mean_rate` with the variance about it."""
    return about(checked_history(history), mean_rate(history))


def about(history: Floats, rate: Floats) -> Rates:
    """Any rate [N] with the variance of a checked history [N, T] about it."""
    seen = np.isfinite(history)
    scatter = np.where(seen, (history - rate[:, None]) ** 2, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    return Rates(np.asarray(rate, dtype=np.float64), np.maximum(scatter, rate))


def _weights(given: float | None) -> tuple[float, ...]:
    return WEIGHTS if given is None else (given,)


def _best(history: Floats, tries: list[Callable[[Floats], Floats]]) -> Rates:
    """The try with the smallest squared one-step error, part by part."""
    table = checked_history(history)
    rate = np.full(len(table), np.nan)
    least = np.full(len(table), np.inf)
    for attempt in tries:
        ahead = attempt(table)
        error = _squared_error(table, ahead[:, :-1])
        better = (error < least) | (np.isnan(rate) & np.isfinite(ahead[:, -1]))
        rate = np.where(better, ahead[:, -1], rate)
        least = np.where(better, error, least)
    return _with_fallback(table, rate)


def _with_fallback(table: Floats, rate: Floats) -> Rates:
    nothing_yet = np.isfinite(table).any(axis=1) & np.isnan(rate)
    return about(table, np.where(nothing_yet, 0.0, np.where(np.isnan(rate), mean_rate(table), rate)))


def _squared_error(table: Floats, ahead: Floats) -> Floats:
    gap = (table - ahead) ** 2
    scored = np.isfinite(gap)
    count = scored.sum(axis=1)
    return np.where(count > 0, np.where(scored, gap, 0.0).sum(axis=1) / np.maximum(count, 1), np.inf)


def _ses(table: Floats, weight: float) -> Floats:
    level = np.full(len(table), np.nan)
    ahead = np.full((len(table), table.shape[1] + 1), np.nan)
    for t in range(table.shape[1]):
        ahead[:, t] = level
        y = table[:, t]
        level = np.where(np.isnan(y), level, np.where(np.isnan(level), y, level + weight * (y - level)))
    ahead[:, -1] = level
    return ahead


def _croston(table: Floats, weight: float, correction: float) -> Floats:
    parts, months = table.shape
    size, interval = np.full(parts, np.nan), np.full(parts, np.nan)
    waited = np.zeros(parts)
    ahead = np.full((parts, months + 1), np.nan)
    for t in range(months):
        ahead[:, t] = size / interval
        y = table[:, t]
        waited += np.isfinite(y)
        demanded = y > 0
        started = np.isfinite(size)
        size = np.where(demanded, np.where(started, size + weight * (y - size), y), size)
        interval = np.where(demanded, np.where(started, interval + weight * (waited - interval), waited), interval)
        waited = np.where(demanded, 0.0, waited)
    ahead[:, -1] = size / interval
    return np.asarray((1 - correction * weight) * ahead)


def _tsb(table: Floats, size_weight: float, chance_weight: float) -> Floats:
    parts, months = table.shape
    size, chance = np.full(parts, np.nan), np.full(parts, np.nan)
    ahead = np.full((parts, months + 1), np.nan)
    for t in range(months):
        ahead[:, t] = np.where(np.isnan(size), 0.0 * chance, chance * size)
        y = table[:, t]
        demanded = y > 0
        size = np.where(demanded, np.where(np.isnan(size), y, size + size_weight * (y - size)), size)
        hit = np.where(np.isnan(y), np.nan, demanded.astype(np.float64))
        moved = np.where(np.isnan(chance), hit, chance + chance_weight * (hit - chance))
        chance = np.where(np.isnan(hit), chance, moved)
    ahead[:, -1] = np.where(np.isnan(size), 0.0 * chance, chance * size)
    return ahead


def _mean_interval(table: Floats) -> Floats:
    seen = np.isfinite(table)
    demanded = seen & (np.nan_to_num(table) > 0)
    place = np.cumsum(seen, axis=1)
    last = np.where(demanded, place, 0).max(axis=1, initial=0)
    return np.asarray(last / np.maximum(demanded.sum(axis=1), 1))


def _aggregated(table: Floats, longest: Floats, *, only_longest: bool) -> Floats:
    """Smoothed block totals per month; blocks are counted back from the newest recorded month."""
    rate = np.full(len(table), np.nan)
    for length in np.unique(longest).astype(np.int64):
        rows = np.flatnonzero(longest == length)
        lengths = [int(length)] if only_longest else range(1, int(length) + 1)
        rate[rows] = np.mean([_blocked(table[rows], block) for block in lengths], axis=0)
    return rate


def _blocked(table: Floats, block: int) -> Floats:
    packed = _recorded_last(table)
    blocks = packed.shape[1] // block
    if blocks == 0:
        return np.where(np.isfinite(table).any(axis=1), mean_rate(table), np.nan)
    lumps = packed[:, packed.shape[1] - blocks * block :].reshape(len(table), blocks, block).sum(axis=2)
    least, answer = np.full(len(table), np.inf), np.full(len(table), np.nan)
    for weight in BLOCK_WEIGHTS:
        ahead = _ses(lumps, weight)
        error = _squared_error(lumps, ahead[:, :-1])
        better = (error < least) | np.isnan(answer)
        answer = np.where(better, ahead[:, -1], answer)
        least = np.where(better, error, least)
    short = np.isnan(answer) & np.isfinite(table).any(axis=1)
    return np.where(short, mean_rate(table), answer / block)


def _recorded_last(table: Floats) -> Floats:
    """Recorded months moved together to the right end, NaN before them."""
    order = np.argsort(np.isfinite(table), axis=1, kind="stable")
    return np.take_along_axis(table, order, axis=1)
