"""People change reports; what they write becomes a wording when somebody accepts it, and what a writer learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session

from protocol.errors import Reason, Refused
from protocol.reports import Report
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.facts import Mode
from protocol.writing.frames import Frames, reference
from server import catalogues, datasets, edits
from server.__main__ import migrate
from server.app import create_app
from server.catalogues import Catalogues
from server.config import Settings
from server.database import Database, ReportRow, WordingRow
from server.training.left_reports import sections
from tests.written import report

TOKEN, GATEWAY_TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF", "pQ8wE2rT6yU1iO9aS4dF7gHj"
NOW = 1_790_000_000_000
AT = 1
"""A clause of the report that shows figures."""


class Plant:
    """A server with one report, and a client that may do everything."""

    def __init__(self, folder: Path, database: str = "") -> None:
        self.settings = Settings(
            database=database or f"sqlite:///{folder}/server.db",
            artifacts=str(folder / "artifacts"),
            admin_token=TOKEN,
            gateway_token=GATEWAY_TOKEN,
        )
        migrate(self.settings)
        self.database = Database(self.settings.database)
        self.catalogues = Catalogues(self.settings.artifact_folder)
        self.issued = report()
        self.add(self.issued)
        self.client = TestClient(create_app(self.settings, self.database))
        self.client.headers["Authorization"] = f"Bearer {TOKEN}"

    def add(self, one: Report, seq: int = 1) -> None:
        with self.database.begin() as session:
            row = ReportRow(gateway="line-1", seq=seq, sent_ms=NOW, stored_ms=NOW, machine=one.machine, issued_ms=NOW)
            row.report_id, row.event_id, row.body = one.id, one.event, msgspec.to_builtins(one)
            session.add(row)

    def clauses(self, number: int = 1) -> list[dict[str, Any]]:
        told = self.client.get(f"/api/v1/reports/{number}/wordings").json()
        return [clause for section in told["sections"] for clause in section["clauses"]]

    def standing(self, language: str = "en") -> list[dict[str, Any]]:
        """The report as it stands, in the form in which it is sent back."""
        return [
            {"clause": one["clause"]}
            | ({"text": here["proposed"]} if "proposed" in here else {"wording": here["said"]})
            for one in self.clauses()
            if (here := one[language])["said"] is not None or "proposed" in here
        ]

    def save(self, clauses: list[dict[str, Any]], language: str = "en", number: int = 1) -> Any:
        body = {"language": language, "clauses": clauses, "author": "Li"}
        return self.client.post(f"/api/v1/reports/{number}/edits", json=body)

    def own(self, text: str) -> tuple[str, Any]:
        """(clause, answer) of saving the report with own words in one place, which shows figures."""
        standing = self.standing()
        name = standing[AT]["clause"]
        standing[AT] = {"clause": name, "text": text}
        return name, self.save(standing)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    with made.client:
        yield made
    made.database.close()


def said(plant: Plant) -> str:
    one = plant.clauses()[AT]["en"]
    return str(one["wordings"][one["said"]])


def test_a_report_shows_every_clause_with_what_else_may_be_said(plant: Plant) -> None:
    told = plant.client.get("/api/v1/reports/1/wordings").json()
    assert [section["section"] for section in told["sections"]] == [s.section for s in plant.issued.sections]
    assert told["edited"] is None
    text = " ".join(one["en"]["wordings"][one["en"]["said"]] for one in told["sections"][0]["clauses"])
    assert text == plant.issued.sections[0].text_en
    assert any(one["may_omit"] for one in plant.clauses())
    assert all(len(one["zh"]["wordings"]) > 0 and "<" not in one["en"]["wordings"][0] for one in plant.clauses())


def test_another_wording_and_a_clause_left_out_stand_in_both_languages(plant: Plant) -> None:
    before = plant.clauses()
    optional = next(one["clause"] for one in before if one["may_omit"] and one["en"]["said"] is not None)
    kept = [one for one in plant.standing() if one["clause"] != optional]
    kept[0]["wording"] = 1
    assert plant.save(kept).json() == {"edit": 1, "proposed": []}
    after = plant.clauses()
    assert after[0]["en"]["said"] == 1
    assert after[0]["zh"]["said"] == before[0]["zh"]["said"]
    gone = next(one for one in after if one["clause"] == optional)
    assert gone["en"]["said"] is None
    assert gone["zh"]["said"] is None
    edited = plant.client.get("/api/v1/reports/1/wordings").json()["edited"]
    assert edited["author"] == "Li"
    assert edited["en"] == [f"{one['clause']}#{one['wording']}" for one in kept]
    assert [name.partition("#")[0] for name in edited["zh"]] == [one["clause"] for one in kept]
    section = edited["sections"][0]
    assert section["text_en"].startswith(after[0]["en"]["wordings"][1])
    for span in section["spans_en"]:
        assert span["end"] <= len(section["text_en"])
    with plant.database.begin() as session:
        assert session.get_one(ReportRow, 1).body == msgspec.to_builtins(plant.issued)  # as it was issued


def test_own_words_wait_for_somebody_and_are_then_in_the_catalogue(plant: Plant) -> None:
    name, answer = plant.own("Mind you. " + said(plant))
    assert answer.status_code == 201
    (proposed,) = answer.json()["proposed"]
    assert proposed["clause"] == name
    assert "<" in proposed["text"]
    assert plant.clauses()[AT]["en"]["proposed"] == "Mind you. " + said_today(plant)
    (shown,) = plant.client.get("/api/v1/wordings").json()
    assert (shown["report"], shown["in_catalogue"], shown["doubts"]) == (1, False, [])
    edited = plant.client.get("/api/v1/reports/1/wordings").json()["edited"]
    assert edited["en"][AT] == f"{name}#p{proposed['id']}"
    assert (shown["author"], shown["example"]) == ("Li", "Mind you. " + said_today(plant))
    assert reference(catalogue(plant)) == reference(FAULT_REPORT)
    answer = plant.client.post(f"/api/v1/wordings/{proposed['id']}/answer", json={"accept": True, "author": "Wang"})
    assert answer.json() == {"id": proposed["id"], "status": "accepted"}
    assert plant.client.get("/api/v1/wordings").json() == []
    grown = catalogue(plant)
    assert grown.version == FAULT_REPORT.version + 1
    assert next(one for one in grown.clauses if one.id == name).en[-1] == proposed["text"]
    assert plant.catalogues.get(reference(grown)) == grown  # reports written with it can be read back
    assert plant.clauses()[AT]["en"]["said"] == len(plant.clauses()[AT]["en"]["wordings"]) - 1
    again = plant.client.post(f"/api/v1/wordings/{proposed['id']}/answer", json={"accept": False})
    assert again.status_code == 409
    assert plant.own("Mind  you. " + said_today(plant))[1].json()["proposed"] == []  # it is simply that wording now
    (shown,) = plant.client.get("/api/v1/wordings?status=accepted").json()
    assert shown["in_catalogue"]
    assert plant.client.get("/api/v1/audit").json()[0]["what"] == "wording accepted"


def said_today(plant: Plant) -> str:
    return str(plant.clauses()[AT]["en"]["wordings"][0])


def catalogue(plant: Plant) -> Frames:
    told = plant.client.get("/api/v1/catalogues/fault_report").json()
    return msgspec.convert(told, Frames)


def test_doubted_words_are_accepted_only_by_whoever_says_that_he_looked(plant: Plant) -> None:
    _, answer = plant.own("It never fell: " + said(plant))
    (proposed,) = answer.json()["proposed"]
    assert any("negation" in doubt for doubt in proposed["doubts"])
    path = f"/api/v1/wordings/{proposed['id']}/answer"
    refused = plant.client.post(path, json={"accept": True})
    assert refused.status_code == 409
    assert "despite_doubts" in refused.json()["remedy"]
    assert plant.client.post(path, json={"accept": True, "despite_doubts": True}).json()["status"] == "accepted"


def test_rejected_words_stay_in_the_report_and_out_of_the_catalogue(plant: Plant) -> None:
    _, answer = plant.own("Listen. " + said(plant))
    number = answer.json()["proposed"][0]["id"]
    plant.client.post(f"/api/v1/wordings/{number}/answer", json={"accept": False})
    assert reference(catalogue(plant)) == reference(FAULT_REPORT)
    assert plant.clauses()[AT]["en"]["proposed"].startswith("Listen. ")
    assert plant.own("Listen. " + said_today(plant))[1].json()["proposed"][0]["id"] == number  # asked once, not again


def bad(plant: Plant) -> list[tuple[list[dict[str, Any]], str]]:
    standing = plant.standing()
    first, rest = standing[AT]["clause"], standing[:AT] + standing[AT + 1 :]
    here = said(plant)
    digit = next(c for c in here if c.isdigit())
    return [
        ([], "must be said"),
        ([*standing, standing[0]], "stands twice"),
        ([*standing, {"clause": "what.never", "wording": 0}], "no clause of this report"),
        ([{"clause": first, "wording": 99}, *rest], "wordings, from 0 on"),
        ([{"clause": first}, *rest], "a wording, or a text"),
        ([{"clause": first, "text": here, "wording": 0}, *rest], "a wording, or a text"),
        ([{"clause": first, "text": " "}, *rest], "empty"),
        ([{"clause": first, "text": here.replace(digit, "7" if digit != "7" else "8", 1)}, *rest], "must still show"),
        ([{"clause": first, "text": f"<script>{here}</script>"}, *rest], "without slots or markup"),
        ([{"clause": first, "text": "x" * 50_000}, *rest], "at most 2000"),
    ]


def test_every_bad_edit_says_what_to_change_and_stores_nothing(plant: Plant) -> None:
    for clauses, message in bad(plant):
        answer = plant.save(clauses)
        assert answer.status_code == 422, message
        assert message in " ".join(answer.json().values())
    assert plant.client.get("/api/v1/reports/1/wordings").json()["edited"] is None
    assert plant.client.get("/api/v1/wordings?status=").json() == []
    assert plant.save([], number=99).status_code == 404
    assert plant.client.post("/api/v1/reports/1/edits", content=b"x" * 100_000).status_code == 413
    assert plant.client.post("/api/v1/reports/1/edits", content=b"{").status_code == 422
    assert plant.save(plant.standing(), language="fr").status_code == 422
    body = {"language": "en", "clauses": plant.standing()}
    assert plant.client.post("/api/v1/reports/1/edits", json=body | {"author": "Li\x00"}).status_code == 422
    assert plant.client.get("/api/v1/wordings?status=%00").status_code == 422
    assert plant.client.get(f"/api/v1/reports/{2**70}/wordings").status_code == 422
    assert plant.client.get("/api/v1/catalogues/recipe").status_code == 404
    assert plant.client.post("/api/v1/wordings/7/answer", json={"accept": True}).status_code == 404


def test_the_page_may_edit_and_a_foreign_page_may_not(plant: Plant) -> None:
    body = {"language": "en", "clauses": plant.standing()}
    assert plant.client.post("/console/reports/1/edits", json=body).status_code == 403
    sent = plant.client.post("/console/reports/1/edits", json=body, headers={"X-Millwright": "console"})
    assert sent.status_code == 201
    state = plant.client.get("/console/state.json").json()
    assert (state["reports"][0]["number"], state["reports"][0]["edited"]["author"]) == (1, "")
    assert state["wordings"] == []


def test_a_writer_learns_from_the_newest_edit_and_from_accepted_words(plant: Plant, tmp_path: Path) -> None:
    name, answer = plant.own("Note well. " + said(plant))
    with plant.database.begin() as session:
        book = edits.collect_left(session, plant.catalogues)
    (left,) = book.reports
    assert left.clauses["en"][AT] == f"{name}#0"  # nobody accepted it: what stood before
    plant.client.post(f"/api/v1/wordings/{answer.json()['proposed'][0]['id']}/answer", json={"accept": True})
    with plant.database.begin() as session:
        book = edits.collect_left(session, plant.catalogues)
    (left,) = book.reports
    frames = book.frames[0]
    many = len(next(one for one in frames.clauses if one.id == name).en)
    assert left.clauses["en"][AT] == f"{name}#{many - 1}"
    assert " Note well. " in sections(left, frames, "en")[0][1]
    snapshot = datasets.freeze_left(book, tmp_path)
    again = datasets.read_left(tmp_path / snapshot.path, snapshot.digest)
    assert msgspec.to_builtins(again) == msgspec.to_builtins(book)
    assert snapshot.described["edited"] == 1
    assert len(again.facts) == 1


def test_every_fourth_edited_report_judges_and_always_the_same_ones(plant: Plant) -> None:
    for number in range(2, 42):
        plant.add(msgspec.structs.replace(plant.issued, id=f"report-{number}", event=f"event-{number}"), seq=number)
        plant.save(plant.standing(), number=number)
    with plant.database.begin() as session:
        first = [left.held_out for left in edits.collect_left(session, plant.catalogues).reports]
        again = [left.held_out for left in edits.collect_left(session, plant.catalogues).reports]
    assert first == again
    assert sum(first) == 10


def test_a_clause_of_another_report_is_none_of_this_one(plant: Plant) -> None:
    other = report(recommendation=None)
    plant.add(msgspec.structs.replace(other, id="report-2"), seq=2)
    mine = {one["clause"] for one in plant.clauses()}
    foreign = next(iter(mine - {one["clause"] for one in plant.clauses(2)}))
    answer = plant.save([{"clause": foreign, "wording": 0}], number=2)
    assert answer.status_code == 422
    assert "no clause of this report" in answer.json()["error"]


def test_words_that_nobody_accepted_count_as_those_that_stood_before(plant: Plant) -> None:
    standing = plant.standing()
    standing[AT]["wording"] = 1
    plant.save(standing)
    name, _ = plant.own("Note well. " + said(plant))
    with plant.database.begin() as session:
        (left,) = edits.collect_left(session, plant.catalogues).reports
    assert left.clauses["en"][AT] == f"{name}#1"


def test_a_refusal_that_quotes_a_colon_keeps_fact_and_remedy_whole(plant: Plant) -> None:
    _, answer = plant.own("Now: it is <b>so</b>.")
    assert answer.json()["remedy"] == "write the values as they read, without slots or markup"
    first = plant.clauses()[AT]["en"]["wordings"][0]
    _, answer = plant.own(first + " Note: more.")
    assert answer.json()["remedy"] == "begin it otherwise"
    assert f"clause {plant.clauses()[AT]['clause']!r}" in answer.json()["error"]


def test_a_section_in_free_prose_stands_as_it_is_beside_the_others(plant: Plant) -> None:
    free = msgspec.structs.replace(plant.issued.sections[0], mode_en=Mode.FREE, clauses_en=[])
    plant.add(
        msgspec.structs.replace(plant.issued, id="report-2", sections=[free, *plant.issued.sections[1:]]),
        seq=2,
    )
    told = plant.client.get("/api/v1/reports/2/wordings").json()["sections"]
    assert (told[0]["clauses"], told[0]["why"]) == ([], edits.FREE_PROSE)
    kept = [{"clause": c["clause"], "wording": c["en"]["said"]} for section in told for c in section["clauses"]]
    assert plant.save(kept, number=2).status_code == 201
    with plant.database.begin() as session:
        book = edits.collect_left(session, plant.catalogues)
    assert sections(book.reports[0], book.frames[0], "en")
    assert book.lost == 0


def test_a_catalogue_that_is_gone_takes_one_report_and_nothing_else(plant: Plant, tmp_path: Path) -> None:
    gone = msgspec.structs.replace(FAULT_REPORT, version=77)
    kept = catalogues.keep(gone, plant.settings.artifact_folder)
    plant.add(msgspec.structs.replace(plant.issued, id="report-2", frames=reference(gone)), seq=2)
    standing = plant.standing()
    standing[AT] = {"clause": standing[AT]["clause"], "text": "Note well. " + said(plant)}
    assert plant.save(standing, number=2).status_code == 201
    assert plant.save(plant.standing()).status_code == 201
    kept.unlink()
    fresh = TestClient(create_app(plant.settings, plant.database), headers=dict(plant.client.headers))
    state = fresh.get("/console/state.json").json()
    newest = next(one for one in state["reports"] if one["number"] == 2)
    assert (newest["edited"]["author"], newest["edited"]["sections"]) == ("Li", [])
    assert state["wordings"][0]["example"] == ""
    assert fresh.get("/api/v1/reports/2/wordings").status_code == 422
    with plant.database.begin() as session:
        book = edits.collect_left(session, Catalogues(plant.settings.artifact_folder))
    assert (len(book.reports), book.lost) == (1, 1)


def test_an_accepted_wording_that_a_newer_catalogue_has_no_place_for_is_told(plant: Plant) -> None:
    _, answer = plant.own("Note well. " + said(plant))
    with plant.database.begin() as session:
        row = session.get_one(WordingRow, answer.json()["proposed"][0]["id"])
        row.status, row.answered_ms, row.clause = "accepted", NOW, "what.of_an_older_version"
    assert reference(catalogue(plant)) == reference(FAULT_REPORT)
    (shown,) = plant.client.get("/api/v1/wordings?status=accepted").json()
    assert not shown["in_catalogue"]
    assert plant.client.get("/console/state.json").status_code == 200


@pytest.mark.postgres
def test_on_postgresql_the_same_words_at_once_are_one_proposal_and_one_answer_counts(
    postgres_url: str, tmp_path: Path
) -> None:
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE edits"))
    server.dispose()
    plant = Plant(tmp_path, make_url(postgres_url).set(database="edits").render_as_string(hide_password=False))
    standing = plant.standing()
    standing[AT] = {"clause": standing[AT]["clause"], "text": "Note well. " + said(plant)}
    given = msgspec.convert({"language": "en", "clauses": standing}, edits.Given)

    def propose(session: Session) -> int:
        _, (wording,) = edits.save(session, plant.catalogues, session.get_one(ReportRow, 1), given, NOW)
        return wording.id

    def accept(session: Session) -> str:
        folder = plant.settings.artifact_folder
        try:
            return edits.answer(session, 1, folder, accept=True, who="", despite_doubts=False, now_ms=NOW).status
        except Refused as why:
            return why.reason

    def in_turn(ask: Callable[[Session], Any]) -> tuple[Any, Any]:
        """Two server processes at once: the second one asks before the first one has committed."""

        def second() -> Any:
            with plant.database.begin() as session:
                return ask(session)

        with ThreadPoolExecutor(1) as other:
            with plant.database.begin() as session:
                first = ask(session)
                waiting = other.submit(second)
                wait([waiting], timeout=1)
            return first, waiting.result()

    assert in_turn(propose) == (1, 1)
    assert in_turn(accept) == ("accepted", Reason.CONFLICTING_DUPLICATE)
    assert catalogue(plant).version == FAULT_REPORT.version + 1
    plant.client.close()
    plant.database.close()
