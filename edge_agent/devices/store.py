"""A simulated store of spare parts: what lies there, what is taken, what was ordered. The same seed gives the same store."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.devices.line import DAY_MS, FAULTS, ITEM_ZH, MACHINES
from protocol.names import stable_id
from protocol.purchases import OpenOrder, PurchaseProposal, StockLevel

FIRST_MONTH = "2024-08"
MONTHS = 24
"""Recorded months before the line's first day, 2026-08-31; August 2026 is not over yet."""


@dataclass(frozen=True, slots=True)
class Sold:
    """A part as a supplier sells it, and how often the plant asks for it."""

    part: str
    monthly: float
    price: float
    shortage: float
    pack: int


SOLD = (
    Sold("bearing-6204", 8.5, 14.5, 900.0, 2),
    Sold("strainer-mesh", 0.8, 22.0, 350.0, 1),
    Sold("drive-belt-b52", 1.1, 31.0, 600.0, 1),
    Sold("coupling-insert", 0.5, 18.0, 400.0, 1),
    Sold("seal-kit-p40", 1.6, 46.0, 800.0, 1),
    Sold("cooler-gasket", 0.4, 9.5, 200.0, 5),
    Sold("heater-2kw", 0.7, 120.0, 1200.0, 1),
    Sold("filter-g4", 3.5, 6.5, 150.0, 10),
)
SPOKEN = {
    "bearing-6204": "bearing 6204",
    "strainer-mesh": "strainer mesh",
    "drive-belt-b52": "drive belt B52",
    "coupling-insert": "coupling insert",
    "seal-kit-p40": "seal kit P40",
    "cooler-gasket": "cooler gasket",
    "heater-2kw": "2 kW heating element",
    "filter-g4": "G4 filter",
}
SUPPLIERS = (("north-bearings", 1.0, 9.0, 3.0, 0.06), ("quickparts", 1.3, 3.0, 1.0, 0.02))
"""(name, price factor, lead days, their spread, chance of being late)"""


@dataclass
class Store:
    """One line's store. `taken` since its last word, and what is on its way."""

    line: str
    seed: int
    on_hand: dict[str, int] = field(default_factory=dict)
    history: dict[str, list[float | None]] = field(default_factory=dict)
    ordered: dict[str, list[OpenOrder]] = field(default_factory=dict)
    _told: int = 0

    def __post_init__(self) -> None:
        draw = random.Random(f"store/{self.seed}/{self.line}")
        for sold in SOLD:
            self.on_hand[sold.part] = draw.choice([0, 1, 1, 2, 3])
            self.history[sold.part] = [_asked_for(draw, sold.monthly) for _ in range(MONTHS)]
            self.ordered[sold.part] = []

    def levels(self, now_ms: int) -> Iterator[StockLevel]:
        """What the store tells: every part, deliveries that are due put on the shelf first."""
        for part in self.on_hand:
            yield self.level(part, now_ms)

    def level(self, part: str, now_ms: int) -> StockLevel:
        """One part's word."""
        arrived = [order for order in self.ordered[part] if order.due_ms <= now_ms]
        self.ordered[part] = [order for order in self.ordered[part] if order.due_ms > now_ms]
        self.on_hand[part] += sum(order.quantity for order in arrived)
        self._told += 1
        return StockLevel(
            id=stable_id("stock", self.line, part, now_ms, self._told),
            part=part,
            time_ms=now_ms,
            on_hand=self.on_hand[part],
            on_order=self.ordered[part],
            first_month=FIRST_MONTH,
            monthly=self.history[part],
        )

    def take(self, part: str, now_ms: int) -> StockLevel | None:
        """A repair takes one; None if the store does not keep the part."""
        if part not in self.on_hand:
            return None
        self.on_hand[part] = max(self.on_hand[part] - 1, 0)
        return self.level(part, now_ms)

    def order(self, bought: PurchaseProposal, now_ms: int) -> StockLevel | None:
        """An accepted proposal is on its way; in this world a delivery takes a few days at most."""
        if bought.part not in self.on_hand or not bought.quantity:
            return None
        due_ms = min(max(bought.arrives_ms, now_ms + DAY_MS // 2), now_ms + 3 * DAY_MS)
        self.ordered[bought.part].append(OpenOrder(quantity=bought.quantity, due_ms=due_ms, supplier=bought.supplier))
        return self.level(bought.part, now_ms)


def _asked_for(draw: random.Random, monthly: float) -> float:
    """A month's demand: Poisson with a rate that scatters, so that months are lumpy."""
    rate = monthly * draw.gammavariate(2.0, 0.5)
    count, left = 0, draw.expovariate(1.0)
    while left < rate:
        count, left = count + 1, left + draw.expovariate(1.0)
    return float(count)


def catalogue_toml(number: int = 1) -> str:
    """The catalogue file of the gateway of line `number`: parts and suppliers, what repairs take, what is known of items, the
    one action on which nobody experiments, and what the line can make and mend."""
    rows = ['safety = ["action:recalibrate-controller"]', "review_days = 1.0", ""]
    for sold in SOLD:
        words = [f'en = "{SPOKEN[sold.part]}"', f'zh = "{ITEM_ZH[sold.part]}"']
        rows += ["[[part]]", f'part = "{sold.part}"', *words, 'unit = "pcs"', f"shortage_cost = {sold.shortage}"]
        for name, factor, lead, spread, late in SUPPLIERS:
            rows += [
                "[[part.suppliers]]",
                f'supplier = "{name}"',
                f"price = {round(sold.price * factor, 2)}",
                f"lead_days = {lead}",
                f"lead_days_spread = {spread}",
                f"pack = {sold.pack if factor == 1.0 else 1}",
                f"late_probability = {late}",
                "late_days = 5.0",
            ]
    cards: dict[str, list[str]] = {}
    for kind in dict(MACHINES).values():
        for fault in FAULTS[kind]:
            failure = "*" if fault.name == "bearing wear" else fault.name  # what a pump's life ends with, in this world
            rows += ["[[bill]]", f'part = "{fault.part}"', f'machine_type = "{kind}"', f'failure = "{failure}"']
            seen = "; ".join(f"{signal} {'high' if push > 0 else 'low'}" for signal, push in fault.shows.items())
            for item in (f"action:{fault.action}", f"part:{fault.part}"):
                cards.setdefault(item, [kind]).append(f"{fault.name}: {seen}")
    for item, (kind, *words) in cards.items():
        rows += [
            "[[card]]",
            f'id = "card-{item.replace(":", "-")}"',
            f'item = "{item}"',
            f'text = "{item.partition(":")[2].replace("-", " ")}. {". ".join(words)}"',
            f'attributes = {{ type = "{kind}" }}',
        ]
    crafts = Path(__file__).with_name("crafts.toml").read_text(encoding="utf-8").replace("LINE", str(number))
    return "\n".join(rows) + "\n\n" + crafts
