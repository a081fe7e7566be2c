"""What the trained forecasters are worth, per model and per class of signal, as figures and as words."""

from __future__ import annotations

import msgspec
import numpy as np

from protocol.bundles import Passport
from protocol.windows import Floats, fill_forward
from server.evaluation import Tail

REFERENCE = "naive"
INTERMITTENT_SHARE = 0.4
SEASONAL_CORRELATION = 0.5
TRENDING_CORRELATION = 0.8


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed forecaster. error: mean over series of its absolute error divided by the simple reference's on the same
    held-out values (below 1 is better); None: could not be measured. coverage: share of held-out values within the 80 %
    interval. wins: series on which it is the best, the reference included."""

    slot: str
    algorithm: str
    eligible: bool
    verdict: str
    file: str
    digest: str
    bytes: int
    error: float | None
    coverage: float | None
    wins: int
    latency_us: float


class ClassRow(msgspec.Struct, frozen=True, kw_only=True):
    """A class of signals. errors: algorithm -> mean relative error on its series (the simple reference is 1)."""

    name: str
    series: int
    best: str
    errors: dict[str, float]


class SaidFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Something odd in the file, and what was done about it."""

    kind: str
    count: int
    words: str
    series: list[str] = []


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `report.json` says. best: the algorithm with the lowest held-out error among the eligible and the simple
    reference. why: why nothing is eligible, else empty."""

    file: str
    digest: str
    rows: int
    series: int
    buckets: int
    start_ms: int
    until_ms: int
    step: str
    step_ms: int
    season: int
    window: int
    horizon: int
    split: str
    best: str
    why: str
    models: list[ModelRow]
    classes: list[ClassRow]
    findings: list[SaidFinding]
    left_out: dict[str, str]
    picture: str = ""


def signal_class(row: Floats, season: int) -> str:
    """ "intermittent" (many zeros), "seasonal" (like itself a season ago), "trending" (goes one way), else "steady"."""
    seen = row[np.isfinite(row)]
    if len(seen) < 8 or np.ptp(seen) == 0:
        return "steady"
    if float(np.mean(seen == 0)) >= INTERMITTENT_SHARE and seen.min() >= 0:
        return "intermittent"
    filled = fill_forward(row[None])[0]
    time = np.arange(len(filled), dtype=np.float64)
    slope, level = np.polyfit(time, filled, 1)
    rest = filled - slope * time - level
    if season and len(filled) > 2 * season and _correlation(rest[season:], rest[:-season]) >= SEASONAL_CORRELATION:
        return "seasonal"
    return "trending" if abs(_correlation(filled, time)) >= TRENDING_CORRELATION else "steady"


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def errors_by_series(passport: Passport, series: list[tuple[str, str]]) -> Floats:
    """Relative error of every series [S]; NaN where the model has none."""
    known = dict(zip(passport.series, passport.series_error, strict=False))
    return np.array([known.get(key, np.nan) for key in series])


def winners(errors: dict[str, Floats], count: int) -> list[str]:
    """The best algorithm of every series; the simple reference is 1 everywhere."""
    names = [REFERENCE, *errors]
    table = np.stack([np.ones(count), *(np.where(np.isfinite(e), e, np.inf) for e in errors.values())])
    return [names[i] for i in table.argmin(axis=0).tolist()]


def class_rows(classes: list[str], errors: dict[str, Floats]) -> list[ClassRow]:
    """Mean errors of every class of signals; a series without an answer counts as the reference (1)."""
    rows = []
    for name in sorted(set(classes)):
        mine = np.array([c == name for c in classes])
        means = {REFERENCE: 1.0}
        means |= {a: round(float(np.where(np.isfinite(e), e, 1.0)[mine].mean()), 4) for a, e in errors.items()}
        rows.append(ClassRow(name=name, series=int(mine.sum()), best=min(means, key=means.__getitem__), errors=means))
    return rows


def coverage(tail: Tail, answers: tuple[Floats, Floats, Floats] | None) -> float | None:
    """Share of held-out values within the interval; None where nothing was answered."""
    if answers is None:
        return None
    held = tail.coverage(answers[0], answers[2])
    return round(held, 4) if np.isfinite(held) else None


def summary(report: TrainingReport) -> str:
    """The report in Markdown, for people."""
    lines = [
        f"# Forecasters of {report.file}",
        "",
        f"{report.rows} rows, {report.series} series, {report.buckets} buckets of {report.step}; "
        f"season {report.season or '–'}, window {report.window}, horizon {report.horizon}. "
        f"Held out: {report.split or 'nothing'}.",
        "",
        f"**{report.why}**" if report.why else f"Best: **{report.best}**.",
        "",
        "Error is the mean absolute error divided by the simple reference's (last season's value) on the same held-out "
        "values: below 1 is better.",
        "",
        "| model | error | 80 % interval held | best on | size | verdict |",
        "|---|---|---|---|---|---|",
        "| simple reference | 1 | | | | |",
    ]
    for row in report.models:
        error = "–" if row.error is None else f"{row.error:.3f}"
        held = "–" if row.coverage is None else f"{row.coverage:.1%}"
        lines.append(
            f"| {row.algorithm} | {error} | {held} | {row.wins} of {report.series} | {row.bytes / 1024:.0f} KiB "
            f"| {row.verdict} |"
        )
    lines += ["", "| class of signals | series | best | errors |", "|---|---|---|---|"]
    for group in report.classes:
        errors = ", ".join(f"{name} {error:.3f}" for name, error in group.errors.items())
        lines.append(f"| {group.name} | {group.series} | {group.best} | {errors} |")
    lines += ["", "## What was odd in the file", ""]
    lines += [f"- {f.words}{': ' + ', '.join(f.series) if f.series else ''}" for f in report.findings] or ["Nothing."]
    lines += [f"- left out: {name}: {why}" for name, why in list(report.left_out.items())[:50]]
    if report.picture:
        lines += ["", f"![held-out forecasts]({report.picture})"]
    return "\n".join(lines) + "\n"
