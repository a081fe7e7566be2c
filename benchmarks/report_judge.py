"""A second reader of fault reports, for benchmarks only. It knows the event, the evidence, the forecast and the rest as a
gateway had them, and what each clause of the catalogue means; it shares no code with what derives facts, licenses clauses,
renders, fills or verifies. What it takes from the product is the catalogue's wordings (to know where a slot stands) and what
things are called.

Slot errors: a figure, unit, time or name that is not the one that belongs where it stands, or stands nowhere it should.
Claim errors: a clause whose meaning is not so, or that is missing although it must be said; words of direction or severity
that contradict the numbers; text that is no clause; evidence that is not there."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from fault_cases import Made

from edge_agent.explain import Labels
from protocol.reading.notes import About, Judged
from protocol.reports import Evidence, Forecast, RecommendedItem, Report, Section
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.fault_report import ALGORITHMS, FaultCase

NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?"
MOMENT = r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2} UTC"
SHARE = r"(?:under |over |不到 )?[0-9]+ ?%(?: 以上)?"
WORDINGS = {clause.id: {"en": clause.en, "zh": clause.zh} for clause in FAULT_REPORT.clauses}
SECTION_OF = {clause.id: clause.section for clause in FAULT_REPORT.clauses}


@dataclass(frozen=True, slots=True)
class Value:
    """What belongs into a slot. A name has words in both languages; a figure its value and unit."""

    kind: str
    value: float = 0.0
    unit: str = ""
    words: tuple[str, str] = ("", "")


class Truth:
    """What is so, read from the case alone."""

    kind: str
    value: float
    ranged: bool
    low: float
    high: float
    usual: Evidence | None
    forecast: Forecast | None
    reading: Judged | None
    items: list[RecommendedItem]
    values: dict[str, Value]

    def __init__(self, made: Made) -> None:
        case = self.case = _of_its_machine(made.case)
        names, event, extreme = made.names, case.event, case.extreme
        self.kind = event.kind if event.kind in KINDS else "other"
        self.value = extreme.value
        low, high = extreme.expected_low, extreme.expected_high
        self.ranged = low is not None and high is not None and math.isfinite(low + high) and low <= high
        self.low, self.high = (low or 0.0, high or 0.0) if self.ranged else (math.nan, math.nan)
        self.usual = case.usual if case.usual is not None and math.isfinite(case.usual.value) else None
        self.forecast = case.forecast if case.forecast is not None and _whole_forecast(case.forecast) else None
        self.reading = next(
            (j for j in (case.reading.judged if case.reading else []) if j.about is About.FAILURE), None
        )
        self.items = case.recommendation.items[:3] if case.recommendation else []
        self.values = dict(_values(self, names))

    @property
    def above(self) -> bool:
        return self.ranged and self.value > self.high

    @property
    def below(self) -> bool:
        return self.ranged and self.value < self.low

    @property
    def inside(self) -> bool:
        return self.ranged and not self.above and not self.below

    @property
    def slight(self) -> bool:
        limit = self.high if self.above else self.low
        return (self.above or self.below) and shown(self.value) == shown(limit)

    def moved(self, how: str) -> bool:
        """Whether the extreme went up, down or nowhere against the mean before, as far as digits and units tell."""
        if (
            self.usual is None
            or self.usual.statistic != "mean"
            or tidy(self.usual.unit) != tidy(self.case.extreme.unit)
        ):
            return False
        if shown(self.value) == shown(self.usual.value):
            return how == "same"
        return how == ("up" if self.value > self.usual.value else "down")

    def heads(self, how: str) -> bool:
        """Where the forecast goes: steady within a quarter of the width of its last interval."""
        told = self.forecast
        if told is None:
            return False
        first, last, width = told.mean[0], told.mean[-1], told.high[-1] - told.low[-1]
        if shown(first) == shown(last) or abs(last - first) <= 0.25 * width:
            return how == "steady"
        return how == ("rising" if last > first else "falling")

    def action(self, at: int, reasons: int) -> bool:
        """Whether place `at` of the list has so many reasons that are shown (2: two or more)."""
        return len(self.items) >= at and min(len(self.items[at - 1].contributions), 2) == reasons


KINDS = ("above_expected", "below_expected", "stuck", "silent", "machine_unusual")


def _of_its_machine(case: FaultCase) -> FaultCase:
    """What is of another machine does not count."""
    parts = ("usual", "forecast", "recommendation", "risk", "life", "reading")
    others: dict[str, Any] = {
        name: None
        for name in parts
        if getattr(getattr(case, name), "machine", case.event.machine) != case.event.machine
    }
    return replace(case, **others)


def _whole_forecast(told: Forecast) -> bool:
    if not (told.mean and told.low and told.high):
        return False
    ends = (told.low[-1], told.mean[-1], told.high[-1])
    return all(map(math.isfinite, (*ends, told.mean[0]))) and ends[0] <= ends[1] <= ends[2]


def _values(truth: Truth, labels: Labels) -> Iterator[tuple[str, Value]]:
    case = truth.case
    event, extreme = case.event, case.extreme
    yield "machine", _named(labels.machine(event.machine), event.machine)
    yield "signal", _named(labels.signal(event.signal), event.signal)
    yield "since", _moment(event.start_ms)
    yield "seen_as", _named((event.kind.replace("_", " "), event.kind), event.kind)
    yield "peak", _number(truth.value, extreme.unit)
    yield "samples", _count(extreme.samples)
    yield "measured_from", _moment(extreme.start_ms)
    yield "measured_until", _moment(extreme.end_ms)
    yield "deviation", _number(abs(event.score), "")
    if truth.ranged:
        yield "expected_low", _number(truth.low, extreme.unit)
        yield "expected_high", _number(truth.high, extreme.unit)
        yield "beyond", _number(max(truth.value - truth.high, truth.low - truth.value, 0.0), extreme.unit)
    if extreme.model is not None:
        yield "model", _algorithm(extreme.model.algorithm)
        yield "model_version", _count(extreme.model.version)
    if truth.usual is not None:
        yield "usual", _number(truth.usual.value, truth.usual.unit)
        yield "usual_samples", _count(truth.usual.samples)
    yield from _values_ahead(truth, labels)
    for at, item in enumerate(truth.items, start=1):
        yield f"action_{at}", _named(labels.item(item.item), item.item)
        for which, reason in zip(("why", "also"), item.contributions, strict=False):
            yield f"action_{at}_{which}", _named(labels.item(reason.because), reason.because)


def _values_ahead(truth: Truth, labels: Labels) -> Iterator[tuple[str, Value]]:
    """Of the forecast, the remaining life, the risk, the note and the spare part."""
    case, told = truth.case, truth.forecast
    item = labels.item
    if told is not None:
        shown_values = (told.mean[0], told.mean[-1], told.low[-1], told.high[-1])
        for key, value in zip(("start", "mean", "low", "high"), shown_values, strict=True):
            yield f"forecast_{key}", Value("number", value, told.unit)
        yield "forecast_at", Value("moment", told.start_ms + told.step_ms * (len(told.mean) - 1))
        yield "forecast_level", Value("share", told.level)
        yield "forecast_model", _algorithm(told.model.algorithm)
        yield "forecast_signal", _named(labels.signal(told.signal), told.signal)
    if case.life is not None:
        for key in ("low", "median", "high", "cap"):
            yield f"life_{key}", Value("number", getattr(case.life, key), case.life.unit)
        yield "life_level", Value("share", case.life.level)
    if case.risk is not None:
        yield "risk_of", _named(item(f"failure:{case.risk.component}"), case.risk.component)
        yield "risk", Value("share", case.risk.probability)
        yield "risk_until", Value("moment", case.risk.issued_ms + case.risk.horizon_ms)
    if truth.reading is not None:
        best = truth.reading.classes[0]
        yield "note_failure", _named(item(f"failure:{best.name}"), best.name)
        yield "note_chance", Value("share", best.probability)
    mended = [like.fixed_by[0] for like in (case.reading.like if case.reading else []) if like.fixed_by]
    if mended:
        yield "note_fix", _named(item(mended[0]), mended[0])
    every = [i.item for i in (case.recommendation.items if case.recommendation else [])]
    parts = [name for name in every if name.startswith("part:")]
    if parts and parts[0] not in every[:3]:
        yield "spare_part", _named(item(parts[0]), parts[0])


def _number(value: float, unit: str) -> Value:
    return Value("number", value, unit)


def _moment(time_ms: float) -> Value:
    return Value("moment", time_ms)


def _count(n: float) -> Value:
    return Value("count", n)


def _algorithm(name: str) -> Value:
    return _named(ALGORITHMS.get(name, (name, name)), name)


def _named(words: tuple[str, str], token: str) -> Value:
    en, zh = (tidy(word or token, 80) or "?" for word in words)
    return Value("name", words=(en, zh))


def tidy(text: str, longest: int = 80) -> str:
    """A name or unit on one line: nothing invisible, no angle brackets, cut with an ellipsis."""
    kept = (" " if c.isspace() else {"<": "‹", ">": "›"}.get(c, c) for c in text if c.isspace() or not _hidden(c))
    line = " ".join("".join(kept).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _hidden(c: str) -> bool:
    return unicodedata.category(c).startswith("C")


def shown(value: float) -> str:
    """The digits that people see: three that count, or all before the point."""
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e6:
        return f"{value:.2e}"
    places = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:.{places}f}"


# --- what the clauses mean ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meaning:
    """When a clause is so; whether it may be left out; which directions its words may have ("u", "d"), which severity."""

    so: Callable[[Truth], bool]
    may_go: bool = False
    says: str = ""
    severity: str = ""


def _kind(name: str) -> Callable[[Truth], bool]:
    return lambda t: t.kind == name


def _severity(name: str) -> Callable[[Truth], bool]:
    return lambda t: t.case.event.severity.value == name


def _listed(at: int, reasons: int) -> Callable[[Truth], bool]:
    return lambda t: t.action(at, reasons)


def _statistic(t: Truth, name: str) -> bool:
    return t.case.extreme.statistic == name


def _reported(t: Truth) -> bool:
    return t.kind in ("above_expected", "below_expected")


MEANINGS: dict[str, Meaning] = {
    "severity.notice": Meaning(_severity("notice"), severity="notice"),
    "severity.warning": Meaning(_severity("warning"), severity="warning"),
    "severity.alarm": Meaning(_severity("alarm"), severity="alarm"),
    "what.above": Meaning(lambda t: t.kind == "above_expected" and t.above and _statistic(t, "max"), says="u"),
    "what.above.value": Meaning(
        lambda t: t.kind == "above_expected" and t.above and not _statistic(t, "max"), says="u"
    ),
    "what.high": Meaning(lambda t: t.kind == "above_expected" and not t.ranged, says="u"),
    "what.above.inside": Meaning(lambda t: t.kind == "above_expected" and t.inside, says="u"),
    "what.above.contradicted": Meaning(lambda t: t.kind == "above_expected" and t.below, says="ud"),
    "what.below": Meaning(lambda t: t.kind == "below_expected" and t.below and _statistic(t, "min"), says="d"),
    "what.below.value": Meaning(
        lambda t: t.kind == "below_expected" and t.below and not _statistic(t, "min"), says="d"
    ),
    "what.low": Meaning(lambda t: t.kind == "below_expected" and not t.ranged, says="d"),
    "what.below.inside": Meaning(lambda t: t.kind == "below_expected" and t.inside, says="d"),
    "what.below.contradicted": Meaning(lambda t: t.kind == "below_expected" and t.above, says="ud"),
    "what.stuck": Meaning(_kind("stuck")),
    "what.silent": Meaning(_kind("silent")),
    "what.unusual": Meaning(_kind("machine_unusual")),
    "what.other": Meaning(_kind("other")),
    "what.range": Meaning(lambda t: t.ranged and not _reported(t), may_go=True),
    "margin.slight": Meaning(lambda t: t.slight and _reported(t), says="u"),
    "beyond.above": Meaning(lambda t: t.above and not t.slight and _reported(t), may_go=True, says="u"),
    "beyond.below": Meaning(lambda t: t.below and not t.slight and _reported(t), may_go=True, says="d"),
    "how.many": Meaning(lambda t: t.case.extreme.samples > 1),
    "how.one": Meaning(lambda t: t.case.extreme.samples == 1),
    "how.none": Meaning(lambda t: t.case.extreme.samples == 0),
    "how.usual": Meaning(lambda t: t.usual is not None and t.usual.statistic == "mean"),
    "change.up": Meaning(lambda t: t.moved("up"), may_go=True, says="u"),
    "change.down": Meaning(lambda t: t.moved("down"), may_go=True, says="d"),
    "change.same": Meaning(lambda t: t.moved("same"), may_go=True),
    "source.version": Meaning(lambda t: t.ranged and "model" in t.values and t.values["model_version"].value > 0),
    "source.model": Meaning(lambda t: t.ranged and "model" in t.values and t.values["model_version"].value == 0),
    "judged.version": Meaning(lambda t: not t.ranged and "model" in t.values and t.values["model_version"].value > 0),
    "judged.model": Meaning(lambda t: not t.ranged and "model" in t.values and t.values["model_version"].value == 0),
    "how.deviation": Meaning(lambda t: "model" in t.values and t.case.event.score != 0),
    "note.sure": Meaning(lambda t: t.reading is not None and t.reading.sure, may_go=True),
    "note.unsure": Meaning(lambda t: t.reading is not None and not t.reading.sure, may_go=True),
    "forecast.at": Meaning(lambda t: t.forecast is not None),
    "trend.rising": Meaning(lambda t: t.heads("rising"), may_go=True, says="u"),
    "trend.falling": Meaning(lambda t: t.heads("falling"), may_go=True, says="d"),
    "trend.steady": Meaning(lambda t: t.heads("steady"), may_go=True),
    "forecast.old": Meaning(lambda t: t.forecast is not None and t.forecast.stale),
    "life.known": Meaning(lambda t: t.case.life is not None and t.case.life.median < t.case.life.cap),
    "life.capped": Meaning(lambda t: t.case.life is not None and t.case.life.median >= t.case.life.cap),
    "life.old": Meaning(lambda t: t.case.life is not None and t.case.life.stale),
    "risk.until": Meaning(lambda t: t.case.risk is not None and t.case.risk.horizon_ms > 0),
    "risk.ever": Meaning(lambda t: t.case.risk is not None and t.case.risk.horizon_ms == 0),
    "advice.no_case": Meaning(lambda t: t.case.recommendation is None),
    "advice.left_out": Meaning(lambda t: t.case.recommendation is not None and not t.items),
    **{
        f"action_{at}.{name}": Meaning(_listed(at, n))
        for at in (1, 2, 3)
        for n, name in enumerate(("bare", "one", "two"))
    },
    "part.ready": Meaning(lambda t: "spare_part" in t.values, may_go=True),
    "note.fix": Meaning(lambda t: "note_fix" in t.values, may_go=True),
}
"""What each clause asserts, written down by hand beside the catalogue."""
TITLES: dict[str, Callable[[Truth], bool]] = {
    "title.above": lambda t: t.kind == "above_expected" and t.above,
    "title.high": lambda t: t.kind == "above_expected" and not t.above,
    "title.below": lambda t: t.kind == "below_expected" and t.below,
    "title.low": lambda t: t.kind == "below_expected" and not t.below,
    "title.stuck": _kind("stuck"),
    "title.silent": _kind("silent"),
    "title.unusual": _kind("machine_unusual"),
    "title.other": _kind("other"),
}
UP = re.compile(
    r"\b(?:higher|above(?! all)|too high|exceed\w*|over the upper|risen|rises?|gone up|go up|upwards)\b"
    r"|高于|偏高|超出|高出|上升|向上|上限高|最高达到"
)
DOWN = re.compile(
    r"\b(?:lower than|below|too low|under the lower|lower limit|fallen|falls?|gone down|go down|downwards|stayed under)\b"
    r"|低于|偏低|低出|下降|向下|下限低|最低降至"
)
NEGATION = re.compile(r"\b(?:no|not|never|nothing|without|none)\b|[不没无未非]", re.IGNORECASE)
SEVERITIES = {
    "alarm": re.compile(r"\balarm\b|报警", re.IGNORECASE),
    "warning": re.compile(r"\bwarning\b|警告", re.IGNORECASE),
    "notice": re.compile(r"\bnotice\b|\binformation\b|提示|(?<!仅)供参考", re.IGNORECASE),
}


@dataclass(slots=True)
class Verdict:
    """What the reader found. slots, claims: how many it looked at."""

    slots: int = 0
    claims: int = 0
    slot_errors: list[str] = field(default_factory=list)
    claim_errors: list[str] = field(default_factory=list)


def judge(report: Report, made: Made) -> Verdict:
    """Reads the title and both languages of every section."""
    truth, verdict = Truth(made), Verdict()
    for section in report.sections:
        for language, text, clauses in (
            ("en", section.text_en, section.clauses_en),
            ("zh", section.text_zh, section.clauses_zh),
        ):
            if clauses:
                _judge_clauses(text, clauses, language, section.section, truth, verdict)
            else:
                judge_prose(text, language, section.section, truth, verdict)
        _judge_cites(section, report, verdict)
    _judge_title(report, truth, verdict)
    expected = {SECTION_OF[name] for name, meaning in MEANINGS.items() if meaning.so(truth)}
    told = {section.section for section in report.sections}
    if told != expected:
        verdict.claim_errors.append(f"sections {sorted(told)}, not {sorted(expected)}")
    return verdict


def _judge_title(report: Report, truth: Truth, verdict: Verdict) -> None:
    for language, title in (("en", report.title_en), ("zh", report.title_zh)):
        verdict.claims += 1
        so = [w for name, holds in TITLES.items() if holds(truth) for w in WORDINGS[name][language]]
        if not any(re.fullmatch(_pattern(wording, [], language, truth), title) for wording in so):
            verdict.claim_errors.append(f"title/{language}: {title[:120]!r} is not so")


def _judge_clauses(text: str, clauses: list[str], language: str, section: str, truth: Truth, verdict: Verdict) -> None:
    said = [name.partition("#")[0] for name in clauses]
    verdict.claims += len(said)
    for name in said:
        if name not in MEANINGS or SECTION_OF[name] != section or not MEANINGS[name].so(truth):
            verdict.claim_errors.append(f"{section}/{language}: {name} is not so")
    for name, meaning in MEANINGS.items():
        must = SECTION_OF[name] == section and not meaning.may_go and meaning.so(truth)
        if said.count(name) > 1 or (must and name not in said):
            verdict.claim_errors.append(f"{section}/{language}: {name} is said {said.count(name)} times")
    wordings = [WORDINGS[name][language][int(which)] for name, _, which in (c.partition("#") for c in clauses)]
    for name, wording in zip(said, wordings, strict=True):
        wrong = _directions(re.sub("<[a-z0-9_]+>", " ", wording), MEANINGS[name].says, MEANINGS[name].severity)
        verdict.claim_errors += [f"{section}/{language}: {name} {what}" for what in wrong]
    keys: list[str] = []
    gap = " " if language == "en" else ""
    found = re.fullmatch(gap.join(_pattern(wording, keys, language, truth) for wording in wordings), text)
    if found is None:
        verdict.slot_errors.append(f"{section}/{language}: {text[:160]!r} is not what {clauses} say of this case")
        return
    verdict.slots += len(keys)
    for key, there in zip(keys, found.groups(), strict=True):
        if not _right(there, truth.values[key]):
            verdict.slot_errors.append(f"{section}/{language}: {key} reads {there!r}, it is {truth.values[key]}")


def _pattern(wording: str, keys: list[str], language: str, truth: Truth) -> str:
    """A wording as an expression: names and units must stand as they are, figures are caught."""
    made = []
    for n, part in enumerate(re.split(r"<([a-z0-9_]+)>", wording)):
        if n % 2 == 0:
            made.append(re.escape(part))
            continue
        value = truth.values.get(part)
        if value is None:
            return r"(?!)"
        if value.kind == "name":
            made.append("(“?" + re.escape(value.words[0 if language == "en" else 1]) + "”?)")
            keys.append(part)
            continue
        keys.append(part)
        unit = tidy(value.unit, 32)
        figure = {"number": NUMBER, "count": "[0-9]+", "moment": MOMENT, "share": SHARE}[value.kind]
        made.append(f"({figure})" + (re.escape(f" {unit}") if unit else ""))
    return "".join(made)


def _right(there: str, value: Value) -> bool:
    """Whether a figure reads as its value, to the digits shown."""
    if value.kind == "name":
        return True
    if value.kind == "moment":
        return there == datetime.fromtimestamp(value.value // 60_000 * 60, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if value.kind == "share":
        return _share(there, value.value)
    if value.kind == "count":
        return int(there) == value.value
    digits, _, power = there.partition("e")
    last = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    significant = len(digits.replace(".", "").replace("-", "").lstrip("0"))
    near = abs(float(there) - value.value) <= last * 0.5 * (1 + 1e-6)
    return near and (significant >= 3 or abs(value.value) < 1)


def _share(there: str, chance: float) -> bool:
    whole = int(re.findall(r"\d+", there)[0])
    if "under" in there or "不到" in there:
        return 0 < chance < 0.01
    if "over" in there or "以上" in there:
        return 0.99 < chance < 1
    return abs(whole - chance * 100) <= 0.5 + 1e-9


def _directions(words: str, says: str, severity: str) -> list[str]:
    wrong = []
    if UP.search(words) and "u" not in says:
        wrong.append(f"says up: {words!r}")
    if DOWN.search(words) and "d" not in says:
        wrong.append(f"says down: {words!r}")
    wrong += [
        f"says {name}: {words!r}" for name, found in SEVERITIES.items() if name != severity and found.search(words)
    ]
    return wrong


def judge_prose(text: str, language: str, section: str, truth: Truth, verdict: Verdict) -> None:
    """Prose has no clauses to go by: every figure must be one of the section's, every direction one that holds there."""
    where, at = f"{section}/{language}", 0 if language == "en" else 1
    live = [name for name, meaning in MEANINGS.items() if SECTION_OF[name] == section and meaning.so(truth)]
    keys = {key for name in live for key in re.findall("<([a-z0-9_]+)>", WORDINGS[name]["en"][0])}
    figures = [truth.values[key] for key in keys if key in truth.values]
    words = text
    for value in sorted(figures, key=lambda v: -len(v.words[at])):
        if value.kind == "name":
            words = re.sub(rf"(?<![A-Za-z0-9.-]){re.escape(value.words[at])}(?![A-Za-z0-9]|\.[0-9])", " ", words)
    words = re.sub(r"\[\d+\]", " ", words)
    units = sorted({tidy(value.unit, 32) for value in figures if value.unit}, key=len, reverse=True)
    for there, kind, unit in _figures(words, units):
        verdict.slots += 1
        if not any(value.kind in kind and tidy(value.unit, 32) == unit and _right(there, value) for value in figures):
            verdict.slot_errors.append(f"{where}: {f'{there} {unit}'.strip()!r} is no figure of this section")
    words = re.sub(_with_unit(units), r"\1", words)
    says = "".join(MEANINGS[name].says for name in live)
    verdict.claims += 1
    bare = re.sub(f"{MOMENT}|{SHARE}|{NUMBER}", " ", words)
    severity = truth.case.event.severity.value if section == "what_happened" else ""
    verdict.claim_errors += [f"{where}: prose {what}" for what in _directions(bare, says, severity)]
    if NEGATION.search(bare) and not any(NEGATION.search(w) for name in live for w in WORDINGS[name][language]):
        verdict.claim_errors.append(f"{where}: prose denies: {bare!r}")
    for first, second in re.findall(rf"({NUMBER})[^\d]{{0,40}}? (?:to|and|至|和|与) ({NUMBER})", words):
        pairs = (("expected_low", "expected_high"), ("forecast_low", "forecast_high"), ("life_low", "life_high"))
        known = [tuple(truth.values[key] for key in pair) for pair in pairs if pair[0] in keys]
        if known and not any(_right(first, low) and _right(second, high) for low, high in known):
            verdict.slot_errors.append(f"{where}: {first} to {second} is no range of this section")


def _figures(words: str, units: list[str]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Every figure, what it may be, and which of the section's units stands behind it ("" for none)."""
    for kinds, pattern in ((("moment",), MOMENT), (("share",), SHARE)):
        for there in re.findall(pattern, words):
            yield there, kinds, ""
        words = re.sub(pattern, " ", words)
    for there, unit in re.findall(_with_unit(units), words):
        yield there, ("number",) if "." in there or "e" in there else ("number", "count"), unit


def _with_unit(units: list[str]) -> str:
    """A figure, and the unit behind it: one such as "m3/h" or "1/min" has a digit that is no figure of its own."""
    behind = "|".join(map(re.escape, units))
    return f"({NUMBER})(?: ({behind})(?![A-Za-z0-9]))?" if units else f"({NUMBER})()"


def _judge_cites(section: Section, report: Report, verdict: Verdict) -> None:
    for language, text, spans in (
        ("en", section.text_en, section.spans_en),
        ("zh", section.text_zh, section.spans_zh),
    ):
        bare = text
        for span in sorted(spans, key=lambda s: -s.start):
            bare = bare[: span.start] + bare[span.end :]
        cited = {int(n) - 1 for n in re.findall(r"\[(\d+)\]", bare)}
        if cited != set(section.cites) or any(n >= len(report.evidence) for n in cited):
            verdict.claim_errors.append(f"{section.section}/{language}: cites {sorted(cited)} of {section.cites}")
