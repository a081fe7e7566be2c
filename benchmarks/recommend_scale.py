"""Neighbours at scale: fit time and memory against implicit's cosine, and answers of user-based filtering on request.

    python benchmarks/recommend_scale.py [--quick] [--json]

Makes its own data, no folder is read: 100,000 users x 20,000 items, about 4 M events, item popularity by Zipf's law and 50
groups of taste. One thread each. Every fit runs in a process of its own that has loaded the same matrix, so that peaks can
be compared: `memory of the fit` is the peak above what the process held with the data loaded; the whole peak is beside it.
Compiling is not fitting: ours is warmed on a tiny matrix before. The neighbours kept are 100; implicit counts the item
itself among its 100, ours does not. The median of REPEATS fits counts. --quick: 10,000 x 4,000."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

KEPT = 100
ASKED = 500
REPEATS = 3
GROUPS = 50
MIB = 1024 * 1024


def made_up(users: int, items: int, seed: int = 0) -> sparse.csr_matrix:
    """Events [U, I], strength 1: three of four from the user's group of items, popularity ~ rank^-0.8, some 41 a user."""
    rng = np.random.default_rng(seed)
    count = np.minimum(np.maximum(rng.lognormal(3.68, 0.8, users).astype(np.int64), 5), items // 4)
    who = np.repeat(np.arange(users), count)
    groups = min(GROUPS, items // 2)
    share = 1 / np.arange(1, items + 1) ** 0.8
    what = rng.choice(items, len(who), p=share / share.sum())
    of_taste = rng.random(len(who)) < 0.75
    taste = rng.integers(groups, size=users)[who]
    what = np.where(of_taste, np.minimum(what // groups * groups + taste, items - 1), what)
    matrix = sparse.csr_matrix((np.ones(len(who), dtype=np.float32), (who, what)), shape=(users, items))
    matrix.data[:] = 1
    return matrix


def fitted(kind: str, path: Path) -> dict[str, float]:
    """One fit in this process: seconds, memory above the loaded data and the whole peak [MiB]."""
    matrix = sparse.csr_matrix(sparse.load_npz(path))
    fit = _ours if kind == "ours" else _implicit
    warm = sparse.csr_matrix(np.triu(np.ones((8, 8), dtype=np.float32)))
    fit(warm)
    before, watch = _resident(), _Watch()
    started = time.perf_counter()
    with watch:
        model = fit(matrix)
    seconds = time.perf_counter() - started
    del model
    # not ru_maxrss: a child's starts at what its parent held when it forked
    return {"seconds": seconds, "fit_mib": (watch.most - before) / MIB, "peak_mib": watch.most / MIB}


def _ours(matrix: sparse.csr_matrix) -> Any:
    from server.algorithms.interactions import Interactions
    from server.algorithms.neighbourhood import NeighbourSettings, item_neighbours

    return item_neighbours(Interactions([], [], matrix), NeighbourSettings(neighbours=KEPT))


def _implicit(matrix: sparse.csr_matrix) -> Any:
    from implicit.nearest_neighbours import CosineRecommender

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = CosineRecommender(K=KEPT, num_threads=1)
        model.fit(matrix, show_progress=False)
    return model


def _resident() -> int:
    """Resident bytes of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Watch:
    """The most resident memory while it is open, looked at every 5 ms."""

    def __init__(self) -> None:
        self.most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while True:
            self.most = max(self.most, _resident())
            if self._done.wait(0.005):
                return

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.most = max(self.most, _resident())


def apart(kinds: list[str], path: Path) -> dict[str, dict[str, float]]:
    """The medians of several fits of each kind, each in a process of its own, taking turns so that a load meets all."""
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(REPEATS):
        for kind in kinds:
            command = [sys.executable, __file__, "--fit", kind, str(path)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs[kind].append(json.loads(done.stdout))
    return {
        kind: {name: float(np.median([run[name] for run in told])) for name in told[0]} for kind, told in runs.items()
    }


def answers(matrix: sparse.csr_matrix, asked: int = ASKED) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Milliseconds of user-based lists of ten on request, profile to list, for users spread over the matrix."""
    from server.algorithms.interactions import Interactions
    from server.algorithms.neighbourhood import NeighbourSettings, ranked, user_neighbours

    users, items = ([str(k) for k in range(count)] for count in matrix.shape)
    model = user_neighbours(Interactions(users, items, matrix), NeighbourSettings(neighbours=KEPT))
    ranked(model.score_row(matrix[0])[None], 10, matrix[0])
    took = []
    for user in np.linspace(0, matrix.shape[0] - 1, asked).astype(int):
        row = matrix[user]
        started = time.perf_counter()
        ranked(model.score_row(row)[None], 10, row)
        took.append(time.perf_counter() - started)
    return np.array(took) * 1000


def measure(sheet: contract.Sheet) -> None:
    """Rows for the fit's time and memory, and for answers on request."""
    users, items = (10_000, 4_000) if sheet.options.quick else (100_000, 20_000)
    matrix = made_up(users, items)
    sheet.say(f"{users} users, {items} items, {matrix.nnz} events")
    there = contract.peer(sheet, "implicit") is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.npz"
        sparse.save_npz(path, matrix, compressed=False)
        found = apart(["ours", "implicit"] if there else ["ours"], path)
    own, other = found["ours"], found.get("implicit")
    for name, metric in (
        ("seconds", "fit [s]"),
        ("fit_mib", "memory of the fit [MiB]"),
        ("peak_mib", "whole peak [MiB]"),
    ):
        peer = other[name] if other else None
        sheet.row(
            f"item neighbours, {users // 1000}k x {items // 1000}k",
            metric,
            own[name],
            peers={"implicit cosine": peer},
            target=peer,
            holds=None if peer is None or sheet.options.quick else own[name] <= peer,
            n=matrix.nnz,
            seconds=own["seconds"],
            ratio=None if not peer else round(own[name] / peer, 3),
        )
    took = answers(matrix, 50 if sheet.options.quick else ASKED)
    sheet.row(
        "user neighbours on request",
        "p50 [ms]",
        float(np.median(took)),
        target=2.0,
        holds=None if sheet.options.quick else bool(np.median(took) <= 2.0),
        n=len(took),
    )
    sheet.row("user neighbours on request", "p95 [ms]", float(np.quantile(took, 0.95)), n=len(took))
    sheet.note(
        f"one thread each, {KEPT} neighbours; medians of {REPEATS} fits, each in its own process; ours is warmed on a tiny "
        "matrix first (compiled code is kept on disk), so compiling is not in the figures; memory of the fit is "
        "resident memory at its peak less that with the data loaded"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fit"]:
        print(json.dumps(fitted(sys.argv[2], Path(sys.argv[3]))))
        sys.exit(0)
    sys.exit(contract.run("recommend_scale", __doc__, measure, needs_data=False))
