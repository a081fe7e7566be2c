"""66 fault reports in English and in Chinese as a person left them, by hand, beside this file (edited_reports.json).

How they were made. For each of 66 made cases (`fault_cases.ordinary_case(0..65)`) the clauses that its facts license were
laid out, and one author went through them for this project, line by line, and wrote down for each which wording stays or that
the clause goes, in English first; then the Chinese wording of every clause that stayed. Nothing was drawn at random and no
model had a say. The author kept to the habits of somebody who writes such reports for colleagues:

- an alarm is read on a telephone beside the machine: shortest wordings, the action as an order ("Do this first"), no
  comparison with the mean before, no "stays steady", how far beyond the limit always said;
- a warning is read at the desk this week: plain full sentences, the comparison said briefly;
- a notice is read when there is time: the calmest wording, where a figure comes from written out, no distance to a limit
  that nobody acts on;
- an action without a reason is just named; much to tell makes everything shorter; an unsure note is put as a request to look.

So the choices depend on what a report is about, and not always in the same way: it is one person's manner, written down once,
not a survey, and both languages are of the same hand. What a model learns from it is that manner. Reports whose case number
is a multiple of three are held out; no choice of any setting has seen them."""

from __future__ import annotations

import json
from pathlib import Path

from fault_cases import ordinary_case

from protocol.writing.facts import LANGUAGES, Fact
from protocol.writing.fault_report import facts_of
from server.left import LeftReport

FILE = Path(__file__).with_suffix(".json")
HELD_OUT_EVERY = 3


def read() -> list[LeftReport]:
    """All of them, in order of their case's number."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    return [
        LeftReport(
            facts=_facts_of_case(row["case"]),
            clauses={language: row[language].split() for language in LANGUAGES},
            document=kept["document"],
            held_out=row["case"] % HELD_OUT_EVERY == 0,
        )
        for row in kept["reports"]
    ]


def _facts_of_case(number: int) -> list[Fact]:
    made = ordinary_case(number)
    return facts_of(made.case, made.names)
