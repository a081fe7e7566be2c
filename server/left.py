"""Reports as people left them, as a writer learns from them and is judged by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from protocol.writing.facts import Fact, Language
from protocol.writing.frames import Frames


@dataclass(frozen=True, slots=True)
class LeftReport:
    """clauses[language]: what stands in it, in order ("what.above#2": the third wording of that clause); Chinese says the
    clauses that English says. held_out: it judges and never teaches."""

    facts: Sequence[Fact]
    clauses: Mapping[Language, Sequence[str]]
    document: str = "fault_report"
    held_out: bool = False


class LeftBook(msgspec.Struct, frozen=True, kw_only=True):
    """What a writer learns from: the catalogues as they are now, reports that people left, and the facts of others, about
    which reports are made up. lost: edited reports that say what no catalogue says any more."""

    frames: list[Frames]
    reports: list[LeftReport] = []
    facts: list[list[Fact]] = []
    lost: int = 0
