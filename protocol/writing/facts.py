"""What a report may say. A number comes with its unit and where it was measured; a relation (above, below, rising) is
derived from numbers in code; nothing here was ever written by a language model."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from protocol.observations import Name, Text


class Kind(StrEnum):
    """How a fact's value is read and rendered."""

    NUMBER = "number"
    COUNT = "count"
    SHARE = "share"
    MOMENT = "moment"
    NAME = "name"
    CATEGORY = "category"


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is so. `key` is the slot that it fills ("peak", "machine", "action_1").

    value: a number; for `moment` milliseconds since 1970 UTC; for `share` 0 to 1; for `name` and `category` a token
    ("P-101", "above"). en, zh: how a name or a category is called (empty: as its token); numbers and moments are always
    rendered from the value. A category is never shown through a slot: it decides which clauses may be said.
    evidence: index of the report's evidence that the value comes from (None: it comes from `source`).
    source: id of the forecast, recommendation, reading or event that says so, where it is not evidence."""

    key: Name
    kind: Kind
    value: float | str
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    en: Annotated[str, msgspec.Meta(max_length=256)] = ""
    zh: Annotated[str, msgspec.Meta(max_length=256)] = ""
    evidence: Annotated[int, msgspec.Meta(ge=0, lt=20)] | None = None
    source: Annotated[str, msgspec.Meta(max_length=128)] = ""


class Span(msgspec.Struct, frozen=True):
    """Characters start to end (exclusive) of a section's text that render the report's fact number `fact`."""

    start: Annotated[int, msgspec.Meta(ge=0, le=4000)]
    end: Annotated[int, msgspec.Meta(ge=0, le=4000)]
    fact: Annotated[int, msgspec.Meta(ge=0, lt=200)]


class Mode(StrEnum):
    """How a section came to its words: clauses chosen by a language model, its own prose read back and found true, or the
    first clause of each that may be said."""

    STRICT = "strict"
    FREE = "free"
    TEMPLATE = "template"


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One section in one language: its text, where its facts stand, and which clauses it is made of ("peak.above#2": the
    third wording of that clause; none in free mode)."""

    text: Text
    spans: Annotated[list[Span], msgspec.Meta(max_length=100)] = []
    clauses: Annotated[list[Name], msgspec.Meta(max_length=50)] = []
    mode: Mode = Mode.TEMPLATE
