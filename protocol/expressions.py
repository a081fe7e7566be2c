"""Formulas that a catalogue may hold: numbers, names, + - * / ^, brackets, min, max, sqrt and pi, and nothing else.

A formula is read by this page alone, never by Python's own evaluation. It can be computed for numbers, and for ranges: then
the answer surely holds every value that numbers out of the ranges give (interval arithmetic, Moore 1966), which is how a
choice that can no longer lead to a valid design is recognised early."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from protocol.errors import Reason, Refused

LONGEST = 300
"""Characters of a formula."""
DEEPEST = 30
"""Brackets within brackets."""
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?)|([^\W\d]\w*)|(<=|>=|=|[-+*/^(),<>]))")
_ROUNDING = 1e-9
"""Sides of a comparison that differ by less, of the larger of them, are equal: 0.1 * 3 is 0.3."""
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Node:
    """`what` of `parts`: "number" (value), "name" (name), or an operator."""

    what: str
    parts: tuple[Node, ...] = ()
    value: float = 0.0
    name: str = ""


class Relation(StrEnum):
    """What a rule asks of its left side against its right."""

    AT_MOST = "<="
    AT_LEAST = ">="
    BELOW = "<"
    ABOVE = ">"
    EQUAL = "="


@dataclass(frozen=True, slots=True)
class Rule:
    """left relation right."""

    left: Node
    relation: Relation
    right: Node


def formula(text: str) -> Node:
    """Reads a formula. Raises Refused saying where it cannot be read."""
    reader = _Reader(text)
    node = reader.sum(0)
    reader.end()
    return node


def rule(text: str) -> Rule:
    """Reads a comparison of two formulas, "wall >= 0.1 * bore". Raises Refused."""
    reader = _Reader(text)
    left = reader.sum(0)
    relation = reader.relation()
    right = reader.sum(0)
    reader.end()
    return Rule(left, relation, right)


def names(node: Node | Rule) -> set[str]:
    """Every name that it holds."""
    if isinstance(node, Rule):
        return names(node.left) | names(node.right)
    return {node.name} if node.what == "name" else set().union(*(names(part) for part in node.parts))


def size(node: Node | Rule) -> int:
    """How many parts it has: what it costs to compute."""
    if isinstance(node, Rule):
        return size(node.left) + size(node.right)
    return 1 + sum(size(part) for part in node.parts)


def value(node: Node, known: Mapping[str, float]) -> float:
    """Its value. Raises Refused for a name that is not known and for what has none (a division by zero, a root of less than
    zero, infinity)."""
    try:
        made = _value(node, known)
    except (ZeroDivisionError, OverflowError, ValueError) as error:
        raise Refused(Reason.NOT_FINITE, f"a formula has no value: {error}") from error
    if isinstance(made, complex) or not math.isfinite(made):
        raise Refused(Reason.NOT_FINITE, "a formula has no finite value")
    return float(made)


def holds(asked: Rule, known: Mapping[str, float]) -> bool:
    """Whether a rule is kept by these numbers; one that has no value is not. Raises Refused for an unknown name."""
    unknown = names(asked) - known.keys()
    if unknown:
        raise Refused(Reason.BAD_NAME, f"a rule asks for {', '.join(sorted(unknown))}: known are {', '.join(known)}")
    try:
        left, right = value(asked.left, known), value(asked.right, known)
    except Refused:
        return False
    margin = _ROUNDING * max(abs(left), abs(right))
    match asked.relation:
        case Relation.AT_MOST:
            return left <= right + margin
        case Relation.AT_LEAST:
            return left >= right - margin
        case Relation.BELOW:
            return left < right - margin
        case Relation.ABOVE:
            return left > right + margin
        case Relation.EQUAL:
            return abs(left - right) <= margin


def may_hold(asked: Rule, ranges: Mapping[str, Range]) -> bool:
    """False only if no numbers out of the ranges keep the rule."""
    left, right = reach(asked.left, ranges), reach(asked.right, ranges)
    margin = _ROUNDING * max(*(abs(x) for x in (*left, *right) if math.isfinite(x)), 0.0, 0.0)
    below = left[0] <= right[1] + margin
    above = left[1] >= right[0] - margin
    match asked.relation:
        case Relation.AT_MOST | Relation.BELOW:
            return below
        case Relation.AT_LEAST | Relation.ABOVE:
            return above
        case Relation.EQUAL:
            return below and above


def reach(node: Node, ranges: Mapping[str, Range]) -> Range:
    """From least to most of what it can be for numbers out of the ranges; wide where nothing better is known."""
    if node.what == "number":
        return node.value, node.value
    if node.what == "name":
        return ranges[node.name]
    parts = [reach(part, ranges) for part in node.parts]
    match node.what:
        case "+":
            return parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
        case "-":
            return parts[0][0] - parts[1][1], parts[0][1] - parts[1][0]
        case "negative":
            return -parts[0][1], -parts[0][0]
        case "min":
            return min(p[0] for p in parts), min(p[1] for p in parts)
        case "max":
            return max(p[0] for p in parts), max(p[1] for p in parts)
        case "sqrt":
            return math.sqrt(max(parts[0][0], 0.0)), math.sqrt(max(parts[0][1], 0.0))
        case "*":
            return _corners(parts[0], parts[1], lambda a, b: a * b)
        case "/" if parts[1][0] > 0 or parts[1][1] < 0:
            return _corners(parts[0], parts[1], lambda a, b: a / b)
        case "^" if parts[0][0] > 0:
            return _corners(parts[0], parts[1], lambda a, b: a**b)
    return -math.inf, math.inf


def _corners(a: Range, b: Range, law: object) -> Range:
    try:
        found = [law(x, y) for x in a for y in b]  # type: ignore[operator]
    except OverflowError:
        return -math.inf, math.inf
    return (-math.inf, math.inf) if any(math.isnan(x) for x in found) else (min(found), max(found))


def _value(node: Node, known: Mapping[str, float]) -> float:
    if node.what == "number":
        return node.value
    if node.what == "name":
        if node.name not in known:
            raise Refused(Reason.BAD_NAME, f"a formula asks for {node.name!r}: known are {', '.join(known)}")
        return known[node.name]
    parts = [_value(part, known) for part in node.parts]
    match node.what:
        case "+":
            return parts[0] + parts[1]
        case "-":
            return parts[0] - parts[1]
        case "*":
            return parts[0] * parts[1]
        case "/":
            return parts[0] / parts[1]
        case "^":
            return float(parts[0] ** parts[1])
        case "min":
            return min(parts)
        case "max":
            return max(parts)
        case "sqrt":
            return math.sqrt(parts[0])
    return -parts[0]


class _Reader:
    """Recursive descent: sum > product > sign > power > what stands alone."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise Refused(Reason.TOO_LARGE, f"formula of {len(text)} characters; at most {LONGEST}: split it in two")
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        at = 0
        stripped = text.rstrip()
        while at < len(stripped):
            found = _TOKEN.match(stripped, at)
            if found is None:
                raise self._wrong(f"cannot read {stripped[at : at + 20]!r}")
            number, name, sign = found.groups()
            self._tokens.append(("number", number) if number else ("name", name) if name else ("sign", sign))
            at = found.end()
        self._at = 0

    def sum(self, depth: int) -> Node:
        node = self._product(depth)
        while self._next() in ("+", "-"):
            sign = self._take()
            node = Node(sign, (node, self._product(depth)))
        return node

    def relation(self) -> Relation:
        found = self._take()
        if found not in tuple(Relation):
            raise self._wrong("a rule compares two formulas with <=, >=, <, > or =")
        return Relation(found)

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self._wrong(f"{self._tokens[self._at][1]!r} stands where it should end")

    def _product(self, depth: int) -> Node:
        node = self._signed(depth)
        while self._next() in ("*", "/"):
            sign = self._take()
            node = Node(sign, (node, self._signed(depth)))
        return node

    def _signed(self, depth: int) -> Node:
        minus = False
        while self._next() == "-":
            self._take()
            minus = not minus
        node = self._power(depth)
        return Node("negative", (node,)) if minus else node

    def _power(self, depth: int) -> Node:
        node = self._alone(depth)
        if self._next() == "^":
            self._take()
            return Node("^", (node, self._alone(depth)))
        return node

    def _alone(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise self._wrong(f"more than {DEEPEST} brackets within brackets")
        if self._at >= len(self._tokens):
            raise self._wrong("it ends too early")
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            return Node("number", value=float(text))
        if kind == "name":
            return self._called(text, depth)
        if text != "(":
            raise self._wrong(f"{text!r} stands where a number or a name should")
        node = self.sum(depth + 1)
        self._expect(")")
        return node

    def _called(self, name: str, depth: int) -> Node:
        if name == "pi":
            return Node("number", value=math.pi)
        if self._next() != "(":
            return Node("name", name=name)
        if name not in ("min", "max", "sqrt"):
            raise self._wrong(f"no function {name!r}: known are min, max and sqrt")
        self._take()
        parts = [self.sum(depth + 1)]
        while self._next() == "," and name != "sqrt":
            self._take()
            parts.append(self.sum(depth + 1))
        self._expect(")")
        return Node(name, tuple(parts))

    def _expect(self, sign: str) -> None:
        if self._next() != sign:
            raise self._wrong(f"{sign!r} is missing")
        self._take()

    def _next(self) -> str:
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        return text if kind == "sign" else ""

    def _take(self) -> str:
        found = self._next()
        self._at += 1
        return found

    def _wrong(self, what: str) -> Refused:
        return Refused(Reason.WRONG_TYPE, f"formula {self._text[:80]!r}: {what}")
