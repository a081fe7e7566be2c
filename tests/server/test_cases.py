"""Cases, from which recommenders learn."""

from __future__ import annotations

from server.cases import Case, popularity


def test_popularity_counts_only_what_was_right() -> None:
    cases = [
        Case(1, ("type:pump",), {"part:a": 1.0, "part:b": -1.0}),
        Case(2, ("type:pump",), {"part:c": 1.0, "part:a": 1.0}),
    ]
    assert popularity(cases) == ["part:a", "part:c"]
