"""The bundles that a command is given: a file, those of a folder, or the only one of its kind in a folder."""

from __future__ import annotations

from pathlib import Path

from edge_agent.runtimes import LoadedModel, load
from protocol.bundles import MAX_BUNDLE_BYTES, digest
from protocol.errors import BadSettings


def bundle_at(place: Path, kind: str) -> tuple[Path, LoadedModel]:
    """The file and its model, proven on this machine; in a folder the first `KIND*.bundle`. Raises BadSettings if there is
    none, BadBundle if it is altered or wrong here."""
    files = sorted(place.glob(f"{kind}*.bundle")) if place.is_dir() else [place]
    if not files:
        raise BadSettings(f"no {kind}*.bundle in {place}: give the folder that `millwright train {kind}` wrote")
    archive = archive_of(files[0])
    return files[0], load(archive, digest(archive))


def bundles_at(places: list[Path]) -> list[Path]:
    """The files that are named, and every `*.bundle` of the folders that are. Raises BadSettings for a folder without one."""
    found: list[Path] = []
    for place in places:
        inside = sorted(place.glob("*.bundle")) if place.is_dir() else [place]
        if not inside:
            raise BadSettings(f"no *.bundle in {place}")
        found += inside
    return found


def archive_of(file: Path) -> bytes:
    """A file's bytes. Raises BadSettings if it cannot be read or is too large to be a bundle."""
    try:
        if file.stat().st_size > MAX_BUNDLE_BYTES:
            raise BadSettings(f"{file} is larger than {MAX_BUNDLE_BYTES} bytes")
        return file.read_bytes()
    except OSError as error:
        raise BadSettings(f"cannot read {file}: {error.strerror}") from error
