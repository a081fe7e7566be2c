"""What is to be made, on which machines, and the plan that comes of it: job shop, flexible job shop, machine calendars, due
dates, set-ups, and maintenance that must find its window.

Times are integer milliseconds; public benchmark instances without a unit are read as if theirs were 1 ms."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from protocol.names import MessageClass
from protocol.observations import Name, Text, TimeMs
from protocol.reports import ModelRef

DurationMs = Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400_000)]
MAX_JOBS, MAX_OPERATIONS, MAX_MACHINES = 2000, 200, 500


class Choice(msgspec.Struct, frozen=True):
    """One machine that can do an operation, and how long it takes there."""

    machine: Name
    duration_ms: DurationMs


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a job; it is not interrupted. `family`: what it needs the machine set up for ("": nothing)."""

    choices: Annotated[list[Choice], msgspec.Meta(min_length=1, max_length=200)]
    name: Annotated[str, msgspec.Meta(max_length=128)] = ""
    family: Annotated[str, msgspec.Meta(max_length=128)] = ""


class ShopJob(msgspec.Struct, frozen=True, kw_only=True):
    """Operations in their order. Not before release_ms and not before the jobs in `after` are finished; late after due_ms;
    `weight` is what an hour late costs beside the other jobs."""

    job: Name
    operations: Annotated[list[Operation], msgspec.Meta(min_length=1, max_length=MAX_OPERATIONS)]
    release_ms: TimeMs = 0
    due_ms: TimeMs | None = None
    weight: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 1.0
    after: Annotated[list[Name], msgspec.Meta(max_length=200)] = []


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """A machine does not work from start_ms to end_ms: night, weekend, breakdown (`because`)."""

    machine: Name
    start_ms: TimeMs
    end_ms: TimeMs
    because: Annotated[str, msgspec.Meta(max_length=128)] = ""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """Changing a machine from one family to another takes so long; `machine` "*": on every one. before "": from the start."""

    machine: Name = "*"
    before: Annotated[str, msgspec.Meta(max_length=128)] = ""
    after: Annotated[str, msgspec.Meta(max_length=128)]
    duration_ms: DurationMs


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    """Work on a machine that must begin between earliest_ms and latest_ms; `risk[i]` is the chance that the machine has
    failed by `risk_at_ms[i]` without it (what the window was derived from), `because` says so."""

    id: Name
    machine: Name
    duration_ms: DurationMs
    earliest_ms: TimeMs
    latest_ms: TimeMs
    risk_at_ms: Annotated[list[TimeMs], msgspec.Meta(max_length=100)] = []
    risk: Annotated[list[float], msgspec.Meta(max_length=100)] = []
    because: Annotated[str, msgspec.Meta(max_length=128)] = ""


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Operation number `operation` of a job on a machine from start_ms to end_ms; before it, `setup_ms` of set-up."""

    job: Name
    operation: Annotated[int, msgspec.Meta(ge=0, lt=MAX_OPERATIONS)]
    machine: Name
    start_ms: TimeMs
    end_ms: TimeMs
    setup_ms: DurationMs = 0


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a schedule must respect. `fixed`: what already runs or is done and stays where it is."""

    jobs: Annotated[list[ShopJob], msgspec.Meta(max_length=MAX_JOBS)]
    closed: Annotated[list[Closed], msgspec.Meta(max_length=10_000)] = []
    setups: Annotated[list[Setup], msgspec.Meta(max_length=10_000)] = []
    maintenance: Annotated[list[Maintenance], msgspec.Meta(max_length=1000)] = []
    fixed: Annotated[list[Placed], msgspec.Meta(max_length=10_000)] = []
    start_ms: TimeMs = 0


class PlacedMaintenance(msgspec.Struct, frozen=True, kw_only=True):
    """When a maintenance is done, the chance that the machine fails before, and what the window costs: how much later the
    last job ends than without it."""

    id: Name
    machine: Name
    start_ms: TimeMs
    end_ms: TimeMs
    risk_before: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    cost_ms: int = 0
    because: Annotated[str, msgspec.Meta(max_length=128)] = ""


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """A link of the critical path, last first: an operation (job, operation) or a maintenance (`maintenance`) that could not
    begin earlier because of `because`: "job" (its own previous step), "after" (a job that comes first), "machine" (who was
    there before), "closed", "setup", "maintenance", "release" (of its job or its window), "start", "slack" (nothing)."""

    job: Annotated[str, msgspec.Meta(max_length=128)] = ""
    operation: Annotated[int, msgspec.Meta(ge=0)] = 0
    maintenance: Annotated[str, msgspec.Meta(max_length=128)] = ""
    machine: Name
    start_ms: TimeMs
    end_ms: TimeMs
    because: Name


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that an independent check found to be feasible. `end_ms`: when the last job ends; `bound_ms`: before when no
    plan can end (0: unknown). `tardiness_ms`: weighted lateness over the jobs with a due date. `repairs`: id of the schedule
    that this one mends; `moved`: operations that changed machine or order against it. `answers`: chosen by people."""

    type_name: ClassVar[str] = "millwright.schedule.v1"
    message_class: ClassVar[MessageClass] = MessageClass.REPORT

    id: Name
    machine: Name = "*"
    issued_ms: TimeMs
    start_ms: TimeMs
    end_ms: TimeMs
    bound_ms: TimeMs = 0
    tardiness_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    late_jobs: Annotated[list[Name], msgspec.Meta(max_length=MAX_JOBS)] = []
    placed: Annotated[list[Placed], msgspec.Meta(max_length=20_000)]
    maintenance: Annotated[list[PlacedMaintenance], msgspec.Meta(max_length=1000)] = []
    closed: Annotated[list[Closed], msgspec.Meta(max_length=2000)] = []
    critical: Annotated[list[Waits], msgspec.Meta(max_length=2000)] = []
    repairs: Annotated[str, msgspec.Meta(max_length=128)] = ""
    moved: Annotated[int, msgspec.Meta(ge=0)] = 0
    because_en: Text = ""
    because_zh: Text = ""
    solver: ModelRef
