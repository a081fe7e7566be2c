"""Reads free prose back. (Placeholder until the lexica are in.)"""

from __future__ import annotations

from collections.abc import Iterator

from protocol.writing.facts import Said
from protocol.writing.realise import Alternatives


def doubts(asked: Alternatives, said: Said) -> Iterator[str]:
    yield "free prose is not read yet"
