"""How long each machine will last, from everything it read since it was new. No I/O.

A machine is new at its first reading, or at the last work order whose action renews it (the model's passport says which
do). Each life is followed row by row in constant memory; after a restart, a renewal or a new model it is walked again from
what the gateway still has on disk. Without a model nothing is said."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec
import numpy as np

from edge_agent.runtimes import LoadedModel
from edge_agent.skills import Key
from protocol.errors import Refused
from protocol.life_windows import Float32s, Floats, LifeSpec, LifeTrack, blank, read_answer
from protocol.names import stable_id
from protocol.observations import WorkOrder
from protocol.reports import Contribution, RemainingLife, Risk
from protocol.twin import Role, SkillHealth

HistoryReader = Callable[[Key, int, int], Floats]
"""(key, start_ms, buckets) -> bucket means."""
SLOT = "fault.life"
MOST_ROWS_BACK = 20_000
MOST_ORDERS = 20
MOST_CONTRIBUTIONS = 8
STALE_AFTER_BUCKETS = 3
LEVEL = 0.8
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


class Births(msgspec.Struct, kw_only=True):
    """What must outlive a restart: when each machine was first read, and its newest work orders (time, actions)."""

    first_ms: dict[str, int] = {}
    orders: dict[str, list[tuple[int, list[str]]]] = {}

    def born_ms(self, machine: str, renewed_by: list[str]) -> int:
        """Start of the life that a machine lives now."""
        first = self.first_ms.get(machine, 0)
        renewals = [
            at
            for at, actions in self.orders.get(machine, [])
            if at > first and any(fnmatchcase(action, pattern) for action in actions for pattern in renewed_by)
        ]
        return max([first, *renewals])


@dataclass
class _Followed:
    """One machine's life. Rows are buckets from `born_ms`."""

    track: LifeTrack
    born_ms: int
    next_ms: int
    read_ms: int = 0


class RemainingLifeSkill:
    """One gateway's follower of lives. `births` is kept by the caller; `changed` says that it should be saved."""

    def __init__(self, step_ms: int, births: Births | None = None) -> None:
        self.births = births or Births()
        self.changed = False
        self._step_ms = step_ms
        self._model: LoadedModel | None = None
        self._role = Role.SERVING
        self._read: HistoryReader | None = None
        self._followed: dict[str, _Followed] = {}
        self._types: dict[str, str] = {}
        self._asked = self._answered = self._failures = self._results = 0
        self._latency_us = 0.0

    def install(self, role: Role, model: LoadedModel, read: HistoryReader) -> None:
        """Puts a model in; every life is walked again with it. A model of another grid never answers."""
        self._model, self._role, self._read = model, role, read
        self._followed.clear()
        self._results = 0

    def remove(self) -> None:
        """Takes the model out; births are kept."""
        self._model = None
        self._followed.clear()

    def hear(self, order: WorkOrder) -> None:
        """Takes a work order: it may have made its machine new."""
        known = self.births.orders.setdefault(order.machine, [])
        if (order.time_ms, order.actions) in known or not order.actions:
            return
        known.append((order.time_ms, list(order.actions)))
        known.sort()
        del known[:-MOST_ORDERS]
        self.changed = True
        self._followed.pop(order.machine, None)

    def observe(self, start_ms: int, values: dict[Key, float], types: dict[str, str]) -> None:
        """Takes one closed bucket: values by (machine, signal), types by machine."""
        for machine in types:
            if machine not in self.births.first_ms:
                self.births.first_ms[machine] = start_ms
                self.changed = True
        self._types.update(types)
        spec = self._spec
        if spec is None:
            return
        for machine in self.births.first_ms:
            if spec.machine_type and self._types.get(machine) != spec.machine_type:
                continue
            followed = self._followed.get(machine)
            if followed is None:
                followed = self._followed[machine] = self._walked(machine, spec, start_ms)
            if start_ms >= followed.next_ms:
                row = np.array([values.get((machine, signal), np.nan) for signal in spec.signals])
                settings = np.array([values.get((machine, signal), np.nan) for signal in spec.settings])
                followed.track.step(row, settings)
                followed.next_ms = start_ms + self._step_ms
                if np.isfinite(row).any():
                    followed.read_ms = start_ms + self._step_ms

    def issue(self, end_ms: int) -> list[RemainingLife]:
        """One answer per machine that the model knows and that was watched long enough. A shadow's are counted and kept
        back."""
        model, spec = self._model, self._spec
        if model is None or spec is None:
            return []
        found: list[RemainingLife] = []
        started = time.perf_counter()
        for machine, followed in self._followed.items():
            if followed.track.rows < spec.least_rows:
                continue
            self._asked += 1
            if not followed.track.usable:
                continue
            try:
                found.append(self._answer(model, spec, machine, followed, end_ms))
            except Refused:
                self._failures += 1
        self._answered += len(found)
        self._results += len(found)
        if found:
            self._latency_us = (time.perf_counter() - started) * 1e6 / len(found)
        return found if self._role is Role.SERVING else []

    def results(self) -> int:
        """Answers since the model was installed. Where no machine of its type is here, having been proven on its golden
        vectors counts as the first."""
        return self._results + int(self._model is not None and not self._followed)

    def health(self) -> SkillHealth:
        """Answers per machine that should have had one."""
        return SkillHealth(
            expected=self._asked,
            results=self._answered,
            failures=self._failures,
            latency_us=round(self._latency_us, 1),
        )

    @property
    def _spec(self) -> LifeSpec | None:
        if self._model is None or self._model.passport.life is None:
            return None
        spec = self._model.passport.life
        return spec if spec.step_ms == self._step_ms else None

    def _walked(self, machine: str, spec: LifeSpec, until_ms: int) -> _Followed:
        """The life so far from disk, up to the bucket that starts at `until_ms`. What was forgotten there is a gap."""
        step = self._step_ms
        born = -(-self.births.born_ms(machine, spec.renewed_by) // step) * step
        rows = min(max((until_ms - born) // step, 0), MOST_ROWS_BACK)
        start = until_ms - rows * step
        followed = _Followed(LifeTrack(spec), born, max(born, until_ms))
        if rows and self._read is not None:
            table = {name: self._read((machine, name), start, rows) for name in {*spec.signals, *spec.settings}}
            for t in range(rows):
                row = np.array([table[name][t] for name in spec.signals])
                followed.track.step(row, np.array([table[name][t] for name in spec.settings]))
                if np.isfinite(row).any():
                    followed.read_ms = start + (t + 1) * step
        return followed

    def _answer(
        self, model: LoadedModel, spec: LifeSpec, machine: str, followed: _Followed, end_ms: int
    ) -> RemainingLife:
        x = followed.track.window()[None]
        told = read_answer(model.quantiles(x), spec)
        usual, amounts = explain(model, spec, x)
        edge = (1 - LEVEL) / 2
        return RemainingLife(
            id=stable_id("life", machine, end_ms, model.ref.slot, model.ref.version),
            machine=machine,
            machine_type=self._types.get(machine, ""),
            unit=spec.unit,
            issued_ms=end_ms,
            inputs_until_ms=followed.read_ms,
            stale=end_ms - followed.read_ms >= STALE_AFTER_BUCKETS * self._step_ms,
            age=followed.track.rows * spec.per_row,
            cap=spec.cap,
            level=LEVEL,
            median=float(told.quantile(0.5)[0]),
            low=float(told.quantile(edge)[0]),
            high=float(told.quantile(1 - edge)[0]),
            levels=list(LEVELS),
            quantiles=[float(told.quantile(level)[0]) for level in LEVELS],
            risks=[Risk(life, float(np.clip(told.fails_within(life)[0], 0.0, 1.0))) for life in spec.horizons],
            expected=float(told.expected[0]),
            usual=usual,
            contributions=amounts,
            model=model.ref,
        )


def explain(model: LoadedModel, spec: LifeSpec, x: Float32s) -> tuple[float, list[Contribution]]:
    """(usual, contributions) of one window x [1, looks, channels]: usual + sum of the amounts is the expected life.

    Every signal is blanked, then put back one after the other; a signal's amount is the change it makes, averaged over that
    order and its reverse (two permutations of Štrumbelj & Kononenko 2010), so the sum telescopes exactly. The largest are
    named, the rest is `other signals`."""
    count = len(spec.signals)
    empty = x
    for signal in range(count):
        empty = blank(empty, spec, signal)
    amounts = np.zeros(count)
    usual = 0.0
    for order in (range(count), range(count - 1, -1, -1)):
        steps, held = [empty], empty
        for signal in order:
            held = held.copy()
            held[..., signal] = x[..., signal]
            held[..., count + signal] = x[..., count + signal]
            steps.append(held)
        path = read_answer(model.quantiles(np.concatenate(steps)), spec).expected
        usual = float(path[0])
        amounts[list(order)] += np.diff(path) / 2
    ranked = np.argsort(-np.abs(amounts), kind="stable")
    named = [Contribution(spec.signals[k], float(amounts[k])) for k in ranked[:MOST_CONTRIBUTIONS]]
    if count > MOST_CONTRIBUTIONS:
        named.append(Contribution("other signals", float(amounts[ranked[MOST_CONTRIBUTIONS:]].sum())))
    return usual, named
