"""Linear Gaussian models, updated together by one numpy recursion. Always float64, never quantized.

A filter forgets nothing and drifts nowhere: every number equals that of the textbook recursion (statsmodels' filter) to
1e-8. What makes it cheap: the covariance of a series stops moving after a while without gaps, its gain is a constant
from then on, and an ARIMA's transition is a shift. A missing value brings that series, and no other, back to the full
recursion until its covariance has come to rest again."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.errors import BadBundle, Reason
from protocol.tables.checked import Tables, table
from protocol.windows import DAY_MS, Floats, day_harmonics

AT_REST = 1e-13
"""A covariance rests when one step moves it by less than this share of its largest element..."""
RESTING_STEPS = 3
"""... so many times in a row."""
MOST_PHASES = 2048


@dataclass(frozen=True)
class Contributions:
    """A forecast taken apart: mean[s, h] = sum over l of weights[s, h, l] * history[s, l], plus rest[s, h].

    weights [S, H, L]: change of the mean (signal's unit) per unit of that bucket's value, 0 where it was missing; the
    newest bucket is last. rest [S, H]: what older values and the known part (level, time of day, known inputs) add. The
    sum is the forecast by construction. `exact` [S]: the weights are the filter's own gains to rounding, which holds
    where its covariance was at rest before the history began; else they are those it would have with such a past."""

    weights: Floats
    rest: Floats
    mean: Floats
    exact: NDArray[np.bool_]


class StateSpace:
    """S linear Gaussian models of k states, updated together (Durbin & Koopman 2012, ch. 4; Harvey's form).

        y[t] = x[t] @ beta + known[t] @ gamma + design @ a[t] + e,   e ~ N(0, obs_var)
        a[t+1] = transition @ a[t] + w,                              w ~ N(0, state_cov)

    y is the signal after (value - center) / scale; x[t] are `day_harmonics` of the bucket's start; known[t] are C
    inputs that are known ahead (0 where nothing was said). An input that accumulates acts by its sum since the tables'
    beginning: a delivery raises a stock for good. `a`, `p` are the predicted state and covariance for the next bucket.
    Tables, all float64: transition [S,k,k], design [S,k], state_cov [S,k,k], obs_var [S], state [S,k], cov [S,k,k],
    beta [S,1+2K], center [S], scale [S]; gamma [S,C] may be absent (no known inputs), and so may accumulates [S,C] (not 0:
    it does) and total [S,C] (the sum so far)."""

    def __init__(self, tables: Tables) -> None:
        self.design = np.asarray(table(tables, "design", "f", (None, None)), dtype=np.float64)
        s, k = self.design.shape
        self.transition = np.asarray(table(tables, "transition", "f", (s, k, k)), dtype=np.float64)
        self.state_cov = np.asarray(table(tables, "state_cov", "f", (s, k, k)), dtype=np.float64)
        self.obs_var = np.asarray(table(tables, "obs_var", "f", (s,)), dtype=np.float64)
        self.beta = np.asarray(table(tables, "beta", "f", (s, None)), dtype=np.float64)
        gamma = table(tables, "gamma", "f", (s, None)) if "gamma" in tables else np.zeros((s, 0))
        self.gamma = np.asarray(gamma, dtype=np.float64)
        sums = [
            np.array(table(tables, name, "f", self.gamma.shape) if name in tables else np.zeros(self.gamma.shape))
            for name in ("accumulates", "total")
        ]
        self.accumulates, self.total = sums[0] != 0, sums[1]
        self.center = np.asarray(table(tables, "center", "f", (s,)), dtype=np.float64)
        self.scale = np.asarray(table(tables, "scale", "f", (s,)), dtype=np.float64)
        if not (self.scale > 0).all() or self.beta.shape[1] % 2 == 0:
            raise BadBundle(Reason.BAD_ARCHIVE, "scale must be positive and beta have 1 + 2K columns")
        self.harmonics = (self.beta.shape[1] - 1) // 2
        self._move = _Move(self.transition)
        self._design = np.ascontiguousarray(self.design.T)
        self._first = bool((self.design[:, 0] == 1).all() and (self.design[:, 1:] == 0).all())
        self._phases: dict[int, Floats] = {}
        self._joined: Floats | None = None  # one series at rest: its states, then room for the value
        self._joint: Floats = np.zeros((0, 0))
        self._ahead: Floats | None = None
        self._one = (1.0, 0.0, 1.0)  # its deviation, center and scale as plain numbers
        self._a = np.array(np.asarray(table(tables, "state", "f", (s, k)), dtype=np.float64).T, order="C")
        self._p = np.array(table(tables, "cov", "f", (s, k, k)), dtype=np.float64)
        self._settle()

    def __len__(self) -> int:
        return len(self.design)

    @property
    def a(self) -> Floats:
        """Predicted states for the next bucket [S, k]; may be set."""
        if self._joined is not None:
            return np.array(self._joined[None, :-1])
        return np.ascontiguousarray(self._a.T)

    @a.setter
    def a(self, states: Floats) -> None:
        self._a = np.array(np.asarray(states, dtype=np.float64).T, order="C")
        self._aim()

    @property
    def p(self) -> Floats:
        """Predicted covariances for the next bucket [S, k, k]; may be set."""
        return self._p.copy()

    @p.setter
    def p(self, covariances: Floats) -> None:
        self._a = np.ascontiguousarray(self.a.T)
        self._p = np.array(covariances, dtype=np.float64)
        self._settle()

    @property
    def resting(self) -> NDArray[np.bool_]:
        """Series whose covariance no longer moves [S]: what changes with each bucket is then their k states alone."""
        return np.asarray(self._rested >= RESTING_STEPS)

    def moving_bytes(self) -> NDArray[np.int64]:
        """Bytes per series [S] that change with each bucket: k states and one count, and the k(k+1)/2 different elements
        of the covariance while it is not at rest. At rest it is a constant of the model, as the other tables are."""
        k = self.design.shape[1]
        return np.asarray(8 * k + 1 + np.where(self.resting, 0, 4 * k * (k + 1)), dtype=np.int64)

    def step(self, values: Floats, time_ms: int, known: Floats | None = None) -> tuple[Floats, Floats]:
        """Takes one bucket's values [S] (not finite: missing), which starts at time_ms, and known inputs [S, C] (absent: 0).
        Returns the innovation in units of its own standard deviation [S] (NaN where missing) and that standard
        deviation in the signal's unit [S] (read only)."""
        expected = self._phase(time_ms)
        if self.gamma.shape[1]:
            expected = expected + np.einsum("sc,sc->s", self._acting(known), self.gamma)
        if self._joined is not None:
            value = float(values[0])
            if math.isfinite(value):
                return self._step_one(self._joined, value, float(expected[0]))
            self._part()
        y = (values - self.center) / self.scale - expected
        innovation = y - self._observed(self._a)
        missing = ~np.isfinite(innovation)
        if self._all_rest and not missing.any():
            z = innovation / self._deviation
            self._a = self._move(self._a)
            self._a += self._gain * innovation
            return z, self._deviation_out
        return self._step_exact(innovation, missing)

    def forecast(self, start_ms: int, step_ms: int, horizon: int, known: Floats | None = None) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the next `horizon` buckets, the first of which starts at start_ms, with known
        inputs [S, C, horizon] (absent: 0): [S, horizon] each, in the signal's unit. Does not move the state."""
        expected = self._expected(start_ms, step_ms, horizon, known)
        a = np.ascontiguousarray(self.a.T)
        mean = np.empty((len(self), horizon))
        for h in range(horizon):
            mean[:, h] = self._observed(a)
            a = self._move(a)
        deviation = np.sqrt(np.maximum(self._variances(horizon), 0)) * self.scale[:, None]
        return (mean + expected) * self.scale[:, None] + self.center[:, None], deviation

    def contributions(
        self, history: Floats, start_ms: int, step_ms: int, horizon: int, known: Floats | None = None
    ) -> Contributions:
        """What each of the last L buckets adds to the forecast from start_ms on. `history` [S, L] are the values that the
        filter took last (NaN: missing), the newest one just before start_ms; the rest as for `forecast`. For one series
        of many: `only([row]).contributions(...)`."""
        mean, _ = self.forecast(start_ms, step_ms, horizon, known)
        seen = np.isfinite(history)
        gains, replayed = self._replayed(seen)
        length = history.shape[1]
        weights = np.zeros((len(self), horizon, length))
        rows = np.empty((horizon, len(self), self.design.shape[1]))  # design @ transition^h
        rows[0] = self.design
        for h in range(1, horizon):
            rows[h] = np.einsum("si,sij->sj", rows[h - 1], self.transition)
        for lag in range(length - 1, -1, -1):
            # `rows` looks at the state that follows bucket `lag`
            weights[:, :, lag] = np.einsum("hsk,sk->sh", rows, gains[:, :, lag])
            rows = np.einsum("hsi,sij->hsj", rows, self.transition) - (
                weights[:, :, lag].T[:, :, None] * self.design[None]
            )
        part = np.einsum("shl,sl->sh", weights, np.where(seen, history, 0.0))
        gap = np.abs(replayed - self._p).max(axis=(1, 2))
        exact = gap <= 1e-10 * np.abs(self._p).max(axis=(1, 2))
        return Contributions(weights, mean - part, mean, exact)

    def only(self, rows: list[int]) -> StateSpace:
        """A filter of some of the series, standing where this one stands; the two go their own ways from then on."""
        names = ("transition", "design", "state_cov", "obs_var", "beta", "gamma", "center", "scale")
        tables: Tables = {name: np.asarray(getattr(self, name))[rows] for name in names}
        moving: Tables = {"state": self.a[rows], "cov": self._p[rows], "total": self.total[rows]}
        return StateSpace(tables | moving | {"accumulates": self.accumulates[rows].astype(np.float64)})

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """What a copy of this filter answers to a bundle's golden inputs: `values` [T, S] at `times_ms` [T], then one
        forecast of as many buckets as `outputs["mean"]` has. Out: `mean`, `deviation` [S, H]. With `known` [T, S, C] and
        `known_ahead` [S, C, H] where the model has known inputs."""
        trial = copy.deepcopy(self)
        times, step = np.asarray(inputs["times_ms"], dtype=np.int64), int(np.asarray(inputs["step_ms"])[0])
        known = np.asarray(inputs["known"], dtype=np.float64) if "known" in inputs else [None] * len(times)
        ahead = np.asarray(inputs["known_ahead"], dtype=np.float64) if "known_ahead" in inputs else None
        for row, start, beside in zip(np.asarray(inputs["values"], dtype=np.float64), times, known, strict=True):
            trial.step(row, int(start), beside)
        mean, deviation = trial.forecast(int(times[-1]) + step, step, np.asarray(outputs["mean"]).shape[1], ahead)
        return {"mean": mean, "deviation": deviation}

    def _expected(self, start_ms: int, step_ms: int, steps: int, known: Floats | None) -> Floats:
        """Deterministic part at `steps` buckets from start_ms: [S, steps]."""
        x = day_harmonics(start_ms + step_ms * np.arange(steps, dtype=np.int64), self.harmonics)
        expected = np.asarray(self.beta @ x.T, dtype=np.float64)
        if self.gamma.shape[1]:
            ahead = np.zeros((*self.gamma.shape, steps)) if known is None else np.asarray(known, dtype=np.float64)
            summed = self.total[:, :, None] + np.cumsum(ahead, axis=2)
            expected += np.einsum("sc,sch->sh", self.gamma, np.where(self.accumulates[:, :, None], summed, ahead))
        return expected

    def _acting(self, known: Floats | None) -> Floats:
        """What acts in this bucket [S, C]; moves the sums."""
        now = np.zeros(self.gamma.shape) if known is None else np.asarray(known, dtype=np.float64)
        self.total = self.total + now
        return np.where(self.accumulates, self.total, now)

    def _phase(self, time_ms: int) -> Floats:
        """The day's shape at a time [S], remembered by the time of day."""
        phase = time_ms % DAY_MS
        found = self._phases.get(phase)
        if found is None:
            if len(self._phases) >= MOST_PHASES:
                self._phases.clear()
            found = self.beta @ day_harmonics(np.array([phase], dtype=np.int64), self.harmonics)[0]
            self._phases[phase] = found
        return found

    def _observed(self, a: Floats) -> Floats:
        """design @ state, of states [k, S]."""
        return a[0] if self._first else np.asarray(np.einsum("ks,ks->s", self._design, a))

    def _variance(self, p: Floats, rows: NDArray[np.int64] | slice = slice(None)) -> tuple[Floats, Floats]:
        """(covariance @ design [n, k], variance of the observation [n])."""
        z = self.design[rows]
        pz = np.einsum("sij,sj->si", p, z)
        return pz, np.einsum("si,si->s", z, pz) + self.obs_var[rows]

    def _variances(self, horizon: int) -> Floats:
        """Variance of the observation by step ahead [S, horizon]; a constant, and remembered, while all are at rest."""
        if self._ahead is not None and self._ahead.shape[1] >= horizon:
            return self._ahead[:, :horizon]
        p = self._p
        variance = np.empty((len(self), horizon))
        for h in range(horizon):
            variance[:, h] = self._variance(p)[1]
            p = self._next_covariance(p, slice(None)) if h + 1 < horizon else p
        self._ahead = variance if self._all_rest else None
        return variance

    def _next_covariance(self, p: Floats, rows: NDArray[np.int64] | slice) -> Floats:
        """transition @ p @ transition' + state_cov of [n, k, k]."""
        move = self._move.of(rows)
        half = move(p.transpose(1, 2, 0))  # [k, k, n], first axis moved
        both = move(half.transpose(1, 0, 2)).transpose(2, 1, 0)
        return np.asarray(both + self.state_cov[rows])

    def _step_one(self, joined: Floats, value: float, expected: float) -> tuple[Floats, Floats]:
        """One series at rest: states and innovation in one product."""
        deviation, center, scale = self._one
        joined[-1] = (value - center) / scale - expected
        self._joined = moved = self._joint.dot(joined)
        return moved[-1:] / deviation, self._deviation_out

    def _step_exact(self, innovation: Floats, missing: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Series at rest that were seen take their constant gain; the others the full recursion."""
        rows = np.flatnonzero(missing | (self._rested < RESTING_STEPS))
        p = self._p[rows]
        pz, variance = self._variance(p, rows)
        variance = np.maximum(variance, 1e-300)
        seen = ~missing[rows]
        deviation = self._deviation.copy()
        deviation[rows] = np.sqrt(variance)
        z = np.where(missing, np.nan, innovation) / deviation
        filtered = np.where(seen[:, None], pz / variance[:, None], 0.0)
        gain = self._gain.copy()
        gain[:, rows] = self._move.of(rows)(np.ascontiguousarray(filtered.T))
        self._a = self._move(self._a) + gain * np.where(missing, 0.0, innovation)
        moved = self._next_covariance(p - filtered[:, :, None] * pz[:, None, :], rows)
        still = np.abs(moved - p).max(axis=(1, 2)) <= AT_REST * np.abs(p).max(axis=(1, 2))
        self._rested[rows] = np.where(still & seen, self._rested[rows] + 1, 0)
        self._p[rows] = moved
        self._constant(rows)
        self._aim()
        return z, deviation * self.scale

    def _settle(self) -> None:
        """Finds out which covariances rest already, by steps on a copy: then none is taken for resting by chance."""
        s, k = self.design.shape
        self._rested = np.zeros(s, dtype=np.int8)
        self._gain = np.zeros((k, s))
        self._deviation = np.ones(s)
        p = self._p
        still = np.ones(s, dtype=bool)
        for _ in range(RESTING_STEPS):
            pz, variance = self._variance(p)
            filtered = pz / np.maximum(variance, 1e-300)[:, None]
            moved = self._next_covariance(p - filtered[:, :, None] * pz[:, None, :], slice(None))
            still &= np.abs(moved - p).max(axis=(1, 2)) <= AT_REST * np.abs(p).max(axis=(1, 2))
            p = moved
        self._rested[still] = RESTING_STEPS
        self._constant(np.arange(s))
        self._aim()

    def _constant(self, rows: NDArray[np.int64]) -> None:
        """Gain and deviation of `rows` from their covariance."""
        pz, variance = self._variance(self._p[rows], rows)
        variance = np.maximum(variance, 1e-300)
        self._gain[:, rows] = self._move.of(rows)(np.ascontiguousarray((pz / variance[:, None]).T))
        self._deviation[rows] = np.sqrt(variance)

    def _aim(self) -> None:
        """Chooses the shortest path for the next bucket."""
        self._all_rest = bool((self._rested >= RESTING_STEPS).all())
        self._deviation_out = self._deviation * self.scale
        self._deviation_out.flags.writeable = False
        self._joined = self._ahead = None
        if self._all_rest and len(self) == 1:
            k = self.design.shape[1]
            self._joint = np.zeros((k + 1, k + 1))
            self._joint[:k, :k] = self.transition[0] - np.outer(self._gain[:, 0], self.design[0])
            self._joint[:k, k] = self._gain[:, 0]
            self._joint[k, :k], self._joint[k, k] = -self.design[0], 1.0
            self._joined = np.append(self._a[:, 0], 0.0)
            self._one = (float(self._deviation[0]), float(self.center[0]), float(self.scale[0]))

    def _part(self) -> None:
        """Leaves the short path of one series."""
        self._a = np.ascontiguousarray(self.a.T)
        self._joined = None

    def _replayed(self, seen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """The gain that each bucket's value had [S, k, L], 0 where it was missing, from a covariance at rest; and the
        covariance after them [S, k, k]."""
        p = self._resting_covariance()
        gains = np.zeros((len(self), self.design.shape[1], seen.shape[1]))
        for lag in range(seen.shape[1]):
            pz, variance = self._variance(p)
            filtered = np.where(seen[:, lag, None], pz / np.maximum(variance, 1e-300)[:, None], 0.0)
            gains[:, :, lag] = self._move(np.ascontiguousarray(filtered.T)).T
            p = self._next_covariance(p - filtered[:, :, None] * pz[:, None, :], slice(None))
        return gains, p

    def _resting_covariance(self) -> Floats:
        """The covariance after a long time without gaps; the present one where it rests."""
        p = self._p.copy()
        rows = np.flatnonzero(~self.resting)
        for _ in range(2000):
            if not len(rows):
                break
            pz, variance = self._variance(p[rows], rows)
            filtered = pz / np.maximum(variance, 1e-300)[:, None]
            moved = self._next_covariance(p[rows] - filtered[:, :, None] * pz[:, None, :], rows)
            still = np.abs(moved - p[rows]).max(axis=(1, 2)) <= 10 * AT_REST * np.abs(moved).max(axis=(1, 2))
            p[rows] = moved
            rows = rows[~still]
        return p


class _Move:
    """transition @ x of many series at once, x [k, ..., S]: a shift up or down where the transition is one, whole
    columns and rows where it is not (an autoregression is one column, a differencing one row)."""

    def __init__(self, transition: Floats) -> None:
        self._transition = transition
        k = transition.shape[1]
        t = np.ascontiguousarray(transition.transpose(1, 2, 0))  # [k, k, S]
        self.up = np.ascontiguousarray(np.stack([t[i, i + 1] for i in range(k - 1)])) if k > 1 else t[:0, 0]
        self.down = np.ascontiguousarray(np.stack([t[i + 1, i] for i in range(k - 1)])) if k > 1 else t[:0, 0]
        rest = (t != 0).any(axis=2)
        rest[np.arange(k - 1), np.arange(1, k)] = False
        rest[np.arange(1, k), np.arange(k - 1)] = False
        self.columns: list[tuple[int, int, Floats]] = []  # column, rows up to, coefficients
        self.rows: list[tuple[int, NDArray[np.int64], Floats]] = []
        for i in np.flatnonzero(rest.sum(axis=1) > 3):
            where = np.flatnonzero(rest[i])
            self.rows.append((int(i), where, np.ascontiguousarray(t[i, where])))
            rest[i] = False
        for j in np.flatnonzero(rest.any(axis=0)):
            size = int(np.flatnonzero(rest[:, j]).max()) + 1
            self.columns.append((int(j), size, np.ascontiguousarray(np.where(rest[:size, j, None], t[:size, j], 0.0))))
        self.goes_up, self.goes_down = bool((self.up != 0).any()), bool((self.down != 0).any())
        self.plain_up = bool((self.up == 1).all())
        self.dense = len(self.columns) + len(self.rows) > 2 + k // 3

    def of(self, rows: NDArray[np.int64] | slice) -> _Move:
        """The same for some of the series."""
        if isinstance(rows, slice) or len(rows) == len(self._transition):
            return self
        part = copy.copy(self)
        part._transition = self._transition[rows]
        part.up, part.down = self.up[:, rows], self.down[:, rows]
        part.columns = [(j, size, c[:, rows]) for j, size, c in self.columns]
        part.rows = [(i, where, c[:, rows]) for i, where, c in self.rows]
        return part

    def __call__(self, x: Floats) -> Floats:
        if self.dense:
            return np.asarray(np.einsum("sij,j...s->i...s", self._transition, x))
        made = np.empty_like(x, order="C")
        middle = (slice(None),) + (None,) * (x.ndim - 2)
        if self.goes_up:
            if self.plain_up:
                made[:-1] = x[1:]
            else:
                np.multiply(x[1:], self.up[middle], out=made[:-1])
            made[-1] = 0.0
        else:
            made[:] = 0.0
        if self.goes_down:
            made[1:] += x[:-1] * self.down[middle]
        for j, size, c in self.columns:
            made[:size] += c[middle] * x[j]
        for i, where, c in self.rows:
            made[i] += np.einsum("j...s,js->...s", x[where], c)
        return made
