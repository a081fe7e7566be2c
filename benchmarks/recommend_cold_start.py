"""The first lists of a new user, and the first lists that hold a new item: a hybrid beside each of its parts and EASE.

    python benchmarks/recommend_cold_start.py --data DIR [--seeds N] [--quick] [--json]

DIR holds ratings.csv(.gz) with userId, movieId (or itemId) and timestamp, movies.csv(.gz) with title and genres, and maybe
tags.csv(.gz); a row of ratings is one event of strength 1. New users: 20 % of the users are unseen, the profile is their
first n events in time (ties: the smaller item name first), the rest is wanted. Candidates: every item of the file that is
not in the profile. New items: 10 % of the items are hidden from every history, and ranked among themselves for whoever took
one. Ties: score descending, then the item's name. Parameters are chosen on an inner 80/20 split of the training users (or of
the known items). Differences are paired, a user's rows of several seeds taken together. --quick: 1 seed, fewer tries."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import csv
import gzip
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lists import discounted, paired, top
from numpy.typing import NDArray
from scipy import sparse

from protocol.catalogue import ItemCard
from protocol.windows import Floats
from server.algorithms import linear_items
from server.algorithms.content_based import ContentSettings, content_axes, content_rows, fit_content
from server.algorithms.hybrid import HybridSettings, chosen_settings, fit_hybrid, past_rows
from server.algorithms.interactions import Interactions, interactions
from server.algorithms.lessons import only
from server.algorithms.linear_items import LinearSettings
from server.algorithms.neighbourhood import NeighbourSettings, item_neighbours, ranked

LENGTHS = (1, 3, 5, 10, 20)
TOP = 10
NEW_USERS, NEW_ITEMS = 0.2, 0.1
MAPPED = (0.0, 0.5, 0.8, 1.0)
Scorer = Callable[[sparse.csr_matrix], Floats]
"""Profiles [B, I] -> scores [B, I]."""


@dataclass(frozen=True)
class Shop:
    """Events, and what is known of each item, without and with what people wrote of it."""

    events: Interactions
    cards: list[ItemCard]
    tagged: list[ItemCard]


@dataclass(frozen=True)
class Asked:
    """profiles [B, I], wanted [B, I] bool and whose they are [B]."""

    profiles: sparse.csr_matrix
    wanted: NDArray[np.bool_]
    who: list[str]


def rows_of(path: Path) -> list[dict[str, str]]:
    """A table with a header, plain or gzipped."""
    whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(whole.decode("utf-8-sig").splitlines()))


def read(sheet: contract.Sheet) -> Shop:
    """Ratings, films and tags of a folder."""
    folder = sheet.options.train
    ratings = rows_of(sheet.find(folder, "ratings*.csv", "ratings*.csv.gz")[0])
    films = rows_of(sheet.find(folder, "movies*.csv", "movies*.csv.gz")[0])
    column = next((name for name in ("movieId", "itemId") if ratings and name in ratings[0]), None)
    if column is None or not {"userId", "timestamp"} <= ratings[0].keys():
        raise SystemExit("recommend_cold_start: ratings need the columns userId, movieId or itemId, and timestamp")
    events = interactions(((r["userId"], r[column], 1.0, 1000 * int(r["timestamp"])) for r in ratings), cap=1.0)
    said: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("tags*.csv*")):
        sheet.find(folder, path.name)
        for row in rows_of(path):
            said[row[column]].append(row["tag"])
    film = {row[column]: row for row in films}
    cards = [card(item, film.get(item)) for item in events.items]
    return Shop(events, cards, [tagged(one, said[one.item]) for one in cards])


def card(item: str, film: dict[str, str] | None) -> ItemCard:
    """Genres as attributes, the title as words, the decade from the title."""
    if film is None:
        return ItemCard(id=item, item=item)
    title, genres = film["title"].strip(), [genre for genre in film["genres"].split("|") if genre[:1].isalnum()]
    known = {f"genre {genre.lower()}": genre for genre in genres}
    year = title[-5:-1] if title.endswith(")") and title[-5:-1].isdigit() else ""
    if year:
        known["decade"] = f"{year[:3]}0s"
    return ItemCard(id=item, item=item, attributes=known, text=title[:200])


def tagged(plain: ItemCard, tags: Sequence[str]) -> ItemCard:
    """The same card with what people wrote."""
    return ItemCard(
        id=plain.id, item=plain.item, attributes=plain.attributes, text=f"{plain.text} {' '.join(tags)}"[:2000]
    )


def first_events(events: Interactions, users: Sequence[int], length: int) -> Asked:
    """The first `length` events of each user as profile, the rest wanted; users with nothing left are not asked."""
    profiles, wanted, who = [], [], []
    for u in users:
        span = slice(events.matrix.indptr[u], events.matrix.indptr[u + 1])
        ids = events.matrix.indices[span]
        assert events.times_ms is not None
        ids = ids[np.lexsort((ids, events.times_ms.data[span]))]
        if len(ids) > length:
            profiles.append(np.sort(ids[:length]))
            wanted.append(ids[length:])
            who.append(events.users[u])
    n = len(events.items)
    return Asked(pattern(profiles, n), np.asarray(pattern(wanted, n).toarray() > 0), who)


def pattern(rows: Sequence[NDArray[np.integer]], columns: int) -> sparse.csr_matrix:
    """Ones at these columns of each row."""
    ids = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
    indptr = np.cumsum([0, *map(len, rows)])
    return sparse.csr_matrix((np.ones(len(ids), dtype=np.float32), ids, indptr), shape=(len(rows), columns))


def judged(score: Scorer, asked: Asked) -> Floats:
    """nDCG@10 of each profile [B], ranking everything that is not in it."""
    places = ranked(score(asked.profiles), TOP, asked.profiles)
    hits = np.take_along_axis(asked.wanted, np.maximum(places, 0), axis=1) & (places >= 0)
    return discounted(hits, asked.wanted.sum(axis=1))


def content_vectors(cards: Sequence[ItemCard], mapped: float, train: Interactions) -> Floats:
    """Vectors [I, d] of the cards."""
    return fit_content(cards, ContentSettings(mapped=mapped), train.matrix).encode(cards)


def singles(shop: Shop, quick: bool) -> dict[str, list[Callable[[Interactions], Scorer]]]:
    """Each model alone, and every setting that is tried."""
    near = [
        NeighbourSettings(shrinkage=s, neighbours=k, evenness=e, alpha=a)
        for k in (200, 50)
        for s, e, a in ((5.0, 0.0, 0.5), (1.0, 0.0, 0.5), (20.0, 0.0, 0.5), (0.0, 0.5, 0.7))
    ]
    penalties = (50.0, 100.0, 200.0, 400.0, 800.0)

    def popular(train: Interactions) -> Scorer:
        counts = np.asarray(train.matrix.sum(axis=0), dtype=np.float64).ravel()
        return lambda profiles: np.tile(counts, (profiles.shape[0], 1))

    def content(mapped: float) -> Callable[[Interactions], Scorer]:
        def fit(train: Interactions) -> Scorer:
            vectors = content_vectors(shop.cards, mapped, train)
            return lambda profiles: content_rows(profiles, vectors)

        return fit

    def users(most: int) -> Callable[[Interactions], Scorer]:
        return lambda train: past_rows(train, most).score_rows

    def items(one: NeighbourSettings) -> Callable[[Interactions], Scorer]:
        return lambda train: item_neighbours(train, one).score_rows

    def ease(penalty: float) -> Callable[[Interactions], Scorer]:
        return lambda train: linear_items.fit(train, LinearSettings(penalty=penalty)).score_rows

    most = 1 if quick else None
    return {
        "popularity": [popular],
        "item-CF": [items(one) for one in near][:most],
        "user-CF": [users(k) for k in (50, 20, 100, 200)][:most],
        "content": [content(mapped) for mapped in (0.0, 0.5, 0.8)][:most],
        "EASE": [ease(penalty) for penalty in penalties][:most],
    }


def tuned(tries: list[Callable[[Interactions], Scorer]], train: Interactions, seed: int) -> Scorer:
    """The try with the best mean nDCG over all lengths on a fifth of the training users, fitted to all of them."""
    if len(tries) == 1:
        return tries[0](train)
    rows = np.random.default_rng(seed).permutation(len(train.users))
    cut = max(1, round(NEW_USERS * len(rows)))
    held, inner = rows[:cut].tolist(), only(train, np.sort(rows[cut:]))
    asked = [first_events(train, held, length) for length in LENGTHS]
    values = []
    for made in tries:
        score = made(inner)
        values.append(np.mean([judged(score, one).mean() for one in asked if one.who]))
    return tries[int(np.argmax(values))](train)


def hybrid(shop: Shop, train: Interactions, seed: int, quick: bool) -> Scorer:
    """Settings and weights from the training users."""
    vectors = content_vectors(shop.cards, 0.5, train)
    settings = HybridSettings()
    if not quick:
        settings = chosen_settings(train, settings, vectors=vectors, seed=seed)
    return fit_hybrid(train, settings, vectors=vectors, seed=seed).score_rows


def new_users(sheet: contract.Sheet, shop: Shop, seed: int) -> dict[int, tuple[list[str], dict[str, Floats]]]:
    """Per length: who was asked, and every model's nDCG of them."""
    rows = np.random.default_rng(seed).permutation(len(shop.events.users))
    cut = max(1, round(NEW_USERS * len(rows)))
    train = only(shop.events, np.sort(rows[cut:]))
    quick = sheet.options.quick
    models = {name: tuned(tries, train, seed) for name, tries in singles(shop, quick).items()}
    models["hybrid"] = hybrid(shop, train, seed, quick)
    found = {}
    for length in LENGTHS:
        asked = first_events(shop.events, np.sort(rows[:cut]).tolist(), length)
        found[length] = (asked.who, {name: judged(score, asked) for name, score in models.items()})
        told = {name: round(float(value.mean()), 4) for name, value in found[length][1].items() if len(value)}
        sheet.say(f"seed {seed}, {length} events: {told}")
    return found


def hidden(events: Interactions, items: NDArray[np.integer]) -> tuple[Interactions, Asked]:
    """Events without some items, and who took one of those, with the rest of the history as profile."""
    out = np.zeros(len(events.items), dtype=bool)
    out[items] = True
    matrix = sparse.csr_matrix(events.matrix.multiply(~out[None, :]))
    matrix.eliminate_zeros()
    wanted = np.asarray(events.matrix[:, items].toarray() > 0)
    who = np.flatnonzero(wanted.any(axis=1) & (np.diff(matrix.indptr) > 0))
    return replace(events, matrix=matrix, times_ms=None), Asked(
        matrix[who], wanted[who], [events.users[u] for u in who]
    )


def among_new(
    cards: Sequence[ItemCard], tries: Sequence[float], known: Interactions, asked: Asked, new: NDArray[np.integer]
) -> list[Floats]:
    """nDCG@10 of each user [B] among the new items alone, for each share of the map. Words are learned from the cards of the
    known items."""
    old = np.setdiff1d(np.arange(len(cards)), new)
    axes = content_axes([cards[i] for i in old], ContentSettings(), known.matrix[:, old] if any(tries) else None)
    many, found = asked.wanted.sum(axis=1), []
    for mapped in tries:
        scores = content_rows(asked.profiles, axes.at(mapped).encode(cards))[:, new]
        found.append(discounted(np.take_along_axis(asked.wanted, top(scores, TOP), axis=1), many))
    return found


def by_chance(asked: Asked) -> Floats:
    """What a random order of the new items has on average [B]."""
    many, count = asked.wanted.sum(axis=1), asked.wanted.shape[1]
    everything = np.ones((len(many), min(TOP, count)), dtype=bool)
    return np.asarray(discounted(everything, many) * many / count, dtype=np.float64)


def new_items(sheet: contract.Sheet, shop: Shop, seed: int) -> dict[str, tuple[list[str], Floats, Floats]]:
    """Per kind of card: who was asked, their nDCG, and chance's."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(shop.events.items))
    cut = max(1, round(NEW_ITEMS * len(order)))
    new, old = np.sort(order[:cut]), np.sort(order[cut:])
    known, asked = hidden(shop.events, new)
    again = np.sort(old[draw.permutation(len(old))[:cut]])
    inner, check = hidden(known, again)
    found = {}
    for what, cards in (("genres and title", shop.cards), ("genres, title and tags", shop.tagged)):
        tries = MAPPED[:1] if sheet.options.quick else MAPPED
        kept = [cards[i] for i in old]
        places = np.searchsorted(old, again)
        values = among_new(kept, tries, _over(inner, old), _asked_over(check, old), places)
        mapped = tries[int(np.argmax([one.mean() for one in values]))]
        found[what] = (asked.who, among_new(cards, [mapped], known, asked, new)[0], by_chance(asked))
        mean, chance = (float(values.mean()) for values in found[what][1:])
        sheet.say(f"seed {seed}, new items by {what}: {mean:.4f}, chance {chance:.4f}, mapped {mapped}")
    return found


def _over(events: Interactions, items: NDArray[np.integer]) -> Interactions:
    return replace(events, items=[events.items[i] for i in items], matrix=events.matrix[:, items])


def _asked_over(asked: Asked, items: NDArray[np.integer]) -> Asked:
    return replace(asked, profiles=asked.profiles[:, items])


def measure(sheet: contract.Sheet) -> None:
    """A row for every length of profile, then for new items."""
    shop = read(sheet)
    seeds = 1 if sheet.options.quick else max(1, sheet.options.seeds)
    sheet.say(f"{len(shop.events.users)} users, {len(shop.events.items)} items, {shop.events.matrix.nnz} events")
    started = time.monotonic()
    runs = [new_users(sheet, shop, seed) for seed in range(seeds)]
    for length in LENGTHS:
        users = [user for run in runs for user in run[length][0]]
        if users:
            table = {name: np.concatenate([run[length][1][name] for run in runs]) for name in runs[0][length][1]}
            _length_row(sheet, length, users, table, time.monotonic() - started)
    started = time.monotonic()
    lists = [new_items(sheet, shop, seed) for seed in range(seeds)]
    for what in lists[0]:
        users = [user for run in lists for user in run[what][0]]
        ours, chance = (np.concatenate([run[what][k] for run in lists]) for k in (1, 2))
        _new_row(sheet, what, users, ours, chance, time.monotonic() - started)
    sheet.note(
        f"{seeds} seeds; new users: candidates are all {len(shop.events.items)} items of the file but the profile's; "
        "new items: candidates are the hidden items alone, profile is everything else the user took"
    )
    sheet.note("tags are written by people who saw the film: they would not be there for a film that is really new")


def _length_row(sheet: contract.Sheet, length: int, users: list[str], table: dict[str, Floats], seconds: float) -> None:
    means = {name: float(values.mean()) for name, values in table.items() if name != "hybrid"}
    best = max(means, key=lambda name: means[name])
    ours = float(table["hybrid"].mean())
    difference, error = paired(table["hybrid"], table[best], users)
    sheet.row(
        f"new user, {length} event{'s' if length > 1 else ''}",
        "nDCG@10",
        ours,
        reference=means["popularity"],
        peers={name: value for name, value in means.items() if name != "popularity"},
        target=0.99 * means[best],
        holds=None if sheet.options.quick else ours >= 0.99 * means[best],
        n=len(users),
        seconds=seconds,
        **_told(best, ours, means[best], difference, error),
    )


def _new_row(sheet: contract.Sheet, what: str, users: list[str], ours: Floats, chance: Floats, seconds: float) -> None:
    difference, error = paired(ours, chance, users)
    mean, random = float(ours.mean()), float(chance.mean())
    sheet.row(
        f"new items by {what}",
        "nDCG@10",
        mean,
        reference=random,
        target=1.5 * random,
        holds=None if sheet.options.quick else mean >= 1.5 * random,
        n=len(users),
        seconds=seconds,
        **_told("random order", mean, random, difference, error),
    )


def _told(rival: str, ours: float, theirs: float, difference: float, error: float) -> dict[str, Any]:
    return {
        "rival": rival,
        "ratio": round(ours / max(theirs, 1e-12), 4),
        "paired_difference": round(difference, 5),
        "standard_error": round(error, 5),
    }


if __name__ == "__main__":
    sys.exit(contract.run("recommend_cold_start", __doc__, measure))
