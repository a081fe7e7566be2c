"""Forecasters beside one another: which is best for a signal class, and what a combination of all of them is worth.

The best is read off the tail that every figure of a passport is measured on. Shares of the combination are chosen on the
inner stretch before it, so the combination's figure on the tail is as honest as a single model's."""

from __future__ import annotations

import numpy as np

from protocol.windows import Floats
from server.algorithms.combination import shares
from server.evaluation import Tail

REFERENCE = "seasonal_naive"


class Beside:
    """Means of the simple reference and of every forecaster added, on both stretches, [S, O, H] each."""

    def __init__(self, series: list[tuple[str, str]], tail: Tail, inner: Tail) -> None:
        self._series, self._tail, self._inner = series, tail, inner
        self._on_tail = {REFERENCE: tail.naive}
        self._on_inner = {REFERENCE: inner.naive}
        self._shares: Floats | None = None

    def add(self, name: str, on_tail: Floats, on_inner: Floats) -> None:
        """A forecaster's means; where it has none (NaN) the reference stands in, as on the gateway."""
        self._on_tail[name] = np.where(np.isfinite(on_tail), on_tail, self._tail.naive)
        self._on_inner[name] = np.where(np.isfinite(on_inner), on_inner, self._inner.naive)
        self._shares = None

    def best(self) -> dict[str, str]:
        """Signal class (a signal's name) -> the forecaster with the lowest mean relative error of its series on the tail,
        "last_value" among them; the simplest of equals."""
        errors = {
            name: self._tail.relative_error(means)[1]
            for name, means in {**self._on_tail, "last_value": self._tail.last}.items()
        }
        found: dict[str, str] = {}
        for signal in sorted({signal for _, signal in self._series}):
            rows = [s for s, key in enumerate(self._series) if key[1] == signal]
            worth = {name: error[rows][np.isfinite(error[rows])] for name, error in errors.items()}
            means = {name: round(float(error.mean()), 4) for name, error in worth.items() if len(error)}
            if means:
                found[signal] = min(means, key=lambda name: means[name])
        return found

    def weights(self, name: str) -> dict[str, list[float]]:
        """ "machine/signal" -> [share of `name`, share of the simple reference]."""
        place = list(self._on_inner).index(name)
        return {
            "/".join(key): [round(float(row[place]), 4), round(float(row[0]), 4)]
            for key, row in zip(self._series, self._all_shares(), strict=True)
        }

    def combined(self) -> float:
        """The combination's relative error on the tail."""
        parts = zip(self._all_shares().T, self._on_tail.values(), strict=True)
        total = sum((share[:, None, None] * means for share, means in parts), np.zeros(self._tail.targets.shape))
        return self._tail.relative_error(total)[0]

    def _all_shares(self) -> Floats:
        """[S, M], reference first."""
        if self._shares is None:
            misses = [means - self._inner.targets for means in self._on_inner.values()]
            stack = np.stack([miss.reshape(len(self._series), -1) for miss in misses], axis=1)
            self._shares = np.stack([shares(one) for one in stack])
        return self._shares
