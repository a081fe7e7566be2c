"""What a recommender's bundle must say beside its tables, and what a case is known by: once, for training and gateway.

An item is a token with a kind: `action:replace-seal`, `part:seal-kit`, `symptom:vibration:high`, `type:pump`,
`machine:P-101`; what can be recommended starts with one of the candidates' prefixes. A profile is {token: strength}."""

from __future__ import annotations

from typing import Annotated

import msgspec

from protocol.observations import Name

CANDIDATES = ("action:", "part:")
PARTS = ("popularity", "items", "users", "content")
"""The parts of a hybrid, in the order of its weights."""
MOST_SHOWN = 100


class RecommendSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Travels inside a recommender's bundle.

    candidates: prefixes of what may be recommended (none: every item). parts: the hybrid's parts in the order of its
    weights. lengths: lower edges of the profile lengths that have weights of their own, ascending, the first 0.
    half_life_days: age at which an event counts half. answer_weight: how much an answer counts beside a work order.
    data_until_ms: answers up to then are inside the tables already. safety: items on which nobody experiments."""

    candidates: Annotated[list[str], msgspec.Meta(max_length=20)] = []
    parts: Annotated[list[Name], msgspec.Meta(max_length=8)] = msgspec.field(default_factory=lambda: list(PARTS))
    lengths: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1, max_length=20)] = (
        msgspec.field(default_factory=lambda: [0])
    )
    half_life_days: Annotated[float, msgspec.Meta(gt=0)] = 365.0
    answer_weight: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    data_until_ms: Annotated[int, msgspec.Meta(ge=0)] = 0
    safety: Annotated[list[Name], msgspec.Meta(max_length=1000)] = []
