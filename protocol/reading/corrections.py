"""What people answer to a reading becomes a label, the same on the gateway at once and on the server at the next training.

A correction names the question and the class that is right, "failure:leak"; without a known question in front it means the
failure mode. An acceptance says that the first class of what was asked (all that was read, if nothing is named) is right.
A rejection says only that it is wrong: that is no label."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.feedback import Feedback, Verdict
from protocol.reading.notes import About, Note, NoteReading, PastNote

LONGEST_CLASS = 128


def corrected(correction: str) -> tuple[About, str] | None:
    """(question, class) of a correction; None if it names no class."""
    about, colon, name = correction.partition(":")
    known = bool(colon) and about.strip() in set(About)
    said = (name if known else correction).strip()[:LONGEST_CLASS]
    return (About(about.strip()) if known else About.FAILURE, said) if said else None


def said_of(reading: NoteReading, answers: Iterable[Feedback]) -> dict[str, str]:
    """Question -> class, as people said; the last answer to a question stands, and a rejection takes a label away."""
    first = {judged.about: judged.classes[0].name for judged in reading.judged}
    said: dict[str, str] = {}
    for answer in sorted(answers, key=lambda one: (one.time_ms, one.id)):
        about = [one for one in first if answer.item in ("", one.value)]
        if answer.verdict is Verdict.CORRECTED:
            told = corrected(answer.correction)
            if told is not None:
                said[told[0].value] = told[1]
        elif answer.verdict is Verdict.ACCEPTED:
            said |= {one.value: first[one] for one in about}
        elif answer.verdict is Verdict.REJECTED:
            for one in about:
                said.pop(one.value, None)
    return said


def taught(note: Note, reading: NoteReading, answers: Iterable[Feedback]) -> PastNote | None:
    """A corrected or accepted note as a past case; None where nobody said what is right."""
    told = list(answers)
    said = said_of(reading, told)
    if not said:
        return None
    right = any(one.verdict is Verdict.CORRECTED for one in told)
    return PastNote(case=note.id, text=note.text, said=dict(said.items()), taught=right)
