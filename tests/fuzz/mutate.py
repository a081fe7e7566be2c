"""Small changes to an input: of its bytes, and where it is JSON of its values, so that it still can be read and what lies
behind the parser is reached."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

MOST_BYTES = 20_000
NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, -0.0, 2**31, 2**53 + 1, 2**62, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -1e308, 5e-324,
    0.1, 1e15, 253_402_300_799_999, "", " ", "\x00", "a\x00b", "\n", "\u2028", "\ufeff", "\U0001f527", "e\u0301", "..",
    "../x",
    "/", "a/b", "+", "#", "<s>", "'", '"', "%s", "{0}", "NaN", "1e999", "2026-13-45T99:99:99Z", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59", "x" * 5000, "温度" * 100, [], {}, [[]], [None], {"": None}, [1, 2, 3], ["a", "a"],
)  # fmt: skip
TOKENS = (
    b"{}", b"[]", b"null", b"true", b"NaN", b"Infinity", b"-", b"1e999", b"\\u0000", b"\\ud800", b"\xed\xa0\x80", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\x00", b"\n", b"\r\n", b",", b";", b"\t", b'"', b"'", b"..", b"/", b"%00", b"[" * 2000,
    b'{"a":' * 2000,
    b"9" * 5000, b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\x1f\x8b", b"PAR1", b"-----BEGIN ",
    b"\xff" * 8, b"\x00" * 8, b"\x80" * 11, b"\x7f\xff\xff\xff", b"HTTP/1.1 200 OK\r\n\r\n", b"[[source]]", b"= ", b"#",
)  # fmt: skip


def changed(data: bytes, other: bytes, chance: random.Random, *, as_json: bool) -> bytes:
    """`data` after one to four changes; `other`: an input to take a piece of."""
    for _ in range(chance.randint(1, 4)):
        if as_json and chance.random() < 0.7:
            data = changed_json(data, chance)
        else:
            data = chance.choice(_BYTES)(data, other, chance)
    return data[:MOST_BYTES]


def changed_json(data: bytes, chance: random.Random) -> bytes:
    """One value of a document replaced, left out, said twice or put elsewhere; what is no JSON as it was."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places = list(_places(document))
    if not places:
        return json.dumps(chance.choice(NASTY)).encode()
    inside, key = chance.choice(places)
    match chance.randrange(6):
        case 0 if isinstance(inside, dict):
            del inside[key]
        case 1 if isinstance(inside, list):
            inside *= chance.choice((0, 2, 20))
        case 2:
            where, which = chance.choice(places)
            inside[key] = where[which] if where is not inside else None
        case 3 if isinstance(inside, dict):
            inside[str(chance.choice(NASTY))[:300]] = inside[key]
        case 4 if isinstance(inside[key], int | float):
            inside[key] = chance.choice((-inside[key], inside[key] + 1, inside[key] * 1000, str(inside[key])))
        case _:
            inside[key] = chance.choice(NASTY)
    try:
        # a lone surrogate, or NaN: what some senders write
        return json.dumps(document, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")
    except (ValueError, RecursionError):  # a value that was put into itself
        return data


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value, outermost first."""
    waiting, seen = [document], 0
    while waiting and seen < 5000:
        inside = waiting.pop()
        keys = list(inside) if isinstance(inside, dict) else range(len(inside)) if isinstance(inside, list) else ()
        for key in keys:
            seen += 1
            yield inside, key
            waiting.append(inside[key])


def _flip(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    if not data:
        return b"\x00"
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _cut(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    begin, end = sorted(chance.randint(0, len(data)) for _ in range(2))
    return data[:begin] + data[end:]


def _repeat(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    begin, end = sorted(chance.randint(0, len(data)) for _ in range(2))
    return data[:end] + data[begin:end] * chance.choice((1, 2, 50)) + data[end:]


def _splice(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


def _token(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(data))
    over = chance.choice((0, 0, 1, 4))
    return data[:at] + chance.choice(TOKENS) + data[at + over :]


_BYTES: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (_flip, _cut, _repeat, _splice, _token)
