"""Names and numbers of people are blacked out; part numbers, tags and measured values stay.

`private_notes/tuned_on.jsonl` is what the patterns were written with. `held_out.jsonl` was written before they were first
run and is only measured; so are the notes of `benchmarks/hand_written_notes`, which name nobody."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.redaction import BLACK, Private, Redactor

HERE = Path(__file__).parent


class Row(msgspec.Struct):
    text: str
    private: list[str] = []


def rows(name: str) -> list[Row]:
    lines = (HERE / "private_notes" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [msgspec.json.decode(line, type=Row) for line in lines]


TITLE = re.compile("(?<=[\u4e00-\u9fff])(?:师傅|主任|经理|班长|先生|大哥|工|姐|总)$")
"""What may stay of 张师傅: that somebody was meant."""


def measured(name: str, redactor: Redactor) -> tuple[int, int, int, list[str]]:
    """(found, all, notes in which something else went, what was wrong)."""
    found = wanted = false = 0
    wrong = []
    for row in rows(name):
        kept = redactor.redact(row.text)
        private = [False] * len(row.text)
        for one in row.private:
            at = row.text.index(one)
            private[at : at + len(one)] = [True] * len(one)
            bare = TITLE.sub("", one)
            gone = all(kept[at + i] == BLACK for i, letter in enumerate(bare) if letter.isalnum())
            wanted, found = wanted + 1, found + gone
            if not gone:
                wrong.append(f"missed {one!r} in {kept!r}")
        if any(letter == BLACK and not allowed for letter, allowed in zip(kept, private, strict=True)):
            false += 1
            wrong.append(f"too much: {kept!r}")
    return found, wanted, false, wrong


def test_everything_is_found_in_the_notes_that_the_patterns_were_written_with() -> None:
    found, wanted, false, wrong = measured("tuned_on", Redactor())
    assert (found, false) == (wanted, 0), wrong


def test_held_out_notes_lose_nearly_all_names_and_little_else() -> None:
    found, wanted, false, wrong = measured("held_out", Redactor())
    assert found / wanted >= 0.9, wrong
    assert false <= 3, wrong


@pytest.mark.parametrize("language", ["en", "zh"])
def test_notes_that_name_nobody_stay_as_they_are(language: str) -> None:
    folder = HERE.parents[1] / "benchmarks" / "hand_written_notes"
    texts = [msgspec.json.decode(line)["text"] for line in (folder / f"{language}.jsonl").read_bytes().splitlines()]
    changed = [kept for text in texts if (kept := Redactor().redact(text)) != text]
    assert len(changed) / len(texts) <= 0.005, changed


def test_the_sites_list_and_authors_are_found_where_nothing_else_says_so() -> None:
    redactor = Redactor(people=["诸葛明轩", "Zbigniew Quist"])
    redactor.know("司徒晓")
    redactor.know("7")
    redactor.know("pump")
    text = "诸葛明轩换油，司徒晓在场，zbigniew quist ok; pump 7"
    assert redactor.redact(text) == "████换油，███在场，" + BLACK * 14 + " ok; pump 7"


def test_only_what_is_declared_is_taken_out() -> None:
    text = "张师傅 13800138000 a@b.cn 沪A12345"
    assert Redactor([Private.PHONES]).redact(text) == "张师傅 ███████████ a@b.cn 沪A12345"
    assert Redactor([Private.LICENCES]).redact(text) == "张师傅 13800138000 a@b.cn ███████"
    assert Redactor([]).redact(text) == text


@given(st.text(max_size=300))
def test_places_in_the_text_stay_where_they_are(text: str) -> None:
    kept = Redactor(people=["Ann", "王芳"]).redact(text)
    assert len(kept) == len(text)
    assert all(a in (b, BLACK) for a, b in zip(kept, text, strict=True))


@given(st.text(alphabet="0123456789+-() .转张王工老小Aa@", max_size=3000))
def test_long_strange_text_is_read_in_bounded_time(text: str) -> None:
    Redactor().redact(text)
