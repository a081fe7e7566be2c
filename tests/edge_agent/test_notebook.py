"""A note is read on the gateway, its failure asks what to do and becomes a known input, and a correction counts at once, with
the cable pulled and after a restart."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("sklearn")

from edge_agent.devices.line import START_MS, Line
from edge_agent.notebook import Notebook, note_of
from edge_agent.runtimes import LoadedModel, load
from protocol.bundles import digest
from protocol.covariates import from_reading
from protocol.errors import BadMessage
from protocol.feedback import Feedback, Verdict
from protocol.reading.notes import Note
from server import training
from server.datasets import order_note


@cache
def archive() -> bytes:
    notes = [order_note(order) for order in Line(1, 7).past_work_orders(120)]
    world = training.Circumstances(
        dataset_digest="0" * 64,
        dataset_rows=len(notes),
        now_ms=START_MS,
        versions={"notes.reader": 1},
        champions={},
        because="a test",
    )
    (made,) = training.train_reader(notes, 7, world, lambda _share, _step: None)
    return made.archive


@pytest.fixture
def reader() -> LoadedModel:
    return load(archive(), digest(archive()))


def quiet(_what: str) -> None:
    """Counts nothing."""


def note(text: str, number: int = 1) -> Note:
    return Note(id=f"n-{number}", machine="P-101", time_ms=START_MS + number, text=text)


def corrected(target: str, to: str, number: int = 1) -> Feedback:
    return Feedback(
        id=f"f-{number}", target=target, verdict=Verdict.CORRECTED, correction=f"failure:{to}", time_ms=START_MS + 99
    )


def test_a_note_is_read_once_and_says_what_failed(tmp_path: Path, reader: LoadedModel) -> None:
    counted: list[str] = []
    book = Notebook(tmp_path, counted.append)
    book.install(reader)
    told = note("growling from the bearing, vibration up since this morning")
    read = book.hear(told, START_MS)
    assert read is not None
    assert read.judged[0].classes[0].name == "bearing wear"
    assert read.judged[0].sure
    assert [known.covariate for known in from_reading(read)] == ["event:bearing-wear"]
    assert read.like[0].fixed_by
    assert book.hear(told, START_MS) is None
    assert counted == ["notes.heard", "notes.read", "notes.duplicate"]
    assert book.about("P-101", START_MS) == read
    assert book.about("P-101", START_MS + 2) is None
    assert book.about("C-201", 0) is None


def test_a_correction_counts_from_the_next_note_on_and_after_a_restart(tmp_path: Path) -> None:
    words = "whistling like a kettle near the gland"
    for restarted in (False, True):
        folder = tmp_path / str(restarted)
        folder.mkdir()
        book = Notebook(folder, quiet)
        book.install(load(archive(), digest(archive())))
        read = book.hear(note(words), START_MS)
        assert read is not None
        assert read.judged[0].classes[0].name != "exhaust blocked"
        told = book.answered(corrected(read.id, "exhaust blocked"))
        assert ("event:exhaust-blocked", False) in {(known.covariate, known.withdrawn) for known in told}
        assert book.answered(corrected(read.id, "exhaust blocked")) == []
        if restarted:
            book = Notebook(folder, quiet)
            book.install(load(archive(), digest(archive())))
        again = book.hear(note(words, 2), START_MS)
        assert again is not None
        assert again.judged[0].classes[0].name == "exhaust blocked"


def test_what_was_written_before_there_was_a_reader_is_read_when_it_comes(tmp_path: Path, reader: LoadedModel) -> None:
    book = Notebook(tmp_path, quiet)
    assert book.hear(note("oil under the press, pressure falling"), START_MS) is None
    assert book.unread(START_MS) == []
    book.install(reader)
    (read,) = book.unread(START_MS)
    assert read.note == "n-1"
    assert book.unread(START_MS) == []


def test_a_finished_work_order_is_a_like_case_from_then_on(tmp_path: Path, reader: LoadedModel) -> None:
    book = Notebook(tmp_path, quiet)
    book.install(reader)
    order = next(iter(Line(2, 11).past_work_orders(1)))
    odd = msgspec.structs.replace(order, id="WO-odd", note="marmalade in the gearbox", actions=["wash-gearbox"])
    book.finished(odd)
    read = book.hear(note("marmalade again in that gearbox"), START_MS)
    assert read is not None
    assert read.like[0].case == "WO-odd"
    assert "action:wash-gearbox" in read.like[0].fixed_by


def test_an_answer_to_something_else_and_an_unreadable_memory_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "notebook.json").write_bytes(b"{")
    counted: list[str] = []
    book = Notebook(tmp_path, counted.append)
    assert counted == ["refused.notebook"]
    assert book.answered(corrected("report-1", "leak")) == []


def test_a_comment_on_an_answer_is_a_note_too() -> None:
    said = Feedback(id="f", target="list-1", verdict=Verdict.REJECTED, comment="it is the coupling", time_ms=START_MS)
    made = note_of(said, "P-101")
    assert made is not None
    assert (made.text, made.about, made.machine) == ("it is the coupling", "list-1", "P-101")
    assert note_of(said, "") is None
    assert note_of(msgspec.structs.replace(said, comment=" "), "P-101") is None


def test_a_text_that_is_too_long_never_reaches_the_reader() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"id": "n", "machine": "m", "time_ms": 1, "text": "x" * 100_000}, Note)
    with pytest.raises(BadMessage):
        load(archive(), digest(archive())).reader.see("x" * 100_000)  # type: ignore[union-attr]
