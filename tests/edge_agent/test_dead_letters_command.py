"""`millwright agent dead-letters`: what could not be delivered is listed with its reason, and put back by hand."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.outbox import Outbox
from protocol.names import MessageClass
from protocol.sync import Refusal


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    """A data_dir with two dead letters."""
    outbox = Outbox(tmp_path / "outbox.db", 1_000_000)
    for _ in range(3):
        outbox.add(MessageClass.EVENT, b"not an envelope")
    outbox.commit()
    outbox.bury(MessageClass.EVENT, Refusal(1, "never_acknowledged"))
    outbox.bury(MessageClass.EVENT, Refusal(3, "too_large"))
    outbox.close()
    return tmp_path


def test_dead_letters_are_listed_in_words_and_for_programs(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead-letters", "list", "--data-dir", str(gateway)]) == 0
    words = capsys.readouterr().out
    assert "never_acknowledged" in words
    assert "2 dead letter(s)" in words
    assert main(["dead-letters", "list", "--data-dir", str(gateway), "--class", "event", "--json"]) == 0
    assert [x["seq"] for x in json.loads(capsys.readouterr().out)] == [1, 3]
    assert main(["dead-letters", "list", "--data-dir", str(gateway), "--class", "bulk", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_one_letter_is_put_back(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["dead-letters", "retry", "--data-dir", str(gateway), "--class", "event", "--seq", "3", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == {"marked": 1}
    main(["dead-letters", "list", "--data-dir", str(gateway)])
    assert capsys.readouterr().out.count("to be sent again") == 1


def test_a_number_without_its_class_and_a_folder_without_an_outbox_are_said(
    gateway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["dead-letters", "retry", "--data-dir", str(gateway), "--seq", "3"])
    assert main(["dead-letters", "list", "--data-dir", str(tmp_path / "nowhere")]) == 2
    assert "there is no" in capsys.readouterr().err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "outbox.db").write_bytes(b"this is no database, but long enough to be looked at" * 50)
    assert main(["dead-letters", "list", "--data-dir", str(tmp_path / "bad")]) == 2


def test_a_damaged_outbox_is_said_in_one_line_and_read_no_further(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = gateway / "outbox.db"
    with sqlite3.connect(file) as db:
        db.executescript("PRAGMA journal_mode=DELETE; PRAGMA writable_schema=ON; UPDATE sqlite_schema SET rootpage = 1")
    assert main(["dead-letters", "list", "--data-dir", str(gateway)]) == 2
    assert "cannot be read as a gateway's outbox" in capsys.readouterr().err
