"""A fault report in plain words, English and Simplified Chinese, from facts alone: every number stands in the evidence, in
the forecast or in the recommendation, and the report carries where. No I/O.

Without a writer the first wording of every clause is said: the same facts give the same words. A writer chooses wordings or
writes prose; what it says is read back, and where that fails the section falls to the template.

`write_with` lets a language model be the writer, where it was taught this document and its choices were measured to be worth
more than the first wording. It has so much time and so many tokens for a report; whatever runs out, breaks or is not true,
the report comes, and says of each section which way it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from protocol.names import stable_id
from protocol.reports import ModelRef, Report
from protocol.writing.author import Author, LanguageModel, why
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.facts import Language, Mode, moment, number
from protocol.writing.fault_report import FaultCase, Names, facts_of
from protocol.writing.frames import Frames, reference
from protocol.writing.realise import Writer, template, write_document
from protocol.writing.verify import complaints_of

WRITER = ModelRef("report.template", "template", 1)
Facts = FaultCase

__all__ = ["WRITER", "Facts", "FaultCase", "Outcome", "moment", "number", "write", "write_with"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A report and how it came about. tally: counters to add up, one a section and language ("reports.strict",
    "reports.free", "reports.template"), and why ("reports.template.time", "reports.prose_rejected"). asked: how often the
    model was."""

    report: Report
    tally: dict[str, int]
    asked: int = 0


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


def write_with(
    model: LanguageModel | None,
    case: FaultCase,
    names: Names,
    now_ms: int,
    clock: Callable[[], float],
    frames: Frames = FAULT_REPORT,
) -> Outcome:
    """The report of one event in a language model's words, as far as it may choose them. clock: seconds, monotonic. Raises
    Refused as `write` does."""
    reason = "no_writer" if model is None else model.why_not(frames.document)
    if model is None or reason is not None:
        report = write(case, names, now_ms, frames=frames)
        return Outcome(report, {**_modes(report), f"reports.template.{reason}": 2 * len(report.sections)})
    author = Author(model, frames, facts_of(case, names), clock)
    untrue: dict[tuple[str, Language], str] = {}
    report = write(case, names, now_ms, writer=author, written_by=model.ref, frames=frames, fell_back=untrue)
    tally = _modes(report) | {f"reports.template.{name}": count for name, count in why(author).items()}
    if untrue:
        tally["reports.template.unverified"] = 2 * len({section for section, _ in untrue})
    if author.rejected:
        tally["reports.prose_rejected"] = len(author.rejected)
    if all(mode is Mode.TEMPLATE for section in report.sections for mode in (section.mode_en, section.mode_zh)):
        report = msgspec.structs.replace(report, written_by=WRITER)
    return Outcome(report, tally, author.calls)


def _modes(report: Report) -> dict[str, int]:
    counts = Counter(mode for section in report.sections for mode in (section.mode_en, section.mode_zh))
    return {f"reports.{mode.value}": counts[mode] for mode in Mode if counts[mode]}
