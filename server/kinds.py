"""Kinds of training: what makes one due, what it learns from, and how it learns. One entry of `KINDS` a family."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from protocol.errors import Refused
from protocol.windows import WindowSpec
from server import datasets, edits, jobs, lives
from server.catalogues import Catalogues
from server.database import Database, FeedbackRow, Model, ReportEditRow, SignalBlockRow, WordingRow, WorkOrderRow

if TYPE_CHECKING:
    from server.training import Candidate, Circumstances, Progress

FORECAST, RECOMMEND, LIFE, NOTES, WRITE = (
    datasets.FORECAST,
    datasets.RECOMMEND,
    lives.LIFE,
    datasets.NOTES,
    datasets.WRITE,
)
MONITOR = "fault.monitor"
"""One slot a machine, trained with the forecasters: `fault.monitor.P-101`."""
JUDGED = ("accepted", "rejected", "corrected")
Due = tuple[str, dict[str, Any]]
"""Why, and what was there to learn from then."""

log = logging.getLogger(__name__)


class Plan(Protocol):
    """The settings that the worker reads (section [training] of the server's configuration)."""

    @property
    def step_ms(self) -> int: ...
    @property
    def season_steps(self) -> int: ...
    @property
    def window_length(self) -> int: ...
    @property
    def horizon_steps(self) -> int: ...
    @property
    def first_after_buckets(self) -> int: ...
    @property
    def retrain_after_buckets(self) -> int: ...
    @property
    def retrain_after_feedback(self) -> int: ...
    @property
    def first_recommend_after_orders(self) -> int: ...
    @property
    def first_read_after_notes(self) -> int: ...
    @property
    def first_write_after_edits(self) -> int: ...
    @property
    def retrain_after_edits(self) -> int: ...
    @property
    def writer_steps(self) -> int: ...
    @property
    def writer_layers(self) -> int: ...
    @property
    def writer_width(self) -> int: ...
    @property
    def writer_teacher(self) -> int: ...
    @property
    def writer_prune(self) -> float: ...
    @property
    def lstm_epochs(self) -> int: ...
    @property
    def lstm_hidden(self) -> int: ...
    @property
    def lstm_dropout(self) -> float: ...
    @property
    def lstm_weight_decay(self) -> float: ...
    @property
    def lstm_teacher(self) -> int: ...
    @property
    def lstm_prune(self) -> tuple[float, ...]: ...
    @property
    def lstm_prune_of(self) -> Literal["units", "weights"]: ...
    @property
    def lives(self) -> str: ...
    @property
    def life_settings(self) -> tuple[str, ...]: ...
    @property
    def life_conditions(self) -> int: ...
    @property
    def life_cap_h(self) -> float: ...
    @property
    def life_teacher(self) -> int: ...
    @property
    def life_renewed_by(self) -> tuple[str, ...]: ...
    @property
    def quantize(self) -> str: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Task:
    """What the child process is given: everything but a database. lstm: as `training.LstmPlan` takes it."""

    kind: str
    dataset: Path
    digest: str
    rows: int
    window: WindowSpec
    epochs: int
    seed: int
    versions: dict[str, int]
    champions: dict[str, bytes]
    because: str
    now_ms: int
    life_settings: tuple[str, ...] = ()
    life_conditions: int = 1
    life_cap_h: float = 0.0
    life_teacher: int = 0
    life_renewed_by: tuple[str, ...] = ()
    writer_steps: int = 600
    writer_layers: int = 4
    writer_width: int = 128
    writer_teacher: int = 0
    writer_prune: float = 0.0
    quantize: str = "auto"
    lstm: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = ("onnx",)


@dataclass(frozen=True)
class Kind:
    """slots: what it trains. due: why it should run now, if it should. freeze: what it learns from, as a file, and the slots
    that it trains beside. train: in a process of its own."""

    slots: tuple[str, ...]
    due: Callable[[Session, Plan], Due | None]
    freeze: Callable[[Database, Plan, Path], tuple[datasets.Snapshot, list[str]]]
    train: Callable[[Task, Circumstances, Progress], list[Candidate]]


def _forecast_due(session: Session, plan: Plan) -> Due | None:
    buckets = shared_buckets(session, plan.step_ms)
    last = jobs.last(session, FORECAST)
    arguments = {"buckets": buckets}
    if last is None:
        return (f"first training on {buckets} buckets", arguments) if buckets >= plan.first_after_buckets else None
    more = buckets - int(last.arguments.get("buckets", 0))
    if more < plan.retrain_after_buckets:
        return None
    return f"{more} buckets since {_since(session, FORECAST)}", arguments


def shared_buckets(session: Session, step_ms: int) -> int:
    """Longest stretch of history that any signal has shared, in buckets of the training grid."""
    span = func.max(SignalBlockRow.start_ms) - func.min(SignalBlockRow.start_ms)
    longest = session.execute(
        select(
            SignalBlockRow.gateway,
            SignalBlockRow.machine,
            SignalBlockRow.signal,
            func.min(SignalBlockRow.start_ms),
        )
        .group_by(SignalBlockRow.gateway, SignalBlockRow.machine, SignalBlockRow.signal)
        .order_by(span.desc())
        .limit(1)
    ).first()
    if longest is None:
        return 0
    gateway, machine, signal, first_ms = longest
    newest = session.scalars(
        select(SignalBlockRow)
        .where(
            SignalBlockRow.gateway == gateway,
            SignalBlockRow.machine == machine,
            SignalBlockRow.signal == signal,
        )
        .order_by(SignalBlockRow.start_ms.desc())
        .limit(1)
    ).one()
    return int((newest.start_ms + newest.step_ms * len(newest.values) - first_ms) // step_ms)


def _recommend_due(session: Session, plan: Plan) -> Due | None:
    orders = session.scalar(select(func.count()).select_from(WorkOrderRow)) or 0
    last = jobs.last(session, RECOMMEND)
    newest = session.scalar(select(func.max(FeedbackRow.id))) or 0
    arguments = {"orders": orders, "feedback_id": newest}
    if last is None:
        return (
            (f"first training on {orders} work orders", arguments)
            if orders >= plan.first_recommend_after_orders
            else None
        )
    seen = int(last.arguments.get("feedback_id", 0))
    verdicts = Counter(
        session.scalars(
            select(FeedbackRow.verdict).where(
                FeedbackRow.id > seen, FeedbackRow.target_kind != "", FeedbackRow.verdict.in_(JUDGED)
            )
        )
    )
    if verdicts.total() < plan.retrain_after_feedback:
        return None
    parts = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ("rejected", "corrected") if verdicts[verdict])
    return f"{verdicts.total()} answers since {_since(session, RECOMMEND)}" + (
        f" ({parts})" if parts else ""
    ), arguments


def _notes_due(session: Session, plan: Plan) -> Due | None:
    """Once when enough work orders have words on them, and again after enough answers to readings."""
    written = (WorkOrderRow.body["note"].as_string() != "", WorkOrderRow.body["failure_mode"].as_string() != "")
    labelled = session.scalar(select(func.count()).select_from(WorkOrderRow).where(*written)) or 0
    judged = (FeedbackRow.target_kind == "reading", FeedbackRow.verdict.in_(JUDGED))
    newest = session.scalar(select(func.max(FeedbackRow.id)).where(*judged)) or 0
    arguments = {"labelled": labelled, "feedback_id": newest}
    last = jobs.last(session, NOTES)
    if last is None:
        enough = labelled >= plan.first_read_after_notes
        return (f"first training on {labelled} notes of work orders", arguments) if enough else None
    seen = int(last.arguments.get("feedback_id", 0))
    answers = session.scalar(select(func.count()).select_from(FeedbackRow).where(*judged, FeedbackRow.id > seen)) or 0
    if answers < plan.retrain_after_feedback:
        return None
    return f"{answers} answers to readings since {_since(session, NOTES)}", arguments


def _write_due(session: Session, plan: Plan) -> Due | None:
    """Once when people have edited enough reports; again after enough more, or as soon as a wording was accepted: it reaches
    the gateways with the next writer."""
    e = ReportEditRow
    last = jobs.last(session, WRITE)
    told = {} if last is None else last.arguments
    seen, known = int(told.get("edit_id", 0)), int(told.get("wordings", 0))
    newest = session.scalar(select(func.max(e.id))) or 0
    reports = select(e.gateway, e.report_id).where(e.id > seen).distinct().subquery()
    edited = session.scalar(select(func.count()).select_from(reports)) or 0
    wordings = session.scalar(select(func.count()).where(WordingRow.status == edits.ACCEPTED)) or 0
    because, arguments = f"{edited} edited reports", {"edit_id": newest, "wordings": wordings}
    if last is None:
        return (f"first training on {because}", arguments) if edited >= plan.first_write_after_edits else None
    if edited < plan.retrain_after_edits and wordings <= known:
        return None
    more = f" and {wordings - known} accepted wordings" if wordings > known else ""
    return f"{because}{more} since {_since(session, WRITE)}", arguments


def _life_due(session: Session, plan: Plan) -> Due | None:
    """Once when the folder holds recorded lives, and again whenever its files change."""
    if not plan.lives:
        return None
    files, last = lives.fingerprint(Path(plan.lives)), jobs.last(session, LIFE)
    if not files or (last is not None and last.arguments.get("files") == files):
        return None
    because = "first training on recorded lives" if last is None else "the recorded lives have changed"
    return because, {"files": files}


def lstm_plan(plan: Plan) -> dict[str, Any]:
    """Size, regularization, teacher and pruning of the forecasters' network."""
    names = ("hidden", "dropout", "weight_decay", "teacher", "prune", "prune_of")
    return {name: getattr(plan, f"lstm_{name}") for name in names}


def _since(session: Session, kind: str) -> str:
    version = session.scalar(select(func.max(Model.version)).where(Model.slot.in_(KINDS[kind].slots)))
    return f"v{version}" if version else "the last attempt"


def _freeze_forecast(database: Database, plan: Plan, artifacts: Path) -> tuple[datasets.Snapshot, list[str]]:
    with database.begin() as session:
        grid = datasets.collect_signals(session, plan.step_ms)
    machines = sorted({machine for machine, _ in grid.series})
    return datasets.freeze_signals(grid, artifacts), [f"{MONITOR}.{machine}" for machine in machines]


def _train_forecast(task: Task, world: Circumstances, progress: Progress) -> list[Candidate]:
    from server import training

    grid = datasets.read_signals(task.dataset, task.digest)
    plan = training.ForecastPlan(
        window=task.window,
        epochs=task.epochs,
        seed=task.seed,
        quantize=task.quantize,
        lstm=training.LstmPlan(**task.lstm),
        targets=task.targets,
    )
    found = training.train_forecast(grid, plan, world, lambda share, step: progress(0.95 * share, step))
    try:
        found += training.train_monitors(
            grid, training.MonitorPlan(seed=task.seed), world, lambda s, step: progress(0.95 + 0.05 * s, step)
        )
    except Refused as why:
        log.info("no monitors yet: %s", why)
    return found


def _freeze_lives(_database: Database, plan: Plan, artifacts: Path) -> tuple[datasets.Snapshot, list[str]]:
    if not plan.lives:
        raise ValueError("no folder of recorded lives: set [training] lives")
    return lives.freeze_lives(lives.read_folder(Path(plan.lives), plan.step_ms), artifacts), []


def _train_life(task: Task, world: Circumstances, progress: Progress) -> list[Candidate]:
    from server import training

    plan = training.LifePlan(
        settings=task.life_settings,
        conditions=task.life_conditions,
        cap_h=task.life_cap_h,
        renewed_by=task.life_renewed_by,
        teacher=task.life_teacher,
        seed=task.seed,
        quantize=task.quantize,
        targets=task.targets,
    )
    return training.train_life(lives.read_lives(task.dataset, task.digest), plan, world, progress)


def _freeze_cases(database: Database, _plan: Plan, artifacts: Path) -> tuple[datasets.Snapshot, list[str]]:
    with database.begin() as session:
        book = datasets.collect_casebook(session)
    return datasets.freeze_casebook(book, artifacts), []


def _train_recommend(task: Task, world: Circumstances, progress: Progress) -> list[Candidate]:
    from server import training

    book = datasets.read_casebook(task.dataset, task.digest)
    return training.train_recommend(book.cases, task.seed, world, progress, cards=book.cards, trials=book.trials)


def _freeze_notes(database: Database, _plan: Plan, artifacts: Path) -> tuple[datasets.Snapshot, list[str]]:
    with database.begin() as session:
        book = datasets.collect_notes(session)
    return datasets.freeze_notes(book, artifacts), []


def _train_notes(task: Task, world: Circumstances, progress: Progress) -> list[Candidate]:
    from server import training

    return training.train_reader(datasets.read_notes(task.dataset, task.digest).notes, task.seed, world, progress)


def _freeze_left(database: Database, _plan: Plan, artifacts: Path) -> tuple[datasets.Snapshot, list[str]]:
    with database.begin() as session:
        book = edits.collect_left(session, Catalogues(artifacts))
    return datasets.freeze_left(book, artifacts), []


def _train_write(task: Task, world: Circumstances, progress: Progress) -> list[Candidate]:
    from server.training.writer import train_writer  # loads torch
    from server.training.writer_lessons import WriterPlan

    book = datasets.read_left(task.dataset, task.digest)
    plan = WriterPlan.of(book, task.writer_layers, task.writer_width, task.seed).with_steps(task.writer_steps)
    teacher = replace(plan.shape, width=task.writer_teacher) if task.writer_teacher else None
    return train_writer(
        replace(plan, quantize=task.quantize, teacher=teacher, prune=task.writer_prune), world, progress
    )


KINDS = {
    LIFE: Kind(("fault.life",), _life_due, _freeze_lives, _train_life),
    FORECAST: Kind(
        ("forecast.arima", "forecast.lstm", "forecast.ridge"), _forecast_due, _freeze_forecast, _train_forecast
    ),
    RECOMMEND: Kind(("recommend.items",), _recommend_due, _freeze_cases, _train_recommend),
    NOTES: Kind(("notes.reader",), _notes_due, _freeze_notes, _train_notes),
    WRITE: Kind(("report.writer",), _write_due, _freeze_left, _train_write),
}
"""In the order in which they are created when several are due."""
