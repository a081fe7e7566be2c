"""What a plant keeps and can order, what a repair takes, what may be recommended, and (protocol/capabilities.py) what it can
make and mend: the stock keeper's and the planner's knowledge, as a gateway and the server both read it."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from protocol.capabilities import (
    Capability,
    Family,
    Feature,
    OperationType,
    PlantMachine,
    Product,
    Remedy,
    Tool,
    Unit,
    Words,
)
from protocol.names import MessageClass
from protocol.observations import Name, Text, TimeMs

NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
YearsShare = Annotated[float, msgspec.Meta(ge=0, le=10)]


class Supplier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who sells a part. price: per unit. lead_days, lead_days_spread: mean and standard deviation of the days from order to
    shelf. minimum: least quantity of an order; pack: quantities are multiples of it. late_probability: the chance that the
    promise is broken, by `late_days` then (None: nobody has judged it)."""

    supplier: Name
    price: NotNegative
    lead_days: Annotated[float, msgspec.Meta(gt=0, le=3660)]
    lead_days_spread: NotNegative = 0.0
    minimum: AtLeastOne = 1
    pack: AtLeastOne = 1
    late_probability: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    late_days: NotNegative = 0.0


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A spare part or material; en, zh: what it is called in plans. holding_share: cost of keeping one unit for a year, as
    a share of its price. shortage_cost: what one unit costs that is asked for and not there (a stopped line, an express
    delivery)."""

    part: Name
    en: Words = ""
    zh: Words = ""
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    suppliers: Annotated[list[Supplier], msgspec.Meta(min_length=1, max_length=50)]
    holding_share: YearsShare = 0.2
    shortage_cost: NotNegative = 0.0


class BillLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A repair takes `quantity` of `part` when a machine of this type ("": any) fails in this way ("*": in any way)."""

    part: Name
    quantity: AtLeastOne = 1
    machine_type: Annotated[str, msgspec.Meta(max_length=128)] = ""
    failure: Name = "*"
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """Share of such repairs that take it."""


class ItemCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of an item that may be recommended ("action:…", "part:…", "plan:…", "design:…", "document:…") before
    anybody has chosen it: attributes and words. A generated process plan or design becomes one. `safety`: never shown as an
    experiment. `machine`: the machine that it is for ("*": any)."""

    type_name: ClassVar[str] = "millwright.item_card.v1"
    message_class: ClassVar[MessageClass] = MessageClass.EVENT

    id: Name
    item: Name
    machine: Name = "*"
    issued_ms: TimeMs = 0
    attributes: Annotated[dict[Name, Name], msgspec.Meta(max_length=50)] = {}
    text: Text = ""
    safety: bool = False
    withdrawn: bool = False


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plant's catalogue file (TOML): `[[part]]`, `[[bill]]`, `[[card]]`, and `safety`: items on which nobody experiments.
    review_days: how often purchases are looked at. budget: most to spend at one look (None: as much as it takes).
    machine … family: what plans and designs are made of. units: understood beside those of `protocol.capabilities.UNITS`."""

    part: list[Part] = []
    bill: list[BillLine] = []
    card: list[ItemCard] = []
    safety: list[Name] = []
    machine: Annotated[list[PlantMachine], msgspec.Meta(max_length=10_000)] = []
    operation: Annotated[list[OperationType], msgspec.Meta(max_length=20_000)] = []
    capability: Annotated[list[Capability], msgspec.Meta(max_length=20_000)] = []
    tool: Annotated[list[Tool], msgspec.Meta(max_length=20_000)] = []
    feature: Annotated[list[Feature], msgspec.Meta(max_length=20_000)] = []
    product: Annotated[list[Product], msgspec.Meta(max_length=20_000)] = []
    remedy: Annotated[list[Remedy], msgspec.Meta(max_length=20_000)] = []
    family: Annotated[list[Family], msgspec.Meta(max_length=1000)] = []
    units: Annotated[list[Unit], msgspec.Meta(max_length=200)] = []
    review_days: Annotated[float, msgspec.Meta(gt=0, le=366)] = 7.0
    budget: NotNegative | None = None


def token_card(token: str) -> ItemCard:
    """What a bare token says of itself: "symptom:vibration:high" is an attribute and its words."""
    kind, _, name = token.partition(":")
    return ItemCard(id=token, item=token, attributes={kind: name} if name else {}, text=name.replace("-", " "))
