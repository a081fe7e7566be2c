"""A machine's signals watched together. Says how far the machine is from its normal state, and which signal carries it:
contributions are exact, they sum to the statistic. Always float64; one step is a few operations on [n] numbers."""

from __future__ import annotations

import copy
import math

import numpy as np

from protocol.errors import BadBundle, Reason
from protocol.tables.checked import Tables, table
from protocol.windows import Floats

STATISTICS = ("t2", "q", "farthest")


class Monitor:
    """Frozen multivariate control charts over smoothed signals (Hotelling 1947; Jackson & Mudholkar 1979; the smoothing is
    Roberts' EWMA, 1959).

        level += smoothing * (value - level)
        z = (level - centre) / scale;  t = loadings @ z;  rest = z - loadings.T @ t
        t2 = sum(t**2 / variance);  q = sum(rest**2);  farthest = max(|z|)**2

    A statistic alarms above its limit (limit 0: not watched) and goes on until it is below `release` times that. A missing
    value leaves its level where it was. Tables, float64: centre, scale [n]; loadings [k,n] with orthonormal rows, variance
    [k] (k may be 0: q is then the distance in every direction alike); limits [3] for t2, q, farthest; smoothing, release
    [1] in (0, 1]."""

    def __init__(self, tables: Tables) -> None:
        self.centre = np.asarray(table(tables, "centre", "f", (None,)), dtype=np.float64)
        n = len(self.centre)
        self.scale = np.asarray(table(tables, "scale", "f", (n,)), dtype=np.float64)
        self.loadings = np.asarray(table(tables, "loadings", "f", (None, n)), dtype=np.float64)
        k = len(self.loadings)
        self.variance = np.asarray(table(tables, "variance", "f", (k,)), dtype=np.float64)
        self.limits = np.asarray(table(tables, "limits", "f", (3,)), dtype=np.float64)
        self._smoothing = float(np.asarray(table(tables, "smoothing", "f", (1,)), dtype=np.float64)[0])
        self._release = float(np.asarray(table(tables, "release", "f", (1,)), dtype=np.float64)[0])
        if n == 0 or not ((self.scale > 0).all() and (self.variance > 0).all()):
            raise BadBundle(Reason.BAD_ARCHIVE, "a monitor needs a signal, and scale and variance must be positive")
        if not (0 < self._smoothing <= 1 and 0 < self._release <= 1):
            raise BadBundle(Reason.BAD_ARCHIVE, "smoothing and release must be above 0 and at most 1")
        if (self.limits < 0).any() or not (self.limits > 0).any() or (k == 0 and self.limits[0] > 0):
            raise BadBundle(Reason.BAD_ARCHIVE, "limits must not be negative, and one that can be reached be positive")
        if not np.allclose(self.loadings @ self.loadings.T, np.eye(k), atol=1e-6):
            raise BadBundle(Reason.BAD_ARCHIVE, "loadings must be orthonormal")
        self._farthest_only = bool(self.limits[0] == 0 and self.limits[1] == 0)
        self._farthest = float(np.sqrt(self.limits[2]))
        self._fades = 1.0 - self._smoothing
        self._gain = self._smoothing / self.scale
        self._offset = self._smoothing * self.centre / self.scale
        self.z: Floats = np.zeros(n)
        self.alarm = False

    def __len__(self) -> int:
        return len(self.centre)

    @property
    def level(self) -> Floats:
        """The smoothed signals [n], each in its own unit."""
        return self.centre + self.z * self.scale

    def step(self, values: Floats) -> float:
        """Takes one bucket's values [n] (NaN: missing); returns the largest statistic over its limit (above 1: beyond it).
        `alarm` says whether an alarm is on."""
        z = self.z * self._fades + (values * self._gain - self._offset)
        listed = z.tolist()  # for a handful of signals a list is faster than a reduction
        if not math.isfinite(sum(listed)):
            z = np.where(np.isfinite(values), z, self.z)
            listed = z.tolist()
        self.z = z
        if self._farthest_only:
            ratio = float((max(max(listed), -min(listed)) / self._farthest) ** 2)
        else:
            found = self.statistics()
            ratio = max(s / limit for s, limit in zip(found, self.limits.tolist(), strict=True) if limit > 0)
        self.alarm = ratio > (self._release if self.alarm else 1.0)
        return ratio

    def statistics(self) -> tuple[float, float, float]:
        """t2, q, farthest of the present levels."""
        z = self.z
        t = self.loadings @ z
        rest = z - t @ self.loadings
        return float(t @ (t / self.variance)), float(rest @ rest), float(np.max(z * z))

    def contributions(self, statistic: str) -> Floats:
        """What each signal [n] adds to "t2", "q" or "farthest" at the present levels; they sum to it exactly. Those of t2
        may be negative: two signals that move together as usual excuse one another."""
        z = self.z
        t = self.loadings @ z
        if statistic == "t2":
            return np.asarray(z * ((t / self.variance) @ self.loadings))
        if statistic == "q":
            return np.asarray((z - t @ self.loadings) ** 2)
        if statistic == "farthest":
            alone = np.zeros(len(z))
            alone[np.argmax(z * z)] = np.max(z * z)
            return alone
        raise ValueError(f"no statistic {statistic!r}: one of {', '.join(STATISTICS)}")

    def shares(self) -> Floats:
        """What each signal [n] adds to the sum of the watched statistics, each over its limit (the combined index of Yue &
        Qin 2001; where only the farthest signal is watched, squares over its limit): who to name first."""
        t2, q, farthest = self.limits.tolist()
        if self._farthest_only:
            return np.asarray(self.z * self.z / farthest)
        parts = np.zeros(len(self))
        for name, limit in (("t2", t2), ("q", q), ("farthest", farthest)):
            if limit > 0:
                parts = parts + self.contributions(name) / limit
        return parts

    def golden(self, inputs: Tables, outputs: Tables) -> Tables:
        """What a copy of this monitor, from its normal state, answers to golden inputs: `values` [T, n]. Out: `t2`, `q`,
        `farthest` [T]."""
        trial = copy.copy(self)  # a step replaces z, so the original stays where it is
        trial.z, trial.alarm = np.zeros(len(self)), False
        rows = []
        for row in np.asarray(inputs["values"], dtype=np.float64):
            trial.step(row)
            rows.append(trial.statistics())
        found = np.array(rows).reshape(-1, 3)
        return {name: found[:, i] for i, name in enumerate(STATISTICS)}
