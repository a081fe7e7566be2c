"""A few ARIMA models of one series, and their middle: no single order is trusted with a series of any length.

Five members: the searched order on the level and on the logarithm of a positive series; simple smoothing, (0,1,1), on
both; Holt's linear trend, (0,2,2) (Box, Jenkins & Reinsel 2008, appendix A7.3: the smoothing methods are ARIMA models). Their
median is robust where one runs away (Petropoulos & Svetunkov 2020). Where a long period is named (a year of weeks: too
long for seasonal orders) and the series holds three of them, that median is averaged with one more search that has
harmonics of the period as regressors (dynamic harmonic regression, Hyndman & Athanasopoulos 2021, section 10.5).

Which members, was chosen on four stretches of 13 values, ending 0, 13, 26 and 39 before the end of the training parts of
M4 Weekly, so that every quarter of a year is among them. Per series nothing is chosen but the searched orders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocol.windows import Floats
from server.algorithms.arima_search import Found, Limits, Orders, fit_orders, search

SMOOTHING, HOLT = Orders(0, 1, 1), Orders(0, 2, 2)
HARMONICS = 2
PERIODS = 3


@dataclass(frozen=True)
class Member:
    """One model, of the level or of the logarithm."""

    found: Found
    logarithm: bool


@dataclass(frozen=True)
class Pool:
    """What was fitted. `seasonal`: the search with harmonics of `period` (in steps), None where there is none."""

    values: Floats
    members: tuple[Member, ...]
    seasonal: Found | None
    period: float

    def forecast(self, horizon: int) -> Floats:
        """The middle of the members' means of the next `horizon` values [H]."""
        middle = np.median([self._ahead(member, horizon) for member in self.members], axis=0)
        if self.seasonal is not None:
            known = harmonics(len(self.values) + horizon, self.period, HARMONICS)
            middle = (middle + self.seasonal.forecast(self.values, horizon, known)) / 2
        return np.asarray(middle, dtype=np.float64)

    def _ahead(self, member: Member, horizon: int) -> Floats:
        y = np.log(self.values) if member.logarithm else self.values
        ahead = member.found.forecast(y, horizon)
        return np.exp(np.minimum(ahead, 700.0)) if member.logarithm else ahead


def harmonics(steps: int, period: float, count: int) -> Floats:
    """Sines and cosines of a period [steps, 2 * count]."""
    angle = 2 * np.pi * np.arange(steps)[:, None] * np.arange(1, count + 1)[None] / period
    return np.hstack([np.sin(angle), np.cos(angle)])


def fit(values: Floats, limits: Limits | None = None, period: float = 0.0) -> Pool:
    """Fits the members to values [T] (NaN: missing), the seasonal one if `period` (in steps) is given and T holds
    PERIODS of it."""
    y = np.asarray(values, dtype=np.float64)
    limits = limits or Limits()
    seen = y[np.isfinite(y)]
    scales = [(y, False)]
    if len(seen) and (seen > 0).all():
        scales.append((np.log(y), True))
    members: list[Member] = []
    for scale, logarithm in scales:
        searched = Member(search(scale, limits)[0], logarithm)
        smoothed = fit_orders(scale, SMOOTHING)
        members += [searched, searched if smoothed is None else Member(smoothed, logarithm)]
    holt = fit_orders(y, HOLT)
    members.append(members[0] if holt is None else Member(holt, False))
    seasonal = None
    if period and len(y) >= PERIODS * period and np.isfinite(members[0].found.aicc):
        narrow = Limits(short=3, degree=members[0].found.orders.d)
        seasonal = search(y, narrow, harmonics(len(y), period, HARMONICS))[0]
    return Pool(y, tuple(members), seasonal, period)
