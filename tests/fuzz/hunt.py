"""Inputs for one target after another: those that reach lines which none did before are kept, and changed further."""

from __future__ import annotations

import hashlib
import logging
import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fuzz.coverage import Lines
from tests.fuzz.mutate import changed
from tests.fuzz.targets import FOUND, Target

TRACED = 5
"""One input in so many is followed line by line; the others only have to end well."""
MOST_KEPT = 400
MOST_HOLES = 5


@dataclass
class Hunted:
    """What came of a target. lines: of protocol, edge_agent and server. kept: inputs that reached new ones. taken: inputs
    that were read without being refused. holes: where it broke -> how often."""

    target: str
    inputs: int = 0
    taken: int = 0
    lines: int = 0
    kept: int = 0
    seconds: float = 0.0
    holes: dict[str, int] = field(default_factory=dict)


class Hunt:
    """One target and what was learned of it. `seed` makes the inputs: the same seed, the same inputs. keep: write down what
    finds a hole."""

    def __init__(self, target: Target, seed: int = 0, *, keep: bool = False) -> None:
        self.target = target
        self.told = Hunted(target.name)
        self._chance = random.Random(f"{target.name}/{seed}")
        self._keep = keep
        self._lines = Lines()
        self._pool: list[bytes] = []
        for data in (*target.seeds, *target.found()):
            self._try(data, traced=True)
            self._pool.append(data)

    def run(self, inputs: int, until_s: float = float("inf")) -> Hunted:
        """So many inputs more, or as many as there is time for (`time.monotonic`)."""
        begun = time.monotonic()
        for at in range(inputs):
            if (time.monotonic() >= until_s) or len(self.told.holes) >= MOST_HOLES:
                break
            self.one(traced=at % TRACED == 0)
        self.told.seconds += time.monotonic() - begun
        self.told.lines = len(self._lines.reached)
        return self.told

    def one(self, *, traced: bool) -> None:
        """One more input."""
        chance = self._chance
        data = changed(chance.choice(self._pool), chance.choice(self._pool), chance, as_json=self.target.json)
        if self._try(data, traced=traced) and len(self._pool) < MOST_KEPT:
            self._pool.append(data)
            self.told.kept += 1

    def _try(self, data: bytes, *, traced: bool) -> bool:
        """Whether the input reached something new."""
        self.told.inputs += 1
        fresh = 0
        try:
            if traced:
                fresh = self._lines.new(lambda: self._count(self.target.read_or_refuse(data)))
            else:
                self._count(self.target.ask(data))
        except Exception as hole:
            self._note(data, hole)
        return fresh > 0

    def _count(self, taken: bool) -> None:
        self.told.taken += taken

    def _note(self, data: bytes, hole: Exception) -> None:
        place = traceback.extract_tb(hole.__traceback__)[-1]
        name = f"{type(hole).__name__}: {str(hole)[:100]} at {place.filename.rpartition('/')[2]}:{place.lineno}"
        known = any(name.rpartition(" at ")[2] == other.rpartition(" at ")[2] for other in self.told.holes)
        name = next((o for o in self.told.holes if o.rpartition(" at ")[2] == name.rpartition(" at ")[2]), name)
        self.told.holes[name] = self.told.holes.get(name, 0) + 1
        if self._keep and not known:
            folder = FOUND / self.target.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def quiet(call: Callable[[], None]) -> None:
    """Runs it without what the product logs of every input that it refuses."""
    logging.disable(logging.CRITICAL)
    try:
        call()
    finally:
        logging.disable(logging.NOTSET)
