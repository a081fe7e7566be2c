"""Notes, as the agent sees them: what somebody wrote goes in, a reading comes out, and people's answers to it count from the
next note on, with the cable pulled and after a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_agent.runtimes import LoadedModel
from edge_agent.skills import read_notes
from edge_agent.updates import write_durably
from protocol.covariates import KnownInput, from_correction
from protocol.feedback import Feedback
from protocol.names import stable_id
from protocol.observations import WorkOrder
from protocol.reading.notes import Note, NoteReading, PastNote
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
SLOT = "notes.reader"
Held = TypeVar("Held", Note, NoteReading, PastNote)
MOST_NOTES = 500
MOST_ORDERS = 5000


class Kept(msgspec.Struct):
    """What the notebook knows: notes with their readings and the answers to these, and what finished work orders said."""

    notes: dict[str, Note] = {}
    readings: dict[str, NoteReading] = {}
    answers: dict[str, list[Feedback]] = {}
    orders: dict[str, PastNote] = {}


class Notebook:
    """Owner of notebook.json below `folder`. `note` counts. Not thread-safe: the agent's thread only."""

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        self._path, self._note = folder / "notebook.json", note
        self._kept = _restored(self._path, note)
        self._model: LoadedModel | None = None
        self._made = 0
        self._changed = False

    @property
    def results(self) -> int:
        """Readings by the installed model; that it was proven on its golden texts counts as the first."""
        return self._made + (self._model is not None)

    def install(self, model: LoadedModel | None) -> None:
        """Reads with this model from now on, and tells it what it may not know yet; None: nothing is read."""
        self._model, self._made = model, 0
        if model is not None:
            read_notes.learn(model, self._kept.orders.values())
            read_notes.learn(model, (past for past in map(self._taught, self._kept.readings) if past is not None))

    def hear(self, note: Note, now_ms: int) -> NoteReading | None:
        """What is understood of a new note; None for one that is known, or while no model reads. Raises BadMessage for a text
        that is too long."""
        if note.id in self._kept.notes:
            self._note("notes.duplicate")
            return None
        self._note("notes.heard")
        self._keep(self._kept.notes, note.id, note, MOST_NOTES)
        return self._read(note, now_ms)

    def unread(self, now_ms: int, most: int = 20) -> list[NoteReading]:
        """Readings of notes that came before there was a model, some at a time."""
        if self._model is None:
            return []
        read = {reading.note for reading in self._kept.readings.values()}
        waiting = [note for note in self._kept.notes.values() if note.id not in read][:most]
        return [made for made in (self._read(note, now_ms) for note in waiting) if made is not None]

    def finished(self, order: WorkOrder) -> None:
        """A finished work order with words on it is a past case from now on."""
        past = read_notes.finished(order)
        if past is None:
            return
        self._keep(self._kept.orders, past.case, past, MOST_ORDERS)
        if self._model is not None:
            read_notes.learn(self._model, [past])

    def answered(self, feedback: Feedback) -> list[KnownInput]:
        """What an answer to a reading tells a forecast; the next note is read with it. Nothing for an answer to something
        else, and nothing for one that is known."""
        reading = self._kept.readings.get(feedback.target)
        given = self._kept.answers.setdefault(feedback.target, []) if reading is not None else []
        if reading is None or any(one.id == feedback.id for one in given):
            return []
        given.append(feedback)
        self._changed = True
        self.keep()
        past = self._taught(reading.id)
        if past is not None and self._model is not None:
            read_notes.learn(self._model, [past])
        return from_correction(feedback, reading)

    def authors(self) -> set[str]:
        """Who wrote the notes that are kept."""
        return {note.author for note in self._kept.notes.values()}

    def about(self, machine: str, since_ms: int) -> NoteReading | None:
        """The newest reading of a note on a machine written since then."""
        found = [r for r in self._kept.readings.values() if r.machine == machine and self._written_ms(r) >= since_ms]
        return max(found, key=self._written_ms, default=None)

    def keep(self) -> None:
        """To the disk, if anything changed."""
        if not self._changed:
            return
        try:
            write_durably(self._path, msgspec.json.encode(self._kept))
            self._changed = False
        except OSError as error:
            self._note("not_saved.notebook")
            log.warning("%s was not saved: %s", self._path, error)

    def _read(self, note: Note, now_ms: int) -> NoteReading | None:
        if self._model is None:
            return None
        reading = read_notes.read(note, self._model, now_ms)
        if reading is not None:
            self._made += 1
            self._note("notes.read")
            self._keep(self._kept.readings, reading.id, reading, MOST_NOTES)
        return reading

    def _keep(self, held: dict[str, Held], name: str, what: Held, most: int) -> None:
        held[name] = what
        while len(held) > most:
            oldest = next(iter(held))
            del held[oldest]
            self._kept.answers.pop(oldest, None)
        self._changed = True

    def _written_ms(self, reading: NoteReading) -> int:
        note = self._kept.notes.get(reading.note)
        return reading.issued_ms if note is None else note.time_ms

    def _taught(self, reading_id: str) -> PastNote | None:
        reading = self._kept.readings[reading_id]
        note, given = self._kept.notes.get(reading.note), self._kept.answers.get(reading_id)
        return read_notes.corrected(note, reading, given) if note is not None and given else None


def note_of(feedback: Feedback, machine: str) -> Note | None:
    """A comment on an answer is a note, too; None where nothing was written or nobody knows of which machine."""
    if not feedback.comment.strip() or not machine:
        return None
    return Note(
        id=stable_id("note", feedback.id),
        machine=machine,
        time_ms=feedback.time_ms,
        text=feedback.comment,
        author=feedback.author,
        about=feedback.target,
        via="console" if feedback.via == "console" else "shop",
    )


def _restored(path: Path, note: Callable[[str], None]) -> Kept:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept()
    except (*UNREADABLE, OSError) as error:
        note("refused.notebook")
        log.warning("%s is not readable, the notebook begins anew: %s", path, error)
        return Kept()
