"""Simulated operators: they look at recommendations on the shop floor's broker and answer with what they know to be true."""

from __future__ import annotations

import random
from dataclasses import dataclass

from edge_agent.devices.line import Episode, Line
from protocol.feedback import Feedback, Verdict
from protocol.names import stable_id
from protocol.plans import WorkPlan
from protocol.purchases import PurchaseProposal
from protocol.reading.notes import NoteReading
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

    def take_up(self, gateway: str, shown: WorkPlan, now_s: float) -> Answer | None:
        """Of a set of alternatives the first one is taken up, four times in five; the others are not answered."""
        if gateway not in self._lines or not shown.ranking or shown.candidate != 1 or shown.ranking in self._seen:
            return None
        self._seen.add(shown.ranking)
        if self._random.random() > 0.8:
            return None
        return self._answer(gateway, shown.ranking, Verdict.ACCEPTED, shown.issued_ms, now_s, item=shown.item)

    def read(self, gateway: str, shown: NoteReading, now_s: float) -> Answer | None:
        """Whoever wrote the note knows what it was about: a wrong reading is put right, a right one is confirmed now and
        then. What was not about a fault is not answered."""
        line = self._lines.get(gateway)
        truth = line.truth(shown.machine, shown.issued_ms) if line is not None else None
        if truth is None or shown.id in self._seen or not shown.judged:
            return None
        self._seen.add(shown.id)
        right = shown.judged[0].classes[0].name == truth.fault.name
        if right and self._random.random() > 0.5:
            return None
        verdict = Verdict.ACCEPTED if right else Verdict.CORRECTED
        correction = "" if right else f"failure:{truth.fault.name}"
        return self._answer(gateway, shown.id, verdict, shown.issued_ms, now_s, item="failure", correction=correction)

    def _answer(
        self, gateway: str, target: str, verdict: Verdict, at_ms: int, now_s: float, *, item: str, correction: str = ""
    ) -> Answer:
        self.verdicts[verdict.value] = self.verdicts.get(verdict.value, 0) + 1
        feedback = Feedback(
            id=stable_id("feedback", target, item),
            target=target,
            item=item,
            verdict=verdict,
            correction=correction,
            author="crew-" + gateway,
            time_ms=at_ms,
        )
        return Answer(gateway, now_s + self._random.uniform(1.0, 6.0), feedback)


def judge(shown: Recommendation, truth: Episode | None) -> tuple[str, Verdict, str]:
    """(item, verdict, correction): the first action of the list against what helps."""
    first = next((i.item for i in shown.items if i.item.startswith("action:")), "")
    if truth is None:
        return first, Verdict.REJECTED, ""
    right = f"action:{truth.fault.action}"
    return (first, Verdict.ACCEPTED, "") if first == right else (first, Verdict.CORRECTED, right)
