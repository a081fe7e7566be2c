"""The catalogue of clauses: what may be said, in which words, and when. It is data: the built-in catalogue is in
`clauses/`; a bundle carries its own (`texts/frames_DOCUMENT.json`), and people accept new wordings into it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Annotated

import msgspec

from protocol.errors import BadFrames, Reason
from protocol.observations import Name, Text
from protocol.unreadable import UNREADABLE
from protocol.writing.facts import LANGUAGES, Language

MAX_FRAMES_BYTES = 2_000_000
LONGEST_WORDING = 400
"""Characters of a wording: with its slots filled, a section of many clauses still fits a section's text."""
TITLE = "title"
"""The section whose clause is the report's title; it has no heading."""
_SLOT = re.compile(r"<([a-z][a-z0-9_]{0,63})>")
_MARKER = re.compile(r"\[([1-9][0-9]?)\]")

MOST_WORDINGS = 50
"""Of a clause, in each language."""
Wordings = Annotated[list[Text], msgspec.Meta(min_length=1, max_length=MOST_WORDINGS)]


class Clause(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One statement of a section. Wordings say the same thing in other words; each holds the same slots ("<peak>").

    needs: keys of facts that must be known, the slots of the wordings among them. when: category -> values under which this
    clause is true. unless: facts in whose presence it is not said. mandatory: a report whose facts license it must say it;
    the others a writer may leave out."""

    id: Name
    section: Name
    needs: Annotated[list[Name], msgspec.Meta(max_length=20)] = []
    when: Annotated[
        dict[Name, Annotated[list[Name], msgspec.Meta(min_length=1, max_length=50)]], msgspec.Meta(max_length=10)
    ] = {}
    unless: Annotated[list[Name], msgspec.Meta(max_length=20)] = []
    mandatory: bool = True
    en: Wordings
    zh: Wordings


class Heading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section and what it is called."""

    section: Name
    en: Text
    zh: Text


class Frames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A catalogue. `document`: what it writes ("fault_report", "maintenance_plan"). Clauses of a section are said in the
    order in which they stand here."""

    document: Name
    version: Annotated[int, msgspec.Meta(ge=1)]
    headings: Annotated[list[Heading], msgspec.Meta(min_length=1, max_length=20)]
    clauses: Annotated[list[Clause], msgspec.Meta(min_length=1, max_length=2000)]


def wordings(clause: Clause, language: Language) -> Sequence[str]:
    """What a clause says in one language."""
    return clause.en if language == "en" else clause.zh


@lru_cache(maxsize=20_000)
def parts(wording: str) -> tuple[str, ...]:
    """Words and slots in turn: ("since ", "since", ", …"); every second part is a slot's key."""
    return tuple(_SLOT.split(wording))


def slots(wording: str) -> tuple[str, ...]:
    """Keys of a wording's slots, in order."""
    return parts(wording)[1::2]


def markers(text: str) -> list[int]:
    """Numbers of the evidence that a text cites, as "[1]" says it, in order."""
    return [int(found) for found in _MARKER.findall(text)]


def encode_frames(frames: Frames) -> bytes:
    """The bytes that a bundle carries and a digest is made of."""
    return msgspec.json.encode(frames)


def reference(frames: Frames) -> str:
    """Document, version and sha256: "fault_report/1/ab12…"."""
    return f"{frames.document}/{frames.version}/{digest(frames)}"


def digest(frames: Frames) -> str:
    """sha256 of the catalogue's bytes."""
    return hashlib.sha256(encode_frames(frames)).hexdigest()


def read_frames(payload: bytes) -> Frames:
    """A catalogue from a file or a bundle. Raises BadFrames with what to change."""
    if len(payload) > MAX_FRAMES_BYTES:
        raise BadFrames(Reason.TOO_LARGE, f"a catalogue of {len(payload)} bytes; the limit is {MAX_FRAMES_BYTES}")
    try:
        frames = msgspec.json.decode(payload, type=Frames)
    except msgspec.ValidationError as error:
        raise BadFrames(Reason.WRONG_TYPE, f"the catalogue is not one of clauses: {error}") from error
    except UNREADABLE as error:
        raise BadFrames(Reason.MALFORMED_JSON, f"the catalogue cannot be read: {error}") from error
    complaints = check(frames)
    if complaints:
        raise BadFrames(Reason.BAD_FRAMES, f"{len(complaints)} faults in the catalogue; the first: {complaints[0]}")
    return frames


def check(frames: Frames) -> list[str]:
    """What is wrong with a catalogue, in words of whoever wrote it; empty: nothing. It cannot tell whether a wording is
    true, only whether its claims stand in slots, the same ones in both languages."""
    return [
        *_check_order(frames),
        *(c for clause in frames.clauses for c in _check_clause(clause)),
        *_check_alike(frames),
    ]


def _check_order(frames: Frames) -> Iterator[str]:
    sections = [heading.section for heading in frames.headings]
    known = [TITLE, *sections]
    if len(set(known)) != len(known):
        yield f"sections {sections} must differ from one another and from {TITLE!r}"
    seen: set[str] = set()
    for clause in frames.clauses:
        if clause.id in seen:
            yield f"clause {clause.id!r} stands twice"
        if "#" in clause.id or len(clause.id) > 120:
            yield f"clause {clause.id!r}: an id has at most 120 characters and no '#'"
        if clause.section not in known:
            yield f"clause {clause.id!r} is for section {clause.section!r}; there are {known}"
        seen.add(clause.id)


def _check_clause(clause: Clause) -> Iterator[str]:
    name = f"clause {clause.id!r}"
    first = sorted(set(slots(clause.en[0])))
    missing = set(first) - set(clause.needs)
    if missing:
        yield f"{name} shows {sorted(missing)} without needing them"
    if set(clause.needs) & set(clause.unless):
        yield f"{name} needs what it forbids: {sorted(set(clause.needs) & set(clause.unless))}"
    if set(first) & set(clause.when):
        shown = sorted(set(first) & set(clause.when))
        yield f"{name} shows the category {shown} through a slot; write one clause for each value"
    cited = sorted(set(markers(clause.en[0])))
    for language in LANGUAGES:
        if len(wordings(clause, language)) > MOST_WORDINGS:
            yield f"{name} has {len(wordings(clause, language))} wordings in {language}; at most {MOST_WORDINGS}"
        for at, wording in enumerate(wordings(clause, language)):
            where = f"{name}, {language} wording {at + 1}"
            yield from (f"{where} {fault}" for fault in _check_wording(wording))
            if sorted(set(slots(wording))) != first:
                yield f"{where} has the slots {sorted(set(slots(wording)))}, the first English one {first}"
            if sorted(set(markers(wording))) != cited:
                yield f"{where} cites {sorted(set(markers(wording)))}, the first English one {cited}"


def _check_wording(wording: str) -> Iterator[str]:
    words = _MARKER.sub("", "".join(parts(wording)[::2]))
    if not wording or wording != wording.strip() or len(wording) > LONGEST_WORDING:
        yield f"must have 1 to {LONGEST_WORDING} characters and no blank at its ends"
    if "<" in words or ">" in words:
        yield "has a bracket that is no slot: a slot is <a_key> of small letters, digits and _"
    if any(unicodedata.category(c)[0] in "CN" for c in words):
        yield "has a digit or a control character: numbers come from facts"
    if len(set(slots(wording))) != len(slots(wording)):
        yield "shows a fact twice"
    if any(a == "" for a in parts(wording)[2:-1:2]):
        yield "has two slots without a word between them"


def _check_alike(frames: Frames) -> Iterator[str]:
    """No wording may begin with all of another one of its section: whoever reads would not know where a clause ends."""
    for language in LANGUAGES:
        for section in (TITLE, *(h.section for h in frames.headings)):
            said = sorted(
                (_SLOT.sub("<>", wording), f"{clause.id}#{at}")
                for clause in frames.clauses
                if clause.section == section
                for at, wording in enumerate(wordings(clause, language))
            )
            for (text, name), (following, other) in pairwise(said):
                if following.startswith(text):
                    yield f"{language} wordings {name} and {other} say the same or begin alike: {text[:60]!r}"
