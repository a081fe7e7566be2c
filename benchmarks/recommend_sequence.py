"""The next item after an ordered history, ranked among all items.

    python benchmarks/recommend_sequence.py --data DIR [--quick] [--json]

DIR holds valid.csv(.gz) and test.csv(.gz) with user_id, history_item_id (a list, oldest first), item_id, and items.json(.gz)
with id -> title, description, brand, categories: the format of MiniOneRec's Amazon splits. A row is one choice; a user may
have several. HR@10 and nDCG@10 over all items, repeats allowed, ties by item name.

What is trained on what: the weights are learned on validation rows, with parts made of what came before them (the first
validation history of each user; for users of the test file alone, their first test history). The parts that answer the test
rows are made of all of that and the validation choices. No test choice is in any of it: a later test row's history names
earlier test choices, so it is used to answer that row alone. (A test-only user's first history of a single choice may be of
the validation period, since a user's very first choice makes no row; a single choice tells popularity alone.)
Reference: popularity; peers: item-CF on the same training part, and published figures where the folder is the published one.
--quick: every fourth test row."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import ast
import csv
import gzip
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lists import paired, ranks_of_one
from numpy.typing import NDArray
from scipy import sparse

from protocol.windows import Floats
from server.algorithms import sequences
from server.algorithms.sequences import Card, FittedSequences

TARGET = 0.109
PUBLISHED_ITEMS, PUBLISHED_ROWS = 3686, 4533
PUBLISHED = {
    "HR@10": {"GRU4Rec": 0.0999, "Caser": 0.0942, "SASRec": 0.1088, "TIGER": 0.1321, "MiniOneRec": 0.1586},
    "nDCG@10": {"GRU4Rec": 0.0669, "Caser": 0.0628, "SASRec": 0.0806, "TIGER": 0.0908, "MiniOneRec": 0.1167},
}
"""Of the MiniOneRec README, for Industrial and Scientific; trained on the file that is missing here."""
DESCRIPTION = 600
"""Characters of a description that are read; its end is about delivery and guarantees."""
EARLIER = 0.5
"""What the places before the last are worth in plain item-CF."""


@dataclass(frozen=True)
class Choice:
    """A row: who chose what after which history, oldest first."""

    user: str
    history: tuple[str, ...]
    item: str


def read_choices(path: Path) -> list[Choice]:
    """The rows of a file."""
    lines = csv.DictReader(_text(path).splitlines())
    missing = [name for name in ("user_id", "history_item_id", "item_id") if name not in (lines.fieldnames or [])]
    if missing:
        raise SystemExit(f"recommend_sequence: {path.name} lacks the columns {missing}")
    return [
        Choice(row["user_id"], tuple(str(i) for i in ast.literal_eval(row["history_item_id"])), row["item_id"])
        for row in lines
    ]


def read_cards(path: Path) -> dict[str, Card]:
    """Title (twice: it says most), brand and the start of the description; brand and category as attributes."""
    cards = {}
    for name, item in json.loads(_text(path)).items():
        title, brand = str(item.get("title", "")), str(item.get("brand", ""))
        text = f"{title} {title} {brand} {str(item.get('description', ''))[:DESCRIPTION]}"
        traits = (("brand", brand), ("category", str(item.get("categories", ""))))
        cards[name] = Card(text, tuple(f"{kind}:{value}" for kind, value in traits if value))
    return cards


def before_validation(valid: Sequence[Choice], test: Sequence[Choice]) -> list[tuple[str, ...]]:
    """One sequence a user: what came before the first validation row."""
    return list((_first_histories(test) | _first_histories(valid)).values())


def before_test(valid: Sequence[Choice], test: Sequence[Choice]) -> list[tuple[str, ...]]:
    """One sequence a user: the same, and the validation choices in their order."""
    first = _first_histories(valid)
    chosen: dict[str, tuple[str, ...]] = {}
    for choice in valid:
        chosen[choice.user] = (*chosen.get(choice.user, ()), choice.item)
    whole = {user: (*history, *chosen[user]) for user, history in first.items()}
    return list((_first_histories(test) | whole).values())


def measure(sheet: contract.Sheet) -> None:
    """Rows for hit rate and nDCG."""
    folder = sheet.options.train
    valid = read_choices(sheet.find(folder, "valid.csv", "valid.csv.gz")[0])
    test = read_choices(sheet.find(sheet.options.test, "test.csv", "test.csv.gz")[0])
    cards = read_cards(sheet.find(folder, "items.json", "items.json.gz")[0])
    asked = test[::4] if sheet.options.quick else test
    started = time.monotonic()
    earlier = sequences.learn_parts(before_validation(valid, test), cards)
    weighed = sequences.learn_weights(earlier, [c.history for c in valid], [c.item for c in valid])
    sheet.say(f"weights {dict(zip(sequences.PARTS, weighed.weights.round(2).tolist(), strict=True))}")
    half_way(sheet, earlier, valid)
    seen = before_test(valid, test)
    fitted = replace(sequences.learn_parts(seen, cards), weights=weighed.weights, scale=weighed.scale)
    scores = {"ours": fitted.score_rows([c.history for c in asked])}
    seconds = time.monotonic() - started
    scores |= others(sheet, fitted, seen, asked)
    whole = len(test) == PUBLISHED_ROWS and len(cards) == PUBLISHED_ITEMS
    judge(sheet, "the next item of a history, all items ranked", fitted, asked, scores, seconds, whole=whole)
    first = np.unique([c.user for c in asked], return_index=True)[1]
    at_first = {name: values[first] for name, values in scores.items()}
    judge(sheet, "the same, each user's first row alone", fitted, [asked[k] for k in first], at_first, 0.0, whole=False)
    sheet.note(
        f"parts from {sum(len(s) for s in seen)} choices of {len(seen)} users; {len(fitted.items)} items are ranked, "
        f"{sum(1 for p in fitted.popularity if p == 0)} of them never chosen before; the published models had a larger "
        "training file, which is missing here, but not the validation rows that ours learns from: newer choices favour ours; "
        "people order in bursts, so a row whose history ends in the same burst is easier for every model, and first rows are "
        "shown alone too; "
        "the settings' defaults were looked for on this set's validation rows, halves of the users against one another"
    )


def half_way(sheet: contract.Sheet, earlier: FittedSequences, valid: Sequence[Choice]) -> None:
    """Notes what the validation rows promise: weights of one half of the users, judged on the other."""
    users = sorted({c.user for c in valid})
    chosen = set(np.random.default_rng(0).permutation(users)[: len(users) // 2].tolist())
    halves = [
        [c for c in valid if (c.user in chosen) == side and c.item in set(earlier.items)] for side in (True, False)
    ]
    if not all(halves):
        return
    hits = 0
    for learned, judged in (halves, halves[::-1]):
        weighed = sequences.learn_weights(earlier, [c.history for c in learned], [c.item for c in learned])
        hits += int((_ranks(weighed.score_rows([c.history for c in judged]), earlier.items, judged) < 10).sum())
    rate = hits / sum(len(half) for half in halves)
    sheet.note(f"validation rows, weights of one half of the users judged on the other: HR@10 {rate:.4f}")


def others(
    sheet: contract.Sheet, fitted: FittedSequences, seen: Sequence[tuple[str, ...]], asked: Sequence[Choice]
) -> dict[str, Floats]:
    """Popularity, item-CF by cosine, and implicit's where it is installed; the last place counts 1, the earlier ones 0.5."""
    index = {name: i for i, name in enumerate(fitted.items)}
    training = _matrix([[(index[i], 1.0) for i in set(s)] for s in seen], len(index))
    profiles = _matrix(
        [[(index[i], 1.0 if age == 0 else EARLIER) for age, i in enumerate(c.history[::-1])] for c in asked], len(index)
    )
    size = np.sqrt(np.asarray(training.sum(axis=0)).ravel()) + 1e-9
    alike = (training.T @ training).tocsr()
    alike.setdiag(0)
    alike = sparse.diags(1 / size) @ alike @ sparse.diags(1 / size)
    told: dict[str, Floats] = {
        "popularity": np.tile(fitted.popularity, (len(asked), 1)),
        "item-CF": np.asarray((profiles @ alike).toarray(), dtype=np.float64),
    }
    library = contract.peer(sheet, "implicit.nearest_neighbours")
    if library is not None:
        model = library.BM25Recommender(K=200, num_threads=1)
        model.fit(training.tocsr(), show_progress=False)
        told["implicit BM25"] = np.asarray((profiles @ model.similarity).toarray(), dtype=np.float64)
    return told


def judge(
    sheet: contract.Sheet,
    what: str,
    fitted: FittedSequences,
    asked: Sequence[Choice],
    scores: dict[str, Floats],
    seconds: float,
    *,
    whole: bool,
) -> None:
    """Writes both rows, each with the difference to item-CF paired by user."""
    ranks = {name: _ranks(values, fitted.items, asked) for name, values in scores.items()}
    measures: dict[str, dict[str, Floats]] = {
        "HR@10": {name: (rank < 10).astype(np.float64) for name, rank in ranks.items()},
        "nDCG@10": {name: np.where(rank < 10, 1 / np.log2(rank + 2), 0.0) for name, rank in ranks.items()},
    }
    for metric, by_row in measures.items():
        figures = {name: float(values.mean()) for name, values in by_row.items()}
        value, reference = figures.pop("ours"), figures.pop("popularity")
        published = {f"{name} (published)": figure for name, figure in PUBLISHED[metric].items()} if whole else {}
        counts = whole and metric == "HR@10"
        difference, deviation = paired(by_row["ours"], by_row["item-CF"], [c.user for c in asked])
        sheet.row(
            what,
            metric,
            value,
            reference=reference,
            peers={**figures, **published},
            target=TARGET if counts else None,
            holds=value >= TARGET if counts and not sheet.options.quick else None,
            n=len(asked),
            seconds=seconds,
            over_item_cf=round(difference, 4),
            standard_error=round(deviation, 4),
        )


def _ranks(scores: Floats, items: list[str], asked: Sequence[Choice]) -> NDArray[np.int64]:
    """[B]; a choice that is no known item stands behind all of them."""
    index = {name: i for i, name in enumerate(items)}
    known = np.array([c.item in index for c in asked])
    rank = ranks_of_one(scores, np.array([index.get(c.item, 0) for c in asked]))
    return np.where(known, rank, len(items))


def _first_histories(choices: Sequence[Choice]) -> dict[str, tuple[str, ...]]:
    """Each user's history before its first row (the rows of a user are in order)."""
    first: dict[str, tuple[str, ...]] = {}
    for choice in choices:
        first.setdefault(choice.user, choice.history)
    return first


def _matrix(rows: Sequence[Sequence[tuple[int, float]]], n: int) -> sparse.csr_matrix:
    pairs = [(b, i, value) for b, row in enumerate(rows) for i, value in row]
    places = ([b for b, _, _ in pairs], [i for _, i, _ in pairs])
    return sparse.csr_matrix(([v for _, _, v in pairs], places), shape=(len(rows), n))


def _text(path: Path) -> str:
    whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return whole.decode("utf-8-sig")


if __name__ == "__main__":
    sys.exit(contract.run("recommend_sequence", __doc__, measure))
