"""One machine's condition an hour to four days ahead: ETTh1, oil temperature from its own past (Zhou et al. 2021).

    python benchmarks/forecast_ett.py --data DIR [--quick] [--json]

Rows 0:8640 train, 8640:11520 validation, 11520:14400 test, standardised with the training rows' mean and deviation; every
window of the test rows counts (stride 1, none dropped), contexts reach back into earlier rows. Everything is learned from
the training rows and chosen on the validation rows and on the last third of the training rows. `reference`:
last-value-normalised ridge on 336 lags, the strong simple one (MSE .0260 and .0530 are on record), computed here. Peers:
last value, seasonal naive, our LSTM and our ridge alone. A further row fits ridge and reference again with the validation
rows included.
--quick: h = 24 only, fewer candidates, a short LSTM."""

from __future__ import annotations

import csv
import gzip
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import contract
import numpy as np
from numpy.typing import NDArray

from protocol.tables import Ridge
from protocol.tables.ridge import LAST, LEVEL
from protocol.windows import WindowSpec, naive_forecast
from server import evaluation
from server.algorithms import combination, lstm, ridge
from server.algorithms.ridge import Member

Floats = NDArray[np.float64]
TRAIN, VALID, TEST = 8640, 11520, 14400
EARLIER = 5760
REFERENCE_LAGS = 336
STEP_MS = 3_600_000
DAY = 24
LSTM_LENGTH = 120


@dataclass(frozen=True)
class Rows:
    """The standardised target and the time of its first row."""

    values: Floats
    start_ms: int

    def origins(self, begin: int, end: int, horizon: int) -> NDArray[np.int64]:
        """First rows of every forecast that lies within [begin, end)."""
        return np.arange(begin, end - horizon + 1, dtype=np.int64)

    def before(self, origins: NDArray[np.int64], steps: int) -> Floats:
        """The `steps` rows before each origin."""
        return np.asarray(evaluation.contexts(self.values[None], origins, steps)[0])

    def after(self, origins: NDArray[np.int64], horizon: int) -> Floats:
        """What came."""
        return np.asarray(self.values[origins[:, None] + np.arange(horizon)])


def read(path: Path) -> Rows:
    """The last column of the file, standardised."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        table = list(csv.reader(lines))
    column = table[0].index("OT") if "OT" in table[0] else len(table[0]) - 1
    values = np.array([float(row[column]) for row in table[1:]])
    first = datetime.fromisoformat(table[1][0]).replace(tzinfo=UTC)
    return Rows((values - values[:TRAIN].mean()) / values[:TRAIN].std(), int(first.timestamp() * 1000))


def reference(rows: Rows, horizon: int, origins: NDArray[np.int64], end: int = TRAIN) -> Floats:
    """Last-value-normalised least squares on 336 lags, hardly ridged (penalty 1), from the rows before `end`."""
    learn = rows.origins(REFERENCE_LAGS, end, horizon)
    x, y = rows.before(learn, REFERENCE_LAGS), rows.after(learn, horizon)
    z = np.c_[x - x[:, -1:], np.ones(len(x))]
    weights = np.linalg.solve(z.T @ z + np.eye(z.shape[1]), z.T @ (y - x[:, -1:]))
    seen = rows.before(origins, REFERENCE_LAGS)
    return np.asarray(seen[:, -1:] + np.c_[seen - seen[:, -1:], np.ones(len(seen))] @ weights)


def candidates(horizon: int, quick: bool) -> list[ridge.RidgeSettings]:
    """Windows, anchors and weightings to choose among on the validation rows."""
    looks = {
        "one": (Member(LAST, 336),),
        "two": (Member(LAST, 336), Member(LEVEL, 168)),
        "four": (Member(LAST, 336), Member(LEVEL, 336), Member(LAST, 168), Member(LAST, 720)),
    }
    return [
        ridge.RidgeSettings(
            horizon,
            DAY,
            looks[look],
            span=168,
            check=VALID - TRAIN,
            penalties=(1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
            own=(),
            logarithms=False,
            evenly=evenly,
            squared=True,
        )
        for look in (("one",) if quick else looks)
        for evenly in (True, False)
    ]


@dataclass(frozen=True)
class Answer:
    """Answers to the validation rows, to the test rows, and to the test rows by the same choices fitted again with the
    validation rows included."""

    on_check: Floats
    on_test: Floats
    again: Floats


def by_ridge(
    sheet: contract.Sheet, rows: Rows, horizon: int, checked: NDArray[np.int64], tested: NDArray[np.int64]
) -> Answer:
    """The candidate, or the mean of all, with the lowest MSE relative to the reference's over two blocks: the last third of
    the training rows by what was learned before it, and the validation rows by what was learned from all training rows.
    One block is one season of the year; what wins there may lose in the next."""
    found: dict[str, Answer] = {}
    early: dict[str, Floats] = {}
    block = rows.origins(EARLIER, TRAIN, horizon)
    for settings in candidates(horizon, sheet.options.quick):
        fitted = ridge.fit([rows.values[:VALID]], settings)
        earlier = ridge.fit([rows.values[:TRAIN]], replace(settings, check=TRAIN - EARLIER, again=False))
        if fitted is None or earlier is None:
            raise SystemExit("forecast_ett: too few rows to learn from")
        before = Ridge(fitted.before)
        on_block, on_check, on_test, again = (
            model.forecast(rows.before(at, settings.context), np.zeros(len(at), dtype=np.int64))
            for model, at in ((earlier.model(), block), (before, checked), (before, tested), (fitted.model(), tested))
        )
        looks = "+".join(f"{'last' if member.kind == LAST else 'level'} {member.lags}" for member in settings.members)
        name = f"{looks}, {'windows even' if settings.evenly else 'plain'}"
        found[name], early[name] = Answer(on_check, on_test, again), on_block
    found["mean of all"] = Answer(
        *(np.mean([getattr(one, side) for one in found.values()], axis=0) for side in ("on_check", "on_test", "again"))
    )
    early["mean of all"] = np.asarray(np.mean(list(early.values()), axis=0))
    blocks = ((early, block, EARLIER), ({name: one.on_check for name, one in found.items()}, checked, TRAIN))
    losses = dict.fromkeys(found, 0.0)
    for answers, at, end in blocks:
        expected = rows.after(at, horizon)
        simple = float(np.mean((reference(rows, horizon, at, end) - expected) ** 2))
        for name, answer in answers.items():
            losses[name] += float(np.mean((answer - expected) ** 2)) / simple / len(blocks)
    for name, loss in losses.items():
        sheet.say(f"h={horizon} {name}: {loss:.4f} of the reference's MSE before the test rows")
    best = min(losses, key=lambda name: losses[name])
    sheet.note(f"h={horizon}: chosen before the test rows: {best}")
    return found[best]


def lstm_share(ridge_miss: Floats, lstm_miss: Floats) -> float:
    """The LSTM's share beside the ridge [N, H]: by validation, and only if the share of either half of the validation rows
    helps on the other half."""
    half = len(ridge_miss) // 2
    halves = (slice(0, half), slice(half, None))
    for learn, judge in (halves, halves[::-1]):
        share = combination.shares(np.stack([ridge_miss[learn].ravel(), lstm_miss[learn].ravel()]))[1]
        both = (1 - share) * ridge_miss[judge] + share * lstm_miss[judge]
        if not np.mean(both**2) < np.mean(ridge_miss[judge] ** 2):
            return 0.0
    return float(combination.shares(np.stack([ridge_miss.ravel(), lstm_miss.ravel()]))[1])


def by_lstm(
    sheet: contract.Sheet, rows: Rows, horizon: int, checked: NDArray[np.int64], tested: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """(validation, test) medians of the LSTM, stopped early on the validation rows."""
    spec = WindowSpec(step_ms=STEP_MS, length=max(LSTM_LENGTH, horizon), horizon=horizon, season=168)

    def lessons(at: NDArray[np.int64]) -> tuple[lstm.Lessons, Floats, Floats]:
        made = evaluation.input_windows(rows.values[None], rows.start_ms, at, spec)
        y = (rows.after(at, horizon) - made.center[:, None]) / made.scale[:, None]
        return lstm.Lessons(made.x, np.clip(y, -20, 20).astype(np.float32)), made.center, made.scale

    learn, _, _ = lessons(rows.origins(spec.context, TRAIN, horizon))
    check, check_center, check_scale = lessons(checked)
    test, test_center, test_scale = lessons(tested)
    settings = lstm.LstmSettings(hidden=32, layers=1, epochs=1 if sheet.options.quick else 6, most_windows=4000)
    net = lstm.fit(learn, check, settings, lambda _share, step: sheet.say(f"h={horizon} {step}"))
    on_check = lstm.answer(net, check.x)[:, :, lstm.MIDDLE] * check_scale[:, None] + check_center[:, None]
    on_test = lstm.answer(net, test.x)[:, :, lstm.MIDDLE] * test_scale[:, None] + test_center[:, None]
    return np.asarray(on_check, dtype=np.float64), np.asarray(on_test, dtype=np.float64)


def measure(sheet: contract.Sheet) -> None:
    """Both horizons."""
    rows = read(sheet.find(sheet.options.test, "ETTh1.csv*", "ETTh*.csv*")[0])
    if len(rows.values) < TEST:
        raise SystemExit(f"forecast_ett: {len(rows.values)} rows; the split needs {TEST}")
    for horizon in (24,) if sheet.options.quick else (24, 96):
        began = time.monotonic()
        checked, tested = rows.origins(TRAIN, VALID, horizon), rows.origins(VALID, TEST, horizon)
        expected, actual = rows.after(checked, horizon), rows.after(tested, horizon)
        linear = by_ridge(sheet, rows, horizon, checked, tested)
        seconds = time.monotonic() - began
        lstm_check, lstm_test = by_lstm(sheet, rows, horizon, checked, tested)
        share = lstm_share(linear.on_check - expected, lstm_check - expected)
        ours = (1 - share) * linear.on_test + share * lstm_test
        sheet.note(f"h={horizon}: the LSTM's share by validation, checked on halves: {share:.2f}")
        seen = rows.before(tested, DAY)
        answers = {
            "last value": naive_forecast(seen, 0, horizon),
            "seasonal naive": naive_forecast(seen, DAY, horizon),
            "our ridge alone": linear.on_test,
            "our LSTM alone": lstm_test,
        }
        against = reference(rows, horizon, tested)
        for metric, worth in (("MSE", np.square), ("MAE", np.abs)):
            simple = float(np.mean(worth(against - actual)))
            mine = float(np.mean(worth(ours - actual)))
            sheet.row(
                f"oil temperature, h = {horizon}",
                metric,
                mine,
                reference=simple,
                peers={name: float(np.mean(worth(answer - actual))) for name, answer in answers.items()},
                target=simple,
                holds=mine < simple,
                n=len(tested),
                seconds=time.monotonic() - began,
                ridge_seconds=round(seconds, 2),
            )
        late = reference(rows, horizon, tested, VALID)
        sheet.row(
            f"oil temperature, h = {horizon}, ridge and reference fitted again with the validation rows",
            "MSE",
            float(np.mean((linear.again - actual) ** 2)),
            reference=float(np.mean((late - actual) ** 2)),
            n=len(tested),
        )


if __name__ == "__main__":
    sys.exit(contract.run("forecast_ett", __doc__, measure))
