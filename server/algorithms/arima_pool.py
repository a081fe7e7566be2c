"""Five ARIMA models of one series, and their median: no single order is trusted with a series of any length.

The searched order stands beside four fixed ones that are the classical smoothing methods in ARIMA form (Box, Jenkins &
Reinsel 2008, appendix 7.3; Gardner & McKenzie 1985 for the damped trend): a damped trend with one lag more
(2,1,2), Holt's linear trend (0,2,2), and simple smoothing without and with a drift, (0,1,1), on the logarithm of a
positive series. The median of members is robust where one of them runs away (Petropoulos & Svetunkov 2020 combined four
such methods by their median and came third in the M4 competition's intervals). The five were chosen on the last 13 to 39
values of training parts; nothing is chosen per series but the searched order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocol.windows import Floats
from server.algorithms.arima_search import Found, Limits, Orders, fit_orders, search

LEVEL = (Orders(2, 1, 2), Orders(0, 2, 2))
LOG = (Orders(0, 1, 1), Orders(0, 1, 1, constant=True))


@dataclass(frozen=True)
class Pool:
    """Members on the level of the series and on its logarithm (on the level, where a value is not positive)."""

    values: Floats
    searched: Found
    level: tuple[Found, ...]
    other: tuple[Found, ...]
    logarithm: bool

    def forecast(self, horizon: int) -> Floats:
        """Median of the members' means of the next `horizon` values [H]."""
        rows = [member.forecast(self.values, horizon) for member in (self.searched, *self.level)]
        scale = np.log(self.values) if self.logarithm else self.values
        for member in self.other:
            ahead = member.forecast(scale, horizon)
            rows.append(np.exp(np.minimum(ahead, 700.0)) if self.logarithm else ahead)
        return np.asarray(np.median(rows, axis=0), dtype=np.float64)


def fit(values: Floats, limits: Limits | None = None) -> Pool:
    """Fits the five to values [T] (NaN: missing)."""
    y = np.asarray(values, dtype=np.float64)
    seen = y[np.isfinite(y)]
    logarithm = bool(len(seen) and (seen > 0).all())
    scale = np.log(y) if logarithm else y
    level = tuple(fit_orders(y, orders) for orders in LEVEL)
    return Pool(y, search(y, limits)[0], level, tuple(fit_orders(scale, orders) for orders in LOG), logarithm)
