"""msgspec works out what it has to know of a type when the type is first used. When two threads use one first at the same
moment, the process ends with a segmentation fault (seen with 0.22: one of them follows what the other has not filled in yet).
So everything that has threads works it out before it starts them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import msgspec

_lock = threading.RLock()
_done: set[type] = set()


def decoder(of: type) -> msgspec.json.Decoder[object]:
    """A decoder of JSON, made while no other one is."""
    with _lock:
        return msgspec.json.Decoder(of)


def prepare() -> int:
    """Every Struct that is imported by now; how many were new. Call it before threads that read are started, and again after
    an import that comes later."""
    with _lock:
        new = [one for one in _structs(msgspec.Struct) if one not in _done]
        for one in new:
            msgspec.json.Decoder(one)
            _done.add(one)
        return len(new)


def _structs(of: type) -> Iterator[type]:
    one: type
    for one in of.__subclasses__():
        yield one
        yield from _structs(one)
