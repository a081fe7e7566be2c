"""A message becomes observations, or a counted reason. Decides only: no clock, no disk, no network of its own.

A message that cannot be read at all counts as one refused sample; one bad sample does not spoil its neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from edge_agent.mapping import Found, Mapping, Route, time_ms
from protocol.errors import BadMessage, BadName, Reason, Refused
from protocol.names import plant_name
from protocol.observations import Quality, WorkOrder
from protocol.sync import decode
from protocol.unreadable import UNREADABLE

MAX_PLANT_MESSAGE_BYTES = 1_000_000
MAX_SAMPLES_PER_MESSAGE = 10_000
OLDEST_MS = 946_684_800_000
"""2000-01-01: a clock that was never set says 1970."""
NEWEST_MS = 4_102_444_800_000
"""2100-01-01: bounds a plant whose time runs on its own."""

Row = tuple[str, str, int, float, str, str, bool]
"""machine, signal, time_ms, value, quality, unit, initial: plain, because thousands pass each second."""

_QUALITY: dict[Any, Quality] = {
    None: Quality.GOOD,
    1: Quality.GOOD,  # also true
    192: Quality.GOOD,
    64: Quality.UNCERTAIN,
    0: Quality.BAD,  # also false
    **{q.value: q for q in Quality},
}
_json = msgspec.json.Decoder()


class Intake:
    """Judges plant messages by a mapping. `accept_future_s` None: plant time runs on its own. While `clock_known` is not set,
    nothing is refused for being ahead of a clock that knows nothing. `stamped_here`: signals whose values got their time of
    arrival."""

    def __init__(self, mapping: Mapping, now_ms: Callable[[], int], accept_future_s: int | None) -> None:
        self._mapping = mapping
        self._now_ms = now_ms
        self._ahead_ms = None if accept_future_s is None else accept_future_s * 1000
        self._machines = mapping.file.machines
        self._good_names: set[tuple[str, str]] = set()
        self.clock_known = True
        self.stamped_here: set[tuple[str, str]] = set()

    def read(self, topic: str, payload: bytes, retained: bool) -> tuple[list[Row], list[Refused]]:
        """The samples of one message: those to keep and those refused."""
        rows: list[Row] = []
        refused: list[Refused] = []
        try:
            if len(payload) > MAX_PLANT_MESSAGE_BYTES:
                raise BadMessage(
                    Reason.TOO_LARGE, f"message of {len(payload)} bytes; the limit is {MAX_PLANT_MESSAGE_BYTES}"
                )
            route = self._mapping.route(topic)
            if route is None:
                raise BadMessage(Reason.UNKNOWN_TOPIC, f"no [[source]] of the mapping file matches {topic[:200]!r}")
            body = parse(payload)
            free = self._ahead_ms is None or not self.clock_known
            latest = NEWEST_MS if free else self._now_ms() + (self._ahead_ms or 0)
            for count, found in enumerate(route.samples(body)):
                if count == MAX_SAMPLES_PER_MESSAGE:
                    raise BadMessage(Reason.TOO_LARGE, f"more than {MAX_SAMPLES_PER_MESSAGE} samples in one message")
                try:
                    rows.append(self._row(found, route, latest, retained))
                except Refused as error:
                    refused.append(error)
        except Refused as error:
            refused.append(error)
        return rows, refused

    def _row(self, found: Found, route: Route, latest: int, retained: bool) -> Row:
        name = (found.machine, found.signal)
        if name not in self._good_names:
            self._check_names(name)
        value = found.value
        if type(value) is not float:
            if isinstance(value, bool) or not isinstance(value, int):
                raise BadMessage(Reason.WRONG_TYPE, f"{name}: a value must be a number, not {_kind(value)}")
            value = _as_float(value)
        if not math.isfinite(value):
            raise BadMessage(Reason.NOT_FINITE, f"{name}: {value} is no measurement")
        source = route.source
        if source.time or source.root_time:
            at = time_ms(found.time, source, route.zone)
        else:
            at = self._now_ms()
            self.stamped_here.add(name)
        if at < OLDEST_MS:
            raise BadMessage(
                Reason.ANCIENT_TIME, f"{name}: a time before 2000 means that the sender's clock was never set"
            )
        if at > latest:
            raise BadMessage(Reason.FUTURE_TIME, f"{name}: {(at - self._now_ms()) / 1000:.0f} s ahead of this clock")
        try:
            quality = _QUALITY[found.quality]
        except (KeyError, TypeError) as error:
            raise BadMessage(Reason.BAD_QUALITY, f"{name}: quality {str(found.quality)[:40]!r} is not known") from error
        return (name[0], name[1], at, value, quality.value, found.unit or self._mapping.unit(name[1]), retained)

    def _check_names(self, name: tuple[str, str]) -> None:
        machine, signal = plant_name(name[0], "machine"), plant_name(name[1], "signal")
        if self._machines and machine not in self._machines:
            raise BadName(Reason.UNKNOWN_MACHINE, f"{machine!r} is not among [machines] of the mapping file")
        if len(self._good_names) >= 20_000:
            raise BadName(Reason.UNKNOWN_SIGNAL, "more than 20000 signals; list [machines] to keep strangers out")
        self._good_names.add((machine, signal))


def parse(payload: bytes) -> Any:
    """JSON, or BadMessage. NaN and Infinity, which some senders write, are refused as what they are."""
    try:
        return _json.decode(payload)
    except UNREADABLE as error:
        if any(word in payload[:100_000] for word in (b"NaN", b"nan", b"Infinity", b"inf")):
            raise BadMessage(Reason.NOT_FINITE, "NaN or Infinity is not JSON and no measurement") from error
        raise BadMessage(Reason.MALFORMED_JSON, str(error)) from error


def work_order(payload: bytes) -> WorkOrder:
    """A work order from the plant; raises BadMessage."""
    return decode(payload, WorkOrder, limit_bytes=100_000)


def _as_float(value: int) -> float:
    """Infinity for a number that no float can hold."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _kind(value: Any) -> str:
    return "nothing" if value is None or type(value) is object else type(value).__name__
