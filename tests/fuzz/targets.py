"""Every reader that bytes from outside reach, by name. A target may return, or raise what it says it raises; anything else is
a hole, and so is an answer that takes too long or too much memory."""

from __future__ import annotations

import importlib.util
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol.errors import MillwrightError

HERE = Path(__file__).parent
FOUND = HERE / "found"
"""Inputs that found a hole once: one folder a target."""
MOST_SECONDS = 1.0
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Target:
    """read: what is given the bytes. seeds: inputs that it takes. json: inputs are JSON, and are changed as such too.
    raises: what it may raise. slow: it needs much more than a millisecond; fewer inputs do."""

    name: str
    read: Callable[[bytes], object]
    seeds: Sequence[bytes]
    json: bool = False
    raises: tuple[type[Exception], ...] = (MillwrightError,)
    slow: bool = False

    def ask(self, data: bytes) -> bool:
        """Whether the input was taken. Raises whatever else it came to, and SlowError where that took too long."""
        begun = time.process_time()
        taken = self.read_or_refuse(data)
        spent = time.process_time() - begun
        if spent > MOST_SECONDS:
            raise SlowError(f"{self.name} took {spent:.1f} s for {len(data)} bytes")
        return taken

    def read_or_refuse(self, data: bytes) -> bool:
        """As `ask`, however long it takes."""
        try:
            self.read(data)
        except self.raises:
            return False
        return True

    def found(self) -> list[bytes]:
        """What found a hole here once."""
        return [path.read_bytes() for path in sorted((FOUND / self.name).glob("*"))]


class SlowError(Exception):
    """A reader that can be kept busy."""


def measured(target: Target, data: bytes) -> int:
    """Most bytes that Python held for an answer beyond what it held before, whatever time it took: counting slows it down."""
    tracemalloc.start()
    try:
        target.read_or_refuse(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def through(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """A reader of files as one of bytes."""

    def given(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return given


def wire_examples() -> dict[str, msgspec.Struct]:
    """One example of every document of the wire."""
    place = HERE.parent / "protocol" / "wire_examples.py"
    spec = importlib.util.spec_from_file_location("wire_examples", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    examples: dict[str, msgspec.Struct] = module.EXAMPLES
    return examples


def every_target(folder: Path) -> dict[str, Target]:
    """All of them. folder: an empty one, for those that read files."""
    from tests.fuzz import (
        answer_targets,
        carried_targets,
        command_targets,
        gateway_targets,
        http_targets,
        kept_targets,
        protocol_targets,
        server_targets,
    )

    made: dict[str, Target] = {}
    for part in (
        protocol_targets,
        gateway_targets,
        kept_targets,
        command_targets,
        carried_targets,
        answer_targets,
        server_targets,
        http_targets,
    ):
        own = folder / part.__name__.rpartition(".")[2]
        own.mkdir()
        made |= {target.name: target for target in part.targets(own)}
    return made


def named(folder: Path, names: Sequence[str]) -> Iterator[Target]:
    """Those of these names, or all of them. Raises KeyError for a name that there is not."""
    known = every_target(folder)
    yield from (known[name] for name in names or known)
