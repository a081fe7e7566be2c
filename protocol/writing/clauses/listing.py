"""Clauses that list things: one clause for each length of the list, so that a list ends where it ends."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.writing.clauses.stating import clause
from protocol.writing.frames import Clause

MOST_LISTED = 9


def listing(
    name: str,
    section: str,
    slots: Sequence[str],
    en: Sequence[tuple[str, str, str]],
    zh: Sequence[tuple[str, str, str]],
    *,
    most: int = MOST_LISTED,
) -> list[Clause]:
    """For 1 to `most` things a clause `name.one`, `name.two`, …. slots: keys of a thing without their number ("part",
    "quantity"). A wording is (before, each thing, between, after) as ("Parts: ", "{part}, {quantity}", "; ") and ends with
    a full stop: `each` holds the slots in braces."""
    made = []
    for count in range(1, most + 1):
        last, following = f"{slots[0]}_{count}", f"{slots[0]}_{count + 1}"
        texts = [
            [_wording(words, slots, count) + stop for words in wordings] for wordings, stop in ((en, "."), (zh, "。"))
        ]
        unless = [following] if count < most else []
        made.append(clause(f"{name}.{NUMBERS[count]}", section, *texts, needs=[last], unless=unless))
    return made


NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _wording(words: tuple[str, str, str], slots: Sequence[str], count: int) -> str:
    before, each, between = words
    things = [each.format(**{slot: f"<{slot}_{number}>" for slot in slots}) for number in range(1, count + 1)]
    return before + between.join(things)
