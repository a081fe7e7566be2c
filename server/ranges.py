"""Arithmetic of sequence numbers: what is there, what is missing. Ranges are (first, last), both included, sorted, apart."""

from __future__ import annotations

from bisect import bisect_right
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


def minus(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """The numbers of `ranges` that are not in `taken`."""
    left: list[Range] = []
    away, at = union(taken), 0
    for first, last in union(ranges):
        start = first
        while at < len(away) and away[at][0] <= last:
            if away[at][0] > start:
                left.append((start, away[at][0] - 1))
            start = max(start, away[at][1] + 1)
            if start > last:
                break  # this one may reach into the next range, too
            at += 1
        if start <= last:
            left.append((start, last))
    return left


def settle(upto: int, ranges: Iterable[Range]) -> tuple[int, list[Range]]:
    """Moves `upto` over everything that joins it: (upto, ranges beyond a gap)."""
    merged = union(told(upto, [r for r in ranges if r[1] > upto]))
    if merged and merged[0][0] == 1:
        return merged[0][1], merged[1:]
    return upto, merged


def told(upto: int, beyond: list[Range]) -> list[Range]:
    """Everything from 1 to `upto`, and `beyond`."""
    return [(1, upto), *beyond] if upto else beyond


def gaps(upto: int, beyond: list[Range]) -> list[Range]:
    """What is missing between `upto` and the ranges beyond it."""
    missing: list[Range] = []
    reached = upto
    for first, last in beyond:
        missing.append((reached + 1, first - 1))
        reached = last
    return missing


def within(seq: int, ranges: list[Range]) -> bool:
    """Whether a number is in one of the ranges."""
    return touches((seq, seq), ranges)


def touches(span: Range, ranges: list[Range]) -> bool:
    """Whether any number of `span` is in one of the ranges."""
    at = bisect_right(ranges, span[1], key=lambda r: r[0])
    return at > 0 and span[0] <= ranges[at - 1][1]


def holds(seq: int, upto: int, beyond: list[Range]) -> bool:
    """Whether a number is there already."""
    return 1 <= seq <= upto or within(seq, beyond)


def grouped(numbers: Iterable[tuple[int, str]]) -> list[tuple[int, int, str]]:
    """Numbers with a reason each, as (first, last, reason): neighbours of one reason together. A number counts once, with its
    first reason."""
    made: list[tuple[int, int, str]] = []
    for seq, reason in sorted(dict(reversed(list(numbers))).items()):
        if made and made[-1][1] + 1 == seq and made[-1][2] == reason:
            made[-1] = (made[-1][0], seq, reason)
        else:
            made.append((seq, seq, reason))
    return made
