"""Held-out forecasts beside what came: one panel a series, the newest origin, every model's mean and interval. And what
each part of a recommender is worth, and counts, by how much is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from protocol.windows import Floats
from server.evaluation import Tail

PANELS = 6
COLOURS = ("#0f766e", "#b45309", "#2563eb", "#9333ea")


def draw_held_out(
    path: Path, tail: Tail, series: list[tuple[str, str]], answers: dict[str, tuple[Floats, Floats, Floats]]
) -> None:
    """Writes the picture; its ending says the format (png, svg, pdf). At most PANELS series, spread over all of them."""
    shown = sorted({round(i) for i in np.linspace(0, len(series) - 1, min(PANELS, len(series))).tolist()})
    figure = Figure(figsize=(10, 2.4 * len(shown) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for panel, s in zip(panels, shown, strict=True):
        _panel(panel, tail, s, answers)
        panel.set_title(_drawable(" / ".join(series[s])), fontsize=9, loc="left")
    panels[0].legend(loc="upper left", fontsize=8, ncols=4)
    figure.savefig(path, dpi=110)


def draw_by_length(path: Path, ndcg: list[tuple[int, dict[str, float]]], weights: dict[int, dict[str, float]]) -> None:
    """Left: nDCG@10 of every model [known choices -> model -> nDCG]. Right: the hybrid's weights, one on another."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    known = [length for length, _ in ndcg]
    for name, colour in zip(ndcg[0][1], ("#8a9a97", *COLOURS[:3], "#16211f"), strict=False):
        wide, line = (2.4, "--") if name == "hybrid" else (1.2, "-")  # what lies below stays visible
        shown = name.replace("_", " ")
        left.plot(
            range(len(known)),
            [row[name] for _, row in ndcg],
            color=colour,
            lw=wide,
            ls=line,
            marker="o",
            ms=3,
            label=shown,
        )
    left.set_xticks(range(len(known)), [str(length) for length in known])
    left.set(xlabel="choices told", ylabel="nDCG@10, held out", ylim=(0, None))
    left.legend(fontsize=8)
    below = np.zeros(len(weights))
    for part, colour in zip(next(iter(weights.values())), ("#8a9a97", *COLOURS), strict=False):
        shares = np.array([row[part] for row in weights.values()])
        right.bar(range(len(weights)), shares, bottom=below, color=colour, label=part)
        below += shares
    right.set_xticks(range(len(weights)), [str(low) for low in weights])
    right.set(xlabel="choices known, from", ylabel="what each part counts", ylim=(0, 1.25))
    right.legend(fontsize=8, ncols=4, loc="upper center")
    for panel in (left, right):
        panel.tick_params(labelsize=8)
    figure.savefig(path, dpi=110)


def _panel(panel: Any, tail: Tail, s: int, answers: dict[str, tuple[Floats, Floats, Floats]]) -> None:
    horizon = tail.targets.shape[2]
    origin = int(tail.origins[-1])
    first = max(origin - 4 * horizon, 0)
    seen = np.arange(first, min(origin + horizon, tail.values.shape[1]))
    ahead = np.arange(origin, origin + horizon)
    panel.plot(_moments(tail, seen), tail.values[s, seen], color="#16211f", lw=1, label="observed")
    panel.plot(_moments(tail, ahead), tail.naive[s, -1], color="#8a9a97", lw=1, ls=":", label="simple reference")
    for (name, (low, mean, high)), colour in zip(answers.items(), COLOURS, strict=False):
        panel.plot(_moments(tail, ahead), mean[s, -1], color=colour, lw=1.4, label=name)
        panel.fill_between(_moments(tail, ahead), low[s, -1], high[s, -1], color=colour, alpha=0.15, lw=0)
    panel.tick_params(labelsize=8)


def _moments(tail: Tail, buckets: NDArray[np.int64]) -> list[datetime]:
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    return [zero + timedelta(milliseconds=tail.start_ms + int(b) * tail.step_ms) for b in buckets]


def _drawable(text: str) -> str:
    """Names in scripts that the built-in font has no glyphs for would warn; they are escaped."""
    return text.encode("latin-1", "backslashreplace").decode("latin-1").replace("$", r"\$")
