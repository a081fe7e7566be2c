"""The intake's books: what became of every sample."""

from __future__ import annotations

from edge_agent.history import Stored
from protocol.errors import Refused

Put = tuple[str, bytes, Refused, int]
"""A message that was put aside: topic, payload, why, when (ms)."""


class NotASample(Refused):
    """A feedback or work order that could not be read: kept in quarantine, not in the books of samples."""


def books(messages: int, good: int, stored: Stored, refused: list[Put]) -> dict[str, int]:
    """The accounting law: samples = stored + initial + duplicate + quarantined."""
    initial = sum(1 for r in stored.fresh if r[6])
    counts = {
        "intake.received": messages,
        "intake.samples": good,
        "intake.stored": len(stored.fresh) - initial,
        "intake.initial": initial,
        "intake.duplicate": stored.duplicates,
    }
    if stored.conflicts:
        counts["quarantine.conflicting_duplicate"] = len(stored.conflicts)
    for _, _, why, _ in refused:
        if not isinstance(why, NotASample):
            counts[f"quarantine.{why.reason}"] = counts.get(f"quarantine.{why.reason}", 0) + 1
            counts["intake.samples"] += 1
    return {name: n for name, n in counts.items() if n}
