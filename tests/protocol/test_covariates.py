"""Known inputs: a forecast sees what was known by then, no more and no less."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from protocol.covariates import (
    EVERY_MACHINE,
    KnownInput,
    Source,
    columns,
    from_answer,
    from_event,
    from_work_order,
    worth_learning,
)
from protocol.feedback import Feedback, Verdict
from protocol.observations import WorkOrder
from protocol.reports import FaultEvent, ModelRef, Recommendation, RecommendedItem, Severity

STEP = 900_000
T0 = 1_760_000_400_000 - 1_760_000_400_000 % STEP


def known(
    start: float, end: float, since: float, value: float = 1.0, name: str = "plan-1", **more: object
) -> KnownInput:
    """Times in buckets from T0."""
    fields: dict[str, object] = {"machine": "P-1", "covariate": "load", "source": Source.SCHEDULE} | more
    at = [T0 + round(STEP * t) for t in (start, end, since)]
    return KnownInput(id=name, start_ms=at[0], end_ms=at[1], known_ms=at[2], value=value, **fields)  # type: ignore[arg-type]


def seen_at(origin: int, inputs: list[KnownInput], machine: str = "P-1") -> list[float]:
    made = columns(inputs, ["load"], machine, np.array([T0 + origin * STEP], dtype=np.int64), STEP, 2, 4)
    return [round(float(v), 6) for v in made[0, 0]]


def test_a_span_counts_with_the_share_of_the_bucket_that_it_covers() -> None:
    assert seen_at(10, [known(10.5, 12.0, since=0, value=2.0)]) == [0, 0, 1, 2, 0, 0]
    assert seen_at(10, [known(8.25, 8.5, since=0)]) == [0.25, 0, 0, 0, 0, 0]


def test_an_amount_falls_into_the_bucket_of_its_instant() -> None:
    assert seen_at(10, [known(11.7, 11.7, since=0, value=40.0)]) == [0, 0, 0, 40, 0, 0]


def test_nothing_is_seen_before_it_was_known() -> None:
    plan = [known(10, 14, since=10.1)]
    assert seen_at(10, plan) == [0, 0, 0, 0, 0, 0]
    assert seen_at(11, plan) == [0, 1, 1, 1, 1, 0]


def test_a_new_version_replaces_the_old_from_when_it_became_known_and_a_withdrawn_one_ends_it() -> None:
    plan = [
        known(10, 14, since=5, value=1.0),
        known(12, 14, since=9, value=3.0),
        known(12, 14, since=11, withdrawn=True),
    ]
    assert seen_at(8, plan) == [0, 0, 0, 0, 1, 1]
    assert seen_at(10, plan) == [0, 0, 0, 0, 3, 3]
    assert seen_at(11, plan) == [0, 0, 0, 0, 0, 0]


def test_another_machine_is_not_meant_but_every_machine_is() -> None:
    assert seen_at(10, [known(10, 11, since=0, machine="P-2")]) == [0] * 6
    assert seen_at(10, [known(10, 11, since=0, machine=EVERY_MACHINE)]) == [0, 0, 1, 0, 0, 0]


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 8), st.floats(0, 40)), max_size=6), st.integers(3, 30))
def test_what_becomes_known_later_changes_nothing(plans: list[tuple[float, float, float]], origin: int) -> None:
    inputs = [known(start, start + long, since, name=f"p{i}") for i, (start, long, since) in enumerate(plans)]
    by_then = [k for k in inputs if k.known_ms <= T0 + origin * STEP]
    assert seen_at(origin, inputs) == seen_at(origin, by_then)


def test_what_people_accept_becomes_known_and_what_they_reject_does_not() -> None:
    items = [
        RecommendedItem(item="part:seal-kit", position=1, score=1.0),
        RecommendedItem(item="action:replace-seal", position=2, score=0.5),
    ]
    shown = Recommendation(
        id="r-1", event="e-1", machine="P-1", issued_ms=T0, profile=[], items=items, model=ModelRef("s", "a")
    )
    yes = Feedback(id="f-1", target="r-1", verdict=Verdict.ACCEPTED, time_ms=T0)
    bought = from_answer(yes, shown)[0]
    assert (bought.covariate, bought.source, bought.start_ms) == (
        "delivery:seal-kit",
        Source.PURCHASE,
        T0 + 24 * 3_600_000,
    )
    done = from_answer(
        Feedback(id="f-2", target="r-1", item="action:replace-seal", verdict=Verdict.ACCEPTED, time_ms=T0), shown
    )[0]
    assert (done.covariate, done.source) == ("work:replace-seal", Source.SCHEDULE)
    assert from_answer(Feedback(id="f-3", target="r-1", verdict=Verdict.REJECTED, time_ms=T0), shown) == []


def test_failure_modes_and_symptoms_become_events() -> None:
    order = WorkOrder(id="w-1", machine="P-1", time_ms=T0, failure_mode="Bearing Wear")
    made = from_work_order(order)
    assert made is not None
    assert made.covariate == "event:bearing-wear"
    assert from_work_order(WorkOrder(id="w-2", machine="P-1", time_ms=T0)) is None
    event = FaultEvent(
        id="e-1", machine="P-1", signal="vibration", kind="above_expected", severity=Severity.NOTICE, start_ms=T0,
        detected_ms=T0 + STEP, score=5.0, symptoms=["vibration:high"],
    )  # fmt: skip
    assert [k.covariate for k in from_event(event)] == ["event:vibration:high"]


def test_only_covariates_that_were_told_of_often_are_learned() -> None:
    often = [known(i, i + 1, since=0, name=f"p{i}") for i in range(8)]
    rare = [known(i, i + 1, since=0, name=f"q{i}", covariate="rare") for i in range(7)]
    assert worth_learning([*often, *often, *rare]) == ["load"]
