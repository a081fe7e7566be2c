"""Known future inputs of a forecast: what is planned, ordered, read or agreed becomes a column beside the signal.

An accepted schedule, an accepted purchase, a failure mode read from a note: each is a `KnownInput`, and a forecast made at
an origin sees exactly what was known by then. A later version of the same id replaces the earlier from the moment that it
became known; a withdrawn one ends it. So a window of last month is built as a forecaster of last month would have seen it,
and nothing of the future leaks into training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from protocol.feedback import Feedback, Verdict
from protocol.names import MessageClass, stable_id
from protocol.observations import Name, TimeMs, WorkOrder
from protocol.purchases import PurchaseProposal, ordered_quantity
from protocol.reading.corrections import said_of
from protocol.reading.notes import About, NoteReading
from protocol.reports import FaultEvent, Recommendation
from protocol.schedules import Schedule
from protocol.windows import Floats

EVERY_MACHINE = "*"
HOUR_MS = 3_600_000
MAX_COVARIATES = 8


class Source(StrEnum):
    """Where a known input comes from."""

    CALENDAR = "calendar"
    SCHEDULE = "schedule"
    PURCHASE = "purchase"
    NOTE = "note"
    REPORT = "report"
    WORK_ORDER = "work_order"


class KnownInput(msgspec.Struct, frozen=True, kw_only=True):
    """`covariate` has `value` on a machine ("*": on every one of the gateway) from start_ms to end_ms; where both are the
    same instant, `value` is an amount that arrives then. Known since `known_ms`; `origin` is the id of the schedule,
    purchase, note or report behind it. The same id told again with a later `known_ms` is a new version."""

    type_name: ClassVar[str] = "millwright.known_input.v1"
    message_class: ClassVar[MessageClass] = MessageClass.EVENT

    id: Name
    machine: Name
    covariate: Name
    start_ms: TimeMs
    end_ms: TimeMs
    known_ms: TimeMs
    value: Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)] = 1.0
    source: Source
    origin: Annotated[str, msgspec.Meta(max_length=128)] = ""
    withdrawn: bool = False


Standing = tuple[KnownInput, int]
"""A version of a known input, and until when it stands (ms)."""
KnownReader = Callable[[str, Sequence[str], NDArray[np.int64], int, int, int], Floats]
"""(machine, covariates, origins [N], step_ms, buckets before, buckets ahead) -> [N, C, before + ahead], as of `columns`."""


def nothing_known(
    _machine: str, covariates: Sequence[str], origins_ms: NDArray[np.int64], _step_ms: int, before: int, ahead: int
) -> Floats:
    """The reader of a gateway that was told nothing of its machines' future."""
    return np.zeros((len(origins_ms), len(covariates), before + ahead))


def columns(
    inputs: Sequence[KnownInput],
    covariates: Sequence[str],
    machine: str,
    origins_ms: NDArray[np.int64],
    step_ms: int,
    before: int,
    ahead: int,
) -> Floats:
    """What was known at each origin about the `before` buckets up to it and the `ahead` buckets after it:
    [N, C, before + ahead]. A span counts with the share of the bucket that it covers, an amount in the bucket that it falls
    in; where nothing was known the column is 0."""
    return reader(inputs)(machine, covariates, origins_ms, step_ms, before, ahead)


def reader(inputs: Sequence[KnownInput]) -> KnownReader:
    """A reader of known inputs that no longer change: each machine's are put in order once."""
    ordered: dict[str, list[Standing]] = {}

    def read(
        machine: str, covariates: Sequence[str], origins_ms: NDArray[np.int64], step_ms: int, before: int, ahead: int
    ) -> Floats:
        if machine not in ordered:
            ordered[machine] = standing(known for known in inputs if known.machine in (machine, EVERY_MACHINE))
        return columns_of(ordered[machine], covariates, origins_ms, step_ms, before, ahead)

    return read


def columns_of(
    stands: Iterable[Standing],
    covariates: Sequence[str],
    origins_ms: NDArray[np.int64],
    step_ms: int,
    before: int,
    ahead: int,
) -> Floats:
    """The same from versions that were put in order once (`standing`), all of one machine."""
    out = np.zeros((len(origins_ms), len(covariates), before + ahead))
    if not len(origins_ms):
        return out
    place = {name: c for c, name in enumerate(covariates)}
    edges = np.arange(before + ahead)
    oldest, newest = int(origins_ms.min()), int(origins_ms.max())
    begin_ms, end_ms = oldest - before * step_ms, newest + ahead * step_ms
    for known, until_ms in stands:
        column = place.get(known.covariate)
        late, over = known.known_ms > newest or known.start_ms >= end_ms, until_ms <= oldest or known.end_ms < begin_ms
        if column is None or late or over:
            continue
        rows = np.flatnonzero((origins_ms >= known.known_ms) & (origins_ms < until_ms))
        first_ms = origins_ms[rows] - before * step_ms
        low = (known.start_ms - first_ms)[:, None] / step_ms
        if known.end_ms > known.start_ms:
            high = (known.end_ms - first_ms)[:, None] / step_ms
            share = np.clip(np.minimum(high, edges + 1) - np.maximum(low, edges), 0.0, 1.0)
        else:
            share = (np.floor(low) == edges).astype(np.float64)
        out[rows, column] += known.value * share
    return out


def standing(inputs: Iterable[KnownInput]) -> list[Standing]:
    """(version, until when it stands): from its own known_ms to that of the next version of the same id."""
    by_id: dict[tuple[str, str], list[KnownInput]] = {}
    for known in inputs:
        by_id.setdefault((known.machine, known.id), []).append(known)
    found: list[Standing] = []
    for versions in by_id.values():
        versions.sort(key=lambda known: known.known_ms)
        ends = [*(known.known_ms for known in versions[1:]), np.iinfo(np.int64).max]
        found += [(known, int(end)) for known, end in zip(versions, ends, strict=True) if not known.withdrawn]
    return found


def worth_learning(inputs: Sequence[KnownInput], least: int = 8) -> list[str]:
    """Covariates told of at least `least` times, most often first, names breaking ties: a column that was hardly ever
    anything but 0 teaches a model nothing but noise."""
    count: dict[str, set[str]] = {}
    for known in inputs:
        count.setdefault(known.covariate, set()).add(known.id)
    often = sorted((name for name in count if len(count[name]) >= least), key=lambda name: (-len(count[name]), name))
    return often[:MAX_COVARIATES]


def token(text: str) -> str:
    """A failure mode, an action or a part as part of a covariate's name."""
    return "-".join(text.strip().lower().split())[:100]


def failure_read(
    machine: str, failure_mode: str, seen_ms: int, source: Source, origin: str, *, lasts_ms: int = 12 * HOUR_MS
) -> KnownInput:
    """generate -> forecast: a failure mode that was read in a note or stands in a report, from the moment it was read."""
    return KnownInput(
        id=stable_id("known", "failure", machine, origin, token(failure_mode)),
        machine=machine,
        covariate=f"event:{token(failure_mode)}",
        start_ms=seen_ms,
        end_ms=seen_ms + lasts_ms,
        known_ms=seen_ms,
        source=source,
        origin=origin,
    )


def from_work_order(order: WorkOrder) -> KnownInput | None:
    """The failure mode of a work order; None if it names none."""
    if not order.failure_mode:
        return None
    return failure_read(order.machine, order.failure_mode, order.time_ms, Source.WORK_ORDER, order.id)


def from_reading(reading: NoteReading) -> list[KnownInput]:
    """generate -> forecast: the failure mode that a reader is sure to have read in a note; nothing where it is not sure."""
    return [
        failure_read(reading.machine, judged.classes[0].name, reading.issued_ms, Source.NOTE, reading.note)
        for judged in reading.judged
        if judged.about is About.FAILURE and judged.sure
    ]


def from_correction(answer: Feedback, reading: NoteReading) -> list[KnownInput]:
    """A person said what a note really tells of: what was read is withdrawn, and the right mode stands from then on. An
    acceptance makes sure what the reader was not sure of."""
    was = [judged.classes[0].name for judged in reading.judged if judged.about is About.FAILURE]
    right = said_of(reading, [answer]).get(About.FAILURE)
    out = [
        structs.replace(
            failure_read(reading.machine, mode, reading.issued_ms, Source.NOTE, reading.note),
            known_ms=answer.time_ms,
            withdrawn=True,
        )
        for mode in was
        if right != mode
        and answer.verdict in (Verdict.CORRECTED, Verdict.REJECTED)
        and answer.item in ("", About.FAILURE)
    ]
    if right is not None:
        told = failure_read(reading.machine, right, reading.issued_ms, Source.NOTE, reading.note)
        out.append(structs.replace(told, known_ms=answer.time_ms))
    return out


def from_event(event: FaultEvent) -> list[KnownInput]:
    """What a fault report tells of: one input a symptom, while the event lasts (its end is not known yet when it opens)."""
    return [
        KnownInput(
            id=stable_id("known", "symptom", event.machine, event.id, symptom),
            machine=event.machine,
            covariate=f"event:{token(symptom)}",
            start_ms=event.start_ms,
            end_ms=event.end_ms or event.detected_ms + 12 * HOUR_MS,
            known_ms=event.end_ms or event.detected_ms,
            source=Source.REPORT,
            origin=event.id,
        )
        for symptom in event.symptoms
    ]


def from_answer(
    answer: Feedback,
    shown: Recommendation,
    *,
    delivery_ms: int = 24 * HOUR_MS,
    starts_ms: int = 0,
    lasts_ms: int = HOUR_MS,
) -> list[KnownInput]:
    """recommend -> forecast: what people accepted of a list. An accepted part is a purchase that arrives `delivery_ms`
    later; an accepted action is work on the machine from `starts_ms` later on, for `lasts_ms`. An answer without an item
    accepts the first of the list."""
    if answer.verdict is not Verdict.ACCEPTED or not shown.items:
        return []
    kind, _, name = (answer.item or shown.items[0].item).partition(":")
    if kind not in ("part", "action"):
        return []
    bought = kind == "part"
    start = answer.time_ms + (delivery_ms if bought else starts_ms)
    return [
        KnownInput(
            id=stable_id("known", kind, shown.machine, shown.id, name),
            machine=shown.machine,
            covariate=f"{'delivery' if bought else 'work'}:{token(name)}",
            start_ms=start,
            end_ms=start if bought else start + lasts_ms,
            known_ms=answer.time_ms,
            source=Source.PURCHASE if bought else Source.SCHEDULE,
            origin=answer.id,
        )
    ]


def from_schedule(answer: Feedback, plan: Schedule) -> list[KnownInput]:
    """recommend -> forecast: an accepted plan tells when each machine will be busy, work that follows at once as one span."""
    if answer.verdict is not Verdict.ACCEPTED:
        return []
    spans: dict[str, list[tuple[int, int]]] = {}
    for placed in sorted(plan.placed, key=lambda p: p.start_ms):
        of_machine = spans.setdefault(placed.machine, [])
        if of_machine and placed.start_ms - of_machine[-1][1] <= HOUR_MS // 4:
            of_machine[-1] = (of_machine[-1][0], max(of_machine[-1][1], placed.end_ms))
        else:
            of_machine.append((placed.start_ms, placed.end_ms))
    return [
        KnownInput(
            id=stable_id("known", "busy", machine, plan.id, start),
            machine=machine,
            covariate="busy",
            start_ms=start,
            end_ms=end,
            known_ms=answer.time_ms,
            source=Source.SCHEDULE,
            origin=plan.id,
        )
        for machine, of_machine in sorted(spans.items())
        for start, end in of_machine
    ]


def from_purchase(answer: Feedback, proposal: PurchaseProposal) -> list[KnownInput]:
    """recommend -> forecast: an accepted purchase is an amount that arrives. A corrected one counts with the corrected
    quantity, if that is a whole number."""
    quantity = ordered_quantity(answer, proposal)
    if not quantity:
        return []
    return [
        KnownInput(
            id=stable_id("known", "purchase", proposal.machine, proposal.id),
            machine=proposal.machine,
            covariate=f"delivery:{token(proposal.part)}",
            start_ms=proposal.arrives_ms,
            end_ms=proposal.arrives_ms,
            known_ms=answer.time_ms,
            value=float(quantity),
            source=Source.PURCHASE,
            origin=answer.id,
        )
    ]
