"""The bundle that a command is given: a file, or the only one of its kind in a folder, proven on this machine."""

from __future__ import annotations

from pathlib import Path

from edge_agent.runtimes import LoadedModel, load
from protocol.bundles import MAX_BUNDLE_BYTES, digest
from protocol.errors import BadSettings


def bundle_at(place: Path, kind: str) -> tuple[Path, LoadedModel]:
    """The file and its model; in a folder the first `KIND*.bundle`. Raises BadSettings if there is none, BadBundle if it is
    altered or wrong here."""
    files = sorted(place.glob(f"{kind}*.bundle")) if place.is_dir() else [place]
    if not files:
        raise BadSettings(f"no {kind}*.bundle in {place}: give the folder that `millwright train {kind}` wrote")
    try:
        if files[0].stat().st_size > MAX_BUNDLE_BYTES:
            raise BadSettings(f"{files[0]} is larger than {MAX_BUNDLE_BYTES} bytes")
        archive = files[0].read_bytes()
    except OSError as error:
        raise BadSettings(f"cannot read {files[0]}: {error.strerror}") from error
    return files[0], load(archive, digest(archive))
