"""Asks one model for all signals at once: a mean and how far off the model itself expects to be. Intervals come later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_agent.runtimes import LoadedModel
from edge_agent.skills import Key
from protocol.covariates import KnownReader, nothing_known
from protocol.intervals import MEAN_ABSOLUTE, prior_from_quantiles
from protocol.reports import ModelRef
from protocol.tables import Ridge, StateSpace
from protocol.twin import Role
from protocol.windows import Floats, WindowSpec, windows

NAIVE = ModelRef("forecast.naive", "naive")
COMBINED = ModelRef("forecast.combined", "combined")


@dataclass(frozen=True, slots=True)
class Answer:
    """mean, prior (expected absolute error) [N, H]; a row with any NaN is no answer."""

    mean: Floats
    prior: Floats

    def usable(self) -> np.ndarray:
        """Which rows answer every step: [N]."""
        return np.asarray(np.isfinite(self.mean).all(axis=1) & np.isfinite(self.prior).all(axis=1))


@dataclass
class Slot:
    """An installed model. rows: its own row of each signal that it knows by name."""

    role: Role
    model: LoadedModel
    rows: dict[Key, int] = field(default_factory=dict)
    results: int = 0


def known_beside(
    read: KnownReader, keys: Sequence[Key], covariates: Sequence[str], at_ms: int, step_ms: int, before: int, ahead: int
) -> Floats:
    """What is known around one origin for each signal [N, C, before + ahead]; a machine is asked once."""
    origin = np.array([at_ms], dtype=np.int64)
    by_machine = {m: read(m, covariates, origin, step_ms, before, ahead)[0] for m in {machine for machine, _ in keys}}
    return np.stack([by_machine[machine] for machine, _ in keys])


def ask(
    slot: Slot,
    keys: list[Key],
    stack: Floats,
    end_ms: int,
    step_ms: int,
    horizon: int,
    known: KnownReader = nothing_known,
) -> Answer | None:
    """The model's answer for the `horizon` buckets from end_ms to `stack` [N, T], NaN rows where it has none; None if it
    has none at all (another step, no usable window, no forecaster)."""
    answer = Answer(np.full((len(keys), horizon), np.nan), np.full((len(keys), horizon), np.nan))
    model = slot.model
    if model.state_space is not None:
        ahead = filter_inputs(slot, known, end_ms, step_ms, 0, horizon)
        slot.results += _ask_filter(model.state_space, slot.rows, keys, answer, end_ms, step_ms, ahead)
        return answer
    spec = model.passport.window
    if model.ridge is not None and spec is not None and spec.step_ms == step_ms:
        slot.results += _ask_ridge(model, model.ridge, slot.rows, keys, stack, answer)
        return answer
    if model.session is None or spec is None or spec.step_ms != step_ms:
        return None
    beside = None
    if spec.covariates:
        beside = known_beside(known, keys, spec.covariates, end_ms, step_ms, spec.context, spec.horizon)
    answered = _ask_graph(model, spec, keys, stack, answer, end_ms, beside)
    slot.results += answered
    return answer if answered else None


def filter_inputs(slot: Slot, read: KnownReader, at_ms: int, step_ms: int, before: int, ahead: int) -> Floats | None:
    """What a filter is told of its covariates around an origin, in the order of its own rows [S, C, before + ahead]."""
    passport = slot.model.passport
    if not passport.covariates or not passport.series:
        return None
    return known_beside(read, passport.series, passport.covariates, at_ms, step_ms, before, ahead)


def _ask_filter(
    space: StateSpace,
    rows: dict[Key, int],
    keys: list[Key],
    into: Answer,
    end_ms: int,
    step_ms: int,
    ahead: Floats | None,
) -> int:
    mean, deviation = space.forecast(end_ms, step_ms, into.mean.shape[1], ahead)
    known = [(i, rows[key]) for i, key in enumerate(keys) if key in rows]
    if known:
        mine, theirs = (list(side) for side in zip(*known, strict=True))
        into.mean[mine], into.prior[mine] = mean[theirs], deviation[theirs] * MEAN_ABSOLUTE
    return len(known)


def _ask_ridge(
    model: LoadedModel, ridge: Ridge, rows: dict[Key, int], keys: list[Key], stack: Floats, into: Answer
) -> int:
    """Every signal, also one that the fleet's weights were not learned from (its interval is wider)."""
    if ridge.context > stack.shape[1]:
        return 0
    mine = np.array([rows.get(key, -1) for key in keys], dtype=np.int64)
    steps = min(into.mean.shape[1], ridge.horizon)
    into.mean[:, :steps] = ridge.forecast(stack, mine)[:, :steps]
    _, prior = mean_and_prior(ridge.quantiles(stack, mine), model.passport.levels)
    into.prior[:, :steps] = prior[:, :steps]
    return len(keys)


def _ask_graph(
    model: LoadedModel,
    spec: WindowSpec,
    keys: list[Key],
    stack: Floats,
    into: Answer,
    end_ms: int,
    known: Floats | None,
) -> int:
    seen = stack[:, -spec.context :]
    made = windows(seen, np.full(len(stack), end_ms, dtype=np.int64), spec, known)
    use = np.flatnonzero(made.usable & ~np.isnan(seen).all(axis=1))
    if not len(use):
        return 0
    steps = min(into.mean.shape[1], spec.horizon)
    who = model.passport.who([keys[i] for i in use])
    q = np.sort(model.quantiles_of_many(made.x[use], who), axis=2)[:, :steps].astype(np.float64)
    q = q * made.scale[use, None, None] + made.center[use, None, None]
    into.mean[use, :steps], into.prior[use, :steps] = mean_and_prior(q, model.passport.levels or [0.1, 0.5, 0.9])
    return len(use)


def mean_and_prior(q: Floats, levels: list[float]) -> tuple[Floats, Floats]:
    """The median and the prior of quantiles [N, H, Q] at `levels` [Q]: from those nearest to 0.1 and 0.9, whose place is
    better known than that of the tails."""
    low, middle, high = (min(range(len(levels)), key=lambda i: abs(levels[i] - at)) for at in (0.1, 0.5, 0.9))
    return q[:, :, middle], prior_from_quantiles(q[:, :, low], q[:, :, high], levels[high] - levels[low])
