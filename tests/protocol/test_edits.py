"""What a person makes of a sentence: facts become slots again, and what cannot become a wording is said."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.skills.write_report import write
from protocol.errors import Reason, Refused
from protocol.reports import Report
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.clauses.stating import clause
from protocol.writing.edits import Passage, Wording, as_wording, changed, doubts, passages, spoken, with_wordings
from protocol.writing.facts import LANGUAGES, Fact, Kind, Language, Mode
from protocol.writing.frames import (
    MOST_WORDINGS,
    Clause,
    Frames,
    check,
    encode_frames,
    read_frames,
    reference,
    slots,
    wordings,
)
from protocol.writing.realise import Facts
from tests.written import LABELS, T0, case


def report() -> Report:
    return write(case(), LABELS, T0)


def standing(passage: Passage, language: Language) -> dict[str, str]:
    return dict(passage.said[language])


def test_a_report_reads_the_same_from_its_clauses() -> None:
    issued = report()
    for passage, section in zip(passages(issued, FAULT_REPORT), issued.sections, strict=True):
        assert spoken(passage, "en", standing(passage, "en")).text == section.text_en
        assert spoken(passage, "zh", standing(passage, "zh")).text == section.text_zh


def sentences(language: Language) -> list[tuple[Passage, Clause, str]]:
    """Every clause that the plain report may say, in every one of its wordings, as it reads."""
    return [
        (passage, one, spoken(passage, language, {one.id: text}).text)
        for passage in passages(report(), FAULT_REPORT)
        for one in passage.clauses
        for text in wordings(one, language)
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_of_the_catalogue_becomes_its_own_wording_again(language: Language) -> None:
    told = sentences(language)
    assert len(told) > 20
    for passage, one, text in told:
        assert as_wording(text, one, language, passage.facts, FAULT_REPORT) in wordings(one, language)


CLAUSE = clause("peak", "what_happened", ["It reached <peak> at <since>."], ["在<since>达到<peak>。"])
FACTS = Facts(
    [
        Fact(key="peak", kind=Kind.NUMBER, value=8.4, unit="mm/s"),
        Fact(key="since", kind=Kind.MOMENT, value=float(T0)),
        Fact(key="twin", kind=Kind.NUMBER, value=8.4, unit="mm/s"),
    ]
)
PEAK, SINCE = FACTS.text("peak", "en"), FACTS.text("since", "en")


def grown(one: Clause) -> Frames:
    return msgspec.structs.replace(FAULT_REPORT, clauses=[*FAULT_REPORT.clauses, one])


SMALL = grown(CLAUSE)


def test_own_words_keep_their_facts_as_slots_wherever_they_stand() -> None:
    assert (
        as_wording(f"At {SINCE} we saw {PEAK} on it.", CLAUSE, "en", FACTS, SMALL) == "At <since> we saw <peak> on it."
    )
    assert as_wording(f"  {SINCE}记到\n{PEAK}。", CLAUSE, "zh", FACTS, SMALL) == "<since>记到 <peak>。"


def test_facts_that_read_alike_are_taken_in_the_clause_s_order() -> None:
    both = clause("both", "what_happened", ["From <peak> to <twin>."], ["从<peak>到<twin>。"])
    frames = grown(both)
    assert as_wording(f"It went {PEAK}, then {PEAK}.", both, "en", FACTS, frames) == "It went <peak>, then <twin>."
    with pytest.raises(Refused, match="2 times, as so many facts read so"):
        as_wording(f"It went to {PEAK}.", both, "en", FACTS, frames)


def test_a_value_is_found_by_itself_and_never_inside_a_word_a_number_or_a_marker() -> None:
    one = clause("cited", "what_happened", ["The <name> came <times> times [1]."], ["<name>来了<times>次[1]。"])
    facts = Facts(
        [Fact(key="name", kind=Kind.NAME, value="press"), Fact(key="times", kind=Kind.COUNT, value=1.0)],
    )
    frames = grown(one)
    made = as_wording("As [1] has it, pressure came to the press 1 time.", one, "en", facts, frames)
    assert made == "As [1] has it, pressure came to the <name> <times> time."
    assert as_wording("压力机press共1次[1]。", one, "zh", facts, frames) == "压力机<name>共<times>次[1]。"
    for text in (
        "Pressure came 1 time [1].",
        "The press came 11 times [1].",
        "The press came 1.5 times [1].",
        "The press came -1 times [1].",
    ):
        with pytest.raises(Refused, match="must still show"):
            as_wording(text, one, "en", facts, frames)


PIECES = (PEAK, SINCE, "8.4", "2026", "-", " ", "[1]", "<peak>", "over", "It saw", "at", "，", "泵", "\x00", ".")


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=12).map("".join))
def test_whatever_is_written_becomes_a_wording_that_reads_just_so_or_is_refused(text: str) -> None:
    try:
        made = as_wording(text, CLAUSE, "en", FACTS, SMALL)
    except Refused:
        return
    assert made.replace("<peak>", PEAK).replace("<since>", SINCE) == " ".join(text.split())
    at = next(i for i, one in enumerate(SMALL.clauses) if one.id == CLAUSE.id)
    more = [*SMALL.clauses[at].en] if made in SMALL.clauses[at].en else [*SMALL.clauses[at].en, made]
    assert check(grown(msgspec.structs.replace(CLAUSE, en=more))) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("x" * 100_000, "at most 2000"),
        (f"It reached {PEAK}.", "must still show"),
        (
            "It reached 9.99 mm/s at " + SINCE,
            "“9.99” is no fact of this sentence: it must still show “8.40 mm/s”, once",
        ),
        (f"It reached {PEAK} at {SINCE}, {PEAK} to be exact.", "twice"),
        (f"It reached {PEAK} at {SINCE}, after 3 trips.", "“3” is no fact of this sentence"),
        (f"It reached {PEAK} at {SINCE}, ⅓ of it ①.", "“⅓” is no fact of this sentence"),
        (f"It reached <peak> at {SINCE}.", "without slots"),
        (f"<b>It</b> reached {PEAK} at {SINCE}.", "without slots"),
        (f"It reached {PEAK} at {SINCE}\x00\x1b[31m.", "control character"),
        (f"It reached {PEAK} at {SINCE} \u202e.", "control character"),
        (f"It reached {PEAK}{SINCE}.", "once, by itself"),
        (f"It reached -{PEAK} at {SINCE}.", "once, by itself"),
        (f"It reached 1{PEAK} at {SINCE}.", "once, by itself"),
        (f"It reached {PEAK} at {SINCE} [1].", "cites"),
        (f"{'Word ' * 100} {PEAK} at {SINCE}.", "at most 400"),
        (f"It reached {PEAK} at {SINCE}. And then more.", "begin it otherwise"),
    ],
)
def test_what_cannot_become_a_wording_says_what_to_change(text: str, message: str) -> None:
    with pytest.raises(Refused, match=message) as why:
        as_wording(text, CLAUSE, "en", FACTS, SMALL)
    assert why.value.reason in (Reason.BAD_FRAMES, Reason.MISSING_FACT, Reason.TOO_LARGE)


def test_a_new_relation_or_deed_is_a_doubt_and_plain_words_are_none() -> None:
    assert doubts("We saw <peak> at <since>.", CLAUSE, "en") == []
    (one,) = doubts("It fell below <peak> at <since>.", CLAUSE, "en")
    assert "a relation" in one
    assert "below" in one
    assert "a negation" in doubts("在<since>未达到<peak>。", CLAUSE, "zh")[0]
    assert any("a sign" in doubt for doubt in doubts("It saw ≥ <peak> at <since>.", CLAUSE, "en"))


def test_facts_in_one_another_s_place_are_a_doubt() -> None:
    told = doubts("It reached <since>, which was <peak>.", CLAUSE, "en")
    assert "has <since> after 'reached', where the clause has <peak> so far" in told
    assert doubts("Again it reached <peak> at <since>.", CLAUSE, "en") == []


def test_most_wordings_with_two_facts_swapped_are_doubted() -> None:
    """Each of the catalogue's wordings as if it were new, and the same with two of its facts swapped."""
    true, swapped = [], []
    for one in FAULT_REPORT.clauses:
        for language in LANGUAGES:
            for at, text in enumerate(wordings(one, language)):
                others = [*wordings(one, language)[:at], *wordings(one, language)[at + 1 :]]
                if not others:
                    continue
                rest = msgspec.structs.replace(one, **{language: others})
                true.append(bool(doubts(text, rest, language)))
                a, b, *_ = [*(f"<{key}>" for key in slots(text)), "", ""]
                if b:
                    false = text.replace(a, "\x00").replace(b, a).replace("\x00", b)
                    swapped.append(bool(doubts(false, rest, language)))
    assert sum(swapped) >= 0.9 * len(swapped)
    assert sum(true) <= 0.65 * len(true)


def test_only_optional_clauses_may_be_left_out() -> None:
    for passage in passages(report(), FAULT_REPORT):
        names = [one.id for one in passage.clauses]
        kept = [one.id for one in passage.clauses if one.mandatory]
        assert changed(passage, list(reversed(names))) == names
        assert changed(passage, kept) == kept
        if kept:
            with pytest.raises(Refused, match="must be said"):
                changed(passage, kept[1:])
        with pytest.raises(Refused, match="name each once"):
            changed(passage, [*names, names[0]])
        with pytest.raises(Refused, match="name each once"):
            changed(passage, [*names, "what.never"])


def test_accepted_wordings_make_the_next_catalogue_and_misfits_are_left_out() -> None:
    first = next(one for one in FAULT_REPORT.clauses if slots(one.en[0]))
    good = Wording(
        clause=first.id, language="en", text="Quite so: " + " and ".join(f"<{k}>" for k in slots(first.en[0]))
    )
    misfits = [
        Wording(clause="what.gone", language="en", text="Gone."),
        Wording(clause=first.id, language="en", text="No slot at all."),
        Wording(clause=first.id, language="en", text=first.en[0]),
    ]
    made, left = with_wordings(FAULT_REPORT, [misfits[0], good, *misfits[1:]])
    assert left == misfits
    assert made.version == FAULT_REPORT.version + 1
    assert next(one for one in made.clauses if one.id == first.id).en[-1] == good.text
    assert check(made) == []


def test_a_report_without_a_catalogue_has_nothing_to_change() -> None:
    with pytest.raises(Refused, match="without a catalogue"):
        passages(msgspec.structs.replace(report(), frames=""), FAULT_REPORT)


def test_a_clause_holds_no_more_wordings_than_a_catalogue_can_be_read_back_with() -> None:
    texts = [f"{a}{b} seen." for a in "abcdefgh" for b in "klmnopqr"]
    one = clause("full", "what_happened", ["Seen."], ["见过。"])
    made, left = with_wordings(grown(one), [Wording(clause="full", language="en", text=text) for text in texts])
    assert len(made.clauses[-1].en) == MOST_WORDINGS
    assert len(left) == len(texts) + 1 - MOST_WORDINGS
    assert reference(read_frames(encode_frames(made))) == reference(made)
    with pytest.raises(Refused, match="one more than the 50 wordings"):
        as_wording("Zz noted.", made.clauses[-1], "en", FACTS, made)


def test_a_section_in_free_prose_has_no_clauses_and_the_others_do() -> None:
    issued = report()
    free = msgspec.structs.replace(issued.sections[0], mode_zh=Mode.FREE, clauses_zh=[])
    mixed = msgspec.structs.replace(issued, sections=[free, *issued.sections[1:]])
    assert [one.heading.section for one in passages(mixed, FAULT_REPORT)] == [s.section for s in issued.sections[1:]]
    with pytest.raises(Refused, match="free prose"):
        passages(msgspec.structs.replace(issued, sections=[free]), FAULT_REPORT)
