"""A made shop: kinds of customers like kinds of parts, and a few parts are liked by all."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable
from pathlib import Path

KINDS = {
    "hydraulics": "pump hose seal oil pressure",
    "electrics": "relay fuse cable motor",
    "bearings": "ball roller bearing grease",
    "tools": "wrench hammer driver bit",
}
HEADER = ("user", "item", "time", "quantity")
Row = tuple[str, ...]


def events(users: int = 60, per_kind: int = 8) -> list[Row]:
    """(user, item, time, quantity)."""
    draw = random.Random(3)
    kinds = list(KINDS)
    items = {kind: [f"{kind}-{i:02}" for i in range(per_kind)] for kind in kinds}
    made = []
    for user in range(users):
        own = items[kinds[user % len(kinds)]]
        for n in range(draw.randint(3, 9)):
            item = draw.choice(own if draw.random() < 0.8 else items["hydraulics"][:4])
            made.append(
                (f"customer-{user:03}", item, f"2026-{1 + n // 4:02}-{1 + (n * 7 + user) % 28:02}T08:00:00Z", "2")
            )
    return made


def cards(per_kind: int = 8) -> list[Row]:
    """(item, kind, description), one of them never chosen."""
    made = [(f"{kind}-{i:02}", kind, words) for kind, words in KINDS.items() for i in range(per_kind)]
    return [*made, ("tools-new", "tools", KINDS["tools"])]


def write(path: Path, header: Row, rows: Iterable[Row]) -> Path:
    """A CSV."""
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([header, *rows])
    return path


def write_shop(folder: Path) -> Path:
    """events.csv and items.csv in a folder."""
    write(folder / "events.csv", HEADER, events())
    write(folder / "items.csv", ("item", "kind", "description"), cards())
    return folder
