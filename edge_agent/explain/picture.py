"""A forecast and why it is what it is, as an SVG document: history, interval and mean on the left, shares on the right. No
library, no font of its own, readable in light and dark surroundings."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.sax.saxutils import escape

import numpy as np

from protocol.reports import Forecast, ForecastExplanation
from protocol.windows import Floats

PANELS = 12
WIDTH, HEIGHT, LEFT, CHART = 1000, 220, 64, 620
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#5b6b68}.name{font-size:14px;fill:#16211f}.grid{stroke:#dfe6e4}"
    ".seen{fill:none;stroke:#24514c;stroke-width:1.5}.mean{fill:none;stroke:#0f766e;stroke-width:2}"
    ".band{fill:#0f766e;fill-opacity:.2}.up{fill:#b45309}.down{fill:#2563eb}.error{stroke:#16211f}"
)


def draw(rows: list[tuple[Floats, Forecast, ForecastExplanation | None]]) -> str:
    """The document. rows: (history [T] up to the forecast's start, forecast, its explanation); the first PANELS are drawn."""
    shown = rows[:PANELS]
    height = HEIGHT * max(len(shown), 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f'<style>{_STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for i, (history, forecast, why) in enumerate(shown):
        parts.append(f'<g transform="translate(0 {i * HEIGHT})">')
        parts += _chart(history, forecast)
        parts += _bars(why) if why is not None else []
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _chart(history: Floats, forecast: Forecast) -> list[str]:
    steps = len(forecast.mean)
    seen = history[-max(4 * steps, 48) :]
    mean, low, high = (np.array(part) for part in (forecast.mean, forecast.low, forecast.high))
    values = np.concatenate([seen[np.isfinite(seen)], low, high])
    bottom, top = float(values.min()), float(values.max())
    pad = 0.06 * (top - bottom or abs(top) or 1.0)
    bottom, top = bottom - pad, top + pad
    total = len(seen) + steps

    def x(i: float) -> float:
        return LEFT + (CHART - LEFT) * i / max(total - 1, 1)

    def y(v: float) -> float:
        return 30 + (HEIGHT - 56) * (top - v) / (top - bottom)

    def line(points: list[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)

    ahead = [len(seen) + i for i in range(steps)]
    name = f"{forecast.machine} / {forecast.signal}" + (f" ({forecast.unit})" if forecast.unit else "")
    parts = [
        f'<text class="name" x="{LEFT}" y="18">{escape(name)} · {escape(forecast.model.algorithm)} · '
        f"{forecast.level:.0%}</text>"
    ]
    for share in (0.0, 0.5, 1.0):
        v = bottom + pad + share * (top - bottom - 2 * pad)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{CHART}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.4g}</text>')
    band = [(x(a), y(v)) for a, v in zip(ahead, high, strict=True)]
    band += [(x(a), y(v)) for a, v in zip(reversed(ahead), low[::-1], strict=True)]
    parts.append(f'<path class="band" d="{line(band)}Z"/>')
    for stretch in _stretches(seen):
        points = [(x(i), y(float(seen[i]))) for i in stretch]
        parts.append(f'<path class="seen" d="{line(points)}"/>')
    parts.append(f'<path class="mean" d="{line([(x(a), y(v)) for a, v in zip(ahead, mean, strict=True)])}"/>')
    begin = forecast.start_ms - len(seen) * forecast.step_ms
    end = forecast.start_ms + steps * forecast.step_ms
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">{_moment(begin)}</text>')
    parts.append(f'<text x="{CHART}" y="{HEIGHT - 8}" text-anchor="end">{_moment(end)} UTC</text>')
    return parts


def _stretches(seen: Floats) -> list[list[int]]:
    """Runs of observed buckets."""
    found: list[list[int]] = []
    for i in np.flatnonzero(np.isfinite(seen)).tolist():
        if found and found[-1][-1] == i - 1:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def _bars(why: ForecastExplanation) -> list[str]:
    largest = max((abs(s.amount) + s.error for s in why.shares), default=0.0) or 1.0
    middle, reach, row = 850, 70, min(22, (HEIGHT - 70) // max(len(why.shares), 1))
    parts = [f'<text x="{CHART + 20}" y="18">{why.base:.5g} + … = {why.total:.5g}</text>']
    for i, share in enumerate(why.shares):
        top = 34 + i * row
        width = reach * abs(share.amount) / largest
        left = middle if share.amount >= 0 else middle - width
        side = "up" if share.amount >= 0 else "down"
        parts.append(f'<text x="{CHART + 20}" y="{top + 11}">{escape(share.label_en)}</text>')
        parts.append(f'<rect class="{side}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="{row - 7}"/>')
        if share.error:
            at = middle + reach * share.amount / largest
            spread, level = reach * share.error / largest, top + (row - 7) / 2
            parts.append(
                f'<line class="error" x1="{at - spread:.1f}" x2="{at + spread:.1f}" y1="{level:.1f}" y2="{level:.1f}"/>'
            )
        parts.append(f'<text x="{WIDTH - 8}" y="{top + 11}" text-anchor="end">{share.amount:+.4g}</text>')
    return parts


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(max(ms, 0) / 1000, UTC).strftime("%Y-%m-%d %H:%M")
