"""What people make of reports: edits clause by clause, wordings that they propose, and the catalogue that grows by those
which somebody accepted. A report itself stays as it was issued; the newest edit says how it was left."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from protocol.errors import Reason, Refused
from protocol.reports import Report
from protocol.writing import edits
from protocol.writing.clauses import BUILT_IN
from protocol.writing.edits import Passage, Wording
from protocol.writing.facts import LANGUAGES, Language, Said
from protocol.writing.frames import Clause, Frames, encode_frames, parts, read_frames, wordings
from protocol.writing.realise import licensed
from server import catalogues
from server.catalogues import Catalogues
from server.database import AuditRow, ReportEditRow, ReportRow, WordingRow
from server.left import LeftBook, LeftReport

OPEN, ACCEPTED, REJECTED = "open", "accepted", "rejected"
JUDGES = 4
"""One edited report in so many judges writers and never teaches them."""
MOST_EDITS, MOST_FACTS = 5000, 400
FREE_PROSE = "this section is free prose: it has no clauses to change"
Standing = dict[Language, dict[str, str]]
"""Clause -> its words with slots, in order."""


class Stand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One clause as a person leaves it: by the number of an offered wording, or in their own words."""

    clause: Annotated[str, msgspec.Meta(max_length=128)]
    wording: Annotated[int, msgspec.Meta(ge=0)] | None = None
    text: str | None = None


Author = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*\Z")]


class Given(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A report as a person leaves it in one language; clauses that are absent are left out, in the other language, too."""

    language: Language
    clauses: Annotated[list[Stand], msgspec.Meta(max_length=200)]
    author: Author = ""


def save(
    session: Session, known: Catalogues, row: ReportRow, given: Given, now_ms: int
) -> tuple[ReportEditRow, list[WordingRow]]:
    """Stores an edit; own words are proposed. Raises Refused, naming the clause, with what to change; nothing is stored
    then."""
    report, passages = _read(row, known)
    current = catalogue(session, _document(report))
    stands = {stand.clause: stand for stand in given.clauses}
    names = {clause.id for passage in passages for clause in passage.clauses}
    strange = [stand.clause for stand in given.clauses if stand.clause not in names]
    if strange or len(stands) != len(given.clauses):
        what = f"{strange[0]!r} is no clause of this report" if strange else "a clause stands twice"
        raise Refused(Reason.BAD_FRAMES, f"{what}: name each of {sorted(names)} once at most")
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
    row = session.get(WordingRow, number, with_for_update=True)
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
        if not _stands_in(frames, row):
            raise Refused(Reason.BAD_FRAMES, f"wording {number} does not fit the catalogue any more: reject it")
        catalogues.keep(read_frames(encode_frames(frames)), artifacts)
    told = {"wording": number, "clause": row.clause, "text": row.text}
    session.add(AuditRow(time_ms=now_ms, who=who or "admin", what=f"wording {row.status}", detail=told))
    return row


def catalogue(session: Session, document: str) -> Frames:
    """The built-in catalogue with the accepted wordings that fit it, in the order of acceptance. Raises
    Refused for a document that has none."""
    built_in = next((frames for frames in BUILT_IN.values() if frames.document == document), None)
    if built_in is None:
        raise Refused(Reason.UNKNOWN_TARGET, f"no catalogue for {document!r}: there are {_documents()}")
    w = WordingRow
    accepted = select(w.clause, w.language, w.text).where(w.document == document, w.status == ACCEPTED)
    rows = session.execute(accepted.order_by(w.answered_ms, w.id))
    return _grown(document, tuple(Wording(clause=a, language=_language(b), text=c) for a, b, c in rows))


@lru_cache(maxsize=32)
def _grown(document: str, accepted: tuple[Wording, ...]) -> Frames:
    built_in = next(frames for frames in BUILT_IN.values() if frames.document == document)
    return edits.with_wordings(built_in, accepted)[0]


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
    return _issued(passages)


def newest_edit(session: Session, row: ReportRow) -> ReportEditRow | None:
    """The one that counts."""
    e = ReportEditRow
    mine = (e.gateway == row.gateway, e.report_id == row.report_id)
    return session.scalar(select(e).where(*mine).order_by(e.id.desc()).limit(1))


def describe(session: Session, known: Catalogues, row: ReportRow) -> dict[str, Any]:
    """A report as it can be changed: every clause with what stands, what else may be said, and whether it may be left out; a
    section in free prose has none. Raises Refused for a report without clauses."""
    report, passages = _read(row, known)
    current = catalogue(session, _document(report))
    standing = in_force(session, row, passages)
    by_section = {passage.heading.section: passage for passage in passages}

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
                "section": section.section,
                "title_en": section.title_en,
                "title_zh": section.title_zh,
                "clauses": [
                    {"clause": clause.id, "may_omit": passage.may_omit(clause.id)}
                    | {language: said(passage, clause, language) for language in LANGUAGES}
                    for clause in passage.clauses
                ]
                if passage is not None
                else [],
            }
            | ({} if passage is not None else {"why": FREE_PROSE})
            for section in report.sections
            for passage in [by_section.get(section.section)]
        ],
        "edited": edited(session, known, [row]).get(row.id),
    }


def edited(session: Session, known: Catalogues, rows: Sequence[ReportRow]) -> dict[int, dict[str, Any]]:
    """How reports were left, by the number of the report; those that nobody changed are absent. What stands is told by its
    number among what is offered ("what.above#2") or among the proposals ("what.above#p17"), and as text with the places of
    its facts; without text where its catalogue is gone."""
    e = ReportEditRow
    mine = e.report_id.in_([row.report_id for row in rows])
    newest = select(func.max(e.id)).where(mine).group_by(e.gateway, e.report_id)
    made = {(edit.gateway, edit.report_id): edit for edit in session.scalars(select(e).where(e.id.in_(newest)))}
    current = {document: catalogue(session, document) for document in {edit.document for edit in made.values()}}
    found = {}
    for row in rows:
        edit = made.get((row.gateway, row.report_id))
        if edit is not None:
            passages = _passages(row, known)
            told: dict[str, Any] = {"author": edit.author, "time_ms": edit.time_ms}
            for language in LANGUAGES:
                told[language] = _names(session, edit, passages, current[edit.document], language)
            told["sections"] = [
                {"section": passage.heading.section}
                | _text(edits.spoken(passage, "en", dict(edit.en)), "en")
                | _text(edits.spoken(passage, "zh", dict(edit.zh)), "zh")
                for passage in passages
            ]
            found[row.id] = told
    return found


def proposals(session: Session, known: Catalogues, status: str = OPEN, most: int = 100) -> list[dict[str, Any]]:
    """Proposed wordings, newest first, each beside what its clause says today and as it read where it was written."""
    w, r = WordingRow, ReportRow
    written = (r.gateway == w.gateway) & (r.report_id == w.report_id)
    query = select(w, r).outerjoin(r, written).order_by(w.id.desc()).limit(most)
    rows = list(session.execute(query.where(w.status == status) if status else query))
    current = {document: catalogue(session, document) for document in {wording.document for wording, _ in rows}}
    reports = {report.id: report for _, report in rows if report is not None}
    passages = {number: _passages(report, known) for number, report in reports.items()}
    return [
        _shown(wording, current[wording.document], report, passages[report.id] if report is not None else [])
        for wording, report in rows
    ]


def collect_left(session: Session, known: Catalogues) -> LeftBook:
    """What a writer can learn from now: the newest edit of each report, and the facts of the newest reports. A report that
    somebody only called right is none: that says what was found, not how it was worded, and a writer that learned from it
    would learn from itself."""
    e = ReportEditRow
    rows: dict[tuple[str, str], list[ReportEditRow]] = {}
    for edit in session.scalars(select(e).order_by(e.id.desc()).limit(MOST_EDITS)):
        rows.setdefault((edit.gateway, edit.report_id), []).append(edit)
    current = {document: catalogue(session, document) for document in _documents()}
    judges = _judges(session)
    reports = [_left(session, known, made, current, held_out=key in judges) for key, made in rows.items()]
    newest = session.scalars(select(ReportRow).order_by(ReportRow.id.desc()).limit(MOST_FACTS))
    facts = [msgspec.convert(row.body, Report).facts for row in newest if row.body.get("frames")]
    kept = [report for report in reports if report is not None]
    return LeftBook(frames=list(current.values()), reports=kept, facts=facts, lost=len(reports) - len(kept))


def _judges(session: Session) -> set[tuple[str, str]]:
    """Edited reports that judge writers: each fourth in the order in which they were first edited, always the same ones."""
    e = ReportEditRow
    begun = session.execute(select(e.gateway, e.report_id).group_by(e.gateway, e.report_id).order_by(func.min(e.id)))
    return {(gateway, report) for gateway, report in list(begun)[1::JUDGES]}


def _left(
    session: Session,
    known: Catalogues,
    made: Sequence[ReportEditRow],
    catalogues_now: dict[str, Frames],
    *,
    held_out: bool,
) -> LeftReport | None:
    """A report's edits, newest first, in the numbers of the current catalogue: words that nobody accepted count as those that
    stood before. None where the report is gone or says what could not be said today."""
    newest, r = made[0], ReportRow
    row = session.scalar(select(r).where(r.gateway == newest.gateway, r.report_id == newest.report_id))
    passages = _passages(row, known) if row is not None else []
    current = catalogues_now.get(newest.document)
    if row is None or current is None or not passages:
        return None
    facts, issued = passages[0].facts, _issued(passages)
    there = {passage.heading.section for passage in passages}
    said = [one for section, clauses in licensed(current, facts).items() if section in there for one in clauses]
    by_id, kept = {one.id: one for one in said}, {name for name, _ in newest.en}
    if not kept <= by_id.keys() or any(one.mandatory and one.id not in kept for one in said):
        return None
    found: dict[Language, list[str]] = {language: [] for language in LANGUAGES}
    for language in LANGUAGES:
        before = [dict(_stored(edit, language)) for edit in made] + [issued[language]]
        for name, _ in _stored(newest, language):
            offered = wordings(by_id[name], language)
            stood = [words[name] for words in before if name in words]
            stands = next((offered.index(text) for text in stood if text in offered), None)
            if stands is None:
                return None
            found[language].append(f"{name}#{stands}")
    return LeftReport(facts.all, found, newest.document, held_out)


def _stored(edit: ReportEditRow, language: Language) -> list[Any]:
    return edit.en if language == "en" else edit.zh


def _issued(passages: Sequence[Passage]) -> Standing:
    return {
        language: {name: text for passage in passages for name, text in passage.said[language].items()}
        for language in LANGUAGES
    }


def _names(
    session: Session, edit: ReportEditRow, passages: Sequence[Passage], current: Frames, language: Language
) -> list[str]:
    by_id, stored = {clause.id: clause for passage in passages for clause in passage.clauses}, _stored(edit, language)
    offered = {name: choices(by_id[name], language, current) if name in by_id else [] for name, _ in stored}
    own = [text for name, text in stored if text not in offered[name]]
    w, proposed = WordingRow, {}
    if own:
        mine = (w.document == edit.document, w.language == language, w.text.in_(own))
        proposed = {
            (clause, text): n for n, clause, text in session.execute(select(w.id, w.clause, w.text).where(*mine))
        }
    return [
        f"{name}#{offered[name].index(text)}" if text in offered[name] else f"{name}#p{proposed.get((name, text), '')}"
        for name, text in stored
    ]


def _passages(row: ReportRow, known: Catalogues) -> list[Passage]:
    """Empty where the report cannot be read as clauses here, or not any more."""
    try:
        return _read(row, known)[1]
    except Refused:
        return []


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
        offering = msgspec.structs.replace(clause, **{language: offered})
        return edits.as_wording(stand.text, offering, language, passage.facts, current)
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
    try:
        with session.begin_nested():
            session.add(made)
    except IntegrityError:  # somebody else proposed the same words at the same moment
        return session.scalars(select(w).where(*same)).one()
    return made


def _shown(row: WordingRow, current: Frames, report: ReportRow | None, passages: Sequence[Passage]) -> dict[str, Any]:
    clause = next((one for one in current.clauses if one.id == row.clause), None)
    passage = next((one for one in passages if any(c.id == row.clause for c in one.clauses)), None)
    return {
        "id": row.id,
        "document": row.document,
        "section": clause.section if clause is not None else "",
        "clause": row.clause,
        "language": row.language,
        "text": row.text,
        "example": _filled(passage, row.text, _language(row.language)) if passage is not None else "",
        "today": wordings(clause, _language(row.language))[0] if clause is not None else "",
        "doubts": row.doubts,
        "status": row.status,
        "in_catalogue": _stands_in(current, row),
        "author": row.author,
        "report": report.id if report is not None else None,
        "proposed_ms": row.proposed_ms,
    }


def _filled(passage: Passage, text: str, language: Language) -> str:
    """A wording with the report's facts in place."""
    return "".join(passage.facts.text(part, language) if n % 2 else part for n, part in enumerate(parts(text)))


def _text(said: Said, language: Language) -> dict[str, Any]:
    return {f"text_{language}": said.text, f"spans_{language}": msgspec.to_builtins(said.spans)}


def _stands_in(frames: Frames, row: WordingRow) -> bool:
    """Whether a catalogue has it; an accepted one may not fit a newer version of the product."""
    return any(
        row.text in wordings(clause, _language(row.language)) for clause in frames.clauses if clause.id == row.clause
    )


def _document(report: Report) -> str:
    return report.frames.partition("/")[0]


def _documents() -> list[str]:
    return sorted({frames.document for frames in BUILT_IN.values()})


def _language(stored: str) -> Language:
    return "en" if stored == "en" else "zh"
