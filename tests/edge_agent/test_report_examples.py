"""docs/examples/reports.md holds ten reports as a gateway writes them; this keeps it equal to what is written now.

MILLWRIGHT_WRITE_EXAMPLES=1 python -m pytest tests/edge_agent/test_report_examples.py"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.devices.line import HOUR_MS, START_MS, Line, mapping_toml
from edge_agent.mapping import load
from edge_agent.skills.write_report import FaultCase, write
from protocol.reading.notes import About, Class, Judged, NoteReading
from protocol.reports import (
    Contribution,
    Evidence,
    FaultEvent,
    Forecast,
    ModelRef,
    Recommendation,
    RecommendedItem,
    RemainingLife,
    Report,
    Severity,
)
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.facts import Mode, Said
from protocol.writing.frames import wordings
from protocol.writing.realise import Alternatives, say, template
from protocol.writing.verify import verify

PAGE = Path(__file__).parents[2] / "docs" / "examples" / "reports.md"
T = START_MS + 30 * HOUR_MS
ARIMA, LSTM = ModelRef("forecast.arima", "arima", 3, "a" * 64), ModelRef("forecast.lstm", "lstm", 2, "b" * 64)
MONITOR = ModelRef("fault.monitor.R-301", "monitor", 1, "c" * 64)
HYBRID = ModelRef("recommend.items", "hybrid", 4, "d" * 64)
HEAD = """# Ten reports

As a gateway of the simulated plant writes them, each in English and Chinese; a test keeps this page equal to what is written
now. The first five are the template's: the first wording of every clause. The other five say the same kinds of facts in other
licensed wordings, drawn here by a fixed rule, as a language model would choose them. Numbers, names, times and relations are
facts in all of them, and every report verifies (`millwright report verify`).
"""


@dataclass(frozen=True)
class Seen:
    """What happened, in short."""

    machine: str
    signal: str
    unit: str
    kind: str
    severity: Severity
    value: float
    low: float | None
    high: float | None
    usual: float | None
    score: float
    model: ModelRef = ARIMA
    ahead: tuple[float, float, float, float] | None = None
    """Forecast: now, low, mean, high at the end."""
    actions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    life_h: tuple[float, float, float] | None = None
    note: tuple[str, float] | None = None
    samples: int = 12
    statistic: str = "max"


SEEN = [
    Seen(
        "P-101",
        "vibration",
        "mm/s",
        "above_expected",
        Severity.ALARM,
        6.84,
        2.61,
        3.42,
        3.05,
        9.7,
        ahead=(6.9, 6.2, 7.4, 8.6),
        actions=(
            ("action:replace-bearing", ("symptom:vibration:high", "like:case:17:P-102")),
            ("part:bearing-6204", ("symptom:vibration:high",)),
        ),
        life_h=(14.0, 5.0, 31.0),
        note=("bearing wear", 0.93),
    ),
    Seen(
        "P-101",
        "discharge pressure",
        "bar",
        "below_expected",
        Severity.WARNING,
        5.21,
        6.02,
        6.71,
        6.4,
        5.8,
        ahead=(5.3, 4.9, 5.5, 6.1),
        statistic="min",
        actions=(
            ("action:clean-suction-strainer", ("symptom:discharge pressure:low", "answer:x")),
            ("part:strainer-mesh", ("symptom:flow:low",)),
        ),
    ),
    Seen("C-201", "speed", "m/s", "stuck", Severity.NOTICE, 1.31, None, None, None, 0.0, samples=48, statistic="mean"),
    Seen(
        "V-401",
        "exhaust flow",
        "m³/h",
        "silent",
        Severity.WARNING,
        921.0,
        None,
        None,
        918.0,
        0.0,
        samples=0,
        actions=(("action:clean-exhaust-filter", ("popularity",)),),
    ),
    Seen(
        "R-301",
        "oil temperature",
        "°C",
        "machine_unusual",
        Severity.WARNING,
        58.3,
        42.0,
        55.0,
        47.1,
        0.0,
        model=MONITOR,
        actions=(("action:clean-cooler", ("symptom:oil temperature:high", "content:symptom:oil temperature:high")),),
    ),
    Seen(
        "R-301",
        "oil pressure",
        "bar",
        "below_expected",
        Severity.ALARM,
        121.0,
        138.5,
        149.0,
        146.2,
        8.1,
        model=LSTM,
        statistic="min",
        ahead=(122.0, 112.0, 119.0, 127.0),
        actions=(
            ("action:replace-seal", ("symptom:oil pressure:low", "symptom:force:low")),
            ("part:seal-kit-p40", ("symptom:oil pressure:low",)),
        ),
    ),
    Seen(
        "V-401",
        "zone temperature",
        "°C",
        "above_expected",
        Severity.WARNING,
        193.4,
        180.1,
        186.2,
        183.0,
        6.3,
        ahead=(193.0, 189.0, 194.5, 200.0),
    ),
    Seen(
        "C-201",
        "current",
        "A",
        "above_expected",
        Severity.NOTICE,
        9.06,
        6.8,
        8.9,
        8.1,
        3.1,
        ahead=(9.0, 8.0, 8.7, 9.4),
        actions=(("action:tension-belt", ("symptom:current:high",)),),
        note=("belt slip", 0.58),
    ),
    Seen(
        "P-101",
        "bearing temperature",
        "°C",
        "above_expected",
        Severity.WARNING,
        71.5,
        49.0,
        60.5,
        55.2,
        5.2,
        life_h=(6.5, 1.5, 12.0),
        actions=(
            ("action:replace-bearing", ("symptom:bearing temperature:high", "answer:y")),
            ("plan:replace-bearing-1de1f11e", ("answer:z",)),
        ),
    ),
    Seen(
        "C-201",
        "vibration",
        "mm/s",
        "below_expected",
        Severity.NOTICE,
        1.12,
        1.4,
        2.2,
        1.9,
        2.9,
        statistic="min",
        ahead=(1.2, 1.0, 1.6, 2.1),
    ),
]


def case(at: int, seen: Seen) -> FaultCase:
    start = T + at * 7 * HOUR_MS
    end = start + HOUR_MS
    extreme = Evidence(
        machine=seen.machine,
        signal=seen.signal,
        start_ms=start,
        end_ms=end,
        samples=seen.samples,
        statistic=seen.statistic,
        value=seen.value,
        unit=seen.unit,
        expected_low=seen.low,
        expected_high=seen.high,
        model=seen.model,
    )
    event = FaultEvent(
        id=f"event-{at}",
        machine=seen.machine,
        signal=seen.signal,
        kind=seen.kind,
        severity=seen.severity,
        start_ms=start,
        detected_ms=end,
        score=seen.score,
        evidence=[extreme],
    )
    usual = (
        None
        if seen.usual is None
        else Evidence(
            machine=seen.machine,
            signal=seen.signal,
            start_ms=start - 6 * HOUR_MS,
            end_ms=start,
            samples=72,
            statistic="mean",
            value=seen.usual,
            unit=seen.unit,
        )
    )
    items = [
        RecommendedItem(
            item=item,
            position=n,
            score=1.0 / n,
            contributions=[Contribution(why, 0.5 / k) for k, why in enumerate(because, 1)],
        )
        for n, (item, because) in enumerate(seen.actions, 1)
    ]
    told = Recommendation(
        id=f"list-{at}",
        event=event.id,
        machine=seen.machine,
        issued_ms=end,
        profile=["type:x"],
        items=items,
        model=HYBRID,
    )
    return FaultCase(
        event,
        extreme,
        usual,
        forecast=ahead(at, seen, end),
        recommendation=told if items else None,
        life=life(at, seen, end),
        reading=note(at, seen, end),
    )


def ahead(at: int, seen: Seen, end: int) -> Forecast | None:
    if seen.ahead is None:
        return None
    now, low, mean, high = seen.ahead
    return Forecast(
        id=f"forecast-{at}",
        machine=seen.machine,
        signal=seen.signal,
        unit=seen.unit,
        issued_ms=end,
        inputs_until_ms=end,
        start_ms=end,
        step_ms=HOUR_MS,
        mean=[now, mean],
        low=[now, low],
        high=[now, high],
        model=seen.model,
    )


def life(at: int, seen: Seen, end: int) -> RemainingLife | None:
    if seen.life_h is None:
        return None
    median, low, high = seen.life_h
    return RemainingLife(
        id=f"life-{at}",
        machine=seen.machine,
        machine_type="pump",
        unit="h",
        issued_ms=end,
        inputs_until_ms=end,
        age=80.0,
        cap=400.0,
        median=median,
        low=low,
        high=high,
        levels=[0.1, 0.5, 0.9],
        quantiles=[low, median, high],
        expected=median,
        usual=90.0,
        model=ModelRef("fault.life", "hazard", 1, "e" * 64),
    )


def note(at: int, seen: Seen, end: int) -> NoteReading | None:
    if seen.note is None:
        return None
    mode, chance = seen.note
    said = Judged(about=About.FAILURE, classes=[Class(mode, chance)], sure=chance > 0.6)
    return NoteReading(
        id=f"reading-{at}",
        note=f"note-{at}",
        machine=seen.machine,
        issued_ms=end,
        judged=[said],
        model=ModelRef("notes.reader", "words", 1),
    )


def drawn(asked: Alternatives) -> Said:
    """Another wording of each clause, by a fixed rule; every second optional clause is left out."""
    chosen: list[int | None] = []
    for at, clause in enumerate(asked.clauses):
        number = hashlib.blake2s(f"{clause.id}/{asked.language}".encode(), digest_size=2).digest()
        leave = asked.may_omit(at) and hashlib.blake2s(clause.id.encode(), digest_size=1).digest()[0] % 2
        chosen.append(
            None
            if leave
            else 1 + number[0] % (len(wordings(clause, asked.language)) - 1)
            if len(wordings(clause, asked.language)) > 1
            else 0
        )
    return say(asked, chosen, Mode.STRICT)


def reports(folder: Path) -> Iterator[Report]:
    (folder / "mapping.toml").write_text(mapping_toml(Line(1, 7)), encoding="utf-8")
    labels = load(folder / "mapping.toml").labels
    for at, seen in enumerate(SEEN):
        yield write(case(at, seen), labels, T, writer=template if at < 5 else drawn)


def page(shown: list[Report]) -> str:
    parts = [HEAD]
    for number, report in enumerate(shown, 1):
        for language, after in (("en", ". "), ("zh", "：")):
            parts.append(f"\n## {number}. {getattr(report, f'title_{language}')}\n")
            for section in report.sections:
                title, text = getattr(section, f"title_{language}"), getattr(section, f"text_{language}")
                parts.append(f"\n**{title}**{after}{text}\n")
    return "".join(parts)


def test_the_ten_reports_of_the_docs_are_what_is_written_and_true(tmp_path: Path) -> None:
    made = list(reports(tmp_path))
    assert len(made) == 10
    for report in made:
        assert verify(report, FAULT_REPORT) == []
    text = page(made)
    if os.environ.get("MILLWRIGHT_WRITE_EXAMPLES"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text


def test_reasons_that_are_called_alike_are_told_once_and_read_back_from_the_list(tmp_path: Path) -> None:
    (tmp_path / "mapping.toml").write_text(mapping_toml(Line(1, 7)), encoding="utf-8")
    labels = load(tmp_path / "mapping.toml").labels
    because = ("like:case:1:P-1", "like:case:2:P-2", "answer:a", "answer:b", "symptom:vibration:high")
    seen = dataclasses.replace(SEEN[0], actions=(("action:replace-bearing", because),))
    made = case(0, seen)
    report = write(made, labels, T)
    said = [fact.value for fact in report.facts if fact.key in ("action_1_why", "action_1_also")]
    assert said == ["like:case:1:P-1", "answer:a"]
    assert made.recommendation is not None
    assert verify(report, FAULT_REPORT, beside=[made.recommendation]) == []
