"""`millwright report`: a report read back from a file, its evidence recounted from raw samples, lies named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

import millwright
from edge_agent.history import History, samples_of
from protocol.errors import BadSettings
from protocol.reports import Report
from protocol.sync import encode
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.frames import encode_frames
from tests import written
from tests.written import LABELS, T0


def history(folder: Path, values: list[float]) -> Path:
    path = folder / "history.db"
    made = History(path)
    rows = [("P-101", "vibration", T0 + 1000 * n, v, "good", "mm/s", False) for n, v in enumerate(values)]
    rows.append(("P-101", "vibration", T0 + 999_999, 99.0, "bad", "mm/s", False))
    made.store(rows, [], lambda _stored: {})
    made.close()
    return path


def kept(folder: Path, *reports: Report) -> Path:
    path = folder / "reports.json"
    path.write_bytes(b"\n".join(encode(report) for report in reports))
    return path


def asked(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int) -> str:
    assert millwright.main(["report", *map(str, arguments)]) == status
    told = capsys.readouterr()
    return told.out + told.err


def test_a_report_is_read_back_from_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = asked(capsys, "verify", kept(tmp_path, written.report()), status=0)
    assert "every sentence read back" in told
    assert "VERIFIED" in told


@pytest.mark.parametrize("shape", ["list", "row", "envelope", "lines"])
def test_lists_rows_envelopes_and_lines_are_read(
    shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain: Any = json.loads(encode(written.report()))
    path = tmp_path / "reports.json"
    shapes = {"list": [plain, plain], "row": {"id": 1, "body": plain}, "envelope": {"data": plain}}
    path.write_text("\n".join([json.dumps(plain)] * 2) if shape == "lines" else json.dumps(shapes[shape]))
    told = json.loads(asked(capsys, "verify", path, "--json", status=0))
    assert [r["verified"] for r in told["reports"]] == [True] * (2 if shape in ("list", "lines") else 1)


def test_a_lie_is_named_and_the_status_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    true = written.report()
    text = true.sections[0].text_en.replace("higher", "lower")
    lie = msgspec.structs.replace(
        true, sections=[msgspec.structs.replace(true.sections[0], text_en=text), *true.sections[1:]]
    )
    told = json.loads(asked(capsys, "verify", kept(tmp_path, true, lie), "--json", status=1))
    assert [r["verified"] for r in told["reports"]] == [True, False]
    assert told["reports"][1]["complaints"][0]["rule"] == "text"
    assert "NOT TRUE: what_happened/en" in asked(capsys, "verify", kept(tmp_path, lie), status=1)


def test_evidence_is_recounted_from_the_raw_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [7.0, 8.14, *[5.0] * 10]
    base = history(tmp_path, values)
    path = kept(tmp_path, written.report())
    told = json.loads(asked(capsys, "verify", path, "--history", base, "--json", status=0))
    assert [e["holds"] for e in told["reports"][0]["evidence"]] == [True, None]
    shown = asked(capsys, "verify", path, "--history", base, status=0)
    assert "12 samples on record give 8.14, as told" in shown
    assert "not recounted" in shown


def test_evidence_that_no_sample_bears_out_is_a_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = history(tmp_path, [7.0, 8.0, 5.0])
    told = asked(capsys, "verify", kept(tmp_path, written.report()), "--history", base, status=1)
    assert "NOT TRUE: 3 samples on record give 8.00, told 12 and 8.14" in told


def test_a_report_is_compared_with_the_messages_that_it_speaks_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, beside = kept(tmp_path, written.report()), tmp_path / "messages.jsonl"
    told = [written.forecast(), written.RECOMMENDED]
    lines = [{"type": m.type_name, "data": json.loads(encode(m))} for m in told]
    beside.write_text("\n".join(map(json.dumps, [*lines, {"type": "other", "data": {}}])))
    assert "VERIFIED" in asked(capsys, "verify", path, "--beside", beside, status=0)
    lines[0]["data"]["high"] = [99.0, 99.0]
    beside.write_text(json.dumps(lines[0]))
    assert "forecast-1 says" in asked(capsys, "verify", path, "--beside", beside, status=1)
    for wrong in ('{"a": 1}', '{"type": "millwright.forecast.v1", "data": 3}'):
        beside.write_text(wrong)
        assert "message 1 is no" in asked(capsys, "verify", path, "--beside", beside, status=2)


def test_a_catalogue_of_ones_own_is_read_from_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edge_agent.skills.write_report import write

    frames = msgspec.structs.replace(FAULT_REPORT, version=7)
    path = kept(tmp_path, write(written.case(), LABELS, T0, frames=frames))
    assert "is not known here" in asked(capsys, "verify", path, status=1)
    file = tmp_path / "frames_fault_report.json"
    file.write_bytes(encode_frames(frames))
    assert "VERIFIED" in asked(capsys, "verify", path, "--frames", file, status=0)
    file.write_text("{}")
    assert "wrong_type" in asked(capsys, "verify", path, "--frames", file, status=2)


def test_a_report_without_facts_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = msgspec.structs.replace(written.report(), facts=[], frames="")
    assert "without facts" in asked(capsys, "verify", kept(tmp_path, old), status=1)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "holds no report"),
        (b"[]", "holds no report"),
        (b"not json", "line 1 is no JSON"),
        (b"{}", "is no report"),
        (b"7", "is no report"),
        (b"[" * 100_000, "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
    ],
    ids=["empty", "no", "words", "object", "number", "deep", "bytes"],
)
def test_what_is_no_report_is_refused_in_words(
    payload: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(payload)
    assert said in asked(capsys, "verify", path, status=2)


def test_a_file_or_a_history_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be read" in asked(capsys, "verify", tmp_path / "nowhere.json", status=2)
    path = kept(tmp_path, written.report())
    assert "there is no" in asked(capsys, "verify", path, "--history", tmp_path / "nowhere.db", status=2)
    (tmp_path / "wrong.db").write_text("no database at all, but long enough to look at" * 20)
    with pytest.raises(BadSettings, match="cannot be read as a gateway's history"):
        samples_of(tmp_path / "wrong.db", ("P-101", "vibration"), 0, 1)


@pytest.mark.parametrize(("language", "said"), [("en", "What to do"), ("zh", "首选：更换轴承")])
def test_a_report_is_shown_in_either_language(
    language: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = asked(capsys, "show", kept(tmp_path, written.report()), "--lang", language, status=0)
    assert said in told
    assert "[1] max 8.14 mm/s, P-101/vibration, n = 12" in told


def test_no_control_character_of_a_report_reaches_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = msgspec.structs.replace(written.report(), title_en="\x1b[2J all is well\u202e")
    for verb, status in (("show", 0), ("verify", 1)):
        told = asked(capsys, verb, kept(tmp_path, hostile), status=status)
        assert "\x1b" not in told
        assert "\u202e" not in told
