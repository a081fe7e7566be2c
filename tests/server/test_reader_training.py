"""A reader is learned from labelled notes and sealed: figures of unseen notes beside two references, int8, proven here."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import millwright
from edge_agent.runtimes import load
from protocol.bundles import Runtime, digest, pack, unpack
from protocol.errors import BadBundle, Refused
from protocol.observations import WorkOrder
from protocol.reading.notes import About, Class, Judged, Note, NoteReading
from protocol.reports import ModelRef
from server import datasets
from server.algorithms.note_fusion import calibration_error, chosen_fusion, sure_from
from server.database import Database, FeedbackRow, StatementRow, Table, WorkOrderRow
from server.labelled import LabelledNote
from server.training import Candidate, Circumstances
from server.training.reader import READER, train_reader
from tests import scribbled

NOW = 1_790_000_000_000


@pytest.fixture(scope="module", name="candidate")
def _candidate() -> Candidate:
    return scribbled.trained()


def test_a_sealed_reader_says_what_it_is_worth_and_is_proven_here(candidate: Candidate) -> None:
    passport = candidate.passport
    assert passport.slot == READER
    assert passport.runtime is Runtime.READER
    figures = {(one.metric, one.reference_name): one for one in passport.quality}
    linear, common = (figures["failure_accuracy", name] for name in ("TF-IDF + linear SVM", "commonest class"))
    assert linear.model == common.model > 0.8 > 0.4 > common.reference
    loss = passport.quality[0]
    assert (loss.metric, loss.lower_is_better) == ("failure_log_loss", True)
    assert loss.model < loss.reference
    assert passport.eligible, passport.verdict
    assert linear.n == 180
    assert passport.parity.rel_rms < 0.02
    assert passport.reader is not None
    assert passport.reader.languages == ["en", "zh"]
    assert list(passport.reader.classes) == ["failure", "urgency"]
    assert set(passport.reader.parts["failure"]) <= {"words", "encoder", "cases"}
    assert 0 < passport.reader.sure_from["failure"] <= 1
    assert load(candidate.archive, digest(candidate.archive)).reader is not None


def test_the_same_notes_give_the_same_bytes(candidate: Candidate) -> None:
    again = scribbled.trained()
    first, second = unpack(candidate.archive), unpack(again.archive)
    assert first.tables.keys() == second.tables.keys()
    for name, table in first.tables.items():
        np.testing.assert_array_equal(table, second.tables[name])
    assert first.texts == second.texts


def test_an_altered_reader_is_refused(candidate: Candidate) -> None:
    bundle = unpack(candidate.archive)
    wrong = np.asarray(bundle.tables["words_failure_bias"]) + np.eye(6, dtype=np.float32)[0] * 3
    for altered in (
        msgspec.structs.replace(bundle, tables=bundle.tables | {"words_failure_bias": wrong}),
        msgspec.structs.replace(bundle, texts={"cases.json": b"[]"}),
        msgspec.structs.replace(bundle, passport=msgspec.structs.replace(bundle.passport, reader=None)),
    ):
        archive = pack(altered)
        with pytest.raises(BadBundle):
            load(archive, digest(archive))


def test_a_champion_is_compared_on_notes_that_it_has_not_learned(candidate: Candidate) -> None:
    first = scribbled.trained(120)
    second = scribbled.trained(180, {READER: first.archive})
    figure = second.passport.quality[0]
    assert figure.champion is not None
    assert figure.n == 60
    assert "newer" in figure.split
    assert candidate.passport.quality[0].champion is None


def test_too_few_notes_are_refused_in_words() -> None:
    world = Circumstances("0" * 64, 3, NOW)
    with pytest.raises(Refused, match="40 with a class"):
        train_reader(scribbled.notes(20), 0, world, lambda _share, _step: None)
    one_class = [msgspec.structs.replace(note, said={"failure": "leak"}) for note in scribbled.notes(60)]
    with pytest.raises(Refused, match="two classes"):
        train_reader(one_class, 0, world, lambda _share, _step: None)


def test_a_part_that_tells_nothing_is_left_out() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 400)
    good = np.eye(3)[labels] * 2 + draw.normal(0, 1, (400, 3))
    fusion = chosen_fusion(np.stack([good, draw.normal(0, 1, (400, 3))]), labels, np.log(np.full(3, 1 / 3)))
    assert fusion.mix[0] > 0
    assert fusion.mix[1] == 0


def test_the_reader_is_sure_only_from_where_it_was_right_often_enough() -> None:
    top = np.linspace(0.99, 0.35, 100)
    right = np.arange(100) < 60
    chances = np.stack([top, 1 - top, np.zeros(100)], axis=1)
    labels = np.where(right, 0, 2)
    found = sure_from(chances, labels, 0.9)
    assert right[chances[:, 0] >= found].mean() >= 0.9
    assert found < 0.99
    assert sure_from(chances, np.full(100, 2), 0.9) == 1.0
    assert calibration_error(chances, np.where(np.random.default_rng(0).random(100) < top, 0, 2)) < 0.2


@pytest.fixture(name="database")
def _database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/server.db")
    Table.metadata.create_all(made.engine)
    yield made
    made.close()


def _reading(number: int, note: str) -> NoteReading:
    judged = Judged(about=About.FAILURE, classes=[Class("leak", 0.8), Class("noise", 0.2)], sure=True)
    return NoteReading(
        id=f"reading-{number}",
        note=note,
        machine="P-101",
        issued_ms=NOW,
        judged=[judged],
        model=ModelRef(READER, "reader"),
    )


def test_work_orders_and_what_people_answered_become_labelled_notes(database: Database) -> None:
    arrived = {"gateway": "g", "sent_ms": NOW, "stored_ms": NOW}
    order = WorkOrder(
        id="WO-1", machine="P-101", time_ms=NOW, failure_mode="leak", actions=["replace-seal"], note="seal weeping"
    )
    silent = WorkOrder(id="WO-2", machine="P-101", time_ms=NOW, failure_mode="noise")
    notes = [
        Note(id=f"note-{i}", machine="P-101", time_ms=NOW + i, text=f"note {i}", about="WO-2" if i == 3 else "")
        for i in range(5)
    ]
    notes.append(Note(id="note-9", machine="P-101", time_ms=NOW, text="seal weeping", about="WO-1"))
    with database.begin() as session:
        for seq, one in enumerate((order, silent)):
            session.add(
                WorkOrderRow(
                    **arrived, seq=seq, order_id=one.id, machine=one.machine, time_ms=NOW, body=msgspec.to_builtins(one)
                )
            )
        for seq, note in enumerate(notes):
            body = msgspec.to_builtins(note)
            session.add(
                StatementRow(
                    **arrived, seq=seq, type=Note.type_name, statement_id=note.id, machine="P-101",
                    subject=note.about, time_ms=note.time_ms, body=body,
                )
            )  # fmt: skip
            reading = _reading(seq, note.id)
            session.add(
                StatementRow(
                    **arrived, seq=100 + seq, type=NoteReading.type_name, statement_id=reading.id, machine="P-101",
                    subject=note.id, time_ms=NOW, body=msgspec.to_builtins(reading),
                )
            )  # fmt: skip
        for seq, (verdict, correction) in enumerate(
            [("accepted", ""), ("corrected", "failure:noise"), ("rejected", "")]
        ):
            session.add(
                FeedbackRow(
                    gateway="g",
                    seq=seq,
                    stored_ms=NOW,
                    feedback_id=f"f-{seq}",
                    target=f"reading-{seq}",
                    target_kind="reading",
                    verdict=verdict,
                    correction=correction,
                    comment="",
                    author="",
                    time_ms=NOW + 9,
                    via="panel",
                )
            )
    with database.begin() as session:
        book = datasets.collect_notes(session)
    found = {note.case: note for note in book.notes}
    assert found["WO-1"] == LabelledNote(
        case="WO-1",
        time_ms=NOW,
        machine="P-101",
        text="seal weeping",
        said={"failure": "leak"},
        fixed_by=["action:replace-seal"],
    )
    assert (found["note-0"].said, found["note-0"].source) == ({"failure": "leak"}, "accepted")
    assert (found["note-1"].said, found["note-1"].source) == ({"failure": "noise"}, "answer")
    assert found["note-2"].said == found["note-4"].said == {}
    assert found["note-3"].said == {"failure": "noise"}
    assert "WO-2" not in found
    assert "note-9" not in found  # the order's own words, told a second time


def test_frozen_notes_are_read_back_and_an_altered_file_is_not(tmp_path: Path) -> None:
    book = datasets.NoteBook(scribbled.notes(10))
    snapshot = datasets.freeze_notes(book, tmp_path)
    assert datasets.read_notes(tmp_path / snapshot.path, snapshot.digest) == book
    assert snapshot.described["labelled"] == 10
    (tmp_path / snapshot.path).write_bytes(b"{}")
    with pytest.raises(BadBundle):
        datasets.read_notes(tmp_path / snapshot.path, snapshot.digest)


def _table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([header, *rows])
    return path


def test_a_reader_is_trained_on_a_file_and_asked_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(note.text, note.said["failure"], ";".join(note.fixed_by)) for note in scribbled.notes(120)]
    file = _table(tmp_path / "notes.csv", ("text", "label", "fixed_by"), [*rows, ("", "leak", "")])
    out = tmp_path / "reader"
    status = millwright.main(["train", "notes", "--notes", str(file), "--out", str(out), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert status == (0 if told["eligible"] else 1)
    assert (told["rows"], told["left_out"]) == (120, 1)
    assert told["questions"][0]["right"] > told["questions"][0]["majority"]
    assert "logistic regression" in (out / "report.md").read_text()
    assert millwright.main(["notes", "read", "oil leaking at the flange again", "--bundle", str(out), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)["notes"][0]["reading"]
    assert read["judged"][0]["classes"][0]["name"] == "leak"
    assert read["like"][0]["fixed_by"] == ["action:replace-seal", "part:seal-kit"]


def test_files_that_cannot_be_learned_from_are_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wordless = _table(tmp_path / "a.csv", ("x", "y"), [("1", "2")])
    unlabelled = _table(tmp_path / "b.csv", ("text", "y"), [("oil leak", "2")])
    few = _table(tmp_path / "c.csv", ("text", "label"), [("oil leak", "leak")])
    for file, extra, said in [
        (wordless, [], "--text"),
        (unlabelled, [], "--label"),
        (few, [], "are needed"),
        (few, ["--label", "mode"], "no column 'mode'"),
        (tmp_path / "absent.csv", [], "cannot read"),
        (few, ["--precision", "2"], "--precision"),
    ]:
        assert (
            millwright.main(["train", "notes", "--notes", str(file), "--out", str(tmp_path / "o"), "--quiet", *extra])
            == 2
        )
        assert said in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
