"""kill -9 at random moments of agent, broker and server under load, as often as one likes: a part may die before it has come
up again. Afterwards nothing is lost, and nothing is there twice."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from server.drill.books import Books
from server.drill.site import PARTS, Site

BETWEEN_S = (0.2, 3.0)
DOWN_S = (0.0, 1.0)
LOOKED_AT_EVERY = 100
"""Kills after which the books are read; reading them needs a gateway that stands still."""


@dataclass
class Killed:
    """kills: of each part; seconds: from the first to the last book; catching_up_s: longest wait for the gateway; books: the
    last ones, or the first that were wrong."""

    kills: dict[str, int]
    seconds: float
    catching_up_s: float
    books: Books


def kill_at_random(
    site: Site, kills: int, seconds: float = 1e9, seed: int = 7, say: Callable[[str], None] = lambda _: None
) -> Killed:
    """So many kills, or as many as fit into so many seconds."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    done: Counter[str] = Counter()
    began, longest = time.monotonic(), 0.0
    books = Books()
    while done.total() < kills and time.monotonic() - began < seconds and books.holds:
        with site.at_work():
            for _ in range(min(LOOKED_AT_EVERY, kills - done.total())):
                part = dice.choice(PARTS)
                time.sleep(dice.uniform(*BETWEEN_S))
                site.kill(part)
                time.sleep(dice.uniform(*DOWN_S))
                site.launch(part)
                done[part] += 1
                if time.monotonic() - began > seconds:
                    break
        longest = max(longest, site.settle())
        books = site.books()
        say(f"{done.total()} kills, {books.counts}, {'all there' if books.holds else books.wrong}")
    return Killed(dict(done), time.monotonic() - began, longest, books)
