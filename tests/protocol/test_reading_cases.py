"""Past notes: the alike ones are found, a new one at once, and the fix that the others agree with comes first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadBundle
from protocol.reading.cases import Cases, CaseWeights, Found, agreed, packed_past, read_past, votes
from protocol.reading.notes import PastNote
from protocol.reading.words import Shape
from server.algorithms.note_counts import count, likeness
from server.algorithms.note_reader import voted

PAST = [
    PastNote(case="1", text="pump leaks oil", said={"failure": "leak"}, fixed_by=["action:replace-seal"]),
    PastNote(case="2", text="oil leaking at pump", said={"failure": "leak"}, fixed_by=["action:replace-seal"]),
    PastNote(case="3", text="motor noisy", said={"failure": "noise"}, fixed_by=["action:grease"]),
    PastNote(case="4", text="泵漏油", said={"failure": "leak"}),
]


def test_the_most_alike_note_is_first_in_either_language() -> None:
    cases = Cases(PAST)
    assert [one.past.case for one in cases.nearest("pump leeks oil")[:2]] == ["1", "2"]
    assert cases.nearest("油泵漏油了")[0].past.case == "4"
    assert cases.nearest("pump leaks oil")[0].similarity == pytest.approx(1.0)
    assert cases.nearest("qzx vvv") == cases.nearest("") == Cases([]).nearest("pump") == []


def test_a_new_case_is_found_at_once_and_a_corrected_one_replaces_the_old() -> None:
    cases = Cases(PAST)
    cases.add(PastNote(case="5", text="gizmo zorbed", said={"failure": "zorb"}))
    assert cases.nearest("the gizmo zorbs")[0].past.case == "5"
    cases.add(PastNote(case="5", text="gizmo zorbed", said={"failure": "leak"}, taught=True))
    found = cases.nearest("gizmo zorbed")
    assert len(cases) == 5
    assert [one.past.said["failure"] for one in found if one.past.case == "5"] == ["leak"]


@given(st.text("pump leaks oil 泵漏油 motor", max_size=40))
def test_what_the_words_share_adds_up_to_the_likeness(text: str) -> None:
    for one in Cases(PAST, CaseWeights(nearest=10)).nearest(text):
        assert one.shared.sum() == pytest.approx(one.similarity, abs=1e-6)


def test_training_compares_notes_as_the_gateway_does() -> None:
    asked = ["pump leak", "noise from the motor", "泵漏", "unheard of"]
    texts = [one.text for one in PAST]
    alike = likeness(count([*texts, *asked], Shape()), np.arange(4), np.arange(4, 8), 1.0)
    weights = CaseWeights(nearest=3, sharpness=2.0)
    cases = Cases(PAST, weights)
    for i, text in enumerate(asked):
        by_case = {one.past.case: one.similarity for one in cases.nearest(text)}
        np.testing.assert_allclose(alike[i], [by_case.get(one.case, 0.0) for one in PAST], atol=1e-6)
    matrix = voted(alike, np.array([0, 0, 1, 0]), 2, weights)
    by_one = [votes(cases.nearest(t, top=3), "failure", ["leak", "noise"], 2.0).sum(axis=0) for t in asked]
    np.testing.assert_allclose(matrix, np.stack(by_one), atol=1e-6)


def test_an_encoder_finds_what_shares_no_word() -> None:
    vectors = np.eye(4)
    cases = Cases(PAST, CaseWeights(encoder=0.5), vectors)
    found = cases.nearest("qzx vvv", vectors[2])
    assert [one.past.case for one in found] == ["3"]
    assert found[0].shared.sum() == 0.0


def test_one_odd_fix_does_not_win_by_a_comma() -> None:
    def found(similarity: float, *fix: str) -> Found:
        return Found(PastNote(case=f"{similarity}", text="t", fixed_by=list(fix)), similarity, np.zeros(1))

    near = [
        found(0.90, "painted the fence"),
        found(0.89, "replaced gasket"),
        found(0.88, "replaced intake gasket"),
        found(0.87),
        found(0.86, "replaced gasket"),
    ]
    order = [one.past.fixed_by for one in agreed(near, shown=2)]
    assert order[0] == ["replaced gasket"]
    assert order[1] == ["painted the fence"]  # the second way out, not the first one again
    assert len(order) == 5
    assert len(agreed([found(0.5)])) == 1
    assert agreed([]) == []


def test_damaged_past_notes_are_refused() -> None:
    assert read_past(packed_past(PAST)) == PAST
    for body in (b"{", b'[{"case": "1"}]', packed_past([PAST[0], PAST[0]])):
        with pytest.raises(BadBundle):
            read_past(body)
    with pytest.raises(BadBundle):
        Cases(PAST, vectors=np.zeros((2, 3)))
    with pytest.raises(BadBundle):
        CaseWeights.of({"cases_weights": np.array([1.0, 2.0, 10, 3, 40])})
