"""Why an item stands in a list: exact contributions, who like this one chose it, and the smallest set of the profile's
tokens and past events without which it would not stand there. Everything is computed by asking the ranker itself.

Counterfactual sets as in PRINCE (Ghazimatin et al. 2020): what is claimed is verified by ranking again without the set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from protocol.reports import Contribution, SimilarCase
from protocol.tables import Ranker, Scored

MOST_CONTRIBUTIONS = 50
MOST_SIMILAR = 5
MOST_FLIPPING = 5
MOST_SCORES = 1_100_000
"""How many scores may be computed anew for the reasons of one list: 42 rankings of 20,000 items."""
BESIDE = 6_000
"""What a ranking costs beside its scores, counted in scores."""
LEAST_EACH = 8
LONGEST_NAME = 128
OTHERS = "others"
_CONTENT, _ROWS = "content:", ("like:", "answer:")


@dataclass(frozen=True)
class Listing:
    """What was asked when the list was shown."""

    profile: Mapping[str, float]
    top: int
    prefixes: tuple[str, ...] = ()
    exclude: Collection[str] = frozenset()


@dataclass(frozen=True)
class Reasons:
    """contributions sum to the item's score; the rest is as in `protocol.reports.RecommendedItem`."""

    contributions: list[Contribution]
    similar: list[SimilarCase]
    flips_without: list[str]
    shown_share: float


def reasons(shown: Scored, what_if: WhatIf | None) -> Reasons:
    """All reasons of one shown item; without `what_if` no list is ranked again."""
    return Reasons(
        contributions=readable(shown),
        similar=similar_cases(shown),
        flips_without=[name[:LONGEST_NAME] for name in flips_without(what_if, shown.item)] if what_if else [],
        shown_share=shown_share(shown),
    )


def readable(shown: Scored, most: int = MOST_CONTRIBUTIONS) -> list[Contribution]:
    """The strongest contributions; what is beyond `most` is summed up under "others", so that the sum stays exact."""
    if len(shown.contributions) <= most:
        return [Contribution(name[:LONGEST_NAME], amount) for name, amount in shown.contributions]
    kept = [Contribution(name[:LONGEST_NAME], amount) for name, amount in shown.contributions[: most - 1]]
    return [*kept, Contribution(OTHERS, sum(amount for _, amount in shown.contributions[most - 1 :]))]


def similar_cases(shown: Scored, most: int = MOST_SIMILAR) -> list[SimilarCase]:
    """Past rows and answers that chose the item, strongest first."""
    chose = [one for one in shown.similar if one[2] > 0]
    return [
        SimilarCase(who=who[:LONGEST_NAME], similarity=max(-1.0, min(1.0, similarity)), amount=amount)
        for who, similarity, amount in chose[:most]
    ]


def shown_share(shown: Scored, strongest: int = 3) -> float:
    """Share of the absolute contributions that the strongest ones account for."""
    sizes = [abs(amount) for _, amount in shown.contributions]
    whole = sum(sizes)
    return min(sum(sizes[:strongest]) / whole, 1.0) if whole > 0 else 1.0


def flips_without(what_if: WhatIf, item: str) -> list[str]:
    """The smallest set of names (tokens of the profile, "like:<user>", "answer:<id>" that add to the item) without which the
    item is not in the list; empty where no set of up to MOST_FLIPPING was found.

    Every single name is tried, then every pair, the likeliest first; larger sets come from taking away what helps most, again
    and again, and lose every member that is not needed. All of it is limited by what may be ranked for one item: in large
    tables some sets are never tried, and a larger one may be told. Each answer is verified."""
    budget = what_if.budget()
    effects = what_if.effects(item, frozenset(), budget)
    names = sorted(effects, key=lambda name: (-effects[name], name))
    singles = (frozenset([name]) for name in names)
    found = _first(what_if, item, singles, budget.part(1 / 2))
    if found:
        return sorted(found)
    greedy = _greedy(what_if, item, budget)
    if len(greedy) == 2:
        return sorted(greedy)
    likely = names[: budget.left + 1]  # so many pairs can be tried, and the likeliest are among these
    pairs = sorted(combinations(likely, 2), key=lambda pair: -(effects[pair[0]] + effects[pair[1]]))
    return sorted(_first(what_if, item, map(frozenset, pairs), budget) or greedy)


def _first(what_if: WhatIf, item: str, sets: Iterable[frozenset[str]], budget: Budget) -> frozenset[str]:
    """The first of the sets without which the item is out, while the budget lasts."""
    for taken in sets:
        out = what_if.is_out(item, taken, budget)
        if out is None:
            break
        if out:
            return taken
    return frozenset()


def _greedy(what_if: WhatIf, item: str, budget: Budget) -> frozenset[str]:
    taken: frozenset[str] = frozenset()
    for _ in range(MOST_FLIPPING):
        effects = what_if.effects(item, taken, budget)
        if not effects:
            return frozenset()
        taken |= {min(effects, key=lambda name: (-effects[name], name))}
        if what_if.is_out(item, taken, budget):
            return _needed(what_if, item, taken, budget)
    return frozenset()


def _needed(what_if: WhatIf, item: str, taken: frozenset[str], budget: Budget) -> frozenset[str]:
    """Without the members that are not needed; one may become so only when another has gone, so it is asked again."""
    while len(taken) > 1:
        spare = next((name for name in sorted(taken) if what_if.is_out(item, taken - {name}, budget)), None)
        if spare is None:
            break
        taken -= {spare}
    return taken


@dataclass
class Budget:
    """How many rankings may still be asked for."""

    left: int
    whole: Budget | None = None

    def part(self, share: float) -> Budget:
        """So much of it; what is not spent stays."""
        return Budget(int(self.left * share), self)

    def spend(self) -> bool:
        """Whether there was one left."""
        if self.left <= 0 or not (self.whole is None or self.whole.spend()):
            return False
        self.left -= 1
        return True


class WhatIf:
    """A list as it would be without some names. Each is ranked once, whichever item asks, and all items of the list share
    what may be spent: the time of an answer is bounded, however large the table."""

    def __init__(self, ranker: Ranker, listing: Listing) -> None:
        self._ranker, self._asked = ranker, listing
        self._all = Budget(MOST_SCORES // (len(ranker.items) + BESIDE))
        self._each = max(self._all.left // max(listing.top, 1), LEAST_EACH)
        self._shown: dict[frozenset[str], frozenset[str]] = {}
        self._ranked: dict[frozenset[str], list[Scored]] = {}

    def budget(self) -> Budget:
        """What one item may spend: its share, and what it finds already ranked for others costs nothing."""
        return Budget(self._each, self._all)

    def is_out(self, item: str, without: frozenset[str], budget: Budget) -> bool | None:
        """Whether the item is not in the list; None: the budget is spent."""
        if without not in self._shown:
            if not budget.spend():
                return None
            asked = self._asked
            shown = self._ranker.rank(
                asked.profile, asked.top, asked.prefixes, asked.exclude, without=without, reasons=False
            )
            self._shown[without] = frozenset(found.item for found in shown)
        return item not in self._shown[without]

    def effects(self, item: str, taken: frozenset[str], budget: Budget) -> dict[str, float]:
        """By how much the item would fall behind the first one that is not shown, if contributions stayed as they are;
        for every name that can still be taken away. Empty if the item is not in the list or the budget is spent."""
        asked = self._asked
        if taken not in self._ranked:
            if not budget.spend():
                return {}
            ranked = self._ranker.rank(asked.profile, asked.top + 1, asked.prefixes, asked.exclude, without=taken)
            self._ranked[taken] = ranked
            self._shown[taken] = frozenset(found.item for found in ranked[: asked.top])
        ranked = self._ranked[taken]
        own = next((found for found in ranked[: asked.top] if found.item == item), None)
        if own is None:
            return {}
        rival = ranked[asked.top] if len(ranked) > asked.top else None
        effect = dict.fromkeys((name for name in asked.profile if name not in taken), 0.0)
        for name, amount in _by_cause(own):
            if name in effect or name.startswith(_ROWS):
                effect[name] = effect.get(name, 0.0) + amount
        for name, amount in _by_cause(rival) if rival else ():
            if name in effect:
                effect[name] -= amount
        return effect


def _by_cause(scored: Scored) -> Iterator[tuple[str, float]]:
    for name, amount in scored.contributions:
        yield name.removeprefix(_CONTENT), amount
