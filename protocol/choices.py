"""A table of who chose what becomes events, and a table of what things are becomes cards; what was odd is counted and said.

Rules, each counted in a Finding when it was used:
- a row without a user or an item, or whose value is no number, is left out; so is a value of zero or below (a return);
- a stamp without a zone is read as UTC; a row whose stamp cannot be read, or is older than 1970, is left out;
- rows that repeat a user, an item and a time add up as any repetition does, to a cap;
- an item that the items' table names twice is what its fullest row says; the order of rows never matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocol.catalogue import ItemCard
from protocol.columns import Codes, Columns, Stamps, Wanted
from protocol.errors import BadSettings, Reason, Refused
from protocol.recordings import Finding
from protocol.windows import Floats

LONGEST_NAME = 128
LONGEST_TEXT = 4000
MOST_ATTRIBUTES = 50
MOST_EVENTS = 5_000_000
CHOICES = "choices"
"""Where in a passport's lineage the columns are kept."""
USUAL = {
    "user": (
        "user",
        "user_id",
        "userid",
        "customer",
        "customer_id",
        "client",
        "visitorid",
        "session",
        "case",
        "machine",
    ),
    "item": ("item", "item_id", "itemid", "product", "product_id", "stockcode", "movieid", "part", "part_id", "sku"),
    "time": ("time", "timestamp", "time_ms", "date", "datetime", "invoicedate", "ordered", "day"),
    "value": ("value", "quantity", "qty", "amount", "count", "rating", "strength"),
    "text": ("text", "title", "name", "description", "words", "名称", "描述"),
}
"""What a column is usually called, whatever the case of its letters and with blanks for underscores."""
Whole = NDArray[np.int64]


class ChoiceColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Which column means what. Travels in a bundle's lineage. time, value "": there is none. item_id and text are columns of
    the items' table ("" and none: there is no such table); its other columns are attributes."""

    user: str
    item: str
    time: str = ""
    value: str = ""
    item_id: str = ""
    text: tuple[str, ...] = ()

    @property
    def wanted(self) -> Wanted:
        """The columns of the events' table."""
        return Wanted(self.time, (self.user, self.item), (self.value,) if self.value else ())


@dataclass(frozen=True)
class Choices:
    """N events. who, what: places in `users` and `items`, names in ascending order; values above 0; times_ms: None where the
    table has no times. rows: of the table."""

    users: list[str]
    items: list[str]
    who: Whole
    what: Whole
    values: Floats
    times_ms: Whole | None
    rows: int
    findings: list[Finding] = field(default_factory=list)


def event_columns(
    header: Sequence[str], *, user: str = "", item: str = "", time: str = "", value: str = ""
) -> ChoiceColumns:
    """The named columns, and the usual ones for what was not named. Raises BadSettings where users or items cannot be
    told."""
    said = {"user": user, "item": item, "time": time, "value": value}
    found = {kind: name or _usual(header, kind) for kind, name in said.items()}
    for kind in ("user", "item"):
        if not found[kind]:
            raise BadSettings(f"which column holds the {kind}s? There are {', '.join(header)}: say --{kind} COLUMN")
    if found["user"] == found["item"]:
        raise BadSettings(f"column {found['user']!r} cannot be the users and the items: say --user and --item")
    return ChoiceColumns(user=found["user"], item=found["item"], time=found["time"], value=found["value"])


def card_columns(header: Sequence[str], item: str, text: Sequence[str] = ()) -> tuple[str, tuple[str, ...]]:
    """(column of ids, columns of words) of an items' table: the events' own name of the items, or a usual one, or "id"."""
    names = _plain(header)
    found = item if item in header else _usual(header, "item") or names.get("id", "")
    if not found:
        raise BadSettings(
            f"the items' table needs a column {item!r}, as the events have it; there are {', '.join(header)}"
        )
    missing = [name for name in text if name not in header]
    if missing:
        raise BadSettings(f"--text: no column {', '.join(missing)} in the items' table; there are {', '.join(header)}")
    return found, tuple(text) or tuple(names[n] for n in USUAL["text"] if n in names and names[n] != found)


def _usual(header: Sequence[str], kind: str) -> str:
    names = _plain(header)
    return next((names[name] for name in USUAL[kind] if name in names), "")


def _plain(header: Sequence[str]) -> dict[str, str]:
    return {name.strip().lower().replace(" ", "_"): name for name in reversed(header)}


def lay_out_choices(columns: Columns, layout: ChoiceColumns) -> Choices:
    """The table as events. Raises Refused where there is nothing to learn from; the message names the remedy."""
    if not columns.rows:
        raise Refused(Reason.WRONG_TYPE, "the file has a header and no rows")
    findings: list[Finding] = []
    users, who = _names(columns.labels[layout.user])
    items, what = _names(columns.labels[layout.item])
    left = _named(users, who, "user", findings) & _named(items, what, "item", findings)
    values = np.ones(columns.rows)
    if layout.value:
        values = columns.numbers[layout.value]
        left = _positive(values, left, layout.value, findings)
    times = None
    if layout.time:
        times, timed = _instants(columns.time, layout.time, findings)
        left = _kept(left, timed, "no_time", "without a time since 1970 that can be read", findings)
    rows = np.flatnonzero(left)
    if not len(rows):
        raise Refused(
            Reason.NOT_ELIGIBLE, f"none of {columns.rows} rows can be used: {_all(findings) or 'check the columns'}"
        )
    _say_repeats(who[rows], what[rows], times[rows] if times is not None else None, findings)
    rows = _newest(rows, times, findings)
    users, who = _used(users, who[rows])
    items, what = _used(items, what[rows])
    return Choices(
        users, items, who, what, values[rows], times[rows] if times is not None else None, columns.rows, findings
    )


def _names(column: Codes) -> tuple[list[str], Whole]:
    """Trimmed names, and each row's place among them."""
    place: dict[str, int] = {}
    trimmed = np.array([place.setdefault(name.strip(), len(place)) for name in column.names] or [0], dtype=np.int64)
    return list(place), trimmed[column.codes]


def _named(names: list[str], codes: Whole, kind: str, findings: list[Finding]) -> NDArray[np.bool_]:
    """Rows whose name is there and not too long."""
    there = np.array([bool(name) for name in names], dtype=bool)
    short = np.array([len(name) <= LONGEST_NAME for name in names], dtype=bool)
    left = _kept(np.ones(len(codes), dtype=bool), there[codes], f"no_{kind}", f"without a name of the {kind}", findings)
    return _kept(left, short[codes], f"long_{kind}", f"whose {kind} is longer than {LONGEST_NAME} characters", findings)


def _positive(values: Floats, left: NDArray[np.bool_], name: str, findings: list[Finding]) -> NDArray[np.bool_]:
    left = _kept(left, np.isfinite(values), "no_number", f"whose {name!r} is no number", findings)
    with np.errstate(invalid="ignore"):
        left = _kept(left, ~(values < 0), "returned", f"with a negative {name!r} (returns)", findings)
        return _kept(left, ~(values == 0), "nothing", f"whose {name!r} is 0", findings)


def _kept(
    left: NDArray[np.bool_], good: NDArray[np.bool_], kind: str, words: str, findings: list[Finding]
) -> NDArray[np.bool_]:
    lost = int((left & ~good).sum())
    if lost:
        findings.append(Finding(kind, lost, f"{lost} rows {words} were left out"))
    return left & good


def _instants(stamps: Stamps, name: str, findings: list[Finding]) -> tuple[Whole, NDArray[np.bool_]]:
    """Milliseconds UTC, and whether a row has them."""
    if not stamps.good.any():
        raise Refused(
            Reason.BAD_TIME,
            f"no stamp of column {name!r} can be read: ISO 8601 and seconds or milliseconds since 1970 are; name another "
            "with --time",
        )
    if stamps.numbers is None:
        bare = int((stamps.good & ~stamps.zoned).sum())
        if bare:
            findings.append(Finding("no_time_zone", bare, f"{bare} times name no zone and were read as UTC"))
        return stamps.wall_ms, stamps.good & (stamps.wall_ms > 0)
    numbers = np.where(stamps.good, stamps.numbers, 0.0)
    largest = float(np.abs(numbers).max())
    if largest < 1e8:
        raise Refused(
            Reason.BAD_TIME, f"column {name!r} counts up to {largest:g}: too small for a time; name another with --time"
        )
    limits = ((1e11, 1000.0, "seconds"), (1e14, 1.0, "milliseconds"), (1e17, 1e-3, "microseconds"))
    unit, words = next(((u, w) for limit, u, w in limits if largest < limit), (1e-6, "nanoseconds"))
    findings.append(Finding("numbered_time", int(stamps.good.sum()), f"times are numbers, read as {words} since 1970"))
    times = np.round(numbers * unit).astype(np.int64)
    return times, stamps.good & (times > 0)


def _say_repeats(who: Whole, what: Whole, times: Whole | None, findings: list[Finding]) -> None:
    if times is None:
        return
    order = np.lexsort((times, what, who))
    again = int(((np.diff(who[order]) == 0) & (np.diff(what[order]) == 0) & (np.diff(times[order]) == 0)).sum())
    if again:
        findings.append(
            Finding(
                "repeated", again, f"{again} rows repeat a user, an item and a time: added up, to the cap of a pair"
            )
        )


def _newest(rows: Whole, times: Whole | None, findings: list[Finding]) -> Whole:
    surplus = len(rows) - MOST_EVENTS
    if surplus <= 0:
        return rows
    which = "last" if times is None else "newest"
    findings.append(
        Finding("newest_only", surplus, f"learned from the {which} {MOST_EVENTS} of {len(rows)} usable rows")
    )
    if times is not None:
        rows = rows[np.argsort(times[rows], kind="stable")]
    return np.sort(rows[surplus:])


def _used(names: list[str], codes: Whole) -> tuple[list[str], Whole]:
    """Only names that occur, in ascending order."""
    seen = np.unique(codes)
    ordered = sorted(seen.tolist(), key=names.__getitem__)
    place = np.zeros(len(names), dtype=np.int64)
    place[ordered] = np.arange(len(ordered))
    return [names[i] for i in ordered], place[codes]


def _all(findings: list[Finding]) -> str:
    return "; ".join(finding.words for finding in findings)


def card_layout(header: Sequence[str]) -> Wanted:
    """Every column of an items' table, as words."""
    return Wanted("", tuple(dict.fromkeys(header)), ())


def lay_out_cards(columns: Columns, item_id: str, text: Sequence[str]) -> tuple[dict[str, ItemCard], list[Finding]]:
    """{id: card} of an items' table, in ascending order of the ids. A card without a word or an attribute is left out: it
    says no more than its id."""
    if not columns.rows:
        raise Refused(Reason.WRONG_TYPE, "the items' table has a header and no rows")
    findings: list[Finding] = []
    cells = {name: [column.names[i].strip() for i in column.codes.tolist()] for name, column in columns.labels.items()}
    others = [name for name in sorted(cells) if name not in (item_id, *text)]
    made: dict[str, ItemCard] = {}
    nameless = twice = bare = 0
    for row, name in enumerate(cells[item_id]):
        if not name or len(name) > LONGEST_NAME:
            nameless += 1
            continue
        words = "\n".join(cells[column][row] for column in text if cells[column][row])
        known = {column: cells[column][row] for column in others if cells[column][row]}
        one = card(name, words, known)
        if name in made:
            twice += 1
            one = max(made[name], one, key=lambda c: (len(c.attributes), c.text, sorted(c.attributes.items())))
        made[name] = one
    bare = sum(not one.attributes and not one.text for one in made.values())
    for kind, count, said in (
        ("no_item", nameless, "rows of the items' table have no id, or one that is too long: left out"),
        ("item_twice", twice, "rows of the items' table name an item again: the fullest row stands"),
        (
            "no_attributes",
            bare,
            "items of the items' table have neither a word nor an attribute: known by choices alone",
        ),
    ):
        if count:
            findings.append(Finding(kind, count, f"{count} {said}"))
    return {name: made[name] for name in sorted(made) if made[name].attributes or made[name].text}, findings


def card(name: str, text: str, attributes: dict[str, str]) -> ItemCard:
    """What is known of an item, cut to what a card may hold."""
    kept = dict(sorted(attributes.items())[:MOST_ATTRIBUTES])
    return ItemCard(
        id=name,
        item=name,
        attributes={key[:LONGEST_NAME]: value[:LONGEST_NAME] for key, value in kept.items()},
        text=text[:LONGEST_TEXT],
    )
