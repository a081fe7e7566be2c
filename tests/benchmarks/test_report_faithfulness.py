"""The benchmark of reports measures what it says: its second reader, its falsehoods, its edited reports, its rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from edge_agent.skills.write_report import write
from protocol.reports import Report
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.facts import LANGUAGES
from protocol.writing.fault_report import facts_of
from protocol.writing.verify import verify
from server.training.left_reports import judged, sections

FOLDER = Path(__file__).resolve().parent.parent.parent / "benchmarks"
NAMES = (
    "contract",
    "fault_cases",
    "edited_reports",
    "report_judge",
    "report_mutations",
    "small_writer",
    "report_faithfulness",
)


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: __import__(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))


def reports(scripts: dict[str, ModuleType], count: int) -> Iterator[tuple[int, object, Report]]:
    for seed in range(count):
        made = scripts["fault_cases"].made_case(seed)
        yield seed, made, write(made.case, made.names, 0)


def test_cases_repeat_themselves_and_play_every_trick(scripts: dict[str, ModuleType]) -> None:
    cases = scripts["fault_cases"]
    made = [cases.made_case(seed) for seed in range(200)]
    assert made[7] == cases.made_case(7)
    assert {trick for each in made for trick in each.tricks} == set(cases.TRICKS)
    assert 60 < sum(not each.tricks for each in made) < 140


def test_the_second_reader_finds_true_reports_true(scripts: dict[str, ModuleType]) -> None:
    for seed, made, report in reports(scripts, 60):
        found = scripts["report_judge"].judge(report, made)
        assert (seed, found.slot_errors, found.claim_errors) == (seed, [], [])
        assert found.slots > 8


def read_as_prose(scripts: dict[str, ModuleType], report: Report, made: object) -> list[str]:
    judge = scripts["report_judge"]
    truth, verdict = judge.Truth(made), judge.Verdict()
    for section in report.sections:
        for language, text in (("en", section.text_en), ("zh", section.text_zh)):
            judge.judge_prose(text, language, section.section, truth, verdict)
    return list(verdict.slot_errors)


def test_the_second_reader_finds_true_figures_and_units_in_prose(scripts: dict[str, ModuleType]) -> None:
    units = set()
    for seed, made, report in reports(scripts, 120):
        assert (seed, read_as_prose(scripts, report, made)) == (seed, [])
        units.add(made.case.extreme.unit)  # type: ignore[attr-defined]
    assert {"m3/h", "1/min", ""} <= units


def test_the_second_reader_sees_another_unit_or_figure_in_prose(scripts: dict[str, ModuleType]) -> None:
    seen = dict.fromkeys(("change a digit", "change the unit"), 0)
    for seed, made, report in reports(scripts, 40):
        for lie in scripts["report_mutations"].mutations(report, seed):
            if lie.how in seen:
                assert read_as_prose(scripts, lie.report, made), (seed, lie.how)
                seen[lie.how] += 1
    assert min(seen.values()) > 3


def test_the_second_reader_sees_falsehoods_that_stand_in_the_text(scripts: dict[str, ModuleType]) -> None:
    seen = dict.fromkeys(
        ("swap two values", "change a digit", "change the unit", "flip a word", "say the opposite clause"), 0
    )
    for seed, made, report in reports(scripts, 25):
        for lie in scripts["report_mutations"].mutations(report, seed):
            if lie.how in seen:
                found = scripts["report_judge"].judge(lie.report, made)
                assert found.slot_errors or found.claim_errors, (seed, lie.how)
                seen[lie.how] += 1
    assert min(seen.values()) > 3


def test_every_kind_of_falsehood_is_told_and_caught(scripts: dict[str, ModuleType]) -> None:
    told = set()
    for seed, made, report in reports(scripts, 25):
        facts = facts_of(made.case, made.names)  # type: ignore[attr-defined]
        assert verify(report, FAULT_REPORT, facts) == []
        for lie in scripts["report_mutations"].mutations(report, seed):
            assert verify(lie.report, FAULT_REPORT, facts), (seed, lie.how)
            told.add(lie.how)
    ways = [way.__name__.replace("_", " ") for group in scripts["report_mutations"].GROUPS.values() for way in group]
    assert told == set(ways)


def test_edited_reports_say_what_their_facts_license(scripts: dict[str, ModuleType]) -> None:
    edited = scripts["edited_reports"].read()
    assert len(edited) == 66
    assert sum(each.held_out for each in edited) == 22
    for number, each in enumerate(edited):
        english, chinese = (each.clauses[language] for language in LANGUAGES)
        assert [name.partition("#")[0] for name in english] == [name.partition("#")[0] for name in chinese]
        for language in LANGUAGES:
            texts = [text for _, text in sections(each, FAULT_REPORT, language)]
            assert 3 <= len(texts) <= 4
            if number % 11:
                continue
            report = judged(each, FAULT_REPORT, language, lambda text: list(text.encode()))
            assert [bytes(section.words).decode() for section in report.sections] == texts


def test_edited_reports_depend_on_what_they_are_about(scripts: dict[str, ModuleType]) -> None:
    """There is something to learn: the wording of a clause differs with the severity, and is not always the first."""
    chosen: dict[str, set[str]] = {"alarm": set(), "warning": set(), "notice": set()}
    first = total = 0
    for each in scripts["edited_reports"].read():
        severity = next(str(fact.value) for fact in each.facts if fact.key == "severity")
        chosen[severity] |= {name for name in each.clauses["en"] if name.startswith("how.usual")}
        first += sum(name.endswith("#0") for name in each.clauses["en"])
        total += len(each.clauses["en"])
    assert [len(names) for names in chosen.values()] == [1, 1, 1]
    assert 0.2 < first / total < 0.6


def test_the_rows_of_an_untaught_model(scripts: dict[str, ModuleType]) -> None:
    small, script = scripts["small_writer"], scripts["report_faithfulness"]
    edited = scripts["edited_reports"].read()[:5]
    writer = small.taught(edited[:3], replace(small.QUICK.with_steps(1), made=3, batch=2), lambda text: None)
    by_name = {name: small.untaught(writer) for name in ("float32", "int8", "int4", "random weights")}
    contract = scripts["contract"]
    sheet = contract.Sheet("report_faithfulness", contract.Options(Path(), Path(), True, "", 1))
    cases = [scripts["fault_cases"].made_case(seed) for seed in range(2)]
    alarms = script.strictly(sheet, writer, {"random weights": by_name["random weights"]}, cases)
    assert alarms == (0, 2)
    script.falsehoods(sheet, cases, writer.model(by_name["random weights"]), alarms)
    script.worth_it(
        sheet,
        writer,
        {"float32": by_name["float32"], **dict.fromkeys(("int8", "int4", "random weights"), by_name["float32"])},
        edited,
    )
    rows = {(row["what"], row["metric"]): row for row in sheet.rows}
    assert rows["strict, random weights", "claim errors"]["ours"] == 0
    assert rows["strict, random weights", "claim errors"]["share_strict"] == 1
    assert rows["verifier, falsehoods of all", "share caught"]["holds"]
    worth = rows["worth it, float32, en", "log-likelihood a report"]
    assert worth["holds"] is None
    assert worth["ours"] < 0 > worth["peers"]["uniform"]
    assert rows["unmasked, float32, zh", "log-probability a token"]["ours"] < -5
