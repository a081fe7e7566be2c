"""What this gateway knows of its store: the catalogue, the newest stock level of each part, and what was ordered since.

Every level and every accepted proposal is on disk before it is used. An accepted proposal is an open order at once, and
stays one until the store's own word, told after it, takes its place: so nothing is bought twice."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent.config import read_toml
from edge_agent.updates import write_durably
from protocol.capability_check import capability_problems
from protocol.catalogue import Catalogue
from protocol.errors import BadSettings
from protocol.feedback import Feedback
from protocol.names import plant_name
from protocol.purchases import OpenOrder, PurchaseProposal, StockLevel, ordered_quantity
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
DAY_MS = 86_400_000
FILE = "stock.json"
MOST_ANSWERED = 500
"""Accepted proposals that are known again when somebody accepts them twice."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal that somebody accepted, and the order that it became."""

    proposal: str
    part: str
    time_ms: int
    order: OpenOrder


class Kept(msgspec.Struct, kw_only=True):
    """stock.json: the newest level of each part, the proposals accepted since, and the newest that were ever accepted."""

    levels: dict[str, StockLevel] = {}
    accepted: list[Accepted] = []
    answered: list[str] = []


def load_catalogue(path: Path) -> Catalogue:
    """The catalogue in a TOML file. Raises BadSettings: an unknown key, a supplier without a lead time, a part that stands
    twice, a supplier that stands twice for a part, a bill line for a part that is not in it, and whatever of its operations,
    tools, products, remedies and families cannot be planned with (`capability_problems`)."""
    catalogue = read_toml(path, Catalogue)
    for part in catalogue.part:
        plant_name(part.part, f"{path}: part")
        twice = _twice([one.supplier for one in part.suppliers])
        if twice:
            raise BadSettings(f"{path}: {part.part}: supplier {twice!r} stands twice: keep one")
    twice = _twice([part.part for part in catalogue.part])
    if twice:
        raise BadSettings(f"{path}: part {twice!r} stands twice: put all its suppliers into one [[part]]")
    known = {part.part for part in catalogue.part}
    for line in catalogue.bill:
        if line.part not in known:
            raise BadSettings(
                f"{path}: a [[bill]] line takes {line.part!r}, which is no [[part]]: add it or mend its name"
            )
    problems = capability_problems(catalogue)
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise BadSettings(f"{path}: {'; '.join(problems[:5])}{more}")
    return catalogue


class Store:
    """Owner of the folder where stock is remembered. `ignored`: levels that were not used, counted by reason. A disk that
    cannot be written costs the memory across a restart, never the gateway: `note` counts it."""

    def __init__(self, folder: Path, catalogue: Catalogue, note: Callable[[str], None] = lambda _what: None) -> None:
        self.catalogue = catalogue
        self._note = note
        self.ignored: Counter[str] = Counter()
        self._parts = {part.part for part in catalogue.part}
        self._path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        self._kept = self._read()
        self._looked_ms: int | None = None
        self._news = False

    def hear(self, level: StockLevel) -> bool:
        """Keeps the store's word about a part. False if it is not newer than the one that is kept, or if the part is not in
        the catalogue."""
        if level.part not in self._parts:
            self.ignored["unknown_part"] += 1
            log.warning("stock of %r is ignored: add it to the catalogue as a [[part]]", level.part)
            return False
        before = self._kept.levels.get(level.part)
        if before is not None and level.time_ms <= before.time_ms:
            self.ignored["not_newer"] += 1
            return False
        self._kept.levels[level.part] = level
        self._kept.accepted = [
            one for one in self._kept.accepted if one.part != level.part or one.time_ms > level.time_ms
        ]
        self._save()
        self._news = True
        return True

    def accept(self, feedback: Feedback, proposal: PurchaseProposal) -> bool:
        """An accepted proposal becomes an open order, a corrected one an order of the corrected quantity. False if nothing
        is ordered by this answer: another verdict, another proposal, no quantity, or answered before."""
        quantity = ordered_quantity(feedback, proposal)
        if quantity == 0 or proposal.id in self._kept.answered:
            return False
        level = self._kept.levels.get(proposal.part)
        # the store knew nothing of it when it last spoke, whatever the clock of whoever answered says
        known_ms = max(feedback.time_ms, level.time_ms if level is not None else 0)
        order = OpenOrder(quantity=quantity, due_ms=proposal.arrives_ms, supplier=proposal.supplier)
        self._kept.accepted.append(Accepted(proposal=proposal.id, part=proposal.part, time_ms=known_ms, order=order))
        self._kept.answered = [*self._kept.answered, proposal.id][-MOST_ANSWERED:]
        self._save()
        return True

    def due(self, now_ms: int) -> bool:
        """Whether to look at purchases now: the first time, every `review_days`, and after a new level. A True is given
        once: the caller looks."""
        first = self._looked_ms is None
        rested = self._looked_ms is not None and now_ms - self._looked_ms >= self.catalogue.review_days * DAY_MS
        if not (first or rested or self._news):
            return False
        self._looked_ms, self._news = now_ms, False
        return True

    def levels(self) -> list[StockLevel]:
        """The newest level of each part, by name, with what was accepted since among its open orders."""
        found: list[StockLevel] = []
        for part, level in sorted(self._kept.levels.items()):
            added = [one.order for one in self._kept.accepted if one.part == part]
            found.append(msgspec.structs.replace(level, on_order=[*level.on_order, *added]) if added else level)
        return found

    def _read(self) -> Kept:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (*UNREADABLE, OSError) as error:
            self._note("refused.stock")
            log.warning("%s is not readable (%s): stock is unknown until the store tells it again", self._path, error)
            return Kept()
        kept.levels = {part: level for part, level in kept.levels.items() if part in self._parts}
        kept.accepted = [one for one in kept.accepted if one.part in self._parts]
        return kept

    def _save(self) -> None:
        try:
            write_durably(self._path, msgspec.json.encode(self._kept))
        except OSError as error:
            self._note("not_saved.stock")
            log.warning("%s was not saved: %s", self._path, error)


def _twice(names: list[str]) -> str:
    return next((name for name, count in Counter(names).items() if count > 1), "")
