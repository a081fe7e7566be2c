"""What the agent calls: `observe` a closed bucket, `issue` forecasts, `install` and `remove` models, keep a `state`.

Every installed model, shadows included, and the combination of those that serve are scored on the same values as the
reference when they arrive; every answer carries intervals that adapt to how far it was off here (`protocol.intervals`).
What is shown for a signal is the best of the reference, the serving models and their combination. No I/O."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_agent.runtimes import LoadedModel
from edge_agent.skills import Key, Residual
from edge_agent.skills.forecast import choose, memory
from edge_agent.skills.forecast.answers import COMBINED, NAIVE, Answer, Slot, ask, filter_inputs
from edge_agent.skills.forecast.level import RunningLevel
from edge_agent.skills.forecast.reference import Reference
from edge_agent.skills.forecast.track import CorrectionMaker, Track
from protocol.covariates import KnownReader, nothing_known
from protocol.errors import BadMessage, Reason
from protocol.intervals import LEVELS, Band, Coverage, Rows
from protocol.names import stable_id
from protocol.reports import Forecast, Member, ModelRef
from protocol.tables import StateSpace
from protocol.twin import LiveError, Role, SkillHealth
from protocol.windows import Floats

HistoryReader = Callable[[Key, int, int], Floats]
"""(key, start_ms, buckets) -> bucket means."""
MAX_CATCH_UP_STEPS = 2000
MIN_SCORED = 48
STALE_AFTER_BUCKETS = 3
SHORT_HISTORY = 12
"""Observed values below which an answer is called a stopgap, if neither season nor horizon is longer."""


@dataclass(frozen=True)
class _Issue:
    """Forecasts waiting for their values. bands, raw, made_by: by forecaster; raw are means before correction; made_by is
    the bundle's digest, so that a version that has gone is charged nothing. teaches [N]: fit to learn widths from."""

    start_ms: int
    rows: Rows
    bands: dict[str, Band]
    raw: dict[str, Floats]
    made_by: dict[str, str]
    shown: Band
    teaches: NDArray[np.bool_]
    both: Floats
    actual: Floats


@dataclass(frozen=True)
class _Inputs:
    """What there is to forecast from, of one gateway at one moment. stack [N, T]; behind [N]: steps
    since the newest value; fallback: `Forecast.fallback` of each, filled in when the answers are known."""

    keys: list[Key]
    rows: Rows
    stack: Floats
    end_ms: int
    behind: Rows
    fallback: list[str] = field(default_factory=list)


class ForecastSkill:
    """One gateway's forecaster. Keys are (machine, signal). `correction`: makes a signal's own correction of a model;
    `known`: tells what is known of the machines' future."""

    def __init__(
        self,
        *,
        step_ms: int,
        horizon: int,
        season: int,
        correction: CorrectionMaker | None = None,
        known: KnownReader = nothing_known,
    ) -> None:
        self._known = known
        self._step_ms = step_ms
        self._horizon = horizon
        self._season = season
        self._make_correction = correction
        self._slots: dict[str, Slot] = {}
        self._row: dict[Key, int] = {}
        self._tracks = {ref.slot: Track(horizon, ref.algorithm, "") for ref in (NAIVE, COMBINED)}
        self._before: dict[str, tuple[memory.Learned, Rows]] = {}
        self._reference = Reference(season, horizon)
        self._coverage = Coverage()
        self._level = RunningLevel(season)
        self._pending: deque[_Issue] = deque(maxlen=horizon + 1)
        self._asked = 0
        self._answered = 0
        self._latency_us = 0.0

    @property
    def context_steps(self) -> int:
        """Buckets of history that `issue` wants to see."""
        needs = [s.model.passport.window.context for s in self._slots.values() if s.model.passport.window is not None]
        return max([2 * self._season, self._horizon, 96, *needs])

    def install(self, slot: str, role: Role, model: LoadedModel, read: HistoryReader, until_ms: int) -> None:
        """Puts a model into a slot; a state-space model is brought up to `until_ms` (end of the last closed bucket) with
        what happened since it was trained. What the slot had learned before is taken over as `Track` says."""
        rows = {key: i for i, key in enumerate(model.passport.series)}
        placed = Slot(role, model, rows)
        if model.state_space is not None and until_ms:
            self._catch_up(model.state_space, placed, read, until_ms)
        self._keep(slot)
        self._slots[slot] = placed
        track = Track(self._horizon, model.passport.algorithm, model.digest, self._make_correction)
        if slot in self._before:
            track.take_over(*self._before[slot])
        self._tracks[slot] = track

    def remove(self, slot: str) -> None:
        """Takes a model out; the others and the reference go on."""
        self._keep(slot)
        self._slots.pop(slot, None)
        self._tracks.pop(slot, None)

    def results(self, slot: str) -> int:
        """Forecasts made with a slot's model since it was installed."""
        return self._slots[slot].results if slot in self._slots else 0

    def observe(self, start_ms: int, values: dict[Key, float]) -> dict[Key, Residual]:
        """Takes one closed bucket: moves filters, scores pending forecasts, and says how far each value was from what
        the serving model (else the running level) expected."""
        expected = self._move_filters(start_ms, values)
        self._charge(start_ms, values)
        self._level.missed(values)
        found: dict[Key, Residual] = {}
        for key, value in values.items():
            running = self._level.residual(key, value)
            found[key] = expected.get(key, running)
        return found

    def issue(self, end_ms: int, contexts: dict[Key, Floats]) -> list[Forecast]:
        """One forecast per signal for the `horizon` buckets from end_ms. `contexts`: bucket means up to end_ms, of at
        least `context_steps` where history reaches that far (shorter is padded with NaN). A signal of which nothing was
        observed in that time has no forecast, and counts as a missing answer."""
        started = time.perf_counter()
        self._asked += len(contexts)
        inputs = self._inputs(end_ms, contexts)
        if not inputs.keys:
            return []
        both = self._reference.both(inputs.stack)
        answers = {NAIVE.slot: self._reference.answer(inputs.rows, inputs.stack, both)}
        raw: dict[str, Floats] = {}
        for name, slot in self._slots.items():
            made = ask(slot, inputs.keys, inputs.stack, end_ms, self._step_ms, self._horizon, self._known)
            if made is not None:
                raw[name] = made.mean
                answers[name] = Answer(self._tracks[name].corrected(inputs.rows, made.mean), made.prior)
        members, shares, errors = self._combine(inputs, answers)
        chosen = choose.lowest(errors, NAIVE.slot) if errors else [NAIVE.slot] * len(inputs.keys)
        bands = {
            name: self._tracks[name].intervals.around(inputs.rows, a.mean, a.prior, inputs.behind)
            for name, a in answers.items()
        }
        shown = _picked(bands, chosen)
        self._note_fallbacks(inputs, answers)
        teaches = np.array([why in ("", "short_history", "no_model_answer") for why in inputs.fallback])
        made_by = {name: self._tracks[name].digest for name in answers}
        actual = np.full(shown.mean.shape, np.nan)
        self._pending.append(_Issue(end_ms, inputs.rows, bands, raw, made_by, shown, teaches, both, actual))
        forecasts = [self._forecast(inputs, i, chosen[i], shown, members, shares) for i in range(len(inputs.keys))]
        self._answered += len(forecasts)
        self._latency_us = (time.perf_counter() - started) * 1e6 / len(inputs.keys)
        return forecasts

    def members(self, forecast: Forecast) -> list[tuple[float, LoadedModel | None]]:
        """Weight and model (None: the simple reference) of what answered; empty where a model has gone since."""
        named = [(m.weight, m.model) for m in forecast.members] or [(1.0, forecast.model)]
        found: list[tuple[float, LoadedModel | None]] = []
        for weight, ref in named:
            slot = self._slots.get(ref.slot)
            if ref == NAIVE or (slot is not None and slot.model.ref == ref):
                found.append((weight, slot.model if slot is not None else None))
        return found if len(found) == len(named) else []

    def live_errors(self) -> list[LiveError]:
        """How good each forecaster turned out to be here, the reference (1 by definition) included."""
        rows = []
        for name, track in self._tracks.items():
            n, coverage, by_horizon = track.scores.coverage()
            if n:
                rows.append(
                    LiveError(
                        slot=name,
                        algorithm=track.algorithm,
                        n=n,
                        scaled_error=round(track.scores.mean_scaled(self._horizon), 4),
                        coverage=round(coverage, 4),
                        by_horizon=by_horizon,
                    )
                )
        return rows

    def health(self) -> SkillHealth:
        """Forecasts per signal that should have had one."""
        return SkillHealth(expected=self._asked, results=self._answered, latency_us=round(self._latency_us, 1))

    # what survives a restart --------------------------------------------------------------------------------------------

    def state(self) -> bytes:
        """Widths, scores and coverage of every signal, for `restore`. Forecasts under way are not in it: their values
        teach nothing after a restart, which costs one horizon of learning. Size: about (5 * horizon + 40) * 4 bytes per
        signal and forecaster."""
        n = len(self._row)
        self._coverage.grow(n)
        self._reference.grow(n)
        kept = memory.Memory(
            step_ms=self._step_ms,
            horizon=self._horizon,
            season=self._season,
            keys=list(self._row),
            forecasters={name: track.learned(n) for name, track in self._tracks.items()},
            coverage=memory.pack(self._coverage.state()),
            reference=memory.pack(self._reference.state()),
        )
        return memory.encode(kept)

    def restore(self, payload: bytes) -> None:
        """Takes over what `state` gave, before or after models are installed. Raises BadMessage (and learns anew) if it
        is damaged or of another step, horizon or season."""
        kept = memory.decode(payload)
        mine = (self._step_ms, self._horizon, self._season)
        if (kept.step_ms, kept.horizon, kept.season) != mine:
            raise BadMessage(
                Reason.WRONG_TYPE,
                f"a memory of step, horizon, season {(kept.step_ms, kept.horizon, kept.season)}; this gateway has {mine}",
            )
        rows = self._rows(kept.keys)
        if not len(rows):
            return
        try:
            self._coverage.restore(memory.unpack(kept.coverage), rows)
            self._reference.restore(memory.unpack(kept.reference), rows)
            for name, learned in kept.forecasters.items():
                self._before[name] = (learned, rows)
                if name in self._tracks:
                    self._tracks[name].take_over(learned, rows)
        except (KeyError, ValueError, IndexError) as error:
            raise BadMessage(Reason.WRONG_TYPE, f"a forecaster's memory does not fit: {error}") from error

    def _keep(self, slot: str) -> None:
        """Remembers what a slot had learned, for the version that comes next."""
        if slot in self._tracks and self._row:
            self._before[slot] = (self._tracks[slot].learned(len(self._row)), np.arange(len(self._row)))

    # taking a bucket ----------------------------------------------------------------------------------------------------

    def _rows(self, keys: list[Key]) -> Rows:
        """The skill's own number of each signal; new ones get the next."""
        return np.array([self._row.setdefault(key, len(self._row)) for key in keys], dtype=np.int64)

    def _catch_up(self, space: StateSpace, slot: Slot, read: HistoryReader, until_ms: int) -> None:
        passport, step_ms = slot.model.passport, self._step_ms
        seen_until_ms = passport.series_until_ms
        start = min(seen_until_ms)
        steps = min(max((until_ms - start) // step_ms, 0), MAX_CATCH_UP_STEPS)
        start = until_ms - steps * step_ms
        table = np.full((len(slot.rows), steps), np.nan)
        for key, i in slot.rows.items():
            skip = max((seen_until_ms[i] - start) // step_ms, 0)
            values = read(key, start, steps) if steps else np.zeros(0)
            table[i, skip:] = values[skip:]
        ends = start + step_ms * np.arange(1, steps + 1, dtype=np.int64)
        by_machine = {
            m: self._known(m, passport.covariates, ends, step_ms, 1, 0)[:, :, 0]
            for m in {m for m, _ in passport.series}
        }
        known = np.stack([by_machine[m] for m, _ in passport.series])
        for t in range(steps):
            space.step(table[:, t], start + t * step_ms, known[:, t])

    def _move_filters(self, start_ms: int, values: dict[Key, float]) -> dict[Key, Residual]:
        expected: dict[Key, Residual] = {}
        for slot in self._slots.values():
            space = slot.model.state_space
            if space is None:
                continue
            taken = np.full(len(space), np.nan)
            for key, i in slot.rows.items():
                taken[i] = values.get(key, np.nan)
            told = filter_inputs(slot, self._known, start_ms + self._step_ms, self._step_ms, 1, 0)
            z, deviation = space.step(taken, start_ms, None if told is None else told[:, :, 0])
            if slot.role is Role.SERVING:
                for key, i in slot.rows.items():
                    if not math.isnan(z[i]):
                        d = float(deviation[i])
                        expected[key] = Residual(
                            values[key], values[key] - float(z[i]) * d, d, float(z[i]), slot.model.ref
                        )
        return expected

    def _charge(self, start_ms: int, values: dict[Key, float]) -> None:
        """Charges the bucket's values to every pending forecast that covers it."""
        self._finish(start_ms)
        if not self._pending:
            return
        arrived = np.full(len(self._row), np.nan)
        for key, value in values.items():
            row = self._row.get(key)
            if row is not None:
                arrived[row] = value
        for issue in self._pending:
            step = (start_ms - issue.start_ms) // self._step_ms
            if 0 <= step < self._horizon:
                actual = arrived[issue.rows]
                issue.actual[:, step] = actual
                seen = np.flatnonzero(np.isfinite(actual))
                if len(seen):
                    self._charge_one(issue, step, seen, actual)

    def _charge_one(self, issue: _Issue, step: int, seen: Rows, actual: Floats) -> None:
        rows, values = issue.rows[seen], actual[seen]
        self._reference.note(rows, *np.abs(values - issue.both[:, seen, step]))
        yard = np.abs(actual - issue.bands[NAIVE.slot].mean[:, step])
        for name, band in issue.bands.items():
            track = self._tracks.get(name)
            if track is None or track.digest != issue.made_by[name]:
                continue  # the version that said so has gone
            use = seen[np.isfinite(band.mean[seen, step])]
            if not len(use):
                continue
            mean, value = band.mean[use, step], actual[use]
            held = (value >= band.low[use, step, 0]) & (value <= band.high[use, step, 0])
            track.scores.note(issue.rows[use], step, np.abs(value - mean), yard[use], held)
            learn = use[issue.teaches[use]]
            track.intervals.learn(issue.rows[learn], np.full(len(learn), step), actual[learn], band, learn)
        inside = (values[:, None] >= issue.shown.low[seen, step]) & (values[:, None] <= issue.shown.high[seen, step])
        self._coverage.note(rows, inside)

    def _finish(self, now_ms: int) -> None:
        """Forecasts whose last bucket has passed teach the corrections, and go."""
        while self._pending and self._pending[0].start_ms + self._horizon * self._step_ms <= now_ms:
            issue = self._pending.popleft()
            for name, mean in issue.raw.items():
                track = self._tracks.get(name)
                if track is not None and track.digest == issue.made_by[name]:
                    track.learn_correction(issue.rows, mean, issue.actual)

    # answering ----------------------------------------------------------------------------------------------------------

    def _inputs(self, end_ms: int, contexts: dict[Key, Floats]) -> _Inputs:
        want = self.context_steps
        keys = [k for k, c in contexts.items() if np.isfinite(c[-want:]).any()]
        stack = np.full((len(keys), want), np.nan)
        for i, key in enumerate(keys):
            tail = contexts[key][-want:]
            stack[i, want - len(tail) :] = np.where(np.isfinite(tail), tail, np.nan)
        behind = np.argmax(np.isfinite(stack)[:, ::-1], axis=1) if keys else np.zeros(0, dtype=np.int64)
        return _Inputs(keys, self._rows(keys), stack, end_ms, behind)

    def _note_fallbacks(self, inputs: _Inputs, answers: dict[str, Answer]) -> None:
        """Why an answer is a stopgap, for each signal; the gravest reason only."""
        count = np.isfinite(inputs.stack).sum(axis=1)
        with np.errstate(invalid="ignore"):
            constant = np.nanmax(inputs.stack, axis=1) == np.nanmin(inputs.stack, axis=1)
        serving = [name for name, slot in self._slots.items() if slot.role is Role.SERVING]
        silent = np.full(len(inputs.keys), bool(serving))
        for name in serving:
            if name in answers:
                silent &= ~answers[name].usable()
        enough = max(SHORT_HISTORY, self._season, self._horizon)
        reasons = (
            ("stale_inputs", inputs.behind >= STALE_AFTER_BUCKETS),
            ("one_value", count < 2),
            ("constant", constant),
            ("short_history", count < enough),
            ("no_model_answer", silent),
        )
        for i in range(len(inputs.keys)):
            inputs.fallback.append(next((why for why, holds in reasons if holds[i]), ""))

    def _combine(self, inputs: _Inputs, answers: dict[str, Answer]) -> tuple[list[str], Floats, dict[str, Floats]]:
        """Adds the combination of the reference and the serving models to `answers`. Returns its members, their shares
        [M, N], and the error over the reference's of every candidate [N] (NaN: no answer, or nothing known)."""
        serving = [n for n in answers if n in self._slots and self._slots[n].role is Role.SERVING]
        if not serving:
            return [], np.zeros((0, len(inputs.keys))), {}
        slots, members = [self._slots[name] for name in serving], [NAIVE.slot, *serving]
        errors: dict[str, Floats] = {}
        for name, slot in zip(serving, slots, strict=True):
            live = self._tracks[name].scores.scaled(inputs.rows, MIN_SCORED)
            known = np.where(np.isnan(live), choose.promised(slot, inputs.keys), live)
            errors[name] = np.where(answers[name].usable(), known, np.nan)
        live = self._tracks[COMBINED.slot].scores.scaled(inputs.rows, MIN_SCORED)
        stated, error = choose.promised_shares(slots, inputs.keys)
        stated[:, ~np.isnan(live)] = np.nan  # what was measured here counts for more
        table = np.stack([np.ones(len(inputs.keys)), *errors.values()])
        shares, combined, as_stated = choose.combine([answers[name] for name in members], table, stated)
        answers[COMBINED.slot] = combined
        known = np.where(np.isnan(live) & as_stated, error, live)
        errors[COMBINED.slot] = np.where(combined.usable(), known, np.nan)
        return members, shares, errors

    def _forecast(
        self, inputs: _Inputs, i: int, chosen: str, shown: Band, members: list[str], shares: Floats
    ) -> Forecast:
        key, end_ms, behind = inputs.keys[i], inputs.end_ms, int(inputs.behind[i])
        ref = self._ref(chosen)
        share, n = self._coverage.lately(int(inputs.rows[i]))
        parts = [Member(self._ref(m), round(float(s[i]), 4)) for m, s in zip(members, shares, strict=True) if s[i] > 0]
        return Forecast(
            id=stable_id("forecast", *key, end_ms, ref.slot, ref.version),
            machine=key[0],
            signal=key[1],
            issued_ms=end_ms,
            inputs_until_ms=max(end_ms - behind * self._step_ms, 0),
            stale=behind >= STALE_AFTER_BUCKETS,
            start_ms=end_ms,
            step_ms=self._step_ms,
            level=LEVELS[0],
            mean=shown.mean[i].tolist(),
            low=shown.low[i, :, 0].tolist(),
            high=shown.high[i, :, 0].tolist(),
            model=ref,
            low95=shown.low[i, :, 1].tolist(),
            high95=shown.high[i, :, 1].tolist(),
            coverage=None if share is None else round(share, 4),
            coverage_n=n,
            fallback=inputs.fallback[i],
            members=parts if chosen == COMBINED.slot else [],
        )

    def _ref(self, name: str) -> ModelRef:
        if name in self._slots:
            return self._slots[name].model.ref
        return COMBINED if name == COMBINED.slot else NAIVE


def _picked(bands: dict[str, Band], chosen: list[str]) -> Band:
    """The chosen forecaster's rows."""
    first = next(iter(bands.values()))
    picked = Band(*(np.empty_like(part) for part in (first.mean, first.prior, first.low, first.high)))
    for name in set(chosen):
        rows = np.array([i for i, c in enumerate(chosen) if c == name])
        one = bands[name].only(rows)
        picked.mean[rows], picked.prior[rows], picked.low[rows], picked.high[rows] = (
            one.mean,
            one.prior,
            one.low,
            one.high,
        )
    return picked
