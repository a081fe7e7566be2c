"""Spare-part demand as a distribution: the global LSTM against Croston, SBA, TSB, ADIDA, IMAPA and the empirical quantile.

Every table *.csv(.gz) of the folder is one fleet: a row a part, a column a month (headings such as 1998-01, or bare
numbers), with or without a first column of part ids; an empty cell was not recorded. The newest 12 months are the test
where there are 36 months or more, else the newest 6; everything is chosen on the same number of months before them.

Scored on observed cells, the forecast issued once, before the first test month: pinball loss of the 0.95 quantile of
monthly demand; RMSE and bias of the period's total over parts observed throughout; cost of holding the 0.95 quantile of
the total in stock for that period (1 a unit left over, 19 a unit short). A reference that is a rate gets the negative
binomial of that rate and of the part's own variance about it. `--quick`: every eighth part of each table, three epochs."""

from __future__ import annotations

import csv
import gzip
import re
import time
from dataclasses import dataclass
from pathlib import Path

import contract
import numpy as np
from numpy.typing import NDArray

from protocol.demand_windows import DemandAhead, Floats, demand_ahead, demand_windows, month_number, usual_horizon
from server.algorithms import demand, intermittent

LEVEL = 0.95
HOLDING, SHORTAGE = 1.0, 19.0
MOST_BIAS = 0.05
TARGETED = ("sba", "sba_0.1", "tsb", "tsb_0.1", "empirical")
FEWEST_MONTHS = 2 * 6 + demand.FEWEST_ORIGIN_MONTHS + 1
_MONTH = re.compile(r"\d{4}-\d{2}")
_MISSING = ("", "NA", "NaN", "nan")


@dataclass(frozen=True)
class Fleet:
    """One table. counts [N, T]; first_month "" where headings are no months."""

    name: str
    first_month: str
    counts: Floats


@dataclass(frozen=True)
class Answer:
    """What one method says: quantile of each month [N, H] or [N, 1], total [N], and the stock that covers the total."""

    quantile: Floats
    total: Floats
    stock: Floats


def measure(sheet: contract.Sheet) -> None:
    found = {path: read(path) for path in sheet.find(sheet.options.test, "*.csv", "*.csv.gz")}
    for path in [path for path, fleet in found.items() if fleet is None]:
        sheet.note(f"{path.name} is no table of parts by at least {FEWEST_MONTHS} months: left out")
    sheet.note(
        "pinball and stock cost judge the distribution, RMSE and bias the total; MAE stands beside them only because it is "
        "often quoted: a forecast of zero for every part wins it where most months are zero, and orders nothing"
    )
    for fleet in found.values():
        if fleet is not None:
            _one(sheet, fleet)


def read(path: Path) -> Fleet | None:
    """A table of parts by months; a first column whose heading is no month and no number is the part's id. None for a
    table of something else, or one too short to test on."""
    with (
        gzip.open(path, "rt", encoding="utf-8-sig")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8-sig") as lines
    ):
        rows = [row for row in csv.reader(lines) if row]
    if len(rows) < 2:
        return None
    head = [cell.strip() for cell in rows[0]]
    first = 0 if _MONTH.match(head[0]) or head[0].isdigit() else 1
    try:
        counts = np.array([[_units(cell) for cell in row[first : len(head)]] for row in rows[1:]])
    except ValueError:
        return None
    if counts.ndim != 2 or counts.shape[1] < FEWEST_MONTHS:
        return None
    return Fleet(path.name.split(".")[0], head[first][:7] if _MONTH.match(head[first]) else "", counts)


def _units(cell: str) -> float:
    return np.nan if cell.strip() in _MISSING else float(cell)


def _one(sheet: contract.Sheet, fleet: Fleet) -> None:
    counts = fleet.counts[::8] if sheet.options.quick else fleet.counts
    months = counts.shape[1]
    horizon = usual_horizon(months)
    learned, test = counts[:, :-horizon], counts[:, -horizon:]
    next_month = (month_number(fleet.first_month) + months - horizon) % 12 if fleet.first_month else None
    settings = demand.DemandSettings(epochs=3) if sheet.options.quick else demand.DemandSettings()
    started, spent = time.perf_counter(), time.process_time()
    fitted = demand.fit(learned, horizon, next_month, settings, lambda _, step: sheet.say(f"{fleet.name}: {step}"))
    seconds, spent = time.perf_counter() - started, time.process_time() - spent
    windows = demand_windows(learned, next_month or 0, fitted.spec)
    floating = demand_ahead(windows, demand.answer(fitted.net, windows.x), fitted.spec)
    ours = _ours(demand_ahead(windows, _packed(fitted.net, windows.x), fitted.spec))
    change = demand.pinball(test, ours.quantile, LEVEL) / demand.pinball(test, _ours(floating).quantile, LEVEL) - 1
    others = _references(learned, horizon)
    others |= _peers(sheet, learned, horizon, others)
    parameters = sum(p.numel() for p in fitted.net.parameters())
    spec = fitted.spec
    sheet.note(
        f"{fleet.name}: {len(counts)} parts, {months - horizon} months to learn from, {horizon} to test; {parameters} "
        f"parameters, {fitted.epochs} epochs, {spent:.0f} CPU seconds; scored as int8, whose pinball loss is {change:+.2%} "
        f"of the float network's; anchor: discount {spec.discount}, {spec.prior_months} prior months; "
        f"level {spec.level:.3f}"
    )
    covered = float(np.mean((test <= ours.quantile)[np.isfinite(test)]))
    _rows(sheet, fleet, test, ours, others, covered, seconds)


def _rows(
    sheet: contract.Sheet,
    fleet: Fleet,
    test: Floats,
    ours: Answer,
    others: dict[str, Answer],
    covered: float,
    took: float,
) -> None:
    whole = np.isfinite(test).all(axis=1)
    actual = test[whole].sum(axis=1)
    cells, parts = int(np.isfinite(test).sum()), int(whole.sum())

    def pinball(one: Answer) -> float:
        return demand.pinball(test, one.quantile, LEVEL)

    def rmse(one: Answer) -> float:
        return float(np.sqrt(np.mean((one.total[whole] - actual) ** 2)))

    def bias(one: Answer) -> float:
        return float(one.total[whole].sum() / actual.sum() - 1)

    def error(one: Answer) -> float:
        return float(np.mean(np.abs(one.total[whole] - actual)))

    def cost(one: Answer) -> float:
        gap = one.stock[whole] - actual
        return float(np.mean(HOLDING * np.maximum(gap, 0) + SHORTAGE * np.maximum(-gap, 0)))

    for what, metric, score, n in (
        ("monthly demand", "pinball(0.95)", pinball, cells),
        ("period total", "RMSE [units]", rmse, parts),
        ("period total", "bias", bias, parts),
        ("period total, MAE (zero wins)", "MAE [units]", error, parts),
        ("stock for the period", "cost per part", cost, parts),
    ):
        beside: dict[str, float | None] = {name: score(one) for name, one in others.items()}
        if score is error:
            beside["all_zero"] = float(np.mean(actual))
        mine = score(ours)
        target = min(value for name, value in beside.items() if name in TARGETED and value is not None)
        judged: bool | None = mine < target if score in (pinball, rmse) else None
        if score is bias:
            target, judged = MOST_BIAS, abs(mine) <= MOST_BIAS
        if sheet.options.quick:
            judged = None
        sheet.row(
            f"{fleet.name}: {what}",
            metric,
            mine,
            reference=min((beside[name] for name in TARGETED), key=lambda value: abs(value or 0.0)),
            peers=beside,
            target=target if score in (pinball, rmse, bias) else None,
            holds=judged,
            n=n,
            seconds=took,
            **({"coverage": round(covered, 4)} if score is pinball else {}),
        )


def _packed(net: demand.DemandLstm, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The answers of the int8 graph, as a gateway computes them."""
    import torch

    from export.parity import Graph
    from export.quantize import quantize
    from export.to_onnx import to_onnx

    return Graph(quantize(to_onnx(net, torch.from_numpy(np.tile(x[:1], (2, 1, 1))))))(x)


def _ours(ahead: DemandAhead) -> Answer:
    return Answer(ahead.month_quantile(LEVEL), ahead.total_mean[:, -1], ahead.total_quantile(LEVEL)[:, -1])


def _references(learned: Floats, horizon: int) -> dict[str, Answer]:
    found = {
        name: _from_rates(method(learned), horizon)
        for name, method in (
            ("sba", intermittent.sba),
            ("sba_0.1", lambda table: intermittent.sba(table, 0.1)),
            ("tsb", intermittent.tsb),
            ("tsb_0.1", lambda table: intermittent.tsb(table, 0.1, 0.1)),
            ("croston", intermittent.croston),
            ("ses", intermittent.ses),
            ("adida", intermittent.adida),
            ("imapa", intermittent.imapa),
        )
    }
    mean = intermittent.mean(learned)
    quantile = intermittent.empirical_quantile(learned, LEVEL)[:, None]
    return {"empirical": Answer(quantile, mean.rate * horizon, mean.total_quantile(LEVEL, horizon))} | found


def _from_rates(rates: intermittent.Rates, horizon: int) -> Answer:
    return Answer(rates.month_quantile(LEVEL)[:, None], rates.rate * horizon, rates.total_quantile(LEVEL, horizon))


def _peers(sheet: contract.Sheet, learned: Floats, horizon: int, ours: dict[str, Answer]) -> dict[str, Answer]:
    """statsforecast's own SBA, TSB, ADIDA and IMAPA on the recorded months, and as a note how far ours are from them. Its
    SBA and TSB take weights (0.1; 0.2, 0.2); ours choose theirs, so that those rows differ."""
    models = contract.peer(sheet, "statsforecast.models")
    if models is None:
        return {}
    made = {
        "statsforecast_sba": (models.CrostonSBA(), intermittent.sba(learned, 0.1)),
        "statsforecast_tsb": (models.TSB(0.2, 0.2), intermittent.tsb(learned, 0.2, 0.2)),
        "statsforecast_adida": (models.ADIDA(), None),
        "statsforecast_imapa": (models.IMAPA(), None),
    }
    found: dict[str, Answer] = {}
    for name, (model, same) in made.items():
        rate = np.array([_peer_rate(model, row[np.isfinite(row)]) for row in learned])
        mine = same.rate if same is not None else ours[name.removeprefix("statsforecast_")].total / horizon
        off = float(np.nanmax(np.abs(rate - mine)))
        near = float(np.nanmean(np.abs(rate - mine) <= 0.01 * np.abs(rate) + 1e-6))
        sheet.note(f"{name} and ours at the same settings: largest difference {off:.2g} a month, {near:.1%} within 1 %")
        rates = intermittent.about(learned, np.where(np.isfinite(rate), rate, 0.0))
        found[name] = _from_rates(rates, horizon)
    return found


def _peer_rate(model: object, row: Floats) -> float:
    if not (row > 0).any():
        return 0.0
    answer = model.forecast(y=row.astype(np.float32), h=1)  # type: ignore[attr-defined]
    return float(answer["mean"][0])


if __name__ == "__main__":
    raise SystemExit(contract.run("spare_parts", __doc__, measure))
