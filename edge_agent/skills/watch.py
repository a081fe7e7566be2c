"""Residuals become fault events. O(1) state per signal and per machine, and it survives a restart. No I/O.

Each signal has a `SignalDetector`: conformal p-value of its residual, CUSUM of the surprise, a limit that follows from the
false alarms a machine-month that the user allows. A value that stands still although it used to vary is `stuck`; one that
stays away longer than it ever did is `silent`. A machine with a trained monitor is `machine_unusual` when its signals
together leave their normal state, though each may be inside its own range."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from edge_agent.skills import Key, Residual
from protocol.alarms import Alarm, DetectorState, SignalDetector, run_length
from protocol.names import stable_id
from protocol.reports import Evidence, FaultEvent, ModelRef, Severity
from protocol.tables import Monitor

SPOKEN_OF = 3
"""Signals that a machine's event names, the largest contributions first."""
_NORMAL_80 = 1.2816


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """`false_alarms_per_machine_month` is shared by a machine's signals. `lead_time_s`: how long before trouble word is
    still of use: surprises are gathered over so long, and a signal is not spoken of twice within it. `calm_buckets` below
    `calm` standard deviations end an event; one longer than `longest_buckets` is the new normal. A value that stands still
    (stays away) for so many buckets, and for twice (three times) as long as it ever did, is stuck (silent). The first
    `untaught_buckets` of an event teach the memory nothing: for a plant that is in trouble so often that the memory would
    take it for normal; where faults are rare, not to learn brings more false alarms than it saves."""

    step_ms: int = 60_000
    false_alarms_per_machine_month: float = 0.5
    lead_time_s: float = 4 * 3600
    warm_up: int = 60
    calm_buckets: int = 6
    calm: float = 2.5
    longest_buckets: int = 96
    stuck_buckets: int = 12
    silent_buckets: int = 6
    untaught_buckets: int = 0

    @property
    def lead_buckets(self) -> int:
        """The lead time in buckets, within what a detector can average over."""
        return int(np.clip(round(self.lead_time_s * 1000 / self.step_ms), 5, 500))


class OpenEvent(msgspec.Struct):
    """An event that has not ended. `far_z` is the largest residual since, in standard deviations."""

    event: FaultEvent
    samples: int = 0
    calm: int = 0
    far_z: float = 0.0


class SignalState(msgspec.Struct):
    """What is kept of one signal between two buckets, and through a restart."""

    machine: str
    signal: str
    detector: DetectorState | None = None
    n: int = 0
    last: float = 0.0
    still: int = 0
    longest_still: int = 0
    changes: int = 0
    away: int = 0
    longest_away: int = 0
    quiet: int = 0
    open: OpenEvent | None = None


class WatchState(msgspec.Struct, frozen=True):
    """A `Watch` on its way through a restart."""

    signals: list[SignalState] = []


@dataclass
class _Signal:
    kept: SignalState
    detector: SignalDetector


@dataclass
class _Machine:
    """A machine's monitor and its open event."""

    keys: list[Key]
    monitor: Monitor
    ref: ModelRef
    seen: int = 0
    quiet: int = 0
    open: OpenEvent | None = None


@dataclass(frozen=True, slots=True)
class _Bucket:
    """The bucket in hand, and what the mapping says about the machine and the signal."""

    start_ms: int
    end_ms: int
    machine_type: str = ""
    unit: str = ""


class Watch:
    """Watches every signal and machine of one gateway."""

    def __init__(self, site: str, gateway: str, settings: WatchSettings | None = None) -> None:
        self._site = site
        self._gateway = gateway
        self._settings = settings or WatchSettings()
        self._signals: dict[Key, _Signal] = {}
        self._machines: dict[str, _Machine] = {}
        self._siblings: dict[str, int] = {}

    def open_symptoms(self, machine: str) -> list[str]:
        """Symptoms of a machine's events that are open now."""
        opened = [s.kept.open for (m, _), s in self._signals.items() if m == machine]
        opened += [m.open for m in self._machines.values() if m.keys[0][0] == machine]
        return sorted({symptom for o in opened if o is not None for symptom in o.event.symptoms})

    def install_monitor(self, slot: str, keys: list[Key], monitor: Monitor, ref: ModelRef) -> None:
        """Watches a machine's signals together; `keys` in the order of the monitor's tables, all of one machine."""
        self._machines[slot] = _Machine(keys, monitor, ref)

    def remove_monitor(self, slot: str) -> None:
        """Takes a monitor out; the signals are watched on, each by itself."""
        self._machines.pop(slot, None)

    def results(self, slot: str) -> int:
        """Buckets that a slot's monitor has judged since it was installed."""
        return self._machines[slot].seen if slot in self._machines else 0

    def update(
        self,
        start_ms: int,
        end_ms: int,
        residuals: dict[Key, Residual],
        machine_types: dict[str, str],
        units: dict[Key, str],
    ) -> list[FaultEvent]:
        """Takes one closed bucket; returns events that opened, and events that closed (same id, with end_ms)."""
        for key in residuals:
            if key not in self._signals:
                self._meet(key)
        events: list[FaultEvent | None] = []
        for key, signal in self._signals.items():
            residual = residuals.get(key)
            bucket = _Bucket(start_ms, end_ms, machine_types.get(key[0], ""), units.get(key, ""))
            if residual is not None and math.isfinite(residual.value):
                events.append(self._hear(key, signal, residual, bucket))
            elif residuals:  # where nobody says anything, the link to the plant is what is silent
                events.append(self._miss(key, signal.kept, bucket))
        for machine in self._machines.values():
            kind = machine_types.get(machine.keys[0][0], "")
            events.append(self._together(machine, residuals, _Bucket(start_ms, end_ms, kind), units))
        return [event for event in events if event is not None]

    def state(self) -> WatchState:
        """For a restart: what was learned, and the events that are open."""
        return WatchState(
            [msgspec.structs.replace(s.kept, detector=s.detector.state()) for s in self._signals.values()]
        )

    def restore(self, state: WatchState) -> None:
        """Takes up where `state` stopped: nothing warms up twice, and an open event can end."""
        for kept in state.signals:
            signal = self._meet((kept.machine, kept.signal))
            signal.kept = msgspec.structs.replace(kept, detector=None)
            if kept.detector is not None:
                signal.detector.restore(kept.detector)

    # one signal -------------------------------------------------------------------------------------------------------

    def _meet(self, key: Key) -> _Signal:
        """A new signal: its machine's false alarms are shared among one more."""
        settings, machine = self._settings, key[0]
        self._siblings[machine] = self._siblings.get(machine, 0) + (key not in self._signals)
        each = run_length(settings.false_alarms_per_machine_month, self._siblings[machine], settings.step_ms)
        made = _Signal(SignalState(*key), SignalDetector(each, settings.lead_buckets, settings.warm_up))
        self._signals[key] = made
        for (other, _), signal in self._signals.items():
            if other == machine:
                signal.detector.aim(each)
        return made

    def _hear(self, key: Key, signal: _Signal, residual: Residual, bucket: _Bucket) -> FaultEvent | None:
        kept, settings = signal.kept, self._settings
        kept.n += 1
        kept.longest_away, kept.away = max(kept.longest_away, kept.away), 0
        moved = kept.n == 1 or residual.value != kept.last
        if moved:
            kept.longest_still, kept.still = max(kept.longest_still, kept.still), 0
            kept.changes += kept.n > 1
        else:
            kept.still += 1
        kept.last = residual.value
        kept.quiet = max(kept.quiet - 1, 0)
        teaches = kept.open is None or kept.open.samples >= settings.untaught_buckets
        alarm = signal.detector.update(residual.value - residual.expected, residual.expected, teaches=teaches)
        z = abs(residual.value - residual.expected) / max(signal.detector.spread, 1e-9 + 1e-4 * abs(residual.expected))
        if kept.open is not None:
            signal.detector.rest()
            return self._continue(kept, kept.open, moved, z, bucket)
        if (
            kept.still == max(settings.stuck_buckets, 2 * kept.longest_still + 1)
            and kept.changes >= settings.warm_up // 2
        ):
            since = bucket.end_ms - (kept.still + 1) * settings.step_ms
            return self._open(kept, "stuck", since, _at(key, residual, bucket, since, kept.still + 1), bucket)
        if alarm is None or kept.quiet:
            return None
        return self._unexpected(key, kept, alarm, z, residual, bucket)

    def _unexpected(
        self, key: Key, kept: SignalState, alarm: Alarm, z: float, residual: Residual, bucket: _Bucket
    ) -> FaultEvent:
        since = min(bucket.end_ms - alarm.buckets * self._settings.step_ms, bucket.start_ms)
        kind = "above_expected" if alarm.side > 0 else "below_expected"
        return self._open(kept, kind, since, _at(key, residual, bucket, since, 1), bucket, z)

    def _miss(self, key: Key, kept: SignalState, bucket: _Bucket) -> FaultEvent | None:
        settings = self._settings
        kept.away += 1
        expected = kept.n >= settings.warm_up and kept.open is None
        if not expected or kept.away != max(settings.silent_buckets, 3 * kept.longest_away + 1):
            return None
        since = bucket.end_ms - kept.away * settings.step_ms
        last = Evidence(
            machine=key[0],
            signal=key[1],
            start_ms=since,
            end_ms=bucket.end_ms,
            samples=0,
            statistic="last_bucket_mean",
            value=kept.last,
            unit=bucket.unit,
        )
        return self._open(kept, "silent", since, last, bucket)

    def _open(
        self, kept: SignalState, kind: str, since_ms: int, first: Evidence, bucket: _Bucket, z: float = 0.0
    ) -> FaultEvent:
        symptom = {"above_expected": "high", "below_expected": "low"}.get(kind, kind)
        event = FaultEvent(
            id=stable_id("event", self._site, self._gateway, kept.machine, kept.signal, since_ms),
            machine=kept.machine,
            machine_type=bucket.machine_type,
            signal=kept.signal,
            kind=kind,
            severity=severity(z) if symptom != kind else Severity.WARNING,
            start_ms=since_ms,
            detected_ms=bucket.end_ms,
            score=round(z, 2),
            symptoms=[f"{kept.signal}:{symptom}"],
            evidence=[first],
        )
        kept.open = OpenEvent(event, far_z=z)
        kept.quiet = self._settings.lead_buckets
        return event

    def _continue(
        self, kept: SignalState, opened: OpenEvent, moved: bool, z: float, bucket: _Bucket
    ) -> FaultEvent | None:
        """An open event: stuck ends with a change, silence with a value, the others after a calm."""
        settings = self._settings
        opened.samples += 1
        if opened.event.kind not in ("stuck", "silent"):
            opened.calm = opened.calm + 1 if z < settings.calm else 0
            opened.far_z = max(opened.far_z, z)
            if opened.calm < settings.calm_buckets and opened.samples < settings.longest_buckets:
                return None
        elif opened.event.kind == "stuck" and not moved:
            return None
        kept.open = None
        return _closed(opened, bucket.end_ms)

    # one machine ------------------------------------------------------------------------------------------------------

    def _together(
        self, machine: _Machine, residuals: dict[Key, Residual], bucket: _Bucket, units: dict[Key, str]
    ) -> FaultEvent | None:
        values = np.array([residuals[k].value if k in residuals else math.nan for k in machine.keys])
        if np.isnan(values).all():
            return None
        machine.monitor.step(values)
        machine.seen += 1
        machine.quiet = max(machine.quiet - 1, 0)
        opened = machine.open
        if opened is not None:
            opened.samples += 1
            opened.far_z = max(opened.far_z, _farthest(machine.monitor))
            if machine.monitor.alarm and opened.samples < 10 * self._settings.longest_buckets:
                return None
            machine.open = None
            return _closed(opened, bucket.end_ms)
        if not machine.monitor.alarm or machine.quiet:
            return None
        return self._unusual(machine, values, bucket, units)

    def _unusual(self, machine: _Machine, values: np.ndarray, bucket: _Bucket, units: dict[Key, str]) -> FaultEvent:
        monitor, name = machine.monitor, machine.keys[0][0]
        parts = monitor.shares()
        order = [int(i) for i in np.argsort(-parts, kind="stable")[:SPOKEN_OF] if parts[i] > 0]
        z = _farthest(monitor)
        event = FaultEvent(
            id=stable_id("event", self._site, self._gateway, name, "machine_unusual", bucket.start_ms),
            machine=name,
            machine_type=bucket.machine_type,
            signal=machine.keys[order[0]][1],
            kind="machine_unusual",
            severity=severity(z),
            start_ms=bucket.start_ms,
            detected_ms=bucket.end_ms,
            score=round(z, 2),
            symptoms=[f"{machine.keys[i][1]}:{'high' if monitor.z[i] > 0 else 'low'}" for i in order],
            evidence=[e for i in order for e in _share(machine, i, float(parts[i]), values, bucket, units)],
        )
        machine.open = OpenEvent(event, far_z=z)
        machine.quiet = self._settings.lead_buckets
        return event


def severity(score: float) -> Severity:
    """How urgent a residual of so many standard deviations is."""
    return Severity.ALARM if score >= 14 else Severity.WARNING if score >= 8 else Severity.NOTICE


def _closed(opened: OpenEvent, end_ms: int) -> FaultEvent:
    worst = max(opened.event.score, round(opened.far_z, 2))
    graded = max(list(Severity).index(opened.event.severity), list(Severity).index(severity(worst)))
    return msgspec.structs.replace(opened.event, end_ms=end_ms, score=worst, severity=list(Severity)[graded])


def _at(key: Key, residual: Residual, bucket: _Bucket, since_ms: int, samples: int) -> Evidence:
    reach = _NORMAL_80 * residual.deviation
    return Evidence(
        machine=key[0],
        signal=key[1],
        start_ms=since_ms,
        end_ms=bucket.end_ms,
        samples=samples,
        statistic="bucket_mean",
        value=residual.value,
        unit=bucket.unit,
        expected_low=residual.expected - reach,
        expected_high=residual.expected + reach,
        model=residual.model,
    )


def _farthest(monitor: Monitor) -> float:
    return float(np.sqrt(monitor.statistics()[2]))


def _share(
    machine: _Machine, i: int, part: float, values: np.ndarray, bucket: _Bucket, units: dict[Key, str]
) -> list[Evidence]:
    """A signal's level against its normal range, and what it adds to the statistic."""
    key, monitor = machine.keys[i], machine.monitor
    centre, reach = float(monitor.centre[i]), _NORMAL_80 * float(monitor.scale[i])
    level = Evidence(
        machine=key[0],
        signal=key[1],
        start_ms=bucket.start_ms,
        end_ms=bucket.end_ms,
        samples=int(np.isfinite(values[i])),
        statistic="smoothed_level",
        value=float(monitor.level[i]),
        unit=units.get(key, ""),
        expected_low=centre - reach,
        expected_high=centre + reach,
        model=machine.ref,
    )
    return [
        level,
        msgspec.structs.replace(
            level, statistic="contribution", value=part, unit="", expected_low=None, expected_high=None
        ),
    ]
