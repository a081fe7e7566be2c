"""Does a report say only what is so, whoever chooses its words; and is the language model worth asking?

    python benchmarks/report_faithfulness.py [--quick] [--json]

Makes its own data, no folder is read. 1,000 seeded cases in English and Chinese, half of them adversarial (fault_cases.py:
value equal to its limit, little known, one value in several slots, extreme sizes and units, unseen machines and kinds, words
that give orders in names, advice and notes). A small model (GPT 4L-128, small_writer.py) learns the catalogue's language from
other made cases and one person's manner from 44 edited reports in each language, in minutes, here; nothing is kept. It writes
as a gateway runs it, as float32, int8 and int4 graphs in onnxruntime; beside it a network with random weights and one that is
turned upside down and now and then infinitely sure.

strict      slot and claim errors, judged by a second reader (report_judge.py) that shares no code with who writes or verifies
free        prose over slots: how much of it the verifier rejects, and what is untrue of the rest; how many sections
            stay prose, are written strictly after all, or fall to the template. On every 25th case (--quick: the first 6)
verifier    seeded falsehoods (report_mutations.py) in reports worded at random: the share that it catches; and its false
            alarms over the true reports
worth       22 held-out edited reports in each language: log-likelihood a report of what the person chose, among what was
            licensed, for the model and for a uniform, a mostly-first-wording and a counting chooser (of the training part);
            it holds where the model is better than the first two by more than luck (one-sided 95 %, paired over reports)

How long the model learns from edited reports is decided by every eighth of the training part, which does not teach it. ms a
report: both languages, facts, words and verification, one thread, whoever else is at work: see the load. --quick: 40 cases, a
model that hardly learned."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from edited_reports import read
from fault_cases import Made, made_case
from report_judge import Truth, Verdict, judge, judge_prose
from report_mutations import GROUPS, mutations
from small_writer import FULL, QUICK, SmallWriter, decoders, taught

from edge_agent.skills.write_report import write_with
from protocol.reports import Report
from protocol.writing.author import Author, LanguageModel
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.decoder import Decoder
from protocol.writing.facts import LANGUAGES, Mode
from protocol.writing.fault_report import facts_of
from protocol.writing.frames import TITLE
from protocol.writing.realise import Alternatives, Facts, licensed
from protocol.writing.strict import Stopped
from protocol.writing.verify import complaints_of, verify
from server.evaluation_writing import EditedReport, Worth, log_probability, prefer, worth
from server.left import LeftReport
from server.training.left_reports import judged

CASES, QUICK_CASES = 1000, 40
FREE_EVERY, QUICK_FREE = 25, 6
LIED_ABOUT, QUICK_LIED = 200, 10
CAUGHT, FALSE_ALARMS = 0.99, 0.001
GRAPHS = ("float32", "int8", "int4")


@dataclass(slots=True)
class Told:
    """What became of the reports of one decoder."""

    verdict: Verdict = field(default_factory=Verdict)
    tally: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    calls: int = 0
    alarms: int = 0
    reports: int = 0

    def add(self, made: Made, model: LanguageModel) -> Report:
        """Writes, verifies and judges one report."""
        started = time.perf_counter()
        outcome = write_with(model, made.case, made.names, 0, time.monotonic)
        self.seconds.append(time.perf_counter() - started)
        self.tally.update(outcome.tally)
        self.calls += outcome.asked
        self.reports += 1
        self.alarms += bool(verify(outcome.report, FAULT_REPORT, facts_of(made.case, made.names)))
        found = judge(outcome.report, made)
        self.verdict.slots += found.slots
        self.verdict.claims += found.claims
        self.verdict.slot_errors += found.slot_errors
        self.verdict.claim_errors += found.claim_errors
        return outcome.report

    @property
    def sections(self) -> int:
        """Sections, each language by itself."""
        return sum(self.tally[f"reports.{mode.value}"] for mode in Mode)


def measure(sheet: contract.Sheet) -> None:
    """All rows."""
    logging.getLogger("onnxruntime.quantization").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    quick = sheet.options.quick
    edited = read()
    writer = taught([e for e in edited if not e.held_out], QUICK if quick else FULL, sheet.say)
    cases = [made_case(seed) for seed in range(QUICK_CASES if quick else CASES)]
    tricks = Counter(trick for made in cases for trick in made.tricks)
    sheet.note(f"{len(cases)} cases; tricks: " + ", ".join(f"{trick} {n}" for trick, n in sorted(tricks.items())))
    by_name = decoders(writer)
    alarms = strictly(sheet, writer, by_name, cases)
    freely(sheet, writer, by_name, cases[:QUICK_FREE] if quick else cases[::FREE_EVERY])
    falsehoods(sheet, cases[: QUICK_LIED if quick else LIED_ABOUT], writer.model(by_name["random weights"]), alarms)
    worth_it(sheet, writer, by_name, edited)


def strictly(
    sheet: contract.Sheet, writer: SmallWriter, by_name: dict[str, Decoder], cases: Sequence[Made]
) -> tuple[int, int]:
    """Rows of strict mode; (false alarms of the verifier, reports)."""
    alarms = reports = 0
    for name, decoder in by_name.items():
        told, model = Told(), writer.model(decoder)
        for made in cases:
            told.add(made, model)
        _faith(sheet, f"strict, {name}", told)
        sheet.row(
            f"strict, {name}",
            "ms a report",
            float(np.median(told.seconds)) * 1e3,
            n=told.reports,
            seconds=sum(told.seconds),
            calls=round(told.calls / told.reports, 1),
        )
        alarms, reports = alarms + told.alarms, reports + told.reports
    return alarms, reports


def _faith(sheet: contract.Sheet, what: str, told: Told) -> None:
    shares: dict[str, Any] = {
        f"share_{mode.value}": round(told.tally[f"reports.{mode.value}"] / max(told.sections, 1), 4) for mode in Mode
    }
    for metric, errors, n in (
        ("slot errors", told.verdict.slot_errors, told.verdict.slots),
        ("claim errors", told.verdict.claim_errors, told.verdict.claims),
    ):
        sheet.row(what, metric, len(errors), target=0, holds=not errors, n=n, seconds=sum(told.seconds), **shares)
        for error in errors[:3]:
            sheet.note(f"{what}: {error[:300]}")


def freely(sheet: contract.Sheet, writer: SmallWriter, by_name: dict[str, Decoder], cases: Sequence[Made]) -> None:
    """Rows of free mode: unverified, and as a report."""
    for name in GRAPHS:
        model = writer.model(by_name[name], Mode.FREE)
        untrue, rejected, missed, sections = 0, 0, 0, 0
        for made in cases:
            for wrong, refused in _prose(made, model):
                sections += 1
                untrue, rejected = untrue + wrong, rejected + refused
                missed += wrong and not refused
        sheet.row(
            f"free, {name}, not verified",
            "share of sections rejected",
            rejected / sections,
            n=sections,
            untrue_to_the_second_reader=round(untrue / sections, 4),
            untrue_and_not_rejected=missed,
        )
        told = Told()
        for made in cases:
            told.add(made, model)
        _faith(sheet, f"free, {name}, verified", told)


def _prose(made: Made, model: LanguageModel) -> list[tuple[bool, bool]]:
    """(the second reader finds it untrue, the verifier rejects it) of each section; what did not come about is both."""
    facts = facts_of(made.case, made.names)
    known, truth = Facts(facts), Truth(made)
    author = Author(model, FAULT_REPORT, facts, time.monotonic)
    found = []
    for section, clauses in licensed(FAULT_REPORT, known).items():
        for language in LANGUAGES if section != TITLE else ():
            asked, verdict = Alternatives(section, language, known, clauses), Verdict()
            try:
                said = author.prose(asked)
            except Stopped:
                found.append((True, True))
                continue
            judge_prose(said.text, language, section, truth, verdict)
            found.append((bool(verdict.slot_errors or verdict.claim_errors), bool(complaints_of(asked, said))))
    return found


def falsehoods(sheet: contract.Sheet, cases: Sequence[Made], model: LanguageModel, alarms: tuple[int, int]) -> None:
    """Rows of the verifier."""
    made_up: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    without: Counter[str] = Counter()
    started = time.monotonic()
    for seed, made in enumerate(cases):
        facts = facts_of(made.case, made.names)
        report = write_with(model, made.case, made.names, 0, time.monotonic).report
        for lie in mutations(report, seed):
            made_up[lie.group] += 1
            found = bool(verify(lie.report, FAULT_REPORT, facts))
            caught[lie.group] += found
            without[lie.group] += bool(verify(lie.report, FAULT_REPORT))
            if not found:
                sheet.note(f"not caught: {lie.how} in the report of case {seed}")
    seconds = time.monotonic() - started
    for group in (*GROUPS, "all"):
        n = made_up.total() if group == "all" else made_up[group]
        share = (caught.total() if group == "all" else caught[group]) / n
        target = CAUGHT if group in ("all", "others") else 1.0
        alone = (without.total() if group == "all" else without[group]) / n
        kinds = sum(map(len, GROUPS.values())) if group == "all" else len(GROUPS[group])
        sheet.row(
            f"verifier, falsehoods of {group}",
            "share caught",
            share,
            target=target,
            holds=share >= target,
            n=n,
            seconds=seconds,
            without_the_sources=round(alone, 4),
            kinds=kinds,
        )
    share = alarms[0] / alarms[1]
    sheet.row(
        "verifier, true reports", "false alarms", share, target=FALSE_ALARMS, holds=share <= FALSE_ALARMS, n=alarms[1]
    )


def worth_it(
    sheet: contract.Sheet, writer: SmallWriter, by_name: dict[str, Decoder], edited: Sequence[LeftReport]
) -> None:
    """Rows of the gate: unmasked quality, and the worth of the model's choices."""
    rows = {language: [judged(e, FAULT_REPORT, language, writer.encode) for e in edited] for language in LANGUAGES}
    parts = {
        language: (
            [row for row, e in zip(told, edited, strict=True) if not e.held_out],
            [row for row, e in zip(told, edited, strict=True) if e.held_out],
        )
        for language, told in rows.items()
    }
    for name in GRAPHS:
        found: dict[str, Worth] = {}
        for language, (training, held_out) in parts.items():
            started = time.monotonic()
            found[language] = worth(by_name[name], training, held_out, writer.spec.end)
            _worth_rows(sheet, f"worth it, {name}, {language}", found[language], time.monotonic() - started)
            _unmasked(sheet, f"unmasked, {name}, {language}", by_name, name, held_out, writer.spec.end)
        sheet.note(f"{name}: the document's words are left to {'the model' if prefer(found) else 'the template'}")


def _worth_rows(sheet: contract.Sheet, what: str, found: Worth, seconds: float) -> None:
    first, uniform, counting = (found.rivals[name] for name in ("first", "uniform", "frequency"))
    sheet.row(
        what,
        "log-likelihood a report",
        found.model.likelihood,
        reference=first.likelihood,
        peers={"uniform": uniform.likelihood, "counting": counting.likelihood},
        target=max(first.likelihood, uniform.likelihood),
        holds=None if sheet.options.quick else found.holds,
        n=found.reports,
        seconds=seconds,
        gain_at_least={name: round(value, 3) for name, value in found.sure.items()},
    )
    sheet.row(
        what,
        "share of choices as the person's",
        found.model.agreement,
        reference=first.agreement,
        peers={"uniform": uniform.agreement, "counting": counting.agreement},
        n=found.choices,
    )


def _unmasked(
    sheet: contract.Sheet, what: str, by_name: dict[str, Decoder], name: str, held_out: Sequence[EditedReport], end: int
) -> None:
    ours, tokens = log_probability(by_name[name], held_out, end)
    random, _ = log_probability(by_name["random weights"], held_out, end)
    sheet.row(what, "log-probability a token", ours, peers={"random weights": random}, n=tokens)


if __name__ == "__main__":
    sys.exit(contract.run("report_faithfulness", __doc__, measure, needs_data=False))
