"""A labelled note is what a reader of notes learns from: the words, what they were about, and what fixed it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from protocol.observations import Name, Text


class LabelledNote(msgspec.Struct, frozen=True, kw_only=True):
    """said: question -> class ("failure" -> "leak"; empty: only a past case). fixed_by: "action:…", "part:…". source:
    "work_order", "answer" (a person corrected a reading), "accepted" (a person agreed) or "file"."""

    case: Name
    time_ms: int = 0
    machine: str = ""
    text: Text
    said: dict[Name, Name] = {}
    fixed_by: Annotated[list[Name], msgspec.Meta(max_length=20)] = []
    source: Name = "work_order"


class NoteBook(msgspec.Struct, frozen=True):
    """What a reader of notes learns from, in the order in which it was told."""

    notes: list[LabelledNote] = []
