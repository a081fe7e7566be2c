"""Order search on short weekly series: seconds and accuracy of our search beside pmdarima's and statsforecast's.

Data: M4 Weekly, series of at most 500 values, m = 1, 13 steps ahead; sMAPE and MASE as in the competition. Every peer sees
the same series one after the other in one process on one thread. Compilation is paid before the clock starts and named in
a note. Reference: Naive2, which is the last value at m = 1. "Pool" is the product's forecast (`arima_pool`: the searched
order among five, and two harmonics of the year where the series holds three years), "search alone" its first member."""

from __future__ import annotations

import contract

# isort: split
import time
import warnings
from collections.abc import Callable

import m4
import numpy as np

LONGEST = 500
QUICK = 8
WEEKS_A_YEAR = 365.25 / 7
Forecaster = Callable[[m4.Floats], m4.Floats]


def pooled(train: m4.Floats, horizon: int) -> m4.Floats:
    """Our search with its companions; a week's long period is the year."""
    from server.algorithms import arima_pool

    return arima_pool.fit(train, period=WEEKS_A_YEAR).forecast(horizon)


def searched(train: m4.Floats, horizon: int) -> m4.Floats:
    """Our search alone."""
    from server.algorithms import arima_search

    return arima_search.search(train)[0].forecast(train, horizon)


def statsforecast_arima(sheet: contract.Sheet) -> Callable[[m4.Floats, int], m4.Floats] | None:
    """AutoARIMA(season_length=1) with its defaults."""
    models = contract.peer(sheet, "statsforecast.models")
    if models is None:
        return None
    return lambda train, horizon: np.asarray(models.AutoARIMA(season_length=1).forecast(y=train, h=horizon)["mean"])


def pmdarima_arima(sheet: contract.Sheet) -> Callable[[m4.Floats, int], m4.Floats] | None:
    """auto_arima(stepwise=True) with its defaults."""
    pmdarima = contract.peer(sheet, "pmdarima")
    if pmdarima is None:
        return None

    def answer(train: m4.Floats, horizon: int) -> m4.Floats:
        found = pmdarima.auto_arima(train, seasonal=False, stepwise=True, suppress_warnings=True, error_action="ignore")
        return np.asarray(found.predict(horizon), dtype=np.float64)

    return answer


def compile_first(sheet: contract.Sheet) -> None:
    """Pays for compilation, which happens once per machine (it is cached on disk)."""
    started = time.perf_counter()
    walk = 50 + np.cumsum(np.random.default_rng(1).standard_normal(80))
    pooled(walk, 13)
    pooled(np.tile(walk, 3), 13)
    sheet.note(f"compiling the search, or loading its cache, took {time.perf_counter() - started:.1f} s, not counted")


class Board:
    """Errors and seconds of every contestant over the same series."""

    def __init__(self, names: list[str]) -> None:
        self.errors: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        self.seconds: dict[str, list[float]] = {name: [] for name in names}

    def enter(self, name: str, series: m4.Series, answer: Callable[[m4.Floats, int], m4.Floats]) -> None:
        """One contestant's answer to one series."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the peers' own, about starting values
            started = time.perf_counter()
            forecast = answer(series.train, len(series.test))
            self.seconds[name].append(time.perf_counter() - started)
        self.errors[name].append((m4.smape(series.test, forecast), m4.mase(series.test, forecast, series.train, 1)))

    def mean(self, name: str, column: int) -> float | None:
        """Mean sMAPE (0) or MASE (1); None where the contestant is absent."""
        return float(np.mean([e[column] for e in self.errors[name]])) if self.errors.get(name) else None

    def beside(self, name: str, column: int) -> str:
        """Ours against a contestant, series by series, in words: whether a difference of means says anything."""
        gap = np.array(
            [ours[column] - theirs[column] for ours, theirs in zip(self.errors["ours"], self.errors[name], strict=True)]
        )
        error = float(np.std(gap, ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else float("nan")
        return (
            f"ours is lower than {name} on {int((gap < 0).sum())} of {len(gap)} series; "
            f"mean difference {gap.mean():+.3f}, standard error {error:.3f}"
        )

    def cost(self, name: str) -> float | None:
        """Mean seconds per series."""
        return float(np.mean(self.seconds[name])) if self.seconds.get(name) else None


def measure(sheet: contract.Sheet) -> None:
    """Fills the sheet."""
    chosen = [s for s in m4.read(sheet, "Weekly") if len(s.train) <= LONGEST]
    if sheet.options.quick:
        chosen = chosen[:: max(len(chosen) // QUICK, 1)]
        sheet.note(f"quick: {len(chosen)} series, evenly spread")
    if not chosen:
        raise SystemExit(f"{sheet.name}: no series of at most {LONGEST} values in that folder")
    compile_first(sheet)
    peers = {"statsforecast AutoARIMA": statsforecast_arima(sheet), "pmdarima auto_arima": pmdarima_arima(sheet)}
    present = {name: answer for name, answer in peers.items() if answer is not None}
    for answer in present.values():
        answer(50 + np.cumsum(np.random.default_rng(1).standard_normal(80)), 13)  # their first call is not timed either
    board = Board(["ours", "search alone", "naive2", *present])
    for i, series in enumerate(chosen):
        board.enter("ours", series, pooled)
        board.enter("search alone", series, searched)
        board.enter("naive2", series, lambda train, horizon: m4.naive2(train, 1, horizon))
        for name, answer in present.items():
            board.enter(name, series, answer)
        if i % 10 == 9:
            sheet.say(f"{i + 1} of {len(chosen)} series")
    report(sheet, board, list(peers), len(chosen))


def report(sheet: contract.Sheet, board: Board, peers: list[str], n: int) -> None:
    """Rows: accuracy, seconds, ratios."""
    for column, metric in enumerate(("sMAPE", "MASE")):
        for what, name in (("order search with its pool", "ours"), ("order search alone", "search alone")):
            best = board.mean("statsforecast AutoARIMA", column)
            target = None if best is None else best * 1.01
            ours = board.mean(name, column)
            holds = None if target is None or ours is None else ours <= target
            against = {peer: board.mean(peer, column) for peer in peers}
            reference = board.mean("naive2", column)
            sheet.row(what, metric, ours, reference=reference, peers=against, target=target, holds=holds, n=n)
        if board.errors.get("statsforecast AutoARIMA"):
            sheet.note(f"{metric}: {board.beside('statsforecast AutoARIMA', column)}")
    cost = board.cost("ours")
    costs = {peer: board.cost(peer) for peer in peers}
    sheet.row("seconds per series, pool", "s", cost, peers=costs, n=n, seconds=sum(board.seconds["ours"]))
    sheet.row("seconds per series, search alone", "s", board.cost("search alone"), peers=costs, n=n)
    for peer, target in (("pmdarima auto_arima", 5.0), ("statsforecast AutoARIMA", 1.0)):
        theirs = costs[peer]
        ratio = None if theirs is None or not cost else theirs / cost
        holds = None if ratio is None else ratio >= target
        sheet.row(f"times faster than {peer}", "ratio", ratio, target=target, holds=holds, n=n)


if __name__ == "__main__":
    raise SystemExit(contract.run("forecast_search", __doc__, measure))
