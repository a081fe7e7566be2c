"""The built-in catalogue of a fault report, written by hand. A change of any wording is a new version: reports name the one
that they were written with."""

from __future__ import annotations

from protocol.writing.clauses.how_we_know import HOW_WE_KNOW
from protocol.writing.clauses.title import TITLES
from protocol.writing.clauses.what_happened import WHAT_HAPPENED
from protocol.writing.clauses.what_next import WHAT_NEXT
from protocol.writing.clauses.what_to_do import WHAT_TO_DO
from protocol.writing.frames import Frames, Heading, reference

FAULT_REPORT = Frames(
    document="fault_report",
    version=1,
    headings=[
        Heading(section="what_happened", en="What happened", zh="发生了什么"),
        Heading(section="how_we_know", en="How we know", zh="依据"),
        Heading(section="what_next", en="What comes next", zh="接下来"),
        Heading(section="what_to_do", en="What to do", zh="建议"),
    ],
    clauses=[*TITLES, *WHAT_HAPPENED, *HOW_WE_KNOW, *WHAT_NEXT, *WHAT_TO_DO],
)
BUILT_IN = {reference(FAULT_REPORT): FAULT_REPORT}
"""Every catalogue that this version of the product was delivered with, by its reference."""

__all__ = ["BUILT_IN", "FAULT_REPORT"]
