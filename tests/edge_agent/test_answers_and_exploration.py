"""An answer shows in the next list, without a server and after a restart; lists experiment with known chances, and never with
what is safety-relevant."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import answers as book
from edge_agent.answers import AnswerBook
from edge_agent.runtimes import LoadedModel, load
from edge_agent.skills.recommend import (
    Answered,
    ListSettings,
    Request,
    asked_by_event,
    asked_by_risk,
    drawn,
    list_settings,
    recommend,
    spec_of,
)
from protocol.bundles import digest
from protocol.catalogue import Catalogue, ItemCard
from protocol.feedback import Feedback, Verdict
from protocol.names import stable_id
from protocol.observations import WorkOrder
from protocol.recommending import RecommendSpec, event_profile, order_profile, risk_profile, verdicts
from protocol.reports import (
    Contribution,
    FaultEvent,
    FaultRisk,
    ModelRef,
    Recommendation,
    RecommendedItem,
    RemainingLife,
    Severity,
)
from protocol.tables import local_answers
from server import training
from server.cases import Case

NOW, DAY = 1_790_000_000_000, 86_400_000
WORLD = training.Circumstances(dataset_digest="0" * 64, dataset_rows=1, now_ms=NOW, because="a test")
GREEDY = ListSettings(explore=0.0)
CASE = {"symptom:vibration:high": 1.0, "type:pump": 1.0}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """Twelve actions; the smaller its number, the oftener one was taken where vibration was high."""
    rng = np.random.default_rng(2)
    cases = []
    for i in range(240):
        tokens = ("symptom:vibration:high", "failure:bearing", "type:pump", f"machine:P-{i % 4}")
        number = min(int(rng.exponential(4.0)), 11)
        cases.append(Case(NOW - (300 - i) * 3_600_000, tokens, {f"action:a{number:02}": 1.0}))
    (made,) = training.train_recommend(cases, 7, WORLD, lambda _share, _step: None)
    return load(made.archive, digest(made.archive))


def event(machine: str = "P-1", symptoms: tuple[str, ...] = ("vibration:high",), name: str = "e-1") -> FaultEvent:
    return FaultEvent(
        id=name, machine=machine, machine_type="pump", signal="vibration", kind="above_expected",
        severity=Severity.NOTICE, start_ms=1, detected_ms=2, score=5.0, symptoms=list(symptoms),
    )  # fmt: skip


def items(made: Recommendation | None) -> list[str]:
    assert made is not None
    return [one.item for one in made.items]


def shown_by(model: LoadedModel, answers: AnswerBook, asked: FaultEvent, now_ms: int = NOW) -> Recommendation:
    request = asked_by_event(asked, [])
    made = recommend(request, model, answers.answered(request, spec_of(model), now_ms), GREEDY, now_ms)
    assert made is not None
    return made


def answer(
    target: str, verdict: Verdict, item: str = "", at_ms: int = NOW + 1, name: str = "f-1", right: str = ""
) -> Feedback:
    return Feedback(id=name, target=target, item=item, verdict=verdict, correction=right, time_ms=at_ms)


# the list itself ------------------------------------------------------------------------------------------------------


def test_a_list_keeps_to_its_length_and_says_what_was_left_out(model: LoadedModel) -> None:
    request = asked_by_event(event(), [])
    plain = recommend(request, model, Answered(), GREEDY, NOW)
    first, second, third = items(plain)[:3]
    cards = {
        first: ItemCard(id="c1", item=first, attributes={"machine_type": "press"}),
        second: ItemCard(id="c2", item=second, attributes={"machine_type": "pump"}),
    }
    made = recommend(replace(request, exclude=frozenset([third])), model, Answered(), replace(GREEDY, cards=cards), NOW)
    assert made is not None
    assert items(made)[0] == second
    assert len(made.items) == 5
    assert {(out.item, out.reason) for out in made.left_out} == {(first, "other_type"), (third, "excluded")}
    assert [one.position for one in made.items] == [1, 2, 3, 4, 5]
    assert made.policy == "greedy"
    assert {one.propensity for one in made.items} == {1.0}


def test_filters_that_leave_little_make_a_shorter_list(model: LoadedModel) -> None:
    all_but_two = frozenset(f"action:a{i:02}" for i in range(2, 12))
    made = recommend(replace(asked_by_event(event(), []), exclude=all_but_two), model, Answered(), ListSettings(), NOW)
    assert made is not None
    assert sorted(items(made)) == ["action:a00", "action:a01"]
    assert {out.reason for out in made.left_out} == {"excluded"}


def test_what_is_said_to_have_mattered_adds_up(model: LoadedModel) -> None:
    made = recommend(asked_by_event(event(), []), model, Answered(), ListSettings(explore=0.4), NOW)
    assert made is not None
    for one in made.items:
        assert sum(c.amount for c in one.contributions) == pytest.approx(one.score, abs=1e-9)


def test_a_predicted_fault_is_answered_with_the_actions_that_cured_it(model: LoadedModel) -> None:
    risk = FaultRisk(
        id="r-1", machine="P-9", component="Bearing", issued_ms=NOW, probability=0.7, score=1.0, expected_score=0.0,
        model=ModelRef("fault.tabular", "trees"),
    )  # fmt: skip
    made = recommend(asked_by_risk(risk, [], "pump"), model, Answered(), GREEDY, NOW)
    assert made is not None
    assert made.event == "r-1"
    assert "action:a00" in items(made)[:2]
    assert any(c.because == "failure:bearing" for c in made.items[0].contributions)


def test_a_case_has_the_same_tokens_wherever_it_is_read() -> None:
    order = WorkOrder(
        id="w", machine="P-1", machine_type="pump", time_ms=1, symptoms=["vibration:high"], failure_mode="Bearing Wear"
    )
    assert order_profile(order) == event_profile(event()) | {"failure:bearing-wear": 1.0}
    life = RemainingLife(
        id="l", machine="P-1", machine_type="pump", unit="h", issued_ms=1, inputs_until_ms=1, age=1, cap=9, median=4,
        low=1, high=8, levels=[0.5], quantiles=[4.0], expected=4, usual=6, model=ModelRef("fault.life", "life"),
        contributions=[Contribution("vibration", -2.0), Contribution("current", 0.5)],
    )  # fmt: skip
    assert set(risk_profile(life)) == {
        "machine:P-1", "type:pump", "symptom:vibration:high", "symptom:vibration:low",
    }  # fmt: skip
    assert verdicts(["a", "b"], "too_late", "", "") == {}
    assert verdicts(["a", "b"], "corrected", "", "c") == {"a": -1.0, "c": 1.0}


# answers --------------------------------------------------------------------------------------------------------------


def test_a_rejected_item_is_gone_from_the_next_list_of_this_very_case_and_after_a_restart(
    model: LoadedModel, tmp_path: Path
) -> None:
    answers = AnswerBook(tmp_path / "answers.db")
    first = shown_by(model, answers, event())
    answers.show(first, "report-1")
    wrong = items(first)[0]
    judged = answers.take(answer("report-1", Verdict.REJECTED, wrong))
    assert judged is not None
    assert (judged.id, items(judged)) == (first.id, items(first))
    answers.close()
    again = AnswerBook(tmp_path / "answers.db")
    for asked in (event(name="e-2"), event(name="e-3")):
        made = shown_by(model, again, asked, NOW + DAY)
        assert wrong not in items(made)
        assert [(out.item, out.reason, out.since_ms) for out in made.left_out] == [(wrong, "rejected", NOW + 1)]
    elsewhere = shown_by(model, again, event("P-2", name="e-4"), NOW + DAY)
    assert not elsewhere.left_out
    assert again.rejected(first.profile, NOW + 31 * DAY) == {}
    again.take(answer(first.id, Verdict.ACCEPTED, wrong, NOW + 9, "f-2"))
    assert wrong in items(shown_by(model, again, event(name="e-5"), NOW + DAY))
    again.close()


def test_a_correction_raises_what_was_right(model: LoadedModel, tmp_path: Path) -> None:
    answers = AnswerBook(tmp_path / "answers.db")
    first = shown_by(model, answers, event())
    answers.show(first)
    answers.take(answer(first.id, Verdict.CORRECTED, items(first)[0], right="action:a09"))
    after = shown_by(model, answers, event(name="e-2"))
    assert "action:a09" in items(after)[:2]
    assert items(first)[0] not in items(after)
    answers.close()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3), st.integers(1, 9)), max_size=14))
def test_what_is_known_of_answers_is_what_all_of_them_say(steps: list[tuple[bool, int, int, int]]) -> None:
    """Lists are shown (again, under other reports) and judged in any order, before they are known here too, and forgotten."""
    spec = RecommendSpec(candidates=["action:"], data_until_ms=2)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "MOST_SHOWN", 3)
        patch.setattr(book, "MOST_ANSWERS", 5)
        answers = AnswerBook(Path(folder) / "answers.db")
        for number, (shows, name, which, at_ms) in enumerate(steps):
            if shows:
                answers.show(listed(f"r-{name}", f"action:a{which}", at_ms), f"report-{which}")
            else:
                target = f"r-{name}" if which % 2 else f"report-{name}"
                verdict = Verdict.REJECTED if which > 1 else Verdict.ACCEPTED
                answers.take(answer(target, verdict, at_ms=at_ms, name=f"f-{number % 11}"))
            anew = local_answers(answers.answers_since(2), 2)
            assert answers.local(spec).answers == anew.answers
            np.testing.assert_array_equal(answers.local(spec).similarities(CASE), anew.similarities(CASE))
        answers.close()


def listed(name: str, item: str, at_ms: int) -> Recommendation:
    return Recommendation(
        id=name, event="e", machine="P-1", issued_ms=at_ms, profile=sorted(CASE),
        items=[RecommendedItem(item=item, position=1, score=1.0)], model=ModelRef("recommend.items", "x", 1, "0" * 64),
    )  # fmt: skip


def test_too_late_pushes_nothing_down_and_is_counted(model: LoadedModel, tmp_path: Path) -> None:
    answers = AnswerBook(tmp_path / "answers.db")
    first = shown_by(model, answers, event())
    answers.show(first)
    for number in range(3):
        answers.take(answer(first.id, Verdict.TOO_LATE, items(first)[0], name=f"f-{number}"))
    assert items(shown_by(model, answers, event(name="e-2"))) == items(first)
    assert answers.too_late() == {items(first)[0]: 3}
    answers.close()


def test_the_same_answer_again_changes_nothing_and_a_later_one_stands(model: LoadedModel, tmp_path: Path) -> None:
    answers = AnswerBook(tmp_path / "answers.db")
    first = shown_by(model, answers, event())
    answers.show(first)
    for _ in range(3):
        answers.take(answer(first.id, Verdict.ACCEPTED, items(first)[2]))
    spec = spec_of(model)
    assert len(answers.local(spec)) == 1
    answers.take(answer(first.id, Verdict.REJECTED, items(first)[2], NOW + 5, "f-2"))
    (stands,) = answers.local(spec).answers
    assert stands.value == -1.0
    assert answers.answers_since(NOW + 5) == []
    answers.close()


def test_an_answer_to_a_list_that_is_not_known_here_is_kept_until_it_is(model: LoadedModel, tmp_path: Path) -> None:
    answers = AnswerBook(tmp_path / "answers.db")
    made = shown_by(model, answers, event())
    assert answers.take(answer(made.id, Verdict.REJECTED, items(made)[0])) is None
    answers.show(made)
    assert answers.rejected(made.profile, NOW) == {items(made)[0]: NOW + 1}
    answers.close()


def test_what_is_remembered_is_bounded(model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MOST_SHOWN", 3)
    monkeypatch.setattr(book, "MOST_ANSWERS", 4)
    answers = AnswerBook(tmp_path / "answers.db")
    for number in range(9):
        made = shown_by(model, answers, event(name=f"e-{number}"), NOW + number)
        answers.show(made, f"report-{number}")
        answers.take(answer(made.id, Verdict.ACCEPTED, "", NOW + number, f"f-{number}"))
    answers.close()
    again = AnswerBook(tmp_path / "answers.db")
    assert [answers.judged(answer(f"report-{n}", Verdict.ACCEPTED)) is not None for n in (5, 6, 8)] == [
        False,
        True,
        True,
    ]
    assert len(again.answers_since(0)) == 3
    again.close()


def test_a_damaged_memory_of_answers_is_counted_and_begins_anew(model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "answers.db").write_bytes(b"no database at all, " * 100)
    counted: Counter[str] = Counter()
    answers = AnswerBook(tmp_path / "answers.db", lambda what: counted.update([what]))
    made = shown_by(model, answers, event())
    answers.show(made)
    answers.take(answer(made.id, Verdict.REJECTED, items(made)[0]))
    assert counted == {"refused.answers": 1}
    answers.close()
    assert AnswerBook(tmp_path / "answers.db").rejected(made.profile, NOW)


# experiments ----------------------------------------------------------------------------------------------------------

RANKED = [f"action:{letter}" for letter in "abcdefghij"]


@pytest.mark.parametrize("places", [1, 2])
def test_the_chances_are_those_with_which_items_are_shown(places: int) -> None:
    settings = ListSettings(explore=0.3, pool=3, explored_positions=places)
    lists, seen, said = 20_000, Counter[tuple[str, int]](), {}
    for number in range(lists):
        shown = drawn(stable_id("recommendation", number), RANKED, 5, frozenset(), settings)
        assert len({place.item for place in shown}) == 5
        for place in shown:
            seen[place.item, place.position] += 1
            assert said.setdefault((place.item, place.position), place.propensity) == place.propensity
    for key, n in seen.items():
        assert n / lists == pytest.approx(said[key], abs=4 * (said[key] * (1 - said[key]) / lists) ** 0.5 + 1e-12)
    for position in range(1, 6):
        assert sum(p for (_, at), p in said.items() if at == position) == pytest.approx(1.0)
    assert {item for item, at in said if at == 5} == {"action:e", "action:f", "action:g", "action:h"}


def test_nobody_experiments_with_safety_nor_on_the_first_place() -> None:
    safety = frozenset(["action:e", "action:f"])
    settings = ListSettings(explore=0.9, pool=3, explored_positions=5)
    for number in range(2000):
        shown = drawn(str(number), RANKED, 5, safety, settings)
        assert shown[0].item == "action:a"
        assert shown[4].item == "action:e"
        assert shown[4].propensity == 1.0
        assert not [place for place in shown if place.explored and place.item in safety]
    assert [place.propensity for place in drawn("x", RANKED[:5], 5, safety, settings)] == [1.0] * 5
    assert [place.item for place in drawn("x", RANKED, 1, safety, settings)] == ["action:a"]


def test_a_restart_repeats_the_same_list_and_the_catalogue_says_what_is_safe(model: LoadedModel) -> None:
    plain = items(recommend(asked_by_event(event(), []), model, Answered(), GREEDY, NOW))
    catalogue = Catalogue(
        card=[ItemCard(id="c", item="action:a05", safety=True)], safety=[f"action:a{n:02}" for n in (6, 7, 8, 9, 10)]
    )
    settings = list_settings(catalogue, explore=0.5, pool=5)
    explored = set()
    for number in range(60):
        request = Request(f"e-{number}", "P-1", event_profile(event()), "pump")
        made = recommend(request, model, Answered(), settings, NOW)
        assert made == recommend(request, model, Answered(), settings, NOW)
        assert made is not None
        explored |= {one.item for one in made.items if one.explored}
    assert explored
    assert not explored & ({"action:a05"} | set(catalogue.safety) | set(plain))


def test_a_chance_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="explore"):
        ListSettings(explore=1.0)
