"""Forecasts every signal from the best model at hand, and keeps score of all of them.

Until a model comes, and beside every model, the simple reference answers: last season's value, or the last one. Every
installed model, shadows included, is scored on the same values as the reference when they arrive. No I/O."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edge_agent.runtimes import LoadedModel
from edge_agent.skills import Key, Residual
from protocol.names import stable_id
from protocol.reports import Forecast, ModelRef
from protocol.twin import LiveError, Role, SkillHealth
from protocol.windows import Floats, naive_forecast, windows

HistoryReader = Callable[[Key, int, int], Floats]
"""(key, start_ms, buckets) -> bucket means."""
NAIVE = ModelRef("forecast.naive", "naive")
MAX_CATCH_UP_STEPS = 2000
MIN_SCORED = 48
STALE_AFTER_BUCKETS = 3
_NORMAL_80 = 1.2815515655446004


@dataclass
class _Score:
    """Absolute errors of a model and of the reference on the same values; how often the interval held."""

    n: int = 0
    own: float = 0.0
    naive: float = 0.0
    inside: int = 0

    def scaled(self) -> float:
        return self.own / self.naive if self.naive > 0 else math.inf


@dataclass
class _Slot:
    role: Role
    model: LoadedModel
    rows: dict[Key, int] = field(default_factory=dict)
    scores: dict[Key, _Score] = field(default_factory=dict)
    results: int = 0


@dataclass
class _Baseline:
    """Exponentially weighted level and absolute deviation: expects something before any model is there. The spread is
    that of one-step changes as well as of the level, whichever is larger, so a trend is not an anomaly."""

    level: float
    spread: float = 0.0
    n: int = 0
    past: deque[float] = field(default_factory=deque)
    season_spread: float = math.inf
    seasons: int = 0


@dataclass(frozen=True, slots=True)
class _Pending:
    """A forecast waiting for its values: per slot (None: the reference) mean, low and high by step."""

    start_ms: int
    answers: dict[str, tuple[Floats, Floats, Floats]]


class ForecastSkill:
    """One gateway's forecaster. Keys are (machine, signal)."""

    def __init__(self, *, step_ms: int, horizon: int, season: int, level: float = 0.8) -> None:
        self._step_ms = step_ms
        self._horizon = horizon
        self._season = season
        self._level = level
        self._slots: dict[str, _Slot] = {}
        self._baselines: dict[Key, _Baseline] = {}
        self._pending: dict[Key, deque[_Pending]] = {}
        self._naive: dict[Key, _Score] = {}
        self._spread: dict[Key, Floats] = {}
        self._asked = 0
        self._answered = 0
        self._latency_us = 0.0

    @property
    def context_steps(self) -> int:
        """Buckets of history that `issue` wants to see."""
        needs = [s.model.passport.window.context for s in self._slots.values() if s.model.passport.window is not None]
        return max([self._season + 1, self._horizon, 96, *needs])

    def install(self, slot: str, role: Role, model: LoadedModel, read: HistoryReader, until_ms: int) -> None:
        """Puts a model into a slot; a state-space model is brought up to `until_ms` (end of the last closed bucket) with
        what happened since it was trained."""
        rows = {key: i for i, key in enumerate(model.passport.series)}
        if model.state_space is not None and until_ms:
            start = min(model.passport.series_until_ms)
            steps = min(max((until_ms - start) // self._step_ms, 0), MAX_CATCH_UP_STEPS)
            start = until_ms - steps * self._step_ms
            table = np.full((len(rows), steps), np.nan)
            for key, i in rows.items():
                skip = max((model.passport.series_until_ms[i] - start) // self._step_ms, 0)
                values = read(key, start, steps) if steps else np.zeros(0)
                table[i, skip:] = values[skip:]
            for t in range(steps):
                model.state_space.step(table[:, t], start + t * self._step_ms)
        self._slots[slot] = _Slot(role, model, rows)

    def remove(self, slot: str) -> None:
        """Takes a model out; the others and the reference go on."""
        self._slots.pop(slot, None)

    def results(self, slot: str) -> int:
        """Forecasts made with a slot's model since it was installed."""
        return self._slots[slot].results if slot in self._slots else 0

    def observe(self, start_ms: int, values: dict[Key, float]) -> dict[Key, Residual]:
        """Takes one closed bucket: moves filters, scores pending forecasts, and says how far each value was from what
        the serving model (else the running level) expected."""
        expected: dict[Key, Residual] = {}
        for slot in self._slots.values():
            space = slot.model.state_space
            if space is None:
                continue
            taken = np.full(len(space), np.nan)
            for key, i in slot.rows.items():
                taken[i] = values.get(key, np.nan)
            z, deviation = space.step(taken, start_ms)
            if slot.role is Role.SERVING:
                for key, i in slot.rows.items():
                    if not math.isnan(z[i]):
                        d = float(deviation[i])
                        expected[key] = Residual(
                            values[key], values[key] - float(z[i]) * d, d, float(z[i]), slot.model.ref
                        )
        found: dict[Key, Residual] = {}
        for key, value in values.items():
            self._score(key, start_ms, value)
            running = self._against_level(key, value)
            found[key] = expected.get(key, running)
        return found

    def issue(self, end_ms: int, contexts: dict[Key, Floats]) -> list[Forecast]:
        """One forecast per signal for the `horizon` buckets from end_ms. `contexts`: bucket means up to end_ms, of at
        least `context_steps` where history reaches that far (shorter is padded with NaN)."""
        started = time.perf_counter()
        keys = [k for k, c in contexts.items() if np.isfinite(c).any()]
        self._asked += len(contexts)
        if not keys:
            return []
        want = self.context_steps
        stack = np.full((len(keys), want), np.nan)
        for i, key in enumerate(keys):
            tail = contexts[key][-want:]
            stack[i, want - len(tail) :] = tail
        answers = {NAIVE.slot: self._ask_naive(keys, stack)}
        for name, slot in self._slots.items():
            made = self._ask(slot, keys, stack, end_ms)
            if made is not None:
                answers[name] = made
        forecasts = [self._forecast(key, i, end_ms, stack, answers) for i, key in enumerate(keys)]
        self._answered += len(forecasts)
        self._latency_us = (time.perf_counter() - started) * 1e6 / len(keys)
        return forecasts

    def live_errors(self) -> list[LiveError]:
        """How good each model turned out to be here, the reference (1 by definition) included."""
        rows = [self._error(NAIVE.slot, NAIVE.algorithm, self._naive)]
        rows += [self._error(name, s.model.passport.algorithm, s.scores) for name, s in self._slots.items()]
        return [r for r in rows if r.n]

    def health(self) -> SkillHealth:
        """Forecasts per signal that should have had one."""
        return SkillHealth(expected=self._asked, results=self._answered, latency_us=round(self._latency_us, 1))

    def _against_level(self, key: Key, value: float) -> Residual:
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

    def _ask_naive(self, keys: list[Key], stack: Floats) -> tuple[Floats, Floats, Floats]:
        mean = naive_forecast(stack, self._season, self._horizon)
        changes = np.abs(np.diff(stack, axis=1))
        with np.errstate(all="ignore"):
            typical = np.nan_to_num(
                np.nanmean(np.where(np.all(np.isnan(changes), axis=1, keepdims=True), 0.0, changes), axis=1)
            )
        grown = typical[:, None] * np.sqrt(np.arange(1, self._horizon + 1))[None]
        for i, key in enumerate(keys):
            if key in self._spread:
                grown[i] = self._spread[key]
        return mean, mean - _NORMAL_80 * 1.2533 * grown, mean + _NORMAL_80 * 1.2533 * grown

    def _ask(self, slot: _Slot, keys: list[Key], stack: Floats, end_ms: int) -> tuple[Floats, Floats, Floats] | None:
        shape = (len(keys), self._horizon)
        mean, low, high = (np.full(shape, np.nan) for _ in range(3))
        model = slot.model
        if model.state_space is not None:
            center, deviation = model.state_space.forecast(end_ms, self._step_ms, self._horizon)
            known = [(i, slot.rows[k]) for i, k in enumerate(keys) if k in slot.rows]
            for i, row in known:
                mean[i] = center[row]
                low[i], high[i] = mean[i] - _NORMAL_80 * deviation[row], mean[i] + _NORMAL_80 * deviation[row]
            slot.results += len(known)
        elif model.session is not None and model.passport.window is not None:
            spec = model.passport.window
            made = windows(stack[:, -spec.context :], np.full(len(keys), end_ms, dtype=np.int64), spec)
            use = np.flatnonzero(made.usable & ~np.isnan(stack[:, -spec.context :]).all(axis=1))
            if len(use) == 0 or spec.step_ms != self._step_ms:
                return None
            q = np.sort(model.quantiles(made.x[use]), axis=2)
            steps = min(self._horizon, spec.horizon)
            unscaled = q[:, :steps].astype(np.float64) * made.scale[use, None, None] + made.center[use, None, None]
            low[use, :steps], high[use, :steps] = unscaled[:, :, 0], unscaled[:, :, -1]
            mean[use, :steps] = unscaled[:, :, q.shape[2] // 2]
            slot.results += len(use)
        else:
            return None
        return mean, low, high

    def _forecast(
        self, key: Key, i: int, end_ms: int, stack: Floats, answers: dict[str, tuple[Floats, Floats, Floats]]
    ) -> Forecast:
        usable = {n: a for n, a in answers.items() if np.isfinite(a[0][i]).all() and np.isfinite(a[1][i]).all()}
        pending = self._pending.setdefault(key, deque(maxlen=self._horizon))
        pending.append(_Pending(end_ms, {n: (a[0][i], a[1][i], a[2][i]) for n, a in usable.items()}))
        chosen = self._best(key, usable)
        mean, low, high = (part[i] for part in answers[chosen])
        seen = np.flatnonzero(np.isfinite(stack[i]))
        behind = stack.shape[1] - 1 - int(seen[-1])
        ref = self._slots[chosen].model.ref if chosen in self._slots else NAIVE
        return Forecast(
            id=stable_id("forecast", *key, end_ms, ref.slot, ref.version),
            machine=key[0],
            signal=key[1],
            issued_ms=end_ms,
            inputs_until_ms=max(end_ms - behind * self._step_ms, 0),
            stale=behind >= STALE_AFTER_BUCKETS,
            start_ms=end_ms,
            step_ms=self._step_ms,
            level=self._level,
            mean=mean.tolist(),
            low=low.tolist(),
            high=high.tolist(),
            model=ref,
        )

    def _best(self, key: Key, usable: dict[str, tuple[Floats, Floats, Floats]]) -> str:
        """The serving model with the lowest scaled error here once it is known, else by its passport; the reference (1)
        where nothing is below it."""
        best, lowest = NAIVE.slot, 1.0
        for name in usable:
            slot = self._slots.get(name)
            if slot is None or slot.role is not Role.SERVING:
                continue
            score = slot.scores.get(key)
            error = score.scaled() if score is not None and score.n >= MIN_SCORED else _promised(slot, key)
            if error < lowest:
                best, lowest = name, error
        return best

    def _score(self, key: Key, start_ms: int, value: float) -> None:
        """Charges `value` to every pending forecast that covers its bucket."""
        for pending in self._pending.get(key, ()):
            step = (start_ms - pending.start_ms) // self._step_ms
            if not 0 <= step < self._horizon:
                continue
            reference = pending.answers.get(NAIVE.slot)
            if reference is None:
                continue
            miss = abs(value - float(reference[0][step]))
            spread = self._spread.setdefault(key, np.full(self._horizon, miss))
            spread[step] += 0.05 * (miss - spread[step])
            for name, (mean, low, high) in pending.answers.items():
                slot = self._slots.get(name)
                if slot is None and name != NAIVE.slot:
                    continue
                scores = self._naive if slot is None else slot.scores
                score = scores.setdefault(key, _Score())
                score.n += 1
                score.own += abs(value - float(mean[step]))
                score.naive += miss
                score.inside += int(low[step] <= value <= high[step])

    def _error(self, slot: str, algorithm: str, scores: dict[Key, _Score]) -> LiveError:
        n = sum(s.n for s in scores.values())
        ratios = [s.scaled() for s in scores.values() if s.n >= self._horizon and s.naive > 0]
        return LiveError(
            slot=slot,
            algorithm=algorithm,
            n=n,
            scaled_error=round(float(np.mean(ratios)), 4) if ratios else 0.0,
            coverage=round(sum(s.inside for s in scores.values()) / n, 4) if n else 0.0,
        )


def _promised(slot: _Slot, key: Key) -> float:
    """The held-out scaled error of a passport: the series' own where it has one, else the model's."""
    passport = slot.model.passport
    row = slot.rows.get(key)
    if row is not None and row < len(passport.series_error):
        return passport.series_error[row]
    return next((q.model for q in passport.quality if q.metric == "mae_relative_to_naive"), 1.0)
