"""What a gateway shares of its signals reaches the outbox bucket by bucket, each once, whenever the process dies."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sharing import Key, Sharing, name_of
from protocol.observations import SignalBlock

STEP = 1000
A, B = ("press", "pressure"), ("pump", "flow")
SECRET = ("press", "secret")


def shares(signal: str) -> bool:
    return signal != "secret"


class Plant:
    """A history, an outbox that takes a name once, and a process that may die."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.path = folder / "sharing.json"
        self.steps = steps
        self.history: dict[Key, dict[int, float]] = {}
        self.told: dict[str, SignalBlock] = {}
        self.now = 0
        self.sharing = Sharing(self.path, STEP, steps, shares)

    def bucket(self, means: dict[Key, float]) -> None:
        for key, mean in means.items():
            self.history.setdefault(key, {})[self.now] = mean
        self.send(list(self.sharing.closed(self.now * STEP, means, {})))
        self.now += 1

    def send(self, blocks: list[SignalBlock]) -> None:
        for block in blocks:
            self.told.setdefault(name_of(block), block)

    def die(self) -> None:
        self.sharing = Sharing(self.path, STEP, self.steps, shares)

        def read(key: Key, start_ms: int, count: int) -> np.ndarray:
            return np.array([self.history[key].get(start_ms // STEP + i, np.nan) for i in range(count)])

        keys = list(self.history)
        self.send(list(self.sharing.resume(keys, lambda k: min(self.history[k]) * STEP, read, self.now * STEP, {})))

    def buckets(self, key: Key) -> list[tuple[int, float]]:
        """(bucket, mean) in the blocks of a signal, as they were told."""
        blocks = [b for b in self.told.values() if (b.machine, b.signal) == key]
        return [(b.start_ms // STEP + i, v) for b in blocks for i, v in enumerate(b.values) if v is not None]


MEANS = st.dictionaries(st.sampled_from([A, B, SECRET]), st.floats(-10, 10))
EVENTS = st.lists(st.one_of(MEANS, st.sampled_from(["keep", "die", "a long silence"])), max_size=120)


@given(events=EVENTS, steps=st.integers(1, 9))
def test_every_closed_bucket_is_told_once_whenever_the_process_dies(
    events: list[dict[Key, float] | str], steps: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plant = Plant(Path(folder), steps)
        for event in events:
            if isinstance(event, dict):
                plant.bucket(event)
            elif event == "keep":
                plant.sharing.keep()
            elif event == "die":
                plant.die()
            else:
                plant.now += 50_000
        for key in (A, B):
            told, there = plant.buckets(key), sorted(plant.history.get(key, {}).items())
            assert told == there[: len(told)]
            assert len(there) - len(told) <= steps
        assert plant.buckets(SECRET) == []


def test_a_block_never_claims_time_in_which_nothing_was_read(tmp_path: Path) -> None:
    plant = Plant(tmp_path, 4)
    plant.bucket({A: 1.0})
    plant.now += 30_000
    for value in (2.0, 3.0):
        plant.bucket({A: value})
    assert plant.buckets(A) == [(0, 1.0)]
    assert [len(block.values) for block in plant.told.values()] == [1]


def test_an_unreadable_file_costs_nothing_but_reading(tmp_path: Path) -> None:
    plant = Plant(tmp_path, 2)
    for value in range(5):
        plant.bucket({A: float(value)})
    plant.sharing.keep()
    plant.path.write_bytes(b"{broken")
    plant.die()
    plant.bucket({A: 5.0})
    assert plant.buckets(A) == [(i, float(i)) for i in range(6)]
