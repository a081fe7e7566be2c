"""`millwright inspect`: what bundles are, read without running them. Every sum is checked, no model is loaded, and no line
leaves this machine.

Exit status: 0 every bundle was read, 1 one is damaged (the reason is said), 2 wrong usage."""

from __future__ import annotations

import argparse
import sys
import unicodedata
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.once.bundles import archive_of, bundles_at
from protocol.bundles import Bundle, digest, unpack
from protocol.card import Card, Table, card, markdown
from protocol.card_words import Language
from protocol.errors import BadBundle
from protocol.graphs import graph_facts


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """What the ONNX file says of itself. operators: name -> how often, those of other domains than ONNX's own as
    "domain.name"; outside: files that it wants beside it."""

    ir: int
    opset: int
    operators: dict[str, int]
    outside: list[str]


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle. refused: why it could not be read (then there is nothing else)."""

    file: str
    digest: str
    size: int
    refused: str = ""
    card: Card | None = None
    graph: Graph | None = None
    passport: Any = None


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="millwright inspect", description="What bundles are: their card, read without running them."
    )
    parser.add_argument("bundle", type=Path, nargs="+", help="a .bundle file, or a folder of them")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object, passports included")
    form.add_argument("--markdown", action="store_true", help="the cards as Markdown")
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the card")
    options = parser.parse_args(argv)
    found = [inspected(file, options.lang) for file in bundles_at(options.bundle)]
    if options.json:
        sys.stdout.write(msgspec.json.encode({"bundles": found}).decode() + "\n")
    else:
        write = _markdown if options.markdown else _plain
        sys.stdout.write("\n".join(write(one) for one in found))
    return 1 if any(one.refused for one in found) else 0


def inspected(file: Path, language: Language) -> Inspected:
    """Reads one bundle."""
    archive = archive_of(file)
    named = digest(archive)
    try:
        bundle = unpack(archive)
        graph = _graph(bundle)
    except BadBundle as error:
        return Inspected(file=str(file), digest=named, size=len(archive), refused=str(error))
    return Inspected(
        file=str(file),
        digest=named,
        size=len(archive),
        card=card(bundle.passport, named, language),
        graph=graph,
        passport=bundle.passport,
    )


def _graph(bundle: Bundle) -> Graph | None:
    if not bundle.graph:
        return None
    facts = graph_facts(bundle.graph)
    names = {f"{domain}.{name}" if domain else name: count for (domain, name), count in facts.operators.items()}
    return Graph(
        ir=facts.ir, opset=facts.opsets.get("", 0), operators=dict(sorted(names.items())), outside=facts.outside
    )


def _markdown(one: Inspected) -> str:
    return f"# {one.file}\n\n{one.refused}\n" if one.card is None else markdown(one.card)


def _plain(one: Inspected) -> str:
    """For a terminal."""
    if one.card is None:
        return f"{one.file}: refused, {one.refused}\n"
    lines = [f"{one.card.title}  ({one.file}, {one.size} bytes)"]
    for section in one.card.sections:
        lines += ["", section.title]
        lines += [f"  {line.what}: {line.text}" for line in section.lines]
        for table in section.tables:
            lines += _columns(table)
    if one.graph is not None:
        counted = ", ".join(f"{name} {count}" for name, count in one.graph.operators.items())
        lines += ["", f"model.onnx: IR {one.graph.ir}, opset {one.graph.opset}; {counted}"]
    return "\n".join([*lines, "", one.card.note, ""])


def _columns(table: Table) -> list[str]:
    rows = [table.heads, *table.rows]
    widths = [max(_width(row[column]) for row in rows) for column in range(len(table.heads))]
    return ["  " + "  ".join(map(_filled, row, widths)).rstrip() for row in rows]


def _filled(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    """Columns of a terminal: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


if __name__ == "__main__":
    sys.exit(main())
