"""ARIMA for one signal, with its daily shape as a regression: arrays in, a state-space model out.

Box & Jenkins 1970; state-space form of Harvey 1989, fitted by statsmodels' exact likelihood. Orders follow
the idea of Hyndman & Khandakar 2008: AICc decides among orders of one degree of differencing (likelihoods of
different degrees cannot be compared), a rolling forecast over the end of the given series decides between the
degrees, and whether the daily shape helps. The gateway only ever runs the linear recursion
(`protocol.tables.StateSpace`)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.tables import StateSpace, Tables
from protocol.windows import Floats, day_harmonics

Order = tuple[int, int, int]
ORDERS: tuple[tuple[Order, ...], ...] = (((1, 0, 0), (2, 0, 1)), ((0, 1, 1), (1, 1, 1)))
HARMONICS = 2
LONGEST = 600
SHORTEST = 48
INNER_SHARE = 0.75
CLIP = 8.0
RIDGE = 10.0


@dataclass(frozen=True)
class FittedArima:
    """One series' rows of the state-space tables, before padding to a common k. `state`, `cov` hold for the
    bucket after the last one of the series that was fitted."""

    order: Order
    seasonal: bool
    transition: Floats
    design: Floats
    state_cov: Floats
    obs_var: float
    state: Floats
    cov: Floats
    beta: Floats
    center: float
    scale: float

    def tables(self) -> Tables:
        """As the tables of a single series."""
        rows = {name: np.asarray(getattr(self, name), dtype=np.float64)[None] for name in TABLES}
        return dict(rows)


TABLES = ("transition", "design", "state_cov", "obs_var", "state", "cov", "beta", "center", "scale")


def fit(values: Floats, start_ms: int, step_ms: int, horizon: int) -> FittedArima | None:
    """Fits `values` [T] (NaN: missing), whose first bucket starts at start_ms. None where fewer than SHORTEST
    buckets were observed. Deterministic: nothing is drawn at random."""
    start_ms += max(len(values) - LONGEST, 0) * step_ms
    values = values[-LONGEST:]
    seen = np.isfinite(values)
    if seen.sum() < SHORTEST:
        return None
    center = float(np.median(values[seen]))
    scale = max(float(np.mean(np.abs(values[seen] - center))), 1e-6 * max(abs(center), 1.0))
    # A fault in the training stretch must not dictate the noise of the healthy machine.
    y = np.clip((values - center) / scale, -CLIP, CLIP)
    times = start_ms + step_ms * np.arange(len(y), dtype=np.int64)
    inner = int(len(y) * INNER_SHARE)
    best: tuple[float, Order, bool] | None = None
    for seasonal in (False, True) if (inner * step_ms >= 86_400_000) else (False,):
        beta = _daily_shape(y[:inner], times[:inner], seasonal)
        rest = y - day_harmonics(times, HARMONICS) @ beta
        for orders in ORDERS:
            order, params = min((_searched(rest[:inner], order) for order in orders), key=lambda found: found[2])[:2]
            tried = _state_space(rest[:inner], order, params, beta, seasonal, center, scale)
            error = _rolled(tried, values[inner:], int(times[inner]), step_ms, horizon)
            if best is None or error < best[0]:
                best = (error, order, seasonal)
    assert best is not None  # noqa: S101 - ORDERS is not empty
    beta = _daily_shape(y, times, best[2])
    rest = y - day_harmonics(times, HARMONICS) @ beta
    order, params, _ = _searched(rest, best[1])
    return _state_space(rest, order, params, beta, best[2], center, scale)


def _daily_shape(y: Floats, times: NDArray[np.int64], seasonal: bool) -> Floats:
    """Least squares on the day's harmonics, ridged because a day or two are a short sample: [1 + 2K]."""
    beta = np.zeros(1 + 2 * HARMONICS)
    seen = np.isfinite(y)
    x = day_harmonics(times, HARMONICS if seasonal else 0)[seen]
    penalty = RIDGE * np.eye(x.shape[1])
    penalty[0, 0] = 1e-9
    beta[: x.shape[1]] = np.linalg.solve(x.T @ x + penalty, x.T @ y[seen])
    return beta


def _model(rest: Floats, order: Order, concentrate: bool) -> Any:
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    return SARIMAX(rest, order=order, trend="n", simple_differencing=False, concentrate_scale=concentrate)


def _searched(rest: Floats, order: Order) -> tuple[Order, Floats, float]:
    """Maximum likelihood with the noise variance concentrated out: (order, parameters with the variance last,
    AICc)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # starting values are allowed to be poor; the likelihood decides
        found = _model(rest, order, True).fit(disp=0, maxiter=25, method="lbfgs", cov_type="none", low_memory=True)
    aicc = float(found.aicc) if np.isfinite(found.aicc) else np.inf
    return order, np.append(found.params, max(float(found.scale), 1e-9)), aicc


def _state_space(
    rest: Floats, order: Order, params: Floats, beta: Floats, seasonal: bool, center: float, scale: float
) -> FittedArima:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filtered = _model(rest, order, False).filter(params)
    ssm = filtered.model.ssm
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
        center=center,
        scale=scale,
    )


def _rolled(tried: FittedArima, values: Floats, start_ms: int, step_ms: int, horizon: int) -> float:
    """Mean absolute error of forecasts issued along `values` at every fourth of a horizon, in units of
    scale."""
    filter_ = StateSpace(tried.tables())
    errors: list[float] = []
    every = max(horizon // 4, 1)
    for i in range(len(values)):
        at = start_ms + i * step_ms
        if i % every == 0 and i + horizon <= len(values):
            mean, _ = filter_.forecast(at, step_ms, horizon)
            ahead = values[i : i + horizon]
            if np.isfinite(ahead).any():
                errors.append(float(np.nanmean(np.abs(ahead - mean[0]))))
        filter_.step(values[i : i + 1], at)
    return float(np.mean(errors)) / tried.scale if errors else np.inf
