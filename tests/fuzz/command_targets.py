"""."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.targets import Target


def targets(folder: Path) -> Iterator[Target]:
    """None yet."""
    yield from ()
