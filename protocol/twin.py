"""A gateway's state, its digital twin and its heartbeat. Twin documents are whole and versioned, never deltas."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from protocol.names import MessageClass
from protocol.observations import Name, Text, TimeMs


class Role(StrEnum):
    """A serving model's answers are shown. A shadow model runs beside it on live data and is only measured."""

    SERVING = "serving"
    SHADOW = "shadow"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """`state`, retained; the Will is the same document with online = false and the *same* timestamp, so that a late
    Will of an old session (timestamp below the birth's) is recognised."""

    online: bool
    timestamp: TimeMs
    boot_id: Name
    agent_version: Annotated[str, msgspec.Meta(max_length=64)]
    models: dict[str, int] = {}


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle that a gateway shall run in a slot. `path` is relative to the server's address; bytes travel over HTTP.
    `because` is for people: what led to this version."""

    slot: Name
    role: Role = Role.SERVING
    version: Annotated[int, msgspec.Meta(ge=1)]
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    path: Annotated[str, msgspec.Meta(pattern=r"^/[A-Za-z0-9._/-]{1,300}$")]
    because: Annotated[str, msgspec.Meta(max_length=500)] = ""


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """`twin/desired`, retained, written by the server. A version at or below the applied one is ignored."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    models: Annotated[list[Assignment], msgspec.Meta(max_length=100)] = []


class ModelStatus(StrEnum):
    FETCHING = "fetching"
    SERVING = "serving"
    SHADOW = "shadow"
    REFUSED = "refused"


class RunningModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot really runs. `results` counts answers since it was swapped in: a swap without results is no success.
    engine, engine_why: what runs its graph there (empty: it has none), and why that."""

    slot: Name
    role: Role
    algorithm: Annotated[str, msgspec.Meta(max_length=128)] = ""
    version: Annotated[int, msgspec.Meta(ge=0)]
    digest: Annotated[str, msgspec.Meta(max_length=64)] = ""
    status: ModelStatus
    since_ms: TimeMs
    results: Annotated[int, msgspec.Meta(ge=0)] = 0
    error: Text = ""
    engine: Text = ""
    engine_why: Text = ""


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """`twin/reported`, retained, written by the agent: which desired version is applied and what really runs."""

    applied_version: Annotated[int, msgspec.Meta(ge=0)]
    boot_id: Name
    time_ms: TimeMs
    models: Annotated[list[RunningModel], msgspec.Meta(max_length=100)] = []


class SkillHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Results per expected inputs: a skill that is up and answers nothing is not healthy."""

    expected: Annotated[int, msgspec.Meta(ge=0)]
    results: Annotated[int, msgspec.Meta(ge=0)]
    failures: Annotated[int, msgspec.Meta(ge=0)] = 0
    latency_us: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class LiveError(msgspec.Struct, frozen=True, kw_only=True):
    """How good forecasts turned out on this gateway: mean absolute error over `n` scored values, scaled by the mean
    absolute error of the naive forecast on the same values (MASE-like: below 1 beats it), and coverage of the 80 %
    interval; `by_horizon`: that of the near, the middle and the far third of the steps (empty: nothing scored)."""

    slot: Name
    algorithm: Name
    n: Annotated[int, msgspec.Meta(ge=0)]
    scaled_error: float
    coverage: float
    by_horizon: Annotated[list[float], msgspec.Meta(max_length=3)] = []


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Counted since boot. `counters` are named events (`intake.stored`, `quarantine.no_time_zone`, …)."""

    type_name: ClassVar[str] = "millwright.heartbeat.v1"
    message_class: ClassVar[MessageClass] = MessageClass.METRIC

    boot_id: Name
    time_ms: TimeMs
    uptime_s: Annotated[float, msgspec.Meta(ge=0)]
    rss_bytes: Annotated[int, msgspec.Meta(ge=0)]
    counters: dict[str, int] = {}
    skills: dict[str, SkillHealth] = {}
    live_errors: list[LiveError] = []
    outbox: dict[str, int] = {}
