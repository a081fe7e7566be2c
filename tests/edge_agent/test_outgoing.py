"""Signals leave on the declared grid; around events they leave finer, where that is declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import EventWindows, ShareSettings, load
from edge_agent.history import History
from edge_agent.outgoing import Outgoing
from edge_agent.privacy import Gate
from protocol.errors import BadSettings
from protocol.observations import SignalBlock
from protocol.reports import Evidence, FaultEvent, Severity

T0 = 1_790_000_000_000 - 1_790_000_000_000 % 60_000


class Plant:
    """Two signals of P-1 and one of P-2, a value each second: the second of the minute."""

    def __init__(self, folder: Path, share: ShareSettings) -> None:
        self.history = History(folder / "history.db")
        rows = [
            (machine, signal, T0 + 1000 * n, float(n % 60), "good", "mm/s", False)
            for machine, signal in (("P-1", "v"), ("P-1", "recipe"), ("P-2", "v"))
            for n in range(600)
        ]
        self.history.store(rows, [], lambda _: {})
        self.sent: list[SignalBlock] = []
        gate = Gate(share, folder, lambda: T0, self.history.readings, lambda kind, reason: None)
        self.outgoing = Outgoing(folder, 10_000, share, self.history, gate, lambda block, _: self.sent.append(block))

    def minutes(self, n: int) -> None:
        for at in range(6 * n):
            start = T0 + 10_000 * at
            means = {key: float(self.history.buckets(key, start, 10_000, 1)[0]) for key in self.history.keys()}  # noqa: SIM118
            self.outgoing.closed(start, means)


def event(start_ms: int, end_ms: int) -> FaultEvent:
    evidence = Evidence(
        machine="P-1", signal="v", start_ms=start_ms, end_ms=end_ms, samples=1, statistic="max", value=9.0
    )
    return FaultEvent(
        id="event-1", machine="P-1", signal="v", kind="above_expected", severity=Severity.ALARM, start_ms=start_ms,
        detected_ms=start_ms + 1000, end_ms=end_ms, score=5.0, evidence=[evidence],
    )  # fmt: skip


def test_a_coarser_bucket_is_the_mean_of_all_that_was_observed_in_it(tmp_path: Path) -> None:
    plant = Plant(tmp_path, ShareSettings(signals=("v",), bucket_ms=60_000, block_steps=5))
    plant.minutes(10)
    assert {(b.machine, b.signal, b.step_ms) for b in plant.sent} == {("P-1", "v", 60_000), ("P-2", "v", 60_000)}
    assert [b.values for b in plant.sent] == [[29.5] * 5] * 4
    plant.history.close()


def test_what_had_closed_before_a_restart_leaves_on_the_same_grid_once(tmp_path: Path) -> None:
    share = ShareSettings(signals=("v",), bucket_ms=60_000, block_steps=2)
    plant = Plant(tmp_path, share)
    plant.minutes(4)
    plant.outgoing.keep()
    told = {(b.machine, b.start_ms) for b in plant.sent}
    plant.history.close()
    again = Plant(tmp_path, share)
    again.outgoing.resume(T0 + 600_000)
    assert not told & {(b.machine, b.start_ms) for b in again.sent}
    assert {b.start_ms for b in again.sent} == {T0 + 240_000, T0 + 360_000, T0 + 480_000}
    again.history.close()


def test_a_window_around_an_event_leaves_when_its_last_value_is_there(tmp_path: Path) -> None:
    events = EventWindows(signals=("v",), before_s=5, after_s=3, step_ms=1000)
    plant = Plant(tmp_path, ShareSettings(signals=(), events=events))
    plant.outgoing.around(event(T0 + 60_000, T0 + 70_000))
    plant.outgoing.pump(T0 + 72_999)
    assert plant.sent == []
    plant.outgoing.pump(T0 + 73_000)
    (window,) = plant.sent
    assert (window.machine, window.signal, window.start_ms, window.step_ms) == ("P-1", "v", T0 + 55_000, 1000)
    assert window.values == [float(n % 60) for n in range(55, 73)]
    plant.outgoing.pump(T0 + 80_000)
    assert len(plant.sent) == 1
    plant.history.close()


def test_without_a_declared_window_nothing_fine_leaves(tmp_path: Path) -> None:
    plant = Plant(tmp_path, ShareSettings())
    plant.outgoing.around(event(T0 + 60_000, T0 + 70_000))
    plant.outgoing.pump(T0 + 600_000)
    assert plant.sent == []
    plant.history.close()


def test_a_bucket_that_does_not_fit_the_gateways_own_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('site = "s"\ngateway = "g"\ndata_dir = "d"\nstep_ms = 60000\n[share]\nbucket_ms = 90000\n')
    with pytest.raises(BadSettings, match="multiple"):
        load(file)
