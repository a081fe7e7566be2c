"""Seeded falsehoods for the verifier: each takes a true report and makes it false in one way, or answers None where that way
is not open (two equal values cannot be swapped). Some are clumsy (a digit is changed and nothing else), some cunning (the
facts are changed with the text, so that only the evidence or the sources disagree)."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from protocol.reports import Report, Section
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.facts import Fact, Kind, Language, Mode, Span
from protocol.writing.frames import wordings
from protocol.writing.realise import BETWEEN, Facts, write_document

CLAUSES = {clause.id: clause for clause in FAULT_REPORT.clauses}
FIGURES = (Kind.NUMBER, Kind.COUNT, Kind.SHARE, Kind.MOMENT)


@dataclass(frozen=True, slots=True)
class Half:
    """One section in one language, and how to put it back."""

    report: Report
    at: int
    language: Language

    @property
    def section(self) -> Section:
        return self.report.sections[self.at]

    @property
    def text(self) -> str:
        return self.section.text_en if self.language == "en" else self.section.text_zh

    @property
    def spans(self) -> list[Span]:
        return self.section.spans_en if self.language == "en" else self.section.spans_zh

    @property
    def clauses(self) -> list[str]:
        return self.section.clauses_en if self.language == "en" else self.section.clauses_zh

    def fact(self, span: Span) -> Fact:
        return self.report.facts[span.fact]

    def put(self, **changes: Any) -> Report:
        """The report with this half's text, spans, clauses or mode changed."""
        named = {f"{name}_{self.language}": value for name, value in changes.items()}
        sections = list(self.report.sections)
        sections[self.at] = replace(self.section, **named)
        return replace(self.report, sections=sections)

    def written(self, shown: Mapping[int, str]) -> Report:
        """With other words in the places of some spans (by their number); the spans follow."""
        text, spans, at = "", [], 0
        for n, span in enumerate(self.spans):
            text += self.text[at : span.start]
            words = shown.get(n, self.text[span.start : span.end])
            spans.append(Span(len(text), len(text) + len(words), span.fact))
            text, at = text + words, span.end
        return self.put(text=text + self.text[at:], spans=spans)

    def shown(self, n: int) -> str:
        return self.text[self.spans[n].start : self.spans[n].end]


def _half(report: Report, draw: random.Random) -> Half:
    return Half(report, draw.randrange(len(report.sections)), draw.choice(("en", "zh")))


def _figures(half: Half) -> list[int]:
    return [n for n, span in enumerate(half.spans) if half.fact(span).kind in FIGURES]


def _of_kind(half: Half, *kinds: Kind) -> list[int]:
    return [n for n, span in enumerate(half.spans) if half.fact(span).kind in kinds]


def _other_digit(text: str, draw: random.Random) -> str:
    places = [n for n, c in enumerate(text) if c.isascii() and c.isdigit()]
    if not places:
        return text
    at = draw.choice(places)
    return text[:at] + draw.choice([d for d in "0123456789" if d != text[at]]) + text[at + 1 :]


# --- values ---------------------------------------------------------------------------------------------------------------


def swap_two_values(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    pairs = [(a, b) for a in _figures(half) for b in _figures(half) if a < b and half.shown(a) != half.shown(b)]
    if not pairs:
        return None
    a, b = draw.choice(pairs)
    return half.written({a: half.shown(b), b: half.shown(a)})


def swap_two_values_and_their_spans(report: Report, draw: random.Random) -> Report | None:
    changed = swap_two_values(report, draw)
    if changed is None:
        return None
    for at, (old, new) in enumerate(zip(report.sections, changed.sections, strict=True)):
        for language in ("en", "zh"):
            half = Half(changed, at, language)
            if Half(report, at, language).text != half.text and old is not new:
                by_text = {
                    Half(report, at, language).shown(n): s.fact for n, s in enumerate(Half(report, at, language).spans)
                }
                return half.put(spans=[Span(s.start, s.end, by_text[half.shown(n)]) for n, s in enumerate(half.spans)])
    return None


def change_a_digit(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    if not _figures(half):
        return None
    n = draw.choice(_figures(half))
    return half.written({n: _other_digit(half.shown(n), draw)})


def move_the_point(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    found = [n for n in _of_kind(half, Kind.NUMBER) if re.search(r"\d\.\d", half.shown(n))]
    if not found:
        return None
    n = draw.choice(found)
    return half.written({n: re.sub(r"(\d)\.(\d)", r".\1\2", half.shown(n), count=1).lstrip(".")})


def change_the_unit(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    found = [n for n in _of_kind(half, Kind.NUMBER) if half.fact(half.spans[n]).unit.strip()]
    if not found:
        return None
    n = draw.choice(found)
    figure = half.shown(n).partition(" ")[0]
    unit = draw.choice([u for u in ("°F", "kPa", "m/s", "%") if f"{figure} {u}" != half.shown(n)])
    return half.written({n: f"{figure} {unit}"})


def turn_the_sign(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    found = _of_kind(half, Kind.NUMBER)
    if not found:
        return None
    n = draw.choice(found)
    shown = half.shown(n)
    return half.written({n: shown[1:] if shown.startswith("-") else f"-{shown}"})


def _lie(report: Report, key: str, change: Callable[[Fact], Fact]) -> Report | None:
    """Changes a fact and writes its new value wherever the old one stood."""
    at = next((n for n, fact in enumerate(report.facts) if fact.key == key), None)
    if at is None:
        return None
    facts = list(report.facts)
    facts[at] = change(facts[at])
    told = Facts(facts)
    changed = replace(report, facts=facts)
    for section in range(len(report.sections)):
        for language in ("en", "zh"):
            half = Half(changed, section, language)
            changed = half.written({n: told.text(key, language) for n, s in enumerate(half.spans) if s.fact == at})
    return changed


def _scaled(fact: Fact) -> Fact:
    value = float(fact.value)
    return replace(fact, value=value * 1.5 + 1.0)


def lie_about_the_peak(report: Report, draw: random.Random) -> Report | None:
    return _lie(report, "peak", _scaled)


def lie_about_the_limit(report: Report, draw: random.Random) -> Report | None:
    return _lie(report, draw.choice(("expected_low", "expected_high")), _scaled)


def lie_about_the_mean_before(report: Report, draw: random.Random) -> Report | None:
    return _lie(report, "usual", _scaled)


def lie_about_the_count(report: Report, draw: random.Random) -> Report | None:
    return _lie(report, "samples", lambda fact: replace(fact, value=float(fact.value) + 1))


def lie_about_the_forecast(report: Report, draw: random.Random) -> Report | None:
    """Only who has the forecast can tell."""
    return _lie(report, "forecast_high", _scaled)


def lie_about_the_unit(report: Report, draw: random.Random) -> Report | None:
    return _lie(report, "peak", lambda fact: replace(fact, unit=f"k{fact.unit or 'g'}"[:32]))


def lie_about_the_time(report: Report, draw: random.Random) -> Report | None:
    return _lie(report, "measured_until", lambda fact: replace(fact, value=float(fact.value) + 86_400_000))


def change_the_evidence(report: Report, draw: random.Random) -> Report | None:
    first = report.evidence[0]
    return replace(report, evidence=[replace(first, value=first.value * 2 + 1), *report.evidence[1:]])


# --- relations ------------------------------------------------------------------------------------------------------------

FLIPS: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (
        ("higher", "lower"),
        ("above", "below"),
        ("over", "under"),
        ("risen", "fallen"),
        ("rises", "falls"),
        ("up", "down"),
    ),
    "zh": (("高于", "低于"), ("偏高", "偏低"), ("上升", "下降"), ("上限", "下限"), ("最高", "最低"), ("向上", "向下")),
}
OPPOSITES = (
    ("what.above", "what.below"),
    ("what.above.value", "what.below.value"),
    ("what.high", "what.low"),
    ("what.above.inside", "what.below.inside"),
    ("what.above.contradicted", "what.below.contradicted"),
    ("beyond.above", "beyond.below"),
    ("change.up", "change.down"),
    ("trend.rising", "trend.falling"),
    ("life.known", "life.capped"),
    ("note.sure", "note.unsure"),
)
OPPOSITE = {**dict(OPPOSITES), **{b: a for a, b in OPPOSITES}}


def flip_a_word(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    facts = [(span.start, span.end) for span in half.spans]
    found = []
    for a, b in (*FLIPS[half.language], *((b, a) for a, b in FLIPS[half.language])):
        pattern = rf"\b{a}\b" if half.language == "en" else a
        found += [
            (m, b) for m in re.finditer(pattern, half.text) if not any(s < m.end() and m.start() < e for s, e in facts)
        ]
    if not found:
        return None
    match, other = draw.choice(found)
    moved = len(other) - len(match.group())
    spans = [s if s.end <= match.start() else Span(s.start + moved, s.end + moved, s.fact) for s in half.spans]
    return half.put(text=half.text[: match.start()] + other + half.text[match.end() :], spans=spans)


def _say(half: Half, names: list[str]) -> Report:
    """Writes clauses whether they are licensed or not."""
    facts, text, spans = Facts(half.report.facts), "", []
    for name in names:
        clause, _, which = name.partition("#")
        filled = facts.fill(CLAUSES[clause], int(which), half.language)
        text += BETWEEN[half.language] if text else ""
        spans += [Span(s.start + len(text), s.end + len(text), s.fact) for s in filled.spans]
        text += filled.text
    return half.put(text=text, spans=spans, clauses=names)


def say_the_opposite_clause(report: Report, draw: random.Random) -> Report | None:
    """In both languages, as a writer without conditions would."""
    keys = {fact.key for fact in report.facts}
    for at, section in draw.sample(list(enumerate(report.sections)), len(report.sections)):
        swaps = {
            name: OPPOSITE[name]
            for name in (n.partition("#")[0] for n in section.clauses_en)
            if name in OPPOSITE and keys.issuperset(k for k in CLAUSES[OPPOSITE[name]].needs)
        }
        if swaps:
            one = draw.choice(sorted(swaps))
            for language in ("en", "zh"):
                half = Half(report, at, language)
                names = [f"{swaps[one]}#0" if n.partition("#")[0] == one else n for n in half.clauses]
                report = _say(half, names)
            return report
    return None


def _rewritten(report: Report, key: str, value: str) -> Report | None:
    """Changes a category and writes the whole report anew as it then would be."""
    at = next((n for n, fact in enumerate(report.facts) if fact.key == key), None)
    if at is None or report.facts[at].value == value:
        return None
    facts = list(report.facts)
    facts[at] = replace(facts[at], value=value)
    said = write_document(FAULT_REPORT, facts)
    return replace(report, facts=facts, sections=said.sections, title_en=said.title_en, title_zh=said.title_zh)


def lie_about_the_relation(report: Report, draw: random.Random) -> Report | None:
    return _rewritten(report, "relation", draw.choice(("above", "below", "inside")))


def lie_about_the_trend(report: Report, draw: random.Random) -> Report | None:
    return _rewritten(report, "trend", draw.choice(("rising", "falling", "steady")))


def lie_about_the_change(report: Report, draw: random.Random) -> Report | None:
    return _rewritten(report, "change", draw.choice(("up", "down", "same")))


def lie_about_the_severity(report: Report, draw: random.Random) -> Report | None:
    """Facts and text say one thing, the report's head another."""
    return _rewritten(report, "severity", draw.choice(("notice", "warning", "alarm")))


# --- the rest -------------------------------------------------------------------------------------------------------------


def drop_a_mandatory_clause(report: Report, draw: random.Random) -> Report | None:
    at = draw.randrange(len(report.sections))
    names = [n.partition("#")[0] for n in report.sections[at].clauses_en]
    musts = [name for name in names if CLAUSES[name].mandatory]
    if not musts or len(names) < 2:
        return None
    gone = draw.choice(musts)
    for language in ("en", "zh"):
        half = Half(report, at, language)
        report = _say(half, [n for n in half.clauses if n.partition("#")[0] != gone])
    return report


def drop_a_clause_in_one_language(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    if len(half.clauses) < 2:
        return None
    gone = draw.choice(half.clauses)
    return _say(half, [n for n in half.clauses if n != gone])


def say_a_clause_twice(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    return _say(half, [*half.clauses, draw.choice(half.clauses)])


def change_the_order(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    return _say(half, half.clauses[::-1]) if len(half.clauses) > 1 else None


def name_another_wording(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    at = draw.randrange(len(half.clauses))
    name, _, which = half.clauses[at].partition("#")
    count = len(wordings(CLAUSES[name], half.language))
    names = list(half.clauses)
    names[at] = f"{name}#{(int(which) + 1) % count}"
    return half.put(clauses=names)


def invent_a_part(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    more = {"en": " Replace the coupling HX-9.", "zh": "请更换联轴器 HX-9。"}[half.language]
    return half.put(text=half.text + more)


def rename_a_thing(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    named = _of_kind(half, Kind.NAME)
    if not named:
        return None
    n = draw.choice(named)
    return half.written({n: "seal kit 77" if half.language == "en" else "密封件 77"})


def add_a_negation(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    ends = [span.end for span in half.spans] or [0]
    at = draw.choice(ends)
    word = " not" if half.language == "en" else "不"
    spans = [s if s.end <= at else Span(s.start + len(word), s.end + len(word), s.fact) for s in half.spans]
    return half.put(text=half.text[:at] + word + half.text[at:], spans=spans)


def add_a_negation_and_call_it_prose(report: Report, draw: random.Random) -> Report | None:
    changed = add_a_negation(report, draw)
    if changed is None:
        return None
    sections = [
        replace(s, mode_en=Mode.FREE, mode_zh=Mode.FREE, clauses_en=[], clauses_zh=[]) if s != old else s
        for s, old in zip(changed.sections, report.sections, strict=True)
    ]
    return replace(changed, sections=sections)


def write_a_wide_digit(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    if not _figures(half):
        return None
    n = draw.choice(_figures(half))
    return half.written({n: re.sub(r"\d", lambda m: chr(ord(m.group()) + 0xFEE0), half.shown(n), count=1)})


def hide_a_character(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    return half.put(text=half.text + draw.choice("\u200b\u202e\u2066\x07"))


def swap_the_languages(report: Report, draw: random.Random) -> Report | None:
    at = draw.randrange(len(report.sections))
    s = report.sections[at]
    sections = list(report.sections)
    sections[at] = replace(s, text_en=s.text_zh, text_zh=s.text_en, spans_en=s.spans_zh, spans_zh=s.spans_en)
    return replace(report, sections=sections)


def drop_a_section(report: Report, draw: random.Random) -> Report | None:
    at = draw.randrange(len(report.sections))
    return (
        replace(report, sections=[s for n, s in enumerate(report.sections) if n != at])
        if len(report.sections) > 1
        else None
    )


def change_a_mark(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    bare = re.search(r"\[[12]\]", half.text)
    if bare is None or any(s.start <= bare.start() < s.end for s in half.spans):
        return None
    return half.put(text=half.text[: bare.start()] + "[3]" + half.text[bare.end() :])


def cite_what_is_not_there(report: Report, draw: random.Random) -> Report | None:
    at = draw.randrange(len(report.sections))
    sections = list(report.sections)
    sections[at] = replace(sections[at], cites=[*sections[at].cites, 5])
    return replace(report, sections=sections)


def make_up_a_fact(report: Report, draw: random.Random) -> Report | None:
    return replace(report, facts=[*report.facts, Fact(key="torque", kind=Kind.NUMBER, value=4.0, unit="Nm")])


def drop_a_fact(report: Report, draw: random.Random) -> Report | None:
    needed = [
        n
        for n, fact in enumerate(report.facts)
        if fact.key in ("severity", "peak", "since", "kind", "advice", "samples")
    ]
    gone = draw.choice(needed)
    return replace(report, facts=[fact for n, fact in enumerate(report.facts) if n != gone])


def move_a_span(report: Report, draw: random.Random) -> Report | None:
    half = _half(report, draw)
    if not half.spans:
        return None
    n = draw.randrange(len(half.spans))
    spans = [Span(s.start, s.end + 1, s.fact) if k == n else s for k, s in enumerate(half.spans)]
    return half.put(spans=spans)


def rename_the_machine_in_the_head(report: Report, draw: random.Random) -> Report | None:
    return replace(report, machine="another machine")


def change_the_title(report: Report, draw: random.Random) -> Report | None:
    return replace(report, title_en=f"{report.title_en} (solved)")


def name_another_catalogue(report: Report, draw: random.Random) -> Report | None:
    return replace(report, frames=report.frames[:-1] + ("0" if report.frames[-1] != "0" else "1"))


VALUES = (
    swap_two_values,
    swap_two_values_and_their_spans,
    change_a_digit,
    move_the_point,
    change_the_unit,
    turn_the_sign,
    write_a_wide_digit,
    lie_about_the_peak,
    lie_about_the_limit,
    lie_about_the_mean_before,
    lie_about_the_count,
    lie_about_the_unit,
    lie_about_the_time,
    lie_about_the_forecast,
    change_the_evidence,
)
RELATIONS = (
    flip_a_word,
    say_the_opposite_clause,
    lie_about_the_relation,
    lie_about_the_trend,
    lie_about_the_change,
    lie_about_the_severity,
    add_a_negation,
    add_a_negation_and_call_it_prose,
)
OTHERS = (
    drop_a_mandatory_clause,
    drop_a_clause_in_one_language,
    say_a_clause_twice,
    change_the_order,
    name_another_wording,
    invent_a_part,
    rename_a_thing,
    hide_a_character,
    swap_the_languages,
    drop_a_section,
    change_a_mark,
    cite_what_is_not_there,
    make_up_a_fact,
    drop_a_fact,
    move_a_span,
    rename_the_machine_in_the_head,
    change_the_title,
    name_another_catalogue,
)
GROUPS = {"values": VALUES, "relations": RELATIONS, "others": OTHERS}


@dataclass(frozen=True, slots=True)
class Mutated:
    """One falsehood."""

    group: str
    how: str
    report: Report


def mutations(report: Report, seed: int) -> Iterator[Mutated]:
    """Every falsehood that can be made of a report; what came out unchanged is left out."""
    for group, ways in GROUPS.items():
        for way in ways:
            draw = random.Random(f"{seed} {way.__name__}")  # noqa: S311 - a falsehood is no secret
            changed = way(report, draw)
            if changed is not None and changed != report:
                yield Mutated(group, way.__name__.replace("_", " "), changed)
