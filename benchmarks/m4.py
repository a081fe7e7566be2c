"""The M4 competition's files, metrics and its Naive2 (Makridakis, Spiliotis & Assimakopoulos 2020)."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import contract
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One series: what may be learned from, and what comes after."""

    name: str
    train: Floats
    test: Floats


def read(sheet: contract.Sheet, group: str) -> list[Series]:
    """Every series of a group ("Hourly", "Weekly") that both files hold, by the file's order."""
    train = _rows(sheet.find(sheet.options.train, f"{group}-train.csv*")[0])
    test = _rows(sheet.find(sheet.options.test, f"{group}-test.csv*")[0])
    return [Series(name, values, test[name]) for name, values in train.items() if name in test]


def _rows(path: Path) -> dict[str, Floats]:
    rows: dict[str, Floats] = {}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for row in csv.reader(lines):
            values = [cell for cell in row[1:] if cell.strip()]
            try:
                rows[row[0]] = np.array(values, dtype=np.float64)
            except ValueError:
                continue  # a header
    return rows


def smape(actual: Floats, forecast: Floats) -> float:
    """Symmetric mean absolute percentage error of one series, percent."""
    return float(np.mean(200.0 * np.abs(actual - forecast) / (np.abs(actual) + np.abs(forecast))))


def mase(actual: Floats, forecast: Floats, train: Floats, season: int) -> float:
    """Mean absolute error over the in-sample error of the seasonal naive method."""
    return float(np.mean(np.abs(actual - forecast)) / np.mean(np.abs(train[season:] - train[:-season])))


def naive2(train: Floats, season: int, horizon: int) -> Floats:
    """Last value of the series, seasonally adjusted (multiplicatively) where a test finds a season."""
    index = _seasonal_index(train, season) if season > 1 and _is_seasonal(train, season) else np.ones(max(season, 1))
    level = train[-1] / index[(len(train) - 1) % len(index)]
    return np.asarray(level * index[(len(train) + np.arange(horizon)) % len(index)])


def seasonal_naive(train: Floats, season: int, horizon: int) -> Floats:
    """The value one season ago."""
    return np.asarray(train[-season:][np.arange(horizon) % season])


def owa(mean_smape: float, mean_mase: float, naive2_smape: float, naive2_mase: float) -> float:
    """Overall weighted average relative to Naive2."""
    return 0.5 * (mean_smape / naive2_smape + mean_mase / naive2_mase)


def _is_seasonal(train: Floats, season: int) -> bool:
    if len(train) < 3 * season:
        return False
    centred = train - train.mean()
    power = float(centred @ centred)
    correlation = np.array([float(centred[k:] @ centred[: len(centred) - k]) / power for k in range(1, season + 1)])
    limit = 1.645 * np.sqrt((1 + 2 * np.sum(correlation[:-1] ** 2)) / len(train))
    return bool(abs(correlation[-1]) > limit)


def _seasonal_index(train: Floats, season: int) -> Floats:
    """Classical multiplicative decomposition with a centred moving average."""
    weights = np.ones(season) if season % 2 else np.r_[0.5, np.ones(season - 1), 0.5]
    trend = np.convolve(train, weights / weights.sum(), mode="valid")
    half = (len(weights) - 1) // 2
    ratio = np.full(len(train), np.nan)
    ratio[half : half + len(trend)] = train[half : half + len(trend)] / trend
    index = np.array([np.nanmean(ratio[k::season]) for k in range(season)])
    return np.asarray(index / index.mean())
