"""The mapping read backwards: a message that the plant could have sent, so that the gateway reads this signal from it.

Nothing is believed here: a message is only given out after the mapping has read the same machine, signal, value and time
from it."""

from __future__ import annotations

import json
import re
from typing import Any

from edge_agent.mapping import Mapping, Source, steps_of
from protocol.copied import TIME, VALUE
from protocol.errors import Refused

_PLACE = re.compile(r"\{(\w+)\}")
ANY_NAME = "drill"
"""For levels of a topic that name neither machine nor signal."""
_NOTHING: Any = object()


def spoken(mapping: Mapping, machine: str, signal: str) -> tuple[str, str, bool] | None:
    """(topic, payload with VALUE and TIME in it, whether its time is in seconds), or None where no source of the mapping can
    be spoken to: one without a time stamps what arrives itself."""
    for source in mapping.file.source:
        if not (source.time or source.root_time):
            continue
        try:
            body = _body(source, machine, signal)
        except ValueError:
            continue
        topic = _topic(source.topic, {"machine": machine, "signal": signal})
        if _reads(mapping, topic, body, source, machine, signal):
            return topic, json.dumps(body, ensure_ascii=False), source.time_unit == "s"
    return None


def _topic(template: str, names: dict[str, str]) -> str:
    return _PLACE.sub(lambda place: names.get(place[1], ANY_NAME), template)


def _reads(mapping: Mapping, topic: str, body: Any, source: Source, machine: str, signal: str) -> bool:
    """Whether the mapping finds this in the message, once, and nothing else."""
    try:
        route = mapping.route(topic)
        found = list(route.samples(body)) if route is not None and route.source == source else []
    except Refused:
        return False
    stamp, value = json.loads(TIME), json.loads(VALUE)
    read = [(one.machine, one.signal, one.value, one.time, one.quality) for one in found]
    return read == [(machine, signal, value, stamp, None)]


def _body(source: Source, machine: str, signal: str) -> Any:
    """Raises ValueError where two things would have to lie in one place."""
    value, stamp = json.loads(VALUE), json.loads(TIME)
    key, element = "0", _put(_NOTHING, source.value, value)
    if source.time:
        element = _put(element, source.time, stamp)
    for path, name in ((source.machine, machine), (source.signal, signal)):
        if path == "@key":
            key = name
        elif path:
            element = _put(element, path, name)
    body: Any = element
    if source.each:
        members = source.each.endswith(".*")
        inside = {key: element} if members else [element]
        body = _put(_NOTHING, source.each[:-2] if members else source.each[:-3], inside)
    return _put(body, source.root_time, stamp) if source.root_time and not source.time else body


def _put(body: Any, path: str, what: Any) -> Any:
    """The body with something at a path."""
    return _put_at(body, steps_of(path), what)


def _put_at(body: Any, steps: list[str | int], what: Any) -> Any:
    if not steps:
        if body is not _NOTHING:
            raise ValueError("something lies there already")
        return what
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        if body is not _NOTHING and not isinstance(body, dict):
            raise ValueError("a member of what has none")
        inside = {} if body is _NOTHING else body
        return {**inside, step: _put_at(inside.get(step, _NOTHING), rest, what)}
    if body is not _NOTHING and not isinstance(body, list):
        raise ValueError("an element of what has none")
    row = [] if body is _NOTHING else list(body)
    row += [None] * (step + 1 - len(row))
    row[step] = _put_at(_NOTHING if row[step] is None else row[step], rest, what)
    return row
