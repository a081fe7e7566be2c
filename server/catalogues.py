"""Catalogues of clauses that the server knows: those of this version, and those of bundles it registered. Files are
content-addressed and never change; a report that was written with any of them can be read back for as long as it is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from protocol.bundles import TEXT_OF_FRAMES
from protocol.errors import Reason, Refused
from protocol.reports import Report
from protocol.writing.clauses import BUILT_IN
from protocol.writing.fault_report import Source
from protocol.writing.frames import Frames, digest, encode_frames, read_frames, reference
from protocol.writing.verify import verify
from server.registry import write_artifact

FOLDER = "frames"
MOST_IN_MEMORY = 50
_REFERENCE = re.compile(r"[^/]{1,128}/[0-9]{1,9}/([0-9a-f]{64})")


class Catalogues:
    """Finds a catalogue by its reference; without a folder, only those of this version."""

    def __init__(self, artifacts: Path | None = None) -> None:
        self._folder = artifacts / FOLDER if artifacts is not None else None
        self._known: dict[str, Frames] = dict(BUILT_IN)

    def get(self, told: str) -> Frames | None:
        """The catalogue "document/version/sha256", None where there is none of this name and content."""
        if told in self._known:
            return self._known[told]
        match = _REFERENCE.fullmatch(told)
        if match is None or self._folder is None:
            return None
        try:
            frames = read_frames((self._folder / f"{match[1]}.json").read_bytes())
        except FileNotFoundError:
            return None
        if reference(frames) != told:
            return None
        if len(self._known) < MOST_IN_MEMORY:
            self._known[told] = frames
        return frames


def keep(frames: Frames, artifacts: Path) -> Path:
    """Keeps a catalogue for good."""
    return write_artifact(artifacts / FOLDER, f"{digest(frames)}.json", encode_frames(frames))


def keep_those_of(texts: Mapping[str, bytes], artifacts: Path) -> None:
    """Keeps the catalogues among a bundle's texts. Raises BadFrames where one is none."""
    for name, payload in texts.items():
        if name.startswith(TEXT_OF_FRAMES):
            keep(read_frames(payload), artifacts)


def read_back(report: Report, catalogues: Catalogues, beside: Sequence[Source] = ()) -> None:
    """Raises Refused (unverified_report) where a report that names its facts or its catalogue says what they do not, or
    what `beside` (its recommendation, say) does not. One written before there were any facts says nothing that could be
    read back: it passes."""
    if not (report.facts or report.frames or any(s.section for s in report.sections)):
        return
    frames = catalogues.get(report.frames)
    if frames is None:
        detail = f"report {report.id} was written with {report.frames or 'no catalogue'}, which is not known here:"
        raise Refused(Reason.UNVERIFIED, f"{detail} register the bundle that carries it, or update the server")
    complaints = verify(report, frames, beside=beside)
    if complaints:
        more = f" and {len(complaints) - 1} more" if len(complaints) > 1 else ""
        raise Refused(Reason.UNVERIFIED, f"report {report.id}: {complaints[0]}{more}")
