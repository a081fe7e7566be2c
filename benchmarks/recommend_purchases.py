"""What a customer buys next: items new to it, and any.

    python benchmarks/recommend_purchases.py --data DIR [--quick] [--json]

DIR holds one parquet file with the columns of Online Retail II: Invoice, StockCode, Description, Quantity, InvoiceDate,
Price, Customer ID. Lines without a customer, cancellations (negative quantity) and codes that are no article (they do not
begin with five digits: postage, fees, tests) are left out for every model. The last 30 days are the test, for customers that
bought before and in them. recall@10 is found / min(10, wanted); all items are ranked, ties by code; for the rows about new
items, what a customer has bought is no candidate for any model. Weights come from the two windows of 30 days before the test,
each with parts that end where it begins. Reference: popularity; peers: plain item-CF (cosine of 0/1), implicit's, recent
popularity, and the customer's own repeat history. --quick: every fourth customer of the test."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from lists import discounted, paired, top
from numpy.typing import NDArray
from scipy import sparse

from protocol.windows import Floats
from server.algorithms import baskets
from server.algorithms.baskets import FittedBaskets, Line, Purchases

TEST_DAYS = 30.0
TARGET = 1.2
LIST = 10
ARTICLE = re.compile(r"\d{5}")
COLUMNS = ("Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID")
Mask = NDArray[np.bool_]


def read(path: Path) -> tuple[Purchases, dict[str, str]]:
    """The lines of customers, and each article's first description; days are counted from the first line."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise SystemExit(f"recommend_purchases: {path.name} lacks the columns {missing}")
    columns = [table.column(name).to_pylist() for name in COLUMNS]
    lines: list[Line] = []
    texts: dict[str, str] = {}
    for invoice, code, words, quantity, date, price, customer in zip(*columns, strict=True):
        item = str(code).strip().upper()
        if customer is None or customer != customer or not ARTICLE.match(item):
            continue
        texts.setdefault(item, str(words or ""))
        day = (date if isinstance(date, datetime) else datetime.fromisoformat(str(date))).timestamp() / 86400
        lines.append(Line(f"{customer:.0f}", item, str(invoice), day, float(quantity), float(price)))
    return baskets.purchases(lines), texts


def measure(sheet: contract.Sheet) -> None:
    """Rows for new items and for all."""
    given, texts = read(sheet.find(sheet.options.train, "*.parquet")[0])
    now = float(given.day.max()) - TEST_DAYS
    past, ahead = given.between(-math.inf, now), given.between(now, math.inf)
    who = np.intersect1d(np.unique(past.who), np.unique(ahead.who))
    who = who[::4] if sheet.options.quick else who
    bought, wanted = past.matrix()[who].toarray() > 0, ahead.matrix()[who].toarray() > 0
    sold = np.asarray(past.matrix().sum(axis=0)).ravel() > 0
    sheet.say(f"{len(given.customers)} customers, {len(given.items)} items, {len(who)} customers in the test")
    timed: dict[bool, float] = {}
    scores: dict[bool, Floats] = {}
    for again in (False, True):
        started = time.monotonic()
        fitted = baskets.fit(past, texts, now_day=now, again=again)
        scores[again] = np.where(sold, fitted.score_rows(who), -np.inf)
        timed[again] = time.monotonic() - started
        sheet.say(f"weights {_told(fitted)}")
    told = others(sheet, past, who, now)
    own = told.pop("own repeats")
    new = wanted & ~bought
    judge(sheet, "items new to the customer", who, new, closed(told, bought) | {"ours": scores[False]}, timed[False])
    judge(sheet, "any item", who, wanted, told | {"own repeats": own, "ours": scores[True]}, timed[True])
    sheet.note(
        f"{given.dropped} lines without a positive quantity are left out; {int((~sold).sum())} items were never sold before "
        "the test: no model may name them, and they count as missed; one year of data shows no season twice: what rises "
        "together with items of alike description (momentum) stands for it"
    )


def others(sheet: contract.Sheet, past: Purchases, who: NDArray[np.int64], now: float) -> dict[str, Floats]:
    """Scores [B, I] of the reference and the peers."""
    binary = past.matrix()
    count = np.asarray(binary.sum(axis=0), dtype=np.float64).ravel()
    lately = np.asarray(past.between(now - TEST_DAYS, math.inf).matrix().sum(axis=0), dtype=np.float64).ravel()
    size = sparse.diags(1 / (np.sqrt(count) + 1e-9))
    alike = (size @ (binary.T @ binary) @ size).tolil()
    alike.setdiag(0)
    orders = past.matrix(np.ones(len(past.who)))[who].toarray()
    told: dict[str, Floats] = {
        "popularity": np.tile(count, (len(who), 1)),
        "popularity of 30 days": np.tile(lately, (len(who), 1)),
        "item-CF": np.asarray((binary[who] @ alike.tocsr()).toarray(), dtype=np.float64),
        "own repeats": orders + 1e-6 * count,
    }
    library = contract.peer(sheet, "implicit.nearest_neighbours")
    for name in ("Cosine", "BM25") if library is not None else ():
        model = getattr(library, f"{name}Recommender")(K=200, num_threads=1)
        model.fit(binary, show_progress=False)
        told[f"implicit {name}"] = np.asarray((binary[who] @ model.similarity).toarray(), dtype=np.float64)
    return told


def closed(scores: dict[str, Floats], bought: Mask) -> dict[str, Floats]:
    """The same scores, with what was bought at the end of every list."""
    return {name: np.where(bought, -np.inf, values) for name, values in scores.items()}


def judge(
    sheet: contract.Sheet, what: str, who: NDArray[np.int64], wanted: Mask, scores: dict[str, Floats], seconds: float
) -> None:
    """recall@10 and nDCG@10 over the customers with something to find; the target is for new items."""
    count = wanted.sum(axis=1)
    rows = count > 0
    hits = {name: np.take_along_axis(wanted, top(values, LIST), axis=1)[rows] for name, values in scores.items()}
    measures: Sequence[tuple[str, Callable[[Mask], Floats]]] = (
        ("recall@10", lambda hit: hit.sum(axis=1) / np.minimum(count[rows], LIST)),
        ("nDCG@10", lambda hit: discounted(hit, count[rows])),
    )
    for metric, judged in measures:
        by_customer = {name: judged(hit) for name, hit in hits.items()}
        figures = {name: float(values.mean()) for name, values in by_customer.items()}
        value, reference = figures.pop("ours"), figures.pop("popularity")
        counts = "new" in what and metric == "recall@10"
        target = TARGET * figures["item-CF"] if counts else None
        against = "own repeats" if "own repeats" in figures else "item-CF"
        difference, deviation = paired(by_customer["ours"], by_customer[against], who[rows].tolist())
        more: dict[str, Any] = {
            "over": against,
            "difference": round(difference, 4),
            "standard_error": round(deviation, 4),
        }
        sheet.row(
            what,
            metric,
            value,
            reference=reference,
            peers=dict(figures),
            target=target,
            holds=None if target is None or sheet.options.quick else value >= target,
            n=int(rows.sum()),
            seconds=seconds,
            **more,
        )


def _told(fitted: FittedBaskets) -> dict[str, float]:
    return dict(zip(baskets.PARTS, fitted.weights.round(2).tolist(), strict=True))


if __name__ == "__main__":
    sys.exit(contract.run("recommend_purchases", __doc__, measure))
