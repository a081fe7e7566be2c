"""A whole fleet of hourly series, learned and forecast on one core: M4 Hourly, m = 24, h = 48, every series in the folder.

    python benchmarks/forecast_hourly.py --data DIR [--quick] [--json]

Ours: one closed-form ridge shared by all series with a correction per series (server/algorithms/ridge.py), logarithms where
that was better, beside seasonal naive with shares per series; each choice on the last 120 hours of the training part.
`reference`: seasonal naive. Naive2 is what OWA is relative to. Peers: statsforecast's seasonal naive and MSTL(24, 168) with
AutoARIMA, on every 8th series (their n stands in the row); our LSTM alone in a row of its own.
--quick: every 8th series, no peers, a short LSTM."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import contract
import m4
import numpy as np
from numpy.typing import NDArray

from protocol.tables.ridge import LAST, LEVEL, Ridge
from protocol.windows import WindowSpec
from server import evaluation
from server.algorithms import combination, lstm, ridge
from server.algorithms.ridge import Member

Floats = NDArray[np.float64]
SEASON, WEEK, HORIZON, LAGS, CHECK = 24, 168, 48, 192, 120
PEER_EVERY = 8
TARGET, TARGET_S = 0.50, 60.0
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Figures:
    """Means over series."""

    smape: float
    mase: float
    owa: float


def figures(series: list[m4.Series], answers: list[Floats], naive2: list[Floats]) -> Figures:
    """sMAPE, MASE and OWA of one answer per series."""

    def both(given: list[Floats]) -> tuple[float, float]:
        return (
            float(np.mean([m4.smape(s.test, a) for s, a in zip(series, given, strict=True)])),
            float(np.mean([m4.mase(s.test, a, s.train, SEASON) for s, a in zip(series, given, strict=True)])),
        )

    (smape, mase), against = both(answers), both(naive2)
    return Figures(smape, mase, m4.owa(smape, mase, *against))


def settings(horizon: int) -> ridge.RidgeSettings:
    """A week of lags and a day more."""
    members = (Member(LEVEL, LAGS), Member(LAST, LAGS))
    return ridge.RidgeSettings(horizon, SEASON, members, span=WEEK, check=CHECK)


def fleet(sheet: contract.Sheet, trains: list[Floats], horizon: int) -> tuple[list[Floats], list[Floats]]:
    """(ridge alone, with shares of seasonal naive) per series."""
    chosen = settings(horizon)
    fitted = ridge.fit(trains, chosen, lambda _share, step: sheet.say(step))
    if fitted is None:
        raise SystemExit("forecast_hourly: the series are too short to learn from")
    sheet.note(f"chosen on the last {CHECK} hours of the training part: {fitted.chosen}")
    alone: list[Floats] = []
    blended: list[Floats] = []
    model = fitted.model()
    for s, (train, share) in enumerate(zip(trains, shares_beside(trains, fitted, chosen), strict=True)):
        answer = model.forecast(_window(train, len(train), model.context), np.array([s], dtype=np.int64))[0]
        simple = [m4.seasonal_naive(train, lag, horizon) for lag in (SEASON, WEEK)]
        alone.append(answer)
        blended.append(share[0] * answer + share[1] * simple[0] + share[2] * simple[1])
    return alone, blended


def shares_beside(trains: list[Floats], fitted: ridge.FittedRidge, chosen: ridge.RidgeSettings) -> Iterator[Floats]:
    """Per series the shares [3] of the ridge, of the day before and of the week before, from the check stretch, which the
    ridge `before` it did not learn from."""
    before = Ridge(fitted.before)
    for s, train in enumerate(trains):
        origins = np.arange(len(train) - chosen.check, len(train) - chosen.horizon + 1, 6)
        rows = np.concatenate([_window(train, int(at), before.context) for at in origins])
        actual = np.stack([train[at : at + chosen.horizon] for at in origins])
        members = np.stack(
            [
                before.forecast(rows, np.full(len(rows), s, dtype=np.int64)),
                np.stack([m4.seasonal_naive(train[:at], SEASON, chosen.horizon) for at in origins]),
                np.stack([m4.seasonal_naive(train[:at], WEEK, chosen.horizon) for at in origins]),
            ]
        )
        yield combination.shares((members - actual).reshape(3, -1))


def _window(train: Floats, at: int, steps: int) -> Floats:
    """The `steps` values before `at` [1, steps], NaN before the series begins."""
    return np.asarray(evaluation.contexts(train[None], np.array([at], dtype=np.int64), steps)[0])


def by_lstm(sheet: contract.Sheet, trains: list[Floats], horizon: int) -> list[Floats]:
    """The LSTM alone, on logarithms, one for all series, stopped early on the last hours of the training part."""
    spec = WindowSpec(step_ms=HOUR_MS, length=96, horizon=horizon, season=WEEK)
    unit = [0.01 * max(float(np.abs(train).mean()), 1e-9) for train in trains]
    grown = [np.log1p(np.maximum(train, 0) / u)[None] for train, u in zip(trains, unit, strict=True)]
    every = max(len(trains) // 20, 2)

    def lessons(first: int, last: int) -> lstm.Lessons:
        """Windows whose origins lie `first` to `last` hours before the end."""
        parts = []
        for s, values in enumerate(grown):
            end = values.shape[1]
            at = np.arange(max(end - first, spec.context), end - last + 1, every, dtype=np.int64)
            if not len(at):
                continue
            made = evaluation.input_windows(values, 0, at, spec)
            y = (values[0][at[:, None] + np.arange(horizon)] - made.center[:, None]) / made.scale[:, None]
            who = np.tile(np.array([[s + 1, 0]], dtype=np.int64), (len(at), 1))
            parts.append((made.x, np.clip(y, -20, 20).astype(np.float32), who))
        return lstm.Lessons(*(np.concatenate([part[i] for part in parts]) for i in range(3)))

    learn, check = lessons(10**6, CHECK + horizon), lessons(CHECK, horizon)
    small = lstm.LstmSettings(hidden=32, layers=1, epochs=2 if sheet.options.quick else 8, most_windows=6000)
    net = lstm.fit(learn, check, small, lambda _share, step: sheet.say(step), machines=len(trains))
    answers: list[Floats] = []
    for s, values in enumerate(grown):
        made = evaluation.input_windows(values, 0, np.array([values.shape[1]], dtype=np.int64), spec)
        q = made.unscale(lstm.answer(net, made.x, np.array([[s + 1, 0]], dtype=np.int64)))
        answers.append(np.asarray(unit[s] * np.expm1(np.clip(q[0, :, lstm.MIDDLE], 0, values.max() + 3))))
    return answers


def peers(sheet: contract.Sheet, series: list[m4.Series], horizon: int) -> dict[str, list[Floats] | None]:
    """statsforecast's answers on the given series; None where it is not installed."""
    names = ("statsforecast SeasonalNaive", "statsforecast MSTL(24,168)+AutoARIMA")
    models = contract.peer(sheet, "statsforecast.models")
    found: dict[str, list[Floats] | None] = dict.fromkeys(names)
    if models is None:
        return found
    makes: list[Any] = [
        models.SeasonalNaive(season_length=SEASON),
        models.MSTL(season_length=[SEASON, WEEK], trend_forecaster=models.AutoARIMA()),
    ]
    for name, model in zip(names, makes, strict=True):
        began = time.monotonic()
        found[name] = [np.asarray(model.forecast(y=s.train, h=horizon)["mean"], dtype=np.float64) for s in series]
        sheet.note(f"{name}: {time.monotonic() - began:.1f} s for {len(series)} series")
    return found


def measure(sheet: contract.Sheet) -> None:
    """Every series of the folder; peers on every 8th."""
    series = m4.read(sheet, "Hourly")
    if sheet.options.quick:
        series = series[::PEER_EVERY]
    trains, horizon = [s.train for s in series], len(series[0].test)
    naive2 = [m4.naive2(s.train, SEASON, horizon) for s in series]
    simple = figures(series, [m4.seasonal_naive(s.train, SEASON, horizon) for s in series], naive2)
    began = time.monotonic()
    alone, blended = fleet(sheet, trains, horizon)
    seconds = time.monotonic() - began
    ours, ridge_only = figures(series, blended, naive2), figures(series, alone, naive2)
    part = slice(None, None, 1 if sheet.options.quick else PEER_EVERY)
    beside: dict[str, Figures | None] = {}
    if not sheet.options.quick:
        for name, answers in peers(sheet, series[part], horizon).items():
            label = f"{name}, n={len(series[part])}"
            beside[label] = None if answers is None else figures(series[part], answers, naive2[part])
        beside[f"ours on the same n={len(series[part])}"] = figures(series[part], blended[part], naive2[part])
    beside["Naive2"] = figures(series, naive2, naive2)
    beside["our ridge alone"] = ridge_only
    for metric in ("owa", "smape", "mase"):
        sheet.row(
            "hourly fleet, ridge with shares of seasonal naive",
            {"owa": "OWA", "smape": "sMAPE", "mase": "MASE"}[metric],
            getattr(ours, metric),
            reference=getattr(simple, metric),
            peers={name: None if found is None else getattr(found, metric) for name, found in beside.items()},
            target=TARGET if metric == "owa" else None,
            holds=ours.owa <= TARGET if metric == "owa" and not sheet.options.quick else None,
            n=len(series),
            seconds=seconds,
        )
    sheet.row(
        "hourly fleet, learn and forecast, one core",
        "seconds",
        seconds,
        target=TARGET_S,
        holds=seconds < TARGET_S,
        n=len(series),
        seconds=seconds,
    )
    began = time.monotonic()
    neural = figures(series, by_lstm(sheet, trains, horizon), naive2)
    sheet.row(
        "hourly fleet, LSTM alone",
        "OWA",
        neural.owa,
        reference=simple.owa,
        peers={"our ridge alone": ridge_only.owa, "sMAPE": neural.smape, "MASE": neural.mase},
        n=len(series),
        seconds=time.monotonic() - began,
    )
    sheet.note("the LSTM alone is no member of ours: it loses to the closed form here and costs more than all of it")


if __name__ == "__main__":
    sys.exit(contract.run("forecast_hourly", __doc__, measure))
