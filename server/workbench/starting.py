"""Models to start with become one folder: a bundle each, report.json and report.md, whole or not at all."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocol.bundles import digest
from protocol.errors import BadSettings
from server.training import Candidate, Progress
from server.workbench.training import MARK, check_place, quiet, written_whole

READER_SHARE = 0.6
"""Of the time."""


class StarterModel(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed model. bytes: of its bundle."""

    slot: str
    eligible: bool
    verdict: str
    file: str
    digest: str
    bytes: int
    latency_us: float


class StarterReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `report.json` says. unseen: question -> of `unseen_notes` simulated notes in wordings that were never shown,
    the share of right answers by language, the share that it was sure of, and the share of those that were right.
    packed_cosine: of the packed encoder's vectors to the float one's, mean and lowest."""

    models: list[StarterModel]
    sources: list[str]
    licence: str
    seed: int
    seconds: float
    encoder_parameters: int
    unseen: dict[str, dict[str, float]]
    unseen_notes: int
    packed_cosine: list[float]


@dataclass(frozen=True)
class TrainedStarter:
    """What a training left. `eligible`: whether every model may serve."""

    folder: Path
    report: StarterReport

    @property
    def eligible(self) -> bool:
        """Whether all beat their simple references."""
        return all(model.eligible for model in self.report.models)


def train_starter(
    out: Path,
    *,
    minutes: float | None = None,
    seed: int = 7,
    tflite: bool = False,
    teacher: int = 0,
    prune: float = 0.0,
    progress: Progress = quiet,
    now_ms: int | None = None,
) -> TrainedStarter:
    """Trains the models to start with and writes the folder `out`, which must not exist, or be an earlier one of this
    function. minutes: at most so many for the encoder; None: its usual number of steps. tflite: the reader's encoder
    also as a TFLite file. teacher, prune: as `StarterPlan.smaller`. Raises BadSettings for a folder that cannot be written,
    for minutes that are none and as `StarterPlan.smaller`."""
    if minutes is not None and not 0 < minutes <= 24 * 60:
        raise BadSettings(f"--minutes {minutes}: give more than 0, and at most a day")
    check_place(out)
    from server.training import starter  # torch, only here

    began = time.monotonic()
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    targets = ("onnx", "tflite") if tflite else ("onnx",)
    plan = starter.StarterPlan(minutes=minutes, seed=seed, targets=targets).smaller(teacher, prune)
    made = starter.starter_reader(plan, now, lambda share, step: progress(READER_SHARE * share, step))
    writer = starter.starter_writer(
        plan, now, lambda share, step: progress(READER_SHARE + (0.99 - READER_SHARE) * share, step)
    )
    candidates = [made.candidate, writer]
    report = StarterReport(
        models=[_model(candidate) for candidate in candidates],
        sources=[starter.SOURCES, starter.WRITER_SOURCES],
        licence=starter.LICENCE,
        seed=seed,
        seconds=round(time.monotonic() - began, 1),
        encoder_parameters=sum(p.numel() for p in made.encoder.net.bert.parameters()),
        unseen=made.unseen.right,
        unseen_notes=made.unseen.notes,
        packed_cosine=list(made.kept),
    )
    with written_whole(out) as folder:
        for model, candidate in zip(report.models, candidates, strict=True):
            (folder / model.file).write_bytes(candidate.archive)
        (folder / "report.md").write_text(starter_summary(report), encoding="utf-8")
        (folder / MARK).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    progress(1.0, "written")
    return TrainedStarter(out, report)


def _model(candidate: Candidate) -> StarterModel:
    passport = candidate.passport
    return StarterModel(
        slot=passport.slot,
        eligible=passport.eligible,
        verdict=passport.verdict,
        file=f"{passport.slot}.bundle",
        digest=digest(candidate.archive),
        bytes=len(candidate.archive),
        latency_us=round(passport.latency_us, 1),
    )


def starter_summary(report: StarterReport) -> str:
    """The report in words, as Markdown."""
    lines = [
        f"Models to start with, from {'; '.join(report.sources)}. Licence: {report.licence}. Seed {report.seed}, "
        f"{report.seconds:.0f} seconds; the encoder has {report.encoder_parameters / 1e6:.1f} million parameters.",
        "",
    ]
    lines += [
        f"- {model.slot} ({model.bytes / 1e6:.1f} MB, {model.latency_us:.0f} µs): {model.verdict}"
        for model in report.models
    ]
    lines += [
        "",
        f"On {report.unseen_notes} simulated notes in wordings that were never shown:",
        "",
        "| question | English | 中文 | sure of | right where sure |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {about} | " + " | ".join(f"{right[k]:.0%}" for k in ("en", "zh", "sure", "right_where_sure")) + " |"
        for about, right in report.unseen.items()
    ]
    lines += [
        "",
        f"The packed encoder's vectors lie at a cosine of {report.packed_cosine[0]:.3f} to the float one's in the mean, "
        f"{report.packed_cosine[1]:.3f} at the lowest.",
        "",
        "Simulated notes are simpler than what people write: train again on your own as soon as there are some.",
        "",
    ]
    return "\n".join(lines)
