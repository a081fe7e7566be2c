"""Differential privacy for shared means: the discrete Laplace mechanism, and a budget that is spent before anything is
said.

A value is the mean of n readings, each clipped to declared bounds [low, high]; another reading in place of one of them
moves it by at most (high - low) / n. It is rounded to a grid of 2^-10 of that range and gets noise of scale sensitivity
/ epsilon, drawn exactly from integers (Canonne, Kamath, Steinke: The Discrete Gaussian for Differential Privacy,
NeurIPS 2020, algorithm 2), because floating-point Laplace noise gives the value away (Mironov 2012). So each value is
epsilon-differentially private for one reading. The budget adds up the epsilons of all values of a signal and day, as if
they were about the same reading: what is really lost about one reading is less."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import msgspec

from edge_agent.updates import write_durably
from protocol.errors import BadSettings
from protocol.unreadable import UNREADABLE

GRID = 1024
"""Steps between low and high; a value and its noise are whole steps."""
DAY_MS = 86_400_000
Below = Callable[[int], int]
"""A uniform whole number below n, from a source nobody can foresee."""


def noisy_mean(
    readings: list[float], low: float, high: float, epsilon: Fraction, below: Below = secrets.randbelow
) -> float | None:
    """The mean of the readings, epsilon-differentially private for each of them; None for no reading."""
    if not readings:
        return None
    step = (high - low) / GRID
    mean = sum(min(max(r, low), high) for r in readings) / len(readings)
    rounded = round((mean - low) / step)
    sensitivity = -(-GRID // len(readings)) + 1  # in steps; rounding may add one
    return low + (rounded + discrete_laplace(Fraction(sensitivity) / epsilon, below)) * step


def discrete_laplace(scale: Fraction, below: Below = secrets.randbelow) -> int:
    """A whole number x with probability proportional to exp(-|x| / scale), exactly."""
    t, s = scale.numerator, scale.denominator
    while True:
        u = below(t)
        if not _bernoulli_exp(Fraction(u, t), below):
            continue
        v = 0
        while _bernoulli_exp(Fraction(1), below):
            v += 1
        magnitude = (u + t * v) // s
        negative = below(2) == 1
        if not (negative and magnitude == 0):
            return -magnitude if negative else magnitude


def _bernoulli_exp(gamma: Fraction, below: Below) -> bool:
    """True with probability exp(-gamma), for 0 <= gamma <= 1."""
    k = 1
    while below(gamma.denominator * k) < gamma.numerator:
        k += 1
    return k % 2 == 1


class Spent(msgspec.Struct):
    """budget.json: the day that it counts, and what each "machine/signal" has spent in it."""

    day: int = 0
    spent: dict[str, float] = {}


class Budget:
    """Epsilon per signal and day. Owner of budget.json at `path`; a damaged file is an error, since a budget that was
    forgotten would be spent twice."""

    def __init__(self, path: Path, per_day: float) -> None:
        self._path, self._per_day = path, per_day
        try:
            self._spent = msgspec.json.decode(path.read_bytes(), type=Spent)
        except FileNotFoundError:
            self._spent = Spent()
        except (*UNREADABLE, OSError) as error:
            raise BadSettings(
                f"{path} is not readable ({error}); delete it to begin the day's privacy budget anew"
            ) from error

    def spend(self, signal: str, epsilon: float, now_ms: int) -> bool:
        """Whether so much was left; if so it is spent, on disk, before this returns. A clock that goes back gives nothing
        back. Raises OSError: then nothing may be said."""
        day = max(now_ms // DAY_MS, self._spent.day)
        before = self._spent.spent if day == self._spent.day else {}
        spent = before.get(signal, 0.0) + epsilon
        if spent > self._per_day + 1e-9:
            return False
        after = Spent(day, {**before, signal: spent})
        write_durably(self._path, msgspec.json.encode(after))
        self._spent = after
        return True
