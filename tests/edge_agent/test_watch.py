"""Events open for a reason and close: unexpected, stuck, silent, unusual together; nothing warms up twice."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_agent.skills import Key, Residual
from edge_agent.skills.watch import Watch, WatchSettings, WatchState
from protocol.reports import FaultEvent, ModelRef
from protocol.tables import Monitor
from server.algorithms import monitor
from server.algorithms.monitor import MonitorSettings

STEP_MS = 60_000
NAIVE = ModelRef("forecast.naive", "naive")
A, B = ("M-1", "current"), ("M-1", "pressure")


class Shift:
    """A watch and the time of day."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch or Watch("s", "g", WatchSettings(step_ms=STEP_MS))
        self.rng = np.random.default_rng(4)
        self.bucket = 0

    def tell(self, values: dict[Key, float]) -> list[FaultEvent]:
        residuals = {k: Residual(v, 10.0, 1.0, v - 10.0, NAIVE) for k, v in values.items()}
        start = self.bucket * STEP_MS
        self.bucket += 1
        return self.watch.update(start, start + STEP_MS, residuals, {"M-1": "pump"}, {A: "A"})

    def calm(self, buckets: int, *keys: Key) -> list[FaultEvent]:
        return [e for _ in range(buckets) for e in self.tell({k: 10 + self.rng.normal() for k in keys or (A, B)})]


@pytest.fixture
def shift() -> Shift:
    made = Shift()
    assert made.calm(300) == []
    return made


def test_an_excursion_opens_one_event_with_evidence_and_closes_it(shift: Shift) -> None:
    opened = [e for _ in range(20) for e in shift.tell({A: 25.0, B: 10 + shift.rng.normal()})]
    (event,) = opened
    assert (event.kind, event.signal, event.machine_type) == ("above_expected", "current", "pump")
    assert event.evidence[0].unit == "A"
    assert event.start_ms < event.detected_ms
    assert shift.watch.open_symptoms("M-1") == ["current:high"]
    (closed,) = shift.calm(60)
    assert closed.id == event.id
    assert closed.end_ms is not None
    assert closed.score >= event.score
    assert shift.watch.open_symptoms("M-1") == []


def test_a_signal_is_not_spoken_of_twice_within_the_lead_time(shift: Shift) -> None:
    opened = []
    for _ in range(5):
        opened += [e for _ in range(4) for e in shift.tell({A: 25.0, B: 10 + shift.rng.normal()})]
        opened += shift.calm(15)
    assert len({e.id for e in opened}) == 1


def test_a_value_that_stands_still_although_it_used_to_vary_is_stuck(shift: Shift) -> None:
    events = [e for _ in range(40) for e in shift.tell({A: 10.3, B: 10 + shift.rng.normal()})]
    (event,) = events
    assert (event.kind, event.signal, event.evidence[0].value) == ("stuck", "current", 10.3)
    assert event.symptoms == ["current:stuck"]
    closed = shift.calm(1)
    assert [e.id for e in closed] == [event.id]


def test_a_value_that_always_stood_still_is_not_stuck() -> None:
    shift = Shift()
    assert [e for _ in range(500) for e in shift.tell({A: 10.0})] == []


def test_a_stop_every_night_is_told_of_once() -> None:
    shift = Shift()
    kinds = []
    for _ in range(8):
        kinds += [e.kind for e in shift.calm(120, A) if e.end_ms is None]
        kinds += [e.kind for _ in range(40) for e in shift.tell({A: 9.9}) if e.end_ms is None]
    assert kinds == ["stuck"]


def test_a_signal_that_stays_away_is_silent_until_it_speaks(shift: Shift) -> None:
    (event,) = shift.calm(30, B)
    assert (event.kind, event.signal) == ("silent", "current")
    assert event.evidence[0].samples == 0
    assert event.detected_ms - event.start_ms == WatchSettings().silent_buckets * STEP_MS
    (closed,) = shift.calm(1)
    assert closed.id == event.id
    assert closed.end_ms is not None


def test_an_hourly_signal_and_a_lost_link_are_not_silent() -> None:
    shift = Shift()
    for bucket in range(3000):
        events = shift.tell({B: 10 + shift.rng.normal()} | ({A: 10 + shift.rng.normal()} if bucket % 5 == 0 else {}))
        assert "silent" not in [e.kind for e in events]
    assert [e for _ in range(50) for e in shift.tell({})] == []


def test_a_restart_repeats_no_warm_up_and_closes_what_was_open(shift: Shift) -> None:
    (event,) = [e for _ in range(5) for e in shift.tell({A: 25.0, B: 10 + shift.rng.normal()})]
    kept = msgspec.json.decode(msgspec.json.encode(shift.watch.state()), type=WatchState)
    again = Shift(Watch("s", "g", WatchSettings(step_ms=STEP_MS)))
    again.watch.restore(kept)
    again.bucket = shift.bucket
    assert again.watch.open_symptoms("M-1") == ["current:high"]
    assert [e.id for e in again.calm(20)] == [event.id]
    (fresh,) = [e for _ in range(5) for e in again.tell({A: 10 + again.rng.normal(), B: -9.0})]
    assert fresh.signal == "pressure"


def test_nothing_is_said_while_warming_up_and_gaps_do_not_matter() -> None:
    shift = Shift()
    assert shift.calm(20) == []
    assert [e for _ in range(10) for e in shift.tell({A: 60.0, B: float("nan")})] == []


def test_false_alarms_in_calm_running_keep_to_the_wanted_rate() -> None:
    shift = Shift(Watch("s", "g", WatchSettings(step_ms=STEP_MS, false_alarms_per_machine_month=43.2)))
    opened = [e for e in shift.calm(10_000) if e.end_ms is None]
    assert len(opened) <= 30  # 10 wanted: one in 1,000 buckets


def test_a_machine_whose_signals_part_company_is_unusual_with_contributions() -> None:
    rng = np.random.default_rng(2)
    keys = [("M-1", name) for name in ("current", "flow", "pressure")]

    def together(n: int) -> np.ndarray:
        load = rng.normal(size=n)
        return 10 + np.c_[load, load + 0.1 * rng.normal(size=n), rng.normal(size=n)]

    shift = Shift()
    fitted = monitor.fit(together(1000), MonitorSettings(STEP_MS, components=1))
    ref = ModelRef("fault.monitor.M-1", "monitor", 1)
    shift.watch.install_monitor("fault.monitor.M-1", keys, Monitor(fitted.tables), ref)
    for row in together(200):
        assert shift.tell(dict(zip(keys, row, strict=True))) == []
    apart = together(60) + np.array([1.5, -1.5, 0.0])
    events = [e for row in apart for e in shift.tell(dict(zip(keys, row, strict=True)))]
    event = next(e for e in events if e.kind == "machine_unusual")
    assert event.signal in ("current", "flow")
    assert set(event.symptoms) >= {"current:high", "flow:low"}
    assert {e.statistic for e in event.evidence} == {"smoothed_level", "contribution"}
    assert event.evidence[0].model == ref
    assert shift.watch.results("fault.monitor.M-1") == 260
    shift.watch.remove_monitor("fault.monitor.M-1")
    assert shift.watch.results("fault.monitor.M-1") == 0
