"""The server keeps no report that says what its facts do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import select

from edge_agent.skills.write_report import write
from protocol.clocks import ClockConfidence
from protocol.errors import BadFrames
from protocol.names import MessageClass
from protocol.reports import Recommendation, Report
from protocol.sync import Batch, ClassAck, encode, envelope
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.frames import encode_frames
from server import catalogues, intake
from server.catalogues import Catalogues
from server.database import Database, QuarantineRow, ReportRow, Table
from server.many_rows import Rows
from server.routes.api import count_everything
from tests import written
from tests.written import LABELS, T0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/server.db")
    Table.metadata.create_all(made.engine)
    yield made
    made.close()


def send(database: Database, *reports: Report | Recommendation, known: Catalogues | None = None) -> ClassAck:
    told = [
        envelope(r, site="s", gateway="g", seq=n, boot="b", clock=ClockConfidence.SYNCED, time_ms=T0)
        for n, r in enumerate(reports, start=1)
    ]
    with database.begin() as session:
        payload = encode(Batch(envelopes=told))
        return intake.store_batch(session, "s", "g", MessageClass.REPORT, payload, T0, known or Catalogues())


def lie(report: Report) -> Report:
    first = msgspec.structs.replace(report.sections[0], text_en=report.sections[0].text_en.replace("higher", "lower"))
    return msgspec.structs.replace(report, id="report-lie", sections=[first, *report.sections[1:]])


def test_a_report_that_does_not_verify_is_quarantined_with_what_is_not_true(database: Database) -> None:
    true = written.report()
    ack = send(database, true, lie(true))
    assert [(r.seq, r.reason) for r in ack.nack] == [(2, "unverified_report")]
    assert ack.upto == 2
    with database.begin() as session:
        assert list(session.scalars(select(ReportRow.report_id))) == [true.id]
        (row,) = session.scalars(select(QuarantineRow))
        assert "what_happened/en" in row.detail
        assert count_everything(session)["reports_not_read_back"] == 0


def test_an_old_report_without_facts_passes_and_is_counted(database: Database) -> None:
    true = written.report()
    bare = [msgspec.structs.replace(s, section="", clauses_en=[], clauses_zh=[]) for s in true.sections]
    old = msgspec.structs.replace(true, facts=[], frames="", sections=bare)
    assert send(database, old).nack == []
    with database.begin() as session:
        assert count_everything(session)["reports_not_read_back"] == 1


def test_a_report_of_a_part_that_its_recommendation_does_not_hold_is_refused(database: Database) -> None:
    invented = written.recommendation(written.item("part:gold", 1))
    report = written.report(recommendation=invented)
    assert send(database, written.RECOMMENDED, report).nack[0].reason == "unverified_report"
    with database.begin() as session:
        (row,) = session.scalars(select(QuarantineRow))
        assert "recommendation-1 says" in row.detail


@pytest.mark.parametrize("gone", [{"facts": []}, {"frames": ""}, {"facts": [], "frames": ""}])
def test_taking_the_facts_or_the_catalogue_away_hides_nothing(database: Database, gone: dict[str, object]) -> None:
    stripped = msgspec.structs.replace(lie(written.report()), **gone)
    assert [r.reason for r in send(database, stripped).nack] == ["unverified_report"]


def test_a_catalogue_that_a_bundle_brought_is_known_from_then_on(database: Database, tmp_path: Path) -> None:
    frames = msgspec.structs.replace(FAULT_REPORT, version=2)
    report = write(written.case(), LABELS, T0, frames=frames)
    known = Catalogues(tmp_path)
    assert [r.reason for r in send(database, report, known=known).nack] == ["unverified_report"]
    catalogues.keep_those_of({"frames_fault_report.json": encode_frames(frames), "tokenizer.json": b"{}"}, tmp_path)
    assert known.get(report.frames) == frames
    assert known.get(report.frames.replace("/2/", "/3/")) is None
    with database.begin() as session:
        assert intake.store(
            Rows(session),
            "g",
            envelope(report, site="s", gateway="g", seq=9, boot="b", clock=ClockConfidence.SYNCED, time_ms=T0),
            T0,
            known,
        )


def test_a_bundle_with_a_bad_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFrames):
        catalogues.keep_those_of({"frames_fault_report.json": b"{}"}, tmp_path)


@pytest.mark.parametrize("told", ["", "fault_report/1/../../etc", "fault_report/1/" + "0" * 64, "x" * 256])
def test_a_reference_to_nothing_finds_nothing(told: str, tmp_path: Path) -> None:
    assert Catalogues(tmp_path).get(told) is None


def test_reading_a_report_back_takes_milliseconds() -> None:
    report, known = written.report(), Catalogues()
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        catalogues.read_back(report, known)
        seconds.append(time.perf_counter() - began)
    assert np.median(seconds) < 0.05
