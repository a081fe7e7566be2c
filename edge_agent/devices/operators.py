"""Simulated operators: they look at recommendations on the shop floor's broker and answer with what they know to be true."""

from __future__ import annotations

import random
from dataclasses import dataclass

from edge_agent.devices.line import Episode, Line
from protocol.feedback import Feedback, Verdict
from protocol.names import stable_id
from protocol.purchases import PurchaseProposal
from protocol.reports import Recommendation
from protocol.schedules import Schedule


@dataclass(frozen=True, slots=True)
class Answer:
    """What to publish, for which gateway, and when; `bought`: the proposal that was accepted with it."""

    gateway: str
    due_s: float
    feedback: Feedback
    bought: PurchaseProposal | None = None


class Operators:
    """One crew per line; answers about four lists in five, after a few seconds."""

    def __init__(self, lines: list[Line], seed: int, share: float = 0.85) -> None:
        self._lines = {line.name: line for line in lines}
        self._random = random.Random(f"operators/{seed}")
        self._share = share
        self._seen: set[str] = set()
        self.verdicts: dict[str, int] = {}

    def look(self, gateway: str, shown: Recommendation, now_s: float) -> Answer | None:
        """What the crew says to one list, if anything."""
        line = self._lines.get(gateway)
        if line is None or shown.id in self._seen or self._random.random() > self._share:
            return None
        self._seen.add(shown.id)
        item, verdict, correction = judge(shown, line.truth(shown.machine, shown.issued_ms))
        self.verdicts[verdict.value] = self.verdicts.get(verdict.value, 0) + 1
        feedback = Feedback(
            id=stable_id("feedback", shown.id),
            target=shown.id,
            item=item,
            verdict=verdict,
            correction=correction,
            author="crew-" + gateway,
            time_ms=shown.issued_ms,
        )
        return Answer(gateway, now_s + self._random.uniform(1.0, 4.0), feedback)

    def decide(self, gateway: str, shown: PurchaseProposal | Schedule, now_s: float) -> Answer | None:
        """Four proposals to buy in five are accepted, and so are plans; what asks for nothing is not answered."""
        if gateway not in self._lines or shown.id in self._seen:
            return None
        self._seen.add(shown.id)
        if isinstance(shown, PurchaseProposal) and not shown.quantity:
            return None
        verdict = Verdict.ACCEPTED if self._random.random() < 0.8 else Verdict.REJECTED
        self.verdicts[verdict.value] = self.verdicts.get(verdict.value, 0) + 1
        feedback = Feedback(
            id=stable_id("feedback", shown.id),
            target=shown.id,
            verdict=verdict,
            author="crew-" + gateway,
            time_ms=shown.issued_ms,
        )
        bought = shown if isinstance(shown, PurchaseProposal) and verdict is Verdict.ACCEPTED else None
        return Answer(gateway, now_s + self._random.uniform(2.0, 8.0), feedback, bought)


def judge(shown: Recommendation, truth: Episode | None) -> tuple[str, Verdict, str]:
    """(item, verdict, correction): the first action of the list against what helps."""
    first = next((i.item for i in shown.items if i.item.startswith("action:")), "")
    if truth is None:
        return first, Verdict.REJECTED, ""
    right = f"action:{truth.fault.action}"
    return (first, Verdict.ACCEPTED, "") if first == right else (first, Verdict.CORRECTED, right)
