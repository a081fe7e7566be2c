"""How fast to send, and how long to wait before the next attempt."""

from __future__ import annotations

import random


class TokenBucket:
    """`rate` per second (None: no limit), saved up to `burst`. What is taken beyond the level is a debt that time pays, so a
    batch is never cut to fit; no debt is larger than `burst`."""

    def __init__(self, rate: float | None, burst: float) -> None:
        self.rate = rate
        self._burst = burst
        self._level = burst
        self._filled_s: float | None = None

    def ready(self, now_s: float) -> bool:
        """Whether something may be taken now; `now_s` is of a clock that never jumps."""
        if self.rate is None:
            return True
        passed_s = 0.0 if self._filled_s is None else max(now_s - self._filled_s, 0.0)
        self._filled_s = now_s
        self._level = min(self._level + passed_s * self.rate, self._burst)
        return self._level > 0

    def take(self, count: int) -> None:
        """`count` are gone."""
        if self.rate is not None:
            self._level = max(self._level - count, -self._burst)


def full_jitter(attempt: int, first_s: float, most_s: float) -> float:
    """Seconds before attempt 0, 1, 2, …: anything up to a bound that doubles from `first_s` to `most_s`, so that gateways
    that lost one broker together do not come back together (Brooker, "Exponential Backoff and Jitter", 2015)."""
    return random.uniform(0, min(first_s * 2.0 ** min(attempt, 30), most_s))  # noqa: S311 - spreads load, guards nothing
