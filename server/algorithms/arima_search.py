"""Which ARIMA orders fit a series: a stepwise search by AICc, in milliseconds.

Hyndman & Khandakar 2008 (J. Stat. Softw. 27(3)): repeated KPSS tests (Kwiatkowski et al. 1992) choose d, the strength of
the season (Wang, Smith & Hyndman 2006) chooses D, then the orders walk to the best neighbour. Each step of the walk
starts at its neighbour's parameters (one more partial autocorrelation, near zero), so a candidate costs a few
iterations of the exact likelihood (`arima_likelihood`). The same series gives the same model: nothing is random.

Where a search is not possible there is a stated answer instead of an error: a constant series is its level, a series
shorter than SHORTEST a random walk (white noise around its mean below three values), gaps take the full recursion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from protocol.windows import Floats
from server.algorithms import arima_likelihood as likelihood

SHORTEST = 8
LONGEST = 20_000
"""Older values than these are not looked at."""
KPSS_CRITICAL = 0.463
STRONG_SEASON = 0.64
SUPPORTED = 2.0
"""Candidates whose AICc is within this of the lowest are as well supported (Burnham & Anderson 2002, section 2.6); the
one with the fewest parameters is taken. The likelihood is maximized to the end here, so the lowest AICc alone overfits."""
ROOT_MARGIN = 1.01
"""A candidate with a root inside this circle is refused, as in Hyndman & Khandakar."""


@dataclass(frozen=True)
class Limits:
    """How far the walk may go. `season`: buckets of one season, 1: none. `degree`: d, where it is not left to the tests.
    `constant`: whether a constant or drift may be put in."""

    season: int = 1
    short: int = 5
    seasonal: int = 2
    together: int = 7
    iterations: int = 40
    candidates: int = 94
    degree: int | None = None
    constant: bool = True


@dataclass(frozen=True, order=True)
class Orders:
    """(p, d, q)(P, D, Q) and whether there is a constant (a drift where d + D is 1)."""

    p: int
    d: int
    q: int
    sp: int = 0
    sd: int = 0
    sq: int = 0
    constant: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """How many parameters of each kind."""
        return self.p, self.q, self.sp, self.sq


@dataclass(frozen=True)
class Found:
    """One fitted candidate. `raw`: its partial autocorrelations before the transform; `beta`: constant first (if any),
    then one coefficient per regressor; `variance` of one step; `state`: of the differenced series, after its last value."""

    orders: Orders
    season: int
    raw: Floats
    beta: Floats
    variance: float
    aicc: float
    state: Floats = field(repr=False)

    @property
    def polynomials(self) -> tuple[Floats, Floats]:
        """(phi, theta), expanded over the season."""
        return likelihood.polynomials(self.raw, self.orders.shape, self.season)

    def name(self) -> str:
        """As statisticians write it."""
        o = self.orders
        seasonal = f"({o.sp},{o.sd},{o.sq})[{self.season}]" if self.season > 1 else ""
        return f"ARIMA({o.p},{o.d},{o.q}){seasonal}{' with constant' if o.constant else ''}"

    def parameters(self) -> Floats:
        """In the order of statsmodels' SARIMAX: ar, ma, seasonal ar, seasonal ma, variance (no regression)."""
        parts = np.split(self.raw, np.cumsum(self.orders.shape)[:3])
        signs = (1.0, -1.0, 1.0, -1.0)
        made = [sign * likelihood.coefficients(np.ascontiguousarray(x)) for sign, x in zip(signs, parts, strict=True)]
        return np.concatenate([*made, [self.variance]])

    def forecast(self, values: Floats, horizon: int, known: Floats | None = None) -> Floats:
        """Mean of the next `horizon` values [H] of the series that was fitted; `known` [T + H, C] are its regressors
        over the past and the future. A missing value at the end counts as the last one seen."""
        o = self.orders
        phi, _ = self.polynomials
        level = _without_gaps(values)
        ahead = np.zeros(horizon)
        outside = np.zeros(len(level) + horizon)
        if known is not None and known.shape[1]:
            outside = known @ self.beta[int(o.constant) :]
            level = level - outside[: len(level)]
        state = np.array(self.state)
        coefficient = np.zeros(len(state))
        coefficient[: len(phi)] = phi
        for h in range(horizon):
            ahead[h] = state[0] + (self.beta[0] if o.constant else 0.0)
            state = np.append(state[1:], 0.0) + coefficient * state[0]
        lags = _differencing(o.d, o.sd, self.season)
        past = np.concatenate([level[len(level) - len(lags) :] if len(lags) else level[:0], ahead])
        for h in range(len(lags), len(past)):
            past[h] += float(lags @ past[h - len(lags) : h][::-1])
        return np.asarray(past[len(lags) :] + outside[len(level) :], dtype=np.float64)


def search(values: Floats, limits: Limits | None = None, known: Floats | None = None) -> list[Found]:
    """Every candidate that the walk fitted to values [T] (NaN: missing) with regressors [T, C]: the chosen one first
    (see SUPPORTED), the others by AICc. Never empty; all of them share one degree of differencing."""
    limits = limits or Limits()
    y = _trimmed(np.asarray(values, dtype=np.float64))
    x = np.zeros((len(y), 0)) if known is None else np.asarray(known, dtype=np.float64)[len(known) - len(y) :]
    seen = y[np.isfinite(y)]
    if len(seen) < SHORTEST or np.ptp(seen) <= 1e-12 * np.abs(seen).max():
        return [_simplest(seen, limits.season, x.shape[1])]
    season = limits.season if len(y) > 2 * limits.season + SHORTEST else 1
    sd = _seasonal_degree(y, season)
    d = limits.degree
    if d is None:
        d = _degree(_differenced(y, 0, sd, season), 2 if sd == 0 else 1)
    return _Walk(y, x, d, sd, season, limits).run()


def fit_orders(values: Floats, orders: Orders, season: int = 1, known: Floats | None = None) -> Found | None:
    """One given model; None where the series does not support it (too short, constant, a root near the circle)."""
    y = _trimmed(np.asarray(values, dtype=np.float64))
    x = np.zeros((len(y), 0)) if known is None else np.asarray(known, dtype=np.float64)[len(known) - len(y) :]
    seen = y[np.isfinite(y)]
    if len(seen) < SHORTEST or np.ptp(seen) <= 1e-12 * np.abs(seen).max():
        return None
    walk = _Walk(y, x, orders.d, orders.sd, season, Limits(season=season))
    return walk.fit(orders, None)


class _Walk:
    """One series' search: the candidates tried so far, by their orders."""

    def __init__(self, y: Floats, x: Floats, d: int, sd: int, season: int, limits: Limits) -> None:
        self.d, self.sd, self.season, self.limits = d, sd, season, limits
        w = _differenced(y, d, sd, season)
        regressors = np.stack([_differenced(column, d, sd, season) for column in x.T], axis=1) if x.shape[1] else None
        self.seen = np.isfinite(w)
        self.gaps = not bool(self.seen.all())
        ones = np.ones((len(w), 1))
        blank = np.where(self.seen, w, 0.0)[:, None]
        tail = [] if regressors is None else [regressors]
        self.with_constant = np.ascontiguousarray(np.hstack([blank, ones, *tail]))
        self.plain = np.ascontiguousarray(np.hstack([blank, *tail]))
        self.tried: dict[Orders, Found | None] = {}

    def run(self) -> list[Found]:
        constant = self._may_have_constant()
        small = min(2, int(self.seen.sum()) // 3)
        first = self._orders(small, small, constant)
        starts = [first, self._orders(0, 0, constant), self._orders(1, 0, constant), self._orders(0, 1, constant)]
        if constant:
            starts.append(self._orders(0, 0, False))
        for orders in starts:
            self.fit(orders, None)
        best = self._best()
        while best is not None and len(self.tried) < self.limits.candidates:
            for orders in self._neighbours(best.orders):
                if orders not in self.tried:
                    self.fit(orders, best)
            now = self._best()
            if now is None or now is best:
                break
            best = now
        found = sorted((f for f in self.tried.values() if f is not None), key=lambda f: (f.aicc, f.orders))
        if not found:
            return [self.fallback()]
        supported = [f for f in found if f.aicc <= found[0].aicc + SUPPORTED]
        chosen = min(supported, key=lambda f: (sum(f.orders.shape) + f.orders.constant, f.aicc))
        return [chosen, *(f for f in found if f is not chosen)]

    def _may_have_constant(self) -> bool:
        return self.limits.constant and self.d + self.sd <= 1

    def _orders(self, p: int, q: int, constant: bool) -> Orders:
        seasonal = int(self.season > 1)
        return Orders(p, self.d, q, seasonal * int(p > 0), self.sd, seasonal * int(q > 0), constant)

    def _best(self) -> Found | None:
        found = [f for f in self.tried.values() if f is not None]
        return min(found, key=lambda f: (f.aicc, f.orders)) if found else None

    def _neighbours(self, o: Orders) -> Iterator[Orders]:
        """One step in p, q, both, P, Q or both, or the constant put in or left out; within the limits."""
        steps = [(a, b, 0, 0) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
        if self.season > 1:
            steps += [(0, 0, a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
        limits = self.limits
        for a, b, sa, sb in steps:
            p, q, sp, sq = o.p + a, o.q + b, o.sp + sa, o.sq + sb
            if min(p, q, sp, sq) < 0 or max(p, q) > limits.short or max(sp, sq) > limits.seasonal:
                continue
            if p + q + sp + sq <= limits.together:
                yield Orders(p, o.d, q, sp, o.sd, sq, o.constant)
        if self._may_have_constant():
            yield Orders(o.p, o.d, o.q, o.sp, o.sd, o.sq, not o.constant)

    def fit(self, orders: Orders, near: Found | None) -> Found | None:
        """One candidate, remembered; None where the series is too short for it or a root is too near the circle."""
        self.tried[orders] = None
        w = self.with_constant if orders.constant else self.plain
        count = int(self.seen.sum())
        k = sum(orders.shape) + w.shape[1]  # the variance stands for the series' own column
        if count - k - 1 <= 0:
            return None
        start = _start(orders, near)
        raw, _ = likelihood.maximized(w, self.seen, self.gaps, start, orders.shape, self.season, self.limits.iterations)
        phi, theta = likelihood.polynomials(raw, orders.shape, self.season)
        if not (likelihood.is_stationary(phi, ROOT_MARGIN) and likelihood.is_stationary(-theta, ROOT_MARGIN)):
            return None
        beta, variance, value, state = likelihood.settled(w, self.seen, self.gaps, phi, theta)
        if np.isfinite(value):
            aicc = -2 * value + 2 * k + 2 * k * (k + 1) / (count - k - 1)
            self.tried[orders] = Found(orders, self.season, raw, beta, variance, float(aicc), state)
        return self.tried[orders]

    def fallback(self) -> Found:
        """No orders at all: a walk of the degree of differencing."""
        beta = np.zeros(self.plain.shape[1] - 1)
        seen = self.plain[self.seen, 0]
        variance = float(np.mean(seen**2)) if len(seen) else 0.0
        return Found(Orders(0, self.d, 0, 0, self.sd), self.season, np.zeros(0), beta, variance, np.inf, np.zeros(1))


def _start(orders: Orders, near: Found | None) -> Floats:
    """The neighbour's parameters where it has them, else a little: common factors must not cancel exactly."""
    parts: list[Floats] = []
    old = np.split(near.raw, np.cumsum(near.orders.shape)[:3]) if near is not None else [np.zeros(0)] * 4
    for size, have in zip(orders.shape, old, strict=True):
        part = np.full(size, 0.05)
        part[: min(size, len(have))] = np.clip(have[:size], -2.0, 2.0)
        parts.append(part)
    return np.concatenate(parts)


def _simplest(seen: Floats, season: int, regressors: int) -> Found:
    """A constant or very short series: its last value, with the variance of its changes."""
    walks = len(seen) > 2
    changes = np.diff(seen) if walks else seen - seen.mean() if len(seen) else np.zeros(1)
    beta = (
        np.zeros(regressors) if walks else np.concatenate([[seen.mean() if len(seen) else 0.0], np.zeros(regressors)])
    )
    variance = float(np.mean(changes**2))
    return Found(Orders(0, int(walks), 0, constant=not walks), 1, np.zeros(0), beta, variance, np.inf, np.zeros(1))


def _trimmed(values: Floats) -> Floats:
    """The last LONGEST values, without missing ones at the beginning."""
    values = values[-LONGEST:]
    seen = np.flatnonzero(np.isfinite(values))
    return values[seen[0] :] if len(seen) else values[:0]


def _without_gaps(values: Floats) -> Floats:
    """Gaps bridged by straight lines; the last value seen goes on to the end."""
    seen = np.flatnonzero(np.isfinite(values))
    if len(seen) == len(values) or not len(seen):
        return np.nan_to_num(values)
    return np.interp(np.arange(len(values)), seen, values[seen])


def _differencing(d: int, sd: int, season: int) -> Floats:
    """delta in y[t] = delta[0] y[t-1] + ... + w[t]."""
    polynomial = np.ones(1)
    for lag in [1] * d + [season] * sd:
        factor = np.zeros(lag + 1)
        factor[0], factor[-1] = 1.0, -1.0
        polynomial = np.convolve(polynomial, factor)
    return -polynomial[1:]


def _differenced(y: Floats, d: int, sd: int, season: int) -> Floats:
    for lag in [season] * sd + [1] * d:
        y = y[lag:] - y[:-lag]
    return y


def _degree(y: Floats, most: int) -> int:
    """How often a series is differenced before a KPSS test (5 %) takes it for stationary around a level."""
    for d in range(most + 1):
        seen = y[np.isfinite(y)]
        if d == most or len(seen) < SHORTEST or np.ptp(seen) <= 1e-12 * np.abs(seen).max() or not _kpss_rejects(seen):
            return d
        y = np.diff(y)
    return most


def _kpss_rejects(y: Floats) -> bool:
    n = len(y)
    e = y - y.mean()
    lags = int(3 * np.sqrt(n) / 13)
    long_run = float(e @ e) / n
    for lag in range(1, lags + 1):
        long_run += 2 * (1 - lag / (lags + 1)) * float(e[lag:] @ e[:-lag]) / n
    statistic = float(np.sum(np.cumsum(e) ** 2)) / n**2 / max(long_run, 1e-300)
    return statistic > KPSS_CRITICAL


def _seasonal_degree(y: Floats, season: int) -> int:
    """1 where the season explains more than STRONG_SEASON of what a moving average leaves."""
    if season < 2 or len(y) < 3 * season:
        return 0
    filled = _without_gaps(y)
    weights = np.ones(season) if season % 2 else np.concatenate([[0.5], np.ones(season - 1), [0.5]])
    half = len(weights) // 2
    rest = filled[half : len(filled) - half] - np.convolve(filled, weights / weights.sum(), mode="valid")
    place = (np.arange(len(rest)) + half) % season
    shape = np.array([rest[place == k].mean() for k in range(season)])
    noise = float(np.var(rest - shape[place]))
    return int(1 - noise / max(float(np.var(rest)), 1e-300) > STRONG_SEASON)
