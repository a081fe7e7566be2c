"""How sure a held-out figure is: its 95 % confidence interval over what was held out.

Figures that are made of sums are drawn again (bootstrap, percentile interval: Efron and Tibshirani 1993): units with
replacement, where a unit is what is independent of the next one (a user, a part, a machine), and neighbours in time in blocks
(circular: Politis and Romano 1992). Shares of independent trials and counts of rare events have exact intervals (Clopper and
Pearson 1934, Garwood 1936). What cannot be told is None: too little was held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from protocol.windows import Floats
from server.evaluation import Tail
from server.training.circumstances import DIGITS

DRAWS = 1000
SEED = 7
LEVEL = 0.95
LEAST_UNITS = 5
LEAST_MEASURED = 0.9
"""Share of draws of which the figure must be a number."""

Interval = tuple[float | None, float | None]
UNKNOWN: Interval = (None, None)


def of_sums(columns: Sequence[Floats], figure: Callable[..., Floats], block: int = 1) -> Interval:
    """columns: K arrays [units] or [units, M], each a part of the figure that adds up over units; figure: their sums over
    each draw, K arrays [draws] or [draws, M], -> the figure [draws]. block: units that are drawn together."""
    units = len(columns[0])
    if units < LEAST_UNITS * block:
        return UNKNOWN
    drawn, sums = np.random.default_rng(SEED), [np.zeros((DRAWS, *column.shape[1:])) for column in columns]
    for draw in range(DRAWS):
        starts = drawn.integers(0, units, -(-units // block))
        rows = ((starts[:, None] + np.arange(block)) % units).ravel()[:units]
        for total, column in zip(sums, columns, strict=True):
            total[draw] = column[rows].sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _between(np.asarray(figure(*sums), dtype=np.float64))


def of_mean(values: Floats, block: int = 1) -> Interval:
    """Of the mean of independent values [units]."""
    return of_sums([values, np.ones(len(values))], lambda total, count: total / count, block)


def by_group(values: Floats, groups: Sequence[object]) -> Floats:
    """Sums [G] of values [N] over the rows of each group, in the order in which groups are met."""
    place = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    places = [place[group] for group in groups]
    return np.bincount(places, weights=values, minlength=len(place)).astype(np.float64)


def of_share(hits: int, trials: int) -> Interval:
    """Of a share of independent trials, exactly."""
    if not trials:
        return UNKNOWN
    tail = (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, hits, trials - hits + 1) if hits else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, trials - hits) if hits < trials else 1.0
    return round(float(low), DIGITS), round(float(high), DIGITS)


def of_count(count: int, per: float) -> Interval:
    """Of a rate of rare events, `count` of them in `per` units, exactly."""
    tail = (1 - LEVEL) / 2
    low = stats.chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    high = stats.chi2.ppf(1 - tail, 2 * count + 2) / 2
    return round(float(low / per), DIGITS), round(float(high / per), DIGITS)


def of_forecasts(tail: Tail, answers: Floats) -> Interval:
    """Of `tail.relative_error(answers)`: forecast origins drawn again, as many together as look at the same values."""
    answers = np.where(np.isfinite(answers), answers, tail.naive)
    gap = np.abs(answers - tail.targets)
    scored = np.isfinite(gap)
    apart = int(tail.origins[1] - tail.origins[0]) if len(tail.origins) > 1 else 1
    block = -(-tail.targets.shape[2] // apart)

    def error(gaps: Floats, counts: Floats) -> Floats:
        each = np.where(counts > 0, gaps / counts, np.nan) / tail.yard
        seen = np.isfinite(each)
        return np.asarray(np.where(seen, each, 0.0).sum(axis=1) / seen.sum(axis=1), dtype=np.float64)

    by_origin = [np.where(scored, gap, 0.0).sum(axis=2).T, scored.sum(axis=2).T.astype(np.float64)]
    return of_sums(by_origin, error, min(block, max(len(tail.origins) // LEAST_UNITS, 1)))


def _between(figures: Floats) -> Interval:
    known = figures[np.isfinite(figures)]
    if len(known) < LEAST_MEASURED * len(figures) or known.min() == known.max():
        return UNKNOWN  # where all that was held out says the same, drawing it again tells nothing
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return round(float(low), DIGITS), round(float(high), DIGITS)
