"""What people answer. An answer judges one report or one recommended item and becomes a label."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from protocol.names import MessageClass
from protocol.observations import Name, Text, TimeMs


class Verdict(StrEnum):
    """`TOO_LATE` judges the timing, not the item."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CORRECTED = "corrected"
    TOO_LATE = "too_late"


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """`target` is the id of a report or a recommendation; `item` the one recommended item that is judged (empty: the
    whole); `correction` is the item that would have been right. `author` is a pseudonym, never a person's name."""

    type_name: ClassVar[str] = "millwright.feedback.v1"
    message_class: ClassVar[MessageClass] = MessageClass.FEEDBACK

    id: Name
    target: Name
    item: Annotated[str, msgspec.Meta(max_length=128)] = ""
    verdict: Verdict
    correction: Annotated[str, msgspec.Meta(max_length=128)] = ""
    comment: Text = ""
    author: Annotated[str, msgspec.Meta(max_length=64)] = ""
    time_ms: TimeMs
    via: Annotated[str, msgspec.Meta(pattern="^(shop|panel|console)$")] = "shop"
