"""A synced batch is stored exactly once. A batch seen twice is acknowledged twice and stored once.

Rows and the ledger that says they are there move in one transaction. What cannot be stored as what it claims to be goes to
quarantine with its reason, counts as received, and is named in the acknowledgement."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, delete, select, tuple_
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from protocol.catalogue import ItemCard
from protocol.clocks import ClockCorrection
from protocol.covariates import KnownInput
from protocol.errors import BadMessage, Reason, Refused
from protocol.feedback import Feedback
from protocol.names import MessageClass
from protocol.observations import SignalBlock, WorkOrder
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
from protocol.sync import (
    MAX_RANGES,
    Batch,
    ClassAck,
    Envelope,
    Message,
    Refusal,
    Reply,
    Statement,
    decode,
    decode_message,
)
from protocol.twin import Heartbeat, Reported, State
from server import feedback as answers
from server import ranges
from server.catalogues import Catalogues, read_back
from server.database import (
    EventRow,
    ForecastRow,
    Gateway,
    LedgerRow,
    QuarantineRow,
    RecommendationRow,
    ReplyRow,
    ReportRow,
    SignalBlockRow,
    StatementRow,
    WorkOrderRow,
)
from server.given_up import GivenUp
from server.many_rows import Came, Rows, refuses

MAX_QUARANTINED_BYTES = 64 * 1024
REPLIES_KEPT_MS = 30 * 86_400_000
BUILT_IN_ONLY = Catalogues()
_NUL = b"\\u0000"
_NUL_ITSELF = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""JSON may say it, PostgreSQL's text may not hold it."""


def store_batch(
    session: Session,
    site: str,
    gateway: str,
    message_class: MessageClass,
    payload: bytes,
    now_ms: int,
    catalogues: Catalogues = BUILT_IN_ONLY,
    *,
    one_by_one: bool = False,
) -> ClassAck:
    """One batch in the session's transaction; see `Taking`."""
    taking = Taking(session, now_ms, catalogues, one_by_one=one_by_one)
    ack = taking.batch(site, gateway, message_class, payload)
    taking.finish()
    return ack


class Taking:
    """The batches of one transaction, in the order in which they came. What they append is written by `finish`, and each
    gateway's row and ledger are read once: round trips to the database are what a server's intake waits for.

    A report that does not say what its facts say is refused; `catalogues` are those it may have been written with.
    `one_by_one`: what the database itself refuses goes to quarantine alone; slower, for a transaction that failed."""

    def __init__(
        self, session: Session, now_ms: int, catalogues: Catalogues = BUILT_IN_ONLY, *, one_by_one: bool = False
    ) -> None:
        self.session = session
        self._now_ms = now_ms
        self._catalogues = catalogues
        self._keep = store_alone if one_by_one else store
        self._rows = Rows(session)
        self._gateways: dict[str, Gateway] = {}
        self._ledgers: dict[tuple[str, MessageClass], LedgerRow] = {}

    def expect(self, lanes: Collection[tuple[str, MessageClass]]) -> None:
        """Reads the rows of these (gateway, class) at once, locked in one order; without it, each when it is needed."""
        names = {gateway for gateway, _ in lanes}
        self._gateways |= {row.id: row for row in self.session.scalars(select(Gateway).where(Gateway.id.in_(names)))}
        key = LedgerRow.gateway, LedgerRow.message_class
        wanted = tuple_(*key).in_([(gateway, lane.value) for gateway, lane in lanes])
        for row in self.session.scalars(select(LedgerRow).where(wanted).order_by(*key).with_for_update()):
            self._ledgers[row.gateway, MessageClass(row.message_class)] = row

    def batch(self, site: str, gateway: str, message_class: MessageClass, payload: bytes) -> ClassAck:
        """Stores what is new of one batch; the answer holds once `finish` was called and the session has committed. Raises
        BadMessage if the batch itself cannot be read: then nothing in it has a number, and nothing is acknowledged. A message
        that comes after its number was given up is stored. Nothing is taken of a batch whose numbers another outbox gave."""
        batch = decode(payload, Batch)
        if any(first > last for first, last in batch.shed):
            raise BadMessage(Reason.WRONG_TYPE, "Batch: a shed range ends before it begins")
        self._gateway(site, gateway).last_data_ms = self._now_ms
        ledger = self._ledger(gateway, message_class)
        beyond = [(int(a), int(b)) for a, b in ledger.beyond]
        given_up = GivenUp.of(ledger)
        upto, highest = ledger.upto, beyond[-1][1] if beyond else ledger.upto
        replaced: list[ranges.Range] = []
        if batch.numbering is not None and batch.numbering.id != ledger.numbering:
            if batch.numbering.since <= highest:
                return _answer(ledger, beyond, foreign=batch.numbering.id)
            replaced = given_up.replaced(ranges.told(upto, beyond), batch.numbering.since)
            ledger.numbering = batch.numbering.id
        arrived: set[int] = set()
        nack: list[Refusal] = []
        stored = 0
        strange = _NUL in payload
        for envelope in batch.envelopes:
            seq = envelope.mwseq
            known = seq <= highest and ranges.holds(seq, upto, beyond) and not given_up.holds(seq)
            if known or seq in arrived:
                continue
            try:
                if strange:
                    _check_text(envelope.type, bytes(envelope.data))
                stored += self._keep(self._rows, gateway, envelope, self._now_ms, self._catalogues)
            except Refused as why:
                body = msgspec.json.encode(envelope)
                quarantine(self.session, gateway, message_class.value, seq, why, body, self._now_ms)
                nack.append(Refusal(seq, why.reason.value))
            arrived.add(seq)
        ledger.stored += stored
        ledger.quarantined += len(nack)
        ledger.duplicates += len(batch.envelopes) - stored - len(nack)
        here = ranges.union((seq, seq) for seq in arrived)
        given_up.settle(ranges.told(upto, beyond), here, batch.shed, batch.dead)
        dead = [(one.seq, one.seq) for one in batch.dead]
        ledger.upto, left = ranges.settle(upto, [*beyond, *replaced, *here, *batch.shed, *dead])
        ledger.beyond = [list(r) for r in left]
        given_up.keep(ledger)
        ledger.bytes += len(payload)
        return _answer(ledger, left, nack)

    def finish(self) -> None:
        """Writes what was appended; call before the commit."""
        self._rows.write()

    def _gateway(self, site: str, gateway: str) -> Gateway:
        row = self._gateways.get(gateway)
        if row is None:
            row = self._gateways[gateway] = heard_of(self.session, site, gateway)
        return row

    def _ledger(self, gateway: str, message_class: MessageClass) -> LedgerRow:
        row = self._ledgers.get((gateway, message_class))
        if row is None:
            row = self._ledgers[gateway, message_class] = _ledger(self.session, gateway, message_class)
        return row


def _answer(
    ledger: LedgerRow, beyond: list[ranges.Range], nack: list[Refusal] | None = None, foreign: str | None = None
) -> ClassAck:
    """What the ledger says. Of too many ranges the last one stays: it has the highest number."""
    shown = beyond if len(beyond) <= MAX_RANGES else [*beyond[: MAX_RANGES - 1], beyond[-1]]
    return ClassAck(
        upto=ledger.upto,
        beyond=shown,
        gaps=ranges.gaps(ledger.upto, beyond)[:MAX_RANGES],
        nack=nack or [],
        numbering=ledger.numbering,
        foreign=foreign,
    )


def store(rows: Rows, gateway: str, envelope: Envelope, now_ms: int, catalogues: Catalogues = BUILT_IN_ONLY) -> bool:
    """One message; False if the same thing was told before under another number. Raises Refused."""
    message = decode_message(envelope.type, envelope.data)
    if isinstance(message, Report):
        read_back(message, catalogues, _recommended(rows.session, gateway, message.recommendation))
    return _keep(rows, message, Came(gateway, envelope.mwseq, envelope.time, now_ms))


def _check_text(what: str, payload: bytes) -> None:
    """Raises BadMessage for the one character that a JSON text may hold and a database's may not."""
    if _NUL in payload and _NUL_ITSELF.search(payload):
        raise BadMessage(Reason.WRONG_TYPE, f"{what} holds the character NUL, which no text may")


def store_alone(rows: Rows, gateway: str, envelope: Envelope, now_ms: int, catalogues: Catalogues) -> bool:
    """The same behind a savepoint: what the database refuses is refused, and nothing else is lost with it."""
    try:
        with rows.session.begin_nested():
            kept = store(rows, gateway, envelope, now_ms, catalogues)
            rows.write()
            return kept
    except DBAPIError as error:
        rows.clear()
        if not refuses(error):
            raise
        raise Refused(Reason.NOT_STORABLE, f"{envelope.type}: the database refuses it: {error.orig}") from error


def _recommended(session: Session, gateway: str, recommendation: str) -> list[Recommendation]:
    """The list that a report speaks of, if it is here: it went up before the report."""
    r = RecommendationRow
    query = select(r.body).where(r.gateway == gateway, r.recommendation_id == recommendation).limit(1)
    body = session.scalar(query) if recommendation else None
    return [] if body is None else [msgspec.convert(body, Recommendation)]


def _keep(rows: Rows, message: Message, came: Came) -> bool:
    match message:
        case SignalBlock():
            m = message
            rows.add(SignalBlockRow, came, (m.machine, m.signal, m.unit, m.start_ms, m.step_ms, m.values))
            return True
        case Forecast():
            rows.add(ForecastRow, came, (message.machine, message.signal, message.issued_ms, message))
            return True
    session, gateway, arrived = rows.session, came.gateway, came._asdict()
    match message:
        case RemainingLife():
            return _keep_statement(session, message, message.unit, message.issued_ms, arrived)
        case FaultEvent():
            _keep_event(session, message, arrived)
        case WorkOrder():
            if _seen(session, WorkOrderRow, gateway, WorkOrderRow.order_id == message.id):
                return False
            body = msgspec.to_builtins(message)
            session.add(
                WorkOrderRow(
                    **arrived, order_id=message.id, machine=message.machine, time_ms=message.time_ms, body=body
                )
            )
            session.flush()
        case Recommendation():
            if _seen(session, RecommendationRow, gateway, RecommendationRow.recommendation_id == message.id):
                return False
            session.add(
                RecommendationRow(
                    **arrived,
                    recommendation_id=message.id,
                    event_id=message.event,
                    machine=message.machine,
                    issued_ms=message.issued_ms,
                    body=msgspec.to_builtins(message),
                )
            )
            session.flush()
            answers.meet(session, gateway, message.id, "recommendation")
        case Report():
            if _seen(session, ReportRow, gateway, ReportRow.report_id == message.id):
                return False
            session.add(
                ReportRow(
                    **arrived,
                    report_id=message.id,
                    event_id=message.event,
                    machine=message.machine,
                    issued_ms=message.issued_ms,
                    body=msgspec.to_builtins(message),
                )
            )
            session.flush()
            answers.meet(session, gateway, message.id, "report")
        case Feedback():
            return answers.store(session, message, gateway, came.seq, came.stored_ms)
        case FaultRisk():
            return _keep_statement(session, message, message.component, message.issued_ms, arrived)
        case SupplyRisk():
            return _keep_statement(session, message, message.order_line, message.issued_ms, arrived)
        case KnownInput():
            return _keep_statement(session, message, message.covariate, message.known_ms, arrived)
        case DemandForecast():
            return _keep_statement(session, message, message.part, message.issued_ms, arrived)
        case ForecastExplanation():
            return _keep_statement(session, message, message.signal, message.issued_ms, arrived)
        case ItemCard():
            return _keep_statement(session, message, message.item, message.issued_ms, arrived)
        case StockLevel():
            return _keep_statement(session, message, message.part, message.time_ms, arrived)
        case PurchaseProposal():
            kept = _keep_statement(session, message, message.part, message.issued_ms, arrived)
            answers.meet(session, gateway, message.id, "purchase")
            return kept
        case Schedule():
            kept = _keep_statement(session, message, message.solver.algorithm, message.issued_ms, arrived)
            answers.meet(session, gateway, message.id, "schedule")
            return kept
        case Note():
            return _keep_statement(session, message, message.about, message.time_ms, arrived)
        case NoteReading():
            kept = _keep_statement(session, message, message.note, message.issued_ms, arrived)
            answers.meet(session, gateway, message.id, "reading")
            return kept
        case WorkPlan():
            about = message.product or message.action
            return _keep_statement(session, message, about, message.issued_ms, arrived)
        case Design():
            return _keep_statement(session, message, message.family, message.issued_ms, arrived)
        case ClockCorrection():
            return _keep_statement(session, message, message.boot, message.issued_ms, arrived)
        case Heartbeat():
            row = session.get_one(Gateway, gateway)
            row.heartbeat = msgspec.to_builtins(message)
    return True


def _keep_event(session: Session, event: FaultEvent, arrived: dict[str, Any]) -> None:
    row = session.scalar(select(EventRow).where(EventRow.gateway == arrived["gateway"], EventRow.event_id == event.id))
    if row is None:
        row = EventRow(**arrived, event_id=event.id, machine=event.machine, signal=event.signal, kind=event.kind)
        session.add(row)
    row.severity, row.start_ms, row.body = event.severity.value, event.start_ms, msgspec.to_builtins(event)
    row.end_ms = event.end_ms
    session.flush()


def _keep_statement(session: Session, message: Statement, subject: str, time_ms: int, arrived: dict[str, Any]) -> bool:
    kind = message.type_name
    same = (StatementRow.type == kind) & (StatementRow.statement_id == message.id) & (StatementRow.time_ms == time_ms)
    if _seen(session, StatementRow, str(arrived["gateway"]), same):
        return False
    row = StatementRow(
        **arrived,
        type=kind,
        statement_id=message.id,
        machine=message.machine,
        subject=subject,
        time_ms=time_ms,
        body=msgspec.to_builtins(message),
    )
    session.add(row)
    session.flush()
    return True


def _seen(
    session: Session,
    table: type[WorkOrderRow | RecommendationRow | ReportRow | StatementRow],
    gateway: str,
    same: ColumnElement[bool],
) -> bool:
    return session.scalar(select(table.id).where(table.gateway == gateway, same).limit(1)) is not None


def quarantine(
    session: Session, gateway: str, message_class: str, seq: int | None, why: Refused, payload: bytes, now_ms: int
) -> None:
    """Keeps what was refused, cut to a bound, with its reason."""
    session.add(
        QuarantineRow(
            gateway=gateway,
            message_class=message_class,
            seq=seq,
            reason=why.reason.value,
            detail=why.detail[:1000],
            payload=payload[:MAX_QUARANTINED_BYTES],
            stored_ms=now_ms,
        )
    )


def heard_of(session: Session, site: str, gateway: str) -> Gateway:
    """The gateway's row; made at its first word."""
    row = session.get(Gateway, gateway)
    if row is None:
        row = Gateway(id=gateway, site=site, desired={}, reported={}, heartbeat={})
        session.add(row)
        session.flush()
    return row


def take_state(session: Session, site: str, gateway: str, payload: bytes) -> None:
    """Birth or Will; a late Will of an old session is recognised by its timestamp."""
    state = decode(payload, State, limit_bytes=10_000)
    _check_text("State", payload)
    row = heard_of(session, site, gateway)
    if not state.online and state.timestamp < row.birth_ms:
        return
    row.online, row.birth_ms = state.online, max(state.timestamp, row.birth_ms)
    row.boot_id, row.agent_version = state.boot_id, state.agent_version


def take_reported(session: Session, site: str, gateway: str, payload: bytes) -> None:
    """The gateway's own word on what runs."""
    reported = decode(payload, Reported, limit_bytes=100_000)
    heard_of(session, site, gateway).reported = msgspec.to_builtins(reported)


def take_reply(session: Session, site: str, gateway: str, payload: bytes, now_ms: int) -> None:
    """What became of a command. The newest word counts, but what was done stays done: a command is told again after a
    reconnection, and may be too late then. Replies of a month ago go when a new one comes."""
    reply = decode(payload, Reply, limit_bytes=100_000)
    _check_text("Reply", payload)
    heard_of(session, site, gateway)
    mine = ReplyRow.gateway == gateway
    row = session.scalar(select(ReplyRow).where(mine, ReplyRow.command == reply.id).with_for_update())
    if row is None:
        session.execute(delete(ReplyRow).where(mine, ReplyRow.stored_ms < now_ms - REPLIES_KEPT_MS))
        row = ReplyRow(gateway=gateway, command=reply.id, done=False)
        session.add(row)
    if row.done:
        return
    row.done, row.reason, row.stored_ms = reply.done, reply.reason, now_ms
    row.result = bytes(reply.result).decode(errors="replace")
    session.flush()


def _ledger(session: Session, gateway: str, message_class: MessageClass) -> LedgerRow:
    row = session.get(LedgerRow, (gateway, message_class.value), with_for_update=True)
    if row is None:
        row = LedgerRow(gateway=gateway, message_class=message_class.value)
        session.add(row)
        session.flush()  # now it has its defaults
    return row
