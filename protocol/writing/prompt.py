"""What a language model is told before it chooses words: the document, the categories that hold, what is known (by topic:
"forecast" for all facts of a forecast), and then which section to write in which language. Training and writing build it
here, so both say it alike.

Only words of the catalogue come in: keys that its clauses ask for, and values that their conditions name. A machine's name,
a number or a note never does, so nothing that a plant's people or machines wrote can speak to the model; a category's value
that the catalogue does not know is called `other`.

    fault_report
    kind above_expected
    severity alarm
    known expected peak since
    what_happened en<|write|> Alarm. Since <since>, …<|end|>

Every section of every language begins anew after the same prefix, which a model reads once for the whole document; what one
section says never depends on how another was worded."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.writing.facts import Fact, Language
from protocol.writing.frames import Frames
from protocol.writing.realise import BETWEEN

WRITE = "<|write|>"
"""From here on the model writes."""
OTHER = "other"


def prefix(frames: Frames, facts: Sequence[Fact]) -> str:
    """What comes before each section of a document; the order of the facts does not matter."""
    values = named_values(frames)
    told = {fact.key: fact for fact in sorted(facts, key=lambda fact: (fact.key, str(fact.value)))}
    lines = [frames.document]
    for key in sorted(values.keys() & told.keys()):
        value = told[key].value
        lines.append(f"{key} {value if value in values[key] else OTHER}")
    known = {topic(key) for key in asked_keys(frames) & told.keys() if key not in values}
    return "\n".join([*lines, " ".join(["known", *sorted(known)])]) + "\n"


def lead(section: str, language: Language) -> str:
    """What comes before a section's words."""
    return f"{section} {language}{WRITE}"


def words(text: str, language: Language) -> str:
    """A section's or a clause's words as the model reads and writes them: what stands between two clauses stands before the
    first one too, so that a clause has the same tokens wherever it stands. The end token follows a section."""
    return BETWEEN[language] + text


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
