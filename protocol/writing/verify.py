"""Reads a written report back. Every sentence must be a clause that the report's facts license, every figure and name a fact
that renders exactly so, every fact what the evidence says; nothing else may stand in the text. No I/O, time linear in the
text: whoever holds the report and the catalogue can do this anywhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from protocol.errors import Refused
from protocol.reports import Report, Section
from protocol.writing import fault_report
from protocol.writing.facts import LANGUAGES, Fact, Kind, Mode, Said, Span
from protocol.writing.frames import TITLE, Clause, Frames, markers, reference, wordings
from protocol.writing.prose import doubts
from protocol.writing.realise import BETWEEN, Alternatives, Facts, licensed, outside, say

MOST_COMPLAINTS = 50
MEANING: Mapping[str, Callable[[Report], Iterator[str]]] = {fault_report.DOCUMENT: fault_report.disagreements}
"""document -> what its facts must agree with."""

_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


class Rule(StrEnum):
    """What a report broke."""

    CATALOGUE = "catalogue"
    FACTS = "facts"
    EVIDENCE = "evidence"
    SOURCES = "sources"
    TITLE = "title"
    SECTIONS = "sections"
    CLAUSES = "clauses"
    TEXT = "text"
    SPANS = "spans"
    LANGUAGES = "languages"
    CITES = "cites"
    CHARACTERS = "characters"
    CLAIMS = "claims"


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is not so. where: "what_happened/en", "facts", …"""

    rule: Rule
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.detail} ({self.rule})"


def verify(
    report: Report,
    frames: Frames,
    sources: Sequence[Fact] | None = None,
    beside: Sequence[fault_report.Source] = (),
) -> list[Complaint]:
    """What is not true of a report; empty: every claim was read back. `sources`: its facts computed anew from the event,
    the forecast and the recommendation (`fault_report.facts_of`), where the reader has them all; `beside`: those sources
    that he has. At most 50 complaints."""
    if report.frames != reference(frames):
        told = report.frames or "no catalogue"
        return [Complaint(Rule.CATALOGUE, "frames", f"written with {told}; this is {reference(frames)}")]
    try:
        facts = Facts(report.facts)
    except Refused as why:
        return [Complaint(Rule.FACTS, "facts", why.detail)]
    found: list[Complaint] = []
    for complaint in _all(report, frames, facts, sources, beside):
        found.append(complaint)
        if len(found) == MOST_COMPLAINTS:
            break
    return found


def complaints_of(asked: Alternatives, said: Said) -> list[Complaint]:
    """What is not true of one section in one language."""
    where = f"{asked.section}/{asked.language}"
    try:
        return list(_said(asked, said, where))
    except Refused as why:
        return [Complaint(Rule.FACTS, where, why.detail)]


def parse(text: str, asked: Alternatives) -> list[str] | None:
    """The clauses that a text is made of, in order ("what.above#2"); None where it is no text of these. Of several ways
    the one that says most clauses."""
    reached: dict[int, list[str]] = {0: []}
    for options in asked.options:
        after: dict[int, list[str]] = {}
        for at, names in reached.items():
            begin = at + (len(BETWEEN[asked.language]) if at else 0)
            if at and text[at:begin] != BETWEEN[asked.language]:
                continue
            for filled in options:
                end = begin + len(filled.text)
                if end not in after and text.startswith(filled.text, begin):
                    after[end] = [*names, filled.name]
        reached = {**reached, **after}
    return reached.get(len(text)) or None


def _all(
    report: Report,
    frames: Frames,
    facts: Facts,
    sources: Sequence[Fact] | None,
    beside: Sequence[fault_report.Source],
) -> Iterator[Complaint]:
    yield from _facts(facts)
    meaning = MEANING.get(frames.document)
    if meaning is not None:
        yield from (Complaint(Rule.EVIDENCE, "facts", detail) for detail in meaning(report))
    if sources is not None:
        yield from (Complaint(Rule.SOURCES, "facts", detail) for detail in fault_report.same_facts(report, sources))
    yield from (Complaint(Rule.SOURCES, "facts", detail) for detail in fault_report.contradictions(report, beside))
    said = licensed(frames, facts)
    yield from _title(report, facts, said.get(TITLE, ()))
    yield from _sections(report, frames, facts, said)


def _facts(facts: Facts) -> Iterator[Complaint]:
    for fact in facts.all:
        try:
            for language in LANGUAGES:
                if fact.kind is not Kind.CATEGORY:
                    facts.text(fact.key, language)
                elif not isinstance(fact.value, str):
                    yield Complaint(Rule.FACTS, "facts", f"category {fact.key!r} must be a word, not {fact.value!r}")
        except Refused as why:
            yield Complaint(Rule.FACTS, "facts", why.detail)


def _title(report: Report, facts: Facts, clauses: Sequence[Clause]) -> Iterator[Complaint]:
    """The title is one wording of a licensed clause, the same clause in both languages."""
    said: list[set[str]] = []
    for language, title in zip(LANGUAGES, (report.title_en, report.title_zh), strict=True):
        found: set[str] = set()
        try:
            for clause in clauses:
                texts = (facts.fill(clause, n, language).text for n in range(len(wordings(clause, language))))
                if title in texts:
                    found.add(clause.id)
        except Refused as why:
            yield Complaint(Rule.FACTS, f"title/{language}", why.detail)
        if not found:
            yield Complaint(Rule.TITLE, f"title/{language}", f"{title[:100]!r} is no title that the facts license")
        said.append(found)
    if all(said) and not said[0] & said[1]:
        yield Complaint(Rule.LANGUAGES, "title", "the two titles say different things")


def _sections(
    report: Report, frames: Frames, facts: Facts, said: Mapping[str, tuple[Clause, ...]]
) -> Iterator[Complaint]:
    headings = {h.section: h for h in frames.headings if h.section in said}
    told = [s.section for s in report.sections]
    if told != list(headings):
        yield Complaint(Rule.SECTIONS, "sections", f"there are {told}; the facts license {list(headings)}")
    for section in report.sections:
        heading = headings.get(section.section)
        if heading is None:
            continue
        if (section.title_en, section.title_zh) != (heading.en, heading.zh):
            yield Complaint(Rule.SECTIONS, section.section, f"is headed {section.title_en[:60]!r}, not {heading.en!r}")
        yield from _section(section, facts, said[section.section], len(report.evidence))


def _section(section: Section, facts: Facts, clauses: tuple[Clause, ...], evidence: int) -> Iterator[Complaint]:
    en = Said(text=section.text_en, spans=section.spans_en, clauses=section.clauses_en, mode=section.mode_en)
    zh = Said(text=section.text_zh, spans=section.spans_zh, clauses=section.clauses_zh, mode=section.mode_zh)
    cited = []
    for language, answer in (("en", en), ("zh", zh)):
        asked = Alternatives(section.section, "en" if language == "en" else "zh", facts, clauses)
        found = complaints_of(asked, answer)
        yield from found
        if not found:
            cited.append({n - 1 for n in markers(outside(answer.text, answer.spans))})
    if {s.fact for s in en.spans} != {s.fact for s in zh.spans}:
        yield Complaint(Rule.LANGUAGES, section.section, "the two languages say different facts")
    if Mode.FREE not in (en.mode, zh.mode) and _ids(en) != _ids(zh):
        yield Complaint(Rule.LANGUAGES, section.section, f"English says {_ids(en)}, Chinese {_ids(zh)}")
    for marked in cited:
        if marked != set(section.cites) or len(section.cites) != len(marked):
            yield Complaint(Rule.CITES, section.section, f"cites {section.cites}, its text {sorted(marked)}")
        if any(n >= evidence for n in marked):
            yield Complaint(Rule.CITES, section.section, f"cites [{max(marked) + 1}] of {evidence} pieces of evidence")


def _ids(said: Said) -> list[str]:
    return [name.partition("#")[0] for name in said.clauses]


def _said(asked: Alternatives, said: Said, where: str) -> Iterator[Complaint]:
    odd = None if said.text.isprintable() else next((c for c in said.text if unicodedata.category(c) in _UNSEEN), None)
    if odd is not None:
        yield Complaint(Rule.CHARACTERS, where, f"holds the character {odd!r}; a report is plain text of one line")
        return
    if said.mode is Mode.FREE:
        spans = list(_spans(asked, said, where))
        yield from spans or (Complaint(Rule.CLAIMS, where, doubt) for doubt in doubts(asked, said))
        return
    chosen: list[int | None] = []
    wrong = list(_chosen(asked, said, where, chosen))
    yield from wrong
    if wrong:
        return
    right = say(asked, chosen, said.mode)
    if right.text != said.text:
        yield Complaint(Rule.TEXT, where, _first_difference(said.text, right.text))
    elif right.spans != said.spans:
        yield Complaint(
            Rule.SPANS, where, f"the facts stand at {_places(right.spans)}, it says at {_places(said.spans)}"
        )


def _spans(asked: Alternatives, said: Said, where: str) -> Iterator[Complaint]:
    """Every span renders its fact, in order and without overlap."""
    end = 0
    for span in said.spans:
        if span.fact >= len(asked.facts.all):
            yield Complaint(Rule.SPANS, where, f"speaks of fact {span.fact}; there are {len(asked.facts.all)}")
        elif not end <= span.start < span.end <= len(said.text):
            yield Complaint(Rule.SPANS, where, f"the span {span.start}..{span.end} overlaps another or leaves the text")
        else:
            fact, end = asked.facts.all[span.fact], span.end
            there, right = said.text[span.start : span.end], asked.facts.text(fact.key, asked.language)
            if there != right:
                yield Complaint(Rule.SPANS, where, f"says {there[:80]!r} where fact {fact.key!r} reads {right!r}")


def _chosen(asked: Alternatives, said: Said, where: str, chosen: list[int | None]) -> Iterator[Complaint]:
    """Puts the wordings that a section names into `chosen`, one a clause that the facts license."""
    named: dict[str, int] = {}
    order = {clause.id: at for at, clause in enumerate(asked.clauses)}
    last = -1
    for name in said.clauses:
        clause, mark, digits = name.partition("#")
        if clause not in order or clause in named:
            what = "stands twice" if clause in named else "is not licensed by the facts"
            yield Complaint(Rule.CLAUSES, where, f"the clause {clause!r} {what}")
            continue
        if order[clause] < last:
            yield Complaint(Rule.CLAUSES, where, f"the clause {clause!r} stands out of order")
        last = max(last, order[clause])
        count = len(wordings(asked.clauses[order[clause]], asked.language))
        if not (mark and digits.isascii() and digits.isdigit() and len(digits) < 4 and int(digits) < count):
            yield Complaint(Rule.CLAUSES, where, f"{name[:80]!r} names no wording: the clause has {count}, from #0 on")
            continue
        named[clause] = int(digits)
    for at, clause_at in enumerate(asked.clauses):
        chosen.append(named.get(clause_at.id))
        if clause_at.id not in named and not asked.may_omit(at):
            yield Complaint(Rule.CLAUSES, where, f"the clause {clause_at.id!r} must be said and is not")


def _first_difference(text: str, right: str) -> str:
    at = next((n for n, (a, b) in enumerate(zip(text, right, strict=False)) if a != b), min(len(text), len(right)))
    begin = max(0, at - 15)
    return f"says {text[begin : at + 40]!r} where its clauses say {right[begin : at + 40]!r}"


def _places(spans: Sequence[Span]) -> list[tuple[int, int, int]]:
    return [(s.start, s.end, s.fact) for s in spans][:10]
