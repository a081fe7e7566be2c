"""Explicit ratings: what would this user give to that item? Neighbourhoods on both sides of one matrix, around baselines.

Koren 2010 (TKDD 4:1): a baseline of regularised user and item biases; residuals from it are carried over from the likest
items (and users), likeness being the Pearson correlation of residuals shrunk by its support. The two sides and their supports
are blended by weights learned on a part that neither has seen. Similarities are made on request from the residuals, one
row at a time: no item × item and no user × user matrix is ever stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.errors import Reason, Refused
from protocol.windows import Floats
from server.algorithms.arima_likelihood import compiled

Places = NDArray[np.int64]
BLEND = ("item side", "user side", "item side, well supported", "user side, well supported")
RIDGE = 10.0
"""Of the blend, in squared rating steps: next to nothing against thousands of ratings, a brake against ten."""


@dataclass(frozen=True)
class Ratings:
    """users, items: names, sorted. who, what [N]: their places. value [N]: on a scale from lowest to highest. dropped: rows
    that were no finite number."""

    users: list[str]
    items: list[str]
    who: Places
    what: Places
    value: Floats
    lowest: float
    highest: float
    dropped: int = 0

    def of(self, rows: NDArray[np.bool_]) -> Ratings:
        """The rows of a mask [N], over the same names and scale."""
        return replace(self, who=self.who[rows], what=self.what[rows], value=self.value[rows])


@dataclass(frozen=True)
class RatingSettings:
    """user_ridge, item_ridge: ratings that a bias needs to count by half. shrinkage: common ratings that a correlation needs
    to count by half. neighbours: most of them. sharpness: power of the correlation as a weight. reserve: weight of "as the
    baseline says". sweeps: passes over the biases. held_out: share of ratings that the blend is learned from."""

    user_ridge: float = 5.0
    item_ridge: float = 3.0
    shrinkage: float = 50.0
    neighbours: int = 40
    sharpness: float = 1.5
    reserve: float = 0.3
    sweeps: int = 15
    held_out: float = 0.2


@dataclass(frozen=True)
class Baseline:
    """mean + user[u] + item[i], in rating steps."""

    mean: float
    user: Floats
    item: Floats

    def predict(self, who: Places, what: Places) -> Floats:
        """[N]; not clipped to the scale."""
        return self.mean + self.user[who] + self.item[what]


class Rows(NamedTuple):
    """A sparse matrix by rows: bounds [R + 1], other [N] (column), residual [N]."""

    bounds: Places
    other: Places
    residual: Floats


@dataclass(frozen=True)
class FittedRatings:
    """Residuals by user and by item, the baseline, and the blend [4] in the order of BLEND."""

    ratings: Ratings
    baseline: Baseline
    residual: Floats
    settings: RatingSettings
    blend: Floats = field(default_factory=lambda: np.array([0.5, 0.5, 0.0, 0.0]))

    def predict(self, who: Places, what: Places) -> Floats:
        """Ratings [N] for pairs of places, within the scale."""
        raw = self.baseline.predict(who, what) + self.sides(who, what) @ self.blend
        return np.clip(raw, self.ratings.lowest, self.ratings.highest)

    def scores(self, user: str) -> Floats:
        """What a user would give to each item [I]. A user who never rated gets mean plus item bias."""
        lowest, highest = self.ratings.lowest, self.ratings.highest
        if user not in self.ratings.users:
            return np.clip(self.baseline.mean + self.baseline.item, lowest, highest)
        place, what = self.ratings.users.index(user), np.arange(len(self.ratings.items))
        who = np.full(len(what), place)
        across = _side(self.by_user, self.by_item, who, what, self.settings)
        sides = _blended(self._to_all_items(place), across)
        return np.clip(self.baseline.predict(who, what) + sides @ self.blend, lowest, highest)

    def sides(self, who: Places, what: Places) -> Floats:
        """Residuals that the neighbours promise [N, 4], in the order of BLEND."""
        item = _side(self.by_item, self.by_user, what, who, self.settings)
        return _blended(item, _side(self.by_user, self.by_item, who, what, self.settings))

    @cached_property
    def by_item(self) -> Rows:
        """Residuals, an item's together."""
        return _rows(self.ratings.what, self.ratings.who, self.residual, len(self.ratings.items))

    @cached_property
    def by_user(self) -> Rows:
        """Residuals, a user's together."""
        return _rows(self.ratings.who, self.ratings.what, self.residual, len(self.ratings.users))

    def _to_all_items(self, user: int) -> tuple[Floats, Floats]:
        """The item side of one user for all items: likeness is symmetric, so rows of the items it rated are enough."""
        rated = slice(self.by_user.bounds[user], self.by_user.bounds[user + 1])
        items, residual = self.by_user.other[rated], self.by_user.residual[rated]
        like = np.array(
            [_correlations(int(item), *self.by_item, *self.by_user, self.settings.shrinkage) for item in items]
        )
        if not len(items):
            return np.zeros(len(self.ratings.items)), np.zeros(len(self.ratings.items))
        like[np.arange(len(items)), items] = 0
        best = np.argsort(-like, axis=0, kind="stable")[: self.settings.neighbours]
        weight = np.maximum(np.take_along_axis(like, best, axis=0), 0) ** self.settings.sharpness
        support = weight.sum(axis=0)
        return (weight * residual[best]).sum(axis=0) / (support + self.settings.reserve), support


def ratings(rows: Iterable[tuple[str, str, float]], *, scale: tuple[float, float] | None = None) -> Ratings:
    """From (user, item, rating); of several ratings of one pair the last counts. scale: lowest and highest (default: as
    seen). Raises Refused where nothing is left."""
    seen: dict[tuple[str, str], float] = {}
    dropped = 0
    for user, item, value in rows:
        if not np.isfinite(value):
            dropped += 1
            continue
        seen[(user, item)] = float(value)
    if not seen:
        raise Refused(Reason.NOT_ELIGIBLE, "no ratings that are numbers; give rows of user, item and rating")
    users, items = sorted({u for u, _ in seen}), sorted({i for _, i in seen})
    user_at, item_at = {u: k for k, u in enumerate(users)}, {i: k for k, i in enumerate(items)}
    pairs = sorted((user_at[u], item_at[i], given) for (u, i), given in seen.items())
    values = np.array([v for _, _, v in pairs])
    lowest, highest = scale or (float(values.min()), float(values.max()))
    who, what = np.array([u for u, _, _ in pairs]), np.array([i for _, i, _ in pairs])
    return Ratings(users, items, who, what, values, lowest, highest, dropped)


def fit(given: Ratings, settings: RatingSettings | None = None, *, seed: int = 0) -> FittedRatings:
    """Baseline and residuals of all ratings; the blend from a share of them, predicted by the others."""
    settings = settings or RatingSettings()
    held = np.random.default_rng(seed).random(len(given.value)) < settings.held_out
    whole = _around_baseline(given, settings)
    if held.sum() < len(BLEND) or held.all():
        return whole
    return replace(whole, blend=learn_blend(_around_baseline(given.of(~held), settings), given.of(held)))


def fit_baseline(given: Ratings, settings: RatingSettings | None = None) -> Baseline:
    """The regularised bias model: each bias is the mean residual, shrunk; alternating until it stands."""
    settings = settings or RatingSettings()
    n_users, n_items = len(given.users), len(given.items)
    mean = float(given.value.mean())
    user, item = np.zeros(n_users), np.zeros(n_items)
    per_user, per_item = np.bincount(given.who, minlength=n_users), np.bincount(given.what, minlength=n_items)
    for _ in range(settings.sweeps):
        left = given.value - mean - user[given.who]
        item = np.bincount(given.what, left, n_items) / (per_item + settings.item_ridge)
        left = given.value - mean - item[given.what]
        user = np.bincount(given.who, left, n_users) / (per_user + settings.user_ridge)
    return Baseline(mean, user, item)


def choose(
    given: Ratings, candidates: Sequence[RatingSettings], *, seed: int = 0
) -> tuple[RatingSettings, dict[RatingSettings, float]]:
    """The candidate of the least error on one held-out share of the given ratings, and each one's root mean squared error
    there (the blend is learned on one half of that share and judged on the other, and the other way round)."""
    held = np.random.default_rng(seed).random(len(given.value)) < candidates[0].held_out
    half = np.random.default_rng(seed + 1).random(int(held.sum())) < 0.5
    errors = {}
    for candidate in candidates:
        before, truth = _around_baseline(given.of(~held), candidate), given.of(held)
        sides = before.sides(truth.who, truth.what)
        base = before.baseline.predict(truth.who, truth.what)
        said = np.zeros(len(half))
        for part in (half, ~half):
            said[part] = base[part] + sides[part] @ _solved(sides[~part], (truth.value - base)[~part])
        errors[candidate] = rmse(truth.value, np.clip(said, given.lowest, given.highest))
    return min(errors, key=lambda c: errors[c]), errors


def learn_blend(fitted: FittedRatings, unseen: Ratings) -> Floats:
    """Weights [4] of the two sides by ridge regression on ratings that the model has not seen."""
    left = unseen.value - fitted.baseline.predict(unseen.who, unseen.what)
    return _solved(fitted.sides(unseen.who, unseen.what), left)


def rmse(truth: Floats, said: Floats) -> float:
    """Root mean squared error."""
    return float(np.sqrt(np.mean((truth - said) ** 2)))


def _solved(sides: Floats, left: Floats) -> Floats:
    return np.asarray(np.linalg.solve(sides.T @ sides + RIDGE * np.eye(len(BLEND)), sides.T @ left))


def _around_baseline(given: Ratings, settings: RatingSettings) -> FittedRatings:
    baseline = fit_baseline(given, settings)
    return FittedRatings(given, baseline, given.value - baseline.predict(given.who, given.what), settings)


def _rows(row: Places, column: Places, residual: Floats, n: int) -> Rows:
    order = np.lexsort((column, row))
    bounds = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=n)))).astype(np.int64)
    return Rows(bounds, column[order].astype(np.int64), residual[order])


def _blended(item: tuple[Floats, Floats], user: tuple[Floats, Floats]) -> Floats:
    """[N, 4] in the order of BLEND, from each side's residuals and the likeness behind them."""
    return np.stack([item[0], user[0], *(said * support / (1 + support) for said, support in (item, user))], axis=1)


def _side(own: Rows, across: Rows, asked: Places, other: Places, settings: RatingSettings) -> tuple[Floats, Floats]:
    """Promised residuals [N] and the likeness behind them [N], for pairs (asked row of `own`, row of `across`)."""
    order = np.lexsort((other, asked))
    bounds = np.concatenate(([0], np.cumsum(np.bincount(asked, minlength=len(own.bounds) - 1)))).astype(np.int64)
    said, support = _carried(
        *own,
        *across,
        bounds,
        other[order].astype(np.int64),
        settings.shrinkage,
        settings.neighbours,
        settings.sharpness,
        settings.reserve,
    )
    promised, behind = np.zeros(len(asked)), np.zeros(len(asked))
    promised[order], behind[order] = said, support
    return promised, behind


@compiled
def _correlations(
    row: int,
    bounds: Places,
    other: Places,
    residual: Floats,
    across_bounds: Places,
    across_other: Places,
    across_residual: Floats,
    shrinkage: float,
) -> Floats:
    """Correlation of a row's residuals with every row's [R], shrunk by the number of common columns less one."""
    n = len(bounds) - 1
    product, mine, theirs, common = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    for p in range(bounds[row], bounds[row + 1]):
        column, x = other[p], residual[p]
        for q in range(across_bounds[column], across_bounds[column + 1]):
            there, y = across_other[q], across_residual[q]
            product[there] += x * y
            mine[there] += x * x
            theirs[there] += y * y
            common[there] += 1
    for there in range(n):
        if common[there] > 0:
            trust = (common[there] - 1) / (common[there] - 1 + shrinkage)
            product[there] *= trust / np.sqrt(mine[there] * theirs[there] + 1e-12)
    return product


@compiled
def _carried(
    bounds: Places,
    other: Places,
    residual: Floats,
    across_bounds: Places,
    across_other: Places,
    across_residual: Floats,
    asked_bounds: Places,
    asked_other: Places,
    shrinkage: float,
    neighbours: int,
    sharpness: float,
    reserve: float,
) -> tuple[Floats, Floats]:
    """Σ w r / (Σ w + reserve) over the likest rows that the other side knows, and Σ w; w = likeness ** sharpness."""
    said, support = np.zeros(len(asked_other)), np.zeros(len(asked_other))
    for row in range(len(bounds) - 1):
        if asked_bounds[row] == asked_bounds[row + 1]:
            continue
        like = _correlations(row, bounds, other, residual, across_bounds, across_other, across_residual, shrinkage)
        for asked in range(asked_bounds[row], asked_bounds[row + 1]):
            column = asked_other[asked]
            first, last = across_bounds[column], across_bounds[column + 1]
            near, theirs, known = np.empty(last - first), np.empty(last - first), 0
            for q in range(first, last):
                there = across_other[q]
                if there != row and like[there] > 0:
                    near[known] = like[there]
                    theirs[known] = across_residual[q]
                    known += 1
            best = np.argsort(-near[:known], kind="mergesort")
            whole, sure = 0.0, 0.0
            for k in range(min(neighbours, known)):
                weight = near[best[k]] ** sharpness
                whole += weight * theirs[best[k]]
                sure += weight
            said[asked] = whole / (sure + reserve)
            support[asked] = sure
    return said, support
