"""`millwright report`: reads fault reports from a file, and checks every claim of them without a server.

verify: each sentence must be a clause of the catalogue that the report's facts license, each figure and name a fact, each
fact what the evidence says; with `--beside`, what the forecast and the other messages say that it speaks of. With `--history`
the evidence is computed anew from the gateway's raw samples. show: the text.

A file holds one report as JSON, a list of them, or one a line; a row of the server's API and an envelope count as their
report. Exit status: 0 every report was read back, 1 one was not, 2 wrong input."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import msgspec

from edge_agent.explain import STATISTICS
from edge_agent.history import samples_of
from protocol.errors import BadSettings
from protocol.reports import Evidence, Report, Section
from protocol.unreadable import UNREADABLE
from protocol.writing.clauses import BUILT_IN
from protocol.writing.facts import moment, number, plain
from protocol.writing.fault_report import Source
from protocol.writing.frames import MAX_FRAMES_BYTES, Frames, read_frames, reference
from protocol.writing.verify import Complaint, verify

MOST_BYTES = 64 * 1024 * 1024
SAME = 1e-9
"""Relative difference up to which a mean computed anew is the same."""
LONGEST_LINE = 4000


@dataclass(frozen=True, slots=True)
class Recounted:
    """A piece of evidence computed anew. holds: None where the history does not reach there, or the statistic is unknown."""

    told: Evidence
    value: float | None
    samples: int
    holds: bool | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one report. why_not: it could not be checked at all."""

    report: Report
    complaints: list[Complaint] = field(default_factory=list)
    recounted: list[Recounted] = field(default_factory=list)
    why_not: str = ""

    @property
    def verified(self) -> bool:
        """Whether every claim was read back."""
        return not (self.why_not or self.complaints or any(r.holds is False for r in self.recounted))


def main(argv: list[str]) -> int:
    """`millwright report …`."""
    arguments = _parser().parse_args(argv)
    reports = read_reports(arguments.file)
    if arguments.verb == "show":
        sys.stdout.write("\n".join(_as_text(report, zh=arguments.lang == "zh") for report in reports))
        return 0
    known = dict(BUILT_IN)
    for path in arguments.frames or []:
        frames = read_frames(_bytes(path, MAX_FRAMES_BYTES))
        known[reference(frames)] = frames
    beside = [source for path in arguments.beside or [] for source in read_sources(path)]
    verdicts = [check(report, known, arguments.history, beside) for report in reports]
    sys.stdout.write(_as_json(verdicts) if arguments.json else "".join(map(_told, verdicts)))
    return 0 if all(v.verified for v in verdicts) else 1


def check(
    report: Report, known: dict[str, Frames], history: Path | None = None, beside: Sequence[Source] = ()
) -> Verdict:
    """Reads one report back. Raises BadSettings if the history cannot be read."""
    if not report.facts:
        return Verdict(report, why_not="it was written without facts, by an older gateway: nothing can be read back")
    frames = known.get(report.frames)
    if frames is None:
        return Verdict(
            report, why_not=f"its catalogue {report.frames or '(none)'} is not known here: give it with --frames"
        )
    recounted = [_recount(e, history) for e in report.evidence] if history is not None else []
    return Verdict(report, verify(report, frames, beside=beside), recounted)


def _recount(told: Evidence, history: Path) -> Recounted:
    values = samples_of(history, (told.machine, told.signal), told.start_ms, told.end_ms)
    statistic = STATISTICS.get(told.statistic)
    if statistic is None or not len(values):
        return Recounted(told, None, len(values), None)
    found = float(statistic(values))
    same = math.isclose(found, told.value, rel_tol=SAME, abs_tol=SAME * abs(told.value))
    return Recounted(told, found, len(values), same and len(values) == told.samples)


def read_reports(path: Path) -> list[Report]:
    """The reports of a file ("-": standard input). Raises BadSettings."""
    payload = _bytes(path, MOST_BYTES)
    try:
        whole = [msgspec.json.decode(payload)]
    except UNREADABLE:
        whole = list(_lines(payload, path))
    found = whole[0] if len(whole) == 1 and isinstance(whole[0], list) else whole
    if not found:
        raise BadSettings(f"{path} holds no report")
    return [_report(one, f"{path}, report {n}") for n, one in enumerate(found, start=1)]


def read_sources(path: Path) -> list[Source]:
    """Messages that reports speak of, one envelope a line; others are passed over. Raises BadSettings."""
    kinds: dict[str, type[Source]] = {kind.type_name: kind for kind in get_args(Source)}
    found: list[Source] = []
    for n, told in enumerate(_lines(_bytes(path, MOST_BYTES), path), start=1):
        if not isinstance(told, dict) or "type" not in told or "data" not in told:
            raise BadSettings(f"{path}, message {n} is no envelope: it needs a type and data")
        kind = kinds.get(str(told["type"]))
        if kind is not None:
            try:
                found.append(msgspec.convert(told["data"], kind))
            except msgspec.ValidationError as error:
                raise BadSettings(f"{path}, message {n} is no {told['type']}: {error}") from error
    return found


def _lines(payload: bytes, path: Path) -> Iterator[Any]:
    for n, line in enumerate(payload.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line)
        except UNREADABLE as error:
            raise BadSettings(f"{path}, line {n} is no JSON: {error}; give a report as JSON, or one a line") from error


def _report(told: Any, where: str) -> Report:
    if isinstance(told, dict):
        told = next((told[key] for key in ("body", "data") if isinstance(told.get(key), dict)), told)
    try:
        return msgspec.convert(told, Report)
    except msgspec.ValidationError as error:
        raise BadSettings(f"{where} is no report: {error}") from error


def _bytes(path: Path, limit: int) -> bytes:
    try:
        if str(path) == "-":
            payload = sys.stdin.buffer.read(limit + 1)
        else:
            with path.open("rb") as file:
                payload = file.read(min(limit, path.stat().st_size) + 1)  # a buffer as large as the file, not the limit
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from error
    if len(payload) > limit:
        raise BadSettings(f"{path} is larger than {limit} bytes")
    return payload


def _told(verdict: Verdict) -> str:
    report = verdict.report
    lines = [f"{_line(report.id)}: {_line(report.title_en)}"]
    if verdict.why_not:
        return "\n".join([*lines, f"  NOT VERIFIED: {verdict.why_not}", ""])
    if verdict.complaints:
        lines += [f"  NOT TRUE: {_line(str(complaint))}" for complaint in verdict.complaints]
    else:
        claims = len(report.facts)
        lines.append(f"  every sentence read back: {claims} facts, {len(report.sections)} sections, both languages")
    lines += [f"  {_recounted(n, one)}" for n, one in enumerate(verdict.recounted, start=1)]
    return "\n".join([*lines, f"  {'VERIFIED' if verdict.verified else 'NOT VERIFIED'}", ""])


def _recounted(n: int, one: Recounted) -> str:
    told = one.told
    what = f"[{n}] {told.statistic} of {_line(told.machine)}/{_line(told.signal)}"
    if one.value is None:
        return f"{what}: no samples of that time on record; not recounted"
    found = f"{one.samples} samples on record give {number(one.value)}"
    return (
        f"{what}: {found}, as told"
        if one.holds
        else f"{what}: NOT TRUE: {found}, told {told.samples} and {number(told.value)}"
    )


def _as_json(verdicts: Sequence[Verdict]) -> str:
    reports = [
        {
            "id": v.report.id,
            "verified": v.verified,
            "why_not": v.why_not,
            "complaints": [{"rule": c.rule.value, "where": c.where, "detail": c.detail} for c in v.complaints],
            "evidence": [
                {
                    "machine": r.told.machine,
                    "signal": r.told.signal,
                    "statistic": r.told.statistic,
                    "told": r.told.value,
                    "found": r.value,
                    "samples_told": r.told.samples,
                    "samples_found": r.samples,
                    "holds": r.holds,
                }
                for r in v.recounted
            ],
        }
        for v in verdicts
    ]
    told = {"verified": all(v.verified for v in verdicts), "reports": reports}
    return msgspec.json.format(msgspec.json.encode(told), indent=1).decode() + "\n"


def _as_text(report: Report, *, zh: bool) -> str:
    title = report.title_zh if zh else report.title_en
    lines = [_line(title), f"{report.severity.value} · {moment(report.issued_ms)} · {_line(report.id)}", ""]
    for section in report.sections:
        lines += [_line(section.title_zh if zh else section.title_en), f"  {_line(_text(section, zh=zh))}", ""]
    lines += [f"[{n}] {_evidence(e)}" for n, e in enumerate(report.evidence, start=1)]
    return "\n".join([*lines, ""])


def _text(section: Section, *, zh: bool) -> str:
    return section.text_zh if zh else section.text_en


def _evidence(told: Evidence) -> str:
    unit = f" {plain(told.unit)}" if told.unit else ""
    where = f"{_line(told.machine)}/{_line(told.signal)}"
    when = f"{moment(told.start_ms)} – {moment(told.end_ms)}"
    return f"{told.statistic} {number(told.value)}{unit}, {where}, n = {told.samples}, {when}"


def _line(text: str) -> str:
    """A report may come from anywhere: no control character of it reaches the terminal."""
    return plain(text, LONGEST_LINE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millwright report", description="Reads fault reports, and checks every claim of them without a server."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    reading = verbs.add_parser("verify", help="read every sentence, figure and name back against facts and evidence")
    reading.add_argument("file", type=Path, metavar="FILE", help="a report as JSON, or one a line; - is standard input")
    reading.add_argument(
        "--frames", type=Path, action="append", metavar="FILE", help="a catalogue of clauses beside the built-in one"
    )
    reading.add_argument(
        "--beside",
        type=Path,
        action="append",
        metavar="FILE",
        help="the forecast, recommendation and so on that a report speaks of: envelopes, one a line",
    )
    reading.add_argument("--history", type=Path, metavar="FILE", help="a gateway's history.db, to recount the evidence")
    reading.add_argument("--json", action="store_true", help="print one JSON object")
    showing = verbs.add_parser("show", help="print the text")
    showing.add_argument("file", type=Path, metavar="FILE", help="a report as JSON, or one a line; - is standard input")
    showing.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the text")
    return parser
