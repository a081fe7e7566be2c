"""What a gateway has of a recommender: time of a list, size, what int8 costs, how soon an answer shows, reasons, memory.

    python benchmarks/recommend_edge.py [--quick] [--json]

Makes its own data, no folder is read: the world of recommend_scale (Zipf's law, 50 groups of taste), 20,000 items in random
order, 60,000 users. implicit's item-item cosine, K = 100, is the matrix of both sides; where implicit is not installed, our
own. Profiles are of users the matrix does not know: 50 or 100 items, half each, 400 in all, every strength 1. Ours by ids and
implicit's `recommend` answer each profile one after the other, who is first alternates, one thread, warmed, three rounds;
ratios are of medians. Lists: the best ten, by score rounded to 9 decimals, then by id; the profile's items are left out on
both sides. Wall time, whoever else is at work: see the load; cpu_p95_ms counts only what this process worked. --quick: 4,000
items, 12,000 users, 100 profiles, one round."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recommend_scale import made_up
from scipy import sparse

from edge_agent.answers import AnswerBook
from edge_agent.explain import Listing, WhatIf, reasons
from export.parity import overlap
from export.to_tables import Mixed, SparseRows, hybrid_tables, neighbour_tables
from protocol.feedback import Feedback, Verdict
from protocol.recommending import RecommendSpec
from protocol.reports import ModelRef, Recommendation, RecommendedItem
from protocol.tables import Hybrid, Neighbours, Tables
from protocol.tables.answers import MOST_ANSWERS
from protocol.windows import Floats
from server.algorithms.interactions import Interactions
from server.algorithms.neighbourhood import NeighbourSettings, item_neighbours

KEPT, TOP = 100, 10
LENGTHS = (50, 100)
PAST, WIDE, CASE = 2000, 64, 12
LIST, BYTES, SAME, VISIBLE_MS, REASONS, EVENT_MS = 0.6, 1 / 3, 0.99, 5.0, 1.0, 100.0
CHILD = """
import sys
import numpy as np
from protocol.tables import Hybrid
def resident():
    return [int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmRSS')][0]
before = resident()
with np.load(sys.argv[1]) as kept:
    tables = {name: kept[name] for name in kept.files}
n, users = len(tables['popularity']), len(tables['users_indptr']) - 1
hybrid = Hybrid([f'item:{k}' for k in range(n)], [f'case:{k}' for k in range(users)], tables)
for k in range(50):
    hybrid.rank({f'item:{(k * 37 + j * 101) % n}': 1.0 for j in range(12)}, 10)
print(before / 1024, resident() / 1024)
"""


@dataclass(frozen=True)
class Scale:
    """How large the world is; `rounds`: how often every profile is asked."""

    items: int = 20_000
    users: int = 60_000
    profiles: int = 400
    rounds: int = 3


QUICK = Scale(4_000, 12_000, 100, 1)


@dataclass(frozen=True)
class World:
    """chosen [users, items]; profiles: ids, ascending, of users beside them; similarity [items, items], rows in order; peer:
    implicit's model, None where it is not installed."""

    chosen: sparse.csr_matrix
    profiles: list[NDArray[np.int64]]
    similarity: sparse.csr_matrix
    peer: Any

    @property
    def rows(self) -> SparseRows:
        """The similarity as it is packed."""
        return SparseRows(self.similarity.indptr, self.similarity.indices, self.similarity.data)

    def names(self, profile: Sequence[int] | NDArray[np.int64]) -> dict[str, float]:
        """A profile as a gateway is asked."""
        return {f"item:{k}": 1.0 for k in profile}


def world(scale: Scale, cosine: Any, seed: int = 0) -> World:
    """A plant's choices, who is asked, and the matrix; `cosine`: implicit's module."""
    rng = np.random.default_rng(seed)
    everybody = made_up(scale.users, scale.items, seed)[:, rng.permutation(scale.items)].tocsr()
    everybody.sort_indices()
    long = np.flatnonzero(np.diff(everybody.indptr) >= max(LENGTHS))[: scale.profiles]
    if len(long) < scale.profiles:
        raise SystemExit(f"recommend_edge: only {len(long)} users have {max(LENGTHS)} items: more users are needed")
    profiles = [
        np.sort(rng.choice(everybody[v].indices, LENGTHS[k % 2], replace=False)).astype(np.int64)
        for k, v in enumerate(long)
    ]
    chosen = everybody[np.setdiff1d(np.arange(scale.users), long)]
    if cosine is None:
        similarity = item_neighbours(Interactions([], [], chosen), NeighbourSettings(neighbours=KEPT)).similarity
        return World(chosen, profiles, _in_order(similarity), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = cosine.CosineRecommender(K=KEPT, num_threads=1)
        peer.fit(chosen, show_progress=False)
    return World(chosen, profiles, _in_order(peer.similarity), peer)


def _in_order(matrix: Any) -> sparse.csr_matrix:
    made = sparse.csr_matrix(matrix, dtype=np.float32, copy=True)
    made.sort_indices()
    return made


def taken(calls: Sequence[Callable[[int], object]], profiles: int, rounds: int) -> Floats:
    """Seconds of each call for each profile [calls, rounds * profiles]; the order of the calls alternates."""
    for call in calls:
        for k in range(min(profiles, 50)):
            call(k)
    spent = np.zeros((len(calls), rounds * profiles))
    for n in range(rounds * profiles):
        places = range(len(calls)) if n % 2 else reversed(range(len(calls)))
        for place in places:
            started = time.perf_counter()
            calls[place](n % profiles)
            spent[place, n] = time.perf_counter() - started
    return spent


def measure(sheet: contract.Sheet) -> None:
    """All rows."""
    scale = QUICK if sheet.options.quick else Scale()
    made = world(scale, contract.peer(sheet, "implicit.nearest_neighbours"))
    sheet.say(f"{made.chosen.shape} choices, {made.similarity.nnz} similarities, {len(made.profiles)} profiles")
    tables = neighbour_tables(made.rows.indptr, made.rows.ids, made.rows.weights)
    table = Neighbours([f"item:{k}" for k in range(scale.items)], tables)
    lists(sheet, made, table, scale)
    artifact(sheet, made, tables, table)
    answers(sheet, made, table)
    whole_hybrid(sheet, made)


def lists(sheet: contract.Sheet, made: World, table: Neighbours, scale: Scale) -> None:
    """Time of a list by ids and by names, and what its reasons add."""
    whole, n = not sheet.options.quick, len(made.profiles)
    ones = {length: np.ones(length) for length in LENGTHS}
    calls: list[Callable[[int], object]] = [lambda k: table.best(made.profiles[k], ones[len(made.profiles[k])], TOP)]
    if made.peer is not None:
        asked = [
            sparse.csr_matrix((np.ones(len(p), dtype=np.float32), p, [0, len(p)]), shape=(1, scale.items))
            for p in made.profiles
        ]
        calls.append(lambda k: made.peer.recommend(0, asked[k], N=TOP))
    spent = taken(calls, n, scale.rounds) * 1e6
    named = [made.names(profile) for profile in made.profiles]
    plain, with_reasons = taken(
        [lambda k: table.rank(named[k], TOP, reasons=False), lambda k: table.rank(named[k], TOP)], n, scale.rounds
    )
    p50 = np.median(spent, axis=1)
    theirs = float(p50[1]) if made.peer is not None else None
    what = f"top-10 of {scale.items:,} items, profiles of {LENGTHS[0]} and {LENGTHS[1]}"
    long = np.array([len(made.profiles[k % n]) for k in range(spent.shape[1])]) == LENGTHS[1]
    at_length: list[float | None] = [None, None]
    if theirs is not None:
        at_length = [_short(np.median(spent[0, at]) / np.median(spent[1, at])) for at in (~long, long)]
    ratio = None if theirs is None else float(p50[0]) / theirs
    sheet.row(
        what,
        "p50 by ids / implicit",
        ratio,
        target=LIST,
        holds=ratio <= LIST if whole and ratio is not None else None,
        n=n,
        ours_us=_short(p50[0]),
        ours_p95_us=_short(np.quantile(spent[0], 0.95)),
        implicit_us=_short(theirs),
        implicit_p95_us=_short(np.quantile(spent[1], 0.95)) if theirs is not None else None,
        ratio_50=at_length[0],
        ratio_100=at_length[1],
    )
    listed = float(np.median(plain)) * 1e6
    sheet.row(
        "the same by names, answers possible",
        "p50 / implicit",
        None if theirs is None else listed / theirs,
        n=n,
        ours_us=_short(listed),
        ours_p95_us=_short(np.quantile(plain, 0.95) * 1e6),
    )
    added = (float(np.median(with_reasons)) - float(np.median(plain))) * 1e6
    sheet.row(
        "exact reasons of all ten",
        "added p50 / list by names",
        added / listed,
        target=REASONS,
        holds=added <= REASONS * listed if whole else None,
        n=n,
        added_us=_short(added),
        to_implicit=None if theirs is None else _short(added / theirs),
    )


def artifact(sheet: contract.Sheet, made: World, tables: Tables, table: Neighbours) -> None:
    """Size as stored, and what int8 changes in the lists."""
    whole = not sheet.options.quick
    size = sum(array.nbytes for array in tables.values())
    share = size / made.rows.float_bytes
    sheet.row(
        "tables of the neighbours",
        "bytes / float32 CSR",
        share,
        target=BYTES,
        holds=share <= BYTES if whole else None,
        n=made.similarity.nnz,
        mib=_short(size / 2**20),
    )
    exact, ours = [], []
    wide = sparse.csr_matrix(made.similarity, dtype=np.float64)
    for profile in made.profiles:
        score = np.asarray(wide[profile].sum(axis=0)).ravel()
        score[profile] = 0.0
        order = np.lexsort((np.arange(len(score)), -np.round(score, 9)))[:TOP]
        exact.append([table.items[i] for i in order if score[i] > 0])
        ours.append([found.item for found in table.rank(made.names(profile), TOP, reasons=False)])
    same = overlap(ours, exact)
    sheet.row(
        "int8 against the same matrix in float32",
        "overlap@10",
        same,
        target=SAME,
        holds=same >= SAME if whole else None,
        n=len(exact),
    )


def answers(sheet: contract.Sheet, made: World, table: Neighbours) -> None:
    """From an answer that comes in to the next list that knows it: written to disk, learned, ranked; beside as many answers
    as a gateway compares with."""
    rng = np.random.default_rng(5)
    n = len(made.profiles)
    spec = RecommendSpec(candidates=["item:"])

    def told(k: int) -> tuple[Recommendation, Feedback]:
        item, names = f"item:{rng.integers(len(table.items))}", list(made.names(made.profiles[k % n]))
        shown = Recommendation(
            id=f"list-{k}", event=f"event-{k}", machine="M", issued_ms=1 + k, profile=names,
            items=[RecommendedItem(item=item, position=1, score=1.0)], model=ModelRef("recommend.items", "", 1, "0" * 64),
        )  # fmt: skip
        verdict = Verdict.ACCEPTED if k % 2 else Verdict.REJECTED
        return shown, Feedback(id=f"answer-{k}", target=shown.id, item=item, verdict=verdict, time_ms=1 + k)

    spent, worked, stored = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        book = AnswerBook(Path(folder) / "answers.db")
        for k in range(MOST_ANSWERS + n):
            shown, answer = told(k)
            book.show(shown)
            started, began = time.perf_counter(), time.thread_time()
            book.take(answer)
            taken_at = time.perf_counter()
            if k >= MOST_ANSWERS:
                stored.append((taken_at - started) * 1e3)
                table.learned(book.local(spec)).rank(made.names(made.profiles[k % n]), TOP, reasons=False)
                spent.append((time.perf_counter() - started) * 1e3)
                worked.append((time.thread_time() - began) * 1e3)
        book.close()
    p95 = float(np.quantile(spent, 0.95))
    what = f"one answer shows in the next list, {MOST_ANSWERS} are known"
    sheet.row(
        what,
        "p50 ms",
        float(np.median(spent)),
        n=n,
        cpu_ms=_short(np.median(worked)),
        disk_ms=_short(np.median(stored)),
    )
    sheet.note("disk_ms: of it the book's own part, which ends when the disk says that the answer is safe")
    holds = None if sheet.options.quick else p95 <= VISIBLE_MS
    sheet.row(
        what,
        "p95 ms",
        p95,
        target=VISIBLE_MS,
        holds=holds,
        n=n,
        cpu_p95_ms=_short(np.quantile(worked, 0.95)),
        beside_disk_p95_ms=_short(np.quantile(np.subtract(spent, stored), 0.95)),
    )


def whole_hybrid(sheet: contract.Sheet, made: World) -> None:
    """Every part at once: items, past rows, content; a list, a whole event with all its reasons, memory."""
    tables = parts(made)
    n, users = len(tables["popularity"]), len(tables["users_indptr"]) - 1
    hybrid = Hybrid([f"item:{k}" for k in range(n)], [f"case:{k}" for k in range(users)], tables)
    rng = np.random.default_rng(7)
    cases = [made.names(rng.choice(profile, CASE, replace=False).tolist()) for profile in made.profiles]
    (spent,) = taken([lambda k: hybrid.rank(cases[k], TOP, reasons=False)], len(cases), 1) * 1e3
    what = f"hybrid: {n:,} items, {users:,} past rows, content {WIDE}"
    sheet.row(what, "list p50 ms", float(np.median(spent)), n=len(cases), p95_ms=_short(np.quantile(spent, 0.95)))
    asked = cases[: max(len(cases) // 8, 4)]

    worked = []

    def event(k: int) -> None:
        began = time.thread_time()
        what_if = WhatIf(hybrid, Listing(asked[k], 5))
        for shown in hybrid.rank(asked[k], 5):
            reasons(shown, what_if)
        worked.append((time.thread_time() - began) * 1e3)

    (whole,) = taken([event], len(asked), 1) * 1e3
    p95 = float(np.quantile(whole, 0.95))
    sheet.row(
        "an event: five items, all reasons and what flips them",
        "p95 ms",
        p95,
        target=EVENT_MS,
        holds=None if sheet.options.quick else p95 <= EVENT_MS,
        n=len(asked),
        p50_ms=_short(np.median(whole)),
        cpu_p95_ms=_short(np.quantile(worked, 0.95)),
    )
    before, loaded = resident(tables)
    sheet.row(
        what,
        "RSS MiB, loaded and asked",
        loaded,
        reference=before,
        n=1,
        tables_mib=_short(sum(array.nbytes for array in tables.values()) / 2**20),
    )
    sheet.note("the reference of RSS is Python with numpy and this module's imports, before any table is loaded")


def parts(made: World) -> Tables:
    """A hybrid of this world; content says which items are chosen together, and some noise."""
    rng = np.random.default_rng(3)
    past = sparse.csr_matrix(made.chosen[:PAST])
    popularity = np.asarray(made.chosen.sum(axis=0), dtype=np.float64).ravel()
    taste = np.asarray(made.chosen.T @ rng.normal(size=(made.chosen.shape[0], WIDE)), dtype=np.float64)
    taste += rng.normal(size=taste.shape)
    mix = Mixed([0, 1, 5], np.array([[1, 0, 0, 0], [0.5, 1, 0.5, 0.3], [0.2, 1, 0.5, 0.2]]), np.ones((3, 4)))
    return hybrid_tables(
        popularity / max(popularity.max(), 1.0),
        mix,
        made.rows,
        SparseRows(past.indptr, past.indices, past.data),
        vectors=taste,
    )


def resident(tables: Tables) -> tuple[float, float]:
    """MiB of a process of its own: before a table is loaded, and with a hybrid that was asked."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tables.npz"
        np.savez(path, allow_pickle=False, **tables)
        ran = subprocess.run(
            [sys.executable, "-c", CHILD, str(path)], cwd=contract.ROOT, check=True, capture_output=True, text=True
        )
    before, loaded = map(float, ran.stdout.split())
    return before, loaded


def _short(value: Any) -> float | None:
    return None if value is None else float(f"{float(value):.4g}")


if __name__ == "__main__":
    sys.exit(contract.run("recommend_edge", __doc__, measure, needs_data=False))
