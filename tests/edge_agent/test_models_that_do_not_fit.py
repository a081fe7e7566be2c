"""An agent that is offered a model which is wrong on its own processor goes on with the one before, offline and after a
restart, and says why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.agent import Agent, build_agent
from edge_agent.config import AgentSettings, ClockSettings, ForecastSettings
from protocol.bundles import Bundle, digest, pack, unpack
from protocol.errors import TryLater
from protocol.reports import Forecast
from protocol.sync import Batch, decode, decode_message
from protocol.twin import Assignment, Desired, ModelStatus, Reported, RunningModel
from server import training
from tests import factory
from tests.contracts.test_every_learner import LEARNERS, learned, of

SLOT = training.RIDGE
LITTLE = of("server/test_training.py")
SPEC, STEP_MS = LITTLE.SPEC, LITTLE.STEP_MS
LONGEST_S = 20.0


@pytest.fixture(scope="module")
def right() -> bytes:
    """Version 1, learned from a little plant."""
    return learned(next(one for one in LEARNERS if one.name == SLOT)).archive


def next_version(archive: bytes, **changed: Any) -> bytes:
    bundle = unpack(archive)
    passport = msgspec.structs.replace(bundle.passport, version=bundle.passport.version + 1)
    return pack(msgspec.structs.replace(bundle, passport=passport, **changed))


def wrong_here(archive: bytes) -> bytes:
    """A next version whose golden vectors another processor made."""
    outputs = {name: np.asarray(value) + 0.5 for name, value in unpack(archive).golden_outputs.items()}
    return next_version(archive, golden_outputs=outputs)


def spoiled(archive: bytes) -> bytes:
    """A next version whose tables are not what they were, listed anew."""
    bundle = unpack(archive)
    tables = {name: table[: len(table) // 2] for name, table in bundle.tables.items()}
    return next_version(archive, tables=tables)


def hollow(archive: bytes) -> bytes:
    """A next version without anything in it."""
    passport = msgspec.structs.replace(unpack(archive).passport, version=2)
    return pack(Bundle(passport=passport))


class Plant:
    """An agent in an in-memory factory, and a server that hands out bundles while the cable is in."""

    def __init__(self, folder: Path) -> None:
        (folder / "mapping.toml").write_text(
            '[[source]]\ntopic = "plant/{machine}/{signal}"\nvalue = "$.value"\ntime = "$.timestamp"\ntime_unit = "ms"\n'
        )
        self.folder, self.broker, self.clock = folder, factory.MemoryBroker(), factory.FakeClock()
        self.bundles: dict[str, bytes] = {}
        self.time_ms, self.version, self.values = 1_790_000_000_000, 0, np.random.default_rng(1)
        self.agent = self.start()

    def start(self) -> Agent:
        """From what is on disk."""
        self.plant, self.uplink = factory.MemoryLink(self.broker), factory.MemoryLink(self.broker)
        self.agent = build_agent(
            AgentSettings(
                site="s",
                gateway="g",
                data_dir=str(self.folder / "data"),
                mapping=str(self.folder / "mapping.toml"),
                step_ms=STEP_MS,
                clock=ClockSettings(simulated=True),
                forecast=ForecastSettings(season_steps=SPEC.season, every_steps=1, horizon_steps=SPEC.horizon),
            ),
            clock=self.clock,
            plant=self.plant,
            uplink=self.uplink,
            fetch=self.fetch,
            boot_id="b",
        )
        return self.agent

    def fetch(self, wanted: Assignment) -> bytes:
        """Over HTTPS, where the server is in reach."""
        if not self.uplink.connected:
            raise TryLater("the cable is pulled")
        return self.bundles[wanted.digest]

    def offer(self, archive: bytes, number: int) -> str:
        """The server wants this to serve; its digest."""
        named = digest(archive)
        self.bundles[named] = archive
        self.version += 1
        wanted = Assignment(slot=SLOT, version=number, digest=named, size=len(archive), path=f"/api/v1/bundles/{named}")
        desired = Desired(version=self.version, models=[wanted])
        self.broker.deliver("mw/v1/s/g/twin/desired", msgspec.json.encode(desired), True)
        return named

    def live(self, buckets: int) -> None:
        """Readings come."""
        for _ in range(buckets):
            self.time_ms += STEP_MS
            value = 20 + float(self.values.normal())
            body = {"value": value, "timestamp": self.time_ms}
            self.broker.deliver("plant/M-0/temperature", msgspec.json.encode(body), False)
            self.clock.pass_s(STEP_MS / 1000)
            self.agent.step(0)

    def models(self) -> dict[int, RunningModel]:
        """What the agent says of its models, by version."""
        told = decode(self.broker.retained["mw/v1/s/g/twin/reported"], Reported)
        return {model.version: model for model in told.models}

    def until(self, holds: Callable[[], bool]) -> None:
        """Lives on until it does; updates have a thread of their own."""
        end = time.monotonic() + LONGEST_S
        while not holds():
            assert time.monotonic() < end, self.broker.retained.get("mw/v1/s/g/twin/reported")
            self.live(1)
            time.sleep(0.02)

    def says(self, version: int, status: ModelStatus) -> bool:
        """Whether the agent reports it so."""
        return "mw/v1/s/g/twin/reported" in self.broker.retained and (
            version in self.models() and self.models()[version].status is status
        )

    def forecasts(self) -> list[Forecast]:
        """What went up."""
        found = []
        for topic, payload in self.broker.published:
            if topic.startswith("mw/v1/s/g/up/") and b"forecast" in payload:
                made = [decode_message(e.type, e.data) for e in decode(payload, Batch).envelopes]
                found += [one for one in made if isinstance(one, Forecast)]
        return found


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.agent.close()


@pytest.mark.parametrize("harm", [wrong_here, spoiled, hollow])
def test_the_model_before_keeps_serving_offline_and_after_a_restart(
    plant: Plant, right: bytes, harm: Callable[[bytes], bytes]
) -> None:
    plant.live(2 * SPEC.context)
    first = plant.offer(right, 1)
    plant.until(lambda: plant.says(1, ModelStatus.SERVING))
    bad = plant.offer(harm(right), 2)
    plant.until(lambda: plant.says(2, ModelStatus.REFUSED))
    assert plant.models()[1].status is ModelStatus.SERVING
    assert plant.models()[2].error
    folder = plant.folder / "data" / "bundles"
    assert {file.name for file in folder.iterdir()} == {"active.json", f"{first}.bundle"}
    plant.uplink.connected = False
    plant.live(5)
    plant.agent.close()
    plant.start()
    plant.uplink.connected = False
    plant.live(5)
    status = msgspec.json.decode((plant.folder / "data" / "status.json").read_bytes())
    assert [(m["version"], m["status"]) for m in status["models"]] == [(1, "serving")]
    plant.uplink.connected = True
    plant.live(5)
    assert bad not in {file.stem for file in folder.iterdir()}
    used = [
        {made.model.digest, *(member.model.digest for member in made.members)}
        for made in sorted(plant.forecasts(), key=lambda made: made.issued_ms)
    ]
    assert first in used[-1]
    assert not any(bad in one for one in used)
