"""What every training is told and gives back. Knows no database; runs in the worker's child process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata

from protocol.bundles import Lineage, Passport

DIGITS = 4
"""Figures are compared after rounding: a difference of a hundredth of a percent is no reason to change or
keep a model."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Circumstances:
    """What a training is told about the world: versions to give, archives of the champions by slot, and
    why."""

    dataset_digest: str
    dataset_rows: int
    now_ms: int
    versions: dict[str, int] = field(default_factory=dict)
    champions: dict[str, bytes] = field(default_factory=dict)
    because: str = ""

    def lineage(self, seed: int, parameters: dict[str, object]) -> Lineage:
        """The passport's account of where a model comes from."""
        return Lineage(
            dataset_digest=self.dataset_digest,
            dataset_rows=self.dataset_rows,
            code_version=code_version(),
            seed=seed,
            trained_ms=self.now_ms,
            parameters={name: str(value) for name, value in parameters.items()},
        )


@dataclass(frozen=True)
class Candidate:
    """A sealed bundle; its passport says whether it may be rolled out."""

    archive: bytes
    passport: Passport


def code_version() -> str:
    """This installation's version, for the lineage."""
    try:
        return metadata.version("millwright")
    except metadata.PackageNotFoundError:
        return "source"
