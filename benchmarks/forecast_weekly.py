"""All weekly series, long and short: accuracy of the ARIMA pool beside statsforecast's AutoARIMA in the same run.

Data: M4 Weekly, every series in the folder, 13 steps ahead, sMAPE and MASE as in the competition (which scores this group
at m = 1). The peer runs at season_length = 1: at 52 its search takes minutes per long series, so that it does
not see the year, which ours sees as two harmonics where a series holds three years. Reference: Naive2."""

from __future__ import annotations

import contract

# isort: split
import m4
import numpy as np
from forecast_search import Board, compile_first, pooled, statsforecast_arima

QUICK = 12
PEER = "statsforecast AutoARIMA"


def measure(sheet: contract.Sheet) -> None:
    """Fills the sheet."""
    chosen = m4.read(sheet, "Weekly")
    if sheet.options.quick:
        chosen = chosen[:: max(len(chosen) // QUICK, 1)]
        sheet.note(f"quick: {len(chosen)} series, evenly spread")
    compile_first(sheet)
    theirs = statsforecast_arima(sheet)
    board = Board(["ours", "naive2", PEER])
    for i, series in enumerate(chosen):
        board.enter("ours", series, pooled)
        board.enter("naive2", series, lambda train, horizon: m4.naive2(train, 1, horizon))
        if theirs is not None:
            board.enter(PEER, series, theirs)
        if i % 20 == 19:
            sheet.say(f"{i + 1} of {len(chosen)} series")
    report(sheet, board, len(chosen))


def report(sheet: contract.Sheet, board: Board, n: int) -> None:
    """Rows: accuracy against the peer, overall weighted average, seconds."""
    ours, naive = [board.mean("ours", c) for c in (0, 1)], [board.mean("naive2", c) for c in (0, 1)]
    for column, metric in enumerate(("sMAPE", "MASE")):
        peer, mine = board.mean(PEER, column), ours[column]
        holds = None if peer is None or mine is None else mine < peer
        against = {PEER: peer}
        sheet.row("weekly, all", metric, mine, reference=naive[column], peers=against, target=peer, holds=holds, n=n)
        if board.errors[PEER]:
            sheet.note(f"{metric}: {board.beside(PEER, column)}")
    values = np.array([*ours, *naive], dtype=np.float64)
    sheet.row("weekly, all", "OWA", m4.owa(values[0], values[1], values[2], values[3]), reference=1.0, n=n)
    spent = board.seconds["ours"]
    sheet.row(
        "fit and forecast", "s per series", board.cost("ours"), peers={PEER: board.cost(PEER)}, n=n, seconds=sum(spent)
    )


if __name__ == "__main__":
    raise SystemExit(contract.run("forecast_weekly", __doc__, measure))
