"""The server's tables. Everything a gateway sent is stored once, under (gateway, class, seq), in the same transaction
that moves its ledger; only then is it acknowledged. Times are milliseconds since 1970 UTC. SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
from sqlalchemy import JSON, BigInteger, Engine, Index, Integer, LargeBinary, UniqueConstraint, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

Big = BigInteger().with_variant(Integer, "sqlite")
"""SQLite gives automatic ids to INTEGER primary keys only; its integers are 64-bit anyway."""


class Table(DeclarativeBase):
    """Root of the schema; Alembic compares it with the migrations in a test."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {int: Big, dict[str, Any]: JSON, list[Any]: JSON}


class Gateway(Table):
    """One gateway as last heard of. `reported` is its twin document; `heartbeat` the latest one."""

    __tablename__ = "gateway"
    id: Mapped[str] = mapped_column(primary_key=True)
    site: Mapped[str]
    online: Mapped[bool] = mapped_column(default=False)
    boot_id: Mapped[str] = mapped_column(default="")
    agent_version: Mapped[str] = mapped_column(default="")
    birth_ms: Mapped[int] = mapped_column(default=0)
    last_data_ms: Mapped[int] = mapped_column(default=0)
    desired: Mapped[dict[str, Any]] = mapped_column(default=dict)
    reported: Mapped[dict[str, Any]] = mapped_column(default=dict)
    heartbeat: Mapped[dict[str, Any]] = mapped_column(default=dict)


class LedgerRow(Table):
    """Per gateway and class: told of up to and including `upto`, plus ranges beyond a gap. Of these numbers the gateway gave
    up those in `shed` [first, last] and in `dead` [first, last, reason]; the others are stored or in quarantine. numbering:
    the outbox that gives the numbers now; null if it never said."""

    __tablename__ = "ledger"
    gateway: Mapped[str] = mapped_column(primary_key=True)
    message_class: Mapped[str] = mapped_column(primary_key=True)
    upto: Mapped[int] = mapped_column(default=0)
    beyond: Mapped[list[Any]] = mapped_column(default=list)
    shed: Mapped[list[Any]] = mapped_column(default=list)
    dead: Mapped[list[Any]] = mapped_column(default=list)
    stored: Mapped[int] = mapped_column(default=0)
    duplicates: Mapped[int] = mapped_column(default=0)
    quarantined: Mapped[int] = mapped_column(default=0)
    bytes: Mapped[int] = mapped_column(default=0)
    numbering: Mapped[str | None] = mapped_column(default=None)


class Arrived:
    """Columns of every table that a gateway fills; (gateway, seq) is unique in it because it holds one class."""

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    gateway: Mapped[str] = mapped_column(index=True)
    seq: Mapped[int]
    sent_ms: Mapped[int]
    stored_ms: Mapped[int]


class SignalBlockRow(Arrived, Table):
    __tablename__ = "signal_block"
    __table_args__ = (
        UniqueConstraint("gateway", "seq"),
        Index("ix_block_span", "gateway", "machine", "signal", "start_ms"),
    )
    machine: Mapped[str]
    signal: Mapped[str]
    unit: Mapped[str]
    start_ms: Mapped[int]
    step_ms: Mapped[int]
    values: Mapped[list[Any]]


class WorkOrderRow(Arrived, Table):
    """`order_id` is the plant's own id; the same order told twice is stored once."""

    __tablename__ = "work_order"
    __table_args__ = (UniqueConstraint("gateway", "seq"), UniqueConstraint("gateway", "order_id"))
    order_id: Mapped[str]
    machine: Mapped[str]
    time_ms: Mapped[int]
    body: Mapped[dict[str, Any]]


class EventRow(Arrived, Table):
    """Latest state of a fault event (an event closes under the id it opened with)."""

    __tablename__ = "fault_event"
    __table_args__ = (UniqueConstraint("gateway", "event_id"),)
    event_id: Mapped[str] = mapped_column(index=True)
    machine: Mapped[str]
    signal: Mapped[str]
    kind: Mapped[str]
    severity: Mapped[str]
    start_ms: Mapped[int]
    end_ms: Mapped[int | None]
    body: Mapped[dict[str, Any]]


class ForecastRow(Arrived, Table):
    __tablename__ = "forecast"
    __table_args__ = (
        UniqueConstraint("gateway", "seq"),
        Index("ix_forecast_latest", "gateway", "machine", "signal", "issued_ms"),
    )
    machine: Mapped[str]
    signal: Mapped[str]
    issued_ms: Mapped[int]
    body: Mapped[dict[str, Any]]


class RecommendationRow(Arrived, Table):
    __tablename__ = "recommendation"
    __table_args__ = (UniqueConstraint("gateway", "seq"), UniqueConstraint("gateway", "recommendation_id"))
    recommendation_id: Mapped[str] = mapped_column(index=True)
    event_id: Mapped[str] = mapped_column(index=True)
    machine: Mapped[str]
    issued_ms: Mapped[int]
    body: Mapped[dict[str, Any]]


class ReportRow(Arrived, Table):
    __tablename__ = "report"
    __table_args__ = (UniqueConstraint("gateway", "seq"), UniqueConstraint("gateway", "report_id"))
    report_id: Mapped[str] = mapped_column(index=True)
    event_id: Mapped[str] = mapped_column(index=True)
    machine: Mapped[str]
    issued_ms: Mapped[int]
    body: Mapped[dict[str, Any]]


class StatementRow(Arrived, Table):
    """A message that needs no columns of its own: `type` is its wire name, `subject` the signal, component, part or
    covariate that it is about. The same id told again (a newer version of it) stands beside the older."""

    __tablename__ = "statement"
    __table_args__ = (
        UniqueConstraint("gateway", "type", "statement_id", "time_ms"),
        Index("ix_statement_latest", "type", "gateway", "machine", "time_ms"),
    )
    type: Mapped[str]
    statement_id: Mapped[str]
    machine: Mapped[str]
    subject: Mapped[str]
    time_ms: Mapped[int]
    body: Mapped[dict[str, Any]]


class FeedbackRow(Table):
    """An answer, met with what it judges. `target_kind` is report, recommendation or '' while the target has not
    arrived yet (classes travel on separate lanes). Console answers have no seq."""

    __tablename__ = "feedback"
    __table_args__ = (UniqueConstraint("gateway", "feedback_id"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    gateway: Mapped[str] = mapped_column(index=True)
    seq: Mapped[int | None]
    stored_ms: Mapped[int]
    feedback_id: Mapped[str]
    target: Mapped[str] = mapped_column(index=True)
    target_kind: Mapped[str] = mapped_column(default="")
    item: Mapped[str] = mapped_column(default="")
    verdict: Mapped[str]
    correction: Mapped[str] = mapped_column(default="")
    comment: Mapped[str] = mapped_column(default="")
    author: Mapped[str] = mapped_column(default="")
    time_ms: Mapped[int]
    via: Mapped[str]


class ReportEditRow(Table):
    """A report as a person left it; the newest of a report counts. en, zh: [clause, its words with slots] in order. frames:
    the catalogue that the report was written with."""

    __tablename__ = "report_edit"
    __table_args__ = (Index("ix_report_edit_report", "gateway", "report_id"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    gateway: Mapped[str]
    report_id: Mapped[str]
    document: Mapped[str]
    frames: Mapped[str]
    author: Mapped[str] = mapped_column(default="")
    time_ms: Mapped[int]
    en: Mapped[list[Any]]
    zh: Mapped[list[Any]]


class WordingRow(Table):
    """Words that a person gave a clause, slots in place of facts. status: open, accepted, rejected. gateway, report_id: where
    they were first written. doubts: what whoever answers should look at."""

    __tablename__ = "wording"
    __table_args__ = (UniqueConstraint("document", "clause", "language", "text"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    document: Mapped[str]
    clause: Mapped[str]
    language: Mapped[str]
    text: Mapped[str]
    status: Mapped[str] = mapped_column(index=True, default="open")
    author: Mapped[str] = mapped_column(default="")
    gateway: Mapped[str]
    report_id: Mapped[str]
    doubts: Mapped[list[Any]]
    proposed_ms: Mapped[int]
    answered_ms: Mapped[int | None]
    answered_by: Mapped[str] = mapped_column(default="")


class ReplyRow(Table):
    """What a gateway says became of a command. `command` is the command's id, which for an answer or a note from the console
    is the answer's or the note's own; `result` is JSON."""

    __tablename__ = "reply"
    __table_args__ = (UniqueConstraint("gateway", "command"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    gateway: Mapped[str]
    command: Mapped[str]
    done: Mapped[bool]
    reason: Mapped[str] = mapped_column(default="")
    result: Mapped[str] = mapped_column(default="")
    stored_ms: Mapped[int]


class QuarantineRow(Table):
    """What could not be stored as what it claims to be, kept with its reason. `payload` is cut at 64 KiB."""

    __tablename__ = "quarantine"
    __table_args__ = (Index("ix_quarantine_seq", "gateway", "message_class", "seq"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    gateway: Mapped[str] = mapped_column(index=True)
    message_class: Mapped[str]
    seq: Mapped[int | None]
    reason: Mapped[str]
    detail: Mapped[str]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    stored_ms: Mapped[int]


class Dataset(Table):
    """A frozen snapshot: `path` below the artifact folder, `digest` its sha256. Never changed, only added."""

    __tablename__ = "dataset"
    digest: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    path: Mapped[str]
    rows: Mapped[int]
    created_ms: Mapped[int]
    described: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Model(Table):
    """A packed bundle. status: candidate, champion, retired or refused (by the gate; `verdict` says why)."""

    __tablename__ = "model"
    __table_args__ = (UniqueConstraint("slot", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    slot: Mapped[str] = mapped_column(index=True)
    version: Mapped[int]
    digest: Mapped[str] = mapped_column(index=True)
    path: Mapped[str]
    size: Mapped[int]
    status: Mapped[str]
    verdict: Mapped[str]
    because: Mapped[str] = mapped_column(default="")
    dataset: Mapped[str]
    passport: Mapped[dict[str, Any]]
    created_ms: Mapped[int]


class Rollout(Table):
    """One model on its way to gateways. status: running, done, stopped. A gateway counts as done when its reported
    twin serves the digest and has given results with it."""

    __tablename__ = "rollout"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    slot: Mapped[str]
    model_id: Mapped[int]
    digest: Mapped[str]
    role: Mapped[str]
    status: Mapped[str]
    gateways: Mapped[dict[str, Any]]
    because: Mapped[str] = mapped_column(default="")
    started_ms: Mapped[int]
    deadline_ms: Mapped[int]
    finished_ms: Mapped[int | None]


class Job(Table):
    """Work for the training worker. status: waiting, running (leased until `lease_ms`), done, failed, cancelled.
    `progress` is 0..1 with `step` in words."""

    __tablename__ = "job"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(index=True, default="waiting")
    arguments: Mapped[dict[str, Any]] = mapped_column(default=dict)
    because: Mapped[str] = mapped_column(default="")
    progress: Mapped[float] = mapped_column(default=0.0)
    step: Mapped[str] = mapped_column(default="")
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    attempts: Mapped[int] = mapped_column(default=0)
    lease_ms: Mapped[int] = mapped_column(default=0)
    created_ms: Mapped[int]
    started_ms: Mapped[int | None]
    finished_ms: Mapped[int | None]


class LeaseRow(Table):
    """What one process does alone, and until when nobody else may."""

    __tablename__ = "lease"
    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    until_ms: Mapped[int]


class EnrolTokenRow(Table):
    """A one-time token, by its SHA-256. key_digest: of the key that it was used for, so that a gateway which did not hear the
    answer may ask again, and nobody else."""

    __tablename__ = "enrol_token"
    digest: Mapped[str] = mapped_column(primary_key=True)
    gateway: Mapped[str] = mapped_column(index=True)
    made_ms: Mapped[int]
    expires_ms: Mapped[int]
    used_ms: Mapped[int | None]
    key_digest: Mapped[str] = mapped_column(default="")


class CertificateRow(Table):
    """A certificate that the authority gave to a client. because: enrolled, renewed, revocation. token_digest: SHA-256 of
    what the HTTP API takes from its owner."""

    __tablename__ = "certificate"
    serial: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    because: Mapped[str]
    key_digest: Mapped[str]
    token_digest: Mapped[str] = mapped_column(index=True, default="")
    issued_ms: Mapped[int]
    not_after_ms: Mapped[int]
    revoked_ms: Mapped[int | None]
    revoked_because: Mapped[str] = mapped_column(default="")


class IdentityRefusalRow(Table):
    """How often somebody was not believed, by reason."""

    __tablename__ = "identity_refusal"
    reason: Mapped[str] = mapped_column(primary_key=True)
    times: Mapped[int] = mapped_column(default=0)
    last_ms: Mapped[int] = mapped_column(default=0)
    last_detail: Mapped[str] = mapped_column(default="")


class AuditRow(Table):
    """Who changed what through the admin API or the console."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    time_ms: Mapped[int]
    who: Mapped[str]
    what: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


def as_json(document: object) -> str:
    """A JSON column's text. JSON has no NaN: it becomes null."""
    return msgspec.json.encode(document).decode()


class Database:
    """An engine and its sessions, as a value: nothing is opened at import."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = create_engine(
            url, pool_pre_ping=True, json_serializer=as_json, json_deserializer=msgspec.json.decode
        )
        if self.engine.dialect.name == "sqlite":
            _tune_sqlite(self.engine)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """One transaction: commits at the end, rolls back if the body raises."""
        with self._sessions.begin() as session:
            yield session

    def close(self) -> None:
        """Gives every connection back."""
        self.engine.dispose()


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we emit BEGIN ourselves, see below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=15000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin_immediate(connection: Any) -> None:
        # A deferred transaction that reads first and writes later fails with SQLITE_BUSY at once, busy_timeout or not.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
