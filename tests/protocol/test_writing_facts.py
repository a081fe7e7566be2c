"""How facts read, and what two numbers say of one another."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Refused
from protocol.writing import relations
from protocol.writing.facts import LANGUAGES, LONGEST_NAME, Fact, Kind, moment, number, plain, render
from protocol.writing.relations import Change, Margin, Readings, Side, Trend
from tests.written import HOSTILE


@pytest.mark.parametrize(
    ("fact", "en", "zh"),
    [
        (Fact(key="k", kind=Kind.NUMBER, value=8.14159, unit="mm/s"), "8.14 mm/s", "8.14 mm/s"),
        (Fact(key="k", kind=Kind.NUMBER, value=-0.5), "-0.500", "-0.500"),
        (Fact(key="k", kind=Kind.NUMBER, value=1e300, unit="Pa"), "1.00e+300 Pa", "1.00e+300 Pa"),
        (Fact(key="k", kind=Kind.COUNT, value=12.0), "12", "12"),
        (Fact(key="k", kind=Kind.SHARE, value=0.8), "80 %", "80%"),
        (Fact(key="k", kind=Kind.SHARE, value=0.001), "under 1 %", "不到 1%"),
        (Fact(key="k", kind=Kind.SHARE, value=0.999), "over 99 %", "99% 以上"),
        (Fact(key="k", kind=Kind.SHARE, value=1.0), "100 %", "100%"),
        (Fact(key="k", kind=Kind.MOMENT, value=0.0), "1970-01-01 00:00 UTC", "1970-01-01 00:00 UTC"),
        (Fact(key="k", kind=Kind.NAME, value="P-101", en="Feed pump", zh="进料泵"), "Feed pump", "进料泵"),
        (Fact(key="k", kind=Kind.NAME, value="P-101"), "P-101", "P-101"),
    ],
)
def test_a_fact_reads_as_people_write_it(fact: Fact, en: str, zh: str) -> None:
    assert (render(fact, "en"), render(fact, "zh")) == (en, zh)


@pytest.mark.parametrize(
    "fact",
    [
        Fact(key="k", kind=Kind.NUMBER, value=math.nan),
        Fact(key="k", kind=Kind.NUMBER, value=math.inf),
        Fact(key="k", kind=Kind.NUMBER, value="8"),
        Fact(key="k", kind=Kind.COUNT, value=1.5),
        Fact(key="k", kind=Kind.COUNT, value=-1.0),
        Fact(key="k", kind=Kind.COUNT, value=1e300),
        Fact(key="k", kind=Kind.SHARE, value=1.01),
        Fact(key="k", kind=Kind.MOMENT, value=1e300),
        Fact(key="k", kind=Kind.MOMENT, value=-1.0),
        Fact(key="k", kind=Kind.NAME, value=5.0),
        Fact(key="k", kind=Kind.CATEGORY, value="above"),
    ],
)
def test_a_value_that_is_not_of_its_kind_is_refused(fact: Fact) -> None:
    with pytest.raises(Refused, match="'k'"):
        render(fact, "en")


@pytest.mark.parametrize("name", [*HOSTILE, "\n", "\u200b"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_hostile_name_is_one_bounded_line_without_markup(name: str, language: str) -> None:
    shown = render(Fact(key="k", kind=Kind.NAME, value=name), "en" if language == "en" else "zh")
    assert 0 < len(shown) <= LONGEST_NAME + 2
    assert not any(unicodedata.category(c)[0] == "C" or c in "<>\n" for c in shown)


def test_a_name_without_a_visible_character_is_spelled_out() -> None:
    assert render(Fact(key="k", kind=Kind.NAME, value="\u200b"), "zh") == "'\\u200b'"


def test_a_name_that_holds_a_sentence_stands_in_quotes() -> None:
    assert render(Fact(key="k", kind=Kind.NAME, value="Stop. All is well"), "en") == "“Stop. All is well”"
    assert render(Fact(key="k", kind=Kind.NAME, value="Pump No 3.5"), "en") == "Pump No 3.5"


@given(st.text(max_size=300))
def test_plain_text_stays_as_it_is_when_made_plain_again(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert len(plain(text)) <= LONGEST_NAME


def test_numbers_and_moments_read_as_before() -> None:
    assert [number(v) for v in (0, 0.0004, 0.5, 7.8, 71.25, 1234.5, 2e6)] == [
        "0.000",
        "4.00e-04",
        "0.500",
        "7.80",
        "71.2",
        "1234",
        "2.00e+06",
    ]
    assert moment(1_790_000_000_000) == "2026-09-21 14:13 UTC"


@pytest.mark.parametrize(
    ("value", "low", "high", "where", "far"),
    [
        (5.0, 2.0, 4.5, Side.ABOVE, 0.5),
        (1.0, 2.0, 4.5, Side.BELOW, 1.0),
        (4.5, 2.0, 4.5, Side.INSIDE, 0.0),
        (2.0, 2.0, 4.5, Side.INSIDE, 0.0),
        (2.0, 2.0, 2.0, Side.INSIDE, 0.0),
        (5.0, None, 4.5, Side.UNKNOWN, None),
        (5.0, 2.0, None, Side.UNKNOWN, None),
        (5.0, math.nan, 4.5, Side.UNKNOWN, None),
        (5.0, 2.0, math.inf, Side.UNKNOWN, None),
        (5.0, 4.5, 2.0, Side.UNKNOWN, None),
        (math.nan, 2.0, 4.5, Side.UNKNOWN, None),
        (math.inf, 2.0, 4.5, Side.UNKNOWN, None),
    ],
)
def test_a_value_lies_above_below_or_inside_a_closed_range(
    value: float, low: float | None, high: float | None, where: Side, far: float | None
) -> None:
    assert relations.side(value, low, high) is where
    assert relations.beyond(value, low, high) == far


def test_what_is_written_like_its_limit_is_beyond_it_only_slightly() -> None:
    assert relations.margin(4.5004, 2.0, 4.5) is Margin.SLIGHT
    assert relations.margin(4.6, 2.0, 4.5) is Margin.CLEAR
    assert relations.margin(4.5, 2.0, 4.5) is None
    assert relations.margin(4.6, None, 4.5) is None


@pytest.mark.parametrize(
    ("numbers", "goes"),
    [
        ((1.0, 9.0, 8.0, 10.0), Trend.RISING),
        ((9.0, 1.0, 0.0, 2.0), Trend.FALLING),
        ((1.0, 1.2, 0.0, 2.0), Trend.STEADY),
        ((1.0, 1.5, 0.5, 2.5), Trend.STEADY),
        ((1.0, 1.0, 1.0, 1.0), Trend.STEADY),
        ((1.0, 2.0, 2.0, 2.0), Trend.RISING),
        ((math.nan, 2.0, 2.0, 2.0), Trend.UNKNOWN),
        ((1.0, 2.0, 3.0, 2.0), Trend.UNKNOWN),
    ],
)
def test_a_trend_is_judged_against_the_interval(numbers: tuple[float, float, float, float], goes: Trend) -> None:
    assert relations.trend(*numbers) is goes


def test_values_are_compared_in_the_same_unit_only() -> None:
    assert relations.change(8.0, "mm/s", 3.0, "mm/s") is Change.UP
    assert relations.change(3.0, "mm/s", 8.0, "mm/s") is Change.DOWN
    assert relations.change(3.0001, "", 3.0, "") is Change.SAME
    assert relations.change(8.0, "mm/s", 3.0, "m/s") is Change.UNKNOWN
    assert relations.change(math.nan, "", 3.0, "") is Change.UNKNOWN
    assert [relations.readings(n) for n in (-1, 0, 1, 2)] == [Readings.NONE, Readings.NONE, Readings.ONE, Readings.MANY]


@given(st.floats(), st.floats(), st.floats())
def test_a_relation_always_has_an_answer_and_agrees_with_its_distance(value: float, low: float, high: float) -> None:
    where, far = relations.side(value, low, high), relations.beyond(value, low, high)
    assert (far is None) == (where is Side.UNKNOWN)
    if far is not None:
        assert (far > 0) == (where in (Side.ABOVE, Side.BELOW))
