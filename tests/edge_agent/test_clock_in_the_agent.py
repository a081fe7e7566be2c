"""A wrong clock costs no value, stops no forecast, and is put right behind the scenes."""

from __future__ import annotations

import importlib.util
import math
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.agent import Agent, build_agent
from edge_agent.clock import Shift
from edge_agent.config import AgentSettings, ForecastSettings, ShareSettings
from protocol.clocks import ClockConfidence, ClockCorrection
from protocol.errors import TryLater
from protocol.names import MessageClass
from protocol.observations import SignalBlock
from protocol.reports import FaultEvent, Forecast
from protocol.sync import Ack, Batch, ClassAck, Envelope, decode, decode_message, encode
from protocol.topics import Topic

NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
_spec = importlib.util.spec_from_file_location("factory", Path(__file__).parent.parent / "factory.py")
assert _spec is not None
assert _spec.loader is not None
factory = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("factory", factory)
_spec.loader.exec_module(factory)

MAPPING = """
[[source]]
topic = "bare/{machine}/{signal}"
value = "$"
[[source]]
topic = "stamped/{machine}/{signal}"
value = "$.value"
time = "$.timestamp"
time_unit = "ms"
"""


class Box:
    """A gateway in an in-memory factory whose clock can be anything. One value a second."""

    def __init__(self, folder: Path) -> None:
        (folder / "mapping.toml").write_text(MAPPING)
        self.folder, self.broker = folder, factory.MemoryBroker()
        self.true_ms = NOW_MS
        self.told = 0
        self.boots = 0
        self.heard = 0
        self.upto = dict.fromkeys(MessageClass, 0)

    def boot(self, clock_ms: int, *, disciplined: bool = False) -> None:
        self.boots += 1
        self.clock: Any = factory.FakeClock(ms=clock_ms, disciplined=disciplined)
        self.plant, self.uplink = factory.MemoryLink(self.broker), factory.MemoryLink(self.broker)
        settings = AgentSettings(
            site="s",
            gateway="g",
            data_dir=str(self.folder / "data"),
            mapping=str(self.folder / "mapping.toml"),
            step_ms=1000,
            commit_after_messages=1,
            forecast=ForecastSettings(season_steps=0, every_steps=4, horizon_steps=6),
            share=ShareSettings(block_steps=10),
        )
        self.agent: Agent = build_agent(
            settings,
            clock=self.clock,
            plant=self.plant,
            uplink=self.uplink,
            fetch=lambda _: b"",
            boot_id=f"boot-{self.boots}",
        )

    def run(self, seconds: int, *, stamped: bool = False) -> None:
        for _ in range(seconds):
            self.told += 1
            body = {"value": float(self.told), "timestamp": self.true_ms}
            topic, payload = ("stamped/P-1/v", body) if stamped else ("bare/P-1/v", float(self.told))
            self.broker.deliver(topic, msgspec.json.encode(payload), False)
            self.agent.step(0)
            self.acknowledge()
            self.clock.pass_s(1)
            self.true_ms += 1000

    def acknowledge(self) -> None:
        """As a server does that has committed everything."""
        said, self.heard = self.broker.published[self.heard :], len(self.broker.published)
        for topic, payload in said:
            lane = Topic.parse(topic).channel.message_class if topic.startswith("mw/v1/") else None
            if lane is not None:
                self.upto[lane] = max([self.upto[lane], *(e.mwseq for e in decode(payload, Batch).envelopes)])
                ack = Ack(classes={lane: ClassAck(upto=self.upto[lane])})
                self.broker.deliver("mw/v1/s/g/dn/ack", encode(ack), False)

    def stop(self) -> None:
        self.agent.close()
        self.broker.links.clear()

    def stored(self) -> tuple[list[int], list[float]]:
        times, values = self.agent._history.values(("P-1", "v"), 0, 2**60)
        return times.tolist(), values.tolist()

    def envelopes(self, message_class: MessageClass) -> list[Envelope]:
        found = {}
        for topic, payload in self.broker.published:
            if topic == f"mw/v1/s/g/up/{message_class.value}":
                found |= {e.mwseq: e for e in decode(payload, Batch).envelopes}
        return list(found.values())

    def messages(self, kind: Any) -> list[Any]:
        made = [decode_message(e.type, e.data) for e in self.envelopes(kind.message_class)]
        return [m for m in made if isinstance(m, kind)]

    def silence(self) -> list[FaultEvent]:
        return [e for e in self.messages(FaultEvent) if e.kind == "silent"]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.stop()


def nothing_lost_and_in_order(box: Box) -> None:
    times, values = box.stored()
    assert values == [float(n + 1) for n in range(box.told)]
    assert times == sorted(set(times))


def test_a_boot_at_1970_keeps_every_value_and_moves_it_when_the_clock_is_back(box: Box) -> None:
    box.boot(NOW_MS, disciplined=True)
    box.run(60)
    box.stop()
    box.true_ms += 9 * HOUR_MS
    box.boot(5_000)
    began_ms = box.true_ms
    box.run(100)
    assert {e.mwclock for e in box.envelopes(MessageClass.METRIC)} >= {ClockConfidence.UNKNOWN}
    issued = len(box.messages(Forecast))
    assert issued > 15  # inference goes on
    assert len(box.messages(SignalBlock)) == 5  # of the first start; what got its time here waits
    box.clock.jump_s((box.true_ms - box.clock.ms) / 1000)
    box.clock.disciplined = True
    box.run(30)
    nothing_lost_and_in_order(box)
    times, _ = box.stored()
    assert times[60:] == [began_ms + 1000 * n for n in range(130)]
    assert len(box.messages(Forecast)) > issued + 5
    assert box.silence() == []
    (correction,) = box.messages(ClockCorrection)
    assert correction.boot == "boot-2"
    ((boot, shift),) = box.agent._history.shifts()
    assert boot == "boot-2"
    assert times[60] - shift.shift_ms == shift.first_ms  # the time it had first can still be told
    late = [b for b in box.messages(SignalBlock) if b.start_ms >= began_ms]
    told = {b.start_ms + i * b.step_ms: v for b in late for i, v in enumerate(b.values) if v is not None}
    assert [told[began_ms + 1000 * n] for n in range(90)] == [float(61 + n) for n in range(90)]


def test_windows_are_right_after_the_correction(box: Box) -> None:
    box.boot(5_000)
    box.run(50)
    box.clock.jump_s((box.true_ms - box.clock.ms) / 1000)
    box.clock.disciplined = True
    box.run(30)
    series = box.agent._grid.series["P-1", "v"]
    known = series[np.isfinite(series)]
    closed_ms = box.agent._grid.closed_until_ms
    assert known.tolist() == [float(n) for n in range(1, len(known) + 1)]
    assert closed_ms == NOW_MS + 1000 * len(known)
    disk = box.agent._history.buckets(("P-1", "v"), closed_ms - 60_000, 1000, 60)
    np.testing.assert_array_equal(disk, series[-60:])


@pytest.mark.parametrize("hours", [5, -5])
@pytest.mark.parametrize("confirmed", [True, False])
def test_a_jump_of_hours_loses_nothing_and_stops_nothing(box: Box, hours: int, confirmed: bool) -> None:
    box.boot(NOW_MS, disciplined=True)
    box.run(60)
    issued = len(box.messages(Forecast))
    box.clock.jump_s(hours * 3600)
    box.clock.disciplined = confirmed
    box.run(100)
    assert len(box.messages(Forecast)) >= issued + 22
    times, values = box.stored()
    assert sorted(values) == [float(n + 1) for n in range(box.told)]
    assert len(set(times)) == box.told
    assert box.agent.tally["clock.corrected"] == confirmed
    if not confirmed:
        nothing_lost_and_in_order(box)
    assert box.silence() == []


def test_a_correction_of_seconds_moves_nothing(box: Box) -> None:
    box.boot(NOW_MS)
    box.run(30)
    box.clock.jump_s(-3)
    box.clock.disciplined = True
    box.run(30)
    nothing_lost_and_in_order(box)
    assert box.messages(ClockCorrection) == []
    assert box.agent._clock.confidence is ClockConfidence.SYNCED
    assert box.agent._clock.now_ms() == box.clock.now_ms()


def test_two_starts_without_a_clock_keep_every_value_in_order(box: Box) -> None:
    box.boot(NOW_MS, disciplined=True)
    box.run(20)
    box.stop()
    for _ in range(2):
        box.true_ms += HOUR_MS
        box.boot(0)
        began_ms = box.true_ms
        box.run(40)
        box.stop()
    box.true_ms += HOUR_MS
    box.boot(box.true_ms, disciplined=True)
    box.run(20)
    nothing_lost_and_in_order(box)
    assert box.stored()[0][-20:] == [box.true_ms - 20_000 + 1000 * n for n in range(20)]
    assert box.stored()[0][60] < began_ms  # when the starts before were is not known


def test_values_that_the_plant_stamps_are_taken_as_they_are_and_forecast_goes_on(box: Box) -> None:
    box.boot(0)
    box.run(60, stamped=True)
    nothing_lost_and_in_order(box)
    assert box.stored()[0] == [NOW_MS + 1000 * n for n in range(60)]
    assert len(box.messages(Forecast)) >= 10
    assert box.agent.counters().get("quarantine.future_time", 0) == 0


def test_the_servers_answers_bring_the_clock_back(box: Box) -> None:
    box.boot(0)
    for n in range(40):
        box.run(1)
        if n in (10, 20):
            box.broker.deliver("mw/v1/s/g/dn/ack", encode(Ack(classes={}, time=box.true_ms)), False)
    nothing_lost_and_in_order(box)
    assert box.agent._clock.confidence is ClockConfidence.SYNCED
    assert all(abs(at - (NOW_MS + 1000 * n)) <= 1 for n, at in enumerate(box.stored()[0]))


def test_values_of_one_millisecond_are_both_kept_where_the_time_is_given_here(box: Box) -> None:
    box.boot(NOW_MS)
    for value in (1.0, 1.0, 2.0):
        box.broker.deliver("bare/P-1/v", msgspec.json.encode(value), False)
    box.told = 3
    box.agent.step(0)
    times, values = box.stored()
    assert (times, values) == ([NOW_MS, NOW_MS + 1, NOW_MS + 2], [1.0, 1.0, 2.0])
    assert math.isclose(sum(values), 4.0)


def test_stamps_of_a_wrong_clock_wait_for_room_on_a_full_disk(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.boot(NOW_MS, disciplined=True)
    box.run(20)
    box.stop()
    box.true_ms += 9 * HOUR_MS
    box.boot(5_000)
    began_ms = box.true_ms
    box.run(30)
    retime, refused = box.agent._history.retime, []

    def full(shifts: Any, boot: str) -> int:
        refused.append(len(shifts))
        if len(refused) <= 5:
            raise TryLater("no room")
        return int(retime(shifts, boot))

    monkeypatch.setattr(box.agent._history, "retime", full)
    box.clock.jump_s((box.true_ms - box.clock.now_ms()) / 1000)
    box.clock.disciplined = True
    box.run(40)
    nothing_lost_and_in_order(box)
    times, _ = box.stored()
    assert len(refused) == 6
    assert all(abs(at - began_ms - 1000 * n) < 5000 for n, at in enumerate(times[20:]))
    assert len(box.messages(ClockCorrection)) == refused[0]
    assert box.agent.counters()["clock.no_room"] == 5


def test_a_disk_that_is_full_amid_the_moving_costs_no_value(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.boot(NOW_MS)
    box.run(20)
    history, refused = box.agent._history, []
    move = history._move

    def full(series: int, shifts: list[Shift]) -> int:
        if not refused:
            refused.append(series)
            history._db.execute("ROLLBACK")  # as SQLite itself does where even that finds no room
            raise sqlite3.OperationalError("database or disk is full")
        return move(series, shifts)

    monkeypatch.setattr(history, "_move", full)
    assert history.retime([Shift(NOW_MS, NOW_MS + 5_000, HOUR_MS)], "b") == 5
    assert refused
    assert sorted(box.stored()[1]) == [float(n + 1) for n in range(20)]
