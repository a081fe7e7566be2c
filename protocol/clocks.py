"""How far a gateway trusts its clock, and what it says when it learns that it was wrong."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from protocol.names import MessageClass
from protocol.observations import Name, TimeMs


class ClockConfidence(StrEnum):
    """How far the gateway trusts its own clock: disciplined, free-running since it was, or never set."""

    SYNCED = "synced"
    HOLDOVER = "holdover"
    UNKNOWN = "unknown"


class ClockCorrection(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's clock was wrong: what has mwboot `boot` and a time from `first_ms` up to before `until_ms` (as was given)
    happened `shift_ms` later. Values whose time the gateway gave were moved there already; what was concluded from them, and
    said in words, stays as it was said. `machine` is `*`: every machine."""

    type_name: ClassVar[str] = "millwright.clock_correction.v1"
    message_class: ClassVar[MessageClass] = MessageClass.EVENT

    id: Name
    machine: Name = "*"
    boot: Name
    first_ms: TimeMs
    until_ms: TimeMs
    shift_ms: Annotated[int, msgspec.Meta(gt=-(2**62), lt=2**62)]
    issued_ms: TimeMs
