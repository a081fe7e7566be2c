"""Learns a machine's normal state from a normal stretch of its signals, as tables of `protocol.tables.Monitor`.

What is learned: a robust centre and scale of the smoothed signals, which signals drift (they are left out: inertia looks
like a fault to a frozen chart), and limits from the wanted false alarms a machine-month; with `components`, a PCA for T2
and Q besides (Jackson & Mudholkar 1979; limits by Box 1954). Without, each signal is watched against its own spread: on
short normal stretches the small principal directions are mostly noise, and T2 alarms on them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from protocol.alarms import run_length
from protocol.errors import Reason, Refused
from protocol.tables import Tables
from protocol.windows import Floats

DRIFTS_FROM = 0.6
"""A half-to-half shift of a normal stretch, in its own spread, above which a signal drifts. One without memory shows
about 0.1 on 400 rows."""
NOISE_FLOOR = 0.3
"""Share of the row-to-row noise below which no spread of the smoothed signal is believed: a stretch without an episode
says little about the next."""
FEWEST_ROWS = 50
FAULTY_FROM, MOST_FAULTY = 6.0, 0.2


@dataclass(frozen=True)
class MonitorSettings:
    """`step_ms`: time of a row; `smoothing`: weight of the newest row; `components`: principal directions for T2 and Q
    (0: none); `release`: an alarm ends below this share of the limit."""

    step_ms: int
    false_alarms_per_machine_month: float = 0.5
    smoothing: float = 0.1
    components: int = 0
    release: float = 0.5


@dataclass(frozen=True)
class FittedMonitor:
    """`kept`: the columns that are watched, in the tables' order."""

    kept: list[int]
    tables: Tables


def fit(values: Floats, settings: MonitorSettings, watched: list[bool] | None = None) -> FittedMonitor:
    """values [T, n], rows in time order, NaN where missing: a normal stretch. `watched`: columns that may be used (default:
    those that do not drift in it). Columns without values or without any change are left out. Raises Refused if none is
    left or the stretch is too short."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < FEWEST_ROWS:
        raise Refused(Reason.NOT_ELIGIBLE, f"a normal stretch of at least {FEWEST_ROWS} rows is needed")
    allowed = ~drifting([values]) if watched is None else np.asarray(watched, dtype=bool)
    if not allowed.any():
        raise Refused(Reason.NOT_ELIGIBLE, "every signal drifts: give a longer normal stretch, or say which to watch")
    noise = _noise(values)
    kept = np.flatnonzero(allowed & (noise > 0) & (np.isfinite(values).mean(axis=0) > 0.5))
    if not len(kept):
        raise Refused(Reason.NOT_ELIGIBLE, "no signal varies in this stretch: is the machine off?")
    levels = smooth(values[:, kept], settings.smoothing)
    settled = levels[min(int(2 / settings.smoothing), len(levels) // 4) :]
    centre = settled.mean(axis=0)
    scale = np.sqrt(settled.var(axis=0) + (NOISE_FLOOR * noise[kept]) ** 2)
    z = (settled - centre) / scale
    loadings, variance = _directions(z, settings.components)
    return FittedMonitor(
        kept.tolist(),
        {
            "centre": centre,
            "scale": scale,
            "loadings": loadings,
            "variance": variance,
            "limits": _limits(z, loadings, settings),
            "smoothing": np.array([settings.smoothing]),
            "release": np.array([settings.release]),
        },
    )


def fit_mostly_normal(values: Floats, settings: MonitorSettings) -> FittedMonitor:
    """As `fit`, from a stretch [T, n] that may hold a few faults: rows whose smoothed signals lie more than `FAULTY_FROM`
    robust deviations from their median are not learned from, as long as four fifths remain. Raises Refused."""
    values = np.asarray(values, dtype=np.float64)
    first = fit(values, settings)
    levels = smooth(values[:, first.kept], settings.smoothing)
    away = np.abs(levels - np.median(levels, axis=0))
    usual = np.maximum(1.4826 * np.median(away, axis=0), NOISE_FLOOR * _noise(values)[first.kept])
    faulty = np.asarray((away > FAULTY_FROM * usual).any(axis=1))
    if not faulty.any() or faulty.mean() > MOST_FAULTY:
        return first
    return fit(np.where(faulty[:, None], np.nan, values), settings)


def drifting(stretches: list[Floats]) -> NDArray[np.bool_]:
    """Which columns drift in normal running [n]: the median over the stretches [T, n] of the shift between their halves, in
    units of the stretch's own spread, is above `DRIFTS_FROM`."""
    shifts = []
    for stretch in stretches:
        half = len(stretch) // 2
        with np.errstate(all="ignore"):
            spread = _mean((stretch - _mean(stretch)) ** 2) ** 0.5
            shift = np.abs(_mean(stretch[:half]) - _mean(stretch[half:])) / np.where(spread > 0, spread, np.inf)
        shifts.append(np.nan_to_num(shift))
    return np.asarray(np.median(np.array(shifts), axis=0) > DRIFTS_FROM)


def smooth(values: Floats, smoothing: float) -> Floats:
    """The levels that a monitor would have [T, n], from the median on."""
    with np.errstate(all="ignore"):
        level = np.array([np.median(column[np.isfinite(column)]) for column in values.T])
    levels = np.empty_like(values)
    for row, value in enumerate(values):
        level = level + smoothing * (np.where(np.isfinite(value), value, level) - level)
        levels[row] = level
    return levels


def _mean(values: Floats) -> Floats:
    """Column means of what is there; NaN where nothing is."""
    seen = np.isfinite(values)
    return np.asarray(np.where(seen, values, 0.0).sum(axis=0) / seen.sum(axis=0))


def _noise(values: Floats) -> Floats:
    """Standard deviation of one row, from row-to-row changes [n]; 0 where there are none."""
    with np.errstate(all="ignore"):
        changes = np.diff(values, axis=0)
        squares = np.where(np.isfinite(changes), changes, 0.0) ** 2
        return np.asarray(np.sqrt(squares.sum(axis=0) / np.maximum(np.isfinite(changes).sum(axis=0), 1) / 2))


def _directions(z: Floats, components: int) -> tuple[Floats, Floats]:
    k = min(components, z.shape[1])
    if k == 0:
        return np.zeros((0, z.shape[1])), np.zeros(0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(z.T)))
    return np.ascontiguousarray(vectors[:, ::-1][:, :k].T), np.maximum(values[::-1][:k], 1e-6)


def _limits(z: Floats, loadings: Floats, settings: MonitorSettings) -> Floats:
    """t2, q, farthest. A smoothed signal says something new every 1/smoothing rows; the wanted false alarms are shared."""
    rows = run_length(settings.false_alarms_per_machine_month, 1, settings.step_ms)
    alone = min(settings.smoothing / (2 * z.shape[1] * rows), 0.25)
    farthest = NormalDist().inv_cdf(1 - alone) ** 2
    if not len(loadings):
        return np.array([0.0, 0.0, farthest])
    share = min(settings.smoothing / (2 * rows), 0.25)
    rest = z - z @ loadings.T @ loadings
    q = (rest**2).sum(axis=1)
    mean, spread = float(q.mean()), float(q.var())
    box = spread / (2 * mean) * _chi_square(2 * mean**2 / spread, share) if mean > 1e-9 and spread > 0 else 0.0
    return np.array([_chi_square(len(loadings), share), box, 0.0])


def _chi_square(freedom: float, beyond: float) -> float:
    """The upper quantile (Wilson & Hilferty 1931: within 1 % from 1 degree of freedom on at these shares)."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + NormalDist().inv_cdf(1 - beyond) * part**0.5) ** 3)
