"""What is known of items that nobody has chosen yet: a generated plan, a new part, every item of a new site. By their words
and attributes they stand in the very next list; before there is any trained recommender, they are the list.

Owner of cards.json below the agent's folder: at most MOST_CARDS, the newest of each id."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.runtimes import LoadedModel
from edge_agent.updates import write_durably
from protocol.bundles import Golden, Lineage, Parity, Passport, Runtime
from protocol.catalogue import ItemCard, token_card
from protocol.recommending import CANDIDATES, PARTS, RecommendSpec
from protocol.tables import Hybrid
from protocol.text_vectors import TextVectors, plain_text
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
MOST_CARDS = 2000
SLOT = "recommend.items"


class Cards:
    """The catalogue's cards and those that came since. `note` counts what goes wrong."""

    def __init__(
        self, path: Path, catalogue: Iterable[ItemCard] = (), note: Callable[[str], None] = lambda _what: None
    ) -> None:
        self._path, self._note = path, note
        self._catalogue = {card.item: card for card in catalogue}
        self._heard = _restored(path, note)
        self._prior: LoadedModel | None = None

    def hear(self, card: ItemCard) -> bool:
        """Takes a card; False if it says nothing new. A withdrawn one is not offered again."""
        known = self._heard.get(card.item)
        if known == card or (known is not None and known.issued_ms > card.issued_ms):
            return False
        self._heard.pop(card.item, None)
        self._heard[card.item] = card
        while len(self._heard) > MOST_CARDS:
            self._heard.pop(next(iter(self._heard)))
        self._prior = None
        try:
            write_durably(self._path, msgspec.json.encode(list(self._heard.values())))
        except OSError as error:
            self._note("not_saved.cards")
            log.warning("%s was not saved: %s", self._path, error)
        return True

    def known(self) -> dict[str, ItemCard]:
        """Every card by its item, withdrawn ones included."""
        return self._catalogue | self._heard

    def beside(self, model: LoadedModel | None, profile: Iterable[str]) -> LoadedModel | None:
        """The model with what its tables do not know yet: new items, and tokens of this case, both by their words. Without a
        model the cards alone answer; None if there are none either."""
        offered = {name: card for name, card in self.known().items() if not card.withdrawn}
        if model is None:
            if not offered:
                return None
            model = self._prior = self._prior or built_in(list(offered.values()))
        return with_words(model, offered, profile)


def with_words(model: LoadedModel, offered: Mapping[str, ItemCard], profile: Iterable[str]) -> LoadedModel:
    """The model with the offered items and the case's tokens that its tables do not know, both by their words; the model
    itself where it knows no words."""
    if model.hybrid is None or model.text is None or model.hybrid.content is None:
        return model
    new = [card for name, card in offered.items() if name not in model.hybrid.index]
    new += [token_card(token) for token in profile if token not in model.hybrid.index]
    if not new:
        return model
    vectors = [(card.item, model.text.vector(card.text, card.attributes)) for card in new]
    return replace(model, table=model.hybrid.with_cards(vectors))


def built_in(cards: list[ItemCard]) -> LoadedModel:
    """The simple reference of a site without a trained recommender: likeness of words between a case and each card."""
    tables = plain_text()
    text = TextVectors(tables)
    items = [card.item for card in cards]
    vectors = np.array([text.vector(card.text, card.attributes) for card in cards]).reshape(len(cards), text.width)
    largest = np.abs(vectors).max(axis=1, initial=0.0) / 127
    scale = np.where(largest > 0, largest, 1.0)[:, None]
    mix = np.zeros((1, len(PARTS)), dtype=np.float32)
    mix[0, PARTS.index("content")] = 1.0
    hybrid = Hybrid(
        items,
        [],
        {
            "popularity": np.zeros(len(items), dtype=np.float32),
            "content_vectors": np.round(vectors / scale).astype(np.int8),
            "content_row_scale": largest.astype(np.float32),
            "mix_lengths": np.zeros(1, dtype=np.int32),
            "mix_weights": mix,
            "mix_scale": np.ones_like(mix),
        },
    )
    return LoadedModel(_passport(items), "", table=hybrid, text=text)


def _passport(items: list[str]) -> Passport:
    """Of the built-in reference: version 0 and no digest, as answers name what was never trained."""
    return Passport(
        slot=SLOT,
        family="recommend",
        algorithm="cards",
        version=0,
        runtime=Runtime.HYBRID,
        items=items,
        recommend=RecommendSpec(candidates=list(CANDIDATES)),
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=0, code_version="built-in", seed=0, trained_ms=0),
        quality=[],
        eligible=True,
        verdict="The simple reference.",
        parity=Parity(max_abs=0, rel_rms=0, task_change=0, n=0, bound=""),
        golden=Golden(atol=0, rtol=0),
        float_bytes=0,
        packed_bytes=0,
        latency_us=0,
        intended_use="Lists before anything was learned.",
        limits="Knows words alone.",
    )


def _restored(path: Path, note: Callable[[str], None]) -> dict[str, ItemCard]:
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=list[ItemCard])
    except FileNotFoundError:
        return {}
    except (*UNREADABLE, OSError) as error:
        note("refused.cards")
        log.warning("%s is not readable, new items must be told again: %s", path, error)
        return {}
    return {card.item: card for card in kept}
