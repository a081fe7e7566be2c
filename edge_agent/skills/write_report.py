"""A fault report in plain words, English and Simplified Chinese, from facts alone: every number stands in the evidence, in
the forecast or in the recommendation, and the report carries where. No I/O.

Without a writer the first wording of every clause is said: the same facts give the same words. A writer chooses wordings or
writes prose; what it says is read back, and where that fails the section falls to the template."""

from __future__ import annotations

from protocol.names import stable_id
from protocol.reports import ModelRef, Report
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.facts import Language, moment, number
from protocol.writing.fault_report import FaultCase, Names, facts_of
from protocol.writing.frames import Frames, reference
from protocol.writing.realise import Writer, template, write_document
from protocol.writing.verify import complaints_of

WRITER = ModelRef("report.template", "template", 1)
Facts = FaultCase

__all__ = ["WRITER", "Facts", "FaultCase", "moment", "number", "write"]


def write(
    case: FaultCase,
    names: Names,
    now_ms: int,
    *,
    writer: Writer = template,
    written_by: ModelRef = WRITER,
    frames: Frames = FAULT_REPORT,
    fell_back: dict[tuple[str, Language], str] | None = None,
) -> Report:
    """The report of one event; `fell_back` learns which sections of the writer's the template replaced, and why. Raises
    Refused where a fact without which there is no report is missing."""
    case = case.of_its_machine()
    event, facts = case.event, facts_of(case, names)
    written = write_document(frames, facts, writer, complaints_of)
    if fell_back is not None:
        fell_back.update(written.fell_back)
    return Report(
        id=stable_id("report", event.id),
        event=event.id,
        recommendation=case.recommendation.id if case.recommendation else "",
        machine=event.machine,
        issued_ms=now_ms,
        severity=event.severity,
        title_en=written.title_en,
        title_zh=written.title_zh,
        sections=written.sections,
        evidence=case.evidence,
        written_by=written_by,
        facts=facts,
        frames=reference(frames),
    )
