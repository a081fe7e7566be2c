"""What a trained recommender is worth beside popularity and its single parts, as figures and as words."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from protocol.choices import ChoiceColumns
from server.workbench.worth import SaidFinding

CALLED = {
    "popularity": "popularity (simple reference)",
    "item_neighbours": "item-based",
    "user_neighbours": "user-based",
    "content_based": "content-based",
    "linear_items": "linear items (not sealed)",
    "hybrid": "**hybrid, as sealed**",
}


class ListRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model's means over the judged users. above: its nDCG@10 less popularity's, paired by user; error: that
    difference's standard error."""

    name: str
    ndcg: float
    recall: float
    above: float
    error: float


class LengthRow(msgspec.Struct, frozen=True, kw_only=True):
    """nDCG@10 by model where only the newest `known` choices of each of `users` users are told."""

    known: int
    users: int
    ndcg: dict[str, float]


class RecommendReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `report.json` says. events: usable rows; pairs: different (user, item); kept_users: those whose choices the
    bundle holds. packing_rms, packing_change: what int8 cost. weights: what each part counts, by the least number of known
    choices. latency_us: one list of ten, here."""

    file: str
    digest: str
    rows: int
    events: int
    users: int
    items: int
    pairs: int
    kept_users: int
    until_ms: int | None
    columns: ChoiceColumns
    seed: int
    split: str
    judged: int
    eligible: bool
    verdict: str
    bundle: str
    bundle_digest: str
    bytes: int
    packing_rms: float
    packing_change: float
    latency_us: float
    models: list[ListRow]
    lengths: list[LengthRow]
    weights: dict[int, dict[str, float]]
    findings: list[SaidFinding]
    picture: str = ""


def list_summary(report: RecommendReport) -> str:
    """The report in Markdown, for people."""
    until = "" if report.until_ms is None else f", up to {datetime.fromtimestamp(report.until_ms / 1000, UTC):%Y-%m-%d}"
    lines = [
        f"# A recommender of {report.file}",
        "",
        f"{report.rows} rows, {report.events} of them usable{until}: {report.users} users, {report.items} items, "
        f"{report.pairs} different choices.",
        "",
        f"**{report.verdict}**",
        "",
        f"Held out: {report.split}.",
        "",
        "| model | nDCG@10 | recall@10 | nDCG above popularity |",
        "|---|---|---|---|",
    ]
    for row in report.models:
        above = "" if row.name == "popularity" else f"{row.above:+.3f} ± {row.error:.3f}"
        lines.append(f"| {CALLED.get(row.name, row.name)} | {row.ndcg:.3f} | {row.recall:.3f} | {above} |")
    lines += [
        "",
        "The last column is the mean difference by user and its standard error; less than twice the error may be chance.",
        "",
    ]
    lines += _by_length(report)
    lines += ["", "## What each part counts", "", "| known choices from | " + " | ".join(_parts(report)) + " |"]
    lines.append("|---|" + "---|" * len(_parts(report)))
    for low, weights in report.weights.items():
        lines.append(f"| {low} | " + " | ".join(f"{weight:.2f}" for weight in weights.values()) + " |")
    lines += [
        "",
        f"The bundle takes {report.bytes / 1024:.0f} KiB and holds the choices of {report.kept_users} users by name; int8 "
        f"changed scores by {report.packing_rms:.1%} of their deviation and nDCG by {report.packing_change:+.2%} (above 0: "
        f"worse). A list of ten takes {report.latency_us / 1000:.2f} ms here.",
        "",
        "## What was odd in the file",
        "",
    ]
    lines += [f"- {finding.words}" for finding in report.findings] or ["Nothing."]
    return "\n".join(lines) + "\n"


def _parts(report: RecommendReport) -> list[str]:
    return list(next(iter(report.weights.values()), {}))


def _by_length(report: RecommendReport) -> list[str]:
    if not report.lengths:
        return ["Too few users chose more than once to say what each part is worth by how much is known."]
    names = list(report.lengths[0].ndcg)
    lines = ["## By how much is known of a user", "", "nDCG@10 where only the newest few choices are told.", ""]
    lines.append("| known | users | " + " | ".join(CALLED.get(n, n).replace(", as sealed", "") for n in names) + " |")
    lines.append("|---|---|" + "---|" * len(names))
    lines += [
        f"| {row.known} | {row.users} | " + " | ".join(f"{row.ndcg[name]:.3f}" for name in names) + " |"
        for row in report.lengths
    ]
    if report.picture:
        lines += ["", f"![nDCG and weights by what is known]({report.picture})"]
    return lines
