"""What to expect of a signal before any model is there: a running level, or the same time last season, whichever has been
the better guide. O(season) state per signal."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from edge_agent.skills import Key, Residual
from edge_agent.skills.forecast.answers import NAIVE


@dataclass
class _Baseline:
    """Exponentially weighted level and absolute deviation. The spread is that of one-step changes as well as of the level,
    whichever is larger, so a trend is not an anomaly. past: the last season's values, NaN where none came."""

    level: float
    spread: float = 0.0
    n: int = 0
    past: deque[float] = field(default_factory=deque)
    season_spread: float = math.inf
    seasons: int = 0


class RunningLevel:
    """One gateway's running levels."""

    def __init__(self, season: int) -> None:
        self._season = season
        self._baselines: dict[Key, _Baseline] = {}

    def missed(self, seen: dict[Key, float]) -> None:
        """Signals that said nothing in this bucket: last season's values stay aligned with the clock."""
        if not self._season:
            return
        for key, base in self._baselines.items():
            if key not in seen:
                if len(base.past) == self._season:
                    base.past.popleft()
                base.past.append(math.nan)

    def residual(self, key: Key, value: float) -> Residual:
        """How far a value is from what was expected of it; learns from it."""
        base = self._baselines.get(key)
        if base is None:
            base = self._baselines[key] = _Baseline(value)
        deviation = max(base.spread * 1.2533, 1e-9 + 1e-4 * abs(base.level))
        # the first buckets teach the spread; nothing is anomalous before it is known
        z = (value - base.level) / deviation if base.n >= 24 else 0.0
        residual = self._against_season(base, value) or Residual(value, base.level, deviation, z, NAIVE)
        rate = 1 / min(base.n + 1, 48)
        step = max(-6.0, min(6.0, z)) * deviation if base.n >= 24 else value - base.level
        base.spread += rate * (abs(step) - base.spread)
        base.level += max(rate, 0.08) * step
        base.n += 1
        return residual

    def _against_season(self, base: _Baseline, value: float) -> Residual | None:
        """Against the same time last season, where that has been the better guide so far."""
        if not self._season:
            return None
        residual: Residual | None = None
        if len(base.past) == self._season:
            expected = base.past.popleft()
        else:
            expected = math.nan
        if not math.isnan(expected):
            miss = abs(value - expected)
            if base.seasons == 0:
                base.season_spread = max(base.spread, miss)
            deviation = max(base.season_spread * 1.2533, 1e-9 + 1e-4 * abs(expected))
            if base.seasons >= 4 and base.season_spread < 1.5 * base.spread:
                residual = Residual(value, expected, deviation, (value - expected) / deviation, NAIVE)
            base.season_spread += (min(miss, 6.0 * deviation) - base.season_spread) / 24
            base.seasons += 1
        base.past.append(value)
        return residual
