"""What a gateway concludes: forecasts, fault events, recommendations and reports. Every answer carries its evidence."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from protocol.names import MessageClass
from protocol.observations import Name, StepMs, Text, TimeMs


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


class FaultEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something is not as expected. `kind` is what was seen (`above_expected`, `below_expected`, `stuck`, `silent`);
    `score` is in robust standard deviations of the forecast's residual. A closed event repeats its id with `end_ms`."""

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


class RecommendedItem(msgspec.Struct, frozen=True, kw_only=True):
    """`item` is `action:…` or `part:…`; score is the sum of the contributions; `propensity` is the chance with which
    the list's policy put it at `position` (1 for a deterministic list)."""

    item: Name
    position: Annotated[int, msgspec.Meta(ge=1, le=100)]
    score: float
    propensity: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    contributions: Annotated[list[Contribution], msgspec.Meta(max_length=50)] = []


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """A shown list, logged as it was shown. `profile` is what the list was computed from."""

    type_name: ClassVar[str] = "millwright.recommendation.v1"
    message_class: ClassVar[MessageClass] = MessageClass.REPORT

    id: Name
    event: Name
    machine: Name
    issued_ms: TimeMs
    profile: Annotated[list[Name], msgspec.Meta(max_length=100)]
    items: Annotated[list[RecommendedItem], msgspec.Meta(max_length=100)]
    model: ModelRef


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One paragraph in both languages. `cites` are indices into the report's evidence."""

    title_en: Text
    title_zh: Text
    text_en: Text
    text_zh: Text
    cites: Annotated[list[int], msgspec.Meta(max_length=20)] = []


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A fault report for people. Every number in `sections` comes from `evidence` or from the recommendation."""

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
