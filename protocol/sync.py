"""Batches up, acknowledgements down. At least once on the wire, exactly once in the database.

Every message of a class has the next sequence number of that class on that gateway, never reused. The server answers
`dn/ack` after its database commit, and only that frees the gateway's outbox; PUBACK is not delivery.

A gateway that was installed anew has an outbox that counts from 1 again. Its `Numbering` is another, so the server takes
nothing of it for what it has already: it answers with the highest number it knows, and the outbox begins beyond that."""

from __future__ import annotations

from typing import Annotated, TypeVar, get_args

import msgspec

from protocol.catalogue import ItemCard
from protocol.clocks import ClockConfidence, ClockCorrection
from protocol.covariates import KnownInput
from protocol.errors import BadMessage, Reason
from protocol.feedback import Feedback
from protocol.names import MessageClass
from protocol.observations import Name, SignalBlock, TimeMs, WorkOrder
from protocol.plans import Design, WorkPlan
from protocol.purchases import PurchaseProposal, StockLevel
from protocol.reading.notes import Note, NoteReading
from protocol.reports import (
    DemandForecast,
    FaultEvent,
    FaultRisk,
    Forecast,
    ForecastExplanation,
    Recommendation,
    RemainingLife,
    Report,
    SupplyRisk,
)
from protocol.schedules import Schedule
from protocol.twin import Heartbeat
from protocol.unreadable import UNREADABLE

MAX_BATCH_BYTES = 1_000_000
MAX_BATCH_MESSAGES = 500
MAX_RANGES = 1000
Sequence = Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
SequenceRange = tuple[Sequence, Sequence]
"""First and last, both included."""

Statement = (
    KnownInput
    | DemandForecast
    | ForecastExplanation
    | FaultRisk
    | SupplyRisk
    | RemainingLife
    | ItemCard
    | StockLevel
    | PurchaseProposal
    | Schedule
    | Note
    | NoteReading
    | WorkPlan
    | Design
    | ClockCorrection
)
"""What the server keeps as it was said, found by type, machine and subject, without columns of its own."""
Message = SignalBlock | WorkOrder | Forecast | FaultEvent | Recommendation | Report | Feedback | Heartbeat | Statement
MESSAGE_TYPES: dict[str, type[Message]] = {t.type_name: t for t in get_args(Message)}
"""Wire name -> Struct. An unknown name is quarantined by the server, never dropped."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """CloudEvents 1.0, structured mode, with four extension attributes: mwseq, mwboot, mwclock, mwmono.
    `id` is `{gateway}/{class}/{seq}`; `source` is `{site}/{gateway}`; `time` is when it entered the outbox, by a clock that
    is as sure as mwclock says. mwmono is the same moment on a clock that never jumps, in milliseconds, comparable within one
    mwboot: with it a time that was wrong can be put right later."""

    specversion: Annotated[str, msgspec.Meta(pattern="^1\\.0$")] = "1.0"
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    type: Name
    time: TimeMs
    mwseq: Sequence
    mwboot: Name
    mwclock: ClockConfidence
    data: msgspec.Raw
    mwmono: Annotated[int, msgspec.Meta(ge=0, lt=2**62)] | None = None


class Refusal(msgspec.Struct, frozen=True):
    """One message that will never be stored as what it claims to be. From the server: it was quarantined, do not send it
    again. From a gateway: it was given up after many attempts over a live link, do not wait for it."""

    seq: Sequence
    reason: Name


class Numbering(msgspec.Struct, frozen=True):
    """Who gives a class its numbers. id: random, another one whenever an outbox begins to count; since: its first number."""

    id: Name
    since: Sequence = 1


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of one class, ascending by mwseq. `shed` are ranges the gateway gave up by rule when its disk was full,
    `dead` single messages that no attempt brought across: they will never come, and the server counts them instead of
    waiting. A batch with nothing in it is a canary: it is answered like any other, and so proves the way there and back.
    numbering: null from a gateway whose outbox is of a version without it."""

    envelopes: Annotated[list[Envelope], msgspec.Meta(max_length=MAX_BATCH_MESSAGES)]
    shed: Annotated[list[SequenceRange], msgspec.Meta(max_length=MAX_RANGES)] = []
    dead: Annotated[list[Refusal], msgspec.Meta(max_length=MAX_BATCH_MESSAGES)] = []
    numbering: Numbering | None = None


class ClassAck(msgspec.Struct, frozen=True, kw_only=True):
    """Everything up to and including `upto` is committed (stored, quarantined or counted as shed).
    `beyond` are committed ranges after a gap, the last one always among them; `gaps` are the ranges missing between them.

    numbering: whose numbers these are; they say nothing about those of another outbox. foreign: nothing of a batch with this
    numbering was taken, for it begins at numbers that are another's: begin beyond the highest number here."""

    upto: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    beyond: Annotated[list[SequenceRange], msgspec.Meta(max_length=MAX_RANGES)] = []
    gaps: Annotated[list[SequenceRange], msgspec.Meta(max_length=MAX_RANGES)] = []
    nack: Annotated[list[Refusal], msgspec.Meta(max_length=MAX_BATCH_MESSAGES)] = []
    numbering: Name | None = None
    foreign: Name | None = None

    @property
    def highest(self) -> int:
        """The highest number that is committed, 0 if none is."""
        return self.beyond[-1][1] if self.beyond else self.upto


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """The server's answer on `dn/ack`. Classes that are absent are unchanged. `rate` is how many messages per second the
    server offers this gateway from now on; null: no limit. time: the server's own, as evidence for a gateway whose clock
    nothing disciplines."""

    classes: dict[MessageClass, ClassAck]
    rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    time: TimeMs | None = None


class Resend(msgspec.Struct, frozen=True, kw_only=True):
    """`dn/resend`: please send these ranges again."""

    classes: dict[MessageClass, Annotated[list[SequenceRange], msgspec.Meta(max_length=MAX_RANGES)]]


HEARTBEAT, ANSWER, NOTE = "heartbeat", "answer", "note"
"""Commands: say how it goes at once; take this Feedback or this Note, which was given on the server's console, as if given
here."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """`dn/cmd`: one instruction. After `expires_ms` it is refused, however late the link comes back."""

    id: Name
    name: Name
    expires_ms: TimeMs
    arguments: msgspec.Raw


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """`up/reply`: what became of a command. `reason` is empty when `done`."""

    id: Name
    done: bool
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""
    result: msgspec.Raw


T = TypeVar("T")
_encoder = msgspec.json.Encoder()
_decoders: dict[type, msgspec.json.Decoder[object]] = {}


def encode(message: msgspec.Struct | list[SequenceRange]) -> bytes:
    """The bytes of `message` as the wire has them (JSON, UTF-8). JSON has no NaN: a NaN or infinity becomes null, which
    only SignalBlock.values admits on the other side."""
    return _encoder.encode(message)


def decode(
    payload: bytes | bytearray | memoryview | msgspec.Raw, into: type[T], limit_bytes: int = MAX_BATCH_BYTES
) -> T:
    """Reads `payload` strictly as `into`; raises BadMessage with a reason that can be counted."""
    size = len(memoryview(payload))
    if size > limit_bytes:
        raise BadMessage(Reason.TOO_LARGE, f"{into.__name__} of {size} bytes; the limit is {limit_bytes}")
    decoder = _decoders.get(into)
    if decoder is None:
        decoder = _decoders[into] = msgspec.json.Decoder(into)
    try:
        return decoder.decode(payload)  # type: ignore[return-value]
    except msgspec.ValidationError as error:
        raise BadMessage(Reason.WRONG_TYPE, f"{into.__name__}: {error}") from error
    except UNREADABLE as error:
        raise BadMessage(Reason.MALFORMED_JSON, f"{into.__name__}: {error}") from error


def decode_message(type_name: str, data: msgspec.Raw) -> Message:
    """The message inside an envelope; raises BadMessage (unknown_type, wrong_type, malformed_json)."""
    into = MESSAGE_TYPES.get(type_name)
    if into is None:
        raise BadMessage(
            Reason.UNKNOWN_TYPE, f"{type_name!r} is not a message of protocol v1; update the server or drop the sender"
        )
    return decode(data, into)


def envelope(
    message: Message,
    *,
    site: str,
    gateway: str,
    seq: int,
    boot: str,
    clock: ClockConfidence,
    time_ms: int,
    monotonic_ms: int | None = None,
) -> Envelope:
    """Wraps `message` for its class's lane."""
    return Envelope(
        id=f"{gateway}/{message.message_class}/{seq}",
        source=f"{site}/{gateway}",
        type=message.type_name,
        time=time_ms,
        mwseq=seq,
        mwboot=boot,
        mwclock=clock,
        data=msgspec.Raw(encode(message)),
        mwmono=monotonic_ms,
    )
