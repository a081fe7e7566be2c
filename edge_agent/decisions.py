"""What to buy and what to run when, as the agent sees it: the store's and the planner's words go in, proposals and plans come
out, answers become known inputs. forecast -> recommend -> forecast, on one page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edge_agent.buying import proposals
from edge_agent.config import AgentSettings
from edge_agent.planning import Planning
from edge_agent.runtimes import LoadedModel
from edge_agent.stores import Store, load_catalogue
from edge_agent.updates import write_durably
from protocol.catalogue import Catalogue
from protocol.covariates import KnownInput, from_purchase
from protocol.feedback import Feedback
from protocol.purchases import PurchaseProposal, StockLevel
from protocol.reports import FaultRisk, RemainingLife
from protocol.schedules import Schedule, Shop
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
MOST_PROPOSED = 300
"""Proposals whose answers are still understood."""


class Decisions:
    """Owner of the store's memory, of plan.json and of proposals.json below `folder`. Not thread-safe: the agent's thread."""

    def __init__(
        self,
        folder: Path,
        settings: AgentSettings,
        note: Callable[[str], None] = lambda _what: None,
        types: Callable[[str], str] = lambda _machine: "",
    ) -> None:
        self.catalogue = load_catalogue(Path(settings.catalogue)) if settings.catalogue else Catalogue()
        self._note = note
        self._store = Store(folder, self.catalogue, note)
        self._planning = Planning(folder / "plan.json", settings.schedule, note)
        self._path = folder / "proposals.json"
        self._proposed = _restored(self._path, note)
        self._told = {one.part: one for one in self._proposed.values()}
        self._lives: dict[str, RemainingLife] = {}
        self._types = types

    def hear_stock(self, level: StockLevel) -> bool:
        """The store's word on a part; False if it is older than what is known."""
        return self._store.hear(level)

    def hear_orders(self, shop: Shop) -> None:
        """The planner's document."""
        self._planning.hear(shop)

    def hear_lives(self, lives: Sequence[RemainingLife]) -> None:
        """The newest lives: what may fail asks for parts and for a window."""
        self._lives.update({life.machine: life for life in lives})

    def life(self, machine: str) -> RemainingLife | None:
        """The newest one of a machine."""
        return self._lives.get(machine)

    def look(
        self, now_ms: int, demand: LoadedModel | None = None, risks: Sequence[FaultRisk] = ()
    ) -> list[PurchaseProposal | Schedule]:
        """What there is to say now; often nothing."""
        found: list[PurchaseProposal | Schedule] = []
        if self._store.levels() and self._store.due(now_ms):
            levels = self._store.levels()
            lives = list(self._lives.values())
            types = {life.machine: self._types(life.machine) for life in lives}
            made = proposals(levels, self.catalogue, demand, lives, risks, now_ms, machine_types=types)
            made = [one for one in made if self._is_news(one)]
            self._told.update({one.part: one for one in made})
            self._proposed.update({one.id: one for one in made})
            while len(self._proposed) > MOST_PROPOSED:
                self._proposed.pop(next(iter(self._proposed)))
            self._save()
            found += made
        plan = self._planning.look(now_ms, self._lives.values())
        return [*found, plan] if plan is not None else found

    def _is_news(self, one: PurchaseProposal) -> bool:
        """Whether people do not know it yet: another quantity or supplier than was last told of the part."""
        told = self._told.get(one.part)
        return told is None or (told.quantity, told.supplier) != (one.quantity, one.supplier)

    def answered(self, feedback: Feedback) -> list[KnownInput]:
        """What an answer to a proposal or a plan tells of the future; empty for an answer to something else."""
        proposal = self._proposed.get(feedback.target)
        if proposal is None:
            return self._planning.answered(feedback)
        return from_purchase(feedback, proposal) if self._store.accept(feedback, proposal) else []

    def _save(self) -> None:
        try:
            write_durably(self._path, msgspec.json.encode(list(self._proposed.values())))
        except OSError as error:
            self._note("not_saved.proposals")
            log.warning("%s was not saved: %s", self._path, error)


def _restored(path: Path, note: Callable[[str], None]) -> dict[str, PurchaseProposal]:
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=list[PurchaseProposal])
    except FileNotFoundError:
        return {}
    except (*UNREADABLE, OSError) as error:
        note("refused.proposals")
        log.warning("%s is not readable, answers to older proposals are not understood: %s", path, error)
        return {}
    return {one.id: one for one in kept}
