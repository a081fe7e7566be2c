"""One file of who chose what becomes one folder: a bundle, report.json, report.md and a picture, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from protocol import columns
from protocol.bundles import digest
from protocol.catalogue import ItemCard
from protocol.choices import (
    ChoiceColumns,
    Choices,
    card_columns,
    card_layout,
    event_columns,
    lay_out_cards,
    lay_out_choices,
)
from protocol.errors import BadSettings
from protocol.recordings import Finding
from server.training import Candidate, Progress
from server.training.recommend_events import EventPlan, Learned, train_recommend_events
from server.workbench.list_worth import LengthRow, ListRow, RecommendReport, list_summary
from server.workbench.training import MARK, check_place, quiet, written_whole
from server.workbench.worth import SaidFinding

BUNDLE = "recommend.items.bundle"
PICTURE = "by_length.png"
Read = TypeVar("Read")


@dataclass(frozen=True)
class TrainedLists:
    """What a training left. `eligible`: whether the model may serve."""

    folder: Path
    report: RecommendReport
    candidate: Candidate

    @property
    def eligible(self) -> bool:
        """Whether it beats popularity, and packing cost little."""
        return self.candidate.passport.eligible


def train_recommend_file(
    events: Path,
    out: Path,
    *,
    items: Path | None = None,
    user: str = "",
    item: str = "",
    time: str = "",
    value: str = "",
    text: tuple[str, ...] = (),
    half_life_days: float | None = None,
    candidates: tuple[str, ...] = (),
    seed: int = 7,
    progress: Progress = quiet,
) -> TrainedLists:
    """Learns a hybrid recommender from a table of events (and one of items) and writes the folder `out`, which must not
    exist, or be an earlier one of this function. Columns that are not named are found by their usual names. A folder is also
    written where the model does not beat popularity; its report says so.

    Raises Refused for a file that cannot be learned from and BadSettings for settings that do not fit it; the messages name
    the remedy."""
    if text and items is None:
        raise BadSettings("--text names columns of the items' table: give one with --items")
    if half_life_days is not None and not 0 < half_life_days < float("inf"):
        raise BadSettings(f"--half-life-days {half_life_days}: give days above 0")
    check_place(out)
    layout = _opened(
        events, lambda stream: event_columns(columns.header(stream), user=user, item=item, time=time, value=value)
    )
    progress(0.01, f"reading {events.name}")
    choices = _opened(events, lambda stream: lay_out_choices(columns.read(stream, layout.wanted), layout))
    cards: dict[str, ItemCard] = {}
    findings: list[Finding] = []
    if items is not None:
        layout, cards, findings = read_cards(items, layout, text)
    progress(0.05, f"{choices.rows} rows read")
    plan = EventPlan(half_life_days, candidates, seed=seed)
    learned = train_recommend_events(choices, cards, layout, plan, progress)
    with written_whole(out) as folder:
        report = _write(
            folder, events, choices, learned, layout, [*choices.findings, *findings, *learned.findings], seed
        )
    progress(1.0, "written")
    return TrainedLists(out, report, learned.candidate)


def read_cards(
    path: Path, layout: ChoiceColumns, text: tuple[str, ...]
) -> tuple[ChoiceColumns, dict[str, ItemCard], list[Finding]]:
    """(the columns, cards by id, what was odd) of an items' table."""
    header = _opened(path, columns.header)
    item_id, words = card_columns(header, layout.item, text)
    cards, findings = _opened(
        path, lambda stream: lay_out_cards(columns.read(stream, card_layout(header)), item_id, words)
    )
    return msgspec.structs.replace(layout, item_id=item_id, text=words), cards, findings


def _opened(path: Path, read: Callable[[BinaryIO], Read]) -> Read:
    try:
        with path.open("rb") as stream:
            return read(stream)
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error


def _write(
    folder: Path,
    path: Path,
    choices: Choices,
    learned: Learned,
    layout: ChoiceColumns,
    findings: list[Finding],
    seed: int,
) -> RecommendReport:
    passport = learned.candidate.passport
    (folder / BUNDLE).write_bytes(learned.candidate.archive)
    report = RecommendReport(
        file=path.name,
        digest=passport.lineage.dataset_digest,
        rows=choices.rows,
        events=len(choices.who),
        users=learned.users,
        items=learned.items,
        pairs=learned.entries,
        kept_users=learned.kept_users,
        until_ms=int(choices.times_ms.max()) if choices.times_ms is not None else None,
        columns=layout,
        seed=seed,
        split=learned.split,
        judged=passport.quality[0].n,
        eligible=passport.eligible,
        verdict=passport.verdict,
        bundle=BUNDLE,
        bundle_digest=digest(learned.candidate.archive),
        bytes=len(learned.candidate.archive),
        packing_rms=passport.parity.rel_rms,
        packing_change=passport.parity.task_change,
        latency_us=learned.latency_us,
        models=[
            ListRow(name=f.name, ndcg=f.ndcg, recall=f.recall, above=f.above, error=f.error) for f in learned.figures
        ],
        lengths=[LengthRow(known=row.known, users=row.users, ndcg=row.ndcg) for row in learned.lengths],
        weights=learned.weights,
        findings=[SaidFinding(kind=f.kind, count=f.count, words=f.words) for f in findings],
        picture=_draw(folder, learned),
    )
    (folder / "report.md").write_text(list_summary(report), encoding="utf-8")
    (folder / MARK).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return report


def _draw(folder: Path, learned: Learned) -> str:
    if not learned.lengths:
        return ""
    try:
        from server.workbench.picture import draw_by_length
    except ModuleNotFoundError:
        return ""  # matplotlib is part of the extra `train`; without it there is everything but the picture
    draw_by_length(folder / PICTURE, [(row.known, row.ndcg) for row in learned.lengths], learned.weights)
    return PICTURE
