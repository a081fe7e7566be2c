"""Seven ARIMA models of one series, and their median: no single order is trusted with a series of any length.

The searched order stands beside six fixed ones, most of which are the classical smoothing methods in ARIMA form (Box,
Jenkins & Reinsel 2008, appendix A7.3; Gardner & McKenzie 1985 for the damped trend): a damped trend with one lag more,
(2,1,2), and Holt's linear trend, (0,2,2); and on the logarithm of a positive series simple smoothing without and with a
drift, (0,1,1), Holt's trend again, and three plain lags of the growth, (3,1,0). The median is robust where a member runs
away (Petropoulos & Svetunkov 2020). Which ones, was chosen on the last 13, 26 and 39 values of the training parts of M4
Weekly; per series nothing is chosen but the searched order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocol.windows import Floats
from server.algorithms.arima_search import Found, Limits, Orders, fit_orders, search

LEVEL = (Orders(2, 1, 2), Orders(0, 2, 2))
LOG = (Orders(0, 1, 1), Orders(0, 1, 1, constant=True), Orders(3, 1, 0), Orders(0, 2, 2))


@dataclass(frozen=True)
class Pool:
    """The searched model and up to two others on the level of the series, up to four on its logarithm (on the level too,
    where a value is not positive). `fallbacks`: fixed members that the series did not support; the searched model votes
    in the place of each."""

    values: Floats
    searched: Found
    level: tuple[Found, ...]
    other: tuple[Found, ...]
    logarithm: bool
    fallbacks: int

    def forecast(self, horizon: int) -> Floats:
        """Median of the members' means of the next `horizon` values [H]."""
        searched = self.searched.forecast(self.values, horizon)
        rows = [searched] * (1 + self.fallbacks)
        rows += [member.forecast(self.values, horizon) for member in self.level]
        scale = np.log(self.values) if self.logarithm else self.values
        for member in self.other:
            ahead = member.forecast(scale, horizon)
            rows.append(np.exp(np.minimum(ahead, 700.0)) if self.logarithm else ahead)
        return np.asarray(np.median(rows, axis=0), dtype=np.float64)


def fit(values: Floats, limits: Limits | None = None) -> Pool:
    """Fits the seven to values [T] (NaN: missing)."""
    y = np.asarray(values, dtype=np.float64)
    seen = y[np.isfinite(y)]
    logarithm = bool(len(seen) and (seen > 0).all())
    scale = np.log(y) if logarithm else y
    level = tuple(found for orders in LEVEL if (found := fit_orders(y, orders)) is not None)
    other = tuple(found for orders in LOG if (found := fit_orders(scale, orders)) is not None)
    fallbacks = len(LEVEL) + len(LOG) - len(level) - len(other)
    return Pool(y, search(y, limits)[0], level, other, logarithm, fallbacks)
