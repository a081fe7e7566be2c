"""What to buy: which part, from whom, how many, when, and why exactly so many. No I/O.

For each supplier: demand over its lead time and the review period as a distribution; stock up to the quantile at
shortage / (shortage + holding), where holding is what a unit costs that lies there for all that time; of the quantities that
minimum and pack allow, 0 included, the one of least expected cost (so a pack is not taken blindly where it costs more than it
saves). Of the suppliers, the one of least expected cost over the same days, the longest of their covers: holding, shortage
before and after its delivery, price above the cheapest. A budget goes where a unit of money saves most."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge_agent.skills.purchase_words import Told, words
from protocol.catalogue import BillLine, Part, Supplier
from protocol.errors import BadMessage, Reason
from protocol.names import plant_name, stable_id
from protocol.parts_demand import (
    CoverDemand,
    FailureOutlook,
    LeadTime,
    MonthsDemand,
    Pmf,
    cover_demand,
    lead_time,
    newsvendor,
)
from protocol.purchases import DemandSource, PurchaseProposal, StockLevel, SupplierOption
from protocol.reports import ModelRef

DAY_MS = 86_400_000
YEAR_DAYS = 365.25
SLOT = "supply.purchase"
FLEET = ModelRef(SLOT, "fleet_demand")
"""Demand from the months of all parts, where no model forecasts it."""
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
STALE_AFTER_DAYS = 14.0
MOST_QUANTITY = 1_000_000_000
LEAST_HOLDING = 0.005
"""Holding is never taken for less than this share of the shortage cost: some tens of months of history say nothing of what
is asked for once in more than two hundred covers, and nobody stocks for it."""
FARTHEST_DAYS = 1830.0
_MOST_STEPS = 64
_MOST_SOURCES = 100


@dataclass(frozen=True)
class Need:
    """One part to look at: what is known of it, what lies there, and how much history says will be asked for. `model`: who
    said so."""

    part: Part
    level: StockLevel
    demand: MonthsDemand
    model: ModelRef = FLEET


@dataclass(frozen=True)
class Circumstances:
    """What holds for all parts. review_days: until purchases are looked at again; budget: most to spend now (None: as much
    as it takes); outlooks and bill: which machines threaten to fail, and what their repairs take."""

    now_ms: int
    review_days: float = 7.0
    budget: float | None = None
    outlooks: Sequence[FailureOutlook] = ()
    bill: Sequence[BillLine] = field(default=())


@dataclass(frozen=True)
class _Offer:
    """Buying from one supplier: demand over its cover, stock that counts within it, and the best quantity."""

    supplier: Supplier
    lead: LeadTime
    cover: CoverDemand
    holding: float
    shortage: float
    position: int
    too_late: int
    order_up_to: int
    quantity: int
    cost: float

    @property
    def gap(self) -> int:
        return max(self.order_up_to - self.position, 0)

    def cost_of(self, quantity: int) -> float:
        """Expected cost of what is left and of what is missing over the cover, with this order."""
        stock = self.position + quantity
        return self.holding * self.cover.pmf.left(stock) + self.shortage * self.cover.pmf.shortage(stock)


def propose(needs: Sequence[Need], around: Circumstances) -> list[PurchaseProposal]:
    """One proposal a part, in the order given; a quantity of 0 says why not now. Raises BadMessage for a negative stock, a
    supplier without a lead time, a price, cost, budget or review period that is no number or negative, a part without a
    supplier or named twice, and a stock level of another part; BadName for a part that cannot be named."""
    _check(needs, around)
    offers = [_offers(need, around) for need in needs]
    chosen = [_cheapest(some) for some in offers]
    wanted = [some[i] for some, i in zip(offers, chosen, strict=True)]
    spent = within_budget(wanted, around.budget)
    return [
        _proposal(need, some, at, quantity, around)
        for need, some, at, quantity in zip(needs, offers, chosen, spent, strict=True)
    ]


def _cheapest(offers: list[_Offer]) -> int:
    return min(range(len(offers)), key=lambda i: (offers[i].cost, i))


def _check(needs: Sequence[Need], around: Circumstances) -> None:
    _number(around.review_days, "review_days", least=1e-3)
    if around.budget is not None:
        _number(around.budget, "budget")
    seen: set[str] = set()
    for need in needs:
        part, level = need.part, need.level
        plant_name(part.part, "part")
        if part.part in seen:
            raise BadMessage(Reason.CONFLICTING_DUPLICATE, f"part {part.part} stands twice: give one stock level")
        seen.add(part.part)
        if level.part != part.part:
            raise BadMessage(Reason.UNKNOWN_TARGET, f"the stock of {level.part} was given for part {part.part}")
        if level.on_hand < 0 or any(order.quantity < 0 for order in level.on_order):
            raise BadMessage(
                Reason.WRONG_TYPE,
                f"stock of {part.part} is {level.on_hand}: count the shelf; what is owed is demand, not stock",
            )
        if not part.suppliers:
            raise BadMessage(Reason.WRONG_TYPE, f"part {part.part} has no supplier: add one to the catalogue")
        _number(part.shortage_cost, f"shortage_cost of {part.part}")
        _number(part.holding_share, f"holding_share of {part.part}")
        for supplier in part.suppliers:
            _number(supplier.price, f"price of {part.part} at {supplier.supplier}")
            if supplier.minimum < 1 or supplier.pack < 1:
                raise BadMessage(
                    Reason.WRONG_TYPE, f"minimum and pack of {part.part} at {supplier.supplier} must be 1 or more"
                )


def _number(value: float, what: str, least: float = 0.0) -> None:
    if not (math.isfinite(value) and value >= least):
        raise BadMessage(Reason.WRONG_TYPE, f"{what} is {value}: give a number of {least:g} or more")


def _offers(need: Need, around: Circumstances) -> list[_Offer]:
    offers = [_offer(need, supplier, around) for supplier in need.part.suppliers]
    longest = max(offers, key=lambda offer: offer.cover.days)
    cheapest = min(offer.supplier.price for offer in offers)
    return [replace(offer, cost=_over_days(offer, need, longest.cover, cheapest, around)) for offer in offers]


def _over_days(offer: _Offer, need: Need, longest: CoverDemand, cheapest: float, around: Circumstances) -> float:
    """Expected cost over the longest cover: what this offer costs over its own, as often as that fits, the shortage before it
    arrives, and its price above the cheapest for what is asked for."""
    until_there = cover_demand(need.demand, offer.lead, 0.0, need.part.part, around.outlooks, around.bill)
    before = until_there.pmf.shortage(offer.position)
    again = longest.days / offer.cover.days * offer.cost_of(offer.quantity)
    return again + offer.shortage * before + (offer.supplier.price - cheapest) * longest.expected


def _offer(need: Need, supplier: Supplier, around: Circumstances) -> _Offer:
    part, level = need.part, need.level
    lead = lead_time(supplier)
    cover = cover_demand(need.demand, lead, around.review_days, part.part, around.outlooks, around.bill)
    ends_ms = around.now_ms + cover.days * DAY_MS
    coming = sum(order.quantity for order in level.on_order if order.due_ms <= ends_ms)
    too_late = sum(order.quantity for order in level.on_order) - coming
    holding = supplier.price * part.holding_share * cover.days / YEAR_DAYS
    holding = max(holding, LEAST_HOLDING * part.shortage_cost)
    up_to = newsvendor(cover.pmf, holding, part.shortage_cost)
    position = min(level.on_hand + coming, MOST_QUANTITY)
    offer = _Offer(supplier, lead, cover, holding, part.shortage_cost, position, too_late, up_to, quantity=0, cost=0.0)
    return replace(offer, quantity=_rounded(offer))


def _rounded(offer: _Offer) -> int:
    """The allowed quantity of least expected cost, the smaller of equals. Cost is convex in the quantity, so that only 0, the
    least order and the packs next to the gap can be it."""
    if not offer.gap:
        return 0
    return min(allowed_near(offer.gap, offer.supplier), key=lambda quantity: (offer.cost_of(quantity), quantity))


def allowed_near(gap: int, supplier: Supplier) -> list[int]:
    """Quantities that minimum and pack allow next to `gap`, and 0."""
    pack = supplier.pack
    least = -(-supplier.minimum // pack) * pack
    near = (gap // pack * pack, -(-gap // pack) * pack)
    return sorted({0, *(min(max(q, least), MOST_QUANTITY // pack * pack) for q in near)})


def within_budget(offers: Sequence[_Offer], budget: float | None) -> list[int]:
    """Quantities that cost no more than the budget together: money goes step by step (a step: the least order, then packs)
    where it saves most expected cost per unit of money; a step that no longer fits is passed over. A single large order
    that saves more than all the steps together is taken instead, so that at least half of what is possible is saved."""
    full = [offer.quantity for offer in offers]
    if budget is None or sum(o.supplier.price * o.quantity for o in offers) <= budget:
        return full
    taken, left = [0] * len(offers), budget
    stairs = [_stairs(offer, budget) for offer in offers]
    queue = [(*_best_step(offer, stairs[i], 0), i) for i, offer in enumerate(offers) if len(stairs[i]) > 1]
    heapq.heapify(queue)
    at = [0] * len(offers)
    while queue:
        _, step, i = heapq.heappop(queue)
        price = offers[i].supplier.price * (stairs[i][step] - taken[i])
        if price > left * (1 + 1e-12):
            fits = [s for s in range(at[i] + 1, step) if offers[i].supplier.price * (stairs[i][s] - taken[i]) <= left]
            if not fits:
                continue
            step = fits[-1]
            price = offers[i].supplier.price * (stairs[i][step] - taken[i])
        left -= price
        taken[i], at[i] = stairs[i][step], step
        if step + 1 < len(stairs[i]):
            heapq.heappush(queue, (*_best_step(offers[i], stairs[i], step), i))
    return _or_one_large(offers, stairs, taken)


def _or_one_large(offers: Sequence[_Offer], stairs: list[list[int]], taken: list[int]) -> list[int]:
    saved = sum(o.cost_of(0) - o.cost_of(q) for o, q in zip(offers, taken, strict=True))
    single = [(o.cost_of(0) - o.cost_of(q), i, q) for i, o in enumerate(offers) for q in stairs[i][-1:]]
    most, best, quantity = max(single, default=(0.0, 0, 0))
    return taken if most <= saved else [quantity if i == best else 0 for i in range(len(offers))]


def _stairs(offer: _Offer, budget: float) -> list[int]:
    """Quantities from 0 to the wanted one that may be bought and that the whole budget could pay; about _MOST_STEPS."""
    pack = offer.supplier.pack
    least = min(-(-offer.supplier.minimum // pack) * pack, offer.quantity)
    if not offer.quantity:
        return [0]
    packs = (offer.quantity - least) // pack
    wide = max(1, -(-packs // _MOST_STEPS))
    steps = sorted({0, *range(least, offer.quantity + 1, pack * wide), offer.quantity})
    return [quantity for quantity in steps if quantity * offer.supplier.price <= budget]


def _best_step(offer: _Offer, stairs: list[int], at: int) -> tuple[float, int]:
    """(-saved cost per money, index of the stair up to which that is most): the edge of the upper hull."""
    here = offer.cost_of(stairs[at])
    best = (0.0, at + 1)
    for step in range(at + 1, len(stairs)):
        money = max(offer.supplier.price * (stairs[step] - stairs[at]), 1e-12)
        best = min(best, (-(here - offer.cost_of(stairs[step])) / money, step))
    return best


def _proposal(need: Need, offers: list[_Offer], at: int, quantity: int, around: Circumstances) -> PurchaseProposal:
    offer, level, part = offers[at], need.level, need.part
    after = offer.position + quantity
    arrives_ms = around.now_ms + round(offer.lead.mean * DAY_MS)
    stale = around.now_ms - level.time_ms > max(STALE_AFTER_DAYS, 2 * around.review_days) * DAY_MS
    limits = _limits(need, offer, quantity)
    order_by_ms = _order_by_ms(need, offer, around)
    told = Told(
        part=part,
        supplier=offer.supplier.supplier,
        quantity=quantity,
        wanted=offer.quantity,
        gap=offer.gap,
        position=offer.position,
        order_up_to=offer.order_up_to,
        sources=offer.cover.sources,
        cover_days=offer.cover.days,
        short_now=offer.cover.pmf.exceeds(offer.position),
        short_then=offer.cover.pmf.exceeds(after),
        order_by_ms=order_by_ms,
        arrives_ms=arrives_ms,
        pack=offer.supplier.pack,
        minimum=offer.supplier.minimum,
        limits=limits,
        stock_days_old=max(0.0, (around.now_ms - level.time_ms) / DAY_MS) if stale else None,
    )
    english, chinese = words(told)
    return PurchaseProposal(
        id=stable_id("purchase", part.part, level.id, around.now_ms, need.model.digest),
        part=part.part,
        machine=level.machine,
        unit=part.unit,
        issued_ms=around.now_ms,
        inputs_until_ms=level.time_ms,
        stale=stale,
        on_hand=level.on_hand,
        on_order=offer.position - level.on_hand,
        cover_days=offer.cover.days,
        expected=offer.cover.expected,
        levels=list(LEVELS),
        quantiles=[offer.cover.pmf.quantile(level) for level in LEVELS],
        service_level=part.shortage_cost / (part.shortage_cost + offer.holding) if part.shortage_cost else 0.0,
        order_up_to=offer.order_up_to,
        quantity=quantity,
        supplier=offer.supplier.supplier,
        total_price=offer.supplier.price * quantity,
        order_by_ms=order_by_ms,
        arrives_ms=arrives_ms,
        short_now=told.short_now,
        short_then=told.short_then,
        sources=_sources(offer.cover),
        options=[_option(other, other is offer, quantity, around) for other in offers],
        limits=limits,
        because_en=english,
        because_zh=chinese,
        model=need.model,
    )


def _limits(need: Need, offer: _Offer, quantity: int) -> list[str]:
    """What kept the quantity from being the gap, and what else a reader must know."""
    found: list[str] = []
    if not offer.shortage:
        found.append("no_shortage_cost")
    if offer.quantity != offer.gap:
        pack = offer.supplier.pack
        least = -(-offer.supplier.minimum // pack) * pack
        found.append("minimum" if offer.gap < least and offer.supplier.minimum >= pack else "pack")
    if quantity != offer.quantity:
        found.append("budget")
    if offer.too_late:
        found.append("open_order_too_late")
    if all(units is None for units in need.level.monthly):
        found.append("no_history")
    return found


def _sources(cover: CoverDemand) -> list[DemandSource]:
    ordered = [cover.sources[0], *sorted(cover.sources[1:], key=lambda one: -one[1])]
    shown = [DemandSource(because, amount) for because, amount in ordered[: _MOST_SOURCES - 1]]
    rest = ordered[_MOST_SOURCES - 1 :]
    return [*shown, DemandSource("risk:others", sum(amount for _, amount in rest))] if rest else shown


def _option(offer: _Offer, chosen: bool, quantity: int, around: Circumstances) -> SupplierOption:
    return SupplierOption(
        supplier=offer.supplier.supplier,
        quantity=quantity if chosen else offer.quantity,
        unit_price=offer.supplier.price,
        arrives_ms=around.now_ms + round(offer.lead.mean * DAY_MS),
        late_probability=offer.supplier.late_probability or 0.0,
        cost=offer.cost,
        chosen=chosen,
    )


def _order_by_ms(need: Need, offer: _Offer, around: Circumstances) -> int:
    """The last moment at which an order still arrives while the stock suffices with the service level; now if that has
    passed, FARTHEST_DAYS ahead if it is farther."""
    level = offer.shortage / (offer.shortage + offer.holding) if offer.shortage else 0.5
    low, high = 0.0, FARTHEST_DAYS
    for _ in range(14):
        middle = (low + high) / 2
        enough = _demand_of(need, middle + offer.lead.mean, around).quantile(level) <= offer.position
        low, high = (middle, high) if enough else (low, middle)
    return around.now_ms + math.floor(low * DAY_MS) if low > 0.5 else around.now_ms


def _demand_of(need: Need, days: float, around: Circumstances) -> Pmf:
    at = LeadTime(np.array([days]), np.array([1.0]))
    return cover_demand(need.demand, at, 0.0, need.part.part, around.outlooks, around.bill).pmf
