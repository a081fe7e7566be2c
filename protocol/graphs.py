"""What an ONNX file says of itself, read without an engine and without the onnx package (a gateway has neither to spare).

An engine is not shown everything: a graph may name files for its weights (onnxruntime 1.32 reads them from wherever the
process stands, and above it) or operators that somebody's own library would have to bring. Both are found here, in every
subgraph and function, before the engine is asked. Only the few fields that this needs are read (ModelProto and what it holds,
onnx.proto 1.18); the others are stepped over, weights without being copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from protocol.errors import BadBundle, Reason

ENGINE_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Domains whose operators onnxruntime brings itself."""
LEAST_IR, MOST_IR = 3, 64
_DEEPEST = 64
_MOST_FIELDS = 500_000
"""Of a file; a tensor of weights is one, however large. They are read in Python, a few hundred thousand a second."""
_EXTERNAL = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass
class GraphFacts:
    """ir: version of the format; opsets: domain -> version; operators: (domain, name) -> how often; functions: the operators
    that the file defines itself; outside: files that it wants for its weights; fields: how many were looked at."""

    ir: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    operators: dict[tuple[str, str], int] = field(default_factory=dict)
    functions: set[tuple[str, str]] = field(default_factory=set)
    outside: list[str] = field(default_factory=list)
    fields: int = 0


def graph_facts(body: bytes) -> GraphFacts:
    """Reads an ONNX file. Raises BadBundle (bad_archive) for what is none."""
    found = GraphFacts()
    graphs = 0
    try:
        for number, value in _fields(memoryview(body), found):
            match number, value:
                case 1, int():
                    found.ir = value
                case 7, memoryview():
                    graphs += 1
                    _graph(value, found, 0)
                case 8, memoryview():
                    domain, version = _opset(value, found)
                    found.opsets[domain] = version
                case 25, memoryview():
                    _function(value, found)
    except (ValueError, IndexError) as error:
        raise BadBundle(Reason.BAD_ARCHIVE, f"the graph is no ONNX file, or is cut: {error}") from error
    if graphs != 1 or not LEAST_IR <= found.ir <= MOST_IR or not found.opsets:
        raise BadBundle(
            Reason.BAD_ARCHIVE, "the graph is no ONNX file: it lacks its version, its opset or its operators"
        )
    return found


def check_graph(body: bytes) -> GraphFacts:
    """As `graph_facts`; also raises BadBundle for a graph that may not be shown to an engine."""
    found = graph_facts(body)
    if found.outside:
        named = ", ".join(repr(name[:100]) for name in found.outside[:3])
        raise BadBundle(
            Reason.BAD_ARCHIVE,
            f"the graph keeps weights in other files ({named}), and a bundle has none: pack them inside",
        )
    foreign = sorted(
        f"{domain}.{name}"
        for domain, name in found.operators
        if domain not in ENGINE_DOMAINS and (domain, name) not in found.functions
    )
    if foreign:
        raise BadBundle(
            Reason.UNSUPPORTED_RUNTIME,
            f"the graph has operators that no engine of ours brings: {', '.join(foreign[:5])[:400]}",
        )
    return found


def _graph(body: memoryview, found: GraphFacts, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"graphs within graphs, over {_DEEPEST} deep")
    for number, value in _messages(body, found):
        if number == 1:
            _node(value, found, depth)
        elif number == 5:
            _tensor(value, found)
        elif number == 15:
            _sparse(value, found)


def _node(body: memoryview, found: GraphFacts, depth: int) -> None:
    name, domain = "", ""
    for number, value in _messages(body, found):
        if number == 4:
            name = _text(value)
        elif number == 7:
            domain = _text(value)
        elif number == 5:
            _attribute(value, found, depth)
    found.operators[domain, name] = found.operators.get((domain, name), 0) + 1


def _attribute(body: memoryview, found: GraphFacts, depth: int) -> None:
    for number, value in _messages(body, found):
        if number in (5, 10):
            _tensor(value, found)
        elif number in (6, 11):
            _graph(value, found, depth + 1)
        elif number in (22, 23):
            _sparse(value, found)


def _sparse(body: memoryview, found: GraphFacts) -> None:
    for number, value in _messages(body, found):
        if number in (1, 2):
            _tensor(value, found)


def _tensor(body: memoryview, found: GraphFacts) -> None:
    place, elsewhere = "", False
    for number, value in _fields(body, found):
        if number == 14:
            elsewhere = elsewhere or value == _EXTERNAL
        elif number == 13 and isinstance(value, memoryview):
            elsewhere = True
            pair = {n: _text(v) for n, v in _messages(value, found)}
            place = pair.get(2, "") if pair.get(1) == "location" else place
    if elsewhere:
        found.outside.append(place)


def _function(body: memoryview, found: GraphFacts) -> None:
    name, domain = "", ""
    for number, value in _messages(body, found):
        if number == 1:
            name = _text(value)
        elif number == 10:
            domain = _text(value)
        elif number == 7:
            _node(value, found, 0)
        elif number == 11:
            _attribute(value, found, 0)
    found.functions.add((domain, name))


def _opset(body: memoryview, found: GraphFacts) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in _fields(body, found):
        if number == 1 and isinstance(value, memoryview):
            domain = _text(value)
        elif number == 2 and isinstance(value, int):
            version = value
    return domain, version


def _text(body: memoryview) -> str:
    return bytes(body).decode("utf-8")


def _messages(body: memoryview, found: GraphFacts) -> Iterator[tuple[int, memoryview]]:
    """The fields that have a length: (number, content)."""
    for number, value in _fields(body, found):
        if isinstance(value, memoryview):
            yield number, value


def _fields(body: memoryview, found: GraphFacts) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a protobuf message. Raises ValueError or IndexError where it is cut or is none."""
    at = 0
    while at < len(body):
        found.fields += 1
        if found.fields > _MOST_FIELDS:
            raise ValueError(f"more than {_MOST_FIELDS:,} fields")
        key, at = _varint(body, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(body, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, at = _varint(body, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"field {key >> 3} is of an unknown kind {kind}")
        if at + length > len(body):
            raise ValueError(f"field {key >> 3} of {length} bytes is cut at {len(body) - at}")
        if kind == _BYTES:
            yield key >> 3, body[at : at + length]
        at += length


def _varint(body: memoryview, at: int) -> tuple[int, int]:
    """(value, where the next byte is)."""
    value = 0
    for shift in range(0, 70, 7):
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of over ten bytes")
