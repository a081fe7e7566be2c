"""What machines say: single observations, blocks of a signal on a regular grid, and work orders.

Times are integer milliseconds since 1970-01-01T00:00:00Z; a number without a time zone never enters the product."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from protocol.names import MessageClass

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=4000)]
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=LAST_MS)]
StepMs = Annotated[int, msgspec.Meta(ge=1, le=366 * 86_400_000)]


class Quality(StrEnum):
    """How far the plant itself trusts a value (OPC UA's three bands)."""

    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


class Observation(msgspec.Struct, frozen=True, gc=False):
    """One value of one signal. `initial` marks a retained value that was old when we subscribed."""

    machine: str
    signal: str
    time_ms: int
    value: float
    quality: Quality = Quality.GOOD
    unit: str = ""
    initial: bool = False


class SignalBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of one signal on a regular grid: `values[i]` is the mean of bucket
    [start_ms + i*step_ms, start_ms + (i+1)*step_ms), None where nothing was observed."""

    type_name: ClassVar[str] = "millwright.signal_block.v1"
    message_class: ClassVar[MessageClass] = MessageClass.BULK

    machine: Name
    signal: Name
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    start_ms: TimeMs
    step_ms: StepMs
    values: Annotated[list[float | None], msgspec.Meta(min_length=1, max_length=10_000)]


class WorkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A finished maintenance job: what was seen, what was wrong, what was done with which parts.

    `symptoms` are tokens such as `vibration:high`; `actions` and `parts` are item names without their prefix."""

    type_name: ClassVar[str] = "millwright.work_order.v1"
    message_class: ClassVar[MessageClass] = MessageClass.EVENT

    id: Name
    machine: Name
    machine_type: Annotated[str, msgspec.Meta(max_length=128)] = ""
    time_ms: TimeMs
    symptoms: Annotated[list[Name], msgspec.Meta(max_length=50)] = []
    failure_mode: Annotated[str, msgspec.Meta(max_length=128)] = ""
    actions: Annotated[list[Name], msgspec.Meta(max_length=50)] = []
    parts: Annotated[list[Name], msgspec.Meta(max_length=50)] = []
    note: Text = ""
