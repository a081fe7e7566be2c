"""What to do, as the agent sees it: a case goes in, a list comes out that knows the trained tables, the cards of what nobody
has chosen yet, and every answer that was given here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edge_agent.answers import AnswerBook
from edge_agent.cards import Cards, built_in, with_words
from edge_agent.config import RecommendSettings
from edge_agent.runtimes import LoadedModel
from edge_agent.skills.recommend import (
    Answered,
    ListSettings,
    Request,
    asked_by_event,
    asked_by_note,
    asked_by_risk,
    list_settings,
    recommend,
    spec_of,
)
from protocol.catalogue import Catalogue, ItemCard
from protocol.feedback import Feedback
from protocol.reading.notes import About, NoteReading
from protocol.reports import FaultEvent, Recommendation, RemainingLife

DAY_MS = 86_400_000
LIKELY = 0.5
"""The chance of failing within a horizon from which on a life asks what to do."""


class Lists:
    """Owner of answers.db and cards.json below `folder`. `note` counts. Not thread-safe: the agent's thread only."""

    def __init__(
        self, folder: Path, catalogue: Catalogue, settings: RecommendSettings, note: Callable[[str], None]
    ) -> None:
        self._note = note
        self._answers = AnswerBook(folder / "answers.db", note)
        self._cards = Cards(folder / "cards.json", catalogue.card, note)
        self._settings = list_settings(catalogue, explore=settings.explore, pool=settings.pool)
        self._model: LoadedModel | None = None
        self._foretold: dict[str, int] = {}
        self._made = 0

    @property
    def results(self) -> int:
        """Lists made with the installed tables; that they were proven on their golden lists counts as the first."""
        return self._made + (self._model is not None)

    def install(self, model: LoadedModel | None) -> None:
        """Answers with these tables from now on; None: with the cards alone."""
        self._model, self._made = model, 0

    def hear(self, card: ItemCard) -> bool:
        """Takes a card of something new; False if it is known."""
        return self._cards.hear(card)

    def answered(self, feedback: Feedback) -> Recommendation | None:
        """Takes an answer, which shows in the next list; the list that it judges, if it is one of ours."""
        return self._answers.take(feedback)

    def shown(self, made: Recommendation, report: str = "") -> None:
        """Remembers a list that people see, and the report that carries it."""
        self._note("recommendations.made")
        self._answers.show(made, report)

    def for_event(self, event: FaultEvent, open_symptoms: list[str], now_ms: int) -> Recommendation | None:
        """What to do about an event; None if nothing is known of such a case."""
        return self._listed(asked_by_event(event, open_symptoms), now_ms)

    def for_life(
        self, life: RemainingLife, open_symptoms: list[str], machine_type: str, now_ms: int
    ) -> Recommendation | None:
        """forecast -> recommend: a machine that is likely to fail soon asks what to do before it does, once a day."""
        likely = max((risk.probability for risk in life.risks), default=0.0) >= LIKELY
        if not likely or now_ms - self._foretold.get(life.machine, -DAY_MS) < DAY_MS:
            return None
        made = self._listed(asked_by_risk(life, open_symptoms, machine_type), now_ms)
        if made is not None:
            self._foretold[life.machine] = now_ms
        return made

    def for_note(
        self, reading: NoteReading, open_symptoms: list[str], machine_type: str, now_ms: int
    ) -> Recommendation | None:
        """generate -> recommend: what to do about a failure that a note tells of; None where the reader is not sure."""
        if not any(judged.about is About.FAILURE and judged.sure for judged in reading.judged):
            return None
        return self._listed(asked_by_note(reading, open_symptoms, machine_type), now_ms)

    def among(self, cards: Sequence[ItemCard], request: Request, now_ms: int) -> Recommendation | None:
        """Ranks just these new items (generated plans, say), all of them and without experiments, by their words and by what
        this gateway was answered. They are not offered anywhere else. None if none of them fits the case at all."""
        return self._listed(request_among(cards, request), now_ms, cards)

    def close(self) -> None:
        """Closes the memory."""
        self._answers.close()

    def _listed(self, request: Request, now_ms: int, among: Sequence[ItemCard] | None = None) -> Recommendation | None:
        model = self._cards.beside(self._model, request.profile)
        known, settings = self._cards.known(), self._settings
        if among is not None:
            offered = {card.item: card for card in among}
            model = with_words(model or built_in(list(among)), offered, request.profile)
            known, settings = known | offered, replace(settings, explore=0.0)
        if model is None:
            return None
        self._note("recommendations.asked")
        answered = self._answers.answered(request, spec_of(model), now_ms)
        made = recommend(request, model, answered, replace(settings, cards=known), now_ms)
        self._made += made is not None and self._model is not None
        return made


def request_among(cards: Sequence[ItemCard], request: Request) -> Request:
    """The same question about these items alone."""
    return replace(request, prefixes=tuple(card.item for card in cards), top=max(len(cards), 1))


def rank_alone(
    cards: Sequence[ItemCard], request: Request, model: LoadedModel | None, now_ms: int
) -> Recommendation | None:
    """Ranks new items with a recommender (None: by their words alone) and without any memory of answers."""
    offered = {card.item: card for card in cards}
    worded = with_words(model or built_in(list(cards)), offered, request.profile)
    settings = ListSettings(explore=0.0, cards=offered)
    return recommend(request_among(cards, request), worded, Answered(), settings, now_ms)
