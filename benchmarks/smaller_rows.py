"""The two kinds of rows of `smaller.py`, whatever the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import contract
import numpy as np

from export.forms import latencies

MOST_PARAMETERS, LEAST_QUALITY = 0.25, 0.97
MOST_LOSS = 0.01


@dataclass(frozen=True)
class Task:
    """what: of the row; lower: whether less of the metric is better; n: test rows."""

    what: str
    metric: str
    lower: bool
    n: int

    def quality(self, student: float, teacher: float) -> float:
        """Of the teacher's, 1 being as good."""
        return teacher / student if self.lower else student / teacher

    def better(self, one: float, other: float) -> bool:
        """Whether the first is."""
        return one < other if self.lower else one > other


def student_row(
    sheet: contract.Sheet,
    task: Task,
    teacher: tuple[float, int],
    taught: Sequence[float],
    alone: Sequence[float],
    parameters: int,
    *,
    judged: bool,
    seconds: float,
    peers: Mapping[str, float | None] | None = None,
    **more: float,
) -> None:
    """A distilled student. teacher: (figure, parameters); taught, alone: figures by seed; peers: other methods' figures;
    more: what else the row tells."""
    figure, size = teacher
    mean, without = float(np.mean(taught)), float(np.mean(alone))
    quality, share = task.quality(mean, figure), parameters / size
    holds = quality >= LEAST_QUALITY and share <= MOST_PARAMETERS and task.better(mean, without)
    sheet.row(
        f"{task.what}: student of {share:.0%} of the teacher's parameters, {len(taught)} seeds",
        task.metric,
        mean,
        reference=without,
        peers={"teacher": figure, **(peers or {})},
        target=figure / LEAST_QUALITY if task.lower else figure * LEAST_QUALITY,
        holds=holds if judged else None,
        n=task.n,
        seconds=seconds,
        quality_of_the_teachers=round(quality, 4),
        parameters=parameters,
        teacher_parameters=size,
        by_seed=[round(one, 5) for one in taught],
        alone_by_seed=[round(one, 5) for one in alone],
        deviation=round(float(np.std(taught)), 5),
        alone_deviation=round(float(np.std(alone)), 5),
        seeds_better=sum(task.better(one, other) for one, other in zip(taught, alone, strict=True)),
        **more,
    )


@dataclass(frozen=True)
class Timed:
    """What one call does, such as "one row"; calls, sizes: "whole float", "whole int8", "pruned float", "pruned int8" -> one
    call on one thread, bytes; each: rows or tokens that come of a call."""

    what: str
    calls: Mapping[str, Callable[[], object]]
    sizes: Mapping[str, int]
    each: int = 1


def pruned_rows(
    sheet: contract.Sheet,
    task: Task,
    figures: Mapping[str, Sequence[float]],
    parameters: tuple[int, int],
    timed: Timed,
    *,
    judged: bool,
    seconds: float,
) -> None:
    """Half of a network. figures: of "whole" and "pruned" ones and of peers, by seed; parameters: (whole, pruned)."""
    means = {name: float(np.mean(each)) for name, each in figures.items()}
    whole, pruned = means.pop("whole"), means.pop("pruned")
    loss = 1.0 - task.quality(pruned, whole)
    sheet.row(
        f"{task.what}: half pruned, {len(figures['whole'])} seeds",
        task.metric,
        pruned,
        reference=whole,
        peers={**means},
        target=whole * (1 + MOST_LOSS) if task.lower else whole * (1 - MOST_LOSS),
        holds=loss <= MOST_LOSS if judged else None,
        n=task.n,
        seconds=seconds,
        loss=round(loss, 5),
        parameters=parameters[1],
        whole_parameters=parameters[0],
        by_seed=[round(one, 5) for one in figures["pruned"]],
        whole_by_seed=[round(one, 5) for one in figures["whole"]],
    )
    spent = latencies(timed.calls)
    for form in ("float", "int8"):
        before, after = spent[f"whole {form}"], spent[f"pruned {form}"]
        sheet.row(
            f"{task.what}: half pruned, {form}, {timed.what}, one thread",
            "microseconds",
            after,
            reference=before,
            target=before,
            holds=after < before if judged else None,
            times_faster=round(before / after, 2),
            per_second=round(1e6 * timed.each / after, 1),
            whole_per_second=round(1e6 * timed.each / before, 1),
            bytes=timed.sizes[f"pruned {form}"],
            whole_bytes=timed.sizes[f"whole {form}"],
        )
