"""A note is what somebody wrote; a reading is what was understood of it, with how sure, and which words decided."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from protocol.names import MessageClass
from protocol.observations import Name, Text, TimeMs
from protocol.reports import Contribution, ModelRef

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Place = Annotated[int, msgspec.Meta(ge=0, le=4000)]


class About(StrEnum):
    """What a reader says of a note, each with classes of its own."""

    FAILURE = "failure"
    EVENT = "event"
    URGENCY = "urgency"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Words of an operator or a maintainer about a machine. `author` is a pseudonym. `about`: id of the report, event or work
    order that it was written to, where it was. `via`: where it was written."""

    type_name: ClassVar[str] = "millwright.note.v1"
    message_class: ClassVar[MessageClass] = MessageClass.FEEDBACK

    id: Name
    machine: Name
    time_ms: TimeMs
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=4000)]
    author: Annotated[str, msgspec.Meta(max_length=64)] = ""
    about: Annotated[str, msgspec.Meta(max_length=128)] = ""
    via: Annotated[str, msgspec.Meta(pattern="^(shop|panel|console|order)$")] = "shop"


class Class(msgspec.Struct, frozen=True):
    """One possible class and its calibrated chance."""

    name: Name
    probability: Probability


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a note is said to be: the likeliest classes, best first. `sure`: the first one's chance reaches what the model
    was measured to need; otherwise the answer is "I am not sure" and the classes are what it wavers between.
    score = baseline + the sum of all contributions, exactly, for the first class (in log odds against the second); `words`
    are the strongest of them, each "start:end" in the note's text, or a part that cannot be told from its words
    ("encoder", "like:WO-17": a past case that shares no word)."""

    about: About
    classes: Annotated[list[Class], msgspec.Meta(min_length=1, max_length=10)]
    sure: bool
    score: float = 0.0
    baseline: float = 0.0
    words: Annotated[list[Contribution], msgspec.Meta(max_length=50)] = []


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the note's text that names something; entities may overlap."""

    start: Place
    end: Place
    kind: Name
    probability: Probability = 1.0


class LikeNote(msgspec.Struct, frozen=True, kw_only=True):
    """A past case whose note says something alike, and what fixed it then."""

    case: Name
    similarity: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    text: Text = ""
    failure: Annotated[str, msgspec.Meta(max_length=128)] = ""
    fixed_by: Annotated[list[Name], msgspec.Meta(max_length=20)] = []


class NoteReading(msgspec.Struct, frozen=True, kw_only=True):
    """What was understood of a note. `normalised`: its words written out in full. A correction is a `Feedback` whose target
    is this reading's id, with the class that is right ("failure:leak"); it becomes a label."""

    type_name: ClassVar[str] = "millwright.note_reading.v1"
    message_class: ClassVar[MessageClass] = MessageClass.REPORT

    id: Name
    note: Name
    machine: Name
    issued_ms: TimeMs
    judged: Annotated[list[Judged], msgspec.Meta(max_length=5)] = []
    entities: Annotated[list[Entity], msgspec.Meta(max_length=100)] = []
    normalised: Text = ""
    like: Annotated[list[LikeNote], msgspec.Meta(max_length=10)] = []
    model: ModelRef


class PastNote(msgspec.Struct, frozen=True, kw_only=True):
    """A note whose case is closed. said: what it was, question -> class ("failure" -> "leak"). fixed_by: what was done
    ("action:replace-seal"). taught: a person has corrected a reading to this."""

    case: Name
    text: Text
    said: dict[Name, Name] = {}
    fixed_by: Annotated[list[Name], msgspec.Meta(max_length=20)] = []
    taught: bool = False


class ReaderSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Travels inside a note reader's bundle. classes: about -> names of its classes. sure_from: about -> the chance from
    which on the reader is sure. parts: about -> which of "words" (character and word counts, linear), "encoder" (the
    graph) and "cases" (nearest notes) earn their place there, as measured. entities: kinds of entities. languages: those
    that it was measured on."""

    classes: dict[Name, Annotated[list[Name], msgspec.Meta(min_length=1, max_length=1000)]] = {}
    sure_from: dict[Name, Probability] = {}
    parts: dict[Name, list[Name]] = {}
    entities: Annotated[list[Name], msgspec.Meta(max_length=300)] = []
    languages: Annotated[list[Name], msgspec.Meta(max_length=20)] = []
    width: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    """Length of the encoder's vectors; 0: no encoder."""
    context: Annotated[int, msgspec.Meta(ge=0, le=8192)] = 0
    """Most tokens that the encoder reads; the rest of a note is left, and said so."""
