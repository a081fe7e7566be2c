"""Recommenders: cases in, the same fitted model out each time."""

from __future__ import annotations

import numpy as np

from server.algorithms import collaborative
from server.algorithms.collaborative import Case, CollaborativeSettings


def _cases() -> list[Case]:
    cases = []
    for i in range(30):
        hot = i % 2 == 0
        seen = "symptom:temperature:high" if hot else "symptom:vibration:high"
        done = "action:clean-filter" if hot else "action:replace-bearing"
        cases.append(Case(time_ms=i * 3_600_000, profile=(seen, "type:pump", f"machine:P-{i % 3}"), items={done: 1.0}))
    return cases


def test_neighbours_offer_what_was_done_before_and_only_actions_and_parts() -> None:
    fitted = collaborative.fit(_cases(), CollaborativeSettings())
    score = fitted.scores({"symptom:vibration:high": 1.0, "type:pump": 1.0, "machine:P-new": 1.0})
    best = fitted.items[int(np.argmax(score))]
    assert best == "action:replace-bearing"
    assert all(score[i] == 0 for i, name in enumerate(fitted.items) if not name.startswith(("action:", "part:")))


def test_a_rejected_item_sinks_and_its_correction_rises() -> None:
    profile = {"symptom:vibration:high": 1.0, "type:pump": 1.0, "machine:P-1": 1.0}
    before = collaborative.fit(_cases(), CollaborativeSettings())
    answers = [
        Case(
            31 * 3_600_000,
            tuple(profile),
            {"action:replace-bearing": -1.0, "action:align-shaft": 1.0},
            source="answer",
        )
    ] * 8
    after = collaborative.fit([*_cases(), *answers], CollaborativeSettings())
    old, new = before.scores(profile), after.scores(profile)
    bearing = "action:replace-bearing"
    assert new[after.items.index(bearing)] < old[before.items.index(bearing)]
    assert after.items[int(np.argmax(new))] == "action:align-shaft"


def test_popularity_counts_only_what_was_right() -> None:
    cases = [
        Case(1, ("type:pump",), {"part:a": 1.0, "part:b": -1.0}),
        Case(2, ("type:pump",), {"part:c": 1.0, "part:a": 1.0}),
    ]
    assert collaborative.popularity(cases) == ["part:a", "part:c"]
