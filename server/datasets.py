"""A training set is a frozen file: what it held is known by its sha256, and it is never changed, only added.

Signal blocks of all gateways are laid on one grid; work orders and answered recommendations become cases,
notes of work orders and answered readings become labelled notes."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol.catalogue import ItemCard
from protocol.covariates import KnownInput
from protocol.errors import BadBundle, Reason
from protocol.feedback import Feedback, Verdict
from protocol.observations import WorkOrder
from protocol.reading.corrections import said_of
from protocol.reading.notes import About, Note, NoteReading
from protocol.recommending import order_profile, verdicts
from protocol.windows import Floats, resample
from protocol.writing.frames import reference
from server import off_policy
from server.cases import Case
from server.database import (
    Dataset,
    FeedbackRow,
    RecommendationRow,
    ReportRow,
    SignalBlockRow,
    StatementRow,
    WorkOrderRow,
)
from server.labelled import LabelledNote, NoteBook
from server.left import LeftBook
from server.off_policy import Trial

MOST_BUCKETS = 8000
FORECAST, RECOMMEND, NOTES, WRITE = "forecast", "recommend", "notes", "write"


@dataclass(frozen=True)
class SignalGrid:
    """values [S, T] on one grid, NaN where nothing was shared. series[s] = (machine, signal). inputs: what was known of
    the machines' future, each with the moment since when."""

    start_ms: int
    step_ms: int
    series: list[tuple[str, str]]
    values: Floats
    inputs: tuple[KnownInput, ...] = ()

    @property
    def until_ms(self) -> int:
        """Start of the bucket after the last one."""
        return self.start_ms + self.step_ms * int(self.values.shape[1])


@dataclass(frozen=True)
class Snapshot:
    """A frozen file. `path` is relative to the artifact folder."""

    kind: str
    digest: str
    path: str
    rows: int
    described: dict[str, Any]


def collect_signals(session: Session, step_ms: int, most_buckets: int = MOST_BUCKETS) -> SignalGrid:
    """The newest `most_buckets` of every signal on one grid. Where two gateways tell of the same signal of
    the same machine, the one heard last fills each bucket."""
    newest = session.scalar(select(SignalBlockRow.start_ms).order_by(SignalBlockRow.start_ms.desc()).limit(1))
    oldest = 0 if newest is None else newest - most_buckets * step_ms
    columns = select(
        SignalBlockRow.machine,
        SignalBlockRow.signal,
        SignalBlockRow.start_ms,
        SignalBlockRow.step_ms,
        SignalBlockRow.values,
    )
    rows = session.execute(columns.where(SignalBlockRow.start_ms >= oldest).order_by(SignalBlockRow.id)).all()
    grid = lay_on_grid(((r[0], r[1], r[2], r[3], r[4]) for r in rows), step_ms)
    return replace(grid, inputs=collect_inputs(session, oldest))


def collect_inputs(session: Session, since_ms: int) -> tuple[KnownInput, ...]:
    """Every version of every known input that became known since then, in the order in which they did."""
    rows = select(StatementRow).where(StatementRow.type == KnownInput.type_name, StatementRow.time_ms >= since_ms)
    inputs = [msgspec.convert(row.body, KnownInput) for row in session.scalars(rows)]
    return tuple(sorted(inputs, key=lambda known: (known.known_ms, known.id)))


def lay_on_grid(blocks: Iterable[tuple[str, str, int, int, list[float | None]]], step_ms: int) -> SignalGrid:
    """Blocks (machine, signal, start_ms, step_ms, values) -> one grid; finer blocks are averaged."""
    kept = list(blocks)
    if not kept:
        return SignalGrid(start_ms=0, step_ms=step_ms, series=[], values=np.zeros((0, 0)))
    start_ms = min(block[2] for block in kept) // step_ms * step_ms
    end_ms = max(block[2] + block[3] * len(block[4]) for block in kept)
    buckets = max(-(-(end_ms - start_ms) // step_ms), 1)
    series = sorted({(block[0], block[1]) for block in kept})
    row = {key: i for i, key in enumerate(series)}
    values = np.full((len(series), buckets), np.nan)
    for machine, signal, at, step, told in kept:
        times = at + step * np.arange(len(told), dtype=np.int64)
        means = resample(
            times,
            np.array([np.nan if v is None else v for v in told], dtype=np.float64),
            start_ms,
            step_ms,
            buckets,
        )
        values[row[machine, signal]] = np.where(np.isfinite(means), means, values[row[machine, signal]])
    return SignalGrid(start_ms=start_ms, step_ms=step_ms, series=series, values=values)


def collect_cases(session: Session) -> list[Case]:
    """Cases in the order in which they became known: finished work orders, then what people answered to
    recommendations. An order and an answer about the same fault are two cases."""
    cases = [order_case(row.body, row.time_ms) for row in session.scalars(select(WorkOrderRow))]
    by_id: dict[tuple[str, str], dict[str, Any]] = {}
    by_event: dict[tuple[str, str], dict[str, Any]] = {}
    for shown in session.scalars(select(RecommendationRow).order_by(RecommendationRow.id)):
        by_id[shown.gateway, shown.recommendation_id] = shown.body
        by_event[shown.gateway, shown.event_id] = shown.body
    for report in session.scalars(select(ReportRow)):
        body = by_event.get((report.gateway, report.event_id))
        if body is not None:
            by_id.setdefault((report.gateway, report.report_id), body)
    answers: dict[tuple[str, str], list[FeedbackRow]] = {}
    for answer in session.scalars(select(FeedbackRow).order_by(FeedbackRow.time_ms, FeedbackRow.id)):
        answers.setdefault((answer.gateway, answer.target), []).append(answer)
    for target, given in answers.items():
        body = by_id.get(target)
        if body is not None:
            case = answered_case(body, [(a.verdict, a.item, a.correction) for a in given], given[-1].time_ms)
            if case.items:
                cases.append(case)
    return sorted(
        (case for case in cases if case.items and case.profile), key=lambda case: (case.time_ms, case.profile)
    )


def order_case(body: dict[str, Any], time_ms: int) -> Case:
    """A work order as a case."""
    order = msgspec.convert(body, WorkOrder, strict=False)
    items = [f"action:{name}" for name in order.actions] + [f"part:{name}" for name in order.parts]
    return Case(time_ms=time_ms, profile=tuple(order_profile(order)), items=dict.fromkeys(items, 1.0))


def answered_case(shown: dict[str, Any], answers: list[tuple[str, str, str]], time_ms: int) -> Case:
    """A shown list with what people said of it: (verdict, item, correction). An answer without an item judges
    the whole list: its first item if accepted or corrected, every item if rejected. The last answer to an
    item stands."""
    offered = [str(item["item"]) for item in shown.get("items", [])]
    items: dict[str, float] = {}
    for verdict, item, correction in answers:
        items |= verdicts(offered, verdict, item, correction)
    profile = tuple(str(token) for token in shown.get("profile", []))
    return Case(time_ms=time_ms, profile=profile, items=items, source="answer")


def freeze_signals(grid: SignalGrid, artifacts: Path) -> Snapshot:
    """Writes the grid as .npz; the same grid gives the same digest."""
    out = io.BytesIO()
    names = np.array([list(key) for key in grid.series], dtype=np.str_).reshape(-1, 2)
    known = np.frombuffer(msgspec.json.encode(grid.inputs), dtype=np.uint8)
    place = np.array([grid.start_ms, grid.step_ms], dtype=np.int64)
    np.savez(out, values=grid.values, series=names, grid=place, inputs=known)
    described = {
        "series": len(grid.series),
        "buckets": int(grid.values.shape[1]),
        "start_ms": grid.start_ms,
        "until_ms": grid.until_ms,
        "step_ms": grid.step_ms,
        "known_inputs": len(grid.inputs),
        "missing_share": float(np.isnan(grid.values).mean()) if grid.values.size else 0.0,
    }
    return frozen(FORECAST, out.getvalue(), "npz", int(np.isfinite(grid.values).sum()), described, artifacts)


class CaseBook(msgspec.Struct, frozen=True):
    """What a recommender learns from: cases in the order in which they became known, cards of items, and the answered places
    of shown lists, by which a candidate is judged."""

    cases: list[Case] = []
    cards: list[ItemCard] = []
    trials: list[Trial] = []


def collect_casebook(session: Session) -> CaseBook:
    """Cases, the newest card of every item, and the log of shown lists."""
    cards: dict[str, ItemCard] = {}
    told = select(StatementRow).where(StatementRow.type == ItemCard.type_name)
    for row in session.scalars(told.order_by(StatementRow.time_ms, StatementRow.id)):
        cards[row.subject] = msgspec.convert(row.body, ItemCard)
    return CaseBook(collect_cases(session), [cards[item] for item in sorted(cards)], off_policy.logged(session))


def freeze_casebook(book: CaseBook, artifacts: Path) -> Snapshot:
    """Writes the book as JSON; the same book gives the same digest."""
    cases = book.cases
    described = {
        "orders": sum(case.source == "work_order" for case in cases),
        "answers": sum(case.source == "answer" for case in cases),
        "items": len({item for case in cases for item in case.items}),
        "until_ms": max((case.time_ms for case in cases), default=0),
    }
    described |= {"cards": len(book.cards), "answered_places": len(book.trials)}
    return frozen(RECOMMEND, msgspec.json.encode(book, order="sorted"), "json", len(cases), described, artifacts)


def collect_notes(session: Session) -> NoteBook:
    """Notes in the order in which they were told: those of work orders with the failure mode that the order names, and those
    of people with what they answered to their reading (or with the mode of the order that they were written to)."""
    orders = [msgspec.convert(row.body, WorkOrder, strict=False) for row in session.scalars(select(WorkOrderRow))]
    found = [order_note(order) for order in orders if order.note.strip()]
    by_id = {order.id: order for order in orders}
    answers: dict[tuple[str, str], list[Feedback]] = {}
    for row in session.scalars(select(FeedbackRow).where(FeedbackRow.target_kind == "reading")):
        answers.setdefault((row.gateway, row.target), []).append(answer_of(row))
    readings: dict[tuple[str, str], list[NoteReading]] = {}
    for told in session.scalars(select(StatementRow).where(StatementRow.type == NoteReading.type_name)):
        readings.setdefault((told.gateway, told.subject), []).append(msgspec.convert(told.body, NoteReading))
    for told in session.scalars(select(StatementRow).where(StatementRow.type == Note.type_name)):
        note, order = msgspec.convert(told.body, Note), by_id.get(told.subject)
        if order is not None and order.note.strip() == note.text.strip():
            continue
        read = [(one, answers.get((told.gateway, one.id), [])) for one in readings.get((told.gateway, note.id), [])]
        found.append(person_note(note, order, read))
    once = {note.case: note for note in found}
    return NoteBook(sorted(once.values(), key=lambda note: (note.time_ms, note.case)))


def order_note(order: WorkOrder) -> LabelledNote:
    """What was scribbled on a work order, with what the order says it was."""
    return LabelledNote(
        case=order.id,
        time_ms=order.time_ms,
        machine=order.machine,
        text=order.note,
        said={About.FAILURE.value: order.failure_mode} if order.failure_mode else {},
        fixed_by=_fix(order),
    )


def person_note(
    note: Note, order: WorkOrder | None, readings: Iterable[tuple[NoteReading, list[Feedback]]]
) -> LabelledNote:
    """A person's note; what people answered outweighs what the order says."""
    said = {About.FAILURE.value: order.failure_mode} if order is not None and order.failure_mode else {}
    source = "work_order" if said else "note"
    for reading, given in readings:
        told = said_of(reading, given)
        if told:
            said |= told
            source = "answer" if any(one.verdict is Verdict.CORRECTED for one in given) else "accepted"
    fixed_by = [] if order is None else _fix(order)
    return LabelledNote(
        case=note.id,
        time_ms=note.time_ms,
        machine=note.machine,
        text=note.text,
        said=said,
        fixed_by=fixed_by,
        source=source,
    )


def _fix(order: WorkOrder) -> list[str]:
    return [*(f"action:{name}"[:128] for name in order.actions), *(f"part:{name}"[:128] for name in order.parts)][:20]


def answer_of(row: FeedbackRow) -> Feedback:
    """An answer as it was given."""
    return Feedback(
        id=row.feedback_id,
        target=row.target,
        item=row.item,
        verdict=Verdict(row.verdict),
        correction=row.correction,
        time_ms=row.time_ms,
    )


def freeze_notes(book: NoteBook, artifacts: Path) -> Snapshot:
    """Writes the notes as JSON; the same notes give the same digest."""
    notes = book.notes
    described = {
        "labelled": sum(bool(note.said) for note in notes),
        "answers": sum(note.source in ("answer", "accepted") for note in notes),
        "classes": len({name for note in notes for name in note.said.values()}),
        "until_ms": max((note.time_ms for note in notes), default=0),
    }
    return frozen(NOTES, msgspec.json.encode(book, order="sorted"), "json", len(notes), described, artifacts)


def read_notes(path: Path, digest: str) -> NoteBook:
    """Reads frozen notes; raises BadBundle (digest_mismatch) if the file was altered."""
    return msgspec.json.decode(checked(path, digest), type=NoteBook)


def freeze_left(book: LeftBook, artifacts: Path) -> Snapshot:
    """Writes left reports as JSON; the same ones give the same digest."""
    described = {
        "edited": len(book.reports),
        "held_out": sum(report.held_out for report in book.reports),
        "lost": book.lost,
        "catalogues": [reference(frames) for frames in book.frames],
    }
    rows = len(book.reports) + len(book.facts)
    body = msgspec.json.encode(book)  # not sorted: a catalogue's digest is that of its bytes as they are
    return frozen(WRITE, body, "json", rows, described, artifacts)


def read_left(path: Path, digest: str) -> LeftBook:
    """Reads frozen reports; raises BadBundle (digest_mismatch) if the file was altered."""
    return msgspec.json.decode(checked(path, digest), type=LeftBook)


def read_signals(path: Path, digest: str) -> SignalGrid:
    """Reads a frozen grid; raises BadBundle (digest_mismatch) if the file was altered."""
    with np.load(io.BytesIO(checked(path, digest)), allow_pickle=False) as held:
        start_ms, step_ms = (int(v) for v in held["grid"])
        series = [(str(machine), str(signal)) for machine, signal in held["series"]]
        told = held["inputs"].tobytes() if "inputs" in held else b"[]"
        inputs = msgspec.json.decode(told, type=tuple[KnownInput, ...])
        return SignalGrid(start_ms=start_ms, step_ms=step_ms, series=series, values=held["values"], inputs=inputs)


def read_casebook(path: Path, digest: str) -> CaseBook:
    """Reads a frozen book; raises BadBundle (digest_mismatch) if the file was altered."""
    return msgspec.json.decode(checked(path, digest), type=CaseBook)


def record(session: Session, snapshot: Snapshot, now_ms: int) -> None:
    """Enters a snapshot into the table of datasets, once."""
    if session.get(Dataset, snapshot.digest) is None:
        session.add(
            Dataset(
                digest=snapshot.digest,
                kind=snapshot.kind,
                path=snapshot.path,
                rows=snapshot.rows,
                created_ms=now_ms,
                described=snapshot.described,
            )
        )


def frozen(kind: str, body: bytes, ending: str, rows: int, described: dict[str, Any], artifacts: Path) -> Snapshot:
    """Writes a training set under its digest."""
    digest = hashlib.sha256(body).hexdigest()
    path = Path("datasets") / f"{kind}-{digest}.{ending}"
    write_whole(artifacts / path, body)
    return Snapshot(kind=kind, digest=digest, path=path.as_posix(), rows=rows, described=described)


def write_whole(path: Path, body: bytes) -> None:
    """A reader finds the old file or the whole new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as out:
        out.write(body)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def checked(path: Path, digest: str) -> bytes:
    """A frozen file's bytes; raises BadBundle (digest_mismatch) if it was altered."""
    body = path.read_bytes()
    found = hashlib.sha256(body).hexdigest()
    if found != digest:
        raise BadBundle(
            Reason.DIGEST_MISMATCH,
            f"dataset {path.name} has digest {found}: it was altered; freeze a new one",
        )
    return body
