"""The facts of a fault report: what a gateway knows about one event, each with where it comes from.

A number that is not finite, a range whose limits are missing or in the wrong order, a forecast with a hole in it: such a
thing is not known, and nothing is said of it. Without a machine, a signal and a finite extreme there is no report: Refused.
What comes from evidence is computed from the evidence alone, so that a reader of the report can do it again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import msgspec

from protocol.errors import Reason, Refused
from protocol.reading.notes import About, NoteReading
from protocol.reports import (
    Evidence,
    FaultEvent,
    FaultRisk,
    Forecast,
    Recommendation,
    RecommendedItem,
    RemainingLife,
    Report,
)
from protocol.writing import relations
from protocol.writing.facts import Fact, Kind, plain

DOCUMENT = "fault_report"
MOST_ACTIONS = 3
KINDS = ("above_expected", "below_expected", "stuck", "silent", "machine_unusual", "other")
"""What an event can be; what the catalogue has no words of its own for is "other"."""
ALGORITHMS = {
    "naive": ("the simple reference", "简单基准"),
    "arima": ("ARIMA", "ARIMA"),
    "lstm": ("LSTM", "LSTM"),
    "monitor": ("the machine's monitor", "机器监测模型"),
    "combined": ("a combination of forecasters", "组合预测"),
    "ridge": ("ridge regression", "岭回归"),
    "item_neighbours": ("item-based collaborative filtering", "基于物品的协同过滤"),
}

Words = tuple[str, str]
"""English, Simplified Chinese."""


class Names(Protocol):
    """What things are called. `item` answers for actions, parts, symptoms and failures ("failure:leak")."""

    def machine(self, name: str) -> Words: ...
    def signal(self, name: str) -> Words: ...
    def item(self, name: str) -> Words: ...


@dataclass(frozen=True, slots=True)
class FaultCase:
    """What is known of an event. `extreme`: the observed extreme since it began, of the raw observations; `usual`: the mean
    before. risk, life, reading: what else was said of the same machine. What is of another machine is left aside."""

    event: FaultEvent
    extreme: Evidence
    usual: Evidence | None = None
    forecast: Forecast | None = None
    recommendation: Recommendation | None = None
    risk: FaultRisk | None = None
    life: RemainingLife | None = None
    reading: NoteReading | None = None

    def of_its_machine(self) -> FaultCase:
        """Without what is of another machine than the event."""
        machine = self.event.machine
        return replace(
            self,
            usual=_of_machine(self.usual, machine),
            forecast=_of_machine(self.forecast, machine),
            recommendation=_of_machine(self.recommendation, machine),
            risk=_of_machine(self.risk, machine),
            life=_of_machine(self.life, machine),
            reading=_of_machine(self.reading, machine),
        )

    @property
    def evidence(self) -> list[Evidence]:
        """What the report cites: [1], [2]."""
        known = self.usual is not None and math.isfinite(self.usual.value)
        return [self.extreme, self.usual] if known and self.usual is not None else [self.extreme]


_Said = TypeVar("_Said", Evidence, Forecast, Recommendation, FaultRisk, RemainingLife, NoteReading)


def _of_machine(said: _Said | None, machine: str) -> _Said | None:
    return said if said is not None and said.machine == machine else None


def facts_of(case: FaultCase, names: Names) -> list[Fact]:
    """Everything that a report of this event may say. Raises Refused (missing_fact, not_finite)."""
    case = case.of_its_machine()
    event = case.event
    if not (event.machine.strip() and event.signal.strip()):
        raise Refused(Reason.MISSING_FACT, f"event {event.id!r} names no machine or no signal; a report needs both")
    if not math.isfinite(case.extreme.value):
        raise Refused(
            Reason.NOT_FINITE,
            f"event {event.id!r}: its extreme is {case.extreme.value}; cite a reading that was observed",
        )
    sourced = [
        *_of_event(event, names),
        *_of_forecast(case.forecast, names),
        *_of_life(case.life),
        *_of_risk(case.risk, names),
        *_of_reading(case.reading, names),
        *_of_recommendation(case.recommendation, names),
    ]
    return [*sourced, *measured(case.evidence), *derived(sourced)]


def measured(evidence: Sequence[Evidence]) -> list[Fact]:
    """What evidence alone says: [0] the extreme, [1] the mean before."""
    if not evidence:
        return []
    extreme = evidence[0]
    facts = [*_of_extreme(extreme), *_of_model(extreme)]
    if len(evidence) > 1:
        usual = evidence[1]
        changed = relations.change(extreme.value, extreme.unit, usual.value, usual.unit)
        facts += [
            Fact(key="usual", kind=Kind.NUMBER, value=float(usual.value), unit=usual.unit, evidence=1),
            Fact(key="usual_samples", kind=Kind.COUNT, value=float(usual.samples), evidence=1),
            Fact(key="usual_is", kind=Kind.CATEGORY, value=_statistic(usual), evidence=1),
            Fact(key="change", kind=Kind.CATEGORY, value=changed.value, evidence=1),
        ]
    return facts


def derived(facts: Sequence[Fact]) -> list[Fact]:
    """Categories that follow from other facts: the forecast's trend, whether a life reaches the cap, how sure a note is."""
    by_key = {fact.key: fact for fact in facts}
    made = []
    numbers = _numbers(by_key, "forecast_start", "forecast_mean", "forecast_low", "forecast_high")
    if numbers is not None:
        source = by_key["forecast_mean"].source
        made.append(Fact(key="trend", kind=Kind.CATEGORY, value=relations.trend(*numbers).value, source=source))
    lives = _numbers(by_key, "life_median", "life_cap")
    if lives is not None:
        state = "capped" if lives[0] >= lives[1] else "known"
        made.append(Fact(key="life", kind=Kind.CATEGORY, value=state, source=by_key["life_median"].source))
    advice = by_key.get("advice")
    if advice is not None:
        count = sum(f"action_{n}" in by_key for n in range(1, MOST_ACTIONS + 1))
        made.append(
            Fact(key="actions", kind=Kind.CATEGORY, value=("none", "one", "two", "three")[count], source=advice.source)
        )
    return made


def _numbers(facts: Mapping[str, Fact], *keys: str) -> tuple[float, ...] | None:
    values = [facts[key].value for key in keys if key in facts]
    numbers = tuple(float(value) for value in values if not isinstance(value, str))
    return numbers if len(numbers) == len(keys) else None


def _of_event(event: FaultEvent, names: Names) -> Iterator[Fact]:
    source = event.id
    kind = event.kind if event.kind in KINDS[:-1] else KINDS[-1]
    yield Fact(key="kind", kind=Kind.CATEGORY, value=kind, source=source)
    yield Fact(key="severity", kind=Kind.CATEGORY, value=event.severity.value, source=source)
    yield _name("machine", event.machine, names.machine(event.machine), source)
    yield _name("signal", event.signal, names.signal(event.signal), source)
    yield Fact(key="since", kind=Kind.MOMENT, value=float(event.start_ms), source=source)
    if kind == KINDS[-1]:
        yield _name("seen_as", event.kind, (event.kind.replace("_", " "), event.kind), source)
    if math.isfinite(event.score) and event.score != 0:
        yield Fact(key="deviation", kind=Kind.NUMBER, value=abs(float(event.score)), source=source)


def _of_extreme(extreme: Evidence) -> Iterator[Fact]:
    value, unit = float(extreme.value), extreme.unit
    limits = relations.expected_range(extreme.expected_low, extreme.expected_high)
    low, high = limits if limits is not None else (None, None)
    yield Fact(key="peak", kind=Kind.NUMBER, value=value, unit=unit, evidence=0)
    yield Fact(key="peak_is", kind=Kind.CATEGORY, value=_statistic(extreme), evidence=0)
    yield Fact(key="relation", kind=Kind.CATEGORY, value=relations.side(value, low, high).value, evidence=0)
    if low is not None and high is not None:
        yield Fact(key="expected_low", kind=Kind.NUMBER, value=float(low), unit=unit, evidence=0)
        yield Fact(key="expected_high", kind=Kind.NUMBER, value=float(high), unit=unit, evidence=0)
    passed = relations.margin(value, low, high)
    if passed is not None:
        far = relations.beyond(value, low, high)
        yield Fact(key="margin", kind=Kind.CATEGORY, value=passed.value, evidence=0)
        yield Fact(key="beyond", kind=Kind.NUMBER, value=float(far or 0.0), unit=unit, evidence=0)
    yield Fact(key="readings", kind=Kind.CATEGORY, value=relations.readings(extreme.samples).value, evidence=0)
    yield Fact(key="samples", kind=Kind.COUNT, value=float(extreme.samples), evidence=0)
    yield Fact(key="measured_from", kind=Kind.MOMENT, value=float(extreme.start_ms), evidence=0)
    yield Fact(key="measured_until", kind=Kind.MOMENT, value=float(extreme.end_ms), evidence=0)


def _of_model(extreme: Evidence) -> Iterator[Fact]:
    model = extreme.model
    if model is None:
        return
    yield _name("model", model.algorithm, ALGORITHMS.get(model.algorithm, (model.algorithm, model.algorithm)), "", 0)
    if model.version:
        yield Fact(key="model_version", kind=Kind.COUNT, value=float(model.version), evidence=0)


def _of_forecast(forecast: Forecast | None, names: Names) -> Iterator[Fact]:
    if forecast is None:
        return
    last = min(len(forecast.mean), len(forecast.low), len(forecast.high)) - 1
    if last < 0:
        return
    shown = (forecast.mean[0], forecast.mean[last], forecast.low[last], forecast.high[last])
    if not all(math.isfinite(v) for v in shown) or not shown[2] <= shown[1] <= shown[3]:
        return
    for key, value in zip(("forecast_start", "forecast_mean", "forecast_low", "forecast_high"), shown, strict=True):
        yield Fact(key=key, kind=Kind.NUMBER, value=float(value), unit=forecast.unit, source=forecast.id)
    at = float(forecast.start_ms + forecast.step_ms * last)
    yield Fact(key="forecast_at", kind=Kind.MOMENT, value=at, source=forecast.id)
    yield Fact(key="forecast_level", kind=Kind.SHARE, value=float(forecast.level), source=forecast.id)
    algorithm = forecast.model.algorithm
    yield _name("forecast_model", algorithm, ALGORITHMS.get(algorithm, (algorithm, algorithm)), forecast.id)
    yield _name("forecast_signal", forecast.signal, names.signal(forecast.signal), forecast.id)
    age = "old" if forecast.stale else "new"
    yield Fact(key="forecast_inputs", kind=Kind.CATEGORY, value=age, source=forecast.id)


def _of_life(life: RemainingLife | None) -> Iterator[Fact]:
    if life is None:
        return
    shown = {"life_low": life.low, "life_median": life.median, "life_high": life.high, "life_cap": life.cap}
    if not all(math.isfinite(v) for v in shown.values()) or not life.low <= life.median <= life.high:
        return
    for key, value in shown.items():
        yield Fact(key=key, kind=Kind.NUMBER, value=float(value), unit=life.unit, source=life.id)
    yield Fact(key="life_level", kind=Kind.SHARE, value=float(life.level), source=life.id)
    yield Fact(key="life_inputs", kind=Kind.CATEGORY, value="old" if life.stale else "new", source=life.id)


def _of_risk(risk: FaultRisk | None, names: Names) -> Iterator[Fact]:
    if risk is None or not 0 <= risk.probability <= 1:
        return
    words = names.item(f"failure:{risk.component}")
    yield _name("risk_of", risk.component, words, risk.id)
    yield Fact(key="risk", kind=Kind.SHARE, value=float(risk.probability), source=risk.id)
    if risk.horizon_ms:
        yield Fact(key="risk_until", kind=Kind.MOMENT, value=float(risk.issued_ms + risk.horizon_ms), source=risk.id)


def _of_reading(reading: NoteReading | None, names: Names) -> Iterator[Fact]:
    """What a note was read as: the likeliest failure and how sure; and what mended a past case whose note says alike."""
    if reading is None:
        return
    judged = next((j for j in reading.judged if j.about is About.FAILURE), None)
    if judged is not None and 0 <= judged.classes[0].probability <= 1:
        best = judged.classes[0]
        yield _name("note_failure", best.name, names.item(f"failure:{best.name}"), reading.id)
        yield Fact(key="note_chance", kind=Kind.SHARE, value=float(best.probability), source=reading.id)
        yield Fact(key="note", kind=Kind.CATEGORY, value="sure" if judged.sure else "unsure", source=reading.id)
    mended = next((like.fixed_by[0] for like in reading.like if like.fixed_by), None)
    if mended is not None:
        yield _name("note_fix", mended, names.item(mended), reading.id)


def _of_recommendation(recommendation: Recommendation | None, names: Names) -> Iterator[Fact]:
    if recommendation is None:
        yield Fact(key="advice", kind=Kind.CATEGORY, value="no_case")
        return
    source = recommendation.id
    state = "given" if recommendation.items else "left_out"
    yield Fact(key="advice", kind=Kind.CATEGORY, value=state, source=source)
    for at, item in enumerate(recommendation.items[:MOST_ACTIONS], start=1):
        yield from _of_item(at, item, names, source)
    parts = [at for at, item in enumerate(recommendation.items) if item.item.startswith("part:")]
    if parts and parts[0] >= MOST_ACTIONS:  # one that is named above needs no second word
        part = recommendation.items[parts[0]].item
        yield _name("spare_part", part, names.item(part), source)


def _of_item(at: int, item: RecommendedItem, names: Names, source: str) -> Iterator[Fact]:
    key = f"action_{at}"
    yield _name(key, item.item, names.item(item.item), source)
    for which, because in zip(("why", "also"), _reasons(item), strict=False):
        yield _name(f"{key}_{which}", because, names.item(because), source)


def _reasons(item: RecommendedItem) -> list[str]:
    """What adds to an item, strongest first; like cases, and answers, are one reason however many they are. Told by tokens
    alone, so that whoever has the recommendation finds the same ones."""
    told: dict[str, str] = {}
    for one in item.contributions:
        kind = one.because.partition(":")[0]
        if one.amount > 0:
            told.setdefault(kind if kind in ("like", "answer") else one.because, one.because)
    return list(told.values())


def _name(key: str, token: str, words: Words, source: str, evidence: int | None = None) -> Fact:
    en, zh = (plain(word) for word in words)
    return Fact(key=key, kind=Kind.NAME, value=token, en=en, zh=zh, source=source, evidence=evidence)


def _statistic(evidence: Evidence) -> str:
    return {"max": "highest", "min": "lowest", "mean": "mean"}.get(evidence.statistic, "value")


# --- reading back -------------------------------------------------------------------------------------------------------

_SOURCED = {
    "kind": Kind.CATEGORY,
    "severity": Kind.CATEGORY,
    "machine": Kind.NAME,
    "signal": Kind.NAME,
    "since": Kind.MOMENT,
    "seen_as": Kind.NAME,
    "deviation": Kind.NUMBER,
    **dict.fromkeys(("forecast_start", "forecast_mean", "forecast_low", "forecast_high"), Kind.NUMBER),
    "forecast_at": Kind.MOMENT,
    "forecast_level": Kind.SHARE,
    "forecast_model": Kind.NAME,
    "forecast_signal": Kind.NAME,
    "forecast_inputs": Kind.CATEGORY,
    **dict.fromkeys(("life_low", "life_median", "life_high", "life_cap"), Kind.NUMBER),
    "life_level": Kind.SHARE,
    "life_inputs": Kind.CATEGORY,
    "risk_of": Kind.NAME,
    "risk": Kind.SHARE,
    "risk_until": Kind.MOMENT,
    "note_failure": Kind.NAME,
    "note_chance": Kind.SHARE,
    "note": Kind.CATEGORY,
    "note_fix": Kind.NAME,
    "advice": Kind.CATEGORY,
    "spare_part": Kind.NAME,
    **{f"action_{n}{part}": Kind.NAME for n in range(1, MOST_ACTIONS + 1) for part in ("", "_why", "_also")},
}
_MEASURED = frozenset(
    {
        *("peak", "peak_is", "relation", "expected_low", "expected_high", "margin", "beyond"),
        *("readings", "samples", "measured_from", "measured_until", "model", "model_version"),
        *("usual", "usual_samples", "usual_is", "change"),
    }
)
_DERIVED = frozenset({"trend", "life", "actions"})
_ORDERED = (
    ("forecast_low", "forecast_mean", "forecast_high"),
    ("life_low", "life_median", "life_high"),
)
_OF_RECOMMENDATION = ("advice", "actions", "spare_part", "action_")


def disagreements(report: Report) -> Iterator[str]:
    """Where a report's facts are not what its evidence, its own head and arithmetic say."""
    facts = {fact.key: fact for fact in report.facts}
    yield from _against_evidence(report, facts)
    yield from _against_head(report, facts)
    yield from _against_one_another(facts)


def _against_evidence(report: Report, facts: Mapping[str, Fact]) -> Iterator[str]:
    if not report.evidence:
        yield "a fault report needs evidence of its extreme"
        return
    if not all(math.isfinite(e.value) for e in report.evidence):
        yield "evidence must be finite"
        return
    if len(report.evidence) > 2:
        yield f"a fault report cites the extreme and the mean before it, not {len(report.evidence)} pieces of evidence"
    yield from _same(facts, measured(report.evidence[:2]), _MEASURED, "the evidence")
    first = report.evidence[0]
    for key, told in (("machine", first.machine), ("signal", first.signal)):
        if key in facts and facts[key].value != told:
            yield f"fact {key!r} is {facts[key].value!r}, its evidence is of {told!r}"
    for other in report.evidence[1:]:
        if (other.machine, other.signal) != (first.machine, first.signal):
            yield f"evidence of {other.machine}/{other.signal} stands beside that of {first.machine}/{first.signal}"


def _against_head(report: Report, facts: Mapping[str, Fact]) -> Iterator[str]:
    for key in ("machine", "severity", "signal", "since", "kind", "advice"):
        if key not in facts:
            yield f"the fact {key!r} is missing"
    for key, told in (("machine", report.machine), ("severity", report.severity.value)):
        if key in facts and facts[key].value != told:
            yield f"fact {key!r} is {facts[key].value!r}, the report's head says {told!r}"
    for fact in facts.values():
        if fact.key.startswith(_OF_RECOMMENDATION) and fact.source != report.recommendation:
            yield f"fact {fact.key!r} comes from {fact.source!r}, the report's recommendation is {report.recommendation!r}"


def _against_one_another(facts: Mapping[str, Fact]) -> Iterator[str]:
    yield from _same(facts, derived(list(facts.values())), _DERIVED, "the other facts")
    for fact in facts.values():
        kind = _SOURCED.get(fact.key)
        if kind is None and fact.key not in _MEASURED | _DERIVED:
            yield f"fact {fact.key!r} is not one of a fault report"
        elif kind is not None and (fact.kind is not kind or fact.evidence is not None):
            yield f"fact {fact.key!r} must be a {kind} of a named source, not a {fact.kind}"
    for keys in _ORDERED:
        numbers = _numbers(facts, *keys)
        if numbers is not None and list(numbers) != sorted(numbers):
            yield f"{keys[0]}, {keys[1]}, {keys[2]} are {numbers}: they must ascend"
        if len({(facts[k].unit, facts[k].source) for k in keys if k in facts}) > 1:
            yield f"{', '.join(keys)} must have one unit and one source"
    advice = facts["advice"].value if "advice" in facts else ""
    if (advice == "given") != ("action_1" in facts) or (advice == "no_case") != (not facts.get("advice", _NONE).source):
        yield f"advice is {advice!r}, which its recommendation does not bear out"
    for n in range(2, MOST_ACTIONS + 1):
        if f"action_{n}" in facts and f"action_{n - 1}" not in facts:
            yield f"action_{n} stands without action_{n - 1}"


_NONE = Fact(key="none", kind=Kind.CATEGORY, value="")


def _same(facts: Mapping[str, Fact], known: Sequence[Fact], keys: frozenset[str], by: str) -> Iterator[str]:
    right = {fact.key: fact for fact in known}
    for key in sorted(keys):
        told, true = facts.get(key), right.get(key)
        if told == true:
            continue
        if told is None or true is None:
            yield f"fact {key!r} is {'missing' if told is None else 'made up'} by {by}"
        else:
            yield f"fact {key!r} is {_shown(told)}; by {by} it is {_shown(true)}"


def _shown(fact: Fact) -> str:
    where = f" of [{fact.evidence + 1}]" if fact.evidence is not None else ""
    return f"{fact.kind} {fact.value!r} {fact.unit!r}{where}"


Source = FaultEvent | Forecast | RemainingLife | FaultRisk | NoteReading | Recommendation
"""What a fact that is not evidence can come from."""


class _Tokens:
    """Everything is called by its token: labels are not compared."""

    def machine(self, name: str) -> Words:
        return name, name

    signal = item = machine


def said_by(source: Source) -> list[Fact]:
    """The facts that one source says, without labels."""
    names = _Tokens()
    match source:
        case FaultEvent():
            found = _of_event(source, names)
        case Forecast():
            found = _of_forecast(source, names)
        case RemainingLife():
            found = _of_life(source)
        case FaultRisk():
            found = _of_risk(source, names)
        case NoteReading():
            found = _of_reading(source, names)
        case Recommendation():
            found = _of_recommendation(source, names)
    return list(found)


def contradictions(report: Report, sources: Iterable[Source]) -> Iterator[str]:
    """Where a report's facts are not what these sources say; what comes from others is left alone. A closed event says no
    more how grave it was when the report was written."""
    for source in sources:
        passing = {"severity", "deviation"} if isinstance(source, FaultEvent) and source.end_ms is not None else set()
        right = {fact.key: fact for fact in _bare(said_by(source))}
        told = {f.key: f for f in _bare(report.facts) if f.source == source.id and f.key not in _DERIVED}
        for key in sorted({*told, *right} - passing):
            if told.get(key) != right.get(key):
                yield f"fact {key!r} is {_or_none(told.get(key))}; {source.id} says {_or_none(right.get(key))}"


def _bare(facts: Iterable[Fact]) -> list[Fact]:
    return [msgspec.structs.replace(fact, en="", zh="") for fact in facts]


def _or_none(fact: Fact | None) -> str:
    return "nothing" if fact is None else _shown(fact)


def same_facts(report: Report, known: Sequence[Fact]) -> Iterator[str]:
    """Where a report's facts differ from those computed anew from the event, the forecast and the recommendation."""
    told = {fact.key: fact for fact in _bare(report.facts)}
    right = {fact.key: fact for fact in _bare(known)}
    for key in sorted({*told, *right}):
        if told.get(key) != right.get(key):
            yield f"fact {key!r} is {_or_none(told.get(key))}, its sources say {_or_none(right.get(key))}"
