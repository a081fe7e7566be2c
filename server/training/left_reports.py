"""Reports as somebody left them: what a writer learns its manner from, and what it is judged by.

People's own come from the product: a report, and which wordings stood in it when a person was done. Where there are none yet,
reports are made up from the catalogue alone: facts under which some of its clauses hold, worded by chance (the catalogue's
language without a taste), or in the house style:

    an alarm is short: of every clause the shortest wording, and nothing that may be left out
    a warning is plain: the wording of middle length, and what may be left out is said if little else is
    everything else is full: the longest wording, and all that may be said"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from protocol.writing.facts import LANGUAGES, Fact, Kind, Language
from protocol.writing.frames import TITLE, Clause, Frames, wordings
from protocol.writing.prompt import lead, named_values, prefix, words
from protocol.writing.realise import BETWEEN, Alternatives, Facts, licensed
from protocol.writing.strict import turn
from server.evaluation_writing import EditedReport, EditedSection
from server.left import LeftReport

Encode = Callable[[str], Sequence[int]]
LITTLE = 3
"""So many clauses of a section, or fewer, are little."""


def asked(report: LeftReport, frames: Frames, language: Language) -> list[Alternatives]:
    """What could be chosen from, section by section; the title is not chosen."""
    known = Facts(report.facts)
    said = licensed(frames, known)
    order = [heading.section for heading in frames.headings if heading.section in said]
    whole = [Alternatives(section, language, known, said[section]) for section in order]
    if language == "en":
        return whole
    kept = [name.partition("#")[0] for name in report.clauses["en"]]
    return [each.only(kept) for each in whole if any(clause.id in kept for clause in each.clauses)]


def chosen(report: LeftReport, language: Language) -> dict[str, int]:
    """Clause -> wording."""
    found = {}
    for name in report.clauses[language]:
        clause, _, wording = name.partition("#")
        found[clause] = int(wording)
    return found


def sections(report: LeftReport, frames: Frames, language: Language) -> list[tuple[str, str]]:
    """(what the model is told, what was written) of every section, slots unfilled. Raises KeyError for a clause that its
    facts do not license."""
    left = chosen(report, language)
    rows = []
    for each in asked(report, frames, language):
        said = [wordings(c, language)[left.pop(c.id)] for c in each.clauses if c.id in left]
        if said:
            told = prefix(frames, report.facts) + lead(each.section, language)
            rows.append((told, words(BETWEEN[language].join(said), language)))
    if left:
        raise KeyError(
            f"clauses {sorted(left)} are not licensed by the report's facts: it was made with another catalogue"
        )
    return rows


def judged(report: LeftReport, frames: Frames, language: Language, encode: Encode) -> EditedReport:
    """The report as the gate reads it."""
    left = chosen(report, language)
    found = []
    for each in asked(report, frames, language):
        turns = tuple(turn(c, language, encode, optional=each.may_omit(at)) for at, c in enumerate(each.clauses))
        said = tuple((at, left[c.id]) for at, c in enumerate(each.clauses) if c.id in left)
        if said:
            found.append(EditedSection(tuple(encode(lead(each.section, language))), turns, said))
    return EditedReport(language, tuple(encode(prefix(frames, report.facts))), tuple(found))


def longest_section(report: EditedReport) -> int:
    """Most tokens that any licensed section of it takes, what the model is told included."""
    return max(
        len(report.prefix) + len(each.lead) + sum(max(map(len, turn.wordings)) for turn in each.turns)
        for each in report.sections
    )


def made_up(frames: Frames, seed: int, facts: Sequence[Fact] | None = None, *, styled: bool) -> LeftReport:
    """A report of invented facts (or of these), in the house style or worded by chance."""
    draw = random.Random(seed)  # noqa: S311 - lessons, not secrets
    told = list(facts) if facts is not None else invented(frames, draw)
    clauses: dict[Language, list[str]] = {language: [] for language in LANGUAGES}
    for each in asked(LeftReport(told, clauses, frames.document), frames, "en"):
        ways = _in_style(each) if styled else _by_chance(each, draw)
        for language in LANGUAGES:
            clauses[language] += [f"{clause.id}#{way(wordings(clause, language))}" for clause, way in ways]
    return LeftReport(told, clauses, frames.document)


def invented(frames: Frames, draw: random.Random) -> list[Fact]:
    """Facts under which a title and some of the other clauses hold. Numbers and names are placeholders: what a writer is told
    has none, and what it writes has slots in their place."""
    values: dict[str, str] = {}
    known: set[str] = set()
    forbidden: set[str] = set()

    def admit(clause: Clause) -> None:
        wanted = {*clause.needs, *clause.when}
        if wanted & forbidden or set(clause.unless) & (known | values.keys()):
            return
        if all(values.get(key, allowed[0]) in allowed for key, allowed in clause.when.items()):
            for key, allowed in clause.when.items():
                values.setdefault(key, draw.choice(allowed))
            known.update(clause.needs)
            forbidden.update(clause.unless)

    titles = [clause for clause in frames.clauses if clause.section == TITLE]
    admit(draw.choice(titles))
    rest = [clause for clause in frames.clauses if clause.section != TITLE]
    for clause in draw.sample(rest, len(rest)):
        if draw.random() < 0.5:
            admit(clause)
    for key, named in named_values(frames).items():
        if key in known:
            values.setdefault(key, draw.choice(sorted(named)))
    categories = [Fact(key=key, kind=Kind.CATEGORY, value=value) for key, value in sorted(values.items())]
    return categories + [Fact(key=key, kind=Kind.NUMBER, value=1.0) for key in sorted(known - values.keys())]


Way = Callable[[Sequence[str]], int]


def _in_style(each: Alternatives) -> list[tuple[Clause, Way]]:
    severity = each.facts.value("severity")
    place = {"alarm": 0.0, "warning": 0.5}.get(str(severity), 1.0)
    brief = severity == "alarm" or (severity == "warning" and len(each.clauses) > LITTLE)
    said = [c for at, c in enumerate(each.clauses) if not (brief and each.may_omit(at))] or list(each.clauses[:1])

    def way(texts: Sequence[str]) -> int:
        by_length = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        return by_length[round(place * (len(texts) - 1))]

    return [(clause, way) for clause in said]


def _by_chance(each: Alternatives, draw: random.Random) -> list[tuple[Clause, Way]]:
    said = [c for at, c in enumerate(each.clauses) if not each.may_omit(at) or draw.random() < 0.5]
    return [(clause, lambda texts: draw.randrange(len(texts))) for clause in said or each.clauses[:1]]
