"""A report as people change it, clause by clause: another wording of the catalogue, an optional clause left out, or a
person's own words. Own words become a wording of the clause, its facts slots again, that somebody has to accept before
anything is written with it. No I/O."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from protocol.errors import Reason, Refused
from protocol.reports import Report, Section
from protocol.writing.facts import LANGUAGES, Language, Mode, Said
from protocol.writing.frames import (
    LONGEST_WORDING,
    MOST_WORDINGS,
    Clause,
    Frames,
    Heading,
    check,
    parts,
    slots,
    wordings,
)
from protocol.writing.prose import misplaced_facts, strange_claims
from protocol.writing.realise import Alternatives, Facts, licensed, say

MOST_CHARACTERS = 2000
"""Of a sentence that a person wrote; with its facts as slots it must be a wording (LONGEST_WORDING)."""
_MARKER = re.compile(r"\[[0-9]{1,2}\]")
_NUMBER = re.compile(r"\d(?:[\d.,:-]*\d)?")
_SIGNS = "-−–+±"
_FIRST_IDEOGRAPH = "\u2e80"
"""From here on letters stand side by side without blanks."""
_Taken = tuple[int, int, str]
"""begin, end and key of a fact in a sentence."""


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
    """A report's sections as clauses; those in free prose have none and are absent. Raises Refused where nothing is left, or
    for a report that was written without a catalogue."""
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
            continue
        if section.section not in headings or section.section not in said:
            raise Refused(Reason.UNVERIFIED, f"section {section.section!r} of report {report.id} is not licensed")
        clauses = said[section.section]
        found.append(Passage(headings[section.section], facts, clauses, _standing(section, clauses)))
    if not found:
        raise Refused(Reason.BAD_FRAMES, f"report {report.id} is free prose: it has no clauses to change")
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
    if any(unicodedata.category(character)[0] == "C" for character in line):
        raise Refused(Reason.BAD_FRAMES, "the sentence holds a control character that nobody sees: write it anew")
    if "<" in line or ">" in line:
        raise Refused(
            Reason.BAD_FRAMES, "the sentence holds < or >: write the values as they read, without slots or markup"
        )
    keys = slots(clause.en[0])
    shown = {key: facts.text(key, language) for key in keys}
    taken: list[_Taken] = []
    for key in sorted(keys, key=lambda one: -len(shown[one])):
        at = _free(line, shown[key], taken)
        if at is not None:
            taken.append((at, at + len(shown[key]), key))
    _refuse_other_figures(line, taken, shown)
    made, end = "", 0
    for begin, stop, key in _in_order(taken, keys, shown):
        made += line[end:begin] + f"<{key}>"
        end = stop
    made += line[end:]
    if made in wordings(clause, language):
        return made
    fault = _fault(made, clause, language, frames)
    if fault:
        raise Refused(Reason.BAD_FRAMES, f"this cannot become a wording, it {fault}")
    return made


def doubts(wording: str, clause: Clause, language: Language) -> list[str]:
    """What whoever accepts a wording should look at: claims that its clause does not make so far, facts in one another's
    place. They are no proof either way: a rewording that is true may have some."""
    return [*strange_claims(wording, clause, language), *misplaced_facts(wording, clause, language)]


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


def _free(line: str, value: str, taken: Sequence[_Taken]) -> int | None:
    """Where a value first stands by itself and no other one has taken it."""
    at = line.find(value)
    while at >= 0:
        end = at + len(value)
        if _by_itself(line, at, end) and all(at >= stop or end <= begin for begin, stop, _ in taken):
            return at
        at = line.find(value, at + 1)
    return None


def _by_itself(line: str, begin: int, end: int) -> bool:
    """Not inside a word, a longer number or a marker, and no number behind a sign of its own."""
    if any(found.start() <= begin and end <= found.end() for found in _MARKER.finditer(line)):
        return False
    before, after = line[:begin], line[end:]
    if _joins(line[begin]) and (
        (before and _joins(before[-1]))
        or (before[-1:] in (".", ",") and before[-2:-1].isdigit())
        or (line[begin].isdigit() and before and before[-1] in _SIGNS and not before[-2:-1].isalnum())
    ):
        return False
    joined = (after and _joins(after[0])) or (after[:1] in (".", ",") and after[1:2].isdigit())
    return not (_joins(line[end - 1]) and joined)


def _joins(character: str) -> bool:
    """Whether it makes one word or number with a letter or digit beside it."""
    return character.isalnum() and character < _FIRST_IDEOGRAPH


def _refuse_other_figures(line: str, taken: Sequence[_Taken], shown: Mapping[str, str]) -> None:
    """Raises Refused where a fact is missing or stands twice, or a number is no fact."""
    rest, end = "", 0
    for begin, stop, _ in sorted(taken):
        rest += line[end:begin] + " "
        end = stop
    rest = _MARKER.sub(" ", rest + line[end:])
    number = _NUMBER.search(rest)
    strange = number[0] if number else next((c for c in rest if unicodedata.category(c)[0] == "N"), "")
    there = {key for _, _, key in taken}
    missing = next((value for key, value in shown.items() if key not in there), None)
    if missing is not None:
        alike = sum(value == missing for value in shown.values())
        must = f"must still show “{missing}”, {'once' if alike == 1 else f'{alike} times, as so many facts read so'}"
        must += ", by itself" if missing in rest else ""
        what = f"“{strange}” is no fact of this sentence: it {must}" if strange else f"the sentence {must}"
        raise Refused(Reason.MISSING_FACT, what)
    again = next((value for value in shown.values() if _free(line, value, taken) is not None), None)
    if again is not None:
        raise Refused(Reason.BAD_FRAMES, f"the sentence shows “{again}” twice: say it once")
    if strange:
        raise Refused(Reason.BAD_FRAMES, f"“{strange}” is no fact of this sentence: numbers come from facts")


def _in_order(taken: Sequence[_Taken], keys: Sequence[str], shown: Mapping[str, str]) -> list[_Taken]:
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


def _fault(made: str, clause: Clause, language: Language, frames: Frames) -> str:
    """What keeps a text from being a wording, in the words of the catalogue's own rules; "" if nothing does."""
    if len(made) > LONGEST_WORDING:
        return f"has {len(made)} characters with its facts as slots; at most {LONGEST_WORDING}"
    now = next((one for one in frames.clauses if one.id == clause.id), None)
    if now is None:
        return f"is for a clause {clause.id!r} that the catalogue no longer has"
    said = wordings(now, language)
    if len(said) >= MOST_WORDINGS:
        return f"would be one more than the {MOST_WORDINGS} wordings that a clause may have: take one of those"
    section = [text for one in frames.clauses if one.section == clause.section for text in wordings(one, language)]
    bare = _bare(made)
    alike = next((text for text in section if _bare(text).startswith(bare) or bare.startswith(_bare(text))), None)
    if alike is not None:
        return f"begins like “{alike}”, which this section can say: begin it otherwise"
    tried = _added(frames, Wording(clause=clause.id, language=language, text=made))
    faults = check(tried) if tried is not None else []
    return faults[0].removeprefix(f"clause {clause.id!r}, {language} wording {len(said) + 1} ") if faults else ""


def _bare(wording: str) -> str:
    """Its words, every slot alike."""
    return "<>".join(parts(wording)[::2])
