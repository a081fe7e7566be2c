"""A model's card: everything that its passport says, in sections, for a person to read; as data, and as Markdown.

It says what the passport says and adds nothing; what was not measured is called that. The order of sections follows Mitchell
et al., "Model Cards for Model Reporting", FAT* 2019 (arXiv:1810.03993): model details, intended use, factors, metrics,
evaluation data, training data, quantitative analyses, caveats. A card is generated, never stored: the passport is what is
signed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from protocol.bundles import Form, Parity, Passport, Quality
from protocol.card_words import Language, metric_word, word
from protocol.unreadable import UNREADABLE


class Line(msgspec.Struct, frozen=True):
    """One thing and what it is."""

    what: str
    text: str


class Table(msgspec.Struct, frozen=True):
    """heads [C], rows [R][C]; numbers: columns that are set flush right."""

    heads: list[str]
    rows: list[list[str]]
    numbers: list[int] = []


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """name: the same in every language ("quality"); title: for people."""

    name: str
    title: str
    lines: list[Line] = []
    tables: list[Table] = []


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A card in one language. eligible: what the verdict comes to; note: after whom it is ordered."""

    title: str
    language: Language
    digest: str
    eligible: bool
    sections: list[Section]
    note: str


_GROUPS = (
    ("pruning", re.compile(r"prun|sparsity|hidden_after|^sizes$")),
    ("teacher", re.compile(r"teacher|distil|student|taught")),
    (
        "regularization",
        re.compile(r"dropout|decay|penalt|regular|shrink|forget_|early|patience|\bl[12]\b|ridge|min_.*leaf"),
    ),
    ("optimization", re.compile(r"epoch|rate|batch|steps|optimi[sz]er|warmup|momentum|seed|threads|windows")),
)
"""Group -> names of parameters that belong to it; the first that fits. What fits none is "other"."""
_LONGEST_VALUE = 400
"""Characters of a parameter's value that a card shows; the passport has all of it."""


def card(passport: Passport, digest: str, language: Language = "en") -> Card:
    """The card of the bundle with this digest."""
    sections = [
        _verdict(passport, digest, language),
        _model(passport, language),
        _use(passport, language),
        _lineage(passport, language),
        _parameters(passport.lineage.parameters, language),
        _quality(passport, language),
        _packing(passport, language),
        _speed(passport, language),
        _proof(passport, language),
        _lite(passport, language),
        _files(passport, language),
    ]
    return Card(
        title=f"{passport.slot} v{passport.version}",
        language=language,
        digest=digest,
        eligible=passport.eligible,
        sections=[section for section in sections if section.lines or section.tables],
        note=word("source", language),
    )


def markdown(told: Card) -> str:
    """The card as one Markdown document. What it shows cannot become markup of its own."""
    parts = [f"# {_safe(told.title)}"]
    for section in told.sections:
        parts.append(f"## {_safe(section.title)}")
        if section.lines:
            parts.append("\n".join(f"- **{_safe(line.what)}**: {_safe(line.text)}" for line in section.lines))
        parts += [_table(table) for table in section.tables]
    return "\n\n".join([*parts, _safe(told.note)]) + "\n"


def _section(
    name: str, language: Language, lines: Iterable[tuple[str, str]] = (), tables: Iterable[Table] = ()
) -> Section:
    """lines: (key of a word, text); those without a text are left out."""
    told = [Line(word(key, language), text) for key, text in lines if text]
    return Section(name=name, title=word(name, language), lines=told, tables=[t for t in tables if t.rows])


def _verdict(passport: Passport, digest: str, language: Language) -> Section:
    decision = word("eligible" if passport.eligible else "refused", language)
    return _section("verdict", language, [("decision", decision), ("why", passport.verdict), ("digest", digest)])


def _model(passport: Passport, language: Language) -> Section:
    targets = [name for name in passport.files if name.startswith("model.")]
    return _section(
        "model",
        language,
        [
            ("slot", passport.slot),
            ("family", passport.family),
            ("algorithm", passport.algorithm),
            ("version", str(passport.version)),
            ("runtime", passport.runtime.value),
            ("targets", ", ".join(targets) or "numpy"),
            ("licence", passport.licence),
            ("because", passport.because),
        ],
    )


def _use(passport: Passport, language: Language) -> Section:
    held = {
        "series": len(passport.series),
        "machines": len(passport.machines),
        "signals": len(passport.signals),
        "items": len(passport.items),
        "users": len(passport.users),
    }
    names = ", ".join(f"{what} {count}" for what, count in held.items() if count)
    return _section(
        "use", language, [("intended", passport.intended_use), ("limits", passport.limits), ("names", names)]
    )


def _lineage(passport: Passport, language: Language) -> Section:
    of = passport.lineage
    return _section(
        "lineage",
        language,
        [
            ("data", of.dataset_digest),
            ("rows", f"{of.dataset_rows:,}"),
            ("code", of.code_version),
            ("seed", str(of.seed)),
            ("trained", _moment(of.trained_ms)),
        ],
    )


def grouped(parameters: dict[str, str]) -> dict[str, dict[str, str]]:
    """Parameters by group, in the order in which a reader asks for them; empty groups are left out."""
    order = ("regularization", "pruning", "teacher", "optimization", "other")
    found: dict[str, dict[str, str]] = {group: {} for group in order}
    for name, value in parameters.items():
        group = next((group for group, fits in _GROUPS if fits.search(name)), "other")
        found[group][name] = value
    return {group: members for group, members in found.items() if members}


def _parameters(parameters: dict[str, str], language: Language) -> Section:
    tables = []
    for group, members in grouped(parameters).items():
        listed = {name: rows for name, value in members.items() if (rows := _listed(value))}
        plain = [[name, _cut(value)] for name, value in members.items() if name not in listed]
        tables.append(Table([word(group, language), word("value", language)], plain))
        for name, rows in listed.items():
            heads = list(rows[0])
            tables.append(
                Table(
                    [f"{name}: {heads[0]}", *heads[1:]],
                    [[_cut(str(row.get(head, "–"))) for head in heads] for row in rows],
                    list(range(1, len(heads))),
                )
            )
    return _section("parameters", language, tables=tables)


def _listed(value: str) -> list[dict[str, str | int | float | bool | None]]:
    """The rows of a setting that is a list of objects, as a curve of sizes is; empty: it is none."""
    if not value.startswith("[{"):
        return []
    try:
        rows = msgspec.json.decode(value, type=list[dict[str, str | int | float | bool | None]])
    except UNREADABLE:
        return []
    return rows if rows[0] else []


def _quality(passport: Passport, language: Language) -> Section:
    heads = ("metric", "better", "this", "interval", "reference", "champion", "split", "n")
    table = Table(
        [word(key, language) for key in heads], [_figure(one, language) for one in passport.quality], [2, 3, 7]
    )
    combined = "" if passport.combined is None else f"{passport.combined:.4g}"
    return _section("quality", language, [("combined", combined)], [table])


def _figure(one: Quality, language: Language) -> list[str]:
    known = one.low is not None and one.high is not None
    return [
        metric_word(one.metric, language),
        word("lower" if one.lower_is_better else "higher", language),
        f"{one.model:.4g}",
        f"{one.low:.4g} – {one.high:.4g}" if known else word("not_measured", language),
        f"{one.reference:.4g} ({one.reference_name})",
        word("none_yet", language) if one.champion is None else f"{one.champion:.4g}",
        one.split,
        f"{one.n:,}",
    ]


def _packing(passport: Passport, language: Language) -> Section:
    of = passport.parity
    lines = [
        ("task_change", _percent(of.task_change)),
        ("rel_rms", f"{of.rel_rms:.3g}"),
        ("max_abs", f"{of.max_abs:.3g}"),
        ("n", f"{of.n:,}"),
        ("bound", of.bound),
    ]
    heads = ("form", "size", "call", "task", "rms", "strain", "outcome")
    table = Table(
        [word(key, language) for key in heads], [_form(one, language) for one in passport.forms], [1, 2, 3, 4]
    )
    return _section("packing", language, lines, [table])


def _form(one: Form, language: Language) -> list[str]:
    strained = ", ".join(f"{kind} {error:.3g}" for kind, error in one.strained.items())
    return [
        one.name,
        sized(one.size) if one.size else "–",
        _microseconds(one.latency_us) if one.latency_us else "–",
        *_lost(one.parity),
        strained or "–",
        one.why or word("taken", language),
    ]


def _lost(parity: Parity | None) -> list[str]:
    return ["–", "–"] if parity is None else [_percent(parity.task_change), f"{parity.rel_rms:.3g}"]


def _speed(passport: Passport, language: Language) -> Section:
    share = word("of_float", language).format(share=passport.packed_bytes / max(passport.float_bytes, 1))
    unknown = word("not_measured", language)
    return _section(
        "speed",
        language,
        [
            ("float_bytes", sized(passport.float_bytes)),
            ("packed_bytes", f"{sized(passport.packed_bytes)} ({share})"),
            ("latency", _microseconds(passport.latency_us) if passport.latency_us > 0 else unknown),
            ("measured_on", passport.measured_on or word("not_said", language)),
            ("rss", sized(passport.rss_bytes) if passport.rss_bytes else unknown),
        ],
    )


def _proof(passport: Passport, language: Language) -> Section:
    golden = word("golden_words", language).format(atol=passport.golden.atol, rtol=passport.golden.rtol)
    return _section("proof", language, [("golden", golden)])


def _lite(passport: Passport, language: Language) -> Section:
    lite = passport.lite
    if lite is None:
        return _section("lite", language)
    golden = lite.golden or passport.golden
    return _section(
        "lite",
        language,
        [
            ("recipe", lite.recipe),
            ("size", sized(lite.size)),
            ("inputs", ", ".join(lite.inputs)),
            ("outputs", ", ".join(lite.outputs)),
            ("task_change", _percent(lite.parity.task_change)),
            ("rel_rms", f"{lite.parity.rel_rms:.3g}"),
            ("golden", word("golden_words", language).format(atol=golden.atol, rtol=golden.rtol)),
        ],
    )


def _files(passport: Passport, language: Language) -> Section:
    table = Table([word("file", language), "sha256"], [[name, of] for name, of in sorted(passport.files.items())])
    return _section("files", language, tables=[table])


def sized(count: int) -> str:
    """Bytes in words: "82.1 KiB"."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024 * 1024 else f"{count / 1024**2:.1f} MiB"


def _percent(share: float) -> str:
    """With its sign; what rounds to nothing has none."""
    return f"{share:+.2%}" if abs(share) >= 0.00005 else f"{0:.2%}"


def _microseconds(spent: float) -> str:
    return f"{spent:.0f} µs" if spent < 10_000 else f"{spent / 1000:.0f} ms"


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]} …"


def _table(table: Table) -> str:
    rule = ["--:" if column in table.numbers else "--" for column in range(len(table.heads))]
    rows = [table.heads, rule, *table.rows]
    escaped = [row if row is rule else [_safe(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def _safe(text: str) -> str:
    """Text in which nothing is markup: what stands in a passport came from outside."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
