"""What people make of reports: edits clause by clause, wordings that they propose, and the catalogue that grows by those
which somebody accepted. A report itself stays as it was issued; the newest edit says how it was left."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from protocol.errors import Reason, Refused
from protocol.reports import Report
from protocol.writing import edits
from protocol.writing.clauses import BUILT_IN
from protocol.writing.edits import Passage, Wording
from protocol.writing.facts import LANGUAGES, Language, Said
from protocol.writing.frames import Clause, Frames, parts, wordings
from server import catalogues
from server.catalogues import Catalogues
from server.database import AuditRow, ReportEditRow, ReportRow, WordingRow
from server.left import LeftBook, LeftReport

OPEN, ACCEPTED, REJECTED = "open", "accepted", "rejected"
JUDGES = 4
"""One edited report in so many judges writers and never teaches them."""
MOST_EDITS, MOST_FACTS = 5000, 400
Standing = dict[Language, dict[str, str]]
"""Clause -> its words with slots, in order."""


class Stand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One clause as a person leaves it: by the number of a wording that he was offered, or in his own words."""

    clause: Annotated[str, msgspec.Meta(max_length=128)]
    wording: Annotated[int, msgspec.Meta(ge=0)] | None = None
    text: str | None = None


class Given(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A report as a person leaves it in one language; clauses that are absent are left out, in the other language, too."""

    language: Language
    clauses: Annotated[list[Stand], msgspec.Meta(max_length=200)]
    author: Annotated[str, msgspec.Meta(max_length=128)] = ""


def save(
    session: Session, known: Catalogues, row: ReportRow, given: Given, now_ms: int
) -> tuple[ReportEditRow, list[WordingRow]]:
    """Stores an edit; own words are proposed. Raises Refused, naming the clause, with what to change; nothing is stored
    then."""
    report, passages = _read(row, known)
    current = catalogue(session, _document(report))
    stands = {stand.clause: stand for stand in given.clauses}
    licensed = {clause.id for passage in passages for clause in passage.clauses}
    strange = [stand.clause for stand in given.clauses if stand.clause not in licensed]
    if strange or len(stands) != len(given.clauses):
        what = f"{strange[0]!r} is no clause of this report" if strange else "a clause stands twice"
        raise Refused(Reason.BAD_FRAMES, f"{what}: name each of {sorted(licensed)} once at most")
    after: Standing = {language: {} for language in LANGUAGES}
    own: list[tuple[Clause, str]] = []
    before = in_force(session, row, passages)
    for passage in passages:
        for name in edits.changed(passage, [c.id for c in passage.clauses if c.id in stands]):
            clause = next(one for one in passage.clauses if one.id == name)
            text = _words(stands[name], clause, given.language, passage, current)
            if text not in choices(clause, given.language, current):
                own.append((clause, text))
            for language in LANGUAGES:
                stood = before[language].get(name, wordings(clause, language)[0])
                after[language][name] = text if language == given.language else stood
    edit = ReportEditRow(
        gateway=row.gateway,
        report_id=row.report_id,
        document=_document(report),
        frames=report.frames,
        author=given.author,
        time_ms=now_ms,
        en=list(after["en"].items()),
        zh=list(after["zh"].items()),
    )
    session.add(edit)
    proposed = [_proposed(session, row, edit, clause, text, given, now_ms) for clause, text in own]
    session.flush()
    return edit, proposed


def answer(
    session: Session, number: int, artifacts: Path, accept: bool, who: str, despite_doubts: bool, now_ms: int
) -> WordingRow:
    """Accepts or rejects a proposal; accepted, it is in the next catalogue, which is kept. Raises Refused: unknown_target,
    conflicting_duplicate (answered already), bad_frames (it does not fit the catalogue any more), not_eligible (it has
    doubts and nobody said that they were looked at)."""
    row = session.get(WordingRow, number)
    if row is None:
        raise Refused(Reason.UNKNOWN_TARGET, f"no wording {number}: GET /api/v1/wordings lists what there is")
    if row.status != OPEN:
        raise Refused(
            Reason.CONFLICTING_DUPLICATE,
            f"wording {number} was {row.status} already by {row.answered_by or 'somebody'}",
        )
    if accept and row.doubts and not despite_doubts:
        raise Refused(
            Reason.NOT_ELIGIBLE, f"{'; '.join(map(str, row.doubts))}: look at it, then accept it with despite_doubts"
        )
    row.status, row.answered_ms, row.answered_by = ACCEPTED if accept else REJECTED, now_ms, who
    session.flush()
    if accept:
        frames = catalogue(session, row.document)
        if not any(
            row.text in wordings(clause, _language(row)) for clause in frames.clauses if clause.id == row.clause
        ):
            raise Refused(Reason.BAD_FRAMES, f"wording {number} does not fit the catalogue any more: reject it")
        catalogues.keep(frames, artifacts)
    told = {"wording": number, "clause": row.clause, "text": row.text}
    session.add(AuditRow(time_ms=now_ms, who=who or "admin", what=f"wording {row.status}", detail=told))
    return row


def catalogue(session: Session, document: str) -> Frames:
    """The built-in catalogue with the accepted wordings that fit it. Raises Refused for a document that has none."""
    built_in = next((frames for frames in BUILT_IN.values() if frames.document == document), None)
    if built_in is None:
        raise Refused(Reason.BAD_FRAMES, f"no catalogue for {document!r}: there are {_documents()}")
    rows = select(WordingRow).where(WordingRow.document == document, WordingRow.status == ACCEPTED)
    accepted = session.scalars(rows.order_by(WordingRow.answered_ms, WordingRow.id))
    return edits.with_wordings(built_in, [_as_wording(row) for row in accepted])[0]


def choices(clause: Clause, language: Language, current: Frames) -> list[str]:
    """What a person is offered for a clause: the report's own wordings, then those that came since."""
    offered = list(wordings(clause, language))
    now = next((one for one in current.clauses if one.id == clause.id), clause)
    return offered + [text for text in wordings(now, language) if text not in offered]


def in_force(session: Session, row: ReportRow, passages: Sequence[Passage]) -> Standing:
    """How a report stands now: as it was left last, or as it was issued."""
    edit = newest_edit(session, row)
    if edit is not None:
        return {"en": dict(edit.en), "zh": dict(edit.zh)}
    return {
        language: {name: text for passage in passages for name, text in passage.said[language].items()}
        for language in LANGUAGES
    }


def newest_edit(session: Session, row: ReportRow) -> ReportEditRow | None:
    """The one that counts."""
    e = ReportEditRow
    mine = (e.gateway == row.gateway, e.report_id == row.report_id)
    return session.scalar(select(e).where(*mine).order_by(e.id.desc()).limit(1))


def describe(session: Session, known: Catalogues, row: ReportRow) -> dict[str, Any]:
    """A report as it can be changed: every clause with what stands, what else may be said, and whether it may be left out.
    Raises Refused for one that has no clauses."""
    report, passages = _read(row, known)
    current = catalogue(session, _document(report))
    standing = in_force(session, row, passages)

    def said(passage: Passage, clause: Clause, language: Language) -> dict[str, Any]:
        offered, stands = choices(clause, language, current), standing[language].get(clause.id)
        own = stands if stands is not None and stands not in offered else None
        filled = [_filled(passage, text, language) for text in offered]
        told: dict[str, Any] = {"said": offered.index(stands) if stands in offered else None, "wordings": filled}
        return told | ({"proposed": _filled(passage, own, language)} if own else {})

    return {
        "report": report.id,
        "document": _document(report),
        "sections": [
            {
                "section": passage.heading.section,
                "title_en": passage.heading.en,
                "title_zh": passage.heading.zh,
                "clauses": [
                    {"clause": clause.id, "may_omit": passage.may_omit(clause.id)}
                    | {language: said(passage, clause, language) for language in LANGUAGES}
                    for clause in passage.clauses
                ],
            }
            for passage in passages
        ],
        "edited": edited(session, known, row),
    }


def edited(session: Session, known: Catalogues, row: ReportRow) -> dict[str, Any] | None:
    """How a report was left, as text with the places of its facts; None where nobody changed it."""
    edit = newest_edit(session, row)
    if edit is None:
        return None
    _, passages = _read(row, known)
    sections = []
    for passage in passages:
        en, zh = edits.spoken(passage, "en", dict(edit.en)), edits.spoken(passage, "zh", dict(edit.zh))
        sections.append({"section": passage.heading.section, **_text(en, "en"), **_text(zh, "zh")})
    return {"author": edit.author, "time_ms": edit.time_ms, "sections": sections}


def proposals(session: Session, known: Catalogues, status: str = OPEN, most: int = 100) -> list[dict[str, Any]]:
    """Proposed wordings, newest first, each beside what its clause says today and as it read where it was written."""
    query = select(WordingRow).where(WordingRow.status == status) if status else select(WordingRow)
    return [_shown(session, known, row) for row in session.scalars(query.order_by(WordingRow.id.desc()).limit(most))]


def collect_left(session: Session, known: Catalogues) -> LeftBook:
    """What a writer can learn from now: the newest edit of each report, and the facts of the newest reports."""
    e = ReportEditRow
    rows: dict[tuple[str, str], ReportEditRow] = {}
    for edit in session.scalars(select(e).order_by(e.id.desc()).limit(MOST_EDITS)):
        rows.setdefault((edit.gateway, edit.report_id), edit)
    current = {document: catalogue(session, document) for document in _documents()}
    reports = [_left(session, known, edit, current[edit.document]) for edit in rows.values()]
    newest = session.scalars(select(ReportRow).order_by(ReportRow.id.desc()).limit(MOST_FACTS))
    facts = [msgspec.convert(row.body, Report).facts for row in newest if row.body.get("frames")]
    kept = [report for report in reports if report is not None]
    return LeftBook(frames=list(current.values()), reports=kept, facts=facts, lost=len(reports) - len(kept))


def _left(session: Session, known: Catalogues, edit: ReportEditRow, current: Frames) -> LeftReport | None:
    """In the numbers of the current catalogue; words that nobody accepted count as those that stood before."""
    r = ReportRow
    row = session.scalar(select(r).where(r.gateway == edit.gateway, r.report_id == edit.report_id))
    if row is None:
        return None
    report, passages = _read(row, known)
    issued = {language: {k: v for p in passages for k, v in p.said[language].items()} for language in LANGUAGES}
    found: dict[Language, list[str]] = {}
    by_id = {clause.id: clause for clause in current.clauses}
    left: dict[Language, list[Any]] = {"en": edit.en, "zh": edit.zh}
    for language, words in left.items():
        for name, text in words:
            offered = wordings(by_id[name], language) if name in by_id else []
            stands = text if text in offered else issued[language].get(name, offered[0] if offered else "")
            if stands not in offered:
                return None
            found.setdefault(language, []).append(f"{name}#{offered.index(stands)}")
    held_out = int(hashlib.sha256(row.event_id.encode()).hexdigest()[:8], 16) % JUDGES == 0
    return LeftReport(report.facts, found, edit.document, held_out)


def _read(row: ReportRow, known: Catalogues) -> tuple[Report, list[Passage]]:
    report = msgspec.convert(row.body, Report)
    frames = known.get(report.frames) if report.frames else None
    if frames is None:
        raise Refused(
            Reason.BAD_FRAMES, f"report {report.id} names no catalogue that is known here: it cannot be changed"
        )
    return report, edits.passages(report, frames)


def _words(stand: Stand, clause: Clause, language: Language, passage: Passage, current: Frames) -> str:
    """What a clause shall say, with slots."""
    if (stand.wording is None) == (stand.text is None):
        raise Refused(Reason.WRONG_TYPE, f"clause {clause.id!r}: give the number of a wording, or a text")
    offered = choices(clause, language, current)
    if stand.text is None:
        if stand.wording is None or stand.wording >= len(offered):
            raise Refused(Reason.BAD_FRAMES, f"clause {clause.id!r} has {len(offered)} wordings, from 0 on")
        return offered[stand.wording]
    filled = [_filled(passage, text, language) for text in offered]
    if stand.text.strip() in filled:
        return offered[filled.index(stand.text.strip())]
    try:
        return edits.as_wording(stand.text, clause, language, passage.facts, current)
    except Refused as why:
        raise Refused(why.reason, f"clause {clause.id!r}: {why.detail}") from why


def _proposed(
    session: Session, row: ReportRow, edit: ReportEditRow, clause: Clause, text: str, given: Given, now_ms: int
) -> WordingRow:
    w = WordingRow
    same = (w.document == edit.document, w.clause == clause.id, w.language == given.language, w.text == text)
    there = session.scalar(select(w).where(*same))
    if there is not None:
        return there
    made = WordingRow(
        document=edit.document,
        clause=clause.id,
        language=given.language,
        text=text,
        status=OPEN,
        author=given.author,
        gateway=row.gateway,
        report_id=row.report_id,
        doubts=edits.doubts(text, clause, given.language),
        proposed_ms=now_ms,
        answered_ms=None,
        answered_by="",
    )
    session.add(made)
    return made


def _shown(session: Session, known: Catalogues, row: WordingRow) -> dict[str, Any]:
    r = ReportRow
    report = session.scalar(select(r).where(r.gateway == row.gateway, r.report_id == row.report_id))
    clause = next((one for one in catalogue(session, row.document).clauses if one.id == row.clause), None)
    passages = _read(report, known)[1] if report is not None else []
    passage = next((one for one in passages if any(c.id == row.clause for c in one.clauses)), None)
    return {
        "id": row.id,
        "document": row.document,
        "section": clause.section if clause is not None else "",
        "clause": row.clause,
        "language": row.language,
        "text": row.text,
        "example": _filled(passage, row.text, _language(row)) if passage is not None else "",
        "today": wordings(clause, _language(row))[0] if clause is not None else "",
        "doubts": row.doubts,
        "status": row.status,
        "author": row.author,
        "report": report.id if report is not None else None,
        "proposed_ms": row.proposed_ms,
    }


def _filled(passage: Passage, text: str, language: Language) -> str:
    """A wording with the report's facts in place."""
    return "".join(passage.facts.text(part, language) if n % 2 else part for n, part in enumerate(parts(text)))


def _text(said: Said, language: Language) -> dict[str, Any]:
    return {f"text_{language}": said.text, f"spans_{language}": msgspec.to_builtins(said.spans)}


def _document(report: Report) -> str:
    return report.frames.partition("/")[0]


def _documents() -> list[str]:
    return sorted({frames.document for frames in BUILT_IN.values()})


def _language(row: WordingRow) -> Language:
    return "en" if row.language == "en" else "zh"


def _as_wording(row: WordingRow) -> Wording:
    return Wording(clause=row.clause, language=_language(row), text=row.text)
