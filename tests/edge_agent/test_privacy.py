"""What leaves the gateway is what the policy declares, and every report that leaves can be read back."""

from __future__ import annotations

import random
import stat
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import EventWindows, NoiseSettings, ShareSettings
from edge_agent.explain import Labels
from edge_agent.noise import DAY_MS, Budget, discrete_laplace, noisy_mean
from edge_agent.privacy import Gate
from edge_agent.pseudonyms import Pseudonyms
from edge_agent.skills.write_report import FaultCase, write
from protocol.errors import BadSettings
from protocol.feedback import Feedback, Verdict
from protocol.observations import SignalBlock, WorkOrder
from protocol.reading.notes import About, Class, Judged, LikeNote, Note, NoteReading
from protocol.reports import Evidence, FaultEvent, Forecast, ModelRef, Severity
from protocol.writing.clauses import FAULT_REPORT
from protocol.writing.verify import verify

T0 = 1_790_000_000_000
MODEL = ModelRef("notes.reader", "x", 1)
NOTE = Note(id="n", machine="P-101", time_ms=T0, text="张师傅说轴承 6204 坏了, 电话13800138000", author="Maria Lopez")


KEPT: Counter[tuple[str, str]] = Counter()


def gate(folder: Path, **share: Any) -> Gate:
    KEPT.clear()
    return Gate(
        ShareSettings(**share),
        folder,
        lambda: T0,
        lambda key, start, end: [float(start % 7), 50.0],
        lambda kind, reason: KEPT.update([(kind, reason)]),
    )


def block(signal: str = "temperature", machine: str = "P-101") -> SignalBlock:
    return SignalBlock(machine=machine, signal=signal, start_ms=T0, step_ms=1000, values=[1.0, None, 3.0])


def forecast(signal: str) -> Forecast:
    return Forecast(
        id="f", machine="P-101", signal=signal, issued_ms=T0, inputs_until_ms=T0, start_ms=T0, step_ms=1000,
        mean=[1.0], low=[0.0], high=[2.0], model=MODEL,
    )  # fmt: skip


def test_signals_that_are_not_declared_stay_and_are_counted(tmp_path: Path) -> None:
    made = gate(tmp_path, signals=("temp*",), events=EventWindows(signals=("vibration",)))
    assert made.out(block()) == block()
    assert made.out(block("vibration")) == block("vibration")  # a window around an event
    assert made.out(forecast("vibration")) is None
    assert made.out(block("recipe")) is None
    assert KEPT == {
        ("millwright.signal_block.v1", "signal_not_shared"): 1,
        ("millwright.forecast.v1", "signal_not_shared"): 1,
    }


def test_notes_leave_redacted_full_or_not_at_all(tmp_path: Path) -> None:
    redacted = gate(tmp_path).out(NOTE)
    assert isinstance(redacted, Note)
    assert redacted.text == "█师傅说轴承 6204 坏了, 电话███████████"
    full = gate(tmp_path, notes="full").out(NOTE)
    assert isinstance(full, Note)
    assert full.text == NOTE.text
    assert gate(tmp_path, notes="none").out(NOTE) is None


def test_words_on_orders_answers_and_readings_follow_the_same_policy(tmp_path: Path) -> None:
    order = WorkOrder(id="w", machine="P-101", time_ms=T0, note="王工换了 6204", parts=["6204"])
    answer = Feedback(
        id="a", target="r", verdict=Verdict.REJECTED, comment="ask Maria Lopez", author="王芳", time_ms=T0
    )
    like = LikeNote(case="c", similarity=0.5, text="called John", fixed_by=["action:replace-seal"])
    reading = NoteReading(
        id="x", note="n", machine="P-101", issued_ms=T0, normalised="张师傅 bearing", like=[like], model=MODEL
    )
    made = gate(tmp_path)
    said = msgspec.json.encode([made.out(order), made.out(answer), made.out(reading)]).decode()
    assert not any(name in said for name in ("王", "Maria", "John", "张"))
    assert all(kept in said for kept in ("6204", "bearing", "action:replace-seal"))
    silent = gate(tmp_path, notes="none")
    said = msgspec.json.encode([silent.out(order), silent.out(answer), silent.out(reading)]).decode()
    assert not any(word in said for word in ("换", "ask", "called", "bearing"))


def test_a_report_made_of_a_reading_with_names_holds_none_and_reads_back(tmp_path: Path) -> None:
    seen = Evidence(
        machine="P-101", signal="v", start_ms=T0, end_ms=T0 + 60_000, samples=60, statistic="max", value=13.8,
        unit="mm/s", expected_low=1.0, expected_high=4.5, model=MODEL,
    )  # fmt: skip
    event = FaultEvent(
        id="e", machine="P-101", signal="v", kind="above_expected", severity=Severity.ALARM, start_ms=T0,
        detected_ms=T0 + 60_000, score=6.0, evidence=[seen],
    )  # fmt: skip
    leak = Judged(about=About.FAILURE, classes=[Class("leak", 0.9), Class("wear", 0.1)], sure=True)
    like = LikeNote(
        case="WO-17", similarity=0.8, text="王工换了密封 13800138000", fixed_by=["action:王工", "action:replace-seal"]
    )
    reading = NoteReading(
        id="r", note="n", machine="P-101", issued_ms=T0, judged=[leak], normalised="张师傅", like=[like], model=MODEL
    )
    report = write(FaultCase(event=event, extreme=seen, reading=gate(tmp_path).worded(reading)), Labels(), T0 + 60_000)
    assert verify(report, FAULT_REPORT) == []
    said = msgspec.json.encode(report).decode()
    assert "leak" in said
    assert "13.8" in said
    assert not any(name in said for name in ("王", "张", "13800138000"))
    assert gate(tmp_path).out(report) == report  # as it was made, to the letter


def test_the_author_of_a_note_is_a_name_from_then_on(tmp_path: Path) -> None:
    made = gate(tmp_path)
    first = made.out(msgspec.structs.replace(NOTE, author="闻人笑"))
    later = made.out(msgspec.structs.replace(NOTE, text="闻人笑 again"))
    assert isinstance(first, Note)
    assert first.author.startswith("p-")
    assert isinstance(later, Note)
    assert later.text == "███ again"


def test_a_person_has_one_pseudonym_per_site_and_only_the_key_tells_it(tmp_path: Path) -> None:
    here, there = Pseudonyms(tmp_path / "a.key"), Pseudonyms(tmp_path / "b.key")
    assert (
        here.person("Maria  Lopez")
        == here.person("maria lopez")
        == Pseudonyms(tmp_path / "a.key").person("ＭＡＲＩＡ lopez")
    )
    assert here.person("Maria Lopez") != there.person("Maria Lopez")
    assert here.person("") == ""
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(("body", "mode"), [("00" * 32, 0o644), ("00" * 8, 0o600), ("no key", 0o600)])
def test_a_key_that_protects_nothing_is_refused(tmp_path: Path, body: str, mode: int) -> None:
    path = tmp_path / "k"
    path.write_text(body)
    path.chmod(mode)
    with pytest.raises(BadSettings):
        Pseudonyms(path)


def test_machines_can_have_pseudonyms_where_no_words_leave(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="reports"):
        gate(tmp_path, pseudonyms=("machines",))
    made = gate(tmp_path, pseudonyms=("machines",), notes="none", reports="none")
    made.knows(machines=["P-1", "P-101"])
    sent = made.out(block())
    assert isinstance(sent, SignalBlock)
    assert sent.machine.startswith("m-")
    assert made.own_name(sent.machine) == "P-101"
    assert sent.values == block().values


def test_noise_is_spent_before_it_is_said_and_refused_when_the_budget_is_gone(tmp_path: Path) -> None:
    noise = NoiseSettings(epsilon=1.0, epsilon_per_day=5.0, bounds={"P-101/temp*": (0.0, 100.0)})
    made = gate(tmp_path, noise=noise)
    first, second, third = made.out(block()), made.out(block()), made.out(block())
    assert isinstance(first, SignalBlock)
    assert first.values[1] is None
    assert isinstance(second, SignalBlock)
    assert third is None  # 2 values cost 2.0 each time; 5.0 were there
    assert KEPT["millwright.signal_block.v1", "privacy_budget_spent"] == 1
    assert gate(tmp_path, noise=noise).out(block()) is None  # a restart gives nothing back
    assert made.out(forecast("temperature")) is None  # it would tell what noise hides
    assert made.out(block("pressure")) == block("pressure")


def test_a_new_day_has_a_new_budget_and_a_clock_that_goes_back_has_none(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "b.json", 1.0)
    assert budget.spend("s", 1.0, T0)
    assert not budget.spend("s", 0.1, T0)
    assert budget.spend("s", 1.0, T0 + DAY_MS)
    assert not budget.spend("s", 0.1, T0)
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(BadSettings):
        Budget(tmp_path / "b.json", 1.0)


def test_noise_has_the_spread_that_epsilon_states() -> None:
    below = random.Random(7).randrange
    drawn = [discrete_laplace(Fraction(20), below) for _ in range(20_000)]
    assert abs(sum(drawn)) / len(drawn) < 1.0
    assert sum(map(abs, drawn)) / len(drawn) == pytest.approx(
        20, rel=0.05
    )  # the mean size of Laplace noise is its scale
    at_0, at_20 = drawn.count(0), drawn.count(20) + drawn.count(-20)
    assert at_20 / (2 * at_0) == pytest.approx(2.718281828**-1, rel=0.25)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(0, 2**32))
def test_a_single_wild_reading_moves_the_mean_no_more_than_its_bounds(readings: list[float], seed: int) -> None:
    there = noisy_mean(readings, 0.0, 10.0, Fraction(1000), random.Random(seed).randrange)
    assert there is not None
    assert -2.0 <= there <= 12.0


def test_readings_of_nothing_say_nothing() -> None:
    assert noisy_mean([], 0.0, 1.0, Fraction(1)) is None
