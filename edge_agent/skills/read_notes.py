"""What a note says: what failed with a chance or "I am not sure", what it names, what was alike, and the words that decided.
A person's correction counts from the next note on, on this gateway, with the cable pulled. No I/O.

A note that nothing can be made of is read all the same: the answer is then that the reader is not sure."""

from __future__ import annotations

from collections.abc import Iterable

from edge_agent.runtimes import LoadedModel
from protocol.feedback import Feedback
from protocol.names import stable_id
from protocol.observations import WorkOrder
from protocol.reading.corrections import taught
from protocol.reading.notes import About, Note, NoteReading, PastNote


def read(note: Note, model: LoadedModel, now_ms: int) -> NoteReading | None:
    """A reading; None if the model is no reader. The same note read again by the same model has the same id. Raises
    BadMessage (too_large) for a text beyond what can be read."""
    if model.reader is None:
        return None
    return model.reader.read(note, now_ms, model.ref, name=stable_id("reading", note.id, model.digest))


def learn(model: LoadedModel, past: Iterable[PastNote]) -> int:
    """Past notes join the reader's nearest cases; how many there were. After a new bundle they are to be told again, where it
    was not trained on them."""
    count = 0
    if model.reader is not None:
        for one in past:
            model.reader.teach(one)
            count += 1
    return count


def corrected(note: Note, reading: NoteReading, answers: Iterable[Feedback]) -> PastNote | None:
    """What people's answers to a reading teach; None where nobody said what is right."""
    return taught(note, reading, answers)


def finished(order: WorkOrder) -> PastNote | None:
    """A finished work order as a past case; None where nothing was written on it."""
    if not order.note.strip():
        return None
    said = {About.FAILURE.value: order.failure_mode} if order.failure_mode else {}
    fix = [f"action:{name}"[:128] for name in order.actions] + [f"part:{name}"[:128] for name in order.parts]
    return PastNote(case=order.id, text=order.note, said=said, fixed_by=fix[:20])
