"""What buying costs when demand is intermittent and lead times are uncertain: our order-up-to levels against those that know
the true distribution, and textbook rules beside them, in one simulated world (no data needed).

World, per seed: 400 parts; a part is asked for by events that come as a Poisson process (rate a month lognormal, median 0.8,
between 0.08 and 12) and take 1 + geometric units (mean lognormal, median 2): compound Poisson, which is no negative binomial.
20 suppliers; a lead time is a whole number of months, 1 + a binomial, with its supplier's own mean and spread. Known to every
rule: the months of each part's history (eight years, and four in rows of their own) and 24 past deliveries of its supplier.
Then stock is reviewed each month for 60 months (the first 12 do not count): unmet demand waits; a unit on the shelf costs 1
and a unit owed 20 at each month's end. Every rule but the true one sets its levels anew each year from all the months seen by
then, as a store would.

`fleet known` is no rule that anybody could use: it knows the world's form, the true distribution of rates and sizes over the
fleet and the true lead times, and lacks only each part's own rate and size. What it costs above 1 is what the length of the
history leaves open, for everybody."""

from __future__ import annotations

from contract import Sheet, run  # sets one thread before numpy comes

# isort: split
import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.buying import proposals
from protocol.catalogue import Catalogue, Part, Supplier
from protocol.parts_demand import MONTH_DAYS, lead_from_deliveries
from protocol.purchases import StockLevel

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
HOLDING, BACKLOG = 1.0, 20.0
TARGET = 1.05
LEVEL = BACKLOG / (BACKLOG + HOLDING)
LONG, SHORT = 96, 48
TEST, WARM_UP, DELIVERIES, SUPPLIERS, RENEWED = 60, 12, 24, 20, 12
RULES = ("true distribution", "ours", "fleet known", "bootstrap", "normal", "poisson")
NORMAL_Z = 1.6683911939470795  # the standard normal's quantile at 20 / 21
CELLS = 2048


@dataclass(frozen=True)
class World:
    """events [N]: a month; stop [N]: chance that an event takes no further unit; lead [N, L]: chances of a lead time of
    0..L-1 months; history [N, T]; deliveries [N, DELIVERIES] in months; demand [N, TEST]; leads [N, TEST]."""

    events: Floats
    stop: Floats
    lead: Floats
    history: Integers
    deliveries: Integers
    demand: Integers
    leads: Integers


def world(seed: int, parts: int, months: int = LONG) -> World:
    """The world of a seed, with so many months of history."""
    rng = np.random.default_rng(seed)
    events = np.clip(np.exp(rng.normal(np.log(0.8), 1.0, parts)), 0.08, 12.0)
    size = np.clip(np.exp(rng.normal(np.log(2.0), 0.5, parts)), 1.0, 12.0)
    supplier = rng.integers(0, SUPPLIERS, parts)
    tries, chance = rng.integers(1, 5, SUPPLIERS), rng.uniform(0.2, 0.8, SUPPLIERS)
    past = 1 + rng.binomial(tries[:, None], chance[:, None], (SUPPLIERS, DELIVERIES))
    lead = np.zeros((parts, 6))
    for more in range(5):
        lead[:, 1 + more] = [
            math.comb(int(t), more) * c**more * (1 - c) ** (int(t) - more) if more <= t else 0.0
            for t, c in zip(tries[supplier], chance[supplier], strict=True)
        ]
    leads = 1 + rng.binomial(tries[supplier][:, None], chance[supplier][:, None], (parts, TEST))
    asked = _asked(rng, events, 1 / size, months + TEST)
    return World(events, 1 / size, lead, asked[:, :months], past[supplier], asked[:, months:], leads)


def _asked(rng: np.random.Generator, events: Floats, stop: Floats, months: int) -> Integers:
    """Units asked for: [N, months]. A sum of n geometric sizes is n plus a negative binomial."""
    count = rng.poisson(events[:, None], (len(events), months))
    more = rng.negative_binomial(np.maximum(count, 1), np.minimum(stop, 1 - 1e-9)[:, None])
    return np.asarray(count + np.where(count > 0, more, 0), dtype=np.int64)


def true_levels(made: World) -> Integers:
    """The quantile of demand over lead time and review at BACKLOG / (BACKLOG + HOLDING), from the true distributions: [N]."""
    return np.array([_true_level(made, part) for part in range(len(made.events))])


def _true_level(made: World, part: int) -> int:
    total = np.zeros(CELLS)
    for months, chance in enumerate(made.lead[part]):
        if chance:
            total += chance * compound(made.events[part], made.stop[part], months + 1)
    return int(np.searchsorted(np.cumsum(total), LEVEL))


def compound(events: float, stop: float, months: int) -> Floats:
    """Chances of 0..CELLS-1 units in so many months, from the characteristic function."""
    sizes = np.zeros(CELLS)
    sizes[1:] = stop * (1 - stop) ** np.arange(CELLS - 1)
    turned = np.exp(months * events * (np.fft.rfft(sizes, 2 * CELLS) - 1))
    return np.maximum(np.fft.irfft(turned, 2 * CELLS)[:CELLS], 1e-15)


@dataclass(frozen=True)
class Fleet:
    """The true fleet on a grid: prior [G] of (rate, size), and chances by months (1..6): [G, CELLS]."""

    prior: Floats
    by_months: dict[int, Floats]


def true_fleet() -> Fleet:
    """As `world` draws parts."""
    rates, sizes = np.linspace(np.log(0.08), np.log(12.0), 32), np.linspace(0.0, np.log(12.0), 14)
    grid = [(rate, size) for rate in rates for size in sizes]
    prior = np.array(
        [math.exp(-0.5 * (r - math.log(0.8)) ** 2 - 0.5 * ((z - math.log(2)) / 0.5) ** 2) for r, z in grid]
    )
    return Fleet(prior, {m: np.array([compound(math.exp(r), math.exp(-z), m) for r, z in grid]) for m in range(1, 7)})


def fleet_known_levels(made: World, history: Integers, fleet: Fleet) -> Integers:
    """The least expected cost there is after these months [N, T], by Bayes' rule with the true fleet: [N]."""
    each = np.log(fleet.by_months[1])
    levels = []
    for part, months in enumerate(np.minimum(history, CELLS - 1)):
        likely = each[:, months].sum(axis=1) + np.log(fleet.prior)
        weight = np.exp(likely - likely.max())
        heavy = weight > 1e-5
        kept = weight[heavy] / weight[heavy].sum()
        leads = [(lead, chance) for lead, chance in enumerate(made.lead[part]) if chance]
        total = sum((chance * (kept @ fleet.by_months[lead + 1][heavy]) for lead, chance in leads), np.zeros(CELLS))
        levels.append(int(np.searchsorted(np.cumsum(total), LEVEL)))
    return np.array(levels)


def our_levels(made: World, history: Integers) -> Integers:
    """What the gateway's own proposals would order up to after these months [N, T]: [N]. Price and holding
    share are such that a unit costs HOLDING a month; one that is missing is owed until the next order could arrive."""
    now_ms = 1_800_000_000_000
    catalogue = Catalogue(
        review_days=MONTH_DAYS,
        part=[
            Part(part=f"part {i}", suppliers=[_supplier(days)], holding_share=6.0, shortage_cost=_owed(days))
            for i, days in enumerate(made.deliveries * MONTH_DAYS)
        ],
    )
    levels = [
        StockLevel(id=f"level {i}", part=f"part {i}", time_ms=now_ms, on_hand=0, monthly=units.tolist())
        for i, units in enumerate(history.astype(np.float64))
    ]
    return np.array([one.order_up_to for one in proposals(levels, catalogue, None, [], [], now_ms)])


def _owed(days: Floats) -> float:
    return BACKLOG * (float(days.mean()) / MONTH_DAYS + 1)


def _supplier(days: Floats) -> Supplier:
    mean, spread = lead_from_deliveries(days.tolist())
    return Supplier(supplier="s", price=2.0 * HOLDING, lead_days=mean, lead_days_spread=spread)


def textbook_levels(made: World, history: Integers, seed: int) -> dict[str, Integers]:
    """Levels of the usual rules, from the same months [N, T] and deliveries: [N] each. Normal: mean and deviation over
    lead time and review; Poisson: its mean alone; bootstrap: as many months as a past delivery took, drawn
    from the history."""
    rng = np.random.default_rng(10_000 + seed)
    mean, variance = history.mean(axis=1), history.var(axis=1, ddof=1)
    months = made.deliveries.mean(axis=1) + 1
    spread = made.deliveries.var(axis=1, ddof=1)
    normal = np.ceil(months * mean + NORMAL_Z * np.sqrt(months * variance + mean**2 * spread))
    boot, poisson = [], []
    for part, months_of_part in enumerate(history):
        lasts = rng.choice(made.deliveries[part], 2000) + 1
        drawn = rng.choice(months_of_part, (2000, int(lasts.max())))
        drawn[np.arange(drawn.shape[1]) >= lasts[:, None]] = 0
        boot.append(int(np.quantile(drawn.sum(axis=1), LEVEL, method="inverted_cdf")))
        poisson.append(_poisson_level(float(months[part] * mean[part])))
    return {"bootstrap": np.array(boot), "normal": normal.astype(np.int64), "poisson": np.array(poisson)}


def _poisson_level(mean: float) -> int:
    chance, total, n = math.exp(-mean), math.exp(-mean), 0
    while total < LEVEL:
        n += 1
        chance *= mean / n
        total += chance
    return n


def lived(made: World, levels: Integers) -> tuple[Floats, float]:
    """(cost of each part a month [N], share of units that were there when asked for) with the levels of each month
    [TEST, N]."""
    parts = levels.shape[1]
    stock, position = levels[0].astype(np.int64), levels[0].astype(np.int64)
    arriving = np.zeros((TEST + 8, parts), dtype=np.int64)
    cost, met, asked = np.zeros(parts), 0, 0
    for month in range(TEST):
        ordered = np.maximum(levels[month] - position, 0)
        position = position + ordered
        np.add.at(arriving, (month + made.leads[:, month], np.arange(parts)), ordered)
        stock = stock + arriving[month]
        demand = made.demand[:, month]
        if month >= WARM_UP:
            met += int(np.minimum(np.maximum(stock, 0), demand).sum())
            asked += int(demand.sum())
        stock, position = stock - demand, position - demand
        if month >= WARM_UP:
            cost += HOLDING * np.maximum(stock, 0) + BACKLOG * np.maximum(-stock, 0)
    return cost / (TEST - WARM_UP), met / max(asked, 1)


def levels_over_time(made: World, seed: int, fleet: Fleet) -> dict[str, Integers]:
    """Each rule's levels month by month [TEST, N], set anew every RENEWED months from the months seen by then."""
    found: dict[str, list[Integers]] = {rule: [] for rule in RULES}
    truth = true_levels(made)
    for month in range(0, TEST, RENEWED):
        history = np.concatenate([made.history, made.demand[:, :month]], axis=1)
        now = {"true distribution": truth, "ours": our_levels(made, history)} | textbook_levels(made, history, seed)
        now["fleet known"] = fleet_known_levels(made, history, fleet)
        for rule in RULES:
            found[rule] += [now[rule]] * min(RENEWED, TEST - month)
    return {rule: np.array(each) for rule, each in found.items()}


def measure(sheet: Sheet) -> None:
    """All seeds, all rules; costs are sums over parts, relative to the true distribution's."""
    parts, seeds = (60, 1) if sheet.options.quick else (400, sheet.options.seeds)
    fleet = true_fleet()
    for months in (LONG, SHORT):
        _measure(sheet, parts, seeds, months, fleet)
    sheet.note(
        f"reference: normal safety stock. Every rule sees the same months and the same {DELIVERIES} past deliveries of the "
        "part's supplier, and meets the same demand and lead times afterwards; orders may overtake one another"
    )
    sheet.note(
        "ours is what `edge_agent.buying.proposals` orders up to without a demand model: rate and dispersion pooled over the "
        "fleet, with what a short history leaves open; lead time lognormal from the past deliveries"
    )
    sheet.note(
        "fleet known: Bayes' rule with the world's true form, fleet and lead times, lacking only each part's own "
        "rate and size: what it costs above 1 is what so many months leave open to every rule"
    )


def _measure(sheet: Sheet, parts: int, seeds: int, months: int, fleet: Fleet) -> None:
    what = f"levels after {months // 12} years of history"
    costs: dict[str, list[float]] = {rule: [] for rule in RULES}
    fills: dict[str, list[float]] = {rule: [] for rule in RULES}
    begun = time.perf_counter()
    for seed in range(seeds):
        made = world(seed, parts, months)
        for rule, levels in levels_over_time(made, seed, fleet).items():
            cost, fill = lived(made, levels)
            costs[rule].append(float(cost.sum()))
            fills[rule].append(fill)
        sheet.say(f"{what}, seed {seed}: " + ", ".join(f"{rule} {costs[rule][-1]:.0f}" for rule in RULES))
    truth = np.array(costs["true distribution"])
    ratio = {rule: np.array(costs[rule]) / truth for rule in RULES}
    ours = float(ratio["ours"].mean())
    sheet.row(
        what,
        "cost / true distribution",
        ours,
        reference=float(ratio["normal"].mean()),
        peers={rule: float(ratio[rule].mean()) for rule in ("fleet known", "bootstrap", "poisson")},
        target=TARGET,
        holds=None if sheet.options.quick else ours <= TARGET,
        n=parts * seeds,
        seconds=time.perf_counter() - begun,
        standard_error=_error(ratio["ours"]),
    )
    for rule in ("fleet known", "bootstrap", "normal"):
        less = ratio["ours"] - ratio[rule]
        if seeds > 1:
            sheet.note(
                f"{what}: ours less {rule}, paired by seed: {less.mean():+.4f}, standard error {_error(less):.4f}"
            )
    sheet.row(
        f"{what}: units met from the shelf",
        "fill rate",
        float(np.mean(fills["ours"])),
        reference=float(np.mean(fills["normal"])),
        peers={rule: float(np.mean(fills[rule])) for rule in RULES if rule not in ("ours", "normal")},
        n=parts * seeds,
    )


def _error(each: Floats) -> float | None:
    return float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else None


if __name__ == "__main__":
    raise SystemExit(run("purchasing", __doc__, measure, needs_data=False))
