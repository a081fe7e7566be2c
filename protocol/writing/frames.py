"""The catalogue of clauses: what may be said, in which words, and when. It is data: the built-in catalogue is in
`clauses.py`; a bundle carries its own (`frames.json`), and people accept new wordings into it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from protocol.observations import Name, Text

Wordings = Annotated[list[Text], msgspec.Meta(min_length=1, max_length=50)]


class Clause(msgspec.Struct, frozen=True, kw_only=True):
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


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """A section and what it is called."""

    section: Name
    en: Text
    zh: Text


class Frames(msgspec.Struct, frozen=True, kw_only=True):
    """A catalogue. `document`: what it writes ("fault_report", "maintenance_plan"). Clauses of a section are said in the
    order in which they stand here."""

    document: Name
    version: Annotated[int, msgspec.Meta(ge=1)]
    headings: Annotated[list[Heading], msgspec.Meta(min_length=1, max_length=20)]
    clauses: Annotated[list[Clause], msgspec.Meta(min_length=1, max_length=2000)]
