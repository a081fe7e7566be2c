"""ARIMA for one signal, with its daily shape and its known inputs as regressions: arrays in, a state-space model out.

Box & Jenkins 1970; orders by `arima_search` (AICc within one degree of differencing: likelihoods of different degrees
cannot be compared). A rolling forecast over the end of the given series decides between the degrees, and whether the
daily shape and the known inputs help. The chosen model is expressed in statsmodels' state space (Harvey 1989), whose
filter gives the state to go on from. The gateway only ever runs the linear recursion (`protocol.tables.StateSpace`)."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.tables import StateSpace, Tables
from protocol.windows import DAY_MS, Floats, day_harmonics
from server.algorithms.arima_search import Found, Limits, search

Order = tuple[int, int, int]
DEGREES = (0, 1)
SHORT = 3
HARMONICS = 2
LONGEST = 600
SHORTEST = 48
INNER_SHARE = 0.75
CLIP = 8.0
RIDGE = 10.0


@dataclass(frozen=True)
class FittedArima:
    """One series' rows of the state-space tables, before padding to a common k. `state`, `cov` hold for the
    bucket after the last one of the series that was fitted. gamma [C]: effect of the known inputs, 0 where they did not
    help."""

    order: Order
    seasonal: bool
    transition: Floats
    design: Floats
    state_cov: Floats
    obs_var: float
    state: Floats
    cov: Floats
    beta: Floats
    gamma: Floats
    center: float
    scale: float

    def tables(self) -> Tables:
        """As the tables of a single series."""
        names = (*TABLES, "gamma") if len(self.gamma) else TABLES
        rows = {name: np.asarray(getattr(self, name), dtype=np.float64)[None] for name in names}
        return dict(rows)


TABLES = ("transition", "design", "state_cov", "obs_var", "state", "cov", "beta", "center", "scale")


@dataclass(frozen=True)
class _Signal:
    """What is fitted: y [T] = (value - center) / scale, clipped; its times [T]; known inputs [T, C]."""

    values: Floats
    y: Floats
    times: NDArray[np.int64]
    known: Floats
    center: float
    scale: float


@dataclass(frozen=True)
class _Choice:
    """What an inner split decides: degree of differencing, whether the day has a shape, whether known inputs help."""

    degree: int
    seasonal: bool
    informed: bool


def fit(values: Floats, start_ms: int, step_ms: int, horizon: int, known: Floats | None = None) -> FittedArima | None:
    """Fits `values` [T] (NaN: missing), whose first bucket starts at start_ms, with known inputs [T, C]. None where fewer
    than SHORTEST of the last LONGEST buckets were observed. Deterministic: nothing is drawn at random."""
    signal = _signal(values, start_ms, step_ms, known)
    if signal is None:
        return None
    inner = int(len(signal.y) * INNER_SHARE)
    days = (False, True) if inner * step_ms >= DAY_MS else (False,)
    informed = (True, False) if signal.known.any() else (False,)
    best: tuple[float, _Choice] | None = None
    for seasonal, degree, uses in itertools.product(days, DEGREES, informed):
        choice = _Choice(degree, seasonal, uses)
        error = _rolled(_fitted(signal, choice, inner), signal, inner, step_ms, horizon)
        if best is None or error < best[0]:
            best = (error, choice)
    assert best is not None  # noqa: S101 - DEGREES is not empty
    return _fitted(signal, best[1], len(signal.y))


def _signal(values: Floats, start_ms: int, step_ms: int, known: Floats | None) -> _Signal | None:
    start_ms += max(len(values) - LONGEST, 0) * step_ms
    values = np.asarray(values[-LONGEST:], dtype=np.float64)
    beside = (
        np.zeros((len(values), 0)) if known is None else np.nan_to_num(np.asarray(known[-LONGEST:], dtype=np.float64))
    )
    seen = np.isfinite(values)
    if seen.sum() < SHORTEST:
        return None
    center = float(np.median(values[seen]))
    scale = max(float(np.mean(np.abs(values[seen] - center))), 1e-6 * max(abs(center), 1.0))
    # A fault in the training stretch must not dictate the noise of the healthy machine.
    y = np.clip((values - center) / scale, -CLIP, CLIP)
    times = start_ms + step_ms * np.arange(len(y), dtype=np.int64)
    return _Signal(values, y, times, beside, center, scale)


def _fitted(signal: _Signal, choice: _Choice, until: int) -> FittedArima:
    """The chosen kind of model, fitted to the first `until` buckets."""
    y, times = signal.y[:until], signal.times[:until]
    known = signal.known[:until] if choice.informed else np.zeros((until, 0))
    beta = _daily_shape(y, times, choice.seasonal)
    rest = y - day_harmonics(times, HARMONICS) @ beta
    found = search(rest, Limits(short=SHORT, degree=choice.degree, constant=False), known)[0]
    gamma = np.zeros(signal.known.shape[1])
    if choice.informed:
        gamma[:] = found.beta[len(found.beta) - len(gamma) :]
        rest = rest - known @ gamma
    return _state_space(
        rest, _order(found), _parameters(found), beta, choice.seasonal, signal.center, signal.scale, gamma
    )


def _order(found: Found) -> Order:
    return found.orders.p, found.orders.d, found.orders.q


def _parameters(found: Found) -> Floats:
    """In statsmodels' order, the variance last and never zero."""
    parameters = found.parameters()
    parameters[-1] = max(parameters[-1], 1e-9)
    return parameters


def _daily_shape(y: Floats, times: NDArray[np.int64], seasonal: bool) -> Floats:
    """Least squares on the day's harmonics, ridged because a day or two are a short sample: [1 + 2K]."""
    beta = np.zeros(1 + 2 * HARMONICS)
    seen = np.isfinite(y)
    x = day_harmonics(times, HARMONICS if seasonal else 0)[seen]
    penalty = RIDGE * np.eye(x.shape[1])
    penalty[0, 0] = 1e-9
    beta[: x.shape[1]] = np.linalg.solve(x.T @ x + penalty, x.T @ y[seen])
    return beta


def _state_space(
    rest: Floats,
    order: Order,
    params: Floats,
    beta: Floats,
    seasonal: bool,
    center: float,
    scale: float,
    gamma: Floats | None = None,
) -> FittedArima:
    """statsmodels' matrices at given parameters, and its filter's state after `rest`."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about starting values, which are not used
        filtered = SARIMAX(rest, order=order, trend="n", simple_differencing=False).filter(params)
    ssm: Any = filtered.model.ssm
    chosen = ssm["selection"]
    return FittedArima(
        order=order,
        seasonal=seasonal,
        transition=np.array(ssm["transition"], dtype=np.float64),
        design=np.array(ssm["design"][0], dtype=np.float64),
        state_cov=np.asarray(chosen @ ssm["state_cov"] @ chosen.T, dtype=np.float64),
        obs_var=float(ssm["obs_cov"][0, 0]),
        state=np.array(filtered.predicted_state[:, -1], dtype=np.float64),
        cov=np.array(filtered.predicted_state_cov[:, :, -1], dtype=np.float64),
        beta=beta,
        gamma=np.zeros(0) if gamma is None else gamma,
        center=center,
        scale=scale,
    )


def _rolled(tried: FittedArima, signal: _Signal, inner: int, step_ms: int, horizon: int) -> float:
    """Mean absolute error of forecasts issued from bucket `inner` on at every fourth of a horizon, in units of
    scale."""
    filter_ = StateSpace(tried.tables())
    errors: list[float] = []
    every = max(horizon // 4, 1)
    for i in range(inner, len(signal.values)):
        at = int(signal.times[i])
        if (i - inner) % every == 0 and i + horizon <= len(signal.values):
            beside = signal.known[i : i + horizon].T[None]
            mean, _ = filter_.forecast(at, step_ms, horizon, beside)
            ahead = signal.values[i : i + horizon]
            if np.isfinite(ahead).any():
                errors.append(float(np.nanmean(np.abs(ahead - mean[0]))))
        filter_.step(signal.values[i : i + 1], at, signal.known[i : i + 1])
    return float(np.mean(errors)) / tried.scale if errors else np.inf
