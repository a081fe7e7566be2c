"""From facts to sentences: which clauses may be said, how a wording reads with its facts filled in, and the whole report.

A writer is asked section by section, language by language; it gets the `Alternatives` and answers what was `Said`. The
template says the first wording of every clause. English is asked first; Chinese then has the clauses that English chose,
so that both languages say the same facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from protocol.errors import Reason, Refused
from protocol.reports import Section
from protocol.writing.facts import Fact, Kind, Language, Mode, Said, Span, render
from protocol.writing.frames import TITLE, Clause, Frames, Heading, markers, parts, wordings

BETWEEN: Mapping[Language, str] = {"en": " ", "zh": ""}
"""What stands between two clauses of a section."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A wording with its facts in place; spans count from the start of `text`."""

    clause: str
    wording: int
    text: str
    spans: tuple[Span, ...]

    @property
    def name(self) -> str:
        """As a section names it: "what.above#2" is the third wording."""
        return f"{self.clause}#{self.wording}"


class Facts:
    """A report's facts by key, each rendered once. Raises Refused where a key stands twice."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.all = list(facts)
        self.at = {fact.key: number for number, fact in enumerate(self.all)}
        if len(self.at) != len(self.all):
            twice = sorted({f.key for n, f in enumerate(self.all) if self.at[f.key] != n})
            raise Refused(Reason.WRONG_TYPE, f"facts {twice} stand twice; a key has one value")
        self._rendered: dict[tuple[str, Language], str] = {}

    def __contains__(self, key: object) -> bool:
        return key in self.at

    def value(self, key: str) -> float | str | None:
        """A fact's value, None where it is not known."""
        return self.all[self.at[key]].value if key in self.at else None

    def text(self, key: str, language: Language) -> str:
        """A fact as it stands in a sentence. Raises Refused."""
        found = self._rendered.get((key, language))
        if found is None:
            found = self._rendered[key, language] = render(self.all[self.at[key]], language)
        return found

    def license(self, clause: Clause) -> bool:
        """Whether a clause is true: what it needs is known, its categories have the values it names, nothing forbids it."""
        return (
            all(key in self.at for key in clause.needs)
            and not any(key in self.at for key in clause.unless)
            and all(self._category(key) in values for key, values in clause.when.items())
        )

    def _category(self, key: str) -> float | str | None:
        fact = self.all[self.at[key]] if key in self.at else None
        return fact.value if fact is not None and fact.kind is Kind.CATEGORY else None

    def fill(self, clause: Clause, wording: int, language: Language) -> Filled:
        """One wording with its facts in place. Raises Refused where a fact cannot be rendered."""
        text, spans = "", []
        for number, part in enumerate(parts(wordings(clause, language)[wording])):
            shown = self.text(part, language) if number % 2 else part
            if number % 2:
                spans.append(Span(len(text), len(text) + len(shown), self.at[part]))
            text += shown
        return Filled(clause.id, wording, text, tuple(spans))


@dataclass(frozen=True)
class Alternatives:
    """What a writer is asked: the clauses that may be said in a section, in order, and in which language."""

    section: str
    language: Language
    facts: Facts
    clauses: tuple[Clause, ...]
    optional: bool = True
    """Whether clauses that are not mandatory may be left out."""

    @cached_property
    def options(self) -> tuple[tuple[Filled, ...], ...]:
        """options[i][j]: wording j of clause i, filled."""
        return tuple(
            tuple(self.facts.fill(clause, j, self.language) for j in range(len(wordings(clause, self.language))))
            for clause in self.clauses
        )

    def may_omit(self, at: int) -> bool:
        """Whether clause `at` may be left out."""
        return self.optional and not self.clauses[at].mandatory

    def only(self, names: Iterable[str]) -> Alternatives:
        """The same with just these clauses, each of which must be said."""
        kept = set(names)
        return replace(self, clauses=tuple(c for c in self.clauses if c.id in kept), optional=False)


Writer = Callable[[Alternatives], Said]
"""Answers one section in one language: a template, a language model that chooses wordings, or one that writes prose."""
Checked = Callable[[Alternatives, Said], Sequence[object]]
"""What is wrong with an answer; empty: nothing (`protocol.writing.verify.complaints_of`)."""


def template(asked: Alternatives) -> Said:
    """Every clause in its first wording."""
    return say(asked, [0] * len(asked.clauses), Mode.TEMPLATE)


def say(asked: Alternatives, chosen: Sequence[int | None], mode: Mode) -> Said:
    """The text of chosen wordings, one number a clause; None leaves an optional clause out. Raises Refused where a
    mandatory one is left out or a wording does not exist."""
    if len(chosen) != len(asked.clauses):
        raise Refused(Reason.WRONG_TYPE, f"{len(chosen)} choices for {len(asked.clauses)} clauses of {asked.section!r}")
    text, spans, names = "", [], []
    for at, wording in enumerate(chosen):
        if wording is None:
            if not asked.may_omit(at):
                raise Refused(Reason.MISSING_FACT, f"clause {asked.clauses[at].id!r} must be said")
            continue
        if not 0 <= wording < len(wordings(asked.clauses[at], asked.language)):
            raise Refused(Reason.WRONG_TYPE, f"clause {asked.clauses[at].id!r} has no wording {wording}")
        filled = asked.facts.fill(asked.clauses[at], wording, asked.language)
        text += BETWEEN[asked.language] if text else ""
        spans += [Span(s.start + len(text), s.end + len(text), s.fact) for s in filled.spans]
        text += filled.text
        names.append(filled.name)
    return Said(text=text, spans=spans, clauses=names, mode=mode)


def licensed(frames: Frames, facts: Facts) -> dict[str, tuple[Clause, ...]]:
    """Section -> the clauses that the facts license, in order; sections without any are absent, the title is among them."""
    found: dict[str, list[Clause]] = {}
    for clause in frames.clauses:
        if facts.license(clause):
            found.setdefault(clause.section, []).append(clause)
    return {section: tuple(clauses) for section, clauses in found.items()}


@dataclass(frozen=True)
class Written:
    """A document's words, before they become a report. fell_back: what was wrong with answers that the template replaced,
    by section and language."""

    title_en: str
    title_zh: str
    sections: list[Section]
    fell_back: dict[tuple[str, Language], str]


def write_document(
    frames: Frames, facts: Sequence[Fact], writer: Writer = template, checked: Checked | None = None
) -> Written:
    """Title and sections of what the facts license. An answer that `checked` complains of is replaced by the template, in
    both languages. Raises Refused (missing_fact) where the catalogue has no title for these facts or a fact cannot be
    rendered, and whatever the writer raises."""
    known = Facts(facts)
    said = licensed(frames, known)
    if TITLE not in said:
        keys = {key for c in frames.clauses if c.section == TITLE for key in (*c.needs, *c.when)}
        unknown = ", ".join(sorted(key for key in keys if key not in known)) or "none of its conditions holds"
        what = f"{frames.document} version {frames.version} has no title for these facts; not known: {unknown}"
        raise Refused(Reason.MISSING_FACT, what)
    fell_back: dict[tuple[str, Language], str] = {}
    sections = [
        _section(heading, Alternatives(heading.section, "en", known, said[heading.section]), writer, checked, fell_back)
        for heading in frames.headings
        if heading.section in said
    ]
    first = said[TITLE][0]
    return Written(known.fill(first, 0, "en").text, known.fill(first, 0, "zh").text, sections, fell_back)


def _section(
    heading: Heading,
    asked: Alternatives,
    writer: Writer,
    checked: Checked | None,
    fell_back: dict[tuple[str, Language], str],
) -> Section:
    en = writer(asked)
    in_chinese = replace(asked, language="zh")
    same = in_chinese.only(name.partition("#")[0] for name in en.clauses) if en.clauses else in_chinese
    zh = writer(same)
    for which, answer in ((asked, en), (same, zh)):
        wrong = checked(which, answer) if checked is not None else ()
        if wrong:
            fell_back[heading.section, which.language] = str(wrong[0])
    different = {s.fact for s in en.spans} != {s.fact for s in zh.spans}
    if different:
        fell_back.setdefault((heading.section, "zh"), "the two languages say different facts")
    if any(section == heading.section for section, _ in fell_back):
        en, zh = template(asked), template(in_chinese)
    return section_of(heading, asked.facts, en, zh)


def section_of(heading: Heading, facts: Facts, en: Said, zh: Said) -> Section:
    """A section of a report in both languages; it cites what its markers say."""
    return Section(
        title_en=heading.en,
        title_zh=heading.zh,
        text_en=en.text,
        text_zh=zh.text,
        cites=sorted({n - 1 for n in markers(outside(en.text, en.spans))}),
        section=heading.section,
        clauses_en=en.clauses,
        clauses_zh=zh.clauses,
        spans_en=en.spans,
        spans_zh=zh.spans,
        mode_en=en.mode,
        mode_zh=zh.mode,
    )


def outside(text: str, spans: Sequence[Span]) -> str:
    """The words of a text without what facts filled in; a blank stands in each one's place."""
    kept, at = [], 0
    for span in sorted(spans, key=lambda s: s.start):
        kept.append(text[at : span.start])
        at = max(at, span.end)
    return " ".join([*kept, text[at:]])
