"""The mapping file: which topics carry which signals, and what machines, signals and items are called.

Compiled once into closures: a message costs a dictionary look-up for its topic and a few getters for its body."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from edge_agent.config import read_toml
from edge_agent.explain import Labels
from protocol.errors import BadMessage, BadSettings, Reason
from protocol.names import plant_name

Getter = Callable[[Any], Any]
_STEP = re.compile(r"\.([^.\[\]*]+)|\['([^']+)'\]|\[(\d+)\]")
_MISSING = object()
MOST_STAMP = 1e15
"""Seconds or milliseconds: what is more cannot be counted with exactly."""
WIRE_KINDS = ("work_orders", "known_inputs", "stock_levels", "production", "item_cards", "notes")
"""Sections of the mapping file whose messages are ours: WorkOrder, KnownInput, StockLevel, Shop, ItemCard."""


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[source]]`: a topic template and where value, time, quality and unit are in its messages."""

    topic: str
    value: str = "$"
    time: str = ""
    quality: str = ""
    unit: str = ""
    each: str = ""
    signal: str = ""
    machine: str = ""
    root_time: str = ""
    time_unit: Annotated[str, msgspec.Meta(pattern="^(s|ms)$")] = "s"
    time_zone: str = ""


class WireSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Messages that already are ours, as docs/wire has them."""

    topic: str


class MachineNames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: str = ""
    name_en: str = ""
    name_zh: str = ""


class SignalNames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    unit: str = ""
    name_en: str = ""
    name_zh: str = ""


class ItemNames(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    en: str = ""
    zh: str = ""


class MappingFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: list[Source] = []
    work_orders: list[WireSource] = []
    known_inputs: list[WireSource] = []
    stock_levels: list[WireSource] = []
    production: list[WireSource] = []
    item_cards: list[WireSource] = []
    notes: list[WireSource] = []
    machines: dict[str, MachineNames] = {}
    signals: dict[str, SignalNames] = {}
    items: dict[str, ItemNames] = {}


@dataclass(frozen=True, slots=True)
class Found:
    """One sample as the message has it, before it is judged."""

    machine: str
    signal: str
    value: Any
    time: Any
    quality: Any
    unit: str


@dataclass
class Route:
    """A compiled source, bound to one concrete topic's level names."""

    source: Source
    names: dict[str, str]
    samples: Callable[[Any], Iterator[Found]]
    zone: ZoneInfo | None


@dataclass
class Mapping:
    """The compiled file. `route` answers per topic and remembers; topics it does not know give None."""

    file: MappingFile
    labels: Labels
    _templates: list[tuple[re.Pattern[str], Source]] = field(default_factory=list)
    _ours: list[tuple[re.Pattern[str], str]] = field(default_factory=list)
    _routes: dict[str, Route | None] = field(default_factory=dict)

    def filters(self) -> list[str]:
        """MQTT filters that cover every template."""
        topics = [s.topic for s in self.file.source] + [topic for topic, _ in _wire_topics(self.file)]
        return sorted({re.sub(r"\{[^}]+\}", "+", topic) for topic in topics})

    def route(self, topic: str) -> Route | None:
        """How to read a telemetry topic; None if no source matches. Raises BadName for levels MQTT admits and we don't."""
        if topic in self._routes:
            return self._routes[topic]
        found: Route | None = None
        for pattern, source in self._templates:
            match = pattern.fullmatch(topic)
            if match:
                names = match.groupdict()
                for what in ("machine", "signal"):
                    if what in names:
                        plant_name(names[what], what)
                found = Route(source, names, _samples(source, names), _zone(source))
                break
        if len(self._routes) < 100_000:  # a publisher that invents topics must not eat the memory
            self._routes[topic] = found
        return found

    def wire_kind(self, topic: str) -> str:
        """Which of WIRE_KINDS a topic carries; empty if none."""
        return next((kind for pattern, kind in self._ours if pattern.fullmatch(topic)), "")

    def machine_type(self, machine: str) -> str:
        """The type named in the file, else empty."""
        known = self.file.machines.get(machine)
        return known.type if known else ""

    def unit(self, signal: str) -> str:
        """The unit named in the file, else empty."""
        known = self.file.signals.get(signal)
        return known.unit if known else ""


def load(path: Path) -> Mapping:
    """Reads and compiles a mapping file; raises BadSettings naming the source and the remedy."""
    file = read_toml(path, MappingFile)
    if not file.source:
        raise BadSettings(f"{path}: no [[source]]; without one the agent would hear nothing")
    labels = Labels(
        machines={k: (m.name_en or k, m.name_zh or m.name_en or k) for k, m in file.machines.items()},
        signals={k: (s.name_en or k, s.name_zh or s.name_en or k) for k, s in file.signals.items()},
        items={k: (i.en or k, i.zh or i.en or k) for k, i in file.items.items()},
    )
    try:
        templates = [(_topic_pattern(s.topic), s) for s in file.source]
        for s in file.source:
            _samples(s, {})
            _zone(s)
            if "{machine}" not in s.topic and not s.machine:
                raise ValueError(
                    f"source {s.topic!r} names no machine: add {{machine}} to the topic or machine = a path"
                )
            if "{signal}" not in s.topic and not s.signal:
                raise ValueError(f"source {s.topic!r} names no signal: add {{signal}} to the topic or signal = a path")
        ours = [(_topic_pattern(topic), kind) for topic, kind in _wire_topics(file)]
    except (ValueError, re.error, ZoneInfoNotFoundError, OSError) as error:  # OSError: a zone too long for a file name
        raise BadSettings(f"{path}: {error}") from error
    return Mapping(file, labels, templates, ours)


def _wire_topics(file: MappingFile) -> list[tuple[str, str]]:
    """(topic template, kind) of everything that already is ours."""
    return [(source.topic, kind) for kind in WIRE_KINDS for source in getattr(file, kind)]


def _topic_pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    made = [re.escape(p) if i % 2 == 0 else f"(?P<{p}>[^/]+)" for i, p in enumerate(parts)]
    return re.compile("".join(made))


def _zone(source: Source) -> ZoneInfo | None:
    return ZoneInfo(source.time_zone) if source.time_zone else None


def steps_of(path: str) -> list[str | int]:
    """The names and indices of a JSON path, none for `$`. Raises ValueError for what is no path."""
    if not path.startswith("$"):
        raise ValueError(f"path {path!r} must start with $")
    steps: list[str | int] = []
    position = 1
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise ValueError(f"path {path!r}: cannot read {path[position:]!r}; known are .name ['name'] [0]")
        steps.append(int(match[3]) if match[3] else (match[1] or match[2]))
        position = match.end()
    return steps


def _getter(path: str) -> Getter:
    """A JSON path of names and indices as one function; what is not there gives _MISSING."""
    steps = steps_of(path)
    if not steps:
        return lambda body: body
    if len(steps) == 1 and isinstance(steps[0], str):
        name = steps[0]
        return lambda body: body.get(name, _MISSING) if type(body) is dict else _MISSING

    def get(body: Any) -> Any:
        for step in steps:
            try:
                body = body[step]
            except (KeyError, IndexError, TypeError):
                return _MISSING
        return body

    return get


def _optional(path: str) -> Getter:
    get = _getter(path) if path else None
    if get is None:
        return lambda _body: None

    def or_none(body: Any) -> Any:
        value = get(body)
        return None if value is _MISSING else value

    return or_none


def _elements(each: str) -> Callable[[Any], Iterator[tuple[str, Any]]]:
    """(key, element) pairs of what `each` selects."""
    if not each:
        return lambda body: iter((("", body),))
    if not each.endswith(("[*]", ".*")):
        raise ValueError(f"each = {each!r} must end in [*] or .*")
    members = each.endswith(".*")
    get = _getter(each[:-2] if members else each[:-3])

    def pairs(body: Any) -> Iterator[tuple[str, Any]]:
        inside = get(body)
        if members and isinstance(inside, dict):
            return iter(inside.items())
        if not members and isinstance(inside, list):
            return ((str(i), element) for i, element in enumerate(inside))
        raise BadMessage(Reason.WRONG_TYPE, f"nothing to go through at {each}")

    return pairs


def _samples(source: Source, names: dict[str, str]) -> Callable[[Any], Iterator[Found]]:
    value, time = _getter(source.value), _optional(source.time)
    quality, unit, root_time = _optional(source.quality), _optional(source.unit), _optional(source.root_time)
    elements = _elements(source.each)
    name_of = {what: _name_getter(getattr(source, what), names.get(what)) for what in ("machine", "signal")}
    machine_of, signal_of = name_of["machine"], name_of["signal"]

    def samples(body: Any) -> Iterator[Found]:
        whole = root_time(body)
        for key, element in elements(body):
            own = time(element)
            of_unit = unit(element)
            yield Found(
                machine_of(key, element),
                signal_of(key, element),
                value(element),
                whole if own is None else own,
                quality(element),
                of_unit if isinstance(of_unit, str) else "",
            )

    return samples


def _name_getter(path: str, from_topic: str | None) -> Callable[[str, Any], str]:
    if not path:
        return lambda _key, _element: from_topic or ""
    if path == "@key":
        return lambda key, _element: key
    get = _getter(path)

    def name(_key: str, element: Any) -> str:
        found = get(element)
        return found if isinstance(found, str) else ""

    return name


def time_ms(stamp: Any, source: Source, zone: ZoneInfo | None) -> int:
    """A time stamp from a message as milliseconds UTC; raises BadMessage (no_time, no_time_zone, bad_time)."""
    if isinstance(stamp, bool) or stamp is None:
        raise BadMessage(Reason.NO_TIME, f"no time at {source.time or source.root_time}")
    try:
        if isinstance(stamp, int | float):
            if not abs(stamp) < MOST_STAMP:
                reason = Reason.FUTURE_TIME if stamp > 0 else Reason.ANCIENT_TIME
                raise BadMessage(reason, f"a time is not more than {MOST_STAMP:.0e} from 1970")
            return round(stamp * 1000) if source.time_unit == "s" else round(stamp)
        if not isinstance(stamp, str):
            raise BadMessage(Reason.BAD_TIME, f"a time must be text or a number, not {type(stamp).__name__}")
        moment = datetime.fromisoformat(stamp)
        if moment.tzinfo is None:
            if zone is None:
                raise BadMessage(
                    Reason.NO_TIME_ZONE,
                    f"{stamp!r} has no time zone; write time_zone = … into the source if it is known",
                )
            moment = moment.replace(tzinfo=zone)
        return round(moment.astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise BadMessage(Reason.BAD_TIME, f"cannot read the time {str(stamp)[:40]!r}") from error
