"""What to buy: never more for more stock, never less for dearer shortages, in packs, within a budget, with a reason."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import cast

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.buying import proposals
from edge_agent.runtimes import LoadedModel
from edge_agent.skills.purchase import Circumstances, Need, _offers, propose, within_budget
from protocol.catalogue import BillLine, Catalogue, Part, Supplier
from protocol.demand_windows import SPARE_PARTS, DemandSpec
from protocol.errors import BadMessage
from protocol.parts_demand import MonthsDemand, failure_outlooks
from protocol.purchases import OpenOrder, PurchaseProposal, StockLevel
from protocol.reports import FaultRisk, ModelRef
from protocol.sync import decode, encode

NOW = 1_800_000_000_000
DAY_MS = 86_400_000
NORD = Supplier(supplier="Nord", price=10.0, lead_days=20, lead_days_spread=5)


def part(*suppliers: Supplier, name: str = "seal", shortage: float = 200.0, share: float = 0.25) -> Part:
    return Part(part=name, unit="pcs", suppliers=list(suppliers) or [NORD], holding_share=share, shortage_cost=shortage)


def stock(on_hand: int, *orders: OpenOrder, name: str = "seal", days_ago: float = 0.0) -> StockLevel:
    """Its months are only looked at for whether there are any: demand is given beside it."""
    time_ms = NOW - round(days_ago * DAY_MS)
    return StockLevel(
        id=f"level {name} {time_ms}", part=name, time_ms=time_ms, on_hand=on_hand, on_order=list(orders), monthly=[1.0]
    )


def monthly(rate: float, size: float = 2.0) -> MonthsDemand:
    count = np.arange(1, 13)
    return MonthsDemand(np.ones(1), rate * count[None, :], size * count[None, :])


def bought(one: Part, level: StockLevel, rate: float = 6.0, around: Circumstances | None = None) -> PurchaseProposal:
    (made,) = propose([Need(one, level, monthly(rate))], around or Circumstances(NOW))
    return made


def threat(machine: str, probability: float, *, usual: float = 0.01) -> FaultRisk:
    return FaultRisk(
        id=f"risk {machine}",
        machine=machine,
        component="bearing",
        issued_ms=NOW,
        horizon_ms=30 * DAY_MS,
        probability=probability,
        score=0.0,
        expected_score=math.log(usual / (1 - usual)),
        model=ModelRef("fault", "made_up"),
    )


def test_proposal_orders_up_to_the_quantile_and_says_why() -> None:
    made = bought(part(), stock(2))
    assert made.quantity == made.order_up_to - 2
    assert made.short_then <= 1 - made.service_level < made.short_now
    assert sum(source.expected for source in made.sources) == pytest.approx(made.expected)
    assert made.total_price == 10.0 * made.quantity
    assert made.arrives_ms == NOW + 20 * DAY_MS
    assert "Nord" in made.because_en
    assert "采购" in made.because_zh
    assert not made.limits
    assert decode(encode(made), PurchaseProposal) == made


@settings(deadline=None, max_examples=25)
@given(
    st.floats(0.05, 40),
    st.integers(1, 60),
    st.integers(1, 25),
    st.lists(st.integers(0, 150), min_size=2, max_size=4),
)
def test_more_stock_never_buys_more_and_orders_keep_pack_and_minimum(
    rate: float, minimum: int, pack: int, shelves: list[int]
) -> None:
    supplier = msgspec.structs.replace(NORD, minimum=minimum, pack=pack)
    quantities = [bought(part(supplier), stock(shelf), rate).quantity for shelf in sorted(shelves)]
    assert quantities == sorted(quantities, reverse=True)
    assert all(q == 0 or (q % pack == 0 and q >= minimum) for q in quantities)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.05, 40), st.integers(1, 20), st.lists(st.floats(0, 5000), min_size=2, max_size=4))
def test_dearer_shortage_never_buys_less(rate: float, pack: int, costs: list[float]) -> None:
    supplier = msgspec.structs.replace(NORD, pack=pack)
    quantities = [bought(part(supplier, shortage=cost), stock(1), rate).quantity for cost in sorted(costs)]
    assert quantities == sorted(quantities)


def test_pack_that_costs_more_than_it_saves_is_not_bought() -> None:
    huge = msgspec.structs.replace(NORD, pack=5000)
    made = bought(part(huge, shortage=30.0), stock(2), rate=0.3)
    assert (made.quantity, made.total_price) == (0, 0.0)
    assert made.limits == ["pack"] or made.order_up_to <= 2
    tight = bought(part(huge, shortage=30.0), stock(0), rate=2.0)
    assert tight.quantity == 0
    assert tight.limits == ["pack"]
    assert "costs more to keep than it saves" in tight.because_en


def test_rounding_is_decided_by_cost_and_not_blindly_up() -> None:
    exact = bought(part(), stock(0)).quantity
    by_ten = {shelf: bought(part(msgspec.structs.replace(NORD, pack=10)), stock(shelf)) for shelf in range(exact)}
    gaps = {shelf: exact - shelf for shelf in by_ten}
    assert any(made.quantity < gaps[shelf] for shelf, made in by_ten.items())
    assert any(made.quantity > gaps[shelf] for shelf, made in by_ten.items())
    assert all("pack" in made.limits for shelf, made in by_ten.items() if made.quantity != gaps[shelf])


def test_fast_supplier_is_worth_its_price_only_in_need() -> None:
    fast = Supplier(supplier="Fast", price=10.6, lead_days=2)
    slow = Supplier(supplier="Slow", price=10.0, lead_days=25, lead_days_spread=3)
    dear = msgspec.structs.replace(fast, price=60.0)
    assert bought(part(dear, slow), stock(60)).supplier == "Slow"
    assert bought(part(dear, slow, shortage=2000.0), stock(0)).supplier == "Fast"
    options = bought(part(fast, slow), stock(0)).options
    assert [option.supplier for option in options] == ["Fast", "Slow"]
    assert sum(option.chosen for option in options) == 1
    assert min(options, key=lambda option: option.cost).chosen


def test_supplier_that_breaks_promises_loses_to_its_equal() -> None:
    late = msgspec.structs.replace(NORD, supplier="Late", late_probability=0.5, late_days=30)
    made = bought(part(late, NORD), stock(5))
    assert made.supplier == "Nord"
    assert [option.late_probability for option in made.options] == [0.5, 0.0]


def test_open_orders_count_unless_they_come_too_late() -> None:
    soon, far = OpenOrder(quantity=9, due_ms=NOW + DAY_MS), OpenOrder(quantity=9, due_ms=NOW + 300 * DAY_MS)
    none, with_soon, with_far = (bought(part(), stock(2, *orders)) for orders in ([], [soon], [far]))
    assert with_soon.quantity == none.quantity - 9
    assert with_soon.on_order == 9
    assert with_far.quantity == none.quantity
    assert "open_order_too_late" in with_far.limits


def test_threatened_machine_raises_the_order_and_is_named() -> None:
    outlooks = failure_outlooks([], [threat("P-101", 0.9)], NOW)
    around = Circumstances(NOW, outlooks=outlooks, bill=[BillLine(part="seal", quantity=12)])
    calm, alarmed = bought(part(), stock(2)), bought(part(), stock(2), around=around)
    assert alarmed.quantity >= calm.quantity + 8
    assert any(source.because == "risk:P-101" and source.expected > 9 for source in alarmed.sources)
    assert "risk:P-101" in alarmed.because_en
    assert alarmed.order_by_ms <= calm.order_by_ms


def test_nothing_is_bought_where_the_shelf_is_full_and_the_next_order_is_dated() -> None:
    made = bought(part(), stock(60))
    assert made.quantity == 0
    assert made.order_by_ms > NOW + 20 * DAY_MS
    assert "60 are enough" in made.because_en


def test_part_without_a_shortage_cost_is_not_bought_and_says_so() -> None:
    made = bought(part(shortage=0.0), stock(0))
    assert (made.quantity, made.service_level, made.limits) == (0, 0.0, ["no_shortage_cost"])
    assert "no shortage cost" in made.because_en
    assert "缺货成本" in made.because_zh


def test_part_that_costs_nothing_to_keep_still_has_an_end() -> None:
    made = bought(part(msgspec.structs.replace(NORD, price=0.0)), stock(0))
    assert 0 < made.quantity < 200


def test_old_stock_level_is_flagged() -> None:
    assert not bought(part(), stock(2, days_ago=5)).stale
    old = bought(part(), stock(2, days_ago=40))
    assert old.stale
    assert "counted 40 days ago" in old.because_en


def test_budget_of_nothing_buys_nothing_and_names_the_budget() -> None:
    made = bought(part(), stock(0), around=Circumstances(NOW, budget=0.0))
    assert (made.quantity, made.limits) == (0, ["budget"])
    assert "budget" in made.because_en


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_budget_is_kept_and_near_the_best_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    needs = [
        Need(
            part(
                msgspec.structs.replace(
                    NORD,
                    price=float(rng.integers(5, 60)),
                    pack=int(rng.integers(1, 9)),
                    minimum=int(rng.integers(1, 9)),
                ),
                name=f"part {i}",
                shortage=float(rng.integers(50, 900)),
            ),
            stock(int(rng.integers(0, 4)), name=f"part {i}"),
            monthly(float(rng.uniform(0.3, 4))),
        )
        for i in range(3)
    ]
    offers = [_offers(need, Circumstances(NOW))[0] for need in needs]
    budget = float(rng.uniform(0, 1)) * sum(o.supplier.price * o.quantity for o in offers)
    taken = within_budget(offers, budget)
    assert sum(o.supplier.price * q for o, q in zip(offers, taken, strict=True)) <= budget + 1e-6
    allowed = [
        [q for q in range(o.quantity + 1) if q == 0 or (q % o.supplier.pack == 0 and q >= o.supplier.minimum)]
        for o in offers
    ]
    saved = [{q: o.cost_of(0) - o.cost_of(q) for q in some} for o, some in zip(offers, allowed, strict=True)]
    best = max(
        sum(saved[i][q] for i, q in enumerate(chosen))
        for chosen in itertools.product(*allowed)
        if sum(o.supplier.price * q for o, q in zip(offers, chosen, strict=True)) <= budget
    )
    got = sum(saved[i][q] for i, q in enumerate(taken))
    assert got >= 0.5 * best - 1e-9


def test_enough_money_changes_nothing() -> None:
    needs = [Need(part(name=name), stock(1, name=name), monthly(3.0)) for name in ("a", "b")]
    free, paid = propose(needs, Circumstances(NOW)), propose(needs, Circumstances(NOW, budget=1e6))
    assert [one.quantity for one in free] == [one.quantity for one in paid]


@pytest.mark.parametrize(
    ("one", "level", "around", "words"),
    [
        (part(), stock(-1), Circumstances(NOW), "count the shelf"),
        (part(msgspec.structs.replace(NORD, lead_days=0.0)), stock(1), Circumstances(NOW), "lead time"),
        (part(msgspec.structs.replace(NORD, lead_days=math.nan)), stock(1), Circumstances(NOW), "lead time"),
        (part(msgspec.structs.replace(NORD, price=-1.0)), stock(1), Circumstances(NOW), "price of seal at Nord"),
        (part(msgspec.structs.replace(NORD, pack=0)), stock(1), Circumstances(NOW), "minimum and pack"),
        (part(), stock(1, name="other"), Circumstances(NOW), "given for part seal"),
        (part(), stock(1), Circumstances(NOW, budget=-5.0), "budget"),
        (part(), stock(1), Circumstances(NOW, review_days=0.0), "review_days"),
        (msgspec.structs.replace(part(), suppliers=[]), stock(1), Circumstances(NOW), "no supplier"),
    ],
)
def test_wrong_input_is_refused_with_the_remedy(
    one: Part, level: StockLevel, around: Circumstances, words: str
) -> None:
    with pytest.raises(BadMessage, match=words):
        bought(one, level, around=around)


def test_part_named_twice_is_refused() -> None:
    need = Need(part(), stock(1), monthly(1.0))
    with pytest.raises(BadMessage, match="twice"):
        propose([need, need], Circumstances(NOW))


# --- the composition: stock, demand and risk


def told(name: str, on_hand: int, months: list[float | None]) -> StockLevel:
    return StockLevel(id=f"level {name}", part=name, time_ms=NOW, on_hand=on_hand, monthly=months)


def test_levels_catalogue_and_risks_become_proposals() -> None:
    catalogue = Catalogue(
        part=[part(name="seal"), part(name="belt"), part(name="unknown stock")],
        bill=[BillLine(part="belt", quantity=3, failure="bearing")],
    )
    levels = [
        told("belt", 0, [0.0] * 24),
        told("seal", 3, [4.0, 6.0, None, 5.0] * 5),
        told("no longer kept", 1, [1.0]),
        msgspec.structs.replace(told("seal", 900, []), time_ms=NOW - 1),
    ]
    made = proposals(levels, catalogue, None, [], [threat("P-101", 0.8)], NOW)
    assert [one.part for one in made] == ["seal", "belt"]
    assert made[0].on_hand == 3
    assert made[0].expected == pytest.approx(5 * 27 / 30.4, rel=0.2)
    assert made[1].quantity >= 3
    assert made[1].model.algorithm == "fleet_demand"
    assert proposals(levels, catalogue, None, [], [threat("P-101", 0.8)], NOW) == made
    assert proposals([], catalogue, None, [], [], NOW) == []


def test_part_nobody_asked_for_is_hardly_expected() -> None:
    catalogue = Catalogue(part=[part(name="idle", shortage=20.0), part(name="seal")])
    levels = [told("idle", 0, [0.0] * 60), told("seal", 3, [2.0, 4.0] * 30)]
    idle = proposals(levels, catalogue, None, [], [], NOW)[0]
    assert idle.quantity == 0
    assert idle.expected < 0.2


def test_demand_model_is_asked_where_there_is_one() -> None:
    spec = DemandSpec(
        length=12,
        horizon=4,
        discount=0.9,
        prior_months=2.0,
        prior_rate=0.7,
        month_size=[3.0] * 4,
        total_size=[3.0] * 4,
    )
    ref = ModelRef(SPARE_PARTS, "demand_lstm", 2, "ab" * 32)
    silent = lambda x: np.full((len(x), 4, 3), [np.log(2.0), 0.0, 0.0], dtype=np.float32)  # noqa: E731
    model = cast(LoadedModel, SimpleNamespace(passport=SimpleNamespace(demand=spec), quantiles=silent, ref=ref))
    catalogue = Catalogue(part=[part()])
    levels = [told("seal", 0, [5.0] * 24)]
    (with_model,) = proposals(levels, catalogue, model, [], [], NOW)
    (without,) = proposals(levels, catalogue, None, [], [], NOW)
    assert with_model.model == ref
    assert with_model.expected == pytest.approx(2 * without.expected, rel=0.2)


def test_one_part_asked_for_a_billion_times_leaves_the_others_sane() -> None:
    names = ["flood", "once", "idle", "new"]
    months: list[list[float | None]] = [[3e8] * 30, [1e9] + [0.0] * 29, [0.0, 1.0] * 15, []]
    catalogue = Catalogue(part=[part(msgspec.structs.replace(NORD, price=1.0), name=name) for name in names])
    levels = [told(name, 0, units) for name, units in zip(names, months, strict=True)]
    flood, once, idle, new = proposals(levels, catalogue, None, [], [], NOW)
    assert flood.expected == pytest.approx(3e8 * 27 / 30.4, rel=0.4)
    assert once.order_up_to > 0
    assert idle.quantity < 10
    assert "no_history" in new.limits
    assert all(math.isfinite(one.expected) for one in (flood, once, idle, new))
