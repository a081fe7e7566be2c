"""A report as people change it, clause by clause: another wording of the catalogue, an optional clause left out, or a
person's own words. Own words become a wording of the clause, its facts slots again, that somebody has to accept before
anything is written with it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from protocol.errors import Reason, Refused
from protocol.reports import Report, Section
from protocol.writing.facts import LANGUAGES, Language, Mode, Said
from protocol.writing.frames import LONGEST_WORDING, Clause, Frames, Heading, check, slots, wordings
from protocol.writing.prose import strange_claims
from protocol.writing.realise import Alternatives, Facts, licensed, say

MOST_CHARACTERS = 2000
"""Of a sentence that a person wrote; with its facts as slots it must be a wording (LONGEST_WORDING)."""


@dataclass(frozen=True)
class Passage:
    """A section of a report: the clauses that its facts license, and in which words each stands there, slots unfilled
    (absent: left out)."""

    heading: Heading
    facts: Facts
    clauses: tuple[Clause, ...]
    said: Mapping[Language, Mapping[str, str]]

    def may_omit(self, clause: str) -> bool:
        """Whether a report may go without it."""
        return any(one.id == clause and not one.mandatory for one in self.clauses)


class Wording(msgspec.Struct, frozen=True, kw_only=True):
    """One more wording of a clause, with slots."""

    clause: str
    language: Language
    text: str


def passages(report: Report, frames: Frames) -> list[Passage]:
    """A report's sections as clauses. Raises Refused for one that was written in free prose, or without a catalogue."""
    if not report.frames:
        raise Refused(
            Reason.BAD_FRAMES, f"report {report.id} was written without a catalogue: it has no clauses to change"
        )
    facts = Facts(report.facts)
    said = licensed(frames, facts)
    headings = {heading.section: heading for heading in frames.headings}
    found = []
    for section in report.sections:
        if Mode.FREE in (section.mode_en, section.mode_zh):
            raise Refused(
                Reason.BAD_FRAMES,
                f"section {section.section!r} of report {report.id} is free prose: it has no clauses to change",
            )
        if section.section not in headings or section.section not in said:
            raise Refused(Reason.UNVERIFIED, f"section {section.section!r} of report {report.id} is not licensed")
        clauses = said[section.section]
        found.append(Passage(headings[section.section], facts, clauses, _standing(section, clauses)))
    return found


def changed(passage: Passage, kept: Sequence[str]) -> list[str]:
    """The clauses that stand after a change, in the passage's order, in both languages. Raises Refused for one that must be
    said and is not, that is not licensed here, or that stands twice."""
    known = {clause.id for clause in passage.clauses}
    strange = [name for name in kept if name not in known]
    if strange or len(set(kept)) != len(kept):
        raise Refused(
            Reason.BAD_FRAMES,
            f"clauses {sorted(strange) or list(kept)} of {passage.heading.section!r}: "
            f"name each once, of {sorted(known)}",
        )
    missing = [clause.id for clause in passage.clauses if clause.id not in kept and clause.mandatory]
    if missing:
        raise Refused(Reason.MISSING_FACT, f"{missing[0]!r} must be said: what it says may not be left out of a report")
    return [clause.id for clause in passage.clauses if clause.id in kept]


def spoken(passage: Passage, language: Language, standing: Mapping[str, str]) -> Said:
    """The section's text where each clause stands in these words (clause -> a wording with slots)."""
    said = tuple(
        msgspec.structs.replace(clause, **{language: [standing[clause.id]]})
        for clause in passage.clauses
        if clause.id in standing
    )
    asked = Alternatives(passage.heading.section, language, passage.facts, said)
    return say(asked, [0] * len(said), Mode.TEMPLATE)


def as_wording(text: str, clause: Clause, language: Language, facts: Facts, frames: Frames) -> str:
    """A person's sentence as a wording of its clause: each fact that the clause shows, found in the text as it reads there,
    becomes its slot. Raises Refused with what to change; facts that read alike are taken in the clause's order."""
    line = " ".join(text.split())
    if not line:
        raise Refused(Reason.BAD_FRAMES, "the sentence is empty: write it, or leave the clause out")
    if len(line) > MOST_CHARACTERS:
        raise Refused(Reason.TOO_LARGE, f"a sentence of {len(line)} characters; at most {MOST_CHARACTERS}")
    if "<" in line or ">" in line:
        raise Refused(
            Reason.BAD_FRAMES, "the sentence holds < or >: write the values as they read, without slots or markup"
        )
    keys = slots(clause.en[0])
    shown = {key: facts.text(key, language) for key in keys}
    taken: list[tuple[int, int, str]] = []
    for key in sorted(keys, key=lambda one: -len(shown[one])):
        at = _free(line, shown[key], taken)
        if at is None:
            raise Refused(Reason.MISSING_FACT, f"the sentence must still show “{shown[key]}”, once")
        taken.append((at, at + len(shown[key]), key))
    taken = _in_order(taken, keys, shown)
    made, rest, end = "", "", 0
    for begin, stop, key in taken:
        made += line[end:begin] + f"<{key}>"
        rest += line[end:begin] + "\n"
        end = stop
    made, rest = made + line[end:], rest + line[end:]
    again = next((value for value in shown.values() if value in rest), None)
    if again is not None:
        raise Refused(Reason.BAD_FRAMES, f"the sentence shows “{again}” twice: say it once")
    if made in wordings(clause, language):
        return made
    faults = _faults(made, clause, language, frames)
    if faults:
        raise Refused(Reason.BAD_FRAMES, f"this cannot become a wording: it {faults[0]}")
    return made


def doubts(wording: str, clause: Clause, language: Language) -> list[str]:
    """What whoever accepts a wording should look at."""
    return strange_claims(wording, clause, language)


def with_wordings(frames: Frames, accepted: Sequence[Wording]) -> tuple[Frames, list[Wording]]:
    """The next catalogue, and what does not fit it: a wording of a clause that is gone, that has other slots by now, or that
    stands there already. Its version counts the wordings on."""
    made, left = frames, []
    for one in accepted:
        tried = _added(made, one)
        if tried is None or check(tried):
            left.append(one)
        else:
            made = tried
    return made, left


def _standing(section: Section, clauses: Sequence[Clause]) -> dict[Language, dict[str, str]]:
    known = {clause.id: clause for clause in clauses}
    found: dict[Language, dict[str, str]] = {}
    for language, names in zip(LANGUAGES, (section.clauses_en, section.clauses_zh), strict=True):
        numbered = [name.partition("#")[::2] for name in names]
        found[language] = {clause: wordings(known[clause], language)[int(number)] for clause, number in numbered}
    return found


def _free(line: str, value: str, taken: Sequence[tuple[int, int, str]]) -> int | None:
    """Where a value first stands that no other one has taken."""
    at = line.find(value)
    while at >= 0:
        if all(at >= stop or at + len(value) <= begin for begin, stop, _ in taken):
            return at
        at = line.find(value, at + 1)
    return None


def _in_order(
    taken: Sequence[tuple[int, int, str]], keys: Sequence[str], shown: Mapping[str, str]
) -> list[tuple[int, int, str]]:
    """By place; of facts that read alike, the one that the clause shows first stands first."""
    found = sorted(taken)
    for value in set(shown.values()):
        alike = [key for key in keys if shown[key] == value]
        places = [i for i, (_, _, key) in enumerate(found) if shown[key] == value]
        for i, key in zip(places, alike, strict=True):
            found[i] = (found[i][0], found[i][1], key)
    return found


def _added(frames: Frames, one: Wording) -> Frames | None:
    at = next((i for i, clause in enumerate(frames.clauses) if clause.id == one.clause), None)
    if at is None or one.text in wordings(frames.clauses[at], one.language):
        return None
    more = [*wordings(frames.clauses[at], one.language), one.text]
    clause = msgspec.structs.replace(frames.clauses[at], **{one.language: more})
    clauses = [*frames.clauses[:at], clause, *frames.clauses[at + 1 :]]
    return msgspec.structs.replace(frames, clauses=clauses, version=frames.version + 1)


def _faults(made: str, clause: Clause, language: Language, frames: Frames) -> list[str]:
    """In the words of the catalogue's own rules, without the place, which the person sees."""
    if len(made) > LONGEST_WORDING:
        return [f"has {len(made)} characters with its facts as slots; at most {LONGEST_WORDING}"]
    tried = _added(frames, Wording(clause=clause.id, language=language, text=made))
    if tried is None:
        return [f"is for a clause {clause.id!r} that the catalogue no longer has"]
    where = f"clause {clause.id!r}, {language} wording {len(wordings(clause, language)) + 1} "
    return [fault.removeprefix(where) for fault in check(tried)]
