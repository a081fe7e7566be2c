"""Edited reports make a writer: when one is due, what it learns from, and that accepted words reach the gateways with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from protocol.bundles import unpack
from protocol.reports import Report, Severity
from protocol.windows import WindowSpec
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.edits import Wording, with_wordings
from protocol.writing.frames import read_frames, reference
from server import datasets, edits, kinds
from server.__main__ import migrate
from server.app import create_app
from server.catalogues import Catalogues
from server.config import Settings, TrainingSettings
from server.database import Database, Job, ReportEditRow, ReportRow, Table, WordingRow
from server.demo.accounting import reports_by_the_model
from server.demo.editors import OWN, OWN_CLAUSE, Editors
from server.training import writer_lessons
from server.training.circumstances import Circumstances
from server.training.left_reports import made_up
from server.training.writer import train_writer
from server.training.writer_lessons import WriterPlan
from tests import written

PLAN = TrainingSettings(first_write_after_edits=4, retrain_after_edits=3)
WORLD = Circumstances(dataset_digest="0" * 64, dataset_rows=0, now_ms=0)
LITTLE = WriterPlan(shape=replace(WriterPlan().shape, layers=1, width=32)).with_steps(10)
TOKEN, GATEWAY_TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF", "pQ8wE2rT6yU1iO9aS4dF7gHj"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    held = Database(f"sqlite:///{tmp_path / 'server.db'}")
    Table.metadata.create_all(held.engine)
    yield held
    held.close()


def edit(session: Session, number: int) -> None:
    session.add(
        ReportEditRow(
            gateway="line-1", report_id=f"r-{number}", document="fault_report", frames="", time_ms=0, en=[], zh=[]
        )
    )
    session.flush()


def accept_wording(session: Session, text: str) -> None:
    session.add(
        WordingRow(
            document="fault_report",
            clause="severity.alarm",
            language="en",
            text=text,
            status="accepted",
            gateway="line-1",
            report_id="r-1",
            doubts=[],
            proposed_ms=0,
            answered_ms=1,
        )
    )
    session.flush()


def trained(session: Session) -> str:
    """Why a writer is due, "" if none is; then it counts as trained."""
    due = kinds.KINDS[kinds.WRITE].due(session, PLAN)
    if due is None:
        return ""
    session.add(Job(kind=kinds.WRITE, status="done", because=due[0], arguments=due[1], result={}, created_ms=0))
    session.flush()
    return due[0]


def test_a_writer_is_due_once_enough_reports_were_edited_however_often_each(database: Database) -> None:
    with database.begin() as session:
        for number in (1, 2, 3, 3, 3):
            edit(session, number)
        accept_wording(session, "Watch out.")
        assert trained(session) == ""
        edit(session, 4)
        assert trained(session) == "first training on 4 edited reports"
        assert trained(session) == ""
        for number in (4, 5):
            edit(session, number)
        assert trained(session) == ""
        edit(session, 6)
        assert trained(session).startswith("3 edited reports since")


def test_an_accepted_wording_makes_the_next_writer_due(database: Database) -> None:
    with database.begin() as session:
        for number in range(4):
            edit(session, number)
        assert trained(session)
        accept_wording(session, "Watch out.")
        assert "1 accepted wordings since" in trained(session)
        assert trained(session) == ""


def test_a_writer_is_trained_on_made_up_reports_where_nobody_edited_any(database: Database, tmp_path: Path) -> None:
    snapshot, _ = kinds.KINDS[kinds.WRITE].freeze(database, PLAN, tmp_path)
    book = datasets.read_left(tmp_path / snapshot.path, snapshot.digest)
    assert ([reference(frames) for frames in book.frames], book.reports) == ([reference(FAULT_REPORT)], [])
    task = kinds.Task(
        kind=kinds.WRITE,
        dataset=tmp_path / snapshot.path,
        digest=snapshot.digest,
        rows=snapshot.rows,
        window=WindowSpec(step_ms=60_000, length=24, horizon=6, season=0),
        epochs=0,
        seed=7,
        versions={},
        champions={},
        because="",
        now_ms=0,
        writer_steps=10,
        writer_layers=1,
        writer_width=32,
    )
    (candidate,) = kinds.KINDS[kinds.WRITE].train(task, WORLD, lambda share, step: None)
    assert candidate.passport.writer is not None
    assert candidate.passport.writer.prefer == {"fault_report": False}
    assert candidate.passport.lineage.parameters["layers"] == "1"


def test_accepted_words_travel_in_the_writers_bundle() -> None:
    own = Wording(clause="severity.alarm", language="en", text="Watch out.")
    grown, left_over = with_wordings(FAULT_REPORT, [own])
    assert left_over == []
    (candidate,) = train_writer(replace(LITTLE, frames=(grown,)), WORLD, lambda share, text: None)
    assert read_frames(unpack(candidate.archive).texts["frames_fault_report.json"]) == grown


@given(st.integers(0, 40), st.integers(0, 6))
def test_what_judges_is_about_no_event_that_taught(events: int, edited: int) -> None:
    facts = [made_up(FAULT_REPORT, seed, styled=False).facts for seed in range(events)]
    people = [made_up(FAULT_REPORT, seed, styled=True) for seed in range(edited)]
    teaching, judging = writer_lessons.shared_out(facts, people)
    judges = judging if not people else [report.facts for report in people]
    assert not [each for each in teaching if each in judges]
    assert people == [] or judging == []
    assert len(teaching) + len(judging) >= events - edited


def test_half_of_the_made_up_reports_are_about_the_plants_own_events() -> None:
    own = tuple(made_up(FAULT_REPORT, seed, styled=False).facts for seed in range(1000, 1010))
    course = writer_lessons.Course(replace(LITTLE, facts=own), lambda share, text: None, None)
    made = [*course.made, *course.made_check]
    assert abs(sum(report.facts in own for report in made) - len(made) / 2) <= 1


def test_fewer_steps_are_a_smaller_lesson_in_proportion() -> None:
    usual = WriterPlan()
    half = usual.with_steps(usual.made_loop.steps // 2)
    assert half.made == usual.made // 2
    assert half.left_loop.steps == usual.left_loop.steps // 2
    assert usual.with_steps(usual.made_loop.steps) == usual


# --- the engineers of the demo, at the real API ---


class Office:
    """A server with some reports, and its API as the demo calls it."""

    def __init__(self, folder: Path, reports: list[Report]) -> None:
        settings = Settings(
            database=f"sqlite:///{folder}/server.db",
            artifacts=str(folder / "artifacts"),
            admin_token=TOKEN,
            gateway_token=GATEWAY_TOKEN,
        )
        migrate(settings)
        self.database = Database(settings.database)
        self.catalogues = Catalogues(settings.artifact_folder)
        with self.database.begin() as session:
            for seq, one in enumerate(reports, 1):
                row = ReportRow(gateway="line-1", seq=seq, sent_ms=0, stored_ms=0, machine=one.machine, issued_ms=seq)
                row.report_id, row.event_id, row.body = f"r-{seq}", f"e-{seq}", msgspec.to_builtins(one)
                session.add(row)
        self.client = TestClient(create_app(settings, self.database))
        self.client.headers["Authorization"] = f"Bearer {TOKEN}"

    def api(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        asked = self.client.get(f"/api/v1/{path}") if body is None else self.client.post(f"/api/v1/{path}", json=body)
        assert asked.is_success, asked.text
        return asked.json()


def test_engineers_leave_alarms_short_and_the_rest_full_in_their_own_words(tmp_path: Path) -> None:
    alarm = written.report(event=written.event(severity=Severity.ALARM))
    office = Office(tmp_path, [written.report(), alarm, written.report(), written.report()])
    with office.client:
        editors = Editors(office.api, most=3)
        editors.look(0)
        assert not editors.edited
        editors.look(4)
        editors.look(5)
        assert (editors.edited, editors.accepted) == ({1, 2, 3}, 1)
        with office.database.begin() as session:
            book = edits.collect_left(session, office.catalogues)
    office.database.close()
    third, short, full = book.reports
    assert len(short.clauses["en"]) < len(full.clauses["en"]) == len(third.clauses["en"])
    assert len(short.clauses["zh"]) == len(short.clauses["en"])
    by_id = {clause.id: clause for clause in book.frames[0].clauses}
    said = {name.partition("#")[0]: int(name.partition("#")[2]) for name in full.clauses["en"]}
    assert OWN in by_id[OWN_CLAUSE].en[said[OWN_CLAUSE]]
    assert f"{OWN_CLAUSE}#{said[OWN_CLAUSE]}" not in short.clauses["en"]
    assert reference(book.frames[0]) != reference(FAULT_REPORT)


def test_a_report_counts_for_the_model_that_chose_its_words() -> None:
    def told(mode: str, *clauses: str) -> dict[str, Any]:
        return {"sections": [{"mode_en": mode, "clauses_en": list(clauses)}]}

    found = reports_by_the_model(
        [told("strict", "how.deviation#3"), told("strict", "how.deviation#0"), told("template", "how.deviation#0")]
    )
    assert found == {"reports": 2, "with_own_words": 1}
