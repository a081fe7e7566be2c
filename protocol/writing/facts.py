"""What a report may say. A number comes with its unit and where it was measured; a relation (above, below, rising) is
derived from numbers in code; nothing here was ever written by a language model."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from protocol.errors import Reason, Refused
from protocol.observations import Name, Text

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, Language] = ("en", "zh")
LONGEST_NAME = 80
"""Characters of a name that are shown; the rest is cut, and "…" says so."""
LONGEST_UNIT = 32
_LAST_MS = 253_402_300_799_999
_MOST_COUNTED = 2.0**53
_SENTENCE_INSIDE = re.compile(r"[.!?;]\s|[。！？；]")
_BRACKETS = str.maketrans("<>", "‹›")


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


def render(fact: Fact, language: Language) -> str:
    """A fact as it stands in a sentence. Raises Refused where its value is not of its kind (a name that is a number, a
    moment beyond the year 9999, NaN), and for a category, which no slot may show."""
    if fact.kind is Kind.NAME:
        return _called(fact, language)
    if fact.kind is Kind.CATEGORY:
        raise Refused(
            Reason.WRONG_TYPE, f"fact {fact.key!r} is a category: it decides which clauses are said, no slot shows it"
        )
    value = _number_of(fact)
    if fact.kind is Kind.MOMENT:
        return moment(_whole(fact, value, 0, _LAST_MS))
    if fact.kind is Kind.SHARE:
        return _share(fact, value, language)
    text = str(_whole(fact, value, 0, _MOST_COUNTED)) if fact.kind is Kind.COUNT else number(value)
    unit = plain(fact.unit, LONGEST_UNIT)
    return f"{text} {unit}" if unit else text


def number(value: float) -> str:
    """Three significant digits, no exponent for everyday sizes."""
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:.{digits}f}"


def moment(time_ms: int) -> str:
    """A time for people, to the minute, with its zone."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """One line without control, format or unassigned characters; white space runs become one blank, angle brackets become
    ‹ ›, so that a name can neither break a line, turn the text around, open markup nor look like a slot."""
    if text.isascii() and text.isprintable() and len(text) <= longest and "<" not in text and ">" not in text:
        return " ".join(text.split())
    shown = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    line = " ".join(shown.translate(_BRACKETS).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _called(fact: Fact, language: Language) -> str:
    """A name; one that holds a sentence is put in quotes, so that nobody takes it for the report's own words."""
    if not isinstance(fact.value, str):
        raise Refused(Reason.WRONG_TYPE, f"fact {fact.key!r} is a name; its value {fact.value!r} must be text")
    name = plain((fact.en if language == "en" else fact.zh) or fact.value) or plain(ascii(fact.value))
    return f"“{name}”" if _SENTENCE_INSIDE.search(name) else name


def _number_of(fact: Fact) -> float:
    if isinstance(fact.value, str):
        raise Refused(
            Reason.WRONG_TYPE, f"fact {fact.key!r} is a {fact.kind}; its value {fact.value[:40]!r} must be a number"
        )
    if not math.isfinite(fact.value):
        raise Refused(Reason.NOT_FINITE, f"fact {fact.key!r} is {fact.value}; leave it out of the facts")
    return float(fact.value)


def _whole(fact: Fact, value: float, low: float, high: float) -> int:
    if not low <= value <= high or value != int(value):
        raise Refused(
            Reason.WRONG_TYPE, f"fact {fact.key!r} is a {fact.kind}; {value} must be whole, {low:g} to {high:g}"
        )
    return int(value)


def _share(fact: Fact, value: float, language: Language) -> str:
    """Whole per cent. Only what is certain is shown as 0 or 100."""
    if not 0 <= value <= 1:
        raise Refused(Reason.WRONG_TYPE, f"fact {fact.key!r} is a share; {value} must be between 0 and 1")
    whole = round(value * 100)
    if whole == 0 and value > 0:
        text = "under 1" if language == "en" else "不到 1"
    elif whole == 100 and value < 1:
        text = "over 99" if language == "en" else "99 以上"
    else:
        text = str(whole)
    if language == "en":
        return f"{text} %"
    return text.replace("99 以上", "99% 以上") if "以上" in text else f"{text}%"
