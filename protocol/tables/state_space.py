"""Linear Gaussian models, updated together by one numpy recursion. Always float64, never quantized."""

from __future__ import annotations

import copy

import numpy as np

from protocol.errors import BadBundle, Reason
from protocol.tables.checked import Tables, table
from protocol.windows import Floats, day_harmonics


class StateSpace:
    """S linear Gaussian models of k states, updated together (Durbin & Koopman 2012, ch. 4; Harvey's form).

        y[t] = x[t] @ beta + design @ a[t] + e,   e ~ N(0, obs_var)
        a[t+1] = transition @ a[t] + w,           w ~ N(0, state_cov)

    y is the signal after (value - center) / scale; x[t] are `day_harmonics` of the bucket's start. `a`, `p` are the
    predicted state and covariance for the next bucket. Tables, all float64: transition [S,k,k], design [S,k],
    state_cov [S,k,k], obs_var [S], state [S,k], cov [S,k,k], beta [S,1+2K], center [S], scale [S]."""

    def __init__(self, tables: Tables) -> None:
        self.design = np.asarray(table(tables, "design", "f", (None, None)), dtype=np.float64)
        s, k = self.design.shape
        self.transition = np.asarray(table(tables, "transition", "f", (s, k, k)), dtype=np.float64)
        self.state_cov = np.asarray(table(tables, "state_cov", "f", (s, k, k)), dtype=np.float64)
        self.obs_var = np.asarray(table(tables, "obs_var", "f", (s,)), dtype=np.float64)
        self.beta = np.asarray(table(tables, "beta", "f", (s, None)), dtype=np.float64)
        self.center = np.asarray(table(tables, "center", "f", (s,)), dtype=np.float64)
        self.scale = np.asarray(table(tables, "scale", "f", (s,)), dtype=np.float64)
        self.a = np.array(table(tables, "state", "f", (s, k)), dtype=np.float64)
        self.p = np.array(table(tables, "cov", "f", (s, k, k)), dtype=np.float64)
        if not (self.scale > 0).all() or self.beta.shape[1] % 2 == 0:
            raise BadBundle(Reason.BAD_ARCHIVE, "scale must be positive and beta have 1 + 2K columns")
        self.harmonics = (self.beta.shape[1] - 1) // 2

    def __len__(self) -> int:
        return len(self.design)

    def _known(self, time_ms: int, step_ms: int, steps: int) -> Floats:
        """Deterministic part at `steps` buckets from time_ms: [S, steps]."""
        x = day_harmonics(time_ms + step_ms * np.arange(steps, dtype=np.int64), self.harmonics)
        return np.asarray(self.beta @ x.T, dtype=np.float64)

    def step(self, values: Floats, time_ms: int) -> tuple[Floats, Floats]:
        """Takes one bucket's values [S] (NaN: missing), which starts at time_ms. Returns the innovation in units of
        its own standard deviation [S] (NaN where missing) and that standard deviation in the signal's unit [S]."""
        known = self._known(time_ms, 1, 1)[:, 0]
        y = (values - self.center) / self.scale - known
        seen = ~np.isnan(y)
        pz = np.einsum("sij,sj->si", self.p, self.design)
        variance = np.einsum("si,si->s", self.design, pz) + self.obs_var
        variance = np.maximum(variance, 1e-300)
        innovation = np.where(seen, y - np.einsum("si,si->s", self.design, self.a), 0.0)
        gain = np.where(seen[:, None], pz / variance[:, None], 0.0)
        a = self.a + gain * innovation[:, None]
        p = self.p - gain[:, :, None] * pz[:, None, :]
        self.a = np.einsum("sij,sj->si", self.transition, a)
        self.p = self.transition @ p @ self.transition.transpose(0, 2, 1) + self.state_cov
        deviation = np.sqrt(variance)
        return np.where(seen, innovation / deviation, np.nan), deviation * self.scale

    def forecast(self, start_ms: int, step_ms: int, horizon: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the next `horizon` buckets, the first of which starts at start_ms:
        [S, horizon] each, in the signal's unit. Does not move the state."""
        known = self._known(start_ms, step_ms, horizon)
        a, p = self.a, self.p
        mean = np.empty((len(self), horizon))
        variance = np.empty((len(self), horizon))
        for h in range(horizon):
            mean[:, h] = np.einsum("si,si->s", self.design, a)
            variance[:, h] = np.einsum("si,sij,sj->s", self.design, p, self.design) + self.obs_var
            a = np.einsum("sij,sj->si", self.transition, a)
            p = self.transition @ p @ self.transition.transpose(0, 2, 1) + self.state_cov
        return (mean + known) * self.scale[:, None] + self.center[:, None], np.sqrt(
            np.maximum(variance, 0)
        ) * self.scale[:, None]

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """What a copy of this filter answers to a bundle's golden inputs: `values` [T, S] at `times_ms` [T], then one
        forecast of as many buckets as `outputs["mean"]` has. Out: `mean`, `deviation` [S, H]."""
        trial = copy.copy(self)  # a step replaces the state's arrays, so the original stays where it is
        times, step = np.asarray(inputs["times_ms"], dtype=np.int64), int(np.asarray(inputs["step_ms"])[0])
        for row, start in zip(np.asarray(inputs["values"], dtype=np.float64), times, strict=True):
            trial.step(row, int(start))
        mean, deviation = trial.forecast(int(times[-1]) + step, step, np.asarray(outputs["mean"]).shape[1])
        return {"mean": mean, "deviation": deviation}
