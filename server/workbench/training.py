"""One file of recordings becomes one folder: bundles, report.json, report.md and a picture. Written beside its place and
renamed into it, so that an interrupted training leaves what was there before."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from protocol import columns
from protocol.bundles import Lineage, digest
from protocol.errors import BadSettings, Reason, Refused
from protocol.recordings import Layout, Recordings, known_inputs, lay_out, step_words
from protocol.windows import DAY_MS, Floats, WindowSpec
from server import evaluation
from server.datasets import SignalGrid
from server.evaluation import Tail
from server.training import FORECAST_SLOTS, Candidate, Circumstances, ForecastPlan, LstmPlan, Progress, train_forecast
from server.training.held_out import held_out_answers
from server.workbench import sizes, worth
from server.workbench.worth import ModelRow, SaidFinding, TrainingReport

MODELS = tuple(slot.partition(".")[2] for slot in FORECAST_SLOTS)
RECORDINGS = "recordings"
"""Where in a passport's lineage the layout of the file is kept."""
MOST_TRAINED = 20_000
AUTO, FORMS_OF_ALL = "auto", ("auto", "float32", "float16", "int8")
"""Forms of weights that every network has (`export.forms`)."""
SHORTEST_WINDOW, LONGEST_WINDOW = 8, 336
MARK = "report.json"
USUAL = LstmPlan()


@dataclass(frozen=True)
class TrainPlan:
    """horizon: steps to answer; season: steps per season (None: from the step; 0: none); models: of MODELS;
    quantize: the form of a network's weights (`export.forms`); tflite: a file for TFLite beside it (`export.to_tflite`);
    lstm: the network's size, teacher and pruning."""

    horizon: int
    season: int | None = None
    models: tuple[str, ...] = MODELS
    epochs: int = 12
    seed: int = 7
    quantize: str = AUTO
    lstm: LstmPlan = USUAL
    tflite: bool = False


@dataclass(frozen=True)
class Trained:
    """What a training left. `eligible`: whether any model may serve."""

    folder: Path
    report: TrainingReport
    candidates: list[Candidate]

    @property
    def eligible(self) -> bool:
        """Whether there is a model that beats the simple reference."""
        return any(candidate.passport.eligible for candidate in self.candidates)


@dataclass(frozen=True)
class _World(Circumstances):
    """Circumstances that write the file's layout into every passport."""

    layout: str = ""

    def lineage(self, seed: int, parameters: dict[str, object]) -> Lineage:
        return super().lineage(seed, parameters | {RECORDINGS: self.layout})


def quiet(_share: float, _step: str) -> None:
    """Progress that nobody watches."""


def train_forecast_file(
    path: Path,
    layout: Layout,
    out: Path,
    *,
    horizon: int,
    season: int | None = None,
    models: tuple[str, ...] = MODELS,
    epochs: int = 12,
    seed: int = 7,
    quantize: str = AUTO,
    lstm: LstmPlan = USUAL,
    tflite: bool = False,
    progress: Progress = quiet,
    now_ms: int | None = None,
) -> Trained:
    """Trains every asked forecaster on the file and writes the folder `out`, which must not exist, or be an earlier one of
    this function. A folder is also written where no model is eligible; its report says why. With shares to prune, the folder
    holds the curve of error against size, too (sizes.json, sizes.png).

    Raises Refused for a file that cannot be learned from and BadSettings for a plan that does not fit it; the messages name
    the remedy."""
    plan = TrainPlan(horizon, season, models, epochs, seed, quantize, lstm, tflite)
    unknown = [name for name in models if name not in MODELS]
    if unknown or not models:
        raise BadSettings(f"no forecaster {', '.join(unknown) or 'asked for'}; there are {', '.join(MODELS)}")
    if not 1 <= horizon <= 1000:
        raise BadSettings(f"horizon {horizon}: 1 to 1000 steps can be answered")
    if quantize not in FORMS_OF_ALL:
        raise BadSettings(f"quantize {quantize!r}: name one of {', '.join(FORMS_OF_ALL)}")
    check_plan(lstm)
    check_place(out)
    recordings = read_file(path, layout)
    layout = msgspec.structs.replace(layout, step_ms=recordings.step_ms)
    grid, left_out, findings = _grid(recordings)
    spec = window_for(grid, plan)
    progress(0.01, f"{recordings.rows} rows read")
    world = _World(
        dataset_digest=_digest(path),
        dataset_rows=recordings.rows,
        now_ms=time.time_ns() // 1_000_000 if now_ms is None else now_ms,
        because=f"trained on {path.name}",
        layout=msgspec.json.encode(layout).decode(),
    )
    candidates, why = _train(grid, spec, plan, world, progress)
    if layout.known and candidates and not any(_reads_known(candidate) for candidate in candidates):
        words = f"none of the forecasters reads {', '.join(layout.known)}: told too seldom, or not taken by them"
        findings.append(SaidFinding(kind="known_unread", count=len(layout.known), words=words))
    with written_whole(out) as folder:
        report = _write(folder, path, recordings, grid, spec, candidates, why, left_out, findings, world.dataset_digest)
    return Trained(out, report, candidates)


def check_plan(lstm: LstmPlan) -> None:
    """Raises BadSettings for a network that there cannot be."""
    if not 1 <= lstm.hidden <= 2048 or not 0 <= lstm.teacher <= 4096:
        raise BadSettings(
            f"{lstm.hidden} hidden units, {lstm.teacher} of the teacher: give 1 to 2048, and at most 4096"
        )
    if not 0 <= lstm.dropout < 1 or lstm.weight_decay < 0:
        raise BadSettings(
            f"dropout {lstm.dropout:g}, weight decay {lstm.weight_decay:g}: from 0 to less than 1; 0 or more"
        )
    wrong = [share for share in lstm.prune if not 0 <= share < 1]
    if wrong:
        raise BadSettings(f"prune {wrong[0]:g}: give shares from 0 to less than 1, such as 0.5")


def _reads_known(candidate: Candidate) -> bool:
    passport = candidate.passport
    return bool(getattr(passport, "covariates", None) or getattr(passport.window, "covariates", None))


def read_file(path: Path, layout: Layout) -> Recordings:
    """Recordings of a CSV or Parquet file. Raises BadSettings if there is no such file, Refused as `lay_out`."""
    try:
        with path.open("rb") as stream:
            return lay_out(columns.read(stream, layout.wanted), layout)
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error


def window_for(grid: SignalGrid, plan: TrainPlan) -> WindowSpec:
    """The window that suits the step, the season and the length of the history. Raises BadSettings where the horizon is too
    long for it, naming the longest that is not."""
    buckets = grid.values.shape[1]
    most = (buckets - SHORTEST_WINDOW) // 4 if buckets < 5 * SHORTEST_WINDOW else buckets // 5
    if plan.horizon > most and grid.series:
        raise BadSettings(
            f"a horizon of {plan.horizon} needs {max(5 * plan.horizon, 4 * plan.horizon + SHORTEST_WINDOW)} steps of history "
            f"and there are {buckets}: "
            + (f"ask for {most} or less, or record longer" if most > 0 else "record longer, or give a shorter --step")
        )
    season = season_of(grid.step_ms) if plan.season is None else plan.season
    if plan.season is None and season > buckets // 3:
        season = 0
    wanted = max(2 * season if season <= LONGEST_WINDOW // 2 else season, 2 * plan.horizon, 24)
    length = max(min(wanted, max(LONGEST_WINDOW, plan.horizon), buckets - 4 * plan.horizon), 2)
    return WindowSpec(
        step_ms=grid.step_ms, length=max(length, min(plan.horizon, 5000)), horizon=plan.horizon, season=season
    )


def season_of(step_ms: int) -> int:
    """Steps per season that the step suggests: a day below a day, a week of days, a year of weeks, months or quarters."""
    if step_ms < DAY_MS:
        return round(DAY_MS / step_ms) if DAY_MS % step_ms == 0 else 0
    days = step_ms / DAY_MS
    for length, season in ((1.0, 7), (7.0, 52), (30.44, 12), (91.31, 4)):
        if abs(days - length) < 0.02 * length:
            return season
    return 0


def _grid(recordings: Recordings) -> tuple[SignalGrid, dict[str, str], list[SaidFinding]]:
    """What there is to learn from: series that move, the newest MOST_TRAINED buckets."""
    findings = [
        SaidFinding(kind=f.kind, count=f.count, words=f.words, series=list(f.series)) for f in recordings.findings
    ]
    left_out = {"/".join(key): why for key, why in recordings.left_out.items()}
    values, start = recordings.values, recordings.start_ms
    surplus = values.shape[1] - MOST_TRAINED
    if surplus > 0:
        values, start = values[:, surplus:], start + surplus * recordings.step_ms
        words = f"trained on the newest {MOST_TRAINED} of {MOST_TRAINED + surplus} buckets"
        findings.append(SaidFinding(kind="newest_only", count=surplus, words=words))
    moving = [i for i, row in enumerate(values) if _moves(row)]
    for i in sorted(set(range(len(values))) - set(moving)):
        left_out["/".join(recordings.series[i])] = "never changes: the forecast is its value"
    series = [recordings.series[i] for i in moving]
    grid = SignalGrid(start, recordings.step_ms, series, values[moving], tuple(known_inputs(recordings)))
    return grid, left_out, findings


def _moves(row: Floats) -> bool:
    seen = row[np.isfinite(row)]
    return len(seen) > 1 and float(np.ptp(seen)) > 0


def _train(
    grid: SignalGrid, spec: WindowSpec, plan: TrainPlan, world: Circumstances, progress: Progress
) -> tuple[list[Candidate], str]:
    """(sealed candidates, why there are none)."""
    if not grid.series:
        return [], "Nothing to learn: no series has two different values."
    slots = tuple(f"forecast.{name}" for name in plan.models)
    try:
        found = train_forecast(
            grid,
            ForecastPlan(
                window=spec,
                epochs=plan.epochs,
                seed=plan.seed,
                slots=slots,
                quantize=plan.quantize,
                lstm=plan.lstm,
                targets=("onnx", "tflite") if plan.tflite else ("onnx",),
            ),
            world,
            progress,
        )
    except Refused as refused:
        if refused.reason is not Reason.NOT_ELIGIBLE:
            raise
        return [], f"Nothing was trained: {refused.detail}."
    if any(candidate.passport.eligible for candidate in found):
        return found, ""
    return found, "No model beats the simple reference on held-out values: the simple reference answers."


def _write(
    folder: Path,
    path: Path,
    recordings: Recordings,
    grid: SignalGrid,
    spec: WindowSpec,
    candidates: list[Candidate],
    why: str,
    left_out: dict[str, str],
    findings: list[SaidFinding],
    file_digest: str,
) -> TrainingReport:
    tail = _tail(grid, spec) if candidates else None
    errors = {c.passport.algorithm: worth.errors_by_series(c.passport, grid.series) for c in candidates}
    best_of = worth.winners(errors, len(grid.series))
    answers = {c.passport.algorithm: held_out_answers(c.archive, grid, tail) for c in candidates} if tail else {}
    rows = []
    for candidate in candidates:
        passport = candidate.passport
        name = f"{passport.slot}.bundle"
        (folder / name).write_bytes(candidate.archive)
        figure = passport.quality[0].model
        rows.append(
            ModelRow(
                slot=passport.slot,
                algorithm=passport.algorithm,
                eligible=passport.eligible,
                verdict=passport.verdict,
                file=name,
                digest=digest(candidate.archive),
                bytes=len(candidate.archive),
                error=figure if np.isfinite(figure) else None,
                coverage=worth.coverage(tail, answers.get(passport.algorithm)) if tail else None,
                wins=best_of.count(passport.algorithm),
                latency_us=round(passport.latency_us, 1),
            )
        )
    classes = worth.class_rows([worth.signal_class(row, spec.season) for row in grid.values], errors)
    serving = {row.algorithm: row.error for row in rows if row.eligible and row.error is not None}
    picture = _draw(folder, grid, tail, answers, recordings.stamp_ms) if tail else ""
    for candidate in candidates:
        sizes.write(folder, candidate.passport)
    report = TrainingReport(
        file=path.name,
        digest=file_digest,
        rows=recordings.rows,
        series=len(grid.series),
        buckets=int(grid.values.shape[1]),
        start_ms=grid.start_ms,
        until_ms=grid.until_ms,
        step=step_words(grid.step_ms),
        step_ms=grid.step_ms,
        season=spec.season,
        window=spec.length,
        horizon=spec.horizon,
        split=tail.words() if tail else "",
        best=min(serving, key=serving.__getitem__) if serving else worth.REFERENCE,
        why=why,
        models=rows,
        classes=classes if grid.series else [],
        findings=findings,
        left_out=left_out,
        picture=picture,
    )
    (folder / "report.md").write_text(worth.summary(report), encoding="utf-8")
    (folder / MARK).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return report


def _tail(grid: SignalGrid, spec: WindowSpec) -> Tail:
    return evaluation.hold_out(grid.values, grid.start_ms, grid.step_ms, spec.season, spec.horizon)


def _draw(
    folder: Path,
    grid: SignalGrid,
    tail: Tail,
    answers: dict[str, tuple[Floats, Floats, Floats] | None],
    stamp_ms: int,
) -> str:
    try:
        from server.workbench.picture import draw_held_out
    except ModuleNotFoundError:
        return ""  # matplotlib is part of the extra `train`; without it there is everything but the picture
    shifted = replace(tail, start_ms=tail.start_ms + stamp_ms)
    draw_held_out(folder / "held_out.png", shifted, grid.series, {k: v for k, v in answers.items() if v is not None})
    return "held_out.png"


def check_place(out: Path) -> None:
    """Raises BadSettings where a folder cannot be written without losing something of the user's."""
    if out.exists() and not (out.is_dir() and ((out / MARK).exists() or not any(out.iterdir()))):
        raise BadSettings(f"{out} exists and is not the folder of an earlier training: name another")
    if not out.parent.is_dir():
        raise BadSettings(f"there is no folder {out.parent}: make it, or name another place")


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `out` at the end; removed if anything stops it before."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    part.mkdir()
    try:
        yield part
        if out.exists():
            out.rename(old)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
