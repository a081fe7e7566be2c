"""A schedule as an SVG document: a row for each machine, maintenance hatched, closed times grey, set-ups dark, the critical
path outlined. No library, no font of its own; light or dark as its surroundings ask."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from protocol.schedules import Schedule

WIDTH, LEFT, RIGHT, TOP, ROW, FOOT = 1080, 96, 12, 46, 30, 52
CALENDAR_MS = 100_000_000_000
WORDS = {
    "en": {
        "title": "Production schedule: ends at {0}",
        "critical": "critical path",
        "maintenance": "maintenance",
        "closed": "closed",
        "setup": "set-up",
        "late": "late job",
    },
    "zh": {
        "title": "生产排程：{0} 结束",
        "critical": "关键路径",
        "maintenance": "维护",
        "closed": "停用时段",
        "setup": "换型",
        "late": "延迟作业",
    },
}
_STYLE = (
    "svg{--bg:#fff;--ink:#16211f;--muted:#5b6b68;--line:#dfe6e4;--alarm:#b91c1c;--warn:#b45309;--light:78%}"
    "@media (prefers-color-scheme:dark){svg{--bg:#161f1e;--ink:#e6efed;--muted:#9bb0ac;--line:#3a4a47;--alarm:#f87171;"
    "--warn:#fbbf24;--light:34%}}"
    "text{font:11px system-ui,'Noto Sans','Noto Sans CJK SC',sans-serif;fill:var(--muted)}"
    ".title{font-size:15px;fill:var(--ink)}.label{fill:var(--ink)}.page{fill:var(--bg)}"
    ".grid{stroke:var(--line)}.work{stroke:var(--bg);fill:hsl(var(--hue) 48% var(--light))}"
    ".critical{stroke:var(--alarm);stroke-width:2}.shut{fill:var(--line)}.setup{fill:var(--muted);opacity:.55}"
    ".upkeep{fill:url(#hatch);stroke:var(--warn);stroke-width:1.5}.back{fill:var(--bg)}"
    ".stripe{stroke:var(--warn);stroke-width:3}.late{fill:var(--alarm)}"
)
_HATCH = (
    '<defs><pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="7" height="7" class="back"/><line x1="0" x2="0" y1="0" y2="7" class="stripe"/></pattern></defs>'
)


def draw(plan: Schedule, lang: str = "en") -> str:
    """The document."""
    words = WORDS[lang]
    machines = sorted({p.machine for p in plan.placed} | {m.machine for m in plan.maintenance}, key=_natural)
    height = TOP + ROW * len(machines) + FOOT
    title = words["title"].format(_stamp(plan, plan.end_ms))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">',
        f'<style>{_STYLE}</style>{_HATCH}<rect width="{WIDTH}" height="{height}" class="page"/>',
        f'<text class="title" x="12" y="22">{escape(title)}</text>',
    ]
    from_ms = min([plan.start_ms, *(p.start_ms - p.setup_ms for p in plan.placed)])
    to_ms = max([plan.end_ms, *(m.end_ms for m in plan.maintenance), from_ms + 1])

    def x(ms: int) -> float:
        inside = min(max(ms, from_ms), to_ms)
        return LEFT + (inside - from_ms) / (to_ms - from_ms) * (WIDTH - LEFT - RIGHT)

    parts += _axis(plan, x, from_ms, to_ms, height)
    parts += _rows(plan, {name: TOP + ROW * k for k, name in enumerate(machines)}, x, words)
    parts += _legend(plan, words, height - 12)
    return "\n".join([*parts, "</svg>", ""])


def _axis(plan: Schedule, x: Callable[[int], float], from_ms: int, to_ms: int, height: int) -> list[str]:
    parts = []
    for i in range(7):
        ms = from_ms + (to_ms - from_ms) * i // 6
        anchor = "start" if i == 0 else "end" if i == 6 else "middle"
        parts.append(f'<line class="grid" x1="{x(ms):.1f}" x2="{x(ms):.1f}" y1="{TOP - 6}" y2="{height - FOOT + 4}"/>')
        parts.append(f'<text x="{x(ms):.1f}" y="{height - FOOT + 18}" text-anchor="{anchor}">{_stamp(plan, ms)}</text>')
    return parts


def _rows(plan: Schedule, y: dict[str, int], x: Callable[[int], float], words: dict[str, str]) -> list[str]:
    def block(kind: str, machine: str, start: int, end: int, title: str, label: str = "", style: str = "") -> str:
        width = max(x(end) - x(start), 1.5)
        text = ""
        if label and width > 7 * len(label):
            middle = x(start) + width / 2
            where = f'x="{middle:.1f}" y="{y[machine] + ROW / 2 + 3}" text-anchor="middle"'
            text = f'<text class="label" {where}>{escape(label)}</text>'
        return (
            f'<g><title>{escape(title)}</title><rect class="{kind}" x="{x(start):.1f}" y="{y[machine] + 3}" '
            f'width="{width:.1f}" height="{ROW - 8}" rx="3"{style}/>{text}</g>'
        )

    def when(start: int, end: int) -> str:
        return f"{_stamp(plan, start)} – {_stamp(plan, end)}"

    jobs = sorted({p.job for p in plan.placed}, key=_natural)
    hue = {name: k * 137.5 % 360 for k, name in enumerate(jobs)}
    critical = {(w.job, w.operation) for w in plan.critical if not w.maintenance}
    late = set(plan.late_jobs)
    parts = [
        f'<text x="{LEFT - 8}" y="{top + ROW / 2 + 3}" text-anchor="end">{escape(name[:14])}</text>'
        for name, top in y.items()
    ]
    parts += [
        block("shut", c.machine, c.start_ms, c.end_ms, f"{c.because or words['closed']}: {when(c.start_ms, c.end_ms)}")
        for c in plan.closed
        if c.machine in y and c.end_ms > c.start_ms
    ]
    # what is outlined comes last, so that no neighbour covers its outline
    for p in sorted(plan.placed, key=lambda p: (p.job, p.operation) in critical):
        if p.setup_ms:
            parts.append(block("setup", p.machine, p.start_ms - p.setup_ms, p.start_ms, words["setup"]))
        kind = "work critical" if (p.job, p.operation) in critical else "work"
        told = f"{p.job} · {p.operation + 1}: {when(p.start_ms, p.end_ms)}"
        told += f" ({words['late']})" if p.job in late else ""
        parts.append(block(kind, p.machine, p.start_ms, p.end_ms, told, p.job, f' style="--hue:{hue[p.job]:.0f}"'))
    for m in plan.maintenance:
        told = f"{words['maintenance']} {m.id}: {when(m.start_ms, m.end_ms)}, P {m.risk_before:.1%}; {m.because}"
        parts.append(block("upkeep", m.machine, m.start_ms, m.end_ms, told))
    return parts


def _legend(plan: Schedule, words: dict[str, str], y: int) -> list[str]:
    """Only what the picture shows."""
    shown = [("work critical", "critical")] if plan.critical else []
    shown += [("upkeep", "maintenance")] if plan.maintenance else []
    shown += [("shut", "closed")] if plan.closed else []
    shown += [("setup", "setup")] if any(p.setup_ms for p in plan.placed) else []
    parts, x = [], LEFT
    for kind, word in shown:
        parts.append(f'<rect class="{kind}" style="--hue:170" x="{x}" y="{y - 10}" width="22" height="12" rx="2"/>')
        parts.append(f'<text x="{x + 28}" y="{y}">{escape(words[word])}</text>')
        x += 150
    return parts


def _stamp(plan: Schedule, ms: int) -> str:
    if plan.start_ms < CALENDAR_MS:
        return f"{ms}"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%m-%d %H:%MZ")


def _natural(name: str) -> tuple[str, int, str]:
    """M2 before M10."""
    head = name.rstrip("0123456789")
    digits = name[len(head) :]
    return head, int(digits) if digits and len(digits) < 18 else -1, name
