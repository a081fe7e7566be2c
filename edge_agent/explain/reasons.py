"""Why an item stands in a list: exact contributions, who like this one chose it, and the smallest set of the profile's
tokens and past events without which it would not stand there. Everything is computed by asking the ranker itself.

Counterfactual sets as in PRINCE (Ghazimatin et al. 2020): what is claimed is verified by ranking again without the set."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from protocol.reports import Contribution, SimilarCase
from protocol.tables import Ranker, Scored

MOST_CONTRIBUTIONS = 50
MOST_SIMILAR = 5
MOST_FLIPPING = 5
MOST_RANKINGS = 300
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


def reasons(
    ranker: Ranker, shown: Scored, listing: Listing, *, flips: bool = True, most_rankings: int = MOST_RANKINGS
) -> Reasons:
    """All reasons of one shown item; without `flips` no list is ranked again, with it about `most_rankings` at most."""
    return Reasons(
        contributions=readable(shown),
        similar=similar_cases(shown),
        flips_without=flips_without(ranker, shown.item, listing, most_rankings) if flips else [],
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


def flips_without(ranker: Ranker, item: str, listing: Listing, most_rankings: int = MOST_RANKINGS) -> list[str]:
    """The smallest set of names (tokens of the profile, "like:<user>", "answer:<id>" that add to the item) without which the
    item is not in the list; empty where no set of up to MOST_FLIPPING was found.

    Every single name is tried, then every pair while `most_rankings` last, the likeliest first; larger sets come from taking
    away what helps most, again and again, and lose every member that is not needed. Each answer is verified."""
    trial = _Trial(ranker, item, listing, most_rankings)
    effects = trial.effects(frozenset())
    names = sorted(effects, key=lambda name: (-effects[name], name))
    for name in names:
        if trial.flips(frozenset([name])):
            return [name]
    greedy = _greedy(trial)
    if len(greedy) == 2:
        return sorted(greedy)
    likely = names[: trial.left + 1]  # so many pairs can be tried, and the likeliest are among these
    pairs = sorted(combinations(likely, 2), key=lambda pair: -(effects[pair[0]] + effects[pair[1]]))
    for pair in pairs:
        if not trial.left:
            break
        if trial.flips(frozenset(pair)):
            return sorted(pair)
    return sorted(greedy)


def _greedy(trial: _Trial) -> frozenset[str]:
    taken: frozenset[str] = frozenset()
    for _ in range(MOST_FLIPPING):
        effects = trial.effects(taken)
        if not effects:
            return frozenset()
        taken |= {min(effects, key=lambda name: (-effects[name], name))}
        if trial.is_out(taken):
            return _needed(trial, taken)
    return frozenset()


def _needed(trial: _Trial, taken: frozenset[str]) -> frozenset[str]:
    for name in sorted(taken):
        if len(taken) > 1 and trial.is_out(taken - {name}):
            taken -= {name}
    return taken


class _Trial:
    """Lists as they would be without some names; `left` counts down the rankings that may still be asked for."""

    def __init__(self, ranker: Ranker, item: str, listing: Listing, most_rankings: int) -> None:
        self._ranker, self._item, self._asked = ranker, item, listing
        self.left = most_rankings

    def flips(self, without: frozenset[str]) -> bool:
        """Whether the item is out, while rankings last."""
        if not self.left:
            return False
        self.left -= 1
        return self.is_out(without)

    def is_out(self, without: frozenset[str]) -> bool:
        """Whether the item is not in the list."""
        asked = self._asked
        shown = self._ranker.rank(
            asked.profile, asked.top, asked.prefixes, asked.exclude, without=without, reasons=False
        )
        return all(found.item != self._item for found in shown)

    def effects(self, taken: frozenset[str]) -> dict[str, float]:
        """By how much the item would fall behind the first one that is not shown, if contributions stayed as they are;
        for every name that can still be taken away."""
        asked = self._asked
        ranked = self._ranker.rank(asked.profile, asked.top + 1, asked.prefixes, asked.exclude, without=taken)
        own = next((found for found in ranked if found.item == self._item), None)
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
