"""The built-in catalogue of clauses, and what is said of a bad one."""

from __future__ import annotations

import msgspec
import pytest

from protocol.errors import BadFrames
from protocol.writing.clauses import BUILT_IN, FAULT_REPORT
from protocol.writing.frames import Clause, Frames, check, encode_frames, read_frames, reference, slots

CLAUSE = FAULT_REPORT.clauses[0]


def with_clause(**changed: object) -> Frames:
    clauses = [msgspec.structs.replace(CLAUSE, **changed), *FAULT_REPORT.clauses[1:]]
    return msgspec.structs.replace(FAULT_REPORT, clauses=clauses)


def test_the_built_in_catalogue_has_no_fault_and_at_least_two_wordings_each() -> None:
    assert check(FAULT_REPORT) == []
    assert {reference(FAULT_REPORT): FAULT_REPORT} == BUILT_IN
    for clause in FAULT_REPORT.clauses:
        assert min(len(clause.en), len(clause.zh)) >= (2 if clause.section == "title" else 3), clause.id


def test_a_catalogue_survives_its_file() -> None:
    again = read_frames(encode_frames(FAULT_REPORT))
    assert again == FAULT_REPORT
    assert reference(again) == reference(FAULT_REPORT)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"id": FAULT_REPORT.clauses[1].id}, "stands twice"),
        ({"id": "a#b"}, "no '#'"),
        ({"section": "weather"}, "is for section 'weather'"),
        ({"needs": []}, "without needing"),
        ({"unless": ["machine"]}, "needs what it forbids"),
        ({"when": {"machine": ["P-101"]}}, "through a slot"),
        ({"zh": ["<machine>高于预期范围"]}, "has the slots ['machine']"),
        ({"en": ["<machine>: <signal> above 5"]}, "numbers come from facts"),
        ({"en": ["<machine>: <signal> above its limit [1]"]}, "cites"),
        ({"en": ["<machine>: <signal>\nabove"]}, "control character"),
        ({"en": ["<machine>: <b><signal></b>"]}, "bracket"),
        ({"en": ["<machine><signal>"]}, "without a word between"),
        ({"en": ["<machine>: <signal> and <signal>"]}, "twice"),
        ({"en": ["<machine>: <signal> stands still"]}, "say the same or begin alike"),
        ({"en": [" <machine>: <signal> "]}, "no blank"),
        ({"en": ["<machine>: <signal> " + "x" * 400]}, "1 to 400 characters"),
    ],
)
def test_what_is_wrong_with_a_clause_is_said_in_words(changed: dict[str, object], said: str) -> None:
    complaints = check(with_clause(**changed))
    assert any(said in complaint for complaint in complaints), complaints
    with pytest.raises(BadFrames, match="faults in the catalogue"):
        read_frames(encode_frames(with_clause(**changed)))


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "malformed_json"),
        (b"[" * 100_000, "wrong_type"),
        (b'{"document":' * 100_000, "wrong_type"),
        (b"\xff\xfe", "malformed_json"),
        (b"{}", "wrong_type"),
        (b'{"document": "fault_report", "version": 1, "headings": [], "clauses": [], "extra": 1}', "wrong_type"),
        (b" " * 2_000_001, "too_large"),
    ],
    ids=["empty", "list", "deep", "no text", "no fields", "a field too many", "large"],
)
def test_a_file_that_is_no_catalogue_is_refused_with_the_reason(payload: bytes, said: str) -> None:
    with pytest.raises(BadFrames, match=said):
        read_frames(payload)


def test_slots_are_found_in_order() -> None:
    assert slots("Since <since>, <signal> of <machine>.") == ("since", "signal", "machine")
    assert Clause(id="a", section="s", en=["x"], zh=["x"]).mandatory
