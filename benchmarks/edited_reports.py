"""66 fault reports in English and in Chinese as a person left them, by hand, beside this file (edited_reports.json).

How they were made. For each of 66 made cases (`fault_cases.ordinary_case(0..65)`) the clauses that its facts license were
laid out, and one author went through them for this project, line by line, and wrote down for each which wording stays or that
the clause goes, in English first; then the Chinese wording of every clause that stayed. Nothing was drawn at random and no
model had a say. The author kept to the habits of somebody who writes such reports for colleagues:

- an alarm is read on a telephone beside the machine: shortest wordings, the action as an order ("Do this first"), no
  comparison with the mean before, no "stays steady", how far beyond the limit always said;
- a warning is read at the desk this week: plain full sentences, the comparison said briefly, the spare part named;
- a notice is read when there is time: the calmest wording, where a figure comes from written out, no distance to a limit
  that nobody acts on, no spare part to keep ready;
- an action without a reason is just named; much to tell makes everything shorter; an unsure note is put as a request to look.

So the choices depend on what a report is about, and not always in the same way: it is one person's manner, written down once,
not a survey, and both languages are of the same hand. What a model learns from it is that manner. Reports whose case number
is a multiple of three are held out; no choice of any setting has seen them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fault_cases import ordinary_case

from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.facts import LANGUAGES, Fact, Language
from protocol.writing.fault_report import facts_of
from protocol.writing.frames import TITLE, wordings
from protocol.writing.prompt import lead, prefix
from protocol.writing.realise import BETWEEN, Alternatives, Facts, licensed
from protocol.writing.strict import turn
from server.evaluation_writing import EditedReport, EditedSection

FILE = Path(__file__).with_suffix(".json")
HELD_OUT_EVERY = 3


@dataclass(frozen=True, slots=True)
class Edited:
    """One report. clauses[language]: what the person left, in order ("what.above#2")."""

    number: int
    facts: list[Fact]
    clauses: dict[Language, list[str]]

    @property
    def held_out(self) -> bool:
        """Whether it is for judging only."""
        return self.number % HELD_OUT_EVERY == 0


def read() -> list[Edited]:
    """All of them, in order of their number."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))["reports"]
    return [
        Edited(row["case"], _facts(row["case"]), {language: row[language].split() for language in LANGUAGES})
        for row in kept
    ]


def _facts(number: int) -> list[Fact]:
    made = ordinary_case(number)
    return facts_of(made.case, made.names)


def asked(edited: Edited, language: Language) -> list[Alternatives]:
    """What the person could choose from: in Chinese the wordings of the clauses that stayed in English."""
    known = Facts(edited.facts)
    said = licensed(FAULT_REPORT, known)
    whole = [Alternatives(section, language, known, clauses) for section, clauses in said.items() if section != TITLE]
    if language == "en":
        return whole
    kept = [name.partition("#")[0] for name in edited.clauses["en"]]
    return [each.only(kept) for each in whole]


def as_tokens(edited: Edited, language: Language, encode: Callable[[str], Sequence[int]]) -> EditedReport:
    """The report as the gate reads it. Raises KeyError for a clause that its facts do not license."""
    left = dict(name.split("#") for name in edited.clauses[language])
    sections = []
    for each in asked(edited, language):
        turns = tuple(turn(c, language, encode, optional=each.may_omit(at)) for at, c in enumerate(each.clauses))
        said = tuple((at, int(left.pop(c.id))) for at, c in enumerate(each.clauses) if c.id in left)
        sections.append(EditedSection(tuple(encode(lead(each.section, language))), turns, said))
    if left:
        raise KeyError(f"report {edited.number} says {sorted(left)}, which its facts do not license")
    return EditedReport(language, tuple(encode(prefix(FAULT_REPORT, edited.facts))), tuple(sections))


def texts(edited: Edited, language: Language) -> list[tuple[str, str]]:
    """(section, its words with slots) of what the person left."""
    left = dict(name.split("#") for name in edited.clauses[language])
    return [
        (
            each.section,
            BETWEEN[language].join(wordings(c, language)[int(left[c.id])] for c in each.clauses if c.id in left),
        )
        for each in asked(edited, language)
    ]
