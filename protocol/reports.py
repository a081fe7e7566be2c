"""What a gateway concludes: forecasts, fault events, recommendations and reports. Every answer carries its evidence."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from protocol.names import MessageClass
from protocol.observations import Name, StepMs, Text, TimeMs
from protocol.writing.facts import Fact, Mode, Span

Month = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]
"""A calendar month, "2026-04"."""


class Severity(StrEnum):
    NOTICE = "notice"
    WARNING = "warning"
    ALARM = "alarm"


class ModelRef(msgspec.Struct, frozen=True):
    """Which model said so. `digest` is the bundle's sha256; the built-in simple reference has version 0 and no digest."""

    slot: Name
    algorithm: Name
    version: Annotated[int, msgspec.Meta(ge=0)] = 0
    digest: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")] = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One number and where it came from: `statistic` of `samples` raw observations of a signal in a time span.

    `expected_low`/`expected_high` are the forecast interval at the same time, if the claim compares with it."""

    machine: Name
    signal: Name
    start_ms: TimeMs
    end_ms: TimeMs
    samples: Annotated[int, msgspec.Meta(ge=0)]
    statistic: Name
    value: float
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    expected_low: float | None = None
    expected_high: float | None = None
    model: ModelRef | None = None


class Member(msgspec.Struct, frozen=True):
    """One forecaster of a combination and its share of the mean."""

    model: ModelRef
    weight: float


_Steps = Annotated[list[float], msgspec.Meta(min_length=1, max_length=1000)]


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """`mean[i]`, `low[i]`, `high[i]` hold for the bucket that starts at start_ms + i*step_ms; `level` is the nominal
    share of outcomes between low and high, and 95 % are to lie between `low95` and `high95`. `inputs_until_ms` is the
    newest observation used; `stale` says it was old.

    coverage: share of this signal's last `coverage_n` scored values that lay inside the interval of `level` that was
    issued for them (None: none yet). fallback: empty, or why the answer is a stopgap with a wider interval
    (`stale_inputs`, `one_value`, `constant`, `short_history`, `no_model_answer`). members: of a combination."""

    type_name: ClassVar[str] = "millwright.forecast.v1"
    message_class: ClassVar[MessageClass] = MessageClass.METRIC

    id: Name
    machine: Name
    signal: Name
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    issued_ms: TimeMs
    inputs_until_ms: TimeMs
    stale: bool = False
    start_ms: TimeMs
    step_ms: StepMs
    level: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.8
    mean: _Steps
    low: _Steps
    high: _Steps
    model: ModelRef
    low95: _Steps | None = None
    high95: _Steps | None = None
    coverage: float | None = None
    coverage_n: Annotated[int, msgspec.Meta(ge=0)] = 0
    fallback: Annotated[str, msgspec.Meta(max_length=64)] = ""
    members: Annotated[list[Member], msgspec.Meta(max_length=20)] = []


class ForecastShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one part of a model's input adds to the mean of its forecast, in the signal's unit. `kind`: `recent` (a stretch
    of the window, start_ms to end_ms), `season` (the same time last season), `calendar`, `known` (an input known ahead),
    `signal` (another signal), `earlier` (what came before the window). `error` is the standard error of a sampled
    amount; 0 where the amount is exact."""

    kind: Name
    label_en: Name
    label_zh: Name
    signal: Annotated[str, msgspec.Meta(max_length=128)] = ""
    start_ms: TimeMs | None = None
    end_ms: TimeMs | None = None
    amount: float
    error: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class PastCase(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the same signal's past that moved like its newest one, and what came after it. `similarity` is the
    correlation of the two shapes (1: the same); `followed[i]` the value of step i after end_ms, None where nothing was
    observed."""

    start_ms: TimeMs
    end_ms: TimeMs
    similarity: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    followed: Annotated[list[float | None], msgspec.Meta(max_length=1000)]


class ForecastExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a forecast's mean over its horizon is what it is: base + the sum of the shares' amounts = total, always. `base`
    is what the model says where every part is put to its baseline, which `baseline_en`, `baseline_zh` name. `method`:
    `exact`, or `sampled` over `orders` orders of the parts, whose errors are then given. `forecast`, `event`: ids of what
    is explained and of the event that asked for it."""

    type_name: ClassVar[str] = "millwright.forecast_explanation.v1"
    message_class: ClassVar[MessageClass] = MessageClass.METRIC

    id: Name
    forecast: Name
    event: Annotated[str, msgspec.Meta(max_length=128)] = ""
    machine: Name
    signal: Name
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    issued_ms: TimeMs
    method: Name
    orders: Annotated[int, msgspec.Meta(ge=0)] = 0
    baseline_en: Text
    baseline_zh: Text
    base: float
    total: float
    shares: Annotated[list[ForecastShare], msgspec.Meta(max_length=50)]
    cases: Annotated[list[PastCase], msgspec.Meta(max_length=20)] = []
    model: ModelRef


class FaultEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something is not as expected. `kind` is what was seen (`above_expected`, `below_expected`, `stuck`, `silent`,
    `machine_unusual`); `score` is in standard deviations of the forecast's residual (0 where there is none). For
    `machine_unusual`, `signal` contributes most, and the evidence pairs each signal's level with its contribution. A closed
    event repeats its id with `end_ms`."""

    type_name: ClassVar[str] = "millwright.fault_event.v1"
    message_class: ClassVar[MessageClass] = MessageClass.EVENT

    id: Name
    machine: Name
    machine_type: Annotated[str, msgspec.Meta(max_length=128)] = ""
    signal: Name
    kind: Name
    severity: Severity
    start_ms: TimeMs
    detected_ms: TimeMs
    end_ms: TimeMs | None = None
    score: float
    symptoms: Annotated[list[Name], msgspec.Meta(max_length=50)] = []
    evidence: Annotated[list[Evidence], msgspec.Meta(max_length=20)] = []


class Contribution(msgspec.Struct, frozen=True):
    """An exact share of a score: `because` (an item of the case's profile) added `amount`."""

    because: Name
    amount: float


class DemandForecast(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a spare part will be asked for. `month_mean[i]` is expected in the i-th month from `first_month` on
    ("2026-04"); `quantiles[j]` whole units are enough for all the months together with probability `levels[j]`;
    `none_probability`: nothing is asked for; `order_up_to` units, in stock or on order, reach `service_level`.

    expected = baseline + the sum of the contributions, exactly: `baseline` is what a part without history would get, each
    contribution ("month:2026-01") what that month of the history changed. `known_months` of history were recorded;
    `inputs_until_ms` is the end of the newest one; `stale` says it was old. `machine` "*": for any machine of the site."""

    type_name: ClassVar[str] = "millwright.demand_forecast.v1"
    message_class: ClassVar[MessageClass] = MessageClass.METRIC

    id: Name
    part: Name
    machine: Name = "*"
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    issued_ms: TimeMs
    inputs_until_ms: TimeMs
    stale: bool = False
    first_month: Month
    known_months: Annotated[int, msgspec.Meta(ge=0)]
    pattern: Name
    month_mean: Annotated[list[float], msgspec.Meta(min_length=1, max_length=60)]
    expected: float
    levels: Annotated[list[float], msgspec.Meta(min_length=1, max_length=20)]
    quantiles: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1, max_length=20)]
    none_probability: Annotated[float, msgspec.Meta(ge=0, le=1)]
    service_level: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.95
    order_up_to: Annotated[int, msgspec.Meta(ge=0)]
    baseline: float
    contributions: Annotated[list[Contribution], msgspec.Meta(max_length=1300)] = []
    model: ModelRef


class Risk(msgspec.Struct, frozen=True):
    """The chance of failing within `within` units of life from now."""

    within: Annotated[float, msgspec.Meta(gt=0)]
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]


class RemainingLife(msgspec.Struct, frozen=True, kw_only=True):
    """How long a machine will last, as a distribution in `unit` ("h", "cycles") from `issued_ms`.

    It fails between `low` and `high` with the chance `level`; `quantiles[i]` is the life not reached with probability
    `levels[i]`. A value of `cap` means "at least that": longer lives are not told apart. `age` is the life since the machine
    was new, renewed or first seen. Exact account of the expected life: `usual` (a machine of this age whose signals are all
    average) plus every contribution's amount is `expected`; amounts are mean changes when signals are put back one after the
    other, in one order and its reverse. `inputs_until_ms` is the newest reading used; `stale` says it was old."""

    type_name: ClassVar[str] = "millwright.remaining_life.v1"
    message_class: ClassVar[MessageClass] = MessageClass.METRIC

    id: Name
    machine: Name
    machine_type: Annotated[str, msgspec.Meta(max_length=128)] = ""
    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
    issued_ms: TimeMs
    inputs_until_ms: TimeMs
    stale: bool = False
    age: Annotated[float, msgspec.Meta(ge=0)]
    cap: Annotated[float, msgspec.Meta(gt=0)]
    level: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.8
    median: Annotated[float, msgspec.Meta(ge=0)]
    low: Annotated[float, msgspec.Meta(ge=0)]
    high: Annotated[float, msgspec.Meta(ge=0)]
    levels: Annotated[list[float], msgspec.Meta(min_length=1, max_length=50)]
    quantiles: Annotated[list[float], msgspec.Meta(min_length=1, max_length=50)]
    risks: Annotated[list[Risk], msgspec.Meta(max_length=20)] = []
    expected: Annotated[float, msgspec.Meta(ge=0)]
    usual: Annotated[float, msgspec.Meta(ge=0)]
    contributions: Annotated[list[Contribution], msgspec.Meta(max_length=50)] = []
    model: ModelRef


class SimilarCase(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody like this one who chose the item: a machine or a past case. `amount` is what it adds to the item's score."""

    who: Name
    similarity: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    amount: float


class RecommendedItem(msgspec.Struct, frozen=True, kw_only=True):
    """`item` is `action:…`, `part:…`, `plan:…`; score is the sum of the contributions; `propensity` is the chance with which
    the list's policy put it at `position` (1 for a deterministic list); `explored`: it stands there as an experiment.

    similar: who with the same fault chose it. flips_without: the smallest set of the profile's tokens and past events without
    which it would not stand in this list (empty: no set of a few would do). shown_share: how much of the score's absolute
    contributions the three strongest account for."""

    item: Name
    position: Annotated[int, msgspec.Meta(ge=1, le=100)]
    score: float
    propensity: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    contributions: Annotated[list[Contribution], msgspec.Meta(max_length=50)] = []
    explored: bool = False
    similar: Annotated[list[SimilarCase], msgspec.Meta(max_length=10)] = []
    flips_without: Annotated[list[Name], msgspec.Meta(max_length=20)] = []
    shown_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """An item that would have stood in the list, and why it does not: `rejected` (by an answer for this very case,
    `since_ms`), `excluded` (by whoever asked), `other_type` (not for this type of machine)."""

    item: Name
    reason: Name
    since_ms: TimeMs | None = None


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """A shown list, logged as it was shown. `profile` is what the list was computed from; `event` the fault, risk or request
    that asked. `left_out`: what was taken away. `policy`: how positions were drawn ("greedy", "explore")."""

    type_name: ClassVar[str] = "millwright.recommendation.v1"
    message_class: ClassVar[MessageClass] = MessageClass.REPORT

    id: Name
    event: Name
    machine: Name
    issued_ms: TimeMs
    profile: Annotated[list[Name], msgspec.Meta(max_length=100)]
    items: Annotated[list[RecommendedItem], msgspec.Meta(max_length=100)]
    model: ModelRef
    left_out: Annotated[list[LeftOut], msgspec.Meta(max_length=100)] = []
    policy: Annotated[str, msgspec.Meta(max_length=32)] = "greedy"


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One paragraph in both languages. `cites` are indices into the report's evidence.

    section: its name in the catalogue of clauses ("": it was written without one, by an older gateway). clauses_en,
    clauses_zh: what it is made of, in order ("peak.above#2": the third wording of that clause; none: prose).
    spans_en, spans_zh: where the report's facts stand in the text. mode_en, mode_zh: how it came to its words."""

    title_en: Text
    title_zh: Text
    text_en: Text
    text_zh: Text
    cites: Annotated[list[int], msgspec.Meta(max_length=20)] = []
    section: Annotated[str, msgspec.Meta(max_length=128)] = ""
    clauses_en: Annotated[list[Name], msgspec.Meta(max_length=50)] = []
    clauses_zh: Annotated[list[Name], msgspec.Meta(max_length=50)] = []
    spans_en: Annotated[list[Span], msgspec.Meta(max_length=100)] = []
    spans_zh: Annotated[list[Span], msgspec.Meta(max_length=100)] = []
    mode_en: Mode = Mode.TEMPLATE
    mode_zh: Mode = Mode.TEMPLATE


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A fault report for people. Every number in `sections` comes from `evidence` or from the recommendation.

    facts: everything that its sections may claim, each with where it comes from. frames: name, version and sha256 of the
    catalogue of clauses, "fault_report/3/ab12…" ("": written without one). Whoever holds the catalogue can read the report
    back (`protocol.writing.verify`)."""

    type_name: ClassVar[str] = "millwright.report.v1"
    message_class: ClassVar[MessageClass] = MessageClass.REPORT

    id: Name
    event: Name
    recommendation: Annotated[str, msgspec.Meta(max_length=128)] = ""
    machine: Name
    issued_ms: TimeMs
    severity: Severity
    title_en: Text
    title_zh: Text
    sections: Annotated[list[Section], msgspec.Meta(min_length=1, max_length=20)]
    evidence: Annotated[list[Evidence], msgspec.Meta(max_length=20)]
    written_by: ModelRef
    facts: Annotated[list[Fact], msgspec.Meta(max_length=200)] = []
    frames: Annotated[str, msgspec.Meta(max_length=256)] = ""


class FaultRisk(msgspec.Struct, frozen=True, kw_only=True):
    """How likely a machine fails: `component` (or the class of failure) within `horizon_ms` of `issued_ms`. `expected_ms`
    is the mean time to the failure if it comes. `score` is log odds: `expected_score` plus the contributions, exactly."""

    type_name: ClassVar[str] = "millwright.fault_risk.v1"
    message_class: ClassVar[MessageClass] = MessageClass.REPORT

    id: Name
    machine: Name
    component: Name
    issued_ms: TimeMs
    horizon_ms: Annotated[int, msgspec.Meta(ge=0)] = 0
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]
    alarm: bool = False
    expected_ms: Annotated[int, msgspec.Meta(ge=0)] | None = None
    score: float
    expected_score: float
    contributions: Annotated[list[Contribution], msgspec.Meta(max_length=200)] = []
    model: ModelRef


class SupplyRisk(msgspec.Struct, frozen=True, kw_only=True):
    """How likely an order line comes late, and by how many days: `expected_days` counts a line that is on time as 0.
    `machine`: the one that the part is for, if that is known.
    `score` is log odds: `expected_score` plus the contributions, exactly; one of them may be the drift of recent lines."""

    type_name: ClassVar[str] = "millwright.supply_risk.v1"
    message_class: ClassVar[MessageClass] = MessageClass.REPORT

    id: Name
    order_line: Name
    machine: Annotated[str, msgspec.Meta(max_length=128)] = ""
    issued_ms: TimeMs
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]
    expected_days: Annotated[float, msgspec.Meta(ge=0)]
    score: float
    expected_score: float
    contributions: Annotated[list[Contribution], msgspec.Meta(max_length=200)] = []
    model: ModelRef
