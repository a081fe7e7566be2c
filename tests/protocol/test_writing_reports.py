"""Facts become a report in two languages, and every report is read back: nothing that is false gets through."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.skills.write_report import write
from protocol.errors import Refused
from protocol.reports import Report, Section, Severity
from protocol.sync import decode, encode
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.facts import LANGUAGES, Kind, Language, Mode, Said, Span
from protocol.writing.fault_report import FaultCase, facts_of
from protocol.writing.realise import Alternatives, Facts, licensed, say, template
from protocol.writing.verify import Rule, complaints_of, parse, verify
from tests import written
from tests.written import LABELS, T0, Chosen, case, evidence, fault_cases

drawn = st.lists(st.integers(0, 11), min_size=1, max_size=30)


def alternatives(told: FaultCase) -> list[Alternatives]:
    facts = Facts(facts_of(told, LABELS))
    return [
        Alternatives(section, language, facts, clauses)
        for section, clauses in licensed(FAULT_REPORT, facts).items()
        if section != "title"
        for language in LANGUAGES
    ]


@settings(max_examples=150, deadline=None)
@given(fault_cases(), drawn)
def test_every_licensed_realisation_is_read_back_without_a_complaint(told: FaultCase, wordings: list[int]) -> None:
    made = write(told, LABELS, T0, writer=Chosen(wordings))
    assert verify(made, FAULT_REPORT) == []
    assert {s.mode_en for s in made.sections} | {s.mode_zh for s in made.sections} == {Mode.STRICT}
    assert verify(decode(encode(made), Report), FAULT_REPORT) == []


@settings(max_examples=80, deadline=None)
@given(fault_cases(), drawn)
def test_a_text_is_parsed_into_the_clauses_that_it_was_made_of(told: FaultCase, wordings: list[int]) -> None:
    writer = Chosen(wordings)
    for asked in alternatives(told):
        said = writer(asked)
        found = parse(said.text, asked) or []
        assert say(asked, _numbers(asked, found), Mode.STRICT).text == said.text


def _numbers(asked: Alternatives, names: list[str]) -> list[int | None]:
    chosen = dict(name.split("#") for name in names)
    return [int(chosen[c.id]) if c.id in chosen else None for c in asked.clauses]


def test_a_plain_text_is_parsed_into_just_its_clauses() -> None:
    for asked in alternatives(case()):
        for n in range(3):
            said = say(asked, [n % len(options) for options in asked.options], Mode.STRICT)
            assert parse(said.text, asked) == said.clauses
        assert parse(said.text + " All is well.", asked) is None
        assert parse("", asked) is None


def test_a_report_says_what_happened_how_we_know_what_comes_next_and_what_to_do() -> None:
    made = written.report()
    assert [s.title_en for s in made.sections] == ["What happened", "How we know", "What comes next", "What to do"]
    happened, known, coming, doing = made.sections
    assert happened.text_en.startswith(
        "Warning. Since 2026-09-21 14:13 UTC, vibration of Feed pump P-101 has been higher"
    )
    assert "8.14 mm/s [1]; 2.00 mm/s to 4.50 mm/s was expected" in happened.text_en
    assert "最高达到 8.14 mm/s [1]；预期范围为 2.00 mm/s 至 4.50 mm/s" in happened.text_zh
    assert "the mean was 3.20 mm/s [2]" in known.text_en
    assert "LSTM, version 3" in known.text_en
    assert known.cites == [0, 1]
    assert "between 8.00 mm/s and 11.0 mm/s with a chance of 80 % (LSTM)" in coming.text_en
    assert "The chance of a failure (bearing wear)" in coming.text_en
    assert doing.text_zh.startswith("首选：更换轴承（依据：振动偏高、设备类型 pump）。")
    assert "Spare part on the list: bearing 6204." in doing.text_en
    assert made.frames.startswith("fault_report/1/")


@pytest.mark.parametrize(
    ("value", "kind", "en"),
    [
        (4.5, "above_expected", "lies within the expected"),
        (4.5004, "above_expected", "less than the digits shown here"),
        (1.0, "above_expected", "contradict one another"),
        (9.0, "below_expected", "is above the expected"),
        (1.0, "below_expected", "lower than expected"),
    ],
)
def test_a_report_calls_a_value_high_or_low_as_its_numbers_say(value: float, kind: str, en: str) -> None:
    made = written.report(extreme=evidence(value=value), event=written.event(kind=kind))
    assert en in made.sections[0].text_en
    assert verify(made, FAULT_REPORT) == []


@pytest.mark.parametrize("low", [None, float("nan"), float("-inf"), 99.0])
def test_a_range_that_is_none_is_not_spoken_of(low: float | None) -> None:
    made = written.report(extreme=evidence(expected_low=low))
    assert "not on record" in made.sections[0].text_en
    assert "expected_low" not in {f.key for f in made.facts}


def test_a_report_without_its_mandatory_facts_is_refused() -> None:
    with pytest.raises(Refused, match="not_finite"):
        written.report(extreme=evidence(value=float("nan")))
    with pytest.raises(Refused, match="missing_fact"):
        written.report(event=written.event(machine=" "))
    without_titles = [c for c in FAULT_REPORT.clauses if not c.id.startswith("title")]
    with pytest.raises(Refused, match="has no title"):
        write(case(), LABELS, T0, frames=msgspec.structs.replace(FAULT_REPORT, clauses=without_titles))


def test_a_forecast_with_a_hole_is_left_out() -> None:
    made = written.report(forecast=written.forecast(mean=[1.0, float("nan")]), risk=None, life=None)
    assert [s.section for s in made.sections] == ["what_happened", "how_we_know", "what_to_do"]


def test_what_is_of_another_machine_is_left_aside() -> None:
    other = {
        "usual": written.usual(machine="P-102"),
        "forecast": written.forecast(machine="P-102"),
        "recommendation": msgspec.structs.replace(written.RECOMMENDED, machine="P-102"),
        "risk": msgspec.structs.replace(written.RISK, machine="P-102"),
        "life": msgspec.structs.replace(written.LIFE, machine="P-102"),
        "reading": msgspec.structs.replace(written.READING, machine="P-102"),
    }
    alone = written.report(**dict.fromkeys(other))
    assert written.report(**other) == alone
    assert alone.recommendation == ""
    assert verify(alone, FAULT_REPORT) == []


def test_a_part_that_is_named_among_the_first_three_is_not_named_again() -> None:
    named = written.report(recommendation=written.recommendation(written.item("part:seal", 1)))
    assert "Spare part" not in named.sections[3].text_en
    assert "First choice: seal" in named.sections[3].text_en


def test_a_writer_that_says_what_is_false_is_replaced_by_the_template() -> None:
    def liar(asked: Alternatives) -> Said:
        said = template(asked)
        text = said.text.replace("higher", "lower").replace("高于", "低于")
        return msgspec.structs.replace(said, text=text, mode=Mode.STRICT)

    fell_back: dict[tuple[str, Language], str] = {}
    made = write(case(), LABELS, T0, writer=liar, fell_back=fell_back)
    assert {section for section, _ in fell_back} == {"what_happened", "how_we_know"}
    assert verify(made, FAULT_REPORT) == []
    assert made.sections[0].text_en == written.report().sections[0].text_en
    assert made.sections[0].mode_en is Mode.TEMPLATE
    assert made.sections[3].mode_en is Mode.STRICT


# --- attacks ------------------------------------------------------------------------------------------------------------


def changed_section(made: Report, at: int, **changed: Any) -> Report:
    sections = list(made.sections)
    sections[at] = msgspec.structs.replace(sections[at], **changed)
    return msgspec.structs.replace(made, sections=sections)


def changed_fact(made: Report, key: str, **changed: Any) -> Report:
    facts = [msgspec.structs.replace(f, **changed) if f.key == key else f for f in made.facts]
    assert facts != made.facts
    return msgspec.structs.replace(made, facts=facts)


def rewritten(made: Report, key: str, **changed: Any) -> Report:
    """A fact is changed and the whole report written anew from it: only its meaning can give it away."""
    facts = changed_fact(made, key, **changed).facts
    from protocol.writing.realise import write_document

    document = write_document(FAULT_REPORT, facts)
    return msgspec.structs.replace(
        made, facts=facts, sections=document.sections, title_en=document.title_en, title_zh=document.title_zh
    )


NUMBERS = [f.key for f in written.report().facts if f.kind is not Kind.CATEGORY and f.kind is not Kind.NAME]


@pytest.mark.parametrize("key", NUMBERS)
def test_a_flipped_value_is_caught_in_the_facts(key: str) -> None:
    made = written.report()
    (fact,) = [f for f in made.facts if f.key == key]
    other = 0.5 * float(fact.value) + (60_000 if fact.kind is Kind.MOMENT else 0)
    other = float(round(other)) if fact.kind in (Kind.MOMENT, Kind.COUNT) else other
    shown = {key for c in FAULT_REPORT.clauses if Facts(made.facts).license(c) for key in c.needs}
    assert key in shown or key == "life_cap"
    assert verify(changed_fact(made, key, value=other), FAULT_REPORT) or key == "life_cap"


@pytest.mark.parametrize(
    "key", ["peak", "expected_low", "expected_high", "beyond", "usual", "samples", "measured_from"]
)
def test_a_value_that_its_evidence_does_not_say_is_caught_even_if_all_is_written_anew(key: str) -> None:
    made = written.report()
    (fact,) = [f for f in made.facts if f.key == key]
    value = float(fact.value) + (60_000 if fact.kind is Kind.MOMENT else 1)
    assert any(c.rule is Rule.EVIDENCE for c in verify(rewritten(made, key, value=value), FAULT_REPORT))


@pytest.mark.parametrize(
    ("key", "value"),
    [("relation", "below"), ("relation", "inside"), ("trend", "falling"), ("change", "down"), ("peak_is", "value")],
)
def test_a_relation_that_its_numbers_do_not_say_is_caught_even_if_all_is_written_anew(key: str, value: str) -> None:
    assert verify(rewritten(written.report(), key, value=value), FAULT_REPORT)


@pytest.mark.parametrize(("key", "value"), [("severity", "alarm"), ("machine", "P-102"), ("signal", "current")])
def test_a_head_and_facts_that_differ_are_caught(key: str, value: str) -> None:
    assert verify(rewritten(written.report(), key, value=value, en="", zh=""), FAULT_REPORT)


def test_a_changed_unit_is_caught() -> None:
    made = written.report()
    for key in ("peak", "usual", "forecast_mean", "life_low"):
        assert verify(rewritten(made, key, unit="m/s"), FAULT_REPORT), key
    text = made.sections[0].text_en.replace("mm/s", "cm/s")
    assert verify(changed_section(made, 0, text_en=text), FAULT_REPORT)


def test_swapped_values_are_caught() -> None:
    made = written.report()
    facts = {f.key: f for f in made.facts}
    for a, b in (("peak", "usual"), ("expected_low", "expected_high"), ("forecast_low", "forecast_high")):
        swapped = changed_fact(made, a, value=facts[b].value)
        swapped = changed_fact(swapped, b, value=facts[a].value)
        assert verify(swapped, FAULT_REPORT), (a, b)
        spans = [Span(s.start, s.end, _other(made, s.fact, a, b)) for s in made.sections[0].spans_en]
        if spans != made.sections[0].spans_en:
            assert verify(changed_section(made, 0, spans_en=spans), FAULT_REPORT), (a, b)


def _other(made: Report, fact: int, a: str, b: str) -> int:
    keys = [f.key for f in made.facts]
    return keys.index(b) if keys[fact] == a else keys.index(a) if keys[fact] == b else fact


@settings(max_examples=150, deadline=None)
@given(fault_cases(), drawn, st.integers(0, 2**32))
def test_any_single_change_of_a_text_is_caught(told: FaultCase, wordings: list[int], seed: int) -> None:
    made, chance = write(told, LABELS, T0, writer=Chosen(wordings)), random.Random(seed)
    at = chance.randrange(len(made.sections))
    key = chance.choice(["text_en", "text_zh", "title_en", "title_zh"])
    text = getattr(made.sections[at], key)
    place = chance.randrange(len(text))
    text = (
        text[:place]
        + chance.choice(["", "9", "not ", "不", "\n", "below", text[place] + text[place]])
        + text[place + 1 :]
    )
    if text != getattr(made.sections[at], key):
        assert verify(changed_section(made, at, **{key: text}), FAULT_REPORT)


@settings(max_examples=100, deadline=None)
@given(fault_cases(), drawn, st.integers(0, 2**32))
def test_a_dropped_or_doubled_or_moved_clause_is_caught(told: FaultCase, wordings: list[int], seed: int) -> None:
    made, chance = write(told, LABELS, T0, writer=Chosen(wordings)), random.Random(seed)
    at = chance.randrange(len(made.sections))
    facts, section = Facts(made.facts), made.sections[at]
    asked = Alternatives(section.section, "en", facts, licensed(FAULT_REPORT, facts)[section.section])
    names = list(section.clauses_en)
    victim = chance.randrange(len(names))
    names = chance.choice([names[:victim] + names[victim + 1 :], [*names, names[victim]], names[::-1] or names])
    if names == section.clauses_en:
        return
    chosen = [next((int(n.split("#")[1]) for n in names if n.split("#")[0] == c.id), None) for c in asked.clauses]
    kept = Alternatives(
        asked.section, "en", facts, tuple(msgspec.structs.replace(c, mandatory=False) for c in asked.clauses)
    )
    said = say(kept, chosen, Mode.STRICT)
    assert verify(changed_section(made, at, text_en=said.text, spans_en=said.spans, clauses_en=names), FAULT_REPORT)


def test_an_invented_part_is_caught() -> None:
    made = written.report()
    facts = [*made.facts, msgspec.structs.replace(made.facts[0], key="action_4", kind=Kind.NAME, value="part:gold")]
    assert verify(msgspec.structs.replace(made, facts=facts), FAULT_REPORT)
    text = made.sections[3].text_en.replace("bearing 6204", "bearing 6205")
    assert verify(changed_section(made, 3, text_en=text), FAULT_REPORT)
    invented = rewritten(made, "spare_part", value="part:gold", en="gold", zh="金")
    assert verify(invented, FAULT_REPORT, facts_of(case(), LABELS))
    assert verify(invented, FAULT_REPORT, beside=[written.RECOMMENDED])


def test_facts_are_compared_with_their_sources_where_the_reader_has_them() -> None:
    made = written.report()
    assert verify(made, FAULT_REPORT, facts_of(case(), LABELS)) == []
    other = facts_of(case(event=written.event(start_ms=T0 + 60_000)), LABELS)
    assert [c.rule for c in verify(made, FAULT_REPORT, other)] == [Rule.SOURCES]


SOURCES = [written.event(), written.forecast(), written.RECOMMENDED, written.RISK, written.LIFE, written.READING]


def test_a_report_agrees_with_each_of_its_sources() -> None:
    assert verify(written.report(), FAULT_REPORT, beside=SOURCES) == []
    closed = written.event(end_ms=T0 + 900_000, score=99.0, severity=Severity.ALARM)
    assert verify(written.report(), FAULT_REPORT, beside=[closed]) == []


@pytest.mark.parametrize("key", ["forecast_high", "life_level", "risk", "note_chance", "since", "deviation"])
def test_a_cunning_lie_about_what_is_no_evidence_is_caught_beside_its_source(key: str) -> None:
    made = written.report()
    (fact,) = [f for f in made.facts if f.key == key]
    lie = rewritten(made, key, value=float(fact.value) * 1.01 + (60_000 if fact.kind is Kind.MOMENT else 0.1))
    assert [c.rule for c in verify(lie, FAULT_REPORT, beside=SOURCES)] == [Rule.SOURCES]


def test_a_section_that_is_missing_doubled_or_headed_otherwise_is_caught() -> None:
    made = written.report()
    for sections in (made.sections[:-1], [*made.sections, made.sections[0]], made.sections[::-1]):
        found = verify(msgspec.structs.replace(made, sections=sections), FAULT_REPORT)
        assert any(c.rule is Rule.SECTIONS for c in found)
    assert verify(changed_section(made, 0, title_zh="一切正常"), FAULT_REPORT)


def test_evidence_that_is_missing_or_not_cited_is_caught() -> None:
    made = written.report()
    assert verify(msgspec.structs.replace(made, evidence=[]), FAULT_REPORT)
    assert verify(msgspec.structs.replace(made, evidence=made.evidence[:1]), FAULT_REPORT)
    assert verify(msgspec.structs.replace(made, evidence=made.evidence[::-1]), FAULT_REPORT)
    assert verify(changed_section(made, 1, cites=[0]), FAULT_REPORT)
    assert verify(changed_section(made, 0, cites=[0, 5]), FAULT_REPORT)


def test_languages_that_say_different_things_are_caught() -> None:
    told = case()
    facts = Facts(facts_of(told, LABELS))
    made = written.report()
    asked = Alternatives("what_happened", "zh", facts, licensed(FAULT_REPORT, facts)["what_happened"])
    without = [0 if not asked.may_omit(n) else None for n in range(len(asked.clauses))]
    said = say(asked, without, Mode.STRICT)
    found = verify(
        changed_section(made, 0, text_zh=said.text, spans_zh=said.spans, clauses_zh=said.clauses), FAULT_REPORT
    )
    assert {c.rule for c in found} == {Rule.LANGUAGES}
    assert verify(msgspec.structs.replace(made, title_zh="P-101：停机"), FAULT_REPORT)


def test_a_report_of_another_catalogue_is_not_read() -> None:
    made = msgspec.structs.replace(written.report(), frames="fault_report/1/" + "0" * 64)
    assert [c.rule for c in verify(made, FAULT_REPORT)] == [Rule.CATALOGUE]


def test_facts_that_stand_twice_are_caught() -> None:
    made = written.report()
    doubled = msgspec.structs.replace(made, facts=[*made.facts, made.facts[0]])
    assert [c.rule for c in verify(doubled, FAULT_REPORT)] == [Rule.FACTS]


# --- free prose ---------------------------------------------------------------------------------------------------------


def free(asked: Alternatives, text: str = "", wording: int = 1) -> Said:
    """The facts in prose: `{wording}` of every clause, its words then changed by the caller."""
    said = say(asked, [wording % len(options) for options in asked.options], Mode.FREE)
    return msgspec.structs.replace(said, clauses=[], text=text or said.text)


@settings(max_examples=60, deadline=None)
@given(fault_cases(), st.integers(0, 5))
def test_prose_in_the_words_of_the_clauses_is_believed(told: FaultCase, wording: int) -> None:
    for asked in alternatives(told):
        assert complaints_of(asked, free(asked, wording=wording)) == []


def test_connectives_and_their_own_order_are_believed() -> None:
    (asked,) = [a for a in alternatives(case()) if (a.section, a.language) == ("what_next", "en")]
    said = free(asked)
    text, by = "Please note: ", len("Please note: ")
    moved = [Span(s.start + by, s.end + by, s.fact) for s in said.spans]
    assert complaints_of(asked, msgspec.structs.replace(said, text=text + said.text, spans=moved)) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("added_en", "added_zh", "what"),
    [
        (" It is not above.", "它没有高于。", "a negation"),
        (" It is below normal.", "它低于正常。", "a relation"),
        (" It needs 5 days.", "需要 5 天。", "a number of its own"),
        (" Two bearings are gone.", "两个轴承坏了。", "a number"),
        (" Come back tomorrow.", "明天再来。", "a time"),
        (" The seal leaks.", "密封泄漏。", "fault or a deed"),
        (" The situation is critical.", "情况危急。", "a severity"),
        (" P-102 too.", "P-102 也是。", "a number of its own"),
        (" Ferrets.", "雪貂。", "no licensed clause says"),
        (" ٣", "٣", "a number of its own"),
    ],
)
def test_prose_that_says_more_than_the_facts_is_doubted(
    language: Language, added_en: str, added_zh: str, what: str
) -> None:
    (asked,) = [a for a in alternatives(case()) if (a.section, a.language) == ("what_happened", language)]
    said = free(asked)
    found = complaints_of(
        asked, msgspec.structs.replace(said, text=said.text + (added_en if language == "en" else added_zh))
    )
    assert found
    assert any(what in c.detail for c in found), [c.detail for c in found]


def test_prose_that_flips_moves_or_drops_a_claim_is_doubted() -> None:
    for asked in alternatives(case()):
        said = free(asked)
        keys = [asked.facts.all[s.fact].key for s in said.spans]
        for a, b in zip(said.spans, said.spans[1:], strict=False):
            text = said.text[: a.start] + said.text[b.start : b.end] + said.text[a.end : b.start]
            middle = len(text)
            text += said.text[a.start : a.end] + said.text[b.end :]
            start = a.start
            spans = [
                Span(start, start + b.end - b.start, b.fact) if s == a else Span(middle, b.end, a.fact) if s == b else s
                for s in said.spans
            ]
            assert complaints_of(asked, msgspec.structs.replace(said, text=text, spans=spans)), keys
        half = said.text.find(". " if asked.language == "en" else "。") + (2 if asked.language == "en" else 1)
        spans = [s for s in said.spans if s.end <= half]
        assert complaints_of(asked, msgspec.structs.replace(said, text=said.text[:half].strip(), spans=spans))


@pytest.mark.parametrize(
    ("section", "prose", "what"),
    [
        ("what_to_do", "First choice: {action_1} (because of {action_2_why}).", "mixes what different clauses say"),
        (
            "what_next",
            "At {forecast_at}, {forecast_signal} is forecast at {forecast_mean}, between {forecast_low} and {forecast_high}"
            " with a chance of {life_level}.",
            "mixes what different clauses say",
        ),
        ("what_happened", "That is {beyond} over the upper limit is exceeded by {beyond}.", "repeats a fact"),
        ("what_to_do", "First choice: {action_1} (because of {action_1_why}.", "leaves a bracket open"),
        ("what_happened", "It reached {usual} [2].", "puts a fact where no licensed clause has it"),
        ("what_next", "At {forecast_at}, {forecast_signal} is forecast at {forecast_low}.", "no licensed clause"),
    ],
)
def test_a_fact_in_another_ones_place_is_doubted(section: str, prose: str, what: str) -> None:
    (asked,) = [a for a in alternatives(case()) if (a.section, a.language) == (section, "en")]
    text, spans = "", []
    for n, part in enumerate(re.split(r"{(\w+)}", prose)):
        shown = asked.facts.text(part, "en") if n % 2 else part
        if n % 2:
            spans.append(Span(len(text), len(text) + len(shown), asked.facts.at[part]))
        text += shown
    found = complaints_of(asked, Said(text=text, spans=spans, mode=Mode.FREE))
    assert what in found[0].detail, found[0]


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "[" * 100_000, "a'" * 50_000, " " * 100_000, "[1] " * 25_000, "不" * 100_000, "-a" * 50_000]
)
def test_a_hostile_text_is_read_in_linear_time(text: str) -> None:
    (asked,) = [a for a in alternatives(case()) if (a.section, a.language) == ("what_happened", "en")]
    began = time.perf_counter()
    for mode in Mode:
        assert complaints_of(asked, Said(text=text, mode=mode))
        assert complaints_of(asked, Said(text=text, mode=mode, clauses=["what.above#" + "9" * 100]))
    assert parse(text, asked) is None
    assert time.perf_counter() - began < 5


def test_control_characters_are_caught_in_every_mode() -> None:
    (asked,) = [a for a in alternatives(case()) if (a.section, a.language) == ("what_happened", "en")]
    for mode in Mode:
        (found,) = complaints_of(asked, Said(text="Warning.\u202e", mode=mode))
        assert found.rule is Rule.CHARACTERS


def test_the_old_shape_of_a_section_still_stands() -> None:
    assert Section(title_en="a", title_zh="b", text_en="c", text_zh="d").clauses_en == []
