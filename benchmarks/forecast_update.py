"""What one new observation costs on a gateway: microseconds, bytes, and the distance from statsmodels' own filter.

Data: the first long series of M4 Weekly in the folder; a non-seasonal ARIMA(2,1,2) and a seasonal (2,1,2)(1,0,1)24 with
given parameters (accuracy is not the point here). Ours is the gateway's recursion for 1 and for 1,000 series; the cost
per observation is the median of repeats that take turns. Peers: statsmodels' `append` and `extend` of one value.
Equality is checked over a stretch with gaps, against one statsmodels filter over everything: innovations, their
deviations, forecasts of 48 steps and their deviations."""

from __future__ import annotations

import contract

# isort: split
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import m4
import numpy as np
from numpy.typing import NDArray

from protocol.tables import StateSpace, Tables

MODELS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int, int], list[float]]] = {
    "ARIMA(2,1,2)": ((2, 1, 2), (0, 0, 0, 0), [0.5, 0.2, 0.3, 0.1, 1.0]),
    "ARIMA(2,1,2)(1,0,1)[24]": ((2, 1, 2), (1, 0, 1, 24), [0.5, 0.2, 0.3, 0.1, 0.7, 0.3, 1.0]),
}
FLEET = 1000
STEP_MS = 900_000
SINGLE_US, FLEET_US, STATE_BYTES, EXACT = 5.0, 0.5, 1024, 1e-8


@dataclass
class Timed:
    """Seconds of each repeat."""

    one: list[float] = field(default_factory=list)
    fleet: list[float] = field(default_factory=list)
    append: list[float] = field(default_factory=list)
    extend: list[float] = field(default_factory=list)


def filtered(y: m4.Floats, name: str) -> Any:
    """statsmodels' filter at the given parameters."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    order, seasonal, parameters = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SARIMAX(y, order=order, seasonal_order=seasonal).filter(parameters)


def tables(result: Any, series: int) -> Tables:
    """The gateway's tables after everything that `result` has seen, the same for each series."""
    ssm = result.model.ssm
    chosen = ssm["selection"]
    rows = {
        "transition": ssm["transition"],
        "design": ssm["design"][0],
        "state_cov": chosen @ ssm["state_cov"] @ chosen.T,
        "obs_var": ssm["obs_cov"][0, 0],
        "state": result.predicted_state[:, -1],
        "cov": result.predicted_state_cov[:, :, -1],
        "beta": np.zeros(1),
        "center": 0.0,
        "scale": 1.0,
    }
    return {key: np.repeat(np.asarray(row, dtype=np.float64)[None], series, axis=0) for key, row in rows.items()}


def per_call(model: StateSpace, values: m4.Floats, calls: int) -> float:
    """Seconds of one `step`, over `calls` of them."""
    started = time.perf_counter()
    for i in range(calls):
        model.step(values, i * STEP_MS)
    return (time.perf_counter() - started) / calls


def timings(y: m4.Floats, name: str, repeats: int) -> tuple[Timed, StateSpace]:
    """Repeats that take turns, all from the same state."""
    result = filtered(y, name)
    one, fleet = StateSpace(tables(result, 1)), StateSpace(tables(result, FLEET))
    values, many = y[-1:].copy(), np.full(FLEET, y[-1])
    for model, taken in ((one, values), (fleet, many)):
        per_call(model, taken, 100)
    timed = Timed()
    for _ in range(repeats):
        timed.one.append(per_call(one, values, 400))
        timed.fleet.append(per_call(fleet, many, 20))
    for _ in range(3):
        for spent, call in ((timed.extend, result.extend), (timed.append, result.append)):
            started = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call(values)
            spent.append(time.perf_counter() - started)
    return timed, fleet


def with_gaps(y: m4.Floats) -> m4.Floats:
    """Single values and longer stretches missing in the second half."""
    holed = y.copy()
    half = len(y) // 2
    for start, length in ((10, 1), (40, 12), (90, 2), (91, 1), (130, 30)):
        holed[half + start : half + start + length] = np.nan
    return holed


def deviation(y: m4.Floats, name: str) -> float:
    """Largest distance from statsmodels' filter, in standard deviations of one step."""
    holed = with_gaps(y)
    half = len(y) // 2
    exact = filtered(holed, name)
    model = StateSpace(tables(filtered(holed[:half], name), 3))
    errors, variances = exact.forecasts_error[0], exact.forecasts_error_cov[0, 0]
    worst = 0.0
    for t in range(half, len(y)):
        z, spread = model.step(np.full(3, holed[t]), t * STEP_MS)
        worst = max(worst, float(np.abs(spread - np.sqrt(variances[t])).max()))
        if np.isfinite(holed[t]):
            worst = max(worst, float(np.abs(z - errors[t] / np.sqrt(variances[t])).max()))
    mean, spread = model.forecast(0, STEP_MS, 48)
    ahead = exact.get_forecast(48)
    gaps: list[NDArray[np.float64]] = [mean - ahead.predicted_mean, spread - ahead.se_mean]
    return max(worst, *(float(np.abs(gap).max()) for gap in gaps))


def measure(sheet: contract.Sheet) -> None:
    """Fills the sheet."""
    series = m4.read(sheet, "Weekly")
    longest = max(series, key=lambda s: len(s.train))
    y = (longest.train - longest.train.mean()) / max(float(np.std(np.diff(longest.train))), 1e-12)
    if len(y) < 400:
        y = np.tile(y, -(-400 // len(y)))
        sheet.note("every series is short: the longest is repeated to 400 values")
    y = y[-(600 if sheet.options.quick else 1600) :]
    for name in MODELS:
        timed, fleet = timings(y, name, 7 if sheet.options.quick else 41)
        one = float(np.median(timed.one)) * 1e6
        many = float(np.median(timed.fleet)) * 1e6 / FLEET
        peers = {
            "statsmodels extend": float(np.median(timed.extend)) * 1e6,
            "statsmodels append": float(np.median(timed.append)) * 1e6,
        }
        sheet.row(
            f"{name}, 1 series",
            "us per observation",
            one,
            peers=dict(peers),
            target=SINGLE_US,
            holds=one <= SINGLE_US,
            n=len(timed.one),
        )
        sheet.row(
            f"{name}, {FLEET} series",
            "us per observation",
            many,
            peers=dict(peers),
            target=FLEET_US,
            holds=many <= FLEET_US,
            n=len(timed.fleet),
        )
        rest = bool(fleet.resting.all())
        size = float(fleet.moving_bytes().max())
        sheet.row(
            f"{name}, state at rest",
            "bytes per series",
            size,
            target=STATE_BYTES,
            holds=size <= STATE_BYTES if rest else None,
            n=FLEET,
        )
        k = fleet.design.shape[1]
        moving = 8 * k + 1 + 4 * k * (k + 1)
        sheet.row(
            f"{name}, state just after a gap",
            "bytes per series",
            moving,
            target=STATE_BYTES,
            holds=moving <= STATE_BYTES,
            n=FLEET,
        )
        gap = deviation(y, name)
        sheet.row(
            f"{name}, from statsmodels' filter",
            "largest deviation",
            gap,
            target=EXACT,
            holds=gap <= EXACT,
            n=len(y) // 2,
        )
    sheet.note(
        "at rest the covariance is a constant of the model, as its other tables are; after a missing value it moves "
        "(and would have to be kept) until it has come to rest again"
    )


if __name__ == "__main__":
    raise SystemExit(contract.run("forecast_update", __doc__, measure))
