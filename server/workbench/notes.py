"""One file of labelled notes becomes one folder: a sealed reader, report.json and report.md, whole or not at all.

Columns are found by their usual names: the text (`text`, `note`, `description`), what failed (`label`, `failure`,
`failure_mode`), and, where they are there, `event`, `urgency`, `case` and `fixed_by` (names with ; between them)."""

from __future__ import annotations

import hashlib
import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol import columns
from protocol.bundles import digest
from protocol.columns import Wanted
from protocol.errors import BadSettings, Reason, Refused
from protocol.reading.notes import About
from protocol.reading.words import MOST_CHARACTERS
from server.algorithms.note_reader import ReaderSettings
from server.labelled import LabelledNote
from server.training import Candidate, Circumstances, Progress
from server.training.reader import train_reader
from server.training.reader_worth import COMMONEST, LOGISTIC, MACHINE
from server.workbench.training import MARK, check_place, quiet, written_whole

BUNDLE = "notes.reader.bundle"
TEXT = ("text", "note", "notes", "description", "problem")
LABELS = {
    About.FAILURE: ("label", "failure", "failure_mode", "mode"),
    About.EVENT: ("event", "event_type"),
    About.URGENCY: ("urgency", "priority"),
}
CASE, FIX = ("case", "id", "order"), ("fixed_by", "fix", "action")


class QuestionRow(msgspec.Struct, frozen=True, kw_only=True):
    """Of notes that were not learned: the log loss of the chances, ours and a logistic regression's, and the share of right
    answers, ours, a linear support vector machine's and the commonest class's. parts: what decides."""

    about: str
    classes: int
    n: int
    log_loss: float
    logistic_log_loss: float
    right: float
    reference: float
    majority: float
    sure_from: float
    parts: list[str]


class NotesReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `report.json` says. left_out: rows without a text, or with one beyond what a note can hold."""

    file: str
    digest: str
    rows: int
    left_out: int
    languages: list[str]
    split: str
    eligible: bool
    verdict: str
    bundle: str
    bundle_digest: str
    bytes: int
    packing_rms: float
    packing_change: float
    latency_us: float
    questions: list[QuestionRow]


@dataclass(frozen=True)
class TrainedReader:
    """What a training left. `eligible`: whether the reader may serve."""

    folder: Path
    report: NotesReport
    candidate: Candidate

    @property
    def eligible(self) -> bool:
        """Whether its chances beat the linear reference's, and packing cost little."""
        return self.candidate.passport.eligible


def train_notes_file(
    path: Path,
    out: Path,
    *,
    text: str = "",
    label: str = "",
    precision: float = 0.9,
    seed: int = 7,
    progress: Progress = quiet,
) -> TrainedReader:
    """Learns a reader from a table and writes the folder `out`, which must not exist, or be an earlier one of this function.
    A folder is also written where the reader does not beat the reference; its report says so. Raises Refused for a file that
    cannot be learned from and BadSettings for settings that do not fit it; the messages name the remedy."""
    if not 0.5 <= precision <= 0.999:
        raise BadSettings(f"--precision {precision}: give a share from 0.5 to 0.999")
    check_place(out)
    progress(0.01, f"reading {path.name}")
    notes, left_out = read_notes(path, text, label)
    with path.open("rb") as stream:
        whole = hashlib.file_digest(stream, "sha256").hexdigest()
    world = Circumstances(whole, len(notes), int(clock.time() * 1000), because=f"trained on {path.name}")
    [candidate] = train_reader(notes, seed, world, progress, settings=ReaderSettings(precision=precision))
    with written_whole(out) as folder:
        report = _write(folder, path, len(notes), left_out, candidate)
    progress(1.0, "written")
    return TrainedReader(out, report, candidate)


def read_notes(path: Path, text: str = "", label: str = "") -> tuple[list[LabelledNote], int]:
    """(notes, rows left out) of a CSV or Parquet file."""
    try:
        with path.open("rb") as stream:
            header = columns.header(stream)
            words = _column(header, text, TEXT)
            if words is None:
                raise Refused(Reason.WRONG_TYPE, f"no column of notes among {', '.join(header)}: name it with --text")
            found = {
                about: _column(header, label if about is About.FAILURE else "", names)
                for about, names in LABELS.items()
            }
            said = {about: name for about, name in found.items() if name is not None}
            if not said:
                raise Refused(Reason.WRONG_TYPE, f"no column of labels among {', '.join(header)}: name it with --label")
            beside = {"case": _column(header, "", CASE), "fix": _column(header, "", FIX)}
            wanted = [words, *said.values(), *(name for name in beside.values() if name is not None)]
            table = columns.read(stream, Wanted("", tuple(dict.fromkeys(wanted)), ()))
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    cells = {
        name: [held.names[code] if code >= 0 else "" for code in held.codes] for name, held in table.labels.items()
    }
    notes: list[LabelledNote] = []
    for row, told in enumerate(cells[words]):
        if not told.strip() or len(told) > MOST_CHARACTERS:
            continue
        case = cells[beside["case"]][row].strip()[:100] if beside["case"] else ""
        fix = cells[beside["fix"]][row] if beside["fix"] else ""
        notes.append(
            LabelledNote(
                case=f"{case}#{row + 1}" if case else f"row-{row + 1}",
                text=told,
                said={
                    about.value: cells[name][row].strip()[:128]
                    for about, name in said.items()
                    if cells[name][row].strip()
                },
                fixed_by=[name.strip()[:128] for name in fix.split(";") if name.strip()][:20],
                source="file",
            )
        )
    return notes, table.rows - len(notes)


def _column(header: Sequence[str], named: str, usual: Sequence[str]) -> str | None:
    if named:
        if named not in header:
            raise BadSettings(f"no column {named!r}; there are {', '.join(header)}")
        return named
    lower = {name.strip().lower(): name for name in reversed(header)}
    return next((lower[name] for name in usual if name in lower), None)


def _write(folder: Path, path: Path, rows: int, left_out: int, candidate: Candidate) -> NotesReport:
    passport, spec = candidate.passport, candidate.passport.reader
    assert spec is not None  # noqa: S101 - a reader's passport says what it reads
    (folder / BUNDLE).write_bytes(candidate.archive)
    figures = {(one.metric, one.reference_name): one for one in passport.quality}
    questions = []
    for about, names in spec.classes.items():
        loss = figures[f"{about}_log_loss", LOGISTIC]
        linear, common = (figures[f"{about}_accuracy", name] for name in (MACHINE, COMMONEST))
        questions.append(
            QuestionRow(
                about=about,
                classes=len(names),
                n=linear.n,
                log_loss=loss.model,
                logistic_log_loss=loss.reference,
                right=linear.model,
                reference=linear.reference,
                majority=common.reference,
                sure_from=spec.sure_from[about],
                parts=spec.parts[about],
            )
        )
    report = NotesReport(
        file=path.name,
        digest=passport.lineage.dataset_digest,
        rows=rows,
        left_out=left_out,
        languages=spec.languages,
        split=passport.quality[0].split,
        eligible=passport.eligible,
        verdict=passport.verdict,
        bundle=BUNDLE,
        bundle_digest=digest(candidate.archive),
        bytes=len(candidate.archive),
        packing_rms=passport.parity.rel_rms,
        packing_change=passport.parity.task_change,
        latency_us=passport.latency_us,
        questions=questions,
    )
    (folder / "report.md").write_text(notes_summary(report), encoding="utf-8")
    (folder / MARK).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return report


def notes_summary(report: NotesReport) -> str:
    """The report in Markdown, for people."""
    lines = [
        f"# A reader of {report.file}",
        "",
        f"{report.rows} notes ({report.left_out} rows left out), measured in {', '.join(report.languages) or 'no language'}.",
        "",
        f"**{report.verdict}**",
        "",
        f"Held out: {report.split}.",
        "",
        "| question | classes | log loss | of logistic regression | right | of a linear SVM | commonest class | sure from "
        "| decided by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for q in report.questions:
        shares = f"{q.right:.1%} | {q.reference:.1%} | {q.majority:.1%} | {q.sure_from:.2f} | {', '.join(q.parts)} |"
        lines.append(f"| {q.about} | {q.classes} | {q.log_loss:.3f} | {q.logistic_log_loss:.3f} | {shares}")
    lines += [
        "",
        f"The bundle takes {report.bytes / 1024:.0f} KiB; int8 changed scores by {report.packing_rms:.1%} of their deviation "
        f"and the share of right answers by {report.packing_change:+.2%} (above 0: worse). A note takes "
        f"{report.latency_us / 1000:.2f} ms here.",
    ]
    return "\n".join(lines) + "\n"
