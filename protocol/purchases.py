"""What lies on the shelf, and what to buy: which part, from whom, how many, when, and why exactly so many."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from protocol.catalogue import AtLeastOne, Count, NotNegative
from protocol.feedback import Feedback, Verdict
from protocol.names import MessageClass
from protocol.observations import Name, Text, TimeMs
from protocol.reports import ModelRef

MOST_ORDERED = 1_000_000_000
Chance = Annotated[float, msgspec.Meta(ge=0, le=1)]


class OpenOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A quantity that was ordered and is not there yet."""

    quantity: AtLeastOne
    due_ms: TimeMs
    supplier: Annotated[str, msgspec.Meta(max_length=128)] = ""


class StockLevel(msgspec.Struct, frozen=True, kw_only=True):
    """The store's own word: what is on the shelf and what is on its way. `monthly`: units taken in each month up to the last
    finished one from `first_month` on, oldest first; None: not recorded."""

    type_name: ClassVar[str] = "millwright.stock_level.v1"
    message_class: ClassVar[MessageClass] = MessageClass.EVENT

    id: Name
    part: Name
    machine: Name = "*"
    time_ms: TimeMs
    on_hand: Count
    on_order: Annotated[list[OpenOrder], msgspec.Meta(max_length=200)] = []
    first_month: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{4}-(0[1-9]|1[0-2]))?$")] = ""
    monthly: Annotated[list[Annotated[float, msgspec.Meta(ge=0)] | None], msgspec.Meta(max_length=240)] = []


class DemandSource(msgspec.Struct, frozen=True):
    """`expected` units of the demand until the next order could arrive come from `because`: "history", "risk:P-101"."""

    because: Name
    expected: float


class SupplierOption(msgspec.Struct, frozen=True, kw_only=True):
    """What buying from one supplier would mean. cost: expected cost over the longest time that one of the
    suppliers' orders covers (holding, shortage, price above the cheapest)."""

    supplier: Name
    quantity: Count
    unit_price: NotNegative
    arrives_ms: TimeMs
    late_probability: Chance
    cost: float
    chosen: bool = False


class PurchaseProposal(msgspec.Struct, frozen=True, kw_only=True):
    """Buy `quantity` of a part from a supplier by `order_by_ms`; 0 units say: not now, and why.

    Demand until the next order could arrive (`cover_days`: lead time and review) is `expected`, the sum of the sources;
    `order_up_to` units last with probability `service_level`, which is shortage over shortage and holding cost.
    quantity = order_up_to - position (on hand and on order), rounded up to minimum and pack, cut by a budget; `limits` names
    what changed it ("minimum", "pack", "budget") and what a reader must know ("no_history", "no_shortage_cost",
    "open_order_too_late"). short_now, short_then: chance that the shelf runs empty without and with
    this order. `machine` "*": for any machine of the site."""

    type_name: ClassVar[str] = "millwright.purchase_proposal.v1"
    message_class: ClassVar[MessageClass] = MessageClass.REPORT

    id: Name
    part: Name
    machine: Name = "*"
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    issued_ms: TimeMs
    inputs_until_ms: TimeMs
    stale: bool = False
    on_hand: Count
    on_order: Count
    cover_days: NotNegative
    expected: NotNegative
    levels: Annotated[list[float], msgspec.Meta(max_length=20)] = []
    quantiles: Annotated[list[Count], msgspec.Meta(max_length=20)] = []
    service_level: Chance
    order_up_to: Count
    quantity: Count
    supplier: Annotated[str, msgspec.Meta(max_length=128)] = ""
    total_price: NotNegative = 0.0
    order_by_ms: TimeMs
    arrives_ms: TimeMs
    short_now: Chance
    short_then: Chance
    sources: Annotated[list[DemandSource], msgspec.Meta(max_length=100)] = []
    options: Annotated[list[SupplierOption], msgspec.Meta(max_length=50)] = []
    limits: Annotated[list[Name], msgspec.Meta(max_length=20)] = []
    because_en: Text = ""
    because_zh: Text = ""
    model: ModelRef


def ordered_quantity(feedback: Feedback, proposal: PurchaseProposal) -> int:
    """Units that an answer orders: the proposal's where it was accepted, the correction's where that is a whole number
    ("120"), else 0."""
    if feedback.target != proposal.id:
        return 0
    if feedback.verdict is Verdict.ACCEPTED:
        return proposal.quantity
    if feedback.verdict is Verdict.CORRECTED and feedback.correction.strip().isdecimal():
        return min(int(feedback.correction), MOST_ORDERED)
    return 0
