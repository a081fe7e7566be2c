"""A gateway's own correction of a global forecast: learned in closed form from what the forecast missed, one series at a
time, and never trusted further than its own past errors allow.

Recursive ridge regression with forgetting (Ljung 1999, "System Identification", §11) on a handful of features of the
forecast and of its last error; one set of weights per group of horizon steps. A correction counts only in proportion to
what it would have gained so far, so on average it does not make a forecast worse. State: groups * (d² + d + 3 + delay)
numbers with d = 4, where `delay` is how many forecasts are under way at once: about 1 KB at four groups and 12 steps."""

from __future__ import annotations

import numpy as np

from protocol.errors import BadMessage, Reason
from protocol.tables import Tables
from protocol.windows import Floats

FEATURES = 4
"""A constant; the forecast's distance from its typical level; its own slope; the newest error that was known
at this group when it was made."""
LEAST_LEARNED = 12
STATE = ("gram", "cross", "recent", "errors", "typical", "count")


class Correction:
    """One series' correction. Feed `learn` with each forecast whose values have arrived, oldest first; `apply` the rest.

    horizon: steps of a forecast; every: steps from one learned forecast to the next (a lesson is judged with what was
    known when its forecast was made, which is horizon / every lessons earlier); groups: sets of neighbouring steps that
    share weights; forget: weight of the past at each lesson (0.99: about a hundred lessons count); penalty: ridge, in
    lessons."""

    def __init__(
        self, horizon: int, *, every: int = 1, groups: int = 4, forget: float = 0.99, penalty: float = 10.0
    ) -> None:
        if min(horizon, every, groups) < 1 or not 0 < forget <= 1 or penalty <= 0:
            raise ValueError("a correction needs horizon, every, groups >= 1, 0 < forget <= 1, penalty > 0")
        self.horizon = horizon
        self._group = np.minimum(np.arange(horizon) * min(groups, horizon) // horizon, groups - 1)
        self._groups = int(self._group[-1]) + 1
        self._forget, self._penalty = forget, penalty
        self._gram = np.zeros((self._groups, FEATURES, FEATURES))
        self._cross = np.zeros((self._groups, FEATURES))
        self._recent = np.zeros((-(-horizon // every), self._groups))  # errors of the newest lessons, newest last
        self._errors = np.zeros((self._groups, 2))  # squared: without, with
        self._typical = np.zeros(3)  # level, spread, weight of what was seen
        self._count = np.zeros(self._groups)

    def apply(self, mean: Floats) -> Floats:
        """The corrected forecast [H]; `mean` itself until enough was learned or where it would not have helped. A step
        that is NaN stays NaN. Raises ValueError on another horizon."""
        mean = self._checked(mean)
        return np.asarray(
            mean + (self._trust() * self._proposed(self._features(mean, -1)))[self._group], dtype=np.float64
        )

    def learn(self, mean: Floats, actual: Floats) -> None:
        """Takes the uncorrected forecast [H] and what came [H] (NaN: not observed; such steps teach nothing)."""
        mean, actual = self._checked(mean), self._checked(actual)
        seen = np.isfinite(mean) & np.isfinite(actual)
        if not seen.any():
            return
        self._learn_scale(actual[seen])
        features = self._features(mean, 0)
        proposed = self._proposed(features)
        newest = self._recent[-1].copy()
        spread = self._spread()
        for g in range(self._groups):
            steps = seen & (self._group == g)
            if not steps.any():
                continue
            miss = np.clip((actual[steps] - mean[steps]) / spread, -20.0, 20.0)
            error = float(miss.mean())
            if self._count[g] >= LEAST_LEARNED:
                left = miss - np.clip(proposed[g] / spread, -20.0, 20.0)
                self._errors[g] = self._forget * self._errors[g] + (float((miss**2).mean()), float((left**2).mean()))
            x = features[g]
            self._gram[g] = self._forget * self._gram[g] + np.outer(x, x)
            self._cross[g] = self._forget * self._cross[g] + x * error
            newest[g] = error
            self._count[g] += 1
        self._recent = np.concatenate([self._recent[1:], newest[None]])

    def state(self) -> Tables:
        """What must survive a power cut: name -> array."""
        return {name: np.array(getattr(self, f"_{name}")) for name in STATE}

    def restore(self, state: Tables) -> None:
        """Carries on from `state()`. Raises BadMessage if it belongs to another horizon or is damaged; nothing changes
        then."""
        taken: dict[str, Floats] = {}
        for name in STATE:
            have = np.asarray(state.get(name, np.nan), dtype=np.float64)
            if have.shape != getattr(self, f"_{name}").shape or not np.isfinite(have).all():
                raise BadMessage(
                    Reason.WRONG_TYPE,
                    f"saved correction: {name!r} does not fit a horizon of {self.horizon}: start anew",
                )
            taken[name] = have.copy()
        for name, have in taken.items():
            setattr(self, f"_{name}", have)

    def _trust(self) -> Floats:
        """Share of the proposal that is used, per group: what it saved of the squared error so far less a margin for
        luck (overlapping lessons count once); 0 if nothing."""
        without, corrected = self._errors[:, 0], self._errors[:, 1]
        saved = np.where(without > 0, 1.0 - corrected / np.maximum(without, 1e-12), 0.0)
        independent = np.maximum((self._count - LEAST_LEARNED) / len(self._recent), 1.0)
        return np.asarray(np.sqrt(np.clip(saved - 0.3 / np.sqrt(independent), 0.0, 1.0)))

    def _proposed(self, features: Floats) -> Floats:
        """[groups], in the signal's unit."""
        ready = self._count >= LEAST_LEARNED
        weights = np.linalg.solve(self._gram + self._penalty * np.eye(FEATURES), self._cross[:, :, None])[:, :, 0]
        return np.asarray(np.where(ready, (weights * features).sum(axis=1), 0.0) * self._spread())

    def _features(self, mean: Floats, known_lesson: int) -> Floats:
        """[groups, FEATURES], dimensionless; known_lesson: place in `recent` of the newest lesson that was known."""
        spread = self._spread()
        x = np.zeros((self._groups, FEATURES))
        x[:, 0] = 1.0
        known = np.isfinite(mean)
        if known.any():
            first = float(mean[known][0])
            for g in range(self._groups):
                steps = known & (self._group == g)
                if steps.any():
                    level = float(mean[steps].mean())
                    x[g, 1] = (level - self._typical[0]) / spread
                    x[g, 2] = (level - first) / spread
        x[:, 3] = self._recent[known_lesson]
        return np.clip(x, -5.0, 5.0)

    def _learn_scale(self, actual: Floats) -> None:
        level, spread, weight = self._typical
        weight = self._forget * weight + 1.0
        now = float(actual.mean())
        level = level + (now - level) / weight
        spread = spread + (float(np.abs(actual - level).mean()) - spread) / weight
        self._typical = np.array([level, spread, weight])

    def _spread(self) -> float:
        return max(float(self._typical[1]), 1e-6 * max(abs(float(self._typical[0])), 1.0))

    def _checked(self, values: Floats) -> Floats:
        values = np.asarray(values, dtype=np.float64)
        if values.shape != (self.horizon,):
            raise ValueError(f"forecast of shape {values.shape}; this correction is for {self.horizon} steps")
        return values
