"""Residuals become fault events. O(1) state per signal: a running scale, two CUSUMs, one open event. No I/O.

A two-sided CUSUM (Page 1954) finds shifts that last; a run of far residuals finds jumps. Both see the residual divided by
its own running scale, so that a signal that is always noisy is not always an alarm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from edge_agent.skills import Key, Residual
from protocol.names import stable_id
from protocol.reports import Evidence, FaultEvent, Severity


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """`slack`, `limit`: CUSUM's k and h in scaled residuals; `jump`: a residual that counts alone when it comes
    `jump_run` times in a row; `calm_buckets` close an event; `warm_up` buckets pass before anything is said."""

    slack: float = 1.0
    limit: float = 12.0
    jump: float = 7.0
    jump_run: int = 2
    calm_buckets: int = 6
    calm: float = 2.5
    warm_up: int = 36
    longest_buckets: int = 96


@dataclass
class _Open:
    """An event that has not ended. `far` is the value farthest from what was expected."""

    event: FaultEvent
    side: int
    since_ms: int
    samples: int = 0
    calm: int = 0
    far: float = 0.0
    far_z: float = 0.0


@dataclass
class _Signal:
    """State of one signal. `scale` is the running mean of |z|, times 1.25: about one standard deviation."""

    n: int = 0
    scale: float = 1.0
    up: float = 0.0
    down: float = 0.0
    run: int = 0
    run_side: int = 0
    run_start_ms: int = 0
    shift_start_ms: int = 0
    open: _Open | None = None
    quiet_until: int = 0


class Watch:
    """Watches every signal of one gateway."""

    def __init__(self, site: str, gateway: str, settings: WatchSettings | None = None) -> None:
        self._site = site
        self._gateway = gateway
        self._settings = settings or WatchSettings()
        self._signals: dict[Key, _Signal] = {}

    def open_symptoms(self, machine: str) -> list[str]:
        """Symptoms of a machine's events that are open now."""
        return sorted(
            symptom
            for (m, _), s in self._signals.items()
            if m == machine and s.open is not None
            for symptom in s.open.event.symptoms
        )

    def update(
        self,
        start_ms: int,
        end_ms: int,
        residuals: dict[Key, Residual],
        machine_types: dict[str, str],
        units: dict[Key, str],
    ) -> list[FaultEvent]:
        """Takes one closed bucket; returns events that opened, and events that closed (same id, with end_ms)."""
        events: list[FaultEvent] = []
        for key, residual in residuals.items():
            signal = self._signals.setdefault(key, _Signal())
            made = self._update_one(
                key, signal, residual, start_ms, end_ms, machine_types.get(key[0], ""), units.get(key, "")
            )
            if made is not None:
                events.append(made)
        return events

    def _update_one(
        self, key: Key, signal: _Signal, residual: Residual, start_ms: int, end_ms: int, machine_type: str, unit: str
    ) -> FaultEvent | None:
        settings = self._settings
        signal.n += 1
        scaled = residual.z / max(signal.scale, 0.25)
        if signal.open is None or signal.open.samples > settings.longest_buckets // 2:
            # an open fault must not teach that faults are normal; one that lasts very long is the new normal
            rate = 1 / min(signal.n, 200)
            signal.scale += rate * (1.25 * min(abs(residual.z), 6.0 * max(signal.scale, 0.25)) - signal.scale)
        if signal.n <= settings.warm_up:
            return None
        if signal.open is not None:
            return self._continue(signal, signal.open, scaled, residual, end_ms)
        side, since = self._alarm(signal, scaled, start_ms)
        if side == 0 or signal.n < signal.quiet_until:
            return None
        return self._begin(key, signal, side, since, scaled, residual, end_ms, machine_type, unit)

    def _alarm(self, signal: _Signal, scaled: float, start_ms: int) -> tuple[int, int]:
        """(side, since when): +1 above, -1 below, 0 as expected."""
        settings = self._settings
        step = max(-8.0, min(8.0, scaled))
        if signal.up == 0 and signal.down == 0:
            signal.shift_start_ms = start_ms
        signal.up = max(0.0, signal.up + step - settings.slack)
        signal.down = max(0.0, signal.down - step - settings.slack)
        side = int(math.copysign(1, scaled)) if abs(scaled) > settings.jump else 0
        if side and side == signal.run_side:
            signal.run += 1
        else:
            signal.run, signal.run_side, signal.run_start_ms = int(side != 0), side, start_ms
        if signal.run >= settings.jump_run:
            return side, signal.run_start_ms
        if max(signal.up, signal.down) > settings.limit:
            return (1 if signal.up > signal.down else -1), signal.shift_start_ms
        return 0, 0

    def _begin(
        self,
        key: Key,
        signal: _Signal,
        side: int,
        since_ms: int,
        scaled: float,
        residual: Residual,
        end_ms: int,
        machine_type: str,
        unit: str,
    ) -> FaultEvent:
        low, high = (residual.expected - 1.2816 * residual.deviation, residual.expected + 1.2816 * residual.deviation)
        event = FaultEvent(
            id=stable_id("event", self._site, self._gateway, *key, since_ms),
            machine=key[0],
            machine_type=machine_type,
            signal=key[1],
            kind="above_expected" if side > 0 else "below_expected",
            severity=severity(abs(scaled)),
            start_ms=since_ms,
            detected_ms=end_ms,
            score=round(abs(scaled), 2),
            symptoms=[f"{key[1]}:{'high' if side > 0 else 'low'}"],
            evidence=[
                Evidence(
                    machine=key[0],
                    signal=key[1],
                    start_ms=since_ms,
                    end_ms=end_ms,
                    samples=1,
                    statistic="bucket_mean",
                    value=residual.value,
                    unit=unit,
                    expected_low=low,
                    expected_high=high,
                    model=residual.model,
                )
            ],
        )
        signal.open = _Open(event, side, since_ms, far=residual.value, far_z=abs(scaled))
        signal.up = signal.down = 0.0
        signal.run = 0
        return event

    def _continue(
        self, signal: _Signal, opened: _Open, scaled: float, residual: Residual, end_ms: int
    ) -> FaultEvent | None:
        settings = self._settings
        opened.samples += 1
        opened.calm = opened.calm + 1 if abs(scaled) < settings.calm else 0
        if abs(scaled) > opened.far_z:
            opened.far, opened.far_z = residual.value, abs(scaled)
        if opened.calm < settings.calm_buckets and opened.samples < settings.longest_buckets:
            return None
        signal.open = None
        signal.up = signal.down = 0.0
        signal.quiet_until = signal.n + settings.calm_buckets
        e = opened.event
        worst = max(e.score, round(opened.far_z, 2))
        return msgspec.structs.replace(e, end_ms=end_ms, score=worst, severity=severity(worst))


def severity(score: float) -> Severity:
    """How urgent a scaled residual is."""
    return Severity.ALARM if score >= 14 else Severity.WARNING if score >= 8 else Severity.NOTICE
