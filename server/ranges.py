"""Arithmetic of sequence numbers: what is there, what is missing. Ranges are (first, last), both included, sorted, apart."""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]


def union(ranges: Iterable[Range]) -> list[Range]:
    """The same numbers as few ranges as possible."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def settle(upto: int, ranges: Iterable[Range]) -> tuple[int, list[Range]]:
    """Moves `upto` over everything that joins it: (upto, ranges beyond a gap)."""
    merged = union([(1, upto)] * (upto > 0) + [r for r in ranges if r[1] > upto])
    if merged and merged[0][0] == 1:
        return merged[0][1], merged[1:]
    return upto, merged


def gaps(upto: int, beyond: list[Range]) -> list[Range]:
    """What is missing between `upto` and the ranges beyond it."""
    missing: list[Range] = []
    reached = upto
    for first, last in beyond:
        missing.append((reached + 1, first - 1))
        reached = last
    return missing


def holds(seq: int, upto: int, beyond: list[Range]) -> bool:
    """Whether a number is there already."""
    return 1 <= seq <= upto or any(first <= seq <= last for first, last in beyond)
