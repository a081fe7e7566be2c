"""Simulated shift engineers: they leave the first reports as they would have written them, so that a writer can learn it.

The manner is one engineer's, written down once, and no survey of anybody. An alarm is short: of every clause the shortest
wording, and nothing that may be left out. Everything else is full: the longest wordings, all that may be said, and how far a
value is off in words of his own. Those are proposed once; the lead engineer reads and accepts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

ENGINEER, LEAD = "shift engineer", "lead engineer"
OWN_CLAUSE = "how.deviation"
USUAL, OWN = "its usual size", "the size that we are used to"
"""What the engineer's sentence has instead, in English."""
LANGUAGES = ("en", "zh")


class Api(Protocol):
    """The server's: a GET, or a POST of `body`."""

    def __call__(self, path: str, body: Mapping[str, Any] | None = None) -> Any: ...


@dataclass
class Editors:
    """most: reports that they change in all. page: newest reports looked at in one round."""

    api: Api
    most: int
    page: int = 30
    edited: set[int] = field(default_factory=set)
    accepted: int = 0

    def look(self, reports: int) -> None:
        """One round, if there are more reports than they have seen: changes those that came."""
        if len(self.edited) >= min(self.most, reports):
            return
        for row in reversed(self.api(f"reports?limit={self.page}")):
            if row["id"] not in self.edited and len(self.edited) < self.most:
                self.edited.add(row["id"])
                self._edit(row)
        for wording in self.api("wordings"):
            self.api(f"wordings/{wording['id']}/answer", {"accept": True, "author": LEAD})
            self.accepted += 1

    def _edit(self, row: Mapping[str, Any]) -> None:
        """In both languages, one after the other."""
        told = self.api(f"reports/{row['id']}/wordings")
        clauses = [clause for section in told["sections"] for clause in section["clauses"]]
        short = row["body"]["severity"] == "alarm"
        for language in LANGUAGES:
            left = [_said(clause, language, short) for clause in clauses if not (short and clause["may_omit"])]
            self.api(f"reports/{row['id']}/edits", {"language": language, "clauses": left, "author": ENGINEER})


def _said(clause: Mapping[str, Any], language: str, short: bool) -> dict[str, Any]:
    """A clause as the engineer leaves it."""
    offered: list[str] = clause[language]["wordings"]
    if clause["clause"] == OWN_CLAUSE and language == "en" and not short:
        return {"clause": OWN_CLAUSE, "text": offered[0].replace(USUAL, OWN)}
    choose: Callable[..., str] = min if short else max
    return {"clause": clause["clause"], "wording": offered.index(choose(offered, key=len))}
