"""What a customer will buy next, above all what it has never bought: item-based collaborative filtering with what moves now.

Parts, each a sum over its reasons: how many customers bought an item lately (three windows and ever), what goes into one
basket with it (Sarwar et al. 2001, cosine over orders), what customers buy who bought this (quantity as confidence, Hu,
Koren & Volinsky 2008, halved with age), what alike customers bought (user-based), likeness of descriptions, `momentum`
(whether items of alike description sell faster than in the last quarter, which is how a season shows in its first year) and
`price` (near to what the customer pays). With `again`, the customer's own past orders. `listwise` learns the weights on
windows of the past, each with parts that had not seen it. Similarity is made in blocks and pruned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from protocol.errors import Reason, Refused
from protocol.windows import Floats
from server.algorithms import listwise
from server.algorithms.likeness import BLOCK, cosine, dense, scaled_rows, strongest, text_rows, to_profiles
from server.algorithms.listwise import Part

Places = NDArray[np.int64]
PARTS = (
    "days 10",
    "days 28",
    "days 90",
    "ever",
    "momentum",
    "basket",
    "together",
    "customers",
    "text",
    "price",
    "had",
    "again",
    "again lately",
)
REPEATS = ("had", "again", "again lately")
"""Parts that only a customer's own past orders feed; of no use where new items are meant."""
SHARED = ("days 10", "days 28", "days 90", "ever", "momentum")
"""Parts that are the same for every customer: all that is known of a new one."""
WINDOWS_DAYS = (10.0, 28.0, 90.0, math.inf)
LIST = 10


@dataclass(frozen=True)
class Line:
    """One line of an order. day: any clock that counts days; price: per unit."""

    customer: str
    item: str
    order: str
    day: float
    quantity: float = 1.0
    price: float = 1.0


@dataclass(frozen=True)
class Purchases:
    """customers, items: names, sorted. who, what, order [N]: places. dropped: lines without a positive, finite quantity
    (cancellations among them)."""

    customers: list[str]
    items: list[str]
    who: Places
    what: Places
    order: Places
    day: Floats
    quantity: Floats
    price: Floats
    dropped: int = 0

    def between(self, first: float, end: float) -> Purchases:
        """Lines with first <= day < end, over the same names."""
        return self.of((self.day >= first) & (self.day < end))

    def of(self, rows: NDArray[np.bool_]) -> Purchases:
        """The rows of a mask [N]."""
        kept = {name: getattr(self, name)[rows] for name in ("who", "what", "order", "day", "quantity", "price")}
        return replace(self, **kept)

    def matrix(self, values: Floats | None = None) -> sparse.csr_matrix:
        """[C, I]: 1 where a customer bought an item, or the sum of `values` [N]."""
        made = sparse.csr_matrix(
            (np.ones(len(self.who)) if values is None else values, (self.who, self.what)),
            shape=(len(self.customers), len(self.items)),
            dtype=np.float32,
        )
        if values is None:
            made.data[:] = 1
        return made


@dataclass(frozen=True)
class BasketSettings:
    """half_life_days: age at which a purchase counts half. shrinkage: added to the product of the norms. kept: likest items
    of an item; neighbours: likest customers of a customer. alike: least likeness of two descriptions that share their
    momentum. horizon_days: how far ahead the weights are learned to look. inner_windows: pieces of the past, each of that
    length, that they are learned on. most_customers: of each piece. repeat_boosts: factors
    for the parts of REPEATS that are tried."""

    half_life_days: float = 45.0
    shrinkage: float = 10.0
    kept: int = 600
    neighbours: int = 100
    alike: float = 0.15
    horizon_days: float = 30.0
    inner_windows: int = 2
    most_customers: int = 1500
    repeat_boosts: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class BasketParts:
    """What is known at `now_day`. bought, orders, recent, confident [C, I]: 1, lines, with age, with age
    and quantity. likeness by orders
    and by customers [I, I]; text [I, V]; shared [5, I] in the order of SHARED; item_price [I], customer_price [C]: logs."""

    customers: list[str]
    items: list[str]
    now_day: float
    bought: sparse.csr_matrix
    orders: sparse.csr_matrix
    recent: sparse.csr_matrix
    confident: sparse.csr_matrix
    by_order: sparse.csr_matrix
    by_customer: sparse.csr_matrix
    text: sparse.csr_matrix
    shared: Floats
    item_price: Floats
    customer_price: Floats
    settings: BasketSettings

    def rows(self, who: Places) -> list[Part]:
        """Each part as it enters the sum [B, I], in the order of PARTS. A place of -1 is a customer never seen."""
        known = np.asarray(who) >= 0
        bought, recent, confident = (
            scaled_rows(matrix[np.maximum(who, 0)], known) for matrix in (self.bought, self.recent, self.confident)
        )
        near = self._neighbours(bought, np.asarray(who))
        wide = {
            name: np.tile(values.astype(np.float32), (len(who), 1))
            for name, values in zip(SHARED, self.shared, strict=True)
        }
        far = np.abs(self.item_price[None, :] - self.customer_price[np.maximum(who, 0)][:, None]) * known[:, None]
        personal = {
            "basket": _pressed(dense(recent @ self.by_order)),
            "together": _pressed(dense(confident @ self.by_customer)),
            "customers": _pressed(dense(near @ self.bought)),
            "text": _pressed(to_profiles(bought, self.text)),
            "price": -far.astype(np.float32),
            "had": dense(bought),
            "again": np.log1p(dense(scaled_rows(self.orders[np.maximum(who, 0)], known))),
            "again lately": np.log1p(dense(recent)),
        }
        return [(wide | personal)[name] for name in PARTS]

    def _neighbours(self, bought: sparse.csr_matrix, who: Places) -> sparse.csr_matrix:
        """Cosine to the likest other customers [B, C], at most `neighbours` in a row."""
        size = np.sqrt(np.asarray(self.bought.sum(axis=1)).ravel())
        own = np.sqrt(np.asarray(bought.sum(axis=1)).ravel())
        rows = []
        for start in range(0, bought.shape[0], BLOCK):
            block = slice(start, start + BLOCK)
            like = dense(bought[block] @ self.bought.T) / (
                own[block][:, None] * size[None, :] + self.settings.shrinkage
            )
            itself = who[block] >= 0
            like[np.flatnonzero(itself), who[block][itself]] = 0
            rows.append(strongest(like, self.settings.neighbours))
        return sparse.vstack(rows).tocsr()


@dataclass(frozen=True)
class FittedBaskets:
    """Parts at the last day, and their weights [P]. again: whether repeats are meant; where not, what a customer has bought
    scores -inf."""

    parts: BasketParts
    weights: Floats
    again: bool = False
    index: dict[str, int] = field(default_factory=dict)

    def scores(self, customer: str) -> Floats:
        """Every item's score for a customer [I]; an unknown one gets what moves now."""
        return np.asarray(self.score_rows(np.array([self.index.get(customer, -1)]))[0])

    def score_rows(self, who: Places) -> Floats:
        """[B, I] for places of customers (-1: unknown)."""
        blocks = [self._block(who[start : start + BLOCK]) for start in range(0, len(who), BLOCK)]
        return np.concatenate(blocks) if blocks else np.zeros((0, len(self.parts.items)))

    def because(self, customer: str, item: str) -> dict[str, float]:
        """What each part gives to an item's score; the values add up to it."""
        place = self.parts.items.index(item)
        rows = self.parts.rows(np.array([self.index.get(customer, -1)]))
        return {name: float(w * part[0, place]) for name, w, part in zip(PARTS, self.weights, rows, strict=True)}

    def _block(self, who: Places) -> Floats:
        score = listwise.mixed(self.parts.rows(who), self.weights).astype(np.float64)
        if not self.again:
            score[_closed(self.parts, who)] = -np.inf
        return score


def purchases(lines: Iterable[Line]) -> Purchases:
    """Lines in any order (the answer does not depend on it); those without a positive, finite quantity are dropped and
    counted. Raises Refused where nothing is left."""
    given = list(lines)
    kept = [x for x in given if math.isfinite(x.quantity) and x.quantity > 0 and math.isfinite(x.day)]
    kept.sort(key=lambda x: (x.day, x.customer, x.item, x.order, x.quantity, x.price))
    if not kept:
        raise Refused(Reason.NOT_ELIGIBLE, f"none of {len(given)} lines has a positive quantity and a day")
    names = [sorted({getattr(x, kind) for x in kept}) for kind in ("customer", "item", "order")]
    places = [{name: k for k, name in enumerate(each)} for each in names]
    who = np.array([places[0][x.customer] for x in kept], dtype=np.int64)
    what = np.array([places[1][x.item] for x in kept], dtype=np.int64)
    order = np.array([places[2][x.order] for x in kept], dtype=np.int64)
    day, quantity, price = (np.array([getattr(x, kind) for x in kept]) for kind in ("day", "quantity", "price"))
    return Purchases(names[0], names[1], who, what, order, day, quantity, price, len(given) - len(kept))


def fit(
    given: Purchases,
    texts: Mapping[str, str] | None = None,
    settings: BasketSettings | None = None,
    *,
    now_day: float | None = None,
    again: bool = False,
) -> FittedBaskets:
    """Parts from all lines before `now_day` (default: after the last line), weights from the windows before it. again: learn
    to rank repeats too. Raises Refused where no window of the past has a purchase to learn from."""
    settings = settings or BasketSettings()
    now_day = float(given.day.max()) + 1e-6 if now_day is None else now_day
    text = text_rows([(texts or {}).get(name, "") for name in given.items])
    weights = _learn_weights(given, text, settings, now_day, again)
    parts = learn_parts(given.between(-math.inf, now_day), text, now_day, settings)
    index = {given.customers[place]: int(place) for place in np.unique(given.between(-math.inf, now_day).who)}
    return FittedBaskets(parts, weights, again, index)


def learn_parts(past: Purchases, text: sparse.csr_matrix, now_day: float, settings: BasketSettings) -> BasketParts:
    """All parts from lines that are older than `now_day`; text [I, V] rows of length 1."""
    age = now_day - past.day
    fresh = 0.5 ** (age / settings.half_life_days)
    bought = past.matrix()
    recent = past.matrix(fresh)
    recent.data = np.minimum(recent.data, 3)
    orders = sparse.csr_matrix(
        (np.ones(len(past.order)), (past.order, past.what)),
        shape=(int(past.order.max()) + 1, len(past.items)),
        dtype=np.float32,
    )
    orders.data[:] = 1
    by_window = [np.asarray(past.of(age <= days).matrix().sum(axis=0)).ravel() for days in WINDOWS_DAYS]
    priced = past.of(np.isfinite(past.price) & (past.price > 0))
    log_price = np.log(priced.price)
    return BasketParts(
        past.customers,
        past.items,
        now_day,
        bought,
        _orders(past),
        recent,
        past.matrix(fresh * np.log1p(past.quantity)),
        cosine(orders, settings.shrinkage, settings.kept),
        cosine(bought, settings.shrinkage, settings.kept),
        text,
        np.stack([*[np.log1p(count) for count in by_window], _momentum(text, by_window[0], by_window[2], settings)]),
        _mean_by(priced.what, log_price, len(past.items)),
        _mean_by(priced.who, log_price, len(past.customers)),
        settings,
    )


def _learn_weights(
    given: Purchases, text: sparse.csr_matrix, settings: BasketSettings, now_day: float, again: bool
) -> Floats:
    """Weights [P] from the windows just before `now_day`, each ranked by parts that ended where it began."""
    stacks: list[list[Part]] = []
    chosen, closed = [], []
    for window in range(settings.inner_windows):
        end = now_day - window * settings.horizon_days
        start = end - settings.horizon_days
        past, ahead = given.between(-math.inf, start), given.between(start, end)
        who = np.intersect1d(np.unique(past.who), np.unique(ahead.who))
        if not len(who):
            continue
        who = who[:: -(-len(who) // settings.most_customers)]
        parts = learn_parts(past, text, start, settings)
        stacks.append(parts.rows(who))
        chosen.append(ahead.matrix()[who])
        closed.append(np.zeros((len(who), len(given.items)), dtype=bool) if again else _closed(parts, who))
    if not stacks:
        raise Refused(
            Reason.NOT_ELIGIBLE,
            f"no customer bought both before and in the last {settings.horizon_days:g} days; give a longer history",
        )
    whole = [np.concatenate([stack[p] for stack in stacks]) for p in range(len(PARTS))]
    said = sparse.vstack(chosen).tocsr()
    if again:
        weights = listwise.fit_weights(whole, said, evenness=1.0)
        return _boosted(whole, said, weights, settings)
    weights = np.zeros(len(PARTS))
    told = np.flatnonzero(~np.isin(PARTS, REPEATS))
    weights[told] = listwise.fit_weights([whole[p] for p in told], said, np.concatenate(closed))
    return weights


def _boosted(parts: list[Part], chosen: sparse.csr_matrix, weights: Floats, settings: BasketSettings) -> Floats:
    """The weights with those of REPEATS times the boost that finds most of the choices in a list of LIST. The loss looks at
    the whole of what was chosen, most of which no short list can hold."""
    wanted = np.asarray(chosen.toarray() > 0)
    own = np.isin(PARTS, REPEATS)
    best, found = weights, -1.0
    for boost in settings.repeat_boosts:
        tried = np.where(own, weights * boost, weights)
        places = np.argsort(-listwise.mixed(parts, tried), axis=1, kind="stable")[:, :LIST]
        hits = np.take_along_axis(wanted, places, axis=1).sum(axis=1)
        recall = float((hits / np.maximum(np.minimum(wanted.sum(axis=1), LIST), 1)).mean())
        if recall > found:
            best, found = tried, recall
    return best


def _closed(parts: BasketParts, who: Places) -> NDArray[np.bool_]:
    """What customers have bought [B, I]."""
    known = np.asarray(who) >= 0
    return np.asarray(parts.bought[np.maximum(who, 0)].toarray() > 0) & known[:, None]


def _momentum(text: sparse.csr_matrix, lately: Floats, quarter: Floats, settings: BasketSettings) -> Floats:
    """How fast an item and those of alike description sell, against their own last quarter [I], log1p."""
    pace_lately, pace_quarter = np.zeros(len(lately)), np.zeros(len(lately))
    for start in range(0, text.shape[0], BLOCK):
        like = dense(text[start : start + BLOCK] @ text.T)
        like[like < settings.alike] = 0
        like[np.arange(len(like)), start + np.arange(len(like))] = 1
        pace_lately[start : start + BLOCK], pace_quarter[start : start + BLOCK] = like @ lately, like @ quarter
    return np.asarray(np.log1p(pace_lately / (pace_quarter * WINDOWS_DAYS[0] / WINDOWS_DAYS[2] + 1)))


def _orders(past: Purchases) -> sparse.csr_matrix:
    """In how many orders of a customer an item was [C, I]."""
    _, first = np.unique(np.stack([past.order, past.what]), axis=1, return_index=True)
    rows = np.zeros(len(past.who), dtype=bool)
    rows[first] = True
    once = past.of(rows)
    return once.matrix(np.ones(len(once.who)))


def _mean_by(place: Places, values: Floats, n: int) -> Floats:
    """Mean by place [n]; the mean of all where there is none."""
    count = np.bincount(place, minlength=n)
    mean = np.bincount(place, values, n) / np.maximum(count, 1)
    return np.where(count > 0, mean, values.mean() if len(values) else 0.0)


def _pressed(raw: Part) -> Part:
    """log1p of ten times the share of the row's largest."""
    return np.asarray(np.log1p(raw / (raw.max(axis=1, keepdims=True) * np.float32(0.1) + np.float32(1e-9))))
