"""What a forecaster has learned here, as bytes: arrays by name, in a form that is read without trust and without pickle."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from protocol.errors import BadMessage, Reason
from protocol.tables import Tables
from protocol.unreadable import UNREADABLE

MAX_STATE_BYTES = 64_000_000
_KINDS = {"f4", "f8", "i4", "i8", "u1"}


class Array(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0, le=10_000_000)], ...]
    content: bytes


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """Of one forecaster: which bundle it was, and its tables; row i belongs to Memory.keys[i]."""

    algorithm: str
    digest: str
    tables: dict[str, Array]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The whole. `step_ms`, `horizon`, `season` must be those of the skill that takes it over."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    step_ms: int
    horizon: int
    season: int
    keys: list[tuple[str, str]]
    forecasters: dict[str, Learned]
    coverage: dict[str, Array]
    reference: dict[str, Array]


def pack(tables: Tables) -> dict[str, Array]:
    """Arrays as bytes, little-endian."""
    return {
        name: Array(
            f"{t.dtype.kind}{t.dtype.itemsize}",
            t.shape,
            np.ascontiguousarray(t).astype(t.dtype.newbyteorder("<")).tobytes(),
        )
        for name, t in tables.items()
    }


def unpack(arrays: dict[str, Array]) -> Tables:
    """The arrays again. Raises BadMessage for one whose bytes do not fit its shape, or that is not finite."""
    made: Tables = {}
    for name, a in arrays.items():
        if a.kind not in _KINDS or int(np.prod(a.shape, dtype=np.int64)) * int(a.kind[1]) != len(a.content):
            raise BadMessage(Reason.WRONG_TYPE, f"saved array {name!r} is damaged")
        table = np.frombuffer(a.content, dtype=f"<{a.kind}").reshape(a.shape).astype(a.kind)
        if a.kind[0] == "f" and not np.isfinite(table).all():
            raise BadMessage(Reason.NOT_FINITE, f"saved array {name!r} is not finite")
        made[name] = table
    return made


def encode(memory: Memory) -> bytes:
    """MessagePack."""
    return msgspec.msgpack.encode(memory)


def decode(payload: bytes) -> Memory:
    """Raises BadMessage for anything that `encode` did not make."""
    if len(payload) > MAX_STATE_BYTES:
        raise BadMessage(Reason.TOO_LARGE, f"a forecaster's memory of {len(payload)} bytes")
    try:
        return msgspec.msgpack.decode(payload, type=Memory)
    except UNREADABLE as error:
        raise BadMessage(Reason.WRONG_TYPE, f"a forecaster's memory cannot be read: {error}") from error
