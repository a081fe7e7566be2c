"""What a person makes of a sentence: facts become slots again, and what cannot become a wording is said."""

from __future__ import annotations

import msgspec
import pytest

from edge_agent.skills.write_report import write
from protocol.errors import Reason, Refused
from protocol.reports import Report
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.clauses.stating import clause
from protocol.writing.edits import Passage, Wording, as_wording, changed, doubts, passages, spoken, with_wordings
from protocol.writing.facts import LANGUAGES, Fact, Kind, Language
from protocol.writing.frames import Clause, check, slots, wordings
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
SMALL = FAULT_REPORT.__class__(
    document="fault_report", version=1, headings=FAULT_REPORT.headings, clauses=[*FAULT_REPORT.clauses, CLAUSE]
)


def test_own_words_keep_their_facts_as_slots_wherever_they_stand() -> None:
    assert (
        as_wording(f"At {SINCE} we saw {PEAK} on it.", CLAUSE, "en", FACTS, SMALL) == "At <since> we saw <peak> on it."
    )
    assert as_wording(f"  {SINCE}记到\n{PEAK}。", CLAUSE, "zh", FACTS, SMALL) == "<since>记到 <peak>。"


def test_facts_that_read_alike_are_taken_in_the_clause_s_order() -> None:
    both = clause("both", "what_happened", ["From <peak> to <twin>."], ["从<peak>到<twin>。"])
    frames = SMALL.__class__(
        document="fault_report", version=1, headings=SMALL.headings, clauses=[*FAULT_REPORT.clauses, both]
    )
    assert as_wording(f"It went {PEAK}, then {PEAK}.", both, "en", FACTS, frames) == "It went <peak>, then <twin>."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("x" * 100_000, "at most 2000"),
        (f"It reached {PEAK}.", "must still show"),
        ("It reached 9.99 mm/s at " + SINCE, "must still show"),
        (f"It reached {PEAK} at {SINCE}, {PEAK} to be exact.", "twice"),
        (f"It reached {PEAK} at {SINCE}, after 3 trips.", "digit"),
        (f"It reached {PEAK} at {SINCE}, ⅓ of it ①.", "digit"),
        (f"It reached <peak> at {SINCE}.", "without slots"),
        (f"<b>It</b> reached {PEAK} at {SINCE}.", "without slots"),
        (f"It reached {PEAK} at {SINCE}\x00\x1b[31m.", "control character"),
        (f"It reached {PEAK} at {SINCE} \u202e.", "control character"),
        (f"It reached {PEAK}{SINCE}.", "without a word between"),
        (f"It reached {PEAK} at {SINCE} [1].", "cites"),
        (f"{'Word ' * 100} {PEAK} at {SINCE}.", "at most 400"),
        (f"It reached {PEAK} at {SINCE}. And then more.", "begin alike"),
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
