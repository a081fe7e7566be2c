"""Explicit ratings: how far from what a user gave is what we say?

    python benchmarks/recommend_ratings.py --data DIR [--quick] [--json]

DIR holds ratings.csv (or .csv.gz) with the columns of MovieLens: userId, movieId, rating. Random 5-fold over the ratings,
one fold assignment for all models; root mean squared and mean absolute error over all out-of-fold ratings, clipped to the
scale. Settings come from one inner split of the first fold's training part, the blend of the two sides from an inner split
of each fold's own. Reference: the regularised bias model, its ridges from the same inner split. --quick: two of the folds."""

from __future__ import annotations

import contract  # isort: skip - sets one thread before numpy comes

import csv
import gzip
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from lists import paired

from protocol.windows import Floats
from server.algorithms import rated_neighbours
from server.algorithms.rated_neighbours import Ratings, RatingSettings, rmse

FOLDS = 5
COLUMNS = ("userId", "movieId", "rating")
RIDGES = tuple((user, item) for user in (2.0, 5.0, 10.0) for item in (2.0, 3.0, 5.0))
CANDIDATES = tuple(
    RatingSettings(item_ridge=ridge, shrinkage=shrinkage, neighbours=neighbours)
    for ridge in (3.0, 5.0)
    for shrinkage in (50.0, 100.0)
    for neighbours in (25, 40)
)
PUBLISHED_SIZE = 100_836
"""Ratings of ml-latest-small, for which the fixed target was given."""
TARGET = 0.8736


def read(path: Path) -> Ratings:
    """The ratings of a file."""
    whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = csv.DictReader(whole.decode("utf-8-sig").splitlines())
    missing = [name for name in COLUMNS if name not in (lines.fieldnames or [])]
    if missing:
        raise SystemExit(f"recommend_ratings: {path.name} lacks the columns {missing}")
    return rated_neighbours.ratings((row["userId"], row["movieId"], float(row["rating"])) for row in lines)


def measure(sheet: contract.Sheet) -> None:
    """Rows for both errors, the sides alone as peers."""
    given = read(sheet.find(sheet.options.train, "ratings*.csv", "ratings*.csv.gz")[0])
    fold = np.random.default_rng(0).permutation(len(given.value)) % FOLDS
    folds = range(2 if sheet.options.quick else FOLDS)
    settings, ridges = choose(sheet, given.of(fold != 0))
    started = time.monotonic()
    said: dict[str, Floats] = {}
    ours_s = 0.0
    for k in folds:
        began = time.monotonic()
        fitted = rated_neighbours.fit(given.of(fold != k), settings)
        answers = {"ours": fitted.predict(given.who[fold == k], given.what[fold == k])}
        ours_s += time.monotonic() - began
        answers |= others(given.of(fold != k), given.of(fold == k), settings, ridges)
        for name, values in answers.items():
            said.setdefault(name, np.full(len(fold), np.nan))[fold == k] = values
        sheet.say(f"fold {k + 1} of {len(folds)}: {rmse(given.value[fold == k], answers['ours']):.4f}")
    judge(sheet, given, fold < len(folds), said, ours_s)
    sheet.note(
        f"{len(folds)} folds of a random 5-fold over {len(given.value)} ratings, {len(given.users)} users, "
        f"{len(given.items)} items; {time.monotonic() - started:.0f} s for all models; predictions within "
        f"{given.lowest:g} to {given.highest:g}; the peers are our two sides alone: no "
        "library for rating neighbourhoods is among the extras"
    )


def choose(sheet: contract.Sheet, training: Ratings) -> tuple[RatingSettings, RatingSettings]:
    """Our settings, and the bias model's, by a held-out fifth of the first fold's training part."""
    settings, _ = rated_neighbours.choose(training, CANDIDATES)
    held = np.random.default_rng(0).random(len(training.value)) < settings.held_out
    inner, truth = training.of(~held), training.of(held)
    errors = {
        pair: rmse(truth.value, _bias(inner, truth, RatingSettings(user_ridge=pair[0], item_ridge=pair[1])))
        for pair in RIDGES
    }
    user, item = min(errors, key=lambda pair: errors[pair])
    sheet.note(
        f"chosen on the inner split: item ridge {settings.item_ridge:g}, shrinkage {settings.shrinkage:g}, "
        f"{settings.neighbours} neighbours; the reference's user ridge {user:g}, item ridge {item:g}"
    )
    return settings, RatingSettings(user_ridge=user, item_ridge=item)


def others(training: Ratings, asked: Ratings, settings: RatingSettings, ridges: RatingSettings) -> dict[str, Floats]:
    """The reference, the mean, and each side without the other."""
    plain = rated_neighbours.fit(training, replace(settings, held_out=0.0))
    alone = {
        name: replace(plain, blend=np.eye(len(rated_neighbours.BLEND))[place]).predict(asked.who, asked.what)
        for place, name in enumerate(("item neighbours alone", "user neighbours alone"))
    }
    return {
        "bias model": _bias(training, asked, ridges),
        "mean": np.full(len(asked.value), training.value.mean()),
    } | alone


def judge(
    sheet: contract.Sheet,
    given: Ratings,
    counted: np.ndarray[tuple[int], np.dtype[np.bool_]],
    said: dict[str, Floats],
    seconds: float,
) -> None:
    """Writes the two rows."""
    truth, users = given.value[counted], given.who[counted].tolist()
    distance = {name: np.abs(values[counted] - truth) for name, values in said.items()}
    squared = {name: values**2 for name, values in distance.items()}
    whole = len(given.value) == PUBLISHED_SIZE and not sheet.options.quick
    for metric, errors in (("RMSE", squared), ("MAE", distance)):
        figures: dict[str, float] = {}
        for name, values in errors.items():
            figures[name] = float(np.sqrt(values.mean()) if metric == "RMSE" else values.mean())
        value, reference = figures.pop("ours"), figures.pop("bias model")
        target = (min(reference, TARGET) if whole else reference) if metric == "RMSE" else None
        difference, deviation = paired(errors["ours"], errors["bias model"], users)
        sheet.row(
            "rating of an item by a user, 5-fold",
            metric,
            value,
            reference=reference,
            peers={**figures},
            target=target,
            holds=None if target is None or sheet.options.quick else value <= target,
            n=len(truth),
            seconds=seconds,
            paired_error_difference=round(difference, 5),
            standard_error=round(deviation, 5),
        )


def _bias(training: Ratings, asked: Ratings, settings: RatingSettings) -> Floats:
    raw = rated_neighbours.fit_baseline(training, settings).predict(asked.who, asked.what)
    return np.clip(raw, training.lowest, training.highest)


if __name__ == "__main__":
    sys.exit(contract.run("recommend_ratings", __doc__, measure))
