"""What a language model is told before it chooses words: the document, its language, the categories that hold and which facts
are known (by topic: "forecast" for all facts of a forecast). Training and writing build it here, so both say it alike.

Only words of the catalogue come in: keys that its clauses ask for, and values that their conditions name. A machine's name,
a number or a note never does, so nothing that a plant's people or machines wrote can speak to the model; a category's value
that the catalogue does not know is called `other`.

    fault_report en
    kind above_expected
    severity alarm
    known expected peak since
    what_happened<|write|> Alarm: since <start>, …<|end|>
    how_we_know<|write|> …<|end|>"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from protocol.writing.facts import Fact
from protocol.writing.frames import Frames

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
JOINT: dict[Language, str] = {"en": " ", "zh": ""}
"""Stands before every clause of a section, the first one too, so that a clause has the same tokens wherever it stands."""
WRITE = "<|write|>"
"""From here on the model writes."""
OTHER = "other"


def prefix(frames: Frames, facts: Sequence[Fact], language: Language) -> str:
    """What comes before the sections of a document; the order of the facts does not matter."""
    values = named_values(frames)
    told = {fact.key: fact for fact in sorted(facts, key=lambda fact: (fact.key, str(fact.value)))}
    lines = [f"{frames.document} {language}"]
    for key in sorted(values.keys() & told.keys()):
        value = told[key].value
        lines.append(f"{key} {value if value in values[key] else OTHER}")
    known = {topic(key) for key in asked_keys(frames) & told.keys() if key not in values}
    return "\n".join([*lines, " ".join(["known", *sorted(known)])]) + "\n"


def lead(section: str) -> str:
    """What comes before a section's words."""
    return f"{section}{WRITE}"


def named_values(frames: Frames) -> dict[str, set[str]]:
    """Category -> the values that the catalogue's conditions name."""
    found: dict[str, set[str]] = {}
    for clause in frames.clauses:
        for key, values in clause.when.items():
            found.setdefault(key, set()).update(values)
    return found


def topic(key: str) -> str:
    """What a key is about, the same for "forecast_low" and "forecast_high"."""
    return key.partition("_")[0]


def asked_keys(frames: Frames) -> set[str]:
    """Keys of facts whose presence decides about a clause."""
    return {key for clause in frames.clauses for key in (*clause.needs, *clause.unless)}
