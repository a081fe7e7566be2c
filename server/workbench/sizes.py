"""Error against size of the networks that one training made by pruning: sizes.json and a picture."""

from __future__ import annotations

from pathlib import Path

import msgspec

from protocol.bundles import Passport
from server.training.course import SIZES, WORTH_PRUNING, Size

FILE, PICTURE = "sizes.json", "sizes.png"


def write(folder: Path, passport: Passport) -> None:
    """Writes the curve that a passport tells of, if it does. The picture only where there is matplotlib."""
    told = passport.lineage.parameters.get(SIZES)
    if told is None:
        return
    sizes = msgspec.json.decode(told, type=list[Size])
    taken = float(passport.lineage.parameters["pruned"])
    body = {"slot": passport.slot, "taken": taken, "sizes": sizes}
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n")
    try:
        draw(folder / PICTURE, sizes, taken)
    except ModuleNotFoundError:
        return  # matplotlib is part of the extra `train`; without it there is everything but the picture


def draw(path: Path, sizes: list[Size], taken: float) -> None:
    """Error over the number of weights; the bound and what was taken are marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.plot([one.parameters for one in sizes], [one.error for one in sizes], color="#0f766e", marker="o")
    for one in sizes:
        words = f"{one.share:.0%} out" if one.share else "whole"
        panel.annotate(words, (one.parameters, one.error), textcoords="offset points", xytext=(4, 6))
    chosen = next(one for one in sizes if one.share == taken)
    panel.plot(
        [chosen.parameters], [chosen.error], "o", markersize=12, fillstyle="none", color="#b45309", label="taken"
    )
    most = sizes[0].error * (1 + WORTH_PRUNING)
    panel.axhline(most, color="#94a3b8", linestyle=":", label=f"{WORTH_PRUNING:.0%} worse than whole")
    panel.set_xscale("log")
    panel.set_xlabel("weights that are not zero")
    panel.set_ylabel("error, simple reference = 1")
    panel.legend(loc="best")
    figure.savefig(path, dpi=100)
