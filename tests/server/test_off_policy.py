"""Another recommender is judged by lists that were shown, with the truth at hand to judge the judge by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocol.clocks import ClockConfidence
from protocol.feedback import Feedback, Verdict
from protocol.names import MessageClass
from protocol.reports import ModelRef, Recommendation, RecommendedItem
from protocol.sync import Batch, Message, encode, envelope
from server import feedback as answers
from server import intake
from server.database import Database, Table
from server.off_policy import Lists, Trial, estimates, evaluate, gate, logged
from server.off_policy import _log as as_log

NOW = 1_790_000_000_000
ITEMS = [f"action:{letter}" for letter in "abcdef"]
RIGHT = {"symptom:hot": "action:a", "symptom:loud": "action:b", "symptom:wet": "action:c"}


def accepted(token: str, item: str) -> float:
    return 0.9 if RIGHT[token] == item else 0.3


def trials(n: int, explore: float, seed: int = 1) -> list[Trial]:
    """Lists of two places: the first always "action:a", the second "action:b" unless an experiment is there."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        token = sorted(RIGHT)[rng.integers(3)]
        second, chance = "action:b", 1 - explore
        if rng.random() < explore:
            second, chance = ITEMS[rng.integers(2, 6)], explore / 4
        for position, (item, propensity) in enumerate((("action:a", 1.0), (second, chance)), start=1):
            reward = float(rng.random() < accepted(token, item))
            made.append(Trial(f"l-{number}", {token: 1.0}, item, position, propensity, reward))
    return made


def always(*shown: str) -> Lists:
    def listed(_profile: Mapping[str, float], top: int) -> Sequence[str]:
        return shown[:top]

    return listed


def better(profile: Mapping[str, float], top: int) -> Sequence[str]:
    """Puts "action:c" second where that is right."""
    return ["action:a", "action:c" if "symptom:wet" in profile else "action:b"][:top]


def test_a_better_list_is_found_to_be_better_and_by_how_much() -> None:
    found = evaluate(better, trials(6000, 0.4))
    assert found is not None
    same = (0.9 + 0.3 + 0.3) / 3
    truth = (same + (0.3 + 0.9 + 0.9) / 3) / 2
    assert found.enough
    assert abs(found.value - truth) < 3 * found.standard_error
    assert found.standard_error < 0.02
    assert found.lift > 2 * found.lift_error
    ok, words = gate(better, trials(6000, 0.4))
    assert ok
    assert "+-" in words


def test_a_worse_list_is_refused_with_the_figure() -> None:
    worse = always("action:a", "action:f")
    ok, words = gate(worse, trials(4000, 0.4), always("action:a", "action:b"))
    assert not ok
    assert "worse by more than two standard errors" in words
    assert "accepted 0." in words
    assert gate(always("action:a", "action:b"), trials(4000, 0.4), always("action:a", "action:b"))[0]


def test_where_nothing_like_it_was_shown_nothing_is_said() -> None:
    for candidate in (always("action:f", "action:e"), always("action:never", "action:seen")):
        found = evaluate(candidate, trials(500, 0.05))
        assert found is not None
        assert not found.enough
        ok, words = gate(candidate, trials(500, 0.05))
        assert ok
        assert "too few to judge" in words
    assert gate(better, []) == (True, "answered lists: none yet, not judged by them")
    one = evaluate(better, trials(1, 0.0)[:1])
    assert one is not None
    assert math.isfinite(one.value)


def test_the_four_estimates_agree_where_the_candidate_is_what_was_shown() -> None:
    log = as_log(trials(3000, 0.4), ITEMS, always("action:a", "action:b"))
    found = estimates(log)
    assert set(found) == {"dm", "ips", "snips", "dr"}
    values = [one.value for one in found.values()]
    assert max(values) - min(values) < 0.03
    assert found["dr"].standard_error <= found["ips"].standard_error
    assert found["dr"].effective_n > 2000
    turned = estimates(replace(log, target=np.roll(log.target, 3, axis=1)))
    assert turned["dr"].effective_n < found["dr"].effective_n


def test_standard_errors_hold_for_whole_lists() -> None:
    events = trials(400, 0.4)
    twice = [replace(e, position=e.position + 2 * i) for e in events for i in range(1)] + events
    once, doubled = (evaluate(always("action:a", "action:b"), e) for e in (events, twice))
    assert once is not None
    assert doubled is not None
    assert doubled.standard_error == pytest.approx(once.standard_error, rel=0.1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/server.db")
    Table.metadata.create_all(made.engine)
    yield made
    made.close()


def send(database: Database, lane: MessageClass, told: Sequence[Message]) -> None:
    wrapped = [
        envelope(m, site="s", gateway="g", seq=n, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)
        for n, m in enumerate(told, start=1)
    ]
    with database.begin() as session:
        intake.store_batch(session, "s", "g", lane, encode(Batch(envelopes=wrapped)), NOW)


def test_stored_lists_and_answers_become_trials_and_too_late_is_no_verdict(database: Database) -> None:
    shown = Recommendation(
        id="r-1", event="e-1", machine="M", issued_ms=NOW, profile=["symptom:hot", "machine:M"], policy="explore",
        model=ModelRef("recommend.items", "item_neighbours"),
        items=[
            RecommendedItem(item=item, position=i, score=1.0, propensity=0.95 if i == 4 else 1.0)
            for i, item in enumerate(ITEMS[:4], start=1)
        ],
    )  # fmt: skip
    told = [(Verdict.REJECTED, ITEMS[0]), (Verdict.TOO_LATE, ITEMS[1]), (Verdict.ACCEPTED, ITEMS[3])]
    given = [
        Feedback(id=f"f-{n}", target="r-1", item=item, verdict=verdict, time_ms=NOW + n)
        for n, (verdict, item) in enumerate([(Verdict.ACCEPTED, ITEMS[0]), *told])
    ]
    send(database, MessageClass.REPORT, [shown, msgspec.structs.replace(shown, id="r-2", event="e-2")])
    send(database, MessageClass.FEEDBACK, given)
    with database.begin() as session:
        found = logged(session)
        declared = logged(session, unanswered=0.0)
        late = answers.too_late(session)
    assert [(t.item, t.position, t.propensity, t.reward) for t in found] == [
        (ITEMS[0], 1, 1.0, 0.0), (ITEMS[3], 4, 0.95, 1.0),
    ]  # fmt: skip
    assert found[0].profile == {"symptom:hot": 1.0, "machine:M": 0.5}
    assert [t.item for t in declared] == ITEMS[:4]
    assert late == {ITEMS[1]: 1}
